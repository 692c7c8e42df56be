//! What is noted beside a growing file, so that a later life can go on with it.
//!
//! The length of such a file tells which bytes were written only as long as the machine runs: a power
//! cut may lose pages of it. So the note names the boot, and with another the file is worth nothing.
//! Where parts are written in any order, the length tells nothing at all; then the note does.

use std::{fs, io, path::Path};

use serde::{Deserialize, Serialize};

use super::running::Moment;
use crate::oci::Repository;

/// Names the present boot of the machine (random(4)).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// What a growing file belongs to.
#[derive(Clone, Debug)]
pub struct Note {
    /// Where upstream showed the blob.
    pub repository: Repository,
    /// Bytes in the whole blob, if upstream said.
    pub size: Option<u64>,
    /// When a writer last began on it.
    pub begun: Moment,
    /// Bytes from the beginning that count; `None`: all that the file has.
    pub written: Option<u64>,
}

#[derive(Deserialize, Serialize)]
struct Written {
    boot: String,
    repository: String,
    size: Option<u64>,
    /// In seconds of running time.
    begun: u32,
    written: Option<u64>,
}

impl Note {
    /// Writes it. `Ok(false)`: it would be of no use, for the boot has no name. Blocking.
    pub fn write(&self, path: &Path) -> io::Result<bool> {
        let Some(boot) = boot() else {
            return Ok(false);
        };
        let repository = self.repository.to_string();
        let text = serde_json::to_vec(&Written {
            boot,
            repository,
            size: self.size,
            begun: self.begun.seconds(),
            written: self.written,
        })?;
        // A process that is killed meanwhile leaves the old one.
        let fresh = path.with_extension("new");
        fs::write(&fresh, text)?;
        fs::rename(fresh, path).map(|()| true)
    }

    /// Reads one of this boot. `None`: there is none that can be read. Blocking.
    pub fn read(path: &Path) -> Option<Note> {
        let written: Written = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
        let is_of_this_boot = boot()? == written.boot;
        let repository = written.repository.parse().ok().filter(|_| is_of_this_boot)?;
        let begun = Moment::from_seconds(written.begun);
        Some(Note { repository, size: written.size, begun, written: written.written })
    }
}

fn boot() -> Option<String> {
    let text = fs::read_to_string(BOOT_ID).ok()?;
    Some(text.trim().to_owned()).filter(|boot| !boot.is_empty())
}
