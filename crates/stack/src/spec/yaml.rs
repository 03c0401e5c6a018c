//! YAML whose scalars stay as they are written: `2023.10` is not the number 2023.1.
//!
//! serde_yaml makes numbers of plain scalars, unless it is asked for a text. So the file is read twice: once to learn
//! where it has scalars, lists and mappings, and once more to ask for the text of each scalar. Merge keys (`<<`) are
//! applied, as PyYAML does.

use std::fmt;

use dockerutils_core::naming::nearest;
use serde::de::value::BorrowedStrDeserializer;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;
use serde_yaml::Value;

/// The key whose mappings are merged into the one around it.
const MERGE: &str = "<<";

/// The words for yes and no of YAML 1.1, which PyYAML reads; in lower case.
const SWITCHES: [(&str, bool); 6] = [
    ("true", true),
    ("yes", true),
    ("on", true),
    ("false", false),
    ("no", false),
    ("off", false),
];

/// A part of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Node {
    /// No value, `~` or `null`.
    Empty,
    /// A scalar, as it is written, without quotation marks.
    Text(String),
    List(Vec<Node>),
    /// In the order of the file.
    Map(Vec<(String, Node)>),
}

/// The way from a document's root to a part of it: keys, and positions in lists, from 0.
pub(super) type NodePath = Vec<String>;

/// A document that is not what is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// From the root, outermost first.
    pub(super) path: NodePath,
    /// It is the last key of the path that is wrong, and not its value.
    pub(super) is_key: bool,
    pub(super) message: String,
    /// The known key that an unknown one resembles.
    pub(super) nearest: Option<&'static str>,
    /// The keys that are known where an unknown one is.
    pub(super) known: &'static [&'static str],
}

impl Fault {
    fn inside(mut self, key: &str) -> Self {
        self.path.insert(0, key.to_owned());
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}

impl serde::de::Error for Fault {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self {
            path: Vec::new(),
            is_key: false,
            message: message.to_string(),
            nearest: None,
            known: &[],
        }
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Self {
            path: Vec::new(),
            is_key: true,
            message: format!("there is no key {field:?}"),
            nearest: nearest(field, expected.iter().copied()),
            known: expected,
        }
    }

    fn missing_field(field: &'static str) -> Self {
        Self::custom(format!("the key {field:?} is missing"))
    }
}

impl Node {
    /// Reads a document of YAML.
    ///
    /// # Errors
    /// Text that is no YAML; tags such as `!ENV`.
    pub(super) fn read(text: &str) -> Result<Self, serde_yaml::Error> {
        let shape: Value = serde_yaml::from_str(text)?;
        let node = Shaped(&shape).deserialize(serde_yaml::Deserializer::from_str(text))?;
        Ok(node.merged())
    }

    /// Applies the merge keys: a key of the mapping itself wins, then those of the first mapping that is merged.
    fn merged(self) -> Self {
        match self {
            Self::List(items) => Self::List(items.into_iter().map(Self::merged).collect()),
            Self::Map(entries) => {
                let mut own = Vec::with_capacity(entries.len());
                let mut others = Vec::new();
                for (key, value) in entries {
                    match value.merged() {
                        Self::Map(merged) if key == MERGE => others.extend(merged),
                        Self::List(list) if key == MERGE => {
                            others.extend(list.into_iter().flat_map(|node| match node {
                                Self::Map(merged) => merged,
                                _ => Vec::new(),
                            }));
                        }
                        value => own.push((key, value)),
                    }
                }
                for (key, value) in others {
                    if !own.iter().any(|(known, _)| *known == key) {
                        own.push((key, value));
                    }
                }
                Self::Map(own)
            }
            node => node,
        }
    }
}

/// Reads a part of a document whose shape is known.
struct Shaped<'s>(&'s Value);

impl<'de> DeserializeSeed<'de> for Shaped<'_> {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        match self.0 {
            Value::Null => deserializer.deserialize_ignored_any(IgnoredAny).map(|_| Node::Empty),
            Value::Bool(_) | Value::Number(_) | Value::String(_) => deserializer.deserialize_str(self),
            Value::Sequence(_) => deserializer.deserialize_seq(self),
            Value::Mapping(_) => deserializer.deserialize_map(self),
            Value::Tagged(_) => deserializer.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for Shaped<'_> {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value without a tag such as !ENV")
    }

    fn visit_str<E>(self, text: &str) -> Result<Node, E> {
        Ok(Node::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        for shape in self.0.as_sequence().into_iter().flatten() {
            let Some(item) = items.next_element_seed(Shaped(shape))? else {
                break;
            };
            list.push(item);
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node, A::Error> {
        let mut map = Vec::new();
        for (_, shape) in self.0.as_mapping().into_iter().flatten() {
            let Some(key) = entries.next_key::<String>()? else {
                break;
            };
            map.push((key, entries.next_value_seed(Shaped(shape))?));
        }
        Ok(Node::Map(map))
    }
}

/// Where a part of a document begins: line and column, from 1. Where the path leads out of the document, it is the last
/// part on the way that is there.
pub(super) fn place(text: &str, path: &[String], is_key: bool) -> Option<(usize, usize)> {
    let seek = |path, is_key| {
        let stopped = Seek { path, is_key }.deserialize(serde_yaml::Deserializer::from_str(text));
        let at = stopped.err()?.location()?;
        Some((at.line(), at.column()))
    };
    let shorter = (0..=path.len()).rev().filter_map(|length| path.get(..length));
    seek(path, is_key).or_else(|| shorter.into_iter().find_map(|path| seek(path, false)))
}

/// Goes to a part of a document, and stops there with an error, which has its place.
struct Seek<'p> {
    path: &'p [String],
    is_key: bool,
}

impl<'de> DeserializeSeed<'de> for Seek<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seek<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nothing: the place is here")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let Some((wanted, path)) = self.path.split_first() else {
            return Err(A::Error::custom("here"));
        };
        let stops = self.is_key && path.is_empty();
        while let Some(found) = entries.next_key_seed(SeekKey { wanted, stops })? {
            if found {
                entries.next_value_seed(Seek { path, ..self })?;
            } else {
                entries.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let Some((wanted, path)) = self.path.split_first() else {
            return Err(A::Error::custom("here"));
        };
        let Ok(wanted) = wanted.parse::<usize>() else {
            return while_some(items);
        };
        for _ in 0..wanted {
            items.next_element::<IgnoredAny>()?;
        }
        items.next_element_seed(Seek { path, ..self })?;
        while_some(items)
    }
}

/// Reads a list to its end.
fn while_some<'de, A: SeqAccess<'de>>(mut items: A) -> Result<(), A::Error> {
    while items.next_element::<IgnoredAny>()?.is_some() {}
    Ok(())
}

/// Tells whether a key is the one that is sought; stops there, if so told.
struct SeekKey<'p> {
    wanted: &'p str,
    stops: bool,
}

impl<'de> DeserializeSeed<'de> for SeekKey<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for SeekKey<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<bool, E> {
        match text == self.wanted {
            true if self.stops => Err(E::custom("here")),
            found => Ok(found),
        }
    }
}

impl<'de> Deserializer<'de> for &'de Node {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self {
            Node::Empty => visitor.visit_unit(),
            Node::Text(text) => visitor.visit_borrowed_str(text),
            Node::List(items) => visitor.visit_seq(Items(items.iter().enumerate())),
            Node::Map(entries) => visitor.visit_map(Entries {
                left: entries.iter(),
                value: None,
            }),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let Node::Text(text) = self else {
            return self.deserialize_any(visitor);
        };
        let word = text.to_ascii_lowercase();
        match SWITCHES.iter().find(|(known, _)| *known == word) {
            Some((_, value)) => visitor.visit_bool(*value),
            None => Err(Fault::custom(format!("{text:?} is neither true nor false"))),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self {
            Node::Empty => visitor.visit_borrowed_str(""),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self {
            Node::Empty => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self {
            Node::Empty => visitor.visit_seq(Items(std::slice::Iter::default().enumerate())),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self {
            Node::Empty => visitor.visit_map(Entries {
                left: std::slice::Iter::default(),
                value: None,
            }),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match self {
            Node::List(_) => Err(Fault::custom("here go keys with values, not a list")),
            Node::Text(text) => Err(Fault::custom(format!("here go keys with values, not {text:?}"))),
            _ => self.deserialize_map(visitor),
        }
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct newtype_struct tuple
        tuple_struct enum identifier ignored_any
    }
}

struct Items<'n>(std::iter::Enumerate<std::slice::Iter<'n, Node>>);

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        let Some((index, item)) = self.0.next() else {
            return Ok(None);
        };
        let made = seed.deserialize(item).map_err(|fault| fault.inside(&index.to_string()));
        made.map(Some)
    }
}

struct Entries<'n> {
    left: std::slice::Iter<'n, (String, Node)>,
    value: Option<&'n (String, Node)>,
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        self.value = self.left.next();
        let Some((key, _)) = self.value else {
            return Ok(None);
        };
        seed.deserialize(BorrowedStrDeserializer::new(key))
            .map(Some)
            .map_err(|fault: Fault| fault.inside(key))
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Fault> {
        let (key, value) = self
            .value
            .take()
            .ok_or_else(|| Fault::custom("a value is asked for before its key"))?;
        seed.deserialize(value).map_err(|fault| fault.inside(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Node {
        Node::Text(text.to_owned())
    }

    #[test]
    fn scalars_stay_as_they_are_written() {
        let node =
            Node::read("a: 2023.10\nb: 0x1F\nc: \"3.0\"\nd: yes\ne: 1_000\nf: [1e3, .5, 010]\n2.0: x\n").unwrap();
        let Node::Map(entries) = node else {
            panic!("no mapping");
        };
        let flat: Vec<_> = entries.into_iter().collect();
        let expected = [
            ("a", text("2023.10")),
            ("b", text("0x1F")),
            ("c", text("3.0")),
            ("d", text("yes")),
            ("e", text("1_000")),
            ("f", Node::List(vec![text("1e3"), text(".5"), text("010")])),
            ("2.0", text("x")),
        ];
        assert_eq!(flat, expected.map(|(key, value)| (key.to_owned(), value)));
    }

    #[test]
    fn anchors_and_merges_are_applied() {
        let node = Node::read("base: &b {x: 1.10, y: 2}\nown:\n  <<: *b\n  y: 3.0\nsame: *b\n").unwrap();
        let Node::Map(entries) = node else {
            panic!("no mapping");
        };
        let map = |pairs: &[(&str, &str)]| {
            Node::Map(
                pairs
                    .iter()
                    .map(|(key, value)| ((*key).to_owned(), text(value)))
                    .collect(),
            )
        };
        assert_eq!(entries[1].1, map(&[("y", "3.0"), ("x", "1.10")]));
        assert_eq!(entries[2].1, map(&[("x", "1.10"), ("y", "2")]));
    }

    #[test]
    fn a_part_has_a_place() {
        let document = "a: 1\nb:\n  c:\n  - x\n  -   {d: 5}\n  e: 7\n";
        let at = |path: &[&str], is_key| {
            let path: Vec<String> = path.iter().map(|&part| part.to_owned()).collect();
            place(document, &path, is_key)
        };
        assert_eq!(at(&["a"], false), Some((1, 4)));
        assert_eq!(at(&["b"], true), Some((2, 1)));
        assert_eq!(at(&["b", "c", "0"], false), Some((4, 5)));
        assert_eq!(at(&["b", "c", "1", "d"], false), Some((5, 11)));
        assert_eq!(at(&["b", "e"], true), Some((6, 3)));
        // What is not there: the part around it.
        assert_eq!(at(&["b", "f", "g"], false), Some((3, 3)));
    }

    #[test]
    fn a_tag_is_refused_at_its_place() {
        let error = Node::read("a: 1\nb: !ENV X\n").unwrap_err();
        assert!(error.to_string().contains("without a tag"), "{error}");
        assert_eq!(error.location().map(|at| at.line()), Some(2));
    }
}
