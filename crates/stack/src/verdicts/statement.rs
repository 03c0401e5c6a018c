//! How a verdict is written: a statement of in-toto about the image, in an envelope where it is signed.
//!
//! Formats: in-toto's Statement v1 with its predicate "Test Result" v0.1 (github.com/in-toto/attestation); the signed
//! envelope is DSSE v1 (github.com/secure-systems-lab/dsse). What the predicate has no field for is in one extension
//! field, [`EXTENSION`]. Fields that are not known are ignored.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use dockerutils_core::error::{Error, Result};
use registry_client::Digest;
use serde::{Deserialize, Serialize};

use super::keys::{VerdictKey, VerdictPublicKey};
use super::{Signature, Verdict};
use crate::suites::TestKind;

/// The media type of a statement that is not signed, and the type of what an envelope has in it.
pub(super) const STATEMENT: &str = "application/vnd.in-toto+json";
/// The media type of an envelope.
pub(super) const ENVELOPE: &str = "application/vnd.dsse.envelope.v1+json";
/// The most bytes of a statement or an envelope.
pub(super) const LARGEST: usize = 64 * 1024;
/// The most signatures of an envelope that are looked at.
const SIGNATURES: usize = 16;
/// The most characters of an address.
const URL: usize = 2000;
const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
const PREDICATE_TYPE: &str = "https://in-toto.io/attestation/test-result/v0.1";
const SHA256: &str = "sha256";

/// Which image a statement is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerdictSubject {
    /// The repository with its registry: `ghcr.io/team/base`.
    pub repository: String,
    /// The digest of its manifest.
    pub digest: Digest,
}

/// Why bytes are no verdict about an image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoVerdict {
    /// It can't be read.
    #[error("it can't be read: {0}")]
    Unreadable(String),
    /// It is a statement of another kind.
    #[error("it is no result of tests")]
    Other,
    /// It is about another image, or the same under another name.
    #[error("it is about another image")]
    Elsewhere,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Statement {
    #[serde(rename = "_type")]
    kind: String,
    subject: Vec<StatementSubject>,
    predicate_type: String,
    predicate: TestResult,
}

#[derive(Serialize, Deserialize)]
struct StatementSubject {
    #[serde(default)]
    name: String,
    #[serde(default)]
    digest: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
struct TestResult {
    result: ResultWord,
    /// What was run.
    #[serde(default)]
    configuration: Vec<TestConfiguration>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    #[serde(rename = "io.dockerutils.stack")]
    ours: Extension,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum ResultWord {
    Passed,
    /// Passed, with warnings.
    Warned,
    Failed,
}

#[derive(Serialize, Deserialize)]
struct TestConfiguration {
    #[serde(default)]
    name: String,
    #[serde(default)]
    uri: String,
}

/// The predicate's extension field `io.dockerutils.stack`.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Extension {
    kind: TestKind,
    #[serde(default)]
    tests: u64,
    #[serde(default)]
    failures: u64,
    /// RFC 3339.
    finished_on: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    payload: String,
    payload_type: String,
    #[serde(default)]
    signatures: Vec<EnvelopeSignature>,
}

#[derive(Serialize, Deserialize)]
struct EnvelopeSignature {
    /// Whose signature it says it is; that decides nothing.
    #[serde(default)]
    keyid: String,
    sig: String,
}

/// A verdict about an image, as it is attached: the media type, and the bytes.
///
/// # Errors
/// The system gives no random numbers to sign with.
pub(super) fn written(
    subject: &VerdictSubject,
    verdict: &Verdict,
    key: Option<&VerdictKey>,
) -> Result<(&'static str, Vec<u8>)> {
    let statement = Statement {
        kind: STATEMENT_TYPE.to_owned(),
        subject: vec![StatementSubject {
            name: subject.repository.clone(),
            digest: BTreeMap::from([(SHA256.to_owned(), subject.digest.hex().to_owned())]),
        }],
        predicate_type: PREDICATE_TYPE.to_owned(),
        predicate: TestResult {
            result: match verdict.passed {
                true => ResultWord::Passed,
                false => ResultWord::Failed,
            },
            configuration: vec![TestConfiguration {
                name: verdict.kind.name().to_owned(),
                uri: format!("urn:io.dockerutils:tests:{}", verdict.kind.name()),
            }],
            url: verdict.run.clone(),
            ours: Extension {
                kind: verdict.kind,
                tests: verdict.tests,
                failures: verdict.failures,
                finished_on: verdict.finished.clone(),
            },
        },
    };
    let no_json = |cause| Error::failed("the verdict has no JSON form").because(cause);
    let payload = serde_json::to_vec(&statement).map_err(no_json)?;
    let Some(key) = key else {
        return Ok((STATEMENT, payload));
    };
    let envelope = Envelope {
        signatures: vec![EnvelopeSignature {
            keyid: key.public().id().to_string(),
            sig: STANDARD.encode(key.sign(&authenticated(STATEMENT, &payload))?),
        }],
        payload: STANDARD.encode(payload),
        payload_type: STATEMENT.to_owned(),
    };
    Ok((ENVELOPE, serde_json::to_vec(&envelope).map_err(no_json)?))
}

/// What is attached to an image as a verdict, and whether it is signed. Whatever a registry gives is read or refused.
///
/// # Errors
/// Why it is no verdict about this image.
pub fn read(
    bytes: &[u8],
    subject: &VerdictSubject,
    key: Option<&VerdictPublicKey>,
) -> Result<(Verdict, Signature), NoVerdict> {
    if bytes.len() > LARGEST {
        return Err(NoVerdict::Unreadable(format!("it has more than {LARGEST} bytes")));
    }
    let unreadable = |error: serde_json::Error| NoVerdict::Unreadable(error.to_string());
    // Which of the two it is, is said by the bytes: a media type is not signed.
    let Ok(envelope) = serde_json::from_slice::<Envelope>(bytes) else {
        let statement: Statement = serde_json::from_slice(bytes).map_err(unreadable)?;
        return Ok((judged(statement, subject)?, Signature::None));
    };
    if envelope.payload_type != STATEMENT {
        return Err(NoVerdict::Other);
    }
    let payload =
        decoded(&envelope.payload).ok_or_else(|| NoVerdict::Unreadable("its payload is no base64".to_owned()))?;
    let message = authenticated(&envelope.payload_type, &payload);
    let by_key = |key: &VerdictPublicKey| {
        let mut signatures = envelope.signatures.iter().take(SIGNATURES);
        signatures.any(|signature| decoded(&signature.sig).is_some_and(|bytes| key.verifies(&message, &bytes)))
    };
    let signature = match key {
        _ if envelope.signatures.is_empty() => Signature::None,
        Some(key) if by_key(key) => Signature::Verified,
        Some(_) => Signature::Other,
        None => Signature::Unchecked,
    };
    let statement = serde_json::from_slice(&payload).map_err(unreadable)?;
    Ok((judged(statement, subject)?, signature))
}

/// What a statement says about this image.
fn judged(statement: Statement, subject: &VerdictSubject) -> Result<Verdict, NoVerdict> {
    if statement.kind != STATEMENT_TYPE || statement.predicate_type != PREDICATE_TYPE {
        return Err(NoVerdict::Other);
    }
    let is_about = |about: &StatementSubject| {
        about.name == subject.repository && about.digest.get(SHA256).is_some_and(|hex| hex == subject.digest.hex())
    };
    if !statement.subject.iter().any(is_about) {
        return Err(NoVerdict::Elsewhere);
    }
    let Extension {
        kind,
        tests,
        failures,
        finished_on,
    } = statement.predicate.ours;
    let finished: jiff::Timestamp = finished_on
        .parse()
        .map_err(|error: jiff::Error| NoVerdict::Unreadable(format!("its time can't be read: {error}")))?;
    let is_address = |url: &String| url.len() <= URL && (url.starts_with("https://") || url.starts_with("http://"));
    Ok(Verdict {
        kind,
        passed: !matches!(statement.predicate.result, ResultWord::Failed) && failures == 0,
        tests,
        failures,
        finished: finished.to_string(),
        run: statement.predicate.url.filter(is_address),
    })
}

/// What is signed of an envelope: DSSE's "Pre-Authentication Encoding".
fn authenticated(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len());
    [head.as_bytes(), payload].concat()
}

/// Base64 in either alphabet, as DSSE allows.
fn decoded(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).or_else(|_| URL_SAFE.decode(text)).ok()
}
