//! Turns errors of AWS and its SDK into a message that names the object and a hint that helps.

use aws_sdk_ecr::error::{ProvideErrorMetadata, SdkError};
use dock_client::error::{Class, Error};
use dock_client::hint;

/// Error codes for credentials that have expired.
const EXPIRED: [&str; 4] = [
    "ExpiredToken",
    "ExpiredTokenException",
    "RequestExpired",
    "TokenRefreshRequired",
];
/// Error codes for credentials that AWS does not know.
const INVALID: [&str; 5] = [
    "UnrecognizedClientException",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "SignatureDoesNotMatch",
    "IncompleteSignature",
];
/// Error codes for missing permissions.
const DENIED: [&str; 3] = ["AccessDenied", "AccessDeniedException", "UnauthorizedOperation"];
/// The longest message that is passed on.
const MESSAGE_LIMIT: usize = 1000;

/// Where credentials come from, as far as hints need it.
pub(crate) struct Situation {
    /// The profile; `default` if none is named.
    profile: String,
    /// Whether the keys are in the environment, which the SDK looks at first.
    keys_in_environment: bool,
}

impl Situation {
    pub(crate) fn from_process() -> Self {
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self {
            profile: set("AWS_PROFILE")
                .or_else(|| set("AWS_DEFAULT_PROFILE"))
                .unwrap_or_else(|| "default".to_owned()),
            keys_in_environment: set("AWS_ACCESS_KEY_ID").is_some() && set("AWS_SECRET_ACCESS_KEY").is_some(),
        }
    }

    pub(crate) fn no_region(&self) -> Error {
        Error::usage(format!(
            "no region of AWS is configured: neither AWS_REGION nor the profile {} says one",
            self.profile
        ))
        .hint(hint!(
            "export AWS_REGION=eu-west-1, or aws configure set region eu-west-1 --profile {}",
            self.profile
        ))
    }

    /// Says why a call failed. `what` is the sentence to complete, without its end.
    pub(crate) fn explain<E, R>(&self, what: &str, error: &SdkError<E, R>) -> Error
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
        R: std::fmt::Debug + 'static,
    {
        let said = match error.message() {
            Some(message) => message.to_owned(),
            None => chain(error),
        };
        let out_of_reach = match error {
            SdkError::DispatchFailure(failure) => failure.is_io() || failure.is_timeout(),
            SdkError::TimeoutError(_) | SdkError::ResponseError(_) => true,
            _ => false,
        };
        self.failure(what, error.code(), &said, out_of_reach)
    }

    fn failure(&self, what: &str, code: Option<&str>, said: &str, out_of_reach: bool) -> Error {
        let lower = said.to_lowercase();
        let has = |codes: &[&str]| code.is_some_and(|code| codes.contains(&code));
        let profile = &self.profile;
        let (kind, message, hint) = if has(&EXPIRED) || lower.contains("expired") {
            let hint = if self.keys_in_environment {
                format!(
                    "AWS_ACCESS_KEY_ID and its like are too old: export new ones, or unset them and: aws sso login --profile {profile}"
                )
            } else {
                format!("aws sso login --profile {profile}")
            };
            (
                Class::Failed,
                "the credentials or the token have expired".to_owned(),
                hint,
            )
        } else if has(&INVALID) {
            let hint = if self.keys_in_environment {
                "are AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN of one and the same login?"
                    .to_owned()
            } else {
                format!("aws sts get-caller-identity --profile {profile}")
            };
            (Class::Failed, "AWS does not know these credentials".to_owned(), hint)
        } else if is_denied(code) {
            (
                Class::Failed,
                "this user may not do it".to_owned(),
                "it takes ecr:GetAuthorizationToken, ecr:DescribeRepositories, ecr:CreateRepository and the rights to push"
                    .to_owned(),
            )
        } else if out_of_reach {
            (
                Class::Unreachable,
                "AWS is out of reach".to_owned(),
                "look at the network, at HTTPS_PROXY, and at AWS_ENDPOINT_URL where it is set".to_owned(),
            )
        } else if code.is_none() && lower.contains("sso") {
            (
                Class::Failed,
                format!("the profile {profile} is not logged in"),
                format!("aws sso login --profile {profile}"),
            )
        } else if code.is_none() && lower.contains("credential") {
            // The SDK lists every source that it tried, over ten lines.
            return Error::failed(format!(
                "{what}: no credentials are found, neither in the environment nor in the profile {profile}"
            ))
            .hint("aws configure, aws sso login, or export AWS_PROFILE=NAME");
        } else {
            (
                Class::Failed,
                code.unwrap_or("AWS refuses").to_owned(),
                "aws sts get-caller-identity shows who AWS takes us for".to_owned(),
            )
        };
        Error::new(kind, format!("{what}: {message}: {}", shortened(said))).hint(hint)
    }
}

/// Whether this code means that the user lacks the permission.
pub(crate) fn is_denied(code: Option<&str>) -> bool {
    code.is_some_and(|code| DENIED.contains(&code))
}

pub(crate) fn unknown_request() -> Error {
    Error::failed("dock-registry-aws does not know this request")
        .hint("install it and publish-image from the same release: cargo xtask install")
}

/// The error for an answer without the expected content.
pub(crate) fn malformed(call: &str) -> Error {
    Error::failed(format!("AWS's answer to {call} lacks what it is asked for"))
        .hint("is AWS_ENDPOINT_URL set, and is it AWS that answers there?")
}

/// An error and its causes. The SDK's own errors say little, their causes more.
fn chain(error: &dyn std::error::Error) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        // These only say that there is a cause.
        let is_empty = ["dispatch failure", "other", "service error"].contains(&text.as_str());
        if !is_empty && !parts.iter().any(|part| part.contains(&text)) {
            parts.push(text);
        }
        next = error.source();
    }
    parts.join(": ")
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(MESSAGE_LIMIT) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn situation(keys_in_environment: bool) -> Situation {
        Situation {
            profile: "work".into(),
            keys_in_environment,
        }
    }

    #[test]
    fn an_expired_token_says_how_to_get_another() {
        for (code, said) in [
            (
                Some("ExpiredToken"),
                "The security token included in the request is expired",
            ),
            (Some("ExpiredTokenException"), "x"),
            (
                None,
                "dispatch failure: other: the SSO token has expired and cannot be refreshed",
            ),
        ] {
            let failure = situation(false).failure("AWS gives no login", code, said, false);
            assert_eq!(failure.hint_text(), Some("aws sso login --profile work"));
            assert!(failure.to_string().contains("expired") && failure.to_string().ends_with(said));
            assert_eq!(failure.class(), Class::Failed);
            let failure = situation(true).failure("AWS gives no login", code, said, false);
            assert!(failure.hint_text().unwrap().contains("AWS_ACCESS_KEY_ID"));
        }
    }

    #[test]
    fn each_failure_is_told_from_the_others() {
        let explained = |code, said, out_of_reach| situation(false).failure("w", code, said, out_of_reach);
        let unreachable = explained(None, "dispatch failure: io error: connection refused", true);
        assert_eq!(unreachable.class(), Class::Unreachable);
        let denied = explained(Some("AccessDeniedException"), "User is not authorized", false);
        assert!(denied.hint_text().unwrap().contains("ecr:CreateRepository"));
        let none = explained(None, "no providers in chain provided credentials", false);
        assert!(
            none.to_string()
                .ends_with("no credentials are found, neither in the environment nor in the profile work")
        );
        let missing = explained(None, "failed to load the cached SSO token: No such file", false);
        assert_eq!(missing.hint_text(), Some("aws sso login --profile work"));
        let other = explained(Some("LimitExceededException"), "too many repositories", false);
        assert!(
            other
                .to_string()
                .contains("LimitExceededException: too many repositories")
        );
    }
}
