//! Plans of a small stack: each reason, and what it leads to.

use std::fs;
use std::path::Path;

use super::*;
use crate::history::CommitLine;
use crate::pending_tests;
use crate::tags::{TagSource, targets};

const SPEC: &str = "tag: {prefix: 1.10}\nimages:\n  base: {image_name: r.example/base, build_args: {V: 1.0}}\n  \
                    mid: {image_name: r.example/mid, depend_on: base, integration_tests: true}\n  \
                    side: {image_name: r.example/side, depend_on: base}\n  \
                    leaf: {image_name: r.example/leaf, depend_on: mid}\n";

/// A stack on branch `work`, all of whose images are at `main`'s tag.
struct Stack {
    spec: Spec,
    graph: Graph,
    targets: Vec<StackTarget>,
    inputs: Vec<Inputs>,
    history: History,
    change_ignore: ChangeIgnore,
    registry: RegistryState,
    untested: BTreeSet<String>,
    all: bool,
    retests: Retests,
    _folder: tempfile::TempDir,
}

fn part(text: &str) -> String {
    format!("sha256:{text}")
}

fn stack(branch: &str) -> Stack {
    let folder = tempfile::tempdir().unwrap();
    let from = |parent: &str| format!("ARG BASE_TAG\nFROM r.example/{parent}:$BASE_TAG\n");
    for (name, text) in [
        ("base", "FROM debian:13\n".to_owned()),
        ("mid", from("base")),
        ("leaf", from("mid")),
        ("side", from("base")),
    ] {
        fs::create_dir_all(folder.path().join(name)).unwrap();
        fs::write(folder.path().join(name).join("Dockerfile"), text).unwrap();
    }
    let spec = Spec::parse(SPEC, Path::new("spec.yml")).unwrap();
    let graph = Graph::read(&spec, folder.path()).unwrap();
    let source = TagSource {
        branch: branch.to_owned(),
        base_branch: Some("main".to_owned()),
        commit: None,
    };
    let targets = targets(&spec, &graph, &source).unwrap().0;
    let mut inputs: Vec<Inputs> = Vec::new();
    for target in &targets {
        let parent = target
            .parent
            .map_or_else(|| part("none"), |parent| inputs[parent].digest());
        inputs.push(Inputs {
            dockerfile: part("dockerfile"),
            context: part("context"),
            arguments: part("arguments"),
            platforms: part("platforms"),
            parent,
            bases: part("bases"),
        });
    }
    let mut made = Stack {
        spec,
        graph,
        targets,
        inputs,
        history: History::default(),
        change_ignore: ChangeIgnore::default(),
        registry: RegistryState::new(),
        untested: BTreeSet::new(),
        all: false,
        retests: Retests::Unfinished,
        _folder: folder,
    };
    for index in 0..made.targets.len() {
        made.put(index, "1.10-main");
    }
    made
}

impl Stack {
    /// Has the registry hold what the inputs are now.
    fn put(&mut self, index: usize, tag: &str) {
        let name = self.targets[index].designation.name.clone();
        let image = RemoteImage {
            manifest: part(&format!("{index}")),
            inputs: vec![self.inputs[index].clone()],
            tests: None,
        };
        self.registry.insert(
            Designation {
                name,
                tag: tag.to_owned(),
            },
            Some(image),
        );
    }

    fn of(&mut self, index: usize) -> &mut RemoteImage {
        self.registry
            .get_mut(&self.targets[index].designation)
            .unwrap()
            .as_mut()
            .unwrap()
    }

    fn changed(&mut self, path: &str) {
        let commit = CommitLine {
            id: "abc1234".to_owned(),
            subject: "A change".to_owned(),
        };
        let changes = Changes {
            commits: vec![commit],
            is_uncommitted: false,
        };
        self.history.changed.insert(path.to_owned(), changes);
    }

    fn facts(&self) -> PlanFacts<'_> {
        PlanFacts {
            spec: &self.spec,
            graph: &self.graph,
            targets: &self.targets,
            inputs: &self.inputs,
            untested: &self.untested,
            history: &self.history,
            change_ignore: &self.change_ignore,
            registry: &self.registry,
            all: self.all,
            retests: self.retests,
        }
    }

    fn plan(&self) -> StackPlan {
        plan(&self.facts())
    }

    #[track_caller]
    fn assert_words(&self, expected: &[&str]) {
        let plan = self.plan();
        let words: Vec<String> = plan
            .images
            .iter()
            .map(|image| format!("{} {}", image.label, image.action.word()))
            .collect();
        assert_eq!(words, expected, "{}", plan.tree().join("\n"));
    }
}

#[test]
fn nothing_changed_and_nothing_is_done() {
    let mut stack = stack("main");
    stack.assert_words(&["base nothing", "mid nothing", "side nothing", "leaf nothing"]);
    // A README, and the tests of another image.
    stack.changed("mid/README.md");
    stack.changed("README.md");
    stack.changed("mid/integration_tests/test_x.py");
    stack.assert_words(&["base nothing", "mid test again", "side nothing", "leaf nothing"]);
    let plan = stack.plan();
    assert_eq!(plan.images[1].action, Action::Test { manifest: part("1") });
    // Integration tests that the spec does not run.
    let mut stack = self::stack("main");
    stack.changed("side/integration_tests/test_x.py");
    stack.assert_words(&["base nothing", "mid nothing", "side nothing", "leaf nothing"]);
    stack.changed("tests_common/test_all.py");
    stack.assert_words(&[
        "base test again",
        "mid test again",
        "side test again",
        "leaf test again",
    ]);
}

#[test]
fn a_changed_image_marks_its_children_only() {
    let mut stack = stack("main");
    stack.of(1).inputs.last_mut().unwrap().context = part("other");
    stack.changed("mid/start.sh");
    stack.changed("mid/test/test_x.py");
    stack.assert_words(&["base nothing", "mid build", "side nothing", "leaf build"]);
    assert_eq!(
        stack.plan().tree(),
        [
            "base: nothing  (r.example/base:1.10-main)",
            "│   nothing changed",
            "├── mid: build  (r.example/mid:1.10-main)",
            "│   │   files of its context differ",
            "│   │     mid/start.sh: abc1234 A change",
            "│   └── leaf: build  (r.example/leaf:1.10-main)",
            "│           its parent mid is built",
            "└── side: nothing  (r.example/side:1.10-main)",
            "        nothing changed",
        ]
    );
}

#[test]
fn a_new_branch_copies_what_its_base_has() {
    let mut stack = stack("work");
    stack.assert_words(&["base copy", "mid copy", "side copy", "leaf copy"]);
    let plan = stack.plan();
    let from = Action::Copy {
        from: "r.example/leaf:1.10-main".to_owned(),
        manifest: part("3"),
    };
    assert_eq!((&plan.images[3].action, plan.images[3].tests), (&from, false));
    // What changed is built; a copy marks no children.
    stack.inputs[2].dockerfile = part("new");
    stack.assert_words(&["base copy", "mid copy", "side build", "leaf copy"]);
    let reasons = stack.plan().images[2].reasons.clone();
    assert!(
        matches!(
            &reasons[..],
            [
                PlanReason::TagAbsent { .. },
                PlanReason::FilesDiffer {
                    dockerfile: true,
                    context: false,
                    ..
                }
            ]
        ),
        "{reasons:?}"
    );
    // Found at the stable tags, too.
    stack.registry.clear();
    for (index, tag) in [(0, "1.10-stable"), (1, "stable")] {
        stack.put(index, tag);
    }
    stack.assert_words(&["base copy", "mid copy", "side build", "leaf build"]);
}

#[test]
fn all_is_built_for_each_reason_to() {
    let all = ["base build", "mid build", "side build", "leaf build"];
    let mut asked = stack("work");
    asked.all = true;
    asked.assert_words(&all);
    let mut said = stack("main");
    said.history.message = "Newer packages\n\nFull Rebuild, please".to_owned();
    said.history.commit = Some("0123456789".to_owned());
    said.assert_words(&all);
    assert_eq!(
        said.plan().images[0].reasons[0].lines(),
        ["0123456 says \"full rebuild\""]
    );
    let mut named = stack("main");
    named.change_ignore.build_all = vec!["conftest.py".to_owned(), "shared".to_owned()];
    named.changed("sharedness/x");
    named.assert_words(&["base nothing", "mid nothing", "side nothing", "leaf nothing"]);
    named.changed("shared/x");
    named.assert_words(&all);
    assert_eq!(
        named.plan().images[0].reasons[0].lines(),
        ["a file of BuildAll changed", "  shared/x: abc1234 A change"]
    );
}

#[test]
fn each_part_of_the_inputs_has_its_reason() {
    let mut stack = stack("main");
    stack.history.spec_before = Some(SPEC.replace("V: 1.0", "V: 1.00, W: 2"));
    let found = stack.of(0).inputs.last_mut().unwrap();
    found.arguments = part("old");
    found.platforms = part("old");
    found.bases = part("old");
    let lines: Vec<String> = stack.plan().images[0]
        .reasons
        .iter()
        .flat_map(PlanReason::lines)
        .collect();
    assert_eq!(
        lines,
        [
            "its section of spec.yml changed: V, W, platforms",
            "a base is another image: debian:13"
        ]
    );
    let mut silent = self::stack("main");
    silent.of(3).inputs.clear();
    silent.assert_words(&["base nothing", "mid nothing", "side nothing", "leaf build"]);
    let mut behind = self::stack("main");
    behind.of(3).inputs.last_mut().unwrap().parent = part("older");
    assert_eq!(
        behind.plan().images[3].reasons,
        [PlanReason::ParentDiffers {
            parent: "mid".to_owned()
        }]
    );
}

#[test]
fn an_ignored_directory_rebuilds_nothing() {
    let mut stack = stack("main");
    stack.change_ignore.change_ignore = vec!["mid".to_owned()];
    stack.of(1).inputs.last_mut().unwrap().context = part("other");
    stack.changed("mid/test/test_x.py");
    stack.assert_words(&["base nothing", "mid nothing", "side nothing", "leaf nothing"]);
}

#[test]
fn the_same_is_drawn_for_mermaid_and_bake() {
    let mut stack = stack("work");
    stack.inputs[1].context = part("new");
    let plan = stack.plan();
    let drawn = plan.mermaid();
    assert!(drawn.starts_with(
        "flowchart TD\n    n0[\"base<br>copy\"]:::copy\n    n1[\"mid<br>build\"]:::build\n    n0 --> n1\n"
    ));
    let bake = plan.bake(&stack.facts());
    assert_eq!(bake["group"]["default"]["targets"], serde_json::json!(["leaf", "mid"]));
    let mid = &bake["target"]["mid"];
    assert_eq!(mid["args"], serde_json::json!({ "BASE_TAG": "1.10-work" }));
    assert_eq!(mid["tags"], serde_json::json!(["r.example/mid:1.10-work"]));
    assert_eq!(mid["dockerfile"], "Dockerfile");
    let annotation = mid["annotations"][0].as_str().unwrap();
    let said = annotation
        .strip_prefix("manifest:io.dockerutils.stack.inputs=")
        .unwrap();
    assert_eq!(serde_json::from_str::<Inputs>(said).unwrap(), stack.inputs[1]);
    assert_eq!(
        mid["contexts"]["r.example/base:1.10-work"],
        "docker-image://r.example/base:1.10-main@sha256:0"
    );
    assert_eq!(
        bake["target"]["leaf"]["contexts"]["r.example/mid:1.10-work"],
        "target:mid"
    );
}

#[test]
fn tests_that_did_not_end_are_run_again() {
    let mut stack = stack("main");
    // Another image is made from the same.
    assert_eq!(stack.inputs[1], stack.inputs[2]);
    let key = pending_tests::key("r.example/mid", &stack.inputs[1].digest());
    stack.untested.insert(key);
    let plan = plan(&stack.facts());
    let words: Vec<&str> = plan.images.iter().map(|image| image.action.word()).collect();
    assert_eq!(words, ["nothing", "test again", "nothing", "nothing"]);
    assert_eq!(
        plan.images[1]
            .reasons
            .iter()
            .flat_map(PlanReason::lines)
            .collect::<Vec<_>>(),
        ["its tests did not end here, or did not end well"]
    );
    assert!(plan.images[1].tests);
}

/// What is said of the tests of an image: of these kinds, whether they passed.
fn said<const N: usize>(passed: [(TestKind, bool); N]) -> Option<SaidOfTests> {
    Some(SaidOfTests {
        passed: passed.into(),
        ..SaidOfTests::default()
    })
}

impl Stack {
    /// Makes folders with tests.
    fn with_tests(&self, folders: &[&str]) {
        for folder in folders {
            fs::create_dir_all(self._folder.path().join(folder)).unwrap();
        }
    }

    fn lines(&self, index: usize) -> Vec<String> {
        let plan = self.plan();
        plan.images[index].reasons.iter().flat_map(PlanReason::lines).collect()
    }
}

#[test]
fn what_a_verdict_says_of_tests_that_failed_or_are_missing_runs_them_again() {
    let mut stack = stack("main");
    stack.with_tests(&["base/test", "mid/test", "side/test"]);
    for (index, tests) in [
        (0, said([(TestKind::Basic, false)])),
        // It has no directory with integration tests yet.
        (1, said([(TestKind::Basic, true)])),
        (2, said([(TestKind::Basic, true), (TestKind::Workflow, false)])),
        // It has no tests at all.
        (3, said([])),
    ] {
        stack.of(index).tests = tests;
    }
    stack.assert_words(&["base test again", "mid nothing", "side nothing", "leaf nothing"]);
    assert_eq!(stack.lines(0), ["its basic tests failed"]);
    stack.with_tests(&["mid/integration_tests"]);
    stack.assert_words(&["base test again", "mid test again", "side nothing", "leaf nothing"]);
    assert_eq!(
        stack.lines(1),
        ["its integration tests have no verdict: they did not end, or nobody ran them"]
    );
    stack.of(1).tests = said([(TestKind::Basic, true), (TestKind::Integration, true)]);
    stack.assert_words(&["base test again", "mid nothing", "side nothing", "leaf nothing"]);
}

#[test]
fn what_was_pushed_and_has_no_verdict_is_tested_where_it_has_tests() {
    let mut stack = stack("main");
    for index in 0..4 {
        stack.of(index).tests = said([]);
    }
    stack.assert_words(&["base nothing", "mid nothing", "side nothing", "leaf nothing"]);
    stack.with_tests(&["mid/test", "mid/integration_tests"]);
    stack.assert_words(&["base nothing", "mid test again", "side nothing", "leaf nothing"]);
    assert_eq!(
        stack.lines(1),
        ["its basic and integration tests have no verdict: they did not end, or nobody ran them"]
    );
    stack.with_tests(&["tests_common"]);
    stack.assert_words(&[
        "base test again",
        "mid test again",
        "side test again",
        "leaf test again",
    ]);
    // Where nothing is said to the registry, that is no matter; changed tests are.
    stack.retests = Retests::Changed;
    stack.changed("mid/test/test_x.py");
    stack.assert_words(&["base nothing", "mid test again", "side nothing", "leaf nothing"]);
    // Where nothing is to be tested, neither is.
    stack.retests = Retests::None;
    stack.assert_words(&["base nothing", "mid nothing", "side nothing", "leaf nothing"]);
    stack.all = true;
    assert!(stack.plan().images.iter().all(|image| !image.tests));
}

#[test]
fn what_is_copied_without_a_verdict_is_tested() {
    let mut stack = stack("work");
    stack.with_tests(&["base/test", "mid/test"]);
    let at_main = |index: usize| stack.targets[index].designation.name.clone();
    for (index, tests) in [(0, said([])), (1, said([(TestKind::Basic, true)]))] {
        let place = Designation {
            name: at_main(index),
            tag: "1.10-main".to_owned(),
        };
        stack.registry.get_mut(&place).unwrap().as_mut().unwrap().tests = tests;
    }
    let plan = stack.plan();
    let tests: Vec<(&str, bool)> = plan
        .images
        .iter()
        .map(|image| (image.action.word(), image.tests))
        .collect();
    assert_eq!(
        tests,
        [("copy", true), ("copy", false), ("copy", false), ("copy", false)]
    );
    let reason = "its basic tests have no verdict: they did not end, or nobody ran them";
    assert_eq!(stack.lines(0).last().unwrap(), reason);
}

#[test]
fn what_is_odd_about_verdicts_is_noted() {
    let mut stack = stack("main");
    stack.with_tests(&["mid/test"]);
    stack.of(1).tests = Some(SaidOfTests {
        passed: [(TestKind::Basic, true)].into(),
        notes: vec!["a verdict does not count: it is odd".to_owned()],
    });
    let plan = stack.plan();
    assert_eq!(plan.images[1].action.word(), "nothing");
    assert_eq!(plan.notes, ["mid: a verdict does not count: it is odd"]);
}
