//! Names to addresses, by the system's own rules and without a memory: what the system says of a
//! name, good or bad, holds for the one connection.
//!
//! The system's resolver blocks a thread, for half a minute if no name server answers, and nothing
//! can interrupt it. The store works on threads of the same kind, so there are only few look-ups at
//! once, and one for each name: whoever else wants it waits with those who do.

use std::{
    collections::HashMap,
    io,
    net::{SocketAddr, ToSocketAddrs as _},
    sync::{Arc, Mutex, PoisonError},
};

use futures_util::future::FutureExt as _;
use tokio::{sync::Semaphore, task::spawn_blocking};

use crate::upstream::health::{Flight, launch};

/// Look-ups at once, of any names.
const MAX_LOOKUPS: usize = 8;

/// How a name is looked up: a call that blocks. The ports of the answer mean nothing.
type Lookup = dyn Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync;

type Answer = Result<Vec<SocketAddr>, Unresolved>;

/// Looks names up; clones share what is under way.
#[derive(Clone)]
pub struct Resolver {
    inner: Arc<Inner>,
}

struct Inner {
    lookup: Box<Lookup>,
    under_way: Mutex<HashMap<String, Flight<Answer>>>,
    permits: Semaphore,
}

/// A name without an address.
#[derive(Clone, Debug, thiserror::Error)]
#[error("cannot resolve {host}: {reason}")]
pub(in crate::upstream) struct Unresolved {
    host: String,
    reason: String,
}

impl Resolver {
    /// Asks the system.
    pub fn system() -> Resolver {
        Resolver::asking(|host| Ok((host, 0).to_socket_addrs()?.collect()))
    }

    /// Asks `lookup`, on a thread that it may block.
    pub(in crate::upstream) fn asking(
        lookup: impl Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static,
    ) -> Resolver {
        Resolver {
            inner: Arc::new(Inner {
                lookup: Box::new(lookup),
                under_way: Mutex::default(),
                permits: Semaphore::new(MAX_LOOKUPS),
            }),
        }
    }

    /// The addresses of `host`, each with `port`, in the order in which the system prefers them.
    pub(super) async fn addresses(
        &self,
        host: &str,
        port: u16,
    ) -> Result<Vec<SocketAddr>, Unresolved> {
        let mut addresses = self.flight(host).await?;
        for address in &mut addresses {
            address.set_port(port);
        }
        Ok(addresses)
    }

    /// The look-up that is under way, or a new one.
    fn flight(&self, host: &str) -> Flight<Answer> {
        let mut under_way = self.inner.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = under_way.get(host) {
            return flight.clone();
        }
        let (inner, name) = (Arc::clone(&self.inner), host.to_owned());
        let flight = launch(async move { inner.look_up(name).await }.boxed());
        under_way.insert(host.to_owned(), flight.clone());
        flight
    }
}

impl Inner {
    async fn look_up(self: Arc<Inner>, host: String) -> Answer {
        // Never closed: an error here is no permit, and no reason not to ask.
        let _permit = self.permits.acquire().await;
        let (inner, name) = (Arc::clone(&self), host.clone());
        let found = spawn_blocking(move || (inner.lookup)(&name)).await;
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner).remove(&host);
        match found.unwrap_or_else(|broken| Err(io::Error::other(broken))) {
            Ok(addresses) if addresses.is_empty() => {
                Err(Unresolved { host, reason: "it has no address".to_owned() })
            }
            Ok(addresses) => Ok(addresses),
            Err(error) => Err(Unresolved { host, reason: error.to_string() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Condvar,
        atomic::{AtomicUsize, Ordering},
    };

    use futures_util::future::join_all;

    use super::*;

    /// A name server that says nothing until it is told to.
    #[derive(Default)]
    struct Held {
        asked: AtomicUsize,
        is_open: Mutex<bool>,
        opened: Condvar,
    }

    impl Held {
        fn resolver(self: &Arc<Held>) -> Resolver {
            let held = Arc::clone(self);
            Resolver::asking(move |_| {
                held.asked.fetch_add(1, Ordering::SeqCst);
                let is_open = held.is_open.lock().unwrap();
                drop(held.opened.wait_while(is_open, |is_open| !*is_open).unwrap());
                Ok(vec!["192.0.2.1:0".parse().unwrap()])
            })
        }

        async fn was_asked(&self, times: usize) {
            while self.asked.load(Ordering::SeqCst) < times {
                tokio::task::yield_now().await;
            }
        }

        fn open(&self) {
            *self.is_open.lock().unwrap() = true;
            self.opened.notify_all();
        }
    }

    #[tokio::test]
    async fn one_look_up_serves_all_who_wait_and_is_forgotten() {
        let held = Arc::new(Held::default());
        let resolver = held.resolver();
        let all = join_all((0..50).map(|port| resolver.addresses("a.test", port)));
        let open = async {
            held.was_asked(1).await;
            held.open();
        };
        let (answers, ()) = tokio::join!(all, open);
        for (answer, port) in answers.into_iter().zip(0..) {
            assert_eq!(answer.unwrap(), [SocketAddr::from(([192, 0, 2, 1], port))]);
        }
        assert_eq!(held.asked.load(Ordering::SeqCst), 1);
        resolver.addresses("a.test", 1).await.unwrap();
        assert_eq!(held.asked.load(Ordering::SeqCst), 2);
    }

    /// With one thread more than may hang, other blocking work goes on.
    #[test]
    fn a_resolver_that_hangs_leaves_threads_for_the_store() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .max_blocking_threads(MAX_LOOKUPS + 1)
            .build()
            .unwrap();
        let held = Arc::new(Held::default());
        let resolver = held.resolver();
        let names: Vec<String> = (0..50).map(|number| format!("{number}.test")).collect();
        let all = join_all(names.iter().map(|name| resolver.addresses(name, 1)));
        let work = async {
            held.was_asked(MAX_LOOKUPS).await;
            spawn_blocking(|| ()).await.unwrap();
            assert_eq!(held.asked.load(Ordering::SeqCst), MAX_LOOKUPS);
            held.open();
        };
        let (answers, ()) = runtime.block_on(async { tokio::join!(all, work) });
        assert!(answers.iter().all(Result::is_ok));
        assert_eq!(held.asked.load(Ordering::SeqCst), 50);
    }
}
