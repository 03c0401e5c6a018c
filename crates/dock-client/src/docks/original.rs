//! The docks of the Python dockerutils: `~/.docker/<ip>/connection_config.txt`.
//!
//! The original let the shell evaluate each line (`declare $line`), so that a hostile file ran commands. Here the files are
//! read: words of the form `KEY=value`, as that shell split them, and comments from `#` on.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::dock::{Access, Dock, SshAccess};
use crate::error::{Error, Result};

/// The name of the file in a dock's folder.
const FILE: &str = "connection_config.txt";
/// The default user.
const USER: &str = "ubuntu";
/// A longer file was not written by the original.
const LONGEST: u64 = 64 * 1024;
/// What the original's register-dock wrote for the moniker if the user gave none.
const NO_MONIKER: &str = "none";

/// A dock of the original.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Original {
    /// The dock that its file describes.
    pub dock: Dock,
    pub file: PathBuf,
    /// Its address: DOCK_IP. A dock can be looked up by its address, too.
    pub address: String,
    /// The ID of its EC2 instance.
    pub instance_id: Option<String>,
    /// The product of AWS's Service Catalog that it came with.
    pub provisioned_product: Option<String>,
}

/// What a file of the original says; unknown keys are left out.
pub fn parse(text: &str) -> BTreeMap<String, String> {
    let mut values = BTreeMap::new();
    for line in text.lines() {
        // `declare` takes one word for each variable; a comment is no variable, and so was an error without
        // consequence.
        for word in line.split_whitespace().take_while(|word| !word.starts_with('#')) {
            let Some((key, value)) = word.split_once('=') else {
                continue;
            };
            if key.starts_with("DOCK_") && key.chars().all(|c| c.is_ascii_uppercase() || c == '_') {
                values.insert(key.to_owned(), unquoted(value).to_owned());
            }
        }
    }
    values
}

/// The value without quotes that a user may have put around it.
fn unquoted(value: &str) -> &str {
    ['"', '\'']
        .into_iter()
        .find_map(|quote| value.strip_prefix(quote)?.strip_suffix(quote))
        .unwrap_or(value)
}

/// The docks of the original in `folder` (`~/.docker`), sorted by the name of their folders.
///
/// A file that can't be read is left out: it belongs to another program.
pub fn docks(folder: &Path) -> Vec<Original> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut folders: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    folders.sort();
    folders.iter().filter_map(|folder| read(folder)).collect()
}

fn read(folder: &Path) -> Option<Original> {
    let file = folder.join(FILE);
    // Opening a pipe would wait for its other end.
    if !fs::metadata(&file).ok()?.is_file() {
        return None;
    }
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32)
        .open(&file)
        .ok()?;
    let mut bytes = Vec::new();
    opened.take(LONGEST).read_to_end(&mut bytes).ok()?;
    let values = parse(&String::from_utf8_lossy(&bytes));
    let value = |key: &str| values.get(key).filter(|value| !value.is_empty()).cloned();
    let name = folder.file_name()?.to_string_lossy().into_owned();
    let address = value("DOCK_IP").or_else(|| value("DOCK_HOSTNAME")).unwrap_or(name);
    let moniker = value("DOCK_MONIKER")
        .filter(|moniker| moniker != NO_MONIKER)
        .unwrap_or_else(|| address.clone());
    Some(Original {
        dock: Dock {
            moniker,
            access: Access::Ssh(SshAccess {
                host: address.clone(),
                user: Some(value("DOCK_USER").unwrap_or_else(|| USER.to_owned())),
                ..SshAccess::default()
            }),
            workspace: None,
            forward: crate::docks::Forward::default(),
            mounts: crate::docks::MountPaths::default(),
        },
        file,
        address,
        instance_id: value("DOCK_INSTANCE_ID"),
        provisioned_product: value("DOCK_PROVISIONED_PRODUCT"),
    })
}

impl Original {
    /// Takes it off the list: removes its file, and its folder if nothing else is in it.
    ///
    /// # Errors
    /// A file that can't be removed.
    pub fn remove(&self) -> Result<()> {
        fs::remove_file(&self.file).map_err(|cause| {
            Error::failed(format!("{} can't be removed", self.file.display()))
                .because(cause)
                .hint("it is the whole entry of this dock: remove it by hand")
        })?;
        if let Some(folder) = self.file.parent() {
            // Other files in it (certificates) are not ours; if there are any, the system does not remove the folder.
            let _ = fs::remove_dir(folder);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::create_dir_all(folder.path().join(name)).unwrap();
            fs::write(folder.path().join(name).join(FILE), text).unwrap();
        }
        folder
    }

    #[test]
    fn docks_are_read_as_the_original_wrote_them() {
        let folder = folder(&[
            (
                "10.0.0.7",
                "DOCK_USER=ec2-user\nDOCK_MONIKER=50%\nDOCK_HOSTNAME=10.0.0.7\nDOCK_IP=10.0.0.7\n# made by hand\nDOCK_INSTANCE_ID=i-0ab",
            ),
            ("10.0.0.8", "DOCK_MONIKER=\"quoted\" # why\nDOCK_IP='10.0.0.8'\n"),
            ("10.0.0.9", "DOCK_USER=ubuntu\nDOCK_MONIKER=none\nDOCK_IP=10.0.0.9\n"),
            ("contexts", ""),
        ]);
        fs::remove_file(folder.path().join("contexts").join(FILE)).unwrap();
        fs::write(folder.path().join("config.json"), "{}").unwrap();
        let docks = docks(folder.path());
        let seen: Vec<_> = docks
            .iter()
            .map(|original| {
                let Access::Ssh(ssh) = &original.dock.access else {
                    panic!("no ssh");
                };
                (
                    original.dock.moniker.as_str(),
                    ssh.host.as_str(),
                    ssh.user.as_deref().unwrap(),
                )
            })
            .collect();
        assert_eq!(
            seen,
            [
                ("50%", "10.0.0.7", "ec2-user"),
                ("quoted", "10.0.0.8", "ubuntu"),
                ("10.0.0.9", "10.0.0.9", "ubuntu")
            ]
        );
        assert_eq!(docks[0].instance_id.as_deref(), Some("i-0ab"));
    }

    #[test]
    fn a_hostile_file_is_only_text() {
        let values = parse("x[$(touch pwned)]=1\nDOCK_MONIKER=x[$(id)]\nPATH=/tmp\nDOCK_IP=$(reboot)\nDOCK_x=1\n=\n");
        let seen: Vec<_> = values
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect();
        assert_eq!(seen, [("DOCK_IP", "$(reboot)"), ("DOCK_MONIKER", "x[$(id)]")]);
    }

    #[test]
    fn a_pipe_in_place_of_a_file_keeps_nobody_waiting() {
        let folder = folder(&[("10.0.0.7", "DOCK_IP=1\n")]);
        let file = folder.path().join("10.0.0.7").join(FILE);
        fs::remove_file(&file).unwrap();
        assert!(
            std::process::Command::new("mkfifo")
                .arg(&file)
                .status()
                .unwrap()
                .success()
        );
        assert_eq!(docks(folder.path()), []);
    }

    #[test]
    fn removing_leaves_what_is_not_ours() {
        let folder = folder(&[("10.0.0.7", "DOCK_IP=10.0.0.7\n"), ("10.0.0.8", "")]);
        let certificate = folder.path().join("10.0.0.7/ca.pem");
        fs::write(&certificate, "").unwrap();
        for original in docks(folder.path()) {
            original.remove().unwrap();
        }
        assert!(certificate.exists() && !folder.path().join("10.0.0.8").exists());
        assert!(docks(folder.path()).is_empty());
    }
}
