//! Which repositories a catalogue lists, and by what names.

use crate::oci::{Registry, Repository};

/// A list of repositories, by the names that lead to them on the same way in.
#[derive(Debug, PartialEq, Eq)]
pub enum Catalog {
    /// Those of one registry, by what is written before their name there.
    Registry(Registry, String),
    /// All. Those of the default upstream have bare names.
    All {
        /// The default upstream.
        default: Option<Registry>,
    },
}

impl Catalog {
    /// The repositories of `registry`, which something else than their name stands for.
    pub(super) fn of(registry: &Registry) -> Catalog {
        Catalog::Registry(registry.clone(), String::new())
    }

    /// The repositories of `registry`, which the client writes as `alias` before their names.
    pub(super) fn within(registry: &Registry, alias: &str) -> Catalog {
        Catalog::Registry(registry.clone(), format!("{alias}/"))
    }

    /// All repositories, where bare names are those of `default`.
    pub(super) fn of_all(default: Option<&Registry>) -> Catalog {
        Catalog::All { default: default.cloned() }
    }

    /// The names of those among `repositories` that are listed, sorted.
    pub fn names(&self, repositories: &[Repository]) -> Vec<String> {
        let mut names: Vec<String> =
            repositories.iter().filter_map(|repository| self.name(repository)).collect();
        names.sort_unstable();
        names
    }

    fn name(&self, repository: &Repository) -> Option<String> {
        let (registry, name) = (repository.registry(), repository.name());
        match self {
            Catalog::Registry(listed, prefix) => {
                (listed == registry).then(|| format!("{prefix}{name}"))
            }
            Catalog::All { default } if default.as_ref() == Some(registry) => {
                Some(name.to_string())
            }
            Catalog::All { .. } => Some(repository.to_string()),
        }
    }
}
