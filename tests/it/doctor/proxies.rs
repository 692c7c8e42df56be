//! The way to an upstream: its name, and proxies.

use super::{Report, SECRET};
use crate::support::{
    FakeRegistry, TestMirror, Upstream, address,
    mirror::{Builder, CONFIG},
    proxy::TestProxy,
    tls::TestCa,
};

/// A registry by a name that only proxies resolve.
async fn hidden() -> FakeRegistry {
    FakeRegistry::builder().named("registry.test").tls(&TestCa::new()).start().await
}

fn mirror_through(proxy: &str, registry: &FakeRegistry) -> Builder {
    TestMirror::builder().upstream(Upstream::docker_io(registry).set("proxy", proxy))
}

/// What is dialled is the proxy; what answers behind it is the registry.
#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_is_named_where_it_is_dialled() {
    let registry = hidden().await;
    let proxy = TestProxy::start().await;
    proxy.lead_to(&registry);
    let report = Report::of(mirror_through(&proxy.url(), &registry), &[]);
    assert_eq!(report.code, Some(0), "{:#}", report.document);
    for check in ["resolve: ok: ", "connect: ok: "] {
        let found = report.line("docker.io", check);
        assert!(found.contains(&format!("of the proxy {}", proxy.url())), "{found}");
    }
    report.line("docker.io", "tls: ok: ");
    report.line("docker.io", "/v2/: ok: ");
}

/// What is to be done depends on who says no.
#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_does_not_lead_there_is_told() {
    let registry = hidden().await;
    let lost = TestProxy::start().await;
    let strict = TestProxy::with_login("me:password").await;
    let unknown = TestProxy::with_tls(&TestCa::new()).await;
    let nobody = format!("http://me:{SECRET}@{}", address::unique());
    for (proxy, part) in [
        (nobody, "is the proxy up, and is it the right one?"),
        (lost.url(), "502 Bad Gateway to CONNECT; may it lead there?"),
        (strict.url_for(&format!("me:{SECRET}")), "write a right user:password@ before its host"),
        (unknown.url(), "name that one's PEM file as ca"),
    ] {
        let report = Report::of(mirror_through(&proxy, &registry), &[]);
        assert_eq!(report.code, Some(1), "{:#}", report.document);
        let found = report.last("docker.io");
        assert!(found.starts_with("connect: fail: registry.test"), "{found}");
        assert!(found.ends_with(part), "{part:?} in {found}");
    }
}

/// A variable that names no proxy, and names without addresses, each with its own remedy.
#[tokio::test(flavor = "multi_thread")]
async fn what_keeps_a_name_from_its_addresses_is_told() {
    let registry = hidden().await;
    let upstream = Upstream::docker_io(&registry);
    let directory = TestMirror::builder().upstream(upstream).into_file();
    let config = directory.path().join(CONFIG);
    let garbage = format!("socks5://me:{SECRET}@proxy.test:1080");
    let unknown = format!("http://me:{SECRET}@proxy.test:3128");
    for (variables, start, end) in [
        (
            &[("HTTPS_PROXY", garbage.as_str())][..],
            "registry.test:",
            "special characters in them as %40",
        ),
        (&[("HTTPS_PROXY", &unknown)], "registry.test:", "does DNS work here?"),
        (&[], "cannot resolve registry.test: ", "does DNS work here?"),
    ] {
        let report = Report::on(&config, &[], variables);
        let found = report.last("docker.io");
        assert!(found.starts_with(&format!("resolve: fail: {start}")), "{found}");
        assert!(found.ends_with(end), "{end:?} in {found}");
    }
}
