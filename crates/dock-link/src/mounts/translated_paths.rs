//! Which paths of a dock were mounted for which paths here, as this machine remembers it: the word of a dock, in a label, is
//! believed of no others.
//!
//! They are in a private file beside the list of created containers, so that the next agent knows them, too.

use std::io;
use std::path::PathBuf;

use super::label::MountLabel;
use crate::remembered::RememberedSet;

/// How many are remembered; the oldest are forgotten first.
const REMEMBERED: usize = 10_000;

/// The pairs of paths: the one on the dock, and the one here as a client said it.
#[derive(Debug)]
pub(super) struct TranslatedPaths(RememberedSet<(String, String)>);

impl TranslatedPaths {
    /// Those in a file; none if there is no file, or it can't be read.
    pub(super) fn read(file: PathBuf) -> Self {
        Self(RememberedSet::read(file, REMEMBERED, |_| true))
    }

    /// Whether this path on the dock was mounted for this path here.
    pub(super) fn contains(&self, there: &str, here: &str) -> bool {
        // Sets of pairs are asked by pairs.
        self.0.contains(&(there.to_owned(), here.to_owned()))
    }

    /// Notes these; true if any was not known, and is to be [written](Self::write).
    pub(super) fn note(&self, label: &MountLabel) -> bool {
        let new = label
            .sources()
            .filter(|(there, here)| self.0.insert(((*there).to_owned(), (*here).to_owned())));
        new.count() > 0
    }

    /// Writes them to the file. This waits for the disk.
    pub(super) fn write(&self) -> io::Result<()> {
        self.0.write()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn what_was_mounted_is_known_to_the_next_agent_and_the_oldest_are_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("state/a.mounted");
        let paths = TranslatedPaths::read(file.clone());
        let label = |number: usize| {
            let mut label = MountLabel::default();
            label.note(&format!("/w/{number}"), &format!("/home/ann/{number}"));
            label
        };
        for number in 0..REMEMBERED + 5 {
            assert!(paths.note(&label(number)));
        }
        assert!(!paths.note(&label(7)));
        paths.write().unwrap();
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let again = TranslatedPaths::read(file.clone());
        for (there, here, is_known) in [
            ("/w/7", "/home/ann/7", true),
            ("/w/4", "/home/ann/4", false),
            ("/w/7", "/home/ann/8", false),
            ("/w/7/", "/home/ann/7", false),
            ("/home/ann/7", "/w/7", false),
        ] {
            assert_eq!(again.contains(there, here), is_known, "{there} {here}");
        }
        std::fs::write(&file, "[[1]]").unwrap();
        assert!(!TranslatedPaths::read(file).contains("/w/7", "/home/ann/7"));
    }
}
