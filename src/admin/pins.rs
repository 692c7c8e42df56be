//! `POST /api/v1/pin` and `POST /api/v1/unpin`: what stays whatever happens.
//!
//! Asked with `{"images": ["registry/name:tag", …]}`, they answer with one object for each: `image`, and
//! either what was done or `error`, with `near`: names that are here. What was done is on the disk by
//! then.

use http::Response;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Admin, Content,
    answer::{self, Body},
    page::Question,
    refusal::Refusal,
    work::Running,
};
use crate::{
    oci::ImageName,
    store::{Extent, Written},
};

/// The body of both questions.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    images: Vec<String>,
}

impl Admin {
    /// Of each: `digest` and `bytes`; of all: `pinned_bytes`, what is pinned by name, and `max_size_bytes`,
    /// what all that is held may come to.
    pub(super) async fn pin(
        &self,
        question: &Question,
        running: Running,
    ) -> Result<Response<Body>, Refusal> {
        let images = images(question)?;
        let content = self.content.clone();
        running.finish(async move { content.pin_all(&images).await }).await
    }

    /// Of each nothing but that it was done.
    pub(super) async fn unpin(
        &self,
        question: &Question,
        running: Running,
    ) -> Result<Response<Body>, Refusal> {
        let images = images(question)?;
        let content = self.content.clone();
        running.finish(async move { content.unpin_all(&images).await }).await
    }
}

impl Content {
    async fn pin_all(&self, images: &[ImageName]) -> Result<Response<Body>, Refusal> {
        let mut answers = Vec::new();
        for image in images {
            answers.push(match self.store.pin(image).await.map_err(Refusal::failed)? {
                Some(Extent { digest, bytes }) => {
                    json!({ "image": image.to_string(), "digest": digest, "bytes": bytes })
                }
                None => self.not_here(image).await,
            });
        }
        if self.store.write_now().await.map_err(Refusal::failed)? == Written::Nowhere {
            let reason = "pinned, but that cannot be written: it holds until Larder stops";
            return Err(Refusal::failed(reason));
        }
        let pinned_bytes = self.store.pinned_bytes().await.map_err(Refusal::failed)?;
        // A disk that does not tell is no reason to take the pins back.
        let max_size_bytes = self.store.limits().await.ok().map(|limits| limits.max_size);
        Ok(answer::document(&json!({
            "images": answers,
            "pinned_bytes": pinned_bytes,
            "max_size_bytes": max_size_bytes,
        })))
    }

    async fn unpin_all(&self, images: &[ImageName]) -> Result<Response<Body>, Refusal> {
        let unpin = |image: &ImageName| match self.store.unpin(image) {
            true => json!({ "image": image.to_string() }),
            false => self.not_pinned(image),
        };
        let answers: Vec<Value> = images.iter().map(unpin).collect();
        if self.store.write_now().await.map_err(Refusal::failed)? != Written::Everywhere {
            let reason =
                "unpinned, but that cannot be written: it may be pinned again after a crash";
            return Err(Refusal::failed(reason));
        }
        Ok(answer::document(&json!({ "images": answers })))
    }

    async fn not_here(&self, image: &ImageName) -> Value {
        json!({
            "image": image.to_string(),
            "error": "not here: pull it first",
            "near": self.near(image).await,
        })
    }

    fn not_pinned(&self, image: &ImageName) -> Value {
        let pins = self.store.pins().into_iter();
        let near = pins.filter(|pin| pin.image.repository == image.repository);
        let near: Vec<String> = near.map(|pin| pin.image.to_string()).collect();
        json!({ "image": image.to_string(), "error": "not pinned", "near": near })
    }
}

fn images(question: &Question) -> Result<Vec<ImageName>, Refusal> {
    let Asked { images } = question.json()?;
    let parse =
        |image: &String| image.parse().map_err(|error| Refusal::Wrong(format!("{image}: {error}")));
    images.iter().map(parse).collect()
}
