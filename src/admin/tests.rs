//! Pages, methods and rights, without a listener.

use std::path::Path;

use http::{Method, header::CONTENT_TYPE};
use http_body_util::Full;
use tempfile::TempDir;

use super::*;
use crate::{
    clock::Clock,
    config::{Config, Sources},
    refused::Refused,
};

fn admin(data_dir: &Path, ready: Readiness) -> Admin {
    let flags = [("data_dir", data_dir.to_str().unwrap().to_owned())].into();
    let config = Config::load(&Sources { flags, ..Sources::default() }).unwrap();
    let (clock, metrics) = (Clock::system(), Arc::new(Metrics::new()));
    let store = Store::open(data_dir, &config.cache, clock.clone(), metrics.clone()).unwrap();
    let upstreams = Upstreams::new(Vec::new(), Refused::new(clock.clone()));
    let mirror = Mirror::new(store.clone(), Vec::new(), &config, clock, metrics.clone());
    let content = Content { store, mirror: Arc::new(mirror) };
    Admin::new(metrics, move || ready.clone(), upstreams, content, Token::in_file(None))
}

async fn ask(admin: &Admin, method: Method, path: &str, who: Authority) -> Response<Body> {
    let request = Request::builder().method(method).uri(path);
    let request = request.header(CONTENT_TYPE, "application/json; charset=utf-8");
    admin.answer(request.body(Full::new(Bytes::from("{}"))).unwrap(), who).await
}

#[tokio::test]
async fn each_page_has_its_status() {
    use Authority::{Public, Trusted};
    let directory = TempDir::new().unwrap();
    let ready = admin(directory.path(), Readiness::Ready);
    let table = [
        (Method::GET, "/healthz", Public, 200),
        (Method::HEAD, "/healthz", Public, 200),
        (Method::GET, "/readyz", Public, 200),
        (Method::GET, "/metrics", Public, 200),
        (Method::GET, "/api/v1/upstreams", Public, 200),
        (Method::GET, "/api/v1/upstreams", Trusted, 200),
        (Method::POST, "/metrics", Trusted, 405),
        (Method::DELETE, "/api/v1/upstreams", Public, 405),
        (Method::POST, "/api/v1/sweep", Public, 403),
        (Method::POST, "/api/v1/sweep", Trusted, 200),
        (Method::GET, "/api/v1/sweep", Trusted, 405),
        (Method::POST, "/api/v1/pin", Public, 403),
        (Method::POST, "/api/v1/unpin", Public, 403),
        (Method::POST, "/api/v1/remove", Public, 403),
        (Method::POST, "/api/v1/remove", Trusted, 400),
        (Method::GET, "/api/v1/pin", Trusted, 405),
        (Method::GET, "/", Public, 404),
        (Method::DELETE, "/healthz/x", Public, 404),
    ];
    for (method, path, who, expected) in table {
        let answer = ask(&ready, method.clone(), path, who).await;
        assert_eq!(answer.status().as_u16(), expected, "{method} {path} {who:?}");
    }
    let directory = TempDir::new().unwrap();
    let impaired = admin(directory.path(), Readiness::Impaired("no disk".to_owned()));
    assert_eq!(ask(&impaired, Method::GET, "/readyz", Public).await.status(), 200);
    let directory = TempDir::new().unwrap();
    let draining = admin(directory.path(), Readiness::NotReady("draining".to_owned()));
    assert_eq!(ask(&draining, Method::GET, "/readyz", Public).await.status(), 503);
    assert_eq!(ask(&draining, Method::GET, "/healthz", Public).await.status(), 200);
}

#[tokio::test]
async fn metrics_are_in_the_text_format() {
    let directory = TempDir::new().unwrap();
    let page =
        ask(&admin(directory.path(), Readiness::Ready), Method::GET, "/metrics", Authority::Public)
            .await;
    let kind = page.headers().get(CONTENT_TYPE).unwrap();
    assert!(kind.to_str().unwrap().starts_with("text/plain; version=0.0.4"));
}

/// What is asked for after the store is about to close would be lost.
#[tokio::test]
async fn nothing_is_changed_once_all_is_settled() {
    let directory = TempDir::new().unwrap();
    let admin = admin(directory.path(), Readiness::Ready);
    admin.settle().await;
    let sweep = ask(&admin, Method::POST, "/api/v1/sweep", Authority::Trusted).await;
    assert_eq!(sweep.status(), 503);
    let upstreams = ask(&admin, Method::GET, "/api/v1/upstreams", Authority::Trusted).await;
    assert_eq!(upstreams.status(), 200);
}

#[test]
fn each_page_is_documented() {
    let documented = include_str!("../../docs/api.md");
    for (path, page) in page::PAGES {
        let method = if page.changes_something() { "POST" } else { "GET" };
        assert!(documented.contains(&format!("| `{method} {path}` |")), "{method} {path}");
    }
}
