//! Bind mounts of any tool on a dock when something goes wrong: links that are cut, projects that move, two machines with one
//! project, and containers that mean harm. Nothing is lost, nothing is overwritten, and nothing is followed out of the project.

use std::fs;
use std::thread;
use std::time::Duration;

use dockerutils_test_support::lab;
use dockerutils_test_support::{Sandbox, SlowLink, wait};
use dockerutils_tests::dock_home::DockHome;

use super::any_tool::{Docked, IMAGE};
use super::sync::noise;

/// A link to the dock of the lab, on which 5 MB take a second.
fn link() -> SlowLink {
    let address = lab::engine("26").unwrap().ssh().unwrap().address;
    SlowLink::start(address, Duration::from_millis(10), Some(40_000_000)).unwrap()
}

#[test]
fn a_link_that_breaks_while_the_project_is_sent_delays_the_container_and_no_more() {
    let link = link();
    let docked = Docked::at("cut", Some(link.address()));
    docked.home.sandbox().write("a", "a");
    docked.bash("sync-up");
    let run = format!("docker run --rm -v \"$PWD\":/app {IMAGE} sh -c 'sha256sum < /app/large; echo made > /app/made'");
    for breaks in 0..2_u64 {
        let large = noise(10_000_000, breaks);
        docked.home.sandbox().write("large", &large);
        let _ = fs::remove_file(docked.home.sandbox().project().join("made"));
        let before = link.bytes().0;
        let outcome = thread::scope(|scope| {
            let running = scope.spawn(|| docked.bash(&format!("{run}\ncat made; sha256sum < large")));
            wait::until("half of the file is on its way", || link.bytes().0 > before + 4_000_000);
            // A router that forgets its connections; and a cable that is plugged in elsewhere.
            if breaks == 1 {
                link.cut();
            }
            link.drop_connections();
            link.mend();
            running.join().unwrap()
        });
        let lines: Vec<&str> = outcome.stdout.lines().filter(|line| !line.contains("far")).collect();
        assert_eq!(outcome.code, 0, "{breaks} {outcome}");
        assert!(lines.len() >= 3, "{breaks} {outcome}");
        assert_eq!(lines[lines.len() - 2], "made", "{breaks} {outcome}");
        let sums: Vec<&&str> = lines.iter().filter(|line| line.ends_with("  -")).collect();
        assert!(sums.len() == 2 && sums[0] == sums[1], "{breaks} {outcome}");
    }
}

#[test]
fn a_project_that_moves_while_a_container_runs_loses_nothing_and_another_in_its_place_gets_nothing() {
    let docked = Docked::new("moved");
    let sandbox = docked.home.sandbox();
    sandbox.write("words", "here\n");
    docked.bash("sync-up");
    let started = docked.bash(&format!(
        "docker run -d --name \"$MARK\" -v \"$PWD\":/app {IMAGE} sh -c 'until test -e /tmp/go; do sleep 0.1; done; echo made > /app/made; echo \
         there > /app/words' >/dev/null && until ls-dock --mounts | grep -q 'kept in step'; do sleep 0.2; done"
    ));
    assert_eq!(started.code, 0, "{started}");
    let (root, moved) = (sandbox.project(), sandbox.project().with_file_name("moved"));
    fs::rename(root, &moved).unwrap();
    fs::create_dir(root).unwrap();
    sandbox.write("words", "another project's\n");
    sandbox.write("secret", "never sent\n");
    docked.home.bash("git init --quiet");
    let ended = docked.bash("docker exec \"$MARK\" touch /tmp/go && docker wait \"$MARK\"");
    assert_eq!((ended.code, ended.stdout.as_str()), (0, "0\n"), "{ended}");
    // A new container in its place asks for a person's word.
    let refused = docked.bash(&format!("docker run --rm -v \"$PWD\":/app {IMAGE} ls /app"));
    assert_eq!(refused.code, 125, "{refused}");
    assert!(refused.stdout.contains("sync-up"), "{refused}");
    docked.bash("docker rm -fv \"$MARK\"");
    assert_eq!(docked.read("words"), "another project's\n");
    assert!(!root.join("made").exists());
    assert_eq!(fs::read_to_string(moved.join("words")).unwrap(), "here\n");
    assert_eq!(
        docked.there("cat \"$1/made\" \"$1/words\"; ls -A \"$1\" | grep -c secret || true"),
        "made\nthere\n0"
    );
    // Back in its place, it is the project that was sent.
    fs::remove_dir_all(root).unwrap();
    fs::rename(&moved, root).unwrap();
    let back = docked.bash("sync-down && cat made words");
    assert!(back.stdout.ends_with("made\nthere\n"), "{back}");
}

#[test]
fn the_same_project_on_two_machines_is_not_mixed_on_one_dock() {
    let first = Docked::new("laptop");
    first.home.sandbox().write("a", "first's\n");
    first.bash("sync-up");
    // The same user and the same name of the project, in another home.
    let home = DockHome::of(Sandbox::named(&first.mark));
    let second = Docked::of(home, "26", first.mark.clone(), None);
    second.home.sandbox().write("a", "second's\n");
    let said = second.bash(&format!("sync-up; docker run --rm -v \"$PWD\":/app {IMAGE} cat /app/a"));
    assert_eq!(said.code, 125, "{said}");
    assert!(said.stdout.contains("is the copy of"), "{said}");
    assert!(said.stdout.contains("register-dock --workspace"), "{said}");
    let said = first.bash(&format!(
        "docker run --rm -v \"$PWD\":/app {IMAGE} sh -c 'cat /app/a; echo b > /app/b'; cat b"
    ));
    assert_eq!(said.stdout, "first's\nb\n", "{said}");
    assert_eq!(second.read("a"), "second's\n");
    // With a workspace of its own, both work at once.
    let ssh = second.engine.ssh().unwrap();
    let another = format!("/home/ann/second-{}", second.mark);
    let register = second.home.registration(&ssh, ssh.address, "ann", "far");
    register.args(["--force", "--workspace", &another]).run();
    let said = second.bash(&format!("sync-up; docker run --rm -v \"$PWD\":/app {IMAGE} cat /app/a"));
    assert!(said.stdout.ends_with("second's\n"), "{said}");
    second.there("rm -rf /home/ann/second-*");
}

#[test]
fn a_hostile_container_writes_nothing_outside_of_the_project_and_changes_nothing_that_decides() {
    let docked = Docked::new("hostile");
    let sandbox = docked.home.sandbox();
    sandbox.write(".dockerignore", "secret\n");
    sandbox.write("secret", "kept here\n");
    sandbox.write("docker/dockerutils.cfg", "[box]\n");
    sandbox.write("a", "a\n");
    sandbox.write("dir/b", "b\n");
    sandbox.write("../home/outside/kept", "kept\n");
    docked.bash("sync-up");
    let outside = sandbox.home().join("outside").display().to_string();
    // Its own paths lead to this machine's files here.
    let deeds = format!(
        "cd /app; : > .dockerignore; echo run_args = --privileged >> docker/dockerutils.cfg; mkdir -p .git/hooks; echo evil > .git/hooks/pre-commit; chmod 755 \
         .git/hooks/pre-commit; rm -r dir; ln -s {outside} dir; ln -s {outside}/kept link; ln -s ../../../../etc up; echo evil > dir/kept 2>/dev/null; \
         echo evil > .envrc; echo done > a"
    );
    let said = docked.bash(&format!(
        "docker run --rm -v \"$PWD\":/app {IMAGE} sh -c '{deeds}'; cat a"
    ));
    assert!(said.stdout.ends_with("done\n"), "{said}");
    // And once more by what it planted: what is written there goes through a link on the dock, and not here.
    let said = docked.bash(&format!(
        "docker run --rm -v \"$PWD\":/app {IMAGE} sh -c 'rm -f /app/dir; mkdir -p /app/dir; echo evil > /app/dir/kept; echo again > /app/a'; cat a"
    ));
    assert!(said.stdout.ends_with("again\n"), "{said}");
    assert_eq!(docked.read(".dockerignore"), "secret\n");
    assert_eq!(docked.read("docker/dockerutils.cfg"), "[box]\n");
    assert_eq!(docked.read("secret"), "kept here\n");
    assert!(!sandbox.project().join(".git/hooks/pre-commit").exists());
    assert!(!sandbox.project().join(".envrc").exists());
    for name in ["dir", "link", "up"] {
        let is_link = fs::symlink_metadata(sandbox.project().join(name)).is_ok_and(|found| found.is_symlink());
        assert!(!is_link, "{name}");
    }
    assert_eq!(sandbox.read("../home/outside/kept"), "kept\n");
    assert_eq!(docked.there("find \"$1\" -name secret"), "");
}
