//! What a registry asks for when it refuses a request: the `WWW-Authenticate` header (RFC 9110, section 11.6.1), of
//! which registries use Basic and Bearer (docker's "Token Authentication Specification").

/// How a registry wants to be told who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// User and password in each request.
    Basic,
    /// A token that the realm gives.
    Bearer {
        /// The URL of who gives tokens. It is the registry's word.
        realm: String,
        service: Option<String>,
        /// Why a token that was sent is refused.
        error: Option<String>,
    },
}

impl Challenge {
    /// The best of these headers: Bearer where there is one.
    pub fn of<'a>(headers: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let mut found = None;
        for challenge in headers.into_iter().flat_map(challenges) {
            match challenge {
                Self::Bearer { .. } => return Some(challenge),
                Self::Basic => found = Some(challenge),
            }
        }
        found
    }
}

/// The challenges in one header. Schemes that are not known are left out.
fn challenges(header: &str) -> Vec<Challenge> {
    let mut found: Vec<(String, Vec<(String, String)>)> = Vec::new();
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let (word, after) = token(rest);
        if word.is_empty() {
            break;
        }
        let value = after.trim_start_matches([' ', '\t']).strip_prefix('=');
        match (value, found.last_mut()) {
            (Some(value), Some((_, parameters))) => {
                let (value, after) = parameter(value.trim_start_matches([' ', '\t']));
                parameters.push((word.to_ascii_lowercase(), value));
                rest = after;
            }
            (Some(_), None) => break,
            (None, _) => {
                found.push((word.to_ascii_lowercase(), Vec::new()));
                rest = after;
            }
        }
    }
    let known = found.into_iter().filter_map(|(scheme, parameters)| {
        let mut parameters = parameters.into_iter();
        match scheme.as_str() {
            "basic" => Some(Challenge::Basic),
            "bearer" => {
                let (mut realm, mut service, mut error) = (None, None, None);
                for (name, value) in parameters.by_ref() {
                    let place = match name.as_str() {
                        "realm" => &mut realm,
                        "service" => &mut service,
                        "error" => &mut error,
                        _ => continue,
                    };
                    place.get_or_insert(value);
                }
                Some(Challenge::Bearer {
                    realm: realm?,
                    service,
                    error,
                })
            }
            _ => None,
        }
    });
    known.collect()
}

/// A token of RFC 9110, and what follows it.
fn token(text: &str) -> (&str, &str) {
    let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    let end = text.find(|c| !is_token(c)).unwrap_or(text.len());
    text.split_at_checked(end).unwrap_or((text, ""))
}

/// The value of a parameter, quoted or not, and what follows it.
fn parameter(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let (value, rest) = token(text);
        return (value.to_owned(), rest);
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '"' => return (value, quoted.get(at + 1..).unwrap_or_default()),
            '\\' => value.extend(characters.next().map(|(_, c)| c)),
            c => value.push(c),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>, error: Option<&str>) -> Option<Challenge> {
        Some(Challenge::Bearer {
            realm: realm.to_owned(),
            service: service.map(str::to_owned),
            error: error.map(str::to_owned),
        })
    }

    #[test]
    fn the_headers_of_registries_are_read() {
        for (header, expected) in [
            (
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io""#,
                bearer("https://auth.docker.io/token", Some("registry.docker.io"), None),
            ),
            (
                r#"bearer realm="https://ghcr.io/token",service="ghcr.io",scope="repository:a/b:pull,push",error="insufficient_scope""#,
                bearer("https://ghcr.io/token", Some("ghcr.io"), Some("insufficient_scope")),
            ),
            (r#"Basic realm="Registry Realm""#, Some(Challenge::Basic)),
            (
                r#"Basic realm="x", Bearer realm="https://y""#,
                bearer("https://y", None, None),
            ),
            (r#"Negotiate, Basic realm=x"#, Some(Challenge::Basic)),
            (
                r#"Bearer realm = "a\"b" , service = s"#,
                bearer("a\"b", Some("s"), None),
            ),
            (r#"Bearer realm="open"#, bearer("open", None, None)),
            ("Bearer", None),
            ("Bearer service=x", None),
            ("realm=x", None),
            ("Digest realm=x", None),
            ("\u{e9}", None),
            ("", None),
        ] {
            assert_eq!(Challenge::of([header]), expected, "{header}");
        }
        assert_eq!(
            Challenge::of(["Basic realm=x", "Bearer realm=y"]),
            bearer("y", None, None)
        );
    }
}
