//! Paths of the dock in what an engine says of a failure: `bind source path does not exist: /w/app/src`. The person who reads
//! it has said another path, and finds that one there.

use dock_client::text::visible;
use serde_json::{Map, Value};

use super::json_object::{JsonObject, quote, string};
use super::label::MountLabel;

/// What stands beside a path in the sentences of engines, at least on its other side. A path goes on with anything else.
const BESIDE: &[char] = &[
    '"', '\'', '`', ':', ',', ';', '=', '(', ')', '[', ']', '{', '}', '<', '>',
];

/// The answer to the creation of a container with these warnings after its own: docker prints them on stderr, and other clients
/// know them, too. `None` if there are none, or the answer is no such document.
pub(super) fn with_warnings(body: &[u8], warnings: &[String]) -> Option<Vec<u8>> {
    if warnings.is_empty() {
        return None;
    }
    let mut answer: Map<String, Value> = serde_json::from_slice(body).ok()?;
    let own = answer.entry("Warnings").or_insert(Value::Null);
    if own.is_null() {
        *own = Value::Array(Vec::new());
    }
    own.as_array_mut()?
        .extend(warnings.iter().map(|warning| visible(warning).into()));
    let mut text = serde_json::to_vec(&answer).ok()?;
    text.push(b'\n');
    Some(text)
}

/// The engine's error document with the paths of here in its message; `None` if there is nothing to change.
pub(super) fn restored_error(body: &[u8], label: &MountLabel) -> Option<Vec<u8>> {
    let mut document = JsonObject::structure(std::str::from_utf8(body).ok()?)?;
    let message = string(document.get("message").ok()??)?.into_owned();
    document.set("message", quote(&restored(&message, label)?)).ok()?;
    Some(document.render().into_bytes())
}

/// A sentence with the paths of here in the place of exactly those of the dock that the label names; `None` if it has none
/// of them.
pub(super) fn restored(sentence: &str, label: &MountLabel) -> Option<String> {
    let mut text = String::with_capacity(sentence.len());
    let (mut rest, mut before, mut is_changed) = (sentence, None, false);
    while let Some(next) = rest.chars().next() {
        // The longest one: a path may have blanks, and go on where another one ends.
        let fitting = label.sources().filter_map(|(there, here)| {
            let after = rest.strip_prefix(there)?;
            (begins_after(before) && ends_before(after)).then_some((there, here, after))
        });
        match fitting.max_by_key(|(there, ..)| there.len()) {
            Some((there, here, after)) => {
                text.push_str(here);
                (rest, before, is_changed) = (after, there.chars().next_back(), true);
            }
            None => {
                text.push(next);
                (rest, before) = (rest.get(next.len_utf8()..).unwrap_or_default(), Some(next));
            }
        }
    }
    is_changed.then_some(text)
}

fn begins_after(before: Option<char>) -> bool {
    before.is_none_or(|before| before.is_whitespace() || BESIDE.contains(&before))
}

fn ends_before(after: &str) -> bool {
    let mut rest = after.chars();
    match rest.next() {
        None => true,
        // The end of a sentence, or that of a file's name.
        Some('.') => rest.next().is_none_or(char::is_whitespace),
        Some(next) => next.is_whitespace() || BESIDE.contains(&next),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn label() -> MountLabel {
        let mut label = MountLabel::default();
        for (there, here) in [
            ("/w/app", "/home/ann/app"),
            ("/w/app/a b", "/home/ann/x"),
            ("/w/app/a", "/home/ann/\"q\""),
        ] {
            label.note(there, here);
        }
        label
    }

    #[test]
    fn warnings_come_after_the_engines_own() {
        let with = |body: &str, warnings: &[&str]| {
            let warnings: Vec<String> = warnings.iter().map(|&warning| warning.to_owned()).collect();
            with_warnings(body.as_bytes(), &warnings).map(|body| String::from_utf8(body).unwrap())
        };
        assert_eq!(
            with(r#"{"Id":"a","Warnings":["b"]}"#, &["c", "d\u{1b}[2J"]).unwrap(),
            "{\"Id\":\"a\",\"Warnings\":[\"b\",\"c\",\"d\"]}\n"
        );
        for none in [
            r#"{"Id":"a"}"#,
            r#"{"Id":"a","Warnings":null}"#,
            r#"{"Id":"a","Warnings":[]}"#,
        ] {
            assert_eq!(with(none, &["c"]).unwrap(), "{\"Id\":\"a\",\"Warnings\":[\"c\"]}\n");
            assert_eq!(with(none, &[]), None);
        }
        for other in ["", "[]", r#"{"Warnings":"b"}"#] {
            assert_eq!(with(other, &["c"]), None, "{other}");
        }
    }

    #[test]
    fn exactly_the_paths_that_are_known_are_those_of_here() {
        for (sentence, expected) in [
            (
                "invalid mount config for type \"bind\": bind source path does not exist: /w/app",
                "invalid mount config for type \"bind\": bind source path does not exist: /home/ann/app",
            ),
            (
                "error while creating mount source path '/w/app/a b': mkdir /w/app/a b: file exists",
                "error while creating mount source path '/home/ann/x': mkdir /home/ann/x: file exists",
            ),
            (
                "failed to mount local volume: mount /w/app:/var/lib/docker/volumes/v/_data, flags: 0x1000: no such file.",
                "failed to mount local volume: mount /home/ann/app:/var/lib/docker/volumes/v/_data, flags: 0x1000: no such file.",
            ),
            ("not a directory: /w/app.", "not a directory: /home/ann/app."),
            ("/w/app /w/app", "/home/ann/app /home/ann/app"),
        ] {
            assert_eq!(restored(sentence, &label()).as_deref(), Some(expected));
        }
        for sentence in [
            "",
            "no such image",
            "/w/apple",
            "/w/app/",
            "/w/app/other",
            "/w/app.old is a file",
            "/w/app-2",
            "x/w/app",
            "/srv/w/app",
            "/w",
        ] {
            assert_eq!(restored(sentence, &label()), None, "{sentence}");
        }
        assert_eq!(restored("/w/app", &MountLabel::default()), None);
    }

    #[test]
    fn only_the_message_of_an_error_is_changed() {
        let changed =
            |body: &str| restored_error(body.as_bytes(), &label()).map(|body| String::from_utf8(body).unwrap());
        assert_eq!(
            changed("{ \"code\":1e400, \"message\" : \"no such file: \\/w/app/a\" }\n").as_deref(),
            Some("{ \"code\":1e400, \"message\" : \"no such file: /home/ann/\\\"q\\\"\" }\n")
        );
        for body in [
            "",
            "/w/app",
            "{}",
            r#"{"message":"no"}"#,
            r#"{"message":["/w/app"]}"#,
            r#"{"cause":"/w/app","message":"no"}"#,
            r#"{"message":"/w/app","Message":"/w/app"}"#,
        ] {
            assert_eq!(changed(body), None, "{body}");
        }
        assert_eq!(restored_error(b"{\"message\":\"/w/app \xff\"}", &label()), None);
    }

    proptest! {
        #[test]
        fn all_else_of_a_sentence_stays(words in prop::collection::vec("(/w/app|/w/app/a b|/w/x|[a-z:'é]{0,4})", 0..6)) {
            let sentence = words.join(" ");
            let mut swapped = MountLabel::default();
            for (there, here) in label().sources() {
                swapped.note(here, there);
            }
            if let Some(changed) = restored(&sentence, &label()) {
                prop_assert_ne!(&changed, &sentence);
                let back = restored(&changed, &swapped);
                prop_assert_eq!(back.as_deref(), Some(sentence.as_str()));
            }
        }
    }
}
