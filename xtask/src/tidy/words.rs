//! Words that were given up for the field's own: they may not come back, neither in names nor in sentences.

use std::path::Path;

use super::{Finding, finding};

/// Parts of names that say nothing to somebody who knows Docker and ssh, and what stands in their place.
const NAMES: [(&str, &str); 8] = [
    ("desk", "prompts"),
    ("seat", "subscription"),
    ("door", "listener"),
    ("wish", "request"),
    ("wishes", "requests"),
    ("parcel", "batch"),
    ("keepers", "partial_images"),
    ("surroundings", "environment"),
];

/// Phrases over which a reader stumbles, and what to do.
const PHRASES: [(&str, &str); 13] = [
    ("agent of keys", "say ssh-agent"),
    (" that is none", "say what it is not"),
    ("what is none", "say what it is not"),
    ("is no json", "say is not JSON"),
    ("is no text", "say is not a string, or is not UTF-8"),
    ("is no utf-8", "say is not UTF-8"),
    ("passed over", "say ignored, or left out"),
    ("where that is meant", "say if that is intended"),
    ("it is waited for", "say waiting for it"),
    ("is heard again", "say answers again"),
    ("asks for patience", "say is busy"),
    ("log in anew", "say log in again"),
    ("proof against", "say safe against"),
];

/// Whether a file is read for them: sources and pages, but for this list itself.
pub(super) fn is_checked(path: &Path) -> bool {
    let is_read = path
        .extension()
        .is_some_and(|extension| extension == "rs" || extension == "md");
    is_read && path != Path::new("xtask/src/tidy/words.rs")
}

/// The given-up words of a source or a page.
pub(super) fn check(path: &Path, text: &str) -> Vec<Finding> {
    let is_rust = path.extension().is_some_and(|extension| extension == "rs");
    let mut findings = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let lower = line.to_lowercase();
        for (phrase, advice) in PHRASES.iter().filter(|(phrase, _)| lower.contains(phrase)) {
            findings.push(finding(path, Some(index + 1), format!("{:?}: {advice}", phrase.trim())));
        }
        if is_rust {
            for (name, instead) in NAMES.iter().filter(|(name, _)| names(line).any(|part| part == *name)) {
                findings.push(finding(
                    path,
                    Some(index + 1),
                    format!("{name:?} is called {instead:?}"),
                ));
            }
        }
    }
    findings
}

/// The parts of the names in a line of code, in small letters: `open_door` and `OpenDoor` have two. Neither comments
/// nor texts are names.
fn names(line: &str) -> impl Iterator<Item = String> {
    let code = line.split("//").next().unwrap_or_default().replace("\\\"", "");
    let outside = code.split('"').step_by(2).map(str::to_owned).collect::<Vec<_>>();
    outside.into_iter().flat_map(|code| {
        let words = code
            .split(|c: char| !c.is_ascii_alphanumeric())
            .map(parts)
            .collect::<Vec<_>>();
        words.into_iter().flatten()
    })
}

/// The parts of a word in camel case; of one in capitals, the whole.
fn parts(word: &str) -> Vec<String> {
    if word.chars().all(|c| !c.is_ascii_lowercase()) {
        return vec![word.to_lowercase()];
    }
    let mut parts: Vec<String> = Vec::new();
    for c in word.chars() {
        match parts.last_mut() {
            Some(part) if !c.is_ascii_uppercase() => part.push(c),
            _ => parts.push(c.to_ascii_lowercase().to_string()),
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> usize {
        check(Path::new(path), text).len()
    }

    #[test]
    fn a_name_with_a_part_that_was_given_up_is_found() {
        assert_eq!(found("crates/a/src/lib.rs", "struct OpenDoor; let the_wish = 1;\n"), 2);
        assert_eq!(found("crates/a/src/lib.rs", "const SEAT: u8 = 1;\n"), 1);
        // Neither another word nor a text or comment.
        assert_eq!(
            found("crates/a/src/lib.rs", "const DESKTOP: &str = \"desk\"; // a desk\n"),
            0
        );
    }

    #[test]
    fn a_phrase_is_found_in_comments_and_pages() {
        assert_eq!(found("docs/concepts.md", "A name that is none is refused.\n"), 1);
        assert_eq!(found("crates/a/src/lib.rs", "// What is none.\n"), 1);
        assert!(!is_checked(Path::new("crates/a/tests/x.json")));
    }
}
