//! Plans of promotions, from facts.

use crate::verdicts::{Signature, Verdict};

use super::*;

fn inputs(dockerfile: &str, parent: &str) -> Inputs {
    let part = |text: &str| Digest::of(text.as_bytes()).to_string();
    Inputs {
        dockerfile: part(dockerfile),
        context: part("context"),
        arguments: part(""),
        platforms: part(""),
        parent: part(parent),
        bases: part("bases"),
    }
}

fn tagged(what: &str, inputs: Option<Inputs>, revision: &str) -> Option<TaggedImage> {
    Some(TaggedImage {
        digest: Digest::of(what.as_bytes()),
        inputs: inputs.into_iter().collect(),
        revision: Some(revision.to_owned()),
        packages: None,
    })
}

fn verdict(kind: TestKind, failures: u64) -> FoundVerdict {
    FoundVerdict {
        verdict: Verdict {
            kind,
            passed: failures == 0,
            tests: 7,
            failures,
            finished: "2026-10-02T10:00:00Z".to_owned(),
            run: (failures > 0).then(|| "https://ci.example/1".to_owned()),
        },
        signature: Signature::Verified,
    }
}

fn image(name: &str, from: Option<TaggedImage>, to: Option<TaggedImage>, verdicts: Vec<FoundVerdict>) -> ImageFacts {
    ImageFacts {
        image: name.to_owned(),
        repository: format!("r.example/{name}"),
        from,
        to,
        verdicts: FoundVerdicts {
            newest: verdicts,
            notes: Vec::new(),
        },
        parent: None,
        tests: Vec::new(),
    }
}

fn facts(images: Vec<ImageFacts>) -> PromotionFacts {
    PromotionFacts {
        from: "1-main".to_owned(),
        to: "1-stable".to_owned(),
        images,
        commits: BTreeMap::new(),
    }
}

fn passed() -> Vec<FoundVerdict> {
    vec![verdict(TestKind::Basic, 0)]
}

#[test]
fn what_changed_is_said() {
    let (old, new) = (inputs("a", "p"), inputs("b", "q"));
    let mut facts = facts(vec![
        image(
            "base",
            tagged("2", Some(new.clone()), "n"),
            tagged("1", Some(old.clone()), "o"),
            passed(),
        ),
        image(
            "again",
            tagged("4", Some(old.clone()), "o"),
            tagged("3", Some(old.clone()), "o"),
            passed(),
        ),
        image(
            "silent",
            tagged("6", None, "n"),
            tagged("5", Some(old.clone()), "o"),
            passed(),
        ),
        image(
            "same",
            tagged("7", Some(new.clone()), "n"),
            tagged("7", Some(new.clone()), "n"),
            passed(),
        ),
        image("first", tagged("8", Some(new), "n"), None, passed()),
    ]);
    let commit = CommitLine {
        id: "3f2a9c1".to_owned(),
        subject: "The start script\u{1b} waits".to_owned(),
    };
    let range = CommitRange {
        commits: vec![commit],
        are_more: true,
    };
    facts.commits.insert(("o".to_owned(), "n".to_owned()), range);
    let plan = plan(&facts);
    let short = |what: &str| Digest::of(what.as_bytes()).short().to_owned();
    let says = "    basic tests passed (7) at 2026-10-02T10:00:00Z, signed";
    assert_eq!(
        plan.lines(),
        [
            &format!(
                "base: 1-stable: {} in place of {}  (r.example/base)",
                short("2"),
                short("1")
            ),
            says,
            "    changed since 1-stable: its Dockerfile, its parent",
            "      3f2a9c1 The start script\u{fffd} waits",
            "      and more",
            &format!(
                "again: 1-stable: {} in place of {}  (r.example/again)",
                short("4"),
                short("3")
            ),
            says,
            "    made from the same as 1-stable, and built again",
            &format!(
                "silent: 1-stable: {} in place of {}  (r.example/silent)",
                short("6"),
                short("5")
            ),
            says,
            "    what changed since 1-stable is not known",
            "      3f2a9c1 The start script\u{fffd} waits",
            "      and more",
            &format!("same: 1-stable is {} already  (r.example/same)", short("7")),
            says,
            &format!("first: new 1-stable: {}  (r.example/first)", short("8")),
            says,
            "    there is no 1-stable yet",
        ]
    );
    plan.check(false).unwrap();
}

#[test]
fn where_no_tests_ran_that_is_said() {
    let mut none = verdict(TestKind::Basic, 0);
    none.verdict.tests = 0;
    let verdicts = vec![none, verdict(TestKind::Integration, 2)];
    let lines = plan(&facts(vec![image("base", tagged("1", None, "n"), None, verdicts)])).lines();
    let says = |what: &str| format!("    {what} at 2026-10-02T10:00:00Z, signed");
    assert!(lines.contains(&says("no basic tests ran")), "{lines:?}");
    assert!(lines.contains(&says("integration tests failed (2 of 7)")), "{lines:?}");
}

#[test]
fn what_did_not_prove_good_is_refused() {
    let there = || tagged("1", None, "n");
    let mut untested = image("untested", there(), None, passed());
    untested.tests = vec![TestKind::Basic, TestKind::Integration];
    let mut other = image("other", there(), None, vec![verdict(TestKind::Workflow, 0)]);
    other.tests = vec![TestKind::Basic];
    let plan = plan(&facts(vec![
        image("good", there(), None, passed()),
        image("unknown", there(), None, Vec::new()),
        image(
            "bad",
            there(),
            None,
            vec![verdict(TestKind::Basic, 0), verdict(TestKind::Workflow, 2)],
        ),
        untested,
        other,
    ]));
    let error = plan.check(false).unwrap_err();
    assert_eq!(
        error.to_string(),
        "4 of 5 images did not prove good: unknown: it has no verdict, bad: 2 of its workflow tests failed at \
         2026-10-02T10:00:00Z, https://ci.example/1, untested: it has no verdict of its integration tests, other: it has no verdict of its basic tests"
    );
    assert_eq!(
        error.hint_text(),
        Some("test-stack --kind workflow 1-main; to promote them all the same: --force")
    );
    plan.check(true).unwrap();
}

#[test]
fn what_is_not_made_from_what_is_promoted_with_it_is_refused() {
    let (old, new) = (inputs("a", "p"), inputs("b", "p"));
    let child = |name: &str, parents: &[&Inputs]| {
        let mut from = tagged(name, None, "n").unwrap();
        from.inputs = parents
            .iter()
            .map(|parent| Inputs {
                parent: parent.digest(),
                ..inputs("c", "")
            })
            .collect();
        let mut child = image(name, Some(from), None, passed());
        child.parent = Some("base".to_owned());
        child
    };
    let base = || image("base", tagged("1", Some(new.clone()), "n"), None, passed());
    // Made twice from other inputs, and the same came out; or it does not say.
    let good = plan(&facts(vec![
        base(),
        child("fresh", &[&old, &new]),
        child("silent", &[]),
    ]));
    good.check(false).unwrap();
    let half = plan(&facts(vec![base(), child("fresh", &[&new]), child("left", &[&old])]));
    let error = half.check(false).unwrap_err();
    assert_eq!(
        error.to_string(),
        "1 of 3 images did not prove good: left: it is not made from this base"
    );
    assert_eq!(
        error.hint_text(),
        Some("build-stack; to promote them all the same: --force")
    );
    half.check(true).unwrap();
}

#[test]
fn what_is_absent_can_not_be_forced() {
    let plan = plan(&facts(vec![
        image("base", tagged("1", None, "n"), None, passed()),
        image("leaf", None, tagged("1", None, "n"), Vec::new()),
    ]));
    for is_forced in [false, true] {
        let error = plan.check(is_forced).unwrap_err();
        assert_eq!(error.to_string(), "there is no r.example/leaf:1-main");
    }
}

#[test]
fn packages_that_differ_are_named() {
    use crate::manifests::packages::{PackageManager, PackageVersions};
    let with = |pip: &[(&str, &str)]| {
        let versions = pip
            .iter()
            .map(|(name, version)| ((*name).to_owned(), (*version).to_owned()));
        let lists = BTreeMap::from([(PackageManager::Pip, versions.collect::<PackageVersions>())]);
        let mut tagged = tagged(&format!("{pip:?}"), None, "n").unwrap();
        tagged.packages = Some(PackageLists {
            lists,
            ..PackageLists::default()
        });
        Some(tagged)
    };
    let old = with(&[("numpy", "1.26"), ("gone", "1"), ("same", "1")]);
    let new = with(&[
        ("numpy", "2.0"),
        ("a", "1"),
        ("b", "1"),
        ("c", "1"),
        ("d", "1"),
        ("e", "1"),
        ("f\u{1b}", "1"),
        ("same", "1"),
    ]);
    let lines = plan(&facts(vec![image("base", new, old, passed())])).lines();
    assert_eq!(
        lines.last().unwrap(),
        "    pip: 6 came (a 1, b 1, c 1, d 1, e 1 and 1 more), 1 went (gone 1), 1 changed (numpy 1.26 to 2.0)"
    );
}
