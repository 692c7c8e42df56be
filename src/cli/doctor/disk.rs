//! The disk: whether the data directory can be written, and whether what is put there stays and
//! has room.

use std::{io, path::Path};

use super::report::{Row, Section};
use crate::{
    cli::shown::size,
    config::{self, Size},
    finding::{Findings, Verdict},
    store::{Disk, DiskKind, existing_part, try_writing},
};

/// With room for fewer files, somebody should look at it: each blob is one.
const FEW_FILES: u64 = 10_000;

/// Looks at the disk under `data_dir`, which need not exist yet. Blocking.
pub(super) fn examine(data_dir: &Path, cache: &config::Cache) -> Vec<Row> {
    let mut findings = Findings::default();
    look(data_dir, cache, &mut findings);
    Row::all(Section::Disk, &data_dir.display().to_string(), findings.into_vec())
}

fn look(data_dir: &Path, cache: &config::Cache, findings: &mut Findings) {
    findings.begin("writable");
    let existing = match existing_part(data_dir) {
        Ok(existing) => existing,
        Err(error) => {
            return findings.end(Verdict::bad(format!("{error}; choose another data_dir")));
        }
    };
    let is_there = data_dir.exists();
    findings.end(match try_writing(&existing) {
        Ok(()) if is_there => Verdict::good("yes"),
        Ok(()) => Verdict::good(format!("not there yet; can be made in {}", existing.display())),
        Err((path, error)) => {
            let path = path.display();
            let remedy = "make it writable for the user that Larder runs as";
            Verdict::bad(format!("{path}: {error}; {remedy}"))
        }
    });
    findings.begin("disk");
    match Disk::of(&existing) {
        Ok(disk) => {
            findings.end(kind_verdict(disk.kind));
            findings.note("free", space_verdict(&disk, cache));
            findings.note("limit", limit_verdict(&disk, cache));
            findings.note("files", files_verdict(&disk));
        }
        Err(error) => findings.end(cannot_tell(&error)),
    }
}

fn cannot_tell(error: &io::Error) -> Verdict {
    Verdict::doubtful(format!("cannot be asked: {error}"))
}

fn kind_verdict(kind: DiskKind) -> Verdict {
    match kind {
        DiskKind::Local(Some(name)) => Verdict::good(name),
        DiskKind::Local(None) => Verdict::good("of a kind that Larder does not know"),
        DiskKind::Memory(name) => Verdict::doubtful(format!(
            "{name}: memory, which a reboot empties; choose a directory on a disk"
        )),
        DiskKind::Layer(name) => Verdict::doubtful(format!(
            "{name}: a container's own, which goes with it; mount a volume there"
        )),
        DiskKind::Remote(name) => Verdict::doubtful(format!(
            "{name}: not a disk of this machine; its locks and syncs may not hold"
        )),
    }
}

fn space_verdict(disk: &Disk, cache: &config::Cache) -> Verdict {
    let min_free = cache.min_free_bytes(disk.total);
    let said = format!(
        "{} of {}; {} stay free (cache.min_free)",
        size(disk.free),
        size(disk.total),
        size(min_free)
    );
    match disk.free > min_free {
        true => Verdict::good(said),
        false => Verdict::bad(format!("{said}: nothing more is kept; make room")),
    }
}

fn limit_verdict(disk: &Disk, cache: &config::Cache) -> Verdict {
    match cache.max_size {
        Size::Percent(part) => {
            Verdict::good(format!("{part} % of what is held and what is free (cache.max_size)"))
        }
        Size::Bytes(limit)
            if limit.saturating_add(cache.min_free_bytes(disk.total)) > disk.total =>
        {
            let (limit, total) = (size(limit), size(disk.total));
            Verdict::doubtful(format!(
                "{limit} (cache.max_size) and cache.min_free are more than the {total} of the disk"
            ))
        }
        Size::Bytes(limit) => Verdict::good(format!("{} (cache.max_size)", size(limit))),
    }
}

fn files_verdict(disk: &Disk) -> Verdict {
    match disk.free_files {
        None => Verdict::good("no limit"),
        Some(free) if free < FEW_FILES => {
            Verdict::doubtful(format!("room for {free} more; each blob is one"))
        }
        Some(free) => Verdict::good(format!("room for {free} more")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{Config, Sources},
        finding::Outcome,
    };

    #[test]
    fn what_is_not_kept_or_does_not_fit_is_told() {
        let flags = [("data_dir", "data".to_owned())].into();
        let cache = Config::load(&Sources { flags, ..Sources::default() }).unwrap().cache;
        let (gib, kind) = (1 << 30, DiskKind::Local(Some("ext4")));
        let disk = |free, free_files| Disk { kind, total: 100 * gib, free, free_files };
        let space = |free| space_verdict(&disk(free, None), &cache);
        assert_eq!(space(6 * gib).outcome, Outcome::Good);
        assert_eq!(
            space(6 * gib).detail,
            "6.0 GiB of 100.0 GiB; 5.0 GiB stay free (cache.min_free)"
        );
        assert_eq!(space(5 * gib).outcome, Outcome::Bad);
        let limit = |max_size| {
            let cache = config::Cache { max_size, ..cache.clone() };
            limit_verdict(&disk(gib, None), &cache)
        };
        assert!(limit(Size::Percent(80)).detail.starts_with("80 % of what is held"));
        assert_eq!(limit(Size::Bytes(95 * gib)).detail, "95.0 GiB (cache.max_size)");
        assert_eq!(limit(Size::Bytes(95 * gib)).outcome, Outcome::Good);
        assert_eq!(limit(Size::Bytes(96 * gib)).outcome, Outcome::Doubtful);
        let files = |free| files_verdict(&disk(gib, free)).outcome;
        assert_eq!(files(None), Outcome::Good);
        assert_eq!(files(Some(10_000)), Outcome::Good);
        assert_eq!(files(Some(9_999)), Outcome::Doubtful);
        for (kind, outcome) in [
            (kind, Outcome::Good),
            (DiskKind::Local(None), Outcome::Good),
            (DiskKind::Memory("tmpfs"), Outcome::Doubtful),
            (DiskKind::Layer("overlayfs"), Outcome::Doubtful),
            (DiskKind::Remote("nfs"), Outcome::Doubtful),
        ] {
            assert_eq!(kind_verdict(kind).outcome, outcome, "{kind:?}");
        }
    }
}
