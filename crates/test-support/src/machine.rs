//! Packages of this machine: installed by apt-get on Debian and Ubuntu, named in an error elsewhere.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use crate::process::{self, announce, on_path};

/// A package that is needed cannot be installed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Neither Debian nor Ubuntu, or neither root nor sudo.
    #[error("{why} needs {packages}, which cannot be installed here: {because}\n\nhint: {hint}")]
    Cannot {
        /// What the packages are for.
        why: String,
        /// Their names, as Debian calls them.
        packages: String,
        /// Why they cannot be installed.
        because: &'static str,
        /// What the user can do.
        hint: String,
    },
    /// apt-get failed.
    #[error(transparent)]
    Process(#[from] process::Error),
}

/// Installs Debian `packages`, and announces that; `why` completes "... needs".
///
/// # Errors
/// When this is neither Debian nor Ubuntu, there is no way to be root, or apt-get fails.
pub fn install(packages: &[&str], why: &str) -> Result<(), Error> {
    let names = packages.join(" ");
    let cannot = |because, hint| Error::Cannot {
        why: why.to_owned(),
        packages: names.clone(),
        because,
        hint,
    };
    if !is_debian() {
        return Err(cannot(
            "this is neither Debian nor Ubuntu",
            format!("install what your system calls: {names}"),
        ));
    }
    let Some(mut install) = as_root("apt-get") else {
        return Err(cannot(
            "not root, and there is no sudo",
            format!("as root: apt-get install {names}"),
        ));
    };
    install.env("DEBIAN_FRONTEND", "noninteractive");
    install
        .args(["install", "--yes", "--no-install-recommends"])
        // Another program of this machine may be using apt-get just now.
        .args(["--option", "DPkg::Lock::Timeout=300"])
        .args(packages);
    let _alone = alone();
    announce(format_args!(
        "{why} needs {names}; installing: {}",
        process::shown(&install)
    ));
    if process::run(&mut install).is_ok() {
        return Ok(());
    }
    // A fresh machine has no package lists yet, an old one has stale ones.
    if let Some(mut update) = as_root("apt-get") {
        process::run(update.arg("update"))?;
    }
    Ok(process::run(&mut install)?)
}

/// Unpacks a Debian `package` into a directory without installing it: services in it are not started.
///
/// # Errors
/// As [`install`].
pub fn unpack(package: &str, directory: &Path, why: &str) -> Result<(), Error> {
    let cannot = |because, hint| Error::Cannot {
        why: why.to_owned(),
        packages: package.to_owned(),
        because,
        hint,
    };
    let (Some(apt), Some(dpkg), true) = (on_path("apt-get"), on_path("dpkg"), is_debian()) else {
        return Err(cannot(
            "this is neither Debian nor Ubuntu",
            format!("a machine with Debian has {package}"),
        ));
    };
    let mut download = Command::new(apt);
    download.args(["download", package]).current_dir(directory);
    announce(format_args!("{why} needs {package}: {}", process::shown(&download)));
    let _alone = alone();
    if process::capture(&mut download).is_err() {
        // A fresh machine has no package lists yet, an old one has stale ones.
        if let Some(mut update) = as_root("apt-get") {
            process::run(update.arg("update"))?;
        }
        process::capture(&mut download)?;
    }
    let file = fs::read_dir(directory).ok().and_then(|entries| {
        let files = entries.flatten().map(|entry| entry.path());
        files
            .into_iter()
            .find(|file| file.extension().is_some_and(|extension| extension == "deb"))
    });
    let Some(file) = file else {
        return Err(cannot(
            "apt-get has left no file",
            format!("apt-get download {package}"),
        ));
    };
    process::capture(Command::new(dpkg).arg("--extract").arg(file).arg(directory))?;
    Ok(())
}

/// A command that runs `program` as root: directly, or by sudo; `None` if neither is possible.
pub fn as_root(program: &str) -> Option<Command> {
    let path = on_path(program)?;
    if rustix::process::geteuid().is_root() {
        return Some(Command::new(path));
    }
    let mut command = Command::new(on_path("sudo")?);
    // sudo drops the environment, which may name a proxy.
    command
        .arg("--preserve-env=http_proxy,https_proxy,no_proxy,DEBIAN_FRONTEND")
        .arg(path);
    Some(command)
}

/// Makes sure that `program` is on PATH, by installing `packages`.
///
/// # Errors
/// As [`install`].
pub fn require(program: &str, packages: &[&str], why: &str) -> Result<(), Error> {
    match on_path(program) {
        Some(_) => Ok(()),
        None => install(packages, why),
    }
}

/// Waits until no other test uses apt-get: two at a time fail. The system releases the lock when the process dies.
fn alone() -> Option<File> {
    let path = std::env::temp_dir().join("dockerutils-test-packages.lock");
    // Without the lock, two might collide.
    let lock = File::options()
        .create(true)
        .write(true)
        .truncate(false)
        .open(path)
        .ok()?;
    lock.lock().ok()?;
    Some(lock)
}

fn is_debian() -> bool {
    fs::read_to_string("/etc/os-release").is_ok_and(|text| names_debian(&text))
}

/// Reads os-release(5): true if `ID` or one of `ID_LIKE` is debian.
fn names_debian(os_release: &str) -> bool {
    os_release
        .lines()
        .filter_map(|line| line.strip_prefix("ID=").or_else(|| line.strip_prefix("ID_LIKE=")))
        .flat_map(|value| value.trim_matches('"').split_whitespace())
        .any(|id| id == "debian")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debian_and_its_children_are_recognised() {
        assert!(names_debian("NAME=x\nID=debian\n"));
        assert!(names_debian("ID=ubuntu\nID_LIKE=debian\n"));
        assert!(names_debian("ID=mint\nID_LIKE=\"ubuntu debian\"\n"));
        assert!(!names_debian("ID=fedora\nPRETTY_NAME=\"not debian\"\n"));
    }
}
