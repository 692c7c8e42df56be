//! One log line for each image pulled: who, what, how much of it from the cache.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    hash::{BuildHasher as _, RandomState},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{task::AbortHandle, time::Instant};

use crate::{
    access::Caller,
    mirror::{Content, Role, Source},
    oci::{Digest, Reference, Repository, Tag},
};

/// A pull is over when nothing was asked for so long, even if blobs are left: the client has them.
const IDLE: Duration = Duration::from_secs(5);

/// Into how many parts the pulls are divided, each with a lock, so that requests seldom meet at one.
const PARTS: usize = 16;

/// The most pulls followed at once in one part; more are served without a line.
const MAX_PULLS: usize = 640;

/// The pulls going on; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Pulls {
    running: Arc<[Mutex<Running>; PARTS]>,
    hasher: RandomState,
}

type Running = HashMap<Puller, Pull>;

/// Who pulls from where.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Puller {
    /// Who.
    pub client: Caller,
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
    /// Whether that is all of them.
    is_untouched: bool,
    /// Blobs asked for whose answer has not ended.
    under_way: usize,
    started: Instant,
    last: Instant,
    cached: u64,
    fetched: u64,
    bytes: u64,
}

impl Pulls {
    /// A client was told of a manifest, and got its `content`, or only a head. An index leads to an
    /// image and is none.
    pub fn saw_manifest(&self, puller: &Puller, reference: &Reference, content: Option<&Content>) {
        let is_image = |content: &&Content| content.manifest.children.is_image();
        let (tag, image) = (reference.tag(), content.filter(is_image));
        if tag.is_none() && image.is_none() {
            return;
        }
        if let Some(pull) = self.entry(&mut self.part(puller), puller) {
            if let Some(tag) = tag {
                pull.tag = Some(tag.clone());
            }
            if let Some(image) = image {
                pull.await_all_of(image);
            }
        }
    }

    /// A client asks for a blob.
    pub fn blob_begins(&self, puller: &Puller) {
        if let Some(pull) = self.part(puller).get_mut(puller) {
            pull.under_way += 1;
            pull.last = Instant::now();
        }
    }

    /// The blob cannot be had.
    pub fn blob_fails(&self, puller: &Puller) {
        if let Some(pull) = self.part(puller).get_mut(puller) {
            pull.leave();
        }
    }

    /// The answer with a blob has ended, so far. A client that has the manifest from before asks
    /// for blobs alone.
    pub fn blob_ends(&self, puller: &Puller, blob: &PulledBlob, source: Source, sent: Sent) {
        let mut running = self.part(puller);
        let Some(pull) = running.get_mut(puller) else {
            return;
        };
        pull.leave();
        pull.bytes = pull.bytes.saturating_add(sent.bytes);
        if sent.outcome == Outcome::Complete {
            pull.awaited.remove(&blob.digest);
            pull.is_untouched = false;
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

    /// The part in which the pulls of `puller` are.
    fn part(&self, puller: &Puller) -> MutexGuard<'_, Running> {
        let [first, ..] = &*self.running;
        let number = self.hasher.hash_one(puller) as usize % PARTS;
        let part = self.running.get(number).unwrap_or(first);
        part.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pull of `puller`, begun if need be.
    fn entry<'a>(&self, running: &'a mut Running, puller: &Puller) -> Option<&'a mut Pull> {
        let is_full = running.len() >= MAX_PULLS;
        let pull = match running.entry(puller.clone()) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(_) if is_full => return None,
            Entry::Vacant(new) => {
                let idle = tokio::spawn(self.clone().finish_when_idle(puller.clone()));
                new.insert(Pull::begin(idle.abort_handle()))
            }
        };
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
        let mut running = self.part(puller);
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
            is_untouched: false,
            under_way: 0,
            started: now,
            last: now,
            cached: 0,
            fetched: 0,
            bytes: 0,
        }
    }

    /// The image is to come, from its first blob.
    fn await_all_of(&mut self, image: &Content) {
        if self.is_untouched && self.manifest.as_ref() == Some(&image.digest) {
            return;
        }
        self.manifest = Some(image.digest.clone());
        self.awaited = image.manifest.children.digests().cloned().collect();
        self.is_untouched = true;
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
fn finish(running: &mut Running, puller: &Puller) {
    let Some(pull) = running.remove(puller) else {
        return;
    };
    pull.idle.abort();
    if pull.bytes == 0 {
        return;
    }
    tracing::info!(
        client = puller.client.to_string(),
        image = pull.image(&puller.repository),
        layers_cached = pull.cached,
        layers_fetched = pull.fetched,
        bytes = pull.bytes,
        seconds = pull.last.duration_since(pull.started).as_secs_f64(),
        "pulled"
    );
}
