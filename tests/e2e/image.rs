//! The images of the tests, each an OCI image layout (image-spec `image-layout.md`) on disk.

use std::{
    collections::BTreeSet,
    env::consts,
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::process::run;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// The large image: layers × bytes in each.
const LARGE: (usize, u64) = (5, 40 << 20);

/// An OCI layout with one multi-arch image in it.
pub struct Layout {
    directory: PathBuf,
    /// Of the index.
    digest: String,
    blobs: BTreeSet<String>,
}

impl Layout {
    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.directory
    }

    /// The digest of the image's index.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The digests of all configs and layers.
    pub fn blobs(&self) -> impl Iterator<Item = &str> {
        self.blobs.iter().map(String::as_str)
    }

    /// Debian's static busybox for this machine's architecture, and a second architecture that
    /// differs from it in one more layer.
    pub fn busybox(directory: &Path) -> Self {
        let mut layout = Self::create(directory);
        let bin = layout.scratch().join("bin");
        fs::create_dir(&bin).unwrap();
        fs::copy("/bin/busybox", bin.join("busybox")).unwrap();
        for applet in ["sh", "echo", "cat"] {
            symlink("busybox", bin.join(applet)).unwrap();
        }
        let busybox = layout.layer();
        fs::write(layout.scratch().join("foreign"), "not for this machine\n").unwrap();
        let foreign = layout.layer();
        let [native, other] = architectures();
        let images = [
            layout.image(native, std::slice::from_ref(&busybox)),
            layout.image(other, &[busybox, foreign]),
        ];
        layout.finish(&images)
    }

    /// 200 MiB that do not compress, in several layers, for this machine's architecture.
    pub fn large(directory: &Path) -> Self {
        let (layers, size) = LARGE;
        Self::noise(directory, layers, size)
    }

    /// Layers of `size` bytes that do not compress, and that no other image has.
    pub fn noise(directory: &Path, layers: usize, size: u64) -> Self {
        let mut layout = Self::create(directory);
        let layers: Vec<Value> = (0..layers)
            .map(|number| {
                let mut noise = File::open("/dev/urandom").unwrap().take(size);
                let mut file = File::create(layout.scratch().join(number.to_string())).unwrap();
                io::copy(&mut noise, &mut file).unwrap();
                layout.layer()
            })
            .collect();
        let [native, _] = architectures();
        let image = layout.image(native, &layers);
        layout.finish(&[image])
    }

    fn create(directory: &Path) -> Self {
        let (directory, digest) = (directory.to_owned(), String::new());
        let layout = Self { directory, digest, blobs: BTreeSet::new() };
        fs::create_dir_all(layout.directory.join("blobs/sha256")).unwrap();
        fs::create_dir(layout.scratch()).unwrap();
        layout
    }

    /// Where the files of the next layer are gathered.
    fn scratch(&self) -> PathBuf {
        self.directory.join("scratch")
    }

    /// Moves what was gathered into a layer.
    fn layer(&mut self) -> Value {
        let scratch = self.scratch();
        let tar = self.directory.join("layer.tar");
        run(&format!("tar --owner=0 --group=0 -C {} -cf {} .", scratch.display(), tar.display()));
        fs::remove_dir_all(&scratch).unwrap();
        fs::create_dir(&scratch).unwrap();
        let layer = self.store(LAYER, &fs::read(&tar).unwrap());
        fs::remove_file(tar).unwrap();
        self.note_blob(&layer);
        layer
    }

    /// Stores config and manifest of one architecture; its descriptor names the platform.
    fn image(&mut self, architecture: &str, layers: &[Value]) -> Value {
        // A layer that is not compressed has its own digest as its diff id.
        let diff_ids: Vec<&Value> = layers.iter().map(|layer| &layer["digest"]).collect();
        let platform = json!({ "architecture": architecture, "os": "linux" });
        let mut config = platform.clone();
        config["config"] = json!({ "Cmd": ["sh"], "Env": ["PATH=/bin"] });
        config["rootfs"] = json!({ "type": "layers", "diff_ids": diff_ids });
        let config = self.store(CONFIG, config.to_string().as_bytes());
        self.note_blob(&config);
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers,
        });
        let mut manifest = self.store(MANIFEST, manifest.to_string().as_bytes());
        manifest["platform"] = platform;
        manifest
    }

    /// Binds the images of all architectures into the layout's one index.
    fn finish(mut self, images: &[Value]) -> Self {
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": images });
        let index = self.store(INDEX, index.to_string().as_bytes());
        self.digest = index["digest"].as_str().unwrap().to_owned();
        let entry = json!({ "schemaVersion": 2, "manifests": [index] });
        fs::write(self.directory.join("index.json"), entry.to_string()).unwrap();
        let version = json!({ "imageLayoutVersion": "1.0.0" });
        fs::write(self.directory.join("oci-layout"), version.to_string()).unwrap();
        self
    }

    /// Writes a blob and returns its descriptor.
    fn store(&self, media_type: &str, bytes: &[u8]) -> Value {
        let hex = format!("{:x}", Sha256::digest(bytes));
        fs::write(self.directory.join("blobs/sha256").join(&hex), bytes).unwrap();
        json!({ "mediaType": media_type, "digest": format!("sha256:{hex}"), "size": bytes.len() })
    }

    fn note_blob(&mut self, descriptor: &Value) {
        self.blobs.insert(descriptor["digest"].as_str().unwrap().to_owned());
    }
}

/// This machine's architecture and another, in the words of the image-spec.
fn architectures() -> [&'static str; 2] {
    match consts::ARCH {
        "aarch64" => ["arm64", "amd64"],
        _ => ["amd64", "arm64"],
    }
}
