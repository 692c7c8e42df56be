//! `Link`, one value a line.
#![no_main]

use http::{HeaderMap, HeaderValue, header::LINK};
use larder::upstream::fuzzing;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let values = data.split(|byte| *byte == b'\n').flat_map(HeaderValue::from_bytes);
    let headers: HeaderMap = values.map(|value| (LINK, value)).collect();
    if let Some(target) = fuzzing::next_page(&headers) {
        assert!(!target.contains('>'));
    }
});
