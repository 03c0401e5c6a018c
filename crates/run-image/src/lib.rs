//! Runs an image of a project: the options come from its section of `docker/dockerutils.cfg`.
//!
//! ```text
//! $ run-image dev -c 'python -m pytest'
//! ============================================================================
//! docker run --init --name ann_dev_26-11-21_09.08.07 --rm -it ... my-app-dev:ann python -m pytest
//! ```

use clap::Parser;
use dockerutils_core::cli::{Command, Context, EngineArgs};
use dockerutils_core::error::{ExitStatus, Result};
use dockerutils_core::ops::run::{self, RunArgs};
use dockerutils_stack::run_reference;

/// Run an image of a project
///
/// How it is run is said in its section of docker/dockerutils.cfg (keys environment, env, interactive, gpu, network,
/// volumes, ports, args, cmd, keep_container, init); `<key>_docked` wins where the engine is on another machine, and the
/// command line wins over both. The equivalent docker command is printed before it is done. An image that isn't there
/// is built first when it is the project's own, and pulled otherwise. In a repository with a stack (spec.yml), IMAGE may be
/// one of the stack: under the tag of the branch, unless --image_tag gives another. No docker client is needed.
#[derive(Debug, Parser)]
#[command(
    override_usage = "run-image [OPTIONS] <IMAGE>\n       run-image [OPTIONS] --attach [NAME]",
    after_long_help = "Exit codes: the container's own; 125 for all failures of run-image itself, 126 where the \
command can't be run, 127 where it isn't there, as docker run has them; 130 interrupted; 75 where the connection to the container was \
lost, which goes on there: --attach goes back to it."
)]
pub struct Args {
    /// The image to run
    #[arg(required_unless_present = "attach")]
    pub image: Option<String>,
    /// Options of `docker run`, in one word
    #[arg(short, long, value_name = "OPTIONS", allow_hyphen_values = true)]
    pub args: Option<String>,
    /// Run in the background, and keep the container when it ends
    #[arg(short, long)]
    pub keep: bool,
    /// The command to run, in place of the image's
    #[arg(short, long, value_name = "COMMAND", allow_hyphen_values = true)]
    pub command: Option<String>,
    /// Connect it to this network
    #[arg(short, long, value_name = "NETWORK")]
    pub network: Option<String>,
    /// Give it the GPUs
    #[arg(short = 'g', long, visible_alias = "use_gpu")]
    pub use_gpu: bool,
    /// Set a variable in it; without a value, to that of the environment
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub env: Vec<String>,
    /// Use the image of this name
    #[arg(short, long = "image_name", visible_alias = "image-name", value_name = "NAME")]
    pub image_name: Option<String>,
    /// Use the image of this tag
    #[arg(short = 't', long = "image_tag", visible_alias = "image-tag", value_name = "TAG")]
    pub image_tag: Option<String>,
    /// Build it first; cached steps make it quick
    #[arg(long, conflicts_with = "no_build")]
    pub build: bool,
    /// Refuse to build it where it isn't there
    #[arg(long)]
    pub no_build: bool,
    /// Keep the project and its copy on the dock in step while it runs, and bring what it made when it has ended
    #[arg(short, long, conflicts_with = "keep")]
    pub watch: bool,
    /// Go back to a container in the foreground whose connection was lost, or whose run-image was killed: of this name, or
    /// the one that this project has. What it has said since comes first, and its exit code is passed on
    #[arg(
        long,
        value_name = "NAME",
        num_args = 0..=1,
        default_missing_value = "",
        conflicts_with_all = [
            "image", "args", "keep", "command", "network", "use_gpu", "env", "image_name", "image_tag", "build", "no_build"
        ]
    )]
    pub attach: Option<String>,
    /// What every command takes that uses an engine.
    #[command(flatten)]
    pub global: EngineArgs,
}

/// The command.
pub const COMMAND: Command<Args> = Command {
    name: "run-image",
    run,
    global: |args| &args.global,
    own_failure: Some(ExitStatus::CONTAINER_CLIENT),
};

fn run(args: Args, context: &Context) -> Result<ExitStatus> {
    if let Some(name) = &args.attach {
        return run::attach(context, Some(name.as_str()).filter(|name| !name.is_empty()), args.watch);
    }
    let image = args.image.unwrap_or_default();
    let reference = run_reference::find(context, &image, args.image_name.as_deref(), args.image_tag.as_deref())?;
    let wanted = RunArgs {
        image,
        reference,
        args: args.args,
        keep: args.keep,
        command: args.command,
        network: args.network,
        gpu: args.use_gpu,
        env: args.env,
        image_name: args.image_name,
        image_tag: args.image_tag,
        build: args.build,
        no_build: args.no_build,
        watch: args.watch,
    };
    run::run(context, &wanted)
}
