//! Which entries make a context heavy, and how to leave them out.
//!
//! The heaviest entry of a project is seldom at its top: it is `web/node_modules`, not `web`. So a
//! directory is only named when its weight is spread; where one entry holds most of it, that one is.

use super::walk::{ContextEntry, FileKind};

/// How many entries are named.
const NAMED: usize = 5;

/// An entry worth leaving out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heavy {
    /// Relative to the context.
    pub path: Vec<u8>,
    /// With all that is in it, in bytes.
    pub size: u64,
    pub is_directory: bool,
    /// The line of `.dockerignore` (at its end) that leaves it out.
    pub ignore_line: String,
}

/// Adds up the entries of a [`Walk`](super::Walk), in its order. Memory: five entries for each level.
#[derive(Debug, Default)]
pub struct Weights {
    /// The directories that the last entry is in, outermost first.
    open: Vec<Directory>,
    root: Directory,
}

#[derive(Debug, Default)]
struct Directory {
    path: Vec<u8>,
    size: u64,
    /// The heaviest of its entries: itself, not what is named for it.
    heaviest: u64,
    /// What would be named in it, heaviest first.
    named: Vec<Candidate>,
}

#[derive(Debug)]
struct Candidate {
    path: Vec<u8>,
    size: u64,
    is_directory: bool,
}

impl Weights {
    /// Counts an entry.
    pub fn add(&mut self, entry: &ContextEntry) {
        while let Some(directory) = self.open.pop_if(|open| !is_in(&entry.path, &open.path)) {
            self.close(directory);
        }
        match entry.kind {
            FileKind::Directory => self.open.push(Directory {
                path: entry.path.clone(),
                ..Directory::default()
            }),
            // Nothing is sent for the second name of a file.
            FileKind::File if entry.size > 0 => self.parent().take(entry.size, || {
                vec![Candidate {
                    path: entry.path.clone(),
                    size: entry.size,
                    is_directory: false,
                }]
            }),
            _ => {}
        }
    }

    /// The size of all files so far, in bytes.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.open.iter().map(|open| open.size).sum::<u64>() + self.root.size
    }

    /// The five heaviest entries, none inside another, heaviest first.
    #[must_use]
    pub fn finish(mut self) -> Vec<Heavy> {
        while let Some(directory) = self.open.pop() {
            self.close(directory);
        }
        let heavy = |candidate: Candidate| Heavy {
            ignore_line: ignore_line(&candidate.path),
            path: candidate.path,
            size: candidate.size,
            is_directory: candidate.is_directory,
        };
        self.root.named.into_iter().map(heavy).collect()
    }

    fn close(&mut self, directory: Directory) {
        let is_spread = directory.heaviest <= directory.size / 2;
        let Directory { path, size, named, .. } = directory;
        self.parent().take(size, || {
            if is_spread {
                vec![Candidate {
                    path,
                    size,
                    is_directory: true,
                }]
            } else {
                named
            }
        });
    }

    fn parent(&mut self) -> &mut Directory {
        self.open.last_mut().unwrap_or(&mut self.root)
    }
}

impl Directory {
    /// Adds an entry of that size. What would be named for it is only asked for where it may count.
    fn take(&mut self, size: u64, named: impl FnOnce() -> Vec<Candidate>) {
        self.size += size;
        self.heaviest = self.heaviest.max(size);
        let least = self.named.get(NAMED - 1).map_or(0, |least| least.size);
        if size > least {
            self.named.extend(named());
            self.named.sort_by_key(|candidate| std::cmp::Reverse(candidate.size));
            self.named.truncate(NAMED);
        }
    }
}

fn is_in(path: &[u8], directory: &[u8]) -> bool {
    path.strip_prefix(directory).is_some_and(|rest| rest.starts_with(b"/"))
}

/// The pattern that matches a path, and as little else as a pattern can.
#[must_use]
pub fn ignore_line(path: &[u8]) -> String {
    let mut line = String::new();
    let text = path.utf8_chunks().flat_map(|chunk| {
        let invalid = std::iter::repeat_n(char::REPLACEMENT_CHARACTER, chunk.invalid().len());
        chunk.valid().chars().chain(invalid)
    });
    let mut text = text.peekable();
    while let Some(rune) = text.next() {
        let at_edge = line.is_empty() || text.peek().is_none();
        match rune {
            ' ' if at_edge => line.push_str("[ ]"),
            // What cannot stand in a line, or there: any one rune.
            char::REPLACEMENT_CHARACTER | '\u{feff}' => line.push('?'),
            _ if rune.is_control() || (at_edge && rune.is_whitespace()) => line.push('?'),
            '*' | '?' | '[' | ']' | '\\' | '^' => line.extend(['\\', rune]),
            '!' | '#' if line.is_empty() => line.extend(['\\', rune]),
            _ => line.push(rune),
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Patterns, ignore};

    fn entry(path: &str, size: Option<u64>) -> ContextEntry {
        ContextEntry {
            path: path.as_bytes().to_vec(),
            kind: size.map_or(FileKind::Directory, |_| FileKind::File),
            permissions: 0o644,
            uid: 0,
            gid: 0,
            size: size.unwrap_or(0),
            mtime_ns: 0,
            ctime_ns: 0,
            inode: 0,
            device: 0,
            xattrs: Vec::new(),
        }
    }

    fn heaviest(entries: &[(&str, Option<u64>)]) -> Vec<(String, u64)> {
        let mut weights = Weights::default();
        for (path, size) in entries {
            weights.add(&entry(path, *size));
        }
        let total: u64 = entries.iter().filter_map(|(_, size)| *size).sum();
        assert_eq!(weights.total(), total);
        weights
            .finish()
            .into_iter()
            .map(|heavy| (heavy.ignore_line, heavy.size))
            .collect()
    }

    #[test]
    fn names_where_the_weight_is() {
        let found = heaviest(&[
            (".git", None),
            (".git/objects", None),
            (".git/objects/1", Some(30)),
            (".git/objects/2", Some(30)),
            ("main.rs", Some(10)),
            ("web", None),
            ("web/dist", None),
            ("web/dist/app.js", Some(80)),
            ("web/dist/app.css", Some(5)),
            ("web/node_modules", None),
            ("web/node_modules/a", Some(400)),
            ("web/node_modules/b", Some(300)),
            ("web/node_modules/c", Some(300)),
        ]);
        let expected = [
            ("web/node_modules", 1000),
            ("web/dist/app.js", 80),
            (".git/objects", 60),
            ("main.rs", 10),
            ("web/dist/app.css", 5),
        ];
        assert_eq!(found, expected.map(|(path, size)| (path.to_owned(), size)));
    }

    #[test]
    fn five_are_named() {
        let files: Vec<_> = (0..20)
            .map(|index| (format!("f{index:02}"), Some(index * 10)))
            .collect();
        let files: Vec<_> = files.iter().map(|(path, size)| (path.as_str(), *size)).collect();
        let sizes: Vec<_> = heaviest(&files).into_iter().map(|(_, size)| size).collect();
        assert_eq!(sizes, [190, 180, 170, 160, 150]);
    }

    #[test]
    fn empty_contexts_name_nothing() {
        assert_eq!(heaviest(&[("a", None), ("a/b", Some(0))]), []);
    }

    #[test]
    fn the_line_leaves_the_entry_out() {
        for path in [
            "plain/a.b",
            "a*b",
            "a?b",
            "[a]",
            "a^b*",
            "back\\slash",
            "!a",
            "#a",
            " a ",
            "a b",
            "a\nb",
            "\ta",
            "é",
            "a\u{a0}",
            "\u{feff}a",
            "\r",
            "{a,b}",
            "$a",
            "a[-]",
            "b\\d",
            "日本/[x]",
        ] {
            let line = ignore_line(path.as_bytes());
            let patterns = Patterns::parse(ignore::read(line.as_bytes()).unwrap()).unwrap();
            assert_eq!(patterns.matches(path.as_bytes()), Ok(true), "{path:?}: {line}");
        }
        let line = ignore_line(b"a\xff\xe9b");
        let patterns = Patterns::parse(ignore::read(line.as_bytes()).unwrap()).unwrap();
        assert_eq!(patterns.matches(b"a\xff\xe9b"), Ok(true), "{line}");
    }
}
