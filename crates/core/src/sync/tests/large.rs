//! Workspaces and files that are large: what is shown of them, and how they travel.

use std::cell::Cell;
use std::collections::BTreeSet;

use super::*;
use crate::output::progress::tests::Emulator;

#[tokio::test(flavor = "multi_thread")]
async fn that_a_workspace_is_looked_at_is_shown_when_it_takes_longer() {
    let pair = Pair::new(Tools::Machine);
    write(&pair.here(), "a", "a");
    write(&pair.here(), "b", "b");
    pair.up().await;
    // The dock's list stops until it was seen that it goes on.
    let gate = pair.root.path().join("gate");
    rustix::fs::mkfifoat(rustix::fs::CWD, &gate, rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
    let (find, gate_there) = (pair.shell.program("find"), gate.display());
    pair.shell.replace(
        "find",
        &format!(
            "if [ -p {gate_there} ]; then read -r go < {gate_there}; rm -f {gate_there}; fi\nexec {find} \"$@\"\n"
        ),
    );
    let emulator = Emulator::new(80);
    let mut session = pair.session().unwrap();
    session.printer = Some(emulator.printer());
    let seeing = emulator.clone();
    let seen = tokio::task::spawn_blocking(move || {
        let rows = seeing.until(|rows| rows.iter().any(|row| row.starts_with("looking at 2 files on far ")));
        fs::write(gate, "go\n").unwrap();
        rows
    });
    let request = SyncRequest::everything(Direction::Both, Brake::default());
    let report = session.sync(&request, false).await.unwrap();
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(seen.await.unwrap().len(), 1);
    assert!(emulator.rows().is_empty(), "{:#?}", emulator.rows());
}

#[test]
fn each_file_here_is_counted_while_it_is_listed_and_while_it_is_read() {
    let folder = tempfile::tempdir().unwrap();
    for path in ["a", "d/b", "d/c"] {
        write(folder.path(), path, path);
    }
    let local = Local::open(folder.path()).unwrap();
    let listed = Cell::new(0);
    let found = local
        .list(&[], &BTreeSet::new(), &|| listed.set(listed.get() + 1))
        .unwrap();
    assert_eq!((found.tree.len(), listed.get()), (4, 4));
    let read = std::sync::atomic::AtomicUsize::new(0);
    let paths: Vec<Vec<u8>> = found.tree.into_keys().collect();
    local.contents_counted(&paths, &|| {
        read.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    });
    assert_eq!(read.into_inner(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_get_smaller_is_not_packed_on_the_dock() {
    for tools in [Tools::Machine, Tools::Gzip, Tools::Busybox] {
        let pair = Pair::new(tools);
        write(&pair.here(), "a", "a");
        pair.up().await;
        let there = pair.there();
        fs::write(there.join("weights.bin"), noise(9_000_000, 1)).unwrap();
        for number in 0..20 {
            fs::write(there.join(format!("{number}.jpg")), noise(50_000, number + 2)).unwrap();
        }
        fs::write(there.join("log"), "the same line again and again\n".repeat(100_000)).unwrap();
        fs::write(there.join("empty"), "").unwrap();
        symlink("a", there.join("link")).unwrap();
        // What is packed there leaves a copy.
        let copy = pair.shell.home.join("packed");
        let tool = if tools == Tools::Machine { "zstd" } else { "gzip" };
        let (tee, program) = (pair.shell.program("tee"), pair.shell.program(tool));
        let script = format!("{tee} -a {} | {program} \"$@\"\n", copy.display());
        pair.shell.replace(tool, &script);
        let report = pair.down().await;
        assert!(report.is_clean(), "{tools:?} {report:?}");
        assert_eq!(tree(&pair.here()), tree(&there), "{tools:?}");
        // busybox's shell takes its own gzip, whatever else is there.
        let packed = fs::read(&copy).unwrap_or_default();
        assert_eq!(packed.is_empty(), tools == Tools::Busybox);
        // The list of files, and the log where this machine was not faster than a good link.
        assert!(packed.len() < 4_000_000, "{tools:?} {}", packed.len());
        // Nothing is asked for where little comes, and it is packed.
        fs::write(there.join("log"), "another line\n".repeat(1000)).unwrap();
        pair.down().await;
        let more = fs::read(&copy).unwrap_or_default();
        let is_in = |line: &[u8]| more.windows(line.len()).any(|window| window == line);
        assert!(tools == Tools::Busybox || is_in(b"another line\n"), "{tools:?}");
        pair.assert_in_step().await;
    }
}
