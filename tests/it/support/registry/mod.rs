//! A registry that holds what a test puts in, counts what it is asked, and fails as told.
//!
//! It is a real server on a loopback host of its own. It watches Larder's manners on every
//! request (see [`manners`]); a complaint, or a panic inside, fails the test that owns it.

mod auth;
mod chaos;
mod content;
mod fault;
mod http;
mod listen;
mod manners;
mod profile;
mod quota;

pub use auth::Auth;
pub use chaos::Trouble;
pub use fault::{Fault, Gate};
pub use http::Request;
pub use listen::Mode;
pub use profile::{Profile, Scope, Wants};

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use larder::oci::{Digest, OCI_INDEX, OCI_MANIFEST};
use serde_json::Value;
use tokio::{sync::watch, task::JoinHandle};
use tokio_rustls::TlsAcceptor;

use self::{
    auth::Tokens,
    chaos::Chaos,
    content::Content,
    fault::{Rule, Rules, Wanting},
    http::Answer,
    quota::Quota,
};
use super::{Image, Index, address, content::sha256, tls::TestCa, wait::within_limit};

/// A handle on a running registry; the registry ends with it.
pub struct FakeRegistry {
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
    ca_pem: Option<String>,
}

/// How a registry is set up before it starts.
#[derive(Default)]
pub struct Builder {
    address: Option<SocketAddr>,
    tls: Option<(TlsAcceptor, String)>,
    name: Option<&'static str>,
    auth: Auth,
}

/// What the handle and the connections share.
struct Shared {
    address: SocketAddr,
    url: String,
    state: Mutex<State>,
    log: watch::Sender<Vec<Arc<Request>>>,
    /// Connections accepted so far.
    connections: AtomicUsize,
    /// Of these, the ones that showed a certificate.
    certified: AtomicUsize,
    open: watch::Sender<Tally>,
    /// Bytes of bodies sent so far.
    body_bytes: AtomicU64,
    ranges: watch::Sender<Tally>,
    mode: watch::Sender<Mode>,
    /// The mode that the listener has reached.
    reached: watch::Sender<Mode>,
    complaints: Mutex<Vec<String>>,
}

/// Things that go on for a while.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    now: usize,
    most: usize,
}

/// One of them.
struct Tallied<'a>(&'a watch::Sender<Tally>);

/// What a test changes while the registry runs.
#[derive(Default)]
struct State {
    content: Content,
    rules: Rules,
    chaos: Option<Chaos>,
    auth: Auth,
    tokens: Tokens,
    quota: Option<Quota>,
}

impl FakeRegistry {
    /// An empty registry that speaks plain HTTP and lets everyone in.
    pub async fn start() -> FakeRegistry {
        FakeRegistry::builder().start().await
    }

    /// To start one that differs.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// `http://host:port`
    pub fn url(&self) -> String {
        self.shared.url.clone()
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.shared.address
    }

    /// The certificate to trust, when the registry speaks TLS.
    pub fn ca_pem(&self) -> Option<&str> {
        self.ca_pem.as_deref()
    }

    // What it holds.

    /// Puts a blob into a repository.
    pub fn put_blob(&self, repository: &str, blob: &Bytes) -> Digest {
        let digest = sha256(blob);
        self.put_blob_as(repository, &digest, blob);
        digest
    }

    /// Puts a blob under a digest of the test's choice, a sha512 one or a false one.
    pub fn put_blob_as(&self, repository: &str, digest: &Digest, blob: &Bytes) {
        self.content(|content| content.put_blob(repository, digest, blob));
    }

    /// Puts a manifest of any type into a repository.
    pub fn put_manifest(&self, repository: &str, media_type: &str, manifest: &Bytes) -> Digest {
        let digest = sha256(manifest);
        self.put_manifest_as(repository, media_type, &digest, manifest);
        digest
    }

    /// Puts a manifest under a digest of the test's choice.
    pub fn put_manifest_as(
        &self,
        repository: &str,
        media_type: &str,
        digest: &Digest,
        manifest: &Bytes,
    ) {
        self.content(|content| content.put_manifest(repository, media_type, digest, manifest));
    }

    /// Lets a tag mean this manifest from now on.
    pub fn put_tag(&self, repository: &str, tag: &str, digest: &Digest) {
        self.content(|content| content.put_tag(repository, tag, digest));
    }

    /// Puts an image with all its blobs, under a tag.
    pub fn put_image(&self, repository: &str, tag: &str, image: &Image) {
        self.put_untagged(repository, image);
        self.put_tag(repository, tag, &image.digest());
    }

    /// Puts an index with all its images, under a tag.
    pub fn put_index(&self, repository: &str, tag: &str, index: &Index) {
        for image in &index.images {
            self.put_untagged(repository, image);
        }
        self.put_manifest(repository, OCI_INDEX, &index.manifest);
        self.put_tag(repository, tag, &index.digest());
    }

    fn put_untagged(&self, repository: &str, image: &Image) {
        for blob in image.blobs() {
            self.put_blob(repository, blob);
        }
        self.put_manifest(repository, OCI_MANIFEST, &image.manifest);
    }

    /// Forgets a tag; its manifest stays.
    pub fn delete_tag(&self, repository: &str, tag: &str) {
        self.content(|content| content.delete_tag(repository, tag));
    }

    /// Answers everything about a repository with `status`, as to a stranger.
    pub fn deny(&self, repository: &str, status: u16) {
        self.content(|content| content.deny(repository, status));
    }

    /// Answers every blob with a redirect to `other`, which then has it.
    pub fn redirect_blobs_to(&self, other: &FakeRegistry) {
        let target = Arc::clone(&other.shared);
        self.content(|content| content.redirect_blobs_to(target));
    }

    /// Lists this descriptor among the referrers of `subject`.
    pub fn put_referrer(&self, repository: &str, subject: &Digest, descriptor: Value) {
        self.content(|content| content.put_referrer(repository, subject, descriptor));
    }

    /// Lists at most so many tags or referrers on a page, however many are asked for.
    pub fn limit_pages(&self, entries: usize) {
        self.content(|content| content.limit_pages(entries));
    }

    // How it fails.

    /// Answers requests of `method` for `path` (`*` stands for any text) like this from now
    /// on. The newest rule that fits decides.
    pub fn on(&self, method: &'static str, path: &str, fault: Fault) {
        let rule = Rule::new(method, path, fault);
        self.shared.lock().rules.add(rule);
    }

    /// As [`FakeRegistry::on`], for the next request only.
    pub fn once(&self, method: &'static str, path: &str, fault: Fault) {
        let rule = Rule::new(method, path, fault).once();
        self.shared.lock().rules.add(rule);
    }

    /// As [`FakeRegistry::on`], for GETs without a `Range`.
    pub fn on_whole(&self, path: &str, fault: Fault) {
        let rule = Rule::new("GET", path, fault).wanting(Wanting::TheWhole);
        self.shared.lock().rules.add(rule);
    }

    /// As [`FakeRegistry::on`], for GETs with a `Range`.
    pub fn on_range(&self, path: &str, fault: Fault) {
        let rule = Rule::new("GET", path, fault).wanting(Wanting::ARange);
        self.shared.lock().rules.add(rule);
    }

    /// As [`FakeRegistry::once`], for a GET with a `Range` that begins there.
    pub fn once_from(&self, path: &str, start: usize, fault: Fault) {
        let rule = Rule::new("GET", path, fault).wanting(Wanting::ARangeFrom(start));
        self.shared.lock().rules.add(rule.once());
    }

    /// Gives so many manifests within `window` seconds, as Docker Hub does, from now on.
    pub fn limit_pulls(&self, limit: usize, window: u64) {
        self.shared.lock().quota = Some(Quota { limit, window, spent: 0 });
    }

    /// Lets one answer of six fail at random, with no regard to rules where it does. `seed` decides how
    /// the first, the second and each later request for the same thing is answered. `elsewhere` has the
    /// same content.
    pub fn go_wild(&self, seed: u64, elsewhere: &FakeRegistry) {
        self.shared.lock().chaos = Some(Chaos::new(seed, elsewhere.url()));
    }

    /// Forgets all rules, and is wild no longer.
    pub fn behave(&self) {
        let mut state = self.shared.lock();
        state.rules = Rules::default();
        state.chaos = None;
    }

    /// Goes down, comes up again on the same port, or in between. Returns when it is so.
    pub async fn set_mode(&self, mode: Mode) {
        self.shared.mode.send_replace(mode);
        let mut reached = self.shared.reached.subscribe();
        within_limit("a mode", reached.wait_for(|reached| *reached == mode)).await.unwrap();
    }

    /// Lets in only those who can show this, from now on.
    pub fn set_auth(&self, auth: Auth) {
        self.shared.lock().auth = auth;
    }

    /// Every token given out so far is worth nothing now.
    pub fn expire_tokens(&self) {
        self.shared.lock().tokens.expire();
    }

    // What it was asked.

    /// Every request so far, oldest first.
    pub fn requests(&self) -> Vec<Arc<Request>> {
        self.shared.log.borrow().clone()
    }

    /// How many connections came so far.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// How many of them showed a client certificate.
    pub fn certified_connections(&self) -> usize {
        self.shared.certified.load(Ordering::SeqCst)
    }

    /// The most connections that were open at once so far. May count some too many: that Larder has
    /// closed one is noticed late.
    pub fn most_connections_at_once(&self) -> usize {
        self.shared.open.borrow().most
    }

    /// How many bytes of bodies, of errors too, it sent so far.
    pub fn body_bytes(&self) -> u64 {
        self.shared.body_bytes.load(Ordering::Relaxed)
    }

    /// How many answers failed in which way since it went wild.
    pub fn troubles(&self) -> BTreeMap<Trouble, usize> {
        self.shared.lock().chaos.as_ref().map(Chaos::dealt).unwrap_or_default()
    }

    /// How many requests of `method` for `path` (`*` stands for any text) came so far.
    pub fn count(&self, method: &str, path: &str) -> usize {
        count(&self.shared.log.borrow(), method, path)
    }

    /// Method and path of each request so far that showed the token of somebody without a name.
    pub fn asked_by_strangers(&self) -> Vec<String> {
        let log = self.shared.log.borrow();
        let asked = log.iter().filter(|request| auth::is_strangers(request));
        asked.map(|request| format!("{} {}", request.method, request.path)).collect()
    }

    /// The `Range` of each GET for `path` so far that had one.
    pub fn ranges(&self, path: &str) -> Vec<String> {
        let log = self.shared.log.borrow();
        let asked = log.iter().filter(|request| fault::fits(path, &request.path));
        asked.filter_map(|request| request.header("range").map(str::to_owned)).collect()
    }

    /// The most answers to a `Range` that were under way at once so far. May count one too many
    /// after a client has hung up, which is noticed late.
    pub fn most_ranges_at_once(&self) -> usize {
        self.shared.ranges.borrow().most
    }

    /// Returns when so many answers to a `Range` are under way: the last piece is not sent, and the
    /// client has not hung up, which is noticed while an answer is held.
    pub async fn wait_for_ranges_under_way(&self, number: usize) {
        let mut ranges = self.shared.ranges.subscribe();
        let reached = ranges.wait_for(|ranges| ranges.now == number);
        within_limit(&format!("{number} ranges under way"), reached).await.unwrap();
    }

    /// Returns when the `number`th such request has come.
    pub async fn wait_for(&self, method: &str, path: &str, number: usize) {
        let mut log = self.shared.log.subscribe();
        let arrived = log.wait_for(|log| count(log, method, path) >= number);
        within_limit(&format!("{method} {path} at the fake registry"), arrived).await.unwrap();
    }

    fn content(&self, change: impl FnOnce(&mut Content)) {
        change(&mut self.shared.lock().content);
    }
}

impl Drop for FakeRegistry {
    fn drop(&mut self) {
        self.accepting.abort();
        let complaints = std::mem::take(&mut *ignore_poison(&self.shared.complaints));
        if !complaints.is_empty() && !std::thread::panicking() {
            panic!("the fake registry at {} complains: {complaints:#?}", self.address());
        }
    }
}

impl Builder {
    /// Speaks TLS with a certificate of this authority, offering HTTP/2 and HTTP/1.1.
    pub fn tls(self, ca: &TestCa) -> Builder {
        let address = self.address.unwrap_or_else(address::unique);
        let acceptor = ca.acceptor_for(&self.name.map_or(address.ip().to_string(), str::to_owned));
        self.address(address).tls_with(acceptor, ca)
    }

    /// Speaks TLS like this, and gives out the certificate of `ca` as the one to trust.
    pub fn tls_with(mut self, acceptor: TlsAcceptor, ca: &TestCa) -> Builder {
        self.tls = Some((acceptor, ca.pem()));
        self
    }

    /// Listens elsewhere than on a loopback host of its own.
    pub fn address(mut self, address: SocketAddr) -> Builder {
        self.address = Some(address);
        self
    }

    /// Goes by this name in its URLs. No resolver knows it.
    pub fn named(mut self, name: &'static str) -> Builder {
        self.name = Some(name);
        self
    }

    /// Lets in only those who can show this.
    pub fn auth(mut self, auth: Auth) -> Builder {
        self.auth = auth;
        self
    }

    /// Listens and serves.
    pub async fn start(self) -> FakeRegistry {
        let address = self.address.unwrap_or_else(address::unique);
        let socket = listen::socket(address);
        let address = socket.local_addr().unwrap();
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let host =
            self.name.map_or(address.to_string(), |name| format!("{name}:{}", address.port()));
        let (acceptor, ca_pem) = self.tls.unzip();
        let shared = Arc::new(Shared {
            address,
            url: format!("{scheme}://{host}"),
            state: Mutex::new(State { auth: self.auth, ..State::default() }),
            log: watch::Sender::default(),
            connections: AtomicUsize::new(0),
            certified: AtomicUsize::new(0),
            open: watch::Sender::default(),
            body_bytes: AtomicU64::new(0),
            ranges: watch::Sender::default(),
            mode: watch::Sender::default(),
            reached: watch::Sender::default(),
            complaints: Mutex::default(),
        });
        let listener = socket.listen(1024).unwrap();
        let accepting = tokio::spawn(listen::accept(Arc::clone(&shared), listener, acceptor));
        FakeRegistry { shared, accepting, ca_pem }
    }
}

impl Shared {
    fn answer_and_fault(&self, request: &Request) -> (Answer, Fault) {
        let mut state = self.lock();
        let mut rule = state.rules.apply(request);
        if rule.echoes {
            rule.body = Some(auth::echo(request));
        }
        let answer = self.answer(&mut state, request);
        let chaos = state.chaos.as_mut().and_then(|chaos| chaos.fault(request, &answer));
        (answer, chaos.unwrap_or(rule))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        ignore_poison(&self.state)
    }

    fn complain(&self, complaint: String) {
        ignore_poison(&self.complaints).push(complaint);
    }
}

impl Tallied<'_> {
    fn enter(tally: &watch::Sender<Tally>) -> Tallied<'_> {
        tally.send_modify(|tally| {
            tally.now += 1;
            tally.most = tally.most.max(tally.now);
        });
        Tallied(tally)
    }
}

impl Drop for Tallied<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|tally| tally.now -= 1);
    }
}

fn count(log: &[Arc<Request>], method: &str, path: &str) -> usize {
    log.iter()
        .filter(|request| request.method == method && fault::fits(path, &request.path))
        .count()
}

fn ignore_poison<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
