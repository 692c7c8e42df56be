//! A data directory that is gone, cannot be written, or cannot be read: pulls go on, and the store comes
//! back by itself.

use std::{fs, os::unix::fs::symlink};

use futures_util::future::join_all;
use larder::oci::Digest;

use crate::support::{
    FakeRegistry, Image, TestMirror, Upstream,
    mirror::{blob_url, manifest_path},
    random_bytes, sha256,
    wait::until,
};

const MIB: usize = 1024 * 1024;

/// A registry with three images, and a mirror that holds the first.
struct Setting {
    registry: FakeRegistry,
    mirror: TestMirror,
    images: [Image; 3],
}

impl Setting {
    async fn start() -> Setting {
        let registry = FakeRegistry::start().await;
        let images = [1, 2, 3].map(|seed| Image::with_layers(seed, vec![random_bytes(seed, MIB)]));
        for (image, name) in images.iter().zip(["library/a", "library/b", "library/c"]) {
            registry.put_image(name, "latest", image);
        }
        let mirror = TestMirror::of(&registry).await;
        mirror.pull("library/a", "latest", &images[0]).await;
        Setting { registry, mirror, images }
    }

    /// Pulls an image and checks every byte, whether or not it can be kept.
    async fn pull(&self, name: &str, image: &Image) {
        self.mirror.get(&manifest_path(name, "latest")).await.expect(&image.manifest).await;
        for blob in image.blobs() {
            self.mirror.get(&blob_url(name, &sha256(blob))).await.expect(blob).await;
        }
    }

    async fn pull_cached(&self) {
        self.pull("library/a", &self.images[0]).await;
    }

    async fn readiness(&self) -> (u16, String) {
        let response = self.mirror.admin().get("/readyz").await;
        let status = response.status;
        (status, String::from_utf8(response.bytes().await.to_vec()).unwrap())
    }

    async fn becomes_writable(&self, writable: f64) {
        let gauge = "larder_store_writable";
        until(gauge, async || self.mirror.metric(gauge).await == writable).await;
    }

    /// The third image is kept, and so is the second at last.
    async fn recovers(&self) {
        self.becomes_writable(1.0).await;
        assert_eq!(self.readiness().await, (200, "ready\n".to_owned()));
        self.mirror.pull("library/c", "latest", &self.images[2]).await;
        self.mirror.pull("library/b", "latest", &self.images[1]).await;
        self.pull_cached().await;
        let asked = self.registry.count("GET", "/v2/*");
        self.pull("library/b", &self.images[1]).await;
        self.pull("library/c", &self.images[2]).await;
        assert_eq!(self.registry.count("GET", "/v2/*"), asked, "both are hits");
    }
}

/// What is cached is served, what is not passes through, and `/readyz` says why.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_cannot_be_written_passes_through() {
    join_all(["downloads", "blobs/sha512"].map(async |directory| {
        let setting = Setting::start().await;
        let directory = setting.mirror.data_dir().join(directory);
        fs::remove_dir_all(&directory).unwrap();
        fs::write(&directory, b"no directory").unwrap();
        setting.becomes_writable(0.0).await;
        let (status, text) = setting.readiness().await;
        assert_eq!(status, 200, "it serves");
        assert!(text.contains("cannot be written") && text.contains("data"), "{text}");
        setting.pull_cached().await;
        for _ in 0..2 {
            setting.pull("library/b", &setting.images[1]).await;
        }
        let passed = r#"larder_passthrough_total{reason="disk"}"#;
        assert_eq!(setting.mirror.metric(passed).await, 5.0, "a manifest, twice config and layer");

        fs::remove_file(&directory).unwrap();
        setting.recovers().await;
    }))
    .await;
}

/// All of it, or some: the rest is made anew, and nobody is told of content that is gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_data_directory_is_made_anew() {
    let parts = ["", "blobs", "downloads", "index", "lock", "index.json", "oci-layout"];
    join_all(parts.map(async |part| {
        let setting = Setting::start().await;
        let path = setting.mirror.data_dir().join(part);
        if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) }.unwrap();
        setting.pull("library/b", &setting.images[1]).await;
        until(part, async || path.exists()).await;
        setting.recovers().await;
        let restarted = setting.mirror.stop().await.start().await;
        restarted.pull("library/c", "latest", &setting.images[2]).await;
        assert_eq!(setting.registry.count("GET", &layer_url("library/c", &setting.images[2])), 1);
    }))
    .await;
}

fn layer_url(name: &str, image: &Image) -> String {
    blob_url(name, &sha256(&image.layers[0]))
}

/// A file that cannot be opened is fetched again, and a new one takes its place. It is no damage: the
/// disk may give it a moment later.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cannot_be_read_is_fetched() {
    let setting = Setting::start().await;
    let image = &setting.images[0];
    let files: Vec<Digest> = image.blobs().map(|blob| sha256(blob)).collect();
    for digest in &files {
        let path = setting.mirror.blob_path(digest);
        fs::remove_file(&path).unwrap();
        symlink(&path, &path).unwrap();
    }
    setting.pull_cached().await;
    for digest in &files {
        let path = setting.mirror.blob_path(digest);
        until("a file in its place", async || path.is_file()).await;
    }
    assert_eq!(setting.mirror.metric("larder_store_damaged_blobs_total").await, 0.0);
    let asked = setting.registry.count("GET", "/v2/*");
    setting.pull_cached().await;
    assert_eq!(setting.registry.count("GET", "/v2/*"), asked);
}

/// What a file loses while it is read and sent comes from upstream, be it the whole or a part. (Where the
/// kernel sends it, the client is cut: `damage` has that.)
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_ends_in_mid_body_is_gone_on_with_from_upstream() {
    let registry = FakeRegistry::start().await;
    let blob = random_bytes(7, 16 * MIB);
    let digest = registry.put_blob("library/x", &blob);
    let path = blob_url("library/x", &digest);
    let mirror = TestMirror::builder().upstream(Upstream::docker_io(&registry));
    let mirror = mirror.set("sendfile", false).start().await;
    for range in ["bytes=0-", "bytes=1000-15000000"] {
        mirror.pull_blob("library/x", &digest).await;
        mirror.wait_for_blob(&digest).await;
        let mut response = mirror.request("GET", &path, &[("range", range)]).await;
        let (start, end) = if range == "bytes=0-" { (0, blob.len()) } else { (1000, 15_000_001) };
        response.expect_next(&blob[start..start + 1]).await;
        fs::File::options()
            .write(true)
            .open(mirror.blob_path(&digest))
            .unwrap()
            .set_len(0)
            .unwrap();
        assert!(response.bytes().await == blob[start + 1..end], "{range}");
    }
    assert!(mirror.metric(r#"larder_passthrough_total{reason="disk"}"#).await >= 2.0);
}
