//! Logins that were sent, kept out of what is shown: a hostile registry or engine may send one back in an error, to have it printed
//! where others read it, such as a build's public log.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};

use super::login::Login;
use dock_client::mutex::lock;

/// A shorter text is not treated as a secret: it also occurs inside other words.
const SHORTEST: usize = 4;

/// The forms in which logins were sent. Clones share them.
#[derive(Clone, Default)]
pub struct Redaction {
    secrets: Arc<Mutex<BTreeSet<String>>>,
}

// Secrets must not reach a log by way of a derived Debug.
impl std::fmt::Debug for Redaction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Redaction(..)")
    }
}

impl Redaction {
    /// Hides this login to a registry alone.
    pub fn of(registry: &str, login: &Login) -> Self {
        let redaction = Self::default();
        redaction.add(registry, login);
        redaction
    }

    /// Hides this login, too, from now on.
    pub fn add(&self, registry: &str, login: &Login) {
        let of_one = |secret: &str| {
            let pair = format!("{}:{secret}", login.user);
            [
                STANDARD.encode(&pair),
                URL_SAFE.encode(&pair),
                STANDARD.encode(secret),
                secret.to_owned(),
            ]
        };
        let forms = login.secrets().flat_map(of_one).chain([login.registry_auth(registry)]);
        self.secrets().extend(forms.filter(|form| form.len() >= SHORTEST));
    }

    /// The text with `***` in place of each login.
    pub fn clean(&self, text: &str) -> String {
        let secrets = self.secrets();
        let mut forms: Vec<&String> = secrets.iter().collect();
        // One may be a part of another: the longest first.
        forms.sort_by_key(|form| std::cmp::Reverse(form.len()));
        forms
            .into_iter()
            .fold(text.to_owned(), |text, form| text.replace(form, "***"))
    }

    fn secrets(&self) -> MutexGuard<'_, BTreeSet<String>> {
        lock(&self.secrets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_not_shown_in_any_form_in_which_it_was_sent() {
        let login = Login::new("ann".into(), "hunter2".into());
        let redaction = Redaction::of("reg.example", &login);
        let header = login.registry_auth("reg.example");
        let pair = STANDARD.encode("ann:hunter2");
        assert_eq!(
            redaction
                .clone()
                .clean(&format!("you said Basic {pair}, hunter2, {header}")),
            "you said Basic ***, ***, ***"
        );
        assert!(!format!("{redaction:?}").contains("hunter2"));
        let short = Login::new("a".into(), "an".into());
        assert_eq!(
            Redaction::of("x", &short).clean("denied by an engine"),
            "denied by an engine"
        );
    }
}
