//! A client that pulls as the engines do, checks every byte, and tries again.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use larder::oci::{Digest, OCI_INDEX};
use serde_json::Value;
use tokio::time::{sleep, timeout};

use super::{
    engine::{Engine, Resume},
    tally::Tally,
    world::{Repository, Tagged, World},
};
use crate::support::{Client, Random, Response, sha256, wait::LIMIT};

/// How often a client tries to pull an image, keeping nothing of the tries before.
pub const TRIES: usize = 3;

/// Blobs of one image under way at once.
const AT_ONCE: usize = 3;

/// How long a client waits before its second try, and twice as long before its third: as a kubelet.
const PAUSE: Duration = Duration::from_secs(10);

/// One client.
pub struct Puller {
    pub engine: &'static Engine,
    pub temper: Temper,
    pub client: Client,
    pub world: Arc<World>,
    pub tally: Arc<Tally>,
    pub random: Random,
}

/// Whether a client sees a pull through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Temper {
    /// It does.
    Steady,
    /// It loses patience in one try of thirty.
    Restless,
}

/// Why a try ended without an image.
enum End {
    /// The mirror did not give it.
    Failed(String),
    /// The client has had enough.
    HungUp,
}

/// How much of a blob the client reads before it hangs up.
#[derive(Clone, Copy)]
enum Patience {
    Endless,
    Bytes(usize),
}

impl Puller {
    /// Pulls, at most [`TRIES`] times.
    pub async fn pull(&mut self, tagged: &Tagged) {
        let started = Instant::now();
        let mut pause = PAUSE;
        let mut failures = Vec::new();
        for number in 0..TRIES {
            if number > 0 {
                sleep(pause).await;
                pause *= 2;
            }
            let patience = self.patience();
            match self.try_to_pull(tagged, patience).await {
                Ok(()) => {
                    let took = started.elapsed();
                    return self.tally.count(|counts| {
                        counts.succeeded[number] += 1;
                        counts.slowest_pull = counts.slowest_pull.max(took);
                    });
                }
                Err(End::HungUp) => return self.tally.count(|counts| counts.hung_up += 1),
                Err(End::Failed(what)) => {
                    self.tally.count(|counts| {
                        *counts.failures.entry(what.clone()).or_default() += 1;
                    });
                    failures.push(what);
                }
            }
        }
        let Tagged { repository: Repository { registry, name }, tag } = tagged;
        let failed = format!("{registry}/{name}:{tag}: {}", failures.join(", "));
        self.tally.count(|counts| counts.failed.push(failed));
    }

    fn patience(&mut self) -> Patience {
        match (self.temper, self.random.below(30)) {
            (Temper::Restless, 0) => Patience::Bytes(self.random.index(200_000)),
            (Temper::Restless | Temper::Steady, _) => Patience::Endless,
        }
    }

    async fn try_to_pull(&self, tagged: &Tagged, patience: Patience) -> Result<(), End> {
        if self.engine.pings {
            let ping = self.ask("GET", "/v2/", &[]).await?;
            assert_eq!(ping.status, 200, "{ping:?}");
        }
        let mut manifest = self.root(tagged).await?;
        if manifest["mediaType"] == OCI_INDEX {
            let digest = digest_of(amd64(&manifest));
            manifest = self.manifest(tagged, &digest).await?;
        }
        let layers = manifest["layers"].as_array().unwrap();
        let blobs = std::iter::once(&manifest["config"]).chain(layers);
        let blobs: Vec<Digest> = blobs.map(digest_of).collect();
        stream::iter(blobs)
            .map(|digest| async move { self.blob(tagged, &digest, patience).await })
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await
    }

    /// The manifest that the tag means.
    async fn root(&self, tagged: &Tagged) -> Result<Value, End> {
        let path = self.engine.manifest_path(tagged.repository, &tagged.tag);
        let method = if self.engine.looks_first { "HEAD" } else { "GET" };
        let response = success("tag", self.ask(method, &path, &[]).await?)?;
        let digest = response.header("docker-content-digest").unwrap().parse().unwrap();
        assert!(self.world.is(tagged, &digest), "{tagged:?} is {digest}");
        match self.engine.looks_first {
            true => self.manifest(tagged, &digest).await,
            false => self.parsed(response, &digest).await,
        }
    }

    async fn manifest(&self, tagged: &Tagged, digest: &Digest) -> Result<Value, End> {
        let path = self.engine.manifest_path(tagged.repository, &digest.to_string());
        let response = success("manifest", self.ask("GET", &path, &[]).await?)?;
        self.parsed(response, digest).await
    }

    /// The body of a manifest.
    async fn parsed(&self, mut response: Response, digest: &Digest) -> Result<Value, End> {
        let mut bytes = Vec::new();
        while let Some(more) = self.read(&mut response).await {
            bytes.extend_from_slice(&more);
        }
        if !response.is_complete() {
            return Err(failed("a manifest was cut"));
        }
        assert_eq!(sha256(&bytes), *digest);
        self.tally.got(digest, bytes.len());
        Ok(serde_json::from_slice(&bytes).unwrap())
    }

    async fn blob(&self, tagged: &Tagged, digest: &Digest, patience: Patience) -> Result<(), End> {
        let path = self.engine.blob_path(tagged.repository, digest);
        let mut blob = Blob::new(self.world.content(digest), patience);
        let mut resumes = self.engine.resume.tries();
        loop {
            let before = blob.came;
            match self.rest(&path, &mut blob).await? {
                true if blob.is_right => {
                    self.tally.got(digest, blob.came);
                    return Ok(());
                }
                true => return Err(failed("a blob was wrong before it was cut")),
                false if blob.came > before => resumes = self.engine.resume.tries(),
                false => {}
            }
            let Some(left) = resumes.checked_sub(1) else {
                return Err(failed("a blob was cut"));
            };
            resumes = left;
            self.tally.count(|counts| counts.resumes += 1);
            sleep(self.engine.resume.pause()).await;
        }
    }

    /// Asks for what is missing. Returns whether all is here now.
    async fn rest(&self, path: &str, blob: &mut Blob<'_>) -> Result<bool, End> {
        let range = format!("bytes={}-", blob.came);
        let headers = [("range", range.as_str())];
        let headers = if blob.came > 0 { headers.as_slice() } else { &[] };
        let mut response = success("blob", self.ask("GET", path, headers).await?)?;
        let mut skip = 0;
        if response.status == 206 {
            blob.expects(response.header("content-range").unwrap_or_default())?;
        } else if blob.came > 0 {
            match self.engine.resume {
                Resume::AtOnce => skip = blob.came,
                Resume::Later | Resume::Never => blob.begin_anew(),
            }
        }
        let asked_from = blob.came;
        while let Some(more) = self.read(&mut response).await {
            blob.add(&more[skip.min(more.len())..])?;
            skip = skip.saturating_sub(more.len());
        }
        let is_complete = response.is_complete();
        // Of a part the mirror cannot know; and what came before a cut may have been wrong.
        let is_whole = response.status == 200 && asked_from == 0;
        assert!(!is_complete || !is_whole || blob.is_right, "{path}: wrong, and complete");
        assert!(!is_complete || blob.is_all(), "{path}: ended at {}", blob.came);
        Ok(is_complete)
    }

    /// Sends a request until its answer is no 429, as often as this engine does.
    async fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<Response, End> {
        let mut tries = self.engine.limited_tries;
        loop {
            let response = self.client.try_request(method, path, headers).await;
            let response = response.ok_or_else(|| failed("no answer"))?;
            let waited = response.elapsed();
            self.tally.count(|counts| counts.slowest_head = counts.slowest_head.max(waited));
            tries -= 1;
            if response.status != 429 || tries == 0 {
                return Ok(response);
            }
            if self.engine.obeys_retry_after {
                sleep(retry_after(&response)).await;
            }
        }
    }

    /// Some bytes of a body; `None` at its end, good or bad.
    async fn read(&self, response: &mut Response) -> Option<Bytes> {
        let asked = Instant::now();
        let bytes = timeout(LIMIT, response.read_some(64 * 1024)).await;
        let bytes = bytes.unwrap_or_else(|_| panic!("a body hangs: {response:?}"))?;
        self.tally.count(|counts| {
            counts.received += bytes.len() as u64;
            counts.longest_silence = counts.longest_silence.max(asked.elapsed());
        });
        Some(bytes)
    }
}

/// A blob as far as it came.
struct Blob<'a> {
    expected: &'a [u8],
    came: usize,
    is_right: bool,
    patience: Patience,
}

impl Blob<'_> {
    fn new(expected: &[u8], patience: Patience) -> Blob<'_> {
        Blob { expected, came: 0, is_right: true, patience }
    }

    /// Takes the rest, if this `Content-Range` is of it.
    fn expects(&self, range: &str) -> Result<(), End> {
        let (first, size) = (self.came, self.expected.len());
        assert!(range.starts_with(&format!("bytes {first}-")), "{range}");
        // Until the digest tells, the mirror has only upstream's word for the size.
        match range == format!("bytes {first}-{}/{size}", size - 1) {
            true => Ok(()),
            false => Err(failed("a blob has another size")),
        }
    }

    fn add(&mut self, bytes: &[u8]) -> Result<(), End> {
        let end = self.came + bytes.len();
        self.is_right &= self.expected.get(self.came..end) == Some(bytes);
        self.came = end;
        match self.patience {
            Patience::Bytes(limit) if self.came > limit => Err(End::HungUp),
            Patience::Bytes(_) | Patience::Endless => Ok(()),
        }
    }

    fn begin_anew(&mut self) {
        (self.came, self.is_right) = (0, true);
    }

    fn is_all(&self) -> bool {
        self.came == self.expected.len()
    }
}

/// The answer if it is one that a client wants.
fn success(what: &str, response: Response) -> Result<Response, End> {
    match response.status {
        200 | 206 => Ok(response),
        status => Err(failed(&format!("{what} {status}"))),
    }
}

fn failed(what: &str) -> End {
    End::Failed(what.to_owned())
}

fn retry_after(response: &Response) -> Duration {
    let seconds = response.header("retry-after").map_or(0, |seconds| seconds.parse().unwrap());
    Duration::from_secs(seconds)
}

fn amd64(index: &Value) -> &Value {
    let manifests = index["manifests"].as_array().unwrap();
    manifests.iter().find(|entry| entry["platform"]["architecture"] == "amd64").unwrap()
}

fn digest_of(descriptor: &Value) -> Digest {
    descriptor["digest"].as_str().unwrap().parse().unwrap()
}
