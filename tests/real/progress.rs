//! What the user sees of long work on a slow link: the screens of builds, syncs and transfers are read from a terminal
//! emulator at several widths, while the window is resized and after Ctrl-C.

use std::fs;
use std::time::Duration;

use dockerutils_test_support::{SlowLink, Terminal, lab};
use dockerutils_tests::far::link;
use dockerutils_tests::moving::Moving;

use crate::sync::{Far, noise};

const ROWS: u16 = 30;
const WIDTHS: [u16; 4] = [40, 60, 80, 120];
/// Bits a second: what is sent takes its time.
const SLOW: u64 = 8_000_000;
const MUCH: usize = 30_000_000;

/// A dock behind a slow link, and a project with a file that does not compress.
fn behind_a_slow_link(name: &str) -> (SlowLink, Far) {
    let ssh = lab::engine("26").unwrap().ssh().unwrap();
    let link = SlowLink::start(ssh.address, Duration::from_millis(20), Some(SLOW)).unwrap();
    let far = Far::with(name, "ann", Some(link.address()), None);
    far.sandbox.write(
        "docker/box/Dockerfile",
        "FROM dockerutils-lab-base:1\nCOPY data.bin /\n",
    );
    fs::write(far.sandbox.project().join("data.bin"), noise(MUCH, 7)).unwrap();
    (link, far)
}

/// Looks at what moves in windows of all widths, one after the other: one row is the one with `main`, its clock or bytes go on, and
/// no row is wider than the window.
fn look(terminal: &mut Terminal, main: &str, also: &[&str]) {
    for columns in WIDTHS {
        terminal.resize(ROWS, columns);
        // Lines that stay may begin like it.
        let is_moving = |row: &String| row.starts_with(main) && (row.starts_with("[+]") || row.contains(" / "));
        let row = |rows: &[String]| rows.last().filter(|row| is_moving(row)).cloned();
        let is_there = |rows: &[String]| {
            let has = |text: &&str| rows.iter().any(|row| row.contains(*text));
            row(rows).is_some() && also.iter().all(has)
        };
        let before = terminal.rows_when(&format!("{main} at {columns}"), is_there);
        let now = terminal.rows_when("a change", |rows| is_there(rows) && row(rows) != row(&before));
        let moving: Vec<&String> = now.iter().filter(|row| is_moving(row)).collect();
        assert_eq!(moving.len(), 1, "{columns}: {now:#?}");
        assert!(moving[0].chars().count() < columns.into(), "{columns}: {now:#?}");
        assert!(
            !now.iter()
                .any(|row| row.contains("iB") || row.contains(" 0 B/s") || row.contains(" 0s left")),
            "{now:#?}"
        );
    }
}

/// Ctrl-C, and what it leaves.
fn interrupt(terminal: Terminal, gone: &[&str]) {
    terminal.type_in("\u{3}");
    let (code, rows) = terminal.end_with_rows();
    assert_eq!(code, Some(130), "{rows:#?}");
    let is_left = |row: &&String| gone.iter().any(|text| row.contains(text));
    assert_eq!(rows.iter().find(is_left), None, "{rows:#?}");
    assert!(rows.last().is_some_and(|row| row.contains("interrupted")), "{rows:#?}");
}

#[test]
fn a_build_shows_what_it_sends_and_its_clock() {
    let (_link, far) = behind_a_slow_link("progress-build");
    let build = far.command("build-image").args(["box", "--dock", "far"]);
    let mut terminal = build.env("NO_COLOR", "1").at_terminal();
    look(&mut terminal, "[+] Building ", &["[internal] load bu", " MB "]);
    let rows = terminal.rows();
    let sending = rows.iter().find(|row| row.contains("load build context")).unwrap();
    assert!(!sending.ends_with(" 0.0s"), "{rows:#?}");
    interrupt(terminal, &["[+]"]);
}

#[test]
fn syncs_show_bytes_files_and_rate() {
    let (_link, far) = behind_a_slow_link("progress-sync");
    let data = far.sandbox.project().join("data.bin");
    let sync = |name: &str| {
        far.command(name)
            .args(["--dock", "far"])
            .env("NO_COLOR", "1")
            .at_terminal()
    };
    let mut terminal = sync("sync-up");
    look(&mut terminal, "sending  ", &[" MB / 30.0 MB"]);
    terminal.rows_when("a rate", |rows| {
        rows.last()
            .is_some_and(|row| row.contains(" files") && row.contains("B/s"))
    });
    interrupt(terminal, &["sending  "]);
    // Little goes to its end, and leaves its result alone.
    fs::remove_file(&data).unwrap();
    let (code, rows) = sync("sync-up").end_with_rows();
    assert_eq!(code, Some(0), "{rows:#?}");
    assert!(rows.len() == 1 && rows[0].contains(" sent ("), "{rows:#?}");
    far.shell_there(&format!("head -c {MUCH} /dev/urandom > \"$1/data.bin\""));
    let mut terminal = sync("sync-down");
    look(&mut terminal, "bringing  ", &[" MB / 30.0 MB"]);
    interrupt(terminal, &["bringing  "]);
    assert!(!data.exists());
}

#[test]
fn a_transfer_shows_its_layers_and_all_of_it() {
    let (from, to) = (lab::engine("28-containerd").unwrap(), lab::engine("26").unwrap());
    let moving = Moving::on("progress", &[&from, &to]);
    moving.build(
        &from,
        &format!("FROM dockerutils-lab-base:1\nRUN head -c {MUCH} /dev/urandom > /layer\n"),
    );
    let (_link, address) = link(&to, SLOW);
    let transfer = moving.transfer(&from).args([&moving.name, &address]);
    let mut terminal = transfer.env("NO_COLOR", "1").at_terminal();
    let shown: String = moving.name.chars().take(10).collect();
    look(&mut terminal, &shown, &[" MB / 30."]);
    interrupt(terminal, &[" MB / "]);
}
