//! The arguments that `sync-up` and `sync-down` share; they differ in the direction alone.

use std::path::PathBuf;

use clap::Args;

use super::EngineArgs;
use crate::ops::sync::SyncArgs;
use crate::sync::plan::{Direction, Side};

/// What is synced, and how.
#[derive(Args, Clone, Debug)]
pub struct SyncOptions {
    /// Only these files, and what is in these directories; without any, all
    #[arg(value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Show what would be done, and do nothing
    #[arg(short, long)]
    pub list: bool,
    /// Go on until interrupted: send each file that is saved, and bring what changes on the dock, looking every 2 seconds
    #[arg(short, long, conflicts_with_all = ["list", "ours", "theirs", "paths"])]
    pub watch: bool,
    /// Where both sides changed, take this machine's version
    #[arg(long, conflicts_with = "theirs")]
    pub ours: bool,
    /// Where both sides changed, take the dock's version; of what decides or runs things here, only where PATH names it
    #[arg(long)]
    pub theirs: bool,
    /// Remove as many files as the other side has removed: without it, more than 50, more than a fifth of the project, or all
    /// of it stay
    #[arg(long)]
    pub delete: bool,
    /// Have .git travel, too, which stays here unless asked
    #[arg(long)]
    pub with_git: bool,
    /// First make the files in the copy yours that belong to root, as containers leave them: a container on the dock does it,
    /// without sudo
    #[arg(long, conflicts_with_all = ["list", "restore"])]
    pub chown: bool,
    /// Bring back what the last sync removed or overwrote, or of each PATH the newest version that is kept: here with
    /// sync-down, on the dock with sync-up. With --list, show what is kept
    #[arg(long, conflicts_with_all = ["watch", "ours", "theirs", "delete", "with_git"])]
    pub restore: bool,
    /// What every command takes that uses a dock.
    #[command(flatten)]
    pub global: EngineArgs,
}

impl SyncOptions {
    /// What is asked for, in this direction.
    pub fn wanted(self, direction: Direction) -> SyncArgs {
        SyncArgs {
            direction,
            list: self.list,
            watch: self.watch,
            restore: self.restore,
            settle: Side::settled(self.ours, self.theirs),
            delete: self.delete,
            with_git: self.with_git,
            chown: self.chown,
            paths: self.paths,
        }
    }
}
