//! The helper of `source dock`: connects to a dock for a shell, and prints what the shell then sets.
//!
//! ```text
//! $ source dock far
//! $ dock-env far --shell fish | source
//! ```

mod code;

use clap::{Parser, ValueEnum};
use dockerutils_core::cli::{Command, Context, GlobalArgs};
use dockerutils_core::error::{Error, ExitStatus, Result};
use dockerutils_core::ops::docks::environment::{self, EnvironmentArgs};

/// Print what a docked shell sets: the helper of `source dock`
#[derive(Debug, Parser)]
#[command(
    after_long_help = "In bash and zsh: source dock NAME. In fish: dock-env NAME --shell fish | source. In each, castoff \
goes back.\n\nExit codes: 0 done; 1 the shell is docked already; 2 wrong usage, no such dock, or a damaged \
list; 3 the dock can't be reached; 130 interrupted."
)]
pub struct Args {
    /// The dock
    #[arg(value_name = "DOCK", required_unless_present_any = ["complete", "release", "adopt"])]
    pub name: Option<String>,
    /// The shell for which to print code
    #[arg(long, value_enum, default_value = "bash")]
    pub shell: ShellName,
    /// Print lines NAME=VALUE in place of code
    #[arg(long)]
    pub lines: bool,
    /// The shell was started in a docked one, and is to have its mark and castoff, too
    #[arg(long, conflicts_with_all = ["complete", "release"])]
    pub adopt: bool,
    /// The process of the shell, for as long as which the connection is kept
    #[arg(long, value_name = "PID")]
    pub pid: Option<i32>,
    /// Trust a host key that is not known yet, without asking
    #[arg(long)]
    pub accept_new: bool,
    /// Don't forward the ports that containers publish there to this machine
    #[arg(long)]
    pub no_forward: bool,
    /// For as long as this shell is docked, forward this port of the dock, or the ports of this container, too, whoever made it
    #[arg(long, value_name = "PORT|CONTAINER")]
    pub forward: Vec<String>,
    /// For as long as this shell is docked, let containers there reach this port of this machine, as host.docker.internal
    #[arg(long, value_name = "PORT")]
    pub expose: Vec<u16>,
    /// Print the monikers of all docks
    #[arg(long, conflicts_with_all = ["name", "lines"])]
    pub complete: bool,
    /// The shell is docked no longer
    #[arg(long, conflicts_with_all = ["name", "lines", "complete"])]
    pub release: bool,
    /// What every command takes.
    #[command(flatten)]
    pub global: GlobalArgs,
}

/// The shells that can be docked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ShellName {
    /// GNU bash
    Bash,
    /// zsh
    Zsh,
    /// fish
    Fish,
}

/// The program.
pub const COMMAND: Command<Args> = Command {
    name: "dock-env",
    run,
    global: |args| &args.global,
    own_failure: None,
};

fn run(args: Args, context: &Context) -> Result<ExitStatus> {
    let printer = &context.printer;
    if args.complete {
        // An unreadable list gives no completions; the command itself reports what is wrong with it.
        let monikers = environment::monikers(&context.env).unwrap_or_default();
        monikers.iter().for_each(|moniker| printer.result(moniker));
        return Ok(ExitStatus::SUCCESS);
    }
    if args.release {
        return environment::release(context, args.pid);
    }
    let wanted = EnvironmentArgs {
        name: match args.name {
            Some(name) => name,
            None => environment::current(&context.env).ok_or_else(|| Error::usage("no dock is named"))?,
        },
        adopt: args.adopt,
        shell: match args.shell {
            ShellName::Bash => environment::Shell::Bash,
            ShellName::Zsh => environment::Shell::Zsh,
            ShellName::Fish => environment::Shell::Fish,
        },
        pid: args.pid,
        accept_new: args.accept_new,
        no_forward: args.no_forward,
        forward: args.forward,
        expose: args.expose,
    };
    if context.global.dry_run {
        printer.plan(&environment::plan(context, &wanted)?)?;
        return Ok(ExitStatus::SUCCESS);
    }
    match environment::dock(context, &wanted) {
        Ok(lines) if printer.json() => printer.result_json(&code::document(&lines))?,
        Ok(lines) if args.lines => lines.iter().for_each(|line| printer.result(line)),
        Ok(lines) => printer.result(&code::of(wanted.shell, wanted.adopt, &lines)),
        Err(error) => {
            if !args.lines && !printer.json() {
                // A shell that evaluates this gets the failure, and changes nothing.
                printer.result(code::failure(wanted.shell));
            }
            return Err(error);
        }
    }
    Ok(ExitStatus::SUCCESS)
}
