//! transfer-image between real engines of every age and store: only what is missing goes, and what arrives is an image in
//! every respect.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::thread;

use dockerutils_test_support::lab::{self, LabEngine, Store, Suite, Throwaway};
use dockerutils_test_support::registry::Registry;
use dockerutils_tests::moving::{Moving, docker, docker_succeeds, partial_images, printed, saved_layers};
use dockerutils_tests::packed::{self, Packing, digest};
use serde_json::{Value, json};

/// Five layers on the base: large ones, small ones, and one without a file. All but the last are nobody else's, also not those
/// of the same test on other engines in the same second.
const DOCKERFILE: &str = "\
FROM dockerutils-lab-base:1
RUN head -c 3000000 /dev/urandom > /a
RUN mkdir -p /same; head -c 20 /dev/urandom > /same/salt
WORKDIR /same
RUN head -c 5000000 /dev/urandom > /b && ln /b /c
RUN head -c 20 /dev/urandom > /salt; echo low > /top
LABEL a=b
CMD [\"cat\", \"/top\"]
";

/// The configuration's digest of an image, in either store: that of the file in its archive.
fn config_digest(engine: &LabEngine, image: &str) -> String {
    let archive = dockerutils_test_support::process::capture(engine.docker().args(["save", image])).unwrap();
    let mut archive = tar::Archive::new(&archive[..]);
    let mut files = BTreeMap::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().display().to_string();
        if entry.size() < 1 << 20 {
            let mut content = Vec::new();
            std::io::Read::read_to_end(&mut entry, &mut content).unwrap();
            files.insert(path, content);
        }
    }
    let manifest: Value = serde_json::from_slice(&files["manifest.json"]).unwrap();
    digest(&files[manifest[0]["Config"].as_str().unwrap()])
}

fn layers(engine: &LabEngine, image: &str) -> Vec<String> {
    let layers = docker(engine, &["image", "inspect", "--format={{json .RootFS.Layers}}", image]);
    serde_json::from_str(&layers).unwrap()
}

/// Everything that one does with an image, done with this one.
fn is_whole(engine: &LabEngine, moving: &Moving, said: &str) {
    let name = &moving.name;
    assert_eq!(printed(engine, name), said, "{}", engine.name);
    assert_eq!(
        saved_layers(engine, name),
        layers(engine, name).len(),
        "{}",
        engine.name
    );
    let child = name.replace(':', "-child:");
    moving.build_as(engine, &child, &format!("FROM {name}\nRUN echo child >> /top\n"));
    assert_eq!(printed(engine, &child), format!("{said}\nchild"), "{}", engine.name);
    assert_eq!(
        saved_layers(engine, &child),
        layers(engine, &child).len(),
        "{}",
        engine.name
    );
}

#[test]
fn every_engine_takes_images_of_every_other_and_only_the_layers_that_it_lacks() {
    let engines = lab::engines().unwrap();
    let failed = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for from in &engines {
            let (engines, failed) = (&engines, &failed);
            scope.spawn(move || {
                let all: Vec<&LabEngine> = engines.iter().collect();
                for to in engines.iter().filter(|to| to.name != from.name) {
                    let moving = Moving::on(&format!("pair-{}-{}", from.name, to.name), &all);
                    let test = || pair(&moving, from, to);
                    if std::panic::catch_unwind(std::panic::AssertUnwindSafe(test)).is_err() {
                        failed.lock().unwrap().push(format!("{} to {}", from.name, to.name));
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "failed: {failed:#?}");
}

fn pair(moving: &Moving, from: &LabEngine, to: &LabEngine) {
    moving.build(from, DOCKERFILE);
    let all = layers(from, &moving.name);
    let first = moving.send(from, &to.host);
    let distinct: std::collections::BTreeSet<&String> = all.iter().collect();
    // The base is there, by whatever way.
    assert_eq!(first["status"], "transferred", "{first}");
    let (skipped, sent) = (
        first["layers_skipped"].as_u64().unwrap(),
        first["layers_sent"].as_u64().unwrap(),
    );
    assert_eq!(skipped + sent, distinct.len() as u64, "{first}");
    // Of a layer without files, there is one for all images of a store that keeps blobs.
    assert!((1..=2).contains(&skipped), "{first}");
    let sent = first["bytes_sent"].as_u64().unwrap();
    assert!((8_000_000..8_200_000).contains(&sent), "{first}");
    assert_eq!(layers(to, &moving.name), all);
    let config = config_digest(from, &moving.name);
    assert_eq!(
        (first["config_digest"].as_str(), config_digest(to, &moving.name)),
        (Some(config.as_str()), config.clone())
    );
    assert!(partial_images(to, &id(from, &moving.name)).is_empty());

    // Nothing to do is done at once.
    let again = moving.send(from, &to.host);
    assert_eq!(
        (&again["status"], &again["bytes_sent"]),
        (&json!("present"), &json!(0)),
        "{again}"
    );

    // One megabyte changed, and goes.
    moving.build(
        from,
        &DOCKERFILE.replace("echo low", "head -c 1000000 /dev/urandom > /d; echo high"),
    );
    let changed = moving.send(from, &to.host);
    assert_eq!(
        (&changed["layers_sent"], &changed["status"]),
        (&json!(1), &json!("transferred")),
        "{changed}"
    );
    let sent = changed["bytes_sent"].as_u64().unwrap();
    assert!((1_000_000..1_010_000 + 65_536).contains(&sent), "{changed}");
    assert_eq!(layers(to, &moving.name), layers(from, &moving.name));
    is_whole(to, moving, "high");
}

fn id(engine: &LabEngine, image: &str) -> String {
    docker(engine, &["image", "inspect", "--format={{.Id}}", image])
}

/// A base that came over the wire by us or from a registry, where its blobs are compressed and have other digests; then all
/// that a user does, and the engine's own removal of what it takes for unused.
fn base_and_prune(suite: Suite, store: Store, from: &str) {
    let throwaway = Throwaway::start(suite, store, None).unwrap();
    let (from, to) = (lab::engine(from).unwrap(), throwaway.engine());
    for pulled in [true, false] {
        let base = Moving::on("base", &[&from]);
        base.build(
            &from,
            "FROM dockerutils-lab-base:1\nRUN head -c 2000000 /dev/urandom > /base\n",
        );
        base.send(&from, &to.host);
        let registry = Registry::on(to).start().unwrap();
        if pulled {
            let name = format!("{}/base:1", registry.address());
            docker(to, &["tag", &base.name, &name]);
            docker(to, &["push", &name]);
            docker(to, &["rmi", &name, &base.name]);
            docker(to, &["system", "prune", "--force"]);
            docker(to, &["pull", &name]);
        }
        let moving = Moving::on("on-base", &[&from]);
        moving.build(
            &from,
            &format!("FROM {}\nRUN echo there > /top\nCMD [\"cat\", \"/top\"]\n", base.name),
        );
        let sent = moving.send(&from, &to.host);
        assert_eq!(
            (&sent["layers_sent"], &sent["layers_skipped"]),
            (&json!(1), &json!(2)),
            "{pulled} {sent}"
        );
        assert!(sent["bytes_sent"].as_u64().unwrap() < 65_536, "{sent}");

        // The base may go now: the image keeps what it needs of it.
        for name in docker(to, &["images", "--format={{.Repository}}:{{.Tag}}"]).lines() {
            if name.contains("base:") && name != moving.name {
                docker(to, &["rmi", name]);
            }
        }
        docker(to, &["system", "prune", "--force"]);
        is_whole(to, &moving, "there");
        let name = format!("{}/moved:1", registry.address());
        docker(to, &["tag", &moving.name, &name]);
        docker(to, &["push", &name]);
        docker(to, &["system", "prune", "--force"]);
        is_whole(to, &moving, "there");
        // What was pushed is all of it.
        let images = docker(
            to,
            &[
                "images",
                "--quiet",
                "--filter=reference=*moved*",
                "--filter=reference=rt-transfer*",
            ],
        );
        for image in images.lines() {
            docker_succeeds(to, &["rmi", "--force", image]);
        }
        docker(to, &["system", "prune", "--force"]);
        docker(to, &["pull", &name]);
        assert_eq!(printed(to, &name), "there");
    }
}

#[test]
fn a_base_is_used_however_it_came_and_the_image_outlives_it_in_the_classic_store() {
    base_and_prune(Suite::Trixie, Store::Classic, "28-containerd");
}

#[test]
fn a_base_is_used_however_it_came_and_the_image_outlives_it_in_the_old_containerd_store() {
    base_and_prune(Suite::Trixie, Store::Containerd, "local");
}

#[test]
fn a_base_is_used_however_it_came_and_the_image_outlives_it_in_the_new_containerd_store() {
    base_and_prune(Suite::Sid, Store::Containerd, "28");
}

#[test]
fn images_that_were_pulled_go_to_every_store_as_they_are() {
    // In containerd's store their layers are gzip blobs, and so they go.
    let from = lab::engine("26-containerd").unwrap();
    let registry = Registry::on(&from).start().unwrap();
    let engines = lab::engines().unwrap();
    let all: Vec<&LabEngine> = engines.iter().collect();
    let moving = Moving::on("pulled", &all);
    moving.build(&from, DOCKERFILE);
    let name = format!("{}/pulled:1", registry.address());
    docker(&from, &["tag", &moving.name, &name]);
    docker(&from, &["push", &name]);
    docker(&from, &["rmi", &name, &moving.name]);
    docker(&from, &["pull", &name]);
    docker(&from, &["tag", &name, &moving.name]);
    docker(&from, &["rmi", &name]);
    let id = id(&from, &moving.name);
    for to in engines.iter().filter(|to| to.name != from.name) {
        let sent = moving.send(&from, &to.host);
        assert_eq!(sent["status"], "transferred", "{}: {sent}", to.name);
        assert_eq!(layers(to, &moving.name), layers(&from, &moving.name), "{}", to.name);
        is_whole(to, &moving, "low");
        if to.store == Store::Containerd && sent["layers_skipped"] == 0 {
            assert_eq!(sent["id"].as_str(), Some(id.as_str()), "{sent}");
        }
    }
}

#[test]
fn layers_that_are_packed_with_zstd_go_to_every_engine_also_where_it_reads_none() {
    let from = lab::engine("28-containerd").unwrap();
    let engines = lab::engines().unwrap();
    let all: Vec<&LabEngine> = engines.iter().collect();
    let moving = Moving::on("zstd", &all);
    let seed = moving.name.repeat(10_000);
    let image = packed::image(&[
        ("low", format!("low {seed}").as_bytes(), Packing::Zstd),
        ("middle", format!("middle {seed}").as_bytes(), Packing::Gzip),
        ("top", moving.name.as_bytes(), Packing::Zstd),
    ]);
    let file = moving.sandbox().write("archive.tar", &image.archive);
    docker(&from, &["load", "--input", file.to_str().unwrap()]);
    docker(&from, &["tag", &image.id, &moving.name]);
    for to in engines.iter().filter(|to| to.name != from.name) {
        let sent = moving.send(&from, &to.host);
        assert_eq!(
            (&sent["layers_sent"], sent["config_digest"].as_str()),
            (&json!(3), Some(image.config.as_str())),
            "{}: {sent}",
            to.name
        );
        assert_eq!(layers(to, &moving.name), image.diff_ids, "{}", to.name);
        assert_eq!(saved_layers(to, &moving.name), 3, "{}", to.name);
        if to.store == Store::Containerd {
            assert_eq!(sent["id"].as_str(), Some(image.id.as_str()), "{}", to.name);
        }
        // What is in the files, too.
        let container = docker(to, &["create", "--network=none", &moving.name, "none"]);
        let copied =
            dockerutils_test_support::process::capture(to.docker().args(["cp", &format!("{container}:/top"), "-"]));
        docker(to, &["rm", &container]);
        assert!(
            String::from_utf8_lossy(&copied.unwrap()).contains(&moving.name),
            "{}",
            to.name
        );
    }
}

/// An image for two platforms here, a third that is elsewhere, as an archive.
fn multi_platform(seed: &str) -> (Vec<u8>, String) {
    const OCI: &str = "application/vnd.oci.image.";
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    let descriptor = |kind: &str, content: &[u8]| json!({ "mediaType": format!("{OCI}{kind}"), "digest": digest(content), "size": content.len() });
    let mut parts = Vec::new();
    for architecture in ["amd64", "arm64", "riscv64"] {
        let mut layer = tar::Builder::new(Vec::new());
        let content = format!("{seed} {architecture}").repeat(1000);
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        layer.append_data(&mut header, "file", content.as_bytes()).unwrap();
        let layer = layer.into_inner().unwrap();
        let config = json!({
            "architecture": architecture, "os": "linux", "config": {},
            "rootfs": { "type": "layers", "diff_ids": [digest(&layer)] },
        })
        .to_string()
        .into_bytes();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": format!("{OCI}manifest.v1+json"),
            "config": descriptor("config.v1+json", &config), "layers": [descriptor("layer.v1.tar", &layer)],
        })
        .to_string()
        .into_bytes();
        let mut part = descriptor("manifest.v1+json", &manifest);
        part["platform"] = json!({ "architecture": architecture, "os": "linux" });
        parts.push(part);
        if architecture != "riscv64" {
            files.extend([layer, config, manifest].map(|blob| (blob_path(&blob), blob)));
        }
    }
    let index = json!({ "schemaVersion": 2, "mediaType": format!("{OCI}index.v1+json"), "manifests": parts });
    let index = index.to_string().into_bytes();
    let top = json!({ "schemaVersion": 2, "manifests": [descriptor("index.v1+json", &index)] });
    let id = digest(&index);
    files.push((blob_path(&index), index));
    files.push(("oci-layout".into(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()));
    files.push(("index.json".into(), top.to_string().into_bytes()));
    let mut archive = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, path, &content[..]).unwrap();
    }
    (archive.into_inner().unwrap(), id)
}

fn blob_path(content: &[u8]) -> String {
    digest(content).replace("sha256:", "blobs/sha256/")
}

#[test]
fn an_image_for_several_platforms_stays_one_where_the_store_can_hold_it() {
    let from = lab::engine("28-containerd").unwrap();
    let engines = lab::engines().unwrap();
    let [near, old] = ["local", "26"].map(|name| lab::engine(name).unwrap());
    // With the machine's own engine, on which nothing may stay either.
    let all: Vec<&LabEngine> = engines.iter().chain([&near]).collect();
    let moving = Moving::on("platforms", &all);
    let (archive, id) = multi_platform(&moving.name);
    let file = moving.sandbox().write("archive.tar", archive);
    docker(&from, &["load", "--input", file.to_str().unwrap()]);
    docker(&from, &["tag", &id, &moving.name]);
    let containerd = lab::engine("26-containerd").unwrap();
    let sent = moving.send(&from, &containerd.host);
    assert_eq!(
        (sent["id"].as_str(), &sent["layers_sent"]),
        (Some(id.as_str()), &json!(2)),
        "{sent}"
    );
    // Back again: both platforms are whole there.
    let mut save = containerd.docker();
    let archive = dockerutils_test_support::process::capture(save.args(["save", &moving.name])).unwrap();
    let entries = tar::Archive::new(&archive[..])
        .entries()
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().path().unwrap().starts_with("blobs/sha256"))
        .count();
    assert!(entries >= 7, "{entries}");

    for classic in [&near, &old] {
        let outcome = moving
            .transfer(&from)
            .args([&moving.name, &classic.host])
            .any_stdout()
            .stderr_has("is for 2 platforms")
            .stderr_has("linux/amd64 is sent")
            .run();
        assert!(outcome.stdout.contains("1 of 1 layer sent"), "{outcome}");
        assert_eq!(
            docker(
                classic,
                &["image", "inspect", "--format={{.Architecture}}", &moving.name]
            ),
            "amd64"
        );
    }
}

#[test]
fn an_image_for_another_processor_gets_a_warning() {
    let (from, to) = (lab::engine("28").unwrap(), lab::engine("26").unwrap());
    let moving = Moving::on("arm", &[&from, &to]);
    let tar = moving.sandbox().write("x.tar", {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(4);
        builder.append_data(&mut header, "x", &b"arm\n"[..]).unwrap();
        builder.into_inner().unwrap()
    });
    docker(
        &from,
        &["import", "--platform=linux/arm64", tar.to_str().unwrap(), &moving.name],
    );
    moving
        .transfer(&from)
        .args([&moving.name, &to.host])
        .any_stdout()
        .stderr_has("is made for linux/arm64")
        .run();
    assert_eq!(layers(&to, &moving.name), layers(&from, &moving.name));
}

#[test]
fn an_image_goes_by_its_id_without_a_name() {
    let from = lab::engine("20").unwrap();
    for to in ["26", "28-containerd"] {
        let to = lab::engine(to).unwrap();
        let moving = Moving::on("id", &[&from, &to]);
        moving.build(
            &from,
            "FROM dockerutils-lab-base:1\nRUN head -c 1000 /dev/urandom > /x\n",
        );
        let full = id(&from, &moving.name);
        let short = full.trim_start_matches("sha256:").get(..12).unwrap();
        let outcome = moving
            .transfer(&from)
            .args([short, &to.host, "--json"])
            .any_stdout()
            .any_stderr()
            .run();
        let sent = outcome.json()["images"][0].clone();
        assert_eq!(sent["config_digest"].as_str(), Some(full.as_str()), "{sent}");
        let there = sent["id"].as_str().unwrap();
        assert_eq!(
            docker(&to, &["image", "inspect", "--format={{.RepoTags}}", there]),
            "[]"
        );
        docker(&to, &["run", "--rm", "--network=none", there, "test", "-s", "/x"]);
        docker(&to, &["rmi", there]);
    }
}

#[test]
fn a_batch_goes_on_past_an_image_that_is_not_there() {
    let (from, to) = (lab::engine("28").unwrap(), lab::engine("26-containerd").unwrap());
    let moving = Moving::on("batch", &[&from, &to]);
    moving.build(
        &from,
        "FROM dockerutils-lab-base:1\nRUN head -c 1000 /dev/urandom > /x\n",
    );
    let wrong = moving.name.replace("batch", "batsh");
    let outcome = moving
        .transfer(&from)
        .args([&wrong, &moving.name, "dockerutils-lab-base:1", &to.host, "--json"])
        .code(1)
        .any_stdout()
        .stderr_has(&format!("there is no image {wrong} on the engine at"))
        .stderr_has(&format!("is it {}?", moving.name))
        .run();
    let images = outcome.json()["images"].clone();
    let statuses: Vec<&Value> = images
        .as_array()
        .unwrap()
        .iter()
        .map(|image| &image["status"])
        .collect();
    assert_eq!(statuses, ["failed", "transferred", "present"], "{images:#}");
}

#[test]
fn the_image_of_a_project_is_what_build_image_made() {
    let (from, to) = (lab::engine("20").unwrap(), lab::engine("28").unwrap());
    let moving = Moving::on("project", &[&from, &to]);
    let tag = moving.name.rsplit_once(':').unwrap().1;
    let sandbox = moving.sandbox();
    sandbox.write(
        "docker/dev/Dockerfile",
        "FROM dockerutils-lab-base:1\nRUN head -c 1000 /dev/urandom > /x\n",
    );
    sandbox.write(
        "docker/dockerutils.cfg",
        format!("[dev]\nname = rt-transfer-project\nprefix = False\ntag = {tag}\n"),
    );
    moving
        .transfer(&from)
        .args(["dev", &to.host])
        .code(1)
        .stderr_has("hint: build it first: build-image dev")
        .run();
    sandbox
        .command("build-image")
        .args(["dev", "-q"])
        .env("DOCKER_HOST", &from.host)
        .any_stdout()
        .any_stderr()
        .run();
    moving
        .transfer(&from)
        .args(["dev", &to.host])
        .stdout_has(&format!("{} is on {}", moving.name, to.host))
        .any_stderr()
        .run();
    assert_eq!(layers(&to, &moving.name), layers(&from, &moving.name));
}

#[test]
fn the_same_engine_by_another_address_is_no_destination() {
    let from = lab::engine("28").unwrap();
    let moving = Moving::on("same", &[]);
    let link = moving.sandbox().project().join("engine.sock");
    std::os::unix::fs::symlink(from.host.trim_start_matches("unix://"), &link).unwrap();
    moving
        .transfer(&from)
        .args(["dockerutils-lab-base:1", &format!("unix://{}", link.display())])
        .code(2)
        .stderr_has("is the engine that the image is on")
        .stderr_has("hint: name where the image is with --from (ls-dock lists the docks), or another destination")
        .run();
}

#[test]
fn an_image_that_is_there_only_in_part_is_made_whole() {
    // As an engine with containerd's store takes it, and calls it loaded: without the blob of a layer.
    let from = lab::engine("28-containerd").unwrap();
    let to = lab::engine("26-containerd").unwrap();
    let moving = Moving::on("part", &[&from, &to]);
    moving.build(
        &from,
        "FROM dockerutils-lab-base:1\nRUN head -c 2000000 /dev/urandom > /x\nRUN echo whole > /top\nCMD [\"cat\", \"/top\"]\n",
    );
    let archive = dockerutils_test_support::process::capture(from.docker().args(["save", &moving.name])).unwrap();
    let mut part = tar::Builder::new(Vec::new());
    let mut left_out = 0;
    for entry in tar::Archive::new(&archive[..]).entries().unwrap() {
        let mut entry = entry.unwrap();
        if (1_000_000..2_100_000).contains(&entry.size()) {
            left_out += 1;
            continue;
        }
        let mut header = entry.header().clone();
        let path = entry.path().unwrap().into_owned();
        let mut content = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut content).unwrap();
        part.append_data(&mut header, path, &content[..]).unwrap();
    }
    assert_eq!(left_out, 1);
    let file = moving.sandbox().write("part.tar", part.into_inner().unwrap());
    // Some engines refuse it, and have its other blobs all the same.
    docker_succeeds(&to, &["load", "--input", file.to_str().unwrap()]);
    let sent = moving.send(&from, &to.host);
    assert_eq!(sent["status"], "transferred", "{sent}");
    assert!(sent["bytes_sent"].as_u64().unwrap() > 2_000_000, "{sent}");
    is_whole(&to, &moving, "whole");
}
