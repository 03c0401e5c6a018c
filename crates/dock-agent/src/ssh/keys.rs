//! Private keys in files: their type, and whether they are encrypted. libssh2 reports neither: to it, a wrong
//! passphrase, a missing passphrase and a key that it does not know are the same.
//!
//! Formats: OpenSSH's own (PROTOCOL.key of OpenSSH), PKCS#8, and the older PEM ones with a `Proc-Type` line.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use dock_client::docks::known_hosts;
use zeroize::Zeroizing;

/// A key that may be tried.
pub(super) struct KeyFile {
    pub(super) path: PathBuf,
    pub(super) private: Zeroizing<String>,
    /// The public key as a line of a `.pub` file; `None` for an old format without such a file.
    pub(super) public: Option<String>,
    pub(super) encrypted: bool,
    /// Its permissions, if users besides its owner have any: ssh does not use such a key.
    pub(super) open_to_others: Option<u32>,
}

impl KeyFile {
    /// Reads a key; `None` if there is no such file.
    pub(super) fn read(path: &Path) -> io::Result<Option<Self>> {
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let found = file.metadata()?;
        let mut private = Zeroizing::new(String::new());
        file.read_to_string(&mut private)?;
        let parsed = parse(&private);
        let public = match parsed.public {
            Some(public) => Some(public_line(&public)),
            None => read_public(&with_suffix(path, ".pub")),
        };
        Ok(Some(Self {
            path: path.to_owned(),
            public,
            encrypted: parsed.encrypted,
            // As in ssh, the permissions of another user's key (root's, in a container) don't matter: this user can't
            // change them.
            open_to_others: (found.uid() == rustix::process::getuid().as_raw() && found.mode() & 0o077 != 0)
                .then_some(found.mode() & 0o777),
            private,
        }))
    }

    /// The type of the key (`ssh-ed25519`), if it is known.
    pub(super) fn kind(&self) -> Option<&str> {
        self.public.as_deref()?.split(' ').next()
    }

    /// Whether it lives in a security key, so that only the ssh-agent can use it.
    pub(super) fn is_hardware(&self) -> bool {
        self.kind().is_some_and(|kind| kind.starts_with("sk-"))
    }

    /// The public key itself.
    pub(super) fn blob(&self) -> Option<Vec<u8>> {
        blob(self.public.as_deref()?)
    }
}

/// The key in a line of a `.pub` file.
pub(super) fn blob(line: &str) -> Option<Vec<u8>> {
    STANDARD.decode(line.split_ascii_whitespace().nth(1)?).ok()
}

/// The first line of a public key or certificate; `None` if it is neither.
pub(super) fn read_public(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| !line.trim().is_empty())?;
    let mut words = line.split_ascii_whitespace();
    let (kind, key) = (words.next()?, words.next()?);
    let decoded = STANDARD.decode(key).ok()?;
    (known_hosts::key_type(&decoded) == Some(kind)).then(|| format!("{kind} {key}"))
}

/// A path with a suffix: `id` and `.pub` give `id.pub`.
pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn public_line(blob: &[u8]) -> String {
    let kind = known_hosts::key_type(blob).unwrap_or_default();
    format!("{kind} {}", STANDARD.encode(blob))
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Parsed {
    encrypted: bool,
    public: Option<Vec<u8>>,
}

fn parse(text: &str) -> Parsed {
    let Some((_, rest)) = text.split_once("-----BEGIN ") else {
        return Parsed::default();
    };
    let Some((kind, body)) = rest.split_once("-----") else {
        return Parsed::default();
    };
    let body = body.split_once("-----END").map_or(body, |(body, _)| body);
    match kind {
        "OPENSSH PRIVATE KEY" => parse_openssh(body).unwrap_or_default(),
        "ENCRYPTED PRIVATE KEY" => Parsed {
            encrypted: true,
            public: None,
        },
        _ => Parsed {
            encrypted: body
                .lines()
                .any(|line| line.starts_with("Proc-Type:") && line.contains("ENCRYPTED")),
            public: None,
        },
    }
}

/// `openssh-key-v1`, NUL, then the names of the cipher and of the key derivation, the derivation's options, the number
/// of keys, and the public key, each with its length before it.
fn parse_openssh(body: &str) -> Option<Parsed> {
    let body: String = body.split_ascii_whitespace().collect();
    let bytes = Zeroizing::new(STANDARD.decode(body).ok()?);
    let rest = bytes.strip_prefix(b"openssh-key-v1\0")?;
    let (cipher, rest) = string(rest)?;
    let (_, rest) = string(rest)?;
    let (_, rest) = string(rest)?;
    let (_, rest) = rest.split_first_chunk::<4>()?;
    let (public, _) = string(rest)?;
    Some(Parsed {
        encrypted: cipher != b"none",
        public: Some(public.to_vec()),
    })
}

/// A string with its length before it, and the bytes that follow.
fn string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn keygen(path: &Path, words: &[&str]) {
        let mut keygen = Command::new("ssh-keygen");
        assert!(
            keygen
                .arg("-q")
                .args(words)
                .arg("-f")
                .arg(path)
                .status()
                .unwrap()
                .success()
        );
    }

    #[test]
    fn keys_of_ssh_keygen_are_read() {
        let folder = tempfile::tempdir().unwrap();
        for (name, words, encrypted) in [
            ("ed", vec!["-t", "ed25519", "-N", ""], false),
            ("ed-enc", vec!["-t", "ed25519", "-N", "secret"], true),
            ("ec", vec!["-t", "ecdsa", "-N", ""], false),
            ("rsa", vec!["-t", "rsa", "-b", "2048", "-N", "secret"], true),
            ("pem", vec!["-t", "rsa", "-b", "2048", "-m", "PEM", "-N", ""], false),
            (
                "pem-enc",
                vec!["-t", "rsa", "-b", "2048", "-m", "PEM", "-N", "secret"],
                true,
            ),
            ("p8", vec!["-t", "ecdsa", "-m", "PKCS8", "-N", ""], false),
            ("p8-enc", vec!["-t", "ecdsa", "-m", "PKCS8", "-N", "secret"], true),
        ] {
            let path = folder.path().join(name);
            keygen(&path, &words);
            let key = KeyFile::read(&path).unwrap().unwrap();
            assert_eq!(key.encrypted, encrypted, "{name}");
            assert_eq!(key.public, read_public(&with_suffix(&path, ".pub")), "{name}");
            assert!(key.blob().is_some() && !key.is_hardware(), "{name}");
            if !name.starts_with('p') {
                // OpenSSH's own format holds the public key.
                fs::remove_file(with_suffix(&path, ".pub")).unwrap();
                assert_eq!(KeyFile::read(&path).unwrap().unwrap().public, key.public, "{name}");
            }
        }
        assert!(KeyFile::read(&folder.path().join("none")).unwrap().is_none());
    }

    #[test]
    fn a_key_that_others_may_read_is_known_as_such() {
        use std::os::unix::fs::PermissionsExt as _;

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        keygen(&path, &["-t", "ed25519", "-N", ""]);
        for (mode, expected) in [
            (0o600, None),
            (0o400, None),
            (0o700, None),
            (0o640, Some(0o640)),
            (0o604, Some(0o604)),
            (0o610, Some(0o610)),
            (0o644, Some(0o644)),
        ] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(
                KeyFile::read(&path).unwrap().unwrap().open_to_others,
                expected,
                "{mode:o}"
            );
        }
    }

    #[test]
    fn what_is_no_key_is_none() {
        for text in ["", "-----BEGIN ", "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END"] {
            assert_eq!(parse(text), Parsed::default());
        }
    }
}
