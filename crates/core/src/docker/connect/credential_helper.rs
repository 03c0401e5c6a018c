//! Credential helpers: programs that keep logins, one call each. A verb is on the command line, the question on stdin, the answer
//! on stdout (docker/docker-credential-helpers).

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::AsyncWriteExt as _;

use super::login::Login;
use crate::error::{Error, Result};
use crate::hint;

/// A helper may ask a key ring that waits for a person, but not for ever.
const TIMEOUT: Duration = Duration::from_secs(60);
/// The helpers' protocol has no code for a missing login, only this sentence.
const NOT_FOUND: &str = "credentials not found in native keychain";
/// The user name by which a helper says that the secret is an identity token.
pub(in crate::docker) const TOKEN_USER: &str = "<token>";

/// The login that a helper has for a registry; `None` if it has no login.
///
/// # Errors
/// A helper that isn't there, fails, or gives an answer that makes no sense.
pub(in crate::docker) async fn login(helper: &str, registry: &str) -> Result<Option<Login>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Credentials {
        username: String,
        secret: String,
    }
    let helper = Helper::new(helper, "get", format!("gives no login for {registry}"));
    let Some(said) = helper.run(registry).await? else {
        return Ok(None);
    };
    let answer: Credentials = serde_json::from_slice(&said).map_err(|_| helper.failed("its answer is not JSON"))?;
    let login = if answer.username == TOKEN_USER {
        Login {
            identity_token: answer.secret,
            ..Login::default()
        }
    } else {
        Login::new(answer.username, answer.secret)
    };
    Ok(Some(login).filter(Login::says_something))
}

/// The registries that a store has logins for.
///
/// # Errors
/// As [`login`].
pub(in crate::docker) async fn registries(store: &str) -> Result<Vec<String>> {
    let helper = Helper::new(store, "list", "does not list its logins".to_owned());
    let Some(said) = helper.run("").await? else {
        return Ok(Vec::new());
    };
    let users: BTreeMap<String, String> =
        serde_json::from_slice(&said).map_err(|_| helper.failed("its answer is not JSON"))?;
    Ok(users.into_keys().collect())
}

struct Helper {
    program: String,
    verb: &'static str,
    /// The message if it fails.
    failure: String,
}

impl Helper {
    fn new(name: &str, verb: &'static str, failure: String) -> Self {
        Self {
            program: format!("docker-credential-{name}"),
            verb,
            failure,
        }
    }

    fn failed(&self, why: &str) -> Error {
        let Self { program, verb, failure } = self;
        Error::failed(format!("{program} {failure}: {why}")).hint(hint!("try it: {} {}", program, verb))
    }

    /// Its answer; `None` if it has nothing for the registry.
    async fn run(&self, question: &str) -> Result<Option<Vec<u8>>> {
        let mut child = tokio::process::Command::new(&self.program)
            .arg(self.verb)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|cause| self.failed("it can't be started").because(cause))?;
        if let Some(mut stdin) = child.stdin.take() {
            // A helper may answer without reading.
            let _ = stdin.write_all(question.as_bytes()).await;
        }
        let output = tokio::time::timeout(TIMEOUT, child.wait_with_output())
            .await
            .map_err(|_| self.failed("no answer within a minute"))?
            .map_err(|cause| self.failed("it broke off").because(cause))?;
        if output.status.success() {
            return Ok(Some(output.stdout));
        }
        let said = String::from_utf8_lossy(&output.stdout);
        if said.trim() == NOT_FOUND {
            return Ok(None);
        }
        Err(self.failed(&super::engine::one_line(&said)))
    }
}
