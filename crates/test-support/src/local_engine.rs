//! The machine's own engine: found, or set up if that is possible.

use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use crate::process::{self, announce, on_path};
use crate::{http, machine};

/// Where it listens by default.
pub const SOCKET: &str = "/var/run/docker.sock";

/// How long it may take to answer after its start.
const START: Duration = Duration::from_secs(60);

/// There is no engine on this machine, and none could be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its package cannot be installed.
    #[error(transparent)]
    Machine(#[from] machine::Error),
    /// It was started and does not answer, or does not admit this user.
    #[error(
        "no Docker engine answers on {SOCKET}\n\nhint: start it (as root: service docker start); \
         if it runs, you may have to be of its group (as root: adduser $USER docker), and to log in again"
    )]
    Silent,
    /// It cannot be started, or its log cannot be written.
    #[error("the Docker engine cannot be started")]
    Start(#[source] io::Error),
}

/// Makes sure that it answers: installs and starts it on Debian and Ubuntu, and announces that.
///
/// # Errors
/// When it does not answer in the end; the message says what to do.
pub fn ensure() -> Result<(), Error> {
    if answers() {
        return Ok(());
    }
    if on_path("dockerd").is_none() {
        machine::install(&["docker.io"], "running containers")?;
    }
    // Without a service manager, as in a container, the package does not start it.
    let started = Instant::now();
    if !soon(Duration::from_secs(5)) {
        start()?;
    }
    if !soon(START.saturating_sub(started.elapsed())) {
        return Err(Error::Silent);
    }
    Ok(())
}

/// Whether it answers now.
pub fn answers() -> bool {
    http::get(Path::new(SOCKET), "/_ping", Duration::from_secs(10)).is_ok_and(|answer| answer.status == 200)
}

fn soon(limit: Duration) -> bool {
    let started = Instant::now();
    while !answers() {
        if started.elapsed() > limit {
            return false;
        }
        thread::sleep(Duration::from_millis(100));
    }
    true
}

/// Starts its service; if that fails (the script sets limits that a container may not), the engine itself.
fn start() -> Result<(), Error> {
    let Some(mut service) = machine::as_root("service") else {
        return Err(Error::Silent);
    };
    service.args(["docker", "start"]);
    announce(format_args!(
        "the Docker engine does not run; starting it: {}",
        process::shown(&service)
    ));
    if process::run(&mut service).is_ok() {
        return Ok(());
    }
    let Some(mut dockerd) = machine::as_root("dockerd") else {
        return Err(Error::Silent);
    };
    let log = std::env::temp_dir().join("dockerd.log");
    announce(format_args!(
        "starting it by itself: {} (it says why it fails in {})",
        process::shown(&dockerd),
        log.display()
    ));
    let file = File::create(&log).map_err(Error::Start)?;
    dockerd
        .stdin(Stdio::null())
        .stdout(file.try_clone().map_err(Error::Start)?)
        .stderr(file);
    // It outlives us, and a Ctrl-C at our terminal must not reach it.
    dockerd.process_group(0).spawn().map_err(Error::Start)?;
    Ok(())
}
