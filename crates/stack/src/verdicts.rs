//! Verdicts: what tests said of an image. They travel with it, attached to the digest of its manifest as OCI referrers, so
//! that another machine sees them.
//!
//! A verdict names the repository, the digest, the kind of tests, the result and the time, and all that is signed, where
//! there is a key. So a verdict can't be moved to another image, nor a failure be turned into a success. Of each kind the
//! newest counts, by the time that it says itself: an old success that is attached again stays old. What is of a time that is still to
//! come is left out. What a registry keeps back is not seen: see docs/security.md.

pub mod keys;
pub mod statement;

use std::collections::BTreeMap;

use dockerutils_core::error::{Error, Result};
use dockerutils_core::naming::canonical;
use jiff::{SignedDuration, Timestamp};
use registry_client::{Attachment, Digest, Registry, RemoteDescriptor};
use serde::Serialize;

pub use keys::{KEY_VARIABLE, VerdictKey, VerdictPublicKey};
pub use statement::VerdictSubject;

use crate::suites::{SuiteOutcome, SuiteVerdict, TestKind};

/// The type under which verdicts are attached.
pub const ARTIFACT_TYPE: &str = "application/vnd.dockerutils.stack.verdict.v1+json";
/// Annotations of an attached verdict, for people who list what is attached; nothing is decided by them.
const KIND: &str = "io.dockerutils.stack.tests";
const RESULT: &str = "io.dockerutils.stack.result";
const CREATED: &str = "org.opencontainers.image.created";
/// Why a verdict of a time that is still to come does not count.
const TO_COME: &str = "its time is still to come";
/// How far the clocks of two machines may be apart.
const SKEW: SignedDuration = SignedDuration::from_mins(5);

/// What one run of an image's tests said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    pub kind: TestKind,
    pub passed: bool,
    /// How many tests ran; none is no failure.
    pub tests: u64,
    pub failures: u64,
    /// When they ended, as RFC 3339 writes it.
    pub finished: String,
    /// The page of the CI's run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
}

/// What is known about the signature of a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Signature {
    /// It is by the key that was given.
    Verified,
    /// There is one, and no key was given to check it.
    Unchecked,
    /// It is by another key, or wrong.
    Other,
    /// There is none.
    None,
}

/// A verdict that counts: the newest of its kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FoundVerdict {
    #[serde(flatten)]
    pub verdict: Verdict,
    pub signature: Signature,
}

/// What became of verdicts that were to be attached.
#[derive(Debug)]
pub enum Publication {
    /// They are attached.
    Attached(Vec<RemoteDescriptor>),
    /// The registry takes no such documents, whoever gives them: its words.
    NotTaken(Error),
}

/// What a list of referrers says about an image's tests. Nothing of it is checked: it is only good for deciding whether they are
/// run again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SaidOfTests {
    /// Of each kind, whether the newest verdict is that they passed.
    pub passed: BTreeMap<TestKind, bool>,
    /// What is listed, and does not count, and why.
    pub notes: Vec<String>,
}

/// What is known of an image's tests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FoundVerdicts {
    /// The newest of each kind that counts.
    pub newest: Vec<FoundVerdict>,
    /// What was there, and does not count, and why.
    pub notes: Vec<String>,
}

impl Signature {
    /// For people.
    pub const fn says(self) -> &'static str {
        match self {
            Self::Verified => "signed",
            Self::Unchecked => "signed, not checked",
            Self::Other => "signed by another key",
            Self::None => "not signed",
        }
    }
}

impl Verdict {
    /// What a suite that has just ended says; `None` where it says nothing: it could not be run. An image without any tests is good,
    /// and one without integration or workflow tests has nothing said about those; but if there is a folder for integration tests
    /// (`has_folder`), and no test in it, that is said: else they would be looked for again and again.
    pub fn of(outcome: &SuiteOutcome, has_folder: bool, run: Option<&str>) -> Option<Self> {
        let passed = match (outcome.verdict, outcome.kind) {
            (SuiteVerdict::Passed, _) => true,
            (SuiteVerdict::Failed, _) => false,
            (SuiteVerdict::NoTests, TestKind::Basic) => true,
            (SuiteVerdict::NoTests, TestKind::Integration) if has_folder => true,
            (SuiteVerdict::NoTests | SuiteVerdict::NotRun, _) => return None,
        };
        Some(Self {
            kind: outcome.kind,
            passed,
            tests: outcome.tests as u64,
            failures: outcome.failures as u64,
            finished: Self::now(),
            run: run.map(str::to_owned),
        })
    }

    /// Now, as a verdict has it.
    pub fn now() -> String {
        Timestamp::now()
            .round(jiff::Unit::Second)
            .unwrap_or_else(|_| Timestamp::now())
            .to_string()
    }
}

/// Attaches verdicts to the manifest of this digest, one after the other, each signed where there is a key.
///
/// # Errors
/// Those of the registry, and no image of this digest; what was attached before stays. That a registry takes no such documents is
/// none: it is a [`Publication`].
pub async fn publish(
    registry: &Registry,
    repository: &str,
    manifest: &Digest,
    verdicts: &[Verdict],
    key: Option<&VerdictKey>,
) -> Result<Publication> {
    let subject = subject(registry, repository, manifest);
    let mut attached = Vec::new();
    // Side by side they would write the same list of referrers over each other.
    for verdict in verdicts {
        let (media_type, blob) = statement::written(&subject, verdict, key)?;
        let result = if verdict.passed { "passed" } else { "failed" };
        let attachment = Attachment {
            artifact_type: ARTIFACT_TYPE.to_owned(),
            annotations: BTreeMap::from([
                (KIND.to_owned(), verdict.kind.name().to_owned()),
                (RESULT.to_owned(), result.to_owned()),
                (CREATED.to_owned(), verdict.finished.clone()),
            ]),
            media_type: media_type.to_owned(),
            blob: blob.into(),
        };
        match registry.attach(repository, manifest, &attachment).await {
            Ok(listed) => attached.push(listed),
            Err(error) if error.is_not_taken() => return Ok(Publication::NotTaken(error.into())),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Publication::Attached(attached))
}

/// What a list of referrers says about the tests of an image, by its annotations.
pub(crate) fn said(listed: &[RemoteDescriptor], now: Timestamp) -> SaidOfTests {
    let mut left_out = LeftOut::default();
    let mut newest: BTreeMap<TestKind, (Timestamp, bool)> = BTreeMap::new();
    for one in listed
        .iter()
        .filter(|one| one.artifact_type.as_deref() == Some(ARTIFACT_TYPE))
    {
        let of = |name: &str| one.annotations.get(name).map(String::as_str);
        let kind = of(KIND).and_then(|name| TestKind::ALL.into_iter().find(|kind| kind.name() == name));
        let time = of(CREATED).and_then(|text| text.parse::<Timestamp>().ok());
        let (Some(kind), Some(time)) = (kind, time) else {
            continue;
        };
        if is_to_come(time, now) {
            left_out.add(TO_COME.to_owned());
        } else if newest.get(&kind).is_none_or(|(known, _)| *known <= time) {
            newest.insert(kind, (time, of(RESULT) == Some("passed")));
        }
    }
    SaidOfTests {
        passed: newest.into_iter().map(|(kind, (_, passed))| (kind, passed)).collect(),
        notes: left_out.notes(),
    }
}

/// The verdicts about the manifest of this digest. With a key, only those that it signed count.
///
/// # Errors
/// Those of the registry; and more verdicts, or a larger one, than are read: then the newest is not known.
pub async fn find(
    registry: &Registry,
    repository: &str,
    manifest: &Digest,
    key: Option<&VerdictPublicKey>,
) -> Result<FoundVerdicts> {
    let listed = registry.referrers(repository, manifest, Some(ARTIFACT_TYPE)).await;
    find_listed(registry, repository, manifest, &listed.map_err(Error::from)?, key).await
}

/// The same, of a list of what is attached to it.
///
/// # Errors
/// As [`find`].
pub async fn find_listed(
    registry: &Registry,
    repository: &str,
    manifest: &Digest,
    listed: &[RemoteDescriptor],
    key: Option<&VerdictPublicKey>,
) -> Result<FoundVerdicts> {
    let attached = registry.read_attached(repository, manifest, listed, ARTIFACT_TYPE, statement::LARGEST);
    let attached = attached.await.map_err(Error::from)?;
    let subject = subject(registry, repository, manifest);
    let blobs = attached.iter().map(|attached| attached.blob.as_ref());
    Ok(newest(blobs, &subject, key, Timestamp::now()))
}

fn subject(registry: &Registry, repository: &str, manifest: &Digest) -> VerdictSubject {
    let full = canonical(&format!("{}/{repository}", registry.host()));
    VerdictSubject {
        // It ends with a tag that was added.
        repository: full.strip_suffix(":latest").unwrap_or(&full).to_owned(),
        digest: manifest.clone(),
    }
}

/// Whether a time is later than what the clocks of two machines may be apart.
fn is_to_come(time: Timestamp, now: Timestamp) -> bool {
    time.duration_since(now) > SKEW
}

/// Why verdicts do not count, and how many for each reason.
#[derive(Default)]
struct LeftOut(BTreeMap<String, usize>);

impl LeftOut {
    fn add(&mut self, why: String) {
        *self.0.entry(why).or_default() += 1;
    }

    fn notes(self) -> Vec<String> {
        let note = |(why, count): (String, usize)| match count {
            1 => format!("a verdict does not count: {why}"),
            count => format!("{count} verdicts do not count: {why}"),
        };
        self.0.into_iter().map(note).collect()
    }
}

/// Of what is attached to an image, the newest verdicts of each kind that count. Where two are of the same time, the
/// failure does. What is of a time that is still to come does not: it would outlive all that follows. But a failure that the
/// key signed does: nobody else wrote it, and a machine whose clock is wrong must not make a success of it.
pub fn newest<'b>(
    blobs: impl Iterator<Item = &'b [u8]>,
    subject: &VerdictSubject,
    key: Option<&VerdictPublicKey>,
    now: Timestamp,
) -> FoundVerdicts {
    let mut newest: BTreeMap<TestKind, (Timestamp, FoundVerdict)> = BTreeMap::new();
    let mut left_out = LeftOut::default();
    for blob in blobs {
        let (verdict, signature) = match statement::read(blob, subject, key) {
            Ok(read) => read,
            Err(why) => {
                left_out.add(why.to_string());
                continue;
            }
        };
        if key.is_some() && signature != Signature::Verified {
            left_out.add(format!("it is {}", signature.says()));
            continue;
        }
        // It was read before.
        let Ok(time) = verdict.finished.parse::<Timestamp>() else {
            continue;
        };
        if is_to_come(time, now) && (verdict.passed || signature != Signature::Verified) {
            left_out.add(TO_COME.to_owned());
            continue;
        }
        let kind = verdict.kind;
        let found = FoundVerdict { verdict, signature };
        // That there were no tests says nothing against what tests said.
        let is_empty = |found: &FoundVerdict| found.verdict.passed && found.verdict.tests == 0;
        let replaces = newest
            .get(&kind)
            .is_none_or(|(other, before)| match (is_empty(before), is_empty(&found)) {
                (true, false) => true,
                (false, true) => false,
                _ => time > *other || (time == *other && before.verdict.passed && !found.verdict.passed),
            });
        if replaces {
            newest.insert(kind, (time, found));
        }
    }
    FoundVerdicts {
        newest: newest.into_values().map(|(_, found)| found).collect(),
        notes: left_out.notes(),
    }
}

#[cfg(test)]
mod tests;
