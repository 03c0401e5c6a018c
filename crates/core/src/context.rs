//! What a command runs in: the arguments that all commands share, the environment, the printer, and the engine of the
//! call.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use clap::Args;

use crate::agent::wire::{FailureKind, LinkStatus};
use crate::agent::{Agent, CallOptions};
use crate::docker::connect::dock_engine::{self, ChosenEngine};
use crate::docker::connect::endpoint::{Choice, Endpoint};
use crate::docker::connect::engine::Engine;
use crate::docks::{Docks, Named};
use crate::env::Env;
use crate::error::{Error, Result};
use crate::heartbeat::Heartbeat;
use crate::hint;
use crate::output::Printer;
use crate::patience::{LONGEST, is_worth_a_try};

/// The pause before a dock whose link is down is asked again.
const NEXT_LOOK: Duration = Duration::from_secs(1);

/// Arguments that every command takes.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Global options")]
pub struct GlobalArgs {
    /// Print the result as one JSON document.
    #[arg(long)]
    pub json: bool,
    /// Print what would be done, and stop.
    #[arg(long)]
    pub dry_run: bool,
    /// Print results, warnings and errors only.
    #[arg(short, long, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Say more of what is done.
    #[arg(short, long)]
    pub verbose: bool,
}

/// Arguments of every command that uses an engine.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Global options")]
pub struct EngineArgs {
    /// Use the engine of this dock, or of this machine (`localhost`), for this call.
    #[arg(long, value_name = "DOCK")]
    pub dock: Option<String>,
    /// The arguments of every command.
    #[command(flatten)]
    pub global: GlobalArgs,
}

/// What a command does, boxed: the runtime's own code is compiled once for each result, and not for each of our futures.
type Work<'f, T> = Pin<Box<dyn Future<Output = Result<T>> + 'f>>;

/// What a command runs in.
#[derive(Debug)]
pub struct Context {
    /// The environment, taken at the start.
    pub env: Env,
    pub working_dir: PathBuf,
    /// Prints results, progress and errors.
    pub printer: Printer,
    pub global: GlobalArgs,
    /// The moniker that `--dock` names; `None` for the engine that the environment chooses.
    pub dock: Option<String>,
    chosen: OnceLock<EngineOfCall>,
}

/// The engine that a call is for.
#[derive(Debug)]
struct EngineOfCall {
    engine: ChosenEngine,
    /// Whether the environment alone leads there, too.
    is_default: bool,
}

impl Context {
    /// A context for these arguments; the engine is chosen when it is first asked for.
    pub const fn new(
        env: Env,
        working_dir: PathBuf,
        printer: Printer,
        global: GlobalArgs,
        dock: Option<String>,
    ) -> Self {
        Self {
            env,
            working_dir,
            printer,
            global,
            dock,
            chosen: OnceLock::new(),
        }
    }

    /// The engine that the call is for, as far as it is known without a connection.
    ///
    /// # Errors
    /// No such dock, a DOCKER_HOST or docker context that names no engine.
    pub fn engine_choice(&self) -> Result<&Choice> {
        Ok(&self.engine()?.choice)
    }

    /// The engine that the call is for, and the agent by which it is reached.
    ///
    /// # Errors
    /// As [`Context::engine_choice`].
    pub fn engine(&self) -> Result<&ChosenEngine> {
        Ok(&self.chosen()?.engine)
    }

    fn chosen(&self) -> Result<&EngineOfCall> {
        match self.chosen.get() {
            Some(chosen) => Ok(chosen),
            None => {
                let chosen = self.choose()?;
                Ok(self.chosen.get_or_init(|| chosen))
            }
        }
    }

    fn choose(&self) -> Result<EngineOfCall> {
        let Some(name) = &self.dock else {
            return Ok(EngineOfCall {
                engine: ChosenEngine::of_environment(&self.env)?,
                is_default: true,
            });
        };
        let docks = Docks::read(&self.env)?;
        if let Some(doubt) = docks.doubt(name) {
            self.printer.warning(&doubt);
        }
        let engine = match docks.named(name)? {
            Named::Here => ChosenEngine::here(&self.env)?,
            Named::Dock(dock) => ChosenEngine::of_dock(dock, &self.env)?,
        };
        Ok(EngineOfCall {
            is_default: Endpoint::choose(&self.env).is_ok_and(|default| default == engine.choice),
            engine,
        })
    }

    /// Connects to the engine that the call is for.
    ///
    /// # Errors
    /// As [`Context::engine_choice`], and an engine that does not answer.
    pub async fn connect(&self) -> Result<Engine> {
        let engine = self.engine()?;
        let connect = async || engine.connect(&CallOptions::of_terminal()).await;
        match &engine.agent {
            Some(agent) => self.connect_by(agent, connect).await,
            None => connect().await,
        }
    }

    /// Connects to an engine behind an agent, by `connect`. If the link was up and fell silent, waits for it to come back.
    ///
    /// # Errors
    /// Those of `connect`, and a link that stays silent.
    pub async fn connect_by(&self, agent: &Agent, connect: impl AsyncFn() -> Result<Engine>) -> Result<Engine> {
        // A dock that was not reachable before is not waited for.
        if !agent
            .status(false)
            .await?
            .is_some_and(|status| matches!(status.link, LinkStatus::Up { .. }))
        {
            return connect().await;
        }
        let began = Instant::now();
        let heartbeat = Heartbeat::of(agent, &self.printer, Arc::default());
        loop {
            let before = heartbeat.silences();
            match connect().await {
                Err(error) if is_worth_a_try(&error) && heartbeat.silences() > before => {}
                // Behind a live link it is the engine that hangs: the error says so.
                result => return result,
            }
            let back = async {
                loop {
                    match agent.alive().await? {
                        Ok(()) => return Ok(()),
                        Err(failure) if failure.kind != FailureKind::Unreachable => return Err(failure.into_error()),
                        Err(_) => tokio::time::sleep(NEXT_LOOK).await,
                    }
                }
            };
            match tokio::time::timeout(LONGEST.saturating_sub(began.elapsed()), back).await {
                Ok(back) => back?,
                Err(_) => {
                    let moniker = &agent.dock().moniker;
                    return Err(Error::unreachable(format!(
                        "dock {moniker:?} gave no sign of life for {} s: the link to it is dead",
                        began.elapsed().as_secs()
                    ))
                    .hint(hint!(
                        "run it again when the link is back; ls-dock --check {} says how it is",
                        moniker
                    )));
                }
            }
        }
    }

    /// The variables that lead other programs to the engine of `--dock`; empty without it, and if the environment leads
    /// them there already.
    ///
    /// # Errors
    /// As [`Context::engine_choice`].
    pub fn docker_variables(&self) -> Result<Vec<(&'static str, String)>> {
        if self.dock.is_none() {
            return Ok(Vec::new());
        }
        let chosen = self.chosen()?;
        match chosen.is_default {
            true => Ok(Vec::new()),
            false => dock_engine::variables(&chosen.engine.choice.endpoint),
        }
    }

    /// What stands before a printed docker command: `DOCKER_HOST=... ` where `--dock` chose the engine.
    ///
    /// # Errors
    /// As [`Context::engine_choice`].
    pub fn docker_prefix(&self) -> Result<String> {
        if self.dock.is_none() {
            return Ok(String::new());
        }
        let chosen = self.chosen()?;
        match chosen.is_default {
            true => Ok(String::new()),
            false => dock_engine::prefix(&chosen.engine.choice.endpoint, &self.env),
        }
    }

    /// Runs a future to its end, or until the user interrupts: then it is dropped, and cleans up by being so.
    ///
    /// # Errors
    /// The future's, and [`Error::interrupted`].
    pub fn block_on<T>(&self, future: impl Future<Output = Result<T>>) -> Result<T> {
        self.until_interrupted(Box::pin(future))
    }

    fn until_interrupted<T>(&self, future: Work<'_, T>) -> Result<T> {
        runtime()?.block_on(async {
            // Dropped in here, while its runtime is there.
            let mut future = future;
            let mut terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
                .map_err(|cause| Error::failed("signals can't be handled").because(cause))?;
            tokio::select! {
                result = &mut future => return result,
                _ = tokio::signal::ctrl_c() => {}
                _ = terminated.recv() => {}
            }
            // Before the future is dropped, which may take a while.
            self.printer.screen().close();
            Err(Error::interrupted())
        })
    }

    /// Runs a future that handles signals by itself.
    ///
    /// # Errors
    /// The future's.
    pub fn block_on_uninterrupted<T>(&self, future: impl Future<Output = Result<T>>) -> Result<T> {
        let future: Work<'_, T> = Box::pin(future);
        runtime()?.block_on(future)
    }
}

/// A runtime for one command.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime> {
    // Two threads are enough for both ends of a connection; files are read in the blocking pool.
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|cause| Error::failed("no threads can be started").because(cause))
}
