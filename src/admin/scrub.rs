//! `POST /api/v1/scrub`: hashes now what the schedule would hash in its time.
//!
//! Asked with `{"repair": false, "of": "registry/name:tag"}`. `of` is an image or a digest, and everything
//! below it; without, all that is held. What is damaged is set aside, and with `repair` fetched again, as is
//! what was set aside before.
//!
//! | finding | |
//! |---|---|
//! | `{"digest": "…", "damage": "…", "repaired": null, "reason": null}` | a blob that is damaged, or was; with `repair`, whether it is here again, and if not, why |
//! | `{"stray": "…"}` | something in the directory that does not belong there; it stays |
//!
//! `done` counts: `{"blobs": n, "bytes": n, "damaged": n, "repaired": n, "strays": n}`.

use std::{collections::HashSet, fmt::Display, io};

use http::Response;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    Admin, Content,
    answer::Body,
    events::{self, Events, Unit},
    page::Question,
    refusal::Refusal,
    work::Running,
};
use crate::{
    mirror::Healing,
    oci::{Digest, ImageName, Reference},
    store::{Scope, Scrub},
};

/// The body of the question.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    #[serde(default)]
    repair: bool,
    of: Option<String>,
}

/// What `done` tells.
#[derive(Default, Serialize)]
struct Tally {
    blobs: u64,
    bytes: u64,
    damaged: u64,
    repaired: u64,
    strays: u64,
}

impl Admin {
    /// Answers with [events].
    pub(super) async fn scrub(
        &self,
        question: &Question,
        running: Running,
    ) -> Result<Response<Body>, Refusal> {
        let asked: Asked = question.json()?;
        let content = self.content.clone();
        let scrub = content.begin_scrub(asked.of.as_deref()).await?;
        Ok(events::answer(running, |events| async move {
            let tally = content.scrub(scrub, &asked, &events).await;
            Ok(json!(tally.map_err(|error| error.to_string())?))
        }))
    }
}

impl Content {
    async fn begin_scrub(&self, of: Option<&str>) -> Result<Scrub, Refusal> {
        let scope = match of {
            Some(of) => Scope::Below(self.subject(of).await?),
            None => Scope::Everything,
        };
        let scrub = self.store.begin_scrub(scope).await.map_err(Refusal::failed)?;
        let is_nothing =
            scrub.blobs() == 0 && scrub.lacking().await.map_err(Refusal::failed)?.is_empty();
        match of {
            Some(of) if is_nothing => Err(Refusal::NotHere(format!("{of}: not here"))),
            Some(_) | None => Ok(scrub),
        }
    }

    /// The digest that is meant.
    async fn subject(&self, of: &str) -> Result<Digest, Refusal> {
        if let Ok(digest) = of.parse() {
            return Ok(digest);
        }
        let image: ImageName = of
            .parse()
            .map_err(|_| Refusal::Wrong(format!("{of} is no digest and no name of an image")))?;
        let tag = match &image.reference {
            Reference::Digest(digest) => return Ok(digest.clone()),
            Reference::Tag(tag) => self.store.tag(&image.repository, tag),
        };
        match tag {
            Some(meaning) => Ok(meaning.digest),
            None => Err(Refusal::NotHere(match self.near(&image).await.join(", ") {
                near if near.is_empty() => format!("{image}: not here"),
                near => format!("{image}: not here; there is {near}"),
            })),
        }
    }

    async fn scrub(&self, mut scrub: Scrub, asked: &Asked, events: &Events) -> io::Result<Tally> {
        let mut tally = Tally::default();
        if asked.of.is_none() {
            // Before anything is set aside that index.json still names.
            for stray in self.store.look_around().await? {
                tally.strays += 1;
                events.finding(json!({ "stray": stray.to_string() })).await;
            }
        }
        while let Some(done) = scrub.next().await? {
            tally.blobs += done.blobs;
            tally.bytes += done.bytes;
            events.progress(tally.bytes, Some(scrub.bytes()), Unit::Bytes);
            if let Some((digest, damage)) = done.damaged {
                let healing = match asked.repair {
                    true => Some(self.mirror.heal_one(&digest).await),
                    false => None,
                };
                tally.note(healing.as_ref());
                events.finding(damaged(&digest, &damage, healing)).await;
            }
        }
        if asked.repair {
            self.fetch_lacking(&scrub, &mut tally, events).await?;
        }
        Ok(tally)
    }

    /// Fetches what earlier scrubs set aside, each once. What a manifest lacks is known when it is here.
    async fn fetch_lacking(
        &self,
        scrub: &Scrub,
        tally: &mut Tally,
        events: &Events,
    ) -> io::Result<()> {
        let mut tried = HashSet::new();
        while let Some(digest) =
            scrub.lacking().await?.into_iter().find(|digest| !tried.contains(digest))
        {
            let healing = self.mirror.heal_one(&digest).await;
            tally.note(Some(&healing));
            events.finding(damaged(&digest, "it was set aside before", Some(healing))).await;
            tried.insert(digest);
        }
        Ok(())
    }
}

impl Tally {
    fn note(&mut self, healing: Option<&Healing>) {
        self.damaged += 1;
        self.repaired += u64::from(healing == Some(&Healing::Healed));
    }
}

fn damaged(digest: &Digest, damage: impl Display, healing: Option<Healing>) -> Value {
    let (repaired, reason) = match healing {
        None => (None, None),
        Some(Healing::Healed) => (Some(true), None),
        Some(Healing::Later(reason) | Healing::Hopeless(reason)) => (Some(false), Some(reason)),
    };
    let damage = damage.to_string();
    json!({ "digest": digest, "damage": damage, "repaired": repaired, "reason": reason })
}
