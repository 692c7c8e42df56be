//! Pins by name, and waiting until what was decided by hand is on the disk.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, PoisonError, mpsc::Receiver},
};

use super::{Shared, Store, blocking, table::PinRow, threads::Keeper};
use crate::oci::{Digest, ImageName};

/// Where it is written what the table holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// In the index and in `index.json`: it is what the next life knows.
    Everywhere,
    /// In one of them: the next life knows what was added, and of what was taken away it may not
    /// know that.
    Partly,
    /// Nowhere: the next life will not know of it.
    Nowhere,
}

/// What an image takes up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Its manifest.
    pub digest: Digest,
    /// Bytes of the manifest and everything below it that is here.
    pub bytes: u64,
}

/// Pins.
impl Store {
    /// Pins an image: what its name means stays, with everything below it, however long nobody uses
    /// it. Counts as use. `None`: its manifest is not here.
    ///
    /// # Errors
    /// When the threads for such work are gone: at the very end.
    pub async fn pin(&self, image: &ImageName) -> io::Result<Option<Extent>> {
        let (store, image) = (Arc::clone(&self.0), image.clone());
        blocking(move || store.pin(&image)).await
    }

    /// Takes a pin away. `false`: there was none.
    pub fn unpin(&self, image: &ImageName) -> bool {
        self.0.memory.with(|table| table.unpin(image))
    }

    /// Every pin, by name, with what it holds.
    pub fn pins(&self) -> Vec<PinRow> {
        self.0.memory.look(|table| table.pins().collect())
    }

    /// Whether an image is pinned by this very name.
    pub fn is_pinned(&self, image: &ImageName) -> bool {
        self.0.memory.look(|table| table.held_by(image)).is_some()
    }

    /// Bytes that stay because of pins.
    ///
    /// # Errors
    /// When the threads for such work are gone: at the very end.
    pub async fn pinned_bytes(&self) -> io::Result<u64> {
        let store = Arc::clone(&self.0);
        blocking(move || store.pinned_bytes()).await
    }

    /// Has everything that the table holds written and synced now, and waits for it.
    ///
    /// # Errors
    /// When the threads for such work are gone: at the very end.
    pub async fn write_now(&self) -> io::Result<Written> {
        let store = Arc::clone(&self.0);
        blocking(move || store.write_now()).await
    }
}

impl Shared {
    /// Under the lock of the manifest, so that it is not just being removed. Blocking.
    fn pin(&self, image: &ImageName) -> Option<Extent> {
        let digest = self.memory.look(|table| table.image(image))?;
        let _name = self.names.take(&digest);
        let now = self.running.now();
        // A tag that has moved meanwhile names something that has just come.
        let held = self.memory.with(|table| {
            let held = table.pin(image)?;
            table.use_now(&held, now);
            Some(held)
        })?;
        let bytes = self.sizes_below(&held).fold(0, |sum: u64, (_, size)| sum.saturating_add(size));
        Some(Extent { digest: held, bytes })
    }

    /// Blocking. What several pins hold counts once.
    fn pinned_bytes(&self) -> u64 {
        let held: Vec<PinRow> = self.memory.look(|table| table.pins().collect());
        let sizes: HashMap<Digest, u64> =
            held.iter().flat_map(|row| self.sizes_below(&row.held)).collect();
        sizes.into_values().fold(0, u64::saturating_add)
    }

    fn sizes_below(&self, digest: &Digest) -> impl Iterator<Item = (Digest, u64)> {
        let below = self.memory.look(|table| table.below(digest));
        below.into_iter().filter_map(|(digest, size)| Some((digest, size?)))
    }

    /// Blocking.
    fn write_now(&self) -> Written {
        let keepers = self.keepers.lock().unwrap_or_else(PoisonError::into_inner);
        let answers: Vec<Receiver<bool>> = keepers.iter().filter_map(Keeper::write_now).collect();
        drop(keepers);
        let written: Vec<bool> =
            answers.iter().map(|answer| answer.recv().unwrap_or(false)).collect();
        match written.iter().filter(|written| **written).count() {
            0 => Written::Nowhere,
            some if some < written.len() => Written::Partly,
            _ => Written::Everywhere,
        }
    }
}
