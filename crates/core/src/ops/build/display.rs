//! What the user sees of builds: their steps while they run, the failed step with its Dockerfile line after it.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use super::environment::BuildEnvironment;
use super::{BuildPlan, ImageFailure, ImagePlan, PlanStep, failure_of};
use crate::docker::build::dockerfile::Dockerfile;
use crate::docker::build::events::{BuildEvent, BuildOutcome, StepState};
use crate::docker::images::verdict::RegistryVerdict;
use crate::error::Error;
use crate::hint;
use crate::ops::check::HEAVY_CONTEXT;
use crate::output::progress::steps::{Ended, Steps};
use crate::output::{Printer, Style, size, step_excerpt, visible};
use crate::project_file;
use build_context::weight::Heavy;

/// An entry below this part of the context is not worth a line: a hundredth.
const WORTH_NAMING: u64 = 100;
/// Lines of the Dockerfile shown before and after the one that failed.
const AROUND: usize = 2;
/// The line above a printed command; the original drew it.
const RULE: usize = 76;

/// What the display hears of the build of an image, by its position in the plan.
pub(super) enum DisplayEvent {
    /// Something is begun.
    Line(usize, PlanStep),
    /// The link was cut, and is waited for.
    Cut(usize, String),
    /// The builder says something.
    Event(usize, BuildEvent),
    /// A build is over.
    Built(BuildOutcome),
}

/// An error as it is shown.
enum Explained<'e> {
    /// The build's own failure, in one sentence.
    Build(Error),
    /// Any other.
    Other(&'e Error),
}

impl Explained<'_> {
    const fn get(&self) -> &Error {
        match self {
            Self::Build(own) => own,
            Self::Other(error) => error,
        }
    }
}

/// Shows one plan.
pub(super) struct Display {
    printer: Printer,
    steps: Steps,
    names: Vec<String>,
    way_to_root: String,
    docker_prefix: String,
    plain: bool,
    failed_steps: HashMap<usize, (String, String)>,
    /// What was said once, and is true of all builds.
    said: HashSet<String>,
    /// What helps where a registry refuses an image: a login could not be had.
    logins: HashMap<usize, String>,
    // Steps of an earlier build of the same image have the same digests.
    builds: HashMap<usize, usize>,
    /// The dock that it is built on, and whether the call names it.
    dock: Option<(String, bool)>,
}

impl Display {
    pub(super) fn new(site: &BuildEnvironment, plan: &BuildPlan) -> Self {
        let requests = plan
            .images
            .iter()
            .flat_map(|image| &image.steps)
            .filter_map(|step| match step {
                PlanStep::Build { request, .. } => Some(request),
                PlanStep::Script { .. } => None,
            });
        let (mut plain, mut quiet) = (false, true);
        for request in requests {
            let progress = request.options.progress.as_deref().or(site.progress.as_deref());
            plain |= matches!(progress, Some("plain" | "rawjson"));
            quiet &= request.options.quiet || progress == Some("quiet");
        }
        let printer = if quiet {
            site.printer.quieted()
        } else {
            site.printer.clone()
        };
        Self {
            steps: Steps::new(&printer, plain),
            printer,
            names: plan.images.iter().map(|image| image.image.clone()).collect(),
            way_to_root: plan.way_to_root.clone(),
            docker_prefix: plan.docker_prefix.clone(),
            plain,
            failed_steps: HashMap::new(),
            said: HashSet::new(),
            logins: HashMap::new(),
            builds: HashMap::new(),
            dock: site
                .engine
                .choice()
                .dock()
                .map(|dock| (dock.to_owned(), !plan.docker_prefix.is_empty())),
        }
    }

    pub(super) fn show(&mut self, heard: DisplayEvent) {
        match heard {
            DisplayEvent::Line(index, step) => {
                *self.builds.entry(index).or_default() += 1;
                let what = match &step {
                    PlanStep::Script { kind, .. } => format!("{kind}: {}", step.line("")),
                    PlanStep::Build { .. } => format!("{}{}", self.way_to_root, step.line(&self.docker_prefix)),
                };
                self.steps.line(&"=".repeat(RULE));
                self.steps.line(&what);
                if matches!(step, PlanStep::Script { .. }) {
                    // A script writes to the terminal itself.
                    self.steps.finish();
                } else if !self.steps.is_live() {
                    self.steps = Steps::new(&self.printer, self.plain);
                }
            }
            DisplayEvent::Cut(index, text) => {
                // The steps come once more, and those of the attempt that was lost are no more.
                let build = self.builds.entry(index).or_default();
                self.steps.lost(&format!("{index}/{build}/"));
                *build += 1;
                self.failed_steps.remove(&index);
                self.steps.line(&text);
            }
            DisplayEvent::Event(index, event) => self.event(index, event),
            DisplayEvent::Built(outcome) => self.weigh(&outcome),
        }
    }

    fn event(&mut self, index: usize, event: BuildEvent) {
        let build = self.builds.get(&index).copied().unwrap_or_default();
        let key = |step: &str| format!("{index}/{build}/{step}");
        match event {
            BuildEvent::Step(step) => {
                let name = match self.names.get(index) {
                    Some(image) if self.names.len() > 1 => format!("{image} {}", step.name),
                    _ => step.name.clone(),
                };
                let id = key(&step.id);
                match step.state {
                    StepState::Waiting => {}
                    StepState::Seen => self.steps.running(&id, &name),
                    StepState::Running => self.steps.runs(&id, &name),
                    StepState::Cached => self.steps.ended(&id, &name, Ended::Cached),
                    StepState::Done(seconds) => self.steps.ended(&id, &name, Ended::Done(seconds)),
                    StepState::Failed(_) => {
                        self.steps.ended(&id, &name, Ended::Failed);
                        self.failed_steps.entry(index).or_insert((id, step.name));
                    }
                }
            }
            BuildEvent::Output { step, text } => self.steps.output(&key(&step), &text),
            BuildEvent::Transfer {
                step,
                name,
                current,
                total,
                done,
            } => self.steps.transfer(&key(&step), &name, current, total, done),
            BuildEvent::Warning(text) => {
                let text = format!("{} {}", self.printer.styled(Style::Yellow, "warning:"), visible(&text));
                self.steps.line(&text);
            }
            BuildEvent::Notice(text) => self.warn(text),
            BuildEvent::NoLogin { warning, hint } => {
                self.logins.insert(index, hint);
                self.warn(warning);
            }
        }
    }

    /// Says once what is no output of a builder, whatever the verbosity.
    fn warn(&mut self, text: String) {
        if !self.said.contains(&text) {
            self.printer.warning(&visible(&text));
            self.said.insert(text);
        }
    }

    fn weigh(&mut self, outcome: &BuildOutcome) {
        if outcome.context_size <= HEAVY_CONTEXT || outcome.heaviest.is_empty() {
            return;
        }
        let mut lines = vec![format!(
            "the build context is {}; its largest entries, each with the line of .dockerignore that leaves it out:",
            size(outcome.context_size)
        )];
        let counts = |heavy: &&Heavy| heavy.size >= outcome.context_size / WORTH_NAMING;
        lines.extend(outcome.heaviest.iter().filter(counts).map(|heavy| {
            let path = visible(&String::from_utf8_lossy(&heavy.path));
            format!("  {:>8}  {path:<32}  {}", size(heavy.size), heavy.ignore_line)
        }));
        for line in lines {
            self.steps.line(&line);
        }
    }

    pub(super) fn skipped(&mut self, image: &ImagePlan) {
        self.steps.line(&format!(
            "{} is skipped: an image that it needs failed",
            image.designation
        ));
    }

    /// Shows a failure: the step's last lines, the Dockerfile around its line, the message. Gives the same for a document.
    pub(super) fn failed(&mut self, image: &ImagePlan, error: &Error, root: &Path) -> ImageFailure {
        let (excerpts, error) = self.explain(image, error, root);
        excerpts.iter().for_each(|text| self.printer.excerpt(text));
        self.printer.error(error.get());
        ImageFailure {
            error: error.get().document(),
            excerpts,
        }
    }

    fn explain<'e>(&self, image: &ImagePlan, error: &'e Error, root: &Path) -> (Vec<String>, Explained<'e>) {
        let Some(failure) = failure_of(error) else {
            return (Vec::new(), Explained::Other(error));
        };
        let mut excerpts = Vec::new();
        let index = self.names.iter().position(|name| *name == image.image);
        let step = index.and_then(|index| self.failed_steps.get(&index));
        if let Some((id, name)) = step {
            let lines = self.steps.last_lines(id);
            if !lines.is_empty() {
                excerpts.push(step_excerpt(name, &lines));
            }
        }
        let request = image.steps.iter().rev().find_map(|step| match step {
            PlanStep::Build { request, .. } => Some(request),
            PlanStep::Script { .. } => None,
        });
        if let Some(request) = request {
            let text = project_file::read(&request.dockerfile).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            let line = failure.line.or_else(|| {
                let (_, instruction) = step?.1.split_once("] ")?;
                // What the builder of 20.10 says of an image that it can't have.
                match instruction.strip_prefix("load metadata for ") {
                    Some(image) => Dockerfile::parse(&text, &request.options).line_from(image),
                    None => Dockerfile::line_of(&text, instruction),
                }
            });
            let dockerfile = Dockerfile::parse(&text, &request.options);
            let other = image.others.iter().find(|(_, name)| {
                dockerfile.line_from(name) == line && line.is_some() || names_image(&failure.message, name)
            });
            if let Some((other, name)) = other {
                // The registry that was asked for it in vain is no matter.
                return (Vec::new(), Explained::Build(self.not_there(image, other, name)));
            }
            if let Some(line) = line {
                let file = request.dockerfile.strip_prefix(root).unwrap_or(&request.dockerfile);
                excerpts.push(excerpt(&file.display().to_string(), &text, line));
            }
        }
        let own = Error::failed(format!(
            "{} can't be built: {}",
            image.designation,
            visible(&failure.message)
        ));
        let no_login = index.and_then(|index| self.logins.get(&index));
        let own = match no_login.filter(|_| RegistryVerdict::of(&failure.message, "") == RegistryVerdict::Denied) {
            Some(hint) => own.hint(visible(hint)),
            None => own,
        };
        (excerpts, Explained::Build(own))
    }

    /// An image of the project that another is made of is not on this engine.
    fn not_there(&self, image: &ImagePlan, other: &str, name: &str) -> Error {
        let (place, hint) = match &self.dock {
            Some((dock, is_named)) => {
                let option = if *is_named {
                    hint!(" --dock {}", dock)
                } else {
                    String::new()
                };
                let hint =
                    hint!("build-image {}{option}, or transfer-image {} {}", other, other, dock; option = option);
                (format!("dock {dock:?}"), hint)
            }
            None => ("this engine".to_owned(), hint!("build-image {}", other)),
        };
        Error::failed(format!(
            "{} can't be built: it is made of {}, the image type {other:?} of this project, which is not on {place}",
            image.designation,
            visible(name)
        ))
        .hint(hint)
    }

    pub(super) fn finish(&mut self) {
        self.steps.finish();
    }
}

/// Whether a message of a builder is about an image that it looked for in vain.
fn names_image(message: &str, name: &str) -> bool {
    let words = [
        "failed to resolve",
        "pull access denied",
        "not found",
        "does not exist",
        "failed to do request",
    ];
    message.contains(name) && words.iter().any(|part| message.contains(part))
}

/// The lines of a file around one of them, which is marked.
fn excerpt(file: &str, text: &str, line: usize) -> String {
    let mut shown = format!("{file}:{line}");
    let first = line.saturating_sub(AROUND);
    for (number, content) in (1..).zip(text.lines()) {
        if number >= first && number <= line + AROUND {
            let mark = if number == line { '>' } else { ' ' };
            shown.push_str(&format!("\n{mark} {number:>3} | {}", visible(content)));
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_shown_between_its_neighbours() {
        assert_eq!(
            excerpt("Dockerfile", "FROM a\nRUN b\nRUN c\nRUN d\n", 2),
            "Dockerfile:2\n    1 | FROM a\n>   2 | RUN b\n    3 | RUN c\n    4 | RUN d"
        );
    }
}
