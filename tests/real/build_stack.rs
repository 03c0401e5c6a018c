//! `build-stack` on real engines with both stores, to a real registry, with a repository of git that the test makes: what is built,
//! copied, left alone; what a failure, an interruption and a second run leave behind.

pub(crate) mod site;

use std::fs::{self, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;
use std::thread;

use dockerutils_test_support::Outcome;
use dockerutils_test_support::lab::{self, LabEngine, Store, Suite, Throwaway};
use dockerutils_test_support::process::capture_text;
use rustix::process::Signal;
use serde_json::{Value, json};

use site::{Site, all, statuses};

/// Runs a test on all engines side by side.
fn everywhere(test: impl Fn(&Site) + Sync) {
    on(&lab::engines().unwrap(), test);
}

/// Runs a test where what it is about does not depend on the engine's version: on an engine of each image store, side by side.
fn on_both_stores(test: impl Fn(&Site) + Sync) {
    on(&["20", "28-containerd"].map(|name| lab::engine(name).unwrap()), test);
}

fn on(engines: &[LabEngine], test: impl Fn(&Site) + Sync) {
    thread::scope(|scope| {
        for engine in engines {
            let test = &test;
            scope.spawn(move || test(&Site::new(engine)));
        }
    });
}

#[test]
fn what_is_built_is_found_again_and_copied_to_a_new_branch() {
    everywhere(|site| {
        let name = &site.engine.name;
        let first = site.build(&[]);
        assert_eq!(statuses(&first), all("built"), "{name}: {first}");
        let digest = first["images"][3]["digest"].as_str().unwrap();
        assert_eq!(
            first["images"][3]["tags"].as_array().unwrap().len(),
            2,
            "{name}: {first}"
        );
        // The layers are there: another engine could run it.
        let leaf = site.reference("leaf", "1.10-main");
        capture_text(site.engine.docker().args(["rmi", "--force", &leaf])).unwrap();
        capture_text(site.engine.docker().args(["pull", &leaf])).unwrap();
        let printed = capture_text(
            site.engine
                .docker()
                .args(["run", "--rm", &leaf, "cat", "/own", "/base"]),
        )
        .unwrap();
        let address = site.registry.address();
        assert_eq!(printed, format!("leaf {address}base {address}"), "{name}");

        let second = site.without_engine(&[]);
        assert_eq!(statuses(&second), all("unchanged"), "{name}: {second}");
        assert_eq!(second["images"][3]["digest"], digest, "{name}");

        site.sandbox
            .write("images/leaf/file", format!("changed {}", site.registry.address()));
        site.sandbox.commit("leaf");
        let third = site.build(&["--since", "HEAD~1"]);
        let expected = ["base unchanged", "mid unchanged", "side unchanged", "leaf built"];
        assert_eq!(statuses(&third), expected, "{name}: {third}");
        assert_ne!(third["images"][3]["digest"], digest, "{name}");

        site.sandbox.shell("git switch -q -c work");
        let branch = site.without_engine(&["--base", "main"]);
        assert_eq!(statuses(&branch), all("copied"), "{name}: {branch}");
        assert_eq!(branch["images"][3]["digest"], third["images"][3]["digest"], "{name}");
        assert!(
            site.written().contains(&"leaf:1.10-work".to_owned()),
            "{name}: {:?}",
            site.written()
        );
        assert_eq!(statuses(&site.without_engine(&[])), all("unchanged"), "{name}");
    });
}

#[test]
fn a_failing_image_stops_its_children_only() {
    on_both_stores(|site| {
        let name = &site.engine.name;
        let dockerfile = site.sandbox.read("images/mid/Dockerfile");
        site.sandbox.write(
            "images/mid/Dockerfile",
            format!("{dockerfile}RUN echo of no use; exit 7\n"),
        );
        let outcome: Outcome = site.command().arg("--json").code(1).run();
        let said = outcome.json();
        let expected = ["base built", "mid failed", "side built", "leaf skipped"];
        assert_eq!(statuses(&said), expected, "{name}: {outcome}");
        let error = said["images"][1]["error"].as_str().unwrap();
        assert!(error.contains("/mid:1.10-main can't be built: "), "{name}: {error}");
        assert!(
            said["images"][1]["excerpts"].to_string().contains("of no use"),
            "{name}: {said}"
        );
        assert_eq!(said["images"][3]["error"], "it starts from mid, which failed", "{name}");
        let sum = "1 of 4 images failed: mid; skipped, as they start from these: leaf";
        assert_eq!(said["error"], sum, "{name}");
        assert!(
            outcome.stderr.contains(&format!("build-stack: {sum}")),
            "{name}: {outcome}"
        );
        site.sandbox.write("images/mid/Dockerfile", dockerfile);
        let mended = site.build(&[]);
        let expected = ["base unchanged", "mid built", "side unchanged", "leaf built"];
        assert_eq!(statuses(&mended), expected, "{name}: {mended}");
    });
}

#[test]
fn interrupted_it_goes_on_where_it_was() {
    on_both_stores(|site| {
        let name = &site.engine.name;
        for tag in ["1.10-main", "1.10-two"] {
            if tag == "1.10-two" {
                site.sandbox.shell("git switch -q -c two");
                site.sandbox
                    .write("images/base/file", format!("two {}", site.registry.address()));
                site.sandbox.commit("two");
            }
            // It waits for its parent, which is pushed then.
            let line = format!("docker build --tag {}", site.reference("mid", tag));
            let command = site.command().args(["-j", "1"]);
            if tag == "1.10-main" {
                let mut running = command.spawn();
                running.wait_for_stderr(&line);
                running.signal(Signal::KILL);
                while !running.has_ended() {
                    thread::yield_now();
                }
            } else {
                let running = command.code(130).spawn();
                running.wait_for_stderr(&line);
                running.interrupt();
                running.wait();
            }
            let again = site.build(&[]);
            let statuses = statuses(&again);
            assert_eq!(statuses[0], "base unchanged", "{name}: {again}");
            assert!(
                statuses[1..].iter().all(|status| !status.ends_with(" failed")),
                "{name}: {again}"
            );
            let nothing_is_left = site.without_engine(&[]);
            assert_eq!(self::statuses(&nothing_is_left), all("unchanged"), "{name}: {again}");
        }
    });
}

#[test]
fn without_push_all_is_on_the_engine_and_nothing_in_the_registry() {
    on_both_stores(|site| {
        let name = &site.engine.name;
        let built = site.build(&["--no-push", "leaf"]);
        assert_eq!(
            statuses(&built),
            ["base built", "mid built", "leaf built"],
            "{name}: {built}"
        );
        assert_eq!(site.written(), Vec::<String>::new(), "{name}");
        assert!(site.has(&site.reference("leaf", "1.10-main")) && !site.has(&site.reference("side", "1.10-main")));
        let only = site.build(&["--no-push", "--only", "leaf"]);
        assert_eq!(statuses(&only), ["leaf built"], "{name}: {only}");
        assert_eq!(
            only["images"][0]["build"]["steps"], only["images"][0]["build"]["cached_steps"],
            "{name}: {only}"
        );
        let outcome = site.command().args(["--only", "leaf"]).code(1).run();
        assert!(
            outcome
                .stderr
                .contains("leaf starts from mid, which is to be made first: build"),
            "{name}: {outcome}"
        );
        assert!(outcome.stderr.contains("hint: build-stack leaf"), "{name}: {outcome}");
    });
}

#[test]
fn a_stale_image_of_the_engine_is_not_built_upon() {
    on_both_stores(|site| {
        let name = &site.engine.name;
        site.build(&[]);
        // The engine has something else by the parent's name, and by that of a parent that is copied.
        for tag in ["1.10-main", "1.10-work"] {
            let other = site.reference("mid", tag);
            capture_text(site.engine.docker().args(["tag", "dockerutils-lab-base:1", &other])).unwrap();
        }
        let leaf = |branch: &str| {
            site.sandbox
                .write("images/leaf/file", format!("{branch} {}", site.registry.address()));
            site.build(&[]);
            let leaf = site.reference("leaf", &format!("1.10-{branch}"));
            capture_text(site.engine.docker().args(["run", "--rm", &leaf, "cat", "/base"])).unwrap()
        };
        assert_eq!(leaf("main"), format!("base {}", site.registry.address()), "{name}");
        site.sandbox.shell("git switch -q -c work");
        assert_eq!(leaf("work"), format!("base {}", site.registry.address()), "{name}");
    });
}

#[test]
fn two_at_once_do_the_work_once() {
    on_both_stores(|site| {
        let name = &site.engine.name;
        let (one, two) = thread::scope(|scope| {
            let running = [(), ()].map(|()| scope.spawn(|| site.command().arg("--json").run()));
            let [one, two] = running.map(|running| running.join().unwrap());
            (one, two)
        });
        let mut both = [statuses(&one.json()), statuses(&two.json())];
        both.sort();
        assert_eq!(both, [all("built"), all("unchanged")], "{name}: {one}{two}");
        assert!(
            format!("{one}{two}").contains("waiting for another build-stack"),
            "{name}: {one}{two}"
        );
    });
}

#[test]
fn what_prune_names_is_removed_when_nothing_needs_it() {
    on_both_stores(|site| {
        let name = &site.engine.name;
        let spec = site.sandbox.read("images/spec.yml");
        let prune = |image: &str| format!("/{image}, depend_on: base, prune: true}}");
        let spec = spec.replace("/base}", "/base, prune: true}");
        let spec = spec.replace("/side, depend_on: base}", &prune("side"));
        site.sandbox.write("images/spec.yml", spec);
        // It was there before.
        let kept = format!("{}/kept:1", site.registry.address());
        capture_text(site.engine.docker().args(["tag", "dockerutils-lab-base:1", &kept])).unwrap();
        let built = site.build(&[]);
        assert_eq!(statuses(&built), all("built"), "{name}: {built}");
        let pruned: Vec<&Value> = built["images"]
            .as_array()
            .unwrap()
            .iter()
            .map(|image| &image["pruned"])
            .collect();
        assert_eq!(
            pruned,
            [&json!(true), &json!(false), &json!(true), &json!(false)],
            "{name}: {built}"
        );
        for (image, is_there) in [("base", false), ("mid", true), ("side", false), ("leaf", true)] {
            assert_eq!(
                site.has(&site.reference(image, "1.10-main")),
                is_there,
                "{name}: {image}"
            );
        }
        assert!(site.has(&kept), "{name}");
        // One that a container uses stays.
        site.sandbox
            .write("images/side/file", format!("again {}", site.registry.address()));
        let again = site.build(&["--no-push"]);
        assert_eq!(again["images"][2]["pruned"], false, "{name}: {again}");
        let side = site.reference("side", "1.10-main");
        let container = capture_text(site.engine.docker().args(["create", &side, "sh"])).unwrap();
        let pushed = site.build(&[]);
        capture_text(site.engine.docker().args(["rm", container.trim()])).unwrap();
        // The containerd store makes another image when the build is to be pushed: nobody uses that.
        let is_used = again["images"][2]["build"]["id"] == pushed["images"][2]["build"]["id"];
        assert_eq!(is_used, !site.engine.name.contains("containerd"), "{name}: {pushed}");
        assert_eq!(pushed["images"][2]["pruned"], !is_used, "{name}: {pushed}");
        assert_eq!(site.has(&side), is_used, "{name}");
    });
}

/// Gives `mid` a basic test, which notes the image that it tests, and an integration test, which passes once there is a file `pass` in
/// the root; until then it fails, or, with a file `wait` there, waits.
fn with_tests(site: &Site) {
    let spec = site.sandbox.read("images/spec.yml");
    site.sandbox.write(
        "images/spec.yml",
        spec.replace("/mid, ", "/mid, integration_tests: true, "),
    );
    let scripts = [
        ("test/basic.sh", "echo \"$TEST_IMAGE\" >> basic.txt\n"),
        (
            "integration_tests/whole.sh",
            "echo ran >> whole.txt; echo the whole test began\nwhile [ -e wait ] && [ ! -e pass ]; do sleep 0.1; done\ntest -e pass\n",
        ),
    ];
    for (path, script) in scripts {
        let path = site
            .sandbox
            .write(&format!("images/mid/{path}"), format!("#!/bin/sh\n{script}"));
        fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
    }
    site.sandbox.commit("tests");
}

#[test]
fn tests_that_did_not_end_well_are_run_again_and_nothing_is_built_for_them() {
    on_both_stores(|site| {
        let name = &site.engine.name;
        with_tests(site);
        let failed = site.command().arg("--json").code(1).run().json();
        let expected = ["base built", "mid failed", "side built", "leaf skipped"];
        assert_eq!(statuses(&failed), expected, "{name}: {failed}");
        let mid = site.reference("mid", "1.10-main");
        assert!(
            failed["images"][1]["error"]
                .as_str()
                .unwrap()
                .contains("integration tests of mid"),
            "{name}: {failed}"
        );
        assert_eq!(site.sandbox.read("basic.txt"), format!("{mid}\n"), "{name}");
        assert!(site.written().contains(&"mid:1.10-main".to_owned()), "{name}");
        // On another machine, the registry knows it.
        let elsewhere = site.sandbox.home().join("elsewhere");
        let again = site.command().env("XDG_STATE_HOME", &elsewhere).args(["--json", "mid"]);
        let again = again.code(1).run().json();
        assert_eq!(statuses(&again), ["base unchanged", "mid failed"], "{name}: {again}");
        assert_eq!(again["images"][1]["action"], "test", "{name}: {again}");
        site.sandbox.write("pass", "");
        let passed = site.build(&[]);
        let expected = ["base unchanged", "mid tested", "side unchanged", "leaf built"];
        assert_eq!(statuses(&passed), expected, "{name}: {passed}");
        assert_eq!(
            passed["images"][1]["digest"], failed["images"][1]["digest"],
            "{name}: {passed}"
        );
        assert_eq!(statuses(&site.without_engine(&[])), all("unchanged"), "{name}");
        let third = site.sandbox.home().join("third");
        let elsewhere = site
            .command()
            .env("XDG_STATE_HOME", &third)
            .args(["--dry-run", "--json"]);
        let elsewhere = elsewhere.run().json();
        assert_eq!(elsewhere["images"][1]["action"], "nothing", "{name}: {elsewhere}");
    });
}

#[test]
fn half_tested_is_tested_again() {
    on_both_stores(|site| {
        let name = &site.engine.name;
        with_tests(site);
        site.sandbox.write("wait", "");
        let mut running = site.command().arg("mid").spawn();
        running.wait_for_stderr("the whole test began");
        running.signal(Signal::KILL);
        while !running.has_ended() {
            thread::yield_now();
        }
        site.sandbox.write("pass", "");
        let again = site.build(&["mid"]);
        assert_eq!(statuses(&again), ["base unchanged", "mid tested"], "{name}: {again}");
        assert_eq!(site.sandbox.read("whole.txt").lines().count(), 2, "{name}");
        let files = ["artifacts", "logs", "manifests"].map(|folder| {
            let entries = fs::read_dir(site.sandbox.project().join(folder)).unwrap().flatten();
            entries
                .map(|entry| entry.file_name().to_string_lossy().into_owned())
                .collect::<Vec<_>>()
        });
        assert!(
            files
                .iter()
                .all(|files| files.iter().any(|file| file.contains("mid-1.10-main"))),
            "{name}: {files:?}"
        );
    });
}

#[test]
fn a_registry_that_goes_away_is_an_error_that_names_the_image() {
    let Site {
        engine,
        registry,
        sandbox,
    } = Site::new(&lab::engine("26").unwrap());
    let mid = format!("{}/mid:1.10-main", registry.address());
    let running = sandbox
        .command("build-stack")
        .env("DOCKER_HOST", &engine.host)
        .args(["-j", "1", "leaf"])
        .code(1)
        .any_stdout()
        .any_stderr()
        .spawn();
    running.wait_for_stderr(&format!("docker build --tag {mid}"));
    drop(registry);
    let outcome = running.wait();
    assert!(
        outcome.stdout.contains("base   built") && outcome.stdout.contains("mid    failed"),
        "{outcome}"
    );
    assert!(outcome.stderr.contains(&format!("build-stack: {mid}")), "{outcome}");
    assert!(
        outcome
            .stderr
            .contains("1 of 3 images failed: mid; skipped, as they start from these: leaf"),
        "{outcome}"
    );
}

#[test]
fn what_bake_pushes_is_taken_as_it_is() {
    // Its buildx is in the dock.
    let site = Site::new(&lab::engine("28-containerd").unwrap());
    let plan = site
        .sandbox
        .command("plan-stack")
        .arg("--bake")
        .any_stdout()
        .any_stderr()
        .run();
    let container = site.engine.container.clone().unwrap();
    let host = lab::engine("local").unwrap();
    let project = site.sandbox.project().display().to_string();
    // What is read of a command names the sandbox so.
    let root = site.sandbox.project().parent().unwrap().display().to_string();
    let file = plan.stdout.replace("[SANDBOX]", &root);
    let mut made = site.engine.exec("mkdir").unwrap();
    assert!(made.args(["-p", &project]).status().unwrap().success());
    let place = format!("{container}:{project}");
    capture_text(
        host.docker()
            .args(["cp", "--quiet", &format!("{project}/.")])
            .arg(place),
    )
    .unwrap();
    let mut bake = site.engine.exec("docker").unwrap();
    bake.args(["buildx", "bake", "-f", "-", "--push"]).stdin(Stdio::piped());
    let mut bake = bake.spawn().unwrap();
    bake.stdin.take().unwrap().write_all(file.as_bytes()).unwrap();
    assert!(bake.wait().unwrap().success(), "{plan}");
    let taken = site.without_engine(&[]);
    assert_eq!(statuses(&taken), all("unchanged"), "{taken}");
    let mut removed = site.engine.exec("rm").unwrap();
    assert!(removed.args(["-rf", &project]).status().unwrap().success());
}

#[test]
fn a_full_disk_is_said_and_what_fits_is_done() {
    for store in [Store::Classic, Store::Containerd] {
        let throwaway = Throwaway::start(Suite::Trixie, store, Some(200)).unwrap();
        let site = Site::new(throwaway.engine());
        let mid = site.sandbox.read("images/mid/Dockerfile");
        let filling = "RUN head -c 500000000 /dev/zero > /big\n";
        site.sandbox.write("images/mid/Dockerfile", mid.clone() + filling);
        let outcome = site.command().args(["--json", "-j", "1"]).code(1).run();
        let said = outcome.json();
        // Whether what failed has left room for `side` is the engine's matter.
        let statuses_said = statuses(&said);
        let [base, mid_said, _, leaf] = statuses_said.as_slice() else {
            panic!("{store:?}: {outcome}");
        };
        let ends = [base.as_str(), mid_said.as_str(), leaf.as_str()];
        assert_eq!(
            ends,
            ["base built", "mid failed", "leaf skipped"],
            "{store:?}: {outcome}"
        );
        let image = said["images"][1].to_string().to_lowercase();
        // It is the program's own word for it.
        let words = ["no space left on device", "i/o error"];
        assert!(words.iter().any(|word| image.contains(word)), "{store:?}: {outcome}");
        assert!(!site.written().contains(&"mid:1.10-main".to_owned()), "{store:?}");
        // With room, it goes on. The containerd store has none left for its own lists: there, not even a prune of the cache works.
        if store == Store::Classic {
            site.sandbox.write("images/mid/Dockerfile", mid);
            let again = site.build(&[]);
            let again_said = statuses(&again);
            let built = |image: &str| again_said.contains(&format!("{image} built"));
            assert!(built("mid") && built("leaf") && !built("base"), "{again}");
            assert_eq!(
                built("side"),
                !statuses_said.contains(&"side built".to_owned()),
                "{again}"
            );
        }
    }
}
