//! HTTP/2 on real sockets.

use h2::{Reason, client::SendRequest};
use tokio::task::JoinHandle;

use super::*;

/// A client, and how its connection ends.
async fn connect(address: SocketAddr) -> (SendRequest<Bytes>, JoinHandle<Result<(), h2::Error>>) {
    let stream = TcpStream::connect(address).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    (client, tokio::spawn(connection))
}

fn get(uri: &str) -> Request<()> {
    Request::get(uri).body(()).unwrap()
}

/// The status and body of the answer to a GET.
async fn ask(client: &mut SendRequest<Bytes>, uri: &str) -> Result<(u16, Bytes), h2::Error> {
    let (response, _) = client.send_request(get(uri), true)?;
    let (head, mut body) = response.await?.into_parts();
    let mut bytes = Vec::new();
    while let Some(data) = body.data().await {
        bytes.extend_from_slice(&data?);
    }
    Ok((head.status.as_u16(), bytes.into()))
}

/// What of a request the handler sees.
async fn mirrored(_client: Client, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let hosts: Vec<_> = request.headers().get_all("host").iter().collect();
    Response::new(Full::new(Bytes::from(format!("{} {hosts:?}", request.uri()))))
}

/// HTTP/2 puts frames around pieces of a file, and not every server is to use sendfile(2).
#[tokio::test]
async fn only_http1_has_an_outlet_where_there_shall_be_one() {
    let handler = |client: Client, _: Request<Incoming>| async move {
        let has_outlet = client.outlet.is_some().to_string();
        Response::new(Full::new(Bytes::from(has_outlet)))
    };
    for (server, over_http1) in [(Server::new(), "false"), (Server::new().with_sendfile(), "true")]
    {
        let (listener, address) = listener(ANY_PORT).await;
        server.serve(listener, handler);
        assert!(super::get(address).await.ends_with(over_http1));
        let (mut client, _) = connect(address).await;
        let (_, over_http2) = ask(&mut client, "http://a/").await.unwrap();
        assert_eq!(over_http2, "false");
    }
}

#[tokio::test]
async fn the_handler_sees_the_host_in_one_place() {
    let (listener, address) = listener(ANY_PORT).await;
    let server = Server::new();
    server.serve(listener, mirrored);
    let expected = r#"/v2/?n=1 ["mirror:5000"]"#;

    let (mut client, _) = connect(address).await;
    let (_, seen) = ask(&mut client, "http://mirror:5000/v2/?n=1").await.unwrap();
    assert_eq!(seen, expected);
    for target in
        ["/v2/?n=1 HTTP/1.1\r\nhost: mirror:5000", "http://mirror:5000/v2/?n=1 HTTP/1.1\r\nhost: a"]
    {
        let stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {target}\r\nconnection: close\r\n\r\n");
        let answer = exchange(stream, request.as_bytes()).await;
        assert!(answer.ends_with(expected), "{answer}");
    }
}

#[tokio::test]
async fn a_handler_whose_stream_is_reset_is_dropped_and_the_connection_goes_on() {
    let (_server, address, waiting) = waiting_server().await;
    let (mut client, _) = connect(address).await;
    let (response, mut stream) = client.send_request(get("http://a/"), true).unwrap();
    waiting.began.notified().await;
    stream.send_reset(Reason::CANCEL);
    drop(response);
    let dropped = tokio::time::timeout(Duration::from_secs(30), waiting.dropped.notified());
    assert!(dropped.await.is_ok());

    let (response, _) = client.send_request(get("http://a/"), true).unwrap();
    waiting.began.notified().await;
    waiting.let_go.notify_one();
    assert_eq!(response.await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_drain_closes_idle_connections_and_waits_for_streams() {
    let (server, address, waiting) = waiting_server().await;
    let (_idle, idle_ended) = connect(address).await;
    let (mut client, _) = connect(address).await;
    let answer = tokio::spawn(async move { ask(&mut client, "http://a/").await });
    waiting.began.notified().await;

    let stopped = tokio::spawn(server.stop(Duration::from_secs(60)));
    idle_ended.await.unwrap().unwrap();
    assert!(!stopped.is_finished());
    waiting.let_go.notify_one();
    assert_eq!(answer.await.unwrap().unwrap(), (200, Bytes::from_static(b"at last")));
    stopped.await.unwrap();
}

/// Takes its time when it is dropped.
struct SlowToLeave(Arc<AtomicUsize>);

impl Drop for SlowToLeave {
    fn drop(&mut self) {
        std::thread::sleep(Duration::from_millis(100));
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_cuts_streams_that_do_not_end_and_outlives_their_handlers() {
    let (listener, address) = listener(ANY_PORT).await;
    let server = Server::new();
    let left = Arc::new(AtomicUsize::new(0));
    let (asked, counter) = (Arc::new(Notify::new()), left.clone());
    let handler_asked = asked.clone();
    server.serve(listener, move |peer, request| {
        let slow = SlowToLeave(counter.clone());
        handler_asked.notify_one();
        async move {
            std::future::pending::<()>().await;
            drop(slow);
            hello(peer, request).await
        }
    });
    let (mut client, _) = connect(address).await;
    let answer = tokio::spawn(async move { ask(&mut client, "http://a/").await });
    asked.notified().await;
    server.stop(Duration::from_millis(100)).await;
    assert_eq!(left.load(Ordering::SeqCst), 1);
    assert!(answer.await.unwrap().is_err());
}

/// A frame (RFC 9113, section 4.1) of the first few kinds and streams.
fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap();
    [&[0, 0, length, kind, flags, 0, 0, 0, stream], payload].concat()
}

#[tokio::test]
async fn a_flood_of_requests_that_are_taken_back_ends_the_connection() {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    const GO_AWAY: u8 = 7;
    let (listener, address) = listener(ANY_PORT).await;
    let server = Server::new();
    server.serve(listener, hello);
    let mut flood = [PREFACE, &frame(4, 0, 0, b"")].concat();
    for stream in (1..=255).step_by(2) {
        // `GET http://a/`, in one frame, and CANCEL.
        flood.extend(frame(1, 0b101, stream, &[0x82, 0x86, 0x84, 0x41, 1, b'a']));
        flood.extend(frame(3, 0, stream, &[0, 0, 0, 8]));
    }
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(&flood).await.unwrap();
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.unwrap();
        let mut payload = vec![0; head[2].into()];
        stream.read_exact(&mut payload).await.unwrap();
        if head[3] == GO_AWAY {
            let reason = Reason::from(u32::from(payload[7]));
            assert_eq!(reason, Reason::ENHANCE_YOUR_CALM);
            break;
        }
    }
    assert!(super::get(address).await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn a_handler_that_panics_ends_only_its_stream() {
    let (listener, address) = listener(ANY_PORT).await;
    let server = Server::new();
    server.serve(listener, |peer, request: Request<Incoming>| async move {
        assert!(request.uri() != "/panic", "a handler's mistake");
        hello(peer, request).await
    });
    let (mut client, _) = connect(address).await;
    assert!(ask(&mut client, "http://a/panic").await.is_err());
    assert_eq!(ask(&mut client, "http://a/").await.unwrap().0, 200);
    server.stop(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn a_client_may_run_only_so_many_requests_at_once() {
    let (_server, address, _waiting) = waiting_server().await;
    let (mut client, _) = connect(address).await;
    let _first = client.send_request(get("http://a/"), true).unwrap();
    let limit = async {
        while client.current_max_send_streams() > connection::MAX_STREAMS as usize {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), limit).await.unwrap();
}
