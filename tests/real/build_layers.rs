//! `build-image --layers` of images that either builder made, in either store: sizes as docker counts them, the lines that
//! made the layers, and what is in vain in them.

use dockerutils_test_support::Sandbox;
use dockerutils_test_support::lab::Store;
use dockerutils_test_support::process::capture_text;
use dockerutils_tests::site;
use serde_json::Value;

const DOCKERFILE: &str = "\
FROM dockerutils-lab-base:1 AS one
RUN mkdir -p /var/lib/apt/lists && head -c 3000000 /dev/urandom > /var/lib/apt/lists/deb_main
FROM dockerutils-lab-base:1 AS unused
RUN true
FROM one
ENV A=1
RUN head -c 5000000 /dev/zero > /big && \\
    mkdir -p /root/.cache/pip && head -c 200000 /dev/zero > /root/.cache/pip/x
COPY data /srv/data
WORKDIR /srv
RUN chmod 700 data && rm /big
CMD [\"true\"]
";

#[test]
fn layers_have_their_lines_sizes_and_advice() {
    const PROJECT: &str = "rt-layers";
    site::everywhere(|site| {
        let sandbox = Sandbox::named(PROJECT)
            .file("docker/dev/Dockerfile", DOCKERFILE)
            .file("data", vec![7; 400_000]);
        let _images = site.images(PROJECT);
        site.build_image(&sandbox).args(["dev", "-q"]).any_stdout().run();
        let report = site
            .build_image(&sandbox)
            .args(["dev", "--layers", "--json"])
            .any_stdout()
            .run()
            .json();
        let layers = report["layers"].as_array().unwrap();
        let lines: Vec<&Value> = layers
            .iter()
            .map(|layer| &layer["line"])
            .filter(|line| !line.is_null())
            .collect();
        // Some builders make a layer of WORKDIR, some only where the directory is not there yet.
        let lines: Vec<u64> = lines
            .into_iter()
            .map(|line| line.as_u64().unwrap())
            .filter(|line| *line != 10)
            .collect();
        assert_eq!(lines, [2, 7, 9, 11], "{site}: {report:#}");
        let base = layers.iter().take_while(|layer| layer["line"].is_null()).count();
        assert_eq!(base, 1, "{site}: {report:#}");

        // Docker counts the bytes of a layer's files, too; the containerd store counts blocks of the disk.
        if site.engine.store == Store::Classic {
            let reference = report["image"].as_str().unwrap();
            let mut history = site.docker();
            history.args(["history", "--human=false", "--format={{.Size}}", reference]);
            let mut theirs: Vec<u64> = capture_text(&mut history)
                .unwrap()
                .lines()
                .map(|size| size.trim().parse().unwrap())
                .filter(|size| *size > 0)
                .collect();
            theirs.reverse();
            let ours: Vec<u64> = layers
                .iter()
                .map(|layer| layer["size"].as_u64().unwrap())
                .filter(|size| *size > 0)
                .collect();
            // In an image that was imported, it counts the text of symbolic links, too.
            assert_eq!(ours[1..], theirs[1..], "{site}: {report:#}");
        }

        let wasted: Vec<(u64, &str, u64)> = layers
            .iter()
            .flat_map(|layer| {
                layer["in_vain"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(move |waste| (layer, waste))
            })
            .map(|(layer, waste)| {
                (
                    layer["line"].as_u64().unwrap(),
                    waste["path"].as_str().unwrap(),
                    waste["size"].as_u64().unwrap(),
                )
            })
            .collect();
        assert_eq!(
            wasted,
            [
                (2, "/var/lib/apt/lists", 3_000_000),
                (7, "/big", 5_000_000),
                (7, "/root/.cache/pip", 200_000),
                (9, "/srv/data", 400_000),
            ],
            "{site}: {report:#}"
        );
        assert_eq!(report["in_vain"], 8_600_000, "{site}");

        let outcome = site
            .build_image(&sandbox)
            .args(["dev", "--layers"])
            .any_stdout()
            .any_stderr()
            .run();
        let said = &outcome.stdout;
        for part in [
            "3.0 MB in vain: /var/lib/apt/lists: apt's lists of packages",
            "line 2: end that RUN with && rm -rf /var/lib/apt/lists/*",
            "5.0 MB in vain: /big: deleted by line 11",
            "8.6 MB of it (",
        ] {
            assert!(said.contains(part), "{site}: {said}");
        }
    });
}
