//! `[[cache.rule]]`: tags that are believed longer, images that are kept longer or for ever, and what
//! nobody gets.

use std::time::Duration;

use toml::{Table, Value};

use crate::support::{
    FakeRegistry, Image, Index, TestMirror, Upstream,
    binary::run,
    mirror::{Builder, CONFIG, blob_url, manifest_path},
    sha256,
};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A rule with some keys beside its `match`.
fn rule<const N: usize>(images: &str, keys: [(&str, Value); N]) -> Table {
    let keys = keys.into_iter().map(|(key, value)| (key.to_owned(), value));
    keys.chain([("match".to_owned(), images.into())]).collect()
}

fn denial(images: &str) -> Table {
    rule(images, [("deny", true.into())])
}

fn life(images: &str, life: &str) -> Table {
    rule(images, [("expire_after", life.into())])
}

fn builder(registry: &FakeRegistry, rules: Vec<Table>) -> Builder {
    TestMirror::builder()
        .upstream(Upstream::docker_io(registry))
        .upstream(
            Upstream::named("quay.io", registry)
                .set("aliases", vec!["quay.corp"])
                .set("server_names", vec!["quay.mirror.corp"]),
        )
        .set("cache.rule", rules)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_says_how_long_a_tag_is_believed() {
    let registry = FakeRegistry::start().await;
    let rules = vec![
        rule("docker.io/library/x:stable", [("tag_ttl", "100h".into())]),
        rule("docker.io/library/x:edge*", [("tag_ttl", "0s".into())]),
    ];
    let upstream = Upstream::docker_io(&registry).set("tag_ttl", "1h");
    let mirror = TestMirror::builder().upstream(upstream).set("cache.rule", rules).start().await;
    let image = Image::random(1);
    for (tag, checks) in [("stable", 0), ("edge-1", 3), ("other", 1)] {
        registry.put_image("library/x", tag, &image);
        mirror.pull("library/x", tag, &image).await;
        let path = manifest_path("library/x", tag);
        let asked = registry.count("HEAD", &path);
        for hours in [0, 5, 0] {
            mirror.advance(Duration::from_secs(3600 * hours));
            assert_eq!(mirror.head(&path).await.status, 200);
        }
        assert_eq!(registry.count("HEAD", &path) - asked, checks, "{tag}");
    }
}

/// Whichever way it is asked for, and whether or not it is here.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_denied_is_denied_every_way_and_asked_of_nobody() {
    let registry = FakeRegistry::start().await;
    let image = Image::random(1);
    for repository in ["secret/app", "library/x"] {
        registry.put_image(repository, "latest", &image);
    }
    let mirror = builder(&registry, Vec::new()).start().await;
    mirror.pull("quay.io/secret/app", "latest", &image).await;
    mirror.pull("library/x", "latest", &image).await;
    let rules = vec![denial("quay.io/secret/**")];
    let mirror = mirror.stop().await.set("cache.rule", rules).start().await;

    let asked = registry.requests().len();
    let (manifest, blob) = (image.digest(), sha256(&image.layers[0]));
    let (unknown, host) = (sha256(b"unknown"), [("host", "quay.mirror.corp")]);
    for path in [
        manifest_path("secret/app", "latest"),
        manifest_path("secret/app", "unknown"),
        manifest_path("secret/app", &manifest.to_string()),
        manifest_path("secret/app", &unknown.to_string()),
        blob_url("secret/app", &blob),
        blob_url("secret/app", &unknown),
        "/v2/secret/app/tags/list".to_owned(),
        format!("/v2/secret/app/referrers/{manifest}"),
    ] {
        for (way, headers) in [
            (format!("{path}?ns=quay.io"), &[][..]),
            (path.replacen("/v2/", "/v2/quay.io/", 1), &[]),
            (path.replacen("/v2/", "/quay.corp/v2/", 1), &[]),
            (path.clone(), &host),
        ] {
            assert_eq!(mirror.request("HEAD", &way, headers).await.status, 403, "{way}");
            let answer = mirror.request("GET", &way, headers).await;
            assert_eq!(answer.status, 403, "{way}");
            let (code, message) = answer.error().await;
            assert_eq!(code, "DENIED", "{way}");
            assert!(message.contains(r#"[[cache.rule]] match = "quay.io/secret/**""#), "{message}");
        }
    }
    let catalog = mirror.get("/v2/_catalog").await.bytes().await;
    let catalog = String::from_utf8(catalog.to_vec()).unwrap();
    assert!(catalog.contains("library/x") && !catalog.contains("secret"), "{catalog}");
    assert_eq!(registry.requests().len(), asked);
    assert_eq!(mirror.metric("larder_lookups_total").await, 0.0);
    assert_eq!(mirror.metric(r#"larder_requests_total{code="403"}"#).await, 64.0);

    let blob = mirror.get(&blob_url("library/x", &blob)).await;
    assert_eq!(blob.status, 200, "the same content, where it is not denied");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_may_be_denied_alone_or_excepted() {
    let registry = FakeRegistry::start().await;
    let image = Image::random(1);
    for (repository, tag) in [("library/x", "1"), ("library/x", "1-rc"), ("library/y", "1")] {
        registry.put_image(repository, tag, &image);
    }
    registry.put_image("library/y", "2", &image);
    let exception = rule("docker.io/library/y:1", [("deny", false.into())]);
    let rules = vec![denial("docker.io/*/*:*-rc"), exception, denial("docker.io/library/y")];
    let mirror = builder(&registry, rules).start().await;
    for (repository, tag, status) in
        [("x", "1", 200), ("x", "1-rc", 403), ("y", "1", 200), ("y", "2", 403)]
    {
        let path = manifest_path(&format!("library/{repository}"), tag);
        assert_eq!(mirror.get(&path).await.status, status, "{path}");
    }
    mirror.pull("library/y", "1", &image).await;
    for (repository, tags) in [("x", r#""1""#), ("y", r#""1""#)] {
        let list = mirror.get(&format!("/v2/library/{repository}/tags/list")).await.bytes().await;
        let list = String::from_utf8(list.to_vec()).unwrap();
        assert!(list.contains(&format!(r#""tags":[{tags}]"#)), "{list}");
    }
    assert_eq!(registry.count("GET", "/v2/library/x/manifests/1-rc"), 0);
}

/// What several share stays as long as one of them, and what is pinned for ever, down to its layers.
#[tokio::test(flavor = "multi_thread")]
async fn images_are_kept_as_long_as_the_rule_that_keeps_them_longest() {
    let registry = FakeRegistry::start().await;
    let rules = vec![
        life("docker.io/library/x:short*", "10d"),
        rule("docker.io/library/x:pinned", [("pin", true.into())]),
        life("quay.io/**", "never"),
    ];
    let mirror = builder(&registry, rules)
        .set("cache.expire_after", "30d")
        .set("cache.sweep_interval", "100ms")
        .start()
        .await;
    let base = Image::random(1).layers[0].clone();
    let of = |seed: u64| {
        let own = Image::random(seed).layers[0].clone();
        Image::with_layers(seed, vec![base.clone(), own])
    };
    let [short, middle, pinned, never] = [11, 12, 13, 14].map(of);
    for (repository, asked, tag, image) in [
        ("library/x", "library/x", "short", &short),
        ("library/x", "library/x", "middle", &middle),
        ("library/x", "library/x", "short-2", &middle),
        ("a/b", "quay.io/a/b", "1", &never),
    ] {
        registry.put_image(repository, tag, image);
        mirror.pull(asked, tag, image).await;
    }
    let index = Index::of(vec![pinned.clone()]);
    registry.put_index("library/x", "pinned", &index);
    mirror.manifest("library/x", "pinned").await;
    mirror.manifest("library/x", &pinned.digest().to_string()).await;
    for blob in pinned.blobs() {
        mirror.pull_blob("library/x", &sha256(blob)).await;
        mirror.wait_for_blob(&sha256(blob)).await;
    }

    let own = |image: &Image| sha256(&image.layers[1]);
    mirror.advance(11 * DAY);
    mirror.wait_until_gone(&short.digest()).await;
    mirror.wait_until_gone(&own(&short)).await;
    mirror.wait_until_gone(&sha256(&short.config)).await;
    assert!(mirror.has_blob(&own(&middle)), "one of its tags is kept longer");

    mirror.advance(20 * DAY);
    mirror.wait_until_gone(&middle.digest()).await;
    mirror.wait_until_gone(&own(&middle)).await;
    mirror.wait_until_gone(&sha256(&middle.config)).await;
    for digest in [index.digest(), pinned.digest(), never.digest(), sha256(&base)] {
        assert!(mirror.has_blob(&digest), "{digest}");
    }
    for blob in pinned.blobs().chain(never.blobs()) {
        assert!(mirror.has_blob(&sha256(blob)));
    }
}

#[test]
fn a_rule_that_never_matches_is_told_before_the_start() {
    let rules = vec![denial("docker.io/library/*"), denial("docker.io/library/x:1")];
    let directory = TestMirror::builder().set("cache.rule", rules).into_file();
    let config = directory.path().join(CONFIG);
    // Of no upstream at all, the first matches nothing either.
    let ended = run(&["check", "--config", config.to_str().unwrap()], &[]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    for part in [
        r#"cache.rule.match: "docker.io/library/*" can match no image of any registry"#,
        r#"cache.rule.match: "docker.io/library/x:1" can never be the first that matches"#,
    ] {
        assert!(ended.output.contains("warning: ") && ended.output.contains(part), "{ended:?}");
    }
}
