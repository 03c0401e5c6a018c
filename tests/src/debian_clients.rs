//! Docker's client with compose and buildx, as Debian trixie packages them, for programs of this machine. They are unpacked
//! once, and kept in the cache.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use dockerutils_test_support::lab::{self, Suite};
use dockerutils_test_support::process;

/// Docker 26.1, compose 2.26, buildx 0.13. After a change of [`UNPACK`], a new number has them unpacked anew.
const NAME: &str = "docker-clients-trixie-1";

/// Run in an image of the lab, which has the client and buildx; apt-get checks the signature of compose's package.
const UNPACK: &str = r#"
set -e
mkdir -p /clients/cli-plugins
cd /tmp
{ apt-get update -q && apt-get download -q -o APT::Sandbox::User=root docker-compose; } >&2
dpkg --extract docker-compose_*.deb compose
cp compose/usr/libexec/docker/cli-plugins/docker-compose /usr/libexec/docker/cli-plugins/docker-buildx /clients/cli-plugins
cp /usr/bin/docker /clients
tar --create --directory /clients .
"#;

/// The directory with `docker`, and the plugins in `cli-plugins` below it.
///
/// # Errors
/// Without the lab, Debian's mirror, or when the programs do not run here.
pub fn directory() -> io::Result<PathBuf> {
    let shared = lab::directory().map_err(io::Error::other)?;
    let directory = shared.join(NAME);
    // Tests run in processes of their own, several at a time. The system lets go of the lock when one dies.
    let lock = File::create(shared.join(format!("{NAME}.lock")))?;
    lock.lock()?;
    if !directory.exists() {
        let partial = directory.with_extension("partial");
        if partial.exists() {
            fs::remove_dir_all(&partial)?;
        }
        fs::create_dir_all(&partial)?;
        let image = lab::dock_image(Suite::Trixie).map_err(io::Error::other)?;
        let mut unpack = lab::run().map_err(io::Error::other)?;
        unpack.args(["--network=host", &image, "sh", "-c", UNPACK]);
        let mut tar = Command::new("tar");
        tar.args(["--extract", "--directory"]).arg(&partial);
        process::pipe(&mut unpack, &mut tar).map_err(io::Error::other)?;
        fs::rename(&partial, &directory)?;
    }
    for program in ["docker", "cli-plugins/docker-compose", "cli-plugins/docker-buildx"] {
        runs(&directory.join(program))?;
    }
    Ok(directory)
}

/// They are linked to libc: a machine whose libc is older than theirs can't run them.
fn runs(program: &Path) -> io::Result<()> {
    let output = Command::new(program).arg("--help").stdin(Stdio::null()).output()?;
    match output.status.success() {
        true => Ok(()),
        false => Err(io::Error::other(format!(
            "{}: {}",
            program.display(),
            String::from_utf8_lossy(&output.stderr)
        ))),
    }
}
