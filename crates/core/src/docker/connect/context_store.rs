//! docker's store of contexts, as far as we write it: a context for a dock, for IDEs and whatever else knows contexts.
//!
//! Format: `contexts/meta/<sha256 of the name>/meta.json` and `contexts/tls/<same>/docker/*.pem` below docker's folder of
//! configuration, as `docker context create` makes them.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::endpoint::{Endpoint, Tls, folder_of};
use crate::env::Env;
use crate::error::{Error, Result};
use crate::hint;
use crate::private_file;

/// The files of a TLS folder.
const PEM: [&str; 3] = ["ca.pem", "cert.pem", "key.pem"];
/// Marks a context as made by us.
const DESCRIPTION: &str = "made by register-dock";

/// Whether docker accepts a context of this name: letters, digits and `_.+-`, at least two, the first a letter or
/// digit.
pub fn is_legal_name(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphanumeric())
        && name.len() > 1
        && name != "default"
        && chars.all(|c| c.is_ascii_alphanumeric() || "_.+-".contains(c))
}

/// Writes a context. One of this name that is not ours is left alone, unless `force`.
///
/// # Errors
/// A context of this name that is not ours, and files that can't be written.
pub fn write(name: &str, endpoint: &Endpoint, env: &Env, force: bool) -> Result<()> {
    if !is_legal_name(name) {
        return Err(Error::usage(format!("docker accepts no context of the name {name:?}"))
            .hint("give the dock a moniker of letters, digits and `_.+-`"));
    }
    let folders = Folders::of(name, env);
    if !force && folders.meta_file().exists() && !folders.is_ours() {
        return Err(
            Error::failed(format!("the docker context {name:?} exists, and is not ours")).hint(hint!(
                "look at it: docker context inspect {}; --force replaces it",
                name
            )),
        );
    }
    let tls = match endpoint {
        Endpoint::Tcp { tls, .. } => tls.as_ref(),
        _ => None,
    };
    let document = json!({
        "Name": name,
        "Metadata": { "Description": DESCRIPTION },
        "Endpoints": { "docker": {
            "Host": endpoint.to_string(),
            "SkipTLSVerify": tls.is_some_and(|tls| !tls.verify),
        } },
    });
    folders
        .replace(&document.to_string(), tls)
        .map_err(|cause| Error::failed(format!("the docker context {name:?} can't be written")).because(cause))
}

/// Removes a context that we made; true if there was one.
///
/// # Errors
/// Files that can't be removed.
pub fn remove(name: &str, env: &Env) -> Result<bool> {
    let folders = Folders::of(name, env);
    if !folders.is_ours() {
        return Ok(false);
    }
    folders
        .remove()
        .map_err(|cause| Error::failed(format!("the docker context {name:?} can't be removed")).because(cause))?;
    Ok(true)
}

struct Folders {
    meta: PathBuf,
    tls: PathBuf,
}

impl Folders {
    fn of(name: &str, env: &Env) -> Self {
        let contexts = env.docker_config_dir().join("contexts");
        let id = folder_of(name);
        Self {
            meta: contexts.join("meta").join(&id),
            tls: contexts.join("tls").join(&id),
        }
    }

    fn meta_file(&self) -> PathBuf {
        self.meta.join("meta.json")
    }

    fn is_ours(&self) -> bool {
        let document = fs::read(self.meta_file())
            .ok()
            .and_then(|text| serde_json::from_slice::<serde_json::Value>(&text).ok());
        document.is_some_and(|document| {
            document
                .pointer("/Metadata/Description")
                .is_some_and(|text| text == DESCRIPTION)
        })
    }

    fn replace(&self, document: &str, tls: Option<&Tls>) -> io::Result<()> {
        remove_folder(&self.tls)?;
        if let Some(tls) = tls {
            let folder = self.tls.join("docker");
            make_folder(&folder)?;
            for name in PEM {
                match fs::read(tls.directory.join(name)) {
                    Ok(content) => private_file::replace(&folder.join(name), &content)?,
                    // An engine need not ask its clients for a certificate.
                    Err(cause) if cause.kind() == io::ErrorKind::NotFound && name != "ca.pem" => {}
                    Err(cause) => return Err(cause),
                }
            }
        }
        make_folder(&self.meta)?;
        private_file::replace(&self.meta_file(), document.as_bytes())
    }

    fn remove(&self) -> io::Result<()> {
        remove_folder(&self.tls)?;
        remove_folder(&self.meta)
    }
}

fn make_folder(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

fn remove_folder(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(cause),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_what_docker_reads_and_only_ours_is_removed() {
        let home = tempfile::tempdir().unwrap();
        let env = Env::from_pairs([("HOME", home.path().to_str().unwrap())]);
        let certs = home.path().join("certs");
        fs::create_dir(&certs).unwrap();
        fs::write(certs.join("ca.pem"), "CA").unwrap();
        let endpoint = Endpoint::Tcp {
            host: "10.0.0.7".into(),
            port: 2376,
            tls: Some(Tls {
                directory: certs,
                verify: true,
            }),
        };
        write("far", &endpoint, &env, false).unwrap();
        let Endpoint::Tcp {
            host, tls: Some(tls), ..
        } = Endpoint::of_context("far", &env).unwrap()
        else {
            panic!("no TLS");
        };
        assert_eq!((host.as_str(), tls.verify), ("10.0.0.7", true));
        assert_eq!(fs::read_to_string(tls.directory.join("ca.pem")).unwrap(), "CA");
        write("far", &Endpoint::Unix("/run/x.sock".into()), &env, false).unwrap();
        assert_eq!(
            Endpoint::of_context("far", &env).unwrap().to_string(),
            "unix:///run/x.sock"
        );
        assert!(!tls.directory.exists());
        let folders = Folders::of("far", &env);
        let foreign = r#"{"Name":"far","Metadata":{},"Endpoints":{"docker":{"Host":"tcp://x"}}}"#;
        fs::write(folders.meta_file(), foreign).unwrap();
        assert!(!remove("far", &env).unwrap());
        assert!(write("far", &endpoint, &env, false).is_err());
        write("far", &Endpoint::Unix("/y".into()), &env, true).unwrap();
        assert!(remove("far", &env).unwrap() && !folders.meta.exists());
    }

    #[test]
    fn names_are_those_that_docker_takes() {
        for name in ["far", "f1", "a.b_c+d-e"] {
            assert!(is_legal_name(name), "{name}");
        }
        for name in ["f", "default", "-far", "a b", "x[$(id)]", "\u{e9}t\u{e9}", ""] {
            assert!(!is_legal_name(name), "{name}");
        }
    }
}
