//! The client of `dock-registry-aws`, the program that knows Amazon's registry (ECR), and the protocol between them.
//!
//! AWS's SDK would make every command large and slow to build, so it is linked into a process of its own, as the agents
//! and providers are. One JSON document a line: a [`Request`] to its stdin, an [`Answer`] from its stdout, until stdin
//! ends. Secrets travel by these pipes alone, never in arguments or files.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::error::{Error, Result, WireError};
use crate::hint;

/// The program's name: beside our own, or on PATH.
pub const PROGRAM: &str = "dock-registry-aws";
/// How long an answer may take: the program asks AWS, with retries, and perhaps a program of the user's for
/// credentials.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);
/// The longest answer, in bytes; a token has about 3 kB.
const ANSWER_LIMIT: u64 = 256 * 1024;

/// What is asked of the program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Which account AWS takes us for. Changes nothing.
    Identity,
    /// A login for this registry. Changes nothing.
    Login {
        /// Its host, as in references.
        registry: String,
    },
    /// Makes sure that this repository exists.
    Repository {
        /// The registry's host, as in references.
        registry: String,
        /// The repository's name, without the host.
        name: String,
    },
}

/// What the program answers: to each request its own kind, or a failure.
// No Debug: a login's secret must not reach a log.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// To [`Request::Identity`].
    Identity(Identity),
    /// To [`Request::Login`].
    Login {
        /// The user's name.
        user: String,
        /// The password, good for some hours.
        secret: String,
    },
    /// To [`Request::Repository`].
    Repository {
        /// Whether it was created just now.
        created: bool,
    },
    /// The request failed.
    Failure(WireError),
}

/// The account that AWS takes us for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The account's number.
    pub account: String,
    /// The region that is configured.
    pub region: String,
}

/// A registry of Amazon's, taken from its host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EcrRegistry {
    /// The account's number.
    pub account: String,
    pub region: String,
}

/// The domains of registries, by the beginning of the region's name: AWS has partitions with domains of their own.
const DOMAINS: [(&str, &str); 4] = [
    ("cn-", "amazonaws.com.cn"),
    ("us-isob-", "sc2s.sgov.gov"),
    ("us-iso-", "c2s.ic.gov"),
    ("", "amazonaws.com"),
];

impl EcrRegistry {
    /// Reads `ACCOUNT.dkr.ecr.REGION.amazonaws.com`, or the name of the same registry with IPv6,
    /// `ACCOUNT.dkr-ecr.REGION.on.aws`; `None` if the host is not a registry of Amazon's.
    pub fn parse(host: &str) -> Option<Self> {
        let old = [".dkr.ecr.", ".dkr.ecr-fips."];
        let new = [".dkr-ecr.", ".dkr-ecr-fips."];
        let split = |names: [&str; 2]| names.into_iter().find_map(|name| host.split_once(name));
        let (account, rest, is_new) = match (split(old), split(new)) {
            (Some((account, rest)), _) => (account, rest, false),
            (None, Some((account, rest))) => (account, rest, true),
            (None, None) => return None,
        };
        let (region, domain) = rest.split_once('.')?;
        let is_account = account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit());
        let is_region = !region.is_empty() && region.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        let is_domain = if is_new {
            domain == "on.aws"
        } else {
            domain == domain_of(region)
        };
        (is_account && is_region && is_domain).then(|| Self {
            account: account.to_owned(),
            region: region.to_owned(),
        })
    }

    /// The registry's host, as in references.
    pub fn host(&self) -> String {
        format!("{}.dkr.ecr.{}.{}", self.account, self.region, domain_of(&self.region))
    }
}

fn domain_of(region: &str) -> &'static str {
    DOMAINS
        .iter()
        .find(|(begin, _)| region.starts_with(begin))
        .map_or("amazonaws.com", |(_, domain)| domain)
}

/// The running program. It ends when this value is dropped.
pub struct Aws {
    // Killed when it is dropped.
    _child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Aws {
    /// Starts it.
    ///
    /// # Errors
    /// If it is neither beside our own program nor on PATH.
    pub fn start() -> Result<Self> {
        let beside = std::env::current_exe()
            .ok()
            .map(|program| program.with_file_name(PROGRAM))
            .filter(|program| program.is_file());
        let program = beside.unwrap_or_else(|| PathBuf::from(PROGRAM));
        let missing = |cause| {
            Error::failed(format!("{PROGRAM} can't be started, and it is what speaks to AWS"))
                .because(cause)
                .hint("install it beside this program: cargo xtask install")
        };
        let mut child = Command::new(&program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(missing)?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(missing(std::io::ErrorKind::BrokenPipe.into()));
        };
        Ok(Self {
            _child: child,
            stdin,
            stdout: BufReader::new(stdout),
        })
    }

    /// The account that AWS takes us for.
    ///
    /// # Errors
    /// No or expired credentials, or AWS can't be reached.
    pub async fn identity(&mut self) -> Result<Identity> {
        match self.ask(&Request::Identity).await? {
            Answer::Identity(identity) => Ok(identity),
            _ => Err(misunderstood()),
        }
    }

    /// A user and a password for this registry.
    ///
    /// # Errors
    /// As [`Aws::identity`].
    pub async fn login(&mut self, registry: &str) -> Result<(String, String)> {
        let registry = registry.to_owned();
        match self.ask(&Request::Login { registry }).await? {
            Answer::Login { user, secret } => Ok((user, secret)),
            _ => Err(misunderstood()),
        }
    }

    /// Makes sure that a repository exists; true if it was created just now.
    ///
    /// # Errors
    /// As [`Aws::identity`], and AWS's refusal.
    pub async fn repository(&mut self, registry: &str, name: &str) -> Result<bool> {
        let (registry, name) = (registry.to_owned(), name.to_owned());
        match self.ask(&Request::Repository { registry, name }).await? {
            Answer::Repository { created } => Ok(created),
            _ => Err(misunderstood()),
        }
    }

    async fn ask(&mut self, request: &Request) -> Result<Answer> {
        let mut line = serde_json::to_vec(request).map_err(|_| misunderstood())?;
        line.push(b'\n');
        let conversation = async {
            self.stdin.write_all(&line).await?;
            self.stdin.flush().await?;
            let mut answer = Vec::new();
            (&mut self.stdout)
                .take(ANSWER_LIMIT)
                .read_until(b'\n', &mut answer)
                .await?;
            Ok::<_, std::io::Error>(answer)
        };
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, conversation)
            .await
            .map_err(|_| {
                Error::unreachable(format!("{PROGRAM} has no answer from AWS within {ANSWER_TIMEOUT:?}"))
                    .hint("aws sts get-caller-identity shows whether AWS is reached")
            })?
            .map_err(|cause| Error::failed(format!("{PROGRAM} broke off")).because(cause))?;
        if answer.is_empty() {
            return Err(Error::failed(format!("{PROGRAM} ended without an answer")));
        }
        // The cause would quote the answer, and a secret may be in it.
        match serde_json::from_slice(&answer).map_err(|_| misunderstood())? {
            Answer::Failure(failure) => Err(failure.into()),
            answer => Ok(answer),
        }
    }
}

fn misunderstood() -> Error {
    Error::failed(format!("{PROGRAM} speaks another language than this program")).hint(hint!(
        "install both from the same release: cargo xtask install; which {}",
        PROGRAM
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Class;

    #[test]
    fn registries_of_amazon_are_known_by_their_hosts() {
        for (host, account, region) in [
            (
                "123456789012.dkr.ecr.eu-west-1.amazonaws.com",
                "123456789012",
                "eu-west-1",
            ),
            (
                "123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn",
                "123456789012",
                "cn-north-1",
            ),
        ] {
            let registry = EcrRegistry::parse(host).unwrap();
            assert_eq!((registry.account.as_str(), registry.region.as_str()), (account, region));
            assert_eq!(registry.host(), host);
        }
        let fips = EcrRegistry::parse("123456789012.dkr.ecr-fips.us-east-1.amazonaws.com").unwrap();
        assert_eq!(fips.region, "us-east-1");
        let new = EcrRegistry::parse("123456789012.dkr-ecr.us-east-1.on.aws").unwrap();
        assert_eq!((new.account, new.region), (fips.account, fips.region));
    }

    #[test]
    fn a_host_that_only_looks_like_amazons_is_none() {
        for host in [
            "123456789012.dkr.ecr.eu-west-1.amazonaws.com.evil.example",
            "12345678901.dkr.ecr.eu-west-1.amazonaws.com",
            "123456789012.dkr.ecr.cn-north-1.amazonaws.com",
            "123456789012.dkr.ecr.eu-west-1.amazonaws.com:443",
            "x.dkr.ecr.eu-west-1.amazonaws.com",
            "localhost:5000",
        ] {
            assert_eq!(EcrRegistry::parse(host), None, "{host}");
        }
    }

    #[test]
    fn the_protocol_is_one_document_a_line() {
        let ask = serde_json::to_string(&Request::Login { registry: "r".into() }).unwrap();
        assert_eq!(ask, r#"{"login":{"registry":"r"}}"#);
        assert_eq!(serde_json::to_string(&Request::Identity).unwrap(), r#""identity""#);
        let answer: Answer =
            serde_json::from_str(r#"{"failure":{"kind":"unreachable","message":"m","hint":null}}"#).unwrap();
        let Answer::Failure(failure) = answer else {
            panic!("no failure")
        };
        assert_eq!(Error::from(failure).class(), Class::Unreachable);
    }
}
