//! What refers to a manifest, page after page (distribution-spec, § Listing referrers).
//!
//! Registries without this API answer in many ways: with an error that is not always 404, with a
//! web page, or with a redirect to one. All of them are "not found" here, which makes clients look
//! for the tag of the fallback schema instead.

use bytes::Bytes;
use http::StatusCode;

use crate::oci::{Digest, MAX_MANIFEST_BYTES, Name, OCI_INDEX, Referrers};

use super::{
    Error,
    answer::Answer,
    endpoint::{Ask, Endpoint},
    link,
};

/// The most pages of one list.
const MAX_PAGES: usize = 100;

struct Page {
    bytes: Bytes,
    referrers: Referrers,
    is_well_formed: bool,
    /// The query for the next page.
    next: Option<String>,
}

impl Endpoint {
    /// The list of what refers to `subject`, as one index of at most `MAX_MANIFEST_BYTES`.
    /// Upstream's bytes where it sends one that is as the specification has it.
    pub(super) async fn referrers(&self, name: &Name, subject: &Digest) -> Result<Bytes, Error> {
        let mut ask = Ask::referrers(name, subject);
        let mut all = Referrers::default();
        let mut left = MAX_MANIFEST_BYTES;
        for number in 0..MAX_PAGES {
            let page = page_of(self.exchange(&ask).await?, left).await?;
            if number == 0 && page.next.is_none() && page.is_well_formed {
                return Ok(page.bytes);
            }
            all.append(page.referrers);
            if page.next.is_none() {
                return Ok(all.to_json().into());
            }
            if page.next == ask.query {
                break;
            }
            left = left.saturating_sub(page.bytes.len() as u64);
            ask.query = page.next;
        }
        Err(Error::Invalid(format!("{}: the referrers of {subject} do not end", self.authority())))
    }
}

impl Ask<'_> {
    /// Whether an answer with this status says that upstream lacks the API: not found, not
    /// allowed, not implemented, or go elsewhere.
    pub(super) fn is_unsupported(status: StatusCode) -> bool {
        matches!(status.as_u16(), 300..=399 | 400 | 404 | 405 | 406 | 501)
    }
}

async fn page_of(answer: Answer, limit: u64) -> Result<Page, Error> {
    if !answer.status.is_success() {
        return Err(Error::NotFound(answer.message().await));
    }
    let unsupported = answer.describe(Some("the answer is no list of referrers"));
    if answer.media_type().as_deref() != Some(OCI_INDEX) {
        return Err(Error::NotFound(unsupported));
    }
    let next = link::next_query(&answer)?;
    let bytes = answer.whole_body()?.collect(limit).await?;
    let (referrers, is_well_formed) =
        Referrers::parse(&bytes).ok_or(Error::NotFound(unsupported))?;
    Ok(Page { bytes, referrers, is_well_formed, next })
}
