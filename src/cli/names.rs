//! Names of images as people write them: as for Docker, and with the aliases of the configuration.

use std::fmt::Display;

use super::content::Failure;
use crate::{
    config::Config,
    oci::{ImageName, InvalidName, Name, Reference, Registry, Repository, Tag},
};

/// What a name without a registry is of.
const DOCKER_HUB: &str = "docker.io";

/// What a name without a tag is of, where it means one image.
const LATEST: &str = "latest";

/// What a name means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Named {
    /// With a tag or a digest.
    Image(ImageName),
    /// Without.
    Repository(Repository),
}

/// One image; without a tag or digest, the one with the tag `latest`.
pub(super) fn image(text: &str, config: &Config) -> Result<ImageName, Failure> {
    let image = named(text, config)?;
    match image {
        Named::Image(image) => Ok(image),
        Named::Repository(repository) => {
            let latest: Tag = LATEST.parse().map_err(|error| wrong(text, &error))?;
            Ok(ImageName { repository, reference: Reference::Tag(latest) })
        }
    }
}

/// An image, or a whole repository.
pub(super) fn named(text: &str, config: &Config) -> Result<Named, Failure> {
    parse(text, config).map_err(|error| wrong(text, &error))
}

/// A registry that is named alone, by its name or an alias.
pub(super) fn registry(text: &str, config: &Config) -> Option<Registry> {
    let host = text.split_once(':').map_or(text, |(host, _)| host);
    // Alone, what has a colon may be an image and its tag.
    let is_host = host.contains('.') || host == "localhost";
    let registry = (!text.contains('/')).then(|| known_registry(text, config)).flatten()?;
    let is_configured = || config.upstreams.iter().any(|upstream| upstream.registry == registry);
    (is_host || is_configured()).then_some(registry)
}

/// What a name of an image, a repository or a registry is short for. `None`: of nothing.
pub(super) fn full(text: &str, config: &Config) -> Option<String> {
    if let Some(registry) = registry(text, config) {
        return Some(format!("{registry}/"));
    }
    Some(match parse(text, config).ok()? {
        Named::Image(image) => image.to_string(),
        Named::Repository(repository) => repository.to_string(),
    })
}

fn parse(text: &str, config: &Config) -> Result<Named, InvalidName> {
    let (name, digest) = match text.split_once('@') {
        Some((name, digest)) => (name, Some(digest.parse()?)),
        None => (text, None),
    };
    // What is behind the last colon of a registry's port has a slash.
    let tagged = name.rsplit_once(':').filter(|(_, tag)| !tag.contains('/'));
    let (name, tag) = match tagged {
        Some((name, tag)) => (name, Some(tag.parse()?)),
        None => (name, None),
    };
    let repository = repository(name, config)?;
    // As for Docker, a tag beside a digest says nothing more.
    let reference = digest.map(Reference::Digest).or(tag.map(Reference::Tag));
    Ok(match reference {
        Some(reference) => Named::Image(ImageName { repository, reference }),
        None => Named::Repository(repository),
    })
}

/// The first component is a registry when it looks like a host, or is one's name here.
fn repository(text: &str, config: &Config) -> Result<Repository, InvalidName> {
    let named = text.split_once('/');
    let named = named.and_then(|(first, rest)| Some((known_registry(first, config)?, rest)));
    let (registry, name) = match named {
        Some(named) => named,
        None => (DOCKER_HUB.parse()?, text),
    };
    let name: Name = match registry.as_str() == DOCKER_HUB && !name.contains('/') {
        true => format!("library/{name}").parse()?,
        false => name.parse()?,
    };
    Ok(Repository::new(registry, name))
}

fn known_registry(text: &str, config: &Config) -> Option<Registry> {
    let lower = text.to_ascii_lowercase();
    let mut upstreams = config.upstreams.iter();
    let alias = upstreams.find(|upstream| upstream.aliases.contains(&lower));
    if let Some(upstream) = alias {
        return Some(upstream.registry.clone());
    }
    let is_host = text.contains(['.', ':']) || text == "localhost";
    let registry = text.parse().ok().filter(|_| is_host);
    let is_configured = |registry: &Registry| {
        config.upstreams.iter().any(|upstream| upstream.registry == *registry)
    };
    match registry {
        // Docker's other name for it.
        Some(registry) if Registry::as_str(&registry) == "index.docker.io" => {
            DOCKER_HUB.parse().ok()
        }
        None => text.parse().ok().filter(is_configured),
        registry => registry,
    }
}

fn wrong(text: &str, error: &dyn Display) -> Failure {
    Failure::Usage(format!("{text}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;

    fn config() -> Config {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("larder.toml");
        let text = "[[upstream]]\nregistry = \"registry.corp:5000\"\naliases = [\"corp.io\"]\n";
        std::fs::write(&file, text).unwrap();
        let flags = [("data_dir", "/nowhere".to_owned())].into();
        Config::load(&Sources { file: Some(file), flags, ..Sources::default() }).unwrap()
    }

    #[test]
    fn names_mean_what_they_mean_to_docker() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let by_digest = |name: &str| format!("{name}@{digest}");
        let table = [
            ("nginx", "docker.io/library/nginx:latest"),
            ("nginx:1.27", "docker.io/library/nginx:1.27"),
            ("team/app:v1", "docker.io/team/app:v1"),
            ("docker.io/nginx", "docker.io/library/nginx:latest"),
            ("index.docker.io/library/nginx", "docker.io/library/nginx:latest"),
            ("ghcr.io/a/b:v1", "ghcr.io/a/b:v1"),
            ("localhost/a", "localhost/a:latest"),
            ("localhost:5000/a:v1", "localhost:5000/a:v1"),
            ("localhost:5000/a", "localhost:5000/a:latest"),
            ("corp.io/a:v1", "registry.corp:5000/a:v1"),
            (&by_digest("ghcr.io/a/b"), &by_digest("ghcr.io/a/b")),
            (&by_digest("nginx:1.27"), &by_digest("docker.io/library/nginx")),
        ];
        for (text, expected) in table {
            assert_eq!(image(text, &config()).unwrap().to_string(), expected, "{text}");
        }
        for wrong in ["", "Nginx", "nginx:", "nginx@v1", "ghcr.io/", "a b", "nginx:a/b:c d"] {
            assert!(image(wrong, &config()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn short_names_have_full_ones() {
        for (text, expected) in [
            ("nginx", Some("docker.io/library/nginx")),
            ("nginx:1", Some("docker.io/library/nginx:1")),
            ("docker.io/nginx:1", Some("docker.io/library/nginx:1")),
            ("corp.io/a", Some("registry.corp:5000/a")),
            ("corp.io", Some("registry.corp:5000/")),
            ("*/nginx", None),
            ("V2", None),
        ] {
            assert_eq!(full(text, &config()).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn without_a_tag_a_repository_is_meant_where_one_can_be() {
        let nginx: Repository = "docker.io/library/nginx".parse().unwrap();
        assert_eq!(named("nginx", &config()).unwrap(), Named::Repository(nginx));
        assert!(matches!(named("nginx:latest", &config()).unwrap(), Named::Image(_)));
        for (text, expected) in [
            ("ghcr.io", Some("ghcr.io")),
            ("corp.io", Some("registry.corp:5000")),
            ("registry.corp:5000", Some("registry.corp:5000")),
            ("localhost:5000", Some("localhost:5000")),
            ("nginx", None),
            ("nginx:1", None),
        ] {
            let found = registry(text, &config());
            assert_eq!(found.as_ref().map(Registry::as_str), expected);
        }
    }
}
