//! Digests, times and numbers as bytes, for what the index keeps. A digest is one byte for the
//! algorithm and its raw bytes; numbers are little-endian.

use std::time::{Duration, SystemTime};

use crate::oci::{Algorithm, Digest};

/// Appends a digest.
pub fn put_digest(bytes: &mut Vec<u8>, digest: &Digest) {
    bytes.push(match digest.algorithm() {
        Algorithm::Sha256 => 1,
        Algorithm::Sha512 => 2,
    });
    bytes.extend_from_slice(digest.as_bytes());
}

/// Takes a digest off the front.
pub fn take_digest(bytes: &mut &[u8]) -> Option<Digest> {
    let (algorithm, length) = match take(bytes)? {
        [1] => (Algorithm::Sha256, 32),
        [2] => (Algorithm::Sha512, 64),
        _ => return None,
    };
    Digest::from_bytes(algorithm, take_slice(bytes, length)?).ok()
}

/// Appends a wall time. One before 1970 becomes 1970.
pub fn put_time(bytes: &mut Vec<u8>, time: SystemTime) {
    let since_epoch = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    bytes.extend(since_epoch.as_secs().to_le_bytes());
    bytes.extend(since_epoch.subsec_nanos().to_le_bytes());
}

/// Takes a wall time off the front.
pub fn take_time(bytes: &mut &[u8]) -> Option<SystemTime> {
    let seconds = u64::from_le_bytes(take(bytes)?);
    let nanos = u32::from_le_bytes(take(bytes)?).min(999_999_999);
    SystemTime::UNIX_EPOCH.checked_add(Duration::new(seconds, nanos))
}

/// Takes a number off the front.
pub fn take_u32(bytes: &mut &[u8]) -> Option<u32> {
    Some(u32::from_le_bytes(take(bytes)?))
}

/// Takes a fixed number of bytes off the front.
pub fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*taken)
}

/// Takes any number of bytes off the front.
pub fn take_slice<'a>(bytes: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

/// Appends a text, which is no longer than names are.
pub fn put_text(part: &mut Vec<u8>, text: &str) {
    put_number(part, text.len());
    part.extend_from_slice(text.as_bytes());
}

/// Takes [`put_text`] off the front.
pub fn take_text<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    let length = take_u32(rest)? as usize;
    std::str::from_utf8(take_slice(rest, length)?).ok()
}

/// Appends how many numbers there are, and each.
pub fn put_numbers(part: &mut Vec<u8>, numbers: impl ExactSizeIterator<Item = usize>) {
    put_number(part, numbers.len());
    numbers.for_each(|number| put_number(part, number));
}

/// Takes [`put_numbers`] off the front.
pub fn take_numbers<'a>(rest: &mut &'a [u8]) -> Option<impl ExactSizeIterator<Item = usize> + 'a> {
    let bytes = (take_u32(rest)? as usize).checked_mul(4)?;
    let (numbers, _) = take_slice(rest, bytes)?.as_chunks::<4>();
    Some(numbers.iter().map(|number| u32::from_le_bytes(*number) as usize))
}

/// Appends a number of slots, of repositories or of bytes in a name, all of which are small.
pub fn put_number(part: &mut Vec<u8>, number: usize) {
    part.extend(u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes());
}
