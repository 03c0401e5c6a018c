//! Whether the host is the right one: its key against known_hosts, as ssh decides, and the question if it is new.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::process::Stdio;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dock_client::docks::known_hosts::{self, HostKeyVerdict, KnownHosts};
use dock_client::docks::ssh_config::{StrictHostKeyChecking, may_be_more_than_one};
use dock_client::hint;
use dock_link::transport::{Asker, Question, QuestionKind, TransportError, TransportErrorKind};
use ring::rand::{SecureRandom, SystemRandom};

use super::auth::{Denial, printable};
use super::resolve::{Resolved, program};

/// What a key revocation list begins with.
const KRL: &[u8] = b"SSHKRL\n\0";
/// The longest file of revoked keys that is read, in bytes.
const LONGEST_LIST: u64 = 64 * 1024 * 1024;

/// The key algorithms that libssh2 verifies, in the order of OpenSSH, with the type of key that each is for. ssh-rsa is
/// SHA-1 and not offered.
const ALGORITHMS: [(&str, &str); 6] = [
    ("ssh-ed25519", "ssh-ed25519"),
    ("ecdsa-sha2-nistp256", "ecdsa-sha2-nistp256"),
    ("ecdsa-sha2-nistp384", "ecdsa-sha2-nistp384"),
    ("ecdsa-sha2-nistp521", "ecdsa-sha2-nistp521"),
    ("rsa-sha2-512", "ssh-rsa"),
    ("rsa-sha2-256", "ssh-rsa"),
];

/// What known_hosts files know about a dock.
///
/// Our own check knows files of plain keys. Anything else that OpenSSH knows hosts by is left to OpenSSH's own client:
/// before the host is contacted ([`HostKeys::foreign`]), or when the host's key is not among the plain keys (a
/// [`Denial`]).
pub(super) struct HostKeys {
    known: KnownHosts,
    name: String,
    /// The name without the port, by which ssh knows the host, too; `None` with an alias.
    bare: Option<String>,
}

impl HostKeys {
    /// Reads the files that the configuration names.
    ///
    /// # Errors
    /// When a file exists and can't be read.
    pub(super) fn read(resolved: &Resolved) -> Result<Self, TransportError> {
        let config = &resolved.config;
        let bare = config.host_key_alias.is_none().then(|| config.hostname.clone());
        let mut files = resolved.files(&config.user_known_hosts)?;
        files.extend(resolved.files(&config.global_known_hosts)?);
        let known = KnownHosts::read(files).map_err(|(path, error)| {
            person(
                format!("cannot read {}: {error}", path.display()),
                hint!("chmod u+r {}", path.display()),
            )
        })?;
        Ok(Self {
            known,
            name: config.known_host_name(),
            bare,
        })
    }

    /// Why OpenSSH's own client must check the host, whatever key it shows; `None` if our own check can.
    ///
    /// # Errors
    /// When a name of the configuration can't be expanded.
    pub(super) fn foreign(&self, resolved: &Resolved) -> Result<Option<String>, TransportError> {
        let config = &resolved.config;
        let files = [&config.user_known_hosts, &config.global_known_hosts];
        for name in files.into_iter().flatten().filter(|name| may_be_more_than_one(name)) {
            // A file of exactly this name is meant. If there is none, it may be two names, or a file that does not
            // exist yet.
            if !resolved.file(name)?.is_file() {
                return Ok(Some(format!("the known_hosts of {}", printable(name))));
            }
        }
        if self.algorithms(resolved).is_empty() {
            return Ok(Some("HostKeyAlgorithms of certificates".to_owned()));
        }
        // There are no plain keys to compare with.
        Ok(self.authority().filter(|_| self.key_types().is_empty()))
    }

    /// The authority whose certificates the host may show, for messages.
    fn authority(&self) -> Option<String> {
        let place = self
            .known
            .authority(&self.name)
            .or_else(|| self.known.authority(self.bare.as_deref()?))?;
        Some(format!("@cert-authority of {place}"))
    }

    /// The types of the keys that the host is known by; as in ssh, under its bare name, too.
    fn key_types(&self) -> Vec<&str> {
        match (self.known.key_types(&self.name), &self.bare) {
            (known, Some(bare)) if known.is_empty() => self.known.key_types(bare),
            (known, _) => known,
        }
    }

    /// The algorithms to ask for: those of the configuration, with those for known keys of the host first.
    pub(super) fn algorithms(&self, resolved: &Resolved) -> String {
        let allowed = &resolved.config.host_key_algorithms;
        let mut algorithms: Vec<(&str, &str)> = ALGORITHMS
            .into_iter()
            .filter(|(algorithm, _)| allowed.is_empty() || allowed.iter().any(|name| name == algorithm))
            .collect();
        // Sorted in the user's order, then with known types first.
        algorithms.sort_by_key(|(algorithm, _)| allowed.iter().position(|name| name == algorithm));
        let known = self.key_types();
        algorithms.sort_by_key(|(_, kind)| !known.contains(kind));
        let names: Vec<&str> = algorithms.into_iter().map(|(algorithm, _)| algorithm).collect();
        names.join(",")
    }

    /// Accepts the key, or refuses it.
    ///
    /// # Errors
    /// When it changed, was revoked, or is new and the user does not accept it. If OpenSSH may know the host by
    /// something else, the denial says by what, and the user was not asked.
    pub(super) fn check(&self, key: &[u8], resolved: &Resolved, asker: &dyn Asker) -> Result<(), Denial> {
        let config = &resolved.config;
        if config.no_check_for_localhost && matches!(config.hostname.as_str(), "localhost" | "127.0.0.1" | "::1") {
            return Ok(());
        }
        let kind = known_hosts::key_type(key).unwrap_or("unknown");
        let fingerprint = known_hosts::fingerprint(key);
        for file in resolved.files(&config.revoked_host_keys)? {
            match is_revoked(key, &file, resolved) {
                Ok(false) => {}
                Ok(true) => {
                    return Err(person(
                        format!(
                            "the host key of {} ({kind} {fingerprint}) is revoked by {}",
                            self.name,
                            file.display()
                        ),
                        "ask whoever runs the dock for a new host key".to_owned(),
                    )
                    .into());
                }
                // As in ssh: a file that can't be checked may revoke the key.
                Err(cause) => {
                    return Err(person(
                        format!("RevokedHostKeys {} can't be checked: {cause}", file.display()),
                        format!("see what ssh says: ssh -v {}", resolved.given),
                    )
                    .into());
                }
            }
        }
        let mut verdict = self.known.verdict(&self.name, key);
        // As in ssh: a host on another port may be known by its bare name.
        if matches!(verdict, HostKeyVerdict::Unknown { .. })
            && let Some(bare) = &self.bare
            && let known @ HostKeyVerdict::Known(_) = self.known.verdict(bare, key)
        {
            verdict = known;
        }
        let authority = self.authority();
        match verdict {
            HostKeyVerdict::Known(_) => Ok(()),
            HostKeyVerdict::Changed(place) => Err(Denial {
                error: person(
                    format!(
                        "the host key of {} has changed: it shows {kind} {fingerprint}, and {place} has another; somebody may \
                         be listening in between",
                        self.name
                    ),
                    format!(
                        "if you know that it was changed: ssh-keygen -f {} -R {}",
                        quoted(&place.path.to_string_lossy()),
                        quoted(&self.name)
                    ),
                ),
                // A certificate of the authority would be valid, whatever the plain key beside it was.
                foreign: authority.into_iter().collect(),
            }),
            HostKeyVerdict::Revoked(place) => Err(person(
                format!(
                    "the host key of {} ({kind} {fingerprint}) is revoked by {place}",
                    self.name
                ),
                "ask whoever runs the dock for a new host key".to_owned(),
            )
            .into()),
            HostKeyVerdict::Unknown { others } => {
                let dns = config.asks_dns.then(|| "VerifyHostKeyDNS".to_owned());
                let foreign: Vec<String> = authority.into_iter().chain(dns).collect();
                if resolved.has_ssh && !foreign.is_empty() {
                    let error = self.unknown(kind, &fingerprint, "", resolved);
                    return Err(Denial { error, foreign });
                }
                let mut notes = String::new();
                for (other, place) in &others {
                    notes.push_str(&format!("It is known by a key of another type: {other}, {place}.\n"));
                }
                for other in foreign {
                    notes.push_str(&format!("There is {other}, which only OpenSSH's client can ask.\n"));
                }
                Ok(self.accept_unknown(key, kind, &fingerprint, &notes, resolved, asker)?)
            }
        }
    }

    fn unknown(&self, kind: &str, fingerprint: &str, why: &str, resolved: &Resolved) -> TransportError {
        person(
            format!("the host key of {} is not known ({kind} {fingerprint}){why}", self.name),
            hint!("connect once, and compare the key: ssh {}", resolved.given),
        )
    }

    fn accept_unknown(
        &self,
        key: &[u8],
        kind: &str,
        fingerprint: &str,
        notes: &str,
        resolved: &Resolved,
        asker: &dyn Asker,
    ) -> Result<(), TransportError> {
        let unknown = |why: &str| self.unknown(kind, fingerprint, why, resolved);
        match resolved.config.strict {
            StrictHostKeyChecking::Yes => {
                return Err(unknown(", and StrictHostKeyChecking takes no new ones"));
            }
            StrictHostKeyChecking::AcceptNew | StrictHostKeyChecking::Off => {}
            StrictHostKeyChecking::Ask => {
                let prompt = format!(
                    "The authenticity of host '{}' can't be established.\n{kind} key fingerprint is {fingerprint}.\n\
                     {notes}Are you sure you want to continue connecting (yes/no/[fingerprint])? ",
                    self.name
                );
                let question = Question {
                    prompt,
                    echo: true,
                    kind: QuestionKind::HostKey,
                };
                let answer = if resolved.config.batch {
                    None
                } else {
                    asker.ask(&question)
                };
                let answer = answer.ok_or_else(|| unknown(", and nobody is there to accept it"))?;
                let answer = answer.trim();
                if !answer.eq_ignore_ascii_case("yes") && answer != fingerprint {
                    return Err(unknown(", and was not accepted"));
                }
            }
        }
        self.record(key, resolved)
    }

    fn record(&self, key: &[u8], resolved: &Resolved) -> Result<(), TransportError> {
        let Some(file) = resolved.config.user_known_hosts.first() else {
            return Ok(());
        };
        let path = resolved.file(file)?;
        let mut salt = [0; 20];
        let salt = match resolved.config.hash_known_hosts {
            true if SystemRandom::new().fill(&mut salt).is_ok() => Some(&salt),
            _ => None,
        };
        let line = known_hosts::line(&self.name, key, salt).ok_or_else(|| {
            person(
                format!("the host key of {} is not one that can be recorded", self.name),
                hint!("connect once with ssh: ssh {}", resolved.given),
            )
        })?;
        known_hosts::append(&path, &line).map_err(|error| {
            person(
                format!(
                    "cannot record the host key of {} in {}: {error}",
                    self.name,
                    path.display()
                ),
                hint!("make it writable: chmod u+w {}", path.display()),
            )
        })
    }
}

/// Whether a file of RevokedHostKeys has this key: public keys, one a line, or a key revocation list, which ssh-keygen reads
/// (PROTOCOL.krl of OpenSSH).
fn is_revoked(key: &[u8], file: &Path, resolved: &Resolved) -> io::Result<bool> {
    let mut content = Vec::new();
    File::open(file)?.take(LONGEST_LIST).read_to_end(&mut content)?;
    let encoded = STANDARD.encode(key);
    if !content.starts_with(KRL) {
        let text = String::from_utf8_lossy(&content);
        let mut lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
        return Ok(lines.any(|line| line.split_whitespace().any(|word| word == encoded)));
    }
    let mut asked = tempfile::NamedTempFile::new()?;
    writeln!(asked, "{} {encoded}", known_hosts::key_type(key).unwrap_or_default())?;
    let output = program("ssh-keygen", &resolved.env)
        .args(["-Q", "-f"])
        .arg(file)
        .arg(asked.path())
        .stdin(Stdio::null())
        .output()?;
    // ssh-keygen exits with 1 for a revoked key, and likewise if it did not understand the file.
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    match said.trim_end() {
        said if said.ends_with(": REVOKED") => Ok(true),
        said if output.status.success() && said.ends_with(": ok") => Ok(false),
        _ => Err(io::Error::other(
            String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        )),
    }
}

fn quoted(word: &str) -> String {
    dock_client::shell::quote(word).into_owned()
}

fn person(message: String, hint: String) -> TransportError {
    TransportError {
        message,
        hint: Some(hint),
        kind: TransportErrorKind::NeedsPerson,
    }
}
