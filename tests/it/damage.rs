//! Files that are changed behind the mirror's back, on every way by which a blob is sent.
//!
//! A client is never sent a complete body of another length than the blob's, the daemon lives, and what is
//! found damaged leaves at once and is right for the next client. Only a bit that flips cannot be seen
//! while it is sent: the client's own check fails then, and a scrub finds it.

use std::{
    fs::{self, File},
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use larder::oci::Digest;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
};
use tokio_rustls::client::TlsStream;

use crate::{
    scrub::flip_a_bit,
    support::{
        FakeRegistry, Fault, Gate, Image, TestMirror, Upstream,
        admin::over_socket,
        client::Body,
        http2::{Http2, Stream, read},
        mirror::{blob_url, manifest_path},
        random_bytes, sha256,
        tls::TestCa,
        wait::{until, within_limit},
    },
};

/// More than sockets hold of an answer that nobody reads.
const SIZE: usize = 10 * 1024 * 1024;

/// How much of an answer the client's socket holds, more or less.
const HELD: u32 = 64 * 1024;

/// How much of an answer over HTTP/2 is sent that nobody reads.
const WINDOW: u32 = 64 * 1024;

/// What is left of a file that is cut.
const LEFT: u64 = 64 * 1024;

/// The default of `cache.scrub_interval`.
const SCRUB_INTERVAL: Duration = Duration::from_secs(30 * 24 * 3600);

const DAMAGED: &str = "larder_store_damaged_blobs_total";

/// A way to get a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Http1,
    /// Without sendfile(2).
    Http1Copied,
    Http1Tls,
    Http2,
    Http2Tls,
    Range,
    Ranges,
}

const WAYS: [Way; 7] = [
    Way::Http1,
    Way::Http1Copied,
    Way::Http1Tls,
    Way::Http2,
    Way::Http2Tls,
    Way::Range,
    Way::Ranges,
];

impl Way {
    /// Whether the kernel sends the file.
    fn is_by_kernel(self) -> bool {
        matches!(self, Way::Http1 | Way::Range)
    }
}

/// What came of a request.
struct Answer {
    body: Vec<u8>,
    /// Nothing is missing of what was announced.
    is_whole: bool,
}

/// A registry with one blob and a mirror that has it.
struct Setting {
    registry: FakeRegistry,
    mirror: TestMirror,
    ca: Option<TestCa>,
    blob: Bytes,
    digest: Digest,
    path: String,
}

impl Setting {
    async fn start(way: Way) -> Setting {
        let registry = FakeRegistry::start().await;
        let blob = random_bytes(1, SIZE);
        let digest = registry.put_blob("library/x", &blob);
        let path = blob_url("library/x", &digest);
        let ca = matches!(way, Way::Http1Tls | Way::Http2Tls).then(TestCa::new);
        let builder = TestMirror::builder().upstream(Upstream::docker_io(&registry));
        let builder = match &ca {
            Some(ca) => builder.tls(ca),
            None => builder,
        };
        let mirror = builder.set("sendfile", way != Way::Http1Copied).start().await;
        let setting = Setting { registry, mirror, ca, blob, digest, path };
        setting.expect_right(way).await;
        setting.mirror.wait_for_blob(&setting.digest).await;
        setting
    }

    fn file(&self) -> PathBuf {
        self.mirror.blob_path(&self.digest)
    }

    /// The whole blob, as this way has it.
    async fn expect_right(&self, way: Way) {
        let answer = self.fetch(way, || ()).await;
        assert!(answer.is_whole && self.is_right(way, &answer.body), "{way:?}");
    }

    /// Whether a body has all of the blob that was asked for, without a gap.
    fn is_right(&self, way: Way, body: &[u8]) -> bool {
        let wanted = if way == Way::Ranges { self.blob.slice(20..) } else { self.blob.clone() };
        let start = body.windows(32).position(|window| *window == wanted[..32]);
        start.is_some_and(|start| body[start..].starts_with(&wanted))
    }

    /// Asks for the blob, calls `meanwhile` when the answer has begun, and reads to the end.
    async fn fetch(&self, way: Way, meanwhile: impl FnOnce()) -> Answer {
        let server = self.mirror.address();
        match way {
            Way::Http1 | Way::Http1Copied | Way::Range | Way::Ranges => {
                let stream = connect(server).await;
                over_http1(stream, &self.request(way), meanwhile).await
            }
            Way::Http1Tls => {
                let stream = self.tls(server, "http/1.1").await;
                over_http1(stream, &self.request(way), meanwhile).await
            }
            Way::Http2 => {
                let stream = connect(server).await;
                let client = Http2::with_window(WINDOW, stream).await;
                over_http2(client, &self.path, meanwhile).await
            }
            Way::Http2Tls => {
                let client = Http2::with_window(WINDOW, self.tls(server, "h2").await).await;
                over_http2(client, &self.path, meanwhile).await
            }
        }
    }

    async fn tls(&self, server: SocketAddr, protocol: &str) -> TlsStream<TcpStream> {
        self.ca.as_ref().unwrap().connect_over(connect(server).await, &[protocol]).await.unwrap()
    }

    fn request(&self, way: Way) -> String {
        let range = match way {
            Way::Range => format!("range: bytes=0-{}\r\n", SIZE - 1),
            Way::Ranges => format!("range: bytes=0-9,20-{}\r\n", SIZE - 1),
            Way::Http1 | Way::Http1Copied | Way::Http1Tls | Way::Http2 | Way::Http2Tls => {
                String::new()
            }
        };
        format!("GET {} HTTP/1.1\r\nhost: m\r\nconnection: close\r\n{range}\r\n", self.path)
    }
}

async fn connect(server: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(HELD).unwrap();
    socket.connect(server).await.unwrap()
}

async fn over_http1(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    request: &str,
    meanwhile: impl FnOnce(),
) -> Answer {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = vec![0; 4096];
    let first = within_limit("an answer", stream.read(&mut answer)).await.unwrap();
    answer.truncate(first);
    meanwhile();
    within_limit("an answer's end", stream.read_to_end(&mut answer)).await.unwrap();
    let head_end = answer.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4;
    let body = answer.split_off(head_end);
    let head = String::from_utf8(answer).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    let length: usize = length.parse().unwrap();
    assert!(body.len() <= length);
    Answer { is_whole: body.len() == length, body }
}

async fn over_http2(client: Http2, path: &str, meanwhile: impl FnOnce()) -> Answer {
    let response = client.get(path).await;
    meanwhile();
    match read(response.into_body()).await {
        Stream::Ended(bytes) => Answer { body: bytes.into(), is_whole: true },
        Stream::Reset(received, _) => panic!("cut after {received} bytes"),
    }
}

fn cut(path: &Path) {
    File::options().write(true).open(path).unwrap().set_len(LEFT).unwrap();
}

/// A file that is cut while it is sent is upstream's turn, for its client and all that come after. But where
/// the kernel sends the file, what was sent may have become zeros, and nothing may make that whole.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_cut_while_it_is_sent() {
    for way in WAYS {
        let setting = Setting::start(way).await;
        let answer = setting.fetch(way, || cut(&setting.file())).await;
        assert_eq!(answer.is_whole, !way.is_by_kernel(), "{way:?}");
        assert!(!answer.is_whole || setting.is_right(way, &answer.body), "{way:?}");
        until("the damage is noticed", async || setting.mirror.metric(DAMAGED).await == 1.0).await;
        setting.expect_right(way).await;
        setting.mirror.wait_for_blob(&setting.digest).await;
        // The first, what is kept, and the client's rest.
        let fetched = 2 + usize::from(answer.is_whole);
        assert_eq!(setting.registry.count("GET", &setting.path), fetched, "{way:?}");
        setting.expect_right(way).await;
        assert_eq!(setting.registry.count("GET", &setting.path), fetched, "{way:?}");
    }
}

/// Damage to a file while nobody reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Damage {
    Cut,
    Emptied,
    Lengthened,
    Deleted,
    /// Another blob's file is in its place, and is as long.
    Swapped,
    BitFlipped,
    Directory,
    Denied,
}

use Damage::{BitFlipped, Cut, Deleted, Denied, Directory, Emptied, Lengthened, Swapped};

const DAMAGES: [Damage; 8] =
    [Cut, Emptied, Lengthened, Deleted, Swapped, BitFlipped, Directory, Denied];

impl Damage {
    fn inflict(self, path: &Path) {
        let length = fs::metadata(path).unwrap().len();
        let open = || File::options().write(true).open(path).unwrap();
        match self {
            Cut => open().set_len(length / 2).unwrap(),
            Emptied => open().set_len(0).unwrap(),
            Lengthened => open().set_len(length + 1).unwrap(),
            Deleted => fs::remove_file(path).unwrap(),
            Swapped => fs::write(path, random_bytes(77, length as usize)).unwrap(),
            BitFlipped => flip_a_bit(path),
            Directory => {
                fs::remove_file(path).unwrap();
                fs::create_dir(path).unwrap();
                fs::write(path.join("x"), "x").unwrap();
            }
            Denied => fs::set_permissions(path, fs::Permissions::from_mode(0o000)).unwrap(),
        }
    }

    /// Whether it shows when the file is opened. Nothing is denied to root.
    fn shows(self, path: &Path) -> bool {
        match self {
            Swapped | BitFlipped => false,
            Denied => File::open(path).is_err(),
            Cut | Emptied | Lengthened | Deleted | Directory => true,
        }
    }

    fn is_harmless(self, path: &Path) -> bool {
        self == Denied && !self.shows(path)
    }
}

/// What shows when a file is opened is a miss; what does not, the client's own check finds, and the next
/// scrub. Then all is right again, and the daemon has never stopped to serve.
#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_was_damaged() {
    for damage in DAMAGES {
        let registry = FakeRegistry::start().await;
        let blob = random_bytes(1, 100_000);
        let digest = registry.put_blob("library/x", &blob);
        let path = blob_url("library/x", &digest);
        let mirror = TestMirror::of(&registry).await;
        mirror.get(&path).await.expect(&blob).await;
        mirror.wait_for_blob(&digest).await;

        damage.inflict(&mirror.blob_path(&digest));
        let (shows, is_harmless) = {
            let file = mirror.blob_path(&digest);
            (damage.shows(&file), damage.is_harmless(&file))
        };
        let head = mirror.head(&path).await;
        assert_eq!(head.header("content-length"), Some("100000"), "{damage:?}");
        if !shows && !is_harmless {
            let wrong = mirror.get(&path).await.bytes().await;
            assert_ne!(sha256(&wrong), digest, "{damage:?}");
            mirror.advance(SCRUB_INTERVAL);
            until("the damage is found", async || mirror.metric(DAMAGED).await == 1.0).await;
        }
        for _ in 0..2 {
            mirror.get(&path).await.expect(&blob).await;
            mirror.wait_for_blob(&digest).await;
        }
        let fetched = if is_harmless { 1 } else { 2 };
        assert_eq!(registry.count("GET", &path), fetched, "{damage:?}");
        let is_counted = !matches!(damage, Deleted | Denied);
        assert_eq!(mirror.metric(DAMAGED).await, f64::from(u8::from(is_counted)), "{damage:?}");
    }
}

/// A manifest is hashed whenever it is read: whatever its damage, nobody gets other bytes, by tag or by
/// digest, and the tag stays.
#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_that_was_damaged() {
    for damage in DAMAGES {
        for by_tag in [true, false] {
            let registry = FakeRegistry::start().await;
            let image = Image::random(1);
            registry.put_image("library/x", "latest", &image);
            let mirror = TestMirror::of(&registry).await;
            mirror.pull("library/x", "latest", &image).await;
            let path = mirror.blob_path(&image.digest());
            // A process that has it in memory would not read it.
            let stopped = mirror.stop().await;
            damage.inflict(&path);
            let is_harmless = damage.is_harmless(&path);
            let mirror = stopped.start().await;

            let digest = image.digest().to_string();
            let reference = if by_tag { "latest" } else { &digest };
            let head = mirror.head(&manifest_path("library/x", reference)).await;
            assert_eq!(head.status, 200, "{damage:?}");
            let length = image.manifest.len().to_string();
            assert_eq!(head.header("content-length"), Some(length.as_str()), "{damage:?}");
            let manifest = mirror.manifest("library/x", reference).await;
            assert_eq!(manifest, image.manifest, "{damage:?}");
            mirror.wait_for_blob(&image.digest()).await;
            if !is_harmless {
                assert_eq!(fs::read(&path).unwrap(), image.manifest, "{damage:?}");
            }
            let tags = mirror.get("/v2/library/x/tags/list").await.bytes().await;
            assert!(String::from_utf8_lossy(&tags).contains("latest"), "{damage:?}");
        }
    }
}

/// Without the index nobody knows what size a file shall have: it is hashed before it is served.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_damaged_while_the_index_was_lost() {
    for damage in DAMAGES {
        let registry = FakeRegistry::start().await;
        let blob = random_bytes(1, 100_000);
        let digest = registry.put_blob("library/x", &blob);
        let path = blob_url("library/x", &digest);
        let mirror = TestMirror::of(&registry).await;
        mirror.get(&path).await.expect(&blob).await;
        mirror.wait_for_blob(&digest).await;
        let file = mirror.blob_path(&digest);
        let stopped = mirror.stop().await;
        fs::remove_dir_all(stopped.data_dir().join("index")).unwrap();
        damage.inflict(&file);
        let mirror = stopped.start().await;
        mirror.get(&path).await.expect(&blob).await;
        mirror.wait_for_blob(&digest).await;
        mirror.get(&path).await.expect(&blob).await;
    }
}

/// A layer that was fetched ahead of its client is a file like every other.
#[tokio::test(flavor = "multi_thread")]
async fn a_prefetched_blob_that_was_damaged() {
    let registry = FakeRegistry::start().await;
    let layers = vec![random_bytes(1, 100_000), random_bytes(2, 100_000)];
    let image = Image::with_layers(1, layers);
    registry.put_image("library/x", "latest", &image);
    let mirror = TestMirror::of(&registry).await;
    mirror.manifest("library/x", "latest").await;
    mirror.pull_blob("library/x", &sha256(&image.layers[0])).await;
    let ahead = sha256(&image.layers[1]);
    mirror.wait_for_blob(&ahead).await;
    Cut.inflict(&mirror.blob_path(&ahead));
    mirror.pull_blob("library/x", &ahead).await;
    assert_eq!(registry.count("GET", &blob_url("library/x", &ahead)), 2);
}

/// Nobody is served of a file that somebody else has put there, not even past a store that is full.
#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_passes_through_is_not_read_from_a_foreign_file() {
    let registry = FakeRegistry::start().await;
    let blob = random_bytes(1, 100_000);
    let digest = registry.put_blob("library/x", &blob);
    let mirror = TestMirror::builder()
        .upstream(Upstream::docker_io(&registry))
        .set("cache.min_free", "100%")
        .start()
        .await;
    // Once all files are known, and one that is too much would have made room.
    let socket = mirror.data_dir().join("admin.sock");
    assert_eq!(over_socket(&socket, &["GET /api/v1/usage"], "").await.status, 200);
    fs::write(mirror.blob_path(&digest), random_bytes(2, 100_000)).unwrap();
    mirror.get(&blob_url("library/x", &digest)).await.expect(&blob).await;
    assert_eq!(mirror.metric(DAMAGED).await, 1.0);
    assert!(!mirror.has_blob(&digest));
}

/// A file that is cut while it grows: who reads it gets no complete wrong body, it is not kept, and the
/// next client gets the right one.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_cut_while_it_grows() {
    for is_read_from_the_start in [true, false] {
        let registry = FakeRegistry::start().await;
        let blob = random_bytes(1, 3_000_000);
        let digest = registry.put_blob("library/x", &blob);
        let path = blob_url("library/x", &digest);
        let gate = Gate::shut();
        registry.once("GET", &path, Fault::hold_after(1_500_000, &gate));
        let mirror = TestMirror::of(&registry).await;
        let mut response = mirror.get(&path).await;
        if !is_read_from_the_start {
            response.expect_next(&blob[..1_500_000]).await;
        }
        let growing = mirror.data_dir().join(format!("downloads/sha256-{}", digest.encoded()));
        cut(&growing);
        gate.open();
        match response.body().await {
            Body::Cut(_) => {}
            Body::Complete(rest) => assert!(blob.ends_with(&rest), "a complete wrong body"),
        }
        mirror.get(&path).await.expect(&blob).await;
        mirror.wait_for_blob(&digest).await;
        assert_eq!(sha256(&fs::read(mirror.blob_path(&digest)).unwrap()), digest);
    }
}
