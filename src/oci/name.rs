//! Names: registry, repository, tag, and the reference that is a tag or a digest
//! (distribution-spec, § Pulling manifests, for the grammar).

use std::{fmt, str::FromStr, sync::Arc};

use super::{Digest, InvalidDigest};

/// A registry as users write it: a host with an optional port, such as `docker.io` or
/// `registry.corp:5000`. Always lower case.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Registry(Arc<str>);

/// The name of a repository within its registry: `library/busybox`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Arc<str>);

/// A tag: `latest`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(Arc<str>);

/// A repository of a registry: `docker.io/library/busybox`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Repository {
    registry: Registry,
    name: Name,
}

/// What a manifest is asked by.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reference {
    /// A name that upstream may move.
    Tag(Tag),
    /// The content itself.
    Digest(Digest),
}

/// The text breaks the grammar of names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// Not a host with an optional port.
    #[error("invalid registry: want a host name with an optional port")]
    Registry,
    /// Not a repository name.
    #[error(
        "invalid repository name: want lower-case components separated by '/', 255 characters at most"
    )]
    Name,
    /// Not a tag.
    #[error(
        "invalid tag: want 1 to 128 letters, digits, '_', '.' or '-', not starting with '.' or '-'"
    )]
    Tag,
    /// Neither a tag nor a digest.
    #[error(transparent)]
    Digest(#[from] InvalidDigest),
}

impl Registry {
    /// The text form.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Name {
    /// The text form.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Tag {
    /// The text form.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The tag that stands in for the list of what refers to `subject` where a registry makes no
    /// such list (distribution-spec, § Referrers tag schema, which cuts digests to 64 digits).
    pub fn of_referrers(subject: &Digest) -> Tag {
        Tag(format!("{}-{:.64}", subject.algorithm().as_str(), subject.encoded()).into())
    }

    /// Whether it names what is attached to a manifest by the manifest's digest: `sha256-<hex>`
    /// (distribution-spec, § Referrers tag schema), or with cosign's `.sig`, `.att` or `.sbom`.
    pub fn is_of_digest(&self) -> bool {
        let hex = ["sha256-", "sha512-"].iter().find_map(|start| self.0.strip_prefix(start));
        let hex = hex.map(|rest| rest.split_once('.').map_or(rest, |(hex, _)| hex));
        // The schema cuts longer digests to 64 digits.
        hex.is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
    }
}

impl Repository {
    /// The repository `name` of `registry`.
    pub fn new(registry: Registry, name: Name) -> Repository {
        Repository { registry, name }
    }

    /// Where the repository lives.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Its name there.
    pub fn name(&self) -> &Name {
        &self.name
    }
}

impl Reference {
    /// The tag, if it is one.
    pub fn tag(&self) -> Option<&Tag> {
        match self {
            Reference::Tag(tag) => Some(tag),
            Reference::Digest(_) => None,
        }
    }
}

impl FromStr for Registry {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Registry, InvalidName> {
        let text = text.to_ascii_lowercase();
        let (host, port) = split_port(&text);
        if text.len() > 255 || !port.is_none_or(is_port) || !is_host(host) {
            return Err(InvalidName::Registry);
        }
        Ok(Registry(text.into()))
    }
}

impl FromStr for Name {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Name, InvalidName> {
        if text.len() > 255 || !text.split('/').all(is_name_component) {
            return Err(InvalidName::Name);
        }
        Ok(Name(text.into()))
    }
}

impl FromStr for Tag {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Tag, InvalidName> {
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let first_is_valid = text.bytes().next().is_some_and(is_word);
        let rest_is_valid = text.bytes().all(|byte| is_word(byte) || byte == b'.' || byte == b'-');
        if text.len() > 128 || !first_is_valid || !rest_is_valid {
            return Err(InvalidName::Tag);
        }
        Ok(Tag(text.into()))
    }
}

impl FromStr for Reference {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Reference, InvalidName> {
        if text.contains(':') {
            return Ok(Reference::Digest(text.parse()?));
        }
        Ok(Reference::Tag(text.parse()?))
    }
}

impl FromStr for Repository {
    type Err = InvalidName;

    /// Parses the full form that [`Repository`] displays: `registry/name`.
    fn from_str(text: &str) -> Result<Repository, InvalidName> {
        let (registry, name) = text.split_once('/').ok_or(InvalidName::Name)?;
        Ok(Repository::new(registry.parse()?, name.parse()?))
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.name)
    }
}

impl fmt::Debug for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reference::Tag(tag) => fmt::Display::fmt(tag, f),
            Reference::Digest(digest) => fmt::Display::fmt(digest, f),
        }
    }
}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

macro_rules! shown_as_its_text {
    ($($name:ident),*) => {$(
        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}

shown_as_its_text!(Registry, Name, Tag);

/// Splits `host:port`; the colons of a bracketed IPv6 address stay with the host.
fn split_port(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        Some(_) | None => (text, None),
    }
}

/// Digits only: `parse` alone would take a sign.
fn is_port(port: &str) -> bool {
    port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0)
}

fn is_host(host: &str) -> bool {
    if let Some(address) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return address.parse::<std::net::Ipv6Addr>().is_ok();
    }
    host.split('.').all(|label| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    })
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_name_component(component: &str) -> bool {
    let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let begins_and_ends_well = component.starts_with(is_word) && component.ends_with(is_word);
    let mut gaps = component.split(is_word).filter(|gap| !gap.is_empty());
    begins_and_ends_well && gaps.all(is_separator)
}

fn is_separator(text: &str) -> bool {
    matches!(text, "." | "_" | "__") || text.bytes().all(|byte| byte == b'-')
}

#[cfg(test)]
mod properties;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repository_names_follow_the_grammar() {
        for good in ["a", "library/busybox", "a.b/c_d/e__f/g---h", "blobs/manifests/tags", "0/1"] {
            assert!(good.parse::<Name>().is_ok(), "{good}");
        }
        let long = "a".repeat(256);
        for bad in [
            "", "/", "a/", "/a", "a//b", "A", "a..b", "a___b", "-a", "a-", "a._b", "a b", "..",
            "é", &long,
        ] {
            assert!(bad.parse::<Name>().is_err(), "{bad}");
        }
    }

    #[test]
    fn tags_follow_the_grammar() {
        for good in ["latest", "_x", "1.2-3", "sha256-abc.sig"] {
            assert!(good.parse::<Tag>().is_ok(), "{good}");
        }
        let long = "a".repeat(129);
        for bad in ["", ".a", "-a", "a/b", "a b", &long] {
            assert!(bad.parse::<Tag>().is_err(), "{bad}");
        }
    }

    #[test]
    fn tags_of_digests_are_told_from_others() {
        let hex = "0a".repeat(32);
        for good in ["sha256-", "sha512-"].map(|start| format!("{start}{hex}")) {
            for suffix in ["", ".sig", ".att", ".sbom"] {
                assert!(format!("{good}{suffix}").parse::<Tag>().unwrap().is_of_digest());
            }
        }
        for bad in ["latest", "sha256-0a.sig", &hex, &format!("sha256-{hex}0"), "v1.sig"] {
            assert!(!bad.parse::<Tag>().unwrap().is_of_digest(), "{bad}");
        }
    }

    #[test]
    fn registries_are_hosts_with_an_optional_port() {
        for good in
            ["docker.io", "localhost:5000", "10.0.0.1:5000", "[::1]:5000", "[::1]", "Registry.Corp"]
        {
            assert!(good.parse::<Registry>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "a/b",
            "a:b",
            "a:0",
            "a:65536",
            "a:+1",
            "a:",
            "a..b",
            "-a",
            "user@host",
            "a b",
            "[::g]",
        ] {
            assert!(bad.parse::<Registry>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_reference_with_a_colon_is_a_digest() {
        assert!(matches!("latest".parse(), Ok(Reference::Tag(_))));
        assert!("sha256:abc".parse::<Reference>().is_err());
        let digest = format!("sha256:{}", "0".repeat(64));
        assert!(matches!(digest.parse(), Ok(Reference::Digest(_))));
    }
}
