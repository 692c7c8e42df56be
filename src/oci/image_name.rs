//! The full name of an image: where it is, and which one of that place.

use std::{fmt, str::FromStr};

use super::{InvalidName, Reference, Repository};

/// An image by its full name: `docker.io/library/busybox:latest`, or
/// `docker.io/library/busybox@sha256:…`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ImageName {
    /// Where it is.
    pub repository: Repository,
    /// Which one.
    pub reference: Reference,
}

impl FromStr for ImageName {
    type Err = InvalidName;

    /// Parses the form that it displays; a name without a tag or digest is none.
    fn from_str(text: &str) -> Result<ImageName, InvalidName> {
        if let Some((repository, digest)) = text.split_once('@') {
            let reference = Reference::Digest(digest.parse()?);
            return Ok(ImageName { repository: repository.parse()?, reference });
        }
        let (repository, tag) = text.rsplit_once(':').ok_or(InvalidName::Tag)?;
        Ok(ImageName { repository: repository.parse()?, reference: Reference::Tag(tag.parse()?) })
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let separator = match self.reference {
            Reference::Tag(_) => ':',
            Reference::Digest(_) => '@',
        };
        write!(f, "{}{separator}{}", self.repository, self.reference)
    }
}

impl fmt::Debug for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_shown() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let image: ImageName = "localhost:5000/a/b:v1".parse().unwrap();
        assert_eq!(image.repository.to_string(), "localhost:5000/a/b");
        assert_eq!(image.reference.to_string(), "v1");
        assert_eq!(image.to_string(), "localhost:5000/a/b:v1");
        let text = format!("ghcr.io/a@{digest}");
        let image: ImageName = text.parse().unwrap();
        assert_eq!(image.repository.to_string(), "ghcr.io/a");
        assert_eq!(image.reference.to_string(), digest);
        assert_eq!(image.to_string(), text);
        for bad in ["latest", "localhost:5000/a", "a b:c", "", "ghcr.io/a", "ghcr.io/a@v1"] {
            assert!(bad.parse::<ImageName>().is_err(), "{bad}");
        }
    }
}
