//! Byte ranges of a blob (RFC 9110, section 14).

use std::ops::Range;

/// One range as a client asks for it, before the blob's size is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteRange {
    /// `bytes=first-`, or `bytes=first-last`.
    From {
        /// Offset of the first byte.
        first: u64,
        /// Offset of the last byte; `None`: to the end.
        last: Option<u64>,
    },
    /// `bytes=-length`: the end of the blob.
    Suffix {
        /// How many bytes.
        length: u64,
    },
}

impl ByteRange {
    /// Parses the value of a `Range` header. `None` when it is to be ignored: another unit,
    /// malformed, or several ranges.
    pub fn parse(header: &str) -> Option<ByteRange> {
        let (unit, range) = header.split_once('=')?;
        if !unit.eq_ignore_ascii_case("bytes") {
            return None;
        }
        let (first, last) = range.split_once('-')?;
        match (first, last) {
            ("", length) => Some(ByteRange::Suffix { length: number(length)? }),
            (first, "") => Some(ByteRange::From { first: number(first)?, last: None }),
            (first, last) => {
                Some(ByteRange::From { first: number(first)?, last: Some(number(last)?) })
            }
        }
    }

    /// The bytes meant in a blob of `size` bytes, clamped to its end. `None`: not satisfiable.
    pub fn resolve(self, size: u64) -> Option<Range<u64>> {
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

/// Digits only: `parse` alone would take a sign.
fn number(text: &str) -> Option<u64> {
    let digits_only = text.bytes().all(|byte| byte.is_ascii_digit());
    digits_only.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_resolve_as_the_conformance_suite_asks() {
        let cases = [
            ("bytes=500-1499", Some(500..1000)),
            ("bytes=0-", Some(0..1000)),
            ("bytes=0-0", Some(0..1)),
            ("bytes=999-", Some(999..1000)),
            ("bytes=-500", Some(500..1000)),
            ("bytes=-5000", Some(0..1000)),
            ("bytes=500-0", None),
            ("bytes=1000-", None),
            ("bytes=-0", None),
            ("bytes=18446744073709551615-18446744073709551615", None),
        ];
        for (header, expected) in cases {
            let resolved = ByteRange::parse(header).and_then(|range| range.resolve(1000));
            assert_eq!(resolved, expected, "{header}");
        }
    }

    #[test]
    fn what_is_no_single_byte_range_is_ignored() {
        for header in [
            "",
            "bytes",
            "bytes=",
            "bytes=-",
            "items=0-1",
            "bytes=a-b",
            "bytes=+1-2",
            "bytes=0-1,3-4",
        ] {
            assert_eq!(ByteRange::parse(header), None, "{header}");
        }
    }
}
