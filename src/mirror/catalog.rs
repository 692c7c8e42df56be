//! The catalogue: of which repositories something is here.

use super::{Error, Mirror};
use crate::oci::Repository;

impl Mirror {
    /// The repositories of the mirrored registries of which a manifest is here, in no order.
    /// Upstream is not asked.
    pub async fn catalog(&self) -> Result<Vec<Repository>, Error> {
        let mut repositories = self.store.repositories().await?;
        repositories.retain(|repository| self.registries.contains_key(repository.registry()));
        Ok(repositories)
    }
}
