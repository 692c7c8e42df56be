//! The catalogue: of which repositories something is here.

use super::{Error, Mirror};
use crate::oci::Repository;

impl Mirror {
    /// The repositories of the mirrored registries of which a manifest is here, in no order, but none
    /// that is denied, or that not everyone may see who may ask. Upstream is not asked.
    pub async fn catalog(&self) -> Result<Vec<Repository>, Error> {
        let mut repositories = self.store.repositories().await?;
        let is_permitted = |repository: &Repository| self.permit_repository(repository).is_ok();
        repositories
            .retain(|repository| is_permitted(repository) && self.is_listed_for_all(repository));
        Ok(repositories)
    }
}
