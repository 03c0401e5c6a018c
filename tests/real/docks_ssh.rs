//! The commands about docks, with real docks: machines of the lab that run OpenSSH's sshd and engines of three kinds.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use dockerutils_test_support::lab::{self, LabEngine, Store, Suite, Throwaway};
use dockerutils_test_support::wait;
use dockerutils_test_support::{SlowLink, Terminal, machine, process};
use dockerutils_tests::dock_home::DockHome;
use rustix::process::Signal;
use serde_json::Value;

/// What a link that is to be cut takes for a way.
const DELAY: Duration = Duration::from_millis(20);

/// A home in which the lab's key logs in.
fn home() -> DockHome {
    let home = DockHome::new();
    home.use_key(&lab::engine("26").unwrap().ssh().unwrap().key, "");
    home
}

fn row<'a>(listed: &'a Value, moniker: &str) -> &'a Value {
    let mut rows = listed.as_array().unwrap().iter();
    rows.find(|row| row["moniker"] == moniker)
        .unwrap_or_else(|| panic!("no {moniker} in {listed:#}"))
}

#[test]
fn three_docks_are_registered_and_listed_at_once() {
    let home = home();
    for (name, user, moniker) in [
        ("26", "root", "classic"),
        ("26-containerd", "ann", "containerd"),
        ("28", "ann", "x[$(touch pwned)]"),
    ] {
        let engine = lab::engine(name).unwrap();
        let said = home.register(&engine, user, moniker);
        assert!(
            said.stdout.contains(&format!("docker {}, API ", engine.version)),
            "{said}"
        );
        assert!(said.stdout.contains(&format!("{} image store", engine.store)), "{said}");
        assert!(
            said.stdout.contains(" CPUs, ") && said.stdout.contains(" free\n"),
            "{said}"
        );
        assert!(said.stderr.contains("host key ED25519 SHA256:"), "{said}");
    }
    let listed = home.list();
    for moniker in ["classic", "containerd", "x[$(touch pwned)]"] {
        let row = row(&listed, moniker);
        assert_eq!(row["state"], "running", "{row}");
        assert!(row["disk"]["free"].as_u64().unwrap() > 0, "{row}");
        assert_eq!(row["gpus"], 0, "{row}");
    }
    let file = home.sandbox().home().join(".config/dockerutils/docks.yml");
    assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
    let said = home.bash(
        "source dock 'x[$(touch pwned)]' && docker version --format '{{.Server.Version}}' && ssh-dock id -un; castoff",
    );
    assert!(said.stderr.contains("a command comes after the dock's name"), "{said}");
    let engine = lab::engine("28").unwrap();
    assert_eq!(said.stdout, format!("{}\n", engine.version), "{said}");
    assert!(!home.sandbox().project().join("pwned").exists());
}

#[test]
fn a_host_key_that_nobody_knows_is_shown_and_trusted_only_when_asked_for() {
    let home = home();
    let ssh = lab::engine("26").unwrap().ssh().unwrap();
    let host = ssh.address.ip().to_string();
    let refused = home
        .program("register-dock")
        .args([&*host, "far", "-u", "ann"])
        .code(3)
        .stderr_has("is not known (ssh-ed25519 SHA256:")
        .stderr_has("register-dock --accept-new")
        .run();
    assert!(refused.stdout.is_empty() && home.agents() == 0, "{refused}");
    assert!(!home.sandbox().home().join(".config/dockerutils/docks.yml").exists());
    let known_hosts = home.sandbox().home().join(".ssh/known_hosts");
    assert!(!known_hosts.exists());
    home.program("register-dock")
        .args([&*host, "far", "-u", "ann", "--accept-new"])
        .any_stdout()
        .stderr_has("host key ED25519 SHA256:")
        .run();
    let known = fs::read_to_string(known_hosts).unwrap();
    let key = ssh.host_keys.iter().find(|key| known.contains(key.as_str()));
    assert!(key.is_some(), "{known}");
}

#[test]
fn who_may_not_use_the_engine_gets_the_command_that_mends_it() {
    let home = home();
    let ssh = lab::engine("26").unwrap().ssh().unwrap();
    let host = ssh.address.ip().to_string();
    home.trust(&ssh.known_hosts());
    let register = |words: &[&str]| {
        home.program("register-dock")
            .args([&*host, "bobs", "-u", "bob"])
            .args(words)
    };
    register(&[])
        .code(1)
        .stderr_has("bob may not use /var/run/docker.sock: it is for the group docker\n")
        .stderr_has(&format!(
            "hint: ssh -t bob@{host} 'sudo usermod -aG docker bob', then register-dock again\n"
        ))
        .run();
    assert!(!home.sandbox().home().join(".config/dockerutils/docks.yml").exists());
    assert_eq!(home.agents(), 0, "an agent that logged in without the rights is left");
    register(&["--no-check"]).any_stdout().any_stderr().run();
    let checked = home
        .program("ls-dock")
        .args(["--check", "bobs"])
        .code(1)
        .stdout_has("WRONG  group")
        .stdout_has("sudo usermod -aG docker bob")
        .run();
    for right in ["ok     name", "ok     route", "ok     host key", "ok     login"] {
        assert!(checked.stdout.contains(right), "{right}: {checked}");
    }
    home.program("ls-dock")
        .arg("bobs")
        .code(3)
        .stdout_has("  not permitted  ")
        .stdout_has("user bob may not use the engine of ")
        .run();
    let listed = home
        .program("ls-dock")
        .args(["bobs", "--json"])
        .code(3)
        .any_stdout()
        .run();
    let listed = &listed.json()[0];
    assert_eq!(listed["state"], "not_permitted", "{listed}");
    for (field, part) in [
        ("error", "/var/run/docker.sock is for root and group docker"),
        ("hint", "sudo usermod -aG docker bob"),
    ] {
        assert!(listed[field].as_str().unwrap().contains(part), "{listed}");
    }
    // So does whatever needs the engine.
    home.sandbox()
        .write("docker/web/Dockerfile", "FROM dockerutils-lab-base:1\n");
    for words in [&["build-image", "web"][..], &["run-image", "web", "-c", "true"]] {
        let refused = home.program(words[0]).args(&words[1..]).args(["--dock", "bobs"]);
        let refused = refused.spawn().wait();
        assert_ne!(refused.code, 0, "{refused}");
        for part in [
            "user bob may not use the engine of ",
            "group docker",
            "sudo usermod -aG docker bob",
        ] {
            assert!(refused.stderr.contains(part), "{part}: {refused}");
        }
    }
    home.program("unregister-dock")
        .arg("bobs")
        .any_stdout()
        .any_stderr()
        .run();
}

/// A user of a dock, with the lab's key and no group of its own; removed at the end.
struct Newcomer {
    dock: LabEngine,
    name: String,
}

impl Newcomer {
    fn new(dock: LabEngine) -> Self {
        let person = Self {
            name: format!("new{}", std::process::id()),
            dock,
        };
        person.as_root(
            "useradd --create-home --shell /bin/bash $1 && usermod --password '*' $1 \
             && cp -r /home/bob/.ssh /home/$1/ && chown -R $1 /home/$1/.ssh",
        );
        person
    }

    /// Runs a script there as root; `$1` is the name.
    fn as_root(&self, script: &str) {
        let mut sh = self.dock.exec("sh").unwrap();
        process::capture(sh.args(["-c", script, "sh", &self.name])).unwrap();
    }
}

impl Drop for Newcomer {
    fn drop(&mut self) {
        self.as_root("userdel --force --remove $1 >/dev/null 2>&1; true");
    }
}

#[test]
fn who_is_put_into_the_docker_group_is_let_in_by_the_next_command() {
    let home = home();
    let newcomer = Newcomer::new(lab::engine("26").unwrap());
    let ssh = newcomer.dock.ssh().unwrap();
    home.trust(&ssh.known_hosts());
    home.program("register-dock")
        .args([
            &*ssh.address.ip().to_string(),
            "far",
            "-u",
            &newcomer.name,
            "--no-check",
        ])
        .any_stdout()
        .any_stderr()
        .run();
    let source = || home.program("dock-env").arg("far").spawn().wait();
    let refused = source();
    assert_ne!(refused.code, 0, "{refused}");
    assert!(refused.stderr.contains("then run it again"), "{refused}");
    newcomer.as_root("usermod -aG docker $1");
    let now = source();
    assert_eq!(now.code, 0, "{now}");
    home.program("ls-dock")
        .args(["--check", "far"])
        .stdout_has("ok  group")
        .run();
}

#[test]
fn a_docked_shell_has_an_engine_and_goes_back() {
    let home = home();
    let engine = lab::engine("26").unwrap();
    home.register(&engine, "ann", "far");
    let ssh = engine.ssh().unwrap();
    let said = home.bash(
        "export DOCKER_HOST=tcp://before:1 DOCKER_TLS_VERIFY=1\nset -e\nsource dock far\necho \"$DOCKER_IP\"\nstat -c '%a %F' \
         \"${DOCKER_HOST#unix://}\"\ndocker version --format '{{.Server.Version}}'\ndocker run --rm dockerutils-lab-base:1 echo in a container\nls-dock \
         far >list\nssh-dock far id -un\ncastoff\necho \"$DOCKER_HOST $DOCKER_TLS_VERIFY ${DOCKER_IP-unset}\"\n",
    );
    assert_eq!(said.code, 0, "{said}");
    assert_eq!(
        said.stdout,
        format!(
            "{}\n600 socket\n{}\nin a container\nann\ntcp://before:1 1 unset\n",
            ssh.address.ip(),
            engine.version
        )
    );
    assert!(
        said.stderr
            .contains(&format!("docked to far: docker {} on ", engine.version)),
        "{said}"
    );
    assert!(home.sandbox().read("list").contains("* far "));
    assert!(home.agents() > 0, "the link is kept for a while");
    home.program("unregister-dock").arg("far").any_stdout().run();
    assert_eq!(home.agents(), 0, "unregister-dock ends the agent");
}

#[test]
fn an_agent_that_was_killed_is_started_by_the_next_command() {
    let home = home();
    home.register(&lab::engine("26").unwrap(), "ann", "far");
    let project = home.sandbox();
    project.write("docker/web/Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    project.write("docker/web/Dockerfile.dockerignore", "");
    let said = home.bash(
        "set -e\nsource dock far\nrun=$(dirname \"${DOCKER_HOST#unix://}\")\nkill -9 $(cat \"$run\"/*.lock)\nsleep 0.5\nls-dock far --json | \
         grep -c '\"running\",'\nbuild-image clean 2>&1\ncastoff\n",
    );
    assert_eq!(said.code, 0, "{said}");
    assert!(said.stdout.starts_with("1\n"), "{said}");
}

#[test]
fn an_option_chooses_the_dock_for_one_call_and_the_printed_line_goes_there() {
    let home = home();
    let engine = lab::engine("26").unwrap();
    home.register(&engine, "ann", "far");
    home.sandbox().write(
        "docker/web/Dockerfile",
        "FROM dockerutils-lab-base:1\nRUN echo h-d > /made\n",
    );
    home.sandbox().write(
        "docker/dockerutils.cfg",
        "[web]\nname = docks-ssh-option\ntag = h-d\nprefix = False\ncmd = cat /made\nvolumes_docked = -v /tmp:/docked\n",
    );
    let built = home
        .program("build-image")
        .args(["web", "--dock", "far"])
        .any_stdout()
        .any_stderr()
        .run();
    let line = built.stderr.lines().find(|line| line.contains("docker build")).unwrap();
    assert!(
        line.starts_with("DOCKER_HOST=unix://[SANDBOX]/runtime/dockerutils/"),
        "{built}"
    );
    let planned = home
        .program("run-image")
        .args(["web", "--dock", "far", "--dry-run"])
        .env("AWS_SECRET_ACCESS_KEY", "secret")
        .env("DOCKER_TLS_VERIFY", "1")
        .any_stdout()
        .run();
    assert!(
        planned.stdout.starts_with("DOCKER_TLS_VERIFY= DOCKER_HOST=unix://"),
        "{planned}"
    );
    assert!(
        !planned.stdout.contains("AWS")
            && planned.stdout.contains(" DOCK_MOUNTS=literal docker run")
            && planned.stdout.contains("-v /tmp:/docked"),
        "{planned}"
    );
    let real = planned
        .stdout
        .replace("[SANDBOX]", home.sandbox().home().parent().unwrap().to_str().unwrap());
    let pasted = home
        .program("bash")
        .args(["-c", &real.replace(" -it", "")])
        .env("DOCKER_TLS_VERIFY", "1")
        .env("DOCKER_HOST", "tcp://nowhere:1")
        .stdout("h-d\n")
        .run();
    let ours = home
        .program("run-image")
        .args(["web", "--dock", "far"])
        .env("AWS_SECRET_ACCESS_KEY", "secret")
        .stdout(&pasted.stdout)
        .any_stderr()
        .run();
    assert!(!ours.stderr.contains("AWS"), "{ours}");
    process::capture(engine.docker().args(["rmi", "docks-ssh-option:h-d"])).unwrap();
    home.program("run-image")
        .args(["web", "--dock", "fra", "--dry-run"])
        .code(125)
        .stderr_has("there is no dock \"fra\"\n\nhint: is it \"far\"?")
        .run();
}

#[test]
fn streams_of_a_command_are_clean_and_its_code_is_ours() {
    let home = home();
    home.register(&lab::engine("26").unwrap(), "ann", "far");
    let ran = home
        .program("ssh-dock")
        .args(["far", "echo out; echo err >&2; exit 7"])
        .code(7)
        .stdout("out\n")
        .stderr("err\n");
    ran.run();
    // Every byte, both ways, and the end of input is the command's.
    let said = home.bash(
        "head -c 3000000 /dev/urandom >sent\nssh-dock far cat <sent >back && cmp sent back && echo same\nssh-dock far 'wc -c' <sent\n\
         printf '\\000\\377~.\\n' | ssh-dock far 'od -An -tx1'\n",
    );
    assert_eq!(said.stdout, "same\n3000000\n 00 ff 7e 2e 0a\n", "{said}");
    // Words are joined by blanks, and the far shell splits them anew, as with ssh.
    let words = home
        .program("ssh-dock")
        .args(["far", "printf", "'%s|'", "a b", "'c d'"]);
    words.stdout("a|b|c d|").run();
    // Somebody who reads only the beginning.
    let said = home.bash("ssh-dock far 'seq 1000000' | head -1; echo ${PIPESTATUS[0]}");
    assert_eq!(said.stdout, "1\n141\n", "{said}");
    let gone = home.program("ssh-dock").args(["far", "kill -9 $$"]).code(255);
    gone.stderr_has("SIGKILL").run();
}

#[test]
fn a_terminal_has_a_size_that_follows_and_a_code() {
    let home = home();
    home.register(&lab::engine("26").unwrap(), "ann", "far");
    let mut terminal = home.program("ssh-dock").arg("far").at_terminal();
    terminal.type_in("stty size; tty\r");
    terminal.expect("30 100\r\n/dev/pts/");
    terminal.type_in("exit 5\r");
    assert_eq!(terminal.end().0, Some(5));

    let script = "ssh-dock -t far \"stty size; until stty size | grep '^41 111'; do sleep 0.1; done\"; stty -a | grep -o '[ -]icanon'";
    let bash = home.program("bash").args(["--norc", "--noprofile", "-c", script]);
    let mut terminal = bash.at_terminal();
    terminal.expect("30 100\r\n");
    terminal.resize(41, 111);
    terminal.expect("41 111\r\n");
    terminal.expect("icanon");
    let text = terminal.text().to_owned();
    assert!(text.contains(" icanon"), "the terminal was left in raw mode\n{text}");
    assert_eq!(terminal.end().0, Some(0));

    machine::require("script", &["bsdutils"], "a pseudo-terminal").unwrap();
    let said = home.bash(
        "(sleep 2; printf '\\r~.'; sleep 2) | script -qec 'ssh-dock far' /dev/null; echo \"code ${PIPESTATUS[1]}\"",
    );
    assert!(
        said.stdout.contains("was closed by ~.") && said.stdout.ends_with("code 255\n"),
        "{said}"
    );
}

#[test]
fn rsync_goes_through_ssh_dock_both_ways() {
    let home = home();
    machine::require("rsync", &["rsync"], "rsync through ssh-dock").unwrap();
    home.register(&lab::engine("26").unwrap(), "ann", "far");
    let said = home.bash(
        "set -e\nmkdir -p tree/deep\nseq 200000 >tree/numbers\nhead -c 2000000 /dev/urandom >tree/deep/noise\nln -s numbers tree/link\ntouch \
         \"tree/it's a \\$(file)\"\nto=docks-ssh-$$\nrsync -a -e ssh-dock tree/ far:$to/\necho more >>tree/numbers\nrm tree/deep/noise\nrsync -a \
         --delete -e ssh-dock tree/ far:$to/\nrsync -a -e ssh-dock far:$to/ back/\ndiff -r tree back && echo same\nrsync -a -e ssh-dock \
         tree/ root@far:/tmp/$to/\nssh-dock -l root far \"stat -c %U /tmp/$to/numbers; rm -r /tmp/$to ~ann/$to\"\nrsync -a -e ssh-dock \
         far:/no/such/place/ back/ 2>/dev/null || echo \"code $?\"\n",
    );
    assert_eq!(said.stdout, "same\nroot\ncode 23\n", "{said}");
    // What belongs to another user has an agent of its own, which unregister-dock does not know.
    let said = home.bash("pid=$(cat \"$XDG_RUNTIME_DIR\"/dockerutils/*.lock); kill $pid; sleep 1");
    assert_eq!(said.code, 0, "{said}");
}

#[test]
fn a_dock_of_the_original_works_as_it_is() {
    let home = home();
    let engine = lab::engine("26").unwrap();
    let ssh = engine.ssh().unwrap();
    home.trust(&ssh.known_hosts());
    let address = ssh.address.ip().to_string();
    home.sandbox().write(
        &format!("../home/.docker/{address}/connection_config.txt"),
        format!(
            "DOCK_USER=ann\nDOCK_MONIKER=50%\nDOCK_HOSTNAME={address}\nDOCK_IP={address}\n# x[$(touch pwned)]=1\nx[$(touch pwned)]=1\n"
        ),
    );
    let said = home.bash(&format!(
        "source dock 50% && ssh-dock '50%' id -un && docker version --format '{{{{.Server.Version}}}}'; castoff; source dock {address} && echo \
         \"$_DOCK_MONIKER\""
    ));
    assert_eq!(said.stdout, format!("ann\n{}\n[dock:50%] \n", engine.version), "{said}");
    assert!(!home.sandbox().project().join("pwned").exists());
    let said = home.program("unregister-dock").arg("50%").any_stdout().run();
    assert!(said.stdout.contains("is not a dock any more"), "{said}");
    assert_eq!(home.agents(), 0);
}

#[test]
fn a_dock_that_needs_a_person_says_so_and_nobody_is_asked() {
    let home = home();
    let ssh = lab::engine("26").unwrap().ssh().unwrap();
    home.trust(&ssh.known_hosts());
    let key = home.sandbox().project().join("locked");
    let mut keygen = Command::new("ssh-keygen");
    process::capture(
        keygen
            .args(["-q", "-t", "ed25519", "-N", "open sesame", "-f"])
            .arg(&key),
    )
    .unwrap();
    // Without the lab's key, which would log in.
    let lines = format!(
        "Host locked\n  HostName {}\n  User ann\n  IdentitiesOnly yes\n  IdentityFile {}\n",
        ssh.address.ip(),
        key.display()
    );
    home.ssh().configure(&lines).unwrap();
    home.program("register-dock")
        .args(["locked", "--no-check"])
        .any_stdout()
        .any_stderr()
        .run();
    let listed = home.list();
    let row = row(&listed, "locked");
    assert_eq!(row["state"], "needs_login", "{row}");
    assert!(row["hint"].as_str().is_some_and(|hint| !hint.is_empty()), "{row}");
}

/// What `ls-dock --check` says of this dock where sshd has these lines.
fn checked(lines: &[&str]) -> String {
    let home = home();
    let sshd = lab::engine("26").unwrap().sshd(lines).unwrap();
    let ssh = sshd.ssh();
    home.registration(ssh, ssh.address, "ann", "far").run();
    let checked = home.program("ls-dock").args(["--check", "far"]);
    checked.any_stdout().run().stdout
}

#[test]
fn the_check_tries_both_kinds_of_forwarding_and_says_how_to_allow_each() {
    let slower =
        "warning  forwarding  sshd forbids it: connections take the slower way through docker system dial-stdio";
    let no_ports = "warning  ports       sshd forbids it: ports of containers don't answer on this machine";
    // sshd forbids sockets, too, where it forbids TCP.
    for (lines, sockets, ports) in [
        (&[][..], true, true),
        (&["AllowStreamLocalForwarding no"], false, true),
        (&["AllowStreamLocalForwarding remote"], false, true),
        (&["AllowTcpForwarding no"], false, false),
        (&["AllowTcpForwarding remote"], false, false),
        (&["DisableForwarding yes"], false, false),
        (&["PermitOpen 10.0.0.1:80"], false, false),
    ] {
        let said = checked(lines);
        let has = |text: &str| said.contains(text);
        let what = format!("{lines:?}:\n{said}");
        assert_eq!(
            has("forwarding  sshd forwards to /var/run/docker.sock"),
            sockets,
            "{what}"
        );
        assert_eq!(has(slower), !sockets, "{what}");
        assert_eq!(has("ports       sshd forwards to ports"), ports, "{what}");
        assert_eq!(has(no_ports), !ports, "{what}");
        assert_eq!(has("AllowStreamLocalForwarding yes"), !sockets, "{what}");
        for mend in ["AllowTcpForwarding yes", "neither DisableForwarding nor PermitOpen"] {
            assert_eq!(has(mend), !ports, "{what}");
        }
        // What works all the same.
        assert!(has(" engine      docker 26.1") && !has("WRONG"), "{what}");
    }
}

#[test]
fn a_login_shell_that_prints_something_is_shown_where_it_is_in_the_way() {
    let home = home();
    let noisy = "ForceCommand printf '\\n\\033[1mWelcome to box\\n'; exec sh -c \"$SSH_ORIGINAL_COMMAND\"";
    let sshd = lab::engine("26").unwrap().sshd(&[noisy]).unwrap();
    home.trust(&sshd.ssh().known_hosts());
    home.sandbox().write("docker/web/Dockerfile", "FROM scratch\n");
    let address = format!("ssh://ann@{}", sshd.ssh().address);
    home.program("build-image")
        .args(["web"])
        .env("DOCKER_HOST", &address)
        .code(3)
        .stderr_has(&format!("no engine answers at {address}"))
        .stderr_has("the login shell there prints \" [1mWelcome to box\", where the engine's answer should begin")
        .stderr_has("hint: let the startup files of the shell there (~/.bashrc, ~/.zshenv) print nothing")
        .run();
    // A dock needs no login shell that is silent.
    home.program("register-dock")
        .args([&address, "far"])
        .any_stdout()
        .any_stderr()
        .run();
    home.program("build-image")
        .args(["web", "--dock", "far"])
        .any_stdout()
        .any_stderr()
        .run();
}

#[test]
fn a_docker_context_leads_to_the_dock_after_its_agent_has_ended() {
    let home = home();
    let engine = lab::engine("26").unwrap();
    let ssh = engine.ssh().unwrap();
    home.trust(&ssh.known_hosts());
    home.program("register-dock")
        .args([&*ssh.address.ip().to_string(), "far", "-u", "ann", "--make-context"])
        .any_stdout()
        .any_stderr()
        .run();
    home.sandbox().write("docker/web/Dockerfile", "FROM scratch\n");
    let said = home.bash(
        "rm -rf \"$XDG_RUNTIME_DIR/moved\"; kill $(cat \"$XDG_RUNTIME_DIR\"/dockerutils/*.lock); sleep 1; rm -f \
         \"$XDG_RUNTIME_DIR\"/dockerutils/*.dock\nDOCKER_CONTEXT=far build-image clean && docker --context far version --format \
         '{{.Server.Version}}'; unregister-dock far; docker context ls --format '{{.Name}}' | grep -c far",
    );
    assert!(
        said.stdout.contains(&format!("{}\nfar (ann@", engine.version)),
        "{said}"
    );
    assert!(said.stdout.ends_with("is not a dock any more\n0\n"), "{said}");
}

/// The containers of this user on the engine.
fn containers(engine: &LabEngine, user: &str, format: &str) -> String {
    let label = format!("label=io.dockerutils.user={user}");
    let list = ["ps", "--all", "--filter", &label, "--format", format];
    process::capture_text(engine.docker().args(list)).unwrap()
}

/// Removes those that a test left which failed before.
fn remove_containers(engine: &LabEngine, user: &str) {
    for id in containers(engine, user, "{{.ID}}").lines() {
        process::capture(engine.docker().args(["rm", "--force", id])).unwrap();
    }
}

/// Waits until no container of this user is on the engine.
fn no_container_stays(engine: &LabEngine, user: &str) {
    wait::until(format_args!("no container of {user} is left"), || {
        containers(engine, user, "{{.Names}} {{.Status}}").is_empty()
    });
}

#[test]
fn a_link_that_is_cut_in_any_phase_leaves_nothing_of_a_build_or_a_run() {
    const USER: &str = "docks-cut";
    let home = home();
    let engine = lab::engine("28").unwrap();
    remove_containers(&engine, USER);
    let link = home.register_behind_a_link(&engine, DELAY);
    let noise: Vec<u8> = (0..500_000_u32).flat_map(u32::to_le_bytes).collect();
    home.sandbox().write("data", &noise);
    let (mut cut_builds, mut cut_runs) = (0, 0);
    // No step is in the cache of an earlier time.
    let mark = SystemTime::now();
    // So many milliseconds after the start, wherever it is by then; then while the step, and the container, run.
    let phases = [Some(0), Some(100), Some(300), Some(800), None, None];
    for (round, delay) in phases.into_iter().enumerate() {
        // Found by its number, and long enough to be found on a busy machine.
        let seconds = if delay.is_some() { 1 } else { 6 };
        let sleep = |phase: usize| format!("sleep {seconds}.0{phase}{round}");
        home.sandbox().write(
            "docker/web/Dockerfile",
            format!(
                "FROM dockerutils-lab-base:1\nCOPY data /data\nRUN {}; echo {round} > /round; : '{mark:?}'\n",
                sleep(1)
            ),
        );
        let cut_after = |program: &str, arguments: &[&str], phase: usize| {
            let running = home
                .program(program)
                .args(arguments)
                .env("LOGNAME", USER)
                .limit(Duration::from_secs(90))
                .spawn();
            match delay {
                Some(delay) => std::thread::sleep(Duration::from_millis(delay)),
                None => wait_for_process(&engine, &format!("^{}", sleep(phase))),
            }
            link.drop_connections();
            running.wait()
        };
        let built = cut_after("build-image", &["web", "--dock", "far"], 1);
        let what = format!("{delay:?}: {built}");
        assert!([0, 1, 3].contains(&built.code), "{what}");
        // One that is cut is begun again, and what it had done is in the engine's cache.
        let again = built.stderr.contains("trying again");
        assert!((built.code == 0 && again) || delay.is_some(), "{what}");
        cut_builds += usize::from(built.code != 0 || again);
        assert!(built.code == 0 || built.stderr.contains("build-image: "), "{what}");
        // Nobody has to do anything for the next one.
        let again = home
            .program("build-image")
            .args(["web", "--dock", "far"])
            .env("LOGNAME", USER);
        again.any_stdout().any_stderr().run();
        let command = format!("sh -c '{}; cat /round'", sleep(2));
        let ran = cut_after("run-image", &["web", "--dock", "far", "-c", &command], 2);
        let what = format!("{delay:?}: {ran}");
        // One that runs goes on, and ends by itself; one that does not run yet is never started.
        assert!([0, 75, 125].contains(&ran.code), "{what}");
        assert!(ran.code == 75 || delay.is_some(), "{what}");
        assert!(ran.code != 0 || delay.is_some(), "{what}");
        cut_runs += usize::from(ran.code != 0);
        assert!(ran.code != 0 || ran.stdout == format!("{round}\n"), "{what}");
        no_container_stays(&engine, USER);
    }
    assert!(
        cut_builds > 1 && cut_runs > 1,
        "{cut_builds} builds and {cut_runs} runs were cut"
    );
    home.program("build-image")
        .args(["clean", "--dock", "far"])
        .env("LOGNAME", USER)
        .any_stdout()
        .any_stderr()
        .run();
}

#[test]
fn a_dock_whose_disk_is_full_says_so_and_goes_on() {
    const USER: &str = "docks-full";
    let home = home();
    let throwaway = Throwaway::start(Suite::Sid, Store::Classic, Some(300)).unwrap();
    let _link = home.register_behind_a_link(throwaway.engine(), DELAY);
    let write = |megabytes: usize| {
        let line = format!("FROM dockerutils-lab-base:1\nRUN head -c {megabytes}000000 /dev/urandom > /data\n");
        home.sandbox().write("docker/web/Dockerfile", line);
    };
    write(900);
    let build = || {
        home.program("build-image")
            .args(["web", "--dock", "far"])
            .env("LOGNAME", USER)
    };
    let outcome = build().code(1).any_stdout().any_stderr().run();
    // The file system's own word for it, by way of the step that met it.
    let said = ["No space left on device", "I/O error"]
        .iter()
        .any(|words| outcome.stderr.contains(words));
    assert!(said && outcome.stderr.contains("docker/web/Dockerfile:2"), "{outcome}");
    let listed = home.list();
    let disk = &row(&listed, "far")["disk"];
    assert!(disk["total"].as_u64().unwrap() > 0, "{disk}");
    no_container_stays(throwaway.engine(), USER);
    write(1);
    build().any_stdout().any_stderr().run();
}

/// Waits until a process with these words runs on the dock.
fn wait_for_process(engine: &LabEngine, words: &str) {
    wait::until(format_args!("{words:?} runs"), || {
        process::capture(engine.exec("pgrep").unwrap().args(["-f", words])).is_ok()
    });
}

#[test]
fn an_engine_that_ends_fails_what_runs_at_once_and_serves_again_when_it_is_back() {
    const USER: &str = "docks-restart";
    /// What hangs takes far longer.
    const SOON: Duration = Duration::from_secs(60);
    const LONG: Duration = Duration::from_secs(240);
    let home = home();
    let throwaway = Throwaway::start(Suite::Trixie, Store::Classic, None).unwrap();
    let engine = throwaway.engine();
    home.register(engine, "ann", "far");
    for (signal, seconds) in [(Signal::KILL, 9871), (Signal::TERM, 9872)] {
        let lines = format!("FROM dockerutils-lab-base:1\nRUN sleep {seconds}1\n");
        home.sandbox().write("docker/slow/Dockerfile", lines);
        let lines = format!("FROM dockerutils-lab-base:1\nRUN echo {seconds} > /number\n");
        home.sandbox().write("docker/quick/Dockerfile", lines);
        let ours = |program: &str, words: &[&str]| {
            home.program(program)
                .args(words)
                .args(["--dock", "far"])
                .env("LOGNAME", USER)
                .any_stdout()
                .any_stderr()
        };
        ours("build-image", &["quick"]).run();
        let building = ours("build-image", &["slow"]).spawn();
        let running = ours("run-image", &["quick", "-c", &format!("sleep {seconds}2")]).spawn();
        // A shell that is docked all the while.
        let script = format!(
            "source dock far || exit 99; docker run --rm dockerutils-lab-base:1 sleep {seconds}3; echo $?; until test -e stopped-{seconds}; do \
             sleep 0.1; done; docker version >/dev/null; echo $?; touch told-{seconds}; until test -e started-{seconds}; do sleep 0.1; done; docker run --rm \
             dockerutils-lab-base:1 echo again; ssh-dock far id -un; castoff"
        );
        let plain = home.program("bash").args(["-c", &script]).limit(LONG).spawn();
        for number in 1..=3 {
            wait_for_process(engine, &format!("^sleep {seconds}{number}"));
        }
        let began = Instant::now();
        throwaway.stop_engine(signal).unwrap();
        let ran = running.wait();
        // A build that the engine has not ended itself waits for its return, until somebody has enough of that.
        building.interrupt();
        let built = building.wait();
        let what = format!("{signal:?}\n{built}\n{ran}");
        assert!(began.elapsed() < SOON, "{:?} {what}", began.elapsed());
        assert!([1, 3, 130].contains(&built.code), "{what}");
        // An engine that is stopped ends its containers first, and still tells how.
        let is_told = signal == Signal::TERM && [137, 143].contains(&ran.code);
        assert!(
            is_told || (ran.code == 75 && ran.stderr.contains("run-image: ")),
            "{what}"
        );

        // While it is away, everything says so, and soon.
        let began = Instant::now();
        home.sandbox().write(&format!("stopped-{seconds}"), "");
        let docked = home.bash("source dock far");
        assert!(
            docked.code != 0
                && docked
                    .stderr
                    .contains("/var/run/docker.sock (on the dock: sudo systemctl "),
            "{docked}"
        );
        let listed = home.list();
        assert_eq!(row(&listed, "far")["state"], "unreachable", "{listed}");
        ours("run-image", &["quick", "-q"])
            .code(125)
            .stderr_has("run-image: ")
            .run();
        home.program("ls-dock")
            .args(["--check", "far"])
            .code(1)
            .stdout_has("WRONG")
            .run();
        assert!(began.elapsed() < 2 * SOON, "{:?}", began.elapsed());

        let told = home.sandbox().project().join(format!("told-{seconds}"));
        while !told.exists() {
            assert!(began.elapsed() < 2 * SOON, "docker hangs without its engine");
            std::thread::sleep(Duration::from_millis(50));
        }

        // Back, it is used by the next command, whichever that is.
        throwaway.start_engine().unwrap();
        home.sandbox().write(&format!("started-{seconds}"), "");
        let plain = plain.wait();
        let lines: Vec<&str> = plain.stdout.lines().collect();
        let [run, version, "again", "ann"] = lines[..] else {
            panic!("{plain}");
        };
        assert!(run != "0" && version != "0", "{plain}");
        assert!(
            plain
                .stderr
                .contains("/var/run/docker.sock (on the dock: sudo systemctl "),
            "{plain}"
        );
        ours("run-image", &["quick", "-q", "-c", "cat /number"])
            .stdout(&format!("{seconds}\n"))
            .run();
        home.sandbox()
            .write("docker/slow/Dockerfile", "FROM dockerutils-lab-base:1\nRUN true\n");
        ours("build-image", &["slow"]).run();
        no_container_stays(engine, USER);
        let list = ["ps", "--all", "--quiet"];
        assert_eq!(
            process::capture_text(engine.docker().args(list)).unwrap(),
            "",
            "{signal:?}"
        );
    }
}

/// register-dock of a dock whose host key nobody knows, at a terminal, where it asks.
fn asked_for_the_host_key(home: &DockHome) -> (Terminal, String) {
    let ssh = lab::engine("26").unwrap().ssh().unwrap();
    let host = ssh.address.ip().to_string();
    let register = home.program("register-dock").args([&*host, "far", "-u", "ann"]);
    let mut terminal = register.at_terminal();
    terminal.expect(&format!("The authenticity of host '{host}' can't be established."));
    terminal.expect("ssh-ed25519 key fingerprint is SHA256:");
    terminal.expect("(yes/no/[fingerprint])? ");
    let (_, rest) = terminal
        .text()
        .split_once("fingerprint is ")
        .map(|(a, b)| (a.to_owned(), b.to_owned()))
        .unwrap();
    let fingerprint = rest.split(".\r\n").next().unwrap().to_owned();
    (terminal, fingerprint)
}

#[test]
fn a_person_at_a_terminal_is_asked_for_the_host_key() {
    for (answer, accepted) in [
        (Some("yes\r"), true),
        (Some("Yes\r"), true),
        (None, true),
        (Some("no\r"), false),
        (Some("SHA256:nonsense\r"), false),
        (Some("\r"), false),
        // The end of input.
        (Some("\u{4}"), false),
    ] {
        let home = home();
        let (terminal, fingerprint) = asked_for_the_host_key(&home);
        terminal.type_in(&answer.map_or(format!("{fingerprint}\r"), str::to_owned));
        let (code, screen) = terminal.end();
        let known = fs::read_to_string(home.ssh().known_hosts()).unwrap_or_default();
        assert_eq!(
            known.lines().count(),
            usize::from(accepted),
            "{answer:?} {known} {screen}"
        );
        assert_eq!(home.list_file().exists(), accepted, "{answer:?} {screen}");
        if accepted {
            assert_eq!(code, Some(0), "{answer:?} {screen}");
            assert!(screen.contains("far is a dock"), "{screen}");
        } else {
            assert_eq!(code, Some(3), "{answer:?} {screen}");
            assert!(screen.contains("is not known (ssh-ed25519 SHA256:"), "{screen}");
            assert_eq!(home.agents(), 0, "{answer:?}");
        }
    }
}

#[test]
fn an_interrupt_at_the_question_for_the_host_key_leaves_nothing() {
    for signal in [None, Some(Signal::TERM)] {
        let home = home();
        let (terminal, _) = asked_for_the_host_key(&home);
        terminal.type_in("ye");
        match signal {
            Some(signal) => terminal.signal(signal),
            None => terminal.type_in("\u{3}"),
        }
        let (code, screen) = terminal.end();
        assert_eq!(code, Some(130), "{signal:?} {screen}");
        assert!(
            !home.ssh().known_hosts().exists() && !home.list_file().exists(),
            "{screen}"
        );
        home.no_agent_stays();
    }
}

#[test]
fn a_passphrase_is_asked_at_the_terminal_once_and_is_not_seen() {
    let home = home();
    let ssh = lab::engine("26").unwrap().ssh().unwrap();
    home.trust(&ssh.known_hosts());
    // The lab's own key, encrypted.
    let key = home.ssh().ssh().join("locked");
    fs::copy(&ssh.key, &key).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let mut keygen = Command::new("ssh-keygen");
    process::capture(keygen.args(["-q", "-p", "-P", "", "-N", "open sesame", "-f"]).arg(&key)).unwrap();
    home.ssh()
        .configure(&format!("IdentityFile {}", key.display()))
        .unwrap();
    let link = SlowLink::start(ssh.address, Duration::ZERO, None).unwrap();
    home.registration(&ssh, link.address(), "ann", "far")
        .arg("--no-check")
        .run();
    let script = "source dock far || exit; docker version --format '{{.Server.Os}}'; echo ready; until test -e go; do sleep 0.1; \
                  done; docker version --format '{{.Server.Os}}'; ssh-dock far id -un; castoff";
    let mut terminal = home
        .program("bash")
        .args(["--norc", "--noprofile", "-c", script])
        .at_terminal();
    for answer in ["wrong", "open sesame"] {
        terminal.expect("Enter passphrase for key '");
        terminal.wait_for_silence();
        terminal.type_in(&format!("{answer}\r"));
    }
    terminal.expect("docked to far: ");
    terminal.expect("linux\r\nready\r\n");
    // A link that breaks is made again, and the agent still has the key.
    link.drop_connections();
    home.sandbox().write("go", "");
    let (code, screen) = terminal.end();
    assert_eq!(code, Some(0), "{screen}");
    assert!(screen.ends_with("ready\r\nlinux\r\nann\r\n"), "{screen}");
    assert!(!screen.contains("sesame") && !screen.contains("wrong"), "{screen}");
}
