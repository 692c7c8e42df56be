//! One log line for each image pulled: who, what, how much of it from the cache.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{task::AbortHandle, time::Instant};

use crate::{
    mirror::{Content, Role, Source},
    oci::{Children, Digest, Reference, Repository, Tag},
};

/// A pull is over when nothing was asked for so long, even if blobs are left: the client has them.
const IDLE: Duration = Duration::from_secs(5);

/// The most pulls followed at once; more are served without a line.
const MAX_PULLS: usize = 10_000;

/// The pulls going on; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Pulls {
    running: Arc<Mutex<HashMap<Puller, Pull>>>,
}

/// Who pulls from where.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Puller {
    /// The client's address, without its port.
    pub client: String,
    /// The repository.
    pub repository: Repository,
}

/// What was sent of one image.
#[derive(Debug)]
struct Pull {
    /// The task that ends it when nothing is asked for; it ends with it.
    idle: AbortHandle,
    /// The tag the client asked for, if it did.
    tag: Option<Tag>,
    /// The image's own manifest, once it was sent.
    manifest: Option<Digest>,
    /// Blobs of the manifest that were not sent yet.
    awaited: HashSet<Digest>,
    /// Blobs asked for whose answer has not ended.
    under_way: usize,
    started: Instant,
    last: Instant,
    cached: u64,
    fetched: u64,
    bytes: u64,
}

impl Pulls {
    /// A client was told of a tag.
    pub fn saw_tag(&self, puller: &Puller, reference: &Reference) {
        let Reference::Tag(tag) = reference else {
            return;
        };
        if let Some(pull) = self.entry(&mut self.lock(), puller) {
            pull.tag = Some(tag.clone());
        }
    }

    /// A client got a manifest. An index only leads to it.
    pub fn saw_manifest(&self, puller: &Puller, content: &Content) {
        let Children::Image { .. } = content.manifest.children else {
            return;
        };
        if let Some(pull) = self.entry(&mut self.lock(), puller) {
            pull.manifest = Some(content.digest.clone());
            pull.awaited = content.manifest.children.digests().cloned().collect();
        }
    }

    /// A client asks for a blob.
    pub fn blob_begins(&self, puller: &Puller) {
        if let Some(pull) = self.lock().get_mut(puller) {
            pull.under_way += 1;
            pull.last = Instant::now();
        }
    }

    /// The blob cannot be had.
    pub fn blob_fails(&self, puller: &Puller) {
        if let Some(pull) = self.lock().get_mut(puller) {
            pull.leave();
        }
    }

    /// The answer with a blob has ended, so far. A client that has the manifest from before asks
    /// for blobs alone.
    pub fn blob_ends(&self, puller: &Puller, blob: &PulledBlob, source: Source, sent: Sent) {
        let mut running = self.lock();
        let Some(pull) = running.get_mut(puller) else {
            return;
        };
        pull.leave();
        pull.bytes = pull.bytes.saturating_add(sent.bytes);
        if sent.outcome == Outcome::Complete {
            pull.awaited.remove(&blob.digest);
            match (blob.role, source) {
                (Role::Config, _) => {}
                (Role::Layer, Source::Cache) => pull.cached += 1,
                (Role::Layer, Source::Download | Source::Upstream) => pull.fetched += 1,
            }
        }
        if pull.awaited.is_empty() && pull.manifest.is_some() {
            finish(&mut running, puller);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Puller, Pull>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pull of `puller`, begun if need be.
    fn entry<'a>(
        &self,
        running: &'a mut HashMap<Puller, Pull>,
        puller: &Puller,
    ) -> Option<&'a mut Pull> {
        if !running.contains_key(puller) {
            if running.len() >= MAX_PULLS {
                return None;
            }
            let idle = tokio::spawn(self.clone().finish_when_idle(puller.clone()));
            running.insert(puller.clone(), Pull::begin(idle.abort_handle()));
        }
        let pull = running.get_mut(puller)?;
        pull.last = Instant::now();
        Some(pull)
    }

    async fn finish_when_idle(self, puller: Puller) {
        while let Some(due) = self.due(&puller) {
            tokio::time::sleep_until(due).await;
        }
    }

    /// When to look again whether the pull is over; `None` when it is.
    fn due(&self, puller: &Puller) -> Option<Instant> {
        let mut running = self.lock();
        let pull = running.get(puller)?;
        let due = pull.last + IDLE;
        if pull.under_way > 0 {
            return Some(Instant::now() + IDLE);
        }
        if due > Instant::now() {
            return Some(due);
        }
        finish(&mut running, puller);
        None
    }
}

/// A blob that is a part of a pull.
#[derive(Clone, Debug)]
pub struct PulledBlob {
    /// Its name.
    pub digest: Digest,
    /// What it is to its image.
    pub role: Role,
}

/// How a body ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was sent to the content's end.
    Complete,
    /// The client hung up, the body was cut, or it was a part from the middle.
    Partial,
}

/// What was sent of a body.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// Its bytes.
    pub bytes: u64,
    /// How it ended.
    pub outcome: Outcome,
}

impl Pull {
    fn begin(idle: AbortHandle) -> Pull {
        let now = Instant::now();
        Pull {
            idle,
            tag: None,
            manifest: None,
            awaited: HashSet::new(),
            under_way: 0,
            started: now,
            last: now,
            cached: 0,
            fetched: 0,
            bytes: 0,
        }
    }

    /// A blob is under way no more.
    fn leave(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
        self.last = Instant::now();
    }

    fn image(&self, repository: &Repository) -> String {
        match (&self.tag, &self.manifest) {
            (Some(tag), _) => format!("{repository}:{tag}"),
            (None, Some(digest)) => format!("{repository}@{digest}"),
            (None, None) => repository.to_string(),
        }
    }
}

/// Writes the line, unless the client only looked.
fn finish(running: &mut HashMap<Puller, Pull>, puller: &Puller) {
    let Some(pull) = running.remove(puller) else {
        return;
    };
    pull.idle.abort();
    if pull.bytes == 0 {
        return;
    }
    tracing::info!(
        client = puller.client,
        image = pull.image(&puller.repository),
        layers_cached = pull.cached,
        layers_fetched = pull.fetched,
        bytes = pull.bytes,
        seconds = pull.last.duration_since(pull.started).as_secs_f64(),
        "pulled"
    );
}
