//! A server that answers one request a connection, byte for byte as a test says.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpListener,
    task::JoinHandle,
};

/// A running server; ends when dropped.
pub(super) struct Fake {
    port: u16,
    seen: Arc<Mutex<Vec<Seen>>>,
    task: JoinHandle<()>,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    /// Method and target: `GET /v2/`.
    pub(super) line: String,
    pub(super) head: String,
    pub(super) body: String,
}

impl Seen {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

/// What the server sends.
#[derive(Clone)]
pub(super) struct Reply {
    status: u16,
    headers: String,
    body: Vec<u8>,
    length: Option<usize>,
    delay: Duration,
    hangs: bool,
    /// Instead of status, headers and body.
    raw: Option<Vec<u8>>,
    /// Sent over and over after all else, with this pause.
    endless: Option<(Vec<u8>, Duration)>,
}

impl Reply {
    pub(super) fn new(status: u16) -> Reply {
        Reply {
            status,
            headers: String::new(),
            body: Vec::new(),
            length: None,
            delay: Duration::ZERO,
            hangs: false,
            raw: None,
            endless: None,
        }
    }

    /// These bytes, whatever they are.
    pub(super) fn raw(bytes: impl AsRef<[u8]>) -> Reply {
        Reply { raw: Some(bytes.as_ref().to_vec()), ..Reply::new(200) }
    }

    /// Goes on with these bytes over and over, a pause before each, until the client hangs up.
    pub(super) fn then_repeats(mut self, bytes: impl AsRef<[u8]>, pause: Duration) -> Reply {
        self.endless = Some((bytes.as_ref().to_vec(), pause));
        self
    }

    pub(super) fn header(mut self, name: &str, value: &str) -> Reply {
        self.headers += &format!("{name}: {value}\r\n");
        self
    }

    pub(super) fn body(mut self, body: impl AsRef<[u8]>) -> Reply {
        self.body = body.as_ref().to_vec();
        self
    }

    pub(super) fn json(self, body: &str) -> Reply {
        self.header("Content-Type", "application/json").body(body)
    }

    /// Closes the connection without a word.
    pub(super) fn nothing() -> Reply {
        Reply::new(0)
    }

    /// Announces a length that is not the body's.
    pub(super) fn length(mut self, length: usize) -> Reply {
        self.length = Some(length);
        self
    }

    pub(super) fn after(mut self, delay: Duration) -> Reply {
        self.delay = delay;
        self
    }

    /// Keeps the connection open and says no more.
    pub(super) fn then_hangs(mut self) -> Reply {
        self.hangs = true;
        self
    }

    pub(super) fn challenge(realm: &str) -> Reply {
        let bearer = format!(r#"Bearer realm="{realm}",service="registry.test""#);
        Reply::new(401).header("WWW-Authenticate", &bearer)
    }

    pub(super) fn redirect(target: &str) -> Reply {
        Reply::new(307).header("Location", target)
    }

    fn bytes(&self, is_head: bool) -> Vec<u8> {
        if let Some(raw) = &self.raw {
            return raw.clone();
        }
        if self.status == 0 {
            return Vec::new();
        }
        let length = self.length.unwrap_or(self.body.len());
        let mut bytes = format!(
            "HTTP/1.1 {} Status\r\nConnection: close\r\nContent-Length: {length}\r\n{}\r\n",
            self.status, self.headers,
        )
        .into_bytes();
        if !is_head {
            bytes.extend(&self.body);
        }
        bytes
    }
}

impl Fake {
    pub(super) async fn start(
        answer: impl Fn(&Seen) -> Reply + Clone + Send + Sync + 'static,
    ) -> Fake {
        Fake::start_at("127.0.0.1:0", answer).await
    }

    pub(super) async fn start_at(
        address: &str,
        answer: impl Fn(&Seen) -> Reply + Clone + Send + Sync + 'static,
    ) -> Fake {
        Fake::listen(address, answer, None).await
    }

    pub(super) async fn start_tls(
        acceptor: tokio_rustls::TlsAcceptor,
        answer: impl Fn(&Seen) -> Reply + Clone + Send + Sync + 'static,
    ) -> Fake {
        Fake::listen("127.0.0.1:0", answer, Some(acceptor)).await
    }

    async fn listen(
        address: &str,
        answer: impl Fn(&Seen) -> Reply + Clone + Send + Sync + 'static,
        tls: Option<tokio_rustls::TlsAcceptor>,
    ) -> Fake {
        let listener = TcpListener::bind(address).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::<Mutex<Vec<Seen>>>::default();
        let log = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (answer, log, tls) = (answer.clone(), Arc::clone(&log), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve(stream, &log, &answer).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serve(stream, &log, &answer).await;
                            }
                        }
                    }
                });
            }
        });
        Fake { port, seen, task }
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// The server by its address.
    pub(super) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The same server under another host's name.
    pub(super) fn other_url(&self) -> String {
        format!("http://localhost:{}", self.port)
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// How many requests had a line that begins so.
    pub(super) fn count(&self, line: &str) -> usize {
        let seen = self.seen();
        seen.iter().filter(|seen| seen.line.starts_with(line)).count()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    log: &Mutex<Vec<Seen>>,
    answer: impl Fn(&Seen) -> Reply,
) {
    let Some(seen) = read(&mut stream).await else {
        return;
    };
    log.lock().unwrap().push(seen.clone());
    let reply = answer(&seen);
    tokio::time::sleep(reply.delay).await;
    let bytes = reply.bytes(seen.line.starts_with("HEAD"));
    let _ = stream.write_all(&bytes).await;
    let _ = stream.flush().await;
    if let Some((bytes, pause)) = &reply.endless {
        while stream.write_all(bytes).await.is_ok() {
            if !pause.is_zero() {
                tokio::time::sleep(*pause).await;
            }
        }
    }
    if reply.hangs {
        std::future::pending::<()>().await;
    }
    let _ = stream.shutdown().await;
}

async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Option<Seen> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap();
    let mut seen = Seen {
        line: head.lines().next()?.strip_suffix(" HTTP/1.1")?.into(),
        head,
        body: String::new(),
    };
    let length = seen.header("Content-Length").map_or(0, |n| n.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    seen.body = String::from_utf8(body).unwrap();
    Some(seen)
}
