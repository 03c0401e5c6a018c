//! Brings what changed in a project's copy on a dock.
//!
//! ```text
//! $ sync-down --dock far
//! far:/data/workspaces/ann/code/my-app: 3 brought (12.4 kB), 1 removed here
//! ```

use clap::Parser;
use dockerutils_core::cli::{Command, Context, SyncOptions};
use dockerutils_core::error::{ExitStatus, Result};
use dockerutils_core::ops::sync;
use dockerutils_core::sync::plan::Direction;

/// Bring what changed in a project's copy on a dock
///
/// Only what changed there since the last sync comes; files that were removed there are removed here. What .dockerignore
/// leaves out is neither brought nor removed, nor is .git, unless --with-git asks for it. A file that changed on both sides is a conflict: it is named and left as it
/// is on both, the dock's version is put beside it as NAME.dock, and the rest comes. What a dock has changed of files
/// that decide what leaves this machine, or that tools here run unasked (.dockerignore, git's hooks, .envrc, .vscode, ...),
/// is such a conflict, too, and only --theirs PATH takes it. The version file that sync-up generates stays there.
///
/// What is removed or overwritten here is kept outside of the project for seven days, 1 GB at most; --restore brings it back.
#[derive(Debug, Parser)]
#[command(
    after_long_help = "Exit codes: 0 done; 1 a conflict, or a file that could not travel; 2 wrong usage or \
configuration; 3 the dock can't be reached; 130 interrupted."
)]
pub struct Args {
    /// What is synced, and how.
    #[command(flatten)]
    pub options: SyncOptions,
}

/// The command.
pub const COMMAND: Command<Args> = Command {
    name: "sync-down",
    run,
    global: |args| &args.options.global,
    own_failure: None,
};

fn run(args: Args, context: &Context) -> Result<ExitStatus> {
    sync::sync(context, &args.options.wanted(Direction::Down))
}
