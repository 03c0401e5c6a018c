//! Several commands that sync the same project and dock at once.

use std::sync::mpsc;
use std::time::Duration;

use dockerutils_test_support::Random;
use tokio::net::UnixListener;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::*;
use crate::agent::frame;
use crate::sync::asker::{Asking, address};
use crate::sync::news::WatchEvent;
use crate::sync::request::{Greeting, Hello, RoundRequest};
use crate::sync::shared::{Lock, SharedSession};

/// How long something may take on a machine that is busy.
const LIMIT: Duration = Duration::from_secs(60);

impl Pair {
    /// What another command would have.
    fn shared(&self) -> SharedSession<LocalShell> {
        self.shared_with(self.shell.clone())
    }

    fn shared_with(&self, shell: LocalShell) -> SharedSession<LocalShell> {
        let root = Local::open(&self.here()).unwrap().root().to_owned();
        let (here, base) = (self.here(), self.shell.home.join("workspaces").display().to_string());
        let open = move |memory| {
            let target = Target {
                moniker: "far".into(),
                base: Some(base.clone()),
                user: "ann".into(),
                project: "project".into(),
                machine: "0f".into(),
            };
            Ok(Session::new(shell.clone(), Local::open(&here).unwrap(), memory, target))
        };
        SharedSession::new(root, "far", &self.env(), Arc::new(|_| {}), Box::new(open))
    }

    fn memory(&self) -> Memory {
        Memory::peek(Local::open(&self.here()).unwrap().root(), "far", &self.env())
    }

    fn lock(&self) -> Lock {
        Lock::new(Local::open(&self.here()).unwrap().root(), "far", &self.env())
    }

    /// A watch, and what it tells.
    fn watch(
        &self,
    ) -> (
        tokio::task::JoinHandle<()>,
        UnboundedReceiver<WatchEvent>,
        UnboundedReceiver<Option<u32>>,
    ) {
        let mut shared = self.shared();
        let (tell, told) = unbounded_channel();
        let (turn, turns) = unbounded_channel();
        let watching = tokio::spawn(async move {
            let never = shared.watch(|event| drop(tell.send(event)), |pid| turn.send(pid).unwrap_or_default());
            match never.await.unwrap() {}
        });
        (watching, told, turns)
    }
}

/// Waits until something is so; the other tasks go on meanwhile.
async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LIMIT, waiting)
        .await
        .unwrap_or_else(|_| panic!("{what}: not after {LIMIT:?}"));
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_that_sync_the_same_at_once_all_have_what_was_there_when_they_asked() {
    let pair = Arc::new(Pair::new(Tools::Machine));
    write(&pair.here(), "a", "a");
    let tasks: Vec<_> = (0..8)
        .map(|number| {
            let pair = Arc::clone(&pair);
            tokio::spawn(async move {
                let mut shared = pair.shared();
                let name = format!("f{number}");
                write(&pair.here(), &name, "new");
                let report = shared.sync(&RoundRequest::everything(Direction::Up)).await.unwrap();
                assert!(report.is_clean(), "{report:?}");
                assert_eq!(text(&pair.there().join(&name)), "new");
                if number % 2 == 0 {
                    shared.finish().await;
                }
            })
        })
        .collect();
    for task in tasks {
        tokio::time::timeout(LIMIT, task).await.unwrap().unwrap();
    }
    pair.assert_in_step().await;
    assert_eq!(address(&pair.memory()), None, "no socket stays");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_round_from_the_last_look_sends_what_changed_and_overwrites_nothing() {
    let pair = Pair::new(Tools::Machine);
    write(&pair.here(), "a", "a");
    let quick = RoundRequest {
        from_last_look: true,
        ..RoundRequest::everything(Direction::Up)
    };
    // Without a watch, the dock is looked at first.
    let mut alone = pair.shared();
    write(&pair.there(), "a", "made there before");
    let report = alone.sync(&quick).await.unwrap();
    assert_eq!(report.conflicts.len(), 1, "{report:?}");
    let ours = RoundRequest {
        settle: Some(Side::Here),
        ..RoundRequest::everything(Direction::Up)
    };
    assert!(alone.sync(&ours).await.unwrap().is_clean());
    alone.finish().await;
    let (watching, _told, _) = pair.watch();
    let mut other = pair.shared();
    other.sync(&RoundRequest::everything(Direction::Up)).await.unwrap();
    for number in 0..10 {
        write(&pair.here(), "b", &format!("b{number}"));
        let report = other.sync(&quick).await.unwrap();
        assert_eq!(text(&pair.there().join("b")), format!("b{number}"));
        assert_eq!(
            text(Path::new(&report.workspace).join("b").as_path()),
            format!("b{number}")
        );
    }
    // Saved on both sides since: whoever comes second is told, and the dock's is still there.
    write(&pair.there(), "a", "theirs");
    write(&pair.here(), "a", "ours, longer");
    let conflict = other.sync(&quick).await.unwrap();
    assert_eq!(text(&pair.there().join("a")), "theirs", "{conflict:?}");
    assert_eq!(read(&pair.here(), "a"), "ours, longer");
    watching.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_does_the_rounds_that_other_commands_ask_for() {
    let pair = Pair::new(Tools::Machine);
    write(&pair.here(), "a", "a");
    let (watching, mut told, _) = pair.watch();
    until("the first round", || text(&pair.there().join("a")) == "a").await;
    let mut other = pair.shared();
    // What is there when it is asked for has come when it is answered.
    write(&pair.there(), "made", "there");
    let report = other.sync(&RoundRequest::everything(Direction::Down)).await.unwrap();
    assert_eq!(done(&report), [("made".to_owned(), Action::Bring(0o644))]);
    assert_eq!(read(&pair.here(), "made"), "there");
    // A conflict is told where it was asked for, and settled from there.
    write(&pair.there(), "a", "theirs");
    write(&pair.here(), "a", "ours, longer");
    let conflict = other.sync(&RoundRequest::everything(Direction::Both)).await.unwrap();
    assert_eq!(conflict.conflicts[0].path, b"a");
    assert_eq!(conflict.conflicts[0].beside.as_deref(), Some(&b"a.dock"[..]));
    let ours = RoundRequest {
        settle: Some(Side::Here),
        only: vec![b"a".to_vec()],
        ..RoundRequest::everything(Direction::Up)
    };
    assert!(other.sync(&ours).await.unwrap().is_clean());
    assert_eq!(read(&pair.there(), "a"), "ours, longer");
    // So are removals that need a person's word.
    for number in 0..8 {
        write(&pair.here(), &format!("d/{number}"), "d");
    }
    other.sync(&RoundRequest::everything(Direction::Up)).await.unwrap();
    // All at once, or the watch sends the first ones, which are few.
    fs::rename(pair.here().join("d"), pair.root.path().join("away")).unwrap();
    let held = other.sync(&RoundRequest::everything(Direction::Up)).await.unwrap();
    assert_eq!(
        held.held_there.iter().filter(|path| path.starts_with(b"d/")).count(),
        8,
        "{held:?}"
    );
    let delete = RoundRequest {
        delete: true,
        ..RoundRequest::everything(Direction::Up)
    };
    assert!(other.sync(&delete).await.unwrap().is_clean());
    assert!(!pair.there().join("d/0").exists());
    // What fails as a whole keeps its class.
    write(&pair.here(), ".dockerignore", "!\n");
    let error = other.sync(&RoundRequest::everything(Direction::Up)).await.unwrap_err();
    assert_eq!(error.class(), crate::error::Class::Usage, "{error:?}");
    fs::remove_file(pair.here().join(".dockerignore")).unwrap();
    // Nobody but the watch has held the lock, and it goes on.
    write(&pair.here(), "after", "all");
    until("a save", || text(&pair.there().join("after")) == "all").await;
    watching.abort();
    while let Ok(event) = told.try_recv() {
        if let WatchEvent::Failed(error) = event {
            assert_eq!(error.class(), crate::error::Class::Usage, "{error:?}");
        }
    }
}

/// A shell whose first round stops before anything is put in place: a message says that it is there, and it goes on with one.
fn stopping(pair: &Pair) -> (LocalShell, mpsc::Receiver<()>, mpsc::Sender<()>) {
    let (tell, there) = mpsc::channel();
    let (go_on, wait) = mpsc::channel::<()>();
    let mut shell = pair.shell.clone();
    shell.before = Hook::default();
    *shell.before.lock().unwrap() = Some(Box::new(move |_| {
        tell.send(()).unwrap();
        // Nothing comes where the test has failed.
        let _ = wait.recv_timeout(LIMIT);
    }));
    (shell, there, go_on)
}

async fn hear(there: mpsc::Receiver<()>) {
    tokio::task::spawn_blocking(move || there.recv_timeout(LIMIT).unwrap())
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_holder_that_dies_is_replaced_by_who_asked_it() {
    let pair = Arc::new(Pair::new(Tools::Machine));
    write(&pair.here(), "a", "a");
    let (shell, there, go_on) = stopping(&pair);
    let mut dying = pair.shared_with(shell);
    let holder = tokio::spawn(async move { dying.sync(&RoundRequest::everything(Direction::Up)).await });
    hear(there).await;
    write(&pair.here(), "b", "asked for");
    let asking: Vec<_> = (0..3)
        .map(|_| {
            let mut shared = pair.shared();
            tokio::spawn(async move {
                let report = shared.sync(&RoundRequest::everything(Direction::Up)).await;
                shared.finish().await;
                report
            })
        })
        .collect();
    holder.abort();
    go_on.send(()).unwrap();
    assert!(holder.await.unwrap_err().is_cancelled());
    for task in asking {
        assert!(task.await.unwrap().unwrap().is_clean());
    }
    assert_eq!(read(&pair.there(), "b"), "asked for");
    pair.assert_in_step().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn who_stops_waiting_ends_nobody_else_s_round_and_one_round_is_for_all_who_ask() {
    let pair = Arc::new(Pair::new(Tools::Machine));
    write(&pair.here(), "a", "a");
    let (shell, there, go_on) = stopping(&pair);
    let calls = Arc::clone(&shell.calls);
    let mut holder = pair.shared_with(shell);
    let holding = tokio::spawn(async move {
        let report = holder.sync(&RoundRequest::everything(Direction::Up)).await.unwrap();
        holder.finish().await;
        report
    });
    hear(there).await;
    write(&pair.here(), "b", "asked for");
    let request = RoundRequest::everything(Direction::Up);
    let (memory, silent) = (pair.memory(), |_: &str| {});
    let asked = {
        let asking = async || {
            let asking = Asking::begin(&memory, Some(&request)).await.unwrap();
            assert!(asking.is_heard().await);
            asking
        };
        // It has asked, and goes.
        drop(asking().await);
        let mut others = Vec::new();
        for _ in 0..5 {
            others.push(asking().await);
        }
        go_on.send(()).unwrap();
        futures_util::future::join_all(others.into_iter().map(|other| other.answer(&silent))).await
    };
    let own = holding.await.unwrap();
    assert_eq!(done(&own), [("a".to_owned(), Action::Send(0o644))]);
    for one in asked {
        match one {
            crate::sync::asker::AskOutcome::Report(report) => {
                assert_eq!(done(&report), [("b".to_owned(), Action::Send(0o644))]);
            }
            other => panic!("{other:?}"),
        }
    }
    // Looking, sending and writing down, for each of two rounds.
    let made = *calls.lock().unwrap();
    assert!(made <= 8, "{made}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_and_has_no_version_leaves_that_of_the_last_sync_on_both_sides() {
    let pair = Pair::new(Tools::Machine);
    let path = b"pkg/_version.py".to_vec();
    write(&pair.here(), "pkg/_version.py", "as git has it");
    let (watching, _told, _) = pair.watch();
    let there = || text(&pair.there().join("pkg/_version.py"));
    until("the first round", || there() == "as git has it").await;
    let made = |version: &str| RoundRequest {
        generated: Some(Generated {
            path: path.clone(),
            text: version.as_bytes().to_vec(),
        }),
        ..RoundRequest::everything(Direction::Up)
    };
    let mut other = pair.shared();
    assert!(other.sync(&made("1.0")).await.unwrap().is_clean());
    assert_eq!(there(), "1.0");
    // Its configuration is broken now; what the holder knew of the version does not count.
    write(&pair.here(), "a", "a");
    let unmade = RoundRequest {
        unmade: Some(path.clone()),
        ..RoundRequest::everything(Direction::Up)
    };
    assert!(other.sync(&unmade).await.unwrap().is_clean());
    assert_eq!((text(&pair.there().join("a")), there()), ("a".into(), "1.0".into()));
    // Nor does the watch send the file that lies here.
    write(&pair.here(), "b", "b");
    until("a save", || text(&pair.there().join("b")) == "b").await;
    assert_eq!(there(), "1.0");
    assert_eq!(read(&pair.here(), "pkg/_version.py"), "as git has it");
    // It is mended.
    assert!(other.sync(&made("2.0")).await.unwrap().is_clean());
    assert_eq!(there(), "2.0");
    watching.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_steps_aside_for_who_needs_the_lock_and_goes_on() {
    let pair = Pair::new(Tools::Machine);
    write(&pair.here(), "a", "a");
    let (watching, _told, mut turns) = pair.watch();
    until("the first round", || text(&pair.there().join("a")) == "a").await;
    let memory = tokio::time::timeout(LIMIT, pair.lock().take(&|_| {}))
        .await
        .unwrap()
        .unwrap();
    write(&pair.here(), "b", "meanwhile");
    // The watch waits for us.
    assert!(turns.recv().await.unwrap().is_some());
    assert!(!pair.there().join("b").exists());
    drop(memory);
    until("what was saved meanwhile", || {
        text(&pair.there().join("b")) == "meanwhile"
    })
    .await;
    assert_eq!(turns.recv().await, Some(None));
    watching.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_watch_takes_the_place_of_the_first_when_that_ends() {
    let pair = Pair::new(Tools::Machine);
    write(&pair.here(), "a", "a");
    let (first, _told, _) = pair.watch();
    until("the first round", || text(&pair.there().join("a")) == "a").await;
    let (second, _second_told, mut turns) = pair.watch();
    assert_eq!(turns.recv().await, Some(Some(std::process::id())));
    first.abort();
    assert_eq!(turns.recv().await, Some(None));
    write(&pair.here(), "b", "b");
    until("a save", || text(&pair.there().join("b")) == "b").await;
    second.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_of_another_version_is_asked_to_step_aside() {
    let pair = Pair::new(Tools::Machine);
    write(&pair.here(), "a", "a");
    let memory = Memory::open(Local::open(&pair.here()).unwrap().root(), "far", &pair.env()).unwrap();
    let folder = tempfile::Builder::new()
        .permissions(Permissions::from_mode(0o700))
        .tempdir()
        .unwrap();
    let socket = folder.path().join("other.sync");
    let listener = UnixListener::bind(&socket).unwrap();
    let text = serde_json::json!({ "socket": socket, "pid": 1, "colour": "blue" }).to_string();
    fs::write(memory.holder_file(), text).unwrap();
    let other = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let hello: Hello = frame::read_message(&mut stream).await.unwrap().unwrap();
            let greeting = Greeting {
                dockerutils_sync: 99,
                version: "9.0.0".into(),
                pid: 1,
            };
            frame::write_message(&mut stream, &greeting).await.unwrap();
            if hello.leave {
                return memory;
            }
        }
    });
    let mut shared = pair.shared();
    let request = RoundRequest::everything(Direction::Up);
    let report = tokio::time::timeout(LIMIT, shared.sync(&request));
    let (memory, report) = tokio::join!(async { drop(other.await.unwrap()) }, report);
    let () = memory;
    assert_eq!(done(&report.unwrap().unwrap()).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_whose_holder_does_not_answer_is_not_waited_for_without_end() {
    let pair = Pair::new(Tools::Machine);
    let held = pair.session().unwrap();
    let mut lock = pair.lock();
    // Long enough that what is said after half a second is said before, however busy this machine is.
    lock.patience = Duration::from_secs(3);
    let said = Mutex::new(Vec::new());
    let error = lock
        .take(&|line| said.lock().unwrap().push(line.to_owned()))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("does not answer"), "{error}");
    assert!(error.hint_text().unwrap().contains("fuser"), "{error:?}");
    let said = said.into_inner().unwrap();
    assert!(
        said.len() == 1 && said[0].starts_with("waiting for another command"),
        "{said:?}"
    );
    // A socket in a directory of others, or of nobody, counts for nothing.
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    let socket = folder.path().join("s.sync");
    let _listener = UnixListener::bind(&socket).unwrap();
    let text = serde_json::json!({ "socket": socket, "pid": 1 }).to_string();
    fs::write(pair.memory().holder_file(), text).unwrap();
    lock.patience = Duration::ZERO;
    assert!(lock.take(&|_| {}).await.is_err());
    drop(held);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_says_once_that_much_is_gone_and_another_command_has_it_removed() {
    let pair = Pair::new(Tools::Machine);
    for number in 0..10 {
        write(&pair.here(), &format!("d/{number}"), "text");
    }
    let (watching, mut told, _) = pair.watch();
    until("the first round", || pair.there().join("d/9").exists()).await;
    for number in 0..8 {
        fs::remove_file(pair.here().join(format!("d/{number}"))).unwrap();
    }
    let held = async |told: &mut UnboundedReceiver<WatchEvent>| loop {
        match told.recv().await.unwrap() {
            WatchEvent::Synced(report, before) if !report.held_there.is_empty() => {
                return (report.held_there.len(), before);
            }
            _ => {}
        }
    };
    let (count, before) = tokio::time::timeout(LIMIT, held(&mut told)).await.unwrap();
    assert_eq!((count, before.held_there), (8, 0));
    // Something else is saved, and what is known is not said again.
    write(&pair.here(), "after", "all");
    until("a save", || text(&pair.there().join("after")) == "all").await;
    assert!(pair.there().join("d/0").exists());
    let delete = RoundRequest {
        delete: true,
        ..RoundRequest::everything(Direction::Up)
    };
    assert!(pair.shared().sync(&delete).await.unwrap().is_clean());
    assert!(!pair.there().join("d/0").exists());
    while let Ok(event) = told.try_recv() {
        if let WatchEvent::Synced(report, _) = event {
            assert!(report.is_clean(), "{report:?}");
        }
    }
    watching.abort();
}

/// Only changed on this side.
const OURS: [&str; 4] = ["ours", "d/ours", "x/y/ours", "d/also-ours"];
const THEIRS: [&str; 4] = ["theirs", "d/theirs", "x/y/theirs", "x/also-theirs"];
const EITHERS: [&str; 3] = ["either", "d/either", "x/either"];

/// A random deed on one of these files.
fn deed(random: &mut Random, root: &Path, paths: &[&str]) {
    let file = root.join(*random.pick(paths));
    if random.one_in(5) {
        let _ = fs::remove_file(&file);
    } else {
        let _ = fs::create_dir_all(file.parent().unwrap());
        let _ = fs::write(&file, vec![b'x'; random.index(2000)]);
        let _ = fs::write(&file, format!("text {}", random.below(1_000_000)));
    }
}

fn file(root: &Path, path: &str) -> Option<Vec<u8>> {
    fs::read(root.join(path)).ok()
}

/// After many edits on both sides and then none, both have the same, but for conflicts that were named. Gives after what time.
async fn edits_of_both_sides_meet(seed: u64) -> Duration {
    let pair = Pair::new(Tools::Machine);
    let mut random = Random::new(seed);
    write(&pair.here(), "anchor", "always there");
    let (watching, mut told, _) = pair.watch();
    until("the first round", || pair.there().join("anchor").exists()).await;
    for _ in 0..random.below(60) + 20 {
        match random.below(4) {
            0 => deed(&mut random, &pair.here(), &OURS),
            1 => deed(&mut random, &pair.there(), &THEIRS),
            2 => deed(&mut random, &pair.here(), &EITHERS),
            _ => deed(&mut random, &pair.there(), &EITHERS),
        }
        // Of a save of several files, of a person, of a program.
        match random.below(3) {
            0 => {}
            1 => tokio::time::sleep(Duration::from_millis(random.below(20))).await,
            _ => tokio::time::sleep(Duration::from_millis(random.below(250))).await,
        }
    }
    // Both at once, as the last thing.
    deed(&mut random, &pair.there(), &["either"]);
    deed(&mut random, &pair.here(), &["either"]);
    deed(&mut random, &pair.there(), &["theirs"]);
    let last_ours: Vec<_> = OURS.iter().map(|path| file(&pair.here(), path)).collect();
    let last_theirs: Vec<_> = THEIRS.iter().map(|path| file(&pair.there(), path)).collect();
    let mut conflicts: Vec<Vec<u8>> = Vec::new();
    let begun = std::time::Instant::now();
    let mut said = Vec::new();
    loop {
        while let Ok(event) = told.try_recv() {
            said.push(format!("{:?} {event:?}", begun.elapsed()));
            match event {
                WatchEvent::Synced(report, _) => conflicts.extend(report.conflicts.into_iter().map(|one| one.path)),
                WatchEvent::Failed(error) => panic!("seed {seed}: {error:?}"),
                _ => {}
            }
        }
        let differs = |path: &&str| file(&pair.here(), path) != file(&pair.there(), path);
        let is_named = |path: &str| conflicts.iter().any(|named| named == path.as_bytes());
        let either = EITHERS.into_iter().filter(|path| !is_named(path));
        // Of those of one side, one that was caught half written is no conflict for long.
        let left: Vec<&str> = OURS.into_iter().chain(THEIRS).chain(either).filter(differs).collect();
        if left.is_empty() {
            break;
        }
        assert!(
            begun.elapsed() < LIMIT,
            "seed {seed}: {left:?} differ; it was said: {said:#?}"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let took = begun.elapsed();
    let ours: Vec<_> = OURS.iter().map(|path| file(&pair.there(), path)).collect();
    let theirs: Vec<_> = THEIRS.iter().map(|path| file(&pair.here(), path)).collect();
    assert_eq!((ours, theirs), (last_ours, last_theirs), "seed {seed}");
    watching.abort();
    took
}

#[tokio::test(flavor = "multi_thread")]
async fn many_edits_of_both_sides_while_it_is_watched_meet_but_for_named_conflicts() {
    // As `cargo xtask soak watch` has it.
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seconds = number("DOCKERUTILS_SOAK_SECONDS").unwrap_or(0);
    let mut seed = number("DOCKERUTILS_SOAK_SEED").unwrap_or(1);
    let begun = std::time::Instant::now();
    loop {
        let took = futures_util::future::join_all((seed..seed + 6).map(edits_of_both_sides_meet)).await;
        if begun.elapsed() >= Duration::from_secs(seconds) {
            return;
        }
        let said = format!("from seed {seed} on: {took:.1?}\n");
        std::io::Write::write_all(&mut std::io::stderr(), said.as_bytes()).unwrap();
        seed += 6;
    }
}
