//! The label of an object whose mounts were translated: which path on the dock stands for which path here.
//!
//! Its value is a JSON object, `{"/w/app":"/home/ann/app"}`: the path on the dock, and the path that the client said.
//! The paths on the dock are sorted, and nothing stands between them, so that the same mounts always have the same
//! label: a service whose label changed would be started anew.

use std::collections::BTreeMap;

/// The label's name. A client never sees it, and can't set it.
pub const LABEL: &str = "io.dockerutils.mounts";

/// The longest value of the label, in bytes.
pub const LABEL_BYTES: usize = 1024 * 1024;

/// The most paths that a label may have: as many as a request may have mounts.
pub const LABEL_PATHS: usize = super::requests::MOUNTS;

/// Which paths on the dock stand for which paths here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct MountLabel(BTreeMap<String, String>);

impl MountLabel {
    /// Reads the value of a label. It may be a stranger's: `None` if it is not, byte for byte, what this module writes
    /// of absolute paths, or too large.
    pub(super) fn parse(value: &str) -> Option<Self> {
        if value.len() > LABEL_BYTES {
            return None;
        }
        let label = Self(serde_json::from_str(value).ok()?);
        let is_path = |path: &String| path.starts_with('/') && !path.contains('\0');
        let is_ours = !label.0.is_empty()
            && label.0.len() <= LABEL_PATHS
            && label.0.iter().all(|(there, here)| is_path(there) && is_path(here))
            && label.value() == value;
        is_ours.then_some(label)
    }

    /// Notes that a path on the dock stands for a path here. The first path that was said for a place is shown for it
    /// everywhere.
    pub(super) fn note(&mut self, there: &str, here: &str) {
        if !self.0.contains_key(there) {
            self.0.insert(there.to_owned(), here.to_owned());
        }
    }

    /// The path here, as it was said, for exactly this path on the dock.
    pub(super) fn here(&self, there: &str) -> Option<&str> {
        self.0.get(there).map(String::as_str)
    }

    /// The paths on the dock, each with the path here.
    pub(super) fn sources(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(there, here)| (there.as_str(), here.as_str()))
    }

    /// Leaves only the paths for which this is true, of the path on the dock and the path here.
    pub(super) fn retain(&mut self, is_ours: &dyn Fn(&str, &str) -> bool) {
        self.0.retain(|there, here| is_ours(there, here));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value of the label.
    pub(super) fn value(&self) -> String {
        let members = self.0.iter();
        serde_json::Value::Object(
            members
                .map(|(there, here)| (there.clone(), here.as_str().into()))
                .collect(),
        )
        .to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_read_as_it_is_written() {
        let mut label = MountLabel::default();
        assert!(label.is_empty());
        label.note("/w/b", "/home/ann/\"b\"/");
        label.note("/w/a:1", "/home/ann/./a\n");
        label.note("/w/b", "/other");
        let value = label.value();
        assert_eq!(value, r#"{"/w/a:1":"/home/ann/./a\n","/w/b":"/home/ann/\"b\"/"}"#);
        let again = MountLabel::parse(&value).unwrap();
        assert_eq!(again, label);
        assert_eq!(again.here("/w/b"), Some("/home/ann/\"b\"/"));
        for other in ["/w/b/", "/w", "/w/b/c", ""] {
            assert_eq!(again.here(other), None);
        }
        let mut ours = again;
        ours.retain(&|there, _| there == "/w/b");
        assert_eq!(ours.value(), r#"{"/w/b":"/home/ann/\"b\"/"}"#);
    }

    #[test]
    fn what_is_written_otherwise_is_no_label_of_ours() {
        assert!(MountLabel::parse(r#"{"/a":"/b"}"#).is_some());
        for value in [
            "",
            "{}",
            "null",
            "[]",
            r#""/a""#,
            r#"{"/a":"/b" }"#,
            r#"{"/a":"\/b"}"#,
            r#"{"/a":"/b","/a":"/c"}"#,
            r#"{"/b":"/a","/a":"/b"}"#,
            r#"{"a":"/b"}"#,
            r#"{"/a":"b"}"#,
            r#"{"/a":""}"#,
            r#"{"/a":null}"#,
            r#"{"/a":1}"#,
            r#"{"/a":{"/b":"/c"}}"#,
            r#"{"/a\u0000":"/b"}"#,
            r#"{"/a":"/b\u0000"}"#,
            r#"{"/a":"/b"}x"#,
        ] {
            assert_eq!(MountLabel::parse(value), None, "{value}");
        }
    }

    #[test]
    fn a_label_has_limits() {
        let label = |count: usize| {
            let mut label = MountLabel::default();
            for index in 0..count {
                label.note(&format!("/w/{index}"), "/a");
            }
            label
        };
        assert!(MountLabel::parse(&label(LABEL_PATHS).value()).is_some());
        assert_eq!(MountLabel::parse(&label(LABEL_PATHS + 1).value()), None);
        let long = |bytes: usize| format!(r#"{{"/a":"/{}"}}"#, "b".repeat(bytes - r#"{"/a":"/"}"#.len()));
        assert!(MountLabel::parse(&long(LABEL_BYTES)).is_some());
        assert_eq!(MountLabel::parse(&long(LABEL_BYTES + 1)), None);
    }
}
