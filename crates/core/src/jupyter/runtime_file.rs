//! The file in which a running server says where it listens: `jpserver-PID.json`, or `nbserver-PID.json` of the classic
//! notebook, in the directory that `jupyter --runtime-dir` prints.
//!
//! ```json
//! {"base_url": "/", "hostname": "localhost", "password": false, "pid": 7, "port": 8888, "root_dir": "/work",
//!  "secure": false, "sock": "", "token": "...", "url": "http://localhost:8888/", "version": "2.14.0"}
//! ```

use std::path::PathBuf;

use serde::Deserialize;

use super::base_path::BasePath;
use super::token::Token;

/// The most bytes of such a file; real ones have a few hundred.
pub const LARGEST: usize = 16 * 1024;
/// The longest path or name in it that is taken, in bytes.
const LONGEST: usize = 4096;

/// What a runtime file says, as far as it can be true.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeFile {
    /// The server's process, as its own machine or container numbers it.
    pub pid: u32,
    /// The port that it really took; `None` if it listens on a socket.
    pub port: Option<u16>,
    /// The Unix socket that it listens on (`ServerApp.sock`).
    pub socket: Option<PathBuf>,
    /// Whether it speaks https.
    pub secure: bool,
    pub base_path: BasePath,
    /// Its token, whoever made it; `None` if it asks for none.
    pub token: Option<Token>,
    /// Whether it asks for a password.
    pub has_password: bool,
    /// The folder whose files it shows, in its own file system.
    pub root_dir: Option<PathBuf>,
    /// The version of jupyter_server, or of the classic notebook.
    pub version: Option<String>,
    hostname: Option<String>,
    url_host: Option<String>,
}

/// Why a runtime file can't be true.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeFileError {
    /// It has more than [`LARGEST`] bytes.
    #[error("it is larger than {LARGEST} bytes")]
    TooLarge,
    /// It has another form.
    #[error("it is not the JSON of a server's runtime file")]
    NotJson(#[source] serde_json::Error),
    /// One of its values can't be true.
    #[error("its {field} can't be one: {value:?}")]
    Field {
        field: &'static str,
        /// What stands there.
        value: String,
    },
}

/// The file's own form.
#[derive(Deserialize)]
struct Document {
    pid: u32,
    #[serde(default)]
    port: Option<i64>,
    #[serde(default)]
    sock: Option<String>,
    #[serde(default)]
    secure: bool,
    #[serde(default)]
    base_url: String,
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    password: bool,
    #[serde(default)]
    root_dir: Option<String>,
    /// The name of the same in the classic notebook.
    #[serde(default)]
    notebook_dir: Option<String>,
    #[serde(default)]
    version: Option<String>,
    #[serde(default)]
    hostname: Option<String>,
    #[serde(default)]
    url: Option<String>,
}

impl RuntimeFile {
    /// Parses the content of a runtime file.
    ///
    /// # Errors
    /// A file that no server has written, or that leads elsewhere than to one.
    pub fn parse(content: &[u8]) -> Result<Self, RuntimeFileError> {
        if content.len() > LARGEST {
            return Err(RuntimeFileError::TooLarge);
        }
        let document: Document = serde_json::from_slice(content).map_err(RuntimeFileError::NotJson)?;
        let wrong = |field, value: &str| RuntimeFileError::Field {
            field,
            value: value.chars().take(100).collect(),
        };
        let base_path = BasePath::parse(&document.base_url).ok_or_else(|| wrong("base_url", &document.base_url))?;
        let socket = match document.sock.filter(|path| !path.is_empty()) {
            Some(path) if is_absolute(&path) => Some(PathBuf::from(path)),
            Some(path) => return Err(wrong("sock", &path)),
            None => None,
        };
        let port = match (&socket, document.port) {
            // It is the default port then, and nothing listens there.
            (Some(_), _) => None,
            (None, Some(port)) => {
                let number = u16::try_from(port).ok().filter(|port| *port > 0);
                Some(number.ok_or_else(|| wrong("port", &port.to_string()))?)
            }
            (None, None) => return Err(wrong("port", "")),
        };
        let token = match document.token.filter(|token| !token.is_empty()) {
            // The value is a secret, even if it is none that can be used.
            Some(token) => Some(Token::from_environment_value(&token).ok_or_else(|| wrong("token", "..."))?),
            None => None,
        };
        let root_dir = document.root_dir.or(document.notebook_dir);
        Ok(Self {
            pid: document.pid,
            port,
            socket,
            secure: document.secure,
            base_path,
            token,
            has_password: document.password,
            root_dir: root_dir.filter(|path| is_absolute(path)).map(PathBuf::from),
            version: document.version.filter(|version| is_name(version)),
            hostname: document.hostname.filter(|name| is_name(name)),
            url_host: document.url.as_deref().and_then(host_of).map(str::to_owned),
        })
    }

    /// Whether the server listens on a loopback address only: where it has a network of its own, as in a container, nothing from
    /// outside reaches it.
    pub fn is_loopback_only(&self) -> bool {
        self.port.is_some() && self.hostname.as_deref().is_some_and(is_loopback)
    }

    /// The host that reaches the server from other machines, where it listens for them: what it was told to listen on, or,
    /// if that is every address, the name of its machine. `None` for a server that listens on loopback only, or on a socket.
    pub fn machine(&self) -> Option<&str> {
        const EVERYWHERE: [&str; 5] = ["", "*", "0.0.0.0", "::", "[::]"];
        self.port?;
        let name = match self.hostname.as_deref() {
            Some(name) if !EVERYWHERE.contains(&name) => name,
            _ => self.url_host.as_deref()?,
        };
        (!is_loopback(name)).then_some(name)
    }
}

/// Whether this names the machine itself.
pub(super) fn is_loopback(host: &str) -> bool {
    let bare = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(host);
    bare.eq_ignore_ascii_case("localhost")
        || bare
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

fn is_absolute(path: &str) -> bool {
    path.starts_with('/') && path.len() <= LONGEST && !path.contains('\0')
}

/// Whether a text can be the name or the address of a host, or a version.
fn is_name(text: &str) -> bool {
    let may_begin = |byte: u8| byte.is_ascii_alphanumeric() || b"[:*".contains(&byte);
    text.len() <= 255
        && text.bytes().next().is_some_and(may_begin)
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b".-_:[]*+!".contains(&byte))
}

/// The host of `http://node17:8888/`.
fn host_of(url: &str) -> Option<&str> {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"))?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let end = match authority.rfind(']') {
        Some(end) => end + 1,
        None => authority.find(':').unwrap_or(authority.len()),
    };
    authority.get(..end).filter(|host| is_name(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<RuntimeFile, String> {
        RuntimeFile::parse(text.as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_servers_file_says_where_it_is() {
        let file = parse(
            r#"{"base_url": "/user/ann/", "hostname": "0.0.0.0", "password": false, "pid": 7, "port": 8889, "root_dir": "/work",
                "secure": true, "sock": "", "token": "abc", "url": "https://node17:8889/user/ann/", "version": "2.14.0"}"#,
        )
        .unwrap();
        assert_eq!((file.pid, file.port, file.secure), (7, Some(8889), true));
        assert_eq!(file.base_path.as_str(), "/user/ann/");
        assert_eq!(file.token.as_ref().map(Token::reveal), Some("abc"));
        assert_eq!(file.root_dir, Some(PathBuf::from("/work")));
        assert_eq!(file.version.as_deref(), Some("2.14.0"));
        assert_eq!((file.machine(), file.is_loopback_only()), (Some("node17"), false));
        assert!(!format!("{file:?}").contains("abc"));
    }

    #[test]
    fn a_classic_notebooks_file_and_one_on_a_socket_are_read() {
        let classic = parse(
            r#"{"base_url": "/", "hostname": "localhost", "notebook_dir": "/home/a", "password": true, "pid": 1, "port": 8888,
                "secure": false, "token": "", "url": "http://localhost:8888/"}"#,
        )
        .unwrap();
        assert_eq!((classic.token.clone(), classic.has_password), (None, true));
        assert_eq!(classic.root_dir, Some(PathBuf::from("/home/a")));
        assert_eq!((classic.machine(), classic.is_loopback_only()), (None, true));
        let socket = parse(
            r#"{"base_url": "/", "hostname": "localhost", "pid": 1, "port": 0, "sock": "/run/a.sock", "secure": false,
                "token": "t", "url": "http+unix://%2Frun%2Fa.sock/"}"#,
        )
        .unwrap();
        assert_eq!(
            (socket.port, socket.socket.clone()),
            (None, Some(PathBuf::from("/run/a.sock")))
        );
        assert_eq!(socket.machine(), None);
    }

    #[test]
    fn a_hostile_file_leads_nowhere() {
        for (text, part) in [
            ("", "not the JSON"),
            ("[]", "not the JSON"),
            (r#"{"pid": -1, "port": 1}"#, "not the JSON"),
            (r#"{"pid": 1}"#, "port"),
            (r#"{"pid": 1, "port": 0}"#, "port"),
            (r#"{"pid": 1, "port": 65536}"#, "port"),
            (r#"{"pid": 1, "port": 1, "base_url": "//evil/"}"#, "base_url"),
            (r#"{"pid": 1, "port": 1, "base_url": "http://evil/"}"#, "base_url"),
            (r#"{"pid": 1, "port": 1, "base_url": "/a\r\nX: y"}"#, "base_url"),
            (r#"{"pid": 1, "port": 1, "sock": "relative"}"#, "sock"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
        let secret = parse(r#"{"pid": 1, "port": 1, "token": "a b secret"}"#).unwrap_err();
        assert!(secret.contains("token") && !secret.contains("secret"), "{secret}");
        let large = format!(r#"{{"pid": 1, "port": 1, "version": "{}"}}"#, "x".repeat(LARGEST));
        assert!(parse(&large).unwrap_err().contains("larger"));
        // What only informs is left out, and the rest is read.
        let odd = parse(
            r#"{"pid": 1, "port": 1, "root_dir": "../..", "version": "-o Proxy", "hostname": "a b", "url": "http://-x/"}"#,
        )
        .unwrap();
        assert_eq!(
            (odd.root_dir.clone(), odd.version.clone(), odd.machine()),
            (None, None, None)
        );
    }
}
