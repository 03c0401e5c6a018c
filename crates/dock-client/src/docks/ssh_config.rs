//! The user's ssh configuration for one host, as `ssh -G` prints it, and the tokens in it that ssh leaves unexpanded.
//!
//! `ssh -G` resolves Host, Match, Include and the defaults (ssh_config(5)); each line is a keyword in lower case, a
//! blank, and its value. It leaves `~`, `%` tokens and `${VARIABLE}` in the names of files as they are.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use ring::digest;

use crate::hexadecimal::hex;

/// Why a host or a part of the configuration can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SshConfigError {
    /// A name that ssh would take for an option, or that could mean more than a name in a place that the configuration
    /// inserts it into.
    #[error("{0:?} is no host name")]
    BadHost(String),
    /// The same for a user's name.
    #[error("{0:?} is no user name")]
    BadUser(String),
    /// A port that is not a number from 1 to 65535.
    #[error("{0:?} is not a port")]
    BadPort(String),
    /// A `%` with a letter that has no meaning there.
    #[error("unknown token %{token} in {value:?}")]
    UnknownToken {
        /// What follows the percent sign.
        token: String,
        /// The value with it.
        value: String,
    },
    /// A `${` without end, or a variable that is not set.
    #[error("variable in {0:?} is not set")]
    Variable(String),
}

/// What to do about a host key that is not known (ssh_config(5), StrictHostKeyChecking).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StrictHostKeyChecking {
    /// Unknown keys are refused.
    Yes,
    /// Unknown keys are recorded without a question.
    AcceptNew,
    /// Unknown keys are recorded without a question, and ssh would go on, with restrictions, if a key has changed.
    Off,
    /// The user is asked.
    #[default]
    Ask,
}

/// Which of a name's addresses are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AddressFamily {
    /// All.
    #[default]
    Any,
    /// IPv4.
    Inet,
    /// IPv6.
    Inet6,
}

/// The configuration for one host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshConfig {
    /// The name or address that is connected to.
    pub hostname: String,
    /// The user there.
    pub user: String,
    /// The port of sshd.
    pub port: u16,
    /// IdentityFile, in order, unexpanded.
    pub identity_files: Vec<String>,
    /// CertificateFile, unexpanded.
    pub certificate_files: Vec<String>,
    /// IdentityAgent, unexpanded: a socket, `none`, `SSH_AUTH_SOCK`, or `$VARIABLE`; `None` if it is not set.
    pub identity_agent: Option<String>,
    /// IdentitiesOnly: only the identity files are used, even if the agent has more keys.
    pub identities_only: bool,
    /// ProxyJump: `[user@]host[:port]`, several separated by commas.
    pub proxy_jump: Option<String>,
    /// ProxyCommand, unexpanded.
    pub proxy_command: Option<String>,
    /// UserKnownHostsFile, unexpanded; new keys go into the first.
    pub user_known_hosts: Vec<String>,
    /// GlobalKnownHostsFile.
    pub global_known_hosts: Vec<String>,
    /// RevokedHostKeys, unexpanded: files of keys that must not be trusted, or key revocation lists.
    pub revoked_host_keys: Vec<String>,
    /// Whether a program (KnownHostsCommand) says which keys hosts have.
    pub has_known_hosts_command: bool,
    /// Whether the domain name system may say which key a host has (VerifyHostKeyDNS `yes` or `ask`).
    pub asks_dns: bool,
    /// StrictHostKeyChecking.
    pub strict: StrictHostKeyChecking,
    /// HostKeyAlias: the name in known_hosts.
    pub host_key_alias: Option<String>,
    /// Whether names are hashed when they are recorded.
    pub hash_known_hosts: bool,
    /// NoHostAuthenticationForLocalhost.
    pub no_check_for_localhost: bool,
    /// ServerAliveInterval; `None` if it is 0, which is ssh's default.
    pub alive_interval: Option<Duration>,
    /// ServerAliveCountMax.
    pub alive_count: u32,
    /// ConnectTimeout.
    pub connect_timeout: Option<Duration>,
    /// How often a connection is tried (ConnectionAttempts).
    pub attempts: u32,
    /// AddressFamily.
    pub family: AddressFamily,
    /// Compression.
    pub compression: bool,
    /// BatchMode: no questions to the user.
    pub batch: bool,
    /// Ciphers, in order; empty if they are not known.
    pub ciphers: Vec<String>,
    /// MACs.
    pub macs: Vec<String>,
    /// KexAlgorithms.
    pub kex: Vec<String>,
    /// HostKeyAlgorithms.
    pub host_key_algorithms: Vec<String>,
    /// PreferredAuthentications; empty for ssh's order.
    pub preferred_authentications: Vec<String>,
    /// PubkeyAuthentication.
    pub pubkey: bool,
    /// PasswordAuthentication.
    pub password: bool,
    /// KbdInteractiveAuthentication.
    pub keyboard_interactive: bool,
    /// NumberOfPasswordPrompts.
    pub prompts: u32,
    /// PKCS11Provider: the library of a token that has keys.
    pub pkcs11_provider: Option<String>,
    /// GSSAPIAuthentication.
    pub gssapi: bool,
    /// HostbasedAuthentication.
    pub hostbased: bool,
}

impl SshConfig {
    /// OpenSSH's defaults, for a machine without ssh.
    pub fn defaults(host: &str, user: &str) -> Self {
        let keys = ["id_rsa", "id_ecdsa", "id_ecdsa_sk", "id_ed25519", "id_ed25519_sk"];
        Self {
            hostname: host.to_owned(),
            user: user.to_owned(),
            port: 22,
            identity_files: keys.iter().map(|key| format!("~/.ssh/{key}")).collect(),
            certificate_files: Vec::new(),
            identity_agent: None,
            identities_only: false,
            proxy_jump: None,
            proxy_command: None,
            user_known_hosts: ["~/.ssh/known_hosts", "~/.ssh/known_hosts2"]
                .map(str::to_owned)
                .to_vec(),
            global_known_hosts: ["/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2"]
                .map(str::to_owned)
                .to_vec(),
            revoked_host_keys: Vec::new(),
            has_known_hosts_command: false,
            asks_dns: false,
            strict: StrictHostKeyChecking::Ask,
            host_key_alias: None,
            hash_known_hosts: false,
            no_check_for_localhost: false,
            alive_interval: None,
            alive_count: 3,
            connect_timeout: None,
            attempts: 1,
            family: AddressFamily::Any,
            compression: false,
            batch: false,
            ciphers: Vec::new(),
            macs: Vec::new(),
            kex: Vec::new(),
            host_key_algorithms: Vec::new(),
            preferred_authentications: Vec::new(),
            pubkey: true,
            password: true,
            keyboard_interactive: true,
            prompts: 3,
            pkcs11_provider: None,
            gssapi: false,
            hostbased: false,
        }
    }

    /// Reads what `ssh -G` prints. Unknown keywords and invalid values leave the defaults: versions of ssh differ in
    /// both.
    pub fn parse(output: &str, host: &str, user: &str) -> Self {
        let mut config = Self::defaults(host, user);
        config.identity_files.clear();
        for line in output.lines() {
            let (keyword, value) = line.split_once(' ').unwrap_or((line, ""));
            config.set(&keyword.to_ascii_lowercase(), value.trim());
        }
        config
    }

    fn set(&mut self, keyword: &str, value: &str) {
        let yes = matches!(value, "yes" | "true");
        let some = || (!value.is_empty() && value != "none").then(|| value.to_owned());
        let list = || {
            value
                .split(',')
                .filter(|name| !name.is_empty())
                .map(str::to_owned)
                .collect()
        };
        match keyword {
            "hostname" if !value.is_empty() => self.hostname = value.to_owned(),
            "user" if !value.is_empty() => self.user = value.to_owned(),
            "port" => self.port = value.parse().unwrap_or(self.port),
            "identityfile" => self.identity_files.extend(some()),
            "certificatefile" => self.certificate_files.extend(some()),
            "identityagent" => self.identity_agent = Some(value.to_owned()).filter(|value| !value.is_empty()),
            "identitiesonly" => self.identities_only = yes,
            "proxyjump" => self.proxy_jump = some(),
            "proxycommand" => self.proxy_command = some(),
            "userknownhostsfile" => self.user_known_hosts = files(value),
            "globalknownhostsfile" => self.global_known_hosts = files(value),
            "stricthostkeychecking" => {
                self.strict = match value {
                    "yes" | "true" => StrictHostKeyChecking::Yes,
                    "accept-new" => StrictHostKeyChecking::AcceptNew,
                    "no" | "off" | "false" => StrictHostKeyChecking::Off,
                    _ => StrictHostKeyChecking::Ask,
                }
            }
            "hostkeyalias" => self.host_key_alias = some(),
            "hashknownhosts" => self.hash_known_hosts = yes,
            "nohostauthenticationforlocalhost" => self.no_check_for_localhost = yes,
            "serveraliveinterval" => self.alive_interval = seconds(value),
            "serveralivecountmax" => self.alive_count = value.parse().unwrap_or(self.alive_count),
            "connecttimeout" => self.connect_timeout = seconds(value),
            "connectionattempts" => self.attempts = value.parse().unwrap_or(1).max(1),
            "addressfamily" => {
                self.family = match value {
                    "inet" => AddressFamily::Inet,
                    "inet6" => AddressFamily::Inet6,
                    _ => AddressFamily::Any,
                }
            }
            "compression" => self.compression = yes,
            "batchmode" => self.batch = yes,
            "ciphers" => self.ciphers = list(),
            "macs" => self.macs = list(),
            "kexalgorithms" => self.kex = list(),
            "hostkeyalgorithms" => self.host_key_algorithms = list(),
            "preferredauthentications" => self.preferred_authentications = list(),
            // Newer versions also have `unbound` and `host-bound`, which differ from `yes` in an extension only.
            "revokedhostkeys" => self.revoked_host_keys.extend(files(value)),
            "knownhostscommand" => self.has_known_hosts_command = some().is_some(),
            "verifyhostkeydns" => self.asks_dns = yes || value == "ask",
            "pubkeyauthentication" => self.pubkey = !matches!(value, "no" | "false"),
            "passwordauthentication" => self.password = yes,
            "kbdinteractiveauthentication" | "challengeresponseauthentication" => self.keyboard_interactive = yes,
            "pkcs11provider" => self.pkcs11_provider = some(),
            "gssapiauthentication" => self.gssapi = yes,
            "hostbasedauthentication" => self.hostbased = yes,
            "numberofpasswordprompts" => self.prompts = value.parse().unwrap_or(self.prompts),
            _ => {}
        }
    }

    /// The name under which the host's keys are known: the alias, or else the host name; with the port unless it is 22.
    pub fn known_host_name(&self) -> String {
        match &self.host_key_alias {
            // ssh takes the alias as it is, whatever the port.
            Some(alias) => alias.clone(),
            None => host_with_port(&self.hostname, self.port),
        }
    }
}

/// `host`, or `[host]:port` if the port is not 22: how known_hosts names it.
pub fn host_with_port(host: &str, port: u16) -> String {
    let host = host.to_ascii_lowercase();
    match port {
        22 => host,
        port => format!("[{host}]:{port}"),
    }
}

/// A time in seconds; 0 and `none` give `None`.
fn seconds(value: &str) -> Option<Duration> {
    value
        .parse()
        .ok()
        .filter(|&seconds| seconds > 0)
        .map(Duration::from_secs)
}

/// Names of files, as ssh prints them: separated by blanks, although a name may itself hold blanks. A word that begins
/// like a path begins a name, and any other continues the previous name; see [`may_be_more_than_one`].
fn files(value: &str) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for word in value.split(' ') {
        match names.last_mut() {
            Some(name) if !word.starts_with(['/', '~', '%', '$']) => {
                name.push(' ');
                name.push_str(word);
            }
            _ => names.push(word.to_owned()),
        }
    }
    names.retain(|name| !name.is_empty() && name != "none");
    names
}

/// Whether a name of [`SshConfig::user_known_hosts`] or the like may stand for several: one with a blank in it. If
/// there is no file of that name, only ssh knows what the configuration meant.
pub fn may_be_more_than_one(name: &str) -> bool {
    name.contains(' ')
}

/// Refuses host names that are not valid: options, and what means more to a shell than a name. Host names also occur in
/// ProxyCommand, which a shell reads; ssh refuses the same (`valid_hostname`).
///
/// # Errors
/// [`SshConfigError::BadHost`].
pub fn check_host(host: &str) -> Result<(), SshConfigError> {
    let bad = host.is_empty()
        || host.starts_with('-')
        || host
            .chars()
            .any(|c| c.is_whitespace() || c.is_control() || "'`\"$\\;&<>|(){},".contains(c));
    match bad {
        true => Err(SshConfigError::BadHost(host.to_owned())),
        false => Ok(()),
    }
}

/// The same for a user's name (`valid_ruser`).
///
/// # Errors
/// [`SshConfigError::BadUser`].
pub fn check_user(user: &str) -> Result<(), SshConfigError> {
    let bad = user.is_empty()
        || user.starts_with('-')
        || user.ends_with('\\')
        || user.chars().any(|c| c.is_control() || "'`\";&<>|(){}".contains(c));
    match bad {
        true => Err(SshConfigError::BadUser(user.to_owned())),
        false => Ok(()),
    }
}

/// The values of the `%` tokens (ssh_config(5), TOKENS).
#[derive(Clone, Debug, Default)]
pub struct Tokens {
    values: BTreeMap<char, String>,
    home: PathBuf,
}

/// What the tokens need to know of this machine and user.
#[derive(Clone, Debug)]
pub struct Local {
    /// The home directory.
    pub home: PathBuf,
    /// The user's name here.
    pub user: String,
    /// The user's number (uid) here.
    pub uid: u32,
    /// This machine's name, with its domain.
    pub hostname: String,
}

impl Tokens {
    /// The tokens for a host: `given` is its name as the user gave it.
    pub fn new(config: &SshConfig, given: &str, local: &Local) -> Self {
        let short = local.hostname.split('.').next().unwrap_or_default().to_owned();
        let port = config.port.to_string();
        let jump = config.proxy_jump.clone().unwrap_or_default();
        // %C: a hash of %l%h%p%r%j, used in the names of sockets.
        let text = [local.hostname.as_str(), &config.hostname, &port, &config.user, &jump].concat();
        let hash = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
        let values = [
            ('%', "%".to_owned()),
            ('C', hex(hash.as_ref())),
            ('d', local.home.to_string_lossy().into_owned()),
            ('h', config.hostname.clone()),
            ('i', local.uid.to_string()),
            ('j', jump),
            ('k', config.host_key_alias.clone().unwrap_or_else(|| given.to_owned())),
            ('L', short),
            ('l', local.hostname.clone()),
            ('n', given.to_owned()),
            ('p', port),
            ('r', config.user.clone()),
            ('u', local.user.clone()),
        ];
        Self {
            values: values.into(),
            home: local.home.clone(),
        }
    }

    /// Expands the tokens.
    ///
    /// # Errors
    /// [`SshConfigError::UnknownToken`].
    pub fn expand(&self, value: &str) -> Result<String, SshConfigError> {
        let mut expanded = String::new();
        let mut chars = value.chars();
        while let Some(c) = chars.next() {
            if c != '%' {
                expanded.push(c);
                continue;
            }
            let token = chars.next();
            match token.and_then(|token| self.values.get(&token)) {
                Some(value) => expanded.push_str(value),
                None => {
                    return Err(SshConfigError::UnknownToken {
                        token: token.map(String::from).unwrap_or_default(),
                        value: value.to_owned(),
                    });
                }
            }
        }
        Ok(expanded)
    }

    /// Expands the name of a file: `~/`, the tokens, and `${VARIABLE}` by `variable`. Each is expanded once: what a
    /// variable holds is data.
    ///
    /// # Errors
    /// When a token is unknown, or a variable is not set.
    pub fn file(&self, value: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<PathBuf, SshConfigError> {
        let mut parts = String::new();
        let mut rest = value;
        while let Some((before, after)) = rest.split_once("${") {
            parts.push_str(&self.expand(before)?);
            let unset = || SshConfigError::Variable(value.to_owned());
            let (name, after) = after.split_once('}').ok_or_else(unset)?;
            parts.push_str(&variable(name).ok_or_else(unset)?);
            rest = after;
        }
        parts.push_str(&self.expand(rest)?);
        Ok(match parts.strip_prefix("~/") {
            Some(below) if value.starts_with("~/") => self.home.join(below),
            _ => PathBuf::from(parts),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local() -> Local {
        Local {
            home: PathBuf::from("/home/ann"),
            user: "ann".to_owned(),
            uid: 1000,
            hostname: "desk.example.com".to_owned(),
        }
    }

    const OUTPUT: &str = "\
user deploy
hostname 10.0.0.7
port 2222
identitiesonly yes
compression yes
stricthostkeychecking accept-new
serveraliveinterval 30
serveralivecountmax 2
connecttimeout none
identityfile ~/.ssh/%r@%h
identityfile /keys/b
certificatefile /keys/b-cert.pub
identityagent none
userknownhostsfile /home/ann/.ssh/known_hosts ~/.ssh/more
proxyjump jump.example.com:2200
ciphers aes256-gcm@openssh.com,aes128-ctr
preferredauthentications publickey,password
hostkeyalias none
somethingnew 7
";

    #[test]
    fn what_ssh_prints_is_read() {
        let config = SshConfig::parse(OUTPUT, "prod", "ann");
        let expected = SshConfig {
            hostname: "10.0.0.7".to_owned(),
            user: "deploy".to_owned(),
            port: 2222,
            identity_files: vec!["~/.ssh/%r@%h".to_owned(), "/keys/b".to_owned()],
            certificate_files: vec!["/keys/b-cert.pub".to_owned()],
            identity_agent: Some("none".to_owned()),
            identities_only: true,
            proxy_jump: Some("jump.example.com:2200".to_owned()),
            user_known_hosts: vec!["/home/ann/.ssh/known_hosts".to_owned(), "~/.ssh/more".to_owned()],
            strict: StrictHostKeyChecking::AcceptNew,
            alive_interval: Some(Duration::from_secs(30)),
            alive_count: 2,
            compression: true,
            ciphers: vec!["aes256-gcm@openssh.com".to_owned(), "aes128-ctr".to_owned()],
            preferred_authentications: vec!["publickey".to_owned(), "password".to_owned()],
            ..SshConfig::defaults("prod", "ann")
        };
        assert_eq!(config, expected);
        assert_eq!(config.known_host_name(), "[10.0.0.7]:2222");
    }

    #[test]
    fn names_of_files_with_blanks_are_whole() {
        for (printed, expected) in [
            ("/h/.ssh/a /h/.ssh/b", &["/h/.ssh/a", "/h/.ssh/b"][..]),
            ("~/a name with blanks", &["~/a name with blanks"]),
            (
                "~/a name  with blanks %d/b c ${X}/d",
                &["~/a name  with blanks", "%d/b c", "${X}/d"],
            ),
            (r"/it's/a\b", &[r"/it's/a\b"]),
            ("none", &[]),
        ] {
            let config = SshConfig::parse(&format!("userknownhostsfile {printed}\n"), "h", "u");
            assert_eq!(config.user_known_hosts, expected, "{printed}");
        }
        let revoked = SshConfig::parse("revokedhostkeys /a name\n", "h", "u");
        assert_eq!(revoked.revoked_host_keys, ["/a name"]);
        assert!(may_be_more_than_one("/a name") && !may_be_more_than_one("/a"));
    }

    #[test]
    fn without_ssh_there_are_its_defaults() {
        let config = SshConfig::defaults("Dock", "ann");
        assert_eq!((config.port, config.known_host_name()), (22, "dock".to_owned()));
        assert_eq!(SshConfig::parse("", "Dock", "ann").hostname, "Dock");
    }

    #[test]
    fn names_of_files_are_expanded_once() {
        let config = SshConfig::parse(OUTPUT, "prod", "ann");
        let tokens = Tokens::new(&config, "prod", &local());
        let variable = |name: &str| (name == "KEYS").then(|| "/k/%h/${KEYS}".to_owned());
        let file = |value: &str| tokens.file(value, &variable).map(|path| path.display().to_string());
        assert_eq!(file("~/.ssh/%r@%h").as_deref(), Ok("/home/ann/.ssh/deploy@10.0.0.7"));
        assert_eq!(
            file("%d/%n-%p-%u-%i-%L").as_deref(),
            Ok("/home/ann/prod-2222-ann-1000-desk")
        );
        assert_eq!(file("${KEYS}/a").as_deref(), Ok("/k/%h/${KEYS}/a"));
        assert_eq!(file("a%%h").as_deref(), Ok("a%h"));
        assert_eq!(file("~x/y").as_deref(), Ok("~x/y"));
        for bad in ["%z", "50%", "${NONE}/x", "${KEYS"] {
            assert!(file(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_that_are_none_are_refused() {
        for host in ["dock", "10.0.0.7", "fe80::1%eth0", "a_b.example.com"] {
            assert_eq!(check_host(host), Ok(()));
        }
        for host in [
            "",
            "-oProxyCommand=x",
            "a b",
            "$(touch x)",
            "a;b",
            "a`b`",
            "a\nb",
            "x|y",
            "{a,b}",
        ] {
            assert!(check_host(host).is_err(), "{host}");
        }
        assert_eq!(check_user("ann"), Ok(()));
        for user in ["", "-l", "a;b", "a`b`", "a'b", "x\\"] {
            assert!(check_user(user).is_err(), "{user}");
        }
    }
}
