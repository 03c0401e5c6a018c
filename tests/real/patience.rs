//! What can be begun again goes on by itself when the link is cut or the engine is started anew: builds, syncs, transfers.

use std::time::{Duration, SystemTime};

use dockerutils_test_support::lab::{self, LabEngine, Store, Suite, Throwaway};
use dockerutils_test_support::{Invocation, Sandbox, SlowLink, process, wait};
use dockerutils_tests::dock_home::DockHome;
use dockerutils_tests::moving::Moving;
use rustix::process::Signal;

const DELAY: Duration = Duration::from_millis(10);
/// What hangs takes far longer.
const LONG: Duration = Duration::from_secs(240);

fn home(engine: &LabEngine) -> DockHome {
    let home = DockHome::new();
    home.use_key(&engine.ssh().unwrap().key, "");
    home
}

/// Removes from the dock what [`build`] made.
fn clean(home: &DockHome) {
    home.program("build-image")
        .args(["clean", "--dock", "far"])
        .env("LOGNAME", "patience")
        .any_stdout()
        .any_stderr()
        .run();
}

/// A build of `web` on the dock.
fn build(home: &DockHome) -> Invocation<'_> {
    home.program("build-image")
        .args(["web", "--dock", "far"])
        .env("LOGNAME", "patience")
        .limit(LONG)
}

fn wait_for_process(engine: &LabEngine, words: &str) {
    wait::until(format_args!("{words:?} runs"), || {
        process::capture(engine.exec("pgrep").unwrap().args(["-f", words])).is_ok()
    });
}

/// No internals of a library reach the user.
fn is_plain(said: &str) {
    for inside in [
        "chunk size",
        "unexpected EOF",
        "hyper",
        "tonic",
        "h2 protocol",
        "Status {",
    ] {
        assert!(!said.contains(inside), "{inside}: {said}");
    }
}

#[test]
fn a_build_goes_on_when_the_link_is_back() {
    let engine = lab::engine("28").unwrap();
    let home = home(&engine);
    let link = home.register_behind_a_link(&engine, DELAY);
    let mark = SystemTime::now();
    home.sandbox().write(
        "docker/web/Dockerfile",
        format!("FROM dockerutils-lab-base:1\nRUN sleep 4.0731; echo built > /made; : '{mark:?}'\n"),
    );
    let building = build(&home).spawn();
    wait_for_process(&engine, "^sleep 4.0731");
    link.drop_connections();
    let built = building.wait();
    assert_eq!(built.code, 0, "{built}");
    assert!(
        built
            .stderr
            .contains("the connection to the engine of dock \"far\" was lost")
            && built.stderr.contains("; trying again"),
        "{built}"
    );
    is_plain(&built.stderr);
    clean(&home);
}

#[test]
fn a_sync_goes_on_when_the_link_is_back() {
    const SIZE: u64 = 40_000_000;
    let engine = lab::engine("26").unwrap();
    // The dock keeps the workspace of an earlier time, which is another checkout's.
    let home = DockHome::of(Sandbox::named(&format!("patience-{}", std::process::id())));
    home.use_key(&engine.ssh().unwrap().key, "");
    let link = home.register_behind_a_link(&engine, DELAY);
    let noise: Vec<u8> = (0..u32::try_from(SIZE / 4).unwrap())
        .flat_map(|number| {
            number
                .wrapping_mul(2_654_435_761)
                .rotate_left(number % 31)
                .to_le_bytes()
        })
        .collect();
    home.sandbox().write("docker/web/Dockerfile", "FROM scratch\n");
    home.sandbox().write("data", &noise);
    let before = link.bytes().0;
    let syncing = home.program("sync-up").args(["--dock", "far"]).limit(LONG).spawn();
    wait::until("a part has gone", || link.bytes().0 > before + 1_000_000);
    link.drop_connections();
    let synced = syncing.wait();
    assert_eq!(synced.code, 0, "{synced}");
    assert!(synced.stderr.contains("; trying again"), "{synced}");
    is_plain(&synced.stderr);
    let again = home.program("sync-up").args(["--dock", "far", "--list"]).spawn().wait();
    assert_eq!((again.code, &*again.stdout), (0, ""), "{again}");
}

#[test]
fn a_link_that_died_silently_is_said_soon_and_waited_for() {
    let engine = lab::engine("28").unwrap();
    let home = home(&engine);
    let link = home.register_behind_a_link(&engine, DELAY);
    home.sandbox()
        .write("docker/web/Dockerfile", "FROM dockerutils-lab-base:1\nRUN true\n");
    // The link stands before it is cut.
    home.program("ls-dock")
        .args(["far", "--check"])
        .any_stdout()
        .any_stderr()
        .run();
    link.cut();
    let building = build(&home).spawn();
    // Longer than an engine may take to say that it is there.
    std::thread::sleep(Duration::from_secs(25));
    link.mend();
    let built = building.wait();
    assert_eq!(built.code, 0, "{built}");
    assert!(
        built
            .stderr
            .contains("dock \"far\" has given no sign of life for 3 s; waiting for it")
            && built.stderr.contains("dock \"far\" answers again"),
        "{built}"
    );
    assert!(!built.stderr.contains("journalctl"), "{built}");
    clean(&home);
}

#[test]
fn a_transfer_a_listing_and_ssh_dock_say_that_their_dock_is_silent() {
    const SILENT: &str = "dock \"far\" has given no sign of life for 3 s; waiting for it";
    let engine = lab::engine("28").unwrap();
    // The dock keeps the workspace of an earlier time, which is another checkout's.
    let name = format!("silence-{}", std::process::id());
    let home = DockHome::of(Sandbox::named(&name));
    home.use_key(&engine.ssh().unwrap().key, "");
    let link = home.register_behind_a_link(&engine, DELAY);
    home.sandbox().write("docker/web/Dockerfile", "FROM scratch\n");
    let from = lab::engine("26").unwrap();
    let moving = Moving::on("silence", &[&from, &engine]);
    moving.build(&from, "FROM dockerutils-lab-base:1\nRUN echo silence > /made\n");
    home.program("sync-up")
        .args(["--dock", "far"])
        .any_stdout()
        .any_stderr()
        .run();
    // A command of ssh-dock, and a terminal of it, whose link stands.
    let asked = home
        .program("ssh-dock")
        .args(["far", "echo begun; read -r word; echo $word"]);
    let asked = asked.stdin("word\n").limit(LONG);
    let mut terminal = home.program("ssh-dock").args(["far"]).at_terminal();
    terminal.expect("$ ");
    link.cut();
    let asked = asked.spawn();
    let transferring = home
        .program("transfer-image")
        .args([&*moving.name, "far"])
        .env("DOCKER_HOST", &from.host)
        .limit(LONG)
        .spawn();
    let listing = home
        .program("sync-up")
        .args(["--dock", "far", "--list"])
        .limit(LONG)
        .spawn();
    // Once, and in a line of its own.
    terminal.expect(&format!("\r\nssh-dock: warning: {SILENT}, Enter, then ~. leaves\r\n"));
    for waiting in [&transferring, &listing, &asked] {
        waiting.wait_for_stderr(SILENT);
    }
    link.mend();
    for (outcome, what) in [
        (transferring.wait(), "transfer"),
        (listing.wait(), "listing"),
        (asked.wait(), "command"),
    ] {
        assert_eq!(outcome.code, 0, "{what}: {outcome}");
        for part in [SILENT, "dock \"far\" answers again, after "] {
            assert!(outcome.stderr.contains(part), "{what}: {part}: {outcome}");
        }
    }
    terminal.type_in("echo still; exit\r");
    let (code, screen) = terminal.end();
    assert_eq!(code, Some(0), "{screen}");
    assert!(
        screen.contains("still\r\n") && screen.matches(SILENT).count() == 1,
        "{screen}"
    );
    let workspace = format!("/home/ann/workspaces/tester/code/{name}");
    process::capture(engine.exec("rm").unwrap().args(["-rf", &workspace])).unwrap();
}

#[test]
fn a_dock_that_is_down_from_the_beginning_is_not_waited_for() {
    let engine = lab::engine("26").unwrap();
    let home = home(&engine);
    let link = home.register_behind_a_link(&engine, DELAY);
    home.program("ls-dock")
        .args(["far", "--check"])
        .any_stdout()
        .any_stderr()
        .run();
    drop(link);
    home.bash("kill -9 $(cat \"$XDG_RUNTIME_DIR\"/dockerutils/*.lock)");
    home.sandbox().write("docker/web/Dockerfile", "FROM scratch\n");
    for program in ["sync-up", "build-image"] {
        let words: &[&str] = if program == "sync-up" { &[] } else { &["web"] };
        let outcome = home.program(program).args(words).args(["--dock", "far"]).spawn().wait();
        assert_eq!(outcome.code, 3, "{outcome}");
        assert!(!outcome.stderr.contains("trying again"), "{outcome}");
    }
}

#[test]
fn an_engine_that_is_started_anew_ends_neither_a_build_nor_a_transfer() {
    let throwaway = Throwaway::start(Suite::Trixie, Store::Classic, None).unwrap();
    let engine = throwaway.engine();
    let home = home(engine);
    let ssh = engine.ssh().unwrap();
    let link = SlowLink::start(ssh.address, DELAY, Some(40_000_000)).unwrap();
    home.registration(&ssh, link.address(), "ann", "far").run();
    let from = lab::engine("28").unwrap();
    let moving = Moving::on("restart", &[&from]);
    moving.build(
        &from,
        "FROM dockerutils-lab-base:1\nRUN head -c 12000000 /dev/urandom > /one\nRUN head -c 12000000 /dev/urandom > /two\n",
    );
    home.sandbox().write(
        "docker/web/Dockerfile",
        "FROM dockerutils-lab-base:1\nRUN sleep 3.0991; echo built > /made\n",
    );
    let building = build(&home).spawn();
    wait_for_process(engine, "^sleep 3.0991");
    let before = link.bytes().0;
    let transferring = home
        .program("transfer-image")
        .args([&*moving.name, "far"])
        .env("DOCKER_HOST", &from.host)
        .limit(LONG)
        .spawn();
    wait::until("a part of the image has gone", || link.bytes().0 > before + 2_000_000);
    throwaway.stop_engine(Signal::TERM).unwrap();
    let waited = Duration::from_secs(3);
    // It is away for a while: that is what is tried.
    std::thread::sleep(waited);
    throwaway.start_engine().unwrap();
    let built = building.wait();
    assert_eq!(built.code, 0, "{built}");
    assert!(built.stderr.contains("; trying again"), "{built}");
    is_plain(&built.stderr);

    let transferred = transferring.wait();
    assert_eq!(transferred.code, 0, "{transferred}");
    assert!(transferred.stderr.contains("the link was cut"), "{transferred}");
    is_plain(&transferred.stderr);
}

#[test]
fn an_image_of_the_project_that_is_not_on_the_dock_is_said_to_be_built_first() {
    let engine = lab::engine("28").unwrap();
    let home = home(&engine);
    home.register(&engine, "ann", "far");
    home.sandbox()
        .write("docker/tools/Dockerfile", "FROM dockerutils-lab-base:1\n");
    home.sandbox()
        .write("docker/web/Dockerfile", "FROM sample-tools:patience-none\nRUN true\n");
    let built = home
        .program("build-image")
        .args(["web", "--dock", "far"])
        .env("LOGNAME", "patience-none")
        .spawn()
        .wait();
    assert_eq!(built.code, 1, "{built}");
    for part in [
        "it is made of sample-tools:patience-none, the image type \"tools\" of this project, which is not on dock \"far\"",
        "hint: build-image tools --dock far, or transfer-image tools far",
    ] {
        assert!(built.stderr.contains(part), "{part}: {built}");
    }
}

#[test]
fn source_dock_says_whom_it_waits_for_and_names_the_dock_that_does_not_answer() {
    let engine = lab::engine("26").unwrap();
    let home = home(&engine);
    let link = home.register_behind_a_link(&engine, Duration::from_millis(400));
    let slow = home.bash("kill -9 $(cat \"$XDG_RUNTIME_DIR\"/dockerutils/*.lock); source dock far && castoff");
    assert!(slow.code == 0 && slow.stderr.contains("connecting to far\n"), "{slow}");
    drop(link);
    let dead = home.bash("kill -9 $(cat \"$XDG_RUNTIME_DIR\"/dockerutils/*.lock); source dock far");
    assert!(dead.code != 0 && dead.stderr.contains("far"), "{dead}");
    for inside in ["unix://", ".sock", "journalctl"] {
        assert!(!dead.stderr.contains(inside), "{inside}: {dead}");
    }
}
