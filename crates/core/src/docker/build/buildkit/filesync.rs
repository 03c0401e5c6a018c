//! The file-sync service of a build session: BuildKit requests a folder, gets the stat of each file, and fetches only
//! those files that differ from what it kept of the last build.
//!
//! Protocol: `moby.filesync.v1.FileSync/DiffCopy` of moby/buildkit with the packets of tonistiigi/fsutil. We are the
//! sender: a STAT packet for each entry in the order of the walk and an empty one at the end; the engine sends REQ with
//! the position of a file among the STATs, we answer with DATA packets and an empty one; FIN ends both directions.

use std::collections::HashMap;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::StreamExt as _;
use hyper::http;
use prost::Message as _;
use tokio::sync::mpsc;
use tonic::metadata::MetadataMap;
use tonic::{Status, Streaming};
use tonic_prost::ProstDecoder;

use crate::docker::build::pip_conf;
use crate::docker::connect::locality::Locality;
use build_context::Builder;
use build_context::walk::{ContextDir, ContextEntry, FileKind as EntryKind, WalkOptions};
use build_context::weight::{Heavy, Weights};
use dock_client::mutex::lock;

use super::DOCKERFILE;
use super::grpc_stream::{self, Outlet};

/// Bytes of a file in one DATA packet. Larger ones are no faster; smaller ones cost a wake-up each.
const CHUNK: usize = 64 * 1024;
/// STATs in one batch. Each batch wakes the connection once, and a context has many thousands of STATs.
const STATS: usize = 64;
/// Files read at the same time. The engine fetches one after the other, so more would only wait.
const READERS: usize = 2;

/// The first bytes of a Dockerfile that its time is made from.
const STAMPED: u64 = 1 << 20;

/// The packets, with paths and data as raw bytes: names of files need not be UTF-8.
mod packet {
    use bytes::Bytes;
    use std::collections::HashMap;

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Stat {
        #[prost(bytes = "bytes", tag = "1")]
        pub(super) path: Bytes,
        #[prost(uint32, tag = "2")]
        pub(super) mode: u32,
        #[prost(uint32, tag = "3")]
        pub(super) uid: u32,
        #[prost(uint32, tag = "4")]
        pub(super) gid: u32,
        #[prost(int64, tag = "5")]
        pub(super) size: i64,
        #[prost(int64, tag = "6")]
        pub(super) mod_time: i64,
        #[prost(bytes = "bytes", tag = "7")]
        pub(super) linkname: Bytes,
        #[prost(int64, tag = "8")]
        pub(super) devmajor: i64,
        #[prost(int64, tag = "9")]
        pub(super) devminor: i64,
        #[prost(map = "string, bytes", tag = "10")]
        pub(super) xattrs: HashMap<String, Vec<u8>>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Packet {
        #[prost(enumeration = "PacketType", tag = "1")]
        pub(super) kind: i32,
        #[prost(message, optional, tag = "2")]
        pub(super) stat: Option<Stat>,
        #[prost(uint32, tag = "3")]
        pub(super) id: u32,
        #[prost(bytes = "bytes", tag = "4")]
        pub(super) data: Bytes,
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
    #[repr(i32)]
    pub(super) enum PacketType {
        Stat = 0,
        Req = 1,
        Data = 2,
        Fin = 3,
        Err = 4,
    }
}
use packet::{Packet, PacketType, Stat};

/// A folder that the session may be asked for.
#[derive(Clone, Debug)]
pub struct SyncedFolder {
    /// The name by which the Dockerfile frontend asks: `context`, `dockerfile`, or that of a named context.
    pub name: String,
    /// The folder on this machine.
    pub path: PathBuf,
    /// The part of it that the engine may have.
    pub bound: Bound,
    /// A link at the top that is served as the file that it leads to: the engine does not get that file otherwise.
    pub linked: Option<Linked>,
}

/// A file that is served in place of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Linked {
    /// The link.
    pub name: Vec<u8>,
    /// The contents that are served.
    pub contents: Bytes,
}

/// What an engine may have of a folder, whatever it requests: the patterns of a request come from it, and it may be
/// hostile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bound {
    /// Everything that it requests: it is on this machine.
    None,
    /// Everything but what these patterns of `.dockerignore` leave out.
    NotIgnored(Vec<Vec<u8>>),
    /// Only these files at the top.
    Only(Vec<Vec<u8>>),
}

/// The file with the patterns of what is ignored; the engine reads it, too, even if the file ignores itself.
const DOCKERIGNORE: &[u8] = b".dockerignore";

impl Bound {
    fn apply(&self, mut asked: WalkOptions) -> WalkOptions {
        match self {
            Self::None => {}
            Self::NotIgnored(ignored) => {
                let mut names = asked.include.iter().chain(&asked.follow).peekable();
                let is_of_rules = names.peek().is_some() && names.all(|name| name.trim_ascii() == DOCKERIGNORE);
                // An honest engine sends the same patterns, and applying them twice changes nothing.
                if !is_of_rules {
                    asked.withhold.clone_from(ignored);
                }
            }
            Self::Only(names) => {
                asked.include.retain(|name| names.contains(name));
                asked.follow.retain(|name| names.contains(name));
                if asked.include.is_empty() && asked.follow.is_empty() {
                    asked.include.clone_from(names);
                }
            }
        }
        asked
    }
}

/// What was sent, and the heaviest files in it; shared with the build that shows it.
#[derive(Debug, Default)]
pub struct Sent {
    bytes: AtomicU64,
    weight: Mutex<(u64, Vec<Heavy>)>,
    changed: Mutex<Vec<String>>,
    not_utf8: Mutex<Option<String>>,
}

impl Sent {
    /// Bytes of packets sent so far.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// The size of the files that the build uses of the context, in bytes, and the heaviest among them.
    pub fn weight(&self) -> (u64, Vec<Heavy>) {
        lock(&self.weight).clone()
    }

    /// Files that changed while they were read: the first is named if a build fails because of it.
    pub fn changed(&self) -> Vec<String> {
        lock(&self.changed).clone()
    }

    /// The first name that is not UTF-8: BuildKit since about 0.20 refuses such names without saying which it was.
    pub fn not_utf8(&self) -> Option<String> {
        lock(&self.not_utf8).clone()
    }

    fn note_name(&self, path: &[u8]) {
        if std::str::from_utf8(path).is_err() {
            lock(&self.not_utf8).get_or_insert_with(|| path.escape_ascii().to_string());
        }
    }
}

/// The service. Its one method is streaming both ways.
#[derive(Clone)]
pub struct FileSync {
    folders: Arc<Vec<SyncedFolder>>,
    locality: Locality,
    sent: Arc<Sent>,
}

impl FileSync {
    /// The name under which a session exposes the method.
    pub const METHOD: &'static str = "/moby.filesync.v1.FileSync/DiffCopy";

    /// Serves these folders and no other, to an engine on this machine or another.
    pub fn new(folders: Vec<SyncedFolder>, locality: Locality, sent: Arc<Sent>) -> Self {
        Self {
            folders: Arc::new(folders),
            locality,
            sent,
        }
    }

    fn diff_copy(
        &self,
        headers: http::HeaderMap,
        requests: Streaming<Packet>,
    ) -> Result<http::Response<tonic::body::Body>, Status> {
        // The link to an engine on this machine is never slow; its disk may be, but compressing would not help that.
        let packed = self.locality == Locality::Docked && grpc_stream::takes_gzip(&headers);
        let metadata = &MetadataMap::from_headers(headers);
        let name = values(metadata, "dir-name").into_iter().next().unwrap_or_default();
        let folder = self
            .folders
            .iter()
            .find(|folder| folder.name.as_bytes() == name)
            .ok_or_else(|| {
                Status::not_found(format!(
                    "no access allowed to folder {:?}",
                    String::from_utf8_lossy(&name)
                ))
            })?;
        let options = folder.bound.apply(WalkOptions {
            include: values(metadata, "include-patterns"),
            exclude: values(metadata, "exclude-patterns"),
            follow: values(metadata, "followpaths"),
            withhold: Vec::new(),
            builder: Builder::BuildKit,
        });
        // A named context may be the same folder.
        let is_context =
            folder.name != DOCKERFILE && self.folders.first().is_some_and(|first| first.path == folder.path);
        let context = match is_context {
            true => pip_conf::open(&folder.path),
            false => ContextDir::open(&folder.path),
        }
        .map_err(|cause| Status::failed_precondition(cause.to_string()))?;
        let (packets, response) = grpc_stream::response(packed);
        let sender = Arc::new(Sender {
            packets,
            context,
            sent: Arc::clone(&self.sent),
            weighs: folder.name == "context",
            stamps: folder.name == DOCKERFILE,
            linked: folder.linked.clone(),
            files: Mutex::new(FileTable::default()),
        });
        tokio::spawn(sender.run(options, requests));
        Ok(response)
    }
}

impl tonic::server::NamedService for FileSync {
    const NAME: &'static str = "moby.filesync.v1.FileSync";
}

impl<B> tower_service::Service<http::Request<B>> for FileSync
where
    B: hyper::body::Body + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send + 'static,
{
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move {
            if request.uri().path() != Self::METHOD {
                return Ok(Status::unimplemented("only DiffCopy is served").into_http());
            }
            let (head, body) = request.into_parts();
            let requests = Streaming::new_request(ProstDecoder::default(), body, None, None);
            Ok(service
                .diff_copy(head.headers, requests)
                .unwrap_or_else(Status::into_http))
        })
    }
}

/// Values of a request's header; BuildKit escapes those that are not ASCII, and marks that in `NAME-encoded`.
fn values(metadata: &MetadataMap, name: &str) -> Vec<Vec<u8>> {
    let encoded = metadata
        .get(format!("{name}-encoded"))
        .is_some_and(|value| matches!(value.as_bytes(), b"1" | b"t" | b"T" | b"true" | b"TRUE" | b"True"));
    metadata
        .get_all(name)
        .iter()
        .map(|value| {
            if encoded {
                query_unescape(value.as_bytes())
            } else {
                value.as_bytes().to_vec()
            }
        })
        .collect()
}

/// Go's `url.QueryUnescape`; an invalid escape stays as it is.
fn query_unescape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        match (first, tail) {
            (b'+', _) => out.push(b' '),
            (b'%', [high, low, after @ ..]) => {
                match (char::from(*high).to_digit(16), char::from(*low).to_digit(16)) {
                    (Some(high), Some(low)) => {
                        // Two hexadecimal digits are below 256.
                        out.push(u8::try_from(high * 16 + low).unwrap_or_default());
                        rest = after;
                    }
                    _ => out.push(first),
                }
            }
            _ => out.push(first),
        }
    }
    out
}

/// The files that the engine may ask for, by position among the STATs.
///
/// A context may have a million of them: the folder of a path is kept once, its name in one buffer.
#[derive(Default)]
struct FileTable {
    names: Vec<u8>,
    folders: Vec<Box<[u8]>>,
    // Position, folder, offset of the name, its length; sorted by position as the walk yields them.
    files: Vec<(u32, u32, u32, u16)>,
}

impl FileTable {
    fn push(&mut self, position: u32, path: &[u8]) {
        let (folder, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(at) => path.split_at(at + 1),
            None => (&[][..], path),
        };
        if self.folders.last().is_none_or(|last| **last != *folder) {
            self.folders.push(folder.into());
        }
        // A name has 255 bytes at most; four GiB of names would be sixteen million files.
        let (Ok(offset), Ok(folder), Ok(length)) = (
            u32::try_from(self.names.len()),
            u32::try_from(self.folders.len() - 1),
            u16::try_from(name.len()),
        ) else {
            return;
        };
        self.names.extend_from_slice(name);
        self.files.push((position, folder, offset, length));
    }

    /// Where in the table the file of this position is.
    fn position(&self, position: u32) -> Option<usize> {
        self.files.binary_search_by_key(&position, |(at, ..)| *at).ok()
    }

    fn path(&self, position: u32) -> Option<Vec<u8>> {
        let (_, folder, offset, length) = self.files.get(self.position(position)?)?;
        let start = usize::try_from(*offset).ok()?;
        let name = self.names.get(start..start + usize::from(*length))?;
        let mut path = self.folders.get(usize::try_from(*folder).ok()?)?.to_vec();
        path.extend_from_slice(name);
        Some(path)
    }
}

/// An engine requests each file once. It may request this many more than there are files, for whatever reason: what is
/// requested waits in memory until it is sent.
const ASKED_AGAIN: usize = 1 << 16;

/// One transfer of one folder.
struct Sender {
    packets: Outlet,
    context: ContextDir,
    sent: Arc<Sent>,
    weighs: bool,
    // See `stamp`.
    stamps: bool,
    linked: Option<Linked>,
    files: Mutex<FileTable>,
}

impl Sender {
    async fn run(self: Arc<Self>, options: WalkOptions, mut requests: Streaming<Packet>) {
        let walking = {
            let sender = Arc::clone(&self);
            tokio::task::spawn_blocking(move || sender.walk(&options))
        };
        // By their positions among the STATs.
        let (wanted, queue) = mpsc::unbounded_channel::<u32>();
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..READERS {
            let (sender, queue) = (Arc::clone(&self), Arc::clone(&queue));
            tokio::task::spawn_blocking(move || sender.serve_files(&queue));
        }
        // A walk that fails has reported that in an ERR packet already, and the engine then ends the stream.
        drop(walking);
        let mut asked = 0_usize;
        while let Some(Ok(packet)) = requests.next().await {
            match PacketType::try_from(packet.kind) {
                Ok(PacketType::Req) => {
                    asked = asked.saturating_add(1);
                    let (is_named, named) = {
                        let files = self.files();
                        (files.position(packet.id).is_some(), files.files.len())
                    };
                    if !is_named {
                        return self
                            .fail(&format!(
                                "the engine requested file {} that was never listed",
                                packet.id
                            ))
                            .await;
                    }
                    if asked > named.saturating_add(ASKED_AGAIN) {
                        return self.fail("the engine requests the same files again and again").await;
                    }
                    // The readers live as long as this loop does.
                    let _ = wanted.send(packet.id);
                }
                Ok(PacketType::Fin) => {
                    self.send(PacketType::Fin, 0, Bytes::new()).await;
                    return;
                }
                // The engine reports its own error through Solve.
                _ => return,
            }
        }
    }

    fn files(&self) -> std::sync::MutexGuard<'_, FileTable> {
        lock(&self.files)
    }

    fn walk(&self, options: &WalkOptions) {
        let mut weights = Weights::default();
        let walk = match self.context.walk(options) {
            Ok(walk) => walk,
            Err(cause) => return self.fail_blocking(&cause.to_string()),
        };
        let mut batch = Vec::with_capacity(STATS);
        for (position, entry) in (0..).zip(walk) {
            let mut entry = match entry {
                Ok(entry) => entry,
                Err(cause) => return self.fail_blocking(&cause.to_string()),
            };
            if let Some(linked) = self.linked(&entry.path) {
                entry.kind = EntryKind::File;
                entry.size = linked.contents.len() as u64;
                entry.permissions = 0o644;
            }
            if self.stamps {
                self.stamp(&mut entry);
            }
            if self.weighs {
                weights.add(&entry);
            }
            self.sent.note_name(&entry.path);
            self.sent.note_name(entry.link_name());
            if matches!(entry.kind, EntryKind::File | EntryKind::HardLink(_)) {
                self.files().push(position, &entry.path);
            }
            let packet = Packet {
                kind: PacketType::Stat.into(),
                stat: Some(stat(entry)),
                ..Packet::default()
            };
            self.count(&packet);
            batch.push(packet);
            if batch.len() == STATS {
                if self.packets.blocking_send(&batch).is_err() {
                    return;
                }
                batch.clear();
            }
        }
        if self.weighs {
            let mut shared = lock(&self.sent.weight);
            // BuildKit sends several requests, each for a part; the heaviest answer is the context.
            if weights.total() > shared.0 {
                *shared = (weights.total(), weights.finish());
            }
        }
        let end = Packet {
            kind: PacketType::Stat.into(),
            ..Packet::default()
        };
        batch.push(end);
        // A closed channel means that the engine has hung up; Solve has the reason.
        let _ = self.packets.blocking_send(&batch);
    }

    /// What is served in place of the entry at this path.
    fn linked(&self, path: &[u8]) -> Option<&Linked> {
        self.linked.as_ref().filter(|linked| linked.name == path)
    }

    /// Gives a Dockerfile a time that is computed from its text.
    ///
    /// An engine keeps one copy of the project's "folder of the Dockerfile", and fetches a file of it only if size or
    /// time differ. The Dockerfiles of two images often agree in both (an archive's files all have one time), and the
    /// second image would be built from the first one's. Nothing else uses this time.
    fn stamp(&self, entry: &mut ContextEntry) {
        use sha2::{Digest as _, Sha256};
        use std::io::Read as _;
        if !matches!(entry.kind, EntryKind::File | EntryKind::HardLink(_)) {
            return;
        }
        let mut text = Vec::new();
        let read = match self.linked(&entry.path) {
            Some(linked) => linked.contents.as_ref().take(STAMPED).read_to_end(&mut text),
            // A file that can't be read causes an error when it is requested.
            None => match self.context.open_file(&entry.path) {
                Ok(file) => file.take(STAMPED).read_to_end(&mut text),
                Err(_) => return,
            },
        };
        if read.is_ok() {
            let digest = Sha256::digest(&text);
            // Ten digits of seconds at most: every file system keeps such a time.
            let number = digest
                .iter()
                .take(8)
                .fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
            entry.mtime_ns = (number >> 4).try_into().unwrap_or_default();
        }
    }

    /// Sends the requested files, one after the other, until the transfer is over.
    fn serve_files(&self, queue: &Mutex<mpsc::UnboundedReceiver<u32>>) {
        loop {
            // The thread that holds the queue waits for the next request, the next thread for the one after.
            let next = lock(queue).blocking_recv();
            let Some(id) = next else { return };
            // What is in the queue was listed.
            let path = self.files().path(id);
            if let Some(path) = path {
                self.send_file(id, &path);
            }
        }
    }

    fn send_file(&self, id: u32, path: &[u8]) {
        match self.stream_file(id, path) {
            Ok(mut last) => {
                last.push(self.packet(PacketType::Data, id, Bytes::new()));
                let _ = self.packets.blocking_send(&last);
            }
            Err(message) => {
                lock(&self.sent.changed).push(message.clone());
                self.fail_blocking(&message);
            }
        }
    }

    /// Sends a file except its last chunk, which is returned: a small file goes out at once with its end.
    fn stream_file(&self, id: u32, path: &[u8]) -> Result<Vec<Packet>, String> {
        use std::io::Read as _;
        if let Some(linked) = self.linked(path) {
            let contents = &linked.contents;
            let packet = |chunk: &[u8]| self.packet(PacketType::Data, id, contents.slice_ref(chunk));
            return Ok(contents.chunks(CHUNK).map(packet).collect());
        }
        let shown = || String::from_utf8_lossy(path).into_owned();
        let cannot = |cause: std::io::Error| format!("{} can't be read: {cause}", shown());
        let mut file = self.context.open_file(path).map_err(|cause| cause.to_string())?;
        let before = file.metadata().map_err(cannot)?;
        let mut left = before.len();
        let mut last = Vec::with_capacity(2);
        while left > 0 {
            let mut chunk = vec![0; usize::try_from(left).unwrap_or(CHUNK).min(CHUNK)];
            let read = file.read(&mut chunk).map_err(cannot)?;
            if read == 0 {
                return Err(format!(
                    "{} became shorter while it was read; build again when nothing writes to it",
                    shown()
                ));
            }
            chunk.truncate(read);
            // What is added to a growing file meanwhile is left for the next build.
            left -= read as u64;
            let earlier = std::mem::replace(&mut last, vec![self.packet(PacketType::Data, id, chunk.into())]);
            if !earlier.is_empty() && self.packets.blocking_send(&earlier).is_err() {
                return Ok(Vec::new());
            }
        }
        let after = file.metadata().map_err(cannot)?;
        let rewritten = after.modified().ok() != before.modified().ok() && after.len() <= before.len();
        if rewritten {
            return Err(format!(
                "{} changed while it was read; build again when nothing writes to it",
                shown()
            ));
        }
        Ok(last)
    }

    fn count(&self, packet: &Packet) {
        self.sent
            .bytes
            .fetch_add(packet.encoded_len() as u64, Ordering::Relaxed);
    }

    fn packet(&self, kind: PacketType, id: u32, data: Bytes) -> Packet {
        let packet = Packet {
            kind: kind.into(),
            id,
            data,
            stat: None,
        };
        self.count(&packet);
        packet
    }

    async fn send(&self, kind: PacketType, id: u32, data: Bytes) {
        let _ = self.packets.send(&[self.packet(kind, id, data)]).await;
    }

    async fn fail(&self, message: &str) {
        self.send(PacketType::Err, 0, Bytes::copy_from_slice(message.as_bytes()))
            .await;
    }

    fn fail_blocking(&self, message: &str) {
        let error = self.packet(PacketType::Err, 0, Bytes::copy_from_slice(message.as_bytes()));
        let _ = self.packets.blocking_send(&[error]);
    }
}

/// The STAT of an entry. Owner and group are root's, as in every build context.
fn stat(entry: ContextEntry) -> Stat {
    let device = entry.device();
    Stat {
        mode: entry.go_mode(),
        uid: 0,
        gid: 0,
        size: entry.size.try_into().unwrap_or(i64::MAX),
        mod_time: entry.mtime_ns,
        linkname: Bytes::copy_from_slice(entry.link_name()),
        devmajor: device.map_or(0, |device| device.major.into()),
        devminor: device.map_or(0, |device| device.minor.into()),
        // Names of attributes are ASCII wherever the kernel defines them.
        xattrs: entry
            .xattrs
            .into_iter()
            .filter_map(|(name, value)| Some((String::from_utf8(name).ok()?, value)))
            .collect::<HashMap<_, _>>(),
        path: entry.path.into(),
    }
}

/// The key under which an engine keeps its copy of this folder: the same for each build of it from this machine.
pub fn shared_key(folder: &Path) -> String {
    use sha2::{Digest as _, Sha256};
    let machine = std::fs::read("/etc/machine-id").unwrap_or_default();
    let mut digest = Sha256::new();
    digest.update(folder.as_os_str().as_encoded_bytes());
    digest.update([0]);
    digest.update(machine);
    let digest = digest.finalize();
    base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, &digest[..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_values_are_unescaped_as_go_escapes_them() {
        assert_eq!(query_unescape(b"caf%C3%A9+x%2By"), "café x+y".as_bytes());
        assert_eq!(query_unescape(b"50%"), b"50%");
        assert_eq!(query_unescape(b"%zz"), b"%zz");
    }

    /// The files of a folder that a request with these headers gets.
    fn served(bound: &Bound, folder: &Path, include: &[&str], exclude: &[&str], follow: &[&str]) -> Vec<String> {
        let bytes = |texts: &[&str]| texts.iter().map(|text| text.as_bytes().to_vec()).collect();
        let options = bound.apply(WalkOptions {
            include: bytes(include),
            exclude: bytes(exclude),
            follow: bytes(follow),
            withhold: Vec::new(),
            builder: Builder::BuildKit,
        });
        let context = ContextDir::open(folder).unwrap();
        let walk = context.walk(&options).unwrap().map(Result::unwrap);
        let files = walk.filter(|entry| matches!(entry.kind, EntryKind::File));
        files
            .map(|entry| String::from_utf8(entry.path.clone()).unwrap())
            .collect()
    }

    #[test]
    fn what_is_ignored_here_is_never_served_whatever_the_engine_asks() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        std::fs::create_dir_all(root.join("secret/deep")).unwrap();
        for file in [
            ".dockerignore",
            ".env",
            "main.py",
            "secret/key",
            "secret/deep/key",
            "secret/public",
        ] {
            std::fs::write(root.join(file), "x").unwrap();
        }
        std::os::unix::fs::symlink(".env", root.join("link")).unwrap();
        let ignored = [".dockerignore", ".env", "secret", "!secret/public"];
        let bound = Bound::NotIgnored(ignored.iter().map(|line| line.as_bytes().to_vec()).collect());
        let all = ["main.py", "secret/public"];
        // The requests of an honest engine, and of hostile ones.
        assert_eq!(served(&bound, root, &[], &ignored, &[]), all);
        assert_eq!(served(&bound, root, &[], &[], &[]), all);
        assert_eq!(served(&bound, root, &[], &["!**", "!.env", "!secret/key"], &[]), all);
        // If a directory is left out already, it does not show whether our rules leave it out, too.
        for trick in [
            &["secret", "!secret/key"][..],
            &["*", "!secret/key", "!secret/deep/key"],
            &["**", "!**/key"],
            &["secret", "secret/deep", "!secret/deep"],
            &["secret/**", "!secret/key"],
        ] {
            let served = served(&bound, root, &[], trick, &[]);
            assert!(
                served.iter().all(|file| all.contains(&file.as_str())),
                "{trick:?}: {served:?}"
            );
        }
        for path in [
            ".env",
            "secret/key",
            "secret/deep/key",
            "link",
            "secret/deep",
            "./.env",
            "*",
            "**/key",
        ] {
            for (include, follow) in [
                (&[path][..], &[][..]),
                (&[], &[path]),
                (&[path], &[path]),
                (&[".dockerignore"], &[path]),
            ] {
                let served = served(&bound, root, include, &[], follow);
                assert!(
                    served.iter().all(|file| all.contains(&file.as_str())),
                    "{path}: {served:?}"
                );
            }
        }
        // It needs that file to know the rules.
        assert_eq!(served(&bound, root, &[".dockerignore"], &[], &[]), [".dockerignore"]);
        assert_eq!(served(&bound, root, &[], &[], &[".dockerignore"]), [".dockerignore"]);
        // On this machine it gets what it requests.
        assert_eq!(served(&Bound::None, root, &[".env"], &[], &[]), [".env"]);
    }

    #[test]
    fn beside_the_dockerfile_nothing_else_is_served() {
        let folder = tempfile::tempdir().unwrap();
        for file in ["Dockerfile", "Dockerfile.dockerignore", ".env", "id_ed25519"] {
            std::fs::write(folder.path().join(file), "x").unwrap();
        }
        let names: [&[u8]; 3] = [b"Dockerfile", b"Dockerfile.dockerignore", b".dockerignore"];
        let bound = Bound::Only(names.map(<[u8]>::to_vec).into());
        let both = ["Dockerfile", "Dockerfile.dockerignore"];
        assert_eq!(served(&bound, folder.path(), &[], &[], &[]), both);
        assert_eq!(
            served(&bound, folder.path(), &["Dockerfile"], &[], &["Dockerfile"]),
            ["Dockerfile"]
        );
        for asked in [".env", "*", "**", "id_*", "./.env"] {
            assert_eq!(served(&bound, folder.path(), &[asked], &[], &[]), both, "{asked}");
            assert_eq!(
                served(&bound, folder.path(), &[asked], &[], &["Dockerfile"]),
                ["Dockerfile"],
                "{asked}"
            );
        }
    }

    #[test]
    fn the_file_table_gives_back_what_it_was_given() {
        let mut table = FileTable::default();
        let paths: [&[u8]; 5] = [b"a", b"d/x", b"d/y\xff", b"e/f/g", b"z"];
        for (position, path) in (0..).step_by(3).zip(paths) {
            table.push(position, path);
        }
        for (position, path) in (0..).step_by(3).zip(paths) {
            assert_eq!(table.path(position).as_deref(), Some(path));
        }
        assert_eq!(table.path(1), None);
    }
}
