//! Promotions that the user interrupts.

use super::*;

#[tokio::test]
async fn an_interruption_leaves_all_as_it_was() {
    let scripted = registry();
    let before = tags(&scripted, TO);
    let mut moves = moves(&scripted).await;
    moves.truncate(2);
    let interruption = Interruption::default();
    let made = interruption.clone();
    scripted.interfere(move |request, _| {
        if request == format!("PUT /v2/base/manifests/{TO}") && !made.is_made() {
            made.make();
        }
        None
    });
    let outcome = carry_out(&moves, &interruption).await;
    assert_eq!(outcome.error.as_ref().unwrap().class(), Class::Interrupted);
    assert_eq!(tags(&scripted, TO), before);
}

#[tokio::test]
async fn a_write_that_does_not_end_is_interrupted_at_once() {
    let scripted = registry();
    let before = tags(&scripted, TO);
    let mut moves = moves(&scripted).await;
    moves.truncate(1);
    let interruption = Interruption::default();
    let made = interruption.clone();
    let mut looks = 0;
    scripted.interfere(move |request, store| {
        if request == format!("PUT /v2/base/manifests/{TO}") && !made.is_made() {
            made.make();
            return Some(Misbehaviour::Silence);
        }
        // What was interrupted is done all the same, after we looked.
        if made.is_made() && request == format!("HEAD /v2/base/manifests/{TO}") {
            looks += 1;
            if looks == 2 {
                store.image("base", TO, "base new", &json!({}));
            }
        }
        None
    });
    let began = Instant::now();
    let outcome = carry_out(&moves, &interruption).await;
    assert_eq!(outcome.error.as_ref().unwrap().class(), Class::Interrupted);
    assert_eq!(outcome.results[0], MoveResult::Restored);
    assert_eq!(tags(&scripted, TO), before);
    // A registry has half a minute to answer at least.
    assert!(began.elapsed() < Duration::from_secs(29));
}

#[tokio::test]
async fn what_is_not_put_back_in_time_or_when_interrupted_again_is_named() {
    for is_made_twice in [false, true] {
        let scripted = registry();
        let mut moves = moves(&scripted).await;
        moves.truncate(1);
        let patience = match is_made_twice {
            true => Duration::from_secs(3600),
            false => Duration::from_millis(20),
        };
        let interruption = Interruption::with_patience(patience);
        let made = interruption.clone();
        let old = scripted.store(|store| store.tag("base", TO)).unwrap();
        scripted.interfere(move |request, _| {
            if request == format!("PUT /v2/base/manifests/{TO}") {
                made.make();
                return Some(Misbehaviour::Silence);
            }
            if made.is_made() && is_made_twice {
                made.make();
            }
            made.is_made().then_some(Misbehaviour::Silence)
        });
        let outcome = carry_out(&moves, &interruption).await;
        let (message, hint) = said(&outcome);
        let address = scripted.address();
        assert!(
            message.contains(&format!("could not be put back: {address}/base:{TO}")),
            "{message}"
        );
        let line = format!("docker buildx imagetools create --tag {address}/base:{TO} {address}/base@{old}");
        assert!(hint.contains(&line), "{hint}");
        assert_eq!(outcome.error.as_ref().unwrap().class(), Class::Interrupted);
        assert!(matches!(outcome.results[0], MoveResult::Left { .. }), "{outcome:?}");
    }
}
