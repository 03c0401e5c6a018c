//! `sync-down`: which dock and which files are meant, and what it brings back from this machine's trash. What travels is in
//! the real tests, and in those of the core.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use dockerutils_core::sync::local::Local;
use dockerutils_core::sync::trash::{Reason, Trash};
use dockerutils_test_support::Sandbox;

#[path = "../../sync-up/tests/cases/mod.rs"]
mod cases;

const COMMAND: &str = "sync-down";

#[test]
fn the_help_is_the_manual() {
    for (flag, text) in [
        ("-h", include_str!("help.txt")),
        ("--help", include_str!("help-long.txt")),
    ] {
        Sandbox::new().command(COMMAND).arg(flag).stdout(text).run();
    }
}

/// A project of which a sync with the dock `far` has removed `src/gone` and `src/also`, and overwritten `notes`.
fn synced() -> Sandbox {
    let sandbox = Sandbox::new()
        .file("docker/web/Dockerfile", "FROM busybox\n")
        .file("src/gone", "what was in it")
        .file("src/also", "")
        .file("notes", "mine");
    let local = Local::open(sandbox.project()).unwrap();
    let state = sandbox.home().join(".local/state/dockerutils");
    let mut trash = Trash::open(&state, local.root(), Some("far"));
    for (path, reason) in [
        ("src/gone", Reason::Removed),
        ("src/also", Reason::Removed),
        ("notes", Reason::Overwritten),
    ] {
        let item = local.look(path.as_bytes()).unwrap().unwrap();
        let kept = trash.keep(&local, path.as_bytes(), &item, reason).unwrap();
        assert!(local.remove(path.as_bytes(), &kept).unwrap());
    }
    sandbox.write("notes", "the dock's");
    sandbox
}

#[test]
fn what_the_last_sync_took_comes_back_without_a_dock_and_what_is_there_now_is_kept() {
    let sandbox = synced();
    let dry = sandbox
        .command(COMMAND)
        .args(["--restore", "--dry-run"])
        .any_stdout()
        .run();
    let lines: Vec<&str> = dry.stdout.lines().collect();
    assert_eq!(lines.len(), 3);
    assert!(lines[0].starts_with("restore      notes (overwritten 2"), "{lines:?}");
    assert!(lines[2].starts_with("restore      src/gone (removed 2"), "{lines:?}");
    sandbox
        .command(COMMAND)
        .arg("--restore")
        .stdout("[SANDBOX]/sample: 3 restored (18 B)\n")
        .stderr("sync-up sends it to a dock\n")
        .run();
    assert_eq!(sandbox.read("src/gone"), "what was in it");
    assert_eq!(sandbox.read("notes"), "mine");
    // A restore undoes a sync, and another one a restore only by its path.
    sandbox
        .command(COMMAND)
        .arg("--restore")
        .code(1)
        .stderr_has("nothing is kept for [SANDBOX]/sample\n\nhint: sync-down --restore --list shows what is kept\n")
        .run();
    sandbox
        .command(COMMAND)
        .args(["--restore", "notes", "-q"])
        .stdout("[SANDBOX]/sample: 1 restored (10 B)\n")
        .run();
    assert_eq!(sandbox.read("notes"), "the dock's");
}

#[test]
fn what_is_kept_is_listed_with_when_and_why() {
    let sandbox = synced();
    let list = sandbox
        .command(COMMAND)
        .args(["--restore", "--list"])
        .any_stdout()
        .run();
    let lines: Vec<Vec<&str>> = list
        .stdout
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(lines[0], ["WHEN", "WHY", "SIZE", "PATH"]);
    let mut rest: Vec<String> = lines[1..].iter().map(|line| line[2..].join(" ")).collect();
    rest.sort();
    assert_eq!(
        rest,
        ["overwritten 4 B notes", "removed 0 B src/also", "removed 14 B src/gone"]
    );
    let json = sandbox
        .command(COMMAND)
        .args(["--restore", "--list", "--json", "src"])
        .any_stdout()
        .run()
        .json();
    let kept = json["kept"].as_array().unwrap();
    assert_eq!(kept.len(), 2);
    for version in kept {
        assert_eq!(version["why"], "removed");
        assert_eq!(version["type"], "file");
        assert_eq!(version["dock"], "far");
        assert!(version["time"].as_str().unwrap().ends_with('Z'));
        let file = version["file"].as_str().unwrap();
        let file = sandbox.home().join(file.strip_prefix("[SANDBOX]/home/").unwrap());
        assert_eq!(file.metadata().unwrap().len(), version["size"].as_u64().unwrap());
    }
    // That changed nothing; for another dock, nothing is kept.
    let json = sandbox
        .command(COMMAND)
        .args(["--restore", "--json", "src"])
        .any_stdout()
        .run()
        .json();
    assert_eq!(json["restored"], serde_json::json!(["src/also", "src/gone"]));
    assert_eq!(json["bytes"], 14);
}

#[test]
fn what_is_not_kept_or_not_of_the_project_is_an_error() {
    let sandbox = synced();
    sandbox
        .command(COMMAND)
        .args(["--restore", "src/never"])
        .code(1)
        .stderr(
            "sync-down: nothing is kept of src/never for [SANDBOX]/sample\n\nhint: sync-down --restore --list shows what is \
             kept\n",
        )
        .run();
    sandbox
        .command(COMMAND)
        .args(["--restore", "../else"])
        .code(2)
        .stderr_has("../else is not in the project")
        .run();
    let sandbox = Sandbox::new().file("docker/web/Dockerfile", "FROM busybox\n");
    sandbox
        .command(COMMAND)
        .arg("--restore")
        .code(1)
        .stderr(
            "sync-down: nothing is kept for [SANDBOX]/sample\n\nhint: what a sync removes or overwrites is kept for 7 days, \
             1.0 GB at most\n",
        )
        .run();
    sandbox
        .command(COMMAND)
        .args(["--restore", "--list"])
        .stderr("nothing is kept for [SANDBOX]/sample\n")
        .run();
}

#[test]
fn what_is_in_the_way_stays_and_so_does_what_is_kept() {
    let sandbox = synced();
    sandbox.write("src/gone/inside", "a directory");
    sandbox
        .command(COMMAND)
        .args(["--restore", "src"])
        .code(1)
        .stdout("[SANDBOX]/sample: 1 restored (0 B), 1 failed\n")
        .stderr_has("sync-down: warning: src/gone: src/gone is in the way: move it, and restore again\n")
        .run();
    assert_eq!(sandbox.read("src/gone/inside"), "a directory");
    sandbox
        .command(COMMAND)
        .args(["--restore", "--list", "src/gone"])
        .stdout_has("src/gone")
        .run();
}
