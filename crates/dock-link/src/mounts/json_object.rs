//! JSON of which only some values are changed: whatever is not touched keeps its order and its exact bytes.
//!
//! Numbers of any size, escapes, blanks and unknown fields pass as they were said, since no value is decoded that
//! nobody asks for. Text is read as RFC 8259 says; it must be UTF-8.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

/// A name that stands in an object twice: it is not known which of the values is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SaidTwice;

/// How the names of an object are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Names {
    /// As the engine does for the fields of its types: Go's `encoding/json` ignores their case.
    Fields,
    /// As the engine does for the keys of maps, labels for example: exactly.
    Keys,
}

/// An object, as a text with changes.
#[derive(Debug)]
pub(crate) struct JsonObject<'a> {
    kind: Names,
    /// The names of the members, decoded, in the same order.
    names: Vec<Cow<'a, str>>,
    members: Members<'a>,
    /// What is appended: the name, and the JSON of its value.
    added: Vec<(String, String)>,
}

impl<'a> JsonObject<'a> {
    /// An object whose names are the fields of one of the engine's types; `None` if the text is not a JSON object.
    ///
    /// Go finds fields by Unicode's simple folding, in which U+017F is an `s` and U+212A a `k`
    /// (<https://pkg.go.dev/encoding/json#Unmarshal>, <https://pkg.go.dev/bytes#EqualFold>).
    pub(crate) fn structure(text: &'a str) -> Option<Self> {
        Self::parse(text, Names::Fields)
    }

    /// An object whose names are the keys of a map; `None` if the text is not a JSON object.
    pub(crate) fn map(text: &'a str) -> Option<Self> {
        Self::parse(text, Names::Keys)
    }

    fn parse(text: &'a str, kind: Names) -> Option<Self> {
        let RawMembers(found) = serde_json::from_str(text).ok()?;
        let names = found.iter().map(|(name, _)| decoded(name.get())).collect();
        let spans = found.into_iter().map(|(name, value)| (name.get(), value.get()));
        Some(Self {
            kind,
            names,
            members: Members::cut(text, '{', spans)?,
            added: Vec::new(),
        })
    }

    /// The JSON of a value as it was said, whatever was changed since; `None` if it is absent or `null`.
    ///
    /// # Errors
    ///
    /// If the name stands in the object twice.
    pub(crate) fn get(&self, name: &str) -> Result<Option<&'a str>, SaidTwice> {
        let member = self.position(name)?.and_then(|index| self.members.list.get(index));
        Ok(member.map(|member| member.value).filter(|value| *value != "null"))
    }

    /// The names of the members, as they were said.
    pub(crate) fn keys(&self) -> Vec<String> {
        self.names.iter().map(|name| name.clone().into_owned()).collect()
    }

    /// Replaces a value by this JSON, or appends it.
    ///
    /// # Errors
    ///
    /// If the name stands in the object twice.
    pub(crate) fn set(&mut self, name: &str, json: String) -> Result<(), SaidTwice> {
        match self.position(name)? {
            Some(index) => self.members.change(index, Change::Value(json)),
            None => {
                self.added.retain(|(added, _)| added != name);
                self.added.push((name.to_owned(), json));
            }
        }
        Ok(())
    }

    /// Removes a member, and says whether there was one.
    ///
    /// # Errors
    ///
    /// If the name stands in the object twice.
    pub(crate) fn remove(&mut self, name: &str) -> Result<bool, SaidTwice> {
        let found = self.position(name)?;
        if let Some(index) = found {
            self.members.change(index, Change::Removed);
        }
        Ok(found.is_some())
    }

    /// Whether nothing is in it, changes counted.
    pub(crate) fn is_empty(&self) -> bool {
        self.added.is_empty() && self.members.kept().next().is_none()
    }

    pub(crate) fn is_changed(&self) -> bool {
        !self.added.is_empty() || self.members.is_changed()
    }

    /// The object with its changes.
    pub(crate) fn render(&self) -> String {
        let added = self.added.iter();
        self.members
            .render(added.map(|(name, json)| format!("{}:{json}", quote(name))))
    }

    fn position(&self, name: &str) -> Result<Option<usize>, SaidTwice> {
        let is_meant = |said: &str| match self.kind {
            Names::Fields => is_same_field(said, name),
            Names::Keys => said == name,
        };
        let mut found = self.names.iter().enumerate().filter(|(_, said)| is_meant(said));
        let first = found.next().map(|(index, _)| index);
        match found.next() {
            Some(_) => Err(SaidTwice),
            None => Ok(first),
        }
    }
}

/// An array, as a text with changes.
#[derive(Debug)]
pub(crate) struct JsonArray<'a> {
    members: Members<'a>,
    added: Vec<String>,
}

impl<'a> JsonArray<'a> {
    /// `None` if the text is not a JSON array.
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        let RawElements(found) = serde_json::from_str(text).ok()?;
        let spans = found.into_iter().map(|value| (value.get(), value.get()));
        Some(Self {
            members: Members::cut(text, '[', spans)?,
            added: Vec::new(),
        })
    }

    /// The JSON of its elements, as they were said.
    pub(crate) fn elements(&self) -> Vec<&'a str> {
        self.members.list.iter().map(|member| member.value).collect()
    }

    /// Replaces the element at this place, as counted before any change.
    pub(crate) fn set(&mut self, index: usize, json: String) {
        self.members.change(index, Change::Value(json));
    }

    /// Removes the element at this place, as counted before any change.
    pub(crate) fn remove(&mut self, index: usize) {
        self.members.change(index, Change::Removed);
    }

    /// Appends an element.
    pub(crate) fn push(&mut self, json: String) {
        self.added.push(json);
    }

    pub(crate) fn is_changed(&self) -> bool {
        !self.added.is_empty() || self.members.is_changed()
    }

    /// The array with its changes.
    pub(crate) fn render(&self) -> String {
        self.members.render(self.added.iter().cloned())
    }
}

/// The pieces of the text of an object or an array: put together, they are the text.
#[derive(Debug)]
struct Members<'a> {
    /// Up to the first member.
    open: &'a str,
    list: Vec<Member<'a>>,
    /// From the end of the last member.
    close: &'a str,
}

#[derive(Debug)]
struct Member<'a> {
    /// The comma before it, with blanks; nothing before the first.
    before: &'a str,
    /// The name with its colon and blanks; nothing in an array.
    name: &'a str,
    value: &'a str,
    change: Change,
}

#[derive(Debug)]
enum Change {
    Unchanged,
    /// This JSON takes the place of the value.
    Value(String),
    Removed,
}

impl<'a> Members<'a> {
    /// Cuts a text at its members: of each where it begins, and its value, both slices of the text.
    fn cut(text: &'a str, bracket: char, members: impl Iterator<Item = (&'a str, &'a str)>) -> Option<Self> {
        let mut end = text.find(bracket)? + bracket.len_utf8();
        let mut open = text.get(..end)?;
        let mut list: Vec<Member> = Vec::new();
        for (first, value) in members {
            let (start, middle) = (offset(text, first)?, offset(text, value)?);
            let before = if list.is_empty() {
                open = text.get(..start)?;
                ""
            } else {
                text.get(end..start)?
            };
            list.push(Member {
                before,
                name: text.get(start..middle)?,
                value,
                change: Change::Unchanged,
            });
            end = middle + value.len();
        }
        let close = text.get(end..)?;
        Some(Self { open, list, close })
    }

    fn change(&mut self, index: usize, change: Change) {
        if let Some(member) = self.list.get_mut(index) {
            member.change = change;
        }
    }

    fn is_changed(&self) -> bool {
        let mut members = self.list.iter();
        members.any(|member| !matches!(member.change, Change::Unchanged))
    }

    fn kept(&self) -> impl Iterator<Item = &Member<'a>> {
        let members = self.list.iter();
        members.filter(|member| !matches!(member.change, Change::Removed))
    }

    fn render(&self, added: impl Iterator<Item = String>) -> String {
        let mut text = self.open.to_owned();
        let mut is_first = true;
        for member in self.kept() {
            if !is_first {
                text.push_str(member.before);
            }
            is_first = false;
            text.push_str(member.name);
            text.push_str(match &member.change {
                Change::Value(json) => json,
                Change::Unchanged | Change::Removed => member.value,
            });
        }
        for json in added {
            if !is_first {
                text.push(',');
            }
            is_first = false;
            text.push_str(&json);
        }
        text.push_str(self.close);
        text
    }
}

/// Where a slice of a text begins in it.
fn offset(text: &str, slice: &str) -> Option<usize> {
    slice.as_ptr().addr().checked_sub(text.as_ptr().addr())
}

/// The text of a JSON string; `None` if the JSON is of another type, or half of a surrogate pair stands in it alone.
pub(crate) fn string(json: &str) -> Option<Cow<'_, str>> {
    let inner = json.strip_prefix('"')?.strip_suffix('"')?;
    if !inner.contains('\\') {
        return Some(Cow::Borrowed(inner));
    }
    serde_json::from_str(json).ok().map(Cow::Owned)
}

/// The value of a JSON boolean.
pub(crate) fn boolean(json: &str) -> Option<bool> {
    match json {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

/// A text as a JSON string.
pub(crate) fn quote(text: &str) -> String {
    Value::from(text).to_string()
}

/// A name as Go decodes it: half of a surrogate pair becomes U+FFFD, which stands in no name that is asked for.
fn decoded(json: &str) -> Cow<'_, str> {
    string(json).unwrap_or(Cow::Borrowed("\u{fffd}"))
}

/// Whether Go takes a name that was said for this field.
fn is_same_field(said: &str, field: &str) -> bool {
    const fn folded(character: char) -> char {
        match character {
            '\u{17f}' => 's',
            '\u{212a}' => 'k',
            other => other.to_ascii_lowercase(),
        }
    }
    said.chars().map(folded).eq(field.chars().map(folded))
}

/// The names and values of an object.
struct RawMembers<'a>(Vec<(&'a RawValue, &'a RawValue)>);

impl<'de> Deserialize<'de> for RawMembers<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor;
        impl<'de> Visitor<'de> for ObjectVisitor {
            type Value = RawMembers<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(RawMembers(members))
            }
        }
        deserializer.deserialize_map(ObjectVisitor)
    }
}

/// The elements of an array.
struct RawElements<'a>(Vec<&'a RawValue>);

impl<'de> Deserialize<'de> for RawElements<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ArrayVisitor;
        impl<'de> Visitor<'de> for ArrayVisitor {
            type Value = RawElements<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Self::Value, A::Error> {
                let mut elements = Vec::new();
                while let Some(element) = sequence.next_element()? {
                    elements.push(element);
                }
                Ok(RawElements(elements))
            }
        }
        deserializer.deserialize_seq(ArrayVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_what_is_changed_changes() {
        let text = " { \"A\" : 1e400 ,\n\t\"b\\u0042\":\"\\/\\ud800\" , \"C\":[ 1.50 , { } ]\r\n, \"d\":null } ";
        let mut object = JsonObject::structure(text).unwrap();
        assert!(!object.is_changed());
        assert_eq!(object.render(), text);
        assert_eq!(object.get("a"), Ok(Some("1e400")));
        assert_eq!(object.get("bb"), Ok(Some("\"\\/\\ud800\"")));
        assert_eq!(object.get("c"), Ok(Some("[ 1.50 , { } ]")));
        assert_eq!(object.get("d"), Ok(None));
        assert_eq!(object.get("e"), Ok(None));
        object.set("c", "2".to_owned()).unwrap();
        object.set("D", "3".to_owned()).unwrap();
        object.set("e\"", "4".to_owned()).unwrap();
        object.set("e\"", "5".to_owned()).unwrap();
        assert!(object.is_changed());
        assert_eq!(
            object.render(),
            " { \"A\" : 1e400 ,\n\t\"b\\u0042\":\"\\/\\ud800\" , \"C\":2\r\n, \"d\":3,\"e\\\"\":5 } "
        );
        // What was said is still known.
        assert_eq!(object.get("c"), Ok(Some("[ 1.50 , { } ]")));
    }

    #[test]
    fn members_are_removed_with_one_comma() {
        let removed = |names: &[&str]| {
            let mut object = JsonObject::map(r#"{ "a":1 , "b":2,  "c":3 }"#).unwrap();
            for name in names {
                assert_eq!(object.remove(name), Ok(true));
            }
            assert_eq!(object.is_empty(), names.len() == 3);
            object.render()
        };
        assert_eq!(removed(&["a"]), r#"{ "b":2,  "c":3 }"#);
        assert_eq!(removed(&["b"]), r#"{ "a":1,  "c":3 }"#);
        assert_eq!(removed(&["c"]), r#"{ "a":1 , "b":2 }"#);
        assert_eq!(removed(&["a", "b"]), r#"{ "c":3 }"#);
        assert_eq!(removed(&["a", "b", "c"]), "{  }");
        let mut object = JsonObject::map(r#"{"a":1}"#).unwrap();
        assert_eq!(object.remove("A"), Ok(false));
        assert!(!object.is_changed());
        assert_eq!(object.remove("a"), Ok(true));
        object.set("b", "2".to_owned()).unwrap();
        assert!(!object.is_empty());
        assert_eq!(object.render(), r#"{"b":2}"#);
    }

    #[test]
    fn an_empty_object_gets_its_first_member() {
        for (text, expected) in [("{}", r#"{"a":1}"#), (" { \n} ", " {\"a\":1 \n} ")] {
            let mut object = JsonObject::structure(text).unwrap();
            assert!(object.is_empty());
            object.set("a", "1".to_owned()).unwrap();
            assert_eq!(object.render(), expected);
        }
    }

    #[test]
    fn fields_are_found_in_any_case_and_keys_in_their_own() {
        for name in [
            "HostConfig",
            "hostconfig",
            "HOSTCONFIG",
            "Ho\u{17f}tConfig",
            "\\u0048ostConfig",
            "ho\\u017FtConfig",
        ] {
            let text = format!("{{\"{name}\":1}}");
            let fields = JsonObject::structure(&text).unwrap();
            assert_eq!(fields.get("HostConfig"), Ok(Some("1")), "{name}");
            let keys = JsonObject::map(&text).unwrap();
            let is_exact = matches!(name, "HostConfig" | "\\u0048ostConfig");
            assert_eq!(keys.get("HostConfig"), Ok(is_exact.then_some("1")), "{name}");
        }
        let kelvin = JsonObject::structure("{\"Tas\u{212a}Template\":1}").unwrap();
        assert_eq!(kelvin.get("TaskTemplate"), Ok(Some("1")));
        // Folding is no more than that: a dotless i is another letter.
        let other = JsonObject::structure("{\"HostConf\u{131}g\":1,\"Host-Config\":2}").unwrap();
        assert_eq!(other.get("HostConfig"), Ok(None));
    }

    #[test]
    fn a_name_that_is_said_twice_is_refused_where_it_is_asked_for() {
        let text = r#"{"Binds":1,"binds":null,"x":1,"x":2}"#;
        let mut fields = JsonObject::structure(text).unwrap();
        assert_eq!(fields.get("Binds"), Err(SaidTwice));
        assert_eq!(fields.set("BINDS", "3".to_owned()), Err(SaidTwice));
        assert_eq!(fields.remove("Binds"), Err(SaidTwice));
        assert_eq!(fields.get("Mounts"), Ok(None));
        assert_eq!(fields.render(), text);
        let keys = JsonObject::map(text).unwrap();
        assert_eq!(keys.get("Binds"), Ok(Some("1")));
        assert_eq!(keys.get("x"), Err(SaidTwice));
    }

    #[test]
    fn a_name_with_half_a_surrogate_pair_is_no_name_that_is_asked_for() {
        let text = r#"{"\ud800":1,"a\udfff":2,"a":3}"#;
        let object = JsonObject::map(text).unwrap();
        assert_eq!(object.get("a"), Ok(Some("3")));
        assert_eq!(object.render(), text);
    }

    #[test]
    fn an_array_is_changed_by_places() {
        let text = " [ \"a\" , 2.0,{ } ,\n4 ] ";
        let mut array = JsonArray::parse(text).unwrap();
        assert_eq!(array.elements(), ["\"a\"", "2.0", "{ }", "4"]);
        assert_eq!(array.render(), text);
        assert!(!array.is_changed());
        array.remove(0);
        array.set(2, "3".to_owned());
        array.set(9, "9".to_owned());
        assert_eq!(array.render(), " [ 2.0,3 ,\n4 ] ");
        array.push("5".to_owned());
        assert_eq!(array.render(), " [ 2.0,3 ,\n4,5 ] ");
        let mut empty = JsonArray::parse("[]").unwrap();
        empty.push("1".to_owned());
        empty.push("2".to_owned());
        assert!(empty.is_changed());
        assert_eq!(empty.render(), "[1,2]");
    }

    #[test]
    fn other_texts_are_neither() {
        for text in [
            "",
            "null",
            "1",
            "\"{}\"",
            "{",
            "{}x",
            "{'a':1}",
            "{\"a\":1,}",
            "{\"a\" 1}",
            "{\"a\":01}",
            "{\"a\":}",
        ] {
            assert!(JsonObject::structure(text).is_none(), "{text}");
            assert!(JsonArray::parse(text).is_none(), "{text}");
        }
        assert!(JsonObject::map("[]").is_none());
        for text in ["{}", "[1,]", "[1 2]", "[", "[]]", "[nul]", "[\"\n\"]"] {
            assert!(JsonArray::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn strings_and_booleans_are_decoded() {
        assert_eq!(string(r#""a/b""#).unwrap(), "a/b");
        assert_eq!(string(r#""\u002Fa\/\ud83d\ude00\"""#).unwrap(), "/a/\u{1f600}\"");
        for json in [r#""\ud800""#, "1", "null", "[]", "\""] {
            assert_eq!(string(json), None, "{json}");
        }
        assert_eq!(
            (boolean("true"), boolean("false"), boolean("1")),
            (Some(true), Some(false), None)
        );
        assert_eq!(quote("a\"\\\n/\u{e9}"), r#""a\"\\\n/é""#);
    }

    #[test]
    fn depth_and_width_do_not_exhaust_the_stack() {
        let deep = format!("{{\"a\":{}{},\"b\":1}}", "[".repeat(100_000), "]".repeat(100_000));
        let object = JsonObject::structure(&deep).unwrap();
        assert_eq!(object.get("b"), Ok(Some("1")));
        assert_eq!(object.render(), deep);
    }

    /// JSON of any kind, with blanks where they may be.
    fn json() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            Just("null".to_owned()),
            Just("true".to_owned()),
            "-?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,20})?([eE][+-]?[0-9]{1,4})?",
            string_json(),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            let members = prop::collection::vec((string_json(), "[ \n\t\r]{0,2}", inner.clone()), 0..4);
            prop_oneof![
                prop::collection::vec(("[ \n]{0,2}", inner), 0..4).prop_map(|elements| {
                    let elements: Vec<String> = elements.into_iter().map(|(blanks, json)| blanks + &json).collect();
                    format!("[{}]", elements.join(" ,"))
                }),
                members.prop_map(|members| object_json(&members)),
            ]
        })
    }

    fn object_json(members: &[(String, String, String)]) -> String {
        let members: Vec<String> = members
            .iter()
            .map(|(name, blanks, json)| format!("{blanks}{name}{blanks}:{json}{blanks}"))
            .collect();
        format!("{{{}}}", members.join(","))
    }

    fn string_json() -> impl Strategy<Value = String> {
        "\"([a-zA-Z/:é\u{1f600} ]|\\\\[\"\\\\/bfnrt]|\\\\u[0-9a-fA-F]{4}){0,8}\""
    }

    proptest! {
        #[test]
        fn an_object_that_is_not_changed_is_the_same_text(
            members in prop::collection::vec((string_json(), "[ \n\t\r]{0,2}", json()), 0..6),
            around in "[ \n]{0,2}",
        ) {
            let text = format!("{around}{}{around}", object_json(&members));
            for object in [JsonObject::structure(&text), JsonObject::map(&text)] {
                prop_assert_eq!(object.unwrap().render(), text.as_str());
            }
        }

        #[test]
        fn what_is_set_is_read_again_and_all_else_is_the_same(
            members in prop::collection::vec((string_json(), "[ \n\t\r]{0,2}", json()), 0..6),
            value in json(),
        ) {
            let text = object_json(&members);
            let mut object = JsonObject::map(&text).unwrap();
            object.set("the name", value.clone()).unwrap();
            let changed = object.render();
            let again = JsonObject::map(&changed).unwrap();
            prop_assert_eq!(again.get("the name"), Ok(Some(value.as_str()).filter(|value| *value != "null")));
            let mut again = again;
            again.remove("the name").unwrap();
            let (left, before): (RawMembers, RawMembers) =
                (serde_json::from_str(&changed).unwrap(), serde_json::from_str(&text).unwrap());
            prop_assert_eq!(left.0.len(), before.0.len() + 1);
            for (left, before) in left.0.iter().zip(&before.0) {
                prop_assert_eq!((left.0.get(), left.1.get()), (before.0.get(), before.1.get()));
            }
        }

        #[test]
        fn any_text_is_an_object_or_refused(text in "[{}\\[\\]\":,\\\\ua0 \u{e9}]{0,20}") {
            if let Some(object) = JsonObject::structure(&text) {
                prop_assert_eq!(object.render(), text.as_str());
                prop_assert!(serde_json::from_str::<&RawValue>(&text).is_ok());
            }
        }
    }
}
