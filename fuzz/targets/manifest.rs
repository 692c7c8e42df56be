//! Manifests, with the Content-Type in the first line.
#![no_main]

use larder::oci::Manifest;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let end = data.iter().position(|byte| *byte == b'\n').unwrap_or(0);
    let (content_type, body) = data.split_at(end);
    let content_type = std::str::from_utf8(content_type).ok().filter(|text| !text.is_empty());
    let Ok(manifest) = Manifest::parse(body, content_type) else {
        return;
    };
    assert!(manifest.children.digests().count() <= 10_000);
    // As it is when it is read back from disk.
    let again = Manifest::parse(body, Some(&manifest.media_type));
    assert_eq!(again.as_ref(), Ok(&manifest));
});
