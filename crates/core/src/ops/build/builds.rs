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
use crate::docker::build::events::{BuildEvent, StepState};
use crate::docker::connect::client_config::ClientConfig;
use crate::docker::connect::dock_engine;
use crate::docker::connect::engine::Engine;
use crate::docker::connect::locality::Locality;
use crate::error::{Error, Result};
use crate::heartbeat::Heartbeat;

/// The most bytes of a log that are kept.
const LONGEST_LOG: usize = 8 * 1024 * 1024;

/// A build that failed: why, and what came of it until then. It has been shown.
#[derive(Debug)]
pub struct FailedBuild {
    pub error: Error,
    pub report: Box<ImageReport>,
}

/// What the steps of a build said: the last megabytes of it.
#[derive(Debug, Default)]
pub struct BuildLog {
    bytes: Vec<u8>,
    /// The beginning was dropped.
    is_cut: bool,
}

impl BuildLog {
    /// As text, with marks in place of what is not UTF-8.
    pub fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.bytes);
        match self.is_cut {
            true => format!("(the beginning is cut)\n{text}"),
            false => text.into_owned(),
        }
    }

    fn note(&mut self, event: &DisplayEvent) {
        match event {
            DisplayEvent::Event(_, BuildEvent::Output { text, .. }) => self.add(text),
            DisplayEvent::Event(_, BuildEvent::Step(step)) => {
                let what = match &step.state {
                    StepState::Waiting | StepState::Seen => return,
                    StepState::Running => String::new(),
                    StepState::Cached => ": cached".to_owned(),
                    StepState::Done(seconds) => format!(": done after {seconds:.1} s"),
                    StepState::Failed(message) => format!(": failed: {message}"),
                };
                self.add(format!("{}{what}\n", step.name).as_bytes());
            }
            DisplayEvent::Event(_, BuildEvent::Warning(text) | BuildEvent::Notice(text)) => {
                self.add(format!("warning: {text}\n").as_bytes());
            }
            _ => {}
        }
    }

    fn add(&mut self, text: &[u8]) {
        self.bytes.extend_from_slice(text);
        if self.bytes.len() > LONGEST_LOG {
            self.is_cut = true;
            self.bytes.drain(..self.bytes.len() - LONGEST_LOG / 2);
        }
    }
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

    /// Builds the image at this position; `log` takes what its steps say, for a file. Dropping the future cancels the build on the
    /// engine, too.
    ///
    /// # Errors
    /// The build failed; that has been shown.
    pub async fn run(&self, position: usize, log: &mut BuildLog) -> Result<ImageReport, FailedBuild> {
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
                log.note(&event);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::docker::build::events::Step;

    #[test]
    fn a_log_has_the_steps_with_what_they_said_and_is_bounded() {
        let mut log = BuildLog::default();
        let step = |state| {
            let (id, name) = ("1".to_owned(), "[1/2] RUN make".to_owned());
            DisplayEvent::Event(0, BuildEvent::Step(Step { id, name, state }))
        };
        let output = |text: &[u8]| {
            let (step, text) = ("1".to_owned(), text.to_owned());
            DisplayEvent::Event(0, BuildEvent::Output { step, text })
        };
        for event in [
            step(StepState::Waiting),
            step(StepState::Running),
            output(b"made\n"),
            step(StepState::Failed("exit code: 1".to_owned())),
        ] {
            log.note(&event);
        }
        let expected = "[1/2] RUN make\nmade\n[1/2] RUN make: failed: exit code: 1\n";
        assert_eq!(log.text(), expected);
        for _ in 0..20 {
            log.note(&output(&[b'x'; 1024 * 1024]));
        }
        assert!(log.text().len() <= LONGEST_LOG + 100 && log.text().starts_with("(the beginning is cut)\nx"));
    }
}
