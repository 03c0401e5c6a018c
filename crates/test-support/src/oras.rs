//! oras, the client of OCI artifacts: Debian's, in the version of trixie, which runs on bookworm, too.

use std::fs;
use std::path::PathBuf;

use crate::lab::{self, Suite};
use crate::process;
use crate::registry::{Error, file, locked};

/// The package, and the program in it.
const PACKAGE: &str = "oras";

/// The program. It is downloaded in a container of trixie and unpacked, as bookworm has no such package.
///
/// # Errors
/// A package that cannot be downloaded, a program that fails.
pub fn program() -> Result<PathBuf, Error> {
    let directory = lab::directory()?;
    let program = directory.join(PACKAGE);
    let _lock = locked(&directory.join(format!("{PACKAGE}.lock")))?;
    if program.exists() {
        return Ok(program);
    }
    let temporary = tempfile::tempdir_in(&directory).map_err(file(&directory))?;
    let shared = temporary.path().display().to_string();
    process::announce(format_args!("{PACKAGE} is downloaded from Debian"));
    let script = format!(
        "apt-get update -qq && cd /tmp && apt-get download -qq {PACKAGE} && dpkg --extract {PACKAGE}_*.deb unpacked && cp \
         unpacked/usr/bin/{PACKAGE} /shared/"
    );
    let mut run = lab::run()?;
    run.args([
        "--network=host",
        &format!("--volume={shared}:/shared"),
        "--entrypoint=sh",
    ]);
    run.args([lab::dock_image(Suite::Trixie)?.as_str(), "-ec", &script]);
    process::capture(&mut run)?;
    let unpacked = temporary.path().join(PACKAGE);
    fs::rename(&unpacked, &program).map_err(file(unpacked))?;
    Ok(program)
}
