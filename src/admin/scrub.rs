//! `POST /api/v1/scrub`: hashes now what the schedule would hash in its time.
//!
//! Asked with `{"repair": false, "of": "registry/name:tag"}`. `of` is an image or a digest, and everything
//! below it; without, all that is held. What is damaged is set aside, and with `repair` fetched again.
//!
//! | finding | |
//! |---|---|
//! | `{"digest": "…", "damage": "…", "repaired": null, "reason": null}` | a damaged blob; with `repair`, whether it is here again, and if not, why |
//! | `{"stray": "…"}` | something in the directory that does not belong there; it stays |
//!
//! `done` counts: `{"blobs": n, "bytes": n, "damaged": n, "repaired": n, "strays": n}`.

use std::io;

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
    store::{Damage, Scope},
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
    pub(super) fn scrub(
        &self,
        question: &Question,
        running: Running,
    ) -> Result<Response<Body>, Refusal> {
        let asked: Asked = question.json()?;
        let content = self.content.clone();
        let scope = content.scope(asked.of.as_deref()).map_err(Refusal::Wrong)?;
        Ok(events::answer(running, |events| async move {
            let tally = content.scrub(scope, &asked, &events).await;
            Ok(json!(tally.map_err(|error| error.to_string())?))
        }))
    }
}

impl Content {
    fn scope(&self, of: Option<&str>) -> Result<Scope, String> {
        let Some(of) = of else {
            return Ok(Scope::Everything);
        };
        if let Ok(digest) = of.parse() {
            return Ok(Scope::Below(digest));
        }
        let ImageName { repository, reference } =
            of.parse().map_err(|_| format!("{of} is no digest and no name of an image"))?;
        let digest = match reference {
            Reference::Digest(digest) => Some(digest),
            Reference::Tag(tag) => self.store.tag(&repository, &tag).map(|meaning| meaning.digest),
        };
        digest.map(Scope::Below).ok_or_else(|| format!("{of} is not here"))
    }

    async fn scrub(&self, scope: Scope, asked: &Asked, events: &Events) -> io::Result<Tally> {
        let mut tally = Tally::default();
        if matches!(scope, Scope::Everything) {
            // Before anything is set aside that index.json still names.
            for stray in self.store.look_around().await? {
                tally.strays += 1;
                events.finding(json!({ "stray": stray.to_string() })).await;
            }
        }
        let mut scrub = self.store.begin_scrub(scope).await?;
        while let Some(done) = scrub.next().await? {
            tally.blobs += done.blobs;
            tally.bytes += done.bytes;
            events.progress(tally.bytes, Some(scrub.bytes()), Unit::Bytes);
            if let Some((digest, damage)) = done.damaged {
                let healing = match asked.repair {
                    true => Some(self.mirror.heal_one(&digest).await),
                    false => None,
                };
                tally.damaged += 1;
                tally.repaired += u64::from(healing == Some(Healing::Healed));
                events.finding(damaged(&digest, &damage, healing)).await;
            }
        }
        Ok(tally)
    }
}

fn damaged(digest: &Digest, damage: &Damage, healing: Option<Healing>) -> Value {
    let (repaired, reason) = match healing {
        None => (None, None),
        Some(Healing::Healed) => (Some(true), None),
        Some(Healing::Later(reason) | Healing::Hopeless(reason)) => (Some(false), Some(reason)),
    };
    let damage = damage.to_string();
    json!({ "digest": digest, "damage": damage, "repaired": repaired, "reason": reason })
}
