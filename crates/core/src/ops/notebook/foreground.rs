//! A notebook in the foreground: its log, a link that is cut and comes back, and its proper end.

use std::time::Duration;

use super::idle;
use super::start::Running;
use super::stop::{self, Stopped};
use crate::context::Context;
use crate::docker::connect::engine::Engine;
use crate::docker::containers::foreground;
use crate::docker::containers::log::ContainerLog;
use crate::docker::containers::terminal::Signals;
use crate::error::{Class, Error, ExitStatus, Result};
use crate::hint;
use crate::jupyter::client::ServerClient;
use crate::output::visible;

/// The pauses between looks for a link that was cut: they grow from the first to the last.
const PAUSES: [Duration; 4] = [
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
];
/// How long a server may take to say which kernels work.
const QUESTION: Duration = Duration::from_secs(5);
/// How long the end of a container that was stopped may take to show.
const END: Duration = Duration::from_secs(2);

/// What is needed to stay with a server.
pub(super) struct Foreground<'a> {
    pub context: &'a Context,
    /// Its client; `None` if it is no Jupyter server.
    pub client: Option<ServerClient>,
    /// How long it may be idle.
    pub idle: Option<Duration>,
}

/// Why the log is not followed any more.
enum Pause {
    /// The container has ended.
    Ended(ExitStatus),
    /// It is to end.
    Wanted,
    /// The connection was lost.
    Lost(Error),
}

/// Follows the log until the container ends, or is to end: by a signal, or because it was idle for long. A link that is cut is
/// waited for.
///
/// # Errors
/// A signal while the link is cut: the container goes on, and the error says how it is stopped.
pub(super) async fn follow(foreground: &Foreground<'_>, running: Running, signals: &mut Signals) -> Result<ExitStatus> {
    let printer = &foreground.context.printer;
    let mut running = running;
    let idling = async {
        match (&foreground.client, foreground.idle) {
            (Some(client), Some(limit)) => idle::idle_for(client, limit).await,
            _ => std::future::pending().await,
        }
    };
    tokio::pin!(idling);
    loop {
        let mut is_open = true;
        let pause = loop {
            tokio::select! {
                status = &mut running.end => break match status {
                    Ok(status) => Pause::Ended(status),
                    Err(error) if error.class() == Class::Unreachable => Pause::Lost(error),
                    Err(error) => return Err(error),
                },
                line = running.log.next(), if is_open => match line {
                    Some(Ok(line)) => printer.note(&line),
                    // What that means is told by the container's end.
                    Some(Err(_)) | None => is_open = false,
                },
                () = signals.ending() => break Pause::Wanted,
                () = &mut idling => {
                    printer.note("no kernel has worked, and nobody was connected, for as long as --idle says");
                    break Pause::Wanted;
                }
            }
        };
        match pause {
            Pause::Ended(status) => {
                // What it said last.
                while let Ok(Some(Ok(line))) = tokio::time::timeout(QUESTION, running.log.next()).await {
                    printer.note(&line);
                }
                printer.note(&format!(
                    "container {} has ended, with code {}",
                    running.name,
                    status.code()
                ));
                return Ok(status);
            }
            Pause::Wanted => return end(foreground, running, signals).await,
            Pause::Lost(error) => {
                printer.warning(&format!(
                    "{}: container {} goes on there; waiting for the link, Ctrl-C ends only this command",
                    error.with_causes(),
                    running.name
                ));
                match back(foreground.context, running, signals).await? {
                    Some(again) => running = again,
                    None => return Ok(ExitStatus::SUCCESS),
                }
            }
        }
    }
}

/// Waits until the link is back; `None` if the container has ended meanwhile.
async fn back(context: &Context, lost: Running, signals: &mut Signals) -> Result<Option<Running>> {
    let printer = &context.printer;
    let Running {
        id,
        name,
        heard,
        tty,
        is_removed,
        ..
    } = lost;
    let find = async || -> Result<Option<(Engine, bool)>> {
        let engine = context.connect().await?;
        let found = foreground::find(&engine, &id).await?;
        Ok(found.map(|found| (engine, found.ended.is_none())))
    };
    let looking = async {
        let mut pauses = PAUSES.into_iter();
        let mut pause = Duration::ZERO;
        loop {
            pause = pauses.next().unwrap_or(pause);
            tokio::time::sleep(pause).await;
            match find().await {
                Err(error) if error.class() == Class::Unreachable => printer.detail(&error.with_causes()),
                found => return found,
            }
        }
    };
    let found = tokio::select! {
        found = looking => found?,
        () = signals.ending() => {
            let error = Error::new(
                Class::Code(ExitStatus::LINK_LOST.code()),
                format!("the link is away, and container {} goes on there", visible(&name)),
            );
            return Err(error.hint(hint!("when it is back: run-notebook shows it again, run-notebook --stop {} ends it", name)));
        }
    };
    let Some((engine, true)) = found else {
        printer.warning(&format!("container {name} has ended meanwhile"));
        return Ok(None);
    };
    let condition = if is_removed { "removed" } else { "not-running" };
    let end = foreground::wait(&engine, &id, condition).await?;
    // Only what follows what was shown.
    let heard = std::sync::Arc::new(crate::docker::containers::heard::OutputCounter::from(heard.positions()));
    let log = match ContainerLog::of_running(&engine, &id, tty, &heard).await? {
        Some(log) => log,
        None => {
            printer.warning("the engine keeps no output of this container: only what it prints from now on is shown");
            heard.is_caught_up();
            ContainerLog::of_new(&engine, &id, tty, &heard).await?
        }
    };
    printer.note(&format!("the link is back, and so is container {name}"));
    Ok(Some(Running {
        engine,
        id,
        name,
        log,
        heard,
        tty,
        is_removed,
        end: Box::pin(end),
    }))
}

/// Ends a server properly; a second signal kills it.
async fn end(foreground: &Foreground<'_>, running: Running, signals: &mut Signals) -> Result<ExitStatus> {
    let printer = &foreground.context.printer;
    let Running {
        engine, id, name, end, ..
    } = running;
    if let Some(client) = &foreground.client {
        warn_of_work(foreground.context, client).await;
    }
    printer.note(&format!("stopping {name}; Ctrl-C once more kills it"));
    let stopped = stop::stop(
        &engine,
        &id,
        &name,
        foreground.client.as_ref(),
        signals.ending(),
        printer,
    )
    .await?;
    match (stopped, tokio::time::timeout(END, end).await) {
        (Stopped::Killed, _) => Ok(ExitStatus::INTERRUPTED),
        (_, Ok(Ok(status))) => {
            printer.note(&format!("container {name} has ended, with code {}", status.code()));
            Ok(status)
        }
        _ => Ok(ExitStatus::SUCCESS),
    }
}

/// Names the kernels that work.
pub(super) async fn warn_of_work(context: &Context, client: &ServerClient) {
    let asked = tokio::time::timeout(QUESTION, stop::busy_kernels(client)).await;
    for kernel in asked.into_iter().flatten().flatten() {
        context.printer.warning(&format!("{kernel}: what it does is lost"));
    }
}
