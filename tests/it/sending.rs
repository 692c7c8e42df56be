//! Blobs on their way from a file to a client in the clear: sent by the kernel, or copied where that is turned off.

use std::{
    fs::{self, File},
    ops::Range,
};

use bytes::Bytes;
use futures_util::future::join_all;
use rustix::fs::{Advice, fadvise};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
};

use crate::support::{
    FakeRegistry, TestMirror, Upstream, binary::Daemon, mirror::blob_url, random_bytes, sha256,
    wait::within_limit,
};

const MIB: usize = 1024 * 1024;

/// Not a multiple of anything.
const SIZE: usize = 3 * MIB + 7;

/// Parts of a blob of [`SIZE`] bytes, about the sizes at which it is sent in another manner.
const PARTS: [Range<usize>; 11] = [
    0..SIZE,
    0..1,
    SIZE - 1..SIZE,
    0..32 * 1024 - 1,
    1..32 * 1024 + 1,
    5..64 * 1024 + 6,
    4095..128 * 1024 + 4097,
    0..MIB,
    3..MIB + 4,
    MIB - 1..2 * MIB + 1,
    2 * MIB + 9..SIZE,
];

/// A mirror that sends in this manner and has a blob, and the blob's path.
async fn mirror_with_blob(sendfile: bool) -> (TestMirror, Bytes, String) {
    let registry = FakeRegistry::start().await;
    let blob = random_bytes(1, SIZE);
    let path = blob_url("library/x", &registry.put_blob("library/x", &blob));
    let builder = TestMirror::builder().upstream(Upstream::docker_io(&registry));
    let mirror = builder.set("sendfile", sendfile).start().await;
    mirror.get(&path).await.expect(&blob).await;
    mirror.wait_for_blob(&sha256(&blob)).await;
    (mirror, blob, path)
}

/// A connection on which one answer comes after the other.
struct Connection(BufReader<TcpStream>);

impl Connection {
    async fn open(mirror: &TestMirror) -> Connection {
        Connection(BufReader::new(TcpStream::connect(mirror.address()).await.unwrap()))
    }

    async fn ask(&mut self, path: &str, part: &Range<usize>) {
        let (first, last) = (part.start, part.end - 1);
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: m\r\nrange: bytes={first}-{last}\r\n\r\n");
        self.0.write_all(request.as_bytes()).await.unwrap();
    }

    /// Reads the next answer, and asserts that it has this body.
    async fn expect(&mut self, body: &[u8]) {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert_ne!(self.0.read_line(&mut head).await.unwrap(), 0, "after {head:?}");
        }
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{head}");
        let mut received = vec![0; body.len()];
        within_limit("a body", self.0.read_exact(&mut received)).await.unwrap();
        assert!(received == body, "other bytes after {head}");
    }
}

/// Asked for one by one, and all at once without waiting for an answer.
#[tokio::test(flavor = "multi_thread")]
async fn every_part_arrives_on_one_connection() {
    for sendfile in [true, false] {
        let (mirror, blob, path) = mirror_with_blob(sendfile).await;
        for at_once in [1, PARTS.len()] {
            let mut connection = Connection::open(&mirror).await;
            for parts in PARTS.chunks(at_once) {
                for part in parts {
                    connection.ask(&path, part).await;
                }
                for part in parts {
                    connection.expect(&blob[part.clone()]).await;
                }
            }
        }
    }
}

/// What is not in the page cache is read from the disk.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_only_on_the_disk_arrives() {
    for sendfile in [true, false] {
        let (mirror, blob, path) = mirror_with_blob(sendfile).await;
        let file = File::open(mirror.blob_path(&sha256(&blob))).unwrap();
        for dropped in [0..SIZE, 0..MIB, MIB..2 * MIB, 256 * 1024..320 * 1024, 2 * MIB..SIZE] {
            let length = std::num::NonZero::new(dropped.len() as u64);
            fadvise(&file, dropped.start as u64, length, Advice::DontNeed).unwrap();
            mirror.get(&path).await.expect(&blob).await;
        }
    }
}

/// Everyone gets all of it, however many ask at once.
#[tokio::test(flavor = "multi_thread")]
async fn every_client_of_many_gets_all() {
    for sendfile in [true, false] {
        let (mirror, blob, path) = mirror_with_blob(sendfile).await;
        let answers = join_all((0..32).map(async |_| mirror.get(&path).await)).await;
        join_all(answers.into_iter().map(async |answer| answer.expect(&blob).await)).await;
    }
}

/// The kernel sends, unless that is turned off.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs strace; tests/run installs it"]
async fn the_kernel_sends_unless_told_otherwise() {
    for sendfile in [true, false] {
        let registry = FakeRegistry::start().await;
        let blob = random_bytes(1, SIZE);
        let path = blob_url("library/x", &registry.put_blob("library/x", &blob));
        let builder = TestMirror::builder().upstream(Upstream::docker_io(&registry));
        let builder = builder.set("sendfile", sendfile);
        let traces = tempfile::tempdir().unwrap();
        let trace = traces.path().join("trace");
        let daemon = Daemon::start_traced(builder, "trace=sendfile", &trace).await;
        for _ in 0..2 {
            daemon.client().get(&path).await.expect(&blob).await;
        }
        daemon.stop().await;
        let calls = fs::read_to_string(&trace).unwrap();
        assert_eq!(calls.contains("sendfile("), sendfile, "{calls}");
    }
}
