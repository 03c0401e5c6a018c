//! Any value of the configuration is words or refused. Values of variables are never taken for words, quotes or
//! variables, and what is printed shows none of them.

use std::collections::BTreeMap;

use dockerutils_core::config::variables::{self, Word};
use dockerutils_core::env::Env;
use dockerutils_core::shell;

/// No text that is fuzzed holds it: a single character, which no quotes can put together from parts.
const SECRET: &str = "\u{10fffd}";

pub(crate) fn fuzz(input: (&str, &str)) {
    let (text, value) = input;
    if text.contains(SECRET) || text.contains('\0') || value.contains('\0') {
        return;
    }
    let braces = BTreeMap::from([("user", value.to_owned()), ("project_root", "/code".to_owned())]);
    let words = variables::parse(text, Some(&braces));
    if let Ok(words) = &words {
        check(words);
    }
    if let Ok(words) = variables::parse(text, None) {
        check(&words);
        if !text.contains('$') {
            let expanded = variables::expand(&words, &Env::default()).expect("no variable is needed");
            assert_eq!(Ok(&expanded), shell::split(text).as_ref());
            assert_eq!(shell::split(&variables::print(&words)), Ok(expanded));
        }
    }
    if let Ok(word) = Word::quoted(text) {
        check(std::slice::from_ref(&word));
        assert_eq!(
            word.expand(&of_all(std::slice::from_ref(&word), SECRET))
                .expect("all are set")
                .len(),
            1
        );
    }
}

fn of_all(words: &[Word], value: &str) -> Env {
    Env::from_pairs(words.iter().flat_map(Word::variables).map(|name| (name, value)))
}

fn check(words: &[Word]) {
    assert!(!variables::print(words).contains(SECRET));
    let names: Vec<&str> = words.iter().flat_map(Word::variables).collect();
    assert_eq!(variables::expand(words, &Env::default()).is_err(), !names.is_empty());
    // A value without blanks changes no number of words, whatever else is in it.
    let plain = variables::expand(words, &of_all(words, SECRET)).expect("all are set");
    assert_eq!(plain.len(), words.len());
    for value in ["'\"\\", "$HOME", "{user}", "${", "-v"] {
        let expanded = variables::expand(words, &of_all(words, value)).expect("all are set");
        let replaced: Vec<String> = plain.iter().map(|word| word.replace(SECRET, value)).collect();
        assert_eq!(expanded, replaced);
    }
}
