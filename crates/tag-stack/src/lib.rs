//! Gives all images of a stack another tag in the registry, when their tests passed: all of them, or none.
//!
//! ```text
//! $ tag-stack 2026.3-main 2026.3-stable
//! base: 2026.3-stable: 8d1c4f0a92be in place of 51aa3e6b7c0d  (ghcr.io/team/base)
//!     basic tests passed (12) at 2026-03-02T10:41:07Z, signed
//!     changed since 2026.3-stable: files of its context
//!       3f2a9c1 The start script waits for the proxy
//! ```

use std::path::PathBuf;

use clap::Parser;
use dockerutils_core::cli::{Command, Context, GlobalArgs};
use dockerutils_core::error::{ExitStatus, Result};
use dockerutils_stack::promotion::command::{PromotionArgs, tag_stack};

/// Give all images of a stack another tag in the registry, when their tests passed
///
/// The images are those of spec.yml. The tag TO gets the manifests that FROM names, in the registry itself: nothing is pulled or
/// pushed. Every image is looked at first: it must be there, and the newest verdict of each kind of its tests, which is attached
/// to this very digest, must be that it passed; --force promotes all the same. What changed since TO is shown. When one tag can't be
/// moved, those that were are put back, or named if they can't be. With a key for verdicts, only those that it signed count.
/// Logins are docker's own.
#[derive(Debug, Parser)]
#[command(
    after_long_help = "Exit codes: 0 promoted; 1 refused, or a registry refused, and nothing is promoted; 2 wrong usage or \
configuration; 3 a registry can't be reached; 130 interrupted, and nothing is promoted."
)]
pub struct Args {
    /// The tag that the images have
    pub from: String,
    /// The tag that they get
    pub to: String,
    /// Whatever their tests said, and if nothing is known of them
    #[arg(long)]
    pub force: bool,
    /// Only this plan: a name below plans, or a prefix of tags; without it, that of FROM
    #[arg(long, value_name = "PLAN")]
    pub plan: Option<String>,
    /// The directory with spec.yml; images or docker without it
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Only verdicts that this key signed count: a public key in PEM, or the private one; DOCKERUTILS_VERDICT_KEY without it
    #[arg(long, value_name = "FILE")]
    pub verdict_key: Option<PathBuf>,
    /// What every command takes.
    #[command(flatten)]
    pub global: GlobalArgs,
}

/// The command.
pub const COMMAND: Command<Args> = Command {
    name: "tag-stack",
    run,
    global: |args| &args.global,
    own_failure: None,
};

fn run(args: Args, context: &Context) -> Result<ExitStatus> {
    let wanted = PromotionArgs {
        from: args.from,
        to: args.to,
        force: args.force,
        plan: args.plan,
        directory: args.dir,
        verdict_key: args.verdict_key,
    };
    tag_stack(context, &wanted)
}
