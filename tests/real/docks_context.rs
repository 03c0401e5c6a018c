//! A docker context of a dock whose agent a user's systemd starts, and one where there is no systemd, or one that can't.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use dockerutils_test_support::lab;
use dockerutils_test_support::{Outcome, wait};
use dockerutils_tests::dock_home::DockHome;
use dockerutils_tests::user_manager::UserManager;

/// A directory on PATH, of which units must keep every character.
const ODD: &str = r#"an odd %h $HOME "name" it's \n"#;

/// A home in which the lab's key logs in.
fn home() -> DockHome {
    let home = DockHome::new();
    home.use_key(&lab::engine("26").unwrap().ssh().unwrap().key, "");
    home
}

/// register-dock --make-context of the dock `far`, with such a PATH.
fn register(home: &DockHome, words: &[&str]) -> Outcome {
    let odd = home.sandbox().home().join(ODD);
    fs::create_dir_all(&odd).unwrap();
    let ssh = lab::engine("26").unwrap().ssh().unwrap();
    let path = format!("{}:relative:{}", home.path(), odd.display());
    let register = home.registration(&ssh, ssh.address, "ann", "far");
    register.args(["--make-context"]).args(words).env("PATH", path).run()
}

/// What the docker client says through the context.
fn version(home: &DockHome) -> String {
    home.bash("docker --context far version --format '{{.Server.Version}}' 2>&1")
        .stdout
}

/// Ends the agent that runs as a user would.
fn end_agent(home: &DockHome) {
    home.bash("kill $(cat \"$XDG_RUNTIME_DIR\"/dockerutils/*.lock)");
    home.no_agent_stays();
}

fn units(home: &DockHome) -> Vec<PathBuf> {
    let directory = home.sandbox().home().join(".config/systemd/user");
    let mut found = Vec::new();
    for directory in [directory.join("sockets.target.wants"), directory] {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        found.extend(entries.map(|entry| entry.path()).filter(|path| !path.is_dir()));
    }
    found
}

#[test]
fn systemd_starts_the_agent_of_a_docker_context() {
    let home = home();
    let engine = format!("{}\n", lab::engine("26").unwrap().version);
    let manager = UserManager::start(&home);
    let planned = register(&home, &["--dry-run"]);
    assert!(
        planned.stdout.contains("systemctl --user enable --now dockerutils-"),
        "{planned}"
    );
    assert!(units(&home).is_empty());
    let said = register(&home, &[]);
    assert!(
        said.stderr
            .contains("systemd starts the agent of far when something uses the context\n"),
        "{said}"
    );
    let [link, units @ ..] = &units(&home)[..] else {
        panic!("no units");
    };
    assert!(link.is_symlink() && units.len() == 2, "{units:?}");
    for unit in units {
        let text = fs::read_to_string(unit).unwrap();
        assert!(text.starts_with("# Made by register-dock"), "{text}");
        assert_eq!(fs::metadata(unit).unwrap().permissions().mode() & 0o777, 0o600);
    }
    // The one that looked at the dock need not stay.
    end_agent(&home);
    assert_eq!(version(&home), engine);
    assert_eq!(home.agents(), 1);
    // It was started with the PATH of the registration.
    let lock = home.bash("cat \"$XDG_RUNTIME_DIR\"/dockerutils/*.lock").stdout;
    let environment = fs::read_to_string(format!("/proc/{}/environ", lock.trim())).unwrap();
    let path = environment
        .split('\0')
        .find_map(|variable| variable.strip_prefix("PATH="))
        .unwrap();
    assert_eq!(
        path,
        format!("{}:{}", home.path(), home.sandbox().home().join(ODD).display())
    );
    assert!(!environment.contains("LISTEN_"), "{environment:?}");

    // Our own commands know whose socket it is, and a docked shell has the same agent.
    home.sandbox().write("docker/web/Dockerfile", "FROM scratch\n");
    let said = home.bash("set -e\nDOCKER_CONTEXT=far build-image clean\nsource dock far\ndocker version --format '{{.Server.Version}}'\ncastoff");
    assert!(said.code == 0 && said.stdout.ends_with(&engine), "{said}");
    assert_eq!(home.bash("cat \"$XDG_RUNTIME_DIR\"/dockerutils/*.lock").stdout, lock);

    // An agent that was killed, with many who need it at once; more often than systemd lets a service be started.
    for _ in 0..8 {
        let said = home.bash(
            "run=\"$XDG_RUNTIME_DIR\"/dockerutils; pkill -9 -s $(cat \"$run\"/*.lock)\nfor i in 1 2 3 4; do docker --context far version --format \
             '{{.Server.Version}}' & done; wait",
        );
        // They write side by side.
        assert_eq!(said.stdout.matches(engine.trim()).count(), 4, "{said}");
    }
    // While dockerutils is updated, the program may not be there, and who connects waits.
    let said = home.bash(
        "run=\"$XDG_RUNTIME_DIR\"/dockerutils; link=$(command -v dock-agent); mv \"$link\" \"$link.away\"; systemctl --user stop \
         'dockerutils-*.service'; pkill -9 -s $(cat \"$run\"/*.lock)\n(sleep 8; mv \"$link.away\" \"$link\") & docker --context far version \
         --format '{{.Server.Version}}'; wait; systemctl --user show --property=NRestarts --value 'dockerutils-*.service'",
    );
    assert!(said.stdout.starts_with(&engine), "{said}");
    let restarts: u32 = said.stdout[engine.len()..].trim().parse().unwrap();
    assert!(restarts > 1, "{said}");
    // Registered again while it is used.
    register(&home, &["--force"]);
    assert_eq!(version(&home), engine);

    // A restart of the machine: another manager, an empty runtime directory, and no command of ours.
    end_agent(&home);
    drop(manager);
    home.bash("rm -r \"$XDG_RUNTIME_DIR\"/*");
    let manager = UserManager::start(&home);
    wait::until("the socket listens", || {
        home.bash("test -S \"$XDG_RUNTIME_DIR\"/dockerutils/*.context.sock")
            .code
            == 0
    });
    assert_eq!(home.agents(), 0);
    assert_eq!(version(&home), engine);

    // Registered otherwise, it has another agent; the units of the one before go.
    let before = self::units(&home);
    let ssh = lab::engine("26").unwrap().ssh().unwrap();
    let register = home.registration(&ssh, ssh.address, "root", "far");
    let said = register.args(["--make-context", "--force", "--json"]).run();
    assert_eq!(said.json()["context_starts_agent"], true, "{said}");
    let after = self::units(&home);
    assert!(
        after.len() == 3 && after.iter().all(|unit| !before.contains(unit)),
        "{after:?}"
    );
    assert_eq!(version(&home), engine);

    home.program("unregister-dock")
        .arg("far")
        .any_stdout()
        .any_stderr()
        .run();
    assert!(self::units(&home).is_empty(), "{:?}", self::units(&home));
    assert_eq!(home.agents(), 0);
    let left =
        home.bash("ls \"$XDG_RUNTIME_DIR\"/dockerutils; systemctl --user list-units --all --plain 'dockerutils-*'");
    assert!(
        !left.stdout.contains("context") && left.stdout.contains("0 loaded units"),
        "{left}"
    );
    drop(manager);
}

#[test]
fn without_a_systemd_that_can_the_agent_stays_for_its_context() {
    let home = home();
    let engine = format!("{}\n", lab::engine("26").unwrap().version);
    const SAID: &str = "the context answers only while the agent of far runs, and no systemd starts it here: after a restart of \
                        this machine, source dock far starts it, or any command with --dock far\n";
    let said = register(&home, &[]);
    assert!(said.stderr.contains(SAID) && !said.stderr.contains("warning"), "{said}");
    assert!(units(&home).is_empty());
    assert_eq!(version(&home), engine);

    // A manager that does not do what it is asked for, and one that hangs.
    let runtime = home.sandbox().project().with_file_name("runtime");
    fs::create_dir_all(runtime.join("systemd")).unwrap();
    let _manager = UnixListener::bind(runtime.join("systemd/private")).unwrap();
    let directory = home.sandbox().home().join(".config/systemd/user");
    let stand_in = home.sandbox().write(
        "../home/bin/systemctl",
        format!(
            "#!/bin/sh\necho \"$*\" >>\"$HOME/calls\"\ncase $2 in\nshow) echo /etc/systemd/user {};;\nenable) echo \"Failed: no room\" >&2; \
             exit 1;;\nesac\n",
            directory.display()
        ),
    );
    fs::set_permissions(&stand_in, fs::Permissions::from_mode(0o755)).unwrap();
    let said = register(&home, &["--force"]);
    assert!(said.stderr.contains(SAID), "{said}");
    assert!(
        said.stderr.contains(
            "systemd can't start the agent of far for its docker context: systemctl --user enable --now dockerutils-"
        ) && said.stderr.contains(".socket failed: Failed: no room"),
        "{said}"
    );
    assert!(units(&home).is_empty(), "{:?}", units(&home));
    let calls = home.sandbox().read("../home/calls");
    assert!(calls.lines().all(|call| call.starts_with("--user ")), "{calls}");
    assert!(
        calls.contains("--user disable --now ") && calls.ends_with("--user daemon-reload\n"),
        "{calls}"
    );
    assert_eq!(version(&home), engine);

    home.sandbox()
        .write("../home/bin/systemctl", "#!/bin/sh\nexec sleep 1000\n");
    let began = Instant::now();
    let said = register(&home, &["--force"]);
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    assert!(said.stderr.contains(SAID), "{said}");
    assert_eq!(version(&home), engine);
}
