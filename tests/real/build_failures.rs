//! Builds that fail, break off or are broken off: each says what it was, with the right exit code, and leaves nothing.

use std::fs::{self, File};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use dockerutils_test_support::Sandbox;
use dockerutils_test_support::lab::{Store, Suite, Throwaway};
use dockerutils_test_support::process::capture_text;
use dockerutils_test_support::wait;
use dockerutils_tests::site::{self, EngineBuilder, Site};

/// Whether a process with this command line runs on this machine, in whatever container.
fn runs(words: &[&str]) -> bool {
    let wanted: Vec<u8> = words
        .iter()
        .flat_map(|word| [word.as_bytes(), b"\0"].concat())
        .collect();
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .any(|entry| fs::read(entry.path().join("cmdline")).is_ok_and(|line| line == wanted))
}

/// Seconds for a `sleep` by which its process is known from all others.
fn unique_seconds(whole: u32) -> String {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    format!(
        "{whole}.{}{:03}",
        std::process::id(),
        GIVEN.fetch_add(1, Ordering::Relaxed)
    )
}

fn sites_of(throwaway: &Throwaway) -> [Site; 2] {
    [EngineBuilder::BuildKit, EngineBuilder::Classic].map(|builder| Site {
        engine: throwaway.engine().clone(),
        builder,
    })
}

#[test]
fn a_failed_step_shows_its_last_lines_and_its_line_of_the_dockerfile() {
    const PROJECT: &str = "rt-failed-step";
    let sandbox = Sandbox::named(PROJECT).file(
        "docker/web/Dockerfile",
        "FROM dockerutils-lab-base:1\n\n# a comment\nENV A=1\nRUN echo first words && \\\n    echo last words \\\n    && exit 7\nRUN never\n",
    );
    site::everywhere(|site| {
        let outcome = site
            .build_image(&sandbox)
            .arg("web")
            .code(1)
            .stdout_has("failed")
            .stderr_has("last words")
            .stderr_has("docker/web/Dockerfile:5\n")
            .stderr_has(">   5 | RUN echo first words")
            .stderr_has("7")
            .run();
        let last = outcome.stderr.lines().last().unwrap_or_default();
        assert!(
            last.starts_with(&format!("build-image: {PROJECT}-web:{} can't be built: ", site.tag())),
            "{site}: {outcome}"
        );
        assert!(site.names(PROJECT).is_empty(), "{site}: an image was left");
        let report = site
            .build_image(&sandbox)
            .args(["web", "--json"])
            .code(1)
            .any_stdout()
            .run()
            .json();
        assert_eq!(report["images"][0]["status"], "failed", "{site}");
    });
}

#[test]
fn a_dockerfile_that_does_not_parse_names_its_line() {
    let cases = [
        ("FROM dockerutils-lab-base:1\nRUNN x\n", 2, "RUNN"),
        ("FROM dockerutils-lab-base:1\n\nCOPY one\n", 3, "COPY"),
        ("FROM dockerutils-lab-base:1\nENV\n", 2, "ENV"),
    ];
    for (dockerfile, line, word) in cases {
        let sandbox = Sandbox::named("rt-parse").file("docker/web/Dockerfile", dockerfile);
        site::everywhere(|site| {
            site.build_image(&sandbox)
                .arg("web")
                .code(1)
                .any_stdout()
                .stderr_has("can't be built")
                .stderr_has(word)
                .stderr_has(&format!("docker/web/Dockerfile:{line}\n"))
                .run();
        });
    }
    let empty = Sandbox::named("rt-parse").file("docker/web/Dockerfile", "# nothing\n");
    site::everywhere(|site| {
        let outcome = site.build_image(&empty).arg("web").code(1).any_stdout().run();
        assert!(
            outcome.stderr.contains("file with no instructions"),
            "{site}: {outcome}"
        );
    });
}

#[test]
fn what_is_missing_is_named_with_its_line() {
    // Nothing listens there: the answer comes at once, with or without a network.
    let base = Sandbox::named("rt-missing-base").file(
        "docker/web/Dockerfile",
        "ARG TAG=1\nFROM 127.0.0.1:1/no/such:$TAG\nRUN true\n",
    );
    let file = Sandbox::named("rt-missing-file").file(
        "docker/web/Dockerfile",
        "FROM dockerutils-lab-base:1\nCOPY no-such-file /\n",
    );
    site::everywhere(|site| {
        site.build_image(&base)
            .arg("web")
            .code(1)
            .any_stdout()
            .stderr_has("127.0.0.1:1")
            .stderr_has("docker/web/Dockerfile:2\n")
            .run();
        site.build_image(&file)
            .arg("web")
            .code(1)
            .any_stdout()
            .stderr_has("no-such-file")
            .stderr_has("docker/web/Dockerfile:2\n")
            .run();
    });
}

/// Whether another process than this one has the file open.
fn is_open_elsewhere(file: &Path) -> bool {
    let own = std::process::id().to_string();
    let others = fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter(|entry| *entry.file_name() != *own);
    others
        .filter_map(|process| fs::read_dir(process.path().join("fd")).ok())
        .flat_map(Iterator::flatten)
        .any(|descriptor| fs::read_link(descriptor.path()).is_ok_and(|open| open == file))
}

#[test]
fn a_file_that_shrinks_while_it_is_read_is_named() {
    site::everywhere(|site| {
        let _images = site.images("rt-shrinks");
        let sandbox = Sandbox::named("rt-shrinks")
            .file("docker/web/Dockerfile", "FROM dockerutils-lab-base:1\nCOPY . /ctx/\n")
            .file("shrinking", "");
        let path = sandbox.project().join("shrinking");
        // Opened each time anew: a program that is being started still has what we hold open.
        let set_size = |size| File::options().write(true).open(&path).unwrap().set_len(size).unwrap();
        // Nobody reads that much before it is cut.
        set_size(16 << 30);
        let running = site.build_image(&sandbox).arg("web").spawn();
        wait::until(format_args!("{site}: the file is read"), || is_open_elsewhere(&path));
        thread::sleep(Duration::from_millis(50));
        set_size(10);
        let outcome = running.wait();
        assert_eq!(outcome.code, 1, "{site}: {outcome}");
        for part in ["the build context could not be read", "shrinking"] {
            assert!(outcome.stderr.contains(part), "{site}: {outcome}");
        }
        assert!(site.names("rt-shrinks").is_empty(), "{site}");
    });
}

#[test]
fn an_interrupt_ends_the_build_on_the_engine_and_leaves_nothing() {
    const PROJECT: &str = "rt-interrupt";
    site::everywhere(|site| {
        let seconds = unique_seconds(1000);
        let sandbox = Sandbox::named(PROJECT)
            .file(
                "docker/web/Dockerfile",
                format!("FROM dockerutils-lab-base:1\nRUN exec sleep {seconds}\n"),
            )
            .file("pip.conf.template", "[global]\n");
        let running = site.build_image(&sandbox).arg("web").spawn();
        let sleep = ["sleep", seconds.as_str()];
        wait::until(format_args!("{site}: the RUN began"), || runs(&sleep));
        let began = Instant::now();
        running.interrupt();
        let outcome = running.wait();
        assert_eq!(outcome.code, 130, "{site}: {outcome}");
        assert!(
            began.elapsed() < wait::PATIENCE,
            "{site}: it took {:?}",
            began.elapsed()
        );
        assert!(
            !sandbox.project().join("pip.conf").exists(),
            "{site}: pip.conf was left"
        );
        assert!(sandbox.leftovers().is_empty(), "{site}: {:?}", sandbox.leftovers());
        wait::until(format_args!("{site}: the RUN ended"), || !runs(&sleep));
        assert!(site.names(PROJECT).is_empty(), "{site}");
        wait::until(format_args!("{site}: its container is gone"), || {
            let containers =
                capture_text(
                    site.docker()
                        .args(["ps", "--all", "--no-trunc", "--format", "{{.Command}}"]),
                );
            !containers.unwrap().contains(&seconds)
        });
    });
}

#[test]
fn an_engine_that_dies_in_the_middle_is_named() {
    for store in [Store::Classic, Store::Containerd] {
        let throwaway = Throwaway::start(Suite::Sid, store, None).unwrap();
        let builds = sites_of(&throwaway).map(|site| {
            let seconds = unique_seconds(1000);
            let sandbox = Sandbox::named("rt-engine-dies")
                .file(
                    "docker/web/Dockerfile",
                    format!("FROM dockerutils-lab-base:1\nRUN exec sleep {seconds}\n"),
                )
                .file("pip.conf.template", "[global]\n");
            (site, sandbox, seconds)
        });
        let running: Vec<_> = builds
            .iter()
            .map(|(site, sandbox, _)| site.build_image(sandbox).arg("web").spawn())
            .collect();
        for (site, _, seconds) in &builds {
            wait::until(format_args!("{site}: the RUN began"), || runs(&["sleep", seconds]));
        }
        throwaway.kill().unwrap();
        for ((site, sandbox, _), running) in builds.iter().zip(running) {
            let outcome = running.wait();
            assert_eq!(outcome.code, 3, "{site}: {outcome}");
            assert!(outcome.stderr.contains("went away"), "{site}: {outcome}");
            assert!(outcome.stderr.contains("hint: "), "{site}: {outcome}");
            assert!(!sandbox.project().join("pip.conf").exists(), "{site}");
            assert!(sandbox.leftovers().is_empty(), "{site}: {:?}", sandbox.leftovers());
        }
    }
}

#[test]
fn a_slow_engine_is_waited_for_and_one_that_hangs_can_be_left() {
    let throwaway = Throwaway::start(Suite::Trixie, Store::Classic, None).unwrap();
    let sites = sites_of(&throwaway);
    let builds = sites.each_ref().map(|site| {
        let seconds = format!(
            "2.{}{}",
            std::process::id(),
            u32::from(site.builder == EngineBuilder::Classic)
        );
        let sandbox = Sandbox::named("rt-engine-hangs").file(
            "docker/web/Dockerfile",
            format!("FROM dockerutils-lab-base:1\nRUN sleep {seconds}; echo went on\n"),
        );
        (site, sandbox, seconds)
    });
    // It says nothing for a while in the middle.
    let running: Vec<_> = builds
        .iter()
        .map(|(site, sandbox, _)| site.build_image(sandbox).arg("web").spawn())
        .collect();
    for (site, _, seconds) in &builds {
        wait::until(format_args!("{site}: the RUN began"), || runs(&["sleep", seconds]));
    }
    throwaway.freeze().unwrap();
    thread::sleep(Duration::from_secs(5));
    throwaway.thaw().unwrap();
    for ((site, ..), running) in builds.iter().zip(running) {
        let outcome = running.wait();
        assert_eq!(outcome.code, 0, "{site}: {outcome}");
        assert!(outcome.stderr.contains("went on"), "{site}: {outcome}");
    }
    // It never says a word.
    throwaway.freeze().unwrap();
    let sandbox = Sandbox::named("rt-engine-hangs").file("docker/web/Dockerfile", "FROM dockerutils-lab-base:1\n");
    let [site, _] = &sites;
    let silent = site.build_image(&sandbox).arg("web").spawn();
    let left = site.build_image(&sandbox).arg("web").spawn();
    thread::sleep(Duration::from_secs(1));
    let began = Instant::now();
    left.interrupt();
    assert_eq!(left.wait().code, 130);
    assert!(began.elapsed() < wait::PATIENCE, "{:?}", began.elapsed());
    let outcome = silent.wait();
    assert_eq!(outcome.code, 3, "{outcome}");
    assert!(outcome.stderr.contains("does not answer"), "{outcome}");
    throwaway.thaw().unwrap();
}

#[test]
fn a_full_disk_on_the_engine_is_said() {
    for store in [Store::Classic, Store::Containerd] {
        let throwaway = Throwaway::start(Suite::Trixie, store, Some(200)).unwrap();
        for site in sites_of(&throwaway) {
            // Once by what it is sent, once by what it makes of it.
            let context = Sandbox::named("rt-full-disk")
                .file("docker/web/Dockerfile", "FROM dockerutils-lab-base:1\nCOPY . /ctx/\n");
            File::create(context.project().join("large"))
                .unwrap()
                .set_len(300 << 20)
                .unwrap();
            let step = Sandbox::named("rt-full-disk").file(
                "docker/web/Dockerfile",
                "FROM dockerutils-lab-base:1\nRUN dd if=/dev/zero of=/large bs=1M count=300\n",
            );
            for sandbox in [&context, &step] {
                let outcome = site.build_image(sandbox).arg("web").code(1).any_stdout().run();
                assert!(
                    outcome.stderr.to_lowercase().contains("no space left on device"),
                    "{site}: {outcome}"
                );
                assert!(site.names("rt-full-disk").is_empty(), "{site}");
            }
        }
    }
}
