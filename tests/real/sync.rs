//! `sync-up`, `sync-down` and docked bind mounts on a real dock: what travels, what is said, and what is left when the
//! link is cut, a process is killed, or a disk is full.

use std::fs;
use std::io::Read;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use dockerutils_core::agent::Agent;
use dockerutils_core::docks::{Access, Dock, SshAccess};
use dockerutils_core::env::Env;
use dockerutils_test_support::lab::{self, LabEngine};
use dockerutils_test_support::process::capture_text;
use dockerutils_test_support::wait;
use dockerutils_test_support::{Invocation, Sandbox, SlowLink, machine};
use rustix::process::Signal;

/// What is of ours in a workspace when no sync runs, beside the name of its state and what is kept.
const OWN_FILES: &str = "ls -A \"$1/.dockerutils-sync\" | grep -vx -e generation -e trash";

/// A project, a home with a dock in its list, and that dock.
pub(crate) struct Far {
    pub(crate) sandbox: Sandbox,
    engine: LabEngine,
    dock: Dock,
    name: String,
}

impl Far {
    /// A project of this name, which no other test has, and a dock on which `user` logs in.
    fn new(name: &str, user: &str) -> Self {
        Self::with(name, user, None, None)
    }

    pub(crate) fn with(name: &str, user: &str, through: Option<SocketAddr>, workspace: Option<&str>) -> Self {
        let engine = lab::engine("26").unwrap();
        let ssh = engine.ssh().unwrap();
        let address = through.unwrap_or(ssh.address);
        let sandbox = Sandbox::named(name);
        let home = sandbox.home();
        let dock = Dock {
            moniker: "far".into(),
            access: Access::Ssh(SshAccess {
                host: address.ip().to_string(),
                user: Some(user.to_owned()),
                port: Some(address.port()),
                identity: Some(ssh.key.clone()),
                docker_socket: None,
            }),
            workspace: workspace.map(str::to_owned),
            forward: dockerutils_core::docks::Forward::None,
            mounts: dockerutils_core::docks::MountPaths::default(),
        };
        let list = dockerutils_core::docks::list::render(std::slice::from_ref(&dock)).unwrap();
        let sandbox = sandbox.file("../home/.config/dockerutils/docks.yml", list);
        // OpenSSH takes the home of the password database, whatever HOME says.
        let config = format!(
            "Host *\n  UserKnownHostsFile {}\n  GlobalKnownHostsFile /dev/null\n",
            home.join(".ssh/known_hosts").display()
        );
        let wrapper = format!(
            "#!/bin/sh\nexec /usr/bin/ssh -F {} \"$@\"\n",
            home.join(".ssh/config").display()
        );
        let sandbox = sandbox
            .file("../home/.ssh/known_hosts", ssh.known_hosts_at(address))
            .file("../home/.ssh/config", config)
            .script("../home/bin/ssh", wrapper)
            .file("docker/box/Dockerfile", "FROM dockerutils-lab-base:1\n");
        let far = Self {
            sandbox,
            engine,
            dock,
            name: name.to_owned(),
        };
        far.there(&["rm", "-rf", &far.base()]);
        far
    }

    fn path(&self) -> String {
        format!(
            "{}:{}",
            self.sandbox.home().join("bin").display(),
            std::env::var("PATH").unwrap()
        )
    }

    pub(crate) fn command(&self, name: &str) -> Invocation<'_> {
        self.sandbox
            .command(name)
            .env("PATH", self.path())
            .env("LOGNAME", &self.name)
            .env_remove("DOCKER_HOST")
            .limit(Duration::from_secs(180))
    }

    fn sync(&self, name: &str) -> Invocation<'_> {
        self.command(name).args(["--dock", "far"])
    }

    /// What a container or a person does on the dock, as root.
    fn there(&self, words: &[&str]) -> String {
        let mut exec = self.engine.exec(words[0]).unwrap();
        capture_text(exec.args(&words[1..])).unwrap()
    }

    pub(crate) fn shell_there(&self, script: &str) -> String {
        self.there(&["sh", "-c", script, "sh", &self.workspace()])
    }

    /// As the user of the dock would.
    fn write_there(&self, path: &str, text: &str) {
        self.there(&[
            "su",
            "ann",
            "-c",
            &format!("printf %s '{text}' > '{}/{path}'", self.workspace()),
        ]);
    }

    fn base(&self) -> String {
        match (&self.dock.workspace, &self.dock.access) {
            (Some(base), _) => format!("{base}/{}", self.name),
            (None, Access::Ssh(ssh)) if ssh.user.as_deref() == Some("ann") => {
                format!("/home/ann/workspaces/{}", self.name)
            }
            _ => format!("/root/workspaces/{}", self.name),
        }
    }

    fn workspace(&self) -> String {
        format!("{}/code/{}", self.base(), self.name)
    }

    fn env(&self) -> Env {
        let root = self.sandbox.home().parent().unwrap().to_owned();
        Env::from_pairs([
            ("HOME", self.sandbox.home().display().to_string()),
            ("XDG_RUNTIME_DIR", root.join("runtime").display().to_string()),
            ("PATH", self.path()),
        ])
    }

    /// The processes of the agent: its worker, and with `both` its supervisor, which comes first.
    fn agent(&self, both: bool) -> Vec<rustix::process::Pid> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let agent = Agent::of(&self.dock, &self.env()).unwrap();
        let status = runtime.block_on(agent.status(false)).unwrap().expect("it runs");
        let stat = fs::read_to_string(format!("/proc/{}/stat", status.pid)).unwrap();
        let parent = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(1).unwrap();
        let pid = |number: &str| rustix::process::Pid::from_raw(number.parse().unwrap()).unwrap();
        let worker = pid(&status.pid.to_string());
        if both { vec![pid(parent), worker] } else { vec![worker] }
    }

    /// Sums of all files there, without our own directory.
    fn sums_there(&self) -> String {
        self.shell_there(
            "cd \"$1\" && find . -path ./.dockerutils-sync -prune -o -type f -print0 | sort -z | xargs -0 sha256sum",
        )
    }

    fn sums_here(&self) -> String {
        let script = "find . -path ./.dockerutils-sync -prune -o -type f -print0 | sort -z | xargs -0 sha256sum";
        capture_text(
            Command::new("sh")
                .args(["-c", script])
                .current_dir(self.sandbox.project()),
        )
        .unwrap()
    }

    fn assert_in_step(&self) {
        self.sync("sync-up").any_stdout().any_stderr().run();
        assert_eq!(self.sums_here(), self.sums_there());
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let _ = runtime.block_on(async { Agent::of(&self.dock, &self.env())?.stop().await });
        if let Ok(mut exec) = self.engine.exec("rm") {
            let _ = capture_text(exec.args(["-rf", &self.base()]));
        }
    }
}

/// Bytes that can't be compressed, always the same of the same seed.
pub(crate) fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let step = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    std::iter::repeat_with(step).take(length).collect()
}

#[test]
fn a_project_goes_to_the_dock_and_what_is_done_there_comes_back() {
    let far = Far::new("sync-there-and-back", "ann");
    far.sandbox.write("src/a.py", "print('a')\n");
    far.sandbox.write("-odd name\n\u{e9}", "odd");
    far.sandbox.write("data.csv", "1,2\n");
    far.sandbox.write(".dockerignore", "*.csv\n");
    let there = far.workspace();
    // Nothing is done by a list.
    far.sync("sync-up")
        .arg("--list")
        .stdout_has("send         src/a.py\n")
        .stdout_has("send         -odd name\u{fffd}\u{e9}\n")
        .run();
    assert!(
        !far.there(&["sh", "-c", &format!("ls {there} 2>&1 || true")])
            .contains("src")
    );
    far.sync("sync-up").stdout_has(&format!("far:{there}: 7 sent (")).run();
    far.sync("sync-up")
        .stdout(&format!("far:{there}: nothing to do\n"))
        .run();
    assert_eq!(far.shell_there("cat \"$1/src/a.py\""), "print('a')");
    assert!(!far.shell_there("ls \"$1\"").contains("data.csv"));

    far.write_there("result", "made there");
    far.shell_there("rm \"$1/src/a.py\"; touch \"$1/more.csv\"");
    far.sync("sync-up")
        .stdout(&format!("far:{there}: nothing to do\n"))
        .stderr("2 changed on the dock: sync-down brings them\n")
        .run();
    let down = far.sync("sync-down").arg("--json").any_stdout().run();
    let json: serde_json::Value = serde_json::from_str(&down.stdout).unwrap();
    assert_eq!(json["brought"], serde_json::json!(["result"]));
    assert_eq!(json["removed_here"], serde_json::json!(["src/a.py"]));
    assert_eq!(far.sandbox.read("result"), "made there");
    assert!(!far.sandbox.project().join("src/a.py").exists() && !far.sandbox.project().join("more.csv").exists());

    // A conflict: named, left alone, settled.
    far.sandbox.write("result", "ours");
    far.write_there("result", "theirs");
    far.sandbox.write("other", "travels");
    far.sync("sync-up")
        .code(1)
        .stdout_has("1 sent (7 B), 1 in conflict")
        .stderr_has("sync-up: warning: result: changed on both sides\n")
        .stderr_has("hint: sync-up --dock far --ours result takes this machine's version")
        .run();
    far.sync("sync-down")
        .code(1)
        .any_stdout()
        .stderr_has("result: changed on both sides; the dock's version is in result.dock\n")
        .run();
    assert_eq!(
        (far.sandbox.read("result"), far.sandbox.read("result.dock")),
        ("ours".into(), "theirs".into())
    );
    far.sync("sync-up").args(["--theirs", "result"]).any_stdout().run();
    assert_eq!(far.sandbox.read("result"), "theirs");
    assert!(!far.sandbox.project().join("result.dock").exists());
    far.sync("sync-up")
        .arg("../elsewhere")
        .code(2)
        .stderr_has("../elsewhere is not in the project")
        .run();
    // Root's files, as a container makes them.
    far.shell_there("mkdir \"$1/out\" && echo x > \"$1/out/of-root\"");
    far.sync("sync-down")
        .any_stdout()
        .stderr_has("2 of the workspace's files belong to root, made by a container: out, out/of-root\n")
        .run();
    assert_eq!(far.sandbox.read("out/of-root"), "x\n");
    far.sandbox.write("out/of-root", "mine");
    far.sync("sync-up")
        .code(1)
        .any_stdout()
        .stderr_has("out/of-root: ")
        .stderr_has("out/of-root was not synced: its directory belongs to root on the dock")
        .run();
    assert_eq!(far.shell_there("cat \"$1/out/of-root\""), "x");
    // A container gives them to the user; what links lead to stays whose it is.
    far.shell_there("echo root > /tmp/sync-of-root; ln -s /tmp/sync-of-root \"$1/out/link\"");
    far.sync("sync-up")
        .arg("--chown")
        .any_stdout()
        .stderr_has("docker run --rm --network none --user 0:0 --entrypoint find ")
        .stderr_has(&format!("3 files of far:{} are yours now\n", far.workspace()))
        .run();
    assert_eq!(far.shell_there("cat \"$1/out/of-root\""), "mine");
    assert_eq!(
        far.shell_there("cd \"$1/out\" && stat -c %U . of-root link /tmp/sync-of-root; rm /tmp/sync-of-root link"),
        "ann\nann\nann\nroot"
    );
    assert_eq!(
        far.there(&[
            "docker",
            "ps",
            "-aq",
            "--filter",
            "label=io.dockerutils.project=sync-there-and-back"
        ]),
        ""
    );
}

#[test]
fn another_checkout_is_told_whose_workspace_it_is() {
    let far = Far::new("sync-owner", "root");
    far.sandbox.write("a", "a");
    far.sync("sync-up").any_stdout().run();
    let other = Far::new("sync-owner", "root");
    // Its own beginning removed it: here it is again.
    far.sync("sync-up").any_stdout().run();
    other.sandbox.write("a", "other");
    other
        .sync("sync-up")
        .code(1)
        .stderr_has(&format!(
            "is the copy of {} of sync-owner@",
            far.sandbox.project().display()
        ))
        .stderr_has("register-dock --workspace")
        .run();
    assert_eq!(far.shell_there("cat \"$1/a\""), "a");
}

#[test]
fn a_full_disk_on_either_side_leaves_every_file_whole() {
    let mount = "/mnt/sync-full-disk";
    let far = Far::with("sync-full-disk", "root", None, Some(mount));
    let _mounted = Mounted::new(&far, mount, "3m");
    far.sandbox.write("a", "old");
    far.sync("sync-up").any_stdout().run();
    far.sandbox.write("a", "new");
    far.sandbox.write("big", noise(6_000_000, 1));
    far.sync("sync-up")
        .code(1)
        .stderr_has("sync-up: far could not take the files")
        .stderr_has("No space left on device")
        .stderr_has("hint: its disk is full")
        .run();
    assert_eq!(far.shell_there(&format!("cat \"$1/a\"; {OWN_FILES}")), "oldowner");
    // What comes down needs no room there.
    far.shell_there("echo there > \"$1/t\"; cat /dev/zero > \"$1/zeros\" 2>/dev/null; true");
    far.sync("sync-down").any_stdout().any_stderr().run();
    assert_eq!(far.sandbox.read("t"), "there\n");
    far.there(&["mount", "-o", "remount,size=60m", mount]);
    far.assert_in_step();

    // Here: a small disk of this command alone. What is seen not to fit does not even begin; where there is no room for names,
    // or somebody else takes it, it ends in the middle.
    far.shell_there("head -c 9000000 /dev/urandom > \"$1/large\"; echo newer > \"$1/a\"");
    far.shell_there("cd \"$1\" && for n in $(seq 100); do echo $n > n$n; done");
    let project = far.sandbox.project();
    let script = "mkdir \"$1\" && mount -t tmpfs -o \"$4\" tmpfs \"$1\" && cp -a \"$2/.\" \"$1/\" && mount --bind \"$1\" \"$2\" && \
                  cd \"$2\" && { \"$3\" --dock far; echo code $?; cat a; ls -A | grep dockerutils; }";
    for (disk, said, hint) in [
        ("size=14m", "are free on the disk of", "hint: make room, bring less"),
        (
            "size=60m,nr_inodes=60",
            "files and directories to bring, and",
            "hint: make room, bring less",
        ),
    ] {
        let output = far
            .sandbox
            .program("/usr/bin/unshare")
            .args(["-rm", "sh", "-c", script, "sh"])
            .arg(project.with_file_name(format!("small-{}", disk.len())))
            .arg(project)
            .arg(dockerutils_test_support::binary("sync-down"))
            .arg(disk)
            .env("PATH", far.path())
            .env("LOGNAME", &far.name)
            .env_remove("DOCKER_HOST")
            .code(1)
            .any_stdout()
            .any_stderr()
            .run();
        assert!(output.stderr.contains(said) && output.stderr.contains(hint), "{output}");
        assert_eq!(output.stdout, "code 1\nnew", "{output}");
    }
    // The small disks were another folder at this path: the user decides about the differences.
    far.sync("sync-down").arg("--theirs").any_stdout().any_stderr().run();
    far.assert_in_step();
}

/// A file system in the dock's memory.
struct Mounted {
    engine: LabEngine,
    place: String,
}

impl Mounted {
    fn new(far: &Far, place: &str, size: &str) -> Self {
        let mounted = Self {
            engine: far.engine.clone(),
            place: place.to_owned(),
        };
        mounted.unmount();
        far.there(&["mkdir", "-p", place]);
        far.there(&["mount", "-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs", place]);
        mounted
    }

    fn unmount(&self) {
        let mut umount = self.engine.exec("umount").unwrap();
        // It may not be there.
        let _ = umount
            .args(["-l", &self.place])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        self.unmount();
    }
}

/// Waits until so many bytes have gone to the dock.
fn wait_for(link: &SlowLink, bytes: u64) {
    wait::until(format_args!("{bytes} bytes"), || link.bytes().0 >= bytes);
}

/// Forty files that are on a dock already, and the link before it.
fn forty_files_in_step(mark: &str) -> (SlowLink, Far) {
    let address = lab::engine("26").unwrap().ssh().unwrap().address;
    let link = SlowLink::start(address, Duration::from_millis(10), Some(40_000_000)).unwrap();
    let far = Far::with(mark, "ann", Some(link.address()), None);
    for number in 0..40 {
        far.sandbox.write(&format!("d{}/f{number}", number % 4), "old");
    }
    far.sync("sync-up").any_stdout().run();
    (link, far)
}

#[test]
fn a_cut_and_a_kill_at_any_moment_lose_nothing() {
    let (link, far) = forty_files_in_step("sync-cut");
    let old = far.sums_there();
    for (round, moment) in [20_000_u64, 900_000, 2_900_000].into_iter().enumerate() {
        for kill in [true, false] {
            for number in 0..40 {
                far.sandbox.write(
                    &format!("d{}/f{number}", number % 4),
                    noise(75_000, (round * 1000 + number * 2 + usize::from(kill)) as u64),
                );
            }
            let new = far.sums_here();
            let before = far.sums_there();
            let sent = link.bytes().0;
            let running = far.sync("sync-up").spawn();
            wait_for(&link, sent + moment);
            if kill {
                running.signal(Signal::KILL);
            } else {
                link.drop_connections();
            }
            let outcome = running.wait();
            assert!(kill || outcome.code == 3 || outcome.code == 0, "{outcome}");
            // What is left there ends by itself.
            std::thread::sleep(Duration::from_millis(500));
            for line in far.sums_there().lines() {
                assert!(
                    new.contains(line) || before.contains(line) || old.contains(line),
                    "half a file: {line}"
                );
            }
            far.assert_in_step();
            assert_eq!(far.shell_there(OWN_FILES), "owner");
        }
    }
}

/// The files of a project, each with its sum.
fn lines(sums: &str) -> Vec<&str> {
    sums.lines().filter(|line| !line.is_empty()).collect()
}

#[test]
fn a_sync_down_that_is_killed_at_any_moment_leaves_every_file_whole() {
    let (link, far) = forty_files_in_step("sync-down-killed");
    let own = far.sandbox.project().join(".dockerutils-sync");
    // While the dock is asked, in the middle of what it sends, when it is asked once more, and when files are put in place.
    for moment in [1_000_u64, 1_500_000, 3_000_000, u64::MAX] {
        let user = format!(
            "cd '{}' && for f in d*/f*; do head -c 75000 /dev/urandom > $f; done; echo x > d0/new$RANDOM",
            far.workspace()
        );
        far.there(&["su", "ann", "-s", "/bin/bash", "-c", &user]);
        let (before, new) = (far.sums_here(), far.sums_there());
        let brought = link.bytes().1;
        let running = far.sync("sync-down").spawn();
        if moment == u64::MAX {
            // All has come, and lies beside the files that it takes the place of.
            wait::until("file in its place", || far.sums_here() != before);
        } else {
            wait::until("bytes", || link.bytes().1 >= brought + moment);
        }
        running.signal(Signal::KILL);
        running.wait();
        let (before, new) = (lines(&before), lines(&new));
        let after = far.sums_here();
        for line in lines(&after) {
            assert!(
                before.contains(&line) || new.contains(&line),
                "half a file after {moment}: {line}"
            );
        }
        far.sync("sync-down").any_stdout().any_stderr().run();
        assert_eq!(lines(&far.sums_here()), new, "{moment}");
        assert!(!own.exists(), "{moment}");
        far.sync("sync-up").stdout_has("nothing to do").run();
    }
}

#[test]
fn an_agent_that_is_killed_in_the_middle_of_a_sync_loses_nothing() {
    let engine = lab::engine("26").unwrap();
    let link = SlowLink::start(
        engine.ssh().unwrap().address,
        Duration::from_millis(10),
        Some(40_000_000),
    )
    .unwrap();
    let far = Far::with("sync-agent-killed", "ann", Some(link.address()), None);
    for number in 0..20 {
        far.sandbox.write(&format!("f{number}"), "old");
    }
    far.sync("sync-up").any_stdout().run();
    for (round, (command, both)) in [
        ("sync-up", false),
        ("sync-up", true),
        ("sync-down", false),
        ("sync-down", true),
    ]
    .into_iter()
    .enumerate()
    {
        if command == "sync-up" {
            for number in 0..20 {
                far.sandbox
                    .write(&format!("f{number}"), noise(100_000, (round * 100 + number) as u64));
            }
        } else {
            let user = format!(
                "cd '{}' && for f in f*; do head -c 100000 /dev/urandom > $f; done",
                far.workspace()
            );
            far.there(&["su", "ann", "-c", &user]);
        }
        let (here, there) = (far.sums_here(), far.sums_there());
        let begun = link.bytes();
        let running = far.sync(command).spawn();
        wait::until("bytes", || {
            let (up, down) = link.bytes();
            (up - begun.0).max(down - begun.1) > 500_000
        });
        for pid in far.agent(both) {
            rustix::process::kill_process(pid, Signal::KILL).unwrap();
        }
        let outcome = running.wait();
        // What is cut goes on by itself, with an agent that is started anew.
        assert_eq!(outcome.code, 0, "{command} {both} {outcome}");
        assert!(outcome.stderr.contains("trying again"), "{outcome}");
        let whole = [lines(&here), lines(&there)].concat();
        for sums in [far.sums_here(), far.sums_there()] {
            for line in lines(&sums) {
                assert!(whole.contains(&line), "{command} {both}: half a file: {line}");
            }
        }
        let again = far.sync(command).any_stdout().any_stderr().run();
        let wanted = if command == "sync-up" { here } else { there };
        assert_eq!(
            (far.sums_here(), far.sums_there()),
            (wanted.clone(), wanted),
            "{command} {both} {again}"
        );
        assert_eq!(far.shell_there(OWN_FILES), "owner");
    }
}

#[test]
fn of_a_large_file_what_changed_goes_over_the_link_and_no_more() {
    machine::require("rsync", &["rsync"], "sending what changed in large files").unwrap();
    let ssh = lab::engine("26").unwrap().ssh().unwrap();
    let link = SlowLink::start(ssh.address, Duration::from_millis(10), None).unwrap();
    let far = Far::with("sync-large", "ann", Some(link.address()), None);
    let mut content = noise(20_000_000, 1);
    far.sandbox.write("data/large one", &content);
    far.sync("sync-up").any_stdout().any_stderr().run();
    content[7_000_000..7_001_000].fill(7);
    far.sandbox.write("data/large one", &content);
    std::thread::sleep(Duration::from_millis(100));
    let before = link.bytes();
    far.sync("sync-up")
        .stdout_has("1 sent (20.0 MB)")
        .stderr("sending what changed in a large file, by rsync\n")
        .run();
    let sent = link.bytes().0 - before.0;
    assert!(sent < 2_000_000, "{sent}");
    assert_eq!(far.sums_here(), far.sums_there());
    let before = link.bytes();
    let user = format!(
        "printf changed | dd of='{}/data/large one' bs=1 seek=12000000 conv=notrunc 2>/dev/null",
        far.workspace()
    );
    far.there(&["su", "ann", "-c", &user]);
    far.sync("sync-down")
        .stdout_has("1 brought (20.0 MB)")
        .stderr("bringing what changed in a large file, by rsync\n")
        .run();
    let brought = link.bytes().1 - before.1;
    assert!(brought < 2_000_000, "{brought}");
    far.assert_in_step();
    assert_eq!(far.shell_there(OWN_FILES), "owner");
}

#[test]
fn a_hundred_thousand_files() {
    // In memory there: what is measured is not the disk of a container.
    let mount = "/mnt/sync-many";
    let far = Far::with("sync-many", "root", None, Some(mount));
    let _mounted = Mounted::new(&far, mount, "400m");
    for folder in 0..200 {
        let directory = far.sandbox.project().join(format!("d{folder}"));
        fs::create_dir(&directory).unwrap();
        for file in 0..500 {
            fs::write(
                directory.join(format!("f{file}")),
                if file % 50 == 8 { "text" } else { "" },
            )
            .unwrap();
        }
    }
    let limit = Duration::from_secs(400);
    far.sync("sync-up")
        .limit(limit)
        .stdout_has("sent (")
        .stderr_has("sending 100001 files")
        .run();
    far.sync("sync-up").limit(limit).stdout_has("nothing to do").run();
    far.shell_there("rm -r \"$1/d7\"; echo changed > \"$1/d8/f8\"");
    far.sync("sync-down")
        .limit(limit)
        .code(1)
        .stdout_has("1 brought (8 B), 500 kept here")
        .stderr_has("hint: if that is intended: sync-down --dock far --delete")
        .run();
    far.sync("sync-down")
        .arg("--delete")
        .limit(limit)
        .stdout_has("501 removed here")
        .run();
    assert_eq!(far.sandbox.read("d8/f8"), "changed\n");
    assert!(!far.sandbox.project().join("d7").exists());
    assert_eq!(far.shell_there("find \"$1\" -name 'f*' | wc -l"), "99500");
}

#[test]
fn a_saved_file_is_on_the_dock_within_half_a_second_and_the_round_trip() {
    let engine = lab::engine("26").unwrap();
    let round_trip = Duration::from_millis(50);
    let link = SlowLink::start(engine.ssh().unwrap().address, round_trip, None).unwrap();
    let far = Far::with("sync-watch", "root", Some(link.address()), None);
    for number in 0..500 {
        far.sandbox.write(&format!("d{}/f{number}", number % 20), "text");
    }
    let watching = far.sync("sync-up").arg("--watch").spawn();
    let appears = |path: &str, text: &str| {
        // One process there that looks all the time: each of ours would take longer than what is measured.
        let script = format!(
            "echo looking; until [ \"$(cat '{}/{path}' 2>/dev/null)\" = '{text}' ]; do sleep 0.01; done",
            far.workspace()
        );
        let mut look = far.engine.exec("timeout").unwrap();
        let mut looking = look
            .args(["60", "sh", "-c", &script])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        looking.stdout.as_mut().unwrap().read_exact(&mut [0; 8]).unwrap();
        let saved = Instant::now();
        far.sandbox.write(path, text);
        assert!(looking.wait().unwrap().success(), "{path} did not arrive");
        saved.elapsed()
    };
    appears("d1/f1", "saved");
    // On a machine that is busy, some are disturbed by others.
    let begun = Instant::now();
    let mut took = Vec::new();
    while took
        .last()
        .is_none_or(|last| *last >= Duration::from_millis(500) + round_trip)
    {
        assert!(took.len() < 5 || begun.elapsed() < wait::PATIENCE, "{took:?}");
        took.push(appears("d2/f2", &format!("saved {}", took.len())));
    }
    far.shell_there("echo there > \"$1/d3/made\"");
    wait::until("what was made there", || far.sandbox.project().join("d3/made").exists());
    watching.interrupt();
    let outcome = watching.wait();
    assert_eq!(outcome.code, 130, "{outcome}");
    assert!(outcome.stderr.contains("the dock is checked every 2 s"), "{outcome}");
}

/// Image types that mount the project: `box` runs what `-c` says.
const MOUNTED: &str = "[box]\nname = dockerutils-lab-base\ntag = 1\nprefix = False\ninteractive = False\n\
                       volumes = -v {project_root}:/app\n";

#[test]
fn edit_watch_and_test_at_once() {
    let far = Far::new("sync-share", "ann");
    far.sandbox.write("docker/dockerutils.cfg", MOUNTED);
    far.sandbox.write("src/a.py", "one\n");
    // Whoever syncs, the dock has the version in place of this.
    far.sandbox.write("src/_version.py", "versioneer's own\n");
    let versioneer = "[versioneer]\nVCS = git\nstyle = pep440\nversionfile_source = src/_version.py\n";
    far.sandbox.write("setup.cfg", versioneer);
    let watching = far.sync("sync-up").arg("--watch").spawn();
    wait::until("the first round", || {
        far.shell_there("cat \"$1/src/a.py\" 2>/dev/null || true") == "one"
    });
    // What is saved is in the next test run, at once.
    for number in 0..3 {
        far.sandbox.write("src/a.py", format!("edit {number}\n"));
        far.sync("run-image")
            .args(["box", "-c", "cat /app/src/a.py"])
            .stdout(&format!("edit {number}\n"))
            .any_stderr()
            .run();
    }
    far.write_there("made", "there");
    far.sync("sync-down").any_stdout().any_stderr().run();
    assert_eq!(far.sandbox.read("made"), "there");
    // A conflict is told where it was asked for, with that code, and settled from there.
    far.sandbox.write("src/b.py", "base\n");
    far.sync("sync-up").any_stdout().any_stderr().run();
    far.write_there("src/b.py", "theirs");
    far.sandbox.write("src/b.py", "ours, longer\n");
    let outcome = far
        .sync("sync-down")
        .arg("--json")
        .code(1)
        .any_stdout()
        .any_stderr()
        .run();
    let document: serde_json::Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!(document["conflicts"][0]["path"], "src/b.py", "{outcome}");
    assert_eq!(document["conflicts"][0]["beside"], "src/b.py.dock", "{outcome}");
    far.sync("sync-up")
        .args(["--ours", "src/b.py"])
        .stdout_has("1 sent")
        .any_stderr()
        .run();
    assert_eq!(far.shell_there("cat \"$1/src/b.py\""), "ours, longer");
    assert!(!far.sandbox.project().join("src/b.py.dock").exists());
    // What was taken by mistake comes back, and the watch goes on.
    fs::remove_file(far.sandbox.project().join("made")).unwrap();
    far.sync("sync-up").any_stdout().any_stderr().run();
    // A shell that is docked there completes it.
    far.command("sync-up")
        .args(["--dockerutils-complete", "kept-there"])
        .env("_DOCK_MONIKER", "[dock:far] ")
        .stdout_has("made\n")
        .run();
    far.sync("sync-up")
        .args(["--restore", "made"])
        .any_stdout()
        .any_stderr()
        .run();
    wait::until("what was restored there is here", || {
        far.sandbox.project().join("made").exists()
    });
    // A second watch waits for the end of the first one, however that comes.
    let mut second = far.sync("sync-up").arg("--watch").spawn();
    watching.signal(Signal::KILL);
    watching.wait();
    far.sandbox.write("src/a.py", "after\n");
    wait::until("the second watch sends", || {
        far.shell_there("cat \"$1/src/a.py\"") == "after"
    });
    far.sync("run-image")
        .args(["box", "-c", "cat /app/src/a.py"])
        .stdout("after\n")
        .any_stderr()
        .run();
    assert!(!second.has_ended());
    second.interrupt();
    assert_eq!(second.wait().code, 130);
    far.sync("run-image")
        .args(["--watch", "box", "-c", "grep -c 0+unknown /app/src/_version.py"])
        .any_stdout()
        .any_stderr()
        .run();
    assert_ne!(far.shell_there("cat \"$1/src/_version.py\""), "versioneer's own");
    assert_eq!(far.sandbox.read("src/_version.py"), "versioneer's own\n");
}

#[test]
fn a_version_that_can_t_be_made_is_said_once_by_who_asks_a_watch_and_stops_nothing() {
    let far = Far::new("sync-unmade", "ann");
    far.sandbox.write("src/_version.py", "versioneer's own\n");
    let versioneer = "[versioneer]\nVCS = git\nstyle = pep440\nversionfile_source = src/_version.py\n";
    far.sandbox.write("setup.cfg", versioneer);
    let there = || far.shell_there("cat \"$1/src/_version.py\" 2>/dev/null || true");
    let watching = far.sync("sync-up").arg("--watch").spawn();
    wait::until("the first round", || there().contains("0+unknown"));
    let made = there();
    far.sandbox.write("setup.cfg", format!("no section\n{versioneer}"));
    far.sandbox.write("saved", "saved\n");
    let asked = far.sync("sync-up").any_stdout().any_stderr().run();
    let said = asked.stderr.matches("the dock gets no version").count();
    assert_eq!(said, 1, "{asked}");
    assert!(asked.stderr.contains("src/_version.py stays as it is there"), "{asked}");
    assert_eq!(far.shell_there("cat \"$1/saved\""), "saved");
    assert_eq!(there(), made);
    watching.interrupt();
    let watched = watching.wait();
    assert_eq!(watched.code, 130, "{watched}");
    assert!(!watched.stderr.contains("the dock gets no version"), "{watched}");
    assert_eq!(far.sandbox.read("src/_version.py"), "versioneer's own\n");
}

#[test]
fn who_sits_at_a_terminal_is_asked_whether_a_container_may_give_them_what_is_root_s() {
    let far = Far::new("sync-chown-asked", "ann");
    far.sandbox.write("a", "a");
    far.sync("sync-up").any_stdout().any_stderr().run();
    far.shell_there("mkdir \"$1/out\" && echo x > \"$1/out/of-root\"");
    let owners = || far.shell_there("cd \"$1/out\" && stat -c %U . of-root");
    let question = "Give them to you, by a container on far that runs chown? [y/N]";
    // Nothing is done unless it is agreed to.
    for answer in ["\r", "n\r"] {
        let mut terminal = far.sync("sync-up").at_terminal();
        terminal.expect("2 of the workspace's files belong to root");
        terminal.expect(question);
        terminal.type_in(answer);
        assert_eq!(terminal.end().0, Some(0));
        assert_eq!(owners(), "root\nroot");
    }
    let mut terminal = far.sync("sync-up").at_terminal();
    terminal.expect(question);
    terminal.type_in("\x03");
    assert_eq!(terminal.end().0, Some(130));
    assert_eq!(owners(), "root\nroot");
    let mut terminal = far.sync("sync-up").at_terminal();
    terminal.expect(question);
    terminal.type_in("y\r");
    terminal.expect("docker run --rm");
    terminal.expect("are yours now");
    assert_eq!(terminal.end().0, Some(0));
    assert_eq!(owners(), "ann\nann");
    // Without a terminal, no question is asked.
    far.shell_there("echo x > \"$1/out/again\"");
    let outcome = far.sync("sync-up").any_stdout().any_stderr().run();
    assert!(!outcome.stderr.contains("[y/N]"), "{outcome}");
}

#[test]
fn many_docked_runs_and_syncs_at_the_same_moment_all_pass() {
    let far = Far::new("sync-many", "ann");
    far.sandbox.write("docker/dockerutils.cfg", MOUNTED);
    for number in 0..8 {
        far.sandbox.write(&format!("f{number}"), format!("{number}\n"));
    }
    let runs: Vec<_> = (0..8)
        .map(|number| {
            let words = ["box".to_owned(), "-c".to_owned(), format!("cat /app/f{number}")];
            far.sync("run-image").args(words).spawn()
        })
        .collect();
    let syncs = ["sync-up", "sync-down"].map(|name| far.sync(name).spawn());
    for (number, run) in runs.into_iter().enumerate() {
        let outcome = run.wait();
        assert_eq!(
            (outcome.code, outcome.stdout.as_str()),
            (0, format!("{number}\n").as_str()),
            "{outcome}"
        );
    }
    let [up, down] = syncs.map(dockerutils_test_support::Running::wait);
    assert_eq!(up.code, 0, "{up}");
    // As ever, there is nothing to bring before something was sent.
    assert!(down.code == 0 || down.stderr.contains("sync-up makes it"), "{down}");
    far.assert_in_step();
}

#[test]
fn what_changes_on_the_dock_beside_a_conflict_comes_while_it_is_watched() {
    let far = Far::new("sync-beside", "ann");
    far.sandbox.write("src/a.py", "one\n");
    let watching = far.sync("sync-up").arg("--watch").spawn();
    wait::until("the first round", || {
        far.shell_there("cat \"$1/src/a.py\" 2>/dev/null || true") == "one"
    });
    for number in 0..3 {
        let script = format!("echo x{number} >> \"$1/src/a.py\"; echo {number} > \"$1/d{number}.txt\"");
        far.sandbox.write("src/a.py", format!("mine {number}\n"));
        far.shell_there(&script);
        wait::until("the other file is here", || {
            far.sandbox.project().join(format!("d{number}.txt")).exists()
        });
        // Whether it was a conflict, who saved first decides.
        far.sync("sync-up")
            .args(["--ours", "src/a.py"])
            .any_stdout()
            .any_stderr()
            .run();
    }
    far.write_there("src/a.py", "theirs");
    far.sandbox.write("src/a.py", "ours, and longer\n");
    far.sync("sync-down").code(1).any_stdout().any_stderr().run();
    watching.interrupt();
    let outcome = watching.wait();
    assert_eq!(outcome.code, 130, "{outcome}");
    assert_eq!(far.sandbox.read("src/a.py.dock"), "theirs");
}

#[test]
fn a_docked_container_gets_the_project_from_its_copy() {
    let far = Far::new("sync-run", "ann");
    let config = "[box]\nname = dockerutils-lab-base\ntag = 1\nprefix = False\ninteractive = False\n\
                  volumes = -v {project_root}:/app -v {project_root}/sub:/sub:ro\n\
                  [elsewhere]\nname = dockerutils-lab-base\ntag = 1\nprefix = False\nvolumes = -v /nowhere/at/all:/x\n\
                  [ignored]\nname = dockerutils-lab-base\ntag = 1\nprefix = False\nvolumes = -v {project_root}/data:/x\n\
                  [own]\nname = dockerutils-lab-base\ntag = 1\nprefix = False\ninteractive = False\n\
                  volumes = -v {project_root}:/app\nvolumes_docked = -v /etc/hostname:/app\n";
    far.sandbox.write("docker/dockerutils.cfg", config);
    far.sandbox.write("sub/a", "from here\n");
    far.sandbox.write(".dockerignore", "data\n");
    far.sandbox.write("data/x", "x");
    let there = far.workspace();
    let mounts = format!("-v {there}:/app -v {there}/sub:/sub:ro");
    far.sync("run-image")
        .args(["box", "-c", "cat /app/sub/a /sub/a"])
        .stdout("from here\nfrom here\n")
        .stderr_has(&mounts)
        .run();
    far.sync("run-image")
        .args(["--dry-run", "box"])
        .stdout_has(&mounts)
        .run();
    far.sync("run-image")
        .args(["elsewhere"])
        .code(125)
        .stderr_has("dock \"far\" has no /nowhere/at/all, which is to be mounted")
        .stderr_has("volumes_docked")
        .run();
    far.sync("run-image")
        .args(["ignored"])
        .code(125)
        .stderr_has(&format!("dock \"far\" has no {there}/data"))
        .stderr_has(".dockerignore leaves it out")
        .run();
    far.sync("run-image")
        .args(["own", "-c", "cat /app"])
        .stdout_has("\n")
        .stderr_has("-v /etc/hostname:/app")
        .run();
    // In step while it runs, and its results at its end.
    let running = far
        .sync("run-image")
        .args([
            "--watch",
            "box",
            "-c",
            "sh -c 'echo up > /app/up; chmod 666 /app/up; until grep -q go /app/sub/a; do sleep 0.1; done; echo made > /app/result; \
             chmod 666 /app/result'",
        ])
        .spawn();
    wait::until("what the container made is here", || {
        far.sandbox.project().join("up").exists()
    });
    far.sandbox.write("sub/a", "go\n");
    let outcome = running.wait();
    assert_eq!(outcome.code, 0, "{outcome}");
    assert_eq!(far.sandbox.read("result"), "made\n");
}

/// Waits until what a shell there prints has this in it.
fn wait_there(far: &Far, script: &str, wanted: &str) {
    wait::until(wanted, || far.shell_there(script).contains(wanted));
}

/// A project with a secret that `.dockerignore` keeps here, and a repository of git.
fn with_a_secret(name: &str) -> Far {
    let far = Far::new(name, "root");
    // What git keeps travels only where it is asked for, and is guarded then.
    far.sandbox
        .write("../home/.config/dockerutils/config.yml", "sync:\n  with_git: true\n");
    far.sandbox.write(".dockerignore", ".env\n");
    far.sandbox.write(".env", "TOKEN=secret\n");
    far.sandbox.write("a", "a");
    let mut git = Command::new("git");
    capture_text(git.args(["init", "-q", "."]).current_dir(far.sandbox.project())).unwrap();
    far
}

/// What a hostile container does in the workspace.
const DEEDS: &str = "cd \"$1\" && : > .dockerignore && \
    printf '#!/bin/sh\\ntouch /tmp/pwned\\n' > .git/hooks/pre-commit && chmod 755 .git/hooks/pre-commit && \
    printf '[core]\\n\\tfsmonitor = touch /tmp/pwned; false\\n' >> .git/config && echo changed > a";

/// Nothing of it is here, and no secret is there.
fn assert_untouched(far: &Far) {
    assert_eq!(far.sandbox.read(".dockerignore"), ".env\n");
    assert!(!far.sandbox.project().join(".git/hooks/pre-commit").exists());
    assert!(!far.sandbox.read(".git/config").contains("fsmonitor"));
    assert_eq!(far.shell_there("find \"$1\" -name .env"), "");
}

#[test]
fn a_dock_does_not_rewrite_what_leaves_this_machine_or_runs_here_while_it_is_watched() {
    let far = with_a_secret("sync-guard");
    let watching = far.sync("sync-up").arg("--watch").spawn();
    wait::until("the project there", || {
        far.there(&["sh", "-c", &format!("cat {}/a 2>&1 || true", far.workspace())]) == "a"
    });
    far.shell_there(DEEDS);
    // What may come has come, so all was looked at.
    wait::until("what may come", || far.sandbox.read("a") == "changed\n");
    // And once more, after the rules were read again and everything was listed by them.
    far.sandbox.write("b", "b");
    wait_there(&far, "cat \"$1/b\" 2>/dev/null || true", "b");
    far.shell_there("echo again > \"$1/c\"");
    wait::until("c", || far.sandbox.project().join("c").exists());
    assert_untouched(&far);
    watching.interrupt();
    let outcome = watching.wait();
    for path in [".dockerignore", ".git/config", ".git/hooks/pre-commit"] {
        let said = format!("{path}: different on the dock, and only taken from there if it is named");
        assert_eq!(outcome.stderr.matches(&said).count(), 1, "{path} {outcome}");
    }

    // All of theirs are none of these.
    far.sync("sync-down")
        .arg("--theirs")
        .code(1)
        .stdout_has("3 in conflict")
        .stderr_has("hint: ssh-dock far cat ")
        .stderr_has("sync-down --dock far --theirs .dockerignore the dock's")
        .run();
    assert_untouched(&far);
    let json = far.sync("sync-down").args(["--json", "--list"]).any_stdout().run();
    let json: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(json["conflicts"][0]["path"], ".dockerignore");
    // By name, one comes.
    far.sync("sync-down")
        .args(["--theirs", ".git/hooks/pre-commit"])
        .any_stdout()
        .run();
    assert!(far.sandbox.read(".git/hooks/pre-commit").contains("pwned"));
    far.sync("sync-up").arg("--ours").any_stdout().run();
    far.sync("sync-down").stdout_has("nothing to do").run();
    assert_eq!(far.shell_there("cat \"$1/.dockerignore\""), ".env");
}

#[test]
fn a_container_that_mounts_the_project_does_not_rewrite_them_either() {
    let far = with_a_secret("sync-guard-run");
    let config = "[box]\nname = busybox\ntag = latest\nprefix = False\ninteractive = False\n\
                  volumes = -v {project_root}:/app\n";
    far.sandbox.write("docker/dockerutils.cfg", config);
    let deeds =
        format!("set -- /app; {DEEDS}; echo '[web]' > docker/dockerutils.cfg; until [ -e go ]; do sleep 0.1; done");
    fs::write(far.sandbox.project().join("deeds"), deeds).unwrap();
    let running = far
        .sync("run-image")
        .args(["--watch", "box", "-c", "sh /app/deeds"])
        .spawn();
    wait::until("what may come", || far.sandbox.read("a") == "changed\n");
    far.sandbox.write("go", "");
    let outcome = running.wait();
    assert_eq!(outcome.code, 0, "{outcome}");
    assert!(
        outcome.stderr.contains("docker/dockerutils.cfg: different on the dock"),
        "{outcome}"
    );
    assert_untouched(&far);
    assert_eq!(far.sandbox.read("docker/dockerutils.cfg"), config);
    // Without --watch it is sent each time, and nothing comes.
    far.sync("run-image")
        .args(["box", "-c", "ls -a /app"])
        .any_stderr()
        .stdout_has("deeds\n")
        .run();
    assert_untouched(&far);
}
