//! What an agent remembers for the agents after it: the newest items of one kind, in a private file.

use std::collections::{HashSet, VecDeque};
use std::fs::DirBuilder;
use std::hash::Hash;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use dock_client::mutex::lock;
use dock_client::private_file;
use dock_client::project_file;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A set that forgets its oldest items first. Changes are in the file once they are [written](Self::write).
#[derive(Debug)]
pub(crate) struct RememberedSet<T> {
    file: PathBuf,
    /// How many items it has at most.
    limit: usize,
    items: Mutex<Items<T>>,
    /// One write after the other.
    writing: Mutex<()>,
}

#[derive(Debug)]
struct Items<T> {
    known: HashSet<T>,
    /// The oldest first.
    order: VecDeque<T>,
}

impl<T: Clone + Eq + Hash + Serialize + DeserializeOwned> RememberedSet<T> {
    /// The items in a file, of which only those are taken that `accepts` names; none if there is no file, if it can't be read,
    /// or if it is another user's: it decides what a dock can do here.
    pub(crate) fn read(file: PathBuf, limit: usize, accepts: fn(&T) -> bool) -> Self {
        let own = rustix::process::geteuid().as_raw();
        let found: Vec<T> = project_file::read_own(&file, |owner| owner == own)
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok())
            .unwrap_or_default();
        let set = Self {
            file,
            limit,
            items: Mutex::new(Items {
                known: HashSet::new(),
                order: VecDeque::new(),
            }),
            writing: Mutex::default(),
        };
        for item in found.into_iter().filter(accepts) {
            set.insert(item);
        }
        set
    }

    /// Adds an item; false if it is there already.
    pub(crate) fn insert(&self, item: T) -> bool {
        let mut items = lock(&self.items);
        if !items.known.insert(item.clone()) {
            return false;
        }
        items.order.push_back(item);
        if items.order.len() > self.limit
            && let Some(oldest) = items.order.pop_front()
        {
            items.known.remove(&oldest);
        }
        true
    }

    /// Removes an item; false if it is not there.
    pub(crate) fn remove<Q>(&self, item: &Q) -> bool
    where
        T: std::borrow::Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        let mut items = lock(&self.items);
        let is_known = items.known.remove(item);
        if is_known {
            items.order.retain(|other| other.borrow() != item);
        }
        is_known
    }

    pub(crate) fn contains<Q>(&self, item: &Q) -> bool
    where
        T: std::borrow::Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        lock(&self.items).known.contains(item)
    }

    /// All items, the oldest first.
    pub(crate) fn all(&self) -> VecDeque<T> {
        lock(&self.items).order.clone()
    }

    /// Writes them to the file. This waits for the disk.
    pub(crate) fn write(&self) -> io::Result<()> {
        let _turn = lock(&self.writing);
        write(&self.file, &self.all())
    }
}

/// Writes items to a private file, whose directory is made.
pub(crate) fn write<T: Serialize>(file: &Path, items: &VecDeque<T>) -> io::Result<()> {
    if let Some(directory) = file.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    }
    private_file::replace_quickly(file, &serde_json::to_vec(items)?)
}
