//! Proofs: a digest is served only in a repository where upstream has shown it.
//!
//! Without them, whoever knows a digest could read another repository's private content from
//! the cache.

use std::sync::Arc;

use tokio::time::Instant;

use super::{Error, Mirror, flight::Flights, manifest::Content, missing::Absent};
use crate::{
    oci::{Children, Digest, Reference, Repository},
    upstream::{self, Spending},
};

/// The questions under way, each named by what it may find absent, and with what it may cost.
pub(super) type ProofFlights = Flights<(Absent, Spending), ()>;

impl Mirror {
    /// Makes sure that `repository` may see the blob `digest`.
    ///
    /// While upstream cannot be asked, it is enough that an image manifest which upstream served
    /// in this repository lists the blob.
    pub(super) async fn ensure_proved(
        self: &Arc<Self>,
        repository: &Repository,
        digest: &Digest,
        deadline: Instant,
    ) -> Result<(), Error> {
        if self.store.is_proved(repository, digest) {
            return Ok(());
        }
        Box::pin(self.prove_now(repository, digest, deadline)).await
    }

    async fn prove_now(
        self: &Arc<Self>,
        repository: &Repository,
        digest: &Digest,
        deadline: Instant,
    ) -> Result<(), Error> {
        let absent = Absent::blob(repository, digest);
        self.refuse_absent(&absent)?;
        let mirrored = self.mirrored(repository)?;
        let is_listed = self.store.is_listed(repository, digest);
        let until = if is_listed { self.patience(mirrored).min(deadline) } else { deadline };
        let proof = || self.clone().prove_blob(repository.clone(), digest.clone(), self.deadline());
        let outcome = self.proofs.join((absent, Spending::All), until, proof).await;
        if let Err(error) = &outcome
            && error.is_outage()
        {
            mirrored.note_outage();
        }
        match outcome {
            Err(Error::NotFound(_) | Error::Denied(_)) => outcome,
            Err(_) if is_listed => Ok(()),
            Ok(()) | Err(_) => outcome,
        }
    }

    /// Makes sure that `repository` may see the manifest `digest`. That costs something only where
    /// upstream refuses HEAD.
    pub(super) async fn ensure_manifest_proved(
        self: &Arc<Self>,
        repository: &Repository,
        digest: &Digest,
        spending: Spending,
        deadline: Instant,
    ) -> Result<(), Error> {
        if self.store.is_proved(repository, digest) {
            return Ok(());
        }
        let absent = Absent::manifest(repository, &Reference::Digest(digest.clone()));
        self.refuse_absent(&absent)?;
        let proof = || self.clone().prove_manifest(repository.clone(), digest.clone(), spending);
        Box::pin(self.proofs.join((absent, spending), deadline, proof)).await
    }

    /// Asks upstream for what a manifest lists and is on disk already from elsewhere, so that a
    /// later pull need not, even when upstream is gone by then.
    pub(super) fn prove_children(
        self: &Arc<Self>,
        repository: &Repository,
        content: &Arc<Content>,
    ) {
        let (mirror, repository) = (self.clone(), repository.clone());
        let content = content.clone();
        tokio::spawn(async move {
            for digest in content.manifest.children.digests() {
                if !mirror.store.has(digest) {
                    continue;
                }
                let deadline = mirror.deadline();
                let proved = match content.manifest.children {
                    // With a manifest's proof come those of its children.
                    Children::Index(_) => {
                        let spending = Spending::AboveReserve;
                        mirror.ensure_manifest_proved(&repository, digest, spending, deadline).await
                    }
                    Children::Image { .. } => {
                        mirror.ensure_proved(&repository, digest, deadline).await
                    }
                };
                if let Err(error) = proved {
                    tracing::debug!(%repository, %digest, %error, "a child is not proved");
                }
            }
        });
    }

    async fn prove_blob(
        self: Arc<Self>,
        repository: Repository,
        digest: Digest,
        deadline: Instant,
    ) -> Result<(), Error> {
        let mirrored = self.mirrored(&repository)?;
        let shown = mirrored.upstream.prove_blob(repository.name(), &digest, deadline).await;
        let shown =
            shown.map_err(|error| self.remember_absent(Absent::blob(&repository, &digest), error));
        mirrored.note(&shown);
        shown?;
        self.store.prove_blob(&repository, &digest);
        Ok(())
    }

    async fn prove_manifest(
        self: Arc<Self>,
        repository: Repository,
        digest: Digest,
        spending: Spending,
    ) -> Result<(), Error> {
        let (mirrored, deadline) = (self.mirrored(&repository)?, self.deadline());
        let reference = Reference::Digest(digest.clone());
        let name = repository.name();
        let shown = match mirrored.upstream.head_manifest(name, &reference, deadline).await {
            Ok(_) => Ok(()),
            Err(upstream::Error::HeadRefused(_)) => {
                let got = mirrored.upstream.get_manifest(name, &reference, spending, deadline);
                got.await.map(|_| ())
            }
            Err(error) => Err(error),
        };
        let absent = || Absent::manifest(&repository, &reference);
        let shown = shown.map_err(|error| self.remember_absent(absent(), error));
        mirrored.note(&shown);
        shown?;
        self.store.prove_manifest(&repository, &digest);
        if let Some(content) = self.content(&digest).await {
            self.prove_children(&repository, &content);
        }
        Ok(())
    }
}
