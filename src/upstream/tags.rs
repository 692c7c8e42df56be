//! The tags of a repository, page after page (distribution-spec, § Listing tags).

use serde::Deserialize;

use crate::oci::{Name, Tag};

use super::{
    Error,
    answer::Answer,
    endpoint::{Ask, Endpoint},
    link,
};

/// The most pages of one list.
const MAX_PAGES: usize = 1_000;
/// The most tags of one list.
const MAX_TAGS: usize = 1_000_000;
/// The largest page. Google's registries tell of every manifest beside the tags, and know no pages.
const MAX_PAGE_BYTES: u64 = 16 * 1024 * 1024;

/// A page as upstream sends it. Nexus puts `null` among the tags.
#[derive(Deserialize)]
struct Page {
    tags: Option<Vec<Option<String>>>,
}

impl Endpoint {
    /// All tags, sorted; what is no tag is left out.
    pub(super) async fn list_tags(&self, name: &Name) -> Result<Vec<Tag>, Error> {
        let mut ask = Ask::tags_list(name);
        let mut tags = Vec::new();
        for _ in 0..MAX_PAGES {
            let answer = self.exchange(&ask).await?;
            let next = link::next_query(&answer)?;
            tags.extend(tags_of(answer).await?);
            if next.is_none() {
                tags.sort_unstable();
                tags.dedup();
                return Ok(tags);
            }
            if next == ask.query || tags.len() > MAX_TAGS {
                break;
            }
            ask.query = next;
        }
        Err(Error::Invalid(format!("{}: the tags of {name} do not end", self.authority())))
    }
}

/// The tags on a page.
pub(super) async fn tags_of(answer: Answer) -> Result<Vec<Tag>, Error> {
    let wrong = answer.describe(Some("the answer is no list of tags"));
    let body = answer.whole_body()?.collect(MAX_PAGE_BYTES).await?;
    named_in(&body).ok_or(Error::Invalid(wrong))
}

/// The tags on a page. `None`: it is none.
pub(super) fn named_in(body: &[u8]) -> Option<Vec<Tag>> {
    let page: Page = serde_json::from_slice(body).ok()?;
    let named = page.tags.into_iter().flatten().flatten();
    Some(named.filter_map(|tag| tag.parse().ok()).collect())
}
