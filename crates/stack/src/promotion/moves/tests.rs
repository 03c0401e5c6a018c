//! Tags that are moved in a scripted registry, which fails, is written to by others, and loses answers.

mod interruptions;

use std::collections::BTreeMap;

use dockerutils_core::error::Class;
use dockerutils_test_support::{Misbehaviour, ScriptedRegistry};
use registry_client::{Options, RegistryCredentials};
use serde_json::json;

use super::*;

const IMAGES: [&str; 3] = ["base", "leaf", "twig"];
const FROM: &str = "1-main";
const TO: &str = "1-stable";

/// A registry with three images, two of which were promoted before.
fn registry() -> ScriptedRegistry {
    let registry = ScriptedRegistry::start();
    registry.store(|store| {
        for image in IMAGES {
            store.image(image, FROM, &format!("{image} new"), &json!({}));
            if image != "twig" {
                store.image(image, TO, &format!("{image} old"), &json!({}));
            }
        }
    });
    registry
}

/// What a tag of each image names.
fn tags(registry: &ScriptedRegistry, tag: &str) -> BTreeMap<&'static str, Option<String>> {
    registry.store(|store| IMAGES.map(|image| (image, store.tag(image, tag))).into_iter().collect())
}

async fn moves(scripted: &ScriptedRegistry) -> Vec<TagMove> {
    let options = Options {
        certificates: Vec::new(),
        ..Options::default()
    };
    let registry = Registry::connect(scripted.address(), RegistryCredentials::Anonymous, options)
        .await
        .unwrap();
    let mut moves = Vec::new();
    for image in IMAGES {
        moves.push(TagMove {
            image: image.to_owned(),
            registry: registry.clone(),
            repository: image.to_owned(),
            name: format!("{}/{image}", scripted.address()),
            from: FROM.to_owned(),
            to: TO.to_owned(),
            new: registry.manifest(image, FROM).await.unwrap().unwrap(),
            old: registry.manifest(image, TO).await.unwrap(),
        });
    }
    moves
}

async fn promote(moves: &[TagMove]) -> PromotionOutcome {
    carry_out(moves, &Interruption::default()).await
}

fn said(outcome: &PromotionOutcome) -> (String, String) {
    let error = outcome.error.as_ref().unwrap();
    (error.to_string(), error.hint_text().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn all_tags_are_moved_and_no_layer() {
    let scripted = registry();
    let moves = moves(&scripted).await;
    let outcome = promote(&moves).await;
    assert!(outcome.error.is_none(), "{outcome:?}");
    assert_eq!(outcome.results, vec![MoveResult::Moved; 3]);
    assert_eq!(tags(&scripted, TO), tags(&scripted, FROM));
    assert_eq!(scripted.requests("GET /v2/base/blobs"), Vec::<String>::new());
    // Again: another run did it all.
    let outcome = promote(&moves).await;
    assert_eq!(outcome.results, vec![MoveResult::MovedByOther; 3]);
    assert!(outcome.error.is_none());
}

#[tokio::test]
async fn when_one_fails_the_others_are_as_they_were() {
    for (misbehaviour, class) in [
        (Misbehaviour::Status(401), Class::Failed),
        (Misbehaviour::Status(403), Class::Failed),
        (Misbehaviour::Status(500), Class::Failed),
        (Misbehaviour::Status(503), Class::Failed),
        (Misbehaviour::HangUp, Class::Unreachable),
        // It was written, and we were not told.
        (Misbehaviour::DoneUnsaid, Class::Unreachable),
    ] {
        let scripted = registry();
        scripted.store(|store| store.deletes_tags = true);
        let before = tags(&scripted, TO);
        let moves = moves(&scripted).await;
        scripted
            .interfere(move |request, _| (request == format!("PUT /v2/leaf/manifests/{TO}")).then_some(misbehaviour));
        let outcome = promote(&moves).await;
        let (message, _) = said(&outcome);
        assert!(message.starts_with("no image was promoted: "), "{message}");
        assert!(
            message.contains(&format!("{}/leaf:{TO}", scripted.address())),
            "{message}"
        );
        assert_eq!(outcome.error.as_ref().unwrap().class(), class, "{misbehaviour:?}");
        assert_eq!(tags(&scripted, TO), before, "{misbehaviour:?}");
        assert_eq!(tags(&scripted, FROM).values().filter(|tag| tag.is_some()).count(), 3);
    }
}

#[tokio::test]
async fn what_was_written_unsaid_is_found_and_put_back() {
    let scripted = registry();
    let before = tags(&scripted, TO);
    let mut moves = moves(&scripted).await;
    moves.truncate(2);
    // Also over another connection, where it is sent again.
    let mut times = 0;
    scripted.interfere(move |request, _| {
        let is_it = request == format!("PUT /v2/leaf/manifests/{TO}") && times < 2;
        times += u32::from(is_it);
        is_it.then_some(Misbehaviour::DoneUnsaid)
    });
    let outcome = promote(&moves).await;
    assert!(said(&outcome).0.starts_with("no image was promoted: "), "{outcome:?}");
    assert_eq!(outcome.results[1], MoveResult::Restored);
    assert_eq!(tags(&scripted, TO), before);
}

#[tokio::test]
async fn what_could_not_be_put_back_is_named_with_what_helps() {
    let scripted = registry();
    let moves = moves(&scripted).await;
    let old = scripted.store(|store| store.tag("base", TO)).unwrap();
    // Twig's tag is new, and this registry deletes none. Base's is written once, and never again.
    let mut base = 0;
    scripted.interfere(move |request, _| {
        if request == format!("PUT /v2/base/manifests/{TO}") {
            base += 1;
            return (base > 1).then_some(Misbehaviour::Status(403));
        }
        None
    });
    let leaf = moves[1].clone();
    let mut moves = moves;
    // Somebody has moved leaf's tag since the plan was made; it takes the longest to be found out.
    moves[1].old = None;
    let (first, last): (Vec<TagMove>, Vec<TagMove>) =
        (vec![moves[0].clone(), moves[2].clone()], vec![moves[1].clone()]);
    let outcome = promote(&first).await;
    assert!(outcome.error.is_none());
    let results: Vec<MoveResult> = many(&first, |tag| tag.restore(false)).await;
    assert!(
        results.iter().all(|result| matches!(result, MoveResult::Left { .. })),
        "{results:?}"
    );
    let error = whole(Error::failed("so it is"), &first, &results);
    let address = scripted.address();
    assert_eq!(
        error.to_string(),
        format!(
            "the promotion failed, and 2 tags could not be put back: {address}/base:{TO}, {address}/twig:{TO}: so it is"
        )
    );
    assert_eq!(
        error.hint_text().unwrap(),
        format!(
            "docker buildx imagetools create --tag {address}/base:{TO} {address}/base@{old}; delete the tag \
             {address}/twig:{TO} on the registry's own page"
        )
    );
    let outcome = promote(&last).await;
    assert!(
        said(&outcome)
            .0
            .contains("leaf:1-stable was moved by somebody else meanwhile: it was absent"),
        "{outcome:?}"
    );
    assert_eq!(
        scripted.store(|store| store.tag("leaf", TO)),
        leaf.old.map(|old| old.digest.to_string())
    );
}

#[tokio::test]
async fn a_registry_that_is_down_for_a_moment_gets_its_tags_back() {
    let scripted = registry();
    let before = tags(&scripted, TO);
    let mut moves = moves(&scripted).await;
    moves.truncate(2);
    let mut failures = 0;
    let mut is_down = false;
    scripted.interfere(move |request, _| {
        is_down |= request == format!("PUT /v2/leaf/manifests/{TO}");
        failures += u32::from(is_down);
        // The write, and what is asked in the next half second.
        (is_down && failures < 4).then_some(Misbehaviour::Status(503))
    });
    let outcome = promote(&moves).await;
    assert!(said(&outcome).0.starts_with("no image was promoted: "), "{outcome:?}");
    assert_eq!(tags(&scripted, TO), before);
}

#[tokio::test]
async fn a_tag_that_moved_since_the_plan_stops_it() {
    for (tag, says) in [
        (FROM, "base:1-main was moved by somebody else"),
        (TO, "base:1-stable was moved by somebody else"),
    ] {
        let scripted = registry();
        let moves = moves(&scripted).await;
        scripted.store(|store| store.image("base", tag, "another", &json!({})));
        scripted.store(|store| store.deletes_tags = true);
        let before = tags(&scripted, TO);
        let outcome = promote(&moves).await;
        let (message, hint) = said(&outcome);
        assert!(message.contains(says), "{message}");
        assert_eq!(
            hint,
            "see whether another promotion runs, then: tag-stack 1-main 1-stable"
        );
        assert_eq!(tags(&scripted, TO), before);
        assert_eq!(outcome.results[0], MoveResult::NotMoved);
    }
}

#[tokio::test]
async fn a_registry_that_deletes_the_image_with_its_tag_loses_no_other_tag() {
    let scripted = registry();
    scripted.store(|store| {
        store.deletes_tags = true;
        store.deletes_manifests = true;
        // Another tag of the same image.
        store.image("twig", "1-a1230a", "twig new", &json!({}));
    });
    let before = ["1-a1230a", FROM, TO].map(|tag| tags(&scripted, tag));
    let moves = moves(&scripted).await;
    let twig = [moves[2].clone()];
    assert!(promote(&twig).await.error.is_none());
    assert_eq!(twig[0].restore(false).await, MoveResult::Restored);
    assert_eq!(["1-a1230a", FROM, TO].map(|tag| tags(&scripted, tag)), before);
    // What refers to the image was never in danger: it was not written again.
    assert!(scripted.requests(&format!("PUT /v2/twig/manifests/{FROM}")).is_empty());
    let digest = moves[2].new.digest.as_str();
    assert!(scripted.store(|store| store.tag("twig", digest)).is_some());
}

#[tokio::test]
async fn a_deletion_that_broke_off_is_gone_on_with() {
    let scripted = registry();
    scripted.store(|store| store.deletes_tags = true);
    let moves = moves(&scripted).await;
    let twig = [moves[2].clone()];
    assert!(promote(&twig).await.error.is_none());
    // The registry is gone as soon as the tag names the placeholder, for as long as a deletion is tried at once.
    let mut failures = 0;
    scripted.interfere(move |request, _| {
        let is_down = failures > 0 || request == format!("DELETE /v2/twig/manifests/{TO}");
        failures += u32::from(is_down);
        (is_down && failures < 4).then_some(Misbehaviour::Status(503))
    });
    assert_eq!(twig[0].restore(false).await, MoveResult::Restored);
    assert_eq!(tags(&scripted, TO)["twig"], None);
    assert!(tags(&scripted, FROM)["twig"].is_some());
}

#[tokio::test]
async fn another_promotion_that_wrote_after_us_is_noticed() {
    let scripted = registry();
    let before = tags(&scripted, TO);
    let mut moves = moves(&scripted).await;
    moves.truncate(2);
    // It looked before we wrote leaf's tag, and writes after us.
    scripted.interfere(move |request, store| {
        if request == format!("PUT /v2/leaf/manifests/{TO}") {
            store.image("other", "x", "x", &json!({}));
        }
        if request == format!("HEAD /v2/leaf/manifests/{TO}") && store.tag("other", "x").is_some() {
            store.image("leaf", TO, "of another run", &json!({}));
        }
        None
    });
    let outcome = promote(&moves).await;
    let (message, _) = said(&outcome);
    assert!(
        message.contains("leaf:1-stable was moved by somebody else meanwhile"),
        "{message}"
    );
    assert_eq!(outcome.results[0], MoveResult::Restored);
    // What another run wrote is not ours to undo: it is named.
    assert!(matches!(outcome.results[1], MoveResult::Left { .. }));
    assert_eq!(tags(&scripted, TO)["base"], before["base"]);
}

#[tokio::test]
async fn of_two_promotions_at_once_one_or_none_is_done() {
    for _ in 0..10 {
        let scripted = registry();
        scripted.store(|store| {
            for image in IMAGES {
                store.image(image, TO, &format!("{image} old"), &json!({}));
                store.image(image, "2-main", &format!("{image} newer"), &json!({}));
            }
        });
        let before = tags(&scripted, TO);
        let one = moves(&scripted).await;
        let mut two = moves(&scripted).await;
        for tag in &mut two {
            tag.from = "2-main".to_owned();
            tag.new = tag.registry.manifest(&tag.repository, "2-main").await.unwrap().unwrap();
        }
        let (first, second) = tokio::join!(promote(&one), promote(&two));
        let after = tags(&scripted, TO);
        let whole = [before, tags(&scripted, FROM), tags(&scripted, "2-main")];
        assert!(whole.contains(&after), "{after:?} {first:?} {second:?}");
        assert!(first.error.is_some() || second.error.is_some());
        if first.error.is_none() {
            assert_eq!(after, whole[1]);
        }
        if second.error.is_none() {
            assert_eq!(after, whole[2]);
        }
    }
}

/// Another run puts leaf's tag back after it was looked at once.
fn put_back_after_the_first_look(scripted: &ScriptedRegistry) {
    let mut looks = 0;
    scripted.interfere(move |request, store| {
        if request == format!("HEAD /v2/leaf/manifests/{TO}") {
            looks += 1;
            if looks > 1 {
                store.image("leaf", TO, "leaf old", &json!({}));
            }
        }
        None
    });
}

#[track_caller]
fn assert_leaf_is_lost(outcome: &PromotionOutcome) {
    let (message, _) = said(outcome);
    assert!(
        message.contains("leaf:1-stable was moved by somebody else"),
        "{message}"
    );
    assert_eq!(outcome.results, [MoveResult::Restored, MoveResult::NotMoved]);
}

#[tokio::test]
async fn what_another_run_moved_is_looked_at_again() {
    let scripted = registry();
    let before = tags(&scripted, TO);
    let mut moves = moves(&scripted).await;
    moves.truncate(2);
    scripted.store(|store| store.image("leaf", TO, "leaf new", &json!({})));
    // The other run fails, and puts leaf's tag back after we have looked at it.
    put_back_after_the_first_look(&scripted);
    assert_leaf_is_lost(&promote(&moves).await);
    assert_eq!(tags(&scripted, TO), before);
}

#[tokio::test]
async fn what_was_there_before_is_looked_at_again() {
    let scripted = registry();
    let before = tags(&scripted, TO)["base"].clone();
    // Another run moved leaf's tag before we looked at anything, and puts it back while we move base's.
    scripted.store(|store| store.image("leaf", TO, "leaf new", &json!({})));
    let mut moves = moves(&scripted).await;
    moves.truncate(2);
    put_back_after_the_first_look(&scripted);
    assert_leaf_is_lost(&promote(&moves).await);
    assert_eq!(tags(&scripted, TO)["base"], before);
}

#[tokio::test]
async fn what_another_run_moved_and_can_not_be_looked_at_again_is_not_promoted() {
    let scripted = registry();
    let mut moves = moves(&scripted).await;
    moves.truncate(2);
    scripted.store(|store| store.image("leaf", TO, "leaf new", &json!({})));
    let mut looks = 0;
    scripted.interfere(move |request, _| {
        let is_it = request.ends_with(&format!(" /v2/leaf/manifests/{TO}"));
        looks += u32::from(is_it);
        (is_it && looks > 1).then_some(Misbehaviour::Status(403))
    });
    let before = tags(&scripted, TO)["base"].clone();
    let outcome = promote(&moves).await;
    assert!(said(&outcome).0.starts_with("no image was promoted: "), "{outcome:?}");
    assert_eq!(tags(&scripted, TO)["base"], before);
}

#[tokio::test]
async fn who_fails_puts_nothing_back_that_another_run_counts_on() {
    let scripted = registry();
    let mut moves = moves(&scripted).await;
    moves.remove(0);
    // Another run has moved twig's tag, and moves leaf's while we can't.
    scripted.store(|store| store.image("twig", TO, "twig new", &json!({})));
    scripted.interfere(move |request, store| {
        let is_it = request == format!("PUT /v2/leaf/manifests/{TO}");
        if is_it {
            store.image("leaf", TO, "leaf new", &json!({}));
        }
        is_it.then_some(Misbehaviour::Status(500))
    });
    let outcome = promote(&moves).await;
    assert!(outcome.error.is_none(), "{outcome:?}");
    let (from, to) = (tags(&scripted, FROM), tags(&scripted, TO));
    assert_eq!([&to["leaf"], &to["twig"]], [&from["leaf"], &from["twig"]]);
    let note = &outcome.notes[0];
    assert!(note.starts_with("another run has moved the same tags"), "{note}");
    assert!(note.contains("answers 500"), "{note}");
}

#[tokio::test]
async fn who_fails_beside_another_run_that_fails_puts_its_own_tags_back() {
    let scripted = registry();
    let before = tags(&scripted, TO);
    let mut moves = moves(&scripted).await;
    moves.remove(0);
    scripted.store(|store| store.image("twig", TO, "twig new", &json!({})));
    // All tags name the new digests for a moment; then the other run puts twig's back.
    let mut looks_at_twig = 0;
    scripted.interfere(move |request, store| {
        if request == format!("HEAD /v2/twig/manifests/{TO}") {
            looks_at_twig += 1;
            if looks_at_twig > 2 {
                store.forget("twig", TO);
            }
        }
        let is_it = request == format!("PUT /v2/leaf/manifests/{TO}") && looks_at_twig < 3;
        if is_it {
            store.image("leaf", TO, "leaf new", &json!({}));
        }
        is_it.then_some(Misbehaviour::Status(500))
    });
    let outcome = promote(&moves).await;
    assert!(said(&outcome).0.starts_with("no image was promoted: "), "{outcome:?}");
    assert_eq!(tags(&scripted, TO), before);
}
