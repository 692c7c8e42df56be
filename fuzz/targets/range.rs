//! `Range` of a blob of a size that the first byte tells.
#![no_main]

use larder::mirror::ByteRanges;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, &str)| {
    let (bits, header) = input;
    let Some(ranges) = ByteRanges::parse(header) else {
        return;
    };
    let size = 1_u64.checked_shl(bits.into()).unwrap_or(0).wrapping_sub(1);
    let Ok(parts) = ranges.resolve(size) else {
        return;
    };
    assert!((1..=1024).contains(&parts.len()));
    assert!(parts.iter().all(|part| part.start < part.end && part.end <= size));
    let bytes: u128 = parts.iter().map(|part| u128::from(part.end - part.start)).sum();
    assert!(bytes <= size.into(), "{bytes} of {size}");
});
