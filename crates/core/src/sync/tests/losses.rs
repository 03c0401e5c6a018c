//! What could lose somebody's work: snapshots, clones, mounts, power cuts, saves in the middle of a sync, removals in bulk.

use super::super::trash::Trash;
use super::*;

/// A request to remove whatever the other side has removed.
fn delete(direction: Direction) -> SyncRequest<'static> {
    SyncRequest {
        brake: None,
        ..SyncRequest::everything(direction, Brake::default())
    }
}

fn whys(report: &Report) -> Vec<(String, Why)> {
    let conflicts = report.conflicts.iter();
    conflicts
        .map(|conflict| (String::from_utf8_lossy(&conflict.path).into_owned(), conflict.why))
        .collect()
}

/// A copy of a folder with all that it has, and nothing else.
fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    let status = std::process::Command::new("cp")
        .arg("-a")
        .args([from, to])
        .status()
        .unwrap();
    assert!(status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_in_the_place_of_a_workspace_removes_and_reverts_nothing_here() {
    for tools in BOTH {
        let pair = Pair::new(tools);
        let (here, there) = (pair.here(), pair.there());
        let snapshot = pair.root.path().join("snapshot");
        for name in ["a", "b", "sub/c"] {
            write(&here, name, "old");
        }
        pair.up().await;
        pair.assert_in_step().await;
        copy(&there, &snapshot);
        write(&here, "a", "new");
        write(&here, "sent", "sent");
        pair.up().await;
        copy(&snapshot, &there);
        let before = tree(&here);
        let report = pair.sync(Direction::Both).await;
        assert_eq!(whys(&report), [("a".to_owned(), Why::BothNew)], "{tools:?}");
        fs::remove_file(here.join("a.dock")).unwrap();
        assert_eq!(tree(&here), before, "{tools:?}");
        assert_eq!(read(&there, "sent"), "sent");

        // Also where nothing but a sync-down was between: what it brought is in no snapshot.
        pair.try_sync(Direction::Up, Some(Side::Here), &[]).await.unwrap();
        pair.assert_in_step().await;
        copy(&there, &snapshot);
        write(&there, "result", "result");
        assert!(pair.down().await.is_clean());
        copy(&snapshot, &there);
        let report = pair.sync(Direction::Both).await;
        assert!(report.is_clean(), "{tools:?} {report:?}");
        assert_eq!(
            (read(&here, "result"), read(&there, "result")),
            ("result".into(), "result".into())
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_remembered_by_a_backup_another_machine_or_of_another_folder_removes_nothing() {
    let pair = Pair::new(Tools::Machine);
    let (here, there) = (pair.here(), pair.there());
    write(&here, "a", "a");
    write(&here, "b", "b");
    pair.up().await;
    write(&there, "result", "the only copy");
    pair.down().await;
    pair.assert_in_step().await;

    // A clone made anew at the same path.
    fs::remove_dir_all(&here).unwrap();
    write(&here, "a", "a");
    write(&here, "b", "b");
    let report = pair.up().await;
    assert!(report.is_clean() && report.done.is_empty(), "{report:?}");
    assert_eq!(read(&there, "result"), "the only copy");
    pair.down().await;
    pair.assert_in_step().await;

    // The memory of before, from a backup.
    let state = pair.root.path().join("home/.local/state");
    let backup = pair.root.path().join("backup");
    copy(&state, &backup);
    write(&here, "later", "later");
    pair.up().await;
    fs::remove_file(here.join("later")).unwrap();
    pair.up().await;
    write(&there, "later", "made there");
    copy(&backup, &state);
    let report = pair.sync(Direction::Both).await;
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(read(&here, "later"), "made there");

    // All of it on another machine, without the files.
    let mut session = pair.session_on("1f").unwrap();
    fs::remove_file(here.join("result")).unwrap();
    let said = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&said);
    session.notice = Arc::new(move |line| heard.lock().unwrap().push(line.to_owned()));
    let report = session
        .sync(&SyncRequest::everything(Direction::Up, Brake::default()), false)
        .await
        .unwrap();
    assert!(report.done.is_empty(), "{report:?}");
    assert!(said.lock().unwrap()[0].contains("another machine's"), "{said:?}");
    assert_eq!(read(&there, "result"), "the only copy");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_missing_mount_held_is_not_removed() {
    let as_root = |program: &str, words: &[&str], path: &Path| {
        let mut command = dockerutils_test_support::machine::as_root(program).unwrap();
        assert!(command.args(words).arg(path).status().unwrap().success(), "{program}");
    };
    for side in [Side::Here, Side::There] {
        let pair = Pair::new(Tools::Machine);
        let (here, there) = (pair.here(), pair.there());
        write(&here, "a", "a");
        fs::create_dir(here.join("data")).unwrap();
        pair.up().await;
        let (own, other, direction) = match side {
            Side::Here => (&here, &there, Direction::Up),
            Side::There => (&there, &here, Direction::Down),
        };
        let data = own.join("data");
        as_root("mount", &["-t", "tmpfs", "-o", "mode=777", "none"], &data);
        write(&data, "large/set", "the mount's");
        let synced = pair.try_sync(direction, None, &[]).await;
        as_root("umount", &[], &data);
        assert!(synced.unwrap().is_clean());
        assert_eq!(read(other, "data/large/set"), "the mount's");
        let report = pair.sync(direction).await;
        let expected: Vec<(String, Why)> = ["data/large", "data/large/set"]
            .map(|path| (path.to_owned(), Why::Mount(side)))
            .into();
        assert_eq!(whys(&report), expected);
        assert_eq!(read(other, "data/large/set"), "the mount's");
        // Another one in its place.
        as_root("mount", &["-t", "tmpfs", "-o", "mode=777", "none"], &data);
        let synced = pair.try_sync(direction, None, &[]).await;
        as_root("umount", &[], &data);
        assert_eq!(whys(&synced.unwrap()), expected);
        assert_eq!(read(other, "data/large/set"), "the mount's");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_became_empty_or_shorter_as_by_a_power_cut_is_a_conflict() {
    for side in [Side::Here, Side::There] {
        let pair = Pair::new(Tools::Machine);
        let (here, there) = (pair.here(), pair.there());
        for name in ["empty", "short", "edited"] {
            write(&here, name, "what somebody wrote");
        }
        pair.up().await;
        pair.assert_in_step().await;
        let (own, other) = match side {
            Side::Here => (&here, &there),
            Side::There => (&there, &here),
        };
        fs::write(own.join("empty"), "").unwrap();
        let cut = fs::File::options().write(true).open(own.join("short")).unwrap();
        cut.set_len(5).unwrap();
        cut.set_modified(std::time::SystemTime::now() - std::time::Duration::from_secs(3600))
            .unwrap();
        fs::write(own.join("edited"), "shorter").unwrap();
        let report = pair.sync(Direction::Both).await;
        assert_eq!(
            whys(&report),
            [
                ("empty".to_owned(), Why::Emptied(side)),
                ("short".to_owned(), Why::Shortened(side))
            ]
        );
        assert_eq!(read(other, "empty"), "what somebody wrote");
        assert_eq!(read(other, "short"), "what somebody wrote");
        assert_eq!(read(other, "edited"), "shorter");
        // The way back, and the way on.
        let back = match side {
            Side::Here => Side::There,
            Side::There => Side::Here,
        };
        pair.try_sync(Direction::Both, Some(back), &[b"empty".to_vec()])
            .await
            .unwrap();
        pair.try_sync(Direction::Both, Some(side), &[b"short".to_vec()])
            .await
            .unwrap();
        assert_eq!(read(own, "empty"), "what somebody wrote");
        assert_eq!(read(other, "short"), "what ");
        pair.assert_in_step().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_save_on_the_dock_while_files_are_put_in_place_is_a_conflict_and_stays() {
    // Busybox's shell has a `mv` of its own.
    for tools in [Tools::Machine] {
        let pair = Pair::new(tools);
        let (here, there) = (pair.here(), pair.there());
        for name in ["d1/a", "d2/b", "d3/c"] {
            write(&here, name, "old");
        }
        pair.up().await;
        pair.assert_in_step().await;
        write(&here, "d1/a", "new from here");
        write(&here, "d2/b", "new from here");
        write(&here, "d3/made", "new from here");
        // The first file that is put in place is the sign for somebody there to save others.
        pair.shell.replace(
            "mv",
            &format!(
                r#"if [ "$2" = -- ] && [ ! -e "{home}/done" ]; then
    : > "{home}/done"
    echo 'saved there' > "{there}/d2/b"
    echo 'saved there' > "{there}/d3/made"
fi
exec {mv} "$@"
"#,
                home = pair.shell.home.display(),
                there = there.display(),
                mv = pair.shell.program("mv")
            ),
        );
        let report = pair.up().await;
        assert_eq!(
            whys(&report),
            [
                ("d2/b".to_owned(), Why::BothChanged),
                ("d3/made".to_owned(), Why::BothNew)
            ],
            "{tools:?} {report:?}"
        );
        assert!(report.troubles.is_empty(), "{report:?}");
        assert_eq!(read(&there, "d1/a"), "new from here");
        for name in ["d2/b", "d3/made"] {
            assert_eq!(read(&there, name), "saved there\n", "{tools:?}");
        }
        pair.try_sync(Direction::Both, Some(Side::There), &[]).await.unwrap();
        pair.assert_in_step().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_save_between_the_last_look_and_the_rename_stays_too() {
    let pair = Pair::new(Tools::Machine);
    let (here, there) = (pair.here(), pair.there());
    for name in ["d1/replaced", "d2/removed", "d3/other"] {
        write(&here, name, "old");
    }
    pair.up().await;
    pair.assert_in_step().await;
    write(&here, "d1/replaced", "from here");
    fs::remove_file(here.join("d2/removed")).unwrap();
    write(&here, "d3/made", "from here");
    // By mv, which may not have it on the machine that runs this, or by perl.
    for (name, sign) in [("mv", "--exchange*"), ("perl", "-e*")] {
        let real = pair.shell.program(name);
        let script = format!(
            r#"save() {{ echo 'saved there' > '{far}/saved' && {mv} -T '{far}/saved' '{there}'/"$1"; }}
case "$*" in
{sign}/d1/*replaced* | {sign}replaced*/d1/) [ -e '{far}/done' ] || save d1/replaced; : > '{far}/done' ;;
-f*removed*/removed/d2/) save d2/removed ;;
-n*made*/d3/) save d3/made ;;
esac
exec {real} "$@"
"#,
            far = pair.shell.home.display(),
            there = there.display(),
            mv = pair.shell.program("mv"),
        );
        pair.shell.replace(name, &script);
    }
    let report = pair.up().await;
    assert_eq!(
        whys(&report),
        [
            ("d1/replaced".to_owned(), Why::BothChanged),
            ("d2/removed".to_owned(), Why::RemovedHere),
            ("d3/made".to_owned(), Why::BothNew)
        ],
        "{report:?}"
    );
    for name in ["d1/replaced", "d2/removed", "d3/made"] {
        assert_eq!(read(&there, name), "saved there\n", "{name}");
    }
    // Ours took nobody's place, and the old ones were replaced by those who saved.
    let kept = tree(&there.join(".dockerutils-sync/trash"));
    let kept: Vec<_> = kept.values().filter(|(_, text)| text != b"a directory").collect();
    assert!(kept.is_empty(), "{kept:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_removals_wait_for_a_persons_word_and_a_move_is_none() {
    for direction in [Direction::Down, Direction::Up] {
        let pair = Pair::new(Tools::Machine);
        let (here, there) = (pair.here(), pair.there());
        for number in 0..400 {
            write(&here, &format!("src/{number}"), &number.to_string());
        }
        pair.up().await;
        pair.assert_in_step().await;
        let (own, other) = match direction {
            Direction::Up => (&here, &there),
            _ => (&there, &here),
        };
        // Fifty are removed like one.
        for number in 0..50 {
            fs::remove_file(own.join(format!("src/{number}"))).unwrap();
        }
        assert!(pair.sync(direction).await.is_clean());
        assert_eq!(fs::read_dir(other.join("src")).unwrap().count(), 350);
        for number in 50..101 {
            fs::remove_file(own.join(format!("src/{number}"))).unwrap();
        }
        write(own, "src/added", "added");
        let report = pair.sync(direction).await;
        let held = match direction {
            Direction::Up => &report.held_there,
            _ => &report.held_here,
        };
        assert_eq!((held.len(), report.is_clean()), (51, false));
        assert_eq!(
            fs::read_dir(other.join("src")).unwrap().count(),
            351,
            "the rest travels"
        );
        // Put back, by the word of a person; and removed, by another.
        let back = match direction {
            Direction::Up => (Direction::Down, Side::There),
            _ => (Direction::Up, Side::Here),
        };
        pair.try_sync(Direction::Both, Some(back.1), &[b"src/50".to_vec()])
            .await
            .unwrap();
        let mut session = pair.session().unwrap();
        assert!(session.sync(&delete(direction), false).await.unwrap().is_clean());
        drop(session);
        assert_eq!(
            fs::read_dir(other.join("src")).unwrap().count(),
            301 - usize::from(!own.join("src/50").exists())
        );
        pair.assert_in_step().await;
        // A folder that gets another name.
        fs::rename(own.join("src"), own.join("source")).unwrap();
        assert!(pair.sync(direction).await.is_clean());
        pair.assert_in_step().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_changes_nothing_on_either_side() {
    let pair = Pair::new(Tools::Machine);
    let (here, far) = (pair.here(), pair.shell.home.clone());
    write(&here, "a", "a");
    // A project that is a workspace itself, and another sync of it that is under way.
    write(&here, ".dockerutils-sync/owner", "somebody's mark");
    let other = Local::open(&here).unwrap();
    let stage = other.stage().unwrap();
    stage.create("half").unwrap();
    let everything = |folder: &Path| {
        let mut all: Vec<PathBuf> = vec![folder.to_owned()];
        let mut at = 0;
        while let Some(path) = all.get(at).cloned() {
            at += 1;
            for entry in fs::read_dir(&path).into_iter().flatten() {
                all.push(entry.unwrap().path());
            }
        }
        all.sort();
        all
    };
    let before = (
        everything(&here),
        everything(&far),
        everything(&pair.root.path().join("home")),
    );
    for direction in [Direction::Up, Direction::Both] {
        let mut session = pair.peek().unwrap();
        let report = session
            .sync(&SyncRequest::everything(direction, Brake::default()), true)
            .await
            .unwrap();
        assert_eq!(report.done.len(), 1, "{report:?}");
        drop(session);
        let after = (
            everything(&here),
            everything(&far),
            everything(&pair.root.path().join("home")),
        );
        assert_eq!(after, before);
    }
    // And beside a sync that holds the lock.
    let holder = pair.session().unwrap();
    assert!(
        pair.peek()
            .unwrap()
            .sync(&SyncRequest::everything(Direction::Up, Brake::default()), true)
            .await
            .is_ok()
    );
    drop(holder);
    pair.up().await;
    assert!(here.join(".dockerutils-sync/owner").exists());
    assert!(stage.open("half").is_ok());
    // What a sync left behind that was killed is no other's, and goes.
    let dead = here.join(".dockerutils-sync/stage.0123456789abcdef");
    fs::create_dir(&dead).unwrap();
    other.clean();
    assert!(!dead.exists() && stage.open("half").is_ok());
    drop(stage);
    assert_eq!(fs::read_dir(here.join(".dockerutils-sync")).unwrap().count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_that_failed_in_part_is_no_sign_of_removal() {
    let pair = Pair::new(Tools::Machine);
    let (here, there) = (pair.here(), pair.there());
    for name in ["a", "mnt/b", "mnt/c"] {
        write(&here, name, name);
    }
    pair.up().await;
    let before = tree(&here);
    // As a dead FUSE mount answers; and one whose complaints do not end.
    for complaint in [
        "find: './mnt': Transport endpoint is not connected",
        "find: './mnt': No such file or directory\nfind: './mnt/b': Input/output error",
    ] {
        let find = pair.shell.program("find");
        let script = format!(
            "{find} . -path ./mnt -prune -o -path ./.dockerutils-sync -prune -o -exec stat -c \"$format\" {{}} +\nprintf '%b\\n' \"{complaint}\" >&2\nexit 1\n"
        );
        pair.shell
            .replace("find", &script.replace("$format", super::super::listing::FORMAT));
        write(&there, "new", complaint);
        for direction in [Direction::Down, Direction::Both] {
            let error = pair.try_sync(direction, None, &[]).await.unwrap_err();
            assert!(error.to_string().contains("can't be listed"), "{error}");
        }
        assert_eq!(tree(&here), before);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_sync_removes_or_replaces_is_kept_on_both_sides() {
    for tools in BOTH {
        let pair = Pair::new(tools);
        let (here, there) = (pair.here(), pair.there());
        for name in ["removed", "replaced", "sub/deep/gone", "stays"] {
            write(&here, name, &format!("{name} at first"));
        }
        pair.up().await;
        pair.assert_in_step().await;
        let state = pair.root.path().join("home/.local/state/dockerutils");
        let kept = |trash: &Path| {
            let mut all: Vec<(String, String)> = Vec::new();
            for entry in fs::read_dir(trash).into_iter().flatten() {
                let files = tree(&entry.unwrap().path());
                all.extend(
                    files
                        .into_iter()
                        .filter(|(path, (_, text))| path != b"record" && text != b"a directory")
                        .map(|(path, (_, text))| (String::from_utf8(path).unwrap(), String::from_utf8(text).unwrap())),
                );
            }
            all.sort();
            all
        };
        let expected: Vec<(String, String)> = [
            ("overwritten/replaced", "replaced at first"),
            ("removed/removed", "removed at first"),
            ("removed/sub/deep/gone", "sub/deep/gone at first"),
        ]
        .map(|(path, text)| (path.to_owned(), text.to_owned()))
        .into();
        for side in [Side::Here, Side::There] {
            let (own, other, direction) = match side {
                Side::Here => (&there, &here, Direction::Down),
                Side::There => (&here, &there, Direction::Up),
            };
            let trash = match side {
                Side::Here => fs::read_dir(state.join("trash")).ok(),
                Side::There => None,
            };
            assert!(trash.is_none(), "nothing is made before something is kept");
            fs::remove_file(own.join("removed")).unwrap();
            fs::remove_dir_all(own.join("sub")).unwrap();
            write(own, "replaced", "replaced later");
            let mut session = pair.session().unwrap();
            session.trash = Some(Trash::open(&state, session.local().root(), Some("far")));
            let report = session.sync(&delete(direction), false).await.unwrap();
            drop(session);
            assert!(report.is_clean(), "{tools:?} {report:?}");
            let trash = match side {
                Side::Here => fs::read_dir(state.join("trash"))
                    .unwrap()
                    .next()
                    .unwrap()
                    .unwrap()
                    .path(),
                Side::There => there.join(".dockerutils-sync/trash"),
            };
            assert_eq!(kept(&trash), expected, "{tools:?} {side:?}");
            assert_eq!(fs::metadata(&trash).unwrap().mode() & 0o777, 0o700);
            assert!(!other.join("sub").exists());
            // Back to where it began.
            for name in ["removed", "replaced", "sub/deep/gone"] {
                write(&here, name, &format!("{name} at first"));
            }
            pair.up().await;
            pair.assert_in_step().await;
            if side == Side::Here {
                fs::remove_dir_all(there.join(".dockerutils-sync/trash")).unwrap();
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_arrived_is_on_the_disk_of_the_dock_when_the_power_goes() {
    let as_root = |program: &str, words: &[&OsStr]| {
        let mut command = dockerutils_test_support::machine::as_root(program).unwrap();
        assert!(command.args(words).status().unwrap().success(), "{program} {words:?}");
    };
    let pair = Pair::new(Tools::Machine);
    let (here, far) = (pair.here(), pair.shell.home.join("workspaces"));
    let (image, later) = (pair.root.path().join("disk"), pair.root.path().join("disk-then"));
    fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
    fs::create_dir(&far).unwrap();
    as_root("mkfs.ext4", &["-q".as_ref(), "-F".as_ref(), image.as_ref()]);
    let mount = |image: &Path| {
        as_root("mount", &["-o".as_ref(), "loop".as_ref(), image.as_ref(), far.as_ref()]);
        as_root("chmod", &["777".as_ref(), far.as_ref()]);
    };
    let unmount = || as_root("umount", &[far.as_ref()]);
    mount(&image);
    let run = async {
        for number in 0..20 {
            write(&here, &format!("sub/{number}"), &format!("{number} at first"));
        }
        assert!(pair.up().await.is_clean());
        write(&here, "sub/7", "7 later");
        fs::write(here.join("large"), noise(3_000_000, 9)).unwrap();
        assert!(pair.up().await.is_clean());
    };
    let done = futures_util::FutureExt::catch_unwind(std::panic::AssertUnwindSafe(run)).await;
    // What the disk has at this moment is what a power cut leaves of it.
    let copied = fs::copy(&image, &later);
    unmount();
    done.unwrap();
    copied.unwrap();
    mount(&later);
    let arrived = std::panic::catch_unwind(|| tree(&pair.there()));
    let report = futures_util::FutureExt::catch_unwind(std::panic::AssertUnwindSafe(pair.sync(Direction::Both))).await;
    unmount();
    assert_eq!(arrived.unwrap(), tree(&here));
    let report = report.unwrap();
    assert!(report.is_clean() && report.done.is_empty(), "{report:?}");
}

#[test]
fn names_that_a_disk_takes_for_one_are_named_and_left_alone() {
    use super::super::plan::{Contents, Sides, plan};
    use super::super::{Item, ItemKind, Stamp, Tree, guard, obeyed};

    let item = || Item {
        kind: ItemKind::File,
        mode: 0o644,
        stamp: Stamp::default(),
        owner: 0,
        device: 0,
        target: None,
    };
    let all: Tree = ["A", "a", "dir/\u{c9}", "dir/\u{e9}", "other"]
        .map(|path| (path.as_bytes().to_vec(), item()))
        .into();
    let none = Tree::new();
    let root = tempfile::tempdir().unwrap();
    for (direction, side) in [(Direction::Down, Side::Here), (Direction::Up, Side::There)] {
        for folds in [false, true] {
            let (here, there) = match side {
                Side::Here => (&none, &all),
                Side::There => (&all, &none),
            };
            let guard = guard::Guard::new(root.path(), here, obeyed::all(root.path(), here, &[]));
            let sides = Sides {
                base: &BTreeMap::new(),
                here,
                there,
                folds: (folds && side == Side::Here, folds && side == Side::There),
                unseen: &std::collections::BTreeSet::new(),
                generated: None,
                unmade: None,
                guard: &guard,
            };
            let request = SyncRequest::everything(direction, Brake::default());
            let steps = plan(&sides, &Contents::default(), &request);
            for path in ["A", "a", "dir/\u{c9}", "dir/\u{e9}"] {
                let is_left = steps.get(path.as_bytes()) == Some(&Action::Conflict(Why::SameLetters(side)));
                assert_eq!(is_left, folds, "{direction:?} {path} {steps:?}");
            }
            assert!(matches!(steps[&b"other"[..]], Action::Send(_) | Action::Bring(_)));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_dock_refuses_to_replace_is_named_and_is_no_change() {
    for tools in BOTH {
        let pair = Pair::new(tools);
        let (here, there) = (pair.here(), pair.there());
        for name in ["d/a", "d/b"] {
            write(&here, name, "old");
        }
        pair.up().await;
        pair.assert_in_step().await;
        for name in ["d/a", "d/b"] {
            write(&here, name, "from here");
        }
        // Nobody, root included, renames what is immutable.
        let chattr = |how: &str| {
            let mut command = dockerutils_test_support::machine::as_root("chattr").unwrap();
            assert!(command.arg(how).arg(there.join("d/a")).status().unwrap().success());
        };
        chattr("+i");
        let report = pair.try_sync(Direction::Up, None, &[]).await;
        chattr("-i");
        let report = report.unwrap();
        assert!(report.conflicts.is_empty(), "{tools:?} {report:?}");
        let troubles: Vec<_> = report.troubles.iter().map(|(path, _)| path.as_slice()).collect();
        assert!(troubles.contains(&&b"d/a"[..]), "{tools:?} {report:?}");
        assert!(report.troubles[0].1.contains("not permitted"), "{tools:?} {report:?}");
        assert_eq!(read(&there, "d/a"), "old");
        assert!(pair.up().await.is_clean());
        pair.assert_in_step().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_asked_for_is_done_only_with_the_folder_that_was_synced() {
    let pair = Pair::new(Tools::Machine);
    let (here, aside) = (pair.here(), pair.root.path().join("aside"));
    write(&here, "a", "a");
    pair.up().await;
    let mut session = pair.session().unwrap();
    session.only_known = true;
    let up = SyncRequest::everything(Direction::Up, Brake::default());
    assert!(session.sync(&up, false).await.unwrap().is_clean());
    // The session has the old folder open.
    fs::rename(&here, &aside).unwrap();
    fs::create_dir(&here).unwrap();
    write(&here, "secret", "secret");
    for direction in [Direction::Up, Direction::Down, Direction::Both] {
        let request = SyncRequest::everything(direction, Brake::default());
        let error = session.sync(&request, false).await.unwrap_err();
        assert!(error.to_string().contains("another one is in its place"), "{error}");
    }
    drop(session);
    let mut session = pair.session().unwrap();
    session.only_known = true;
    assert!(session.sync(&up, false).await.is_err());
    drop(session);
    assert!(!pair.there().join("secret").exists());
    assert_eq!(read(&pair.there(), "a"), "a");
    // A person may ask for it, and from then on it is the folder.
    pair.up().await;
    let mut session = pair.session().unwrap();
    session.only_known = true;
    assert!(session.sync(&up, false).await.unwrap().is_clean());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_synced_an_empty_project_or_one_in_conflict_has_synced_it() {
    for is_empty in [true, false] {
        let pair = Pair::new(Tools::Machine);
        if !is_empty {
            write(&pair.here(), "a", "here");
            write(&pair.there(), "a", "there");
        }
        let report = pair.up().await;
        assert_eq!(report.conflicts.len(), usize::from(!is_empty));
        let mut session = pair.session().unwrap();
        session.only_known = true;
        let up = SyncRequest::everything(Direction::Up, Brake::default());
        session.sync(&up, false).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_asked_for_is_done_only_with_the_workspace_that_was_synced() {
    let pair = Pair::new(Tools::Machine);
    let (here, there) = (pair.here(), pair.there());
    write(&here, "secret", "secret");
    pair.up().await;
    let aside = pair.root.path().join("there-aside");
    fs::rename(&there, &aside).unwrap();
    // Another machine that has the dock's name now: it has nothing, or a directory, or one with a mark of its own.
    for other in [&[][..], &[""], &["", "mark"]] {
        for (step, _) in other.iter().enumerate() {
            match step {
                0 => fs::create_dir_all(&there).unwrap(),
                _ => {
                    fs::create_dir_all(there.join(".dockerutils-sync")).unwrap();
                    let mark = fs::read_to_string(aside.join(".dockerutils-sync/owner")).unwrap();
                    let changed = format!("{}{}", "0".repeat(32), &mark[32..]);
                    fs::write(there.join(".dockerutils-sync/owner"), changed).unwrap();
                }
            }
        }
        for direction in [Direction::Up, Direction::Down, Direction::Both] {
            let mut session = pair.session().unwrap();
            session.only_known = true;
            let request = SyncRequest::everything(direction, Brake::default());
            let error = session.sync(&request, false).await.unwrap_err();
            assert!(error.to_string().contains("that was last synced with it"), "{error}");
        }
        assert!(!there.join("secret").exists());
        assert_eq!(read(&here, "secret"), "secret");
    }
    // The one that was synced is.
    fs::remove_dir_all(&there).unwrap();
    fs::rename(&aside, &there).unwrap();
    let mut session = pair.session().unwrap();
    session.only_known = true;
    let up = SyncRequest::everything(Direction::Up, Brake::default());
    assert!(session.sync(&up, false).await.unwrap().is_clean());
}
