//! What syncs took is kept on both sides, and comes back: this machine's trash over real files, the dock's in shells with
//! the machine's tools and with busybox's alone.

use std::io::Write as _;

use super::*;
use crate::sync::script_head::in_workspace;
use crate::sync::trash::{self, KEPT_BYTES, KEPT_SECONDS, Reason, Trash, TrashError, Version};
use crate::sync::trash_script::{self, trash_functions, trash_keep};
use crate::sync::{Item, ItemKind};

/// What a sync does to the dock's files: `$4` says what; then come the directories that it empties.
const TAKE: &str = concat!(
    in_workspace!(""),
    trash_functions!(),
    r#"trash_open "$1" || exit 1
xargs -0 sh -c '
kept=$1 how=$2 w=$PWD r=0
shift 2"#,
    trash_keep!(),
    r#"
for p; do
    into=${p%/*}/
    into=${into#./}
    cd "$w/$into" || exit
    case $how in
    remove) keep removed "${p##*/}" && rm -f -- "${p##*/}" || r=1 ;;
    replace) keep overwritten "${p##*/}" || r=1 ;;
    esac
done
exit "$r"' sh "$PWD/$trash_entry" "$4" || exit 1
shift 4
[ $# -eq 0 ] || printf './%s\000' "$@" | trash_rmdir
"#
);

const HOSTILE: [&str; 12] = [
    "a",
    "-rf",
    "--",
    "with blank",
    "line\nfeed",
    "back\\slash",
    "qu'ote\"s",
    "$(id)",
    "sub/.hidden/deep",
    "sub/-n",
    "sub/ lead",
    "sub/other/é",
];

impl Pair {
    fn state(&self) -> PathBuf {
        self.root.path().join("state")
    }

    fn local(&self) -> Local {
        Local::open(&self.here()).unwrap()
    }

    fn trash(&self, dock: Option<&str>) -> Trash {
        Trash::open(&self.state(), self.local().root(), dock)
    }

    /// Removes files here as a sync would, those that lie deepest first.
    fn take_here(&self, trash: &mut Trash, paths: &[&str]) {
        let local = self.local();
        let mut items: Vec<(Vec<u8>, Item)> = paths.iter().map(|path| (bytes(path), self.item(path))).collect();
        items.sort_by(|a, b| b.0.cmp(&a.0));
        let wanted = items.iter().map(|(path, item)| (path, item, Reason::Removed));
        let kept = trash.keep_all(&local, wanted);
        assert!(kept.refused.is_empty(), "{:?}", kept.refused);
        for (path, _) in items {
            assert!(local.remove(&path, &kept.items[&path]).unwrap());
        }
    }

    fn item(&self, path: &str) -> Item {
        self.local().look(path.as_bytes()).unwrap().unwrap()
    }

    /// Runs a script in the workspace as a sync would, with these folders before all others in PATH.
    fn run(&self, script: &str, arguments: &[&str], stdin: &[u8], before: Option<&Path>) -> (bool, Vec<u8>) {
        let mark = read(&self.there(), ".dockerutils-sync/owner");
        let tools = self.shell.tools.path();
        let path = before.map_or_else(|| tools.clone(), |before| format!("{}:{tools}", before.display()));
        let shell = path.split(':').map(|folder| Path::new(folder).join("sh"));
        let shell = shell.clone().find(|shell| shell.exists()).unwrap();
        let mut child = std::process::Command::new(shell)
            .args(["-c", script, "sh", "0123456789abcdef"])
            .arg(self.there())
            .arg(mark.lines().next().unwrap())
            .args(arguments)
            .env_clear()
            .env("PATH", path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // A script that refuses reads nothing.
        let _ = child.stdin.take().unwrap().write_all(stdin);
        let output = child.wait_with_output().unwrap();
        let said = output
            .stdout
            .strip_prefix(b"dockerutils-sync 0123456789abcdef\n")
            .unwrap();
        (output.status.success(), said.to_vec())
    }

    fn take_there(&self, how: &str, paths: &[&str], directories: &[&str], before: Option<&Path>) -> bool {
        let stdin: Vec<u8> = paths
            .iter()
            .flat_map(|path| format!("./{path}\0").into_bytes())
            .collect();
        self.run(TAKE, &[&[how], directories].concat(), &stdin, before).0
    }

    /// The entry that was made last in the dock's trash, made so many seconds older.
    fn age_there(&self, seconds: i64) {
        let trash = self.there().join(".dockerutils-sync/trash");
        age(&trash, seconds);
    }
}

fn bytes(path: &str) -> Vec<u8> {
    path.as_bytes().to_vec()
}

/// Makes the newest entry of a trash so many seconds older.
fn age(trash: &Path, seconds: i64) {
    let names = fs::read_dir(trash).unwrap().map(|entry| entry.unwrap().file_name());
    let newest = names.map(|name| name.into_string().unwrap()).max().unwrap();
    let (when, rest) = newest.split_once('.').unwrap();
    let older = when.parse::<i64>().unwrap() - seconds;
    fs::rename(trash.join(&newest), trash.join(format!("{older}.{rest}"))).unwrap();
}

fn paths(versions: &[Version]) -> Vec<String> {
    let paths = versions
        .iter()
        .map(|version| String::from_utf8_lossy(&version.path).into_owned());
    paths.collect()
}

fn hostile_project(root: &Path) {
    for path in HOSTILE {
        write(root, path, path);
    }
    symlink("nowhere\n", root.join("dangling")).unwrap();
    symlink("a", root.join("sub/link")).unwrap();
    fs::create_dir_all(root.join("sub/empty")).unwrap();
    for (path, mode) in [
        ("a", 0o600),
        ("-rf", 0o755),
        ("sub/-n", 0o444),
        ("sub/other", 0o750),
        ("sub/empty", 0o700),
    ] {
        fs::set_permissions(root.join(path), Permissions::from_mode(mode)).unwrap();
    }
}

/// All of it: fourteen files and links, then the directories, what is in one before it.
fn all() -> Vec<&'static str> {
    let more = ["dangling", "sub/link", "sub/.hidden", "sub/other", "sub/empty", "sub"];
    HOSTILE.into_iter().chain(more).collect()
}

#[test]
fn what_is_removed_here_is_kept_outside_of_the_project_and_comes_back_as_it_was() {
    for links in [true, false] {
        let pair = Pair::new(Tools::Machine);
        hostile_project(&pair.here());
        let before = tree(&pair.here());
        let time = fs::metadata(pair.here().join("with blank")).unwrap().mtime();
        let mut trash = pair.trash(Some("far"));
        trash.copy_only(!links);
        pair.take_here(&mut trash, &all());
        assert!(tree(&pair.here()).is_empty());
        drop(trash);
        let mode = fs::metadata(pair.state().join("trash")).unwrap().mode() & 0o777;
        assert_eq!(mode, 0o700);
        let mut trash = pair.trash(None);
        let versions = trash.list().unwrap();
        // Directories that held something that is kept come by themselves.
        let mut expected: Vec<&str> = all()[..14].to_vec();
        expected.push("sub/empty");
        expected.sort_unstable();
        let mut found = paths(&versions);
        found.sort_unstable();
        assert_eq!(found, expected);
        assert!(versions.iter().all(|version| version.dock.as_deref() == Some("far")));
        let chosen = trash::chosen(&versions, &[]);
        let restored = trash.restore(&pair.local(), &chosen).unwrap();
        assert!(restored.troubles.is_empty(), "{:?}", restored.troubles);
        assert_eq!(restored.done.len(), 15);
        assert_eq!(tree(&pair.here()), before, "links: {links}");
        let since = fs::metadata(pair.here().join("with blank")).unwrap().mtime();
        assert!(since >= time, "it counts as changed: {since} {time}");
        assert_eq!(fs::metadata(pair.here().join("a")).unwrap().nlink(), 1);
        assert!(trash.list().unwrap().is_empty());
        assert_eq!(
            fs::read_dir(trash.directory()).unwrap().count(),
            0,
            "no empty entry stays"
        );
    }
}

#[test]
fn what_is_overwritten_here_is_kept_and_a_restore_keeps_what_it_replaces() {
    for links in [true, false] {
        let pair = Pair::new(Tools::Machine);
        write(&pair.here(), "src/a", "first");
        let local = pair.local();
        let put = |text: &str, trash: &mut Trash| {
            let stage = local.stage().unwrap();
            stage.create("new").unwrap().write_all(text.as_bytes()).unwrap();
            let kept = trash
                .keep(&local, b"src/a", &pair.item("src/a"), Reason::Overwritten)
                .unwrap();
            trash.settle().unwrap();
            local.put(b"src/a", "new", &stage, Some(&kept)).unwrap();
        };
        let mut trash = pair.trash(Some("far"));
        trash.copy_only(!links);
        put("second", &mut trash);
        trash.begin();
        put("third", &mut trash);
        drop(trash);
        let mut trash = pair.trash(None);
        let newest = |trash: &Trash| trash::chosen(&trash.list().unwrap(), &[bytes("src")]);
        let restored = trash.restore(&local, &newest(&trash)).unwrap();
        assert_eq!((restored.done.len(), restored.bytes), (1, 6));
        assert_eq!(read(&pair.here(), "src/a"), "second");
        // What was there was kept, and is the newest of this path; no sync took it.
        let versions = trash.list().unwrap();
        assert_eq!(versions.len(), 2);
        assert!(versions[0].is_by_restore() && versions[0].reason == Reason::Overwritten);
        assert_eq!(trash::chosen(&versions, &[])[0].item.stamp.size, 5);
        trash.begin();
        let restored = trash.restore(&local, &trash::chosen(&versions, &[])).unwrap();
        assert_eq!(read(&pair.here(), "src/a"), "first");
        assert_eq!(restored.done.len(), 1);
        // The same again is nothing to do, and is not kept twice.
        let back = trash::chosen(&trash.list().unwrap(), &[bytes("src/a")]);
        write(&pair.here(), "src/a", "second");
        let restored = trash.restore(&local, &back).unwrap();
        assert_eq!((restored.done.len(), restored.same.len()), (0, 1));
        assert_eq!(trash.list().unwrap().len(), 1);
    }
}

#[test]
fn what_changed_meanwhile_is_neither_kept_nor_taken() {
    let pair = Pair::new(Tools::Machine);
    for path in ["edited", "gone", "other", "plain"] {
        write(&pair.here(), path, path);
    }
    let listed: Vec<(Vec<u8>, Item)> = ["edited", "gone", "other", "plain"]
        .iter()
        .map(|path| (bytes(path), pair.item(path)))
        .collect();
    write(&pair.here(), "edited", "by somebody");
    fs::remove_file(pair.here().join("gone")).unwrap();
    fs::remove_file(pair.here().join("other")).unwrap();
    symlink("plain", pair.here().join("other")).unwrap();
    let mut trash = pair.trash(Some("far"));
    let wanted = listed.iter().map(|(path, item)| (path, item, Reason::Removed));
    let kept = trash.keep_all(&pair.local(), wanted);
    assert_eq!(kept.items.keys().collect::<Vec<_>>(), [b"plain"]);
    assert!(
        kept.refused
            .values()
            .all(|error| matches!(error, TrashError::Meanwhile))
    );
    assert_eq!(kept.refused.len(), 3);
    // Saved after it was kept: it is not removed, and what was kept is given up.
    write(&pair.here(), "plain", "saved");
    assert!(pair.local().remove(b"plain", &kept.items[&bytes("plain")]).is_err());
    trash.release(b"plain", Reason::Removed);
    assert!(pair.trash(None).list().unwrap().is_empty());
    assert_eq!(read(&pair.here(), "plain"), "saved");
}

#[test]
fn the_oldest_go_first_and_what_has_no_room_stays_in_the_project() {
    let pair = Pair::new(Tools::Machine);
    for (path, size) in [("a", 400), ("b", 400), ("c", 400), ("d", 700), ("e", 1001)] {
        fs::write(pair.here().join(path), vec![b'x'; size]).unwrap();
    }
    let local = pair.local();
    for (path, seconds) in [("a", 30), ("b", 0), ("c", 0)] {
        let mut trash = pair.trash(Some("far"));
        trash.limit(KEPT_SECONDS, 1000);
        pair.take_here(&mut trash, &[path]);
        drop(trash);
        age(pair.trash(None).directory(), seconds);
    }
    let mut found = paths(&pair.trash(None).list().unwrap());
    found.sort_unstable();
    assert_eq!(found, ["b", "c"], "a went for c");
    let mut trash = pair.trash(Some("far"));
    trash.limit(KEPT_SECONDS, 1000);
    let refused = trash.keep(&local, b"e", &pair.item("e"), Reason::Removed).unwrap_err();
    assert!(refused.is_no_room(), "{refused}");
    assert_eq!(
        paths(&trash.list().unwrap()).len(),
        2,
        "nothing went for what does not fit anyway"
    );
    pair.take_here(&mut trash, &["d"]);
    assert_eq!(paths(&trash.list().unwrap()), ["d"]);
    // What this sync took itself makes no room for more of it, nor what another one is taking just now.
    write(&pair.here(), "f", &"x".repeat(400));
    let refused = trash.keep(&local, b"f", &pair.item("f"), Reason::Removed).unwrap_err();
    assert!(refused.is_no_room());
    let mut other = pair.trash(Some("near"));
    other.limit(KEPT_SECONDS, 1000);
    assert!(other.keep(&local, b"f", &pair.item("f"), Reason::Removed).is_err());
    drop(trash);
    let mut other = pair.trash(Some("near"));
    other.limit(KEPT_SECONDS, 1000);
    pair.take_here(&mut other, &["f"]);
    assert_eq!(paths(&other.list().unwrap()), ["f"]);
    drop(other);
    // And with time all goes, of other projects, too.
    age(pair.trash(None).directory(), KEPT_SECONDS + 1);
    Trash::open(&pair.state(), Path::new("/elsewhere"), Some("far")).prune();
    assert!(pair.trash(None).list().unwrap().is_empty());
    assert_eq!(fs::read_dir(pair.state().join("trash")).unwrap().count(), 0);
    assert_eq!(KEPT_BYTES, 1_000_000_000);
}

#[test]
fn a_restore_goes_through_no_link_and_replaces_no_directory() {
    let pair = Pair::new(Tools::Machine);
    let here = pair.here();
    for path in ["link/a", "file/b", "c", "d"] {
        write(&here, path, path);
    }
    let mut trash = pair.trash(Some("far"));
    pair.take_here(&mut trash, &["link/a", "link", "file/b", "file", "c", "d"]);
    let outside = pair.root.path().join("outside");
    fs::create_dir(&outside).unwrap();
    symlink(&outside, here.join("link")).unwrap();
    write(&here, "file", "a file");
    write(&here, "c/inside", "kept");
    let mut trash = pair.trash(None);
    let chosen = trash::chosen(&trash.list().unwrap(), &[]);
    let restored = trash.restore(&pair.local(), &chosen).unwrap();
    assert_eq!(paths(&restored.done), ["d"]);
    let said: Vec<&str> = restored.troubles.iter().map(|(_, why)| why.as_str()).collect();
    assert_eq!(
        said,
        [
            "c is in the way: move it, and restore again",
            "file is in the way: move it, and restore again",
            "link is in the way: move it, and restore again"
        ]
    );
    assert_eq!(fs::read_dir(outside).unwrap().count(), 0);
    assert_eq!(read(&here, "c/inside"), "kept");
    assert_eq!(paths(&trash.list().unwrap()).len(), 3, "they are still kept");
}

#[test]
fn of_a_path_the_newest_version_is_chosen_and_of_a_trash_the_last_sync() {
    let tree: crate::sync::Tree = [
        ("100.aa/removed/a/x", 1),
        ("100.aa/removed/b", 2),
        ("200.bb/overwritten/a/x", 3),
        ("200.bb/overwritten/c", 4),
        ("300.cc.restore/overwritten/c", 5),
        ("150.dd/removed/a", 6),
        ("150.ee/removed/../up", 7),
        ("150.ee/removed/.dockerutils-sync/owner", 8),
        ("150.ee/else/a", 9),
        ("x.ff/removed/a", 10),
        ("100.aa/record", 11),
    ]
    .into_iter()
    .map(|(path, size)| {
        let mut item = Item {
            kind: ItemKind::File,
            mode: 0o644,
            stamp: crate::sync::Stamp::default(),
            owner: 0,
            device: 0,
            target: None,
        };
        item.stamp.size = size;
        (bytes(path), item)
    })
    .collect();
    let versions = trash::versions(&tree);
    let sizes = |versions: &[Version]| {
        versions
            .iter()
            .map(|version| version.item.stamp.size)
            .collect::<Vec<_>>()
    };
    assert_eq!(sizes(&versions), [5, 3, 4, 6, 1, 2]);
    assert_eq!(
        sizes(&trash::chosen(&versions, &[])),
        [3, 4],
        "the last sync, and no restore"
    );
    assert_eq!(sizes(&trash::chosen(&versions, &[bytes("c")])), [5]);
    // `a` was a file for a while: what lay below it before is older.
    assert_eq!(sizes(&trash::chosen(&versions, &[bytes("a")])), [3]);
    assert_eq!(sizes(&trash::chosen(&versions, &[bytes("b"), bytes("a/x")])), [3, 2]);
    assert!(trash::chosen(&versions, &[bytes("nothing")]).is_empty());
    assert!(trash::chosen(&versions[..1], &[]).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_restored_here_is_sent_by_the_next_sync_and_not_removed_again() {
    let pair = Pair::new(Tools::Machine);
    for path in ["removed", "overwritten", "cut/short"] {
        write(&pair.here(), path, "mine");
    }
    pair.up().await;
    // Syncs that remove and overwrite, of which the last was cut before it was written down.
    let manifest = || {
        let env = Env::from_pairs([("HOME", pair.root.path().join("home").to_str().unwrap())]);
        Memory::peek(pair.local().root(), "far", &env).manifest_file()
    };
    let mut trash = pair.trash(Some("far"));
    fs::remove_file(pair.there().join("removed")).unwrap();
    fs::remove_dir_all(pair.there().join("cut")).unwrap();
    write(&pair.there(), "overwritten", "the dock's");
    let local = pair.local();
    for path in ["removed", "cut/short"] {
        trash
            .keep(&local, path.as_bytes(), &pair.item(path), Reason::Removed)
            .unwrap();
    }
    trash
        .keep(&local, b"overwritten", &pair.item("overwritten"), Reason::Overwritten)
        .unwrap();
    drop(trash);
    let before = fs::read(manifest()).unwrap();
    pair.down().await;
    assert!(!pair.here().join("removed").exists());
    for cut in [false, true] {
        if cut {
            fs::write(manifest(), &before).unwrap();
        }
        let mut trash = pair.trash(None);
        let only = match cut {
            true => vec![bytes("cut")],
            false => vec![bytes("removed"), bytes("overwritten")],
        };
        let chosen = trash::chosen(&trash.list().unwrap(), &only);
        let restored = trash.restore(&local, &chosen).unwrap();
        assert!(restored.troubles.is_empty());
        let env = Env::from_pairs([("HOME", pair.root.path().join("home").to_str().unwrap())]);
        let memory = Memory::open(local.root(), "far", &env).unwrap();
        let mut manifest = memory.manifest();
        assert_eq!(trash::forget(&mut manifest.records, &restored.contents), cut);
        memory.remember(&manifest).unwrap();
        drop(memory);
        let report = pair.down().await;
        assert!(report.is_clean() && report.done.is_empty(), "{report:?}");
        let report = pair.up().await;
        assert!(report.is_clean(), "{report:?}");
        let path = if cut { "cut/short" } else { "removed" };
        assert_eq!(read(&pair.there(), path), "mine");
        assert_eq!(read(&pair.there(), "overwritten"), "mine");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_removed_there_is_kept_beside_the_mark_and_comes_back_as_it_was() {
    for tools in BOTH {
        let pair = Pair::new(tools);
        hostile_project(&pair.here());
        pair.up().await;
        let before = tree(&pair.there());
        let directories = ["sub/other", "sub/empty", "sub/.hidden", "sub"];
        assert!(pair.take_there("remove", &all()[..14], &directories, None));
        assert!(tree(&pair.there()).is_empty(), "{tools:?}");
        let trash = pair.there().join(".dockerutils-sync/trash");
        assert_eq!(fs::metadata(&trash).unwrap().mode() & 0o777, 0o700);
        let mut session = pair.session().unwrap();
        let versions = session.kept_there().await.unwrap();
        let mut expected: Vec<&str> = all()[..14].to_vec();
        expected.push("sub/empty");
        expected.sort_unstable();
        let mut found = paths(&versions);
        found.sort_unstable();
        assert_eq!(found, expected, "{tools:?}");
        let chosen = trash::chosen(&versions, &[]);
        let restored = session.restore_there(&chosen).await.unwrap();
        assert!(restored.troubles.is_empty(), "{:?}", restored.troubles);
        assert_eq!(restored.done.len(), 15);
        assert_eq!(tree(&pair.there()), before, "{tools:?}");
        assert!(session.kept_there().await.unwrap().is_empty());
        assert_eq!(fs::read_dir(&trash).unwrap().count(), 0, "no empty entry stays");
        drop(session);
        // Nothing is lost, and nothing is left to do.
        pair.assert_in_step().await;
    }
}

/// A folder with a program that fails, and what finds it: the shell and the `xargs` of busybox ask its own tools first.
fn failing(root: &Path, name: &str) -> PathBuf {
    let folder = root.join(format!("no-{name}"));
    fs::create_dir_all(&folder).unwrap();
    for (name, program) in [("sh", "/bin/sh"), ("xargs", "/usr/bin/xargs")] {
        if !folder.join(name).exists() {
            symlink(program, folder.join(name)).unwrap();
        }
    }
    fs::write(folder.join(name), "#!/bin/sh\nexit 1\n").unwrap();
    fs::set_permissions(folder.join(name), Permissions::from_mode(0o755)).unwrap();
    folder
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_replaced_there_is_kept_while_its_path_stays_with_and_without_second_names() {
    for tools in BOTH {
        for links in [true, false] {
            let pair = Pair::new(tools);
            hostile_project(&pair.here());
            pair.up().await;
            let before = tree(&pair.there());
            let no_links = failing(pair.root.path(), "ln");
            let first = (!links).then_some(no_links.as_path());
            assert!(
                pair.take_there("replace", &all()[..14], &[], first),
                "{tools:?} {links}"
            );
            assert_eq!(tree(&pair.there()), before, "nothing leaves its place");
            // Edited in place, a second name would be, too: syncs put another file there.
            for path in &all()[..14] {
                let path = pair.there().join(path);
                fs::remove_file(&path).unwrap();
                fs::write(&path, "new").unwrap();
            }
            let mut session = pair.session().unwrap();
            let versions = session.kept_there().await.unwrap();
            assert!(versions.iter().all(|version| version.reason == Reason::Overwritten));
            assert_eq!(versions.len(), 14);
            let named: Vec<u8> = versions
                .iter()
                .flat_map(|version| [b"./", version.kept().as_slice(), b"\0"].concat())
                .collect();
            let (_, said) = pair.run(trash_script::RESTORE, &[], &named, first);
            assert_eq!(
                said.split(|byte| *byte == 0)
                    .filter(|line| line.starts_with(b"+"))
                    .count(),
                14
            );
            assert_eq!(tree(&pair.there()), before, "{tools:?} {links}");
            // What was there in their place is kept now.
            let versions = session.kept_there().await.unwrap();
            assert_eq!(versions.len(), 14);
            assert!(
                versions
                    .iter()
                    .all(|version| version.is_by_restore() && version.item.stamp.size == 3)
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_t_be_kept_there_is_said_and_stays() {
    for tools in BOTH {
        let pair = Pair::new(tools);
        write(&pair.here(), "a", "text");
        write(&pair.here(), "b", "text");
        pair.up().await;
        for how in ["remove", "replace"] {
            let folder = failing(pair.root.path(), "cp");
            fs::copy(folder.join("cp"), folder.join("ln")).unwrap();
            assert!(
                !pair.take_there(how, &["a", "b"], &[], Some(&folder)),
                "{tools:?} {how}"
            );
            assert_eq!(read(&pair.there(), "a"), "text");
        }
        // One that is gone already is said, and the others are kept.
        assert!(!pair.take_there("remove", &["a", "none", "b"], &[], None));
        assert!(!pair.there().join("a").exists() && !pair.there().join("b").exists());
        let trash = pair.there().join(".dockerutils-sync/trash");
        fs::rename(&trash, pair.root.path().join("elsewhere")).unwrap();
        symlink(pair.root.path().join("elsewhere"), &trash).unwrap();
        write(&pair.there(), "c", "text");
        assert!(!pair.take_there("remove", &["c"], &[], None), "no link is followed");
        assert!(pair.session().unwrap().kept_there().await.unwrap().is_empty());
        let (done, _) = pair.run(trash_script::RESTORE, &[], b"./1.a/removed/a\0", None);
        assert!(!done && pair.there().join("c").exists());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_there_goes_through_no_link_and_replaces_no_directory() {
    for tools in BOTH {
        let pair = Pair::new(tools);
        for path in ["link/a", "file/b", "c", "d", "same", "pipe"] {
            write(&pair.here(), path, path);
        }
        pair.up().await;
        let there = pair.there();
        let files = ["c", "d", "file/b", "link/a", "pipe", "same"];
        assert!(pair.take_there("remove", &files, &["link", "file"], None));
        let outside = pair.root.path().join("outside");
        fs::create_dir(&outside).unwrap();
        symlink(&outside, there.join("link")).unwrap();
        write(&there, "file", "a file");
        write(&there, "c/inside", "kept");
        write(&there, "same", "same");
        let status = std::process::Command::new("mkfifo")
            .arg(there.join("pipe"))
            .status()
            .unwrap();
        assert!(status.success());
        let mut session = pair.session().unwrap();
        let versions = session.kept_there().await.unwrap();
        let restored = session.restore_there(&trash::chosen(&versions, &[])).await.unwrap();
        assert_eq!(paths(&restored.done), ["d"], "{tools:?}");
        assert_eq!(paths(&restored.same), ["same"]);
        let troubles: Vec<&[u8]> = restored.troubles.iter().map(|(path, _)| path.as_slice()).collect();
        assert_eq!(troubles, [&b"c"[..], b"file/b", b"link/a", b"pipe"]);
        assert!(restored.troubles.iter().all(|(_, why)| why.contains("in the way")));
        assert_eq!(fs::read_dir(outside).unwrap().count(), 0);
        assert_eq!(read(&there, "c/inside"), "kept");
        assert_eq!(session.kept_there().await.unwrap().len(), 4, "they are still kept");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn there_too_the_oldest_go_first_and_with_time_all_do() {
    for tools in BOTH {
        let pair = Pair::new(tools);
        for path in ["a", "b", "c"] {
            fs::write(pair.here().join(path), vec![b'x'; 100 * 1024]).unwrap();
        }
        pair.up().await;
        for (path, age) in [("a", 100), ("b", 50), ("c", 0)] {
            assert!(pair.take_there("remove", &[path], &[], None));
            pair.age_there(age);
        }
        let trash = pair.there().join(".dockerutils-sync/trash");
        fs::create_dir(trash.join("1$(id).x y")).unwrap();
        fs::create_dir(trash.join("7.")).unwrap();
        let week = KEPT_SECONDS.to_string();
        let kept = async || paths(&pair.session().unwrap().kept_there().await.unwrap());
        pair.run(trash_script::PRUNE, &["0", "1000", &week], b"", None);
        assert_eq!(kept().await, ["c", "b", "a"], "{tools:?}");
        pair.run(trash_script::PRUNE, &["200", "450", &week], b"", None);
        assert_eq!(kept().await, ["c", "b"], "{tools:?}");
        pair.run(trash_script::PRUNE, &["0", "1000", "40"], b"", None);
        assert_eq!(kept().await, ["c"], "{tools:?}");
        pair.run(trash_script::PRUNE, &["2000", "1000", &week], b"", None);
        assert!(kept().await.is_empty(), "{tools:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_restored_there_is_brought_by_the_next_sync_and_not_removed_again() {
    for tools in BOTH {
        let pair = Pair::new(tools);
        for path in ["removed", "overwritten", "cut"] {
            write(&pair.here(), path, "the dock's");
        }
        pair.up().await;
        // As a sync takes it: one that was cut does not remember what it has done.
        fs::remove_file(pair.here().join("removed")).unwrap();
        assert!(pair.take_there("replace", &["overwritten"], &[], None));
        assert!(pair.take_there("remove", &["removed"], &[], None));
        write(&pair.here(), "overwritten", "mine");
        pair.up().await;
        fs::remove_file(pair.here().join("cut")).unwrap();
        assert!(pair.take_there("remove", &["cut"], &[], None));
        let mut session = pair.session().unwrap();
        let versions = session.kept_there().await.unwrap();
        let all = [bytes("removed"), bytes("overwritten"), bytes("cut")];
        let restored = session.restore_there(&trash::chosen(&versions, &all)).await.unwrap();
        assert_eq!(restored.done.len(), 3, "{tools:?} {:?}", restored.troubles);
        drop(session);
        let report = pair.up().await;
        assert!(report.is_clean() && report.done.is_empty(), "{report:?}");
        let report = pair.down().await;
        assert!(report.is_clean(), "{report:?}");
        for path in ["removed", "overwritten", "cut"] {
            assert_eq!(read(&pair.here(), path), "the dock's", "{tools:?} {path}");
        }
    }
}
