//! `nb-dock` with a real JupyterLab on the machine of a dock.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use dockerutils_test_support::lab::{self, LabEngine};
use dockerutils_test_support::{Browser, Invocation, free_port, process, wait};
use dockerutils_tests::dock_home::DockHome;
use serde_json::{Value, json};

/// How long a server may take to answer one request.
const ANSWER: Duration = Duration::from_secs(30);

/// A user of a dock whose machine has JupyterLab, with a home here whose user has servers of its own. At its end they are stopped, and
/// the user is removed.
struct Notebooks {
    home: DockHome,
    dock: LabEngine,
    user: String,
}

impl Notebooks {
    /// Whose shell there finds JupyterLab.
    fn new() -> Self {
        let notebooks = Self::without_jupyterlab();
        notebooks.as_root("echo 'PATH=/opt/jupyter/bin:$PATH' >> /home/$1/.profile");
        notebooks
    }

    /// Who finds none.
    fn without_jupyterlab() -> Self {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let dock = lab::engine("26").unwrap();
        dock.jupyterlab().unwrap();
        let ssh = dock.ssh().unwrap();
        let home = DockHome::new();
        home.use_key(&ssh.key, "");
        let notebooks = Self {
            home,
            dock,
            user: format!("nb{}x{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed)),
        };
        notebooks.as_root(
            "useradd --create-home --shell /bin/bash $1 && usermod --password '*' $1 \
             && cp -r /home/bob/.ssh /home/$1/ && chown -R $1 /home/$1/.ssh",
        );
        notebooks.register("far", ssh.address);
        notebooks
    }

    fn register(&self, moniker: &str, address: SocketAddr) {
        let ssh = self.dock.ssh().unwrap();
        self.home
            .registration(&ssh, address, &self.user, moniker)
            .arg("--no-check")
            .run();
    }

    /// Runs a script on the dock's machine as root; `$1` is the user.
    fn as_root(&self, script: &str) -> String {
        let mut sh = self.dock.exec("sh").unwrap();
        process::capture_text(sh.args(["-c", script, "sh", &self.user])).unwrap()
    }

    fn nb_dock(&self) -> Invocation<'_> {
        self.home
            .program("nb-dock")
            .env("LOGNAME", &self.user)
            .limit(Duration::from_secs(180))
            .any_stderr()
    }

    /// Starts one that stays, and returns what it says of it.
    fn detached(&self, words: &[&str]) -> Value {
        let started = self
            .nb_dock()
            .args(["far", "--detach", "--json"])
            .args(words)
            .any_stdout();
        started.run().json()
    }

    fn listed(&self) -> Value {
        self.nb_dock()
            .args(["far", "--list", "--json"])
            .any_stdout()
            .run()
            .json()
    }

    fn stop(&self) {
        self.nb_dock().args(["far", "--stop"]).any_stdout().run();
    }

    /// The ports on which the user's processes there listen.
    fn ports(&self) -> String {
        self.as_root("ss -Hltne | grep \"uid:$(id -u $1) \" || true")
    }

    /// Whether nothing of a server is left on the dock.
    fn leaves_nothing(&self) {
        wait::until("the processes there have ended", || {
            self.as_root("pgrep -u $1 -f jupyter || true").is_empty()
        });
        let left = self.as_root(
            "ls /home/$1/.local/state/dockerutils/notebooks; find /tmp -user $1 -name 'dockerutils-notebook.*'",
        );
        assert_eq!(left.trim(), "lock");
    }
}

impl Drop for Notebooks {
    fn drop(&mut self) {
        self.nb_dock().args(["far", "--stop"]).spawn().wait();
        self.as_root("pkill -KILL -u $1; userdel --force --remove $1 >/dev/null 2>&1; true");
    }
}

/// The port and the token of a server.
fn place(started: &Value) -> (u16, String) {
    let port = started["port"].as_u64().unwrap_or_else(|| panic!("{started:#}"));
    let token = started["token"].as_str().unwrap();
    let url = started["url"].as_str().unwrap();
    assert_eq!(url, format!("http://127.0.0.1:{port}/lab?token={token}"));
    (u16::try_from(port).unwrap(), token.to_owned())
}

/// What the server behind a port of this machine answers; `None` if nothing does.
fn asked(port: u16, method: &str, path: &str, token: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    stream.set_read_timeout(Some(ANSWER)).ok()?;
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: token {token}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let status = answer.split(' ').nth(1)?.parse().ok()?;
    let body = answer.split_once("\r\n\r\n")?.1.to_owned();
    Some((status, body))
}

fn answers(port: u16, token: &str) -> bool {
    asked(port, "GET", "/api/status", token).is_some_and(|(status, _)| status == 200)
}

#[test]
fn the_printed_url_leads_to_a_socket_that_is_the_users_alone_and_ctrl_c_stops_it() {
    let notebooks = Notebooks::new();
    let port = free_port().unwrap();
    let first = notebooks
        .nb_dock()
        .args(["far", "--no-browser", "--port", &port.to_string()])
        .spawn();
    first.wait_for_stderr("Ctrl-C stops it");
    // A second one finds it, and ends at once.
    let second = notebooks.nb_dock().args(["far", "--json"]).any_stdout().run().json();
    let (found, token) = place(&second);
    assert_eq!((found, second["dock"].as_str()), (port, Some("far")));
    assert!(answers(port, &token));
    let (refused, _) = asked(port, "GET", "/api/status", "another").unwrap();
    assert_eq!(refused, 403);
    let (page, text) = asked(port, "GET", "/lab", &token).unwrap();
    assert!(page == 200 && text.contains("JupyterLab"), "{page}: {text}");
    // Only the user reaches it there, and the token is on no argv.
    let there =
        notebooks.as_root("stat -c '%a %U' /tmp/dockerutils-notebook.*/s /tmp/dockerutils-notebook.* | grep $1");
    assert_eq!(
        there.lines().collect::<Vec<_>>(),
        [format!("600 {}", notebooks.user), format!("700 {}", notebooks.user)]
    );
    assert_eq!(notebooks.ports(), "", "a port is open on the dock");
    for processes in [
        notebooks.as_root("cat /proc/*/cmdline 2>/dev/null | tr '\\0' ' '"),
        process::capture_text(Command::new("sh").args(["-c", "cat /proc/*/cmdline 2>/dev/null | tr '\\0' ' '"]))
            .unwrap(),
    ] {
        assert!(!processes.contains(&token));
    }
    first.interrupt();
    let ended = first.wait();
    assert_eq!(
        (ended.code, ended.stdout.as_str()),
        (0, &*format!("{}\n", second["url"].as_str().unwrap()))
    );
    assert!(ended.stderr.contains("JupyterLab on far has ended"), "{ended}");
    assert!(asked(port, "GET", "/api", "").is_none());
    notebooks.leaves_nothing();
}

#[test]
fn one_that_is_detached_is_listed_and_stopped() {
    let notebooks = Notebooks::new();
    let started = notebooks.detached(&[]);
    let (port, token) = place(&started);
    assert!(answers(port, &token));
    assert_eq!(
        (started["kernels"].as_u64(), started["error"].is_null()),
        (Some(0), true)
    );
    assert!(started.get("container").is_none(), "{started:#}");
    let (made, kernel) = asked(port, "POST", "/api/kernels", &token).unwrap();
    assert_eq!(made, 201, "{kernel}");
    let listed = notebooks.listed();
    assert_eq!(listed[0]["kernels"], 1, "{listed:#}");
    assert_eq!(listed[0]["url"], started["url"]);
    assert_eq!(listed[0]["directory"], format!("/home/{}", notebooks.user));
    let again = notebooks.detached(&[]);
    assert_eq!(again["url"], started["url"]);
    notebooks.stop();
    assert!(
        asked(port, "GET", "/api", "").is_none(),
        "the process that led there is left"
    );
    assert_eq!(notebooks.listed(), Value::Array(Vec::new()));
    notebooks.leaves_nothing();
}

#[test]
fn a_cut_link_ends_neither_the_server_nor_the_port() {
    let notebooks = Notebooks::new();
    let ssh = notebooks.dock.ssh().unwrap();
    let link = dockerutils_test_support::SlowLink::start(ssh.address, Duration::from_millis(20), None).unwrap();
    notebooks
        .home
        .registration(&ssh, link.address(), &notebooks.user, "far")
        .args(["--no-check", "--force"])
        .run();
    let (port, token) = place(&notebooks.detached(&[]));
    let (made, kernel) = asked(port, "POST", "/api/kernels", &token).unwrap();
    assert_eq!(made, 201, "{kernel}");
    link.cut();
    // Who asks meanwhile waits for the link.
    let waiting = {
        let token = token.clone();
        std::thread::spawn(move || answers(port, &token))
    };
    link.drop_connections();
    link.mend();
    waiting.join().unwrap();
    wait::until("an answer over the new link", || answers(port, &token));
    let (_, kernels) = asked(port, "GET", "/api/kernels", &token).unwrap();
    assert!(kernels.contains("\"execution_state\""), "the kernel is gone: {kernels}");
    notebooks.stop();
    notebooks.leaves_nothing();
    // Before the link, by which its dock is reached.
    drop(notebooks);
}

#[test]
fn whichever_process_is_killed_the_next_call_goes_on_or_begins_anew() {
    let notebooks = Notebooks::new();
    let started = notebooks.detached(&[]);
    let (port, token) = place(&started);
    // The process that leads there.
    let id = started["id"].as_str().unwrap().to_owned();
    let forwarder = format!("nb-dock far --forward-server={id}");
    process::capture(Command::new("pkill").args(["-KILL", "-f", &forwarder])).unwrap();
    wait::until("it leads there no more", || !answers(port, &token));
    let again = notebooks.detached(&[]);
    // Another test may have taken the port meanwhile.
    let (port, same) = place(&again);
    assert_eq!(same, token, "another server");
    assert!(answers(port, &token));
    // The agent.
    for pid in notebooks.agent_processes() {
        process::capture(Command::new("kill").args(["-KILL", &pid])).unwrap();
    }
    wait::until("an answer by a new agent", || answers(port, &token));
    // The server.
    notebooks.as_root("pkill -KILL -u $1 -f jupyter-lab");
    wait::until("it leads there no more", || !answers(port, &token));
    assert_eq!(notebooks.listed(), Value::Array(Vec::new()));
    let anew = notebooks.detached(&[]);
    let (port, other) = place(&anew);
    assert_ne!(other, token);
    assert!(answers(port, &other));
    notebooks.stop();
    notebooks.leaves_nothing();
}

impl Notebooks {
    /// The processes of this home's agents.
    fn agent_processes(&self) -> Vec<String> {
        let runtime = self.home.sandbox().project().join("../runtime").canonicalize().unwrap();
        let script = "for p in /proc/[0-9]*; do if tr '\\0' '\\n' < $p/environ 2>/dev/null | grep -qxF \"XDG_RUNTIME_DIR=$0\" \
                      && grep -q dock-agent $p/cmdline; then echo ${p#/proc/}; fi; done";
        let found = process::capture_text(Command::new("sh").args(["-c", script]).arg(runtime)).unwrap();
        found.lines().map(str::to_owned).collect()
    }
}

#[test]
fn what_is_missing_is_said_with_the_line_that_helps() {
    let notebooks = Notebooks::without_jupyterlab();
    let refused = |words: &[&str], parts: &[&str]| {
        let said = notebooks.nb_dock().arg("far").args(words).spawn().wait();
        assert_ne!(said.code, 0, "{said}");
        for part in parts {
            assert!(said.stderr.contains(part), "{part}: {said}");
        }
    };
    refused(
        &[],
        &[
            "there is no JupyterLab on dock \"far\"",
            "pip install jupyterlab', then nb-dock again",
        ],
    );
    refused(
        &["--env", "torch"],
        &["there is no environment \"torch\" on dock \"far\""],
    );
    notebooks
        .as_root("mkdir -p /home/$1/venvs/bare && touch /home/$1/venvs/bare/pyvenv.cfg && chown -R $1 /home/$1/venvs");
    refused(&["--env", "torch"], &["hint: it has ", "/venvs/bare"]);
    refused(
        &["--env", "bare"],
        &[
            "/venvs/bare of dock \"far\" has no JupyterLab",
            "/venvs/bare/bin/python -m pip install",
        ],
    );
    notebooks.as_root(
        "for e in one two; do ln -s /opt/jupyter /home/$1/venvs/$e; done; \
         mkdir -p /home/$1/miniforge3/conda-meta /home/$1/miniforge3/bin && ln -s /opt/jupyter/bin/* /home/$1/miniforge3/bin/",
    );
    refused(
        &[],
        &[
            "several environments on dock \"far\" have JupyterLab",
            "hint: nb-dock far --env /home/",
        ],
    );
    notebooks.leaves_nothing();
    // Conda's base, and one by its name.
    for (name, prefix) in [("base", "miniforge3"), ("two", "venvs/two")] {
        let started = notebooks.detached(&["--env", name]);
        let (port, token) = place(&started);
        assert!(answers(port, &token));
        assert_eq!(started["environment"], format!("/home/{}/{prefix}", notebooks.user));
    }
    // Side by side, each its own.
    let listed = notebooks.listed();
    assert_eq!(listed.as_array().unwrap().len(), 2, "{listed:#}");
    assert_ne!(listed[0]["token"], listed[1]["token"]);
    assert_ne!(listed[0]["port"], listed[1]["port"]);
    let ambiguous = notebooks.nb_dock().args(["far", "--stop"]).code(2).run();
    assert!(ambiguous.stderr.contains("nb-dock far --stop="), "{ambiguous}");
    for name in ["base", "two"] {
        notebooks
            .nb_dock()
            .args(["far", "--stop", "--env", name])
            .any_stdout()
            .run();
    }
    notebooks.leaves_nothing();
}

#[test]
fn a_project_that_was_synced_is_where_it_starts() {
    let notebooks = Notebooks::new();
    notebooks
        .home
        .sandbox()
        .write("docker/dev/Dockerfile", "FROM dockerutils-lab-base:1\n");
    notebooks.home.sandbox().write("notes.ipynb", "{}");
    let before = notebooks
        .nb_dock()
        .args(["far", "--detach", "--no-browser"])
        .any_stdout()
        .run();
    assert!(before.stderr.contains("was never synced with far"), "{before}");
    notebooks.stop();
    notebooks
        .home
        .program("sync-up")
        .args(["--dock", "far"])
        .any_stdout()
        .any_stderr()
        .run();
    let started = notebooks.detached(&[]);
    let directory = started["directory"].as_str().unwrap();
    assert!(directory.ends_with("/workspaces/tester/code/sample"), "{directory}");
    let (port, token) = place(&started);
    let (found, file) = asked(port, "GET", "/api/contents/notes.ipynb?content=0", &token).unwrap();
    assert_eq!(found, 200, "{file}");
    notebooks.stop();
    notebooks.leaves_nothing();
}

#[test]
fn a_batch_system_chooses_the_host_and_an_old_server_listens_to_the_dock_alone() {
    let notebooks = Notebooks::new();
    // What srun does, as far as it matters: another host runs the command, and shares the home.
    notebooks.as_root(
        "grep -q node7 /etc/hosts || echo '127.0.0.7 node7' >> /etc/hosts; \
         printf '%s\\n' '#!/bin/sh' 'test \"$1\" = --gres=gpu:1 || exit 9; shift' \
         'exec unshare --user --map-root-user --uts sh -c '\"'\"'hostname node7; exec \"$@\"'\"'\"' sh \"$@\"' > /home/$1/srun; \
         chmod 755 /home/$1/srun",
    );
    let launcher = format!("/home/{}/srun --gres=gpu:1", notebooks.user);
    let started = notebooks.detached(&["--launch", &launcher]);
    let (port, token) = place(&started);
    assert!(answers(port, &token));
    let listens = notebooks.ports();
    assert!(listens.contains("127.0.0.7:"), "{listens:?}");
    notebooks.nb_dock().args(["far", "--stop"]).any_stdout().run();
    notebooks.leaves_nothing();
    // One that has never heard of the option.
    notebooks.as_root(
        "mkdir -p /home/$1/.venv/bin && touch /home/$1/.venv/pyvenv.cfg; \
         printf '%s\\n' '#!/bin/sh' 'n=$#' 'for a; do case $a in --ServerApp.sock*) ;; *) set -- \"$@\" \"$a\" ;; esac; done' \
         'shift \"$n\"; exec /opt/jupyter/bin/jupyter-lab \"$@\"' > /home/$1/.venv/bin/jupyter-lab; chmod 755 /home/$1/.venv/bin/jupyter-lab",
    );
    let started = notebooks.detached(&[]);
    assert_eq!(started["environment"], format!("/home/{}/.venv", notebooks.user));
    let (port, token) = place(&started);
    assert!(answers(port, &token));
    let listens = notebooks.ports();
    assert!(
        listens.lines().all(|line| line.contains(" 127.0.0.1:")) && !listens.is_empty(),
        "{listens:?}"
    );
    notebooks.stop();
    notebooks.leaves_nothing();
}

#[test]
fn one_that_ends_at_its_start_shows_its_last_lines_and_leaves_nothing() {
    let notebooks = Notebooks::new();
    let said = notebooks
        .nb_dock()
        .args(["far", "--no-browser", "--", "--ServerApp.ip=192.0.2.1"])
        .spawn()
        .wait();
    assert_eq!(said.code, 1, "{said}");
    assert!(said.stderr.contains("JupyterLab on far ended at its start"), "{said}");
    assert!(
        said.stderr.contains("192.0.2.1") || said.stderr.contains("assign requested address"),
        "{said}"
    );
    notebooks.leaves_nothing();
    // And one that is interrupted while it starts.
    let starting = notebooks
        .nb_dock()
        .args(["far", "--no-browser", "--launch", "sh -c 'sleep 600'"])
        .spawn();
    starting.wait_for_stderr("waiting for sh -c 'sleep 600' to start it");
    starting.interrupt();
    let ended = starting.wait();
    assert_eq!(ended.code, 130, "{ended}");
    notebooks.leaves_nothing();
}

#[test]
fn where_sshd_leads_to_no_socket_it_listens_on_the_dock_alone_and_says_so() {
    let notebooks = Notebooks::new();
    let at = |lines: &[&str]| {
        let sshd = notebooks.dock.sshd(lines).unwrap();
        let registration = notebooks
            .home
            .registration(sshd.ssh(), sshd.ssh().address, &notebooks.user, "far");
        registration.args(["--no-check", "--force"]).run();
        sshd
    };
    let _sshd = at(&["AllowStreamLocalForwarding no"]);
    let running = notebooks.nb_dock().args(["far", "--no-browser"]).spawn();
    running.wait_for_stderr("the sshd of far forwards to no Unix socket");
    running.wait_for_stderr("Ctrl-C stops it");
    let listens = notebooks.ports();
    assert!(
        !listens.is_empty() && listens.lines().all(|line| line.contains(" 127.0.0.1:")),
        "{listens:?}"
    );
    // The same is found again, and nobody gets in without the token.
    let (port, token) = place(&notebooks.detached(&[]));
    assert!(answers(port, &token));
    let (refused, _) = asked(port, "GET", "/api/status", "another").unwrap();
    assert_eq!(refused, 403);
    running.interrupt();
    let ended = running.wait();
    assert_eq!(ended.code, 0, "{ended}");
    notebooks.leaves_nothing();
    // Where it leads nowhere at all, that is said, and nothing is left.
    let _sshd = at(&["AllowStreamLocalForwarding no", "AllowTcpForwarding no"]);
    let refused = notebooks.nb_dock().args(["far", "--no-browser"]).spawn().wait();
    assert_eq!(refused.code, 1, "{refused}");
    assert!(refused.stderr.contains("hint: `AllowTcpForwarding yes`"), "{refused}");
    notebooks.leaves_nothing();
}

#[test]
fn kernels_at_work_are_named_at_ctrl_c() {
    let notebooks = Notebooks::new();
    let notebook = json!({
        "cells": [{ "cell_type": "code", "execution_count": null, "id": "a", "metadata": {}, "outputs": [], "source": "" }],
        "metadata": { "kernelspec": { "display_name": "Python 3", "language": "python", "name": "python3" } },
        "nbformat": 4,
        "nbformat_minor": 5,
    });
    notebooks.as_root(&format!(
        "printf '%s' '{notebook}' > /home/$1/long.ipynb && chown $1 /home/$1/long.ipynb"
    ));
    let running = notebooks.nb_dock().args(["far", "--no-browser"]).spawn();
    running.wait_for_stderr("Ctrl-C stops it");
    let listed = notebooks.listed();
    let (port, token) = place(&listed[0]);
    let browser = Browser::start();
    browser.open(&format!("http://127.0.0.1:{port}/lab/tree/long.ipynb?token={token}"));
    browser.wait_for_notebook();
    browser.start_cell("import time; print('begun'); time.sleep(600)");
    browser.found("a cell that runs", || {
        let (_, kernels) = asked(port, "GET", "/api/kernels", &token)?;
        kernels.contains("\"busy\"").then_some(())
    });
    running.interrupt();
    let ended = running.wait();
    assert_eq!(ended.code, 0, "{ended}");
    assert!(
        ended.stderr.contains("1 kernel at work: long.ipynb (python3 is busy)"),
        "{ended}"
    );
    notebooks.leaves_nothing();
}

#[test]
fn a_second_ctrl_c_kills_a_server_that_does_not_end() {
    let notebooks = Notebooks::new();
    let running = notebooks.nb_dock().args(["far", "--no-browser"]).spawn();
    running.wait_for_stderr("Ctrl-C stops it");
    // It answers nothing any more, and takes no signal but the last one.
    notebooks.as_root("pkill -STOP -u $1 -f jupyter-lab");
    let began = Instant::now();
    running.interrupt();
    running.wait_for_stderr("Ctrl-C again kills it");
    running.interrupt();
    let ended = running.wait();
    assert_eq!(ended.code, 0, "{ended}");
    // By itself, it would have been given five seconds for each of two answers, and ten for the signal that asks.
    assert!(
        began.elapsed() < Duration::from_secs(20),
        "{:?}: {ended}",
        began.elapsed()
    );
    notebooks.leaves_nothing();
}
