//! One task for all who want the same thing at the same time.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex},
};

use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

use super::{Error, lock};

/// The flights under way, by what they ask upstream for.
///
/// Each runs in a task of its own: a client that hangs up ends only its own waiting.
#[derive(Debug)]
pub(super) struct Flights<K, T> {
    running: Arc<Mutex<Running<K, T>>>,
}

type Running<K, T> = HashMap<K, watch::Receiver<Landed<T>>>;

/// `None` until the flight has landed.
type Landed<T> = Option<Result<T, Error>>;

impl<K, T> Flights<K, T>
where
    K: Clone + Eq + Hash + Send + 'static,
    T: Clone + Send + Sync + 'static,
{
    /// Joins the flight for `key`, or starts it with `flight`; waits for its result until
    /// `deadline`. One that is late goes on.
    pub(super) async fn join<F>(
        &self,
        key: K,
        deadline: Instant,
        flight: impl FnOnce() -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let mut landed = self.board(key, flight);
        let landing = landed.wait_for(Option::is_some);
        let landed = timeout_at(deadline, landing).await.map_err(|_| Error::late())?;
        // The sender is gone without a word when the task panicked.
        let result = landed.map_err(|_| Error::lost())?;
        result.clone().unwrap_or_else(|| Err(Error::lost()))
    }

    fn board<F>(&self, key: K, flight: impl FnOnce() -> F) -> watch::Receiver<Landed<T>>
    where
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let mut running = lock(&self.running);
        if let Some(landed) = running.get(&key) {
            return landed.clone();
        }
        let (land, landed) = watch::channel(None);
        running.insert(key.clone(), landed.clone());
        // A runtime that is shutting down drops the task at once, and with it the entry, which locks.
        drop(running);
        let entry = Entry { running: self.running.clone(), key };
        let flight = flight();
        tokio::spawn(async move {
            let result = flight.await;
            // The entry goes first: whoever comes after the result starts anew.
            drop(entry);
            land.send_replace(Some(result));
        });
        landed
    }
}

impl<K, T> Default for Flights<K, T> {
    fn default() -> Flights<K, T> {
        Flights { running: Arc::default() }
    }
}

/// Takes the flight off the list when it lands, also by a panic.
struct Entry<K: Eq + Hash, T> {
    running: Arc<Mutex<Running<K, T>>>,
    key: K,
}

impl<K: Eq + Hash, T> Drop for Entry<K, T> {
    fn drop(&mut self) {
        lock(&self.running).remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flight_that_a_stop_forbids_holds_nobody() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let handle = runtime.handle().clone();
        drop(runtime);
        let _context = handle.enter();
        let flights = Flights::<&str, ()>::default();
        for _ in 0..2 {
            let landed = flights.board("blob", async || Ok(()));
            assert!(landed.has_changed().is_err(), "the sender is gone");
            assert!(lock(&flights.running).is_empty());
        }
    }
}
