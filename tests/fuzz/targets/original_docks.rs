//! Any text as a dock's file of the original: words of it, and nothing that the original did not know.
use dockerutils_core::docks::{moniker, original};

pub(crate) fn fuzz(text: &str) {
    for (key, value) in original::parse(text) {
        assert!(key.starts_with("DOCK_") && text.contains(&key) && text.contains(&value));
        assert!(!value.contains(char::is_whitespace));
        for doubles_percent in [false, true] {
            let prompt = moniker::in_prompt(&value, doubles_percent);
            assert!(!prompt.contains(['$', '`', '\\', '!']) && !prompt.contains(char::is_control));
        }
    }
}
