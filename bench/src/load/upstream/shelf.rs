//! The content there is, by the path it is asked for with.

use std::{
    collections::HashMap,
    fs::{self, File},
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    Failure,
    contents::{self, Contents, MANIFEST},
    upstream::{
        answer::{Answer, Body},
        request::Request,
    },
};

/// All content of a root.
pub struct Shelf(HashMap<String, Item>);

#[derive(Clone)]
struct Item {
    digest: String,
    kind: Kind,
}

#[derive(Clone)]
enum Kind {
    Manifest(Arc<[u8]>),
    Blob { file: PathBuf, size: u64 },
}

impl Shelf {
    /// Reads the manifests, and where the blobs are.
    pub fn open(root: &Path) -> Result<Shelf, Failure> {
        let mut items = HashMap::new();
        for image in Contents::read(root)?.images() {
            let digest = &image.manifest.digest;
            let bytes = fs::read(contents::path(root, digest).ok_or("no digest")?)?;
            let manifest = Item { digest: digest.clone(), kind: Kind::Manifest(bytes.into()) };
            items.insert(format!("/v2/{}/manifests/{}", image.name, image.tag), manifest.clone());
            items.insert(format!("/v2/{}/manifests/{digest}", image.name), manifest);
            for blob in image.layers.iter().chain([&image.config]) {
                let file = contents::path(root, &blob.digest).ok_or("no digest")?;
                let kind = Kind::Blob { file, size: blob.size };
                let item = Item { digest: blob.digest.clone(), kind };
                items.insert(format!("/v2/{}/blobs/{}", image.name, blob.digest), item);
            }
        }
        Ok(Shelf(items))
    }

    /// The answer to a GET or a HEAD.
    pub fn find(&self, request: &Request) -> Answer {
        if request.path == "/v2/" {
            return Answer::json(200, "{}".to_owned());
        }
        let Some(item) = self.0.get(&request.path) else {
            let blob = request.path.contains("/blobs/");
            return Answer::error(404, if blob { "BLOB_UNKNOWN" } else { "MANIFEST_UNKNOWN" });
        };
        match &item.kind {
            Kind::Manifest(bytes) => Answer::new(200, MANIFEST, Body::Bytes(bytes.clone())),
            Kind::Blob { file, size } => match File::open(file) {
                Ok(file) => blob(file, *size, request.range.as_deref()),
                Err(_) => return Answer::error(404, "BLOB_UNKNOWN"),
            },
        }
        .with("Docker-Content-Digest", &item.digest)
        .with("ETag", &format!("\"{}\"", item.digest))
    }
}

fn blob(file: File, size: u64, wanted: Option<&str>) -> Answer {
    const TYPE: &str = "application/octet-stream";
    let answer = match wanted.and_then(|wanted| range(wanted, size)) {
        None => Answer::new(200, TYPE, Body::File { file, range: 0..size }),
        Some(range) if range.is_empty() => {
            let nothing = Body::Bytes(Arc::from([]));
            Answer::new(416, TYPE, nothing).with("Content-Range", &format!("bytes */{size}"))
        }
        Some(range) => {
            let told = format!("bytes {}-{}/{size}", range.start, range.end - 1);
            Answer::new(206, TYPE, Body::File { file, range }).with("Content-Range", &told)
        }
    };
    answer.with("Accept-Ranges", "bytes")
}

/// The part that a `Range` of one range means (RFC 9110, section 14.1.2); an empty one cannot be
/// satisfied. `None`: the header is to be ignored.
fn range(wanted: &str, size: u64) -> Option<Range<u64>> {
    let (first, last) = wanted.strip_prefix("bytes=")?.split_once('-')?;
    if first.is_empty() {
        return Some(size.saturating_sub(last.parse().ok()?)..size);
    }
    let first: u64 = first.parse().ok()?;
    let end =
        if last.is_empty() { size } else { last.parse::<u64>().ok()?.saturating_add(1).min(size) };
    Some(first.min(size)..end)
}

#[cfg(test)]
mod tests {
    use super::range;

    #[test]
    fn a_range_is_a_part_of_what_there_is() {
        for (wanted, expected) in [
            ("bytes=0-9", Some(0..10)),
            ("bytes=90-", Some(90..100)),
            ("bytes=90-1000", Some(90..100)),
            ("bytes=-10", Some(90..100)),
            ("bytes=100-", Some(100..100)),
            ("bytes=0-1,5-6", None),
            ("lines=0-9", None),
        ] {
            assert_eq!(range(wanted, 100), expected, "{wanted}");
        }
    }
}
