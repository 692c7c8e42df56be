//! The configuration: what is accepted has no two answers to one question, what is not says why.
#![no_main]

use larder::config;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    // Files that it names are read, and these have no end.
    if text.contains("/dev") || text.contains("/proc") {
        return;
    }
    match config::fuzzing::from_text(text) {
        Ok(config) => {
            let defaults = config.upstreams.iter().filter(|upstream| upstream.default);
            assert!(defaults.count() <= 1);
            assert!(config.upstreams.iter().all(|upstream| !upstream.endpoints.is_empty()));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
