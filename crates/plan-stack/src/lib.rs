//! Says which images of a stack are to be built, copied or tested again, and why.
//!
//! ```text
//! $ plan-stack --base main
//! base: nothing  (ghcr.io/team/base:2026.3-work)
//! │   nothing changed
//! └── science: build  (ghcr.io/team/science:2026.3-work)
//!         files of its context differ
//!           science/start.sh: 3f2a9c1 The start script waits for the proxy
//! ```

use std::path::PathBuf;

use clap::Parser;
use dockerutils_core::cli::{Command, Context, GlobalArgs};
use dockerutils_core::error::{ExitStatus, Result};
use dockerutils_stack::history::RangeStart;
use dockerutils_stack::plan::Retests;
use dockerutils_stack::planning::{self, PlanView, StackSelection};

/// Say which images of a stack are to be built, copied or tested again, and why
///
/// The stack is described by spec.yml in the directory of its images. What is stale is decided by content: an image says
/// in the registry what it was made from (Dockerfile, files of the context that count, build arguments, parent, bases), and
/// that is compared. git explains it: which files changed, and by which commits. Where the tag of the branch is absent, and
/// the same is there under the tag of the base branch or a stable one, that is to be copied. In GitHub Actions, GitLab CI
/// and Jenkins, the branch and the range are taken from the environment. Logins are docker's own. Nothing is built or changed.
#[derive(Debug, Parser)]
#[command(
    after_long_help = "Exit codes: 0 planned; 1 a registry or git refused; 2 wrong usage or configuration; 3 a registry \
can't be reached; 130 interrupted."
)]
pub struct Args {
    /// Explain by the commits since this one
    #[arg(long, value_name = "REV", conflicts_with = "base")]
    pub since: Option<String>,
    /// Explain by the commits since HEAD left this branch, whose images are copied where they are the same
    #[arg(long, value_name = "BRANCH")]
    pub base: Option<String>,
    /// Build all images
    #[arg(long)]
    pub all: bool,
    /// Only this plan: a name below plans, or a prefix of tags
    #[arg(long, value_name = "PLAN")]
    pub plan: Option<String>,
    /// Leave tests out: what is only to be tested is left alone
    #[arg(long)]
    pub no_test: bool,
    /// List the tags in the registry, and which are no branch's any more
    #[arg(long, conflicts_with_all = ["since", "all", "no_test", "mermaid", "bake"])]
    pub tags: bool,
    /// Print a flowchart of Mermaid
    #[arg(long, conflicts_with_all = ["bake", "json"])]
    pub mermaid: bool,
    /// Print a file for docker buildx bake with the images that are to be built
    #[arg(long, conflicts_with = "json")]
    pub bake: bool,
    /// The directory with spec.yml; images or docker without it
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// What every command takes.
    #[command(flatten)]
    pub global: GlobalArgs,
}

/// The command.
pub const COMMAND: Command<Args> = Command {
    name: "plan-stack",
    run,
    global: |args| &args.global,
    own_failure: None,
};

fn run(args: Args, context: &Context) -> Result<ExitStatus> {
    let view = match (args.tags, args.mermaid, args.bake) {
        (true, _, _) => PlanView::Tags,
        (_, true, _) => PlanView::Mermaid,
        (_, _, true) => PlanView::Bake,
        _ => PlanView::Tree,
    };
    let selection = StackSelection {
        start: args.since.map(RangeStart::Since).or(args.base.map(RangeStart::Base)),
        all: args.all,
        retests: match args.no_test {
            true => Retests::None,
            false => Retests::Unfinished,
        },
        plan: args.plan,
        directory: args.dir,
    };
    planning::plan_stack(context, &selection, view)
}
