//! Builds the images of a project: each folder under `docker/` with a Dockerfile is one.
//!
//! ```text
//! $ build-image dev
//! IMAGE             STATUS  SECONDS     SIZE
//! my-app-dev:ann    built       3.2  12.4 MB
//! ```

use clap::{Parser, ValueEnum};
use dockerutils_core::cli::{Command, Context, EngineArgs};
use dockerutils_core::error::{ExitStatus, Result};
use dockerutils_core::ops::build::{self, BuildArgs};
use dockerutils_core::ops::check::{self, CheckOptions};
use dockerutils_core::ops::layers;

/// Build the images of a project
///
/// An image type is a folder under docker/ with a Dockerfile; the build context is the project's root. How it is
/// named and built is said in its section of docker/dockerutils.cfg (keys name, tag, prefix, context, dockerfile, build_args,
/// pull_FROM_on_force, check_skip, pre_build_script, post_build_script), and in the key images_dir of the section build_image where
/// its folder is. The equivalent docker command is printed before it is done. No docker client is needed.
#[derive(Debug, Parser)]
#[command(
    after_long_help = "Exit codes: 0 built; 1 a build failed, or --check=error found something; 2 wrong usage or configuration; 3 the engine can't be \
reached; 130 interrupted. A script's own code is passed on."
)]
pub struct Args {
    /// The image to build, or `all`, or `clean` to remove the images
    #[arg(value_name = "IMAGE|all|clean")]
    pub image: String,
    /// Build `base` before it, and pull where pull_FROM_on_force says so
    #[arg(short, long = "force_build_base", visible_alias = "force-build-base")]
    pub force_build_base: bool,
    /// Build what it is FROM in this project before it, in the order of `all`
    #[arg(long)]
    pub with_bases: bool,
    /// Use this name for the image
    #[arg(short, long = "image_name", visible_alias = "image-name", value_name = "NAME")]
    pub image_name: Option<String>,
    /// Use this tag for the image
    #[arg(short = 't', long = "image_tag", visible_alias = "image-tag", value_name = "TAG")]
    pub image_tag: Option<String>,
    /// Pull the images that it is FROM, even where the engine has them
    #[arg(short, long = "pull_base", visible_alias = "pull-base")]
    pub pull_base: bool,
    /// Images built side by side with `all` [default: the number of processors, at most 4]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub jobs: Option<u16>,
    /// Build nothing: show the image's layers, the line that made each, and what is in them in vain
    #[arg(long, conflicts_with_all = ["force_build_base", "with_bases", "pull_base", "jobs"])]
    pub layers: bool,
    /// Build nothing: say what in its Dockerfile breaks, costs or leaks, and what to write instead
    ///
    /// No engine is needed. `error`: exit code 1 where anything is found. `sarif`: a document for code hosts. `engine`: also ask
    /// the engine's BuildKit. Several with commas between them. docs/checks.md has the rules.
    #[arg(long, value_name = "HOW", num_args = 0..=1, require_equals = true, value_delimiter = ',', value_enum,
          default_missing_value = "report", conflicts_with_all = ["force_build_base", "with_bases", "pull_base", "jobs", "layers"])]
    pub check: Vec<CheckHow>,
    /// What every command takes that uses an engine.
    #[command(flatten)]
    pub global: EngineArgs,
}

/// How a check is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CheckHow {
    /// As text, with exit code 0.
    Report,
    /// With exit code 1 where anything is found.
    Error,
    /// As SARIF.
    Sarif,
    /// With what the engine's BuildKit says.
    Engine,
}

/// The command.
pub const COMMAND: Command<Args> = Command {
    name: "build-image",
    run,
    global: |args| &args.global,
    own_failure: None,
};

fn run(args: Args, context: &Context) -> Result<ExitStatus> {
    let wanted = BuildArgs {
        image: args.image,
        force_base: args.force_build_base,
        with_bases: args.with_bases,
        image_name: args.image_name,
        image_tag: args.image_tag,
        pull: args.pull_base,
        jobs: args.jobs.map(usize::from),
    };
    let is_asked_for = |how| args.check.contains(&how);
    let how = CheckOptions {
        is_error: is_asked_for(CheckHow::Error),
        is_sarif: is_asked_for(CheckHow::Sarif),
        asks_engine: is_asked_for(CheckHow::Engine),
    };
    match wanted.image.as_str() {
        _ if !args.check.is_empty() => check::check(context, &wanted, how),
        _ if args.layers => layers::show(context, &wanted),
        "clean" => build::clean(context, &wanted),
        _ => build::build(context, &wanted),
    }
}
