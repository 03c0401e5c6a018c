//! The containers and services that were made through this agent's sockets, also by earlier agents of the dock.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::Notify;

use crate::log::Log;
use crate::remembered::{self, RememberedSet};

/// How many are remembered; the oldest are forgotten first.
const REMEMBERED: usize = 1000;

/// The containers and services, by ID.
#[derive(Debug)]
pub(super) struct CreatedContainers {
    ids: Arc<RememberedSet<String>>,
    changed: Notify,
}

impl CreatedContainers {
    /// Those in a file, which decides which ports answer here; none if there is no file, or it can't be read.
    pub(super) fn read(file: PathBuf) -> Self {
        Self {
            ids: Arc::new(RememberedSet::read(file, REMEMBERED, |id| is_id(id))),
            changed: Notify::new(),
        }
    }

    pub(super) fn contains(&self, id: &str) -> bool {
        self.ids.contains(id)
    }

    /// All of them that are containers.
    pub(super) fn containers(&self) -> Vec<String> {
        self.ids.all().into_iter().filter(|id| is_container(id)).collect()
    }

    pub(super) fn add(&self, id: String) {
        if is_id(&id) && self.ids.insert(id) {
            self.changed.notify_one();
        }
    }

    /// Forgets what no longer exists.
    pub(super) fn forget(&self, id: &str) {
        if self.ids.remove(id) {
            self.changed.notify_one();
        }
    }

    /// Writes every change to the file, for ever.
    pub(super) async fn keep(&self, log: &Log) {
        loop {
            self.changed.notified().await;
            let ids = Arc::clone(&self.ids);
            // The home directory may be on a network.
            let written = tokio::task::spawn_blocking(move || ids.write()).await;
            if let Ok(Err(cause)) = written {
                log.line(format!("the list of created containers can't be written: {cause}"));
            }
        }
    }
}

fn is_id(text: &str) -> bool {
    is_container(text) || is_service(text)
}

/// Whether a text can be the ID of a container.
pub(crate) fn is_container(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whether a text can be the ID of a service: a number of 25 digits to the base of 36 (`identity.NewID` of swarmkit).
pub(crate) fn is_service(text: &str) -> bool {
    text.len() == 25 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'z'))
}

/// Creates an empty private file, and its directory.
pub(super) fn note(file: &Path) -> io::Result<()> {
    remembered::write(file, &VecDeque::<String>::new())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn id(number: usize) -> String {
        format!("{number:064x}")
    }

    #[test]
    fn the_newest_are_remembered_and_ids_alone() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("state/a.made");
        let made = CreatedContainers::read(file.clone());
        for number in 0..REMEMBERED + 5 {
            made.add(id(number));
            made.add(id(number));
        }
        made.add("../../etc/passwd".into());
        made.forget(&id(7));
        assert!(!made.contains(&id(4)) && made.contains(&id(5)) && !made.contains(&id(7)));
        made.ids.write().unwrap();
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let again = CreatedContainers::read(file.clone());
        assert_eq!(again.ids.all().len(), REMEMBERED - 1);
        assert!(again.contains(&id(REMEMBERED + 4)) && !again.contains(&id(7)));
        made.add("c0eg5hz9xcsc2ewaxqmnk1jxx".into());
        made.add("C0EG5HZ9XCSC2EWAXQMNK1JXX".into());
        assert!(made.contains("c0eg5hz9xcsc2ewaxqmnk1jxx") && !made.contains("C0EG5HZ9XCSC2EWAXQMNK1JXX"));
        assert!(made.containers().iter().all(|id| id.len() == 64));
        std::fs::write(&file, "[1]").unwrap();
        assert_eq!(CreatedContainers::read(file).ids.all().len(), 0);
    }
}
