//! Any text can be checked: what is found is in it, and the lines to write instead take the place of lines that are there.

use dockerutils_core::docker::build::dockerfile::source::DockerfileSource;
use dockerutils_core::docker::options::build_options::BuildOptions;
use dockerutils_core::ops::check::{Replacement, check_text};

// The text, and the value of the key `check_skip`.
pub(crate) fn fuzz(input: (&str, &str)) {
    let (text, skip) = input;
    let source = DockerfileSource::read(text);
    let lines = text.split('\n').count();
    let mut before = 0;
    for step in &source.instructions {
        assert!(before < step.line && step.line <= step.end && step.end <= lines, "{step:?}");
        before = step.end;
        // Every word is where it is said to be.
        for (bytes, word) in step.words() {
            assert!(text.get(bytes.clone()).is_some(), "{bytes:?} {word:?}");
        }
        assert!(step.bodies.iter().all(|body| text.get(body.clone()).is_some()), "{step:?}");
    }
    assert!(source.fault.as_ref().is_none_or(|fault| (1..=lines).contains(&fault.line)));
    let options = BuildOptions::default();
    let checked = check_text(text, &options, skip);
    assert_eq!(checked.findings.len(), checked.replacements.len());
    for (finding, replacement) in checked.findings.iter().zip(&checked.replacements) {
        let (first, last) = finding.lines;
        assert!(1 <= first && first <= last && last <= lines, "{finding:?}");
        assert!(source.fault.as_ref().is_none_or(|fault| first < fault.line), "{finding:?}");
        if let Some(replacement) = replacement {
            assert!(1 <= replacement.first && replacement.first <= replacement.last && replacement.last <= lines);
        }
    }
    // Lines of two findings are the same, or have none in common.
    let told: Vec<_> = checked.replacements.iter().flatten().collect();
    for (at, one) in told.iter().enumerate() {
        let is_apart = |other: &Replacement| other.last < one.first || one.last < other.first;
        assert!(told.iter().skip(at + 1).all(|other| other == one || is_apart(other)), "{told:?}");
    }
    let again = check_text(text, &options, skip);
    assert_eq!(checked.findings, again.findings);
    assert!(check_text(text, &options, "all").findings.is_empty());
}
