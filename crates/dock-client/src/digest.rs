//! SHA-256 digests, as images, manifests and layers are named by them (OCI's image specification, "Digests").

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::hexadecimal::{hex, is_hex};

/// A text that is no digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a SHA-256 digest")]
pub struct NotADigest(String);

/// A SHA-256 digest, as `sha256:` and 64 hexadecimal digits in lower case.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

impl Digest {
    const PREFIX: &str = "sha256:";

    /// Parses `sha256:` and 64 hexadecimal digits.
    ///
    /// # Errors
    /// [`NotADigest`].
    pub fn parse(text: &str) -> Result<Self, NotADigest> {
        let hex = text.strip_prefix(Self::PREFIX).unwrap_or_default();
        if !is_hex(hex, 64) {
            return Err(NotADigest(text.chars().take(100).collect()));
        }
        Ok(Self(text.to_owned()))
    }

    /// The digest of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self::finish(Sha256::new_with_prefix(bytes))
    }

    /// The digest of all that a hasher was fed.
    pub fn finish(hasher: Sha256) -> Self {
        Self(format!("{}{}", Self::PREFIX, hex(&hasher.finalize())))
    }

    /// With the prefix `sha256:`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Without the prefix.
    pub fn hex(&self) -> &str {
        self.0.strip_prefix(Self::PREFIX).unwrap_or_default()
    }

    /// The first twelve digits, for people.
    pub fn short(&self) -> &str {
        self.hex().get(..12).unwrap_or_default()
    }
}

impl TryFrom<String> for Digest {
    type Error = NotADigest;

    fn try_from(text: String) -> Result<Self, NotADigest> {
        Self::parse(&text)
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_of_sha_256_and_in_lower_case() {
        assert_eq!(
            Digest::of(b"").as_str(),
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        for wrong in [
            "",
            "sha256:",
            &"a".repeat(64),
            &format!("sha256:{}", "A".repeat(64)),
            "sha512:00",
            "sha256:../x",
        ] {
            assert!(Digest::parse(wrong).is_err(), "{wrong}");
        }
    }
}
