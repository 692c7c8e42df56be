//! Reading all of the index: the snapshot, and what sled was told since.

use std::{io, path::Path};

use super::{Before, Index, rows, snapshot};
use crate::store::{
    running::Moment,
    table::{PinRow, ProofRow, Table},
};

impl Index {
    /// The running time is never before a use: its own row may be lost alone.
    pub(super) fn read(&self, path: &Path) -> sled::Result<(Table, Before)> {
        let (header, mut table) = snapshot::read(path)?;
        if header.number != self.snapshot {
            let reason = format!("its snapshot is {}, not {}", header.number, self.snapshot);
            return Err(io::Error::other(reason).into());
        }
        let running = self.meta.get(b"running")?;
        let running = running.and_then(|value| rows::read_running_value(&value));
        let running = running.unwrap_or_default().max(header.running);
        self.read_forgotten(&mut table)?;
        let running = self.read_blobs(&mut table, running)?;
        self.read_names(&mut table, running)?;
        self.read_verdicts(&mut table)?;
        self.read_pins(&mut table, running)?;
        table.mark_remembered();
        let day = self.meta.get(b"day")?;
        let day = day.and_then(|value| rows::read_day_value(&value)).unwrap_or_default();
        Ok((table, Before { running, day }))
    }

    /// Before anything else is said of the same digests.
    fn read_forgotten(&self, table: &mut Table) -> sled::Result<()> {
        for key in self.forgotten.iter().keys() {
            if let Some(digest) = rows::read_digest_key(&key?) {
                table.forget(&digest);
            }
        }
        Ok(())
    }

    /// Returns the running time, or the last use if that is later.
    fn read_blobs(&self, table: &mut Table, mut running: Moment) -> sled::Result<Moment> {
        for row in self.blobs.iter() {
            let (key, value) = row?;
            let Some(digest) = rows::read_digest_key(&key) else {
                continue;
            };
            if value.is_empty() {
                table.lose(&digest);
            } else if let Some(row) = rows::read_blob_value(&value) {
                running = running.max(row.last_use);
                table.restore(&digest, &row);
            }
        }
        Ok(running)
    }

    fn read_names(&self, table: &mut Table, running: Moment) -> sled::Result<()> {
        for row in self.proofs.iter() {
            let (key, value) = row?;
            let Some((repository, digest)) = rows::read_proof_key(&key) else {
                continue;
            };
            if value.is_empty() {
                table.disprove(&repository, &digest);
            } else if let Some(proof) = rows::read_proof_value(&value) {
                table.restore_proof(&ProofRow { repository, digest, proof }, running);
            }
        }
        for row in self.pointers.iter() {
            let (key, value) = row?;
            let Some((repository, pointer)) = rows::read_pointer_key(&key) else {
                continue;
            };
            if value.is_empty() {
                table.drop_pointer(&repository, &pointer);
            } else if let Some(row) = rows::read_pointer_value(&value) {
                table.point(&repository, &pointer, &row, running);
            }
        }
        Ok(())
    }

    fn read_verdicts(&self, table: &mut Table) -> sled::Result<()> {
        for row in self.visibility.iter() {
            let (key, value) = row?;
            let Some(repository) = rows::read_verdict_key(&key) else {
                continue;
            };
            if value.is_empty() {
                table.forget_verdict(&repository);
            } else if let Some(row) = rows::read_verdict_value(&value) {
                table.judge(&repository, row);
            }
        }
        Ok(())
    }

    /// After the tags, which pins follow.
    fn read_pins(&self, table: &mut Table, running: Moment) -> sled::Result<()> {
        for row in self.pins.iter() {
            let (key, value) = row?;
            let Some(image) = rows::read_pin_key(&key) else {
                continue;
            };
            table.unpin(&image);
            if let Some(held) = rows::read_pin_value(&value) {
                table.restore_pin(&PinRow { image, held }, running);
            }
        }
        Ok(())
    }
}
