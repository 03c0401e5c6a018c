//! The memory that build-image takes does not grow with the context.

use std::fs::{self, File};
use std::path::Path;
use std::thread;
use std::time::Duration;

use dockerutils_test_support::Sandbox;
use dockerutils_test_support::lab::{Store, Suite, Throwaway};
use dockerutils_tests::site::{EngineBuilder, Site};

/// What is promised, in KiB.
const LIMIT: u64 = 64 << 10;

const PROJECT: &str = "rt-memory";

const FILES: usize = 100_000;

/// Most of the context's bytes: with the files above, a little more than a GiB.
const LARGE: u64 = 1 << 30;

fn fill(folder: &Path) {
    for number in 0..FILES {
        if number % 1000 == 0 {
            fs::create_dir(folder.join(format!("folder{}", number / 1000))).unwrap();
        }
        let name = format!(
            "folder{}/a-file-with-a-name-of-usual-length-{number}.txt",
            number / 1000
        );
        fs::write(folder.join(name), format!("{number}\n")).unwrap();
    }
    File::create(folder.join("large")).unwrap().set_len(LARGE).unwrap();
}

#[test]
fn a_context_of_a_gibibyte_and_a_hundred_thousand_files_takes_less_than_64_mib() {
    // In memory, too: some file systems take a minute to make so many files.
    let directory = tempfile::tempdir_in("/dev/shm").unwrap();
    let project = directory.path().join(PROJECT);
    for (image, dockerfile) in [
        // BuildKit is sent what is used, and copies nothing here; the classic builder is sent all.
        (
            "buildkit",
            "FROM dockerutils-lab-base:1\nRUN --mount=type=bind,target=/ctx find /ctx/data -type f | wc -l > /count; \
             stat -c %s /ctx/data/large > /size\n",
        ),
        ("classic", "FROM dockerutils-lab-base:1\nCOPY data/folder99 /folder\n"),
    ] {
        let folder = project.join("docker").join(image);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("Dockerfile"), dockerfile).unwrap();
    }
    fs::create_dir(project.join("data")).unwrap();
    fill(&project.join("data"));
    // An engine of our own: what this leaves in a build cache is not for the others. Its disk is in memory, because
    // a hundred thousand files take minutes on some.
    let throwaway = Throwaway::start(Suite::Trixie, Store::Classic, Some(6 << 10)).unwrap();
    thread::scope(|scope| {
        for builder in [EngineBuilder::BuildKit, EngineBuilder::Classic] {
            let site = Site {
                engine: throwaway.engine().clone(),
                builder,
            };
            let project = &project;
            scope.spawn(move || measure(&site, project));
        }
    });
}

fn measure(site: &Site, project: &Path) {
    let sandbox = Sandbox::new();
    let image = site.tag();
    let mut build = sandbox
        .command("build-image")
        .args([image, "--json"])
        .current_dir(project.to_str().unwrap())
        .env("DOCKER_HOST", &site.engine.host)
        .env("USER", image)
        .env("LOGNAME", image)
        .limit(Duration::from_secs(240));
    if site.builder == EngineBuilder::Classic {
        build = build.env("DOCKER_BUILDKIT", "0");
    }
    let outcome = build.any_stdout().any_stderr().run();
    let report = outcome.json();
    let sent = report["images"][0]["context_bytes"].as_u64().unwrap();
    assert!(sent > LARGE, "{site}: {report:#}");
    assert!((1..LIMIT).contains(&outcome.memory), "{site}: {} KiB", outcome.memory);
    let name = format!("{PROJECT}-{image}:{image}");
    if site.builder == EngineBuilder::BuildKit {
        assert_eq!(site.file(&name, "/count"), (FILES + 1).to_string());
        assert_eq!(site.file(&name, "/size"), LARGE.to_string());
    } else {
        assert_eq!(site.paths(&name, "/folder").len(), 1000);
    }
}
