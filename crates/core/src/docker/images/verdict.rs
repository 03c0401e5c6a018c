//! What the words of engines and registries mean for the next step: whether a second try may help, and what does where it does not.
//!
//! The words are those of engines 20.10 to 28.5 with both image stores, and of the registries that are in use: docker's own,
//! Docker Hub, ECR, Harbor, GitLab, Quay.

use crate::error::Class;

/// What a message means for the next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The login is missing or wrong, or may not do this.
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
    /// The name of the registry leads nowhere: no try will change it.
    Nowhere,
    /// Nobody listens, the connection broke, or a proxy has nobody behind it.
    Down,
    /// Something else.
    Other,
}

/// Whether an engine may say this of a login that nobody has looked at: the registry's first answer, which says how it wants to be
/// given one, was that it is busy or broken. Engines then ask on without the login.
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

/// What engines and registries say, in lower case, in the order in which it is looked for: a refusal counts more than
/// the connection that it came by.
const SIGNS: &[(Verdict, &[&str])] = &[
    (
        Verdict::Immutable,
        &[
            "is immutable",
            "tag immutab",
            "cannot be overwritten",
            "imagetagalreadyexists",
        ],
    ),
    (
        Verdict::Untrusted,
        &["x509:", "certificate signed by unknown", "failed to verify certificate"],
    ),
    (Verdict::Plain, &["server gave http response to https client"]),
    (
        Verdict::Busy,
        &[
            "toomanyrequests",
            "too many requests",
            "429 ",
            "rate limit",
            "rate exceeded",
        ],
    ),
    // Said with 403 and `denied`, and no login helps.
    (
        Verdict::Full,
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
        Verdict::Down,
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
        Verdict::Broken,
        &[
            "500 internal server error",
            "internal server error",
            "http status: 5",
            "http 500",
            "unknown: unknown error",
        ],
    ),
    (
        Verdict::Denied,
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
        Verdict::UnknownRepository,
        &[
            "name unknown",
            "name_unknown",
            "repository does not exist",
            "does not exist in the registry",
            "repository name not known",
        ],
    ),
    (
        Verdict::Nowhere,
        &["no such host", "server misbehaving", "name or service not known"],
    ),
    (
        Verdict::Down,
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

impl Verdict {
    /// The meaning of what was said of this repository.
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

    /// Whether a later try may come out otherwise.
    pub const fn may_pass(self) -> bool {
        matches!(self, Self::Busy | Self::Broken | Self::Down)
    }

    /// The exit code where it stays so.
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
            ("unauthorized: authentication required", Verdict::Denied),
            ("no basic auth credentials", Verdict::Denied),
            ("denied: requested access to the resource is denied", Verdict::Denied),
            (
                "push access denied, repository does not exist or may require authorization",
                Verdict::Denied,
            ),
            (
                "tag invalid: The image tag '1' already exists in the 'x' repository and cannot be overwritten because the repository is immutable.",
                Verdict::Immutable,
            ),
            (
                "name unknown: The repository with name 'x' does not exist in the registry",
                Verdict::UnknownRepository,
            ),
            ("toomanyrequests: Rate exceeded", Verdict::Busy),
            (
                "denied: Quota exceeded for quota metric 'Requests' of service: 429 Too Many Requests",
                Verdict::Busy,
            ),
            ("denied: quota exceeded", Verdict::Full),
            (
                "unexpected status from POST request to http://r/v2/x/blobs/uploads/: 403 Forbidden: quota exceeded",
                Verdict::Full,
            ),
            (
                "denied: adding 1.2 MiB of storage resource, which when updated to current usage of 1.0 GiB will exceed the configured upper limit of 1.0 GiB",
                Verdict::Full,
            ),
            (
                "received unexpected HTTP status: 503 Service Unavailable",
                Verdict::Down,
            ),
            (
                "received unexpected HTTP status: 500 Internal Server Error",
                Verdict::Broken,
            ),
            (
                "failed commit on ref \"x\": unexpected status from PUT request to http://r/v2/x: 500 Internal Server Error",
                Verdict::Broken,
            ),
            (
                "Get \"http://127.0.0.1:1/v2/\": dial tcp 127.0.0.1:1: connect: connection refused",
                Verdict::Down,
            ),
            ("Head \"https://r/v2/x/blobs/y\": EOF", Verdict::Down),
            (
                "write tcp 1.2.3.4:5->6.7.8.9:443: write: connection reset by peer",
                Verdict::Down,
            ),
            (
                "dial tcp: lookup nowhere.example on 127.0.0.11:53: no such host",
                Verdict::Nowhere,
            ),
            ("x509: certificate signed by unknown authority", Verdict::Untrusted),
            ("http: server gave HTTP response to HTTPS client", Verdict::Plain),
            ("manifest invalid: manifest invalid", Verdict::Other),
        ] {
            assert_eq!(Verdict::of(message, "reg.example:5000/team/x"), verdict, "{message}");
        }
        let message = "Put \"https://reg.example:5000/v2/denied/geofence/manifests/1\": manifest invalid";
        assert_eq!(Verdict::of(message, "reg.example:5000/denied/geofence"), Verdict::Other);
        // Nor do words fall apart where it is called `x`.
        let message = "Get \"https://reg.example:5000/v2/\": x509: certificate signed by unknown authority";
        assert_eq!(Verdict::of(message, "reg.example:5000/x"), Verdict::Untrusted);
        assert!(Verdict::Busy.may_pass() && Verdict::Broken.may_pass() && Verdict::Down.may_pass());
        assert!(!Verdict::Full.may_pass());
        assert!(!Verdict::Denied.may_pass() && !Verdict::Immutable.may_pass() && !Verdict::Other.may_pass());
        assert_eq!(Verdict::Down.class(), Class::Unreachable);
        assert_eq!(Verdict::Busy.class(), Class::Failed);
    }
}
