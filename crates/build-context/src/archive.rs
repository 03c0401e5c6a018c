//! The build context as one tar stream, which the classic builder reads from the request's body.
//!
//! The entries are those that the docker client sends with `DOCKER_BUILDKIT=0`: everything belongs to 0:0,
//! times are whole seconds, long names and large sizes are PAX records
//! (<https://pubs.opengroup.org/onlinepubs/9699919799/utilities/pax.html>), and the one extended attribute
//! is `security.capability`. Where the docker client drops a file that it cannot read, breaks off at one that
//! shrinks, or ends the archive early at a pattern that turns out to be wrong, this is an error.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use tar::{EntryType, Header};

use super::ignore::{Builder, Patterns};
use super::walk::{ContextDir, ContextEntry, Device, FileKind, WalkError, WalkOptions};

/// What tar counts in, in bytes.
const BLOCK: u64 = 512;

/// The largest size that the 11 octal digits of a header hold.
const LARGEST_OCTAL: u64 = 0o777_7777_7777;

/// The longest name in a header.
const LONGEST_NAME: usize = 100;

/// How much of a file is read at once, in bytes.
const CHUNK: usize = 128 * 1024;

const IGNORE_FILE: &[u8] = b".dockerignore";

/// The mode of the files that are added to the context.
const PRIVATE: u32 = 0o600;

/// A context that could not be sent whole.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// A file or directory cannot be read, or a pattern is wrong.
    #[error(transparent)]
    Walk(#[from] WalkError),
    /// A file was listed and is gone.
    #[error("{} vanished while the build context was sent", .0.display())]
    Vanished(PathBuf),
    /// A file has become shorter than its header says.
    #[error("{} shrank from {expected} to {found} bytes while it was sent", path.display())]
    Shrunk {
        /// The file, with the context's path before it.
        path: PathBuf,
        /// Its size when it was listed, in bytes.
        expected: u64,
        /// What could be read of it, in bytes.
        found: u64,
    },
    /// The receiver does not take the stream.
    #[error("cannot send the build context")]
    Send(#[source] io::Error),
}

/// What is sent.
#[derive(Debug, Clone, Default)]
pub struct ArchiveOptions {
    /// The patterns of `.dockerignore`, as [`read`](super::ignore::read) gives them.
    pub exclude: Vec<Vec<u8>>,
    /// The Dockerfile's path in the context. It is sent even when a pattern leaves it out (the engine
    /// removes it again before it copies), as is `.dockerignore`.
    pub dockerfile: Option<Vec<u8>>,
    /// A Dockerfile that is not in the context.
    pub extra: Option<ExtraFile>,
}

/// A file that is sent along and that no `COPY` may see: its name is added to the `.dockerignore` that is
/// sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtraFile {
    /// A name that the context does not have, such as `.dockerfile.3f2a91`.
    pub name: Vec<u8>,
    /// Its bytes.
    pub contents: Vec<u8>,
}

/// Writes the archive of a context, and shows each entry of the context to `observe` before it is sent.
///
/// A file that grows meanwhile is sent up to the size that it had.
///
/// # Errors
///
/// See [`ArchiveError`]. What was written by then is no complete archive.
pub fn write_archive<W: Write>(
    context: &ContextDir,
    options: &ArchiveOptions,
    out: W,
    mut observe: impl FnMut(&ContextEntry),
) -> Result<(), ArchiveError> {
    let walk = context.walk(&WalkOptions {
        exclude: excludes(options)?,
        builder: Builder::Classic,
        ..WalkOptions::default()
    })?;
    let mut archive = Archive {
        out,
        buffer: vec![0; CHUNK],
    };
    let mut hidden = options.extra.as_ref();
    for entry in walk {
        let entry = entry?;
        observe(&entry);
        match hidden {
            Some(extra) if entry.path == IGNORE_FILE && entry.kind == FileKind::File => {
                let mut contents = Vec::new();
                let mut file = archive_file(context, &entry)?;
                file.read_to_end(&mut contents)
                    .map_err(|source| read_error(context, &entry, source))?;
                archive.append_bytes(&entry, &hiding(contents, &extra.name))?;
                hidden = None;
            }
            _ => archive.append(context, &entry)?,
        }
    }
    if let Some(extra) = &options.extra {
        archive.append_bytes(&added(&extra.name), &extra.contents)?;
    }
    if let Some(extra) = hidden {
        let contents = hiding(IGNORE_FILE.to_vec(), &extra.name);
        archive.append_bytes(&added(IGNORE_FILE), &contents)?;
    }
    archive.finish()
}

/// The patterns, with exceptions for the files that the engine needs.
fn excludes(options: &ArchiveOptions) -> Result<Vec<Vec<u8>>, WalkError> {
    let mut excludes = options.exclude.clone();
    let needed = [Some(IGNORE_FILE), options.dockerfile.as_deref()];
    for path in needed.into_iter().flatten() {
        if Patterns::parse(&excludes)?.matches(path)? {
            excludes.push([b"!", path].concat());
        }
    }
    Ok(excludes)
}

/// The contents of an ignore file to which a name is added.
fn hiding(mut contents: Vec<u8>, name: &[u8]) -> Vec<u8> {
    contents.push(b'\n');
    contents.extend_from_slice(name);
    contents.push(b'\n');
    contents
}

/// The entry of a file that the context does not have.
fn added(name: &[u8]) -> ContextEntry {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let mtime_ns = now.map_or(0, |now| i64::try_from(now.as_nanos()).unwrap_or_default());
    ContextEntry {
        path: name.to_vec(),
        kind: FileKind::File,
        permissions: PRIVATE,
        uid: 0,
        gid: 0,
        size: 0,
        mtime_ns,
        ctime_ns: mtime_ns,
        inode: 0,
        device: 0,
        xattrs: Vec::new(),
    }
}

fn archive_file(context: &ContextDir, entry: &ContextEntry) -> Result<File, ArchiveError> {
    context.open_file(&entry.path).map_err(|error| match error {
        WalkError::Io { path, source, .. } if source.kind() == io::ErrorKind::NotFound => ArchiveError::Vanished(path),
        error => error.into(),
    })
}

fn read_error(context: &ContextDir, entry: &ContextEntry, source: io::Error) -> ArchiveError {
    ArchiveError::Walk(WalkError::Io {
        action: "read",
        path: context.locate(&entry.path),
        source,
    })
}

/// A tar stream that is being written.
struct Archive<W> {
    out: W,
    buffer: Vec<u8>,
}

impl<W: Write> Archive<W> {
    fn append(&mut self, context: &ContextDir, entry: &ContextEntry) -> Result<(), ArchiveError> {
        if entry.kind != FileKind::File || entry.size == 0 {
            return self.header(entry, 0);
        }
        // Opened first: what cannot be opened should not have a header either.
        let mut file = archive_file(context, entry)?;
        // One that was put in its place since it was listed is sent whole.
        let found = file.metadata().map_err(|source| read_error(context, entry, source))?;
        let size = match found.ino() == entry.inode {
            true => entry.size,
            false => found.len(),
        };
        self.header(entry, size)?;
        let mut left = size;
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
            let buffer = self.buffer.get_mut(..most).unwrap_or_default();
            let count = match file.read(buffer) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(read_error(context, entry, error)),
            };
            if count == 0 {
                return Err(ArchiveError::Shrunk {
                    path: context.locate(&entry.path),
                    expected: size,
                    found: size - left,
                });
            }
            let read = buffer.get(..count).unwrap_or_default();
            self.out.write_all(read).map_err(ArchiveError::Send)?;
            left = left.saturating_sub(count as u64);
        }
        self.pad(size)
    }

    fn append_bytes(&mut self, entry: &ContextEntry, contents: &[u8]) -> Result<(), ArchiveError> {
        self.header(entry, contents.len() as u64)?;
        self.out.write_all(contents).map_err(ArchiveError::Send)?;
        self.pad(contents.len() as u64)
    }

    /// Writes an entry's header, after a header of PAX records for what it cannot hold.
    fn header(&mut self, entry: &ContextEntry, size: u64) -> Result<(), ArchiveError> {
        let mut records = PaxRecords::default();
        let mut name = entry.path.clone();
        if entry.is_directory() {
            name.push(b'/');
        }
        if !fits(&name) {
            records.add("path", &name);
        }
        if !fits(entry.link_name()) {
            records.add("linkpath", entry.link_name());
        }
        if size > LARGEST_OCTAL {
            records.add("size", size.to_string().as_bytes());
        }
        let seconds = entry.mtime_ns.div_euclid(1_000_000_000);
        if seconds < 0 {
            records.add("mtime", seconds.to_string().as_bytes());
        }
        if let Some(capability) = capability(entry) {
            records.add("SCHILY.xattr.security.capability", &capability);
        }

        let mut header = Header::new_ustar();
        header.set_entry_type(match entry.kind {
            FileKind::Directory => EntryType::Directory,
            FileKind::File => EntryType::Regular,
            FileKind::HardLink(_) => EntryType::Link,
            FileKind::Symlink(_) => EntryType::Symlink,
            FileKind::Fifo => EntryType::Fifo,
            FileKind::BlockDevice(_) => EntryType::Block,
            FileKind::CharDevice(_) => EntryType::Char,
        });
        header.set_mode(entry.permissions);
        header.set_uid(0);
        header.set_gid(0);
        // A reader of PAX takes these from the records.
        header.set_size(if size > LARGEST_OCTAL { 0 } else { size });
        header.set_mtime(u64::try_from(seconds).unwrap_or_default());
        copy_into(&mut header.as_old_mut().name, &name);
        copy_into(&mut header.as_old_mut().linkname, entry.link_name());
        if let (Some(Device { major, minor }), Some(ustar)) = (entry.device(), header.as_ustar_mut()) {
            ustar.set_device_major(major);
            ustar.set_device_minor(minor);
        }
        if !records.0.is_empty() {
            let mut extended = Header::new_ustar();
            extended.set_entry_type(EntryType::XHeader);
            extended.set_mode(0o644);
            extended.set_uid(0);
            extended.set_gid(0);
            extended.set_mtime(0);
            extended.set_size(records.0.len() as u64);
            copy_into(&mut extended.as_old_mut().name, b"PaxHeaders.0");
            self.block(extended)?;
            self.out.write_all(&records.0).map_err(ArchiveError::Send)?;
            self.pad(records.0.len() as u64)?;
        }
        self.block(header)
    }

    fn block(&mut self, mut header: Header) -> Result<(), ArchiveError> {
        header.set_cksum();
        self.out.write_all(header.as_bytes()).map_err(ArchiveError::Send)
    }

    /// Fills the last block of that many bytes.
    fn pad(&mut self, written: u64) -> Result<(), ArchiveError> {
        let missing = written.next_multiple_of(BLOCK) - written;
        io::copy(&mut io::repeat(0).take(missing), &mut self.out)
            .map(|_| ())
            .map_err(ArchiveError::Send)
    }

    fn finish(mut self) -> Result<(), ArchiveError> {
        io::copy(&mut io::repeat(0).take(2 * BLOCK), &mut self.out)
            .and_then(|_| self.out.flush())
            .map_err(ArchiveError::Send)
    }
}

/// Whether a name can stand in a header: PAX says that other bytes than ASCII have no meaning there.
fn fits(name: &[u8]) -> bool {
    name.len() <= LONGEST_NAME && name.is_ascii()
}

fn copy_into(field: &mut [u8], text: &[u8]) {
    for (slot, byte) in field.iter_mut().zip(text) {
        *slot = *byte;
    }
}

/// PAX records, as the body of their header.
#[derive(Default)]
struct PaxRecords(Vec<u8>);

impl PaxRecords {
    fn add(&mut self, key: &str, value: &[u8]) {
        // "<length> <key>=<value>\n", and the length counts its own digits.
        let rest = key.len() + value.len() + 3;
        let mut length = rest + rest.to_string().len();
        while length != rest + length.to_string().len() {
            length = rest + length.to_string().len();
        }
        self.0.extend_from_slice(format!("{length} {key}=").as_bytes());
        self.0.extend_from_slice(value);
        self.0.push(b'\n');
    }
}

/// The file's capabilities, without the user namespace that revision 3 ties them to
/// (`linux/capability.h`): it means nothing on another machine.
fn capability(entry: &ContextEntry) -> Option<Vec<u8>> {
    const REVISION: usize = 3;
    const REVISION_2_LENGTH: usize = 20;
    let (_, value) = entry.xattrs.iter().find(|(name, _)| name == b"security.capability")?;
    let mut value = value.clone();
    if let Some(revision) = value.get_mut(REVISION).filter(|revision| **revision == 3) {
        *revision = 2;
        value.truncate(REVISION_2_LENGTH);
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn context(files: &[(&str, &str)]) -> (tempfile::TempDir, ContextDir) {
        let root = tempfile::tempdir().unwrap();
        for (path, contents) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, contents).unwrap();
        }
        let context = ContextDir::open(root.path()).unwrap();
        (root, context)
    }

    fn entries(archive: &[u8]) -> Vec<(String, String)> {
        let mut archive = tar::Archive::new(archive);
        let entries = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let mut contents = String::new();
            entry.read_to_string(&mut contents).unwrap();
            (entry.path().unwrap().to_str().unwrap().to_owned(), contents)
        });
        entries.collect()
    }

    fn send(context: &ContextDir, options: &ArchiveOptions) -> Vec<(String, String)> {
        let mut archive = Vec::new();
        write_archive(context, options, &mut archive, |_| {}).unwrap();
        assert_eq!(archive.len() % 512, 0);
        entries(&archive)
    }

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter()
            .map(|(path, text)| ((*path).to_owned(), (*text).to_owned()))
            .collect()
    }

    #[test]
    fn what_the_engine_needs_is_always_sent() {
        let files = [(".dockerignore", "*"), ("a", "1"), ("docker/Dockerfile", "FROM a")];
        let (_root, context) = context(&files);
        let options = ArchiveOptions {
            exclude: vec![b"*".to_vec()],
            dockerfile: Some(b"docker/Dockerfile".to_vec()),
            extra: None,
        };
        let expected = [(".dockerignore", "*"), ("docker/Dockerfile", "FROM a")];
        assert_eq!(send(&context, &options), pairs(&expected));
    }

    #[test]
    fn a_file_that_is_replaced_while_it_is_sent_is_sent_whole() {
        let (root, context) = context(&[("a", "1"), ("b", "22"), ("c", "333")]);
        for new in ["longer than before", "s"] {
            let mut archive = Vec::new();
            let replace = |entry: &ContextEntry| {
                if entry.path == b"b" {
                    fs::write(root.path().join("new"), new).unwrap();
                    fs::rename(root.path().join("new"), root.path().join("b")).unwrap();
                }
            };
            write_archive(&context, &ArchiveOptions::default(), &mut archive, replace).unwrap();
            assert_eq!(entries(&archive), pairs(&[("a", "1"), ("b", new), ("c", "333")]));
        }
    }

    #[test]
    fn a_dockerfile_from_elsewhere_is_hidden_from_the_build() {
        let options = ArchiveOptions {
            extra: Some(ExtraFile {
                name: b".dockerfile.1".to_vec(),
                contents: b"FROM b".to_vec(),
            }),
            ..ArchiveOptions::default()
        };
        let (_root, plain) = context(&[("a", "1")]);
        let expected = [
            ("a", "1"),
            (".dockerfile.1", "FROM b"),
            (".dockerignore", ".dockerignore\n.dockerfile.1\n"),
        ];
        assert_eq!(send(&plain, &options), pairs(&expected));
        let (_root, ignoring) = context(&[("a", "1"), (".dockerignore", "x")]);
        let expected = [
            (".dockerignore", "x\n.dockerfile.1\n"),
            ("a", "1"),
            (".dockerfile.1", "FROM b"),
        ];
        assert_eq!(send(&ignoring, &options), pairs(&expected));
    }

    #[test]
    fn names_of_any_length_arrive() {
        let long = format!("{}/{}/é", "d".repeat(120), "e".repeat(200));
        let (_root, context) = context(&[(&long, "x")]);
        fs::hard_link(context.locate(long.as_bytes()), context.locate(b"link")).unwrap();
        let sent = send(&context, &ArchiveOptions::default());
        let names: Vec<_> = sent.iter().map(|(path, _)| path.as_str()).collect();
        let directory = "d".repeat(120) + "/";
        let inner = format!("{directory}{}/", "e".repeat(200));
        assert_eq!(names, [directory.as_str(), &inner, &long, "link"]);
    }

    /// What a file becomes between its listing and its sending.
    fn while_sending(change: impl Fn(&File, &std::path::Path)) -> Result<Vec<u8>, ArchiveError> {
        let (_root, context) = context(&[("a", "12345"), ("b", "")]);
        let path = context.locate(b"a");
        let mut archive = Vec::new();
        write_archive(&context, &ArchiveOptions::default(), &mut archive, |entry| {
            if entry.path == b"a" {
                change(&File::options().write(true).open(&path).unwrap(), &path);
            }
        })?;
        Ok(archive)
    }

    #[test]
    fn a_file_that_grows_is_sent_as_it_was() {
        let archive = while_sending(|file, _| file.set_len(9).unwrap()).unwrap();
        assert_eq!(entries(&archive), pairs(&[("a", "12345"), ("b", "")]));
    }

    #[test]
    fn a_file_that_shrinks_or_vanishes_is_named() {
        let error = while_sending(|file, _| file.set_len(2).unwrap()).unwrap_err();
        assert!(
            error
                .to_string()
                .ends_with("/a shrank from 5 to 2 bytes while it was sent"),
            "{error}"
        );
        let error = while_sending(|_, path| fs::remove_file(path).unwrap()).unwrap_err();
        assert!(
            error
                .to_string()
                .ends_with("/a vanished while the build context was sent"),
            "{error}"
        );
        let error = while_sending(|_, path| {
            fs::remove_file(path).unwrap();
            fs::create_dir(path).unwrap();
        });
        let error = error.unwrap_err();
        assert!(error.to_string().ends_with("/a is not a regular file"), "{error}");
    }

    /// Takes so many bytes.
    struct Short(Vec<u8>, usize);

    impl Write for Short {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.0.len() >= self.1 {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            self.0.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn huge_sizes_are_records() {
        let (_root, context) = context(&[("huge", "")]);
        let size = 9_u64 << 30;
        let file = File::options().write(true).open(context.locate(b"huge")).unwrap();
        file.set_len(size).unwrap();
        let mut short = Short(Vec::new(), 4096);
        let error = write_archive(&context, &ArchiveOptions::default(), &mut short, |_| {});
        assert!(matches!(error, Err(ArchiveError::Send(_))));
        let mut archive = tar::Archive::new(short.0.as_slice());
        let entry = archive.entries().unwrap().next().unwrap().unwrap();
        assert_eq!(entry.size(), size);
    }

    #[test]
    fn capabilities_lose_their_user_namespace() {
        let mut entry = added(b"x");
        assert_eq!(capability(&entry), None);
        let revision = |revision: u8, length: usize| {
            let mut value = vec![7; length];
            value[3] = revision;
            value
        };
        for (stored, sent) in [
            (revision(2, 20), revision(2, 20)),
            (revision(3, 24), revision(2, 20)),
            (vec![1], vec![1]),
        ] {
            entry.xattrs = vec![(b"security.capability".to_vec(), stored)];
            assert_eq!(capability(&entry), Some(sent));
        }
    }

    #[test]
    fn records_count_their_own_digits() {
        for length in [1, 5, 6, 89, 90, 91, 985, 986, 987, 988] {
            let mut records = PaxRecords::default();
            records.add("path", &vec![b'x'; length]);
            let text = String::from_utf8(records.0).unwrap();
            let (count, _) = text.split_once(' ').unwrap();
            assert_eq!(count.parse(), Ok(text.len()));
        }
    }
}
