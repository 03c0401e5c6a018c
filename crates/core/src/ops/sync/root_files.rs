//! Files of root in a workspace, as containers leave them: a container gives them to the user again. Whoever may start
//! containers there needs no sudo for that.

use std::sync::Arc;
use std::time::Duration;

use bollard::query_parameters::ListImagesOptionsBuilder;

use crate::agent::CallOptions;
use crate::config::project::Project;
use crate::context::Context;
use crate::docker::connect::dock_engine;
use crate::docker::connect::engine::Engine;
use crate::docker::containers::{LABEL_PROJECT, LABEL_USER, foreground};
use crate::docker::options::run_options::{ClientFacts, RunOptions};
use crate::docks::Dock;
use crate::error::{Error, Result};
use crate::heartbeat::Heartbeat;
use crate::hint;
use crate::ops::publish::prompt;
use crate::output::visible;
use crate::shell;
use crate::sync::session::Report;

/// How long the container may take: it looks at every file.
const LIMIT: Duration = Duration::from_secs(600);
/// So many images are tried: not each has a shell's tools.
const TRIES: usize = 5;
/// Where the workspace is in the container.
const INSIDE: &str = "/workspace";

/// Asks the person at the terminal whether the files are to be given to them, where there are any; does so.
pub async fn offer(context: &Context, project: &Project, dock: &Dock, report: &Report) {
    let printer = &context.printer;
    if report.root_files.is_empty() || !printer.live() || !prompt::can_ask() {
        return;
    }
    let question = format!(
        "Give them to you, by a container on {} that runs chown?",
        visible(&dock.moniker)
    );
    if prompt::agrees(printer, &question).await
        && let Err(error) = give(context, project, dock, report).await
    {
        printer.error(&error);
    }
}

/// Gives the user on the dock what belongs to root in the workspace.
///
/// # Errors
/// An engine that can't be reached, and one that has no image with the tools for it.
pub async fn give(context: &Context, project: &Project, dock: &Dock, report: &Report) -> Result<()> {
    if report.root_files.is_empty() {
        return Ok(());
    }
    let engine = dock_engine::connect(dock, &context.env, &CallOptions::of_terminal()).await?;
    let agent = dock_engine::agent(dock, &context.env)?;
    let _heartbeat = agent.map(|agent| Heartbeat::of(&agent, &context.printer, Arc::default()));
    let options = options(project, report)?;
    let command = command(report.user);
    let mut last = None;
    for image in images(&engine, &project.name()).await?.into_iter().take(TRIES) {
        let words = ["docker", "run"].into_iter().chain(options.iter().map(String::as_str));
        let words = words.chain([image.as_str()]).chain(command.iter().map(String::as_str));
        let line: Vec<_> = words.map(shell::quote).collect();
        context
            .printer
            .note(&format!("{}{}", context.docker_prefix()?, line.join(" ")));
        match tokio::time::timeout(LIMIT, run(context, project, &engine, &options, &image, &command)).await {
            Ok(Ok(status)) if status.is_success() => {
                context.printer.note(&format!(
                    "{} files of {}:{} are yours now",
                    report.root_files.len(),
                    dock.moniker,
                    report.workspace
                ));
                return Ok(());
            }
            Ok(Ok(status)) => last = Some(Error::failed(format!("it ended with code {}", status.code()))),
            Ok(Err(error)) => last = Some(error),
            Err(_) => last = Some(Error::failed(format!("it took more than {} s", LIMIT.as_secs()))),
        }
    }
    let error = Error::failed(format!(
        "no container on dock {:?} could give you root's files: that takes an image there with find and chown",
        dock.moniker
    ))
    .hint(hint!(
        "docker pull busybox, then try again; or: ssh-dock -t {} sudo chown -R --no-dereference --from=root {} {}",
        dock.moniker,
        report.user,
        report.workspace
    ));
    Err(match last {
        Some(cause) => error.because(cause),
        None => error,
    })
}

/// docker run's options.
fn options(project: &Project, report: &Report) -> Result<Vec<String>> {
    if report.workspace.contains([',', '"']) {
        return Err(Error::failed(format!(
            "{} can't be mounted: its name has a comma or a quote",
            report.workspace
        )));
    }
    let fixed = ["--rm", "--network", "none", "--user", "0:0", "--entrypoint", "find"];
    let labels = [
        format!("{LABEL_PROJECT}={}", project.name()),
        format!("{LABEL_USER}={}", project.user()),
    ];
    let mut words: Vec<String> = fixed.iter().map(|word| (*word).to_owned()).collect();
    // Where SELinux labels files, a container would not see those of a home.
    words.extend(["--security-opt".to_owned(), "label=disable".to_owned()]);
    words.extend([
        "--mount".to_owned(),
        format!("type=bind,source={},target={INSIDE}", report.workspace),
    ]);
    words.extend(labels.into_iter().flat_map(|label| ["--label".to_owned(), label]));
    Ok(words)
}

/// What find is told: of links, the link is given, never what it leads to.
fn command(user: u32) -> Vec<String> {
    let user = user.to_string();
    let words = [INSIDE, "-xdev", "-user", "0", "-exec", "chown", "-h", &user, "{}", "+"];
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// The engine's images that have a name: the project's own first, then the smallest.
async fn images(engine: &Engine, project: &str) -> Result<Vec<String>> {
    let asked = engine
        .docker()
        .list_images(Some(ListImagesOptionsBuilder::new().build()));
    let images = asked.await.map_err(|cause| engine.error("its images", cause))?;
    let own = format!("{project}-");
    let mut named: Vec<(bool, i64, String)> = images
        .into_iter()
        .filter_map(|image| {
            let name = image.repo_tags.into_iter().find(|name| !name.contains("<none>"))?;
            Some((!name.starts_with(&own), image.size, name))
        })
        .collect();
    named.sort();
    Ok(named.into_iter().map(|(.., name)| name).collect())
}

async fn run(
    context: &Context,
    project: &Project,
    engine: &Engine,
    options: &[String],
    image: &str,
    command: &[String],
) -> Result<crate::error::ExitStatus> {
    let wrong = |cause: &dyn std::error::Error| Error::failed(format!("the container can't be made: {cause}"));
    let lookup = |name: &str| context.env.get(name).map(str::to_owned);
    let facts = ClientFacts::of(engine, &lookup, project.root());
    let parsed = RunOptions::parse(options).map_err(|cause| wrong(&cause))?;
    let plan = parsed.plan(image, command, &facts).map_err(|cause| wrong(&cause))?;
    foreground::run_unseen(engine, &plan).await
}
