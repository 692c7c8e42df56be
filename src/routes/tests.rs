//! Every way in, and what is refused.

use http::header::HOST;

use super::*;

fn upstream(registry: &str, alias: &str, host: &str) -> config::Upstream {
    config::Upstream {
        registry: registry.parse().unwrap(),
        endpoints: Vec::new(),
        aliases: vec![alias.to_owned()],
        server_names: vec![host.to_owned()],
        default: registry == "docker.io",
        tag_ttl: std::time::Duration::ZERO,
        share_private: Vec::new(),
        trusted_realms: Vec::new(),
        max_connections: config::MIN_CONNECTIONS,
        quota_reserve: 0,
        offline: false,
    }
}

fn routes() -> Routes {
    Routes::new(&[
        upstream("docker.io", "hub.corp", "docker.mirror.corp"),
        upstream("quay.io:443", "quay.corp", "Quay.Mirror.corp"),
        upstream("ghcr.io", "ghcr.corp", "docker.mirror.corp:8443"),
    ])
}

fn parse_at(host: &str, uri: &str) -> Result<Route, RouteError> {
    let headers = HeaderMap::from_iter([(HOST, host.parse().unwrap())]);
    routes().parse(&Method::GET, &uri.parse().unwrap(), &headers)
}

fn repository_at(host: &str, uri: &str) -> Result<String, RouteError> {
    match parse_at(host, uri)?.endpoint {
        Endpoint::Manifest { repository, .. }
        | Endpoint::Blob { repository, .. }
        | Endpoint::Tags { repository, .. }
        | Endpoint::Referrers { repository, .. } => Ok(repository.to_string()),
        other @ (Endpoint::Greeting | Endpoint::Version | Endpoint::Catalog { .. }) => {
            panic!("{uri}: {other:?}")
        }
    }
}

fn repository(uri: &str) -> Result<String, RouteError> {
    repository_at("larder.lan:5000", uri)
}

#[test]
fn each_way_in_leads_to_its_registry() {
    let cases = [
        ("/v2/busybox/manifests/1", "docker.io/library/busybox"),
        ("/v2/a/b/manifests/1", "docker.io/a/b"),
        ("/v2/docker.io/busybox/manifests/1", "docker.io/library/busybox"),
        ("/v2/quay.io:443/a/manifests/1", "quay.io:443/a"),
        ("/v2/quay.io%3A443/a/manifests/1", "quay.io:443/a"),
        ("/v2/quay.corp/a/b/manifests/1", "quay.io:443/a/b"),
        ("/QUAY.corp/v2/a/b/manifests/1", "quay.io:443/a/b"),
        ("/v2/a/b/manifests/1?ns=quay.io:443", "quay.io:443/a/b"),
        ("/v2/quay.io:443/a/manifests/1?ns=quay.io%3A443", "quay.io:443/a"),
        ("/quay.corp/v2/a/manifests/1?x=1&ns=quay.io:443", "quay.io:443/a"),
        ("/v2/quay.corp/a/manifests/1?ns=quay.io:443", "quay.io:443/quay.corp/a"),
        ("/v2/busybox/manifests/1?ns=docker.io", "docker.io/library/busybox"),
        ("/v2/manifests/blobs/manifests/1", "docker.io/manifests/blobs"),
        ("/v2/busybox/tags/list", "docker.io/library/busybox"),
        ("/v2/a.b/tags/list", "docker.io/library/a.b"),
        ("/v2/busybox/manifests/1?ns=", "docker.io/library/busybox"),
        ("/v2/quay.corp/tags/list/tags/list?n=1", "quay.io:443/tags/list"),
        ("/quay.corp/v2/a/manifests/tags/list", "quay.io:443/a/manifests"),
        ("/v2/a/tags/manifests/list", "docker.io/a/tags"),
        ("/v2/v2/manifests/1", "docker.io/library/v2"),
    ];
    for (uri, expected) in cases {
        assert_eq!(repository(uri).as_deref(), Ok(expected), "{uri}");
    }
}

#[test]
fn a_host_stands_for_its_registry_where_nothing_stronger_does() {
    let cases = [
        ("docker.mirror.corp", "/v2/busybox/manifests/1", "docker.io/library/busybox"),
        ("quay.mirror.corp", "/v2/a/manifests/1", "quay.io:443/a"),
        ("quay.mirror.corp", "/v2/team.one/a/manifests/1", "quay.io:443/team.one/a"),
        ("QUAY.mirror.corp.:5000", "/v2/a/manifests/1", "quay.io:443/a"),
        ("docker.mirror.corp:8443", "/v2/a/manifests/1", "ghcr.io/a"),
        ("docker.mirror.corp:443", "/v2/a/manifests/1", "docker.io/library/a"),
        ("quay.mirror.corp", "/v2/a/manifests/1?ns=ghcr.io", "ghcr.io/a"),
        ("quay.mirror.corp", "/v2/ghcr.corp/a/manifests/1", "ghcr.io/a"),
        ("quay.mirror.corp", "/ghcr.io/v2/a/manifests/1", "ghcr.io/a"),
        ("other.corp", "http://quay.mirror.corp:80/v2/a/manifests/1", "quay.io:443/a"),
        ("quay.mirror.corp", "http://other.corp/v2/a/manifests/1", "docker.io/library/a"),
        ("quay.corp", "/v2/a/manifests/1", "docker.io/library/a"),
        ("no host", "/v2/a/manifests/1", "docker.io/library/a"),
    ];
    for (host, uri, expected) in cases {
        assert_eq!(repository_at(host, uri).as_deref(), Ok(expected), "{host} {uri}");
    }
}

#[test]
fn the_set_of_registries_is_closed() {
    for uri in [
        "/v2/a/manifests/1?ns=evil.example",
        "/v2/localhost:5000/a/manifests/1",
        "/v2/evil.example/a/manifests/1",
        "/evil.example/v2/a/manifests/1",
        "/v2/quay.io:443/a/manifests/1?ns=docker.io",
        "/quay.corp/v2/a/manifests/1?ns=docker.io",
        "/v2/?ns=evil.example",
        "/evil.example/v2/",
        "/v2/evil.example/_catalog",
        "/evil.example/v2/_catalog",
        "/quay.corp/v2/_catalog?ns=docker.io",
    ] {
        let refused = parse_at("larder.lan", uri);
        assert!(matches!(refused, Err(RouteError::Registry(_))), "{uri}: {refused:?}");
    }
}

#[test]
fn a_catalogue_has_the_names_of_its_way_in() {
    let repositories = ["quay.io:443/b", "docker.io/library/a", "ghcr.io/c", "docker.io/a/b"];
    let repositories = repositories.map(|name| name.parse().unwrap());
    let all = "a/b ghcr.io/c library/a quay.io:443/b";
    let table = [
        ("larder.lan", "/v2/_catalog", all),
        ("larder.lan", "/v2/_catalog?ns=quay.io:443", "b"),
        ("larder.lan", "/quay.corp/v2/_catalog", "b"),
        ("larder.lan", "/v2/quay.corp/_catalog", "quay.corp/b"),
        ("larder.lan", "/v2/docker.io/_catalog", "docker.io/a/b docker.io/library/a"),
        ("quay.mirror.corp", "/v2/_catalog", "b"),
        ("quay.mirror.corp", "/v2/ghcr.io/_catalog", "ghcr.io/c"),
        ("docker.mirror.corp:1", "/v2/_catalog", "a/b library/a"),
    ];
    for (host, uri, expected) in table {
        let Ok(Route { endpoint: Endpoint::Catalog { catalog, .. }, .. }) = parse_at(host, uri)
        else {
            panic!("{uri}");
        };
        assert_eq!(catalog.names(&repositories).join(" "), expected, "{host} {uri}");
    }
}

#[test]
fn referrers_may_be_wanted_of_one_type() {
    let subject = format!("sha256:{}", "0".repeat(64));
    for (query, expected) in [
        ("", None),
        ("?artifactType=", None),
        ("?artifacttype=a", None),
        ("?ns=docker.io&artifactType=a/b%2Bjson", Some("a/b+json")),
        ("?artifactType=a/b+json&artifactType=c", Some("a/b+json")),
    ] {
        let uri = format!("/v2/a/referrers/referrers/{subject}{query}");
        assert_eq!(repository(&uri).as_deref(), Ok("docker.io/a/referrers"));
        let Endpoint::Referrers { artifact_type, .. } =
            parse_at("larder.lan", &uri).unwrap().endpoint
        else {
            panic!("{uri}");
        };
        assert_eq!(artifact_type.as_deref(), expected, "{query}");
    }
}

#[test]
fn what_is_malformed_is_named() {
    let digest = format!("sha256:{}", "0".repeat(64));
    assert!(matches!(
        repository("/v2/a/referrers/latest"),
        Err(RouteError::Name(InvalidName::Digest(_)))
    ));
    assert_eq!(repository(&format!("/v2/A/blobs/{digest}")), Err(InvalidName::Name.into()));
    assert!(matches!(
        repository("/v2/a/blobs/latest"),
        Err(RouteError::Name(InvalidName::Digest(_)))
    ));
    assert_eq!(repository("/v2/a/manifests/-x"), Err(InvalidName::Tag.into()));
    assert_eq!(repository("/v2/a/../b/manifests/1"), Err(InvalidName::Name.into()));
    assert_eq!(repository("/v2/%ff/manifests/1"), Err(InvalidName::Name.into()));
    assert_eq!(repository("/v2/a/tags/list?n=x"), Err(RouteError::PageSize));
    assert_eq!(repository("/v2/_catalog?n=x"), Err(RouteError::PageSize));
}

#[test]
fn what_is_no_endpoint_is_told_from_what_is_no_api() {
    for uri in [
        "/v2/a",
        "/v2/a/b",
        "/v2/tags/list",
        "/v2/a/tags/1",
        "/v2/a/blobs/uploads/",
        "/v2/a/b/_catalog",
        "/quay.corp/v2/ghcr.io/_catalog",
        "/v2//",
    ] {
        assert_eq!(repository(uri), Err(RouteError::Endpoint), "{uri}");
    }
    for uri in ["/v1/", "/v1/_ping", "/favicon.ico", "/v2x/a/manifests/1", "//", "/V2/"] {
        assert_eq!(repository(uri), Err(RouteError::Elsewhere), "{uri}");
    }
}

#[test]
fn only_reading_is_supported() {
    for method in [Method::PUT, Method::POST, Method::PATCH, Method::DELETE, Method::OPTIONS] {
        let uri = "/v2/a/manifests/1".parse().unwrap();
        let refused = routes().parse(&method, &uri, &HeaderMap::new());
        assert_eq!(refused, Err(RouteError::Method(method)));
    }
}

#[test]
fn the_version_endpoint_needs_no_slash_and_no_default() {
    for uri in ["/v2", "/v2/", "/v2/?ns=ghcr.io", "/quay.corp/v2/"] {
        let routes = Routes::new(&[upstream("ghcr.io", "quay.corp", "ghcr.corp")]);
        let route = routes.parse(&Method::HEAD, &uri.parse().unwrap(), &HeaderMap::new());
        assert_eq!(route.unwrap().endpoint, Endpoint::Version, "{uri}");
    }
}

#[test]
fn bare_names_need_a_default_or_a_host() {
    let routes = Routes::new(&[upstream("ghcr.io", "quay.corp", "ghcr.corp")]);
    let at = |host: &str| {
        let headers = HeaderMap::from_iter([(HOST, host.parse().unwrap())]);
        routes.parse(&Method::GET, &"/v2/a/manifests/1".parse().unwrap(), &headers)
    };
    assert_eq!(at("larder.lan").unwrap_err(), RouteError::NoDefault);
    assert!(at("ghcr.corp").is_ok());
}
