//! The keys that hosts are known by: known_hosts files (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT), read and appended to.
//!
//! libssh2's own reader accepts no wildcards and no markers, and reports a host as changed if it is known by a key of
//! another type. This one decides as OpenSSH does, with one difference: certificates of hosts are not checked, because
//! libssh2 asks for plain keys; an entry of `@cert-authority` neither accepts nor refuses a key.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use ring::{digest, hmac};

/// A line of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileLine {
    pub path: PathBuf,
    /// The line, from 1.
    pub line: usize,
}

impl std::fmt::Display for FileLine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.path.display(), self.line)
    }
}

/// What is known of a key that a host shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostKeyVerdict {
    /// The host is known by this very key.
    Known(FileLine),
    /// The host is known by another key of the same type.
    Changed(FileLine),
    /// The key is one that must not be trusted any more.
    Revoked(FileLine),
    /// No key of this type is known for the host.
    Unknown {
        /// The keys of other types that it is known by.
        others: Vec<(String, FileLine)>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Marker {
    None,
    Revoked,
    Authority,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Hosts {
    /// Patterns of names.
    Patterns(String),
    /// HMAC-SHA1 of one name, keyed with the salt.
    Hashed { salt: Vec<u8>, hash: Vec<u8> },
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct KnownHost {
    place: FileLine,
    marker: Marker,
    hosts: Hosts,
    key: Vec<u8>,
}

/// The entries of one or more files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnownHosts {
    entries: Vec<KnownHost>,
}

impl KnownHosts {
    /// Adds the entries of a file with this content. Lines that are not entries are skipped, as ssh does.
    pub fn add(&mut self, path: &Path, content: &[u8]) {
        for (index, line) in content.split(|byte| *byte == b'\n').enumerate() {
            let place = || FileLine {
                path: path.to_owned(),
                line: index + 1,
            };
            let line = String::from_utf8_lossy(line);
            if let Some((marker, hosts, key)) = parse(&line) {
                self.entries.push(KnownHost {
                    place: place(),
                    marker,
                    hosts,
                    key,
                });
            }
        }
    }

    /// Reads files and adds their entries; a missing file has none.
    ///
    /// # Errors
    /// A file that exists and can't be read: the keys that it refuses would be accepted.
    pub fn read<P: AsRef<Path>>(paths: impl IntoIterator<Item = P>) -> Result<Self, (PathBuf, io::Error)> {
        let mut hosts = Self::default();
        for path in paths {
            let path = path.as_ref();
            match fs::read(path) {
                Ok(content) => hosts.add(path, &content),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err((path.to_owned(), error)),
            }
        }
        Ok(hosts)
    }

    /// What is known of the key that the host of this name (`host`, or `[host]:port`) shows.
    pub fn verdict(&self, name: &str, key: &[u8]) -> HostKeyVerdict {
        let name = name.to_ascii_lowercase();
        let of_host = || self.entries.iter().filter(|entry| entry.hosts.matches(&name));
        if let Some(entry) = of_host().find(|entry| entry.marker == Marker::Revoked && entry.key == key) {
            return HostKeyVerdict::Revoked(entry.place.clone());
        }
        let plain = || of_host().filter(|entry| entry.marker == Marker::None);
        if let Some(entry) = plain().find(|entry| entry.key == key) {
            return HostKeyVerdict::Known(entry.place.clone());
        }
        let shown = key_type(key);
        if let Some(entry) = plain().find(|entry| key_type(&entry.key) == shown) {
            return HostKeyVerdict::Changed(entry.place.clone());
        }
        let others = plain()
            .filter_map(|entry| Some((key_type(&entry.key)?.to_owned(), entry.place.clone())))
            .collect();
        HostKeyVerdict::Unknown { others }
    }

    /// The types of the keys that a host is known by, in the order of the files: these are to be asked for first.
    pub fn key_types(&self, name: &str) -> Vec<&str> {
        let name = name.to_ascii_lowercase();
        let mut types = Vec::new();
        for entry in &self.entries {
            if entry.marker == Marker::None
                && entry.hosts.matches(&name)
                && let Some(key_type) = key_type(&entry.key)
                && !types.contains(&key_type)
            {
                types.push(key_type);
            }
        }
        types
    }

    /// The keys that a host is known by, and where they are recorded.
    pub fn keys(&self, name: &str) -> Vec<(&[u8], &FileLine)> {
        let name = name.to_ascii_lowercase();
        self.entries
            .iter()
            .filter(|entry| entry.marker == Marker::None && entry.hosts.matches(&name))
            .map(|entry| (entry.key.as_slice(), &entry.place))
            .collect()
    }

    /// Where the files name an authority that signs this host's certificates.
    pub fn authority(&self, name: &str) -> Option<&FileLine> {
        let name = name.to_ascii_lowercase();
        let entry = self
            .entries
            .iter()
            .find(|entry| entry.marker == Marker::Authority && entry.hosts.matches(&name));
        entry.map(|entry| &entry.place)
    }
}

/// The type that a key's own data names: `ssh-ed25519`.
pub fn key_type(key: &[u8]) -> Option<&str> {
    let (length, rest) = key.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    std::str::from_utf8(rest.get(..length)?).ok()
}

/// The fingerprint as ssh prints it: `SHA256:` and the hash in base64, without padding.
pub fn fingerprint(key: &[u8]) -> String {
    let hash = digest::digest(&digest::SHA256, key);
    format!("SHA256:{}", STANDARD_NO_PAD.encode(hash))
}

/// The line for a key, without line feed; the name is hashed with `salt`, if there is one.
///
/// `None` if the bytes are not a key, or the name can't be written.
pub fn line(name: &str, key: &[u8], salt: Option<&[u8; 20]>) -> Option<String> {
    let name = name.to_ascii_lowercase();
    let key_type = key_type(key)?;
    let plain = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    if !plain(&name) || !plain(key_type) || name.contains([',', '*', '?', '!', '#']) || name.starts_with(['|', '@']) {
        return None;
    }
    let name = match salt {
        None => name,
        Some(salt) => format!("|1|{}|{}", STANDARD.encode(salt), STANDARD.encode(hash(salt, &name))),
    };
    Some(format!("{name} {key_type} {}", STANDARD.encode(key)))
}

/// Appends a line with one write, so that lines of programs that do so at the same time do not mix. Makes the file (0600)
/// and its directory (0700) where they are missing.
///
/// # Errors
/// When the file can't be made or written.
pub fn append(path: &Path, line: &str) -> io::Result<()> {
    if let Some(directory) = path.parent().filter(|directory| !directory.exists()) {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    }
    let mut file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)?;
    // Our line would otherwise continue a last line that has no line feed.
    let mut last = [b'\n'];
    if file.seek(SeekFrom::End(0))? > 0 {
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
    }
    let begin = if last == [b'\n'] { "" } else { "\n" };
    file.write_all(format!("{begin}{line}\n").as_bytes())
}

fn hash(salt: &[u8], name: &str) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, salt);
    hmac::sign(&key, name.as_bytes()).as_ref().to_vec()
}

/// The parts of a line: marker, hosts, key.
fn parse(line: &str) -> Option<(Marker, Hosts, Vec<u8>)> {
    let mut words = line.split([' ', '\t', '\r']).filter(|word| !word.is_empty());
    let mut hosts = words.next().filter(|word| !word.starts_with('#'))?;
    let marker = match hosts.strip_prefix('@') {
        None => Marker::None,
        Some("revoked") => Marker::Revoked,
        Some("cert-authority") => Marker::Authority,
        Some(_) => return None,
    };
    if marker != Marker::None {
        hosts = words.next()?;
    }
    let hosts = match hosts.strip_prefix('|') {
        None => Hosts::Patterns(hosts.to_ascii_lowercase()),
        Some(hashed) => {
            let (salt, hash) = hashed.strip_prefix("1|")?.split_once('|')?;
            Hosts::Hashed {
                salt: STANDARD.decode(salt).ok()?,
                hash: STANDARD.decode(hash).ok()?,
            }
        }
    };
    let named = words.next()?;
    let key = STANDARD.decode(words.next()?).ok()?;
    (key_type(&key) == Some(named)).then_some((marker, hosts, key))
}

impl Hosts {
    fn matches(&self, name: &str) -> bool {
        match self {
            Self::Hashed { salt, hash: expected } => hash(salt, name) == *expected,
            Self::Patterns(patterns) => {
                let mut found = false;
                for pattern in patterns.split(',') {
                    match pattern.strip_prefix('!') {
                        // A negated pattern that matches decides.
                        Some(pattern) if wildcard(pattern, name) => return false,
                        Some(_) => {}
                        None => found |= wildcard(pattern, name),
                    }
                }
                found
            }
        }
    }
}

/// Whether a pattern of `*` (any characters) and `?` (one) matches the whole name, in time proportional to the product
/// of their lengths.
fn wildcard(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut at, mut in_name) = (0, 0);
    // The position behind the last star, and how much of the name that star has matched.
    let mut star: Option<(usize, usize)> = None;
    while let Some(&byte) = name.get(in_name) {
        match pattern.get(at) {
            Some(b'*') => {
                at += 1;
                star = Some((at, in_name));
            }
            Some(&expected) if expected == b'?' || expected == byte => {
                at += 1;
                in_name += 1;
            }
            _ => match &mut star {
                None => return false,
                Some((after, taken)) => {
                    *taken += 1;
                    (at, in_name) = (*after, *taken);
                }
            },
        }
    }
    pattern.get(at..).unwrap_or_default().iter().all(|&byte| byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn key(kind: &str, body: &[u8]) -> Vec<u8> {
        [&(kind.len() as u32).to_be_bytes(), kind.as_bytes(), body].concat()
    }

    fn entry(hosts: &str, key: &[u8]) -> String {
        format!("{hosts} {} {} comment\n", key_type(key).unwrap(), STANDARD.encode(key))
    }

    fn hosts(text: &str) -> KnownHosts {
        let mut hosts = KnownHosts::default();
        hosts.add(Path::new("/k"), text.as_bytes());
        hosts
    }

    fn place(line: usize) -> FileLine {
        FileLine {
            path: PathBuf::from("/k"),
            line,
        }
    }

    #[test]
    fn a_host_is_known_by_its_key() {
        let (a, b) = (key("ssh-ed25519", b"a"), key("ssh-ed25519", b"b"));
        let rsa = key("ssh-rsa", b"r");
        let known = hosts(&format!(
            "# a comment\n\n{}{}",
            entry("dock,10.0.0.1", &a),
            entry("dock", &b)
        ));
        assert_eq!(known.verdict("DOCK", &a), HostKeyVerdict::Known(place(3)));
        assert_eq!(known.verdict("dock", &b), HostKeyVerdict::Known(place(4)));
        assert_eq!(known.verdict("10.0.0.1", &b), HostKeyVerdict::Changed(place(3)));
        let others = vec![
            ("ssh-ed25519".to_owned(), place(3)),
            ("ssh-ed25519".to_owned(), place(4)),
        ];
        assert_eq!(known.verdict("dock", &rsa), HostKeyVerdict::Unknown { others });
        assert_eq!(
            known.verdict("dock2", &a),
            HostKeyVerdict::Unknown { others: Vec::new() }
        );
        assert_eq!(known.key_types("dock"), ["ssh-ed25519"]);
    }

    #[test]
    fn patterns_and_ports_are_matched_as_by_ssh() {
        let a = key("ssh-ed25519", b"a");
        let text = entry("*.example.com,!bad.example.com,[h?st]:2222", &a);
        let known = hosts(&text);
        for (name, yes) in [
            ("a.example.com", true),
            ("a.b.Example.com", true),
            ("example.com", false),
            ("bad.example.com", false),
            ("[host]:2222", true),
            ("[host]:2223", false),
            ("host", false),
        ] {
            assert_eq!(
                known.verdict(name, &a) == HostKeyVerdict::Known(place(1)),
                yes,
                "{name}"
            );
        }
        assert!(!wildcard("*a*a*a*a*a*a*a*a*b*", &"a".repeat(200)));
    }

    #[test]
    fn markers_are_obeyed() {
        let (a, b) = (key("ssh-ed25519", b"a"), key("ssh-ed25519", b"b"));
        let text = entry("@revoked *", &a) + &entry("dock", &a) + &entry("@cert-authority *.corp", &b);
        let known = hosts(&text);
        assert_eq!(known.verdict("dock", &a), HostKeyVerdict::Revoked(place(1)));
        assert_eq!(known.verdict("dock", &b), HostKeyVerdict::Changed(place(2)));
        assert_eq!(
            known.verdict("x.corp", &b),
            HostKeyVerdict::Unknown { others: Vec::new() }
        );
        assert_eq!(known.authority("x.corp"), Some(&place(3)));
        assert!(known.key_types("x.corp").is_empty());
    }

    #[test]
    fn a_line_that_is_written_is_read() {
        let a = key("ssh-ed25519", b"a");
        for salt in [None, Some(&[7; 20])] {
            let line = line("[Dock]:22", &a, salt).unwrap();
            assert_eq!(line.starts_with("|1|"), salt.is_some());
            assert_eq!(hosts(&line).verdict("[dock]:22", &a), HostKeyVerdict::Known(place(1)));
            assert_eq!(
                hosts(&line).verdict("dock", &a),
                HostKeyVerdict::Unknown { others: Vec::new() }
            );
        }
        for name in ["", "a b", "a,b", "*", "|1|x", "a\nb", "#x", "@revoked"] {
            assert_eq!(line(name, &a, None), None, "{name:?}");
        }
        assert_eq!(line("dock", b"no key", None), None);
    }

    #[test]
    fn ssh_keygen_finds_what_is_hashed_here() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("known_hosts");
        let a = key("ssh-ed25519", &[&32_u32.to_be_bytes()[..], &[5; 32]].concat());
        append(&path, &line("[dock]:2222", &a, Some(&[9; 20])).unwrap()).unwrap();
        let mut find = std::process::Command::new("ssh-keygen");
        let found = find.args(["-F", "[dock]:2222", "-f"]).arg(&path).output().unwrap();
        assert!(found.status.success(), "{found:?}");
    }

    #[test]
    fn a_key_is_appended_on_a_line_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".ssh/known_hosts");
        append(&path, "one").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        fs::write(&path, "one\ntwo").unwrap();
        append(&path, "three").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\ntwo\nthree\n");
    }

    #[test]
    fn fingerprints_are_ssh_s() {
        // ssh-keygen -lf on this key.
        let key = STANDARD
            .decode("AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl")
            .unwrap();
        assert_eq!(fingerprint(&key), "SHA256:+DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU");
    }

    #[test]
    fn what_is_no_entry_is_passed_over() {
        let known =
            hosts("dock\ndock ssh-rsa\ndock ssh-rsa !!!\n@what dock ssh-rsa AAAA\n|1|a dock x\ndock 1024 35 1234\n");
        assert_eq!(known, KnownHosts::default());
        let mismatched = entry("dock", &key("ssh-rsa", b"x")).replace(" ssh-rsa ", " ssh-dss ");
        assert_eq!(hosts(&mismatched), KnownHosts::default());
    }
}
