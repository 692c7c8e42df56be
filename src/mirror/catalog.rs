//! The catalogue: of which repositories something is here.

use super::{Error, Mirror};
use crate::oci::Repository;

impl Mirror {
    /// The repositories of the mirrored registries of which a manifest is here, in no order, but none
    /// that not everyone may see who may ask. Upstream is not asked.
    pub async fn catalog(&self) -> Result<Vec<Repository>, Error> {
        let mut repositories = self.store.repositories().await?;
        repositories.retain(|repository| self.is_listed_for_all(repository));
        Ok(repositories)
    }
}
