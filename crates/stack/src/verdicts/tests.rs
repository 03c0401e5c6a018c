//! Which verdicts count, and what is not a verdict.

use ring::signature::Ed25519KeyPair;

use super::*;

fn key() -> VerdictKey {
    use base64::Engine as _;
    let document = Ed25519KeyPair::generate_pkcs8(&ring::rand::SystemRandom::new()).unwrap();
    let text = base64::engine::general_purpose::STANDARD.encode(document.as_ref());
    VerdictKey::parse(&format!(
        "-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n"
    ))
    .unwrap()
}

fn subject() -> VerdictSubject {
    VerdictSubject {
        repository: "r.example/team/base".to_owned(),
        digest: Digest::of(b"image"),
    }
}

fn verdict(kind: TestKind, passed: bool, finished: &str) -> Verdict {
    Verdict {
        kind,
        passed,
        tests: 7,
        failures: u64::from(!passed),
        finished: finished.to_owned(),
        run: Some("https://ci.example/1".to_owned()),
    }
}

const OLD: &str = "2026-10-01T10:00:00Z";
const NEW: &str = "2026-10-02T10:00:00Z";
/// Just after [`now`], and long after it.
const SOON: &str = "2026-10-03T00:04:00Z";
const LATER: &str = "2027-01-01T00:00:00Z";

fn now() -> Timestamp {
    "2026-10-03T00:00:00Z".parse().unwrap()
}

fn written(verdict: &Verdict, key: Option<&VerdictKey>) -> Vec<u8> {
    statement::written(&subject(), verdict, key).unwrap().1
}

fn judged(blobs: &[Vec<u8>], key: Option<&VerdictKey>) -> FoundVerdicts {
    let public = key.map(VerdictKey::public);
    newest(blobs.iter().map(Vec::as_slice), &subject(), public, now())
}

#[test]
fn a_verdict_comes_back_as_it_was() {
    let key = key();
    let passed = verdict(TestKind::Basic, true, OLD);
    let failed = verdict(TestKind::Integration, false, NEW);
    let signed = [written(&passed, Some(&key)), written(&failed, Some(&key))];
    let found = judged(&signed, Some(&key));
    let expected = |signature| {
        [&passed, &failed].map(|verdict| FoundVerdict {
            verdict: verdict.clone(),
            signature,
        })
    };
    assert_eq!(found.newest, expected(Signature::Verified));
    assert_eq!(found.notes, Vec::<String>::new());
    assert_eq!(judged(&signed, None).newest, expected(Signature::Unchecked));
    let unsigned = [written(&passed, None), written(&failed, None)];
    assert_eq!(judged(&unsigned, None).newest, expected(Signature::None));
}

#[test]
fn with_a_key_only_what_it_signed_counts() {
    let (ours, theirs) = (key(), key());
    let passed = verdict(TestKind::Basic, true, NEW);
    let mut changed = written(&verdict(TestKind::Basic, false, OLD), Some(&ours));
    // The payload of a success, with the signature of a failure.
    let mut envelope: serde_json::Value = serde_json::from_slice(&changed).unwrap();
    let other: serde_json::Value = serde_json::from_slice(&written(&passed, Some(&theirs))).unwrap();
    envelope["payload"] = other["payload"].clone();
    changed = envelope.to_string().into_bytes();
    let blobs = [written(&passed, Some(&theirs)), written(&passed, None), changed];
    let found = judged(&blobs, Some(&ours));
    assert_eq!(found.newest, []);
    assert_eq!(
        found.notes,
        [
            "a verdict does not count: it is not signed",
            "2 verdicts do not count: it is signed by another key"
        ]
    );
    // Several may sign the same envelope.
    let mut both: serde_json::Value = serde_json::from_slice(&written(&passed, Some(&ours))).unwrap();
    let theirs = other["signatures"][0].clone();
    both["signatures"].as_array_mut().unwrap().insert(0, theirs);
    let found = judged(&[both.to_string().into_bytes()], Some(&ours));
    assert_eq!(found.newest[0].signature, Signature::Verified);
}

#[test]
fn an_old_success_does_not_outlive_a_newer_failure() {
    let key = key();
    let passed = written(&verdict(TestKind::Basic, true, OLD), Some(&key));
    let failed = written(&verdict(TestKind::Basic, false, NEW), Some(&key));
    let again = written(&verdict(TestKind::Basic, true, "2026-10-02T10:00:01Z"), Some(&key));
    // Whatever the order in which a registry lists them, and however often.
    for blobs in [
        vec![passed.clone(), failed.clone()],
        vec![failed.clone(), passed.clone(), passed.clone()],
    ] {
        assert!(!judged(&blobs, Some(&key)).newest[0].verdict.passed);
    }
    let blobs = [again, failed, passed];
    assert!(judged(&blobs, Some(&key)).newest[0].verdict.passed);
    // Of the same second, the failure counts.
    let [one, two] = [true, false].map(|passed| written(&verdict(TestKind::Basic, passed, NEW), Some(&key)));
    for blobs in [[one.clone(), two.clone()], [two, one]] {
        assert!(!judged(&blobs, Some(&key)).newest[0].verdict.passed);
    }
}

#[test]
fn what_is_still_to_come_does_not_count() {
    let key = key();
    let note = "a verdict does not count: its time is still to come";
    for signs in [None, Some(&key)] {
        let failed = written(&verdict(TestKind::Basic, false, NEW), signs);
        let early = written(&verdict(TestKind::Basic, true, LATER), signs);
        let found = judged(&[failed, early], signs);
        assert!(!found.newest[0].verdict.passed);
        assert_eq!(found.notes, [note]);
        // Clocks are not quite the same everywhere.
        let soon = written(&verdict(TestKind::Basic, true, SOON), signs);
        assert_eq!(judged(&[soon], signs).newest.len(), 1);
    }
    // Whoever may push could have written such a failure, and no success would ever follow it.
    let passed = written(&verdict(TestKind::Basic, true, NEW), Some(&key));
    let late = verdict(TestKind::Basic, false, LATER);
    for failed in [written(&late, None), written(&late, Some(&key))] {
        let found = judged(&[failed, passed.clone()], None);
        assert!(found.newest[0].verdict.passed);
        assert_eq!(found.notes, [note]);
    }
    // By the key that is asked for, it is the word of a machine whose clock is wrong.
    let found = judged(&[written(&late, Some(&key)), passed], Some(&key));
    assert!(!found.newest[0].verdict.passed);
}

#[test]
fn a_list_says_what_the_newest_of_each_kind_is_up_to_now() {
    let listed = |kind: &str, result: &str, created: &str| RemoteDescriptor {
        artifact_type: Some(ARTIFACT_TYPE.to_owned()),
        annotations: [(KIND, kind), (RESULT, result), (CREATED, created)]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        ..RemoteDescriptor::of("application/json", created.as_bytes())
    };
    let list = [
        listed("basic", "passed", NEW),
        listed("basic", "failed", OLD),
        listed("integration", "failed", SOON),
        listed("integration", "passed", OLD),
        listed("basic", "failed", "9999-12-30T00:00:00Z"),
        listed("integration", "passed", LATER),
        listed("basic", "failed", "soon"),
        listed("other", "failed", NEW),
    ];
    let said = said(&list, now());
    assert_eq!(
        said.passed,
        BTreeMap::from([(TestKind::Basic, true), (TestKind::Integration, false)])
    );
    assert_eq!(said.notes, ["2 verdicts do not count: its time is still to come"]);
    assert_eq!(super::said(&[], now()), SaidOfTests::default());
}

#[test]
fn a_folder_without_a_test_in_it_has_a_verdict() {
    let outcome = |kind| SuiteOutcome {
        verdict: SuiteVerdict::NoTests,
        ..SuiteOutcome::not_run(kind, &Error::failed("x"))
    };
    let says =
        |kind, has_folder| Verdict::of(&outcome(kind), has_folder, None).map(|verdict| (verdict.passed, verdict.tests));
    assert_eq!(says(TestKind::Basic, false), Some((true, 0)));
    assert_eq!(says(TestKind::Integration, true), Some((true, 0)));
    assert_eq!(says(TestKind::Integration, false), None);
    assert_eq!(says(TestKind::Workflow, true), None);
}

#[test]
fn a_verdict_about_another_image_does_not_count() {
    let key = key();
    let passed = verdict(TestKind::Basic, true, OLD);
    let others = [
        VerdictSubject {
            digest: Digest::of(b"other"),
            ..subject()
        },
        VerdictSubject {
            repository: "r.example/team/leaf".to_owned(),
            ..subject()
        },
    ];
    let blobs = others.map(|other| statement::written(&other, &passed, Some(&key)).unwrap().1);
    let found = judged(&blobs, Some(&key));
    assert_eq!(found.newest, []);
    assert_eq!(found.notes, ["2 verdicts do not count: it is about another image"]);
}

#[test]
fn what_a_hostile_registry_gives_is_no_verdict() {
    let key = key();
    let good: serde_json::Value = serde_json::from_slice(&written(&verdict(TestKind::Basic, true, OLD), None)).unwrap();
    let with = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut changed = good.clone();
        change(&mut changed);
        changed.to_string().into_bytes()
    };
    let deep = "[".repeat(100_000);
    for (blob, why) in [
        (Vec::new(), "it can't be read"),
        (b"{}".to_vec(), "it can't be read"),
        (deep.into_bytes(), "it can't be read: it has more than"),
        (
            format!("{{\"new\":{}", "[".repeat(60_000)).into_bytes(),
            "it can't be read: EOF",
        ),
        (with(&|it| it["_type"] = "x".into()), "it is no result of tests"),
        (with(&|it| it["predicateType"] = "x".into()), "it is no result of tests"),
        (
            with(&|it| it["predicate"]["result"] = "GREAT".into()),
            "it can't be read",
        ),
        (
            with(&|it| it["predicate"]["io.dockerutils.stack"]["finishedOn"] = "soon".into()),
            "it can't be read",
        ),
        (
            with(&|it| it["subject"] = serde_json::json!([])),
            "it is about another image",
        ),
        (
            br#"{"payload":"e30=","payloadType":"text/plain","signatures":[]}"#.to_vec(),
            "it is no result of tests",
        ),
        (
            br#"{"payload":"!","payloadType":"application/vnd.in-toto+json","signatures":[]}"#.to_vec(),
            "it can't be read: its payload is no base64",
        ),
    ] {
        let found = judged(&[blob], None);
        assert_eq!(found.newest, []);
        assert!(found.notes[0].contains(why), "{why}: {:?}", found.notes);
    }
    // What is not known is ignored, an address that leads nowhere is left out, and failures are no success.
    let more = with(&|it| {
        it["new"] = 1.into();
        it["predicate"]["url"] = "javascript:alert(1)".into();
        it["predicate"]["io.dockerutils.stack"]["failures"] = 2.into();
    });
    let found = judged(&[more], None);
    assert_eq!(found.newest[0].verdict.run, None);
    assert!(!found.newest[0].verdict.passed);
    // An envelope without signatures is not signed.
    let mut empty: serde_json::Value =
        serde_json::from_slice(&written(&verdict(TestKind::Basic, true, OLD), Some(&key))).unwrap();
    empty["signatures"] = serde_json::json!([]);
    assert_eq!(
        judged(&[empty.to_string().into_bytes()], None).newest[0].signature,
        Signature::None
    );
}
