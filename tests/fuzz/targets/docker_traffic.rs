//! Any bytes as a docker client's requests and an engine's responses, cut anywhere: what is seen is IDs, and the
//! same however they are cut.
use dock_link::http::observer::HttpObserver;

pub(crate) fn fuzz(input: (u8, &[u8], &[u8])) {
    let (piece, client, engine) = input;
    let mut whole = HttpObserver::default();
    whole.see_client(client);
    let seen = whole.see_engine(engine);
    let mut cut = HttpObserver::default();
    let piece = usize::from(piece) + 1;
    client.chunks(piece).for_each(|part| cut.see_client(part));
    let again: Vec<String> = engine.chunks(piece).flat_map(|part| cut.see_engine(part)).collect();
    assert_eq!(seen, again);
    assert_eq!(whole.has_stopped(), cut.has_stopped());
    let is_id = |id: &String| id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    assert!(seen.iter().all(is_id));
}
