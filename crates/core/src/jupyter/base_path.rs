//! The path under which a server answers, and paths of pages below it.

use std::fmt;

/// The longest base path that is taken from a server, in bytes.
const LONGEST: usize = 1024;

/// The path under which a server answers (`ServerApp.base_url`): `/`, or `/user/ann/`. It begins and ends with a slash, and
/// what is put behind it stays below it on the same server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BasePath(String);

impl BasePath {
    /// Parses the path that a server names, with or without the slashes around it; `None` if it is something else than the
    /// path of a URL: it has a host, a query, a fragment, `..`, or characters that a URL does not carry.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > LONGEST || text.starts_with("//") {
            return None;
        }
        let inner = text.strip_prefix('/').unwrap_or(text);
        let inner = inner.strip_suffix('/').unwrap_or(inner);
        if inner.is_empty() {
            return Some(Self::default());
        }
        let is_sound = inner
            .split('/')
            .all(|segment| !matches!(segment, "" | "." | "..") && is_segment(segment));
        is_sound.then(|| Self(format!("/{inner}/")))
    }

    /// The path with the slashes around it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path of something below it, such as `api/status`, which is in the form of a URL already.
    pub fn join(&self, below: &str) -> String {
        format!("{}{}", self.0, below.trim_start_matches('/'))
    }
}

impl Default for BasePath {
    fn default() -> Self {
        Self("/".to_owned())
    }
}

impl fmt::Display for BasePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether these are characters of a segment of a path (RFC 3986, `pchar`). Percent signs may stand for anything but what
/// would end the path or leave it.
fn is_segment(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    let is_hidden_separator = ["%2f", "%5c", "%2e", "%00"].iter().any(|hidden| lower.contains(hidden));
    !is_hidden_separator
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@%".contains(&byte))
}

/// The path of a file as a URL carries it: all but letters, digits, `-._~` and slashes is percent-encoded.
pub fn encoded(path: &str) -> String {
    let mut text = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_path_is_a_path_and_nothing_else() {
        for (text, path) in [
            ("", "/"),
            ("/", "/"),
            ("/user/ann/", "/user/ann/"),
            ("user/ann", "/user/ann/"),
            ("/user/ann%20lee", "/user/ann%20lee/"),
        ] {
            assert_eq!(BasePath::parse(text).unwrap().as_str(), path, "{text}");
        }
        for bad in [
            "//evil.example/",
            "///",
            "/a//b/",
            "/../",
            "/a/%2e%2E/",
            "/a%2fb/",
            "/a?b",
            "/a#b",
            "/a b",
            "/a\r\nHost: evil",
            "/a\\b",
            "https://evil.example/",
            "/\u{202e}/",
            &"/a".repeat(600),
        ] {
            let parsed = BasePath::parse(bad);
            // A scheme makes two slashes in the middle.
            assert_eq!(parsed, None, "{bad:?}");
        }
    }

    #[test]
    fn what_is_below_stays_below() {
        let base = BasePath::parse("/user/ann/").unwrap();
        assert_eq!(base.join("api/status"), "/user/ann/api/status");
        assert_eq!(base.join("//evil"), "/user/ann/evil");
        assert_eq!(encoded("a b/\u{e9}?#%.ipynb"), "a%20b/%C3%A9%3F%23%25.ipynb");
    }
}
