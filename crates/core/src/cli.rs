//! The main function of every command: arguments, runtime, interruption, and the one place where an error becomes
//! text and an exit code.

mod completion;
mod examples;
mod sync;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser};

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::agent::wire::{FailureKind, LinkStatus};
use crate::agent::{Agent, CallOptions};
use crate::docker::connect::dock_engine;
use crate::docker::connect::endpoint::{Choice, Endpoint};
use crate::docker::connect::engine::Engine;
use crate::docks::{Docks, Named};
use crate::env::Env;
use crate::error::{Class, Error, ExitStatus, Result};
use crate::heartbeat::Heartbeat;
use crate::hint;
use crate::output::{Printer, Verbosity};
use crate::patience::{LONGEST, is_worth_a_try};
pub use sync::SyncOptions;

/// Hidden option by which `cargo xtask` asks a command for its completions, man page and reference.
const DESCRIBE: &str = "--dockerutils-describe";

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

/// Arguments that every command takes which uses an engine.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Global options")]
pub struct EngineArgs {
    /// Use the engine of this dock, or of this machine (`localhost`), for this call.
    #[arg(long, value_name = "DOCK")]
    pub dock: Option<String>,
    /// What every command takes.
    #[command(flatten)]
    pub global: GlobalArgs,
}

/// What [`main`] takes from the arguments that commands share.
pub trait SharedArgs {
    /// Those of every command.
    fn global(&self) -> &GlobalArgs;

    /// The dock that the call is for.
    fn dock(&self) -> Option<&str> {
        None
    }
}

impl SharedArgs for GlobalArgs {
    fn global(&self) -> &GlobalArgs {
        self
    }
}

impl SharedArgs for EngineArgs {
    fn global(&self) -> &GlobalArgs {
        &self.global
    }

    fn dock(&self) -> Option<&str> {
        self.dock.as_deref()
    }
}

/// A command: what [`main`] needs to know of it.
pub struct Command<A> {
    /// Its name on PATH.
    pub name: &'static str,
    /// What it does.
    pub run: fn(A, &Context) -> Result<ExitStatus>,
    /// Its shared arguments: a [`GlobalArgs`] or an [`EngineArgs`].
    pub global: fn(&A) -> &dyn SharedArgs,
    /// The code of all its own failures, where it passes a container's code through.
    pub own_failure: Option<ExitStatus>,
}

/// What a command runs in: the environment, the working directory, the printer.
#[derive(Debug)]
pub struct Context {
    /// The environment, taken at the start.
    pub env: Env,
    /// The working directory.
    pub working_dir: PathBuf,
    /// Where output goes.
    pub printer: Printer,
    /// The global arguments.
    pub global: GlobalArgs,
    /// The dock that the call is for, by its moniker; none for the engine that the environment chooses.
    pub dock: Option<String>,
}

/// How soon a dock to which no link can be made is asked again.
const NEXT_LOOK: Duration = Duration::from_secs(1);

/// Makes the `main` function of a command crate whose library has `pub const COMMAND`.
#[macro_export]
macro_rules! main {
    ($library:ident) => {
        fn main() -> std::process::ExitCode {
            $crate::cli::main(&$library::COMMAND)
        }
    };
}

/// Runs a command with this process's arguments.
pub fn main<A: Parser>(command: &Command<A>) -> ExitCode {
    let env = Env::from_process();
    let arguments: Vec<_> = std::env::args_os().collect();
    if let [_, flag, kind] = arguments.as_slice()
        && flag == DESCRIBE
    {
        return describe(&mut A::command(), command.name, &kind.to_string_lossy());
    }
    if let [_, flag, words @ ..] = arguments.as_slice()
        && flag == completion::COMPLETE
    {
        let words: Vec<String> = words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
        completion::answer(command.name, &words, &env);
        return ExitCode::SUCCESS;
    }
    // What is behind `--` or a dock's name may be a word of another command; then it is no usage error of ours.
    let json = arguments
        .iter()
        .take_while(|word| *word != "--")
        .any(|word| word == "--json");
    let usage_status = command.own_failure.unwrap_or(ExitStatus::USAGE);
    // argparse, which the original used, takes the beginning of a long option for the whole.
    let args = match A::command()
        .infer_long_args(true)
        .name(command.name)
        .version(env!("CARGO_PKG_VERSION"))
        .try_get_matches_from(arguments)
        .and_then(|matches| A::from_arg_matches(&matches))
    {
        Ok(args) => args,
        Err(error) => {
            if !error.use_stderr() {
                // Help and version, to stdout; a reader that has gone misses nothing.
                return match error.print() {
                    Err(cause) if cause.kind() != std::io::ErrorKind::BrokenPipe => ExitCode::FAILURE,
                    _ => ExitCode::SUCCESS,
                };
            }
            Printer::new(command.name, Verbosity::Normal, json, &env).usage(&error.render().to_string());
            return ExitCode::from(usage_status.code());
        }
    };
    let shared = (command.global)(&args);
    let (global, dock) = (shared.global().clone(), shared.dock().map(str::to_owned));
    let verbosity = match (global.quiet, global.verbose) {
        (true, _) => Verbosity::Quiet,
        (false, true) => Verbosity::Verbose,
        (false, false) => Verbosity::Normal,
    };
    let printer = Printer::new(command.name, verbosity, global.json, &env);
    let status = std::env::current_dir()
        .map_err(|cause| {
            Error::failed("the working directory is gone")
                .because(cause)
                .hint("cd to one that exists")
        })
        .and_then(|working_dir| {
            let context = Context {
                env,
                working_dir,
                printer: printer.clone(),
                global,
                dock,
            };
            (command.run)(args, &context)
        });
    // Nothing moves any more, whatever a thread still holds.
    printer.screen().close();
    let failed = |error: &Error| {
        printer.last_error(error);
        match (error.class(), command.own_failure) {
            (Class::Interrupted | Class::Code(_), _) | (_, None) => error.class().status(),
            (_, Some(status)) => status,
        }
    };
    let mut status = status.unwrap_or_else(|error| failed(&error));
    if status == ExitStatus::SUCCESS
        && let Some(error) = printer.unwritten()
    {
        status = failed(&error);
    }
    ExitCode::from(status.code())
}

impl Context {
    /// Which engine the call is for, as far as that can be said without asking it.
    ///
    /// # Errors
    /// No such dock, a DOCKER_HOST or docker context that names no engine.
    pub fn engine_choice(&self) -> Result<Choice> {
        match &self.dock {
            Some(name) => dock_engine::choice_of(name, &self.env),
            None => Endpoint::choose(&self.env),
        }
    }

    /// Connects to the engine that the call is for, and says which containers there were left by a run-image that was killed.
    ///
    /// # Errors
    /// As [`Context::engine_choice`], and an engine that does not answer.
    pub async fn connect(&self) -> Result<Engine> {
        let engine = self.connect_silently().await?;
        crate::ops::run::say_left(&engine, self.dock.as_deref(), self).await;
        Ok(engine)
    }

    /// [`Context::connect`], and nothing else.
    ///
    /// # Errors
    /// As [`Context::connect`].
    pub async fn connect_silently(&self) -> Result<Engine> {
        match dock_engine::agent_of(&self.engine_choice()?, &self.env)? {
            Some(agent) => self.connect_by(&agent, async || self.connect_once().await).await,
            None => self.connect_once().await,
        }
    }

    /// Connects to an engine behind an agent, as `connect` does it. Where the link stood when it began, and fell silent, it is waited
    /// for.
    ///
    /// # Errors
    /// Those of `connect`, and a link that is dead.
    pub async fn connect_by(&self, agent: &Agent, connect: impl AsyncFn() -> Result<Engine>) -> Result<Engine> {
        // A dock that can't be reached to begin with is not waited for.
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
                // An engine that hangs behind a link that lives says so itself.
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

    /// Connects, and waits for nothing that does not answer.
    async fn connect_once(&self) -> Result<Engine> {
        match &self.dock {
            Some(name) => {
                let docks = Docks::read(&self.env)?;
                if let Some(doubt) = docks.doubt(name) {
                    self.printer.warning(&doubt);
                }
                match docks.named(name)? {
                    Named::Here => Engine::connect_to(dock_engine::here(&self.env)?).await,
                    Named::Dock(dock) => dock_engine::connect(dock, &self.env, &CallOptions::of_terminal()).await,
                }
            }
            None => Engine::connect(&self.env).await,
        }
    }

    /// The variables that lead other programs to the engine of `--dock`; none without it.
    ///
    /// # Errors
    /// As [`Context::engine_choice`].
    pub fn docker_variables(&self) -> Result<Vec<(&'static str, String)>> {
        match &self.dock {
            Some(_) => {
                let choice = self.engine_choice()?;
                // Where the environment leads to this machine's own engine already, nothing is to be said of it.
                match Endpoint::choose(&self.env).is_ok_and(|chosen| chosen == choice) {
                    true => Ok(Vec::new()),
                    false => dock_engine::variables(&choice.endpoint),
                }
            }
            None => Ok(Vec::new()),
        }
    }

    /// What stands before a printed docker command: `DOCKER_HOST=... ` where `--dock` chose the engine.
    ///
    /// # Errors
    /// As [`Context::engine_choice`].
    pub fn docker_prefix(&self) -> Result<String> {
        match &self.dock {
            Some(_) if self.docker_variables()?.is_empty() => Ok(String::new()),
            Some(_) => dock_engine::prefix(&self.engine_choice()?.endpoint, &self.env),
            None => Ok(String::new()),
        }
    }

    /// Runs a future to its end, or until the user interrupts: then it is dropped, and cleans up by being so.
    ///
    /// # Errors
    /// The future's, and [`Error::interrupted`].
    pub fn block_on<T>(&self, future: impl Future<Output = Result<T>>) -> Result<T> {
        runtime()?.block_on(async {
            let mut terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
                .map_err(|cause| Error::failed("signals can't be handled").because(cause))?;
            tokio::pin!(future);
            tokio::select! {
                result = &mut future => return result,
                _ = tokio::signal::ctrl_c() => {}
                _ = terminated.recv() => {}
            }
            // At once, though what is dropped now may take its time.
            self.printer.screen().close();
            Err(Error::interrupted())
        })
    }

    /// Runs a future that handles signals by itself.
    ///
    /// # Errors
    /// The future's.
    pub fn block_on_uninterrupted<T>(&self, future: impl Future<Output = Result<T>>) -> Result<T> {
        runtime()?.block_on(future)
    }
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    // Two threads are enough for one connection's both ends; reading files has the blocking pool.
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|cause| Error::failed("no threads can be started").because(cause))
}

/// Prints completions, the man page or the reference page of a command.
fn describe(command: &mut clap::Command, name: &'static str, kind: &str) -> ExitCode {
    use clap_complete::Shell;
    let mut out = Vec::new();
    let mut command = command
        .clone()
        .name(name)
        .bin_name(name)
        .version(env!("CARGO_PKG_VERSION"));
    match kind {
        "man" => {
            // A page without examples is not finished.
            let Some(examples) = examples::of(name) else {
                return ExitCode::FAILURE;
            };
            if clap_mangen::Man::new(command).render(&mut out).is_err() {
                return ExitCode::FAILURE;
            }
            out.extend(examples::roff(examples).into_bytes());
        }
        "bash" => out = completion::script(&mut command, name, Shell::Bash).into_bytes(),
        "zsh" => out = completion::script(&mut command, name, Shell::Zsh).into_bytes(),
        "fish" => out = completion::script(&mut command, name, Shell::Fish).into_bytes(),
        "markdown" => out = reference(&mut command, name).into_bytes(),
        _ => return ExitCode::from(ExitStatus::USAGE.code()),
    }
    match std::io::Write::write_all(&mut std::io::stdout().lock(), &out) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// The page of a command in `docs/reference`.
fn reference(command: &mut clap::Command, name: &str) -> String {
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let long = command.get_long_about().map(ToString::to_string).unwrap_or_default();
    let details = long.strip_prefix(&about).unwrap_or(&long).trim();
    let details = if details.is_empty() {
        String::new()
    } else {
        format!("\n{details}\n")
    };
    // A width of its own, so that the page does not depend on the terminal that made it.
    let help = command
        .clone()
        .term_width(100)
        .about(None)
        .long_about(None)
        .after_long_help(None)
        .render_long_help();
    let after = command
        .get_after_long_help()
        .map(|after| format!("\n{after}\n"))
        .unwrap_or_default();
    let examples = examples::of(name).map(examples::markdown).unwrap_or_default();
    format!(
        "# {name}\n\n{about}\n{details}\n```text\n{}\n```\n{examples}{after}",
        help.to_string().trim_end()
    )
}
