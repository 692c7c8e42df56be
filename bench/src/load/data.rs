//! Makes content: the same bytes for the same arguments, which no compression makes smaller.
//!
//! Every layer is a tar of one file, so that a real engine can unpack it.

use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::{
    Failure,
    contents::{self, Blob, Contents, Image, MANIFEST},
    options::Data,
};

/// Media types of the parts of an image.
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// A block of a tar, in bytes.
const BLOCK: usize = 512;

/// Makes all of it, and prints `contents.json`'s path.
pub fn make(data: &Data) -> Result<(), Failure> {
    let mut maker = Maker::new(&data.root)?;
    let mut contents = Contents::default();
    for index in 0..data.blobs {
        let image = maker.image(&format!("bench/blob{index}"), &[data.blob_mib << 20])?;
        contents.blobs.push(image);
    }
    let layers = vec![data.layer_mib << 20; usize::try_from(data.layers)?];
    contents.image = maker.image("bench/image", &layers)?;
    for index in 0..data.images {
        let layers: Vec<u64> = (0..3).map(|layer| small(index * 3 + layer)).collect();
        contents.many.push(maker.image(&format!("bench/many{index:04}"), &layers)?);
    }
    contents.write(&data.root)?;
    println!("{}", data.root.join("contents.json").display());
    Ok(())
}

/// The size of a small layer, between 4 and 64 KiB.
fn small(seed: u64) -> u64 {
    fastrand::Rng::with_seed(seed).u64(4..=64) << 10
}

/// Writes blobs into a root.
struct Maker {
    root: PathBuf,
    /// Seeds the next layer.
    seed: u64,
}

impl Maker {
    fn new(root: &Path) -> Result<Maker, Failure> {
        fs::create_dir_all(root.join("blobs/sha256"))?;
        Ok(Maker { root: root.to_owned(), seed: 0 })
    }

    /// Makes an image whose layers have about these sizes, in bytes.
    fn image(&mut self, name: &str, layers: &[u64]) -> Result<Image, Failure> {
        let layers = layers.iter().map(|size| self.layer(*size)).collect::<Result<Vec<_>, _>>()?;
        let digests: Vec<&str> = layers.iter().map(|layer| layer.digest.as_str()).collect();
        let config = json!({
            "architecture": "amd64",
            "os": "linux",
            "config": {},
            "rootfs": { "type": "layers", "diff_ids": digests },
        });
        let config = self.small_blob(config.to_string().as_bytes())?;
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor(CONFIG, &config),
            "layers": layers.iter().map(|layer| descriptor(LAYER, layer)).collect::<Vec<_>>(),
        });
        let manifest = self.small_blob(manifest.to_string().as_bytes())?;
        Ok(Image { name: name.to_owned(), tag: "1".to_owned(), manifest, config, layers })
    }

    /// Makes a layer of `size` bytes of random content.
    fn layer(&mut self, size: u64) -> Result<Blob, Failure> {
        self.seed += 1;
        let mut random = fastrand::Rng::with_seed(self.seed);
        let written = self.root.join("blobs/unfinished");
        let mut writer = Hashing::new(BufWriter::with_capacity(1 << 20, File::create(&written)?));
        writer.write(&header(&format!("content-{}", self.seed), size))?;
        let mut piece = vec![0; 1 << 16];
        let mut left = usize::try_from(size)?;
        while left > 0 {
            let part = &mut piece[..left.min(1 << 16)];
            random.fill(part);
            writer.write(part)?;
            left -= part.len();
        }
        let padding = usize::try_from(size)?.next_multiple_of(BLOCK) - usize::try_from(size)?;
        writer.write(&vec![0; padding + 2 * BLOCK])?;
        let blob = writer.finish()?;
        fs::rename(written, contents::path(&self.root, &blob.digest).ok_or("no digest")?)?;
        Ok(blob)
    }

    fn small_blob(&self, bytes: &[u8]) -> Result<Blob, Failure> {
        let digest = format!("sha256:{:x}", Sha256::digest(bytes));
        fs::write(contents::path(&self.root, &digest).ok_or("no digest")?, bytes)?;
        Ok(Blob { digest, size: u64::try_from(bytes.len())? })
    }
}

fn descriptor(media_type: &str, blob: &Blob) -> serde_json::Value {
    json!({ "mediaType": media_type, "digest": blob.digest, "size": blob.size })
}

/// The header of a regular file (POSIX.1, ustar).
fn header(name: &str, size: u64) -> [u8; BLOCK] {
    let mut header = [0; BLOCK];
    let mut field =
        |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    field(0, name);
    field(100, "0000644");
    field(108, "0000000");
    field(116, "0000000");
    field(124, &format!("{size:011o}"));
    field(136, "00000000000");
    field(148, "        "); // what the checksum counts in its own place
    field(156, "0");
    field(257, "ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    header
}

/// A writer that knows the digest and the size of what it wrote.
struct Hashing<W> {
    writer: W,
    hash: Sha256,
    size: u64,
}

impl<W: Write> Hashing<W> {
    fn new(writer: W) -> Hashing<W> {
        Hashing { writer, hash: Sha256::new(), size: 0 }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.writer.write_all(bytes)?;
        self.hash.update(bytes);
        self.size += u64::try_from(bytes.len())?;
        Ok(())
    }

    fn finish(mut self) -> Result<Blob, Failure> {
        self.writer.flush()?;
        Ok(Blob { digest: format!("sha256:{:x}", self.hash.finalize()), size: self.size })
    }
}
