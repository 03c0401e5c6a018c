//! Builds that another use case begins one by one, in an order of its own, and that are shown as build-image shows several.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use dock_client::mutex::lock;
use tokio::sync::{RwLock, mpsc};

use super::display::{Display, DisplayEvent};
use super::environment::BuildEnvironment;
use super::schedule::{self, QUEUE};
use super::{BuildPlan, BuildStatus, ImagePlan, ImageReport};
use crate::context::Context;
use crate::docker::build::builder::builder_of;
use crate::docker::connect::client_config::ClientConfig;
use crate::docker::connect::dock_engine;
use crate::docker::connect::engine::Engine;
use crate::docker::connect::locality::Locality;
use crate::error::{Error, Result};
use crate::heartbeat::Heartbeat;

/// A build that failed: why, and what came of it until then. It has been shown.
#[derive(Debug)]
pub struct FailedBuild {
    pub error: Error,
    pub report: Box<ImageReport>,
}

/// Builds on one engine, side by side as their caller begins them.
pub struct Builds {
    site: BuildEnvironment,
    plan: BuildPlan,
    display: Mutex<Display>,
    _heartbeat: Option<Heartbeat>,
}

impl Builds {
    /// Builds of these images, none of them begun. Paths in messages are seen from `root`.
    ///
    /// # Errors
    /// docker's configuration can't be read; the engine's dock is not known.
    pub fn new(
        context: &Context,
        engine: &Engine,
        locality: Locality,
        root: &Path,
        images: Vec<ImagePlan>,
    ) -> Result<Self> {
        let plan = BuildPlan {
            jobs: images.len(),
            images,
            notes: Vec::new(),
            docker_prefix: context.docker_prefix()?,
            way_to_root: String::new(),
            templates: Vec::new(),
        };
        let site = BuildEnvironment {
            engine: engine.clone(),
            locality,
            builder: builder_of(engine, context.env.get("DOCKER_BUILDKIT")),
            config: Arc::new(ClientConfig::of(&context.env)?),
            root: root.to_owned(),
            env: context.env.clone(),
            printer: context.printer.clone(),
            progress: context.env.non_empty("BUILDKIT_PROGRESS").map(str::to_owned),
            docker_variables: context.docker_variables()?,
        };
        let agent = dock_engine::agent_of(engine.choice(), &context.env)?;
        Ok(Self {
            display: Mutex::new(Display::new(&site, &plan)),
            _heartbeat: agent.map(|agent| Heartbeat::of(&agent, &site.printer, Arc::default())),
            site,
            plan,
        })
    }

    /// Builds the image at this position. Dropping the future cancels the build on the engine, too.
    ///
    /// # Errors
    /// The build failed; that has been shown.
    pub async fn run(&self, position: usize) -> Result<ImageReport, FailedBuild> {
        let Some(image) = self.plan.images.get(position) else {
            let error = Error::failed(format!("there is no build {position}"));
            return Err(FailedBuild {
                error,
                report: Box::default(),
            });
        };
        let (events, mut heard) = mpsc::channel(QUEUE);
        let (tree, hush) = (RwLock::new(()), AtomicBool::default());
        let building = schedule::one(&self.site, position, image, &tree, &hush, events);
        let showing = async {
            while let Some(event) = heard.recv().await {
                self.show(event);
            }
        };
        let ((_, built), ()) = tokio::join!(building, showing);
        built.map_err(|(error, mut report)| {
            report.status = BuildStatus::Failed;
            report.failure = Some(lock(&self.display).failed(image, &error, &self.site.root));
            FailedBuild {
                error,
                report: Box::new(report),
            }
        })
    }

    fn show(&self, event: DisplayEvent) {
        lock(&self.display).show(event);
    }

    /// Removes what moves on the terminal; the lines of what ended stay.
    pub fn finish(&self) {
        lock(&self.display).finish();
    }
}
