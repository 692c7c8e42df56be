//! How sizes, times and digests are shown to people, in every command alike.

use bytesize::ByteSize;

/// Letters of a digest that tell it from the others.
const SHORT_DIGEST: usize = 12;

/// In the largest unit that there is a whole one of, such as `1.5 MiB`.
pub(super) fn size(bytes: u64) -> String {
    ByteSize::b(bytes).display().iec().to_string()
}

/// In the largest unit that there is a whole one of, such as `3d`.
pub(super) fn age(seconds: u64) -> String {
    let units = [("d", 24 * 3600), ("h", 3600), ("m", 60)];
    let unit = units.iter().find(|(_, length)| seconds >= *length);
    unit.map_or_else(
        || format!("{seconds}s"),
        |(unit, length)| format!("{}{unit}", seconds / length),
    )
}

/// The beginning of a digest, without its algorithm.
pub(super) fn short(digest: &str) -> String {
    let hex = digest.split_once(':').map_or(digest, |(_, hex)| hex);
    hex.chars().take(SHORT_DIGEST).collect()
}

/// `1 blob`, `2 blobs`: what is counted has a plural in s.
pub(super) fn count(number: u64, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_short() {
        assert_eq!([0, 59, 60, 7199, 3 * 86400].map(age), ["0s", "59s", "1m", "1h", "3d"]);
        assert_eq!([0, 1536, 5 << 30].map(size), ["0 B", "1.5 KiB", "5.0 GiB"]);
        assert_eq!(short("sha256:0123456789abcdef"), "0123456789ab");
        assert_eq!([0, 1, 2].map(|number| count(number, "blob")), ["0 blobs", "1 blob", "2 blobs"]);
    }
}
