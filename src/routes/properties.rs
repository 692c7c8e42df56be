//! Requests against the rules of the README, by trying every way to read a path.

use http::{HeaderMap, Method, Uri, header::HOST};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use proptest::{option, prelude::*, sample::select, string::string_regex};

use super::{Endpoint, Routes};
use crate::{
    config,
    oci::{Digest, Name, Reference},
    properties::{assert_same, nearly},
};

/// Each with its alias, and the host that stands for it. The first is the default.
const REGISTRIES: [(&str, &str, &str); 2] =
    [("docker.io", "hub.corp", "docker.mirror.corp"), ("quay.io:443", "quay", "quay.mirror.corp")];

/// What a client may leave as it is.
const PLAIN: AsciiSet = NON_ALPHANUMERIC.remove(b'/').remove(b'.').remove(b':').remove(b'-');

#[derive(Clone, Debug)]
struct Request {
    host: &'static str,
    /// Before it is encoded.
    path: String,
    namespace: Option<&'static str>,
}

#[test]
fn a_request_means_what_the_first_that_names_a_registry_says() {
    let routes = Routes::new(&REGISTRIES.map(upstream));
    assert_same(requests(), |request| asked(&routes, request), expected);
}

/// What is asked for, in words.
fn asked(routes: &Routes, request: &Request) -> Option<String> {
    let path = utf8_percent_encode(&request.path, &PLAIN);
    let namespace = request.namespace.map(|name| format!("?x=1&ns={name}")).unwrap_or_default();
    let uri = Uri::builder().path_and_query(format!("{path}{namespace}")).build().ok()?;
    let headers = HeaderMap::from_iter([(HOST, request.host.parse().unwrap())]);
    let route = routes.parse(&Method::GET, &uri, &headers).ok()?;
    Some(match route.endpoint {
        Endpoint::Greeting => "greeting".to_owned(),
        Endpoint::Version => "version".to_owned(),
        Endpoint::Manifest { repository, reference } => {
            format!("manifest {repository} {reference}")
        }
        Endpoint::Blob { repository, digest } => format!("blob {repository} {digest}"),
        Endpoint::Tags { repository, name, .. } => format!("tags {repository} as {name}"),
        Endpoint::Referrers { repository, subject, .. } => {
            format!("referrers {repository} {subject}")
        }
        Endpoint::Catalog { .. } => "catalog".to_owned(),
    })
}

/// One way to read a path.
struct Reading<'a> {
    /// What stands before `/v2`.
    prefix: Option<&'a str>,
    name: &'a str,
    kind: &'static str,
    last: &'a str,
}

fn expected(request: &Request) -> Option<String> {
    let namespace = match request.namespace {
        Some(name) => Some(registry(name)?),
        None => None,
    };
    if request.path == "/" {
        return Some("greeting".to_owned());
    }
    let mut readings = readings(&request.path);
    readings.sort_by_key(|reading| reading.prefix.is_some());
    let reading = readings.into_iter().next()?;
    let prefix = match reading.prefix {
        Some(name) => Some(registry(name)?),
        None => None,
    };
    let fixed = namespace.or(prefix);
    let agree = namespace.is_none() || prefix.is_none() || namespace == prefix;
    match reading.kind {
        "version" => return Some("version".to_owned()),
        "catalog" if reading.name.is_empty() => return agree.then(|| "catalog".to_owned()),
        "catalog" => {
            let known = fixed.is_none() && registry(reading.name).is_some();
            return known.then(|| "catalog".to_owned());
        }
        _ => {}
    }
    let repository = repository(request, reading.name, fixed.filter(|_| agree))?;
    agree.then_some(())?;
    let last = reading.last;
    match reading.kind {
        "manifest" if last.parse::<Reference>().is_ok() => {
            Some(format!("manifest {repository} {last}"))
        }
        "blob" | "referrers" if last.parse::<Digest>().is_ok() => {
            Some(format!("{} {repository} {last}", reading.kind))
        }
        "tags" => Some(format!("tags {repository} as {}", reading.name)),
        _ => None,
    }
}

/// `registry/name`, where `fixed` is named by `ns` or by what stands before `/v2`.
fn repository(request: &Request, name: &str, fixed: Option<&str>) -> Option<String> {
    let (first, rest) = name.split_once('/').unwrap_or((name, ""));
    let by_name = if rest.is_empty() { None } else { registry(first) };
    let by_host = REGISTRIES.iter().find(|(.., host)| *host == request.host).map(|it| it.0);
    let candidates = [fixed, by_name, by_host, Some(REGISTRIES[0].0)];
    let registry = candidates.into_iter().flatten().next()?;
    let is_full_name = by_name == Some(first);
    if is_full_name && first != registry {
        return None;
    }
    if first.contains(':') && by_name.is_none() && fixed.is_none() {
        return None;
    }
    let is_host = first.contains('.') && !rest.is_empty();
    if is_host && registry == "docker.io" && by_name.is_none() && fixed.is_none() {
        return None;
    }
    let is_stripped = is_full_name || (by_name.is_some() && fixed.is_none());
    let name = if is_stripped { rest } else { name };
    let library = if registry == "docker.io" && !name.contains('/') { "library/" } else { "" };
    let name: Name = format!("{library}{name}").parse().ok()?;
    Some(format!("{registry}/{name}"))
}

/// Every way to read a path as one that is served.
fn readings(path: &str) -> Vec<Reading<'_>> {
    let mut readings = Vec::new();
    for (start, _) in path.match_indices("/v2") {
        let prefix = match path[..start].strip_prefix('/') {
            None if start == 0 => None,
            Some(prefix) if !prefix.contains('/') => Some(prefix),
            _ => continue,
        };
        let rest = &path[start + "/v2".len()..];
        let found = |name, kind, last| Reading { prefix, name, kind, last };
        if rest.is_empty() || rest == "/" {
            readings.push(found("", "version", ""));
        }
        let Some(rest) = rest.strip_prefix('/') else { continue };
        if rest == "_catalog" {
            readings.push(found("", "catalog", ""));
        }
        if let Some(name) = rest.strip_suffix("/_catalog")
            && !name.is_empty()
            && !name.contains('/')
        {
            readings.push(found(name, "catalog", ""));
        }
        if let Some(name) = rest.strip_suffix("/tags/list") {
            readings.push(found(name, "tags", ""));
        }
        let infixes =
            [("/manifests/", "manifest"), ("/blobs/", "blob"), ("/referrers/", "referrers")];
        for (infix, kind) in infixes {
            for (place, _) in rest.char_indices() {
                let (name, behind) = rest.split_at(place);
                let last = behind.strip_prefix(infix).filter(|last| !last.contains('/'));
                readings.extend(last.map(|last| found(name, kind, last)));
            }
        }
    }
    readings
}

/// The registry that has this name or alias.
fn registry(name: &str) -> Option<&'static str> {
    let name = name.to_ascii_lowercase();
    let known =
        REGISTRIES.iter().find(|(registry, alias, _)| [*registry, *alias].contains(&name.as_str()));
    known.map(|(registry, ..)| *registry)
}

fn upstream((registry, alias, host): (&str, &str, &str)) -> config::Upstream {
    config::Upstream {
        registry: registry.parse().unwrap(),
        endpoints: Vec::new(),
        aliases: vec![alias.to_owned()],
        server_names: vec![host.to_owned()],
        default: registry == REGISTRIES[0].0,
        tag_ttl: std::time::Duration::ZERO,
        share_private: Vec::new(),
        trusted_realms: Vec::new(),
        max_connections: config::MIN_CONNECTIONS,
        quota_reserve: 0,
        offline: false,
    }
}

fn requests() -> impl Strategy<Value = Request> {
    let host = select(vec!["larder.lan:5000", "docker.mirror.corp", "quay.mirror.corp"]);
    let namespace = select(vec!["docker.io", "quay.io:443", "QUAY", "evil.example"]);
    let namespace = option::weighted(0.3, namespace);
    // HTTP knows no target without the first slash.
    let path = nearly(paths(), "/a.:_%2vé").prop_map(|path| match path.starts_with('/') {
        true => path,
        false => format!("/{path}"),
    });
    (host, path, namespace).prop_map(|(host, path, namespace)| Request { host, path, namespace })
}

fn paths() -> impl Strategy<Value = String> {
    let names =
        vec!["docker.io", "hub.corp", "HUB.corp", "quay.io:443", "quay", "evil.example", "v2"];
    let prefix = select(names.clone()).prop_map(|name| format!("/{name}"));
    let prefix = option::weighted(0.2, prefix).prop_map(Option::unwrap_or_default);
    let leading = select(names).prop_map(|name| format!("{name}/"));
    let leading = option::weighted(0.4, leading).prop_map(Option::unwrap_or_default);
    let name = string_regex(
        "(manifests|blobs|tags|list|v2|a|b_c|library)(/(manifests|blobs|referrers|tags/list|a)){0,2}",
    );
    let digest = string_regex("/(blobs|referrers)/sha256:[0-9a-f]{64}").unwrap();
    let reference = string_regex("/manifests/([a-c0-9]{1,3}|sha256:[0-9a-f]{64})").unwrap();
    let fixed = select(vec!["/tags/list", "/_catalog", "", "/blobs/uploads/"]);
    let rest = prop_oneof![2 => digest, 4 => reference, 2 => fixed.prop_map(str::to_owned)];
    let repository = (prefix, leading, name.unwrap(), rest)
        .prop_map(|(prefix, leading, name, rest)| format!("{prefix}/v2/{leading}{name}{rest}"));
    let short = select(vec![
        "/",
        "/v2",
        "/v2/",
        "/quay/v2/",
        "/v2/_catalog",
        "/v2/quay/_catalog",
        "/hub.corp/v2/_catalog",
    ]);
    prop_oneof![9 => repository, 1 => short.prop_map(str::to_owned)]
}
