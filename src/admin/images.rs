//! `GET /api/v1/images`: what is kept, image by image. Each is one line of JSON:
//!
//! | field | |
//! |---|---|
//! | `image` | `registry/name:tag`, or `registry/name@digest` |
//! | `registry`, `repository`, `tag`, `digest` | its parts; `tag` is null where it has none |
//! | `media_type` | of the manifest |
//! | `bytes` | on disk, of the manifest and of all below it |
//! | `unique_bytes` | those of them that no other image needs |
//! | `platforms` | each with `platform` (`linux/arm64/v8`, or null) and `state` (complete, partial, absent) |
//! | `added` | since when it is here; null where the file system does not know |
//! | `checked` | when upstream last confirmed the tag; null where it has none |
//! | `unused_seconds` | since it was last pulled, counting only the time Larder ran |
//! | `pinned` | by what it stays: `command`, `rule`, or null |

mod selection;

use std::time::SystemTime;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::Response;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{
    Admin,
    answer::{self, Body},
    page::Question,
    refusal::Refusal,
};
use crate::store::{Image, Inspected, PinnedBy, PlatformHere, PlatformState, Store};
use selection::Selection;

/// Images whose files are looked into in one go.
const CHUNK: usize = 128;

/// How many goes at once.
const AT_ONCE: usize = 4;

/// Lines that may wait for the client.
const WAITING: usize = 256;

impl Admin {
    /// One line of JSON for each image, as they are looked into. The query says [which](Selection) and in
    /// what order. Waits until the store has looked around, so that none is missing.
    pub(super) async fn images(&self, question: &Question) -> Result<Response<Body>, Refusal> {
        let selection = Selection::read(question)?;
        let store = self.content.store.clone();
        store.looked_around().await;
        let mut images = store.images().await.map_err(Refusal::failed)?;
        images.retain(|image| selection.has(image));
        selection.sort(&mut images);
        let (sender, receiver) = mpsc::channel(WAITING);
        tokio::spawn(async move {
            // Who has hung up wants no more.
            let _ = tell(store, images, &selection, sender).await;
        });
        Ok(answer::lines(receiver))
    }
}

/// Sends the images in order, but for those that the selection leaves out now that their files are known.
async fn tell(
    store: Store,
    images: Vec<Image>,
    selection: &Selection,
    lines: mpsc::Sender<Bytes>,
) -> Result<(), mpsc::error::SendError<Bytes>> {
    let chunks: Vec<Vec<Image>> = images.chunks(CHUNK).map(<[Image]>::to_vec).collect();
    let inspect = |chunk| store.inspect(chunk);
    let mut inspected = stream::iter(chunks).map(inspect).buffered(AT_ONCE);
    let mut kept_back = Vec::new();
    while let Some(some) = inspected.next().await {
        // At the very end of the process nothing can be looked into any more.
        let Ok(mut some) = some else { break };
        some.retain(|(_, inspected)| selection.has_inspected(inspected));
        if selection.needs_all() {
            kept_back.extend(some);
            continue;
        }
        send(&some, &lines).await?;
    }
    selection.sort_inspected(&mut kept_back);
    send(&kept_back, &lines).await
}

async fn send(
    images: &[(Image, Inspected)],
    lines: &mpsc::Sender<Bytes>,
) -> Result<(), mpsc::error::SendError<Bytes>> {
    for (image, inspected) in images {
        lines.send(format!("{}\n", document(image, inspected)).into()).await?;
    }
    Ok(())
}

fn document(image: &Image, inspected: &Inspected) -> Value {
    json!({
        "image": image.to_string(),
        "registry": image.repository.registry().as_str(),
        "repository": image.repository.name().as_str(),
        "tag": image.tag.as_ref().map(|tag| tag.as_str()),
        "digest": image.digest.to_string(),
        "media_type": &*image.media_type,
        "bytes": image.size,
        "unique_bytes": image.unique_size,
        "platforms": inspected.platforms.iter().map(platform).collect::<Vec<_>>(),
        "added": inspected.added.map(shown),
        "checked": image.checked_at.map(shown),
        "unused_seconds": image.unused.as_secs(),
        "pinned": image.pinned.map(|by| match by {
            PinnedBy::Command => "command",
            PinnedBy::Rule => "rule",
        }),
    })
}

fn platform(platform: &PlatformHere) -> Value {
    json!({
        "platform": platform.platform.as_ref().map(ToString::to_string),
        "state": match platform.state {
            PlatformState::Complete => "complete",
            PlatformState::Partial => "partial",
            PlatformState::Absent => "absent",
        },
    })
}

fn shown(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}
