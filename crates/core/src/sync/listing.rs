//! The dock's listing of its files: records of `stat`, in the order of `find`.
//!
//! A record is `//s MODE SIZE MTIME CTIME INODE DEVICE OWNER DATE PATH` (`stat -c '//s %f %s %Y %Z %i %d %u %z %n'`) and a
//! line feed. Names may hold line feeds; they can't hold `//`, so that a record ends where a line feed and `//` follow.
//! `DATE` is CTIME again, in words of UTC: the only form in which `stat` of busybox tells nanoseconds.

use std::collections::{BTreeSet, HashMap};

use super::clock::Clocks;
use super::{Item, ItemKind, LONGEST_PATH, MODE_BITS, OWN_DIRECTORY, Stamp, Tree, is_acceptable, split};
use build_context::{PatternError, Selector};

/// The format of a record, for `stat -c`.
pub const FORMAT: &str = "//s %f %s %Y %Z %i %d %u %z %n";
/// The most paths that are taken from a workspace.
pub const MOST_PATHS: usize = 5_000_000;

/// A listing that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ListingError {
    /// It stops before its end: the link was cut, or the dock ran out of something.
    #[error("the list of files on the dock is cut short")]
    Cut,
    /// A record that makes no sense.
    #[error("the list of files on the dock is damaged: {0:?}")]
    Record(String),
    /// More than a person's project.
    #[error("the workspace has more than {MOST_PATHS} files")]
    TooMany,
    /// A pattern of `.dockerignore`.
    #[error(transparent)]
    Pattern(#[from] PatternError),
}

/// The files of a workspace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Those that a sync is about.
    pub tree: Tree,
    /// The number of the file system that the workspace itself is on.
    pub device: u64,
    /// How `find` ended.
    pub status: u8,
    /// Whether times come with their nanoseconds: not from every busybox.
    pub precise: bool,
    /// How finely its file systems tell times.
    pub clocks: Clocks,
}

/// Splits what `find` and `stat` printed into records, without their `//`.
pub fn records(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = text.strip_prefix(b"//");
    std::iter::from_fn(move || {
        let text = rest?;
        let end = find(text, b"\n//");
        let (record, after) = match end {
            Some(end) => (text.get(..end)?, text.get(end + 3..)),
            None => (text.strip_suffix(b"\n").unwrap_or(text), None),
        };
        rest = after;
        Some(record)
    })
}

fn find(text: &[u8], what: &[u8; 3]) -> Option<usize> {
    let mut from = 0;
    loop {
        let at = from + text.get(from..)?.iter().position(|byte| *byte == what[0])?;
        if text.get(at..at + 3) == Some(what) {
            return Some(at);
        }
        from = at + 1;
    }
}

/// Reads a record, without its `//`: the path as it was printed, and what is there. None for things that do not travel:
/// pipes, sockets, devices.
///
/// # Errors
/// [`ListingError::Record`].
pub fn record(text: &[u8]) -> Result<(&[u8], Option<Item>), ListingError> {
    parse(text).ok_or_else(|| {
        let start = text.get(..text.len().min(200)).unwrap_or_default();
        ListingError::Record(String::from_utf8_lossy(start).into_owned())
    })
}

fn parse(text: &[u8]) -> Option<(&[u8], Option<Item>)> {
    let mut rest = text.strip_prefix(b"s ")?;
    let mut field = || {
        let end = rest.iter().position(|byte| *byte == b' ')?;
        let (field, after) = rest.split_at_checked(end)?;
        rest = after.get(1..)?;
        std::str::from_utf8(field).ok()
    };
    let mode = u32::from_str_radix(field()?, 16).ok()?;
    let size = field()?.parse().ok()?;
    let mtime: i64 = field()?.parse().ok()?;
    let ctime: i64 = field()?.parse().ok()?;
    let inode = field()?.parse().ok()?;
    let device = field()?.parse().ok()?;
    let owner = field()?.parse().ok()?;
    let _day = field()?;
    let nanoseconds: i64 = match field()?.split_once('.') {
        Some((_, digits)) if digits.len() == 9 => digits.parse().ok()?,
        _ => 0,
    };
    let _zone = field()?;
    if rest.len() > LONGEST_PATH + 2 {
        return None;
    }
    let kind = match mode & 0o170_000 {
        0o100_000 => ItemKind::File,
        0o040_000 => ItemKind::Directory,
        0o120_000 => ItemKind::Symlink,
        _ => return Some((rest, None)),
    };
    let item = Item {
        kind,
        mode: mode & MODE_BITS,
        stamp: Stamp {
            size: if kind == ItemKind::Directory { 0 } else { size },
            mtime,
            ctime_ns: ctime.checked_mul(1_000_000_000)?.checked_add(nanoseconds)?,
            inode,
        },
        owner,
        device,
        target: None,
    };
    Some((rest, Some(item)))
}

/// Reads a whole listing, and keeps what the selector lists: the same that it would list of the project.
///
/// # Errors
/// See [`ListingError`].
pub fn read(text: &[u8], selector: &mut Selector) -> Result<Listing, ListingError> {
    let mut listing = Listing::default();
    let mut ended = false;
    // Directories that are left out until something in them is not.
    let mut pending: HashMap<Vec<u8>, Item> = HashMap::new();
    for text in records(text) {
        if ended {
            return Err(ListingError::Record("more after the end".to_owned()));
        }
        if let Some(status) = text.strip_prefix(b"status ") {
            let status = std::str::from_utf8(status)
                .ok()
                .and_then(|status| status.trim().parse().ok());
            listing.status = status.ok_or_else(|| ListingError::Record("status".to_owned()))?;
            ended = true;
            continue;
        }
        let (path, item) = record(text)?;
        let Some(mut item) = item else { continue };
        listing.precise |= item.stamp.ctime_ns % 1_000_000_000 != 0;
        if path == b"." {
            listing.device = item.device;
            listing.clocks.learn(0, &item.stamp);
            continue;
        }
        item.device = below_root(item.device, listing.device);
        listing.clocks.learn(item.device, &item.stamp);
        let path = path.strip_prefix(b"./").unwrap_or(path);
        if path.split(|byte| *byte == b'/').next() == Some(OWN_DIRECTORY) {
            continue;
        }
        if !is_acceptable(path) {
            return Err(ListingError::Record(String::from_utf8_lossy(path).into_owned()));
        }
        let is_directory = item.kind == ItemKind::Directory;
        if selector.lists(path, is_directory)? {
            let mut above = split(path).0;
            while !above.is_empty() && !listing.tree.contains_key(above) {
                if let Some(item) = pending.remove(above) {
                    listing.tree.insert(above.to_vec(), item);
                }
                above = split(above).0;
            }
            listing.tree.insert(path.to_vec(), item);
        } else if is_directory {
            pending.insert(path.to_vec(), item);
        }
        if listing.tree.len() + pending.len() > MOST_PATHS {
            return Err(ListingError::TooMany);
        }
    }
    if !ended {
        return Err(ListingError::Cut);
    }
    Ok(listing)
}

/// Of what a listing complained about, the first line that says more than that something vanished meanwhile or that a
/// directory can't be looked into which is known for it; something that is no line where there is no complaint at all.
/// After any of these, what is missing may be there.
pub fn unexplained<'a>(complaints: &'a str, unseen: &BTreeSet<Vec<u8>>) -> Option<&'a str> {
    let mut lines = complaints.lines().filter(|line| !line.trim().is_empty()).peekable();
    if lines.peek().is_none() {
        return Some("find ended with an error, and does not say why");
    }
    lines.find(|line| {
        let vanished = line.ends_with(": No such file or directory");
        let closed = line.ends_with(": Permission denied")
            && unseen.iter().any(|directory| {
                let directory = format!("./{}", String::from_utf8_lossy(directory));
                // `find: './a': Permission denied`, `find: ./a: ...`, `stat: cannot statx './a/b': ...`
                line.split_once(directory.as_str())
                    .is_some_and(|(_, rest)| rest.starts_with(['/', '\'', ':', '"']))
            });
        !vanished && !closed
    })
}

/// What [`Item::device`] says of a path, by the numbers of its own file system and of the root's.
pub const fn below_root(device: u64, root: u64) -> u64 {
    if device == root { 0 } else { device }
}

/// The format of `stat` by which the far side itself sees that nobody was faster: what was listed, without what only we
/// need.
pub const fn expectation_format(precise: bool) -> &'static str {
    if precise {
        "//e %s %Y %i %z %n"
    } else {
        "//e %s %Y %i %Z %n"
    }
}

/// What [`expectation_format`] prints for a file or link, named so, as long as nothing changed.
pub fn expectation(name: &[u8], stamp: &Stamp, precise: bool) -> Vec<u8> {
    let Stamp {
        size,
        mtime,
        ctime_ns,
        inode,
    } = *stamp;
    let seconds = ctime_ns.div_euclid(1_000_000_000);
    let changed = if precise {
        let time = jiff::Timestamp::from_second(seconds).unwrap_or_default();
        let nanoseconds = ctime_ns.rem_euclid(1_000_000_000);
        format!("{}.{nanoseconds:09} +0000", time.strftime("%Y-%m-%d %H:%M:%S"))
    } else {
        seconds.to_string()
    };
    let mut line = format!("//e {size} {mtime} {inode} {changed} ").into_bytes();
    line.extend_from_slice(name);
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use build_context::Builder;

    fn selector(patterns: &[&str]) -> Selector {
        let patterns: Vec<Vec<u8>> = patterns.iter().map(|pattern| pattern.as_bytes().to_vec()).collect();
        Selector::new(&patterns, Builder::default()).unwrap()
    }

    fn line(mode: &str, path: &str) -> String {
        format!("//s {mode} 12 1795266666 1795266667 99 65024 1000 2026-11-21 13:11:07.701757813 +0000 {path}\n")
    }

    #[test]
    fn names_may_hold_line_feeds_and_blanks() {
        let text = [
            line("41ed", "."),
            line("81a4", "./a b\n/s 1 2"),
            line("41ed", "./-d"),
            line("a1ff", "./-d/é\n"),
            "//status 0\n".to_owned(),
        ]
        .concat();
        let listing = read(text.as_bytes(), &mut selector(&[])).unwrap();
        let paths: Vec<&[u8]> = listing.tree.keys().map(Vec::as_slice).collect();
        assert_eq!(paths, ["-d".as_bytes(), "-d/é\n".as_bytes(), b"a b\n/s 1 2"]);
        assert_eq!((listing.device, listing.status), (65024, 0));
        let item = &listing.tree[&b"a b\n/s 1 2"[..]];
        assert_eq!((item.mode, item.owner, item.kind), (0o644, 1000, ItemKind::File));
        assert_eq!(item.stamp.ctime_ns, 1_795_266_667_701_757_813);
    }

    #[test]
    fn what_is_ignored_is_left_out_and_so_are_pipes_and_our_own() {
        let text = [
            line("41ed", "."),
            line("41ed", "./build"),
            line("81a4", "./build/out"),
            line("81a4", "./build/keep"),
            line("41ed", "./cache"),
            line("81a4", "./cache/x"),
            line("11a4", "./pipe"),
            line("41ed", "./.dockerutils-sync"),
            "//status 0\n".to_owned(),
        ]
        .concat();
        let listing = read(text.as_bytes(), &mut selector(&["build/*", "!build/keep", "cache"])).unwrap();
        let paths: Vec<&[u8]> = listing.tree.keys().map(Vec::as_slice).collect();
        assert_eq!(paths, [&b"build"[..], b"build/keep"]);
    }

    #[test]
    fn only_what_vanished_and_closed_directories_may_be_missing() {
        let unseen: BTreeSet<Vec<u8>> = [b"closed".to_vec()].into();
        for explained in [
            "find: './closed': Permission denied\n",
            "find: ./closed: Permission denied\nstat: can't stat './a': No such file or directory\n",
            "stat: cannot statx './closed/x': Permission denied\n",
        ] {
            assert_eq!(unexplained(explained, &unseen), None, "{explained}");
        }
        for line in [
            "find: './dead': Transport endpoint is not connected",
            "stat: cannot statx './a': Stale file handle",
            "stat: cannot statx './a': Input/output error",
            "find: './closed-too': Permission denied",
            "sh: can't fork: Resource temporarily unavailable",
        ] {
            let text = format!("find: './closed': Permission denied\n{line}\n");
            assert_eq!(unexplained(&text, &unseen), Some(line));
        }
        assert!(unexplained("\n", &unseen).is_some());
    }

    #[test]
    fn hostile_listings_are_refused() {
        let end = "//status 0\n";
        for path in ["../out", "/etc/passwd", "./a/../../b", "./a//b", "./", "./a/."] {
            let text = [line("81a4", path), end.to_owned()].concat();
            assert!(read(text.as_bytes(), &mut selector(&[])).is_err(), "{path}");
        }
        for text in [
            "",
            "hello\n",
            "//s 81a4 1 2 3 ./x\n//status 0\n",
            "//s zz 12 1 1 9 6 1 d t z ./x\n//status 0\n",
            "//s 81a4 12 1 9223372036854775807 9 6 1 d t z ./x\n//status 0\n",
            "//s 81a4 -1 1 1 9 6 1 d t z ./x\n//status 0\n",
            "//status 0\n//status 0\n",
            "//status x\n",
        ] {
            assert!(read(text.as_bytes(), &mut selector(&[])).is_err(), "{text}");
        }
        let cut = line("81a4", "./x");
        assert!(matches!(
            read(cut.as_bytes(), &mut selector(&[])),
            Err(ListingError::Cut)
        ));
    }
}
