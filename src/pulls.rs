//! One log line for each image pulled: who, what, how much of it from the cache.

use std::{
    collections::HashSet,
    hash::BuildHasher as _,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use foldhash::fast::RandomState;
use hashbrown::{HashTable, hash_table::Entry};
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

type Running = HashTable<Pull>;

/// The part in which a puller's pull is, locked. Whoever pulls is hashed once, for the part and in it:
/// every manifest that is a hit comes by here.
struct Part<'a> {
    running: MutexGuard<'a, Running>,
    puller: &'a Puller,
    hash: u64,
}

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
    puller: Puller,
    /// The hash of `puller`.
    hash: u64,
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
        if let Some(pull) = self.part(puller).get_or_begin(self) {
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
        if let Some(pull) = self.part(puller).get() {
            pull.under_way += 1;
            pull.last = Instant::now();
        }
    }

    /// The blob cannot be had.
    pub fn blob_fails(&self, puller: &Puller) {
        if let Some(pull) = self.part(puller).get() {
            pull.leave();
        }
    }

    /// The answer with a blob has ended, so far. A client that has the manifest from before asks
    /// for blobs alone.
    pub fn blob_ends(&self, puller: &Puller, blob: &PulledBlob, source: Source, sent: Sent) {
        let mut part = self.part(puller);
        let Some(pull) = part.get() else {
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
            part.finish();
        }
    }

    fn part<'a>(&'a self, puller: &'a Puller) -> Part<'a> {
        let [first, ..] = &*self.running;
        let hash = self.hasher.hash_one(puller);
        // By bits that a table does not use for the place in it.
        let number = (hash >> 32) as usize % PARTS;
        let part = self.running.get(number).unwrap_or(first);
        Part { running: part.lock().unwrap_or_else(PoisonError::into_inner), puller, hash }
    }

    async fn finish_when_idle(self, puller: Puller) {
        while let Some(due) = self.due(&puller) {
            tokio::time::sleep_until(due).await;
        }
    }

    /// When to look again whether the pull is over; `None` when it is.
    fn due(&self, puller: &Puller) -> Option<Instant> {
        let mut part = self.part(puller);
        let pull = part.get()?;
        let due = pull.last + IDLE;
        if pull.under_way > 0 {
            return Some(Instant::now() + IDLE);
        }
        if due > Instant::now() {
            return Some(due);
        }
        part.finish();
        None
    }
}

impl Part<'_> {
    fn get(&mut self) -> Option<&mut Pull> {
        let puller = self.puller;
        self.running.find_mut(self.hash, |pull| pull.puller == *puller)
    }

    /// The pull, which is one of `pulls`, begun if need be.
    fn get_or_begin(&mut self, pulls: &Pulls) -> Option<&mut Pull> {
        let Part { running, puller, hash } = self;
        let is_full = running.len() >= MAX_PULLS;
        let is_its = |pull: &Pull| pull.puller == **puller;
        let pull = match running.entry(*hash, is_its, |pull| pull.hash) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(_) if is_full => return None,
            Entry::Vacant(new) => {
                let idle = tokio::spawn(pulls.clone().finish_when_idle(puller.clone()));
                new.insert(Pull::begin(puller.clone(), *hash, idle.abort_handle())).into_mut()
            }
        };
        pull.last = Instant::now();
        Some(pull)
    }

    /// Writes the line, unless the client only looked.
    fn finish(&mut self) {
        let puller = self.puller;
        let Ok(entry) = self.running.find_entry(self.hash, |pull| pull.puller == *puller) else {
            return;
        };
        let (pull, _) = entry.remove();
        pull.idle.abort();
        if pull.bytes > 0 {
            pull.tell();
        }
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
    fn begin(puller: Puller, hash: u64, idle: AbortHandle) -> Pull {
        let now = Instant::now();
        Pull {
            puller,
            hash,
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

    fn tell(&self) {
        tracing::info!(
            client = self.puller.client.to_string(),
            image = self.image(),
            layers_cached = self.cached,
            layers_fetched = self.fetched,
            bytes = self.bytes,
            seconds = self.last.duration_since(self.started).as_secs_f64(),
            "pulled"
        );
    }

    fn image(&self) -> String {
        let repository = &self.puller.repository;
        match (&self.tag, &self.manifest) {
            (Some(tag), _) => format!("{repository}:{tag}"),
            (None, Some(digest)) => format!("{repository}@{digest}"),
            (None, None) => repository.to_string(),
        }
    }
}
