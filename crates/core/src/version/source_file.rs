//! The version in `versionfile_source` (`_version.py`), without git: keywords that `git archive` expanded, or JSON that
//! `setup.py sdist` wrote in their place.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

use super::{Release, VersionError, Versions};

/// The text of the file, with Python's universal newlines; `None` if it can't be read, as in versioneer.
pub fn read(path: &Path) -> Option<String> {
    let bytes = crate::project_file::read(path).ok()?;
    Some(
        String::from_utf8_lossy(&bytes)
            .replace("\r\n", "\n")
            .replace('\r', "\n"),
    )
}

/// The version in the keywords `git_refnames`, `git_full` and `git_date`, which `git archive` fills in because of the
/// attribute `export-subst`; `None` if they are missing or not filled in.
pub fn from_keywords(text: &str, tag_prefix: &str, release: Release) -> Option<Versions> {
    let keywords = keywords(text);
    let refs = keywords.get("git_refnames")?.trim();
    if refs.starts_with("$Format") {
        return None;
    }
    let revision = keywords.get("git_full").map(|full| full.trim().to_owned());
    let refs: BTreeSet<&str> = refs.trim_matches(['(', ')']).split(',').map(str::trim).collect();
    let mut tags: BTreeSet<&str> = refs.iter().filter_map(|name| name.strip_prefix("tag: ")).collect();
    if tags.is_empty() {
        // git before 1.8.3 does not mark the tags. A branch seldom has a digit.
        tags = refs
            .into_iter()
            .filter(|name| name.contains(|c: char| c.is_ascii_digit()))
            .collect();
    }
    // In this order 2.0 comes before 2.0rc1.
    let version = tags
        .into_iter()
        .filter_map(|tag| tag.strip_prefix(tag_prefix))
        .find(|version| !release.archives_digits() || version.starts_with(|c: char| c.is_ascii_digit()));
    Some(match version {
        Some(version) => Versions::new(version)
            .date(keywords.get("git_date").map(|date| iso_8601(date)))
            .revision(revision)
            .dirty(Some(false)),
        None => Versions::new("0+unknown")
            .revision(revision)
            .dirty(Some(false))
            .error("no suitable tags"),
    })
}

/// The values in lines such as `git_full = "..."`; the last of each name.
fn keywords(text: &str) -> BTreeMap<&'static str, &str> {
    let mut found = BTreeMap::new();
    for line in text.lines().map(str::trim) {
        for name in ["git_refnames", "git_full", "git_date"] {
            if line.strip_prefix(name).is_some_and(|rest| rest.starts_with(" ="))
                && let Some(value) = quoted(line)
            {
                found.insert(name, value);
            }
        }
    }
    found
}

/// What is between the quotation marks after a `=`, up to the last one: `=\s*"(.*)"`.
fn quoted(line: &str) -> Option<&str> {
    line.match_indices('=').find_map(|(at, _)| {
        let rest = line.get(at + 1..)?.trim_start().strip_prefix('"')?;
        rest.rsplit_once('"').map(|(value, _)| value)
    })
}

/// The date that git's `%ci` writes, in the form of ISO 8601: `2024-01-02T03:04:05+0000`.
pub(super) fn iso_8601(date: &str) -> String {
    date.trim().replacen(' ', "T", 1).replacen(' ', "", 1)
}

/// The JSON in `version_json = '''...'''  # END VERSION_JSON`; `None` where there is no such text.
///
/// # Errors
/// JSON that is not an object, and text that is not JSON.
pub fn from_json(text: &str, path: &Path) -> Result<Option<Versions>, VersionError> {
    let json = text
        .split_once("version_json = '''\n")
        .and_then(|(_, rest)| rest.rsplit_once("'''  # END VERSION_JSON"));
    let Some((json, _)) = json else {
        return Ok(None);
    };
    let broken = |source| VersionError::Json {
        path: path.to_owned(),
        source,
    };
    match serde_json::from_str(json).map_err(|source| broken(Some(source)))? {
        Value::Object(values) => Ok(Some(Versions {
            values: values.into_iter().collect(),
            refusal: None,
            unrun: Vec::new(),
            cut_off: false,
        })),
        _ => Err(broken(None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(refs: &str) -> String {
        format!(
            "def get_keywords():\n    git_refnames = \"{refs}\"\n    git_full = \"4711\"\n    \
             git_date = \"2024-01-02 03:04:05 +0100\"\n"
        )
    }

    fn version(refs: &str, prefix: &str, release: Release) -> Option<String> {
        from_keywords(&archive(refs), prefix, release).map(|versions| versions.version().to_owned())
    }

    #[test]
    fn the_first_tag_that_fits_is_the_version() {
        for (refs, prefix, expected) in [
            (" (HEAD -> main, tag: v2.0rc1, tag: v2.0)", "v", "2.0"),
            (" (tag: nightly, tag: 1.0)", "", "1.0"),
            (" (HEAD, 1.5, release)", "", "1.5"),
            (" (HEAD -> main)", "", "0+unknown"),
            (" (tag: v1.0)", "", "0+unknown"),
            ("", "", "0+unknown"),
        ] {
            assert_eq!(version(refs, prefix, Release::NEWEST).unwrap(), expected, "{refs}");
        }
        let all = from_keywords(&archive(" (tag: 1.0)"), "", Release::NEWEST).unwrap();
        assert_eq!(all.values()["date"], "2024-01-02T03:04:05+0100");
        assert_eq!(all.values()["full-revisionid"], "4711");
        assert_eq!(all.values()["dirty"], false);
    }

    #[test]
    fn old_releases_take_any_tag_of_an_archive() {
        let tags = " (tag: nightly, tag: zero-1)";
        assert_eq!(version(tags, "", Release(0, 18)).unwrap(), "nightly");
        assert_eq!(version(tags, "", Release(0, 20)).unwrap(), "0+unknown");
    }

    #[test]
    fn keywords_that_are_missing_or_not_filled_in_say_nothing() {
        assert_eq!(version("$Format:%d$", "", Release::NEWEST), None);
        assert_eq!(from_keywords("git_full = \"4711\"\n", "", Release::NEWEST), None);
        assert_eq!(from_keywords("", "", Release::NEWEST), None);
    }

    #[test]
    fn the_json_of_a_source_distribution_is_taken_as_it_is() {
        let path = Path::new("_version.py");
        let text = "version_json = '''\n{\"version\": \"1.0\", \"more\": [1]}\n'''  # END VERSION_JSON\n";
        let versions = from_json(text, path).unwrap().unwrap();
        assert_eq!(
            (versions.version(), &versions.values()["more"][0]),
            ("1.0", &Value::from(1))
        );
        assert!(from_json("version_json = 1", path).unwrap().is_none());
        let error = from_json("version_json = '''\n{\n'''  # END VERSION_JSON", path).unwrap_err();
        assert_eq!(error.to_string(), "_version.py: version_json holds no JSON object");
        assert!(from_json("version_json = '''\n[]\n'''  # END VERSION_JSON", path).is_err());
    }
}
