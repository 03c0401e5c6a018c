//! What is done with each image of a small stack.

use std::collections::BTreeMap;
use std::fs;

use dockerutils_core::cli::{Context, GlobalArgs};
use dockerutils_core::output::{Printer, Verbosity};

use super::*;
use crate::input_digest::Inputs;
use crate::plan::{RemoteImage, plan};
use crate::planning::{Stack, StackSelection};
use crate::registry_state::Registries;

const SPEC: &str = "tag: {prefix: 1.10, sha: true}\nimages:\n  base: {image_name: r.example/base, build_args: {V: 1.0}, prune: true}\n  \
                    mid: {image_name: r.example/mid, depend_on: base, platforms: [linux/amd64, linux/arm64]}\n  \
                    leaf: {image_name: r.example/leaf, depend_on: mid, prepull: false}\n";
const ALL: WorkOptions = WorkOptions {
    pushes: true,
    annotates: true,
    caches: true,
};

/// A stack on branch `work`, with what the registry holds of it: a tag for each image, and whether it is of the inputs.
fn planned(held: &[(&str, &str, bool)]) -> (PlannedStack, Env, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path();
    let from = |parent: &str| format!("ARG BASE_TAG\nFROM r.example/{parent}:$BASE_TAG\n");
    for (name, text) in [
        ("base", "FROM debian:13\n".to_owned()),
        ("mid", from("base")),
        ("leaf", from("mid")),
    ] {
        fs::create_dir_all(home.join("images").join(name)).unwrap();
        fs::write(home.join("images").join(name).join("Dockerfile"), text).unwrap();
    }
    fs::write(home.join("images/spec.yml"), SPEC).unwrap();
    let git = "git init -q -b work; git add -A; git -c user.name=a -c user.email=a@b commit -qm one";
    let made = std::process::Command::new("sh")
        .args(["-ec", git])
        .current_dir(home)
        .status();
    assert!(made.unwrap().success());
    let env = Env::from_pairs([("HOME", home.to_str().unwrap())]);
    let printer = Printer::new("build-stack", Verbosity::Quiet, false, &env);
    let context = Context::new(env.clone(), home.to_owned(), printer, GlobalArgs::default(), None);
    let stack = Stack::read(&context, &StackSelection::default()).unwrap();
    let bases = BTreeMap::from([("debian:13".to_owned(), "sha256:13".to_owned())]);
    let mut inputs: Vec<Inputs> = Vec::new();
    for target in &stack.targets {
        let parent = target.parent.map(|parent| inputs[parent].digest());
        inputs.push(Inputs::of(&stack.graph, target, parent.as_deref(), &bases).unwrap());
    }
    let mut state = crate::plan::RegistryState::new();
    for (name, tag, is_same) in held {
        let position = stack.targets.iter().position(|target| target.name == *name).unwrap();
        let place = Designation {
            name: format!("r.example/{name}"),
            tag: (*tag).to_owned(),
        };
        let image = RemoteImage {
            manifest: format!("sha256:{name}"),
            inputs: is_same.then(|| inputs[position].clone()).into_iter().collect(),
            tests: None,
        };
        state.insert(place, Some(image));
    }
    let facts = crate::plan::PlanFacts {
        spec: &stack.spec,
        graph: &stack.graph,
        targets: &stack.targets,
        inputs: &inputs,
        history: &stack.history,
        change_ignore: &stack.change_ignore,
        registry: &state,
        untested: &stack.untested,
        all: false,
        retests: stack.retests,
    };
    let plan = plan(&facts);
    let planned = PlannedStack {
        registries: Registries::default(),
        stack,
        state,
        bases,
        inputs,
        plan,
    };
    (planned, env, folder)
}

fn work(
    planned: &(PlannedStack, Env, tempfile::TempDir),
    wanted: &WantedImages,
    options: WorkOptions,
) -> Result<StackWork> {
    StackWork::of(&planned.0, wanted, options, &planned.1, planned.2.path())
}

/// The docker command of a build, and what is checked on the engine before it.
fn build(work: &StackWork, position: usize) -> (Vec<String>, Vec<(String, String)>) {
    match &work.images[position].kind {
        WorkKind::Build { image, bases } => match image.steps.as_slice() {
            [PlanStep::Build { words, request }] => {
                assert_eq!(request.tags, [image.designation.to_string()]);
                (words.clone(), bases.clone())
            }
            steps => panic!("{steps:?}"),
        },
        kind => panic!("{kind:?}"),
    }
}

fn names(names: &[&str]) -> WantedImages {
    WantedImages::WithParents(names.iter().map(|&name| name.to_owned()).collect())
}

#[test]
fn a_build_is_a_docker_command_with_cache_and_inputs() {
    let planned = planned(&[
        ("base", "1.10-stable", false),
        ("mid", "1.10-work", false),
        ("leaf", "1.10-work", false),
    ]);
    let all = work(&planned, &WantedImages::All, ALL).unwrap();
    let (words, bases) = build(&all, 0);
    let inputs = json!(planned.0.inputs[0]);
    let expected = format!(
        "docker build --tag r.example/base:1.10-work --file images/base/Dockerfile --build-arg V=1.0 --cache-from \
         r.example/base:1.10-stable --cache-to type=inline --annotation {ANNOTATION}={inputs} images/base"
    );
    assert_eq!(words.join(" "), expected);
    assert_eq!(bases, [("debian:13".to_owned(), "sha256:13".to_owned())]);
    assert!(all.images[0].prunes && !all.images[1].prunes);
    let commit = planned.0.stack.targets[0].commit_tag.clone().unwrap();
    assert_eq!(all.images[0].further_tags, [commit]);
    // `prepull: false` takes no cache, and leaves one.
    let (words, _) = build(&all, 2);
    let words = words.join(" ");
    assert!(
        words.contains("--cache-to type=inline") && !words.contains("--cache-from"),
        "{words}"
    );
    // The parent is built before it, on the same engine.
    let (words, bases) = build(&all, 1);
    assert!(
        words
            .join(" ")
            .contains("--platform linux/amd64,linux/arm64 --cache-from r.example/mid:1.10-work ")
    );
    assert_eq!((bases.len(), all.images[1].needs), (0, Some(0)));
    assert_eq!(all.children(0).collect::<Vec<_>>(), [1]);
    let options = WorkOptions {
        annotates: false,
        caches: false,
        ..ALL
    };
    let (words, _) = build(&work(&planned, &WantedImages::All, options).unwrap(), 0);
    assert_eq!(
        words.len(),
        "docker build --tag T --file F --build-arg V D".split(' ').count()
    );
}

#[test]
fn a_parent_that_is_not_built_is_that_of_the_registry() {
    let held = [("base", "1.10-work", true), ("mid", "1.10-stable", true)];
    let planned = planned(&held);
    let all = work(&planned, &WantedImages::All, ALL).unwrap();
    assert!(matches!(&all.images[0].kind, WorkKind::Nothing { manifest } if manifest == "sha256:base"));
    let copied = |work: &StackWork| match &work.images[1].kind {
        WorkKind::Copy { from, is_pulled, .. } => (from.clone(), *is_pulled),
        kind => panic!("{kind:?}"),
    };
    assert_eq!(copied(&all), ("r.example/mid:1.10-stable".to_owned(), false));
    let (_, bases) = build(&all, 2);
    assert_eq!(bases, [("r.example/mid:1.10-work".to_owned(), "sha256:mid".to_owned())]);
    // Where nothing is pushed, the registry has no such tag: the engine needs the image.
    let options = WorkOptions { pushes: false, ..ALL };
    let all = work(&planned, &WantedImages::All, options).unwrap();
    assert!(copied(&all).1 && !all.images[0].prunes);
    assert_eq!(build(&all, 2).1, []);
}

#[test]
fn what_is_asked_for_comes_with_what_it_starts_from() {
    let planned = planned(&[("base", "1.10-work", true)]);
    let labels = |wanted: &WantedImages| {
        let work = work(&planned, wanted, ALL).unwrap();
        let labels = work
            .images
            .iter()
            .map(|image| planned.0.plan.images[image.target].label.clone());
        labels.collect::<Vec<_>>()
    };
    assert_eq!(labels(&names(&["mid"])), ["base", "mid"]);
    assert_eq!(labels(&names(&["leaf"])), ["base", "mid", "leaf"]);
    assert_eq!(labels(&WantedImages::Only("mid".to_owned())), ["mid"]);
    let part = WantedImages::Only("mid".to_owned()).part(&planned.0.plan, &planned.0.stack.targets);
    assert!(part.unwrap().tree()[0].starts_with("mid: build"));
    // It would say that it was made from a parent that nobody has made.
    let error = work(&planned, &WantedImages::Only("leaf".to_owned()), ALL).unwrap_err();
    assert_eq!(
        error.to_string(),
        "leaf starts from mid, which is to be made first: build"
    );
    assert_eq!(error.hint_text(), Some("build-stack leaf"));
    let options = WorkOptions { pushes: false, ..ALL };
    assert!(work(&planned, &WantedImages::Only("leaf".to_owned()), options).is_ok());
    let error = work(&planned, &names(&["laef"]), ALL).unwrap_err();
    assert_eq!(error.to_string(), "the stack has no image \"laef\"");
    assert_eq!(error.hint_text(), Some("did you mean leaf?"));
}
