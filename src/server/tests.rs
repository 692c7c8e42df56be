//! The server on real sockets.

mod http2;

use std::{
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    os::unix::net::UnixListener,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use http_body_util::Full;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpStream, UnixStream},
    sync::Notify,
};

use super::*;
use crate::config::Listen;

const ANY_PORT: &str = "127.0.0.1:0";

async fn hello(client: Client, _request: Request<Incoming>) -> Response<Full<Bytes>> {
    Response::new(Full::new(Bytes::from(format!("hello {}", client.peer))))
}

/// Requests that wait to be let go.
#[derive(Default)]
struct Waiting {
    began: Notify,
    let_go: Notify,
    dropped: Notify,
}

impl Waiting {
    async fn answer(self: Arc<Self>) -> Response<Full<Bytes>> {
        let _noticed = Noticed(self.clone());
        self.began.notify_one();
        self.let_go.notified().await;
        Response::new(Full::new(Bytes::from_static(b"at last")))
    }
}

/// Tells when the handler that holds it ends.
struct Noticed(Arc<Waiting>);

impl Drop for Noticed {
    fn drop(&mut self) {
        self.0.dropped.notify_one();
    }
}

/// A server whose requests wait.
async fn waiting_server() -> (Server, SocketAddr, Arc<Waiting>) {
    let (listener, address) = listener(ANY_PORT).await;
    let server = Server::new();
    let waiting = Arc::new(Waiting::default());
    let handler = waiting.clone();
    server.serve(listener, move |_, _| handler.clone().answer());
    (server, address, waiting)
}

async fn listener(listen: &str) -> (Listener, SocketAddr) {
    let listen = Listen::Tcp(listen.parse().unwrap());
    let listener = Listener::bind(&listen).await.unwrap();
    let address = listener.address().unwrap();
    (listener, address)
}

async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &[u8]) -> String {
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    // A reset after the answer is the server's way to refuse the rest of a request.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

async fn get(address: SocketAddr) -> String {
    let stream = TcpStream::connect(address).await.unwrap();
    exchange(stream, b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await
}

#[tokio::test]
async fn serves_tcp_and_names_the_peer() {
    let (listener, address) = listener(ANY_PORT).await;
    let server = Server::new();
    server.serve(listener, hello);
    assert!(get(address).await.ends_with("hello 127.0.0.1"));
    server.stop(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn a_private_socket_is_its_owners_from_the_first_moment() {
    let directory = tempfile::tempdir().unwrap();
    let long = directory.path().join("d".repeat(120));
    std::fs::create_dir(&long).unwrap();
    for path in [directory.path().join("admin.sock"), long.join("admin.sock")] {
        let left = Listener::bind_private(&path).unwrap();
        std::mem::forget(left);
        let listener = Listener::bind_private(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);

        let server = Server::new();
        server.serve(listener, hello);
        let stream = dial(&Listen::Unix(path.clone()), None).await.unwrap();
        let answer = exchange(stream, b"GET / HTTP/1.0\r\n\r\n").await;
        assert!(answer.ends_with("hello unix"), "{answer}");
        server.stop(Duration::from_secs(5)).await;
        assert!(!path.exists());
    }
}

#[tokio::test]
async fn serves_a_unix_socket_and_removes_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("registry.sock");
    drop(UnixListener::bind(&path).unwrap());
    let listen = Listen::Unix(path.clone());
    let listener = Listener::bind(&listen).await.unwrap();

    let taken = Listener::bind(&listen).await.unwrap_err();
    assert!(taken.to_string().contains("choose another"), "{taken}");

    let server = Server::new();
    server.serve(listener, hello);
    let stream = UnixStream::connect(&path).await.unwrap();
    let answer = exchange(stream, b"GET / HTTP/1.0\r\n\r\n").await;
    assert!(answer.ends_with("hello unix"), "{answer}");
    server.stop(Duration::from_secs(5)).await;
    assert!(!path.exists());
}

#[tokio::test]
async fn a_taken_port_is_one_clear_error() {
    let (_listener, address) = listener(ANY_PORT).await;
    let error = Listener::bind(&Listen::Tcp(address)).await.unwrap_err();
    let expected = format!("cannot listen on {address}: ");
    assert!(error.to_string().starts_with(&expected), "{error}");
    assert!(error.to_string().contains("; stop what listens there"), "{error}");
}

#[tokio::test]
async fn a_drain_lets_a_slow_response_end_and_refuses_new_connections() {
    let (server, address, waiting) = waiting_server().await;
    let answer = tokio::spawn(get(address));
    waiting.began.notified().await;

    let stopped = tokio::spawn(server.stop(Duration::from_secs(10)));
    while TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    waiting.let_go.notify_one();
    assert!(answer.await.unwrap().ends_with("at last"));
    stopped.await.unwrap();
}

#[tokio::test]
async fn a_drain_closes_idle_connections_at_once() {
    let (listener, address) = listener(ANY_PORT).await;
    let server = Server::new();
    server.serve(listener, hello);
    let mut idle = TcpStream::connect(address).await.unwrap();
    idle.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let mut answer = [0; 512];
    assert!(idle.read(&mut answer).await.unwrap() > 0);

    let patience = Duration::from_secs(60);
    let stopped = tokio::time::timeout(Duration::from_secs(5), server.stop(patience));
    assert!(stopped.await.is_ok());
}

#[tokio::test]
async fn a_drain_cuts_what_does_not_end() {
    let (server, address, waiting) = waiting_server().await;
    let answer = tokio::spawn(get(address));
    waiting.began.notified().await;

    server.stop(Duration::from_millis(100)).await;
    assert_eq!(answer.await.unwrap(), "");
}

#[tokio::test]
async fn a_handler_whose_client_hangs_up_is_dropped() {
    let (_server, address, waiting) = waiting_server().await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    waiting.began.notified().await;
    drop(stream);
    let dropped = tokio::time::timeout(Duration::from_secs(30), waiting.dropped.notified());
    assert!(dropped.await.is_ok());
}

#[tokio::test]
async fn a_head_that_is_too_long_is_refused_and_the_server_goes_on() {
    let (listener, address) = listener(ANY_PORT).await;
    let server = Server::new();
    server.serve(listener, hello);
    let head = format!(
        "GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n",
        "y".repeat(2 * connection::HEAD_BYTES as usize)
    );
    let stream = TcpStream::connect(address).await.unwrap();
    let answer = exchange(stream, head.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    assert!(get(address).await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn the_server_survives_a_handler_that_panics() {
    let (listener, address) = listener(ANY_PORT).await;
    let server = Server::new();
    let requests = Arc::new(AtomicUsize::new(0));
    server.serve(listener, move |peer, request| {
        let is_first = requests.fetch_add(1, Ordering::SeqCst) == 0;
        async move {
            assert!(!is_first, "a handler's mistake");
            hello(peer, request).await
        }
    });
    assert_eq!(get(address).await, "");
    assert!(get(address).await.starts_with("HTTP/1.1 200 "));
    server.stop(Duration::from_secs(5)).await;
}

#[test]
fn the_limit_of_open_files_is_raised_to_the_hard_one() {
    raise_open_file_limit();
    let limit = getrlimit(Resource::Nofile);
    assert_eq!(limit.current, limit.maximum);
}
