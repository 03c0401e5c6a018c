//! Tests over two directories, with a local shell as the far side: once with the machine's own tools, once with nothing
//! but busybox's.

mod git;
mod large;
mod losses;
mod shared;
mod trash;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, OnceLock};

use proptest::prelude::*;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::compression::Compression;
use super::local::Local;
use super::manifest::Memory;
use super::plan::{Action, Brake, Direction, Side, SyncRequest, Why};
use super::remote::{Shell, Streams};
use super::rsync::Rsync;
use super::send::Generated;
use super::session::{Report, Session, Target};
use crate::agent::target::Exit;
use crate::env::Env;
use crate::error::{Error, Result};
use crate::output::progress::bars::Bars;

/// Which tools the far side has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tools {
    /// All that this machine has: zstd, too.
    Machine,
    /// The same without zstd.
    Gzip,
    /// Those of busybox, which has gzip.
    Busybox,
}

const BOTH: [Tools; 2] = [Tools::Machine, Tools::Busybox];

impl Tools {
    fn path(self) -> String {
        static APPLETS: OnceLock<PathBuf> = OnceLock::new();
        static WITHOUT_ZSTD: OnceLock<PathBuf> = OnceLock::new();
        let machine = || std::env::var("PATH").unwrap();
        match self {
            Self::Machine => {
                dockerutils_test_support::machine::require("zstd", &["zstd"], "a far side that has it").unwrap();
                machine()
            }
            Self::Gzip => {
                let folder = WITHOUT_ZSTD.get_or_init(|| {
                    once("machine-without-zstd", |new| {
                        for folder in machine().split(':').rev() {
                            for program in fs::read_dir(folder).into_iter().flatten() {
                                let program = program.unwrap();
                                let link = new.join(program.file_name());
                                let _ = fs::remove_file(&link);
                                symlink(program.path(), link).unwrap();
                            }
                        }
                        fs::remove_file(new.join("zstd")).unwrap();
                    })
                });
                folder.display().to_string()
            }
            Self::Busybox => {
                let applets = APPLETS.get_or_init(|| {
                    dockerutils_test_support::machine::require("busybox", &["busybox-static"], "a far side").unwrap();
                    once("busybox-applets", |new| {
                        let mut install = std::process::Command::new("busybox");
                        let status = install.args(["--install", "-s"]).arg(new).status().unwrap();
                        assert!(status.success());
                    })
                });
                applets.display().to_string()
            }
        }
    }
}

/// A folder of programs that is made once for all tests. It lies beside the tests' program: a temporary directory of each test's
/// process would stay.
fn once(name: &str, make: impl FnOnce(&Path)) -> PathBuf {
    let program = std::env::current_exe().unwrap();
    let folder = program.with_file_name(name);
    if !folder.is_dir() {
        let new = tempfile::tempdir_in(program.parent().unwrap()).unwrap();
        make(new.path());
        // Another test may have been faster.
        let renamed = fs::rename(new.path(), &folder);
        assert!(renamed.is_ok() || folder.is_dir());
    }
    folder
}

type Hook = Arc<Mutex<Option<Box<dyn FnOnce(&Path) + Send>>>>;
/// After so many bytes of a call.
type LateHook = Arc<Mutex<Option<(usize, Box<dyn FnOnce() + Send>)>>>;

/// A far side in a directory of this machine.
#[derive(Clone)]
struct LocalShell {
    home: PathBuf,
    tools: Tools,
    /// The link breaks after so many bytes in either direction, and the programs there hear their stdin end.
    cut_after: Option<usize>,
    /// Done just before files are put in place or fetched.
    before: Hook,
    /// Done in the middle of a call, while it is fed.
    amid: LateHook,
    /// By how many seconds the far side's clock is ahead.
    ahead: i64,
    calls: Arc<Mutex<usize>>,
}

impl Shell for LocalShell {
    fn dock(&self) -> &str {
        "far"
    }

    async fn run(&self, argv: Vec<String>) -> Result<Streams> {
        *self.calls.lock().unwrap() += 1;
        if (argv[2].contains("c/go") || argv[2].contains("tar -cf"))
            && let Some(hook) = self.before.lock().unwrap().take()
        {
            hook(&self.home);
        }
        let mut path = self.tools.path();
        let shell = path
            .split(':')
            .map(|folder| Path::new(folder).join("sh"))
            .find(|sh| sh.exists())
            .unwrap();
        if self.ahead != 0 {
            path = format!("{}:{path}", self.clock().display());
        }
        path = format!("{}:{path}", self.home.join("bin").display());
        let mut child = tokio::process::Command::new(shell)
            .args(&argv[1..])
            .env_clear()
            .env("PATH", &path)
            .env("HOME", &self.home)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (mut to, mut from) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let stderr = child.stderr.take().unwrap();
        let (stdin, mut fed) = tokio::io::duplex(64 * 1024);
        let (mut said, stdout) = tokio::io::duplex(64 * 1024);
        let left = Arc::new(Mutex::new(self.cut_after));
        let spend = |left: &Mutex<Option<usize>>, read: usize| match &mut *left.lock().unwrap() {
            None => (read, false),
            Some(left) => {
                let passed = read.min(*left);
                *left -= passed;
                (passed, *left == 0)
            }
        };
        let (there, back) = (Arc::clone(&left), Arc::clone(&left));
        let amid = Arc::clone(&self.amid);
        let feeding = tokio::spawn(async move {
            let mut buffer = vec![0; 4096];
            let mut all = 0;
            while let Ok(read @ 1..) = fed.read(&mut buffer).await {
                all += read;
                let due = amid.lock().unwrap().take_if(|(after, _)| all >= *after);
                if let Some((_, deed)) = due {
                    deed();
                }
                let (passed, cut) = spend(&there, read);
                if to.write_all(&buffer[..passed]).await.is_err() || cut {
                    break;
                }
            }
        });
        let saying = tokio::spawn(async move {
            let mut buffer = vec![0; 4096];
            while let Ok(read @ 1..) = from.read(&mut buffer).await {
                let (passed, cut) = spend(&back, read);
                if said.write_all(&buffer[..passed]).await.is_err() || cut {
                    break;
                }
            }
        });
        Ok(Streams {
            stdin: Box::new(stdin),
            stdout: Box::new(stdout),
            stderr: Box::new(stderr),
            exit: Box::pin(async move {
                let status = child.wait().await.unwrap();
                let _ = saying.await;
                feeding.abort();
                if *left.lock().unwrap() == Some(0) {
                    return Err(Error::unreachable("the link was cut"));
                }
                Ok(status.code().map_or(Exit::Signal("KILL".into()), |code| {
                    Exit::Code(u8::try_from(code).unwrap())
                }))
            }),
        })
    }
}

impl LocalShell {
    /// Where the far side has a program.
    fn program(&self, name: &str) -> String {
        let path = self.tools.path();
        let mut programs = path.split(':').map(|folder| Path::new(folder).join(name));
        programs.find(|program| program.exists()).unwrap().display().to_string()
    }

    /// Puts a script in the place of a program of the far side.
    fn replace(&self, name: &str, script: &str) {
        let folder = self.home.join("bin");
        fs::create_dir_all(&folder).unwrap();
        let file = folder.join(name);
        fs::write(&file, format!("#!/bin/sh\n{script}")).unwrap();
        fs::set_permissions(file, Permissions::from_mode(0o755)).unwrap();
    }

    /// A folder with a `date` that is ahead, or behind.
    fn clock(&self) -> PathBuf {
        let folder = self.home.join("clock");
        let real = self.program("date");
        let script = format!(
            "#!{}\nexec {real} -d \"@$(($({real} +%s) + {}))\" \"$@\"\n",
            Path::new("/bin/sh").display(),
            self.ahead
        );
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("date"), script).unwrap();
        fs::set_permissions(folder.join("date"), Permissions::from_mode(0o755)).unwrap();
        folder
    }
}

/// A project and its workspace.
struct Pair {
    root: TempDir,
    shell: LocalShell,
    generated: Option<Generated>,
    unmade: Option<Vec<u8>>,
    rsync: Option<Rsync>,
    with_git: bool,
    /// What its sessions said.
    said: Arc<Mutex<Vec<String>>>,
}

impl Pair {
    fn new(tools: Tools) -> Self {
        let root = tempfile::tempdir().unwrap();
        for part in ["home", "project", "far"] {
            fs::create_dir(root.path().join(part)).unwrap();
        }
        let shell = LocalShell {
            home: root.path().join("far").canonicalize().unwrap(),
            tools,
            cut_after: None,
            before: Hook::default(),
            amid: LateHook::default(),
            ahead: 0,
            calls: Arc::default(),
        };
        Self {
            root,
            shell,
            generated: None,
            unmade: None,
            rsync: None,
            with_git: false,
            said: Arc::default(),
        }
    }

    fn here(&self) -> PathBuf {
        self.root.path().join("project")
    }

    fn there(&self) -> PathBuf {
        self.root.path().join("far/workspaces/ann/code/project")
    }

    fn session(&self) -> Result<Session<LocalShell>> {
        self.session_on("0f")
    }

    fn session_on(&self, machine: &str) -> Result<Session<LocalShell>> {
        let memory = Memory::open(Local::open(&self.here()).unwrap().root(), "far", &self.env())?;
        self.session_of(memory, machine)
    }

    /// A session that only looks.
    fn peek(&self) -> Result<Session<LocalShell>> {
        let memory = Memory::peek(Local::open(&self.here()).unwrap().root(), "far", &self.env());
        self.session_of(memory, "0f")
    }

    fn env(&self) -> Env {
        Env::from_pairs([("HOME", self.root.path().join("home").to_str().unwrap())])
    }

    fn session_of(&self, memory: Memory, machine: &str) -> Result<Session<LocalShell>> {
        let local = Local::open(&self.here()).unwrap();
        let target = Target {
            moniker: "far".into(),
            // Wherever these tests run, /data is not for them.
            base: Some(self.shell.home.join("workspaces").display().to_string()),
            user: "ann".into(),
            project: "project".into(),
            machine: machine.into(),
        };
        let mut session = Session::new(self.shell.clone(), local, memory, target);
        session.generated = self.generated.clone();
        session.unmade.clone_from(&self.unmade);
        session.rsync = self.rsync.clone();
        session.with_git = self.with_git;
        let said = Arc::clone(&self.said);
        session.notice = Arc::new(move |line| said.lock().unwrap().push(line.to_owned()));
        Ok(session)
    }

    async fn try_sync(&self, direction: Direction, settle: Option<Side>, only: &[Vec<u8>]) -> Result<Report> {
        let request = SyncRequest {
            settle,
            only,
            ..SyncRequest::everything(direction, Brake::default())
        };
        self.session()?.sync(&request, false).await
    }

    async fn sync(&self, direction: Direction) -> Report {
        self.try_sync(direction, None, &[]).await.unwrap()
    }

    async fn up(&self) -> Report {
        self.sync(Direction::Up).await
    }

    async fn down(&self) -> Report {
        self.sync(Direction::Down).await
    }

    /// A sync that finds nothing to do: both sides are in step.
    async fn assert_in_step(&self) {
        let report = self.sync(Direction::Both).await;
        assert!(report.is_clean() && report.done.is_empty(), "{report:?}");
        assert_eq!(tree(&self.here()), tree(&self.there()));
    }
}

/// What is in a directory: mode and contents by path, links by their text.
fn tree(root: &Path) -> BTreeMap<Vec<u8>, (u32, Vec<u8>)> {
    let mut all = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec();
            if name == b".dockerutils-sync" {
                continue;
            }
            let found = fs::symlink_metadata(&path).unwrap();
            let mode = found.mode() & 0o777;
            let value = if found.is_symlink() {
                (0o777, fs::read_link(&path).unwrap().as_os_str().as_bytes().to_vec())
            } else if found.is_dir() {
                folders.push(path);
                (mode, b"a directory".to_vec())
            } else {
                (mode, fs::read(&path).unwrap())
            };
            all.insert(name, value);
        }
    }
    all
}

fn write(root: &Path, path: &str, text: &str) {
    let file = root.join(path);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, text).unwrap();
}

fn read(root: &Path, path: &str) -> String {
    fs::read_to_string(root.join(path)).unwrap()
}

fn done(report: &Report) -> Vec<(String, Action)> {
    let done = report.done.iter();
    done.map(|(path, action)| (String::from_utf8_lossy(path).into_owned(), *action))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_a_build_would_get_arrives_as_it_is() {
    for tools in BOTH {
        let pair = Pair::new(tools);
        let here = pair.here();
        for path in [
            "a",
            ".env",
            "..twice",
            "-rf",
            "--",
            "with blank",
            "line\nfeed",
            "back\\slash",
            "qu'ote\"s",
            "$(id)",
            "*",
            "sub/.hidden/deep",
            "sub/..x",
            "sub/-n",
            "sub/é",
            "empty",
            "sub/ lead",
            "tab\tand\rmore",
            "//s".trim_matches('/'),
        ] {
            write(&here, path, path);
        }
        fs::write(here.join(OsStr::from_bytes(b"no\xff\xfeutf8")), "bytes").unwrap();
        fs::write(here.join("empty"), "").unwrap();
        fs::create_dir_all(here.join("nothing/in/here")).unwrap();
        fs::create_dir_all(here.join(".also")).unwrap();
        let long = format!("{}/{}", "d".repeat(200), "f".repeat(200));
        write(&here, &long, "long");
        symlink("a", here.join("link")).unwrap();
        symlink("/etc/passwd", here.join("absolute")).unwrap();
        symlink("../../out", here.join("sub/out")).unwrap();
        symlink("x".repeat(300), here.join("to-long")).unwrap();
        symlink("new\nline", here.join("odd-link")).unwrap();
        fs::hard_link(here.join("a"), here.join("second")).unwrap();
        for (path, mode) in [
            ("a", 0o600),
            ("-rf", 0o755),
            ("sub/-n", 0o444),
            ("nothing/in", 0o555),
            (".also", 0o700),
        ] {
            fs::set_permissions(here.join(path), Permissions::from_mode(mode)).unwrap();
        }
        let report = pair.up().await;
        assert!(report.is_clean(), "{tools:?} {report:?}");
        assert_eq!(tree(&here), tree(&pair.there()), "{tools:?}");
        let times = |root: &Path| fs::metadata(root.join("with blank")).unwrap().mtime();
        assert_eq!(times(&here), times(&pair.there()));
        pair.assert_in_step().await;

        // And back: all of it anew.
        for path in ["a", "-rf", "line\nfeed", "back\\slash", "sub/é", "sub/..x", "..twice"] {
            fs::write(pair.there().join(path), "changed there").unwrap();
        }
        write(&pair.there(), "fresh/dir/-f\n", "new");
        symlink("to nowhere", pair.there().join("fresh/link\n")).unwrap();
        fs::hard_link(pair.there().join("fresh/dir/-f\n"), pair.there().join("fresh/again")).unwrap();
        fs::create_dir_all(pair.there().join("fresh/.none")).unwrap();
        fs::remove_file(pair.there().join("absolute")).unwrap();
        symlink("elsewhere\n", pair.there().join("absolute")).unwrap();
        let report = pair.down().await;
        assert!(report.is_clean(), "{tools:?} {report:?}");
        assert_eq!(tree(&here), tree(&pair.there()), "{tools:?}");
        // Set-user-ID and the like do not come from there.
        fs::set_permissions(pair.there().join("a"), Permissions::from_mode(0o4700)).unwrap();
        pair.down().await;
        assert_eq!(fs::metadata(here.join("a")).unwrap().mode() & 0o7777, 0o700);
        pair.assert_in_step().await;
        fs::set_permissions(here.join("nothing/in"), Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(pair.there().join("nothing/in"), Permissions::from_mode(0o755)).unwrap();
        assert!(!here.join(".dockerutils-sync").exists());
        // The mark, and how the state is called.
        assert!(fs::read_dir(pair.there().join(".dockerutils-sync")).unwrap().count() == 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_neither_side_ever_had_is_an_error() {
    for tools in BOTH {
        let pair = Pair::new(tools);
        write(&pair.here(), "d/f", "1");
        pair.up().await;
        let only = |path: &str| vec![path.as_bytes().to_vec()];
        for direction in [Direction::Up, Direction::Down] {
            let error = pair.try_sync(direction, None, &only("nosuchfile")).await.unwrap_err();
            assert!(
                error.to_string().contains("there is no nosuchfile on either side"),
                "{error}"
            );
            assert_eq!(error.class(), crate::error::Class::Usage);
            for known in ["d", "d/f"] {
                pair.try_sync(direction, None, &only(known)).await.unwrap();
            }
        }
        // What was removed on one side is what the other is told.
        fs::remove_file(pair.here().join("d/f")).unwrap();
        pair.try_sync(Direction::Up, None, &only("d/f")).await.unwrap();
        assert!(!pair.there().join("d/f").exists());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_changed_travels_and_deletions_travel() {
    for tools in BOTH {
        let pair = Pair::new(tools);
        for name in ["a", "b", "c/d", "c/e", "f/g/h"] {
            write(&pair.here(), name, name);
        }
        assert_eq!(pair.up().await.done.len(), 8);
        // One look is enough for an unchanged tree, as soon as the clock there has gone on since it was put.
        let quick = async || {
            *pair.shell.calls.lock().unwrap() = 0;
            assert!(pair.up().await.done.is_empty());
            *pair.shell.calls.lock().unwrap() == 1
        };
        while !quick().await {}
        write(&pair.here(), "a", "new a");
        fs::remove_dir_all(pair.here().join("f")).unwrap();
        fs::remove_file(pair.here().join("c/d")).unwrap();
        let report = pair.up().await;
        let expected = [
            ("a", Action::Send(0o644)),
            ("c/d", Action::RemoveThere),
            ("f", Action::RemoveThere),
            ("f/g", Action::RemoveThere),
            ("f/g/h", Action::RemoveThere),
        ];
        assert_eq!(done(&report), expected.map(|(path, action)| (path.to_owned(), action)));
        pair.assert_in_step().await;
        fs::remove_dir_all(pair.there().join("c")).unwrap();
        write(&pair.there(), "b", "new b");
        let report = pair.up().await;
        assert!(report.done.is_empty());
        assert_eq!(report.later_there, 3);
        let report = pair.down().await;
        let expected = [
            ("b", Action::Bring(0o644)),
            ("c", Action::RemoveHere),
            ("c/e", Action::RemoveHere),
        ];
        assert_eq!(done(&report), expected.map(|(path, action)| (path.to_owned(), action)));
        pair.assert_in_step().await;
        // A change that leaves size and time as they were, as `cp -p` and `touch -r` do.
        let file = pair.there().join("b");
        let time = fs::metadata(&file).unwrap().modified().unwrap();
        fs::write(&file, "NEW B").unwrap();
        fs::File::options()
            .write(true)
            .open(&file)
            .unwrap()
            .set_modified(time)
            .unwrap();
        assert_eq!(pair.down().await.done.len(), 1);
        let file = pair.here().join("b");
        fs::write(&file, "OLD B").unwrap();
        fs::File::options()
            .write(true)
            .open(&file)
            .unwrap()
            .set_modified(time)
            .unwrap();
        assert_eq!(pair.up().await.done.len(), 1);
        pair.assert_in_step().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_ignored_is_neither_sent_nor_brought_nor_removed() {
    for tools in BOTH {
        let pair = Pair::new(tools);
        write(&pair.here(), ".dockerignore", "cache\n*.log\nout/*\n!out/keep\n");
        for name in ["a", "b.log", "cache/x", "out/keep", "out/junk", "later/x", "later/y"] {
            write(&pair.here(), name, name);
        }
        pair.up().await;
        let names: Vec<_> = tree(&pair.there())
            .into_keys()
            .map(|path| String::from_utf8(path).unwrap())
            .collect();
        assert_eq!(
            names,
            [".dockerignore", "a", "later", "later/x", "later/y", "out", "out/keep"]
        );
        // What the dock itself makes of it.
        for name in ["cache/there", "x.log", "out/more", "later/z"] {
            write(&pair.there(), name, name);
        }
        pair.down().await;
        assert!(!pair.here().join("cache/there").exists() && !pair.here().join("x.log").exists());
        assert!(pair.here().join("later/z").exists());
        // From now on ignored: it stays where it is, on both sides, also where one side loses it.
        write(&pair.here(), ".dockerignore", "cache\n*.log\nout/*\n!out/keep\nlater\n");
        pair.up().await;
        fs::remove_dir_all(pair.here().join("later")).unwrap();
        let report = pair.up().await;
        assert!(report.done.is_empty(), "{report:?}");
        assert!(pair.there().join("later/x").exists());
        // A directory that goes, but for what is ignored in it.
        fs::remove_dir_all(pair.here().join("out")).unwrap();
        let report = pair.up().await;
        assert!(report.is_clean(), "{report:?}");
        assert!(!pair.there().join("out/keep").exists() && pair.there().join("out/more").exists());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conflict_is_left_alone_and_the_rest_goes_on() {
    for tools in BOTH {
        let pair = Pair::new(tools);
        for name in ["both", "gone-here", "gone-there", "same", "plain"] {
            write(&pair.here(), name, "base");
        }
        pair.up().await;
        write(&pair.here(), "both", "ours");
        write(&pair.there(), "both", "theirs");
        write(&pair.here(), "same", "equal");
        write(&pair.there(), "same", "equal");
        fs::remove_file(pair.here().join("gone-here")).unwrap();
        write(&pair.there(), "gone-here", "theirs");
        write(&pair.here(), "gone-there", "ours");
        fs::remove_file(pair.there().join("gone-there")).unwrap();
        write(&pair.here(), "plain", "sent");
        let conflicts = |report: &Report| {
            let conflicts = report.conflicts.iter();
            conflicts
                .map(|conflict| (String::from_utf8_lossy(&conflict.path).into_owned(), conflict.why))
                .collect::<Vec<_>>()
        };
        let expected = [
            ("both", Why::BothChanged),
            ("gone-here", Why::RemovedHere),
            ("gone-there", Why::RemovedThere),
        ];
        let expected = expected.map(|(path, why)| (path.to_owned(), why));
        let report = pair.up().await;
        assert_eq!(conflicts(&report), expected);
        assert_eq!(done(&report), [("plain".to_owned(), Action::Send(0o644))]);
        assert_eq!(
            (read(&pair.here(), "both"), read(&pair.there(), "both")),
            ("ours".into(), "theirs".into())
        );
        assert!(!pair.here().join("both.dock").exists());

        // Down: their version beside ours, and the rest.
        write(&pair.there(), "plain", "back");
        for _ in 0..2 {
            let report = pair.down().await;
            assert_eq!(conflicts(&report), expected);
            assert_eq!(report.conflicts[0].beside.as_deref(), Some(&b"both.dock"[..]));
            assert_eq!(read(&pair.here(), "both"), "ours");
            assert_eq!(read(&pair.here(), "both.dock"), "theirs");
            assert_eq!(read(&pair.here(), "gone-here.dock"), "theirs");
            assert_eq!(read(&pair.here(), "plain"), "back");
        }
        // A newer one takes the place of the older; one that the user edited stays.
        write(&pair.there(), "both", "theirs again");
        write(&pair.here(), "gone-here.dock", "edited");
        write(&pair.there(), "gone-here", "newer");
        pair.down().await;
        assert_eq!(read(&pair.here(), "both.dock"), "theirs again");
        assert_eq!(read(&pair.here(), "gone-here.dock"), "edited");
        assert_eq!(read(&pair.here(), "gone-here.dock-2"), "newer");
        fs::remove_file(pair.here().join("gone-here.dock")).unwrap();

        // Settled one by one.
        let only = |path: &str| vec![path.as_bytes().to_vec()];
        let report = pair
            .try_sync(Direction::Up, Some(Side::Here), &only("both"))
            .await
            .unwrap();
        assert!(report.is_clean(), "{report:?}");
        assert_eq!(read(&pair.there(), "both"), "ours");
        assert!(!pair.here().join("both.dock").exists(), "the conflict is over");
        pair.try_sync(Direction::Down, Some(Side::There), &[]).await.unwrap();
        assert_eq!(read(&pair.here(), "gone-here"), "newer");
        assert!(!pair.here().join("gone-there").exists());
        pair.assert_in_step().await;
        assert_eq!(tree(&pair.here()).len(), 4);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_sync_adopts_what_is_equal_and_overwrites_nothing() {
    for tools in BOTH {
        let pair = Pair::new(tools);
        for (name, ours, theirs) in [
            ("same", "1", "1"),
            ("size", "1", "22"),
            ("text", "1", "2"),
            ("d/same\n", "x", "x"),
        ] {
            write(&pair.here(), name, ours);
            write(&pair.there(), name, theirs);
        }
        symlink("x", pair.here().join("link")).unwrap();
        symlink("x", pair.there().join("link")).unwrap();
        symlink("x", pair.here().join("other")).unwrap();
        symlink("y", pair.there().join("other")).unwrap();
        write(&pair.there(), "only-there", "t");
        write(&pair.here(), "only-here", "h");
        let report = pair.up().await;
        let conflicts: Vec<_> = report
            .conflicts
            .iter()
            .map(|conflict| (conflict.path.as_slice(), conflict.why))
            .collect();
        assert_eq!(
            conflicts,
            [
                (&b"other"[..], Why::BothNew),
                (b"size", Why::BothNew),
                (b"text", Why::BothNew)
            ]
        );
        assert_eq!(done(&report), [("only-here".to_owned(), Action::Send(0o644))]);
        assert_eq!(read(&pair.there(), "text"), "2");
        // The manifest lost: the same again, and still nothing is overwritten.
        fs::remove_dir_all(pair.root.path().join("home")).unwrap();
        let report = pair.down().await;
        assert_eq!(report.conflicts.len(), 3);
        assert_eq!(done(&report), [("only-there".to_owned(), Action::Bring(0o644))]);
        assert_eq!(read(&pair.here(), "text"), "1");
        // A workspace that was removed, or made anew, is another one: nothing here is removed for it.
        fs::remove_dir_all(pair.there()).unwrap();
        assert!(
            pair.try_sync(Direction::Down, None, &[])
                .await
                .unwrap_err()
                .hint_text()
                .unwrap()
                .contains("sync-up")
        );
        fs::create_dir_all(pair.there()).unwrap();
        let report = pair.down().await;
        assert!(report.done.is_empty() && report.is_clean(), "{report:?}");
        pair.up().await;
        pair.assert_in_step().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_directories_and_links_take_each_other_s_place() {
    for tools in BOTH {
        let pair = Pair::new(tools);
        for name in ["file", "dir/x", "dir/y", "link-to-be", "keep/x"] {
            write(&pair.here(), name, name);
        }
        pair.up().await;
        let swap = |root: &Path| {
            fs::remove_file(root.join("file")).unwrap();
            write(root, "file/now/a", "directory");
            fs::remove_dir_all(root.join("dir")).unwrap();
            write(root, "dir", "a file now");
            fs::remove_file(root.join("link-to-be")).unwrap();
            symlink("keep", root.join("link-to-be")).unwrap();
        };
        swap(&pair.here());
        let report = pair.up().await;
        assert!(report.is_clean(), "{tools:?} {report:?}");
        pair.assert_in_step().await;
        let back = |root: &Path| {
            fs::remove_dir_all(root.join("file")).unwrap();
            write(root, "file", "again");
            fs::remove_file(root.join("dir")).unwrap();
            write(root, "dir/x", "again");
            fs::remove_file(root.join("link-to-be")).unwrap();
            write(root, "link-to-be/y", "a directory");
        };
        back(&pair.there());
        let report = pair.down().await;
        assert!(report.is_clean(), "{tools:?} {report:?}");
        pair.assert_in_step().await;
        // A directory that became a file there, with something new in it here.
        fs::remove_dir_all(pair.there().join("keep")).unwrap();
        write(&pair.there(), "keep", "file");
        write(&pair.here(), "keep/new", "here");
        for direction in [Direction::Up, Direction::Down, Direction::Both] {
            let report = pair.sync(direction).await;
            assert!(!report.conflicts.is_empty(), "{direction:?} {report:?}");
            assert_eq!(read(&pair.here(), "keep/new"), "here");
            assert_eq!(read(&pair.there(), "keep"), "file");
        }
        pair.try_sync(Direction::Up, Some(Side::Here), &[]).await.unwrap();
        assert_eq!(read(&pair.there(), "keep/new"), "here");
        pair.assert_in_step().await;
        // The other way round, and settled for the dock's file.
        fs::remove_dir_all(pair.there().join("keep")).unwrap();
        write(&pair.there(), "keep", "file");
        write(&pair.here(), "keep/more", "here");
        pair.try_sync(Direction::Up, Some(Side::There), &[]).await.unwrap();
        assert_eq!(read(&pair.here(), "keep"), "file");
        pair.assert_in_step().await;
    }
}

/// What a directory that was moved to another place often leaves: a link to where it is now, by which all its files are still seen.
#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_took_a_directory_s_place_travels_in_both_directions() {
    for tools in BOTH {
        let pair = Pair::new(tools);
        for name in ["data/a", "data/deep/b", "other/a", "other/deep/b", "plain/c"] {
            write(&pair.here(), name, name);
        }
        pair.up().await;
        let replace = |root: &Path| {
            // By the directory itself in its new place, and by one that was there already.
            fs::rename(root.join("data"), root.join("big")).unwrap();
            symlink("big", root.join("data")).unwrap();
            fs::remove_dir_all(root.join("plain")).unwrap();
            symlink("other", root.join("plain")).unwrap();
            fs::rename(root.join("big/deep"), root.join("big/further")).unwrap();
            symlink("further", root.join("big/deep")).unwrap();
        };
        replace(&pair.here());
        let report = pair.up().await;
        assert!(report.is_clean(), "{tools:?} {report:?}");
        assert_eq!(fs::read_link(pair.there().join("data")).unwrap(), Path::new("big"));
        pair.assert_in_step().await;
        // And a directory again, in the place of the link.
        let back = |root: &Path| {
            fs::remove_file(root.join("data")).unwrap();
            fs::rename(root.join("big"), root.join("data")).unwrap();
            fs::remove_file(root.join("data/deep")).unwrap();
            fs::rename(root.join("data/further"), root.join("data/deep")).unwrap();
            fs::remove_file(root.join("plain")).unwrap();
            write(root, "plain/a", "a directory again");
            write(root, "plain/c", "a directory again");
        };
        back(&pair.here());
        let report = pair.up().await;
        assert!(report.is_clean(), "{tools:?} {report:?}");
        pair.assert_in_step().await;
        for change in [&replace as &dyn Fn(&Path), &back] {
            change(&pair.there());
            let report = pair.down().await;
            assert!(report.is_clean(), "{tools:?} {report:?}");
            pair.assert_in_step().await;
        }
        // There, between the listing and the fetching: what was listed is the same file, seen through a link.
        write(&pair.there(), "data/a", "new");
        let there = pair.there();
        *pair.shell.before.lock().unwrap() = Some(Box::new(move |_| {
            fs::rename(there.join("data"), there.join("big")).unwrap();
            symlink("big", there.join("data")).unwrap();
        }));
        pair.down().await;
        assert_eq!(read(&pair.here(), "data/a"), "data/a", "{tools:?}");
        let report = pair.down().await;
        assert!(report.is_clean(), "{tools:?} {report:?}");
        assert_eq!(fs::read_link(pair.here().join("data")).unwrap(), Path::new("big"));
        pair.assert_in_step().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn modes_travel_and_never_conflict() {
    for tools in BOTH {
        let pair = Pair::new(tools);
        for name in ["a", "b", "c", "d/x"] {
            write(&pair.here(), name, name);
        }
        pair.up().await;
        let mode = |root: &Path, name: &str| fs::metadata(root.join(name)).unwrap().mode() & 0o777;
        let set =
            |root: &Path, name: &str, mode| fs::set_permissions(root.join(name), Permissions::from_mode(mode)).unwrap();
        set(&pair.here(), "a", 0o755);
        set(&pair.there(), "b", 0o600);
        set(&pair.here(), "c", 0o640);
        set(&pair.there(), "c", 0o604);
        set(&pair.here(), "d", 0o700);
        let report = pair.up().await;
        assert!(report.is_clean(), "{report:?}");
        assert_eq!(
            (
                mode(&pair.there(), "a"),
                mode(&pair.there(), "c"),
                mode(&pair.there(), "d")
            ),
            (0o755, 0o640, 0o700)
        );
        assert_eq!(mode(&pair.here(), "b"), 0o644);
        // The contents go up; the mode that the dock changed stays, and is still to come.
        write(&pair.here(), "b", "new");
        pair.up().await;
        assert_eq!(
            (read(&pair.there(), "b").as_str(), mode(&pair.there(), "b")),
            ("new", 0o600)
        );
        pair.down().await;
        assert_eq!(mode(&pair.here(), "b"), 0o600);
        pair.assert_in_step().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_side_that_lost_everything_does_not_take_the_other_with_it() {
    let pair = Pair::new(Tools::Machine);
    for name in ["a", "b", "c/d"] {
        write(&pair.here(), name, name);
    }
    pair.up().await;
    let kept = tree(&pair.here());
    for name in ["a", "b", "c/d"] {
        fs::remove_file(pair.there().join(name)).unwrap();
    }
    for direction in [Direction::Down, Direction::Both] {
        let report = pair.sync(direction).await;
        assert_eq!((report.held_here.len(), report.done.len()), (3, 0), "{report:?}");
        assert!(!report.is_clean());
    }
    assert_eq!(tree(&pair.here()), kept);
    let all = SyncRequest {
        brake: None,
        ..SyncRequest::everything(Direction::Down, Brake::default())
    };
    pair.session().unwrap().sync(&all, false).await.unwrap();
    assert_eq!(tree(&pair.here()).len(), 1, "the empty directory is still there");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workspace_belongs_to_one_checkout() {
    let pair = Pair::new(Tools::Machine);
    write(&pair.here(), "a", "a");
    pair.up().await;
    let mark = pair.there().join(".dockerutils-sync/owner");
    let text = fs::read_to_string(&mark).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    fs::write(
        &mark,
        format!("{}\n/elsewhere/project\nother-machine\nbob\n1f\n", "0".repeat(32)),
    )
    .unwrap();
    for direction in [Direction::Up, Direction::Down] {
        let error = pair.try_sync(direction, None, &[]).await.unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("/elsewhere/project") && text.contains("bob@other-machine"),
            "{text}"
        );
        assert!(error.hint_text().unwrap().contains("--workspace"));
    }
    // The same checkout with another mark: its own, from before the manifest was lost.
    fs::write(&mark, format!("{}\n{}\n", "1".repeat(32), lines[1..].join("\n"))).unwrap();
    assert!(pair.up().await.is_clean());
    // Another machine of the same name, on which the user and the path are the same.
    let other = format!("{}\n{}\n{}\n", "2".repeat(32), lines[1..4].join("\n"), "9".repeat(32));
    fs::write(&mark, other).unwrap();
    let error = pair.try_sync(Direction::Up, None, &[]).await.unwrap_err();
    assert!(error.to_string().contains("two checkouts"), "{error}");
    // One that was damaged.
    fs::write(&mark, "what?").unwrap();
    let error = pair.try_sync(Direction::Up, None, &[]).await.unwrap_err();
    assert!(error.to_string().contains("its mark is damaged"), "{error}");
    // A mark that was never finished is nobody's.
    fs::write(&mark, "").unwrap();
    assert!(pair.up().await.is_clean());
    pair.assert_in_step().await;
}

#[test]
fn the_workspace_is_below_data_where_the_user_may_write_there_and_else_below_the_home() {
    use dockerutils_test_support::machine;

    machine::require("busybox", &["busybox-static"], "a far side").unwrap();
    let busybox = dockerutils_test_support::process::on_path("busybox").unwrap();
    let below_home = "/home/ann/workspaces/ann/code/project";
    let as_root = |program: &str, words: &[&str], path: &Path| {
        let status = machine::as_root(program)
            .unwrap()
            .args(words)
            .arg(path)
            .status()
            .unwrap();
        assert!(status.success());
    };
    // What is there, and which of it is another user's.
    for (folders, others, expected) in [
        (&[][..], None, below_home),
        (&["data"], None, "/data/workspaces/ann/code/project"),
        (&["data"], Some("data"), below_home),
        (&["data/workspaces"], Some("data/workspaces"), below_home),
        // Where each user has a directory of their own, the one above is not written to.
        (
            &["data/workspaces/ann"],
            Some("data"),
            "/data/workspaces/ann/code/project",
        ),
        (
            &["data/workspaces/ann/code/project"],
            Some("data/workspaces/ann/code/project"),
            below_home,
        ),
    ] {
        let root = tempfile::tempdir().unwrap();
        for folder in ["bin", "home/ann"].iter().chain(folders) {
            fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        fs::copy(&busybox, root.path().join("bin/busybox")).unwrap();
        fs::set_permissions(root.path(), Permissions::from_mode(0o755)).unwrap();
        as_root("chown", &["-R", "1234"], root.path());
        if let Some(others) = others {
            as_root("chown", &["4321"], &root.path().join(others));
        }
        let mut chroot = machine::as_root("chroot").unwrap();
        let output = chroot
            .arg("--userspec=1234:1234")
            .arg(root.path())
            .args(["/bin/busybox", "env", "HOME=/home/ann", "/bin/busybox", "sh", "-c"])
            .args([super::script::LOOK, "sh", "word", "look"])
            .args(["", "", "ann", "project", "", "mark", super::listing::FORMAT])
            .output()
            .unwrap();
        let own = rustix::process::geteuid().as_raw().to_string();
        as_root("chown", &["-R", &own], root.path());
        let said = String::from_utf8(output.stdout).unwrap();
        let complaints = String::from_utf8_lossy(&output.stderr);
        assert_eq!(
            said.lines().nth(1),
            Some(expected),
            "{folders:?} {others:?} {said} {complaints}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_written_through_a_link_on_either_side() {
    for tools in BOTH {
        let pair = Pair::new(tools);
        write(&pair.here(), "dir/a", "a");
        write(&pair.here(), "dir/b", "b");
        pair.up().await;
        let outside = pair.root.path().join("outside");
        fs::create_dir(&outside).unwrap();
        // There: a directory became a link that leads out.
        fs::remove_dir_all(pair.there().join("dir")).unwrap();
        symlink(&outside, pair.there().join("dir")).unwrap();
        write(&pair.here(), "dir/a", "new");
        write(&pair.here(), "dir/c", "new");
        let report = pair.up().await;
        assert!(!report.is_clean(), "{report:?}");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
        // Settled: the link gives way, and what it led to stays as it is.
        let report = pair.try_sync(Direction::Up, Some(Side::Here), &[]).await.unwrap();
        assert!(report.is_clean(), "{tools:?} {report:?}");
        pair.assert_in_step().await;
        // Here, between the look and the writing.
        write(&pair.there(), "dir/a", "theirs");
        let (dir, moved, lure) = (pair.here().join("dir"), pair.here().join("moved"), outside.clone());
        *pair.shell.before.lock().unwrap() = Some(Box::new(move |_| {
            fs::rename(&dir, &moved).unwrap();
            symlink(&lure, &dir).unwrap();
        }));
        let report = pair.down().await;
        assert_eq!(report.troubles.len(), 1, "{report:?}");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_saves_meanwhile_keeps_it() {
    for tools in BOTH {
        let pair = Pair::new(tools);
        write(&pair.here(), "a", "base");
        pair.up().await;
        // There, between the look and the putting: the sync begins again, and finds a conflict.
        write(&pair.here(), "a", "ours");
        let there = pair.there();
        *pair.shell.before.lock().unwrap() = Some(Box::new(move |_| fs::write(there.join("a"), "them").unwrap()));
        let report = pair.up().await;
        assert_eq!(report.conflicts.len(), 1, "{tools:?} {report:?}");
        assert_eq!(
            (read(&pair.here(), "a"), read(&pair.there(), "a")),
            ("ours".into(), "them".into())
        );
        pair.try_sync(Direction::Up, Some(Side::Here), &[]).await.unwrap();
        // A new file there, just where one is sent.
        write(&pair.here(), "n/new", "ours");
        let there = pair.there();
        *pair.shell.before.lock().unwrap() = Some(Box::new(move |_| write(&there, "n/new", "them")));
        let report = pair.up().await;
        assert_eq!(report.conflicts.len(), 1, "{report:?}");
        assert_eq!(read(&pair.there(), "n/new"), "them");
        pair.try_sync(Direction::Up, Some(Side::Here), &[]).await.unwrap();
        // Here, while the dock's version comes.
        write(&pair.there(), "a", "theirs");
        let here = pair.here();
        *pair.shell.before.lock().unwrap() = Some(Box::new(move |_| fs::write(here.join("a"), "mine").unwrap()));
        let report = pair.down().await;
        assert_eq!(report.troubles.len(), 1, "{report:?}");
        assert_eq!(read(&pair.here(), "a"), "mine");
        // There, while it is brought: the old one stays here, and it comes with the next sync.
        pair.try_sync(Direction::Up, Some(Side::Here), &[]).await.unwrap();
        write(&pair.there(), "a", "first");
        let there = pair.there();
        *pair.shell.before.lock().unwrap() = Some(Box::new(move |_| fs::write(there.join("a"), "second").unwrap()));
        let report = pair.down().await;
        assert_eq!(
            (report.troubles.len(), read(&pair.here(), "a").as_str()),
            (1, "mine"),
            "{report:?}"
        );
        assert!(pair.down().await.is_clean());
        assert_eq!(read(&pair.here(), "a"), "second");
        pair.assert_in_step().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_generated_version_goes_up_and_never_comes_back() {
    for tools in BOTH {
        let mut pair = Pair::new(tools);
        write(&pair.here(), "pkg/_version.py", "the long one");
        write(&pair.here(), "a", "a");
        pair.generated = Some(Generated {
            path: b"pkg/_version.py".to_vec(),
            text: b"1.0".to_vec(),
        });
        pair.up().await;
        assert_eq!(read(&pair.there(), "pkg/_version.py"), "1.0");
        assert!(pair.up().await.done.is_empty());
        // Another version, though no file changed here.
        pair.generated = Some(Generated {
            path: b"pkg/_version.py".to_vec(),
            text: b"2.0".to_vec(),
        });
        assert_eq!(done(&pair.up().await).len(), 1);
        assert_eq!(read(&pair.there(), "pkg/_version.py"), "2.0");
        write(&pair.there(), "pkg/_version.py", "written there");
        let report = pair.down().await;
        assert!(report.is_clean() && report.done.is_empty(), "{report:?}");
        assert_eq!(read(&pair.here(), "pkg/_version.py"), "the long one");
        pair.sync(Direction::Both).await;
        assert_eq!(read(&pair.there(), "pkg/_version.py"), "2.0");
        // One that can't be made any more is neither sent nor brought.
        pair.generated = None;
        pair.unmade = Some(b"pkg/_version.py".to_vec());
        write(&pair.there(), "b", "b");
        assert_eq!(done(&pair.sync(Direction::Both).await).len(), 1);
        assert_eq!(read(&pair.here(), "pkg/_version.py"), "the long one");
        assert_eq!(read(&pair.there(), "pkg/_version.py"), "2.0");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_cut_anywhere_leaves_every_file_whole() {
    for tools in BOTH {
        let mut cut_after = 60;
        let mut last = false;
        while !last {
            let mut pair = Pair::new(tools);
            let big = "x".repeat(20_000);
            for name in ["a", "b", "d/c", "d/e/f", "gone"] {
                write(&pair.here(), name, "old");
            }
            write(&pair.here(), "big", &big);
            pair.up().await;
            let noise: String = (0..3000_u32)
                .map(|number| format!("{:x}", number.wrapping_mul(2_654_435_761)))
                .collect();
            for root in [pair.here(), pair.there()] {
                let side = root == pair.here();
                write(&root, if side { "a" } else { "b" }, "new");
                write(&root, if side { "h/i" } else { "t/i" }, "new");
                write(&root, if side { "big" } else { "large" }, &noise);
                fs::remove_file(root.join(if side { "d/e/f" } else { "gone" })).unwrap();
            }
            let (here, there) = (tree(&pair.here()), tree(&pair.there()));
            pair.shell.cut_after = Some(cut_after);
            last = pair.try_sync(Direction::Both, None, &[]).await.is_ok();
            pair.shell.cut_after = None;
            for root in [pair.here(), pair.there()] {
                for (path, value) in tree(&root) {
                    let known = here.get(&path) == Some(&value) || there.get(&path) == Some(&value);
                    assert!(known, "{cut_after}: {}", String::from_utf8_lossy(&path));
                }
            }
            let report = pair.sync(Direction::Both).await;
            assert!(report.is_clean(), "{cut_after}: {report:?}");
            assert_eq!(tree(&pair.here()), tree(&pair.there()), "{cut_after}");
            assert_eq!(
                (read(&pair.there(), "a"), read(&pair.here(), "b")),
                ("new".into(), "new".into())
            );
            assert!(!pair.here().join("gone").exists() && !pair.there().join("d/e/f").exists());
            assert!(!pair.here().join(".dockerutils-sync").exists());
            cut_after += if cut_after < 4000 { 390 } else { 4100 };
        }
        assert!(cut_after > 10_000, "the link was never cut late: {cut_after}");
    }
}

/// Bytes that can't be compressed.
fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let step = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    std::iter::repeat_with(step).take(length).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_is_packed_where_most_of_it_gets_smaller_and_the_link_is_slow() {
    // Busybox's shell finds its own gzip, whatever the path says.
    for (tools, tool) in [(Tools::Machine, "zstd"), (Tools::Gzip, "gzip")] {
        what_goes_is_compressed_by(tools, tool).await;
    }
}

async fn what_goes_is_compressed_by(tools: Tools, tool: &str) {
    let pair = Pair::new(tools);
    write(&pair.here(), "first", "of all");
    pair.up().await;
    let (bin, unpacked) = (pair.shell.home.join("bin"), pair.shell.home.join("unpacked"));
    fs::create_dir_all(&bin).unwrap();
    let program = |name: &str, before: &str| {
        let file = bin.join(name);
        let text = format!("#!/bin/sh\n{before}\nPATH=${{PATH#*:}} exec {name} \"$@\"\n");
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o755)).unwrap();
    };
    program(tool, &format!("case $* in *-dc) : > '{}' ;; esac", unpacked.display()));
    // The link is measured by how long what is sent takes to be read.
    program("cat", "sleep 0.2");
    let text = "the quick brown fox jumps over the lazy dog\n"
        .repeat(220_000)
        .into_bytes();
    let small = &text[..1_000];
    for (name, contents, is_packed) in [
        ("small", small, true),
        ("weights", noise(9_000_000, 7).as_slice(), false),
        ("text", text.as_slice(), true),
    ] {
        let _ = fs::remove_file(&unpacked);
        fs::write(pair.here().join(name), contents).unwrap();
        let report = pair.up().await;
        assert!(report.is_clean(), "{name}: {report:?}");
        assert_eq!(unpacked.exists(), is_packed, "{name}");
        assert!(fs::read(pair.there().join(name)).unwrap() == contents, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_changes_while_it_is_sent_arrives_whole_and_as_it_is_at_last() {
    type Change = fn(&Path);
    // More than is read ahead of what goes.
    let large = |seed| noise(1_000_000, seed).repeat(5);
    let changes: [(&str, Change); 6] = [
        ("grows", |file| {
            use std::io::Write as _;
            let mut file = fs::File::options().append(true).open(file).unwrap();
            file.write_all(&[7; 100_000]).unwrap();
        }),
        ("shrinks", |file| {
            fs::File::options()
                .write(true)
                .open(file)
                .unwrap()
                .set_len(4_000_001)
                .unwrap();
        }),
        ("becomes empty", |file| fs::write(file, "").unwrap()),
        ("is overwritten", |file| {
            use std::os::unix::fs::FileExt as _;
            let file = fs::File::options().write(true).open(file).unwrap();
            file.write_all_at(&[7; 1000], 4_900_000).unwrap();
        }),
        ("is replaced", |file| {
            let other = file.with_extension("new");
            fs::write(&other, noise(1_000_000, 3)).unwrap();
            fs::rename(other, file).unwrap();
        }),
        ("is removed", |file| fs::remove_file(file).unwrap()),
    ];
    for tools in BOTH {
        for (what, change) in changes {
            let pair = Pair::new(tools);
            write(&pair.here(), "a", "a");
            fs::write(pair.here().join("big"), large(1)).unwrap();
            write(&pair.here(), "z", "z");
            pair.up().await;
            fs::write(pair.here().join("big"), large(2)).unwrap();
            write(&pair.here(), "a", "new a");
            write(&pair.here(), "z", "new z");
            let file = pair.here().join("big");
            *pair.shell.amid.lock().unwrap() = Some((200_000, Box::new(move || change(&file))));
            let mut report = pair.up().await;
            assert!(pair.shell.amid.lock().unwrap().is_none(), "{what}");
            if what == "becomes empty" {
                // As after a power cut: that is for a person to say.
                assert_eq!(report.conflicts[0].why, Why::Emptied(Side::Here), "{report:?}");
                report = pair.try_sync(Direction::Up, Some(Side::Here), &[]).await.unwrap();
            }
            assert!(report.is_clean(), "{tools:?} {what} {report:?}");
            if what == "grows" {
                // What it had is there, whole; what was added comes with the next sync.
                assert!(fs::read(pair.there().join("big")).unwrap() == large(2));
                assert!(pair.up().await.is_clean());
            }
            assert!(tree(&pair.here()) == tree(&pair.there()), "{tools:?} {what}");
            pair.assert_in_step().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_grows_all_the_time_is_sent_once_as_it_was_and_said() {
    let pair = Pair::new(Tools::Machine);
    write(&pair.here(), "z", "z");
    pair.up().await;
    // More than is read ahead of what goes.
    let log = noise(1_000_000, 1).repeat(6);
    fs::write(pair.here().join("train.log"), &log).unwrap();
    write(&pair.here(), "z", "new z");
    // It is appended to in the middle of each try.
    fn append_amid(hook: &LateHook, file: Arc<fs::File>) {
        let again = Arc::clone(hook);
        let append = move || {
            use std::io::Write as _;
            (&*file).write_all(b"a line more\n").unwrap();
            append_amid(&again, file);
        };
        *hook.lock().unwrap() = Some((200_000, Box::new(append)));
    }
    let file = fs::File::options()
        .append(true)
        .open(pair.here().join("train.log"))
        .unwrap();
    append_amid(&pair.shell.amid, Arc::new(file));
    let report = pair.up().await;
    *pair.shell.amid.lock().unwrap() = None;
    assert!(report.is_clean(), "{report:?}");
    assert!(report.bytes.0 < 6_100_000, "it is sent once: {}", report.bytes.0);
    assert!(fs::read(pair.there().join("train.log")).unwrap() == log);
    assert_eq!(read(&pair.there(), "z"), "new z");
    let said = pair.said.lock().unwrap().join("\n");
    assert!(
        said.contains("train.log grows: what it had when it was read is sent"),
        "{said}"
    );
    assert!(pair.up().await.is_clean());
    pair.assert_in_step().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_changes_all_the_time_is_named_and_holds_nothing_else_back() {
    use std::os::unix::fs::FileExt as _;

    let pair = Pair::new(Tools::Machine);
    let old = noise(1_000_000, 1).repeat(5);
    fs::write(pair.here().join("big"), &old).unwrap();
    write(&pair.here(), "z", "z");
    pair.up().await;
    write(&pair.here(), "z", "new z");
    // Written to in the middle of each try.
    fn write_amid(hook: &LateHook, file: Arc<fs::File>, number: u64) {
        let again = Arc::clone(hook);
        let write = move || {
            file.write_all_at(&number.to_le_bytes(), 8 * (number % 200_000))
                .unwrap();
            write_amid(&again, file, number + 1);
        };
        *hook.lock().unwrap() = Some((200_000, Box::new(write)));
    }
    let file = fs::File::options().write(true).open(pair.here().join("big")).unwrap();
    file.write_all_at(b"changed", 0).unwrap();
    write_amid(&pair.shell.amid, Arc::new(file), 1);
    let report = pair.up().await;
    *pair.shell.amid.lock().unwrap() = None;
    let named: Vec<&[u8]> = report.troubles.iter().map(|(path, _)| path.as_slice()).collect();
    assert_eq!(named, [b"big"], "{report:?}");
    assert_eq!(report.troubles[0].1, "it changed while it was sent");
    assert_eq!(read(&pair.there(), "z"), "new z");
    assert!(fs::read(pair.there().join("big")).unwrap() == old, "the old one, whole");
    // Each try says how much it sends, and why that is more than was planned.
    let sending = || {
        let said = std::mem::take(&mut *pair.said.lock().unwrap());
        said.into_iter()
            .filter(|line| line.starts_with("sending "))
            .collect::<Vec<_>>()
    };
    let more = "sending 1 file more, 5.0 MB, which came or changed meanwhile";
    let said = sending();
    assert_eq!(
        said[said.len() - 3..],
        ["sending 2 files, 5.0 MB", more, more],
        "{said:?}"
    );
    assert!(pair.up().await.is_clean());
    pair.assert_in_step().await;
    // A watch names it after as many tries.
    let mut session = pair.session().unwrap();
    let everything = SyncRequest::everything(Direction::Both, Brake::default());
    assert!(session.sync(&everything, false).await.unwrap().is_clean());
    sending();
    let file = fs::File::options().write(true).open(pair.here().join("big")).unwrap();
    file.write_all_at(b"changed anew", 0).unwrap();
    write_amid(&pair.shell.amid, Arc::new(file), 1);
    let pushed = SyncRequest::everything(Direction::Up, Brake::default());
    let report = session.push(&pushed).await.unwrap();
    *pair.shell.amid.lock().unwrap() = None;
    assert_eq!(report.troubles.len(), 1, "{report:?}");
    assert_eq!(sending(), ["sending 1 file, 5.0 MB", more, more]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_planned_is_what_the_report_counts() {
    let pair = Pair::new(Tools::Machine);
    for number in 0..101 {
        write(&pair.here(), &format!("a/b/{number}"), "x");
    }
    let report = pair.up().await;
    let sent = report.done.values().filter(|action| matches!(action, Action::Send(_)));
    assert_eq!(sent.count(), 103, "{report:?}");
    let said = || pair.said.lock().unwrap().join("\n");
    assert!(
        said().contains("sending 101 files and 2 directories, 101 B"),
        "{}",
        said()
    );
    for number in 0..101 {
        write(&pair.there(), &format!("c/{number}"), "x");
    }
    let report = pair.down().await;
    let brought = report.done.values().filter(|action| matches!(action, Action::Bring(_)));
    assert_eq!(brought.count(), 102, "{report:?}");
    assert!(
        said().contains("bringing 101 files and 1 directory, 101 B"),
        "{}",
        said()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_clock_need_be_right() {
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    const YEAR: u64 = 365 * 24 * 3600;
    let set = |root: &Path, path: &str, time: SystemTime| {
        let file = fs::File::options().write(true).open(root.join(path)).unwrap();
        file.set_modified(time).unwrap();
    };
    let (past, future) = (
        UNIX_EPOCH + Duration::from_secs(YEAR),
        SystemTime::now() + 50 * Duration::from_secs(YEAR),
    );
    let before_all = UNIX_EPOCH - Duration::from_secs(1000);
    for tools in BOTH {
        for ahead in [0, -20 * YEAR as i64, 3, 20 * YEAR as i64] {
            let mut pair = Pair::new(tools);
            pair.shell.ahead = ahead;
            let (here, there) = (pair.here(), pair.there());
            for (path, time) in [("a", past), ("b", future), ("c", SystemTime::now()), ("d", before_all)] {
                write(&here, path, "base");
                set(&here, path, time);
            }
            assert_eq!(pair.up().await.done.len(), 4);
            pair.assert_in_step().await;
            // What is newer, by whichever clock, does not count: what changed does.
            write(&there, "a", "them");
            set(&there, "a", past - Duration::from_secs(1000));
            write(&here, "b", "ours");
            set(&here, "b", past);
            write(&there, "c", "them");
            set(&there, "c", future);
            write(&here, "d", "ours");
            set(&here, "d", future);
            let report = pair.sync(Direction::Both).await;
            assert!(
                report.is_clean() && report.done.len() == 4,
                "{tools:?} {ahead} {report:?}"
            );
            let texts = ["a", "b", "c", "d"].map(|path| (read(&here, path), read(&there, path)));
            let expected = ["them", "ours", "them", "ours"].map(|text| (text.to_owned(), text.to_owned()));
            assert_eq!(texts, expected, "{tools:?} {ahead}");
            pair.assert_in_step().await;
            // Both changed: a conflict, though one is fifty years newer. To the same: none.
            write(&here, "a", "mine");
            set(&here, "a", future);
            write(&there, "a", "your");
            set(&there, "a", past);
            write(&here, "b", "same");
            set(&here, "b", past);
            write(&there, "b", "same");
            set(&there, "b", future);
            let report = pair.sync(Direction::Both).await;
            assert_eq!(report.conflicts.len(), 1, "{tools:?} {ahead} {report:?}");
            assert_eq!((read(&here, "a"), read(&there, "a")), ("mine".into(), "your".into()));
            pair.try_sync(Direction::Both, Some(Side::There), &[]).await.unwrap();
            assert_eq!(read(&here, "a"), "your");
            pair.assert_in_step().await;
        }
    }
}

/// This machine's rsync, to the far side's shell: a script that does `first` each time, and notes that it was called.
fn rsync(pair: &Pair, first: &str) -> Rsync {
    dockerutils_test_support::machine::require("rsync", &["rsync"], "sending large files").unwrap();
    let folder = pair.root.path().canonicalize().unwrap();
    let script = folder.join("rsh");
    let text = format!(
        "#!/bin/sh\ncd '{0}/far' && echo \"$1\" >>'{0}/called'\nshift\n{first}\nexec sh -c \"$*\"\n",
        folder.display()
    );
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, Permissions::from_mode(0o755)).unwrap();
    Rsync {
        program: dockerutils_test_support::process::on_path("rsync").unwrap(),
        shell: script.display().to_string(),
        host: "far".into(),
        least: LARGE as u64,
    }
}

/// What counts as large in these tests.
const LARGE: usize = 200_000;

/// A large file, of which a part is of this seed alone.
fn large(seed: u64) -> Vec<u8> {
    let mut bytes = noise(LARGE + 5, 1);
    bytes[70_000..70_500].copy_from_slice(&noise(500, seed));
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_large_file_only_what_changed_travels_and_it_is_whole_all_the_same() {
    let odd = "d 1/-big *?[x]\n'$(id)'";
    for tools in BOTH {
        let mut pair = Pair::new(tools);
        pair.rsync = Some(rsync(&pair, ""));
        let called = || {
            fs::read_to_string(pair.root.path().join("called"))
                .unwrap_or_default()
                .lines()
                .count()
        };
        let (here, there) = (pair.here(), pair.there());
        fs::create_dir(here.join("d 1")).unwrap();
        for name in ["big", odd, "large-here"] {
            fs::write(here.join(name), large(2)).unwrap();
        }
        write(&here, "small", "small");
        fs::set_permissions(here.join(odd), Permissions::from_mode(0o750)).unwrap();
        fs::set_permissions(here.join("d 1"), Permissions::from_mode(0o755)).unwrap();
        // The first time, there is nothing to begin with.
        pair.up().await;
        assert_eq!(called(), 0);
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        fs::write(here.join("big"), large(3)).unwrap();
        fs::write(here.join(odd), large(4)).unwrap();
        fs::write(here.join("large-here"), "small now").unwrap();
        fs::write(here.join("small"), large(5)).unwrap();
        // What is saved just now is not read twice.
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        let report = pair.up().await;
        assert!(report.is_clean() && report.done.len() == 4, "{tools:?} {report:?}");
        // The one without rsync sends all of it.
        let calls = usize::from(tools == Tools::Machine);
        assert_eq!(called(), calls);
        assert_eq!(tree(&here), tree(&there), "{tools:?}");
        let time = |root: &Path| fs::metadata(root.join(odd)).unwrap().mtime();
        assert_eq!(time(&here), time(&there));
        pair.assert_in_step().await;
        let mut own: Vec<_> = fs::read_dir(there.join(".dockerutils-sync"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        own.sort();
        assert_eq!(own, ["generation", "owner", "trash"], "no stage is left");

        // And back.
        fs::write(there.join("big"), large(6)).unwrap();
        fs::write(there.join(odd), large(7)).unwrap();
        fs::write(there.join("large-here"), large(8)).unwrap();
        let report = pair.down().await;
        assert!(report.is_clean() && report.done.len() == 3, "{tools:?} {report:?}");
        assert_eq!(called(), 2 * calls);
        assert_eq!(tree(&here), tree(&there), "{tools:?}");
        assert!(!here.join(".dockerutils-sync").exists());
        pair.assert_in_step().await;

        // A conflict: the dock's version comes beside ours.
        fs::write(there.join("big"), large(9)).unwrap();
        fs::write(here.join("big"), large(10)).unwrap();
        let report = pair.down().await;
        assert_eq!(report.conflicts.len(), 1, "{report:?}");
        assert!(
            fs::read(here.join("big")).unwrap() == large(10) && fs::read(here.join("big.dock")).unwrap() == large(9)
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_wrong_with_rsync_or_changes_meanwhile_is_sent_the_usual_way() {
    let settle = || tokio::time::sleep(std::time::Duration::from_millis(100));
    // It fails; it is cut in the middle; the file changes here while it runs; our directory there vanishes.
    let cut = "head -c 20 >/dev/null; exit 255";
    let here_changes = "printf more >>../project/big";
    let vanishes = "sh -c \"$*\"; c=$?; rm -rf workspaces/ann/code/project/.dockerutils-sync/made.*; exit $c";
    for (first, calls) in [("exit 1", 1), (cut, 1), (here_changes, 1), (vanishes, 3)] {
        let mut pair = Pair::new(Tools::Machine);
        let (here, there) = (pair.here(), pair.there());
        fs::write(here.join("big"), large(2)).unwrap();
        pair.up().await;
        pair.rsync = Some(rsync(&pair, first));
        fs::write(here.join("big"), large(3)).unwrap();
        write(&here, "a", "a");
        settle().await;
        let report = pair.up().await;
        let called = fs::read_to_string(pair.root.path().join("called"))
            .unwrap()
            .lines()
            .count();
        assert_eq!(called, calls, "{first}");
        if first == vanishes {
            // Somebody removes it again and again: nothing is done, and it is said.
            assert_eq!(report.troubles.len(), 1, "{report:?}");
            assert!(fs::read(there.join("big")).unwrap() == large(2));
            pair.rsync = None;
        } else {
            assert!(report.is_clean(), "{first} {report:?}");
        }
        pair.up().await;
        assert_eq!(tree(&here), tree(&there), "{first}");
        pair.assert_in_step().await;
    }
    // There, between the look and the putting in place: a conflict, and both stay.
    let mut pair = Pair::new(Tools::Machine);
    let (here, there) = (pair.here(), pair.there());
    fs::write(here.join("big"), large(2)).unwrap();
    pair.up().await;
    pair.rsync = Some(rsync(
        &pair,
        "[ -e ../once ] || { : >../once; printf more >>workspaces/ann/code/project/big; }",
    ));
    fs::write(here.join("big"), large(3)).unwrap();
    settle().await;
    let report = pair.up().await;
    assert_eq!(report.conflicts.len(), 1, "{report:?}");
    assert!(fs::read(here.join("big")).unwrap() == large(3));
    assert!(fs::read(there.join("big")).unwrap() == [large(2).as_slice(), b"more"].concat());
    // There, while it is brought.
    pair.try_sync(Direction::Up, Some(Side::Here), &[]).await.unwrap();
    fs::write(there.join("big"), large(4)).unwrap();
    fs::remove_file(pair.root.path().join("once")).unwrap();
    let report = pair.down().await;
    assert_eq!(report.troubles.len(), 1, "{report:?}");
    assert!(fs::read(here.join("big")).unwrap() == large(3));
    assert!(pair.down().await.is_clean());
    pair.assert_in_step().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_rsync_and_one_that_makes_more_than_was_listed_are_not_used() {
    let program = |pair: &Pair, version: &str, deed: &str| {
        let file = pair.root.path().canonicalize().unwrap().join("rsync");
        let text = format!(
            "#!/bin/sh\nif [ \"$1\" = --version ]; then echo 'rsync  version {version}  protocol version 31'; exit; fi\n\
             echo run >>'{}'\nfor to; do :; done\n{deed}\n",
            pair.root.path().join("run").display()
        );
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o755)).unwrap();
        file
    };
    let grows = "mkdir -p \"$to\"; while head -c 400000 /dev/zero >>\"$to/big\"; do sleep 0.02; done";
    for (version, runs) in [("3.2.7", false), ("3.4.1", true)] {
        let mut pair = Pair::new(Tools::Machine);
        let (here, there) = (pair.here(), pair.there());
        fs::write(here.join("big"), large(2)).unwrap();
        pair.up().await;
        pair.rsync = Some(Rsync {
            program: program(&pair, version, grows),
            ..rsync(&pair, "")
        });
        fs::write(there.join("big"), large(3)).unwrap();
        let mut session = pair.session().unwrap();
        let notes = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&notes);
        session.notice = Arc::new(move |line| heard.lock().unwrap().push(line.to_owned()));
        let request = SyncRequest::everything(Direction::Down, Brake::default());
        let report = session.sync(&request, false).await.unwrap();
        drop(session);
        assert!(report.is_clean(), "{version} {report:?}");
        assert!(fs::read(here.join("big")).unwrap() == large(3), "{version}");
        assert_eq!(pair.root.path().join("run").exists(), runs, "{version}");
        let said = if runs {
            "rsync failed, and all of it travels: the dock sends more than was listed"
        } else {
            "rsync 3.2.7 here is older than 3.4.0, and not safe against a hostile dock: large files travel whole"
        };
        let notes = notes.lock().unwrap().clone();
        assert!(notes.iter().any(|note| note == said), "{notes:?}");
    }
}

fn conflicts(report: &Report) -> Vec<&str> {
    let guarded = report
        .conflicts
        .iter()
        .filter(|conflict| matches!(conflict.why, Why::Guarded(_)));
    guarded
        .map(|conflict| std::str::from_utf8(&conflict.path).unwrap())
        .collect()
}

/// A project with files that decide or run things, in step with its workspace.
async fn guarded_pair(tools: Tools) -> Pair {
    let mut pair = Pair::new(tools);
    pair.with_git = true;
    let here = pair.here();
    for (path, text) in [
        (".dockerignore", ".env\n"),
        (".env", "secret"),
        ("a", "a"),
        (".git/config", "[core]\n"),
        (".git/HEAD", "ref: refs/heads/main\n"),
        (".git/hooks/x.sample", ""),
        (".vscode/tasks.json", "{}"),
        ("docker/dockerutils.cfg", "[web]\n"),
        ("scripts/push.sh", "true"),
    ] {
        write(&here, path, text);
    }
    // What is not synced may lead to what is.
    symlink("../../scripts/push.sh", here.join(".git/hooks/pre-push")).unwrap();
    assert!(pair.up().await.is_clean());
    assert!(!pair.there().join(".env").exists());
    pair
}

#[tokio::test(flavor = "multi_thread")]
async fn what_decides_or_runs_here_changes_only_by_the_word_of_a_person() {
    for tools in BOTH {
        let pair = guarded_pair(tools).await;
        let (here, there) = (pair.here(), pair.there());
        write(&there, ".dockerignore", "");
        write(&there, ".git/config", "[core]\nfsmonitor = ./evil\n");
        write(&there, ".git/HEAD", "ref: refs/heads/other\n");
        write(&there, ".git/hooks/pre-commit", "evil");
        fs::set_permissions(there.join(".git/hooks/pre-commit"), Permissions::from_mode(0o777)).unwrap();
        fs::set_permissions(there.join(".git/hooks/x.sample"), Permissions::from_mode(0o755)).unwrap();
        fs::remove_file(there.join(".vscode/tasks.json")).unwrap();
        write(&there, "sub/.envrc", "evil");
        write(&there, "scripts/push.sh", "evil");
        write(&there, "a", "changed");
        let mut all = vec![
            ".dockerignore",
            ".git/config",
            ".git/hooks/pre-commit",
            ".git/hooks/x.sample",
            ".vscode/tasks.json",
            "scripts/push.sh",
            "sub/.envrc",
        ];
        let before = tree(&here);
        let unchanged = || {
            for path in &all {
                let path = path.as_bytes();
                assert_eq!(
                    tree(&here).get(path),
                    before.get(path),
                    "{}",
                    String::from_utf8_lossy(path)
                );
            }
        };
        // On the way up nothing comes, and nothing is said of it.
        assert!(pair.up().await.is_clean());
        for (round, direction) in [Direction::Both, Direction::Down, Direction::Both]
            .into_iter()
            .enumerate()
        {
            let report = pair.sync(direction).await;
            assert_eq!(conflicts(&report), all, "{tools:?} {round} {report:?}");
            assert_eq!(report.troubles, [], "{tools:?} {round}");
            unchanged();
            assert!(!there.join(".env").exists());
        }
        assert_eq!(read(&here, "a"), "changed");
        assert_eq!(read(&here, ".git/HEAD"), "ref: refs/heads/other\n");
        // Neither by all, nor by a directory that holds one somewhere.
        let theirs = |paths: &[&str]| paths.iter().map(|path| path.as_bytes().to_vec()).collect::<Vec<_>>();
        for (only, left) in [(theirs(&[]), &all[..]), (theirs(&["sub", "scripts"]), &all[5..])] {
            let report = pair.try_sync(Direction::Both, Some(Side::There), &only).await.unwrap();
            assert_eq!(conflicts(&report), left, "{tools:?} {report:?}");
            unchanged();
        }
        assert!(!here.join(".dockerignore.dock").exists() && !here.join("scripts/push.sh.dock").exists());
        // By its name, and by that of a directory of the list.
        let only = theirs(&["sub/.envrc", ".git/hooks", ".vscode/tasks.json"]);
        let report = pair.try_sync(Direction::Up, Some(Side::There), &only).await.unwrap();
        assert!(report.is_clean(), "{tools:?} {report:?}");
        assert_eq!(
            (read(&here, "sub/.envrc"), read(&here, ".git/hooks/pre-commit")),
            ("evil".into(), "evil".into())
        );
        let mode = |path: &str| fs::metadata(here.join(path)).unwrap().mode() & 0o777;
        assert_eq!(
            (mode(".git/hooks/pre-commit"), mode(".git/hooks/x.sample")),
            (0o755, 0o755)
        );
        assert!(!here.join(".vscode/tasks.json").exists());
        all = vec![".dockerignore", ".git/config", "scripts/push.sh"];
        assert_eq!(conflicts(&pair.sync(Direction::Both).await), all, "{tools:?}");
        // Ours, all at once.
        let report = pair.try_sync(Direction::Down, Some(Side::Here), &[]).await.unwrap();
        assert!(report.is_clean(), "{tools:?} {report:?}");
        assert_eq!(
            (read(&there, ".dockerignore"), read(&there, "scripts/push.sh")),
            (".env\n".into(), "true".into())
        );
        let report = pair.sync(Direction::Both).await;
        assert!(report.is_clean() && report.done.is_empty(), "{tools:?} {report:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_decides_or_runs_here_is_not_changed_by_way_of_the_directories_above_it() {
    for tools in BOTH {
        let pair = guarded_pair(tools).await;
        let (here, there) = (pair.here(), pair.there());
        for path in [".git", ".vscode", "docker", "scripts"] {
            fs::remove_dir_all(there.join(path)).unwrap();
        }
        write(&there, "stuff/dockerutils.txt", "[web]\n");
        write(&there, ".git", "gitdir: stuff\n");
        symlink("stuff", there.join(".vscode")).unwrap();
        symlink("stuff", there.join("docker")).unwrap();
        symlink("stuff", there.join("scripts")).unwrap();
        symlink("stuff", there.join(".config")).unwrap();
        let before = tree(&here);
        for settle in [None, Some(Side::There), None] {
            let report = pair.try_sync(Direction::Both, settle, &[]).await.unwrap();
            let found = conflicts(&report);
            for path in [
                ".config",
                ".git",
                ".git/config",
                ".vscode",
                ".vscode/tasks.json",
                "docker",
                "scripts/push.sh",
            ] {
                assert!(found.contains(&path), "{tools:?} {settle:?} {path} {report:?}");
            }
            assert_eq!(report.troubles, [], "{tools:?} {settle:?}");
            let mut after = tree(&here);
            for path in [&b"stuff"[..], b"stuff/dockerutils.txt"] {
                assert!(after.remove(path).is_some(), "{tools:?}");
            }
            let mut expected = before.clone();
            // What gives no orders is gone there, and goes here.
            expected.remove(&b".git/HEAD"[..]);
            assert_eq!(after, expected, "{tools:?} {settle:?}");
        }
        let report = pair
            .try_sync(Direction::Both, Some(Side::There), &[b".vscode".to_vec()])
            .await
            .unwrap();
        assert!(report.is_clean(), "{tools:?} {report:?}");
        assert_eq!(fs::read_link(here.join(".vscode")).unwrap(), Path::new("stuff"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_sync_with_a_workspace_that_has_files_takes_none_that_decide_or_run_things() {
    for tools in BOTH {
        let pair = guarded_pair(tools).await;
        let (here, there) = (pair.here(), pair.there());
        write(&there, ".dockerignore", "");
        write(&there, ".envrc", "evil");
        // All memory of it is lost, as on a new machine.
        fs::remove_dir_all(pair.root.path().join("home")).unwrap();
        fs::create_dir(pair.root.path().join("home")).unwrap();
        let report = pair.down().await;
        assert_eq!(conflicts(&report), [".dockerignore", ".envrc"], "{tools:?} {report:?}");
        assert_eq!(read(&here, ".dockerignore"), ".env\n");
        assert!(!here.join(".envrc").exists() && !here.join(".dockerignore.dock").exists());
        let report = pair.sync(Direction::Both).await;
        assert_eq!(conflicts(&report), [".dockerignore", ".envrc"], "{tools:?} {report:?}");
        assert!(!there.join(".env").exists());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn links_of_a_dock_lead_nowhere_else_than_into_what_is_synced() {
    for tools in BOTH {
        let pair = guarded_pair(tools).await;
        let (here, there) = (pair.here(), pair.there());
        write(&here, "d/keep", "keep");
        symlink("/srv/data", here.join("data")).unwrap();
        pair.up().await;
        fs::remove_dir_all(there.join("d")).unwrap();
        symlink("/etc", there.join("d")).unwrap();
        for (target, path) in [
            ("a", "inside"),
            ("../a", "sub/inside"),
            ("../../outside", "sub/outside"),
            ("/etc/passwd", "env.list"),
            (".env", "ignored"),
            ("data/x", "through"),
        ] {
            write(&there, "sub/x", "x");
            symlink(target, there.join(path)).unwrap();
        }
        let held = ["d", "env.list", "ignored", "sub/outside", "through"];
        let report = pair.down().await;
        assert_eq!(conflicts(&report), held, "{tools:?}");
        assert!(report.troubles.is_empty(), "{tools:?} {report:?}");
        assert_eq!(fs::read_link(here.join("sub/inside")).unwrap(), Path::new("../a"));
        assert_eq!(read(&here, "d/keep"), "keep", "{tools:?}");
        for path in &held[1..] {
            assert!(fs::symlink_metadata(here.join(path)).is_err(), "{tools:?} {path}");
            assert!(
                fs::symlink_metadata(here.join(format!("{path}.dock"))).is_err(),
                "{tools:?} {path}"
            );
        }
        // What is here already is what it was, and says so only once.
        assert_eq!(fs::read_link(here.join("data")).unwrap(), Path::new("/srv/data"));
        let everything = pair.try_sync(Direction::Down, Some(Side::There), &[]).await.unwrap();
        assert_eq!(conflicts(&everything), held, "{tools:?}");
        let named = pair
            .try_sync(Direction::Down, Some(Side::There), &[b"env.list".to_vec()])
            .await
            .unwrap();
        assert!(named.is_clean(), "{tools:?} {named:?}");
        assert_eq!(fs::read_link(here.join("env.list")).unwrap(), Path::new("/etc/passwd"));
        let ours = pair.try_sync(Direction::Both, Some(Side::Here), &[]).await.unwrap();
        assert!(ours.is_clean(), "{tools:?} {ours:?}");
        assert_eq!(read(&there, "d/keep"), "keep", "{tools:?}");
        let again = pair.sync(Direction::Both).await;
        assert!(again.is_clean() && again.done.is_empty(), "{tools:?} {again:?}");
        // One that becomes another after it was looked at.
        symlink("a", there.join("late")).unwrap();
        *pair.shell.before.lock().unwrap() = Some(Box::new({
            let late = there.join("late");
            move |_| {
                fs::remove_file(&late).unwrap();
                symlink("/etc/passwd", &late).unwrap();
            }
        }));
        let report = pair.down().await;
        assert!(
            !report.is_clean() && fs::symlink_metadata(here.join("late")).is_err(),
            "{tools:?} {report:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_obeyed_here_is_not_changed_by_its_other_names() {
    for tools in BOTH {
        let pair = Pair::new(tools);
        let (here, there) = (pair.here(), pair.there());
        for (path, text) in [
            (".dockerignore", ".envrc\n**/.git\n"),
            ("scripts/env.sh", "export A=1"),
            (".git/config", "[include]\npath = ../shared.inc\n"),
            (
                "shared.inc",
                "[core]\nhooksPath = ci/hooks\nfsmonitor = tools/monitor\n",
            ),
            ("tools/monitor", "true"),
            ("lib/.git/config", "[core]\nhooksPath = ../libhooks\n"),
            ("lib/a", "a"),
            ("docker/dockerutils.cfg", "[web]\nargs = --env-file docker/web.vars\n"),
            ("docker/web.vars", "A=1"),
        ] {
            write(&here, path, text);
        }
        symlink("scripts/env.sh", here.join(".envrc")).unwrap();
        assert!(pair.up().await.is_clean());
        let held = [
            "ci/hooks/pre-commit",
            "docker/web.vars",
            "libhooks/pre-commit",
            "scripts/env.sh",
            "shared.inc",
            "tools/monitor",
        ];
        for path in held {
            write(&there, path, "AWS_SECRET_ACCESS_KEY");
        }
        write(&there, "lib/a", "changed");
        let report = pair.down().await;
        assert_eq!(conflicts(&report), held, "{tools:?} {report:?}");
        assert_eq!(read(&here, "lib/a"), "changed");
        for path in held {
            let text = fs::read_to_string(here.join(path)).unwrap_or_default();
            assert!(!text.contains("AWS"), "{tools:?} {path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rules_of_what_leaves_are_a_regular_file_here_and_count_only_when_they_stay() {
    let pair = guarded_pair(Tools::Machine).await;
    let (here, there) = (pair.here(), pair.there());
    let file = here.join(".dockerignore");
    // A link, a pipe, a device, more than is read.
    fs::remove_file(&file).unwrap();
    write(&here, "rules", ".env\n");
    let refused = async |what: &str| {
        let error = pair.try_sync(Direction::Both, None, &[]).await.unwrap_err();
        assert!(error.to_string().contains(what), "{error}");
        assert!(error.hint_text().is_some(), "{error}");
        assert!(!there.join(".env").exists() && !there.join("rules").exists());
        fs::remove_file(&file).unwrap();
    };
    symlink("rules", &file).unwrap();
    refused(".dockerignore is a symbolic link, and nothing is synced").await;
    rustix::fs::mkfifoat(rustix::fs::CWD, &file, rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
    refused(".dockerignore can't be read, and nothing is synced").await;
    fs::File::create(&file).unwrap().set_len(16 * 1024 * 1024 + 1).unwrap();
    refused(".dockerignore can't be read, and nothing is synced").await;
    fs::write(&file, ".env\n").unwrap();
    assert!(pair.up().await.is_clean());

    let mut session = pair.session().unwrap();
    let up = SyncRequest::everything(Direction::Up, Brake::default());
    session.sync(&up, false).await.unwrap();
    // What is ignored now looks removed to one who listed the dock by the old rules.
    fs::write(&file, ".env\na\n").unwrap();
    session.push(&up).await.unwrap();
    assert_eq!(read(&there, "a"), "a");
    // Written anew: away for a moment, empty for another.
    fs::remove_file(&file).unwrap();
    let (again, path) = (Arc::new(tokio::sync::Notify::new()), file.clone());
    let written = tokio::spawn({
        let again = Arc::clone(&again);
        async move {
            again.notified().await;
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            fs::write(&path, "").unwrap();
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            fs::write(&path, ".env\n").unwrap();
        }
    });
    again.notify_one();
    session.push(&up).await.unwrap();
    written.await.unwrap();
    session.push(&up).await.unwrap();
    assert!(!there.join(".env").exists());
    // Removed by a person, who means it.
    fs::remove_file(&file).unwrap();
    session.push(&up).await.unwrap();
    assert_eq!(read(&there, ".env"), "secret");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_write_to_a_file_here_is_not_said_by_a_dock() {
    for tools in BOTH {
        let pair = Pair::new(tools);
        let (here, there) = (pair.here(), pair.there());
        let chmod = |root: &Path, path: &str, mode| {
            fs::set_permissions(root.join(path), Permissions::from_mode(mode)).unwrap();
        };
        let mode = |root: &Path, path: &str| fs::metadata(root.join(path)).unwrap().mode() & 0o777;
        write(&here, "a", "a");
        write(&here, "shared", "shared");
        chmod(&here, "a", 0o644);
        chmod(&here, "shared", 0o664);
        write(&here, "private/key", "key");
        write(&here, "run", "run");
        write(&here, "team", "team");
        for (path, mode) in [
            ("private/key", 0o600),
            ("private", 0o700),
            ("run", 0o611),
            ("team", 0o640),
        ] {
            chmod(&here, path, mode);
        }
        pair.up().await;
        // Who may read here, too.
        for path in ["private/key", "private", "run", "team"] {
            chmod(&there, path, 0o755);
        }
        // A mode alone; contents with it; both new.
        chmod(&there, "a", 0o777);
        write(&there, "shared", "changed");
        chmod(&there, "shared", 0o666);
        write(&there, "d/new", "new");
        chmod(&there, "d/new", 0o666);
        chmod(&there, "d", 0o777);
        let report = pair.down().await;
        assert!(report.is_clean(), "{tools:?} {report:?}");
        let modes = ["a", "shared", "d/new", "d"].map(|path| mode(&here, path));
        assert_eq!(modes, [0o755, 0o664, 0o644, 0o755], "{tools:?}");
        let modes = ["private", "private/key", "run", "team"].map(|path| mode(&here, path));
        assert_eq!(modes, [0o700, 0o700, 0o711, 0o750], "{tools:?}");
        // It is not said again and again, and does not go back.
        let report = pair.sync(Direction::Both).await;
        assert!(report.is_clean() && report.done.is_empty(), "{tools:?} {report:?}");
        assert_eq!(mode(&there, "d/new"), 0o666);
        // What is put beside ours in a conflict.
        write(&here, "d/new", "ours");
        write(&there, "d/new", "theirs");
        pair.down().await;
        assert_eq!(mode(&here, "d/new.dock"), 0o644, "{tools:?}");
    }
}

/// An archive in which the first file has these bytes, and the others are its other names.
fn archive_of_names(contents: &[u8], others: &[&str]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(contents.len() as u64);
    header.set_mode(0o644);
    builder.append_data(&mut header, "first", contents).unwrap();
    for name in others {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Link);
        header.set_size(0);
        builder.append_link(&mut header, name, "first").unwrap();
    }
    builder.into_inner().unwrap()
}

#[test]
fn another_name_of_a_file_counts_as_much_as_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let local = Local::open(folder.path()).unwrap();
    let stage = local.stage().unwrap();
    let item = |size| super::Item {
        kind: super::ItemKind::File,
        mode: 0o644,
        stamp: super::Stamp {
            size,
            ..super::Stamp::default()
        },
        owner: 0,
        device: 0,
        target: None,
    };
    let contents = noise(1_000_000, 5);
    let names: Vec<String> = (0..30).map(|number| format!("liar{number}")).collect();
    let mut wanted: std::collections::HashMap<Vec<u8>, super::Item> =
        names.iter().map(|name| (name.clone().into_bytes(), item(1))).collect();
    wanted.insert(b"first".to_vec(), item(1_000_000));
    wanted.insert(b"honest".to_vec(), item(1_000_000));
    let mut others: Vec<&str> = names.iter().map(String::as_str).collect();
    others.push("honest");
    let archive = archive_of_names(&contents, &others);
    let arrived = super::receive::receive(
        &mut archive.as_slice(),
        Compression::Plain,
        &wanted,
        &stage,
        &Bars::files(None, "bringing", 0, 0),
    )
    .unwrap();
    let mut come: Vec<&[u8]> = arrived.keys().map(Vec::as_slice).collect();
    come.sort_unstable();
    assert_eq!(come, [&b"first"[..], b"honest"]);
    let stages = fs::read_dir(folder.path().join(".dockerutils-sync")).unwrap();
    let made: u64 = stages
        .flat_map(|stage| fs::read_dir(stage.unwrap().path()).unwrap())
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum();
    assert_eq!(made, 2_000_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_on_this_disk_is_refused_before_any_of_it_comes() {
    let mut pair = Pair::new(Tools::Machine);
    write(&pair.here(), "a", "a");
    pair.up().await;
    // Should it come after all, it does not fill the disk.
    pair.shell.cut_after = Some(1_000_000);
    // With a hole, it takes no room there.
    let huge = fs::File::create(pair.there().join("huge")).unwrap();
    huge.set_len(8 << 40).unwrap();
    write(&pair.there(), "a", "changed");
    let error = pair.try_sync(Direction::Down, None, &[]).await.unwrap_err();
    assert!(
        error.to_string().starts_with("the dock has 8.8 TB to bring, and "),
        "{error}"
    );
    assert_eq!(read(&pair.here(), "a"), "a");
    assert!(!pair.here().join("huge").exists());
    let report = pair.try_sync(Direction::Down, None, &[b"a".to_vec()]).await.unwrap();
    assert!(report.is_clean(), "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dock_that_says_more_and_more_is_not_listened_to_for_ever() {
    let pair = Pair::new(Tools::Machine);
    let hello = "printf 'dockerutils-sync %s\\n' \"$1\";";
    for script in [
        format!("{hello} exec yes"),
        format!("{hello} exec yes >&2"),
        "exec yes".to_owned(),
    ] {
        let take: super::remote::Take<()> = Box::new(|_| Ok(()));
        let called = super::remote::call(&pair.shell, &script, "word", &[], super::remote::feed_nothing(), take);
        let result = tokio::time::timeout(std::time::Duration::from_secs(60), called)
            .await
            .unwrap();
        assert!(result.is_err(), "{script}");
    }
}

/// What a person or a program does to a file.
#[derive(Clone, Debug)]
enum Deed {
    Write(usize, u8),
    Remove(usize),
    Mode(usize, bool),
}

const PATHS: [&str; 6] = ["a", "d/a", "d/b", "d/e/f", "e", "e-f"];

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let path = 0..PATHS.len();
    let deed = prop_oneof![
        3 => (path.clone(), 0..3_u8).prop_map(|(path, text)| Deed::Write(path, text)),
        1 => path.clone().prop_map(Deed::Remove),
        1 => (path, any::<bool>()).prop_map(|(path, on)| Deed::Mode(path, on)),
    ];
    prop::collection::vec(deed, 0..4)
}

fn act(root: &Path, deeds: &[Deed]) {
    for deed in deeds {
        match deed {
            Deed::Write(path, text) => {
                let file = root.join(PATHS[*path]);
                let _ = fs::create_dir_all(file.parent().unwrap());
                let _ = fs::write(file, [b'0' + text]);
            }
            Deed::Remove(path) => drop(fs::remove_file(root.join(PATHS[*path]))),
            Deed::Mode(path, on) => {
                let mode = Permissions::from_mode(if *on { 0o755 } else { 0o644 });
                let _ = fs::set_permissions(root.join(PATHS[*path]), mode);
            }
        }
    }
}

fn texts(root: &Path) -> BTreeMap<&'static str, Vec<u8>> {
    let present = PATHS
        .iter()
        .filter_map(|path| Some((*path, fs::read(root.join(path)).ok()?)));
    present.collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn each_file_comes_out_as_three_way_comparison_says(rounds in prop::collection::vec((deeds(), deeds()), 1..4), busybox in any::<bool>()) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let pair = Pair::new(if busybox { Tools::Busybox } else { Tools::Machine });
        write(&pair.here(), "anchor", "always there");
        runtime.block_on(pair.up());
        let mut base: BTreeMap<&str, Vec<u8>> = BTreeMap::new();
        for (ours, theirs) in rounds {
            act(&pair.here(), &ours);
            act(&pair.there(), &theirs);
            let (here, there) = (texts(&pair.here()), texts(&pair.there()));
            let report = runtime.block_on(pair.sync(Direction::Both));
            prop_assert!(report.troubles.is_empty(), "{:?}", report);
            let (now_here, now_there) = (texts(&pair.here()), texts(&pair.there()));
            for path in PATHS {
                let (b, h, t) = (base.get(path), here.get(path), there.get(path));
                let conflict = h != t && h != b && t != b;
                let named = report.conflicts.iter().any(|found| found.path == path.as_bytes());
                prop_assert_eq!(conflict, named, "{} {:?}", path, report);
                if conflict {
                    prop_assert_eq!((now_here.get(path), now_there.get(path)), (h, t));
                } else {
                    let expected = if h == b { t } else { h }.cloned();
                    prop_assert_eq!(now_here.get(path), expected.as_ref(), "{}", path);
                    prop_assert_eq!(now_there.get(path), expected.as_ref(), "{}", path);
                    match expected {
                        Some(text) => drop(base.insert(path, text)),
                        None => drop(base.remove(path)),
                    }
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_saved_is_there_at_once_while_it_is_watched_and_the_other_way_by_polling() {
    use super::news::News;
    use super::news::WatchEvent;
    use super::rhythm::POLL;
    use super::watch::watch;
    use std::time::{Duration, Instant};

    let pair = Pair::new(Tools::Machine);
    write(&pair.here(), "a", "a");
    write(&pair.here(), "d/b", "b");
    let mut session = pair.session().unwrap();
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let watching = tokio::spawn(async move {
        watch(&mut session, None, &mut News::default(), |event| drop(tell.send(event))).await;
    });
    let appears = async |file: PathBuf, text: &str, limit: Duration| {
        let begun = Instant::now();
        while fs::read_to_string(&file).ok().as_deref() != Some(text) {
            assert!(
                begun.elapsed() < limit,
                "{} is not {text:?} after {limit:?}",
                file.display()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let here = Duration::from_secs(10);
    appears(pair.there().join("d/b"), "b", here).await;
    // A machine that does other things beside gets more than the half second of which the guide speaks.
    let limit = Duration::from_secs(5);
    write(&pair.here(), "a", "saved");
    appears(pair.there().join("a"), "saved", limit).await;
    write(&pair.here(), "new/deep/er", "1");
    appears(pair.there().join("new/deep/er"), "1", limit).await;
    write(&pair.here(), "new/deep/er", "22");
    appears(pair.there().join("new/deep/er"), "22", limit).await;
    write(&pair.here(), "swap", "by rename");
    fs::rename(pair.here().join("swap"), pair.here().join("a")).unwrap();
    appears(pair.there().join("a"), "by rename", limit).await;
    write(&pair.there(), "result", "made there");
    appears(pair.here().join("result"), "made there", POLL * 5).await;
    // A conflict is told, and both stay.
    write(&pair.there(), "d/b", "theirs");
    write(&pair.here(), "d/b", "ours");
    let conflict = loop {
        match told.recv().await.unwrap() {
            WatchEvent::Synced(report, _) if !report.conflicts.is_empty() => break report,
            WatchEvent::Failed(error) => panic!("{error:?}"),
            _ => {}
        }
    };
    assert_eq!(conflict.conflicts[0].path, b"d/b");
    assert_eq!(
        (read(&pair.here(), "d/b"), read(&pair.there(), "d/b")),
        ("ours".into(), "theirs".into())
    );
    watching.abort();
}
