//! Takes a dock off the list.
//!
//! ```text
//! $ unregister-dock far
//! far (ann@10.0.0.7) is no dock any more
//! ```

use clap::Parser;
use dockerutils_core::cli::{Command, Context, GlobalArgs};
use dockerutils_core::error::{ExitStatus, Result};
use dockerutils_core::ops::docks::unregister;

/// Take a dock off the list
///
/// The machine itself is left as it is. Docks of the Python dockerutils (~/.docker/ADDRESS/connection_config.txt) go, too:
/// their file is removed, and their folder where nothing else is in it. The connection to the dock is closed, and the
/// docker context that `register-dock --make-context` made is removed.
#[derive(Debug, Parser)]
#[command(
    after_long_help = "Exit codes: 0 taken off, or there was none; 1 a file can't be removed; 2 wrong usage or a damaged \
list; 130 interrupted."
)]
pub struct Args {
    /// Its moniker or address
    #[arg(value_name = "DOCK")]
    pub name: String,
    /// What every command takes.
    #[command(flatten)]
    pub global: GlobalArgs,
}

/// The command.
pub const COMMAND: Command<Args> = Command {
    name: "unregister-dock",
    run,
    global: |args| &args.global,
    own_failure: None,
};

fn run(args: Args, context: &Context) -> Result<ExitStatus> {
    unregister::unregister(context, &args.name)
}
