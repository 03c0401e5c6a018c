//! The containers and services that were made through this agent's sockets, also by earlier agents of the dock.

use std::collections::{HashSet, VecDeque};
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use tokio::sync::Notify;

use dock_client::private_file;
use dock_client::project_file;

use crate::log::Log;
use dock_client::mutex::lock;

/// How many are remembered; the oldest are forgotten first.
const REMEMBERED: usize = 1000;

/// The containers.
#[derive(Debug)]
pub(super) struct CreatedContainers {
    file: PathBuf,
    ids: Mutex<Ids>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Ids {
    known: HashSet<String>,
    /// The oldest first.
    order: VecDeque<String>,
}

impl Ids {
    fn insert(&mut self, id: String) -> bool {
        if !(is_container(&id) || is_service(&id)) || !self.known.insert(id.clone()) {
            return false;
        }
        self.order.push_back(id);
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }
}

impl CreatedContainers {
    /// The containers in a file; empty if there is no file, or it can't be read.
    pub(super) fn read(file: PathBuf) -> Self {
        let mut ids = Ids::default();
        let own = rustix::process::geteuid().as_raw();
        // The file decides which ports answer here.
        let found: Vec<String> = project_file::read_own(&file, |owner| owner == own)
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok())
            .unwrap_or_default();
        for id in found {
            ids.insert(id);
        }
        Self {
            file,
            ids: Mutex::new(ids),
            changed: Notify::new(),
        }
    }

    pub(super) fn contains(&self, id: &str) -> bool {
        lock(&self.ids).known.contains(id)
    }

    /// All of them that are containers.
    pub(super) fn containers(&self) -> Vec<String> {
        let ids = lock(&self.ids);
        ids.order.iter().filter(|id| is_container(id)).cloned().collect()
    }

    pub(super) fn add(&self, id: String) {
        if lock(&self.ids).insert(id) {
            self.changed.notify_one();
        }
    }

    /// Forgets what no longer exists.
    pub(super) fn forget(&self, id: &str) {
        let mut ids = lock(&self.ids);
        if ids.known.remove(id) {
            ids.order.retain(|other| other != id);
            self.changed.notify_one();
        }
    }

    /// Writes every change to the file, for ever.
    pub(super) async fn keep(&self, log: &Log) {
        loop {
            self.changed.notified().await;
            let ids = lock(&self.ids).order.clone();
            let file = self.file.clone();
            // The home directory may be on a network.
            let written = tokio::task::spawn_blocking(move || write(&file, &ids)).await;
            if let Ok(Err(cause)) = written {
                log.line(format!("the list of created containers can't be written: {cause}"));
            }
        }
    }
}

/// Whether a text can be the ID of a container.
pub(crate) fn is_container(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whether a text can be the ID of a service: a number of 25 digits to the base of 36 (`identity.NewID` of swarmkit).
pub(crate) fn is_service(text: &str) -> bool {
    text.len() == 25 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'z'))
}

fn write(file: &Path, ids: &VecDeque<String>) -> io::Result<()> {
    if let Some(directory) = file.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    }
    private_file::replace_quickly(file, &serde_json::to_vec(ids)?)
}

/// Creates an empty private file, and its directory.
pub(super) fn note(file: &Path) -> io::Result<()> {
    write(file, &VecDeque::new())
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
        write(&file, &lock(&made.ids).order).unwrap();
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let again = CreatedContainers::read(file.clone());
        assert_eq!(lock(&again.ids).order.len(), REMEMBERED - 1);
        assert!(again.contains(&id(REMEMBERED + 4)) && !again.contains(&id(7)));
        made.add("c0eg5hz9xcsc2ewaxqmnk1jxx".into());
        made.add("C0EG5HZ9XCSC2EWAXQMNK1JXX".into());
        assert!(made.contains("c0eg5hz9xcsc2ewaxqmnk1jxx") && !made.contains("C0EG5HZ9XCSC2EWAXQMNK1JXX"));
        assert!(made.containers().iter().all(|id| id.len() == 64));
        std::fs::write(&file, "[1]").unwrap();
        assert_eq!(lock(&CreatedContainers::read(file).ids).order.len(), 0);
    }
}
