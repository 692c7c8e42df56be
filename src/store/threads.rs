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
    finish: mpsc::Sender<()>,
    thread: JoinHandle<()>,
}

impl Keeper {
    /// Runs `keep_up` every `interval`. The thread holds the lock of the directory, since it
    /// writes there.
    pub fn start<K: Send + 'static>(
        name: &str,
        interval: Duration,
        lock: Arc<Lock>,
        mut keeper: K,
        keep_up: fn(&mut K),
        finish: fn(K),
    ) -> io::Result<Keeper> {
        let (sender, told) = mpsc::channel();
        let work = move || {
            let finished = loop {
                match told.recv_timeout(interval) {
                    Err(RecvTimeoutError::Timeout) => keep_up(&mut keeper),
                    Err(RecvTimeoutError::Disconnected) => break false,
                    Ok(()) => break true,
                }
            };
            if finished {
                finish(keeper);
            } else {
                drop(keeper);
            }
            drop(lock);
        };
        Ok(Keeper {
            finish: sender,
            thread: thread::Builder::new().name(name.to_owned()).spawn(work)?,
        })
    }

    /// Lets the keeper write what is left, and waits for it. Blocking.
    pub fn finish(self) {
        // An error means that the thread has ended already, of which the join tells.
        let _ = self.finish.send(());
        if self.thread.join().is_err() {
            tracing::error!("a thread of the store has panicked");
        }
    }
}
