//! What upstream answers in JSON besides manifests: tokens, pages of tags, errors.
#![no_main]

use larder::upstream::fuzzing;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    if let Some((token, lifetime)) = fuzzing::token(body) {
        assert!(!token.is_empty());
        assert!((50..=24 * 3600).contains(&lifetime.as_secs()), "{lifetime:?}");
    }
    let _ = fuzzing::tags(body);
    if let Some(message) = fuzzing::error_message(body) {
        assert!(!message.chars().any(char::is_control));
    }
});
