//! transfer-image that is cut off: by the link, by Ctrl-C, by `kill -9`, by a full disk. Nothing is half there, what arrived
//! whole is used by the next try, and the memory that it takes has a limit.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use dockerutils_test_support::lab::{self, LabEngine, Store, Suite, Throwaway};
use dockerutils_test_support::wait;
use dockerutils_test_support::{SlowLink, binary};
use dockerutils_tests::far::{self, link};
use dockerutils_tests::moving::{Moving, docker, docker_succeeds, partial_images, saved_layers};
use rustix::process::Signal;
use serde_json::json;

/// Layers of six megabytes that do not compress: each travels alone.
const LAYERS: usize = 5;
const LAYER: u64 = 6_000_000;

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(120);

fn dockerfile() -> String {
    let layers = (0..LAYERS).map(|number| format!("RUN head -c {LAYER} /dev/urandom > /layer{number}\n"));
    format!("FROM dockerutils-lab-base:1\n{}", layers.collect::<String>())
}

/// Keeps back what the engine answers to loads: a transfer goes on only when the first is answered, so that it stands still
/// with one of its layers loaded, for as long as a test needs.
#[derive(Clone, Debug, Default)]
struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    /// From now on, answers go through.
    fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    fn pass(&self) {
        let shut = self.0.0.lock().unwrap();
        drop(self.0.1.wait_while(shut, |open| !*open).unwrap());
    }
}

/// Carries a connection to the engine, with a gate before what it answers to loads.
fn carry(near: TcpStream, far: UnixStream, gate: &Gate) {
    let (near_read, far_read) = (near.try_clone().unwrap(), far.try_clone().unwrap());
    let mut request = BufReader::new(near_read);
    let mut line = Vec::new();
    let _ = request.read_until(b'\n', &mut line);
    let is_load = line.starts_with(b"POST ") && line.windows(12).any(|part| part == b"/images/load");
    thread::spawn(move || {
        let _ = (&far).write_all(&line);
        let _ = io::copy(&mut request, &mut &far);
        let _ = far.shutdown(std::net::Shutdown::Write);
    });
    if is_load {
        gate.pass();
    }
    let _ = io::copy(&mut &far_read, &mut &near);
    let _ = near.shutdown(std::net::Shutdown::Both);
    let _ = far_read.shutdown(std::net::Shutdown::Both);
}

/// A link of so many bits a second to an engine, with a gate, and its address for DEST.
fn gated_link(engine: &LabEngine, bits: u64) -> (SlowLink, Gate, String) {
    let gate = Gate::default();
    let before = gate.clone();
    let (link, address) = far::link_by(engine, bits, move |near, far| carry(near, far, &before));
    (link, gate, address)
}

fn id(engine: &LabEngine, image: &str) -> String {
    docker(engine, &["image", "inspect", "--format={{.Id}}", image])
}

fn is_there(engine: &LabEngine, image: &str) -> bool {
    docker_succeeds(engine, &["image", "inspect", image])
}

fn wait_for_bytes(link: &SlowLink, bytes: u64) {
    wait::until(format_args!("{bytes} bytes on the link"), || link.bytes().0 >= bytes);
}

fn wait_for_partial_images(engine: &LabEngine, image: &str) {
    wait::until("a layer that is kept", || !partial_images(engine, image).is_empty());
}

/// Where images come from, and go to: layers come in their order, or in any; to a store that knows chains, and to one that
/// knows blobs.
const ROUTES: [(&str, &str); 3] = [
    ("28-containerd", "26"),
    ("local", "26-containerd"),
    ("26-containerd", "28-containerd"),
];

fn on_each_route(test: impl Fn(&LabEngine, &LabEngine, &str) + Sync) {
    thread::scope(|scope| {
        for (from, to) in ROUTES {
            let test = &test;
            scope.spawn(move || {
                let name = format!("{from}-{to}");
                test(&lab::engine(from).unwrap(), &lab::engine(to).unwrap(), &name);
            });
        }
    });
}

#[test]
fn a_link_that_is_cut_is_tried_again_and_no_whole_layer_is_sent_twice() {
    on_each_route(|from, to, name| {
        let moving = Moving::on(&format!("cut-{name}"), &[from, to]);
        moving.build(from, &dockerfile());
        let (link, gate, address) = gated_link(to, 80_000_000);
        let running = moving.transfer(from).args([&moving.name, &address, "--json"]).spawn();
        let image = id(from, &moving.name);
        wait_for_partial_images(to, &image);
        assert!(!is_there(to, &moving.name));
        link.drop_connections();
        gate.open();
        // Once more, in the middle of what is left; layers travel side by side, and it may be that none is.
        let middle = link.bytes().0 + LAYER;
        wait::until("one more layer", || {
            link.bytes().0 >= middle || is_there(to, &moving.name)
        });
        link.drop_connections();
        let outcome = running.wait();
        assert_eq!(outcome.code, 0, "{name} {outcome}");
        assert!(outcome.stderr.contains("the link was cut"), "{name} {outcome}");
        let sent = outcome.json()["images"][0].clone();
        assert_eq!(
            (&sent["status"], &sent["layers_sent"]),
            (&json!("transferred"), &json!(LAYERS)),
            "{sent}"
        );
        let left = partial_images(to, &image);
        assert!(left.is_empty(), "{name}: {left:?} {outcome}");
        docker(
            to,
            &["run", "--rm", "--network=none", &moving.name, "test", "-s", "/layer4"],
        );
        assert!(moving.sandbox().leftovers().is_empty());
    });
}

#[test]
fn what_an_interrupted_transfer_has_brought_is_used_by_the_next() {
    on_each_route(|from, to, name| {
        for signal in [Signal::INT, Signal::KILL] {
            let moving = Moving::on(&format!("interrupt-{name}"), &[from, to]);
            moving.build(from, &dockerfile());
            let (_link, gate, address) = gated_link(to, 80_000_000);
            let running = moving.transfer(from).args([&moving.name, &address]).spawn();
            let image = id(from, &moving.name);
            wait_for_partial_images(to, &image);
            running.signal(signal);
            let outcome = running.wait();
            gate.open();
            assert_eq!(
                outcome.code,
                if signal == Signal::INT { 130 } else { 137 },
                "{name} {outcome}"
            );
            assert!(!is_there(to, &moving.name), "{name}");
            if signal == Signal::INT {
                let hint = format!("transfer-image --abort {address}");
                assert!(outcome.stderr.contains(&hint), "{name} {outcome}");
            }
            let sent = moving.send(from, &address);
            assert!(sent["layers_sent"].as_u64().unwrap() < LAYERS as u64, "{name} {sent}");
            assert!(
                sent["bytes_sent"].as_u64().unwrap() < LAYERS as u64 * LAYER,
                "{name} {sent}"
            );
            assert!(partial_images(to, &image).is_empty(), "{name}");
            docker(
                to,
                &["run", "--rm", "--network=none", &moving.name, "test", "-s", "/layer4"],
            );
            assert!(moving.sandbox().leftovers().is_empty());
        }
    });
}

#[test]
fn what_is_kept_can_be_given_up() {
    let (from, to) = (lab::engine("28-containerd").unwrap(), lab::engine("28").unwrap());
    let moving = Moving::on("abort", &[&from, &to]);
    moving.build(&from, &dockerfile());
    let (_link, _gate, address) = gated_link(&to, 80_000_000);
    // The partial images of other tests are another user's.
    let as_user = |invocation: dockerutils_test_support::Invocation<'_>| -> dockerutils_test_support::Outcome {
        invocation
            .env("USER", "gives-up")
            .env("LOGNAME", "gives-up")
            .any_stdout()
            .any_stderr()
            .run()
    };
    let running = moving
        .transfer(&from)
        .env("USER", "gives-up")
        .env("LOGNAME", "gives-up")
        .args([&moving.name, &address])
        .spawn();
    let image = id(&from, &moving.name);
    wait_for_partial_images(&to, &image);
    running.interrupt();
    running.wait();
    let outcome = as_user(moving.transfer(&from).args(["--abort", &to.host, "--dry-run"]));
    assert!(outcome.stdout.contains("docker rmi"), "{outcome}");
    assert!(!partial_images(&to, &image).is_empty());
    let outcome = as_user(moving.transfer(&from).args(["--abort", &to.host]));
    assert!(outcome.stdout.contains("removed what transfers left"), "{outcome}");
    assert!(partial_images(&to, &image).is_empty());
    let outcome = as_user(moving.transfer(&from).args(["--abort", &to.host]));
    assert!(outcome.stdout.contains("nothing is left"), "{outcome}");
}

#[test]
fn what_a_transfer_keeps_that_runs_stays_whoever_gives_up() {
    on_each_route(|from, to, name| {
        let (moving, elsewhere) = (
            Moving::on(&format!("runs-{name}"), &[from, to]),
            Moving::on(&format!("elsewhere-{name}"), &[]),
        );
        moving.build(from, &dockerfile());
        let (_link, gate, address) = gated_link(to, 80_000_000);
        let abort = |moving: &Moving, arguments: &[&str]| {
            let invocation = moving.transfer(from).args(["--abort", &to.host]).args(arguments);
            invocation.any_stdout().any_stderr().run()
        };
        let running = moving.transfer(from).args([&moving.name, &address, "--json"]).spawn();
        let image = id(from, &moving.name);
        wait_for_partial_images(to, &image);
        let before = partial_images(to, &image);
        let outcome = abort(&moving, &[]);
        assert!(
            outcome.stderr.contains("their transfer runs just now, in process "),
            "{name} {outcome}"
        );
        // The tests beside this one are other machines, with the same user.
        let outcome = abort(&elsewhere, &[]);
        assert!(
            outcome.stderr.contains("they came from another machine, "),
            "{name} {outcome}"
        );
        assert_eq!(partial_images(to, &image), before, "{name}");
        gate.open();
        let outcome = running.wait();
        assert_eq!(outcome.code, 0, "{name} {outcome}");
        assert_eq!(outcome.json()["images"][0]["layers_sent"], LAYERS, "{name} {outcome}");
        assert!(partial_images(to, &image).is_empty(), "{name}");
        assert_eq!(saved_layers(to, &moving.name), LAYERS + 1, "{name}");
    });
}

#[test]
fn what_two_transfers_keep_of_one_image_is_each_ones_own() {
    on_each_route(|from, to, name| {
        let moving = Moving::on(&format!("two-{name}"), &[from, to]);
        moving.build(from, &dockerfile());
        let (_link, gate, address) = gated_link(to, 80_000_000);
        let first = moving.transfer(from).args([&moving.name, &address, "--json"]).spawn();
        let image = id(from, &moving.name);
        wait_for_partial_images(to, &image);
        let before = partial_images(to, &image);
        // It brings what is not there, is done, and leaves what the first one keeps.
        let sent = moving.send(from, &to.host);
        assert_eq!(sent["status"], "transferred", "{name} {sent}");
        assert_eq!(partial_images(to, &image), before, "{name}");
        gate.open();
        let outcome = first.wait();
        assert_eq!(outcome.code, 0, "{name} {outcome}");
        assert!(partial_images(to, &image).is_empty(), "{name}");
        assert_eq!(saved_layers(to, &moving.name), LAYERS + 1, "{name}");
    });
}

#[test]
fn what_was_given_a_name_keeps_it_when_all_else_is_given_up() {
    on_each_route(|from, to, name| {
        let moving = Moving::on(&format!("named-{name}"), &[from, to]);
        moving.build(from, &dockerfile());
        let (_link, gate, address) = gated_link(to, 80_000_000);
        let running = moving.transfer(from).args([&moving.name, &address]).spawn();
        let image = id(from, &moving.name);
        wait_for_partial_images(to, &image);
        running.signal(Signal::KILL);
        running.wait();
        gate.open();
        let [partial] = &partial_images(to, &image)[..] else {
            panic!("{name}: more than one was loaded before the first was answered");
        };
        let long = docker(to, &["image", "inspect", "--format={{.Id}}", partial]);
        // As a removal leaves it that was killed between its two steps.
        let removing = format!(
            "io.dockerutils.transfer/removing:{}",
            long.trim_start_matches("sha256:")
        );
        docker(to, &["tag", partial, &removing]);
        docker(to, &["tag", partial, &moving.name]);
        let abort = || {
            let outcome = moving
                .transfer(from)
                .args(["--abort", &to.host])
                .any_stdout()
                .any_stderr()
                .run();
            assert!(
                outcome.stderr.is_empty() || !outcome.stderr.contains(&moving.name),
                "{outcome}"
            );
        };
        abort();
        assert_eq!(id(to, &moving.name), long, "{name}");
        assert!(!is_there(to, &removing), "{name}");
        docker(to, &["tag", partial, &removing]);
        docker(to, &["rmi", &moving.name]);
        abort();
        assert!(!is_there(to, &long), "{name}");
    });
}

#[test]
fn what_is_kept_may_be_removed_by_others_in_the_middle() {
    on_each_route(|from, to, name| {
        let moving = Moving::on(&format!("removed-{name}"), &[from, to]);
        moving.build(from, &dockerfile());
        let (_link, gate, address) = gated_link(to, 80_000_000);
        let running = moving.transfer(from).args([&moving.name, &address, "--json"]).spawn();
        let image = id(from, &moving.name);
        wait_for_partial_images(to, &image);
        // As `docker image prune` does.
        for partial in partial_images(to, &image) {
            docker(to, &["rmi", &partial]);
        }
        gate.open();
        let outcome = running.wait();
        assert_eq!(outcome.code, 0, "{name} {outcome}");
        docker(
            to,
            &["run", "--rm", "--network=none", &moving.name, "test", "-s", "/layer0"],
        );
        assert_eq!(saved_layers(to, &moving.name), LAYERS + 1, "{name}");
        assert!(partial_images(to, &image).is_empty());
    });
}

#[test]
fn a_link_that_is_silent_is_noticed() {
    let (from, to) = (lab::engine("28-containerd").unwrap(), lab::engine("26").unwrap());
    let moving = Moving::on("silent", &[&from, &to]);
    moving.build(&from, &dockerfile());
    let (link, address) = link(&to, 80_000_000);
    let said = moving.sandbox().project().join("said");
    let running = moving
        .sandbox()
        .program("/bin/sh")
        .args(["-c", "exec \"$0\" \"$@\" 2> said"])
        .arg(binary("transfer-image"))
        .args([&moving.name, &address, "--json"])
        .env("DOCKER_HOST", &from.host)
        .limit(Duration::from_secs(280))
        .spawn();
    wait_for_bytes(&link, 2 * LAYER);
    link.cut();
    // What was on its way does not come, and nobody is told.
    let is_noticed =
        || std::fs::read_to_string(&said).is_ok_and(|said| said.contains("it has been silent for too long"));
    let began = Instant::now();
    while !is_noticed() {
        assert!(began.elapsed() < PATIENCE, "{:?}", std::fs::read_to_string(&said));
        thread::sleep(Duration::from_millis(100));
    }
    link.drop_connections();
    link.mend();
    let outcome = running.wait();
    assert_eq!(outcome.code, 0, "{outcome}");
    assert_eq!(outcome.json()["images"][0]["layers_sent"], LAYERS);
}

#[test]
fn a_disk_that_is_full_leaves_what_was_there() {
    for store in [Store::Classic, Store::Containerd] {
        let throwaway = Throwaway::start(Suite::Trixie, store, Some(64)).unwrap();
        let (from, to) = (lab::engine("28-containerd").unwrap(), throwaway.engine());
        let moving = Moving::on("full", &[&from]);
        moving.build(
            &from,
            "FROM dockerutils-lab-base:1\nRUN echo old > /which\nCMD [\"cat\", \"/which\"]\n",
        );
        moving.send(&from, &to.host);
        let layers = "RUN head -c 30000000 /dev/urandom > /a\nRUN head -c 60000000 /dev/urandom > /b\n";
        moving.build(
            &from,
            &format!("FROM dockerutils-lab-base:1\n{layers}RUN echo new > /which\nCMD [\"cat\", \"/which\"]\n"),
        );
        let outcome = moving
            .transfer(&from)
            .args([&moving.name, &to.host])
            .code(1)
            .any_stderr()
            .run();
        assert!(outcome.stderr.contains("is full"), "{store} {outcome}");
        assert!(outcome.stderr.contains("hint: make room there"), "{store} {outcome}");
        // The name still leads to the old image, whole.
        // The engine clears away what did not arrive by itself, in a moment; until then nothing runs there.
        let run = ["run", "--rm", "--network=none", &moving.name];
        wait::until("room to run a container", || docker_succeeds(to, &run));
        assert_eq!(docker(to, &run), "old");
        docker_succeeds(to, &["save", "--output=/dev/null", &moving.name]);
    }
}

/// The memory that it takes does not grow with the layers.
fn takes_little_memory(from: &str, to: &str) {
    let (from, to) = (lab::engine(from).unwrap(), lab::engine(to).unwrap());
    let moving = Moving::on("memory", &[&from, &to]);
    let noise = "RUN head -c 60000000 /dev/urandom > /noise\n";
    moving.build(
        &from,
        &format!("FROM dockerutils-lab-base:1\nRUN head -c 200000000 /dev/zero > /zero\n{noise}{noise}"),
    );
    measure(&moving, &from.host, &[&moving.name, &to.host]);
}

/// Runs transfer-image to its end, and looks how much memory it had at most.
fn measure(moving: &Moving, engine: &str, arguments: &[&str]) {
    const LIMIT: u64 = 64 << 10;
    let outcome = moving
        .sandbox()
        .command("transfer-image")
        .args(arguments)
        .arg("--json")
        .env("DOCKER_HOST", engine)
        .limit(Duration::from_secs(170))
        .any_stdout()
        .any_stderr()
        .run();
    assert_eq!(outcome.json()["images"][0]["status"], "transferred");
    assert!(
        (1..LIMIT).contains(&outcome.memory),
        "{arguments:?}: {} KiB",
        outcome.memory
    );
}

#[test]
fn a_large_image_that_is_saved_takes_less_than_64_mib() {
    takes_little_memory("local", "28-containerd");
}

#[test]
fn a_large_image_that_is_read_by_blobs_takes_less_than_64_mib() {
    takes_little_memory("28-containerd", "26");
}

#[test]
fn a_large_image_from_dock_to_dock_takes_less_than_64_mib() {
    // Through here, and back again: between the same stores.
    let [near, middle, far] = ["28", "26-containerd", "28-containerd"].map(|name| lab::engine(name).unwrap());
    let moving = Moving::on("memory-docks", &[&near, &middle, &far]);
    let layer = "RUN head -c 100000000 /dev/zero > /zero; head -c 30000000 /dev/urandom > /noise\n";
    moving.build(&near, &format!("FROM dockerutils-lab-base:1\n{layer}{layer}"));
    let local = lab::engine("20").unwrap().host;
    for (from, to) in [(&near, &middle), (&middle, &far)] {
        measure(&moving, &local, &["--from", &from.host, &moving.name, &to.host]);
    }
}

#[test]
fn many_layers_on_a_slow_link_take_less_than_64_mib() {
    // What is read faster than it goes is not kept here.
    let (from, to) = (lab::engine("28").unwrap(), lab::engine("26").unwrap());
    let moving = Moving::on("memory-slow", &[&from, &to]);
    let layers = (0..8).map(|number| format!("RUN head -c 8000000 /dev/urandom > /layer{number}\n"));
    moving.build(
        &from,
        &format!("FROM dockerutils-lab-base:1\n{}", layers.collect::<String>()),
    );
    let (_link, address) = link(&to, 100_000_000);
    measure(&moving, &from.host, &[&moving.name, &address]);
}
