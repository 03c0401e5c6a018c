//! Any text is read as a configuration file or refused with a place in it, and each value can be asked for.

use std::path::Path;

use dockerutils_core::config::ini::{DEFAULT_SECTION, Ini, IniError};

pub(crate) fn fuzz(text: &str) {
    let path = Path::new("docker/dockerutils.cfg");
    let ini = match Ini::parse(path, text) {
        Ok(ini) => ini,
        Err(error) => return check(&error, text),
    };
    assert_eq!(ini.path(), path);
    for section in ini.sections().chain([DEFAULT_SECTION]) {
        assert_eq!(ini.has_section(section), section != DEFAULT_SECTION);
        let references = ini.references(section);
        for key in ini.keys(section) {
            assert!(ini.line(section, key).is_some_and(|line| line > 0));
            let raw = ini.raw(section, key).expect("a key that is listed has a value");
            match ini.get(section, key) {
                Ok(value) => {
                    let value = value.expect("a key that is listed has a value");
                    assert!(raw.contains('%') || value == raw);
                }
                Err(error) => {
                    if let IniError::InterpolationMissingOption { missing, .. } = &error {
                        assert!(references.contains(missing));
                    }
                    check(&error, text);
                }
            }
        }
        for (key, line) in ini.own_keys(section) {
            assert_eq!(ini.line(section, key), Some(line));
            assert!(ini.section_line(section).is_some_and(|header| header < line));
        }
    }
}

fn check(error: &IniError, text: &str) {
    // Lone carriage returns end lines, too.
    let lines = text.split(['\n', '\r']).count();
    assert!((1..=lines).contains(&error.place().line));
    assert!(!error.to_string().is_empty());
    assert!(error.hint().is_some_and(|hint| !hint.is_empty()));
}
