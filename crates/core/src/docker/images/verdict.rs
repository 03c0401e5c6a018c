//! What the words of engines and registries mean for the next step: whether a second try may help, and what else helps.
//!
//! The words are those of engines 20.10 to 28.5 with both image stores, and of the registries in use: docker's own,
//! Docker Hub, ECR, Harbor, GitLab, Quay.

use crate::error::Class;

/// What a message means for the next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegistryVerdict {
    /// The login is missing, wrong, or has no right to do this.
    Denied,
    /// The tag is there with another image, and may not be moved.
    Immutable,
    /// There is no such repository.
    UnknownRepository,
    /// The registry's certificate is not trusted.
    Untrusted,
    /// The registry speaks no TLS.
    Plain,
    /// Too many requests.
    Busy,
    /// The registry has no room for it, or its owner has paid for no more.
    Full,
    /// The registry failed, and said so.
    Broken,
    /// The host name of the registry does not resolve: no try will change that.
    Nowhere,
    /// The registry does not listen, the connection broke, or a proxy can't reach it.
    Down,
    /// Something else.
    Other,
}

/// Whether an engine may give this message although nobody checked the login: the registry answered the first request,
/// which asks how to log in, that it is busy or broken. Engines then go on without the login.
pub fn may_be_of_no_login(message: &str) -> bool {
    let message = message.to_lowercase();
    let is_said = |signs: &[&str]| signs.iter().any(|sign| message.contains(sign));
    is_said(&[
        "unauthorized",
        "authentication required",
        "no basic auth credentials",
        "401 ",
    ]) && !is_said(&["denied", "forbidden", "incorrect", "insufficient_scope", "403 "])
}

/// Messages of engines and registries, in lower case, in the order in which they are looked for: a refusal counts more
/// than the connection that it came by.
const SIGNS: &[(RegistryVerdict, &[&str])] = &[
    (
        RegistryVerdict::Immutable,
        &[
            "is immutable",
            "tag immutab",
            "cannot be overwritten",
            "imagetagalreadyexists",
        ],
    ),
    (
        RegistryVerdict::Untrusted,
        &["x509:", "certificate signed by unknown", "failed to verify certificate"],
    ),
    (RegistryVerdict::Plain, &["server gave http response to https client"]),
    (
        RegistryVerdict::Busy,
        &[
            "toomanyrequests",
            "too many requests",
            "429 ",
            "rate limit",
            "rate exceeded",
        ],
    ),
    // Sent with 403 and `denied`, but no login helps.
    (
        RegistryVerdict::Full,
        &[
            "quota exceeded",
            "quota has been exceeded",
            "exceeded quota",
            "exceeds quota",
            "exceeds the quota",
            "exceeded the quota",
            "over quota",
            "storage quota",
            "exceed the configured upper limit",
            "limitexceeded",
            "storage limit",
            "insufficient storage",
            "no space left on device",
            "507 ",
        ],
    ),
    (
        RegistryVerdict::Down,
        &[
            "502 bad gateway",
            "503 service unavailable",
            "504 gateway",
            "http status: 502",
            "http status: 503",
            "http 502",
            "http 503",
            "http 504",
            "unavailable: service unavailable",
        ],
    ),
    (
        RegistryVerdict::Broken,
        &[
            "500 internal server error",
            "internal server error",
            "http status: 5",
            "http 500",
            "unknown: unknown error",
        ],
    ),
    (
        RegistryVerdict::Denied,
        &[
            "unauthorized",
            "authentication required",
            "no basic auth credentials",
            "denied",
            "forbidden",
            "incorrect username or password",
            "authorization failed",
            "insufficient_scope",
            "401 ",
            "403 ",
        ],
    ),
    (
        RegistryVerdict::UnknownRepository,
        &[
            "name unknown",
            "name_unknown",
            "repository does not exist",
            "does not exist in the registry",
            "repository name not known",
        ],
    ),
    (
        RegistryVerdict::Nowhere,
        &["no such host", "server misbehaving", "name or service not known"],
    ),
    (
        RegistryVerdict::Down,
        &[
            "connection refused",
            "connection reset",
            "broken pipe",
            "no route to host",
            "network is unreachable",
            "host is unreachable",
            "i/o timeout",
            "handshake timeout",
            "deadline exceeded",
            "request canceled while waiting",
            "use of closed network connection",
            ": eof",
            "unexpected eof",
            "stream error",
            "goaway",
            "server closed",
            "http2: ",
            "connection timed out",
        ],
    ),
];

impl RegistryVerdict {
    /// The meaning of a message about this repository.
    pub fn of(message: &str, repository: &str) -> Self {
        // A repository may be called anything, such as `denied`.
        let path = match repository.split_once('/') {
            Some((host, path)) if host.contains(['.', ':']) => path,
            _ => repository,
        };
        let message = match path {
            "" => message.to_lowercase(),
            path => message.replace(&format!("/{path}"), "/").to_lowercase(),
        };
        SIGNS
            .iter()
            .find(|(_, signs)| signs.iter().any(|sign| message.contains(sign)))
            .map_or(Self::Other, |(verdict, _)| *verdict)
    }

    /// Whether a later try may have another outcome.
    pub const fn may_pass(self) -> bool {
        matches!(self, Self::Busy | Self::Broken | Self::Down)
    }

    /// The exit code if it stays so.
    pub const fn class(self) -> Class {
        match self {
            Self::Down | Self::Nowhere => Class::Unreachable,
            _ => Class::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_engines_and_registries_are_understood() {
        for (message, verdict) in [
            ("unauthorized: authentication required", RegistryVerdict::Denied),
            ("no basic auth credentials", RegistryVerdict::Denied),
            (
                "denied: requested access to the resource is denied",
                RegistryVerdict::Denied,
            ),
            (
                "push access denied, repository does not exist or may require authorization",
                RegistryVerdict::Denied,
            ),
            (
                "tag invalid: The image tag '1' already exists in the 'x' repository and cannot be overwritten because the repository is immutable.",
                RegistryVerdict::Immutable,
            ),
            (
                "name unknown: The repository with name 'x' does not exist in the registry",
                RegistryVerdict::UnknownRepository,
            ),
            ("toomanyrequests: Rate exceeded", RegistryVerdict::Busy),
            (
                "denied: Quota exceeded for quota metric 'Requests' of service: 429 Too Many Requests",
                RegistryVerdict::Busy,
            ),
            ("denied: quota exceeded", RegistryVerdict::Full),
            (
                "unexpected status from POST request to http://r/v2/x/blobs/uploads/: 403 Forbidden: quota exceeded",
                RegistryVerdict::Full,
            ),
            (
                "denied: adding 1.2 MiB of storage resource, which when updated to current usage of 1.0 GiB will exceed the configured upper limit of 1.0 GiB",
                RegistryVerdict::Full,
            ),
            (
                "received unexpected HTTP status: 503 Service Unavailable",
                RegistryVerdict::Down,
            ),
            (
                "received unexpected HTTP status: 500 Internal Server Error",
                RegistryVerdict::Broken,
            ),
            (
                "failed commit on ref \"x\": unexpected status from PUT request to http://r/v2/x: 500 Internal Server Error",
                RegistryVerdict::Broken,
            ),
            (
                "Get \"http://127.0.0.1:1/v2/\": dial tcp 127.0.0.1:1: connect: connection refused",
                RegistryVerdict::Down,
            ),
            ("Head \"https://r/v2/x/blobs/y\": EOF", RegistryVerdict::Down),
            (
                "write tcp 1.2.3.4:5->6.7.8.9:443: write: connection reset by peer",
                RegistryVerdict::Down,
            ),
            (
                "dial tcp: lookup nowhere.example on 127.0.0.11:53: no such host",
                RegistryVerdict::Nowhere,
            ),
            (
                "x509: certificate signed by unknown authority",
                RegistryVerdict::Untrusted,
            ),
            (
                "http: server gave HTTP response to HTTPS client",
                RegistryVerdict::Plain,
            ),
            ("manifest invalid: manifest invalid", RegistryVerdict::Other),
        ] {
            assert_eq!(
                RegistryVerdict::of(message, "reg.example:5000/team/x"),
                verdict,
                "{message}"
            );
        }
        let message = "Put \"https://reg.example:5000/v2/denied/geofence/manifests/1\": manifest invalid";
        assert_eq!(
            RegistryVerdict::of(message, "reg.example:5000/denied/geofence"),
            RegistryVerdict::Other
        );
        // Nor do words fall apart if it is called `x`.
        let message = "Get \"https://reg.example:5000/v2/\": x509: certificate signed by unknown authority";
        assert_eq!(
            RegistryVerdict::of(message, "reg.example:5000/x"),
            RegistryVerdict::Untrusted
        );
        assert!(
            RegistryVerdict::Busy.may_pass() && RegistryVerdict::Broken.may_pass() && RegistryVerdict::Down.may_pass()
        );
        assert!(!RegistryVerdict::Full.may_pass());
        assert!(
            !RegistryVerdict::Denied.may_pass()
                && !RegistryVerdict::Immutable.may_pass()
                && !RegistryVerdict::Other.may_pass()
        );
        assert_eq!(RegistryVerdict::Down.class(), Class::Unreachable);
        assert_eq!(RegistryVerdict::Busy.class(), Class::Failed);
    }
}
