//! `sync-up` beside `rsync -az`: a project of 20,000 files, 200 MB, that its dock has already, over a link of 50 ms; new data, both
//! ways, at 0 and 50 ms; and beside itself, to measure what waiting for the dock's disk costs.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use dockerutils_test_support::lab::{self, LabEngine};
use dockerutils_test_support::process::{self, announce};
use dockerutils_test_support::{SlowLink, machine};

use super::context::{BenchProject, Noise};
use super::measure::{Samples, peak_memory, time};
use super::{Comparison, Setting};
use crate::error::Error;

/// The dock; the machine's own engine can't be one.
const DOCK: &str = "26";
const ROUND_TRIP: Duration = Duration::from_millis(50);
/// The directory of both sides' copies on the dock: in memory, so that its disk is not measured.
const PLACE: &str = "/mnt/bench-sync";
/// The directory in it whose files are brought from there.
const DATA: &str = "data";

/// New data: its name, the number of files, the bytes of each, and whether they can be compressed.
const NEW: [(&str, usize, usize, bool, f64); 3] = [
    ("300 MB of noise", 1, 300_000_000, false, 1.0),
    ("300 MB of text", 1, 300_000_000, true, 0.7),
    ("5,000 small files", 5_000, 2_000, true, 0.4),
];

pub(super) fn run(setting: &Setting) -> Result<Vec<Comparison>, Error> {
    machine::require("rsync", &["rsync"], "the bench's peer")?;
    let directory = tempfile::Builder::new()
        .prefix("bench")
        .tempdir()
        .map_err(Error::file("a temporary directory"))?;
    let engine = lab::engine(DOCK)?;
    let mut rows = vec![nothing_changed(setting, &engine, directory.path())?];
    for (what, files, bytes, packs, limit) in NEW {
        let data = directory.path().join("data");
        write_data(&data, files, bytes, packs)?;
        for round_trip in [Duration::ZERO, ROUND_TRIP] {
            let new = New {
                setting,
                engine: &engine,
                directory: directory.path(),
                data: &data,
                what,
                limit,
                round_trip,
            };
            rows.push(new.up()?);
            rows.push(new.down()?);
        }
        if files > 1 {
            rows.push(durability(setting, &engine, directory.path(), &data, what)?);
        }
        fs::remove_dir_all(&data).map_err(Error::file(&data))?;
    }
    Ok(rows)
}

/// A home at the near end of a link to the dock.
struct Near<'a> {
    setting: &'a Setting,
    home: PathBuf,
    _link: SlowLink,
}

impl<'a> Near<'a> {
    fn new(setting: &'a Setting, engine: &LabEngine, home: PathBuf, round_trip: Duration) -> Result<Self, Error> {
        let ssh = engine.ssh()?;
        let link = SlowLink::start(ssh.address, round_trip, None).map_err(Error::file("a slow link"))?;
        write_home(&home, link.address().port(), &ssh)?;
        Ok(Self {
            setting,
            home,
            _link: link,
        })
    }

    fn up(&self, project: &Path) -> Command {
        self.ours("sync-up", project)
    }

    fn down(&self, project: &Path) -> Command {
        self.ours("sync-down", project)
    }

    fn ours(&self, program: &str, project: &Path) -> Command {
        let mut ours = self.setting.ours(program);
        let path = std::env::var("PATH").unwrap_or_default();
        ours.args(["--dock", "far"])
            .current_dir(project)
            .env("HOME", &self.home)
            .env("XDG_RUNTIME_DIR", self.home.join("runtime"))
            .env("PATH", format!("{}:{path}", self.home.join("bin").display()))
            .env("LOGNAME", "bench")
            .env_remove("XDG_CONFIG_HOME")
            .env_remove("XDG_CACHE_HOME")
            .env_remove("DOCKER_HOST");
        ours
    }

    fn peer(&self, project: &Path) -> Command {
        let mut peer = self.rsync();
        peer.arg(format!("{}/", project.display()))
            .arg(format!("root@127.0.0.1:{PLACE}/peer/"));
        peer
    }

    fn peer_down(&self, to: &Path) -> Command {
        let mut peer = self.rsync();
        peer.arg(format!("root@127.0.0.1:{PLACE}/{DATA}/"))
            .arg(format!("{}/", to.display()));
        peer
    }

    fn rsync(&self) -> Command {
        let mut peer = Command::new("rsync");
        peer.arg("-az")
            .args(["-e", &format!("ssh -F {}", self.home.join(".ssh/config").display())]);
        peer
    }

    /// The agent ends by itself when nothing uses it; until then the link must stay.
    fn forget(self) -> Result<(), Error> {
        let mut forget = self.setting.ours("unregister-dock");
        forget
            .env_remove("XDG_CONFIG_HOME")
            .env_remove("XDG_CACHE_HOME")
            .arg("far")
            .env("HOME", &self.home)
            .env("XDG_RUNTIME_DIR", self.home.join("runtime"))
            .stdout(Stdio::null());
        process::capture(&mut forget).map(drop).map_err(Error::from)
    }
}

fn nothing_changed(setting: &Setting, engine: &LabEngine, directory: &Path) -> Result<Comparison, Error> {
    let _place = DockDirectory::mount(engine)?;
    let project = BenchProject::write(directory.join("project"))?;
    let near = Near::new(setting, engine, directory.join("home"), ROUND_TRIP)?;
    let (mut ours, mut peer) = (near.up(&project.root), near.peer(&project.root));
    announce("sending 200 MB twice, which is not measured");
    // Twice: the first sync after a transfer asks the dock about its result.
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
    near.forget()?;
    Ok(Comparison {
        what: "nothing changed, 50 ms".to_owned(),
        ours: our_samples,
        peer: peer_samples,
        limit: Some(0.7),
        memory,
    })
}

/// A project without data that has never been on the dock.
fn empty_project(directory: &Path, number: usize) -> Result<PathBuf, Error> {
    let project = directory.join(format!("new-{number}"));
    if project.exists() {
        fs::remove_dir_all(&project).map_err(Error::file(&project))?;
    }
    let image = project.join("docker/box");
    fs::create_dir_all(&image).map_err(Error::file(&image))?;
    let dockerfile = image.join("Dockerfile");
    fs::write(&dockerfile, "FROM scratch\n").map_err(Error::file(&dockerfile))?;
    Ok(project)
}

/// A project that has never been on the dock, whose data is that of `data`.
fn new_project(directory: &Path, data: &Path, number: usize) -> Result<PathBuf, Error> {
    let project = empty_project(directory, number)?;
    for entry in fs::read_dir(data).map_err(Error::file(data))? {
        let file = entry.map_err(Error::file(data))?.path();
        let name = file.file_name().unwrap_or_default();
        fs::hard_link(&file, project.join(name)).map_err(Error::file(&file))?;
    }
    Ok(project)
}

/// Data that the other side lacks.
struct New<'a> {
    setting: &'a Setting,
    engine: &'a LabEngine,
    directory: &'a Path,
    data: &'a Path,
    what: &'a str,
    limit: f64,
    round_trip: Duration,
}

impl New<'_> {
    fn row(&self, way: &str, ours: Samples, peer: Samples, memory: u64) -> Comparison {
        Comparison {
            what: format!("{way} {}, {} ms", self.what, self.round_trip.as_millis()),
            ours,
            peer,
            limit: Some(self.limit),
            memory: Some(memory),
        }
    }

    fn near(&self) -> Result<Near<'_>, Error> {
        Near::new(self.setting, self.engine, self.directory.join("near"), self.round_trip)
    }

    fn up(&self) -> Result<Comparison, Error> {
        let place = DockDirectory::mount(self.engine)?;
        let near = self.near()?;
        let project = |number| new_project(self.directory, self.data, number);
        // Our connection is open while a user works; the peer opens one each time, as it always does.
        time(&mut near.up(&project(0)?))?;
        let (mut ours, mut peer) = (Samples::default(), Samples::default());
        for number in 1..=self.setting.runs {
            place.empty()?;
            let project = project(number)?;
            ours.push(time(&mut near.up(&project))?);
            place.empty()?;
            peer.push(time(&mut near.peer(&project))?);
            fs::remove_dir_all(&project).map_err(Error::file(&project))?;
        }
        place.empty()?;
        let memory = peak_memory(&mut near.up(&project(self.setting.runs + 1)?))?;
        near.forget()?;
        Ok(self.row("up", ours, peer, memory))
    }

    fn down(&self) -> Result<Comparison, Error> {
        let place = DockDirectory::mount(self.engine)?;
        let near = self.near()?;
        let mut give = near.rsync();
        give.arg(format!("{}/", self.data.display()))
            .arg(format!("root@127.0.0.1:{PLACE}/{DATA}/"));
        process::capture(&mut give)?;
        // A project whose data is only in the workspace.
        let project = |number| {
            let project = empty_project(self.directory, number)?;
            time(&mut near.up(&project))?;
            place.fill(&project)?;
            Ok::<_, Error>(project)
        };
        let (mut ours, mut peer) = (Samples::default(), Samples::default());
        for number in 1..=self.setting.runs {
            let project = project(number)?;
            ours.push(time(&mut near.down(&project))?);
            fs::remove_dir_all(&project).map_err(Error::file(&project))?;
            let theirs = self.directory.join("theirs");
            peer.push(time(&mut near.peer_down(&theirs))?);
            fs::remove_dir_all(&theirs).map_err(Error::file(&theirs))?;
        }
        let memory = peak_memory(&mut near.down(&project(self.setting.runs + 1)?))?;
        near.forget()?;
        Ok(self.row("down", ours, peer, memory))
    }
}

/// Ours beside ours on a dock whose `sync` does nothing; on the dock's disk, because in memory there is nothing to wait
/// for.
fn durability(
    setting: &Setting,
    engine: &LabEngine,
    directory: &Path,
    data: &Path,
    what: &str,
) -> Result<Comparison, Error> {
    let place = DockDirectory::on_disk(engine)?;
    let near = Near::new(setting, engine, directory.join("near"), Duration::ZERO)?;
    let warm = new_project(directory, data, 0)?;
    time(&mut near.up(&warm))?;
    let (mut waits, mut does_not) = (Samples::default(), Samples::default());
    for number in 1..=setting.runs {
        for (samples, is_idle) in [(&mut waits, false), (&mut does_not, true)] {
            place.empty()?;
            let project = new_project(directory, data, number)?;
            let idle = is_idle.then(|| IdleSync::put(engine)).transpose()?;
            samples.push(time(&mut near.up(&project))?);
            drop(idle);
            fs::remove_dir_all(&project).map_err(Error::file(&project))?;
        }
    }
    near.forget()?;
    Ok(Comparison {
        what: format!("{what}, sync -f"),
        ours: waits,
        peer: does_not,
        limit: None,
        memory: None,
    })
}

/// Writes new data: noise, or text.
fn write_data(data: &Path, files: usize, bytes: usize, packs: bool) -> Result<(), Error> {
    fs::create_dir_all(data).map_err(Error::file(data))?;
    let mut noise = Noise::seeded_by(data);
    for number in 0..files {
        let file = data.join(format!("file-{number}"));
        let contents = if packs { noise.text(bytes) } else { noise.bytes(bytes) };
        fs::write(&file, contents).map_err(Error::file(&file))?;
    }
    Ok(())
}

/// A home whose list of docks and ssh configuration lead to the dock through the link.
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
        // OpenSSH takes the home from the password database, and ignores HOME.
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

/// A `sync` of the dock that waits for nothing, until this is dropped.
struct IdleSync<'a>(&'a LabEngine);

impl<'a> IdleSync<'a> {
    const SAVED: &'static str = "/bin/sync.bench";

    fn put(engine: &'a LabEngine) -> Result<Self, Error> {
        let script = format!(
            "mv /bin/sync {0} && printf '#!/bin/sh\\n' > /bin/sync && chmod 755 /bin/sync",
            Self::SAVED
        );
        process::capture(engine.exec("sh")?.args(["-c", &script]))?;
        Ok(Self(engine))
    }
}

impl Drop for IdleSync<'_> {
    fn drop(&mut self) {
        if let Ok(mut back) = self.0.exec("mv") {
            // If it can't be put back, the next `lab up` creates the dock again.
            let _ = back.args([Self::SAVED, "/bin/sync"]).status();
        }
    }
}

/// The place on the dock, until this is dropped.
struct DockDirectory<'a>(&'a LabEngine);

impl<'a> DockDirectory<'a> {
    /// On the dock's disk.
    fn on_disk(engine: &'a LabEngine) -> Result<Self, Error> {
        let place = Self(engine);
        place.unmount();
        process::capture(engine.exec("mkdir")?.args(["-p", PLACE]))?;
        Ok(place)
    }

    /// Puts the data there into a project's workspace, as hard links.
    fn fill(&self, project: &Path) -> Result<(), Error> {
        let name = project.file_name().unwrap_or_default().to_string_lossy();
        let script = format!("cp -al {PLACE}/{DATA}/. {PLACE}/*/code/{name}/");
        process::capture(self.0.exec("sh")?.args(["-c", &script]))
            .map(drop)
            .map_err(Error::from)
    }

    /// Removes the data there.
    fn empty(&self) -> Result<(), Error> {
        let script = format!("rm -rf {PLACE}/* {PLACE}/.[!.]*");
        process::capture(self.0.exec("sh")?.args(["-c", &script]))
            .map(drop)
            .map_err(Error::from)
    }

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

impl Drop for DockDirectory<'_> {
    fn drop(&mut self) {
        // If it stays, the next run unmounts it.
        let _ = self.empty();
        self.unmount();
    }
}
