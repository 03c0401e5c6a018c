//! Any text is a Dockerfile, whatever the builder will say of it, and what is read of it is in it.

use std::collections::BTreeMap;

use dockerutils_core::docker::options::build_options::BuildOptions;
use dockerutils_core::docker::build::dockerfile::{Dockerfile, syntax};

// The text, and the value that every build argument has.
pub(crate) fn fuzz(input: (&str, &str)) {
    let (text, value) = input;
    let arguments = BTreeMap::from([("A".to_owned(), value.to_owned()), ("TAG".to_owned(), value.to_owned())]);
    let options = BuildOptions {
        build_args: arguments,
        ..BuildOptions::default()
    };
    let file = Dockerfile::parse(text, &options);
    assert_eq!(file, Dockerfile::parse(text, &options));
    // One byte order mark at the beginning means nothing; a second one is text, as for BuildKit.
    let unmarked = text.strip_prefix('\u{feff}').unwrap_or(text);
    assert_eq!(file, Dockerfile::parse(&format!("\u{feff}{unmarked}"), &options));
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
    // What is needed for one stage is in what the whole is made of.
    let images: Vec<&str> = file.images().collect();
    for target in [None, Some("0"), Some("a")] {
        let needed = file.images_for(target);
        assert!(needed.iter().all(|image| images.contains(image)), "{needed:?}");
        assert!(file.base_for(target).is_none_or(|base| needed.contains(base)), "{file:?}");
    }
    assert!(syntax(text).is_none_or(|image| text.contains(image)));
    for instruction in text.lines() {
        assert!(Dockerfile::line_of(text, instruction).is_none_or(|line| (1..=lines).contains(&line)));
    }
}
