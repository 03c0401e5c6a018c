//! Lists the docks and their state.
//!
//! ```text
//! $ ls-dock
//!   DOCK       WHERE                        STATE    ENGINE     CONTAINERS  ROUND TRIP
//!   localhost  unix:///var/run/docker.sock  running  20.10.24            2      0.4 ms
//! * far        ann@10.0.0.7                 running  26.1.5         3 of 5     48.2 ms
//! ```

use clap::Parser;
use dockerutils_core::cli::{Command, Context, GlobalArgs};
use dockerutils_core::error::{ExitStatus, Result};
use dockerutils_core::ops::docks::{check, list, mounts, ports};

/// List the docks and their state
///
/// All are asked at once, five seconds each at most; nothing is asked of a person. The dock that this shell is docked to is
/// marked. The engine of this machine is the first one. With --check, the parts on the way to a dock are looked at one after
/// the other, each with the command that fixes it.
#[derive(Debug, Parser)]
#[command(
    after_long_help = "Exit codes: 0 listed; 1 --check found something wrong; 2 wrong usage, no such dock, or a damaged \
list; 3 one of the docks that were named can't be reached; 130 interrupted."
)]
pub struct Args {
    /// Only these docks
    #[arg(value_name = "DOCK")]
    pub names: Vec<String>,
    /// Images, processors, memory, GPUs and free disk, too
    #[arg(short, long)]
    pub wide: bool,
    /// Look at what stands between here and the dock's engine; may ask for a passphrase
    #[arg(long, conflicts_with = "wide")]
    pub check: bool,
    /// The ports of containers that are forwarded to this machine, and those of this machine that are exposed to containers
    #[arg(long, conflicts_with_all = ["wide", "check"])]
    pub ports: bool,
    /// The containers that mount projects of this machine
    #[arg(long, conflicts_with_all = ["wide", "check", "ports"])]
    pub mounts: bool,
    /// What every command takes.
    #[command(flatten)]
    pub global: GlobalArgs,
}

/// The command.
pub const COMMAND: Command<Args> = Command {
    name: "ls-dock",
    run,
    global: |args| &args.global,
    own_failure: None,
};

fn run(args: Args, context: &Context) -> Result<ExitStatus> {
    if args.check {
        return check::check(context, &args.names);
    }
    if args.ports {
        return ports::list(context, &args.names);
    }
    if args.mounts {
        return mounts::list(context, &args.names);
    }
    list::list(
        context,
        &list::ListArgs {
            names: args.names,
            wide: args.wide,
        },
    )
}
