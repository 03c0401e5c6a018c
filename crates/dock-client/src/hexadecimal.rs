//! Bytes in hexadecimal digits, as digests and random IDs are written.

use std::fmt::Write as _;

use ring::rand::SecureRandom as _;

use crate::error::{Error, Result};

/// Two lower-case digits for each byte.
pub fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
            // Writing to a String can't fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// Unpredictable random bytes, this many, in hexadecimal digits.
///
/// # Errors
/// If the system gives no random numbers.
pub fn random<const BYTES: usize>() -> Result<String> {
    let mut bytes = [0; BYTES];
    ring::rand::SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| Error::failed("the system gives no random numbers"))?;
    Ok(hex(&bytes))
}

/// Whether the text has exactly this many digits, all of the form that [`hex`] writes.
pub fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_byte_has_two_digits() {
        assert_eq!(hex(&[0, 0xa, 0xff]), "000aff");
        assert_eq!(hex(b""), "");
    }

    #[test]
    fn what_is_random_is_another_each_time() {
        let (one, two) = (random::<8>().unwrap(), random::<8>().unwrap());
        assert_ne!(one, two);
        assert!(is_hex(&one, 16) && !is_hex(&one, 15));
        assert!(!is_hex("0123456789ABCDEF", 16) && !is_hex("../etc/passwd/xx", 16));
    }
}
