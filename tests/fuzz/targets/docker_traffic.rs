//! Any bytes as a docker client's requests and an engine's responses, cut anywhere: what is seen is IDs and absolute paths,
//! and the same however they are cut.
use dock_link::ports::http_observer::{Creation, HttpObserver};

pub(crate) fn fuzz(input: (u8, &[u8], &[u8])) {
    let (piece, client, engine) = input;
    let mut whole = HttpObserver::default();
    whole.see_client(client);
    let seen = whole.see_engine(engine);
    let mut cut = HttpObserver::default();
    let piece = usize::from(piece) + 1;
    client.chunks(piece).for_each(|part| cut.see_client(part));
    let again: Vec<Creation> = engine.chunks(piece).flat_map(|part| cut.see_engine(part)).collect();
    assert_eq!(seen, again);
    assert_eq!(whole.has_stopped(), cut.has_stopped());
    for Creation { id, sources } in seen {
        assert!(id.is_none_or(|id| id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit())));
        assert!(sources.iter().all(|path| path.starts_with('/') && path.len() < 4096));
    }
}
