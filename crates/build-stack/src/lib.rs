//! Builds, tests and pushes the images of a stack that a change makes stale.
//!
//! ```text
//! $ build-stack --base main
//! IMAGE    STATUS  SECONDS  REFERENCE
//! base     copied      0.2  ghcr.io/team/base:2026.3-work
//! science  built      48.1  ghcr.io/team/science:2026.3-work
//! ```

use std::path::PathBuf;

use clap::Parser;
use dockerutils_core::cli::{Command, Context, EngineArgs};
use dockerutils_core::error::{ExitStatus, Result};
use dockerutils_stack::building::work::WantedImages;
use dockerutils_stack::building::{self, BuildStackArgs};
use dockerutils_stack::history::RangeStart;
use dockerutils_stack::plan::Retests;
use dockerutils_stack::planning::StackSelection;

/// Build, test and push what a change makes stale in a stack of images
///
/// It makes the plan of plan-stack, prints it, and carries it out on any engine: each image after the one that it starts from, side
/// by side where they are independent. What is to be built takes its cache from the registry. Where the same image is there under
/// another tag, its manifest is copied; where only tests changed, what is there is tested again. An image that fails stops only those
/// that start from it. Called again, it goes on where it was. Logins are docker's own.
#[derive(Debug, Parser)]
#[command(
    after_long_help = "Exit codes: 0 all is done; 1 an image failed, or a registry or git refused; 2 wrong usage or configuration; \
3 the engine or a registry can't be reached; 130 interrupted."
)]
pub struct Args {
    /// Build these images, and those that they start from, in place of all
    #[arg(value_name = "IMAGE")]
    pub images: Vec<String>,
    /// Build this image alone, on its parent as it is
    #[arg(long, value_name = "IMAGE", conflicts_with = "images")]
    pub only: Option<String>,
    /// Only this plan: a name below plans, or a prefix of tags
    #[arg(long, value_name = "PLAN")]
    pub plan: Option<String>,
    /// Explain by the commits since this one
    #[arg(long, value_name = "REV", conflicts_with = "base")]
    pub since: Option<String>,
    /// Explain by the commits since HEAD left this branch, whose images are copied where they are the same
    #[arg(long, value_name = "BRANCH")]
    pub base: Option<String>,
    /// Build all images
    #[arg(long)]
    pub all: bool,
    /// Images worked on side by side [default: the number of processors, at most 4]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub jobs: Option<u16>,
    /// Write nothing to the registry: what is built stays on the engine
    #[arg(long)]
    pub no_push: bool,
    /// Run no tests
    #[arg(long)]
    pub no_test: bool,
    /// Build nothing: write the pages of the images that are in the registry
    #[arg(long, conflicts_with_all = ["since", "all", "jobs", "no_push", "no_test"])]
    pub describe: bool,
    /// The directory with spec.yml; images or docker without it
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Where artifacts, logs and manifests go; the repository's root without it
    #[arg(long, value_name = "DIR")]
    pub artifacts: Option<PathBuf>,
    /// What every command takes that uses an engine.
    #[command(flatten)]
    pub global: EngineArgs,
}

/// The command.
pub const COMMAND: Command<Args> = Command {
    name: "build-stack",
    run,
    global: |args| &args.global,
    own_failure: None,
};

fn run(args: Args, context: &Context) -> Result<ExitStatus> {
    let wanted = match (args.only, args.images.is_empty()) {
        (Some(only), _) => WantedImages::Only(only),
        (None, true) => WantedImages::All,
        (None, false) => WantedImages::WithParents(args.images),
    };
    let wanted = BuildStackArgs {
        selection: StackSelection {
            start: args.since.map(RangeStart::Since).or(args.base.map(RangeStart::Base)),
            all: args.all,
            retests: match (args.no_test || args.describe, args.no_push) {
                (true, _) => Retests::None,
                (false, true) => Retests::Changed,
                (false, false) => Retests::Unfinished,
            },
            plan: args.plan,
            directory: args.dir,
        },
        wanted,
        jobs: args.jobs.map(usize::from),
        no_push: args.no_push,
        artifacts: args.artifacts,
    };
    match args.describe {
        true => building::describing::describe_stack(context, &wanted),
        false => building::build_stack(context, &wanted),
    }
}
