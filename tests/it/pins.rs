//! Pins by command: what they keep, when they are on the disk, and what is told of them.

use std::{fs, path::Path, time::Duration};

use serde_json::Value;

use crate::support::{
    FakeRegistry, Image, Mode, TestMirror, Upstream,
    binary::{Daemon, Ended, run},
    mirror::{Builder, CONFIG, manifest_path},
    sha256,
};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// More than the `tag_ttl` of a [`TestMirror`].
const PAST_TTL: Duration = Duration::from_secs(61);

/// More than the `negative_ttl`.
const PAST_NEGATIVE: Duration = Duration::from_secs(11);

fn larder(data_dir: &Path, arguments: &[&str]) -> Ended {
    let (command, rest) = arguments.split_first().unwrap();
    let config = data_dir.with_file_name(CONFIG);
    run(&[&[*command, "--config", config.to_str().unwrap()], rest].concat(), &[])
}

/// Runs a command that must succeed.
fn done(data_dir: &Path, arguments: &[&str]) -> String {
    let ended = larder(data_dir, arguments);
    assert_eq!(ended.code, Some(0), "{arguments:?}: {ended:?}");
    ended.output
}

fn failed(data_dir: &Path, arguments: &[&str], said: &str) {
    let ended = larder(data_dir, arguments);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.output.contains(said), "{said} in {ended:?}");
}

fn forgetful(registry: &FakeRegistry) -> Builder {
    let upstream = Upstream::docker_io(registry);
    let builder = TestMirror::builder().upstream(upstream);
    builder.set("cache.expire_after", "30d").set("cache.sweep_interval", "100ms")
}

async fn pulled(registry: &FakeRegistry, mirror: &TestMirror, tag: &str, seed: u64) -> Image {
    let image = Image::random(seed);
    registry.put_image("library/x", tag, &image);
    mirror.pull("library/x", tag, &image).await;
    image
}

fn is_whole(mirror: &TestMirror, image: &Image) -> bool {
    mirror.has_blob(&image.digest()) && image.blobs().all(|blob| mirror.has_blob(&sha256(blob)))
}

async fn gone(mirror: &TestMirror, image: &Image) {
    mirror.wait_until_gone(&image.digest()).await;
    for blob in image.blobs() {
        mirror.wait_until_gone(&sha256(blob)).await;
    }
}

/// What is pinned stays; when it is unpinned, it lives like everything else.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_pinned_does_not_expire() {
    let registry = FakeRegistry::start().await;
    let mirror = forgetful(&registry).start().await;
    let kept = pulled(&registry, &mirror, "kept", 1).await;
    let unused = pulled(&registry, &mirror, "unused", 2).await;
    let data_dir = mirror.data_dir();
    let told = done(&data_dir, &["pin", "x:kept"]);
    assert!(told.contains("pinned docker.io/library/x:kept ("), "{told}");
    assert!(told.contains("pinned in all: "), "{told}");
    mirror.advance(31 * DAY);
    gone(&mirror, &unused).await;
    assert!(is_whole(&mirror, &kept));

    assert!(done(&data_dir, &["unpin", "x:kept"]).contains("unpinned docker.io/library/x:kept"));
    mirror.advance(31 * DAY);
    gone(&mirror, &kept).await;
}

/// The pin goes with the tag: what the tag meant before lives like everything else.
#[tokio::test(flavor = "multi_thread")]
async fn a_pin_follows_a_tag_that_moves() {
    let registry = FakeRegistry::start().await;
    let mirror = forgetful(&registry).start().await;
    let old = pulled(&registry, &mirror, "latest", 3).await;
    done(&mirror.data_dir(), &["pin", "x"]);
    mirror.advance(PAST_TTL);
    let new = pulled(&registry, &mirror, "latest", 4).await;
    mirror.advance(31 * DAY);
    gone(&mirror, &old).await;
    assert!(is_whole(&mirror, &new));
}

/// A tag that upstream deletes is answered as `on_deleted` says; its content stays, and so does what the
/// tag means for as long as upstream cannot be asked. It does not matter who pinned it.
#[tokio::test(flavor = "multi_thread")]
async fn a_pinned_tag_that_upstream_deletes_keeps_its_content() {
    let rule = [("match", "docker.io/library/x:v1".into()), ("pin", true.into())];
    let rule = toml::Table::from_iter(rule.map(|(key, value)| (key.to_owned(), value)));
    for (on_deleted, status, rules) in
        [("follow", 404, vec![]), ("serve", 200, vec![]), ("follow", 404, vec![rule])]
    {
        let registry = FakeRegistry::start().await;
        let by_command = rules.is_empty();
        let mirror = forgetful(&registry).set("cache.on_deleted", on_deleted);
        let mirror = mirror.set("cache.rule", rules).start().await;
        let image = pulled(&registry, &mirror, "v1", 5).await;
        if by_command {
            done(&mirror.data_dir(), &["pin", "x:v1"]);
        }
        registry.delete_tag("library/x", "v1");
        mirror.advance(PAST_TTL);
        let path = manifest_path("library/x", "v1");
        for _ in 0..2 {
            assert_eq!(mirror.get(&path).await.status, status, "{on_deleted}");
        }
        let by_digest = manifest_path("library/x", &image.digest().to_string());
        assert_eq!(mirror.get(&by_digest).await.status, 200);

        registry.set_mode(Mode::Down).await;
        mirror.advance(PAST_NEGATIVE);
        let stale = mirror.get(&path).await;
        assert_eq!(stale.status, 200, "{on_deleted}");
        assert!(stale.header("warning").is_some());
        assert_eq!(stale.bytes().await, image.manifest);
        assert!(is_whole(&mirror, &image));
    }
}

/// The command returns when its work is on the disk, whatever happens to the daemon then; and it does the
/// same when no daemon runs.
#[tokio::test(flavor = "multi_thread")]
async fn a_pin_survives_kill_9_right_after_the_command() {
    let registry = FakeRegistry::start().await;
    let image = Image::random(6);
    for tag in ["a", "b", "c"] {
        registry.put_image("library/x", tag, &image);
    }
    let mirror = TestMirror::builder().upstream(Upstream::docker_io(&registry));
    let mut daemon = Daemon::start(mirror).await;
    let data_dir = daemon.data_dir();
    for tag in ["a", "b", "c"] {
        let manifest = daemon.client().get(&manifest_path("library/x", tag)).await;
        manifest.expect(&image.manifest).await;
        done(&data_dir, &["pin", &format!("x:{tag}")]);
        daemon = daemon.kill_and_restart().await;
    }
    done(&data_dir, &["unpin", "x:a"]);
    daemon = daemon.kill_and_restart().await;
    failed(&data_dir, &["unpin", "x:a"], "not pinned; there is docker.io/library/x:b, ");
    daemon.signal("KILL");
    daemon.ended().await;

    done(&data_dir, &["unpin", "x:b"]);
    fs::remove_dir_all(data_dir.join("index")).unwrap();
    failed(&data_dir, &["unpin", "x:b"], "not pinned; there is docker.io/library/x:c");
    fs::remove_file(data_dir.join("index.json")).unwrap();
    done(&data_dir, &["unpin", "x:c"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_understood_and_what_is_not_here_is_told() {
    let registry = FakeRegistry::start().await;
    let corp = FakeRegistry::start().await;
    let image = Image::random(7);
    registry.put_image("library/x", "v1", &image);
    corp.put_image("team/app", "v1", &image);
    let mirror = TestMirror::builder()
        .upstream(Upstream::docker_io(&registry))
        .upstream(Upstream::named("registry.corp", &corp).set("aliases", vec!["corp.io"]))
        .start()
        .await;
    mirror.pull("library/x", "v1", &image).await;
    mirror.manifest("registry.corp/team/app", "v1").await;
    let data_dir = mirror.data_dir();
    let by_digest = format!("corp.io/team/app@{}", image.digest());
    done(&data_dir, &["pin", "docker.io/x:v1", "corp.io/team/app:v1", &by_digest]);
    let pinned = done(&data_dir, &["pin", "--json", "x:v1"]);
    let pinned: Value = serde_json::from_str(&pinned).unwrap();
    assert_eq!(pinned["images"][0]["image"], "docker.io/library/x:v1");
    assert_eq!(pinned["images"][0]["digest"], image.digest().to_string());
    assert_eq!(pinned["images"][0]["bytes"], pinned["pinned_bytes"], "counted once");
    done(&data_dir, &["unpin", "x:v1", &by_digest.replace("corp.io", "registry.corp")]);

    for (name, said) in [
        (
            "x:v2",
            "docker.io/library/x:v2: not here: pull it first; there is docker.io/library/x:v1",
        ),
        ("y/x:v1", "pull it first; there is docker.io/library/x"),
        ("registry.corp/team/ap:v1", "there is registry.corp/team/app"),
        ("nothing/like/it", "nothing/like/it:latest: not here: pull it first\n"),
    ] {
        failed(&data_dir, &["pin", name], said);
    }
    let some = larder(&data_dir, &["pin", "x:v1", "x:v2"]);
    assert_eq!(some.code, Some(1), "{some:?}");
    assert!(some.output.contains("pinned docker.io/library/x:v1"), "{some:?}");
    for wrong in [vec!["pin"], vec!["pin", "UPPER/case"], vec!["unpin", "x@sha256:1"]] {
        assert_eq!(larder(&data_dir, &wrong).code, Some(2), "{wrong:?}");
    }
}
