//! Who may see a repository: whether upstream shows of it without credentials what it shows to us.

use tokio::time::Instant;

use crate::oci::{Digest, Name, Reference, Visibility};

use super::{
    Error, Spending, Upstream,
    answer::Answer,
    endpoint::{Ask, Endpoint},
    tags,
};

/// Something of a repository that is looked at.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Sample {
    /// A manifest.
    Manifest(Reference),
    /// A blob.
    Blob(Digest),
    /// The first page of its tags.
    Tags,
}

/// Who looks at it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Viewer {
    /// Somebody without credentials.
    Anybody,
    /// Larder, as it is known to upstream.
    Larder,
}

impl Upstream {
    /// Whether credentials are configured for a repository, at any endpoint.
    pub fn has_credentials_for(&self, name: &Name) -> bool {
        self.inner.endpoints.iter().any(|endpoint| endpoint.has_credentials_for(name))
    }

    /// Who may see a repository, judged by something in it. It is private when upstream shows that to
    /// us and not to anybody; where we may not see it either, or it is not there, the error says so.
    pub async fn visibility(
        &self,
        name: &Name,
        sample: &Sample,
        deadline: Instant,
    ) -> Result<Visibility, Error> {
        match self.look(Viewer::Anybody, name, sample, deadline).await {
            Ok(()) => Ok(Visibility::Public),
            Err(Error::NotFound(_) | Error::Denied(_)) => {
                let shown = self.look(Viewer::Larder, name, sample, deadline).await;
                shown.map(|()| Visibility::Private)
            }
            Err(error) => Err(error),
        }
    }

    /// Succeeds if upstream shows it: by a HEAD whose 2xx or 3xx, not followed, is proof enough;
    /// where HEAD is refused with 400, 401, 403, 405 or 501, by a GET, of as little as there can be.
    pub(super) async fn look(
        &self,
        viewer: Viewer,
        name: &Name,
        sample: &Sample,
        deadline: Instant,
    ) -> Result<(), Error> {
        let (head, get) = match sample {
            Sample::Manifest(reference) => (
                Ask::manifest_head(name, reference),
                Ask::manifest_get(name, reference).spending(Spending::AboveReserve),
            ),
            Sample::Blob(digest) => {
                (Ask::blob_head(name, digest), Ask::blob_get(name, digest).part(&(0..1)))
            }
            Sample::Tags => return self.look_at_tags(viewer, name, deadline).await,
        };
        match self.shown(viewer, &head.not_followed(), deadline).await {
            Err(Error::HeadRefused(_) | Error::Denied(_)) => {
                self.shown(viewer, &get.not_followed(), deadline).await.map(drop)
            }
            outcome => outcome.map(drop),
        }
    }

    /// A page for people, where a stranger may log in, is no list of tags.
    async fn look_at_tags(
        &self,
        viewer: Viewer,
        name: &Name,
        deadline: Instant,
    ) -> Result<(), Error> {
        let ask = &Ask::tags_list(name);
        let look = |endpoint| async move { tags::tags_of(viewer.ask(endpoint, ask).await?).await };
        self.first_answer(ask, deadline, look).await.map(drop)
    }

    async fn shown(
        &self,
        viewer: Viewer,
        ask: &Ask<'_>,
        deadline: Instant,
    ) -> Result<Answer, Error> {
        self.first_answer(ask, deadline, |endpoint| viewer.ask(endpoint, ask)).await
    }
}

impl Viewer {
    async fn ask(self, endpoint: &Endpoint, ask: &Ask<'_>) -> Result<Answer, Error> {
        match self {
            Viewer::Anybody => endpoint.exchange_anonymously(ask).await,
            Viewer::Larder => endpoint.exchange(ask).await,
        }
    }
}
