//! The main function of every command: arguments, runtime, interruption, and the one place where an error becomes
//! text and an exit code.

mod completion;
mod examples;
mod sync;

use std::process::ExitCode;

use clap::Parser;

pub use crate::context::{Context, EngineArgs, GlobalArgs};
use crate::env::Env;
use crate::error::{Class, Error, ExitStatus, Result};
use crate::output::{Printer, Verbosity};
pub use sync::SyncOptions;

/// Hidden option by which `cargo xtask` asks a command for its completions, man page and reference.
const DESCRIBE: &str = "--dockerutils-describe";

/// The shared arguments of a command, as [`main`] needs them.
pub trait SharedArgs {
    /// The arguments of every command.
    fn global(&self) -> &GlobalArgs;

    /// The moniker that `--dock` names.
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
    /// The exit code of its own failures, if it passes a container's code through.
    pub own_failure: Option<ExitStatus>,
}

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
    // Words after `--` may belong to another command: its `--json` is not ours.
    let json = arguments
        .iter()
        .take_while(|word| *word != "--")
        .any(|word| word == "--json");
    let usage_status = command.own_failure.unwrap_or(ExitStatus::USAGE);
    // As in the original (argparse), the beginning of a long option is enough.
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
                // Help and version go to stdout; a closed pipe is no failure.
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
            let context = Context::new(env, working_dir, printer.clone(), global, dock);
            (command.run)(args, &context)
        });
    // The progress display ends here, whatever threads still hold of it.
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
            // Every page has examples.
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
        "checks" => out = crate::ops::check::page().into_bytes(),
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
    // A fixed width: the page must not depend on the terminal in which it is generated.
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
