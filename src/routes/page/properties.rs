//! Whoever follows the links sees every entry once, in order.

use std::collections::BTreeSet;

use http::Uri;
use proptest::{collection::btree_set, prelude::*};

use super::Page;
use crate::properties::assert_always;

#[test]
fn pages_make_the_list() {
    let inputs = (btree_set("[a-bA-B0-1_][a-b._-]{0,2}", 0..12), 1..6_usize, any::<bool>());
    assert_always(inputs, |(entries, n, is_proxied): (BTreeSet<String>, _, _)| {
        let entries = Vec::from_iter(entries);
        let namespace = "quay.io:443".parse().unwrap();
        let namespace = is_proxied.then_some(&namespace);
        let mut seen = Vec::new();
        let mut next = Some(format!("/v2/a/tags/list?n={n}"));
        while let Some(uri) = next {
            let uri: Uri = uri.parse().unwrap();
            let page = Page::parse(&uri, namespace).unwrap();
            let listed = page.of(&entries);
            assert_eq!(listed.entries.len(), n.min(entries.len() - seen.len()));
            seen.extend_from_slice(listed.entries);
            next = listed.next;
        }
        assert_eq!(seen, entries);
    });
}
