//! One task for all who want the same thing at the same time.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex},
};

use tokio::sync::watch;

use super::lock;

/// The flights under way, by what they fetch.
///
/// Each runs in a task of its own: a client that hangs up ends only its own waiting.
#[derive(Debug)]
pub(super) struct Flights<K, V> {
    running: Arc<Mutex<Running<K, V>>>,
}

type Running<K, V> = HashMap<K, watch::Receiver<Option<V>>>;

impl<K, V> Flights<K, V>
where
    K: Clone + Eq + Hash + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Joins the flight for `key`, or starts it with `flight`; waits for its result.
    ///
    /// `None` when the task panicked.
    pub(super) async fn join<F>(&self, key: K, flight: impl FnOnce() -> F) -> Option<V>
    where
        F: Future<Output = V> + Send + 'static,
    {
        let mut landed = self.board(key, flight);
        let result = landed.wait_for(Option::is_some).await.ok()?;
        result.clone()
    }

    fn board<F>(&self, key: K, flight: impl FnOnce() -> F) -> watch::Receiver<Option<V>>
    where
        F: Future<Output = V> + Send + 'static,
    {
        let mut running = lock(&self.running);
        if let Some(landed) = running.get(&key) {
            return landed.clone();
        }
        let (land, landed) = watch::channel(None);
        running.insert(key.clone(), landed.clone());
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

impl<K, V> Default for Flights<K, V> {
    fn default() -> Flights<K, V> {
        Flights { running: Arc::default() }
    }
}

/// Takes the flight off the list when it lands, also by a panic.
struct Entry<K: Eq + Hash, V> {
    running: Arc<Mutex<Running<K, V>>>,
    key: K,
}

impl<K: Eq + Hash, V> Drop for Entry<K, V> {
    fn drop(&mut self) {
        lock(&self.running).remove(&self.key);
    }
}
