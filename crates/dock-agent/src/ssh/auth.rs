//! Logging in: keys of the ssh-agent, keys in files, certificates, questions of the server, the password; in the order
//! of PreferredAuthentications, several in a row if sshd wants them.
//!
//! What the user typed is kept in [`Memory`], so that a link which is cut comes back by itself; it is wiped with that.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use dock_client::docks::SshAccess;
use dock_client::docks::known_hosts::{self, fingerprint};
use dock_client::hint;
use dock_client::mutex::lock;
use dock_client::shell;
use dock_link::transport::{Asker, Question, QuestionKind, TransportError, TransportErrorKind};
use ssh2::{Agent, ErrorCode, KeyboardInteractivePrompt, Prompt, PublicKey, Session};
use zeroize::Zeroizing;

use super::keys::{self, KeyFile};
use super::resolve::Resolved;

/// sshd refused the key when it was offered, before anything was signed.
const NOT_TAKEN: i32 = -18;
/// The key could not sign, or the signature was not enough: the error's text says which.
const UNVERIFIED: i32 = -19;
/// More methods in a row than any sshd asks for.
const FACTORS: usize = 6;
/// After this many tries, sshd ends the connection (MaxAuthTries), and not the network.
const MANY: usize = 3;

/// Precedes a question of OpenSSH's client in [`Memory`]. No path of a key begins like this.
const OPENSSH: &str = "openssh: ";

/// What the user typed, wiped when it is dropped.
#[derive(Default)]
pub(super) struct Memory {
    secrets: Mutex<BTreeMap<String, Zeroizing<String>>>,
    /// The login that it was typed for: user, host and port.
    whose: Mutex<String>,
}

impl Memory {
    /// Sets the next login. What was typed for another login is forgotten: the configuration leads elsewhere by now.
    pub(super) fn belong_to(&self, place: &str) {
        let mut whose = lock(&self.whose);
        if *whose != place {
            place.clone_into(&mut whose);
            lock(&self.secrets).clear();
        }
    }

    fn get(&self, name: &str) -> Option<Zeroizing<String>> {
        let secrets = lock(&self.secrets);
        secrets.get(name).cloned()
    }

    fn keep(&self, name: &str, secret: &Zeroizing<String>) {
        let mut secrets = lock(&self.secrets);
        secrets.insert(name.to_owned(), secret.clone());
    }

    fn forget(&self, name: &str) {
        let mut secrets = lock(&self.secrets);
        secrets.remove(name);
    }

    /// The answers that OpenSSH's client was given, by its questions.
    pub(super) fn of_openssh(&self) -> BTreeMap<String, Zeroizing<String>> {
        let secrets = lock(&self.secrets);
        let theirs = secrets
            .iter()
            .filter_map(|(name, secret)| Some((name.strip_prefix(OPENSSH)?.to_owned(), secret.clone())));
        theirs.collect()
    }

    pub(super) fn keep_for_openssh(&self, question: &str, secret: &Zeroizing<String>) {
        self.keep(&format!("{OPENSSH}{question}"), secret);
    }

    pub(super) fn forget_of_openssh(&self, question: &str) {
        self.forget(&format!("{OPENSSH}{question}"));
    }
}

/// The result of trying one key.
#[derive(Debug, PartialEq, Eq)]
enum KeyOutcome {
    /// The login succeeded, or this factor is done.
    Accepted,
    /// The server does not accept it.
    Refused,
    /// It is encrypted, and no passphrase that was tried decrypts it.
    Locked,
    /// This library can't use it.
    Unusable(String),
}

/// Authenticates a session whose host key was accepted.
pub(super) struct Authenticator<'a> {
    pub(super) session: &'a Session,
    pub(super) resolved: &'a Resolved,
    pub(super) access: &'a SshAccess,
    pub(super) asker: &'a dyn Asker,
    pub(super) memory: &'a Memory,
    /// What was tried, for the error.
    pub(super) tried: Vec<String>,
    /// What only the user can fix, and how.
    pub(super) mends: Vec<(String, String)>,
    /// What OpenSSH's own client may log in with, and this library cannot.
    pub(super) foreign: Vec<String>,
    /// Shown before the first question: why a key that the user may rely on was not used.
    pub(super) notes: String,
}

/// Why a login was denied.
#[derive(Debug)]
pub(super) struct Denial {
    pub(super) error: TransportError,
    /// What OpenSSH's own client may log in with all the same; empty if it would do no better.
    pub(super) foreign: Vec<String>,
}

impl From<TransportError> for Denial {
    fn from(error: TransportError) -> Self {
        Self {
            error,
            foreign: Vec::new(),
        }
    }
}

impl Authenticator<'_> {
    /// Authenticates.
    ///
    /// # Errors
    /// When the server accepts nothing that there is: says what was tried, what it allows, and what helps.
    pub(super) fn run(&mut self) -> Result<(), Denial> {
        let mut allowed = self.allowed()?;
        let mut used: Vec<&'static str> = Vec::new();
        for _ in 0..FACTORS {
            if self.session.authenticated() {
                return Ok(());
            }
            let Some(method) = self.next_method(&allowed, &used) else {
                break;
            };
            // A key that needs no answer comes before questions, even if another program has to use that key.
            if method != "publickey" && self.leaves_to_openssh(&allowed) {
                break;
            }
            let accepted = match method {
                "publickey" => self.public_keys()?,
                "keyboard-interactive" => self.keyboard_interactive()?,
                _ => self.password()?,
            };
            if self.session.authenticated() {
                return Ok(());
            }
            used.push(method);
            // After one factor of several, sshd allows other methods than before. Asking for the list counts as a
            // failed try, of which sshd accepts six.
            if accepted {
                allowed = self.allowed()?;
                used.clear();
                used.extend(allowed.iter().any(|name| name == method).then_some(method));
            }
        }
        if self.session.authenticated() {
            return Ok(());
        }
        self.leaves_to_openssh(&allowed);
        Err(Denial {
            error: self.denied(&allowed),
            foreign: std::mem::take(&mut self.foreign),
        })
    }

    /// Whether there is something that only OpenSSH's own client can log in with.
    fn leaves_to_openssh(&mut self, allowed: &[String]) -> bool {
        let config = &self.resolved.config;
        let methods = [
            ("gssapi-with-mic", config.gssapi, "GSSAPIAuthentication"),
            ("hostbased", config.hostbased, "HostbasedAuthentication"),
        ];
        for (method, enabled, option) in methods {
            let is_new = !self.foreign.iter().any(|known| known == option);
            if enabled && is_new && allowed.iter().any(|name| name == method) {
                self.foreign.push(option.to_owned());
            }
        }
        !self.foreign.is_empty()
    }

    fn user(&self) -> &str {
        &self.resolved.config.user
    }

    /// The methods that the server allows; empty if it needs none.
    fn allowed(&self) -> Result<Vec<String>, TransportError> {
        match self.session.auth_methods(self.user()) {
            Ok(methods) => Ok(methods.split(',').map(str::to_owned).collect()),
            Err(_) if self.session.authenticated() => Ok(Vec::new()),
            Err(error) => Err(self.ended(&error)),
        }
    }

    /// An error that is not a refusal: the connection is over.
    fn ended(&self, error: &ssh2::Error) -> TransportError {
        let mut message = format!("{} ended the connection during the login", self.resolved.name());
        if !self.tried.is_empty() {
            // Writing to a string cannot fail.
            let _ = write!(message, " (tried: {})", self.tried.join(", "));
        }
        let _ = write!(message, ": {}", error.message());
        // sshd cuts off a client that tries too often; trying the same again would end in the same way.
        let (hint, kind) = match self.tried.len() {
            0..MANY => (
                hint!("see what happens: ssh -v {words}"; words = self.resolved.words(self.access)),
                TransportErrorKind::Unreachable,
            ),
            _ => (
                "name the one key to be tried: register-dock --identity, or IdentityFile and IdentitiesOnly in ~/.ssh/config"
                    .to_owned(),
                TransportErrorKind::NeedsPerson,
            ),
        };
        TransportError {
            message,
            hint: Some(hint),
            kind,
        }
    }

    fn next_method(&self, allowed: &[String], used: &[&'static str]) -> Option<&'static str> {
        let config = &self.resolved.config;
        let order = ["publickey", "keyboard-interactive", "password"];
        let preferred: Vec<&'static str> = match config.preferred_authentications.as_slice() {
            [] => order.to_vec(),
            names => names
                .iter()
                .filter_map(|name| order.into_iter().find(|method| method == name))
                .collect(),
        };
        preferred.into_iter().find(|method| {
            let enabled = match *method {
                "publickey" => config.pubkey,
                "keyboard-interactive" => config.keyboard_interactive,
                _ => config.password,
            };
            enabled && !used.contains(method) && allowed.iter().any(|name| name == method)
        })
    }

    /// Tries all keys in ssh's order: certificates, keys of the ssh-agent that the configuration names, its other keys,
    /// keys in files. True when one was accepted.
    fn public_keys(&mut self) -> Result<bool, TransportError> {
        let config = &self.resolved.config;
        self.foreign.clear();
        if let Some(provider) = &config.pkcs11_provider {
            self.foreign.push(format!("PKCS11Provider {}", printable(provider)));
        }
        let mut files = Vec::new();
        for path in self.resolved.files(&config.identity_files)? {
            match KeyFile::read(&path) {
                Ok(file) => files.extend(file),
                Err(error) => {
                    let path = path.display();
                    self.mends
                        .push((format!("{path} cannot be read: {error}"), hint!("chmod 600 {}", path)));
                }
            }
        }
        let agent = self.agent();
        let identities = agent
            .as_ref()
            .and_then(|agent| agent.identities().ok())
            .unwrap_or_default();
        let certificates = self.certificates(&files)?;
        for (path, line) in &certificates {
            for file in &files {
                if certifies(line, file) && self.accepts_file(file, Some((path, line)))? {
                    return Ok(true);
                }
            }
        }
        let named: Vec<Vec<u8>> = files.iter().filter_map(KeyFile::blob).collect();
        let is_named = |key: &&PublicKey| named.iter().any(|blob| blob == key.blob());
        // Keys of which the configuration names only a .pub file are in the ssh-agent.
        let mut public_only = Vec::new();
        for path in self.resolved.files(&config.identity_files)? {
            let line = keys::read_public(&keys::with_suffix(&path, ".pub")).or_else(|| keys::read_public(&path));
            public_only.extend(line.as_deref().and_then(keys::blob));
        }
        let configured =
            |key: &&PublicKey| is_named(key) || public_only.iter().any(|blob| blob.as_slice() == key.blob());
        if let Some(agent) = &agent {
            let others = identities
                .iter()
                .filter(|key| !configured(key) && !config.identities_only);
            for key in identities.iter().filter(configured).chain(others) {
                if self.accepts_agent(agent, key)? {
                    return Ok(true);
                }
            }
        }
        for file in &files {
            let in_agent = file
                .blob()
                .is_some_and(|blob| identities.iter().any(|key| key.blob() == blob));
            if !in_agent && self.accepts_file(file, None)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The ssh-agent, with its keys listed; `None` if there is no agent.
    fn agent(&mut self) -> Option<Agent> {
        let socket = self.agent_socket()?;
        let mut agent = self.session.agent().ok()?;
        agent.set_identity_path(&socket).ok()?;
        let listed = agent.connect().and_then(|()| agent.list_identities());
        if let Err(error) = listed {
            self.tried
                .push(format!("the agent at {} ({})", socket.display(), error.message()));
            return None;
        }
        Some(agent)
    }

    fn agent_socket(&mut self) -> Option<PathBuf> {
        match self.resolved.config.identity_agent.as_deref() {
            None | Some("SSH_AUTH_SOCK") => self.asker.ssh_auth_sock(),
            Some("none") => None,
            Some(variable) if variable.starts_with('$') && !variable.starts_with("${") => {
                let name = variable.trim_start_matches('$');
                self.resolved.env.non_empty(name).map(PathBuf::from)
            }
            Some(path) => match self.resolved.file(path) {
                Ok(path) => Some(path),
                Err(error) => {
                    self.tried.push(error.message);
                    None
                }
            },
        }
    }

    /// The certificates that the configuration names, and those beside keys.
    fn certificates(&self, files: &[KeyFile]) -> Result<Vec<(PathBuf, String)>, TransportError> {
        let mut paths = self.resolved.files(&self.resolved.config.certificate_files)?;
        paths.extend(files.iter().map(|file| keys::with_suffix(&file.path, "-cert.pub")));
        let mut certificates: Vec<(PathBuf, String)> = Vec::new();
        for path in paths {
            if let Some(line) = keys::read_public(&path)
                && !certificates.iter().any(|(_, known)| *known == line)
            {
                certificates.push((path, line));
            }
        }
        Ok(certificates)
    }

    fn accepts_agent(&mut self, agent: &Agent, key: &PublicKey) -> Result<bool, TransportError> {
        let result = agent.userauth(self.user(), key);
        if known_hosts::key_type(key.blob()) == Some("ssh-rsa-cert-v01@openssh.com") {
            // libssh2 lets the ssh-agent sign for it with SHA-1, which no sshd accepts.
            self.foreign.push("an RSA certificate of the agent".to_owned());
            self.mends.push((
                "RSA certificates of the agent cannot be used".to_owned(),
                "name the key's file: register-dock --identity".to_owned(),
            ));
            return Ok(false);
        }
        let name = printable(key.comment());
        self.tried
            .push(format!("{name} of the agent ({})", fingerprint(key.blob())));
        Ok(self.outcome(result)? == KeyOutcome::Accepted)
    }

    fn accepts_file(
        &mut self,
        file: &KeyFile,
        certificate: Option<(&PathBuf, &String)>,
    ) -> Result<bool, TransportError> {
        let path = file.path.display().to_string();
        let shown = match (certificate, file.blob()) {
            (Some((certificate, _)), _) => format!("{path} with {}", certificate.display()),
            (None, Some(blob)) => format!("{path} ({})", fingerprint(&blob)),
            (None, None) => path.clone(),
        };
        if let Some(mode) = file.open_to_others {
            let what = format!("{path} is open to others (its mode is {mode:04o}), and not used, as by ssh");
            let mend = hint!("chmod 600 {}", path);
            if !self.mends.iter().any(|(known, _)| *known == what) {
                // Writing to a string cannot fail.
                let _ = writeln!(self.notes, "{what}: {mend}");
                self.mends.push((what, mend));
            }
            return Ok(false);
        }
        if file.is_hardware() {
            self.foreign.push(format!("{path}, which is in a security key"));
            self.mends.push((
                format!("{path} is in a security key, which only the ssh-agent can use"),
                hint!("ssh-add {}", path),
            ));
            return Ok(false);
        }
        let public = certificate.map(|(_, line)| line.as_str()).or(file.public.as_deref());
        self.tried.push(shown);
        let mut passphrase = match file.encrypted {
            true => Some(self.memory.get(&path).unwrap_or_default()),
            false => None,
        };
        // The first try of an encrypted key is without its passphrase, unless that is known: so it is found out before
        // any question whether the server accepts the key. That is not possible without the key's public half.
        let mut ask_first = file.encrypted && public.is_none() && passphrase.as_ref().is_some_and(|it| it.is_empty());
        let mut questions = 0;
        loop {
            if !ask_first {
                let secret = passphrase.as_ref().map(|secret| secret.as_str());
                let result = self
                    .session
                    .userauth_pubkey_memory(self.user(), public, &file.private, secret);
                match self.outcome(result)? {
                    KeyOutcome::Accepted => {
                        if let Some(passphrase) = passphrase.filter(|passphrase| !passphrase.is_empty()) {
                            self.memory.keep(&path, &passphrase);
                        }
                        return Ok(true);
                    }
                    KeyOutcome::Refused => return Ok(false),
                    KeyOutcome::Locked if file.encrypted => self.memory.forget(&path),
                    KeyOutcome::Locked | KeyOutcome::Unusable(_) => {
                        self.foreign.push(path.clone());
                        self.mends.push((
                            format!("{path} is a key that this program cannot use"),
                            hint!("let the ssh-agent use it: ssh-add {}", path),
                        ));
                        return Ok(false);
                    }
                }
            }
            ask_first = false;
            if questions == self.resolved.config.prompts {
                break;
            }
            questions += 1;
            match self.ask(&format!("Enter passphrase for key '{path}': "), false) {
                // As in ssh: an empty line skips to the next key.
                Some(answer) if answer.is_empty() => return Ok(false),
                Some(answer) => passphrase = Some(answer),
                None => {
                    self.mends.push((
                        format!("{path} is encrypted, and nobody is there to be asked for its passphrase"),
                        hint!("ssh-add {}", path),
                    ));
                    return Ok(false);
                }
            }
        }
        self.mends.push((
            format!("no passphrase that was given opens {path}"),
            hint!("ssh-add {}", path),
        ));
        Ok(false)
    }

    /// The outcome for a key, from the server's answer. A key that is accepted as one of several factors fails like a
    /// wrong signature; what the server allows after it distinguishes them.
    fn outcome(&self, result: Result<(), ssh2::Error>) -> Result<KeyOutcome, TransportError> {
        let Err(error) = result else {
            return Ok(KeyOutcome::Accepted);
        };
        match error.code() {
            ErrorCode::Session(NOT_TAKEN) => Ok(KeyOutcome::Refused),
            ErrorCode::Session(UNVERIFIED) if error.message().starts_with("Invalid signature") => {
                let partial = !self.allowed()?.iter().any(|name| name == "publickey");
                Ok(if partial {
                    KeyOutcome::Accepted
                } else {
                    KeyOutcome::Refused
                })
            }
            ErrorCode::Session(UNVERIFIED) if error.message().starts_with("Callback") => Ok(KeyOutcome::Locked),
            // The key can't be read as a key, or with this passphrase.
            ErrorCode::Session(-16 | -17 | -51) => Ok(KeyOutcome::Locked),
            ErrorCode::Session(-33 | -34 | -4) => Ok(KeyOutcome::Unusable(error.message().to_owned())),
            _ => Err(self.ended(&error)),
        }
    }

    fn ask(&self, prompt: &str, echo: bool) -> Option<Zeroizing<String>> {
        if self.resolved.config.batch {
            return None;
        }
        let question = Question {
            prompt: prompt.to_owned(),
            echo,
            kind: QuestionKind::Secret,
        };
        self.asker.ask(&question).map(Zeroizing::new)
    }

    fn keyboard_interactive(&mut self) -> Result<bool, TransportError> {
        let name = "keyboard-interactive";
        for _ in 0..self.resolved.config.prompts.max(1) {
            let notes = std::mem::take(&mut self.notes);
            let mut prompter = Prompter {
                login: self,
                notes: lines(&notes),
                remembered: self.memory.get(name),
                typed: Vec::new(),
                silent: false,
            };
            let user = self.user().to_owned();
            let result = self.session.userauth_keyboard_interactive(&user, &mut prompter);
            let Prompter { typed, silent, .. } = prompter;
            self.tried.push("the server's questions".to_owned());
            match result {
                Ok(()) => {
                    // A lone password is the same next time; a one-time code is not.
                    if let [(prompt, answer)] = typed.as_slice()
                        && prompt.to_ascii_lowercase().contains("password")
                    {
                        self.memory.keep(name, answer);
                    }
                    return Ok(true);
                }
                Err(error) if error.code() == ErrorCode::Session(NOT_TAKEN) => self.memory.forget(name),
                Err(error) => return Err(self.ended(&error)),
            }
            if silent {
                self.nobody("the server asks questions, and nobody is there to answer them");
                return Ok(false);
            }
            if !self.allowed()?.iter().any(|method| method == name) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn password(&mut self) -> Result<bool, TransportError> {
        let name = "password";
        let mut known = self.memory.get(name);
        for _ in 0..self.resolved.config.prompts.max(1) {
            let password = match known.take() {
                Some(password) => password,
                None => {
                    let prompt = format!("{}{}'s password: ", lines(&self.notes), self.resolved.name());
                    self.notes.clear();
                    match self.ask(&prompt, false) {
                        Some(password) => password,
                        None => {
                            self.nobody("the server asks for a password, and nobody is there to be asked");
                            return Ok(false);
                        }
                    }
                }
            };
            self.tried.push("the password".to_owned());
            match self.session.userauth_password(self.user(), &password) {
                Ok(()) => {
                    self.memory.keep(name, &password);
                    return Ok(true);
                }
                Err(error) if error.code() == ErrorCode::Session(NOT_TAKEN) => self.memory.forget(name),
                Err(error) => return Err(self.ended(&error)),
            }
            if !self.allowed()?.iter().any(|method| method == name) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn nobody(&mut self, what: &str) {
        let words = self.resolved.words(self.access);
        self.mends.push((what.to_owned(), format!("ssh-copy-id {words}")));
    }

    fn denied(&self, allowed: &[String]) -> TransportError {
        let mut tried = self.tried.clone();
        tried.dedup();
        let mut message = format!("{} refuses the login", self.resolved.name());
        match tried.as_slice() {
            [] => message.push_str(": there is no key to try"),
            tried => {
                // Writing to a string cannot fail.
                let _ = write!(message, "; tried: {}", tried.join(", "));
            }
        }
        let _ = write!(message, "; it allows: {}", printable(&allowed.join(", ")));
        for (what, _) in &self.mends {
            let _ = write!(message, "; {what}");
        }
        let words = self.resolved.words(self.access);
        let hint = match self.mends.first() {
            Some((_, mend)) => mend.clone(),
            None => match self.first_public() {
                Some(public) => format!("ssh-copy-id -i {} {words}", shell::quote(&public.to_string_lossy())),
                None => format!("ssh-keygen -t ed25519 && ssh-copy-id {words}"),
            },
        };
        TransportError {
            message,
            hint: Some(hint),
            kind: TransportErrorKind::NeedsPerson,
        }
    }

    /// The public half of the first key that exists.
    fn first_public(&self) -> Option<PathBuf> {
        let files = self.resolved.files(&self.resolved.config.identity_files).ok()?;
        let publics = files.iter().map(|path| keys::with_suffix(path, ".pub"));
        publics.into_iter().find(|path| Path::exists(path))
    }
}

/// Whether a certificate is for this key: it holds the key's own fields, after its type and a nonce.
fn certifies(certificate: &str, file: &KeyFile) -> bool {
    let (Some(certificate), Some(key)) = (keys::blob(certificate), file.blob()) else {
        return false;
    };
    let Some(kind) = file.kind() else { return false };
    // The key's fields follow its type; the certificate repeats them.
    let fields = key.get(4 + kind.len()..).unwrap_or_default();
    !fields.is_empty() && certificate.windows(fields.len()).any(|window| window == fields)
}

/// A text from the server or the agent, without characters that would move a terminal's cursor.
pub(super) fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

/// Passes the server's questions to the user.
struct Prompter<'a, 'b> {
    login: &'a Authenticator<'b>,
    /// Shown before its first question.
    notes: String,
    remembered: Option<Zeroizing<String>>,
    typed: Vec<(String, Zeroizing<String>)>,
    /// A question got no answer.
    silent: bool,
}

impl KeyboardInteractivePrompt for Prompter<'_, '_> {
    fn prompt<'a>(&mut self, _: &str, instructions: &str, prompts: &[Prompt<'a>]) -> Vec<String> {
        let mut answers = Vec::new();
        for (index, prompt) in prompts.iter().enumerate() {
            if prompts.len() == 1
                && let Some(remembered) = self.remembered.take()
            {
                self.typed.push((prompt.text.clone().into_owned(), remembered.clone()));
                answers.push(remembered.to_string());
                continue;
            }
            let mut text = std::mem::take(&mut self.notes);
            // Writing to a string cannot fail.
            let _ = write!(text, "({}) ", self.login.resolved.name());
            if index == 0 && !instructions.trim().is_empty() {
                text.push_str(&lines(instructions));
                text.push('\n');
            }
            text.push_str(&lines(&prompt.text));
            match self.login.ask(&text, prompt.echo) {
                Some(answer) => {
                    answers.push(answer.to_string());
                    self.typed.push((prompt.text.clone().into_owned(), answer));
                }
                None => {
                    self.silent = true;
                    return answers;
                }
            }
        }
        answers
    }
}

/// As [`printable`], but keeps the line ends.
fn lines(text: &str) -> String {
    text.chars().filter(|c| !c.is_control() || *c == '\n').collect()
}
