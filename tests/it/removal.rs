//! `larder rm`: what goes, what the next pull costs, and what is refused.

use std::{path::Path, time::Duration};

use serde_json::Value;

use crate::support::{
    FakeRegistry, Fault, Gate, Image, Index, TestMirror, Upstream,
    binary::{Daemon, Ended, run},
    mirror::{CONFIG, blob_url, manifest_path},
    random_bytes, sha256,
    wait::until,
};

fn larder(data_dir: &Path, arguments: &[&str]) -> Ended {
    let (command, rest) = arguments.split_first().unwrap();
    let config = data_dir.with_file_name(CONFIG);
    run(&[&[*command, "--config", config.to_str().unwrap()], rest].concat(), &[])
}

/// Runs `larder rm` where it must succeed.
fn removed(mirror: &TestMirror, names: &[&str]) -> String {
    let ended = larder(&mirror.data_dir(), &[&["rm", "--yes"], names].concat());
    assert_eq!(ended.code, Some(0), "{names:?}: {ended:?}");
    ended.output
}

fn refused(mirror: &TestMirror, names: &[&str], said: &str) {
    let ended = larder(&mirror.data_dir(), &[&["rm", "--yes"], names].concat());
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.output.contains(said), "{said} in {ended:?}");
}

async fn pulled(
    registry: &FakeRegistry,
    mirror: &TestMirror,
    name: &str,
    tag: &str,
    seed: u64,
) -> Image {
    let image = Image::random(seed);
    registry.put_image(name, tag, &image);
    mirror.pull(name, tag, &image).await;
    image
}

fn is_gone(mirror: &TestMirror, image: &Image) -> bool {
    !mirror.has_blob(&image.digest()) && image.blobs().all(|blob| !mirror.has_blob(&sha256(blob)))
}

fn is_whole(mirror: &TestMirror, image: &Image) -> bool {
    mirror.has_blob(&image.digest()) && image.blobs().all(|blob| mirror.has_blob(&sha256(blob)))
}

/// An image is gone at once, and the next pull of it asks upstream for everything.
#[tokio::test(flavor = "multi_thread")]
async fn a_removed_image_is_fetched_anew() {
    let registry = FakeRegistry::start().await;
    let mirror = TestMirror::of(&registry).await;
    let image = pulled(&registry, &mirror, "library/x", "v1", 1).await;
    let other = pulled(&registry, &mirror, "library/x", "v2", 2).await;
    mirror.get("/v2/library/x/tags/list").await;
    let absent = manifest_path("library/x", "v3");
    assert_eq!(mirror.get(&absent).await.status, 404);

    let told = removed(&mirror, &["x:v1"]);
    assert!(told.contains("removed docker.io/library/x:v1\nfreed "), "{told}");
    assert!(told.contains("in 4 blobs"), "{told}");
    assert!(is_gone(&mirror, &image) && is_whole(&mirror, &other));
    let asked = registry.requests().len();
    mirror.pull("library/x", "v2", &other).await;
    assert_eq!(registry.requests().len(), asked, "what stays is served as before");

    let gets = registry.count("GET", "/v2/library/x/*");
    mirror.pull("library/x", "v1", &image).await;
    assert_eq!(registry.count("GET", "/v2/library/x/*"), gets + 4);
    let lists = registry.count("GET", "/v2/library/x/tags/list");
    mirror.get("/v2/library/x/tags/list").await;
    assert_eq!(registry.count("GET", "/v2/library/x/tags/list"), lists + 1);
    registry.put_image("library/x", "v3", &image);
    assert_eq!(mirror.get(&absent).await.status, 200, "what was absent is asked for again");
}

/// An engine asks for its platform's manifest by digest; it goes with the tag all the same.
#[tokio::test(flavor = "multi_thread")]
async fn the_images_of_an_index_go_with_it() {
    let registry = FakeRegistry::start().await;
    let index = Index::of(vec![Image::random(3), Image::random(4)]);
    registry.put_index("library/x", "latest", &index);
    let mirror = TestMirror::of(&registry).await;
    mirror.manifest("library/x", "latest").await;
    let image = &index.images[0];
    mirror.pull("library/x", &image.digest().to_string(), image).await;
    let by_digest = format!("x@{}", image.digest());
    refused(&mirror, &[&by_digest], "in use: docker.io/library/x:latest lists it");
    let told = removed(&mirror, &["x:latest"]);
    assert!(told.contains("in 5 blobs"), "{told}");
    assert!(is_gone(&mirror, image) && !mirror.has_blob(&index.digest()));
}

/// Shared layers stay as long as an image needs them, in whichever repository.
#[tokio::test(flavor = "multi_thread")]
async fn a_repository_goes_and_what_others_share_stays() {
    let registry = FakeRegistry::start().await;
    let mirror = TestMirror::of(&registry).await;
    let base = random_bytes(5, 10_000);
    let images = [6, 7].map(|seed| Image::with_layers(seed, vec![base.clone()]));
    for (name, tag, image) in
        [("team/a", "v1", &images[0]), ("team/a", "v2", &images[1]), ("team/b", "v1", &images[1])]
    {
        registry.put_image(name, tag, image);
        mirror.pull(name, tag, image).await;
    }
    let told = removed(&mirror, &["team/a"]);
    let names = "removed docker.io/team/a:v1\nremoved docker.io/team/a:v2\n";
    assert!(told.contains(names), "{told}");
    assert!(!mirror.has_blob(&images[0].digest()) && is_whole(&mirror, &images[1]));
    let gets = registry.count("GET", "/v2/team/a/*");
    mirror.manifest("team/a", "v2").await;
    assert!(registry.count("GET", "/v2/team/a/*") + registry.count("HEAD", "/v2/team/a/*") > gets);
    removed(&mirror, &["team/a", "team/b"]);
    assert!(is_gone(&mirror, &images[1]));
    refused(&mirror, &["team/a"], "docker.io/team/a: not here");
    assert_eq!(mirror.metric("larder_store_blobs").await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_tag_goes_when_asked_for() {
    let registry = FakeRegistry::start().await;
    let mirror = TestMirror::of(&registry).await;
    let old = pulled(&registry, &mirror, "library/x", "latest", 8).await;
    mirror.advance(Duration::from_secs(61));
    let new = pulled(&registry, &mirror, "library/x", "latest", 9).await;
    let data_dir = mirror.data_dir();
    let dry = larder(&data_dir, &["rm", "--untagged", "--dry-run"]);
    assert_eq!(dry.code, Some(0), "{dry:?}");
    let name = format!("docker.io/library/x@{}", old.digest());
    assert!(dry.output.contains(&format!("would remove {name}\nwould free ")), "{dry:?}");
    assert!(is_whole(&mirror, &old));
    removed(&mirror, &["--untagged", "ghcr.io"]);
    assert!(is_whole(&mirror, &old), "of another registry");
    let told = removed(&mirror, &["--untagged", "docker.io"]);
    assert!(told.contains(&format!("removed {name}\n")), "{told}");
    assert!(is_gone(&mirror, &old) && is_whole(&mirror, &new));
    assert!(removed(&mirror, &["--untagged"]).contains("freed 0 B in 0 blobs"));
}

/// Nothing goes that is pinned, that is being downloaded, or for which nobody said yes.
#[tokio::test(flavor = "multi_thread")]
async fn what_must_stay_is_refused_in_clear_words() {
    let registry = FakeRegistry::start().await;
    let mirror = TestMirror::of(&registry).await;
    let image = pulled(&registry, &mirror, "library/x", "v1", 10).await;
    let data_dir = mirror.data_dir();
    let unasked = larder(&data_dir, &["rm", "x:v1"]);
    assert_eq!(unasked.code, Some(2), "{unasked:?}");
    assert!(unasked.output.contains("Remove 1 image, "), "{unasked:?}");
    assert!(unasked.output.contains("--yes"), "{unasked:?}");

    assert_eq!(larder(&data_dir, &["pin", "x:v1"]).code, Some(0));
    let by_digest = format!("x@{}", image.digest());
    for name in ["x:v1", "x", &by_digest] {
        refused(
            &mirror,
            &[name],
            "pinned: to remove it, first larder unpin docker.io/library/x:v1",
        );
    }
    assert_eq!(larder(&data_dir, &["unpin", "x:v1"]).code, Some(0));
    assert!(is_whole(&mirror, &image));
    refused(&mirror, &["x:v2"], "x:v2: not here; there is docker.io/library/x:v1");
    let json = larder(&data_dir, &["rm", "--json", "--dry-run", "x:v1", "y"]);
    assert_eq!(json.code, Some(1), "{json:?}");
    let start = json.output.find('{').unwrap();
    let json: Value = serde_json::from_str(&json.output[start..]).unwrap();
    assert_eq!(json["targets"][0]["images"][0], "docker.io/library/x:v1");
    assert_eq!(json["targets"][0]["blobs"], 4);
    assert_eq!(json["targets"][1]["error"], "not here");
}

/// A layer that is on its way keeps its image; who reads what goes reads it to its end.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_use_is_not_broken() {
    let registry = FakeRegistry::start().await;
    let mirror = TestMirror::of(&registry).await;
    let layers = [11, 12].map(|seed| random_bytes(seed, 16 << 20));
    let image = Image::with_layers(13, layers.to_vec());
    registry.put_image("library/x", "v1", &image);
    let [first, second] = layers.each_ref().map(|layer| blob_url("library/x", &sha256(layer)));
    let gate = Gate::shut();
    registry.on("GET", &second, Fault::hold_after(1000, &gate));
    mirror.manifest("library/x", "v1").await;
    mirror.get(&first).await.expect(&layers[0]).await;
    let downloading = mirror.get(&second).await;
    refused(&mirror, &["x:v1"], "is being downloaded: try again when that has ended");
    refused(&mirror, &["x"], "is being downloaded: try again when that has ended");
    gate.open();
    downloading.expect(&layers[1]).await;
    until("no download", async || mirror.metric("larder_downloads_in_flight").await == 0.0).await;

    let mut reading = mirror.get(&first).await;
    let start = reading.read_some(1).await.unwrap();
    assert_eq!(start, layers[0].slice(..1));
    removed(&mirror, &["x:v1"]);
    assert!(is_gone(&mirror, &image));
    reading.expect(&layers[0][1..]).await;
}

/// What was removed stays removed, also when the daemon is killed right after the command; and the command
/// does the same without a daemon.
#[tokio::test(flavor = "multi_thread")]
async fn a_removal_survives_kill_9_right_after_the_command() {
    let registry = FakeRegistry::start().await;
    let image = Image::random(14);
    let mirror = TestMirror::builder().upstream(Upstream::docker_io(&registry));
    let mut daemon = Daemon::start(mirror).await;
    let data_dir = daemon.data_dir();
    for tag in ["v1", "v2", "v3"] {
        registry.put_image("library/x", tag, &image);
        let manifest = daemon.client().get(&manifest_path("library/x", tag)).await;
        manifest.expect(&image.manifest).await;
    }
    let remove = |name| larder(&data_dir, &["rm", "--yes", name]);
    assert_eq!(remove("x:v1").code, Some(0));
    daemon = daemon.kill_and_restart().await;
    let again = remove("x:v1");
    assert_eq!(again.code, Some(1), "{again:?}");
    daemon.signal("KILL");
    daemon.ended().await;
    assert_eq!(remove("x:v2").code, Some(0));
    let again = remove("x:v2");
    assert!(again.output.contains("not here; there is docker.io/library/x:v3"), "{again:?}");
    assert_eq!(remove("x").code, Some(0));
    assert_eq!(data_dir.join("blobs/sha256").read_dir().unwrap().count(), 0);
}
