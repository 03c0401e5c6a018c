//! The tests of an image in a run: basic ones before the push, integration tests after it, and what is attached to the image about
//! both.

use dockerutils_core::config::stack::repository_root;
use dockerutils_core::error::Result;

use super::outcome::StackResult;
use super::run::{LocalImage, StackRun};
use crate::pending_tests;
use crate::suites::{self, SuiteOutcome, SuiteRequest, TestKind, has_tests};
use crate::tags::StackTarget;
use crate::verdicts::{self, Publication, Verdict};

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
        for kind in TestKind::OF_BUILDS {
            self.suite_of(kind, target, digest, made, result).await?;
        }
        pending_tests::end(&self.context.env, &key)
    }

    /// Runs both kinds where nothing is written to the registry.
    ///
    /// # Errors
    /// As [`suite`](Self::suite).
    pub(super) async fn suites_here(&self, target: &StackTarget, result: &mut StackResult) -> Result<()> {
        for kind in TestKind::OF_BUILDS {
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

    /// Attaches what a suite said. A registry that takes no such documents makes no failure of tests that passed: the next plan has
    /// them run again.
    async fn attach_verdict(&self, outcome: &SuiteOutcome, target: &StackTarget, digest: &str) -> Result<()> {
        let stack = &self.planned.stack;
        let run = stack.ci.as_ref().and_then(|ci| ci.run.as_deref());
        let image = stack.graph.images.get(target.image);
        let has_folder = image.is_some_and(|image| has_tests(&stack.spec, &image.name, &image.directory, outcome.kind));
        let Some(verdict) = Verdict::of(outcome, has_folder, run) else {
            return Ok(());
        };
        let said = [verdict];
        let place = self.place(target)?;
        let digest = super::run::parsed(digest)?;
        let published = verdicts::publish(place.registry, &place.repository, &digest, &said, self.key);
        if let Publication::NotTaken(why) = published.await? {
            self.context.printer.warning(&format!(
                "the registry takes no verdict of {}: its {} tests run again with the next build-stack, and tag-stack needs --force: {}",
                target.label(&stack.spec),
                outcome.kind,
                why.with_causes()
            ));
        }
        Ok(())
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
