//! The order of a plan's images, and building independent ones side by side.

use std::io::IsTerminal as _;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{RwLock, mpsc};

use super::display::{Display, DisplayEvent};
use super::environment::BuildEnvironment;
use super::{
    BuildPlan, BuildStatus, ImageFailure, ImagePlan, ImageReport, PlanStep, Reports, script_failure, seconds_since,
};
use crate::docker::build::build;
use crate::docker::build::events::BuildOutcome;
use crate::docker::build::request::BuildRequest;
use crate::docker::connect::dock_engine::{self, ENGINE_VARIABLES};
use crate::docker::connect::locality::Locality;
use crate::error::{Error, ExitStatus, Result};
use crate::heartbeat::Heartbeat;
use crate::patience::patiently;

/// Events that wait to be shown, of all builds.
pub(super) const QUEUE: usize = 256;

/// An order in which each comes after what it needs, ties by position; or a circle, its first member again at its end.
pub(super) fn order(needs: &[Vec<usize>]) -> std::result::Result<Vec<usize>, Vec<usize>> {
    let mut order = Vec::with_capacity(needs.len());
    let mut path = Vec::new();
    for index in 0..needs.len() {
        visit(index, needs, &mut order, &mut path)?;
    }
    Ok(order)
}

fn visit(
    index: usize,
    needs: &[Vec<usize>],
    order: &mut Vec<usize>,
    path: &mut Vec<usize>,
) -> std::result::Result<(), Vec<usize>> {
    if order.contains(&index) {
        return Ok(());
    }
    if let Some(at) = path.iter().position(|seen| *seen == index) {
        return Err(path.iter().skip(at).copied().chain([index]).collect());
    }
    path.push(index);
    for need in needs.get(index).into_iter().flatten() {
        visit(*need, needs, order, path)?;
    }
    path.pop();
    order.push(index);
    Ok(())
}

/// Builds the images of a plan, at most `jobs` at once, each after what it needs.
pub(super) async fn run(site: &BuildEnvironment, plan: &BuildPlan) -> Result<Reports> {
    let (events, mut heard) = mpsc::channel::<DisplayEvent>(QUEUE);
    let mut display = Display::new(site, plan);
    let agent = dock_engine::agent_of(site.engine.choice(), &site.env)?;
    let hush = Arc::<AtomicBool>::default();
    let _heartbeat = agent.map(|agent| Heartbeat::of(&agent, &site.printer, Arc::clone(&hush)));
    // A script may change the tree that another build is reading.
    let tree = RwLock::new(());
    let mut reports: Vec<Option<ImageReport>> = vec![None; plan.images.len()];
    let mut status = ExitStatus::SUCCESS;
    let mut running = FuturesUnordered::new();
    let mut waiting: Vec<usize> = (0..plan.images.len()).collect();
    loop {
        let mut blocked = Vec::new();
        for index in std::mem::take(&mut waiting) {
            let Some(image) = plan.images.get(index) else { continue };
            let needed = |ok: fn(&ImageReport) -> bool| {
                image
                    .needs
                    .iter()
                    .filter_map(|need| reports.get(*need)?.as_ref())
                    .filter(|report| ok(report))
                    .count()
            };
            let failed = needed(|report| matches!(report.status, BuildStatus::Failed | BuildStatus::Skipped));
            let finished = needed(|_| true);
            if failed > 0 {
                display.skipped(image);
                let mut done = report(image, BuildStatus::Skipped);
                let failed = image.needs.iter().filter_map(|need| reports.get(*need)?.as_ref());
                let failed =
                    failed.filter(|report| matches!(report.status, BuildStatus::Failed | BuildStatus::Skipped));
                let names: Vec<&str> = failed.map(|report| report.image.as_str()).collect();
                done.failure = Some(ImageFailure {
                    error: Error::failed(format!("it needs {}, which could not be built", names.join(", "))).document(),
                    excerpts: Vec::new(),
                });
                set(&mut reports, index, done);
            } else if finished == image.needs.len() && running.len() < plan.jobs {
                running.push(one(site, index, image, &tree, &hush, events.clone()));
            } else {
                blocked.push(index);
            }
        }
        waiting = blocked;
        if running.is_empty() {
            if waiting.is_empty() {
                break;
            }
            // Something was skipped just now, and what waits for it is looked at again.
            continue;
        }
        tokio::select! {
            biased;
            Some(event) = heard.recv() => display.show(event),
            Some((index, result)) = running.next() => {
                // What was heard before the end is shown before it.
                while let Ok(event) = heard.try_recv() {
                    display.show(event);
                }
                let Some(image) = plan.images.get(index) else { continue };
                match result {
                    Ok(done) => set(&mut reports, index, done),
                    Err((error, mut done)) => {
                        status = status.max(error.class().status());
                        done.status = BuildStatus::Failed;
                        done.failure = Some(display.failed(image, &error, &site.root));
                        set(&mut reports, index, done);
                    }
                }
            }
        }
    }
    display.finish();
    Ok(Reports {
        images: reports.into_iter().flatten().collect(),
        status,
    })
}

fn set(reports: &mut [Option<ImageReport>], index: usize, report: ImageReport) {
    if let Some(slot) = reports.get_mut(index) {
        *slot = Some(report);
    }
}

fn report(image: &ImagePlan, status: BuildStatus) -> ImageReport {
    ImageReport {
        image: image.designation.to_string(),
        status,
        ..ImageReport::default()
    }
}

pub(super) type ImageOutcome = (usize, std::result::Result<ImageReport, (Error, ImageReport)>);

/// Scripts and builds of one image.
pub(super) async fn one(
    site: &BuildEnvironment,
    index: usize,
    image: &ImagePlan,
    tree: &RwLock<()>,
    hush: &AtomicBool,
    events: mpsc::Sender<DisplayEvent>,
) -> ImageOutcome {
    let began = Instant::now();
    let mut done = report(image, BuildStatus::Cached);
    let mut size = None;
    for step in &image.steps {
        let _ = events.send(DisplayEvent::Line(index, step.clone())).await;
        let result = match step {
            PlanStep::Script { kind, words } => {
                let _alone = tree.write().await;
                let _hushed = Hushed::of(hush, std::io::stderr().is_terminal());
                run_script(site, kind, words).await
            }
            PlanStep::Build { request, .. } => {
                let _shared = tree.read().await;
                match build_patiently(site, index, request, &events).await {
                    Ok(outcome) => {
                        account(&mut done, &outcome);
                        size = outcome.size;
                        let _ = events.send(DisplayEvent::Built(outcome)).await;
                        Ok(())
                    }
                    Err(error) => Err(error),
                }
            }
        };
        if let Err(error) = result {
            done.numbers.seconds = seconds_since(began);
            return (index, Err((error, done)));
        }
    }
    done.numbers.seconds = seconds_since(began);
    done.numbers.size = size;
    (index, Ok(done))
}

/// The last build of an image is the image; its builder stage only adds to what was sent.
fn account(done: &mut ImageReport, outcome: &BuildOutcome) {
    done.numbers.id = Some(outcome.id.clone());
    done.numbers.steps = outcome.steps;
    done.numbers.cached_steps = outcome.cached_steps;
    done.context_bytes += outcome.context_bytes;
    if outcome.cached_steps < outcome.steps {
        done.status = BuildStatus::Built;
    }
}

/// Builds, and goes on where the link to a far engine was cut in the middle. One on this machine has no link.
async fn build_patiently(
    site: &BuildEnvironment,
    index: usize,
    request: &BuildRequest,
    events: &mpsc::Sender<DisplayEvent>,
) -> Result<BuildOutcome> {
    if site.locality == Locality::Local {
        return run_build(site, index, request, events).await;
    }
    patiently(
        async || run_build(site, index, request, events).await,
        async || site.engine.answers(&site.env).await,
        |news| {
            // A display that is behind misses a line.
            let _ = events.try_send(DisplayEvent::Cut(index, news.to_string()));
        },
    )
    .await
}

async fn run_build(
    site: &BuildEnvironment,
    index: usize,
    request: &BuildRequest,
    events: &mpsc::Sender<DisplayEvent>,
) -> Result<BuildOutcome> {
    let (sender, mut receiver) = mpsc::channel(QUEUE);
    let building = build(&site.engine, site.locality, site.builder, request, &site.config, sender);
    let forwarding = async {
        while let Some(event) = receiver.recv().await {
            if events.send(DisplayEvent::Event(index, event)).await.is_err() {
                return;
            }
        }
    };
    let (built, ()) = tokio::join!(building, forwarding);
    built
}

/// Whose terminal it is while a script of the user runs: the script's, which may ask something there.
struct Hushed<'a>(&'a AtomicBool);

impl<'a> Hushed<'a> {
    /// Until it is dropped, where scripts have a terminal at all. They run alone, so nobody else sets `hush`.
    fn of(hush: &'a AtomicBool, has_terminal: bool) -> Self {
        hush.store(has_terminal, Ordering::Release);
        Self(hush)
    }
}

impl Drop for Hushed<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

async fn run_script(site: &BuildEnvironment, kind: &str, words: &[String]) -> Result<()> {
    let Some((program, arguments)) = words.split_first() else {
        return Ok(());
    };
    // A relative path is meant from the root; without a slash it is looked for on PATH.
    let program = if program.contains('/') {
        site.root.join(program).into_os_string()
    } else {
        program.into()
    };
    let mut command = tokio::process::Command::new(&program);
    command
        .args(arguments)
        .current_dir(&site.root)
        .env("PWD", &site.root)
        .stdin(Stdio::inherit())
        .kill_on_drop(true);
    if !site.docker_variables.is_empty() {
        ENGINE_VARIABLES.iter().for_each(|name| {
            command.env_remove(name);
        });
        command.envs(site.docker_variables.iter().map(|(name, value)| (name, value)));
    }
    // Our stdout is for the result.
    if let Ok(stderr) = rustix::io::fcntl_dupfd_cloexec(std::io::stderr(), 3) {
        command.stdout(Stdio::from(stderr));
    }
    let status = command.status().await.map_err(|cause| {
        Error::failed(format!("{kind} can't be started: {}", crate::shell::join(words)))
            .because(cause)
            .hint("it runs without a shell, in the project's root; is the file there, and executable (chmod +x)?")
    })?;
    if status.success() {
        Ok(())
    } else {
        Err(script_failure(kind, words, status))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_said_of_the_dock_while_a_script_has_the_terminal() {
        for has_terminal in [true, false] {
            let hush = AtomicBool::default();
            {
                let _hushed = Hushed::of(&hush, has_terminal);
                assert_eq!(hush.load(Ordering::Acquire), has_terminal);
            }
            assert!(!hush.load(Ordering::Acquire));
        }
    }

    #[test]
    fn each_comes_after_what_it_needs() {
        assert_eq!(order(&[vec![2], vec![], vec![1]]), Ok(vec![1, 2, 0]));
        assert_eq!(order(&[vec![], vec![], vec![]]), Ok(vec![0, 1, 2]));
    }

    #[test]
    fn a_circle_is_named_from_its_first_member_to_it_again() {
        assert_eq!(order(&[vec![1], vec![2], vec![1]]), Err(vec![1, 2, 1]));
    }
}
