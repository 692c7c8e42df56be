//! Accepting connections, or not.

use std::{
    io::ErrorKind,
    net::SocketAddr,
    panic::AssertUnwindSafe,
    sync::{Arc, atomic::Ordering},
};

use futures_util::FutureExt as _;
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::watch,
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use super::{Shared, Tallied, http};

/// Whether and how a registry can be reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// In good health.
    #[default]
    Up,
    /// Nobody listens: connections are refused.
    Down,
    /// Connections are taken, and nothing is ever answered, not on old ones either.
    BlackHole,
    /// Connections are closed as soon as they are taken.
    Dropping,
}

/// Accepts connections for as long as the registry lives.
pub(super) async fn accept(
    shared: Arc<Shared>,
    listener: TcpListener,
    acceptor: Option<TlsAcceptor>,
) {
    let mut modes = shared.mode.subscribe();
    // A test may have set a mode before this task first ran.
    modes.mark_changed();
    let mut listener = Some(listener);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            stream = next_connection(listener.as_ref()) => {
                let acceptor = acceptor.clone();
                shared.connections.fetch_add(1, Ordering::SeqCst);
                connections.spawn(guarded(Arc::clone(&shared), stream, acceptor));
            }
            _ = modes.changed() => {
                let mode = *modes.borrow_and_update();
                if mode != Mode::BlackHole {
                    connections.shutdown().await;
                }
                listener = match (mode, listener.take()) {
                    (Mode::Down, _) => None,
                    (_, Some(listener)) => Some(listener),
                    (_, None) => Some(listen_again(&shared)),
                };
                shared.reached.send_replace(mode);
            }
        }
    }
}

async fn next_connection(listener: Option<&TcpListener>) -> TcpStream {
    match listener {
        Some(listener) => listener.accept().await.unwrap().0,
        None => std::future::pending().await,
    }
}

fn listen_again(shared: &Shared) -> TcpListener {
    socket(shared.address).listen(1024).unwrap()
}

/// A socket bound to `address`, even if another was bound to it before.
pub(super) fn socket(address: SocketAddr) -> TcpSocket {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4().unwrap(),
        SocketAddr::V6(_) => TcpSocket::new_v6().unwrap(),
    };
    socket.set_reuseaddr(true).unwrap();
    socket.bind(address).unwrap();
    socket
}

/// A panic in here is a complaint like any other.
async fn guarded(shared: Arc<Shared>, stream: TcpStream, acceptor: Option<TlsAcceptor>) {
    let served = AssertUnwindSafe(connection(&shared, stream, acceptor)).catch_unwind();
    if let Err(panic) = served.await {
        let message = panic.downcast_ref::<String>().cloned();
        shared.complain(message.unwrap_or_else(|| "a panic".to_owned()));
    }
}

async fn connection(shared: &Shared, stream: TcpStream, acceptor: Option<TlsAcceptor>) {
    let _open = Tallied::enter(&shared.open);
    let mut modes = shared.mode.subscribe();
    let mode = *modes.borrow_and_update();
    match mode {
        Mode::Up => {
            // Nothing is lost by an error here: Larder hung up.
            tokio::pin! { let served = speak(shared, stream, acceptor); }
            tokio::select! {
                _ = &mut served => return,
                _ = modes.changed() => {}
            }
            wait_out_black_hole(modes).await;
        }
        Mode::BlackHole => {
            let _held_open = stream;
            wait_out_black_hole(modes).await;
        }
        Mode::Dropping | Mode::Down => {}
    }
}

async fn wait_out_black_hole(mut modes: watch::Receiver<Mode>) {
    let _ = modes.wait_for(|mode| *mode != Mode::BlackHole).await;
}

async fn speak(
    shared: &Shared,
    mut stream: TcpStream,
    acceptor: Option<TlsAcceptor>,
) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let Some(acceptor) = acceptor else {
        let served = http::serve(shared, &mut stream).await;
        if served.as_ref().is_err_and(|error| error.kind() == ErrorKind::ConnectionReset) {
            // What is closed like this is reset.
            stream.set_zero_linger()?;
        }
        return served;
    };
    let stream = acceptor.accept(stream).await?;
    let tls = stream.get_ref().1;
    if tls.peer_certificates().is_some() {
        shared.certified.fetch_add(1, Ordering::SeqCst);
    }
    let protocol = tls.alpn_protocol();
    assert_eq!(
        protocol.unwrap_or(b"http/1.1"),
        b"http/1.1",
        "bodies over one HTTP/2 connection would share its window"
    );
    http::serve(shared, stream).await
}
