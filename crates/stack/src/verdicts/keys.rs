//! The keys by which verdicts are signed, and by which it is known who signed them.
//!
//! Formats: a private key is PKCS #8 in PEM (RFC 5958, RFC 7468), a public one SubjectPublicKeyInfo in PEM (RFC 5280). Both
//! are Ed25519 (RFC 8410) or ECDSA with P-256 and SHA-256 (RFC 5480), as `openssl genpkey` and sigstore's `cosign import-key-pair` have
//! them. The cryptography is ring's, which TLS brings.

use std::fmt;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use dockerutils_core::env::Env;
use dockerutils_core::error::{Error, Result};
use dockerutils_core::hint;
use registry_client::Digest;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, ED25519, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
    UnparsedPublicKey,
};
use rustls::pki_types::pem::{self, SectionKind};
use zeroize::Zeroizing;

/// The variable with the key: a path, or the PEM itself, as a CI has its secrets.
pub const KEY_VARIABLE: &str = "DOCKERUTILS_VERDICT_KEY";
/// The most bytes of a file with a key.
const LARGEST: u64 = 64 * 1024;
/// How PEM begins.
const PEM: &str = "-----BEGIN ";
/// How SubjectPublicKeyInfo begins for these algorithms; the key follows.
const ED25519_INFO: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
const P256_INFO: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// How many bytes the keys themselves have.
const ED25519_KEY: usize = 32;
const P256_KEY: usize = 65;

/// A private key, which signs verdicts.
pub struct VerdictKey {
    pair: SigningPair,
    public: VerdictPublicKey,
}

enum SigningPair {
    Ed25519(Ed25519KeyPair),
    P256(EcdsaKeyPair),
}

/// A public key, by which a signature is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerdictPublicKey {
    algorithm: KeyAlgorithm,
    key: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KeyAlgorithm {
    Ed25519,
    P256,
}

/// Shows the public half alone.
impl fmt::Debug for VerdictKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("VerdictKey").field(&self.public).finish_non_exhaustive()
    }
}

impl VerdictKey {
    /// The key that `--verdict-key` names, else that of [`KEY_VARIABLE`]; `None` without both.
    ///
    /// # Errors
    /// A file that can't be read, or that others may read; what is no private key.
    pub fn of(env: &Env, file: Option<&Path>, working: &Path) -> Result<Option<Self>> {
        let Some(text) = KeyText::of(env, file, working)? else {
            return Ok(None);
        };
        match text.parse()? {
            AnyKey::Private(key) => Ok(Some(*key)),
            AnyKey::Public(_) => Err(
                Error::usage(format!("{} is a public key, which signs nothing", text.from))
                    .hint("name the file with the private key"),
            ),
        }
    }

    /// The half by which its signatures are checked.
    pub const fn public(&self) -> &VerdictPublicKey {
        &self.public
    }

    /// Reads PKCS #8 in PEM.
    ///
    /// # Errors
    /// Why it is no such key, without any of it.
    pub fn parse(pem: &str) -> Result<Self, NoKey> {
        match AnyKey::parse(pem.as_bytes())? {
            AnyKey::Private(key) => Ok(*key),
            AnyKey::Public(_) => Err(NoKey::Kind("PUBLIC KEY".to_owned())),
        }
    }

    /// Signs a message.
    ///
    /// # Errors
    /// The system gives no random numbers.
    pub(super) fn sign(&self, message: &[u8]) -> Result<Vec<u8>> {
        match &self.pair {
            SigningPair::Ed25519(pair) => Ok(pair.sign(message).as_ref().to_vec()),
            SigningPair::P256(pair) => match pair.sign(&SystemRandom::new(), message) {
                Ok(signature) => Ok(signature.as_ref().to_vec()),
                Err(_) => Err(Error::failed("the system gives no random numbers to sign with")),
            },
        }
    }

    fn from_der(der: &[u8]) -> Result<Self, NoKey> {
        if let Ok(pair) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der) {
            let public = VerdictPublicKey {
                algorithm: KeyAlgorithm::Ed25519,
                key: pair.public_key().as_ref().to_vec(),
            };
            let pair = SigningPair::Ed25519(pair);
            return Ok(Self { pair, public });
        }
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, der, &SystemRandom::new());
        let pair = pair.map_err(|_| NoKey::Algorithm)?;
        let public = VerdictPublicKey {
            algorithm: KeyAlgorithm::P256,
            key: pair.public_key().as_ref().to_vec(),
        };
        let pair = SigningPair::P256(pair);
        Ok(Self { pair, public })
    }
}

impl VerdictPublicKey {
    /// The key that `--verdict-key` names, else that of [`KEY_VARIABLE`]; `None` without both. Of a private key, its
    /// public half.
    ///
    /// # Errors
    /// As [`VerdictKey::of`].
    pub fn of(env: &Env, file: Option<&Path>, working: &Path) -> Result<Option<Self>> {
        let Some(text) = KeyText::of(env, file, working)? else {
            return Ok(None);
        };
        Ok(Some(match text.parse()? {
            AnyKey::Private(key) => key.public,
            AnyKey::Public(key) => key,
        }))
    }

    /// Reads SubjectPublicKeyInfo in PEM.
    ///
    /// # Errors
    /// Why it is no such key.
    pub fn parse(pem: &str) -> Result<Self, NoKey> {
        match AnyKey::parse(pem.as_bytes())? {
            AnyKey::Public(key) => Ok(key),
            AnyKey::Private(key) => Ok(key.public),
        }
    }

    /// The SHA-256 digest of the key's SubjectPublicKeyInfo, by which people tell keys apart.
    pub fn id(&self) -> Digest {
        let begin: &[u8] = match self.algorithm {
            KeyAlgorithm::Ed25519 => &ED25519_INFO,
            KeyAlgorithm::P256 => &P256_INFO,
        };
        Digest::of(&[begin, &self.key].concat())
    }

    /// Whether this signature of the message is by the key.
    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let verified = match self.algorithm {
            KeyAlgorithm::Ed25519 => UnparsedPublicKey::new(&ED25519, &self.key).verify(message, signature),
            KeyAlgorithm::P256 => UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &self.key).verify(message, signature),
        };
        verified.is_ok()
    }

    fn from_der(der: &[u8]) -> Result<Self, NoKey> {
        let known = [
            (KeyAlgorithm::Ed25519, &ED25519_INFO[..], ED25519_KEY),
            (KeyAlgorithm::P256, &P256_INFO[..], P256_KEY),
        ];
        known
            .into_iter()
            .find_map(|(algorithm, begin, length)| {
                let key = der.strip_prefix(begin).filter(|key| key.len() == length)?;
                Some(Self {
                    algorithm,
                    key: key.to_vec(),
                })
            })
            .ok_or(NoKey::Algorithm)
    }
}

/// Why a text is no key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoKey {
    /// There is no PEM in it.
    #[error("it has no PEM in it")]
    NoPem,
    /// It is encrypted.
    #[error("it is encrypted")]
    Encrypted,
    /// It is PEM of something else.
    #[error("it is a {0}")]
    Kind(String),
    /// The key is of another algorithm, or broken.
    #[error("it is neither an Ed25519 nor a P-256 key")]
    Algorithm,
}

/// A key of either half.
enum AnyKey {
    Private(Box<VerdictKey>),
    Public(VerdictPublicKey),
}

impl AnyKey {
    fn parse(text: &[u8]) -> Result<Self, NoKey> {
        let mut rest = text;
        // What is encrypted, and what ssh has, is PEM of kinds that the parser passes over.
        match pem::from_buf(&mut rest) {
            Ok(Some((SectionKind::PrivateKey, der))) => {
                let der = Zeroizing::new(der);
                VerdictKey::from_der(&der).map(|key| Self::Private(Box::new(key)))
            }
            Ok(Some((SectionKind::PublicKey, der))) => VerdictPublicKey::from_der(&der).map(Self::Public),
            _ => Err(Self::reason(&String::from_utf8_lossy(text))),
        }
    }

    /// Why there is no key that we read in a text.
    fn reason(text: &str) -> NoKey {
        let Some((_, rest)) = text.split_once(PEM) else {
            return NoKey::NoPem;
        };
        let kind = rest.split("-----").next().unwrap_or_default();
        match kind.contains("ENCRYPTED") {
            true => NoKey::Encrypted,
            // A label has no more characters; what follows may be a key.
            false if kind.len() <= 40 && kind.bytes().all(|byte| byte == b' ' || byte.is_ascii_uppercase()) => {
                NoKey::Kind(kind.to_owned())
            }
            false => NoKey::NoPem,
        }
    }
}

/// The text of a key, and where it is from.
struct KeyText {
    /// For messages.
    from: String,
    pem: Zeroizing<String>,
}

impl KeyText {
    fn of(env: &Env, file: Option<&Path>, working: &Path) -> Result<Option<Self>> {
        let path = match (file, env.non_empty(KEY_VARIABLE)) {
            (Some(file), _) if file.to_string_lossy().contains(PEM) => {
                return Err(Error::usage(
                    "--verdict-key takes the path of a file: everyone on this machine sees what is an argument",
                )
                .hint(hint!(
                    "give the key itself by the variable {}; this one is known to others now",
                    KEY_VARIABLE
                )));
            }
            (Some(file), _) => file.to_owned(),
            (None, Some(text)) if text.contains(PEM) => {
                return Ok(Some(Self {
                    from: format!("the key in {KEY_VARIABLE}"),
                    pem: Zeroizing::new(text.to_owned()),
                }));
            }
            (None, Some(path)) => PathBuf::from(path),
            (None, None) => return Ok(None),
        };
        Self::read(&working.join(path)).map(Some)
    }

    fn read(path: &Path) -> Result<Self> {
        let shown = path.display();
        let unreadable = |cause: std::io::Error| {
            Error::usage(format!("the key {shown} can't be read"))
                .because(cause)
                .hint(hint!("make one: openssl genpkey -algorithm ed25519 -out {}", shown))
        };
        // A pipe would be waited for.
        let kind = std::fs::metadata(path).map_err(unreadable)?;
        if !kind.is_file() {
            return Err(Error::usage(format!("{shown} is not a file")));
        }
        let file = std::fs::File::open(path).map_err(unreadable)?;
        let mode = file.metadata().map_err(unreadable)?.permissions().mode();
        let mut bytes = Zeroizing::new(Vec::new());
        file.take(LARGEST).read_to_end(&mut bytes).map_err(unreadable)?;
        let text = Zeroizing::new(String::from_utf8_lossy(&bytes).into_owned());
        if text.contains("PRIVATE KEY-----") && mode & 0o077 != 0 {
            return Err(Error::usage(format!(
                "others may read the key {shown}: its mode is {:03o}",
                mode & 0o777
            ))
            .hint(hint!("chmod 600 {}", shown)));
        }
        Ok(Self {
            from: shown.to_string(),
            pem: text,
        })
    }

    fn parse(&self) -> Result<AnyKey> {
        AnyKey::parse(self.pem.as_bytes()).map_err(|why| {
            let hint = match &why {
                NoKey::Kind(kind) if kind.ends_with("PRIVATE KEY") || kind == "EC PARAMETERS" => {
                    "PKCS #8 is read: openssl pkcs8 -topk8 -nocrypt -in OLD -out NEW"
                }
                NoKey::Encrypted => "decrypt it into a file that only you may read: openssl pkcs8 -in OLD -out NEW",
                _ => "openssl genpkey -algorithm ed25519 -out verdict.key makes one; openssl pkey -in verdict.key -pubout shows its public half",
            };
            Error::usage(format!("{} is no key for verdicts: {why}", self.from)).hint(hint)
        })
    }
}

#[cfg(test)]
mod tests;
