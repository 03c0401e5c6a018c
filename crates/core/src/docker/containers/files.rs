//! Files of a container, running or not, by the archives that the engine makes of them. Containers are strangers' work: what is kept
//! of them in memory is bounded.

use std::io::Read as _;

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;

use crate::docker::connect::engine::{Engine, answer};
use crate::error::{Error, Result};

/// The content of a regular file in a container, running or not; `None` where there is none, or where it is longer than `most`
/// bytes with its headers.
///
/// # Errors
/// A broken connection.
pub async fn file(engine: &Engine, id: &str, path: &str, most: usize) -> Result<Option<Vec<u8>>> {
    Ok(archived(engine, id, path, most).await?.and_then(|archive| {
        let mut archive = tar::Archive::new(archive.as_ref());
        let mut entry = archive.entries().ok()?.next()?.ok()?;
        let mut content = Vec::new();
        let is_whole = entry.header().entry_type().is_file() && entry.read_to_end(&mut content).is_ok();
        is_whole.then_some(content)
    }))
}

/// A file that is directly in a folder of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileInside {
    /// Its name in the folder.
    pub name: String,
    /// Whether somebody may execute it.
    pub is_executable: bool,
}

/// The regular files that are directly in a folder of a container, running or not, by their names; `None` where there is no such
/// folder, or where it holds more than `most` bytes.
///
/// # Errors
/// A broken connection.
pub async fn files_in(engine: &Engine, id: &str, folder: &str, most: usize) -> Result<Option<Vec<FileInside>>> {
    let Some(archive) = archived(engine, id, folder, most).await? else {
        return Ok(None);
    };
    let mut archive = tar::Archive::new(archive.as_ref());
    let mut files = Vec::new();
    for entry in archive.entries().into_iter().flatten() {
        // What follows a damaged entry makes no sense either.
        let Ok(entry) = entry else { break };
        let path = entry.path().map(|path| path.into_owned()).unwrap_or_default();
        // The folder itself, and then the name.
        let mut parts = path.components().skip(1);
        if let (Some(name), None, true) = (parts.next(), parts.next(), entry.header().entry_type().is_file()) {
            files.push(FileInside {
                name: name.as_os_str().to_string_lossy().into_owned(),
                is_executable: entry.header().mode().is_ok_and(|mode| mode & 0o111 != 0),
            });
        }
    }
    files.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(Some(files))
}

/// The archive of a path in a container; `None` where there is nothing, or more than `most` bytes.
async fn archived(engine: &Engine, id: &str, path: &str, most: usize) -> Result<Option<Bytes>> {
    let query = form_urlencoded::Serializer::new(String::new())
        .append_pair("path", path)
        .finish();
    let request = Request::builder()
        .uri(format!("/containers/{id}/archive?{query}"))
        .body(Full::<Bytes>::default())
        .map_err(|cause| Error::failed(format!("{path} can't be asked for")).because(cause))?;
    let whole = async {
        let response = engine.request(request).await?;
        Ok(match response.status().is_success() {
            true => answer(response, most).await.ok(),
            false => None,
        })
    };
    engine.worked(whole).await
}

#[cfg(test)]
mod tests {
    use dockerutils_test_support::{Reply, ScriptedEngine};

    use super::*;
    use crate::docker::connect::endpoint::{Choice, Endpoint, Origin};

    async fn connected(engine: &ScriptedEngine) -> Engine {
        let choice = Choice {
            endpoint: Endpoint::Unix(engine.socket()),
            origin: Origin::Host,
        };
        Engine::connect_to(choice).await.unwrap()
    }

    /// An archive of these: a path, a mode, and what is in the file; a folder where that is `None`.
    fn archive_of(entries: &[(&str, u32, Option<&str>)]) -> Vec<u8> {
        let mut archive = tar::Builder::new(Vec::new());
        for (path, mode, content) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_mode(*mode);
            header.set_size(content.map_or(0, |content| content.len() as u64));
            header.set_entry_type(match content {
                Some(_) => tar::EntryType::Regular,
                None => tar::EntryType::Directory,
            });
            archive
                .append_data(&mut header, path, content.unwrap_or_default().as_bytes())
                .unwrap();
        }
        archive.into_inner().unwrap()
    }

    fn engine(reply: Reply) -> ScriptedEngine {
        ScriptedEngine::start().on("GET", "/containers/c1/archive", reply)
    }

    #[tokio::test]
    async fn a_file_comes_whole_or_not_at_all() {
        let made = || Reply::bytes(archive_of(&[("x.xml", 0o644, Some("<x/>"))]));
        let read = async |reply, most| {
            let engine = engine(reply);
            file(&connected(&engine).await, "c1", "/tmp/x.xml", most).await.unwrap()
        };
        assert_eq!(read(made(), 1 << 20).await.as_deref(), Some(b"<x/>".as_slice()));
        assert_eq!(read(made(), 1000).await, None);
        assert_eq!(read(Reply::error(404, "Could not find the file"), 1 << 20).await, None);
        assert_eq!(read(Reply::bytes("no archive"), 1 << 20).await, None);
        assert_eq!(
            read(Reply::bytes(archive_of(&[("x", 0o755, None)])), 1 << 20).await,
            None
        );
    }

    #[tokio::test]
    async fn only_files_that_are_directly_in_a_folder_are_listed() {
        let made = archive_of(&[
            ("tests/", 0o755, None),
            ("tests/b.py", 0o644, Some("")),
            ("tests/a", 0o755, Some("#!")),
            ("tests/deep/", 0o755, None),
            ("tests/deep/c", 0o755, Some("#!")),
        ]);
        let engine = engine(Reply::bytes(made));
        let found = files_in(&connected(&engine).await, "c1", "/opt/tests", 1 << 20)
            .await
            .unwrap();
        let listed: Vec<_> = found
            .iter()
            .flatten()
            .map(|file| (file.name.as_str(), file.is_executable))
            .collect();
        assert_eq!(listed, [("a", true), ("b.py", false)]);
    }
}
