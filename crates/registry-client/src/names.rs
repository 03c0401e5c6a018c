//! Names that go into a URL: only legal ones, so that none leads to another place of the registry (OCI's distribution
//! specification, "Pulling manifests").

use dock_client::digest::Digest;

use crate::error::RegistryTrouble;

/// The most characters of a repository, and of a tag.
const REPOSITORY: usize = 255;
const TAG: usize = 128;
/// Docker Hub, as users write it, and where its API is.
const HUB: [&str; 2] = ["docker.io", "index.docker.io"];
const HUB_API: &str = "registry-1.docker.io";

/// The host that is asked for a registry of this name: `HOST` or `HOST:PORT`.
pub(crate) fn api_host(host: &str) -> Result<&str, RegistryTrouble> {
    if HUB.contains(&host) {
        return Ok(HUB_API);
    }
    let parsed = url::Url::parse(&format!("https://{host}/")).ok();
    // A name that means another thing in a URL than it says, such as `a@b`, does not come out as it went in.
    let same = parsed.is_some_and(|url| {
        let (name, port) = (url.host_str().unwrap_or_default(), url.port());
        let written = port.map_or_else(|| name.to_owned(), |port| format!("{name}:{port}"));
        written == host.to_ascii_lowercase() || format!("{written}:443") == host.to_ascii_lowercase()
    });
    // Nor may it name another folder of docker's certificates.
    match same && !host.starts_with('.') {
        true => Ok(host),
        false => Err(RegistryTrouble::invalid(
            "this is not the name of a registry: HOST or HOST:PORT",
        )),
    }
}

/// The repository as the registry calls it.
pub(crate) fn repository(host: &str, name: &str) -> Result<String, RegistryTrouble> {
    let legal = !name.is_empty() && name.len() <= REPOSITORY && name.split('/').all(is_component);
    if !legal {
        return Err(RegistryTrouble::invalid("this is not the name of a repository"));
    }
    Ok(match HUB.contains(&host) && !name.contains('/') {
        true => format!("library/{name}"),
        false => name.to_owned(),
    })
}

/// A tag or a digest.
pub(crate) fn reference(text: &str) -> Result<&str, RegistryTrouble> {
    match is_tag(text) || Digest::parse(text).is_ok() {
        true => Ok(text),
        false => Err(RegistryTrouble::invalid("this is neither a tag nor a SHA-256 digest")),
    }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`, where only the edges are looked at closely: that is enough to keep `..` out.
fn is_component(part: &str) -> bool {
    let is_word = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let (first, last) = (part.as_bytes().first(), part.as_bytes().last());
    first.is_some_and(is_word)
        && last.is_some_and(is_word)
        && part.bytes().all(|byte| is_word(&byte) || b"._-".contains(&byte))
}

fn is_tag(tag: &str) -> bool {
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    tag.len() <= TAG
        && tag.as_bytes().first().is_some_and(is_word)
        && tag.bytes().all(|byte| is_word(&byte) || b".-".contains(&byte))
}

/// `HOST/REPOSITORY:TAG` or `HOST/REPOSITORY@DIGEST`, for messages.
pub(crate) fn object(host: &str, repository: &str, reference: &str) -> String {
    let sign = if reference.contains(':') { '@' } else { ':' };
    match reference {
        "" => format!("{host}/{repository}"),
        reference => format!("{host}/{repository}{sign}{reference}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_leads_elsewhere() {
        for right in [
            "reg.example",
            "reg.example:5000",
            "127.0.0.1:1",
            "[::1]:5000",
            "localhost",
            "x:443",
        ] {
            assert_eq!(api_host(right).unwrap(), right);
        }
        assert_eq!(api_host("docker.io").unwrap(), HUB_API);
        for wrong in [
            "", "a/b", "a@b", "a:b", "a?b", "a#b", "..", "../x", "a b", "a:1:2", "\n",
        ] {
            assert!(api_host(wrong).is_err(), "{wrong}");
        }
        for wrong in ["", "/", "a/", "/a", "a//b", "a/../b", "A", "a b", "a?b", "a%2e", "."] {
            assert!(repository("r", wrong).is_err(), "{wrong}");
        }
        assert_eq!(repository("r", "a-b/c_d.e").unwrap(), "a-b/c_d.e");
        assert_eq!(repository("docker.io", "busybox").unwrap(), "library/busybox");
        for wrong in [
            "",
            "..",
            ".a",
            "-a",
            "a/b",
            "a:b",
            "sha256:12",
            "a?n=1",
            &"a".repeat(129),
        ] {
            assert!(reference(wrong).is_err(), "{wrong}");
        }
        for right in ["2026.3-main", "_x", Digest::of(b"").as_str()] {
            assert!(reference(right).is_ok(), "{right}");
        }
    }
}
