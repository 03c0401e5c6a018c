//! Any text is a Dockerfile, whatever the builder will say of it, and what is read of it is in it.

use std::collections::BTreeMap;

use dockerutils_core::docker::dockerfile::Dockerfile;

// The text, and the value that every build argument has.
pub(crate) fn fuzz(input: (&str, &str)) {
    let (text, value) = input;
    let arguments = BTreeMap::from([("A".to_owned(), value.to_owned()), ("TAG".to_owned(), value.to_owned())]);
    let file = Dockerfile::parse(text, &arguments);
    assert_eq!(file, Dockerfile::parse(text, &arguments));
    // A mark of the byte order means nothing.
    assert_eq!(
        file,
        Dockerfile::parse(&format!("\u{feff}{}", text.trim_start_matches('\u{feff}')), &arguments)
    );
    let lines = text.lines().count();
    let mut before = 0;
    for stage in &file.stages {
        assert!(stage.line > before && stage.line <= lines, "{file:?}");
        before = stage.line;
        if let Some(name) = &stage.name {
            assert!(
                file.has_stage(name) && file.has_stage(&name.to_ascii_uppercase()),
                "{name}"
            );
        }
    }
    assert!(file.images().count() <= file.stages.len() + file.copied_from.len());
    for source in &file.copied_from {
        assert!(!file.has_stage(source), "{source} is a stage");
    }
    for instruction in text.lines() {
        assert!(Dockerfile::line_of(text, instruction).is_none_or(|line| (1..=lines).contains(&line)));
    }
}
