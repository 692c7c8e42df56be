//! Byte ranges of a blob (RFC 9110, section 14).

use std::ops::Range;

/// The most parts of one answer.
const MAX_PARTS: usize = 1024;

/// What a `Range` header asks for, before the blob's size is known. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ByteRanges(Vec<ByteRange>);

/// Why ranges are answered with an error. The texts are for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// None of them has a byte of the blob.
    #[error("no byte of the blob is in the range")]
    Unsatisfiable,
    /// More of them than any client needs.
    #[error("more than {MAX_PARTS} ranges")]
    TooMany,
    /// A byte would be sent twice.
    #[error("the ranges overlap")]
    Overlapping,
}

/// One of several ranges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ByteRange {
    /// `first-`, or `first-last`.
    From { first: u64, last: Option<u64> },
    /// `-length`: the end of the blob.
    Suffix { length: u64 },
}

impl ByteRanges {
    /// Parses the value of a `Range` header. `None` when it is to be ignored: another unit, or
    /// malformed in any of its ranges.
    pub fn parse(header: &str) -> Option<ByteRanges> {
        let (unit, listed) = header.split_once('=')?;
        if !unit.eq_ignore_ascii_case("bytes") {
            return None;
        }
        let members = listed.split(',').map(|member| member.trim_matches([' ', '\t']));
        let members = members.filter(|member| !member.is_empty());
        let ranges = members.map(ByteRange::parse).collect::<Option<Vec<_>>>()?;
        (!ranges.is_empty()).then_some(ByteRanges(ranges))
    }

    /// Whether they are written as `bytes=0-`, which is all of any blob.
    pub fn are_all(&self) -> bool {
        self.0 == [ByteRange::From { first: 0, last: None }]
    }

    /// The bytes meant in a blob of `size` bytes, in the order asked for: at least one part, none
    /// empty, none past the end, no two that overlap, and so no more bytes than the blob has.
    /// What cannot be satisfied is left out.
    ///
    /// # Errors
    /// When nothing is left, and when answering would be wasteful.
    pub fn resolve(&self, size: u64) -> Result<Vec<Range<u64>>, RangeError> {
        if self.0.len() > MAX_PARTS {
            return Err(RangeError::TooMany);
        }
        let parts: Vec<_> = self.0.iter().filter_map(|range| range.resolve(size)).collect();
        if parts.is_empty() {
            return Err(RangeError::Unsatisfiable);
        }
        if overlap(&parts) {
            return Err(RangeError::Overlapping);
        }
        Ok(parts)
    }
}

impl ByteRange {
    fn parse(text: &str) -> Option<ByteRange> {
        match text.split_once('-')? {
            ("", length) => Some(ByteRange::Suffix { length: number(length)? }),
            (first, "") => Some(ByteRange::From { first: number(first)?, last: None }),
            (first, last) => {
                Some(ByteRange::From { first: number(first)?, last: Some(number(last)?) })
            }
        }
    }

    /// `None`: it has no byte of a blob of `size` bytes.
    fn resolve(self, size: u64) -> Option<Range<u64>> {
        let range = match self {
            ByteRange::From { first, last } => {
                let end = last.map_or(size, |last| last.saturating_add(1).min(size));
                first..end
            }
            ByteRange::Suffix { length } => size.saturating_sub(length)..size,
        };
        (range.start < range.end).then_some(range)
    }
}

/// Digits only: `parse` alone would take a sign. A number beyond all sizes is as good as the
/// largest.
fn number(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(u64::MAX))
}

fn overlap(parts: &[Range<u64>]) -> bool {
    let mut sorted = parts.to_vec();
    sorted.sort_unstable_by_key(|part| part.start);
    let followed = sorted.iter().zip(sorted.iter().skip(1));
    followed.into_iter().any(|(part, next)| next.start < part.end)
}

#[cfg(test)]
mod properties;

#[cfg(test)]
mod tests {
    use super::*;

    const HUGE: &str = "99999999999999999999999";

    /// Start and end of each part of a blob of 1000 bytes.
    fn resolve(header: &str) -> Result<Vec<(u64, u64)>, RangeError> {
        let parts = ByteRanges::parse(header).unwrap().resolve(1000)?;
        Ok(parts.into_iter().map(|part| (part.start, part.end)).collect())
    }

    #[test]
    fn ranges_that_have_bytes_of_the_blob() {
        let cases: [(&str, &[(u64, u64)]); 16] = [
            ("bytes=500-1499", &[(500, 1000)]),
            ("bytes=0-", &[(0, 1000)]),
            ("bytes=0-0", &[(0, 1)]),
            ("bytes=999-", &[(999, 1000)]),
            ("bytes=-500", &[(500, 1000)]),
            ("bytes=-5000", &[(0, 1000)]),
            ("BYTES=007-9", &[(7, 10)]),
            (&format!("bytes=1-{HUGE}"), &[(1, 1000)]),
            (&format!("bytes=-{HUGE}"), &[(0, 1000)]),
            ("bytes=0-1,5-6", &[(0, 2), (5, 7)]),
            ("bytes=5-6,0-1", &[(5, 7), (0, 2)]),
            ("bytes=0-1,2-3", &[(0, 2), (2, 4)]),
            ("bytes=, 0-1 ,\t,-1,", &[(0, 2), (999, 1000)]),
            ("bytes=0-1,1000-", &[(0, 2)]),
            ("bytes=0-1,1000-,-0,9-8", &[(0, 2)]),
            ("bytes=998-,990-991", &[(998, 1000), (990, 992)]),
        ];
        for (header, expected) in cases {
            assert_eq!(resolve(header).as_deref(), Ok(expected), "{header}");
        }
    }

    #[test]
    fn ranges_that_are_answered_with_an_error() {
        use RangeError::{Overlapping, TooMany, Unsatisfiable};
        let many = |count: usize| {
            let ranges: Vec<String> = (0..count).map(|at| format!("{at}-{at}")).collect();
            format!("bytes={}", ranges.join(","))
        };
        let cases = [
            ("bytes=500-0", Unsatisfiable),
            ("bytes=1000-", Unsatisfiable),
            ("bytes=-0", Unsatisfiable),
            ("bytes=1000-1001,2000-", Unsatisfiable),
            (&format!("bytes={HUGE}-{HUGE}"), Unsatisfiable),
            ("bytes=0-5,5-6", Overlapping),
            ("bytes=5-6,0-5", Overlapping),
            ("bytes=0-0,0-0", Overlapping),
            ("bytes=0-,-1", Overlapping),
            ("bytes=900-2000,-1", Overlapping),
            (&many(1025), TooMany),
        ];
        for (header, expected) in cases {
            assert_eq!(resolve(header), Err(expected), "{header}");
        }
        let most = ByteRanges::parse(&many(1024)).unwrap().resolve(2000);
        assert_eq!(most.unwrap().len(), 1024);
    }

    #[test]
    fn what_is_malformed_is_ignored() {
        for header in [
            "",
            "bytes",
            "bytes=",
            "bytes=,",
            "bytes=-",
            "bytes=0",
            "items=0-1",
            "bytes =0-1",
            "bytes=a-b",
            "bytes=+1-2",
            "bytes=0-1-2",
            "bytes=0 - 1",
            "bytes=0-1;5-6",
            "bytes=0-1,x",
        ] {
            assert_eq!(ByteRanges::parse(header), None, "{header}");
        }
    }

    #[test]
    fn an_empty_blob_has_no_ranges() {
        for header in ["bytes=0-", "bytes=0-0", "bytes=-1"] {
            let resolved = ByteRanges::parse(header).unwrap().resolve(0);
            assert_eq!(resolved, Err(RangeError::Unsatisfiable), "{header}");
        }
    }
}
