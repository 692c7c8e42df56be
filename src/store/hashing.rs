//! The hash of a growing file, which may come after its bytes.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    sync::{Arc, Weak},
};

use futures_util::FutureExt as _;
use tokio::task::{JoinError, JoinHandle};

use super::{blocking, downloads::Partial};
use crate::oci::Hasher;

/// How much is read at once, in bytes.
const PIECE: usize = 1024 * 1024;

/// How much of what an earlier writer left is hashed before others have their turn on the blocking
/// threads, in bytes.
const TURN: u64 = 8 * 1024 * 1024;

/// The hash of the first bytes of a file.
#[derive(Clone, Debug)]
pub struct Hashed {
    /// What they hash to so far.
    pub hasher: Hasher,
    /// So many.
    pub length: u64,
}

/// The hash of a file that a writer appends to.
#[derive(Debug)]
pub enum Hashing {
    /// It is with the writer.
    Here(Box<Hashed>),
    /// It is still on its way through what an earlier writer left.
    Behind(JoinHandle<io::Result<Hashed>>),
    /// The file could not be read.
    Lost,
}

impl Hashed {
    /// Of a file without bytes.
    pub fn nothing(hasher: Hasher) -> Hashed {
        Hashed { hasher, length: 0 }
    }

    /// Takes in what comes next.
    pub fn update(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.length = self.length.saturating_add(bytes.len() as u64);
    }

    /// Reads the file up to `end`. Blocking.
    pub fn catch_up(&mut self, file: &File, end: u64) -> io::Result<()> {
        let mut buffer = Vec::new();
        while self.length < end {
            let missing = usize::try_from(end - self.length).unwrap_or(usize::MAX);
            buffer.resize(missing.min(PIECE), 0);
            file.read_exact_at(&mut buffer, self.length)?;
            self.update(&buffer);
        }
        Ok(())
    }

    /// Reads the file up to where it has grown by then, or until nobody writes it any more.
    async fn follow(mut self, file: Arc<File>, writer: Weak<Partial>) -> io::Result<Hashed> {
        loop {
            let (from, file) = (self.length, Arc::clone(&file));
            self = blocking(move || self.take_turn(&file)).await??;
            if self.length == from {
                return Ok(self);
            }
            if writer.strong_count() == 0 {
                return Err(io::Error::other("the file is no longer written"));
            }
        }
    }

    /// Reads some more, unless the file has no more. Blocking.
    fn take_turn(mut self, file: &File) -> io::Result<Hashed> {
        let written = file.metadata()?.len();
        self.catch_up(file, written.min(self.length.saturating_add(TURN)))?;
        Ok(self)
    }
}

impl Hashing {
    /// The hash, with the writer.
    pub fn here_with(hashed: Hashed) -> Hashing {
        Hashing::Here(Box::new(hashed))
    }

    /// Begins to hash what is there already, on blocking threads.
    pub fn begin(partial: &Arc<Partial>, hasher: Hasher) -> Hashing {
        let (file, writer) = (Arc::clone(partial.file()), Arc::downgrade(partial));
        Hashing::Behind(tokio::spawn(Hashed::nothing(hasher).follow(file, writer)))
    }

    /// The hash, if it has come through. Whoever appends without it lets it follow.
    pub fn at_hand(&mut self) -> io::Result<Option<Hashed>> {
        if let Hashing::Behind(task) = self
            && let Some(done) = task.now_or_never()
        {
            self.come_through(done)?;
        }
        Ok(self.here())
    }

    /// Waits for the hash to come through.
    pub async fn wait(&mut self) -> io::Result<Hashed> {
        if let Hashing::Behind(task) = self {
            let done = task.await;
            self.come_through(done)?;
        }
        self.here().ok_or_else(|| io::Error::other("the hash is lost"))
    }

    /// The hash, if it is with the writer.
    pub fn here(&self) -> Option<Hashed> {
        match self {
            Hashing::Here(hashed) => Some(hashed.as_ref().clone()),
            Hashing::Behind(_) | Hashing::Lost => None,
        }
    }

    fn come_through(&mut self, done: Result<io::Result<Hashed>, JoinError>) -> io::Result<()> {
        // A task that has ended must not be asked again.
        *self = Hashing::Lost;
        *self = Hashing::here_with(done.map_err(io::Error::other)??);
        Ok(())
    }
}
