//! sync-up and sync-down through crashes at moments that chance picks, while people work on both sides, against a model of
//! what sync promises: nobody's work is lost.
//!
//! Here a few rounds run, of the same course each time, as far as machines let that be. `cargo xtask soak sync` runs them for
//! as long as one likes, each time others; it prints the seed, by which the same course comes again.

mod disk;
mod promise;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use dockerutils_test_support::lab::{self, LabEngine};
use dockerutils_test_support::process::{announce, capture};
use dockerutils_test_support::{Outcome, Random, Sandbox, SlowLink, machine};
use dockerutils_tests::dock_home::DockHome;
use rustix::process::Signal;

use crate::transfer_crashes::{SECONDS, SEED, number};
use disk::{Disk, Edit};
use promise::{Promise, Side, Version, version_of};

/// Without a limit of time: so many rounds with each dock, by a seed that has each crash among them.
const ROUNDS: u64 = 44;
const FIRST_SEED: u64 = 5;
/// After so many rounds, all is brought in step without a crash, and the trash is emptied.
const PERIOD: u64 = 11;

/// Docks: one whose `mv` can exchange two files, and one that does it by perl.
const DOCKS: [&str; 2] = ["26", "20"];

/// Files, and the directories that they are in.
const FILES: usize = 12;
const DIRECTORIES: [&str; 3] = ["src", "src/deep", "data"];
/// A moment is before so long, or so long after the start of a sync as the one before took.
const SHORTEST: Duration = Duration::from_millis(50);
/// Of the disks.
const DISK: u64 = 96 << 20;
/// What happened last, for who has to find out why something was lost.
const REMEMBERED: usize = 400;

/// What happens to a sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Crash {
    Nothing,
    /// The process is ended at once.
    Killed,
    /// All connections end.
    LinkCut,
    /// The machine of this side has no power for a moment.
    PowerCut(Side),
}

const CRASHES: [Crash; 12] = [
    Crash::Nothing,
    Crash::Killed,
    Crash::Killed,
    Crash::Killed,
    Crash::Killed,
    Crash::Killed,
    Crash::LinkCut,
    Crash::LinkCut,
    Crash::PowerCut(Side::Here),
    Crash::PowerCut(Side::Here),
    Crash::PowerCut(Side::There),
    Crash::PowerCut(Side::There),
];

/// What a command is called with.
const CALLS: [&[&str]; 6] = [
    &["sync-up"],
    &["sync-down"],
    &["sync-up", "--delete"],
    &["sync-down", "--delete"],
    &["sync-up", "--ours"],
    &["sync-down", "--theirs"],
];

/// A project on a disk here, its workspace on a disk there, and all that can happen to them.
struct Scene {
    there: Disk,
    here: Disk,
    home: DockHome,
    link: SlowLink,
    engine: LabEngine,
    /// Where the disk there is mounted.
    at: String,
    chance: Random,
    promise: Promise,
    /// What somebody wrote on each side, and what may not be on its disk yet.
    touched: BTreeMap<&'static str, BTreeSet<String>>,
    log: VecDeque<String>,
    /// How long the last sync took that nothing happened to.
    usual: Duration,
}

const fn name(side: Side) -> &'static str {
    match side {
        Side::Here => "here",
        Side::There => "there",
    }
}

/// A file with an empty file system in it.
fn formatted(file: &Path) {
    fs::File::create(file).unwrap().set_len(DISK).unwrap();
    machine::require("mkfs.ext4", &["e2fsprogs"], "a disk").unwrap();
    let mut format = Command::new("mkfs.ext4");
    capture(format.args(["-q", "-F", "-N", "60000"]).arg(file)).unwrap();
}

impl Scene {
    fn set(dock: &str, seed: u64) -> Self {
        let engine = lab::engine(dock).unwrap();
        // With it come the dock's users.
        let ssh = engine.ssh().unwrap();
        let sandbox = Sandbox::new();
        let root = sandbox.project().to_owned();
        let image = root.join("image");
        formatted(&image);
        let at = format!("/var/tmp/sync-crashes-{}", std::process::id());
        let image_there = format!("{at}.image");
        let packed = capture(Command::new("gzip").args(["-1", "-c"]).arg(&image)).unwrap();
        let mut unpack = engine.exec("sh").unwrap();
        unpack.args([
            "-c",
            "gzip -dc | dd conv=sparse bs=64k status=none of=\"$0\"",
            &image_there,
        ]);
        let mut unpacking = unpack.stdin(Stdio::piped()).spawn().unwrap();
        unpacking.stdin.take().unwrap().write_all(&packed).unwrap();
        assert!(unpacking.wait().unwrap().success());
        let mut here = Disk::new(
            machine::as_root("sh").unwrap(),
            image.to_str().unwrap(),
            &root.join("disk"),
        );
        here.hire(Command::new("sh"), &root.join("disk/project"), &root.join("disk/own"));
        let mut there = Disk::new(engine.exec("sh").unwrap(), &image_there, Path::new(&at));
        let mut ann = engine.exec("setpriv").unwrap();
        ann.args(["--reuid=ann", "--regid=ann", "--clear-groups", "sh"]);
        there.hire(ann, &Self::workspace(&at), &Path::new(&at).join("own"));

        let home = DockHome::of(sandbox);
        home.use_key(&ssh.key, "");
        let link = SlowLink::start(ssh.address, Duration::ZERO, None).unwrap();
        let register = home.registration(&ssh, link.address(), "ann", "far");
        register.args(["--workspace", &at, "--forward", "none"]).run();
        home.sandbox()
            .write("disk/project/docker/box/Dockerfile", "FROM dockerutils-lab-base:1\n");
        Self {
            there,
            here,
            home,
            link,
            engine,
            at,
            chance: Random::new(seed),
            promise: Promise::default(),
            touched: BTreeMap::new(),
            log: VecDeque::new(),
            usual: SHORTEST,
        }
    }

    fn workspace(at: &str) -> PathBuf {
        Path::new(at).join("tester/code/project")
    }

    fn project(&self) -> PathBuf {
        self.home.sandbox().project().join("disk/project")
    }

    fn disk(&mut self, side: Side) -> &mut Disk {
        match side {
            Side::Here => &mut self.here,
            Side::There => &mut self.there,
        }
    }

    fn note(&mut self, what: String) {
        if self.log.len() >= REMEMBERED {
            self.log.pop_front();
        }
        self.log.push_back(what);
    }

    fn path(&mut self) -> String {
        let directory = *self.chance.pick(&DIRECTORIES);
        format!("{directory}/{}", self.chance.index(FILES))
    }

    /// Somebody does something on a side; in place only while no sync runs.
    fn edit(&mut self, side: Side, in_place: bool) {
        let path = self.path();
        let edit = match self.chance.below(10) {
            0 => Edit::Remove(path),
            1 => Edit::Move(path, self.path()),
            2..=4 if in_place => Edit::Write(path),
            _ => Edit::Save(path),
        };
        let touched = self.touched.entry(name(side)).or_default();
        let (Edit::Save(path) | Edit::Write(path) | Edit::Remove(path) | Edit::Move(_, path)) = &edit;
        touched.insert(path.clone());
        let version = self.promise.next();
        let replaced = self.disk(side).edit(&edit, version);
        self.note(format!("{}: {edit:?} {version}, was {replaced:?}", name(side)));
        for version in replaced {
            self.promise.given_up(version);
        }
        if matches!(edit, Edit::Save(_) | Edit::Write(_)) {
            self.promise.written(side, version);
        }
    }

    fn rest(&mut self, side: Side) {
        self.disk(side).rest();
        self.promise.rests(side);
        self.touched.remove(name(side));
    }

    fn sync(&self, call: &[&str]) -> dockerutils_test_support::Running {
        let state = self.home.sandbox().project().join("disk/state");
        let program = self.home.program(call[0]).args(&call[1..]);
        program
            .args(["--dock", "far"])
            .env("XDG_STATE_HOME", state)
            .current_dir("disk/project")
            .spawn()
    }

    /// Some time of a sync, which chance picks.
    fn pass(&mut self, longest: Duration) {
        let micros = u64::try_from(longest.as_micros()).unwrap();
        thread::sleep(Duration::from_micros(self.chance.below(micros)));
    }

    fn play(&mut self, number: u64) {
        for side in Side::BOTH {
            for _ in 0..self.chance.below(5) {
                self.edit(side, true);
            }
            if !self.chance.one_in(4) {
                self.rest(side);
            }
        }
        let crash = *self.chance.pick(&CRASHES);
        let call = *self.chance.pick(&CALLS);
        self.note(format!("round {number}: {call:?}, {crash:?}"));
        let began = Instant::now();
        let running = self.sync(call);
        let edits = self.chance.below(4);
        let part = self.usual / u32::try_from(edits + 1).unwrap();
        for _ in 0..edits {
            self.pass(part);
            let side = *self.chance.pick(&Side::BOTH);
            self.edit(side, false);
        }
        self.pass(part);
        match crash {
            Crash::Nothing => {}
            Crash::Killed => running.signal(Signal::KILL),
            Crash::LinkCut => self.link.drop_connections(),
            Crash::PowerCut(side) => {
                self.disk(side).cut();
                self.promise.cut(side);
                if side == Side::There {
                    self.link.drop_connections();
                }
            }
        }
        let outcome = running.wait();
        if crash == Crash::Nothing && outcome.code == 0 {
            self.usual = began.elapsed().max(SHORTEST);
        }
        self.note(format!("it ended with {}: {}", outcome.code, outcome.stderr.trim()));
        self.check_end(crash, &outcome);
        if let Crash::PowerCut(side) = crash {
            self.throw_broken_away(side);
        }
        self.check();
    }

    /// Only these codes: a panic would be another one.
    fn check_end(&self, crash: Crash, outcome: &Outcome) {
        let is_killed = outcome.code == 137 && matches!(crash, Crash::Killed | Crash::PowerCut(Side::Here));
        assert!(
            is_killed || [0, 1, 3].contains(&outcome.code),
            "{}{outcome}",
            self.story()
        );
    }

    /// What somebody was writing when the power was cut may be broken, and nothing else.
    fn throw_broken_away(&mut self, side: Side) {
        let touched = self.touched.remove(name(side)).unwrap_or_default();
        let broken = self.files(side).into_iter().filter(|(_, version)| version.is_none());
        for path in broken.map(|(path, _)| path).collect::<Vec<_>>() {
            assert!(
                touched.contains(&path),
                "{path} is broken {}{}",
                name(side),
                self.story()
            );
            self.note(format!("{}: {path} is broken, and goes", name(side)));
            self.disk(side).edit(&Edit::Remove(path), 0);
        }
        // Else the next cut brings them back.
        self.disk(side).rest();
    }

    /// The files that somebody works with, and what they hold.
    fn files(&self, side: Side) -> BTreeMap<String, Option<Version>> {
        let mut files = match side {
            Side::Here => contents_here(&self.project()),
            Side::There => self.contents_there(&["--exclude=.dockerutils-sync", "."]),
        };
        files.retain(|path, _| DIRECTORIES.iter().any(|directory| path.starts_with(directory)));
        files
    }

    fn contents_there(&self, words: &[&str]) -> BTreeMap<String, Option<Version>> {
        let mut tar = self.engine.exec("tar").unwrap();
        tar.arg("-C")
            .arg(Self::workspace(&self.at))
            .args(["--hard-dereference", "-cf", "-"]);
        // What a script that still runs takes away meanwhile is found elsewhere.
        let archive = tar
            .args(["--ignore-failed-read", "--warning=none"])
            .args(words)
            .output()
            .unwrap()
            .stdout;
        let mut archive = tar::Archive::new(archive.as_slice());
        let mut found = BTreeMap::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            if entry.header().entry_type().is_file() {
                let path = entry.path().unwrap().display().to_string();
                let mut content = Vec::new();
                entry.read_to_end(&mut content).unwrap();
                found.insert(path.trim_start_matches("./").to_owned(), version_of(&content));
            }
        }
        found
    }

    /// Looks for all versions that must be somewhere; gives those that somebody works with. The trash comes last, since it is there
    /// that things go.
    fn check(&self) -> BTreeSet<Version> {
        let mut found = BTreeSet::new();
        for side in Side::BOTH {
            for (path, version) in self.files(side) {
                let version = version.unwrap_or_else(|| panic!("{path} is broken {}{}", name(side), self.story()));
                found.insert(version);
            }
        }
        let trash = self.home.sandbox().project().join("disk/state/dockerutils/trash");
        let kept = contents_here(&trash).into_values().flatten();
        let trash: BTreeSet<Version> = kept.chain(self.trash_there()).collect();
        let everywhere = &found | &trash;
        let lost = self.promise.lost(&everywhere);
        assert!(lost.is_empty(), "lost: {lost:?}{}", self.story());
        found
    }

    fn trash_there(&self) -> Vec<Version> {
        let found = self.contents_there(&[".dockerutils-sync/trash"]);
        found.into_values().flatten().collect()
    }

    /// Without a crash, both sides come in step; and somebody empties the trash.
    fn settle(&mut self) {
        for side in Side::BOTH {
            self.rest(side);
        }
        self.note("all is brought in step".to_owned());
        for call in [
            &["sync-up", "--ours", "--delete"][..],
            &["sync-down", "--delete"],
            &["sync-up"],
        ] {
            let outcome = self.sync(call).wait();
            assert_eq!(outcome.code, 0, "{call:?}{}{outcome}", self.story());
        }
        let in_step = |files: BTreeMap<String, Option<Version>>| {
            let own = files.into_iter().filter(|(path, _)| !path.ends_with(".dock"));
            own.collect::<BTreeMap<_, _>>()
        };
        let [here, there] = Side::BOTH.map(|side| in_step(self.files(side)));
        assert_eq!(here, there, "{}", self.story());
        let found = self.check();
        self.promise.keep_only(&found);
        let _ = fs::remove_dir_all(self.home.sandbox().project().join("disk/state/dockerutils/trash"));
        let trash = Self::workspace(&self.at).join(".dockerutils-sync/trash");
        capture(self.engine.exec("rm").unwrap().arg("-rf").arg(trash)).unwrap();
    }

    /// What happened, the last thing last.
    fn story(&self) -> String {
        let lines: String = self.log.iter().map(|line| format!("\n{line}")).collect();
        format!("{lines}\n")
    }
}

/// All files below a directory, and what they hold.
fn contents_here(directory: &Path) -> BTreeMap<String, Option<Version>> {
    let mut found = BTreeMap::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(next) = directories.pop() {
        for entry in fs::read_dir(&next).into_iter().flatten().flatten() {
            let path = entry.path();
            match entry.file_type().unwrap() {
                kind if kind.is_dir() => directories.push(path),
                kind if kind.is_file() => {
                    let content = fs::read(&path).unwrap();
                    let path = path.strip_prefix(directory).unwrap();
                    found.insert(path.display().to_string(), version_of(&content));
                }
                _ => {}
            }
        }
    }
    found
}

#[test]
fn nobodys_work_is_lost_in_a_crash() {
    let (limit, seed) = (number(SECONDS), number(SEED).unwrap_or(FIRST_SEED));
    let limit = limit.map(Duration::from_secs);
    thread::scope(|scope| {
        for (number, dock) in (0..).zip(DOCKS) {
            // Each has a course of its own.
            let seed = seed.wrapping_add(number << 32);
            scope.spawn(move || crash_beside(dock, limit, seed));
        }
    });
}

/// Crashes syncs with a dock, until the time is over, where there is a limit.
fn crash_beside(dock: &str, limit: Option<Duration>, seed: u64) {
    let mut scene = Scene::set(dock, seed);
    scene.settle();
    let began = Instant::now();
    let mut rounds = 0;
    while limit.map_or(rounds < ROUNDS, |limit| began.elapsed() < limit) {
        rounds += 1;
        scene.play(rounds);
        if rounds.is_multiple_of(PERIOD) {
            scene.settle();
        }
    }
    scene.settle();
    announce(format_args!(
        "{dock}: {rounds} rounds in {:?}, seed {seed}",
        began.elapsed()
    ));
}
