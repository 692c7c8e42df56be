//! `WWW-Authenticate`, one value a line.
#![no_main]

use http::{HeaderMap, HeaderValue, header::WWW_AUTHENTICATE};
use larder::upstream::fuzzing;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let values = data.split(|byte| *byte == b'\n').flat_map(HeaderValue::from_bytes);
    let headers: HeaderMap = values.map(|value| (WWW_AUTHENTICATE, value)).collect();
    if let Some(realm) = fuzzing::realm(&headers) {
        assert!(!realm.is_empty());
    }
});
