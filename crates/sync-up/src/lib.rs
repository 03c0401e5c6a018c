//! Sends what changed in a project to its copy on a dock.
//!
//! ```text
//! $ sync-up --dock far
//! far:/data/workspaces/ann/code/my-app: 3 sent (12.4 kB), 1 removed there
//! ```

use clap::Parser;
use dockerutils_core::cli::{Command, Context, SyncOptions};
use dockerutils_core::error::{ExitStatus, Result};
use dockerutils_core::ops::sync;
use dockerutils_core::sync::plan::Direction;

/// Send what changed in a project to its copy on a dock
///
/// The files are those that a COPY . . of a build would get: .dockerignore leaves out the same. So does .git, unless --with-git
/// asks for it. Only what changed since the last sync travels; removed files are removed there, and what becomes ignored is left alone. A file that changed on
/// both sides is a conflict: it is named and left as it is on both, and the rest travels. The copy is in
/// /data/workspaces/USER/code/PROJECT where /data can be written to there, else under the home directory; register-dock
/// --workspace chooses another place.
///
/// What is removed or overwritten there is kept beside the copy's mark for seven days, 1 GB at most; --restore brings it back.
#[derive(Debug, Parser)]
#[command(
    after_long_help = "Exit codes: 0 done; 1 a conflict, or a file that could not travel; 2 wrong usage or \
configuration; 3 the dock can't be reached; 130 interrupted."
)]
pub struct Args {
    /// What is synced, and how.
    #[command(flatten)]
    pub options: SyncOptions,
    /// Serves a dock's agent, whose requests come on stdin: see `dock_client::mount_sync`.
    #[arg(long, hide = true)]
    pub for_agent: bool,
}

/// The command.
pub const COMMAND: Command<Args> = Command {
    name: "sync-up",
    run,
    global: |args| &args.options.global,
    own_failure: None,
};

fn run(args: Args, context: &Context) -> Result<ExitStatus> {
    if args.for_agent {
        return sync::for_agent::serve(context);
    }
    sync::sync(context, &args.options.wanted(Direction::Up))
}
