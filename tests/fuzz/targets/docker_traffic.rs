//! Any bytes as a docker client's requests and an engine's responses, cut anywhere: what passes is what was sent, and the
//! same however it is cut.
use dock_link::http::conversation::pass;

pub(crate) fn fuzz(input: (u8, &[u8], &[u8])) {
    let (piece, client, engine) = input;
    let whole = pass(usize::MAX, client, engine);
    let cut = pass(usize::from(piece) + 1, client, engine);
    assert_eq!(whole, cut);
    let has = |word: &[u8]| client.windows(word.len()).any(|part| part.eq_ignore_ascii_case(word));
    // What is answered here, and the end of the connection, are left out of heads.
    if !has(b"expect") && !has(b"HTTP/1.0") {
        assert!(client.starts_with(&whole.engine));
    }
}
