//! `build-image all`: in the order of what needs what, side by side, and on past a failure.

use std::time::SystemTime;

use dockerutils_test_support::Sandbox;
use dockerutils_tests::site;

#[test]
fn images_are_built_after_what_they_need() {
    const PROJECT: &str = "rt-all-order";
    let now = SystemTime::now();
    // By name the order would be another one.
    let sandbox = Sandbox::named(PROJECT)
        .file("docker/zero/Dockerfile", format!("FROM dockerutils-lab-base:1\nRUN echo '{now:?}' > /zero\n"))
        .file(
            "docker/app/Dockerfile",
            format!("ARG TAG=none\nARG BASE={PROJECT}-middle\nFROM $BASE:${{TAG}} AS builder\nRUN cat /middle > /app\nFROM dockerutils-lab-base:1\nCOPY --from=builder /app /app\n"),
        )
        .file(
            "docker/middle/Dockerfile",
            format!("ARG TAG\nFROM dockerutils-lab-base:1\nCOPY --from={PROJECT}-zero:TAG /zero /middle\n"),
        );
    site::everywhere(|site| {
        let _images = site.images(PROJECT);
        // COPY --from takes no variable.
        let sandbox = Sandbox::named(PROJECT)
            .file("docker/zero/Dockerfile", sandbox.read("docker/zero/Dockerfile"))
            .file("docker/app/Dockerfile", sandbox.read("docker/app/Dockerfile"))
            .file(
                "docker/middle/Dockerfile",
                sandbox
                    .read("docker/middle/Dockerfile")
                    .replace(":TAG", &format!(":{}", site.tag())),
            )
            .file(
                "docker/dockerutils.cfg",
                format!("[app]\nbuild_args = --build-arg TAG={}\n", site.tag()),
            );
        let report = site
            .build_image(&sandbox)
            .args(["all", "--json"])
            .any_stdout()
            .run()
            .json();
        let images: Vec<_> = report["images"].as_array().unwrap().iter().collect();
        let names: Vec<_> = images
            .iter()
            .map(|image| image["image"].as_str().unwrap().to_owned())
            .collect();
        let expected = ["zero", "middle", "app"].map(|name| format!("{PROJECT}-{name}:{}", site.tag()));
        assert_eq!(names, expected, "{site}");
        for image in images {
            let inspected = site.inspect(image["image"].as_str().unwrap());
            assert_eq!(image["id"], inspected["Id"], "{site}: {report:#}");
            assert!(image["size"].as_u64().unwrap() > 0, "{site}: {report:#}");
            assert!(image["seconds"].as_f64().unwrap() > 0.0, "{site}: {report:#}");
        }
        let app = site.file(&expected[2], "/app");
        assert_eq!(app, format!("{now:?}"), "{site}");
        let builder = format!("{PROJECT}-app-builder:{}", site.tag());
        assert!(site.inspect(&builder)["Id"].is_string(), "{site}");
        site.build_image(&sandbox).arg("clean").any_stdout().run();
        assert!(site.names(PROJECT).is_empty(), "{site}: {:?}", site.names(PROJECT));
    });
}

#[test]
fn a_circle_is_named_before_anything_is_built() {
    const PROJECT: &str = "rt-circle";
    site::everywhere(|site| {
        let from = |image: &str| format!("FROM {PROJECT}-{image}:{}\n", site.tag());
        let sandbox = Sandbox::named(PROJECT)
            .file("docker/alone/Dockerfile", "FROM dockerutils-lab-base:1\n")
            .file("docker/one/Dockerfile", from("two"))
            .file("docker/three/Dockerfile", from("one"))
            .file("docker/two/Dockerfile", from("three"));
        site.build_image(&sandbox)
            .arg("all")
            .code(2)
            .stderr_has("images need each other in a circle: one -> two -> three -> one")
            .run();
        assert!(site.names(PROJECT).is_empty(), "{site}");
    });
}

#[test]
fn a_failure_stops_what_needs_it_and_nothing_else() {
    const PROJECT: &str = "rt-all-failure";
    site::everywhere(|site| {
        let _images = site.images(PROJECT);
        let from = |image: &str| format!("FROM {PROJECT}-{image}:{}\nRUN true\n", site.tag());
        let sandbox = Sandbox::named(PROJECT)
            .file(
                "docker/bad/Dockerfile",
                "FROM dockerutils-lab-base:1\nRUN echo so it is; false\n",
            )
            .file("docker/after/Dockerfile", from("bad"))
            .file("docker/later/Dockerfile", from("after"))
            .file("docker/good/Dockerfile", "FROM dockerutils-lab-base:1\nRUN true\n")
            .file("docker/better/Dockerfile", from("good"));
        for jobs in ["1", "4"] {
            let outcome = site
                .build_image(&sandbox)
                .args(["all", "-j", jobs])
                .code(1)
                .any_stdout()
                .stderr_has("so it is")
                .stderr_has("docker/bad/Dockerfile:2\n")
                .run();
            let status = |image: &str| {
                let name = format!("{PROJECT}-{image}:{}", site.tag());
                let line = outcome
                    .stdout
                    .lines()
                    .find(|line| line.split_whitespace().next() == Some(&name));
                line.and_then(|line| line.split_whitespace().nth(1))
                    .unwrap_or_default()
                    .to_owned()
            };
            assert_eq!(status("bad"), "failed", "{site}: {outcome}");
            assert_eq!(status("after"), "skipped", "{site}: {outcome}");
            assert_eq!(status("later"), "skipped", "{site}: {outcome}");
            for image in ["good", "better"] {
                assert!(
                    ["built", "cached"].contains(&status(image).as_str()),
                    "{site}: {outcome}"
                );
            }
            assert_eq!(site.names(PROJECT).len(), 2, "{site}: {:?}", site.names(PROJECT));
        }
    });
}

#[test]
fn independent_images_are_built_side_by_side() {
    const PROJECT: &str = "rt-side-by-side";
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_nanos();
    // Each waits for the other one.
    let dockerfile = |mine: &str, other: &str| {
        format!(
            "FROM dockerutils-lab-base:1\nRUN --mount=type=cache,target=/both,id={now} touch /both/{mine}; \
             for i in $(seq 300); do test -e /both/{other} && exit 0; sleep 0.1; done; exit 1\n"
        )
    };
    let sandbox = Sandbox::named(PROJECT)
        .file("docker/one/Dockerfile", dockerfile("one", "two"))
        .file("docker/two/Dockerfile", dockerfile("two", "one"));
    site::on_buildkit(|site| {
        let _images = site.images(PROJECT);
        site.build_image(&sandbox).args(["all", "-j", "2"]).any_stdout().run();
    });
}
