//! Content digests (image-spec, descriptor.md § Digests) and the hasher that computes them.

use std::{fmt, hash::Hash, str::FromStr};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256, Sha512};

/// The name of some bytes: `sha256:…` or `sha512:…`.
///
/// Kept as raw bytes, since a store holds a million of them.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(Value);

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Value {
    Sha256([u8; 32]),
    Sha512(Box<[u8; 64]>),
}

/// The most raw bytes of a digest.
const LONGEST: usize = 64;

/// The digest algorithms that Larder verifies; the specification requires the first and
/// allows the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// SHA-256, 64 hexadecimal digits.
    Sha256,
    /// SHA-512, 128 hexadecimal digits.
    Sha512,
}

/// The text is no digest of a supported algorithm.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid digest: want sha256:<64 lower-case hex digits> or sha512:<128>")]
pub struct InvalidDigest;

impl Digest {
    /// The digest of `bytes`.
    pub fn of(algorithm: Algorithm, bytes: &[u8]) -> Digest {
        let mut hasher = algorithm.hasher();
        hasher.update(bytes);
        hasher.finish()
    }

    /// Parses a file name as the store writes it: `encoded` under a folder named `algorithm`.
    ///
    /// # Errors
    /// When the two do not form a digest.
    pub fn from_parts(algorithm: &str, encoded: &str) -> Result<Digest, InvalidDigest> {
        let value = match algorithm {
            "sha256" => Value::Sha256(decode_hex(encoded)?),
            "sha512" => Value::Sha512(Box::new(decode_hex(encoded)?)),
            _ => return Err(InvalidDigest),
        };
        Ok(Digest(value))
    }

    /// The digest whose raw bytes are `bytes`.
    ///
    /// # Errors
    /// When their number is not that of the algorithm.
    pub fn from_bytes(algorithm: Algorithm, bytes: &[u8]) -> Result<Digest, InvalidDigest> {
        let value = match algorithm {
            Algorithm::Sha256 => Value::Sha256(bytes.try_into().map_err(|_| InvalidDigest)?),
            Algorithm::Sha512 => {
                Value::Sha512(Box::new(bytes.try_into().map_err(|_| InvalidDigest)?))
            }
        };
        Ok(Digest(value))
    }

    /// The algorithm before the colon.
    pub fn algorithm(&self) -> Algorithm {
        match self.0 {
            Value::Sha256(_) => Algorithm::Sha256,
            Value::Sha512(_) => Algorithm::Sha512,
        }
    }

    /// The hexadecimal digits after the colon.
    pub fn encoded(&self) -> String {
        self.hex(&mut [[0; 2]; LONGEST]).to_owned()
    }

    /// The digits, written into `room`.
    fn hex<'a>(&self, room: &'a mut [[u8; 2]; LONGEST]) -> &'a str {
        let bytes = self.as_bytes();
        for (digits, byte) in room.iter_mut().zip(bytes) {
            *digits = [byte >> 4, byte & 15].map(digit);
        }
        let digits = room.as_flattened().get(..bytes.len() * 2).unwrap_or_default();
        std::str::from_utf8(digits).unwrap_or_default()
    }

    /// A hasher whose result can be compared with this digest.
    pub fn hasher(&self) -> Hasher {
        self.algorithm().hasher()
    }

    /// The raw bytes that [`Digest::encoded`] shows: 32 or 64 of them.
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Value::Sha256(bytes) => bytes,
            Value::Sha512(bytes) => bytes.as_slice(),
        }
    }
}

impl Algorithm {
    /// The algorithm as the text before the colon, and as a folder name of the layout.
    pub fn as_str(self) -> &'static str {
        match self {
            Algorithm::Sha256 => "sha256",
            Algorithm::Sha512 => "sha512",
        }
    }

    fn hasher(self) -> Hasher {
        match self {
            Algorithm::Sha256 => Hasher::Sha256(Sha256::new()),
            Algorithm::Sha512 => Hasher::Sha512(Sha512::new()),
        }
    }
}

impl Hash for Digest {
    /// In one step: their number tells the algorithm. A hit is looked up by its digest several times.
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        state.write(self.as_bytes());
    }
}

impl FromStr for Digest {
    type Err = InvalidDigest;

    fn from_str(text: &str) -> Result<Digest, InvalidDigest> {
        let (algorithm, encoded) = text.split_once(':').ok_or(InvalidDigest)?;
        Digest::from_parts(algorithm, encoded)
    }
}

impl TryFrom<String> for Digest {
    type Error = InvalidDigest;

    fn try_from(text: String) -> Result<Digest, InvalidDigest> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.to_string()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.algorithm().as_str())?;
        f.write_str(":")?;
        f.write_str(self.hex(&mut [[0; 2]; LONGEST]))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The running hash of bytes seen so far. A clone keeps the state at that point.
#[derive(Clone)]
pub enum Hasher {
    /// SHA-256.
    Sha256(Sha256),
    /// SHA-512.
    Sha512(Sha512),
}

impl Hasher {
    /// Adds the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Hasher::Sha256(hasher) => hasher.update(bytes),
            Hasher::Sha512(hasher) => hasher.update(bytes),
        }
    }

    /// The digest of everything added.
    pub fn finish(self) -> Digest {
        Digest(match self {
            Hasher::Sha256(hasher) => Value::Sha256(hasher.finalize().into()),
            Hasher::Sha512(hasher) => Value::Sha512(Box::new(hasher.finalize().into())),
        })
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hasher")
    }
}

/// Lower-case hexadecimal only: the specification forbids upper case.
fn decode_hex<const N: usize>(text: &str) -> Result<[u8; N], InvalidDigest> {
    let digits = text.as_bytes();
    if digits.len() != N * 2 {
        return Err(InvalidDigest);
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let &[high, low] = pair else {
            return Err(InvalidDigest);
        };
        *byte = (nibble(high)? << 4) | nibble(low)?;
    }
    Ok(bytes)
}

fn digit(nibble: u8) -> u8 {
    if nibble < 10 { b'0' + nibble } else { b'a' + (nibble - 10) }
}

fn nibble(digit: u8) -> Result<u8, InvalidDigest> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        _ => Err(InvalidDigest),
    }
}

#[cfg(test)]
pub(super) mod properties;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_of_nothing_is_the_published_one() {
        assert_eq!(
            Digest::of(Algorithm::Sha256, b"").to_string(),
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        );
    }

    #[test]
    fn both_algorithms_survive_a_round_trip() {
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let digest = Digest::of(algorithm, b"larder");
            assert_eq!(digest.to_string().parse(), Ok(digest));
        }
    }

    #[test]
    fn malformed_digests_are_refused() {
        let upper = format!("sha256:{}", "A".repeat(64));
        let short = format!("sha256:{}", "a".repeat(63));
        let wide = format!("sha256:{}é", "a".repeat(62));
        for text in
            ["", "sha256:", "sha256", "md5:d41d8cd98f00b204e9800998ecf8427e", &upper, &short, &wide]
        {
            assert_eq!(text.parse::<Digest>(), Err(InvalidDigest), "{text}");
        }
    }
}
