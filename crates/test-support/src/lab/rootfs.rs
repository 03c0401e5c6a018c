//! The images of the lab, made from Debian packages: no registry is needed.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use super::place::wait;
use super::{ANSWER, BASE_IMAGE, Error, LABEL_BASE, Lab, create_directory, write};
use crate::http;
use crate::machine::{self, as_root};
use crate::process::{self, announce};

/// The repository of the docks' images.
pub(super) const DOCK_IMAGES: &str = "dockerutils-lab";

/// The repository of [`BASE_IMAGE`].
pub(super) const BASE_NAME: &str = "dockerutils-lab-base";

/// The version of the base image's recipe: a new number makes every lab build it anew.
const BASE_RECIPE: &str = "1";

/// What installs Debian into a directory. The keys of Debian's archive are not on Ubuntu.
const PACKAGES: [&str; 2] = ["debootstrap", "debian-archive-keyring"];

/// The purpose, for messages.
const PURPOSE: &str = "making a machine that hosts Docker";

/// A release of Debian, for the engine that it packages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suite {
    /// Engine 20.10.
    Bookworm,
    /// Engine 26.1, with buildx.
    Trixie,
    /// Engine 28.5, with buildx.
    Sid,
}

impl Suite {
    fn name(self) -> &'static str {
        match self {
            Self::Bookworm => "bookworm",
            Self::Trixie => "trixie",
            Self::Sid => "sid",
        }
    }

    /// The image of a machine that hosts Docker. After a change of the packages, a new number makes every lab build it
    /// anew.
    pub fn image(self) -> String {
        format!("{DOCK_IMAGES}:{}-2", self.name())
    }

    fn rootfs(self) -> Rootfs {
        Rootfs {
            image: self.image(),
            release: self.name(),
            packages: self.packages(),
            without: &[],
        }
    }

    fn packages(self) -> String {
        let common = "ca-certificates,openssh-server,iptables,docker.io,rsync,procps,iproute2,busybox-static";
        match self {
            Self::Bookworm => common.to_owned(),
            // Docks with zstd, and one without.
            Self::Trixie | Self::Sid => format!("{common},docker-cli,docker-buildx,zstd"),
        }
    }
}

/// What debootstrap makes an image of.
#[derive(Debug, Clone)]
pub(super) struct Rootfs {
    /// The image, in [`DOCK_IMAGES`].
    pub(super) image: String,
    /// The release of Debian.
    pub(super) release: &'static str,
    /// Packages beside those that every Debian has, with commas between them.
    pub(super) packages: String,
    /// What is not taken into the image, as `--exclude` of tar.
    pub(super) without: &'static [&'static str],
}

impl Rootfs {
    fn tarball(&self, lab: &Lab) -> PathBuf {
        lab.shared.join(format!("{}.tar", self.image.replace(':', "-")))
    }
}

/// Makes sure that the machine's engine has the images of `suites`: from an earlier tarball, or from scratch, in
/// parallel.
pub(super) fn ensure(lab: &Lab, suites: &[Suite]) -> Result<(), Error> {
    let missing = || {
        let there = |suite: &Suite| image(&lab.local, &suite.image()).is_some();
        suites.iter().copied().filter(|suite| !there(suite)).collect::<Vec<_>>()
    };
    if missing().is_empty() {
        return Ok(());
    }
    let _lock = lab.lock_images()?;
    // Another process may have made them meanwhile.
    let missing: Vec<Rootfs> = missing().into_iter().map(Suite::rootfs).collect();
    require_debootstrap(lab, &missing)?;
    thread::scope(|scope| {
        let making: Vec<_> = missing.iter().map(|rootfs| scope.spawn(|| make(lab, rootfs))).collect();
        making
            .into_iter()
            .try_for_each(|thread| thread.join().unwrap_or(Err(Error::Thread)))
    })
}

/// Makes sure that debootstrap is there, if one of these has to be made by it.
pub(super) fn require_debootstrap(lab: &Lab, wanted: &[Rootfs]) -> Result<(), Error> {
    if wanted.iter().any(|rootfs| !rootfs.tarball(lab).exists()) {
        machine::require("debootstrap", &PACKAGES, PURPOSE)?;
    }
    Ok(())
}

/// What an engine reports about an image, if it has it.
pub(super) fn image(socket: &Path, name: &str) -> Option<serde_json::Value> {
    let answer = http::get(socket, &format!("/images/{name}/json"), ANSWER).ok()?;
    (answer.status == 200).then(|| answer.json())
}

/// Whether an engine has the base image; another image of its name is not accepted.
pub(super) fn has_base_image(socket: &Path) -> bool {
    let made_by = |image: serde_json::Value| {
        let labels = image.pointer("/Config/Labels")?;
        Some(labels.get(LABEL_BASE)?.as_str()?.to_owned())
    };
    image(socket, BASE_IMAGE).and_then(made_by).as_deref() == Some(BASE_RECIPE)
}

/// Imports an image, from an earlier tarball or from scratch.
pub(super) fn make(lab: &Lab, rootfs: &Rootfs) -> Result<(), Error> {
    let (image, tarball) = (&rootfs.image, rootfs.tarball(lab));
    if !tarball.exists() {
        // Labs that share the tarballs may use another engine.
        let _lock = wait(
            &tarball.with_extension("lock"),
            "lab: waiting for another process that installs Debian",
        )?;
        if !tarball.exists() {
            bootstrap(rootfs, &tarball)?;
        }
    }
    announce(format_args!("lab: importing {image}"));
    process::capture(
        lab.docker()
            .args(["import", "--change", "ENV LANG=C.UTF-8"])
            .arg(&tarball)
            .arg(image),
    )?;
    Ok(())
}

/// Installs Debian into a directory, and packs it. This needs root, for device files and their owners.
fn bootstrap(rootfs: &Rootfs, tarball: &Path) -> Result<(), Error> {
    let root = |program| {
        as_root(program).ok_or_else(|| machine::Error::Cannot {
            why: PURPOSE.to_owned(),
            packages: PACKAGES.join(" "),
            because: "not root, and there is no sudo",
            hint: "run `cargo xtask lab up` once as root".to_owned(),
        })
    };
    let temporary = tempfile::Builder::new()
        .prefix("dockerutils-lab-")
        .tempdir_in("/var/tmp");
    let temporary = temporary.map_err(|source| Error::File {
        path: PathBuf::from("/var/tmp"),
        source,
    })?;
    let directory = temporary.path().join("rootfs");
    let mut debootstrap = root("debootstrap")?;
    debootstrap
        .args([
            "--variant=minbase",
            &format!("--include={}", rootfs.packages),
            rootfs.release,
        ])
        .arg(&directory)
        .arg("http://deb.debian.org/debian");
    announce(format_args!(
        "lab: about a minute, once: {}",
        process::shown(&debootstrap)
    ));
    let mut tar = root("tar")?;
    let made = process::capture(&mut debootstrap).and_then(|_| {
        // A tarball that has this name must be complete.
        let partial = tarball.with_extension("partial");
        process::run(
            tar.args(rootfs.without.iter().map(|pattern| format!("--exclude={pattern}")))
                .arg("--create")
                .arg("--file")
                .arg(&partial)
                .arg("--directory")
                .arg(&directory)
                .arg("."),
        )?;
        Ok(partial)
    });
    // Its files belong to root, so the temporary directory could not remove them by itself under sudo.
    process::capture(
        root("rm")?
            .args(["--recursive", "--force", "--one-file-system"])
            .arg(&directory),
    )?;
    let partial = made?;
    fs::rename(&partial, tarball).map_err(|source| Error::File {
        path: tarball.to_owned(),
        source,
    })
}

/// Makes sure that the machine's engine has the base image: a busybox with its applets, a second's work.
pub(super) fn ensure_base_image(lab: &Lab) -> Result<(), Error> {
    if has_base_image(&lab.local) {
        return Ok(());
    }
    let _lock = lab.lock_images()?;
    if has_base_image(&lab.local) {
        return Ok(());
    }
    let temporary = tempfile::tempdir_in(&lab.directory);
    let temporary = temporary.map_err(|source| Error::File {
        path: lab.directory.clone(),
        source,
    })?;
    let root = temporary.path();
    for directory in ["bin", "etc", "root", "tmp"] {
        create_directory(&root.join(directory))?;
    }
    let tmp = root.join("tmp");
    fs::set_permissions(&tmp, fs::Permissions::from_mode(0o1777))
        .map_err(|source| Error::File { path: tmp, source })?;
    let busybox = root.join("bin/busybox");
    let dock = Suite::Trixie.image();
    let program = process::capture(
        lab.docker()
            .args(["run", "--rm", "--network=none"])
            .args(lab.labels())
            .args([&dock, "cat", "/usr/bin/busybox"]),
    )?;
    let file = |source| Error::File {
        path: busybox.clone(),
        source,
    };
    fs::write(&busybox, program).map_err(file)?;
    fs::set_permissions(&busybox, fs::Permissions::from_mode(0o755)).map_err(file)?;
    for applet in process::capture_text(Command::new(&busybox).arg("--list"))?.lines() {
        if applet != "busybox" {
            symlink("busybox", root.join("bin").join(applet)).map_err(file)?;
        }
    }
    write(
        &root.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    )?;
    write(&root.join("etc/group"), "root:x:0:\nnogroup:x:65534:\n")?;
    let mut tar = Command::new("tar");
    tar.args(["--create", "--owner=0", "--group=0", "--numeric-owner", "--directory"])
        .arg(root)
        .arg(".");
    process::pipe(
        &mut tar,
        lab.docker().args(["import", "--change", "CMD [\"sh\"]"]).args([
            "--change",
            &format!("LABEL {LABEL_BASE}={BASE_RECIPE}"),
            "-",
            BASE_IMAGE,
        ]),
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{Reply, ScriptedEngine};

    #[test]
    fn another_image_of_the_base_images_name_does_not_count() {
        let has = |labels: serde_json::Value| {
            let engine = ScriptedEngine::start().on(
                "GET",
                &format!("/images/{BASE_IMAGE}/json"),
                Reply::json(200, &json!({ "Id": "sha256:1", "Config": { "Labels": labels } })),
            );
            has_base_image(Path::new(engine.host().trim_start_matches("unix://")))
        };
        assert!(has(json!({ LABEL_BASE: BASE_RECIPE })));
        assert!(!has(json!({ LABEL_BASE: "0" })));
        assert!(!has(json!({})));
        assert!(!has(json!(null)));
        assert!(!has_base_image(Path::new("/nonexistent/docker.sock")));
        assert_eq!(BASE_IMAGE.split(':').next(), Some(BASE_NAME));
    }
}
