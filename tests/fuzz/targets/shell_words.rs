//! Words survive being quoted and split again, and so do the texts that they came from.

use dockerutils_core::shell;

pub(crate) fn fuzz(text: &str) {
    let word = text.to_owned();
    assert_eq!(shell::split(&shell::quote(text)), Ok(vec![word]));

    let quoted = shell::quote_keeping_variables(text);
    let words = shell::split(&quoted).expect("what is quoted can be split");
    assert_eq!(words.len(), 1, "a variable's value stays in its word");
    if !text.contains('$') {
        assert_eq!(quoted, shell::quote(text));
    }

    if let Ok(words) = shell::split(text) {
        let line = shell::join(&words);
        let again = shell::split(&line).expect("what is joined can be split");
        assert_eq!(again, words);
        assert_eq!(shell::join(&again), line);
    }
}
