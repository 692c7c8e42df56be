//! The catalogue: which repositories are here, by names that lead to them.

use serde_json::Value;

use crate::support::{
    FakeRegistry, Image, Mode, Response, TestMirror, Upstream, mirror::manifest_path, sha256,
};

/// The names in an answer.
async fn names(response: Response) -> String {
    assert_eq!(response.status, 200, "{response:?}");
    assert_eq!(response.header("content-type"), Some("application/json"));
    let list: Value = serde_json::from_slice(&response.bytes().await).unwrap();
    let names = list["repositories"].as_array().unwrap().iter();
    names.map(|name| name.as_str().unwrap()).collect::<Vec<_>>().join(" ")
}

/// A mirror that pulled two images of one registry and one of another.
async fn pulled() -> (FakeRegistry, TestMirror) {
    let registry = FakeRegistry::start().await;
    let mirror = TestMirror::builder()
        .upstream(Upstream::docker_io(&registry))
        .upstream(
            Upstream::named("quay.io", &registry)
                .set("aliases", vec!["quay.corp"])
                .set("server_names", vec!["quay.mirror.corp"]),
        )
        .start()
        .await;
    for (seed, asked, name) in [(1, "x", "library/x"), (2, "quay.io/a/b", "a/b"), (3, "c/d", "c/d")]
    {
        let image = Image::random(seed);
        registry.put_image(name, "latest", &image);
        mirror.pull(asked, "latest", &image).await;
    }
    (registry, mirror)
}

/// Each way in has the names that lead to the repositories there, and costs upstream nothing.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_cached_is_listed_by_names_that_lead_there() {
    let (registry, mirror) = pulled().await;
    let asked = registry.requests().len();
    for (host, path, way, expected) in [
        ("larder.lan", "/v2/_catalog", "/v2/*/manifests/latest", "c/d library/x quay.io/a/b"),
        ("larder.lan", "/v2/_catalog?ns=quay.io", "/v2/*/manifests/latest?ns=quay.io", "a/b"),
        ("larder.lan", "/quay.corp/v2/_catalog", "/quay.corp/v2/*/manifests/latest", "a/b"),
        ("larder.lan", "/v2/quay.corp/_catalog", "/v2/*/manifests/latest", "quay.corp/a/b"),
        ("quay.mirror.corp", "/v2/_catalog", "/v2/*/manifests/latest", "a/b"),
    ] {
        let host = [("host", host)];
        let listed = names(mirror.request("GET", path, &host).await).await;
        assert_eq!(listed, expected, "{path}");
        for name in listed.split(' ') {
            let response = mirror.request("GET", &way.replace('*', name), &host).await;
            assert_eq!(response.status, 200, "{name} of {path}");
        }
    }
    let response = mirror.head("/v2/_catalog?ns=quay.io").await;
    assert_eq!((response.status, response.header("oci-namespace")), (200, Some("quay.io")));
    assert_eq!(registry.requests().len(), asked);
    assert_eq!(mirror.metric(r#"larder_requests_total{endpoint="catalog"}"#).await, 6.0);
}

/// The pages of the catalogue are like those of a list of tags.
#[tokio::test(flavor = "multi_thread")]
async fn the_catalogue_comes_in_pages() {
    let (_registry, mirror) = pulled().await;
    for (path, expected, link) in [
        ("/v2/_catalog?n=2", "c/d library/x", Some("</v2/_catalog?n=2&last=library/x>")),
        ("/v2/_catalog?n=2&last=library/x", "quay.io/a/b", None),
        ("/v2/_catalog?n=2&last=library%2Fx", "quay.io/a/b", None),
        ("/v2/_catalog?n=0", "", None),
    ] {
        let response = mirror.get(path).await;
        let next = link.map(|link| format!(r#"{link}; rel="next""#));
        assert_eq!(response.header("link"), next.as_deref(), "{path}");
        assert_eq!(names(response).await, expected, "{path}");
    }
    let response = mirror.get("/v2/_catalog?n=x").await;
    assert_eq!(response.status, 400);
    assert_eq!(response.error().await.0, "PAGINATION_NUMBER_INVALID");
}

/// On each way in, the link of a page leads to the next one there.
#[tokio::test(flavor = "multi_thread")]
async fn the_pages_of_each_way_in_lead_to_each_other() {
    let (registry, mirror) = pulled().await;
    for (seed, name) in [(4, "b/x"), (5, "c/d/x")] {
        registry.put_image(name, "latest", &Image::random(seed));
        mirror.manifest(&format!("quay.io/{name}"), "latest").await;
    }
    for (host, list, query, expected) in [
        ("larder.lan", "/v2/_catalog", "", "c/d library/x quay.io/a/b quay.io/b/x quay.io/c/d/x"),
        ("larder.lan", "/v2/_catalog", "ns=quay.io&", "a/b b/x c/d/x"),
        ("larder.lan", "/quay.corp/v2/_catalog", "", "a/b b/x c/d/x"),
        ("larder.lan", "/v2/quay.corp/_catalog", "", "quay.corp/a/b quay.corp/b/x quay.corp/c/d/x"),
        ("quay.mirror.corp", "/v2/_catalog", "", "a/b b/x c/d/x"),
    ] {
        let mut listed = Vec::new();
        let mut next = Some(format!("{list}?{query}n=1"));
        while let Some(path) = next {
            assert!(path.starts_with(&format!("{list}?{query}n=1")), "{path}");
            let response = mirror.request("GET", &path, &[("host", host)]).await;
            next = response.header("link").map(|link| {
                let target = link.strip_prefix('<').and_then(|link| link.split_once('>'));
                target.unwrap().0.to_owned()
            });
            listed.push(names(response).await);
        }
        assert_eq!(listed.join(" "), expected, "{host} {list}");
    }
}

/// A repository is listed while a manifest of it is here, through restarts and outages, and not
/// for a blob alone or for what was only asked about.
#[tokio::test(flavor = "multi_thread")]
async fn only_repositories_with_a_manifest_are_listed() {
    let registry = FakeRegistry::start().await;
    let image = Image::random(4);
    registry.put_image("library/x", "latest", &image);
    registry.put_image("by/digest", "latest", &image);
    let blob = registry.put_blob("blob/only", &image.config);
    registry.put_image("only/head", "latest", &Image::random(5));
    let mirror = TestMirror::of(&registry).await;
    assert_eq!(names(mirror.get("/v2/_catalog").await).await, "");

    mirror.pull("x", "latest", &image).await;
    mirror.manifest("by/digest", &image.digest().to_string()).await;
    mirror.pull_blob("blob/only", &blob).await;
    mirror.head(&manifest_path("only/head", "latest")).await;
    mirror.get(&manifest_path("not/there", &sha256(b"x").to_string())).await;
    assert_eq!(names(mirror.get("/v2/_catalog").await).await, "by/digest library/x");

    registry.set_mode(Mode::Down).await;
    let mirror = mirror.stop().await.start().await;
    assert_eq!(names(mirror.get("/v2/_catalog").await).await, "by/digest library/x");
    std::fs::remove_file(mirror.blob_path(&image.digest())).unwrap();
    mirror.get(&manifest_path("x", "latest")).await;
    assert_eq!(names(mirror.get("/v2/_catalog").await).await, "");
}
