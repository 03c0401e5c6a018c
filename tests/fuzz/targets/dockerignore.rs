//! Any `.dockerignore` and any path: nothing panics or takes long, and what must agree does.

use build_context::ignore::{Builder, ParentMatches, Patterns, read};

pub(crate) fn fuzz(input: (Vec<u8>, Vec<u8>)) {
    let (file, path) = input;
    let Ok(lines) = read(&file) else {
        return;
    };
    let Ok(patterns) = Patterns::parse(&lines) else {
        return;
    };
    let matched = patterns.matches(&path);
    // A path means the same however it is written.
    if !path.starts_with(b"/") {
        let untidy = [b"./", path.as_slice(), b"//."].concat();
        assert_eq!(matched, patterns.matches(&untidy));
    }
    assert_eq!(patterns.matches(b"."), Ok(false));
    // A walk that has just begun knows nothing of parents.
    let fresh = ParentMatches::default();
    let below = patterns.matches_below(&path, &fresh);
    let directory = patterns.matches_directory(&path, &fresh);
    assert_eq!(below, directory.map(|(matched, _)| matched));
    if !patterns.has_exceptions() {
        assert!(!patterns.exception_below(&path, Builder::BuildKit));
        assert!(!patterns.exception_below(&path, Builder::Classic));
        // Without exceptions, a longer list leaves out more.
        let (longer, _) = lines.split_at(lines.len() / 2);
        let shorter = Patterns::parse(longer).and_then(|patterns| patterns.matches(&path));
        if shorter == Ok(true) {
            assert_eq!(matched, Ok(true));
        }
    }
}
