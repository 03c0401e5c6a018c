//! Names: of images and tags, of containers, and what to do with one that is not legal.
//!
//! Rules of references: the grammar of distribution/reference. Rules of container names: the engine's
//! `[a-zA-Z0-9][a-zA-Z0-9_.-]+`.

use std::borrow::Cow;
use std::fmt;

/// Repositories have at most 255 characters.
const NAME_LENGTH: usize = 255;
/// Tags have at most 128 characters.
pub const TAG_LENGTH: usize = 128;

/// An image's name and tag: `sample-dir-test:latest`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Designation {
    /// The repository: what stands before the tag, registry included.
    pub name: String,
    /// Letters, digits, `_`, `.` and `-`, at most 128.
    pub tag: String,
}

impl fmt::Display for Designation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, self.tag)
    }
}

impl Designation {
    /// The same with `-builder` appended to the name: the builder stage of a multi-stage Dockerfile is tagged with it.
    #[must_use]
    pub fn builder(&self) -> Self {
        Self {
            name: format!("{}-builder", self.name),
            tag: self.tag.clone(),
        }
    }
}

/// The repository itself if it is legal, else a legal one made of it: lower case, `-` for illegal characters.
pub fn legal_repository(name: &str) -> Cow<'_, str> {
    if is_repository(name) {
        return Cow::Borrowed(name);
    }
    // A legal name is not changed: another host would be another registry.
    if let Some((host, path)) = split_host(name).filter(|(host, _)| is_host(host)) {
        return Cow::Owned(format!("{host}/{}", made_repository(path)));
    }
    Cow::Owned(made_repository(name))
}

fn made_repository(name: &str) -> String {
    let parts: Vec<String> = name
        .to_lowercase()
        .split('/')
        .map(legal_component)
        .filter(|part| !part.is_empty())
        .collect();
    let mut made = parts.join("/");
    if let Some((host, path)) = made.split_once('/').filter(|(host, _)| host.contains('.')) {
        // With a dot it is a registry's host, and a host name has no underscore.
        made = format!("{}/{path}", host.replace('_', "-"));
    }
    made.truncate(NAME_LENGTH);
    made.truncate(made.trim_end_matches(['.', '_', '-', '/']).len());
    if made.is_empty() { "image".to_owned() } else { made }
}

/// The registry's host in front of a repository, and the rest.
fn split_host(name: &str) -> Option<(&str, &str)> {
    let (host, path) = name.split_once('/')?;
    (host.contains(['.', ':']) || host == "localhost").then_some((host, path))
}

/// The tag itself if it is legal, else a legal one made of it: `-` for illegal characters.
pub fn legal_tag(tag: &str) -> Cow<'_, str> {
    if is_tag(tag) {
        return Cow::Borrowed(tag);
    }
    let made: String = tag
        .chars()
        .map(|c| if is_word(c) || c == '.' || c == '-' { c } else { '-' })
        .collect::<String>()
        .trim_start_matches(['.', '-'])
        .chars()
        .take(TAG_LENGTH)
        .collect();
    Cow::Owned(if made.is_empty() { "latest".to_owned() } else { made })
}

/// A legal container name made of this text.
pub fn legal_container_name(text: &str) -> String {
    let made: String = text
        .chars()
        .map(|c| if is_word(c) || c == '.' || c == '-' { c } else { '-' })
        .collect();
    let made = made.trim_start_matches(['_', '.', '-']);
    // The engine refuses a name of one character.
    if made.len() < 2 {
        format!("container-{made}")
    } else {
        made.to_owned()
    }
}

/// Whether this is a legal repository, a registry's host before it included.
pub fn is_repository(name: &str) -> bool {
    let (host, path) = match split_host(name) {
        Some((host, path)) => (Some(host), path),
        None => (None, name),
    };
    host.is_none_or(is_host) && !path.is_empty() && path.len() <= NAME_LENGTH && path.split('/').all(is_component)
}

/// Whether this is a legal tag.
pub fn is_tag(tag: &str) -> bool {
    tag.len() <= TAG_LENGTH && tag.starts_with(is_word) && tag.chars().all(|c| is_word(c) || c == '.' || c == '-')
}

/// The repository of a reference, its tag and its digest, where it has them.
pub fn split_reference(reference: &str) -> (&str, Option<&str>, Option<&str>) {
    let (name, digest) = match reference.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (reference, None),
    };
    let (name, tag) = match name.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (name, None),
    };
    (name, tag, digest)
}

/// Whether this is a legal reference: a repository, perhaps with a tag, perhaps with a digest.
pub fn is_reference(reference: &str) -> bool {
    let (name, tag, digest) = split_reference(reference);
    // It would be an image ID.
    let is_id = name.len() == 64 && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    is_repository(name) && !is_id && tag.is_none_or(is_tag) && digest.is_none_or(is_digest)
}

/// `sha256:` and at least 32 hexadecimal digits; the algorithm may be another.
fn is_digest(digest: &str) -> bool {
    digest.split_once(':').is_some_and(|(algorithm, hex)| {
        algorithm.starts_with(|c: char| c.is_ascii_alphabetic())
            && algorithm
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "+._-".contains(c))
            && hex.len() >= 32
            && hex.bytes().all(|byte| byte.is_ascii_hexdigit())
    })
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

fn is_host(host: &str) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !name.ends_with(':') => (name, Some(port)),
        _ => (host, None),
    };
    let is_label = |label: &str| {
        let is_edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
        is_edge(label.chars().next())
            && is_edge(label.chars().next_back())
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
    };
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    let legal_name = match address {
        Some(address) => !address.is_empty() && address.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b':'),
        None => name.split('.').all(is_label),
    };
    legal_name && port.is_none_or(|port| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()))
}

/// `alpha-numeric [separator alpha-numeric]*` where a separator is `.`, `_`, `__` or any number of `-`.
fn is_component(part: &str) -> bool {
    !part.is_empty() && legal_component(part) == part
}

fn legal_component(part: &str) -> String {
    let mut made = String::with_capacity(part.len());
    let mut separator = String::new();
    for c in part.chars() {
        if c.is_ascii_lowercase() || c.is_ascii_digit() {
            if !made.is_empty() {
                made.push_str(&legal_separator(&separator));
            }
            separator.clear();
            made.push(c);
        } else {
            separator.push(if matches!(c, '.' | '_') { c } else { '-' });
        }
    }
    made
}

fn legal_separator(separator: &str) -> String {
    match separator {
        "" | "." | "_" | "__" => separator.to_owned(),
        dashes if dashes.bytes().all(|byte| byte == b'-') => dashes.to_owned(),
        _ => "-".to_owned(),
    }
}

/// A full reference with what docker adds by default, for comparing: `busybox` is `docker.io/library/busybox:latest`.
pub fn canonical(reference: &str) -> String {
    let (name, tag, digest) = split_reference(reference);
    let full = match name.split_once('/') {
        Some((host, rest)) if host == "index.docker.io" || host == "docker.io" => match rest.contains('/') {
            true => format!("docker.io/{rest}"),
            false => format!("docker.io/library/{rest}"),
        },
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => name.to_owned(),
        Some(_) => format!("docker.io/{name}"),
        None => format!("docker.io/library/{name}"),
    };
    match (tag, digest) {
        (_, Some(digest)) => format!("{full}@{digest}"),
        (Some(tag), None) => format!("{full}:{tag}"),
        (None, None) => format!("{full}:latest"),
    }
}

/// The registry of a reference, as a key of docker's `auths`.
pub fn registry(reference: &str) -> String {
    let canonical = canonical(reference);
    match canonical.split_once('/') {
        Some(("docker.io", _)) | None => "https://index.docker.io/v1/".to_owned(),
        Some((host, _)) => host.to_owned(),
    }
}

/// The candidate whose spelling is nearest, if it is near enough to be the one that was meant.
pub fn nearest<'a>(wanted: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (wanted.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| {
            let distance = strsim::damerau_levenshtein(&wanted.to_lowercase(), &candidate.to_lowercase());
            let begins = wanted.len() >= 3 && (candidate.starts_with(wanted) || wanted.starts_with(candidate));
            (if begins { distance.min(limit) } else { distance }, candidate)
        })
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn legal_names_stay() {
        for name in [
            "a",
            "sample-dir-test",
            "a__b",
            "a--b",
            "reg.example:5000/a/b",
            "localhost/x",
            "a.b_c-d",
        ] {
            assert_eq!(legal_repository(name), name);
        }
        for tag in ["latest", "_x", "V1.2-rc_3"] {
            assert_eq!(legal_tag(tag), tag);
        }
    }

    #[test]
    fn illegal_names_become_legal_ones() {
        for (name, made) in [
            ("My Project-dev", "my-project-dev"),
            ("-x-", "x"),
            ("a._b", "a-b"),
            ("a___b", "a-b"),
            ("caf\u{e9}", "caf"),
            ("", "image"),
            ("a//b", "a/b"),
            ("a_b.c/D", "a-b.c/d"),
            ("reg.example:5000/Team/App", "reg.example:5000/team/app"),
            ("localhost/My App", "localhost/my-app"),
            ("[::1]:5000/A", "[::1]:5000/a"),
            ("reg.example:5000/_", "reg.example:5000/image"),
            ("-docker.io/x", "docker.io/x"),
            ("reg-.example/x", "reg-example/x"),
        ] {
            assert_eq!(legal_repository(name), made, "{name}");
        }
        for (tag, made) in [
            ("CORP\\ann", "CORP-ann"),
            (".x", "x"),
            ("", "latest"),
            ("a/b:c", "a-b-c"),
        ] {
            assert_eq!(legal_tag(tag), made, "{tag}");
        }
    }

    #[test]
    fn references_are_completed_as_docker_does() {
        for (short, full) in [
            ("busybox", "docker.io/library/busybox:latest"),
            ("me/x:1", "docker.io/me/x:1"),
            ("localhost:5000/x", "localhost:5000/x:latest"),
            ("docker.io/x", "docker.io/library/x:latest"),
            ("x@sha256:12", "docker.io/library/x@sha256:12"),
        ] {
            assert_eq!(canonical(short), full);
        }
        assert_eq!(registry("reg.example:5000/a"), "reg.example:5000");
        assert_eq!(registry("a/b"), "https://index.docker.io/v1/");
    }

    #[test]
    fn the_nearest_is_one_that_may_be_meant() {
        assert_eq!(nearest("develop", ["dev", "base"]), Some("dev"));
        assert_eq!(nearest("bsae", ["dev", "base"]), Some("base"));
        assert_eq!(nearest("x", ["dev", "base"]), None);
    }

    proptest! {
        #[test]
        fn what_is_made_is_legal(text in ".{0,40}|[A-C._/-]{0,300}") {
            prop_assert!(is_repository(&legal_repository(&text)), "{}", legal_repository(&text));
            prop_assert!(is_tag(&legal_tag(&text)));
            prop_assert!(legal_container_name(&text).len() >= 2);
        }
    }
}
