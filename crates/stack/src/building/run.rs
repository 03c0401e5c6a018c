//! Carrying out what is to be done with the images of a stack: each after what it starts from, side by side where they are independent.
//! An image that fails stops those that start from it, and no others.

use std::time::Instant;

use dockerutils_core::cli::Context;
use dockerutils_core::docker::connect::client_config::ClientConfig;
use dockerutils_core::docker::images::image;
use dockerutils_core::docker::images::push;
use dockerutils_core::error::{Error, Result};
use dockerutils_core::naming::{Designation, registry, split_reference};
use dockerutils_core::ops::build::BuildLog;
use dockerutils_core::ops::publish;
use registry_client::Digest;
use tokio::sync::{Semaphore, watch};

use super::outcome::{StackResult, StackStatus};
use super::site::BuildSite;
use super::work::{ImageWork, StackWork, WorkKind};
use crate::artifacts::{self, Artifacts, LogKind};
use crate::manifests::{self, KeptImage};
use crate::pending_tests;
use crate::planning::PlannedStack;
use crate::registry_state::RemotePlace;
use crate::suites::TestKind;
use crate::tags::StackTarget;
use crate::verdicts::VerdictKey;

/// A run: all that its steps need.
pub struct StackRun<'r> {
    pub context: &'r Context,
    pub planned: &'r PlannedStack,
    pub work: &'r StackWork,
    pub logins: &'r ClientConfig,
    /// `None` where no image needs the engine.
    pub site: Option<&'r BuildSite>,
    /// Where logs, results and pages go.
    pub artifacts: &'r Artifacts,
    /// Signs the verdicts of tests; `None` where they are not signed.
    pub key: Option<&'r VerdictKey>,
}

/// How far an image is; told to those that start from it, and to the one that it starts from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum ImageStage {
    /// Waiting, or being worked on.
    #[default]
    Open,
    /// Done, and those that start from it may begin.
    Good,
    /// It failed, or was skipped.
    Bad,
    /// Nothing needs what it starts from any more.
    Closed,
}

/// An image that failed.
struct ImageFault {
    error: Error,
    /// The user has been told.
    is_told: bool,
}

impl From<Error> for ImageFault {
    fn from(error: Error) -> Self {
        Self { error, is_told: false }
    }
}

/// An image on the engine.
#[derive(Debug, Default)]
pub(super) struct LocalImage {
    /// The ID of what is tested and pushed.
    id: Option<String>,
    /// This run has made or pulled it, and the registry has the same.
    is_ours: bool,
}

impl StackRun<'_> {
    /// Does all, `jobs` images at a time; the results are in the order of the work.
    pub async fn all(&self, jobs: usize) -> Vec<StackResult> {
        let permits = Semaphore::new(jobs);
        let stages: Vec<watch::Sender<ImageStage>> =
            self.work.images.iter().map(|_| watch::Sender::default()).collect();
        let images = self.work.images.iter().enumerate().map(|(position, image)| {
            let (permits, stages) = (&permits, &stages);
            async move { self.image(position, image, permits, stages).await }
        });
        let results = futures_util::future::join_all(images).await;
        results.into_iter().flatten().collect()
    }

    /// One image, from waiting for its parent until nothing needs it any more.
    async fn image(
        &self,
        position: usize,
        image: &ImageWork,
        permits: &Semaphore,
        stages: &[watch::Sender<ImageStage>],
    ) -> Option<StackResult> {
        let set = |stage| stages.get(position).map(|own| own.send_replace(stage));
        let planned = self.planned.plan.images.get(image.target)?.clone();
        let target = self.planned.stack.targets.get(image.target)?;
        let mut result = StackResult::of(planned);
        if let Some(parent) = image.needs
            && reached(stages.get(parent)?, |stage| stage != ImageStage::Open).await == ImageStage::Bad
        {
            result.status = StackStatus::Skipped;
            let parent = self.work.images.get(parent)?.target;
            let parent = self.planned.plan.images.get(parent)?;
            result.why = Some(Error::failed(format!("it starts from {}, which failed", parent.label)).document());
            self.context
                .printer
                .note(&format!("{} is skipped: {} failed", result.planned.label, parent.label));
            set(ImageStage::Bad);
            return Some(result);
        }
        let mut made = LocalImage::default();
        let began;
        let worked = {
            // It is never closed.
            let _permit = permits.acquire().await.ok();
            began = Instant::now();
            self.work_on(position, image, target, &mut result, &mut made).await
        };
        result.seconds = (began.elapsed().as_secs_f64() * 1000.0).round() / 1000.0;
        let stage = match worked {
            Ok(()) => ImageStage::Good,
            Err(fault) => {
                let error = explained(fault.error);
                if !fault.is_told {
                    self.context.printer.error(&error);
                }
                let told = result.why.take();
                result.failed(&error);
                result.why = told.or(result.why.take());
                ImageStage::Bad
            }
        };
        set(stage);
        if let (true, Some(id)) = (image.prunes && made.is_ours, made.id) {
            for child in self.work.children(position) {
                if let Some(child) = stages.get(child) {
                    reached(child, |stage| matches!(stage, ImageStage::Closed | ImageStage::Bad)).await;
                }
            }
            result.pruned = self.prune(target, &id).await;
        }
        if stage == ImageStage::Good {
            set(ImageStage::Closed);
        }
        Some(result)
    }

    async fn work_on(
        &self,
        position: usize,
        image: &ImageWork,
        target: &StackTarget,
        result: &mut StackResult,
        made: &mut LocalImage,
    ) -> Result<(), ImageFault> {
        let pushes = self.work.options.pushes;
        match &image.kind {
            WorkKind::Nothing { manifest } => {
                result.digest = Some(manifest.clone());
                self.tag(target, manifest, &image.further_tags, result).await?;
            }
            WorkKind::Copy {
                from,
                manifest,
                is_pulled,
            } => {
                if *is_pulled {
                    self.fetch(from, manifest, &target.designation, made).await?;
                }
                if pushes {
                    let place = self.place(target)?;
                    place.tag(&parsed(manifest)?, &target.designation.tag).await?;
                    result.tags.push(target.designation.to_string());
                    result.status = StackStatus::Copied;
                    self.tag(target, manifest, &image.further_tags, result).await?;
                    if image.prints_tags {
                        self.describe(image, target, Some(manifest), result).await?;
                    }
                }
                result.digest = Some(manifest.clone());
                match (image.tests, pushes) {
                    (true, true) => self.all_suites_of(target, manifest, made, result).await?,
                    (true, false) => self.suites_here(target, result).await?,
                    (false, _) => {}
                }
            }
            WorkKind::Test { manifest } => {
                let reference = target.designation.to_string();
                self.fetch(&reference, manifest, &target.designation, made).await?;
                result.digest = Some(manifest.clone());
                result.status = StackStatus::Tested;
                self.tag(target, manifest, &image.further_tags, result).await?;
                match pushes {
                    true => self.all_suites_of(target, manifest, made, result).await?,
                    false => self.suites_here(target, result).await?,
                }
            }
            WorkKind::Build { bases, .. } => {
                for (reference, digest) in bases {
                    self.freshen(reference, digest).await?;
                }
                self.build(position, result).await?;
                let reference = target.designation.to_string();
                made.id = Some(image::find_made(&self.site()?.engine, &reference).await?.id);
                result.status = StackStatus::Built;
                if image.tests {
                    self.suite(TestKind::Basic, target, result).await?;
                }
                if pushes {
                    let key = pending_tests::key(&target.designation.name, &result.planned.input);
                    if image.tests {
                        pending_tests::begin(&self.context.env, &key, &result.planned.reference)?;
                    }
                    self.check_held(target, made).await?;
                    let digest = self.push(image, target, made, result).await?;
                    made.is_ours = true;
                    self.attach_verdicts(target, &digest, result).await?;
                    self.tag(target, &digest, &image.further_tags, result).await?;
                    self.describe(image, target, Some(&digest), result).await?;
                    if image.tests {
                        self.suite_of(TestKind::Integration, target, &digest, made, result)
                            .await?;
                        pending_tests::end(&self.context.env, &key)?;
                    }
                } else if image.tests {
                    self.suite(TestKind::Integration, target, result).await?;
                }
            }
        }
        Ok(())
    }

    pub(super) fn site(&self) -> Result<&BuildSite> {
        self.site
            .ok_or_else(|| Error::failed("no engine was chosen, and one is needed"))
    }

    pub(super) fn place(&self, target: &StackTarget) -> Result<RemotePlace<'_>> {
        self.planned.registries.place(&target.designation.to_string())
    }

    /// Checks that what was tested, pushed or described is still the image that was built or pulled. Else an image would be said to
    /// have passed tests that ran on another.
    pub(super) async fn check_held(&self, target: &StackTarget, made: &LocalImage) -> Result<()> {
        match &made.id {
            Some(id) => image::check_same(&self.site()?.engine, &target.designation.to_string(), id).await,
            None => Ok(()),
        }
    }

    /// Builds an image.
    async fn build(&self, position: usize, result: &mut StackResult) -> Result<(), ImageFault> {
        let before = self.work.images.iter().take(position);
        let number = before
            .filter(|image| matches!(image.kind, WorkKind::Build { .. }))
            .count();
        let builds = self.site()?.builds.as_ref();
        let builds = builds.ok_or_else(|| Error::failed("the builds were not prepared"))?;
        let mut log = BuildLog::default();
        let built = builds.run(number, &mut log).await;
        let file = self.artifacts.log(&result.planned.reference, LogKind::Build);
        artifacts::write(&file, log.text())?;
        result.log = Some(file);
        match built {
            Ok(report) => {
                result.build = Some(report.numbers);
                Ok(())
            }
            Err(failed) => {
                result.build = Some(failed.report.numbers);
                if let Some(failure) = failed.report.failure {
                    result.excerpts = failure.excerpts;
                    result.why = Some(failure.error);
                }
                Err(ImageFault {
                    error: failed.error,
                    is_told: true,
                })
            }
        }
    }

    /// Pushes an image, and sees to it that the registry knows what it was made from; the digest of its manifest.
    async fn push(
        &self,
        image: &ImageWork,
        target: &StackTarget,
        made: &LocalImage,
        result: &mut StackResult,
    ) -> Result<String> {
        let site = self.site()?;
        let auth = site.auths.get(&registry(&target.designation.name));
        let auth = auth.ok_or_else(|| Error::failed(format!("no login for {} was looked for", target.designation)))?;
        result.pushed = Some(false);
        let pushed = publish::push_one(
            self.context,
            &site.engine,
            &target.designation,
            &target.designation,
            auth,
        )
        .await?;
        let Some(digest) = pushed.digest else {
            return Err(Error::failed(format!(
                "the engine does not say the digest of {}, which it pushed",
                target.designation
            )));
        };
        result.pushed = Some(true);
        result.digest = Some(digest.clone());
        result.tags.push(target.designation.to_string());
        self.check_held(target, made).await?;
        let by_digest = format!("{}@{digest}", target.designation.name);
        let there = self.planned.registries.image(&by_digest).await?;
        let inputs = self.planned.inputs.get(image.target);
        if let Some(inputs) = inputs.filter(|inputs| !there.is_some_and(|there| there.is_of(&inputs.digest()))) {
            self.place(target)?.attach_inputs(&parsed(&digest)?, inputs).await?;
        }
        Ok(digest)
    }

    /// Describes an image that the engine has: its page, its packages, and the tags that commands in it print.
    async fn describe(
        &self,
        image: &ImageWork,
        target: &StackTarget,
        digest: Option<&str>,
        result: &mut StackResult,
    ) -> Result<()> {
        let reference = target.designation.to_string();
        let before = self.planned.state.get(&target.designation).and_then(Option::as_ref);
        let kept = KeptImage {
            spec: &self.planned.stack.spec,
            target,
            parent: target.parent.and_then(|parent| self.planned.stack.targets.get(parent)),
            reference: &reference,
            digest,
            before: before.map(|before| before.manifest.as_str()),
            registries: self.work.options.pushes.then_some(&self.planned.registries),
            artifacts: self.artifacts,
        };
        let described = manifests::keep(self.context, &self.site()?.engine, &kept).await?;
        result.page = Some(self.artifacts.page(&reference));
        if let (true, Some(digest)) = (image.prints_tags, digest) {
            self.tag(target, digest, &described.tags, result).await?;
        }
        Ok(())
    }

    /// Gives an image in the registry further tags.
    async fn tag(&self, target: &StackTarget, manifest: &str, tags: &[String], result: &mut StackResult) -> Result<()> {
        if !self.work.options.pushes || tags.is_empty() {
            return Ok(());
        }
        let (place, digest) = (self.place(target)?, parsed(manifest)?);
        for tag in tags {
            place.tag(&digest, tag).await?;
            result.tags.push(format!("{}:{tag}", target.designation.name));
        }
        Ok(())
    }

    /// Has an image on the engine as the registry has it, and gives it a name there.
    async fn fetch(&self, from: &str, manifest: &str, name: &Designation, made: &mut LocalImage) -> Result<()> {
        let engine = &self.site()?.engine;
        made.is_ours = image::bring(engine, self.logins, from, manifest, &self.context.printer).await?;
        let (repository, tag, _) = split_reference(from);
        let source = Designation {
            name: repository.to_owned(),
            tag: tag.unwrap_or("latest").to_owned(),
        };
        if source != *name {
            push::tag(engine, &source, name).await?;
        }
        let held = image::find_made(engine, &name.to_string()).await?;
        if !held.is_of(manifest) {
            return Err(
                Error::failed(format!("{name} is another image now on {}", engine.choice().engine()))
                    .hint("somebody gave it the name meanwhile: call it again"),
            );
        }
        made.id = Some(held.id);
        Ok(())
    }

    /// Pulls what a build starts from where the engine has another image by that name: a build prefers what the engine has.
    async fn freshen(&self, reference: &str, digest: &str) -> Result<()> {
        let engine = &self.site()?.engine;
        if image::is_other(engine, reference, digest).await? {
            image::pull(engine, self.logins, reference, None, &self.context.printer).await?;
        }
        Ok(())
    }

    /// Removes what this run has made, if nothing else is it; true if it is gone. A refusal is no failure of the image.
    async fn prune(&self, target: &StackTarget, id: &str) -> bool {
        let reference = target.designation.to_string();
        let removed = match self.site() {
            Ok(site) => image::remove_unused(&site.engine, &reference, id).await,
            Err(error) => Err(error),
        };
        let printer = &self.context.printer;
        match removed {
            Ok(None) => return true,
            Ok(Some(why)) => printer.note(&format!("{reference} stays on the engine: {why}")),
            Err(error) => printer.warning(&format!("{reference} stays on the engine: {}", error.with_causes())),
        }
        false
    }
}

/// Waits until an image is so far.
async fn reached(stage: &watch::Sender<ImageStage>, is_so_far: impl Fn(ImageStage) -> bool) -> ImageStage {
    let mut watched = stage.subscribe();
    match watched.wait_for(|stage| is_so_far(*stage)).await {
        Ok(stage) => *stage,
        // Its sender lives as long as the run.
        Err(_) => ImageStage::Bad,
    }
}

/// A digest out of a plan or of an engine.
pub(super) fn parsed(digest: &str) -> Result<Digest> {
    Digest::parse(digest).map_err(|cause| Error::failed(format!("{digest:?} is no digest")).because(cause))
}

/// The error with a hint, where the disk is full.
fn explained(error: Error) -> Error {
    let is_full = error.with_causes().to_lowercase().contains("no space left on device");
    match is_full && error.hint_text().is_none() {
        true => error
            .hint("docker system df shows what takes the space on the engine; docker builder prune frees its cache"),
        false => error,
    }
}
