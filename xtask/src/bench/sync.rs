//! A project of 20,000 files, 200 MB, that its dock has already, over a link of 50 ms: `sync-up` beside `rsync -az`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use dockerutils_test_support::lab::{self, LabEngine};
use dockerutils_test_support::process::{self, announce};
use dockerutils_test_support::{SlowLink, machine};

use super::context::Project;
use super::measure::{Samples, peak_memory, time};
use super::{Row, Setting};
use crate::error::Error;

/// The dock; the machine's own engine is none.
const DOCK: &str = "26";
const ROUND_TRIP: Duration = Duration::from_millis(50);
/// Where both sides' copies lie on the dock: in memory, so that its disk is not what is measured.
const PLACE: &str = "/mnt/bench-sync";

pub(super) fn run(setting: &Setting) -> Result<Vec<Row>, Error> {
    machine::require("rsync", &["rsync"], "the bench's peer")?;
    let directory = tempfile::Builder::new()
        .prefix("bench")
        .tempdir()
        .map_err(Error::file("a temporary directory"))?;
    let engine = lab::engine(DOCK)?;
    let ssh = engine.ssh()?;
    let link = SlowLink::start(ssh.address, ROUND_TRIP, None).map_err(Error::file("a slow link"))?;
    let _place = Place::mount(&engine)?;
    let project = Project::write(directory.path().join("project"))?;
    let home = directory.path().join("home");
    let port = link.address().port();
    write_home(&home, port, &ssh)?;

    let mut ours = setting.ours("sync-up");
    let path = std::env::var("PATH").unwrap_or_default();
    ours.args(["--dock", "far"])
        .current_dir(&project.root)
        .env("HOME", &home)
        .env("XDG_RUNTIME_DIR", home.join("runtime"))
        .env("PATH", format!("{}:{path}", home.join("bin").display()))
        .env("LOGNAME", "bench")
        .env_remove("XDG_CONFIG_HOME")
        .env_remove("XDG_CACHE_HOME")
        .env_remove("DOCKER_HOST");
    let mut peer = Command::new("rsync");
    peer.arg("-az")
        .args(["-e", &format!("ssh -F {}", home.join(".ssh/config").display())])
        .arg(format!("{}/", project.root.display()))
        .arg(format!("root@127.0.0.1:{PLACE}/peer/"));
    announce("sending 200 MB twice, which is not measured");
    // Twice: the first time after it, the dock is asked what became of it.
    for _ in 0..2 {
        time(&mut ours)?;
        time(&mut peer)?;
    }
    let (mut our_samples, mut peer_samples) = (Samples::default(), Samples::default());
    for _ in 0..setting.runs {
        our_samples.push(time(&mut ours)?);
        peer_samples.push(time(&mut peer)?);
    }
    let memory = Some(peak_memory(&mut ours)?);
    // The agent ends by itself when nobody uses it; so long the link must not be gone.
    let mut forget = setting.ours("unregister-dock");
    forget
        .env_remove("XDG_CONFIG_HOME")
        .env_remove("XDG_CACHE_HOME")
        .arg("far")
        .env("HOME", &home)
        .env("XDG_RUNTIME_DIR", home.join("runtime"))
        .stdout(Stdio::null());
    process::capture(&mut forget)?;
    Ok(vec![Row {
        what: "nothing changed, 50 ms".to_owned(),
        ours: our_samples,
        peer: peer_samples,
        limit: 0.7,
        memory,
    }])
}

/// A home whose list of docks and ssh configuration know the dock at the link's beginning.
fn write_home(home: &Path, port: u16, ssh: &lab::Ssh) -> Result<(), Error> {
    let key = ssh.key.display();
    let config = home.join(".ssh/config");
    let known_hosts = home.join(".ssh/known_hosts");
    let files = [
        (
            ".config/dockerutils/docks.yml",
            format!(
                "version: 1\ndocks:\n- moniker: far\n  ssh:\n    host: 127.0.0.1\n    user: root\n    port: {port}\n    \
                 identity: {key}\n  workspace: {PLACE}\n"
            ),
        ),
        (
            ".ssh/config",
            format!(
                "Host *\n  Port {port}\n  IdentityFile {key}\n  UserKnownHostsFile {}\n  GlobalKnownHostsFile /dev/null\n",
                known_hosts.display()
            ),
        ),
        (".ssh/known_hosts", ssh.known_hosts_at(([127, 0, 0, 1], port).into())),
        // OpenSSH takes the home of the password database, whatever HOME says.
        (
            "bin/ssh",
            format!("#!/bin/sh\nexec /usr/bin/ssh -F {} \"$@\"\n", config.display()),
        ),
        ("runtime/.keep", String::new()),
    ];
    for (name, text) in files {
        let path = home.join(name);
        let directory = path.parent().unwrap_or(home);
        fs::create_dir_all(directory).map_err(Error::file(directory))?;
        fs::write(&path, text).map_err(Error::file(&path))?;
    }
    for (name, mode) in [("bin/ssh", 0o755), ("runtime", 0o700)] {
        let path = home.join(name);
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).map_err(Error::file(&path))?;
    }
    Ok(())
}

/// The place on the dock, until this is dropped.
struct Place<'a>(&'a LabEngine);

impl<'a> Place<'a> {
    fn mount(engine: &'a LabEngine) -> Result<Self, Error> {
        let place = Self(engine);
        place.unmount();
        process::capture(engine.exec("mkdir")?.args(["-p", PLACE]))?;
        process::capture(
            engine
                .exec("mount")?
                .args(["-t", "tmpfs", "-o", "size=1g", "tmpfs", PLACE]),
        )?;
        Ok(place)
    }

    fn unmount(&self) {
        if let Ok(mut umount) = self.0.exec("umount") {
            // It may not be there.
            let _ = umount.args(["-l", PLACE]).stderr(Stdio::null()).status();
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.unmount();
    }
}
