//! Registries, names, tags, digests and repositories: what is accepted is shown as it was read.
#![no_main]

use std::{fmt::Display, str::FromStr};

use larder::oci::{Digest, Name, Reference, Registry, Repository, Tag};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    shown_as_read::<Registry>(text, &text.to_ascii_lowercase());
    shown_as_read::<Name>(text, text);
    shown_as_read::<Tag>(text, text);
    shown_as_read::<Digest>(text, text);
    shown_as_read::<Reference>(text, text);
    if let Ok(repository) = text.parse::<Repository>() {
        assert_eq!(repository.to_string().parse(), Ok(repository));
    }
});

fn shown_as_read<T: FromStr + Display>(text: &str, shown: &str) {
    if let Ok(value) = text.parse::<T>() {
        assert_eq!(value.to_string(), shown);
    }
}
