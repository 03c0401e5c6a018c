//! The lab is what it says it is: the tests that rely on it need not ask.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use dockerutils_test_support::lab::{self, Lab, LabEngine, Store, Suite, Throwaway};
use dockerutils_test_support::process::{self, capture_text};

fn docker(engine: &LabEngine, arguments: &[&str]) -> Result<String, process::Error> {
    capture_text(engine.docker().args(arguments))
}

#[test]
fn the_matrix_is_whole() {
    let engines = lab::engines().unwrap();
    let has = |version: &str, store| {
        let found = engines
            .iter()
            .find(|engine| engine.version.starts_with(version) && engine.store == store);
        assert!(found.is_some(), "no {version} with the {store} store in {engines:#?}");
    };
    has("20.10", Store::Classic);
    for version in ["26.1", "28."] {
        has(version, Store::Classic);
        has(version, Store::Containerd);
    }
}

#[test]
fn each_engine_runs_containers_of_the_base_image() {
    for engine in lab::engines().unwrap() {
        let echo = ["run", "--rm", "--network=none", lab::BASE_IMAGE, "echo", "hello"];
        let said = docker(&engine, &echo).unwrap();
        assert_eq!(said, "hello", "{}", engine.name);
    }
}

#[test]
fn each_engine_publishes_ports() {
    for engine in lab::engines().unwrap() {
        let server = [
            "run",
            "--detach",
            "--rm",
            "--publish=127.0.0.1::80",
            lab::BASE_IMAGE,
            "httpd",
            "-f",
        ];
        let id = docker(&engine, &server).unwrap();
        let address = docker(&engine, &["port", &id, "80"]).unwrap();
        docker(&engine, &["rm", "--force", &id]).unwrap();
        assert!(address.starts_with("127.0.0.1:"), "{}: {address}", engine.name);
    }
}

#[test]
fn asking_again_is_quick_and_gives_the_same() {
    let hosts = || {
        lab::engines()
            .unwrap()
            .into_iter()
            .map(|engine| engine.host)
            .collect::<Vec<_>>()
    };
    let first = hosts();
    let started = std::time::Instant::now();
    assert_eq!(hosts(), first);
    // A hundredth of this, on a machine that does nothing else; engines that are made anew take longer.
    assert!(started.elapsed().as_secs() < 30);
}

#[test]
fn every_dock_is_reached_by_ssh_by_each_of_its_users() {
    let docks = lab::engines()
        .unwrap()
        .into_iter()
        .filter(|engine| engine.container.is_some());
    for dock in docks {
        let ssh = dock.ssh().unwrap();
        let known_hosts = tempfile::NamedTempFile::new().unwrap();
        fs::write(known_hosts.path(), ssh.known_hosts()).unwrap();
        for (user, may) in [("root", true), ("ann", true), ("bob", false)] {
            let mut client = Command::new("ssh");
            client
                .args(["-F", "none", "-o", "BatchMode=yes", "-l", user, "-i"])
                .arg(&ssh.key);
            client.args(["-o", &format!("UserKnownHostsFile={}", known_hosts.path().display())]);
            client.args([&ssh.address.ip().to_string(), "docker version -f '{{.Server.Version}}'"]);
            let output = client.output().unwrap();
            let said = String::from_utf8_lossy(&output.stdout);
            assert_eq!(
                (output.status.success(), said.trim() == dock.version),
                (may, may),
                "{user}: {output:?}"
            );
        }
    }
}

#[test]
fn a_further_sshd_of_a_dock_has_its_own_configuration_and_ends() {
    let dock = lab::engine("26").unwrap();
    let sshd = dock.sshd(&["AllowTcpForwarding no"]).unwrap();
    let connect = || std::net::TcpStream::connect_timeout(&sshd.ssh().address, Duration::from_secs(5));
    connect().unwrap();
    sshd.kill().unwrap();
    connect().unwrap_err();
    sshd.start_again().unwrap();
    connect().unwrap();
}

/// What an engine holds, by kind and name; networks of its own are left out.
fn holdings(engine: &LabEngine) -> Vec<String> {
    let list = |kind: &str, arguments: &[&str]| {
        let said = docker(engine, &[&[kind, "ls"], arguments].concat()).unwrap();
        let names = said.lines().map(|name| format!("{kind} {name}"));
        names.collect::<Vec<_>>()
    };
    let mut all = list("container", &["--all", "--format={{.Names}}"]);
    all.extend(list("volume", &["--format={{.Name}}"]));
    all.extend(list("network", &["--filter=type=custom", "--format={{.Name}}"]));
    all.extend(list("image", &["--format={{.Repository}}:{{.Tag}}"]));
    all.sort();
    all
}

#[test]
fn what_is_taken_down_leaves_nothing_and_a_lab_in_use_stays() {
    // The engine that hosts these labs is a dock: nobody else's lab is on it.
    let host = Throwaway::start(Suite::Trixie, Store::Classic, None).unwrap();
    let engine = host.engine();
    let socket = engine.host.trim_start_matches("unix://");
    let files = tempfile::tempdir().unwrap();
    let shared = files.path().join("labs");
    let lab = |checkout: &str| Lab::at(Path::new(checkout), &shared, Path::new(socket)).unwrap();
    let (mine, idle, busy) = (lab("/mine"), lab("/idle"), lab("/busy"));
    let docker = |arguments: &[&str]| docker(engine, arguments).unwrap();

    // What somebody else has; its base is no image of ours.
    docker(&["volume", "create", "theirs"]);
    docker(&["network", "create", "theirs"]);
    let mut tar = Command::new("tar");
    tar.args(["--create", "--directory"]).arg(files.path()).arg("labs");
    process::pipe(&mut tar, engine.docker().args(["import", "-", "busybox:latest"])).unwrap();
    docker(&["create", "--name=theirs", "busybox:latest", "sh"]);
    let before = holdings(engine);
    let theirs: Vec<String> = before
        .iter()
        .filter(|line| !line.contains("lab-base"))
        .cloned()
        .collect();
    assert_eq!(theirs.len(), 4, "{before:?}");

    // A dock of before labels, the docks of three labs, and what killed tests left.
    docker(&[
        "create",
        "--name=dockerutils-lab-26",
        "--volume=dockerutils-lab-26:/x",
        "busybox:latest",
        "sh",
    ]);
    docker(&["tag", lab::BASE_IMAGE, "dockerutils-lab:trixie-1"]);
    fs::write(shared.join("dockerutils-lab-trixie-1.tar"), "").unwrap();
    for lab in [&mine, &idle, &busy] {
        let (name, mark) = (format!("dockerutils-lab-{}-26", lab.id()), lab.mark());
        let [label, directory] = lab.labels();
        let volume = format!("--volume={name}:/var/lib/docker");
        docker(&["volume", "create", &label, &name]);
        let words = ["--name", &name, &volume, "dockerutils-lab:trixie-1", "sleep", "600"];
        docker(&[&["run", "--detach", &label, &directory], &words[..]].concat());
        fs::create_dir(lab.directory().join("26")).unwrap();
        docker(&["network", "create", &format!("net-{mark}")]);
        docker(&["tag", lab::BASE_IMAGE, &format!("web{mark}-dev:tester")]);
        docker(&["create", "--name", &format!("web{mark}"), lab::BASE_IMAGE]);
    }
    let of = |lab: &Lab| holdings(engine).iter().filter(|line| line.contains(lab.id())).count();
    assert_eq!([&mine, &idle, &busy].map(of), [5; 3], "{:?}", holdings(engine));
    assert_eq!(mine.holdings().unwrap().len(), 5);

    // An image without a name, as one that was built again leaves.
    let change = format!("LABEL io.dockerutils.lab={}", mine.id());
    let mut tar = Command::new("tar");
    tar.args(["--create", "--directory"]).arg(files.path()).arg("labs");
    process::pipe(&mut tar, engine.docker().args(["import", "--change", &change, "-"])).unwrap();
    assert!(holdings(engine).contains(&"image <none>:<none>".to_owned()));

    mine.down().unwrap();
    assert!(!holdings(engine).contains(&"image <none>:<none>".to_owned()));
    assert_eq!([&mine, &idle, &busy].map(of), [0, 5, 5], "{:?}", holdings(engine));
    assert!(!mine.directory().join("26").exists());

    // As each process of a test does; this one's own hold would last.
    let in_use = File::create(busy.directory().join("in-use")).unwrap();
    in_use.lock_shared().unwrap();
    let states = mine.other_labs().unwrap();
    let mut states: Vec<_> = states.iter().map(|other| (other.id.as_str(), other.in_use)).collect();
    states.sort_unstable();
    let mut expected = vec![(idle.id(), false), (busy.id(), true)];
    expected.sort_unstable();
    assert_eq!(states, expected);
    let error = mine.down_all().unwrap_err().to_string();
    assert!(error.contains(&busy.directory().display().to_string()), "{error}");
    assert!(error.contains("hint: cargo xtask lab down --all"), "{error}");
    assert!(!error.contains(idle.id()), "{error}");
    assert_eq!([&mine, &idle, &busy].map(of), [0, 0, 5], "{:?}", holdings(engine));
    assert!(holdings(engine).contains(&"image dockerutils-lab:trixie-1".to_owned()));

    drop(in_use);
    mine.down_all().unwrap();
    assert_eq!(holdings(engine), theirs);
    assert!(!shared.exists());
    // There is nothing to take away, which is no failure.
    mine.down_all().unwrap();
}

#[test]
fn the_engine_of_a_test_that_was_killed_goes_when_the_next_one_comes() {
    let lab = Lab::open().unwrap();
    lab.engines().unwrap();
    let name = format!("throwaway-left-{}", std::process::id());
    let directory = lab.directory().join(&name);
    fs::create_dir(&directory).unwrap();
    // Nobody holds its lock.
    File::create(directory.join("owner")).unwrap();
    let container = format!("dockerutils-lab-{}-{name}", lab.id());
    let image = lab::dock_image(Suite::Trixie).unwrap();
    let mut run = lab.docker();
    run.args(["run", "--detach", "--name", &container]).args(lab.labels());
    capture_text(run.args(["--network=none", &image, "sleep", "600"])).unwrap();
    let _next = Throwaway::start(Suite::Trixie, Store::Classic, None).unwrap();
    assert!(!directory.exists());
    capture_text(lab.docker().args(["inspect", &container])).unwrap_err();
}
