//! Which engine a command talks to: DOCKER_HOST, then the docker context, as the docker client chooses it.
//!
//! Sources: docker's documentation of `DOCKER_HOST`, `DOCKER_CONTEXT` and of the context store
//! (`~/.docker/contexts/meta/<sha256 of the name>/meta.json`).

use std::fmt;
use std::path::PathBuf;

use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::client_config::ClientConfig;
use crate::docks::destination::is_ipv6;
use crate::env::Env;
use crate::error::{Error, Result};
use crate::hexadecimal::hex;
use crate::hint;

/// Where the docker client looks on Unix if nothing else is set.
const DEFAULT_SOCKET: &str = "/var/run/docker.sock";
/// The port of a plain `tcp://` address, and the one with TLS.
const TCP_PORT: u16 = 2375;
const TLS_PORT: u16 = 2376;

/// The hint if a login to a registry would go to an engine in clear text.
pub const LOGIN_HINT: &str =
    "reach the engine by ssh (register-dock USER@HOST), or by TLS (DOCKER_TLS_VERIFY=1, DOCKER_CERT_PATH)";

/// The address of an engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A Unix socket on this machine.
    Unix(PathBuf),
    /// A TCP address, with TLS where certificates are given.
    Tcp {
        /// Host name or address, without brackets.
        host: String,
        /// TCP port.
        port: u16,
        /// TLS files; `None` for plain HTTP.
        tls: Option<Tls>,
    },
    /// A machine that ssh reaches and that has the docker client: `docker system dial-stdio` carries the bytes.
    Ssh {
        /// `[user@]host`, as ssh takes it.
        destination: String,
        /// A port other than that of the ssh configuration.
        port: Option<u16>,
        /// The engine's socket there, when it isn't the default.
        socket: Option<String>,
    },
}

/// The TLS side of a [`Endpoint::Tcp`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// Folder that holds `ca.pem`, `cert.pem` and `key.pem`.
    pub directory: PathBuf,
    /// False only where a docker context says `SkipTLSVerify`.
    pub verify: bool,
}

/// An endpoint and what chose it, for messages and for the printed command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    pub endpoint: Endpoint,
    pub origin: Origin,
}

/// What chose the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nothing did: the default socket.
    Default,
    /// The DOCKER_HOST environment variable.
    Host,
    /// A docker context of this name.
    Context(String),
    /// The dock of this moniker: `--dock`, or a command about docks.
    Dock(String),
}

impl Choice {
    /// The dock whose engine it is, where that is known.
    pub fn dock(&self) -> Option<&str> {
        match &self.origin {
            Origin::Dock(moniker) => Some(moniker),
            Origin::Default | Origin::Host | Origin::Context(_) => None,
        }
    }

    /// The machine that the engine is on, for messages: the dock by its name, else the address. The socket of a dock's
    /// agent tells a user nothing.
    pub fn place(&self) -> String {
        match self.dock() {
            Some(moniker) => format!("dock {moniker:?}"),
            None => self.endpoint.to_string(),
        }
    }

    /// The engine, for messages.
    pub fn engine(&self) -> String {
        match self.dock() {
            Some(moniker) => format!("the engine of dock {moniker:?}"),
            None => format!("the engine at {}", self.endpoint),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp { host, port, .. } if host.contains(':') => write!(f, "tcp://[{host}]:{port}"),
            Self::Tcp { host, port, .. } => write!(f, "tcp://{host}:{port}"),
            Self::Ssh {
                destination,
                port,
                socket,
            } => {
                let (user, host) = match destination.rsplit_once('@') {
                    Some((user, host)) => (format!("{user}@"), host),
                    None => (String::new(), destination.as_str()),
                };
                match host.contains(':') {
                    true => write!(f, "ssh://{user}[{host}]")?,
                    false => write!(f, "ssh://{user}{host}")?,
                }
                if let Some(port) = port {
                    write!(f, ":{port}")?;
                }
                f.write_str(socket.as_deref().unwrap_or_default())
            }
        }
    }
}

impl Endpoint {
    /// Whether others can read on the way what is sent to this engine: TCP to another machine without TLS, or with TLS
    /// that is not verified, where somebody in between can pose as the engine.
    pub fn is_in_clear(&self) -> bool {
        match self {
            Self::Tcp { host, tls, .. } => {
                !super::locality::is_loopback(host) && tls.as_ref().is_none_or(|tls| !tls.verify)
            }
            Self::Unix(_) | Self::Ssh { .. } => false,
        }
    }

    /// The warning, printed once, if this engine is reached in a way that no login to a registry may take.
    pub fn login_warning(&self) -> Option<String> {
        self.is_in_clear().then(|| {
            format!(
                "no login to a registry is sent to the engine at {self}: without verified TLS, others on the way could \
                 read it\nhint: {LOGIN_HINT}"
            )
        })
    }

    /// The endpoint that the docker client would use with this environment.
    ///
    /// # Errors
    /// A malformed DOCKER_HOST, and a context that isn't there or can't be read: usage errors that name it.
    pub fn choose(env: &Env) -> Result<Choice> {
        if let Some(host) = env.get("DOCKER_HOST").filter(|host| !host.is_empty()) {
            return Ok(Choice {
                endpoint: Self::parse(host, env)?,
                origin: Origin::Host,
            });
        }
        let context = match env.get("DOCKER_CONTEXT").filter(|name| !name.is_empty()) {
            Some(name) => Some(name.to_owned()),
            None => ClientConfig::read(&env.docker_config_dir())?
                .current_context()
                .map(str::to_owned),
        };
        match context {
            Some(name) if name != "default" => Ok(Choice {
                endpoint: Self::of_context(&name, env)?,
                origin: Origin::Context(name),
            }),
            _ => Ok(Choice {
                endpoint: Self::Unix(PathBuf::from(DEFAULT_SOCKET)),
                origin: Origin::Default,
            }),
        }
    }

    /// Parses the value of DOCKER_HOST. DOCKER_TLS_VERIFY and DOCKER_TLS decide whether TCP means TLS, as in docker.
    ///
    /// # Errors
    /// A usage error that names the value and the forms that are allowed.
    pub fn parse(host: &str, env: &Env) -> Result<Self> {
        let wrong = |why: &str| {
            Error::usage(format!("DOCKER_HOST is not the address of an engine: {host:?}: {why}"))
                .hint("use unix:///var/run/docker.sock, tcp://HOST:PORT or ssh://USER@HOST")
        };
        let (scheme, rest) = host.split_once("://").unwrap_or(("tcp", host));
        match scheme {
            "unix" if rest.is_empty() => Ok(Self::Unix(PathBuf::from(DEFAULT_SOCKET))),
            "unix" => Ok(Self::Unix(PathBuf::from(rest))),
            "tcp" | "http" | "https" => {
                let verify = env.non_empty("DOCKER_TLS_VERIFY").is_some() || scheme == "https";
                let tls = (verify || env.non_empty("DOCKER_TLS").is_some()).then(|| Tls {
                    directory: env
                        .get("DOCKER_CERT_PATH")
                        .map_or_else(|| env.docker_config_dir(), PathBuf::from),
                    // DOCKER_TLS alone encrypts, and verifies nothing; as in docker.
                    verify,
                });
                let authority = rest.split_once('/').map_or(rest, |(authority, _)| authority);
                let (name, port) = split_port(authority).ok_or_else(|| wrong("the port is not a number"))?;
                Ok(Self::Tcp {
                    host: if name.is_empty() { "127.0.0.1" } else { name }.to_owned(),
                    port: port.unwrap_or(if tls.is_some() { TLS_PORT } else { TCP_PORT }),
                    tls,
                })
            }
            "ssh" => {
                let (authority, path) = match rest.find('/') {
                    Some(at) => rest.split_at(at),
                    None => (rest, ""),
                };
                let (user, address) = match authority.rsplit_once('@') {
                    Some((user, address)) => (Some(user), address),
                    None => (None, authority),
                };
                if user.is_some_and(|user| user.contains(':')) {
                    return Err(wrong("a password is not allowed here"));
                }
                let (name, port) = split_port(address).ok_or_else(|| wrong("the port is not a number"))?;
                // A name that begins with a dash would be an option of ssh.
                if name.is_empty() || authority.starts_with('-') || name.starts_with('-') {
                    return Err(wrong("the host is missing"));
                }
                Ok(Self::Ssh {
                    destination: user.map_or_else(|| name.to_owned(), |user| format!("{user}@{name}")),
                    port,
                    socket: Some(path)
                        .filter(|path| !path.is_empty() && *path != "/")
                        .map(str::to_owned),
                })
            }
            other => Err(wrong(&format!("{other}:// can't be reached from here"))),
        }
    }

    /// The endpoint of a docker context.
    ///
    /// # Errors
    /// A context that isn't there or can't be read: usage errors that name it.
    pub fn of_context(name: &str, env: &Env) -> Result<Self> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Meta {
            endpoints: Endpoints,
        }
        #[derive(Deserialize)]
        struct Endpoints {
            docker: Option<Docker>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Docker {
            host: Option<String>,
            #[serde(default, rename = "SkipTLSVerify")]
            skip_tls_verify: bool,
        }

        let id = folder_of(name);
        let contexts = env.docker_config_dir().join("contexts");
        let file = contexts.join("meta").join(&id).join("meta.json");
        let text = std::fs::read(&file).map_err(|cause| {
            Error::usage(format!(
                "the docker context {name:?} can't be read ({})",
                file.display()
            ))
            .because(cause)
            .hint("`docker context ls` lists the contexts, `docker context use default` goes back to this machine")
        })?;
        let meta: Meta = serde_json::from_slice(&text).map_err(|cause| {
            Error::usage(format!("the docker context {name:?} is damaged ({})", file.display()))
                .because(cause)
                .hint(hint!("docker context rm {} and create it again", name))
        })?;
        let Some(Docker {
            host: Some(host),
            skip_tls_verify,
        }) = meta.endpoints.docker
        else {
            return Err(Error::usage(format!(
                "the docker context {name:?} names no engine ({})",
                file.display()
            ))
            .hint(hint!("docker context update {} --docker host=...", name)));
        };
        let directory = contexts.join("tls").join(&id).join("docker");
        // https:// asks for TLS by itself: without files of its own, the certificates are looked for where DOCKER_HOST has them.
        let asks = host.starts_with("https://");
        Ok(match Self::parse(&host, env)? {
            Self::Tcp { host, port, tls } => Self::Tcp {
                host,
                port,
                tls: match directory.is_dir() {
                    true => Some(Tls {
                        directory,
                        verify: !skip_tls_verify,
                    }),
                    false => tls.filter(|_| asks),
                },
            },
            other => other,
        })
    }
}

/// `host[:port]`; an IPv6 address in brackets, or bare if no port follows. None if the port is not a number.
fn split_port(authority: &str) -> Option<(&str, Option<u16>)> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, tail) = rest.split_once(']')?;
        return match tail.strip_prefix(':') {
            Some(port) => Some((host, Some(port.parse().ok()?))),
            None => Some((host, None)),
        };
    }
    match authority.split_once(':') {
        Some((_, port)) if port.contains(':') => is_ipv6(authority).then_some((authority, None)),
        Some((host, port)) => Some((host, Some(port.parse().ok()?))),
        None => Some((authority, None)),
    }
}

/// The name of a context's folder in docker's store: the SHA-256 of its name, in hexadecimal.
pub(in crate::docker) fn folder_of(name: &str) -> String {
    hex(&Sha256::digest(name.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(host: &str) -> Result<Endpoint> {
        Endpoint::parse(host, &Env::from_pairs([("HOME", "/home/ann")]))
    }

    #[test]
    fn hosts_are_read_as_docker_reads_them() {
        for (host, shown) in [
            ("unix:///run/d.sock", "unix:///run/d.sock"),
            ("unix://", "unix:///var/run/docker.sock"),
            ("tcp://10.0.0.7", "tcp://10.0.0.7:2375"),
            ("tcp://:4000", "tcp://127.0.0.1:4000"),
            ("tcp://[::1]:4000", "tcp://[::1]:4000"),
            ("box:1234", "tcp://box:1234"),
            ("ssh://ann@box:22", "ssh://ann@box:22"),
            ("ssh://box/run/d.sock", "ssh://box/run/d.sock"),
            ("ssh://ann@[::1]:2222/run/d.sock", "ssh://ann@[::1]:2222/run/d.sock"),
            ("ssh://[::1]", "ssh://[::1]"),
            ("ssh://ann@fe80::1", "ssh://ann@[fe80::1]"),
            ("tcp://fe80::1", "tcp://[fe80::1]:2375"),
        ] {
            assert_eq!(parse(host).unwrap().to_string(), shown, "{host}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for host in [
            "npipe:////./pipe/x",
            "fd://",
            "tcp://box:http",
            "ssh://",
            "ssh://-oProxyCommand=x",
            "ssh://a:b@c",
        ] {
            let error = parse(host).unwrap_err();
            assert!(error.to_string().contains(host), "{error}");
            assert_eq!(error.class(), crate::error::Class::Usage);
        }
    }

    #[test]
    fn tls_comes_from_the_environment() {
        let env = Env::from_pairs([
            ("HOME", "/h"),
            ("DOCKER_TLS_VERIFY", "1"),
            ("DOCKER_CERT_PATH", "/certs"),
        ]);
        let Endpoint::Tcp { port, tls, .. } = Endpoint::parse("tcp://box", &env).unwrap() else {
            panic!("no TCP endpoint");
        };
        assert_eq!((port, tls.unwrap().directory), (2376, PathBuf::from("/certs")));
    }

    #[test]
    fn a_context_is_found_by_the_digest_of_its_name() {
        let home = tempfile::tempdir().unwrap();
        let docker = home.path().join(".docker");
        let meta = docker.join("contexts/meta").join(folder_of("far"));
        std::fs::create_dir_all(&meta).unwrap();
        std::fs::write(docker.join("config.json"), r#"{"currentContext":"far"}"#).unwrap();
        std::fs::write(
            meta.join("meta.json"),
            r#"{"Name":"far","Metadata":{},"Endpoints":{"docker":{"Host":"tcp://10.1.2.3:2375","SkipTLSVerify":false}}}"#,
        )
        .unwrap();
        let env = Env::from_pairs([("HOME", home.path().to_str().unwrap())]);
        let choice = Endpoint::choose(&env).unwrap();
        assert_eq!(choice.origin, Origin::Context("far".into()));
        assert_eq!(choice.endpoint.to_string(), "tcp://10.1.2.3:2375");

        // An https address is never spoken to in clear text.
        let secure = br#"{"Name":"far","Metadata":{},"Endpoints":{"docker":{"Host":"https://10.1.2.3:2376"}}}"#;
        std::fs::write(meta.join("meta.json"), secure).unwrap();
        let Endpoint::Tcp { tls: Some(tls), .. } = Endpoint::choose(&env).unwrap().endpoint else {
            panic!("no TLS");
        };
        assert!(tls.verify);

        let env = Env::from_pairs([("HOME", home.path().to_str().unwrap()), ("DOCKER_CONTEXT", "gone")]);
        assert!(Endpoint::choose(&env).unwrap_err().to_string().contains("gone"));
    }

    #[test]
    fn plain_tcp_to_another_machine_is_in_clear() {
        let env = Env::default();
        for (address, is_in_clear) in [
            ("tcp://10.0.0.7:2375", true),
            ("tcp://engine.example:2375", true),
            ("tcp://127.0.0.1:2375", false),
            ("tcp://localhost:2375", false),
            ("tcp://[::1]:2375", false),
            ("unix:///x", false),
            ("ssh://box", false),
        ] {
            let endpoint = Endpoint::parse(address, &env).unwrap();
            assert_eq!(endpoint.is_in_clear(), is_in_clear, "{address}");
            assert_eq!(endpoint.login_warning().is_some(), is_in_clear, "{address}");
        }
        let tls = |verify| Endpoint::Tcp {
            host: "10.0.0.7".to_owned(),
            port: 2376,
            tls: Some(Tls {
                directory: "/x".into(),
                verify,
            }),
        };
        assert!(!tls(true).is_in_clear() && tls(false).is_in_clear());
    }
}
