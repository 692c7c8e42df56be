//! Requests: method, path with query, and Host, one a line. The upstreams are the built-in ones,
//! and one with everything that decides a route.
#![no_main]

use std::sync::LazyLock;

use http::{HeaderMap, HeaderValue, Method, Uri, header::HOST};
use larder::{
    config,
    oci::Tag,
    routes::{Endpoint, Route, Routes},
};
use libfuzzer_sys::fuzz_target;

const UPSTREAM: &str = r#"
[[upstream]]
registry = "registry.corp:5000"
endpoints = ["https://registry.corp:5000"]
aliases = ["corp.test"]
server_names = ["corp.mirror.test", "mirror.test:8443"]
"#;

static ROUTES: LazyLock<Routes> = LazyLock::new(|| {
    let config = config::fuzzing::from_text(UPSTREAM).expect("the upstream is right");
    Routes::new(&config.upstreams)
});

fuzz_target!(|data: &[u8]| {
    let mut lines = data.split(|byte| *byte == b'\n').map(|line| line.trim_ascii_end());
    let method = lines.next().and_then(|line| Method::from_bytes(line).ok());
    let uri = lines.next().and_then(|line| Uri::try_from(line).ok());
    let (Some(method), Some(uri)) = (method, uri) else {
        return;
    };
    let host = lines.next().and_then(|line| HeaderValue::from_bytes(line).ok());
    let headers: HeaderMap = host.map(|host| (HOST, host)).into_iter().collect();
    match ROUTES.parse(&method, &uri, &headers) {
        Ok(route) => check(route),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});

fn check(route: Route) {
    match route.endpoint {
        Endpoint::Manifest { repository, .. }
        | Endpoint::Blob { repository, .. }
        | Endpoint::Referrers { repository, .. } => {
            assert_eq!(repository.to_string().parse(), Ok(repository));
        }
        Endpoint::Tags { page, .. } | Endpoint::Catalog { page, .. } => {
            let tags = ["1", "2", "a"].map(|tag| tag.parse::<Tag>().expect("a tag"));
            let listed = page.of(&tags);
            assert!(listed.entries.len() <= tags.len());
            if let Some(next) = listed.next {
                next.parse::<Uri>().expect("a link that can be followed");
            }
        }
        _ => {}
    }
}
