//! Any bytes are read as a verdict, by themselves or in an envelope, or refused: what was read is about that image, has a time,
//! and is never taken for signed.

use dockerutils_stack::verdicts::statement::{VerdictSubject, read};
use dockerutils_stack::verdicts::{Signature, VerdictPublicKey};
use registry_client::Digest;

/// A key that nothing is signed with.
const KEY: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAPahw9+s/QXyRkOvyalTYKH+5W41upMxhLS5UmuF3eGo=\n-----END PUBLIC KEY-----\n";

pub(crate) fn fuzz(input: (bool, &[u8])) {
    let (is_wrapped, bytes) = input;
    let subject = VerdictSubject {
        repository: "r.example/team/base".to_owned(),
        digest: Digest::of(b"image"),
    };
    let wrapped;
    let bytes = match is_wrapped {
        true => {
            wrapped = format!(
                r#"{{"payloadType":"application/vnd.in-toto+json","payload":"{}","signatures":[{{"sig":"AAAA"}}]}}"#,
                base64(bytes)
            );
            wrapped.as_bytes()
        }
        false => bytes,
    };
    let key = VerdictPublicKey::parse(KEY).expect("it is a key");
    for key in [None, Some(&key)] {
        match read(bytes, &subject, key) {
            Ok((verdict, signature)) => {
                assert_ne!(signature, Signature::Verified);
                assert!(!verdict.passed || verdict.failures == 0);
                assert!(verdict.finished.parse::<jiff::Timestamp>().is_ok(), "{}", verdict.finished);
                assert!(verdict.run.is_none_or(|run| run.starts_with("http")));
                let text = String::from_utf8_lossy(bytes);
                assert!(is_wrapped || text.contains("subject") || text.contains('\\'));
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
    // The same bytes as a key.
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Err(error) = VerdictPublicKey::parse(text)
    {
        assert!(error.to_string().len() < 100);
    }
}

/// Base64 of RFC 4648.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for part in bytes.chunks(3) {
        let number = part.iter().fold(0_u32, |number, byte| number << 8 | u32::from(*byte)) << (8 * (3 - part.len()));
        for place in 0..4 {
            let digit = DIGITS[(number >> (18 - 6 * place) & 63) as usize];
            text.push(if place > part.len() { '=' } else { char::from(digit) });
        }
    }
    text
}
