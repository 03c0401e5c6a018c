//! The tests of an image in a run: basic ones before the push, integration tests after it, and what is attached to the image about
//! both.

use dockerutils_core::error::Result;

use super::outcome::StackResult;
use super::run::{LocalImage, StackRun};
use crate::artifacts::repository_root;
use crate::pending_tests;
use crate::suites::{self, SuiteOutcome, SuiteRequest, TestKind};
use crate::tags::StackTarget;
use crate::verdicts::Verdict;

impl StackRun<'_> {
    /// Runs the tests of a kind on what the engine has by the image's name.
    ///
    /// # Errors
    /// Tests that fail, or can't be run.
    pub(super) async fn suite(&self, kind: TestKind, target: &StackTarget, result: &mut StackResult) -> Result<()> {
        let Some(outcome) = self.run_suite(kind, target, result).await? else {
            return Ok(());
        };
        failure(&outcome, result)
    }

    /// The same for an image that the registry has: what comes of it is attached to the image, before a failure is one.
    ///
    /// # Errors
    /// Tests that fail, or can't be run; and those of the registry.
    pub(super) async fn suite_of(
        &self,
        kind: TestKind,
        target: &StackTarget,
        digest: &str,
        made: &LocalImage,
        result: &mut StackResult,
    ) -> Result<()> {
        let Some(outcome) = self.run_suite(kind, target, result).await? else {
            return Ok(());
        };
        self.check_held(target, made).await?;
        self.attach_verdict(&outcome, target, digest).await?;
        failure(&outcome, result)
    }

    /// Runs both kinds on an image that the registry has. Until they have ended well, the next plan has them run again.
    ///
    /// # Errors
    /// As [`suite_of`](Self::suite_of).
    pub(super) async fn all_suites_of(
        &self,
        target: &StackTarget,
        digest: &str,
        made: &LocalImage,
        result: &mut StackResult,
    ) -> Result<()> {
        let key = pending_tests::key(&target.designation.name, &result.planned.input);
        pending_tests::begin(&self.context.env, &key, &result.planned.reference)?;
        for kind in [TestKind::Basic, TestKind::Integration] {
            self.suite_of(kind, target, digest, made, result).await?;
        }
        pending_tests::end(&self.context.env, &key)
    }

    /// Runs both kinds where nothing is written to the registry.
    ///
    /// # Errors
    /// As [`suite`](Self::suite).
    pub(super) async fn suites_here(&self, target: &StackTarget, result: &mut StackResult) -> Result<()> {
        for kind in [TestKind::Basic, TestKind::Integration] {
            self.suite(kind, target, result).await?;
        }
        Ok(())
    }

    /// Attaches to the image of this digest what the tests said that ran before it was pushed.
    ///
    /// # Errors
    /// Those of the registry.
    pub(super) async fn attach_verdicts(&self, target: &StackTarget, digest: &str, result: &StackResult) -> Result<()> {
        for outcome in &result.suites {
            self.attach_verdict(outcome, target, digest).await?;
        }
        Ok(())
    }

    async fn run_suite(
        &self,
        kind: TestKind,
        target: &StackTarget,
        result: &mut StackResult,
    ) -> Result<Option<SuiteOutcome>> {
        let stack = &self.planned.stack;
        let Some(image) = stack.graph.images.get(target.image) else {
            return Ok(None);
        };
        let root = repository_root(&stack.directory);
        let reference = target.designation.to_string();
        let request = SuiteRequest {
            spec: &stack.spec,
            image,
            label: &result.planned.label,
            kind,
            reference: &reference,
            root: &root,
            artifacts: self.artifacts,
            gpu: false,
            limit: suites::LIMIT,
        };
        let outcome = suites::run(self.context, &self.site()?.engine, &request).await?;
        result.suites.push(outcome.clone());
        Ok(Some(outcome))
    }

    async fn attach_verdict(&self, outcome: &SuiteOutcome, target: &StackTarget, digest: &str) -> Result<()> {
        let run = self.planned.stack.ci.as_ref().and_then(|ci| ci.run.as_deref());
        let Some(verdict) = Verdict::of(outcome, run) else {
            return Ok(());
        };
        let place = self.place(target)?;
        let digest = super::run::parsed(digest)?;
        let verdicts = [verdict];
        let attached = crate::verdicts::publish(place.registry, &place.repository, &digest, &verdicts, self.key);
        attached.await.map(drop)
    }
}

/// The error of tests that failed; their log is what to read.
fn failure(outcome: &SuiteOutcome, result: &mut StackResult) -> Result<()> {
    match outcome.error(&result.planned.label, &result.planned.reference) {
        Some(error) => {
            result.log = outcome.log.clone().or(result.log.take());
            Err(error)
        }
        None => Ok(()),
    }
}
