//! What git and a project say of a version: any line of `git describe`, any configuration and any source file is read or
//! refused, every style of what was read is rendered, and the file holds it.

use std::path::Path;

use dockerutils_core::version::config::Section;
use dockerutils_core::version::describe::{Description, Pieces};
use dockerutils_core::version::render::{Style, render};
use dockerutils_core::version::{Release, VersionError, file, source_file};

pub(crate) fn fuzz(input: (&str, &str, &str)) {
    let (line, prefix, text) = input;
    if let Some(description) = Description::parse(line) {
        describe(line, &description);
    }
    for section in [Section::of_pyproject(text), Section::of_setup_cfg(text)] {
        if let Err(error) = section.and_then(|section| section.map_or(Ok(None), Section::configuration)) {
            check(&error, text);
        }
    }
    let release = Release::parse(text).unwrap_or(Release::NEWEST);
    let versions = [
        Ok(source_file::from_keywords(text, prefix, release)),
        source_file::from_json(text, Path::new("_version.py")),
    ];
    for versions in versions {
        match versions {
            Ok(Some(versions)) => {
                let written = file::text(&versions);
                assert!(written.is_ascii());
                // A version can't end Python's text, and go on with Python of its own.
                assert_eq!(written.matches("'''").count(), 2, "{written}");
            }
            Ok(None) => {}
            Err(error) => assert!(error.hint().is_some_and(|hint| !hint.is_empty())),
        }
    }
}

fn describe(line: &str, description: &Description<'_>) {
    let dirty = if description.dirty { "-dirty" } else { "" };
    let pieces = match &description.tag {
        Some(found) => {
            assert!(!found.tag.is_empty() && line.starts_with(found.tag));
            assert!(line.ends_with(&format!("-g{}{dirty}", found.short)));
            Pieces {
                tag: Some(found.tag.to_owned()),
                distance: found.distance,
                short: found.short.to_owned(),
                ..pieces(description.dirty)
            }
        }
        None => pieces(description.dirty),
    };
    for (_, style) in Style::ALL {
        match render(&pieces, style, Release::NEWEST) {
            Ok(version) => assert!(
                version.len()
                    >= pieces
                        .tag
                        .as_ref()
                        .map_or(1, |tag| tag.find(".post").unwrap_or(tag.len()))
            ),
            Err(error) => assert!(style == Style::Pep440Pre && error.hint().is_some()),
        }
    }
}

/// Those of a commit without a tag.
fn pieces(dirty: bool) -> Pieces {
    Pieces {
        tag: None,
        distance: 0,
        short: "4711abc".to_owned(),
        long: "4711abc".to_owned(),
        dirty,
        on_master: false,
        date: String::new(),
    }
}

fn check(error: &VersionError, text: &str) {
    let lines = text.split(['\n', '\r']).count();
    match error {
        VersionError::Toml { line, .. } => assert!((1..=lines).contains(line)),
        VersionError::Ini(error) => assert!((1..=lines).contains(&error.place().line)),
        error => assert!(!error.to_string().is_empty()),
    }
    assert!(error.hint().is_some_and(|hint| !hint.is_empty()));
}
