//! Names: what becomes of them when they change, fail, or have an address that nobody answers at.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};

use tokio::net::{TcpListener, TcpSocket};

use super::{
    Error, LIMITS, Resolver, Upstream, build_with, endpoint,
    fake::{Fake, Reply},
    get_blob, shared,
};
use crate::config;

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// An upstream at `http://registry.test:port`, with `resolver` to say where that is.
fn upstream(port: u16, limits: &config::Download, resolver: Resolver) -> Upstream {
    let endpoint = endpoint(&format!("http://registry.test:{port}"), None);
    build_with(vec![endpoint], &[], &shared(limits, resolver))
}

/// Says that every name has these addresses.
fn always(addresses: &[IpAddr]) -> Resolver {
    let addresses: Vec<_> = addresses.iter().map(|address| SocketAddr::new(*address, 0)).collect();
    Resolver::asking(move |_| Ok(addresses.clone()))
}

/// A listener whose queue is full: whoever connects hears nothing.
struct BlackHole {
    _listener: TcpListener,
    _queue: Vec<TcpStream>,
}

impl BlackHole {
    fn open(address: SocketAddr) -> BlackHole {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4().unwrap(),
            SocketAddr::V6(_) => TcpSocket::new_v6().unwrap(),
        };
        socket.bind(address).unwrap();
        let listener = socket.listen(1).unwrap();
        let moment = Duration::from_millis(200);
        let connect = || TcpStream::connect_timeout(&address, moment).ok();
        BlackHole { _queue: std::iter::from_fn(connect).collect(), _listener: listener }
    }
}

#[tokio::test]
async fn a_name_that_moves_is_followed() {
    let old = Fake::start(|_| Reply::new(200).body("old")).await;
    let elsewhere = format!("127.0.0.2:{}", old.port());
    let new = Fake::start_at(&elsewhere, |_| Reply::new(200).body("new")).await;
    let address = Arc::new(Mutex::new(V4));
    let resolver = {
        let address = Arc::clone(&address);
        Resolver::asking(move |_| Ok(vec![SocketAddr::new(*address.lock().unwrap(), 0)]))
    };
    let upstream = upstream(old.port(), &LIMITS, resolver);
    for (at, body) in [(V4, "old"), (Ipv4Addr::new(127, 0, 0, 2).into(), "new"), (V4, "old")] {
        *address.lock().unwrap() = at;
        assert_eq!(get_blob(&upstream).await.unwrap().collect(9).await.unwrap(), body);
    }
    assert_eq!((old.seen().len(), new.seen().len()), (2, 1));
}

#[tokio::test]
async fn a_failure_is_told_and_not_remembered() {
    let fake = Fake::start(|_| Reply::new(200)).await;
    let answers = Mutex::new(vec![
        Ok(vec![SocketAddr::new(V4, 0)]),
        Ok(Vec::new()),
        Err(io::Error::other("Temporary failure in name resolution")),
    ]);
    let resolver = Resolver::asking(move |_| answers.lock().unwrap().pop().unwrap());
    let upstream = upstream(fake.port(), &LIMITS, resolver);
    for problem in ["Temporary failure in name resolution", "it has no address"] {
        let error = get_blob(&upstream).await.unwrap_err();
        assert!(matches!(error, Error::Unreachable(_)), "{error:?}");
        let expected = format!(": cannot resolve registry.test: {problem}");
        assert!(error.to_string().ends_with(&expected), "{error}");
    }
    get_blob(&upstream).await.unwrap();
}

#[tokio::test]
async fn a_resolver_that_hangs_is_waited_for_no_longer_than_a_connection() {
    let (release, released) = mpsc::channel::<()>();
    let released = Mutex::new(released);
    let resolver = Resolver::asking(move |_| {
        let _ = released.lock().unwrap().recv();
        Ok(Vec::new())
    });
    let error = get_blob(&upstream(1, &LIMITS, resolver)).await.unwrap_err();
    assert!(error.to_string().contains("no connection within 500ms"), "{error}");
    drop(release);
}

/// Some containers have no IPv6, not even of their own.
fn has_ipv6() -> bool {
    std::net::TcpListener::bind((V6, 0)).is_ok()
}

#[tokio::test]
async fn a_name_with_ipv6_only_is_reached() {
    if !has_ipv6() {
        return;
    }
    let fake = Fake::start_at("[::1]:0", |_| Reply::new(200)).await;
    get_blob(&upstream(fake.port(), &LIMITS, always(&[V6]))).await.unwrap();
}

/// Nothing answers by IPv6, as where the router has lost its way. IPv4 does not wait for the end of
/// the connect timeout.
#[tokio::test]
async fn ipv4_steps_in_for_ipv6_at_once() {
    if !has_ipv6() {
        return;
    }
    let fake = Fake::start(|_| Reply::new(200)).await;
    let _hole = BlackHole::open(SocketAddr::new(V6, fake.port()));
    let limits = config::Download { connect_timeout: Duration::from_secs(60), ..LIMITS };
    let upstream = upstream(fake.port(), &limits, always(&[V6, V4]));
    // One deadline for all: a wait of half the connect timeout would pass it.
    get_blob(&upstream).await.unwrap();
}

#[tokio::test]
async fn a_dead_address_leaves_time_for_the_next() {
    let fake = Fake::start(|_| Reply::new(200)).await;
    let dead = Ipv4Addr::new(127, 0, 0, 3).into();
    let _hole = BlackHole::open(SocketAddr::new(dead, fake.port()));
    let limits = config::Download { connect_timeout: Duration::from_secs(2), ..LIMITS };
    get_blob(&upstream(fake.port(), &limits, always(&[dead, V4]))).await.unwrap();
}
