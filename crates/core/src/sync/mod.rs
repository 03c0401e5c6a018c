//! A project and its copy on a dock, the *workspace*, kept in step.
//!
//! Only what changed travels, and each file arrives whole or not at all. What changed since the last sync, and on which
//! side, is told by a [`manifest`]: for every path its contents then, and by what each side's file system marked it (size,
//! times, inode), so that neither clock need be right. [`plan`] compares the two sides with it, as a value; [`session`]
//! carries the plan out.
//!
//! The dock needs a POSIX shell and the tools of busybox. Nothing is installed there: [`script`] has what is run.
//! What it says ([`listing`]) and sends is hostile: names that lead out of the project, links in the place of
//! directories and sizes that lie are refused, and nothing is ever written through a symbolic link. What decides or runs
//! things here ([`guard`]) it never changes without a person's word.

pub mod asker;
pub mod clock;
pub mod compression;
pub mod guard;
pub mod holder;
pub mod listing;
pub mod local;
pub mod manifest;
pub mod news;
pub mod obeyed;
pub mod owner;
pub mod plan;
pub mod receive;
pub mod remote;
pub mod request;
pub mod rhythm;
pub mod rsync;
pub mod samples;
pub mod script;
pub mod script_head;
pub mod send;
pub mod session;
pub mod shared;
#[cfg(test)]
mod tests;
pub mod trash;
pub mod trash_script;
pub mod watch;

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};

use crate::hexadecimal::hex;

/// Our own directory in a workspace, and while files are received in a project, too: never part of either.
pub const OWN_DIRECTORY: &[u8] = b".dockerutils-sync";
/// The bits of a mode that travel. Set-user-ID and its like are left to each side: directories inherit them.
pub const MODE_BITS: u32 = 0o777;
/// Of a mode on the dock, these are not taken: who may write to a file here is said here.
pub const OTHERS_WRITE: u32 = 0o022;
/// The longest path that is taken: the kernel's own limit.
pub const LONGEST_PATH: usize = 4096;

/// What a path is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ItemKind {
    /// A regular file; another name of one is a file of its own.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
}

/// By what a file system marks a file that was not touched since.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// In bytes.
    pub size: u64,
    /// Last modification, in seconds since 1970.
    pub mtime: i64,
    /// Last change of contents or attributes, in nanoseconds since 1970; whole seconds where the side knows no more.
    pub ctime_ns: i64,
    /// Its number in its file system.
    pub inode: u64,
}

/// What contents are told by: SHA-256 of a file's bytes, or of a symbolic link's text.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Content(pub [u8; 32]);

impl Content {
    /// Of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Reads what `sha256sum` prints; `None` for anything else.
    pub fn from_hex(text: &[u8]) -> Option<Self> {
        let mut bytes = [0; 32];
        if text.len() != 64 {
            return None;
        }
        for (byte, digits) in bytes.iter_mut().zip(text.chunks_exact(2)) {
            let [high, low] = digits else { return None };
            let digit = |c: u8| char::from(c).to_digit(16).filter(|_| !c.is_ascii_uppercase());
            *byte = u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()?;
        }
        Some(Self(bytes))
    }
}

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

/// A path of one side, as it is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// What it is.
    pub kind: ItemKind,
    /// Permission bits, of [`MODE_BITS`].
    pub mode: u32,
    /// By what it is told from a changed one.
    pub stamp: Stamp,
    /// The user it belongs to.
    pub owner: u32,
    /// The file system that it is on: 0 for the root's own, else the number that its side has for it.
    pub device: u64,
    /// The text of a symbolic link, where it is known already.
    pub target: Option<Vec<u8>>,
}

/// The paths of one side, relative and with `/` between names; a directory comes before what is in it.
pub type Tree = BTreeMap<Vec<u8>, Item>;

/// What lies below a directory.
pub fn below<'a, T>(tree: &'a BTreeMap<Vec<u8>, T>, path: &[u8]) -> impl Iterator<Item = (&'a Vec<u8>, &'a T)> {
    // '0' follows '/'.
    tree.range([path, b"/"].concat()..[path, b"0"].concat())
}

/// The directories that a path lies in, outermost first; the root is not among them.
pub fn ancestors(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.iter()
        .enumerate()
        .filter(|(_, byte)| **byte == b'/')
        .filter_map(|(end, _)| path.get(..end))
}

/// The directory of a path, empty for the root; and its last name.
pub fn split(path: &[u8]) -> (&[u8], &[u8]) {
    let slash = path.iter().rposition(|byte| *byte == b'/');
    match slash.and_then(|slash| path.split_at_checked(slash)) {
        Some((parent, name)) => (parent, name.get(1..).unwrap_or_default()),
        None => (b"", path),
    }
}

/// Whether a path is this one, or below it; everything is below the root.
pub fn is_at_or_below(path: &[u8], top: &[u8]) -> bool {
    top.is_empty()
        || path
            .strip_prefix(top)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

/// Whether a path of the dock may be one of a project: relative, without `.` and `..`, and not ours.
pub fn is_acceptable(path: &[u8]) -> bool {
    let mut names = path.split(|byte| *byte == b'/');
    path.len() < LONGEST_PATH
        && !path.contains(&0)
        && names.all(|name| !matches!(name, b"" | b"." | b".."))
        && path.split(|byte| *byte == b'/').next() != Some(OWN_DIRECTORY)
}

/// A path, for people: bytes that are not UTF-8 are replaced, and nothing moves the cursor.
pub fn shown(path: &[u8]) -> String {
    crate::output::visible(&String::from_utf8_lossy(path))
}
