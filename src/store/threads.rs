//! Threads that write what the table has, apart from everything a client waits for.

use std::{
    io,
    sync::{
        Arc,
        mpsc::{self, RecvTimeoutError},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use super::directory::Lock;

/// A thread that looks after something at intervals, until it is told to finish. Dropped
/// untold, it ends without finishing, as a process that is killed does.
#[derive(Debug)]
pub struct Keeper {
    orders: mpsc::Sender<Order>,
    writes: bool,
    thread: JoinHandle<bool>,
}

/// What a thread does with its keeper.
pub struct Work<K> {
    /// At each interval.
    pub keep_up: fn(&mut K),
    /// When somebody waits for it; tells whether everything is on the disk now. `None`: it writes
    /// nothing that anybody would wait for.
    pub write_now: Option<fn(&mut K) -> bool>,
    /// At the end; tells whether everything is on the disk now.
    pub finish: fn(K) -> bool,
}

enum Order {
    WriteNow(mpsc::Sender<bool>),
    Finish,
}

impl Keeper {
    /// Runs `keep_up` every `interval`. The thread holds the lock of the directory, since it
    /// writes there.
    pub fn start<K: Send + 'static>(
        name: &str,
        interval: Duration,
        lock: Arc<Lock>,
        mut keeper: K,
        work: Work<K>,
    ) -> io::Result<Keeper> {
        let (orders, told) = mpsc::channel();
        let writes = work.write_now.is_some();
        let work = move || {
            let finished = loop {
                match told.recv_timeout(interval) {
                    Err(RecvTimeoutError::Timeout) => (work.keep_up)(&mut keeper),
                    Err(RecvTimeoutError::Disconnected) => break false,
                    Ok(Order::Finish) => break true,
                    Ok(Order::WriteNow(answer)) => {
                        let written = work.write_now.map(|write_now| write_now(&mut keeper));
                        // Who asked may have gone.
                        let _ = answer.send(written.unwrap_or(true));
                    }
                }
            };
            let written = if finished {
                (work.finish)(keeper)
            } else {
                drop(keeper);
                false
            };
            drop(lock);
            written
        };
        let thread = thread::Builder::new().name(name.to_owned()).spawn(work)?;
        Ok(Keeper { orders, writes, thread })
    }

    /// Has everything written at once. What comes tells whether that worked; nothing comes when the
    /// thread has ended. `None`: it writes nothing that anybody would wait for.
    pub fn write_now(&self) -> Option<mpsc::Receiver<bool>> {
        if !self.writes {
            return None;
        }
        let (answer, written) = mpsc::channel();
        // An error means that the thread has ended: then the answer is dropped.
        let _ = self.orders.send(Order::WriteNow(answer));
        Some(written)
    }

    /// Lets the keeper write what is left, and waits for it. Tells whether everything is on the disk
    /// now. Blocking.
    pub fn finish(self) -> bool {
        // An error means that the thread has ended already, of which the join tells.
        let _ = self.orders.send(Order::Finish);
        self.thread.join().unwrap_or_else(|_| {
            tracing::error!("a thread of the store has panicked");
            false
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::directory::Directory;

    #[test]
    fn the_end_tells_whether_everything_was_written() {
        let data_dir = tempfile::tempdir().unwrap();
        let (_, lock) = Directory::open(data_dir.path()).unwrap();
        let lock = Arc::new(lock);
        for (end, is_written) in [(Some(true), true), (Some(false), false), (None, false)] {
            let finish = |end: Option<bool>| end.expect("a test");
            let work = Work { keep_up: |_| (), write_now: None, finish };
            let minute = Duration::from_secs(60);
            let keeper = Keeper::start("test", minute, Arc::clone(&lock), end, work).unwrap();
            assert_eq!(keeper.finish(), is_written);
        }
    }
}
