//! What a Dockerfile is made of, as we read it and as BuildKit does: generated Dockerfiles are given to both, and the names that
//! BuildKit asks for are compared with those that we find.
//!
//! A policy has BuildKit take the lab's base image for whatever it asks for, so that it asks for all; and it is asked for the
//! outline of a build, so that it builds nothing.

mod generator;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::process::Stdio;
use std::thread;

use dockerutils_core::docker::build::dockerfile::Dockerfile;
use dockerutils_core::docker::options::build_options::BuildOptions;
use dockerutils_core::naming::{canonical, is_reference};
use dockerutils_test_support::{Random, Sandbox, lab};
use dockerutils_tests::site;
use generator::Generated;

const SEED: u64 = 15;
/// Each with a dozen stages.
const DOCKERFILES: usize = 60;

/// Every name is that of the base image.
const POLICY: &str = r#"{"rules":[{"action":"CONVERT","selector":{"identifier":"docker-image://*"},
"updates":{"identifier":"docker-image://docker.io/library/dockerutils-lab-base:1"}}]}"#;

/// Reads an archive of folders, has each folder's Dockerfile outlined, and prints what was said of it.
const SCRIPT: &str = r#"set -e
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
tar x
export DOCKER_CONFIG="$dir/config" EXPERIMENTAL_BUILDKIT_SOURCE_POLICY="$dir/policy.json"
outline='
number=$1
set --
while read -r argument; do set -- "$@" --build-arg "$argument"; done < "$number/arguments"
docker buildx build --call=outline --progress=plain "$@" - < "$number/Dockerfile" > "$number/said" 2>&1 || echo FAILED >> "$number/said"
'
seq 0 "$(($1 - 1))" | xargs -P 4 -n 1 sh -c "$outline" sh
for number in $(seq 0 "$(($1 - 1))"); do echo "DOCKERFILE $number"; cat "$number/said"; done
"#;

/// What BuildKit says of each.
fn outlines(generated: &[Generated]) -> Vec<String> {
    let engine = lab::engine("28").expect("the lab");
    let mut archive = tar::Builder::new(Vec::new());
    let mut add = |path: &str, text: &str| {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        archive
            .append_data(&mut header, path, text.as_bytes())
            .expect("a vector takes all");
    };
    add("policy.json", POLICY);
    for (number, one) in generated.iter().enumerate() {
        let arguments: String = one
            .arguments
            .iter()
            .map(|(name, value)| format!("{name}={value}\n"))
            .collect();
        add(&format!("{number}/Dockerfile"), &one.text);
        add(&format!("{number}/arguments"), &arguments);
    }
    let archive = archive.into_inner().expect("a vector takes all");
    let mut exec = engine.exec("sh").expect("it is a dock");
    exec.args(["-c", SCRIPT, "sh"]).arg(generated.len().to_string());
    let mut child = exec
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("docker runs");
    let mut stdin = child.stdin.take().expect("it is piped");
    let writing = thread::spawn(move || stdin.write_all(&archive));
    let output = child.wait_with_output().expect("it is our child");
    writing
        .join()
        .expect("it does not panic")
        .expect("the script reads all");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let said = String::from_utf8(output.stdout).expect("BuildKit says text");
    let said: Vec<String> = said.split("DOCKERFILE ").skip(1).map(str::to_owned).collect();
    assert_eq!(said.len(), generated.len());
    said
}

#[test]
fn a_dockerfile_needs_what_buildkit_asks_for() {
    let mut random = Random::new(SEED);
    let generated: Vec<Generated> = (0..DOCKERFILES).map(|_| generator::dockerfile(&mut random)).collect();
    let (mut asked_for, mut refused) = (0, 0);
    let mut wrong = Vec::new();
    for (one, said) in generated.iter().zip(outlines(&generated)) {
        let options = BuildOptions {
            build_args: one.arguments.iter().cloned().collect::<BTreeMap<_, _>>(),
            ..BuildOptions::default()
        };
        let file = Dockerfile::parse(&one.text, &options);
        let told = format!("{}\n{:?}\n{said}", one.text, one.arguments);
        if said.contains("FAILED") {
            refused += 1;
            // It stops at what it refuses, and what comes after that is not told: we must know nothing of one stage, at least.
            let is_refused = |base: &str| !file.has_stage(base) && !is_reference(base);
            if !file
                .stages
                .iter()
                .any(|stage| stage.base.as_deref().is_none_or(is_refused))
            {
                wrong.push(format!("BuildKit refuses what we read: {told}"));
            }
            continue;
        }
        let theirs: BTreeSet<String> = said
            .lines()
            .filter_map(|line| line.split_once("[internal] load metadata for "))
            .map(|(_, name)| name.trim().to_owned())
            .collect();
        let ours: BTreeSet<String> = file.images_for(None).into_iter().map(canonical).collect();
        asked_for += theirs.len();
        if ours != theirs {
            let ours_only: Vec<_> = ours.difference(&theirs).collect();
            let theirs_only: Vec<_> = theirs.difference(&ours).collect();
            wrong.push(format!(
                "only we read {ours_only:?}, only BuildKit {theirs_only:?}: {told}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{} differ\n{}", wrong.len(), wrong.join("\n----\n"));
    // Most of them have to tell something, and a few to be refused.
    assert!(
        asked_for > DOCKERFILES * 4 && (1..DOCKERFILES / 2).contains(&refused),
        "{asked_for} names were compared, and {refused} Dockerfiles refused"
    );
}

#[test]
fn a_dockerfile_that_is_a_link_is_built_as_what_it_leads_to() {
    const PROJECT: &str = "rt-linked-dockerfile";
    site::everywhere(|site| {
        let _images = site.images(PROJECT);
        let text = |said: &str| format!("FROM dockerutils-lab-base:1\nCOPY docker/two /ctx\nRUN echo {said} > /made\n");
        let sandbox = Sandbox::named(PROJECT)
            .file("docker/one/Dockerfile", text("linked"))
            .dir("docker/two")
            .symlink("docker/two/Dockerfile", "../one/Dockerfile");
        let made = |dock: Option<&str>| {
            let build = site.build_image(&sandbox).arg("two").any_stdout();
            match dock {
                // It counts as far, and is held to what is read here.
                Some(address) => build.env("DOCKER_IP", address),
                None => build,
            }
            .run();
            site.file(&format!("{PROJECT}-two:{}", site.tag()), "/made")
        };
        assert_eq!(made(None), "linked", "{site}");
        // What it leads to has changed, and nothing else.
        sandbox.write("docker/one/Dockerfile", text("change"));
        assert_eq!(made(Some("192.0.2.1")), "change", "{site}");
    });
}
