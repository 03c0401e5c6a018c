//! The token of a Jupyter server: who has it can run any code as the server's user.

use std::fmt;

use crate::error::Result;
use crate::hexadecimal;

/// The variable by which a server is given its token: it then neither makes one nor prints it.
pub const TOKEN_VARIABLE: &str = "JUPYTER_TOKEN";
/// Bytes of randomness in a token of ours, as many as jupyter_server takes for its own.
const BYTES: usize = 24;
/// The longest token that is taken from a server or an environment, in bytes.
const LONGEST: usize = 512;

/// A token, which is shown nowhere but where it is asked for by name.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// A new one: 48 hexadecimal digits.
    ///
    /// # Errors
    /// If the system gives no random numbers.
    pub fn generate() -> Result<Self> {
        Ok(Self(hexadecimal::random::<BYTES>()?))
    }

    /// A token that someone else made, from an environment variable or a file; `None` if a server can't have it: it is
    /// empty, longer than 512 bytes, or has characters that no header of HTTP carries.
    pub fn from_environment_value(value: &str) -> Option<Self> {
        let is_sound = !value.is_empty() && value.len() <= LONGEST && value.bytes().all(|byte| byte.is_ascii_graphic());
        is_sound.then(|| Self(value.to_owned()))
    }

    /// The token itself, for a header, an environment, or the URL that the user asked for.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// `token=...` for the query of a URL.
    pub fn in_query(&self) -> String {
        form_urlencoded::Serializer::new(String::new())
            .append_pair("token", &self.0)
            .finish()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(...)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_token_is_random_and_shows_itself_to_nobody() {
        let (one, two) = (Token::generate().unwrap(), Token::generate().unwrap());
        assert_ne!(one, two);
        assert!(hexadecimal::is_hex(one.reveal(), 48), "{}", one.reveal());
        assert_eq!(format!("{one:?}"), "Token(...)");
    }

    #[test]
    fn what_no_header_carries_is_no_token() {
        for bad in ["", "a b", "a\nb", "a\u{e9}", &"x".repeat(513)] {
            assert_eq!(Token::from_environment_value(bad), None, "{bad:?}");
        }
        let token = Token::from_environment_value("p&q=+%").unwrap();
        assert_eq!(token.in_query(), "token=p%26q%3D%2B%25");
    }
}
