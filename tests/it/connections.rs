//! Many clients at once.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::Barrier,
    task::JoinSet,
};

use crate::support::{
    FakeRegistry, Fault, Gate, TestMirror, Upstream, binary::Daemon, mirror::blob_url,
    random_bytes, wait::within_limit,
};

const CONNECTIONS: usize = 2_000;

/// Every so many of them ask for the cold blob first.
const COLD: usize = 4;

/// A connection that stays open between two requests.
struct Connection(TcpStream);

impl Connection {
    async fn send(&mut self, path: &str) {
        let head = format!("GET {path} HTTP/1.1\r\nhost: m\r\n\r\n");
        self.0.write_all(head.as_bytes()).await.unwrap();
    }

    async fn expect(&mut self, expected: &[u8]) {
        let mut received = Vec::new();
        let start = loop {
            assert_ne!(self.0.read_buf(&mut received).await.unwrap(), 0, "the connection ended");
            if let Some(end) = received.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break end + 4;
            }
        };
        assert!(received.starts_with(b"HTTP/1.1 200 "), "{:?}", received.get(..40));
        received.drain(..start);
        while received.len() < expected.len() {
            assert_ne!(self.0.read_buf(&mut received).await.unwrap(), 0, "the body ended early");
        }
        assert!(received == expected, "other bytes");
    }
}

/// Two thousand clients keep their connections to a daemon that started with room for 32 files. Each
/// gets what it asks for while all others are connected, and a blob that is not there yet is fetched
/// once.
#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_connections_at_once() {
    larder::server::raise_open_file_limit();
    let registry = FakeRegistry::start().await;
    let [warm, cold] = [1, 2].map(|seed| random_bytes(seed, 20_000));
    let [warm_path, cold_path] =
        [&warm, &cold].map(|blob| blob_url("library/x", &registry.put_blob("library/x", blob)));
    let gate = Gate::shut();
    registry.on("GET", &cold_path, Fault::hold_after(100, &gate));
    let daemon =
        Daemon::start(TestMirror::builder().upstream(Upstream::docker_io(&registry))).await;
    let limit: usize = daemon.open_file_limits().0.parse().unwrap();
    assert!(
        limit >= 2 * CONNECTIONS,
        "a hard limit of {limit} open files is too low for this test"
    );
    daemon.client().get(&warm_path).await.expect(&warm).await;

    let asked = Arc::new(Barrier::new(CONNECTIONS + 1));
    let mut clients = JoinSet::new();
    for number in 0..CONNECTIONS {
        let server = daemon.client().address();
        let asked = asked.clone();
        let mut requests = [(warm_path.clone(), warm.clone()), (cold_path.clone(), cold.clone())];
        if number % COLD == 0 {
            requests.reverse();
        }
        clients.spawn(ask(server, requests, asked));
    }
    within_limit("everyone to have asked", asked.wait()).await;
    gate.open();
    within_limit("everyone's answers", clients.join_all()).await;
    assert_eq!(registry.count("GET", &warm_path), 1);
    assert_eq!(registry.count("GET", &cold_path), 1);
}

/// Sends the first request, and when everyone has done that, reads the answer and asks again.
async fn ask(server: SocketAddr, requests: [(String, Bytes); 2], asked: Arc<Barrier>) {
    let mut connection = Connection(TcpStream::connect(server).await.unwrap());
    let [(first, first_body), (second, second_body)] = requests;
    connection.send(&first).await;
    asked.wait().await;
    connection.expect(&first_body).await;
    connection.send(&second).await;
    connection.expect(&second_body).await;
}
