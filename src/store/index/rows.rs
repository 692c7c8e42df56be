//! Keys and values of the index, as bytes. Every value begins with a version; what cannot be
//! read is skipped, since every row is a hint.
//!
//! | tree | key | value |
//! |---|---|---|
//! | `blobs` | digest | last use, size and, of a manifest, its type and what it lists |
//! | `tags` | repository, 0, tag, or the digest whose referrers are listed | time of the last check, digest |
//! | `proofs` | digest, repository | how it was shown |
//! | `visibility` | repository | who may see it, time of the check |
//! | `pins` | full name of an image | the digest that it holds |
//! | `forgotten` | digest | nothing |
//! | `meta` | `running` | the running time |
//! | `meta` | `day` | a day of it, and the most bytes that were held on it |
//! | `meta` | `snapshot` | the number of the snapshot that the rest goes with |
//!
//! What is no more but may be in the snapshot has an empty value, or a row in `forgotten`.

use crate::{
    oci::{Digest, ImageName, Reference, Repository, Visibility},
    store::{
        encoding::{put_digest, put_time, take, take_digest, take_slice, take_time},
        peak::Day,
        running::Moment,
        table::{BlobRow, Kind, ManifestRow, Pointer, PointerRow, Proof, Verdict},
    },
};

const VERSION: u8 = 1;

/// The key of a digest, and the beginning of the keys of its proofs.
pub fn digest_key(digest: &Digest) -> Vec<u8> {
    let mut key = Vec::with_capacity(33);
    put_digest(&mut key, digest);
    key
}

/// Reads [`digest_key`].
pub fn read_digest_key(mut key: &[u8]) -> Option<Digest> {
    let digest = take_digest(&mut key)?;
    key.is_empty().then_some(digest)
}

/// The value of a file.
pub fn blob_value(row: &BlobRow) -> Vec<u8> {
    let mut value = vec![VERSION];
    value.extend(row.last_use.seconds().to_le_bytes());
    value.extend(row.size.to_le_bytes());
    if let Some(manifest) = &row.manifest {
        value.push(kind_byte(manifest.kind));
        let media_type = manifest.media_type.as_bytes();
        value.extend((media_type.len() as u64).to_le_bytes());
        value.extend(media_type);
        for child in &manifest.children {
            put_digest(&mut value, child);
        }
    }
    value
}

/// Reads [`blob_value`].
pub fn read_blob_value(value: &[u8]) -> Option<BlobRow> {
    let mut rest = take_version(value)?;
    let last_use = Moment::from_seconds(u32::from_le_bytes(take(&mut rest)?));
    let size = u64::from_le_bytes(take(&mut rest)?);
    let manifest = match rest {
        [] => None,
        _ => Some(take_manifest(rest)?),
    };
    Some(BlobRow { size, last_use, manifest })
}

/// The key of a tag, or of a list of referrers.
pub fn pointer_key(repository: &Repository, pointer: &Pointer) -> Vec<u8> {
    match pointer {
        Pointer::Tag(tag) => format!("{repository}\0{tag}"),
        Pointer::Referrers(subject) => format!("{repository}\0{subject}"),
    }
    .into_bytes()
}

/// Reads [`pointer_key`].
pub fn read_pointer_key(key: &[u8]) -> Option<(Repository, Pointer)> {
    let (repository, name) = std::str::from_utf8(key).ok()?.split_once('\0')?;
    let pointer = match name.parse().ok()? {
        Reference::Tag(tag) => Pointer::Tag(tag),
        Reference::Digest(subject) => Pointer::Referrers(subject.into()),
    };
    Some((repository.parse().ok()?, pointer))
}

/// The value of a tag or a list of referrers.
pub fn pointer_value(row: &PointerRow) -> Vec<u8> {
    let mut value = vec![VERSION];
    put_time(&mut value, row.checked_at);
    put_digest(&mut value, &row.digest);
    value
}

/// Reads [`pointer_value`].
pub fn read_pointer_value(value: &[u8]) -> Option<PointerRow> {
    let mut rest = take_version(value)?;
    let checked_at = take_time(&mut rest)?;
    let digest = read_digest_key(rest)?;
    Some(PointerRow { digest, checked_at })
}

/// The key of a proof.
pub fn proof_key(repository: &Repository, digest: &Digest) -> Vec<u8> {
    let mut key = digest_key(digest);
    key.extend(repository.to_string().bytes());
    key
}

/// The value of a proof.
pub fn proof_value(proof: Proof) -> Vec<u8> {
    let proof = match proof {
        Proof::Blob => 0,
        Proof::Manifest => 1,
        Proof::List => 2,
    };
    vec![VERSION, proof]
}

/// Reads [`proof_key`].
pub fn read_proof_key(mut key: &[u8]) -> Option<(Repository, Digest)> {
    let digest = take_digest(&mut key)?;
    Some((std::str::from_utf8(key).ok()?.parse().ok()?, digest))
}

/// Reads [`proof_value`].
pub fn read_proof_value(value: &[u8]) -> Option<Proof> {
    match take_version(value)? {
        [0] => Some(Proof::Blob),
        [1] => Some(Proof::Manifest),
        [2] => Some(Proof::List),
        _ => None,
    }
}

/// The key of what upstream said of who may see a repository.
pub fn verdict_key(repository: &Repository) -> Vec<u8> {
    repository.to_string().into_bytes()
}

/// The value of what upstream said of who may see a repository.
pub fn verdict_value(row: &Verdict) -> Vec<u8> {
    let visibility = match row.visibility {
        Visibility::Private => 0,
        Visibility::Public => 1,
    };
    let mut value = vec![VERSION, visibility];
    put_time(&mut value, row.checked_at);
    value
}

/// Reads [`verdict_key`].
pub fn read_verdict_key(key: &[u8]) -> Option<Repository> {
    std::str::from_utf8(key).ok()?.parse().ok()
}

/// Reads [`verdict_value`].
pub fn read_verdict_value(value: &[u8]) -> Option<Verdict> {
    let mut rest = take_version(value)?;
    let visibility = match take(&mut rest)? {
        [0] => Visibility::Private,
        [1] => Visibility::Public,
        _ => return None,
    };
    let checked_at = take_time(&mut rest)?;
    rest.is_empty().then_some(Verdict { visibility, checked_at })
}

/// The key of a pin.
pub fn pin_key(image: &ImageName) -> Vec<u8> {
    image.to_string().into_bytes()
}

/// The value of a pin: what it holds.
pub fn pin_value(held: &Digest) -> Vec<u8> {
    let mut value = vec![VERSION];
    put_digest(&mut value, held);
    value
}

/// Reads [`pin_key`].
pub fn read_pin_key(key: &[u8]) -> Option<ImageName> {
    std::str::from_utf8(key).ok()?.parse().ok()
}

/// Reads [`pin_value`].
pub fn read_pin_value(value: &[u8]) -> Option<Digest> {
    read_digest_key(take_version(value)?)
}

/// Reads the number of the snapshot.
pub fn read_snapshot_value(value: &[u8]) -> Option<u32> {
    Some(u32::from_le_bytes(value.try_into().ok()?))
}

/// The value of the running time.
pub fn running_value(now: Moment) -> Vec<u8> {
    let mut value = vec![VERSION];
    value.extend(now.seconds().to_le_bytes());
    value
}

/// Reads [`running_value`].
pub fn read_running_value(value: &[u8]) -> Option<Moment> {
    let seconds = take(&mut take_version(value)?)?;
    Some(Moment::from_seconds(u32::from_le_bytes(seconds)))
}

/// The value of a day.
pub fn day_value(day: Day) -> Vec<u8> {
    let mut value = vec![VERSION];
    value.extend(day.number.to_le_bytes());
    value.extend(day.peak.to_le_bytes());
    value
}

/// Reads [`day_value`].
pub fn read_day_value(value: &[u8]) -> Option<Day> {
    let mut rest = take_version(value)?;
    let number = u32::from_le_bytes(take(&mut rest)?);
    Some(Day { number, peak: u64::from_le_bytes(take(&mut rest)?) })
}

fn take_manifest(mut rest: &[u8]) -> Option<ManifestRow> {
    let kind = match take(&mut rest)? {
        [0] => Kind::Unread,
        [1] => Kind::Image,
        [2] => Kind::Index,
        _ => return None,
    };
    let length = usize::try_from(u64::from_le_bytes(take(&mut rest)?)).ok()?;
    let media_type = take_slice(&mut rest, length)?;
    let mut children = Vec::new();
    while !rest.is_empty() {
        children.push(take_digest(&mut rest)?);
    }
    Some(ManifestRow { media_type: std::str::from_utf8(media_type).ok()?.into(), kind, children })
}

fn kind_byte(kind: Kind) -> u8 {
    match kind {
        Kind::Unread => 0,
        Kind::Image => 1,
        Kind::Index => 2,
    }
}

fn take_version(value: &[u8]) -> Option<&[u8]> {
    match value {
        [VERSION, rest @ ..] => Some(rest),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::oci::Algorithm;

    fn digest(n: u8) -> Digest {
        let algorithm = if n.is_multiple_of(2) { Algorithm::Sha256 } else { Algorithm::Sha512 };
        Digest::of(algorithm, &[n])
    }

    #[test]
    fn rows_survive_a_round_trip_and_no_cut_is_misread() {
        let manifest = ManifestRow {
            media_type: "application/x".into(),
            kind: Kind::Index,
            children: vec![digest(1), digest(2)],
        };
        for manifest in [None, Some(manifest)] {
            let row = BlobRow { size: 1 << 40, last_use: Moment::from_seconds(77), manifest };
            let value = blob_value(&row);
            assert_eq!(read_blob_value(&value), Some(row.clone()));
            for end in 0..value.len() {
                let read = read_blob_value(&value[..end]);
                assert_ne!(read.as_ref(), Some(&row));
            }
        }
        let repository: Repository = "ghcr.io/a/b".parse().unwrap();
        for pointer in [Pointer::Tag("v1".parse().unwrap()), Pointer::Referrers(digest(5).into())] {
            let key = pointer_key(&repository, &pointer);
            assert_eq!(read_pointer_key(&key), Some((repository.clone(), pointer)));
        }
        let checked_at = SystemTime::UNIX_EPOCH + Duration::new(1_800_000_000, 5);
        let row = PointerRow { digest: digest(3), checked_at };
        assert_eq!(read_pointer_value(&pointer_value(&row)), Some(row));
        for proof in [Proof::Blob, Proof::Manifest, Proof::List] {
            let key = proof_key(&repository, &digest(4));
            assert_eq!(read_proof_key(&key), Some((repository.clone(), digest(4))));
            assert_eq!(read_proof_value(&proof_value(proof)), Some(proof));
        }
        for visibility in [Visibility::Private, Visibility::Public] {
            let row = Verdict { visibility, checked_at };
            assert_eq!(read_verdict_key(&verdict_key(&repository)), Some(repository.clone()));
            let value = verdict_value(&row);
            assert_eq!(read_verdict_value(&value), Some(row));
            for end in 0..value.len() {
                assert_eq!(read_verdict_value(&value[..end]), None);
            }
        }
        for image in ["ghcr.io/a/b:v1".to_owned(), format!("ghcr.io/a/b@{}", digest(7))] {
            let image: ImageName = image.parse().unwrap();
            assert_eq!(read_pin_key(&pin_key(&image)), Some(image));
            let value = pin_value(&digest(7));
            assert_eq!(read_pin_value(&value), Some(digest(7)));
            for end in 0..value.len() {
                assert_eq!(read_pin_value(&value[..end]), None);
            }
        }
        let now = Moment::from_seconds(9);
        assert_eq!(read_running_value(&running_value(now)), Some(now));
        let day = Day { number: 3, peak: 5 << 40 };
        assert_eq!(read_day_value(&day_value(day)), Some(day));
    }
}
