//! Runs JupyterLab, or another server with pages, in a container: near or far, and prints the URL that answers here.
//!
//! ```text
//! $ run-notebook analysis.ipynb
//! ============================================================================
//! docker run --name ann_notebook_2026_11_21_09.08.07 --rm -d ... -e JUPYTER_TOKEN -p 127.0.0.1:8888:8888 ... my-app-notebook:ann
//! http://127.0.0.1:8888/lab/tree/project/analysis.ipynb?token=...
//! ```

use std::net::IpAddr;
use std::time::Duration;

use clap::Parser;
use dockerutils_core::cli::{Command, Context, EngineArgs};
use dockerutils_core::error::{ExitStatus, Result};
use dockerutils_core::ops::notebook::{self, NotebookArgs, idle};
use dockerutils_stack::run_reference;

/// Run JupyterLab in a container, and give its URL
///
/// The image is that of docker/notebook, which is built first, else the one that [notebook] of docker/dockerutils.cfg names,
/// else resero/docker-ds. The project is mounted at /home/jovyan/project, and its files stay its owner's. The URL has a token
/// of its own, and answers on this machine, wherever the engine is. On another machine, the project is sent before, and what
/// the notebook changed is brought after it has ended. If the project has a server already, its URL is printed.
///
/// The log follows until Ctrl-C, which stops the server properly; a second one kills it.
#[derive(Debug, Parser)]
#[command(
    override_usage = "run-notebook [OPTIONS] [FILE] [-- <JUPYTER ARGS>...]\n       run-notebook [OPTIONS] --list\n       run-notebook [OPTIONS] --stop [NAME]",
    after_long_help = "Exit codes: the container's own; 125 for all failures of run-notebook itself; 130 where a second Ctrl-C killed \
the server; 75 where the link to it is away, while it goes on there."
)]
pub struct Args {
    /// The notebook to open; or, in a repository with a stack (spec.yml), the image of the stack to run
    #[arg(value_hint = clap::ValueHint::FilePath)]
    pub file: Option<String>,
    /// Give it the GPUs, and say which it has
    #[arg(short = 'g', long, visible_alias = "use_gpu")]
    pub use_gpu: bool,
    /// The server's port, inside and here; if it is taken here, the next one is used
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
    /// Listen on this address of this machine, too, for others
    #[arg(long, value_name = "ADDRESS", conflicts_with = "detach")]
    pub bind: Option<IpAddr>,
    /// Leave it in the background, when it answers
    #[arg(long)]
    pub detach: bool,
    /// Open no browser
    #[arg(long)]
    pub no_browser: bool,
    /// Use this image
    #[arg(long, value_name = "IMAGE")]
    pub image: Option<String>,
    /// Open this path of the server, such as `desktop`; with --port, that of any server with pages
    #[arg(long, value_name = "PATH")]
    pub path: Option<String>,
    /// Start another server, though this project has one
    #[arg(long)]
    pub new: bool,
    /// Keep the project and its copy on the dock in step while it runs
    #[arg(short, long, conflicts_with = "detach")]
    pub watch: bool,
    /// End it when no kernel has worked and nobody was connected for so long, such as 2h or 90m
    #[arg(long, value_name = "TIME", value_parser = idle::parse_limit, conflicts_with = "detach")]
    pub idle: Option<Duration>,
    /// List your notebooks
    #[arg(long, conflicts_with_all = STARTING)]
    pub list: bool,
    /// End a notebook: the one of this name, or the one of this project
    #[arg(
        long,
        value_name = "NAME",
        num_args = 0..=1,
        default_missing_value = "",
        conflicts_with_all = STARTING,
        conflicts_with = "list"
    )]
    pub stop: Option<String>,
    /// Start it as a JupyterHub does: with a volume over the home folder, which hides what the image has there
    #[arg(long)]
    pub as_hub: bool,
    /// Print the archive with the start script that the printed lines give to docker cp
    #[arg(long, hide = true, value_name = "HOME:UID:GID", num_args = 0..=1, require_equals = true, default_missing_value = "",
          conflicts_with_all = STARTING)]
    pub start_files: Option<String>,
    /// Arguments for Jupyter
    #[arg(last = true, value_name = "JUPYTER ARGS")]
    pub arguments: Vec<String>,
    /// What every command takes that uses an engine.
    #[command(flatten)]
    pub global: EngineArgs,
}

/// What only a start takes.
const STARTING: [&str; 13] = [
    "file",
    "use_gpu",
    "port",
    "bind",
    "detach",
    "no_browser",
    "image",
    "path",
    "new",
    "watch",
    "idle",
    "as_hub",
    "arguments",
];

/// The command.
pub const COMMAND: Command<Args> = Command {
    name: "run-notebook",
    run,
    global: |args| &args.global,
    own_failure: Some(ExitStatus::CONTAINER_CLIENT),
};

fn run(args: Args, context: &Context) -> Result<ExitStatus> {
    if let Some(home) = &args.start_files {
        return notebook::print_start_files(&context.printer, home);
    }
    if args.list {
        return notebook::list(context);
    }
    if let Some(name) = &args.stop {
        return notebook::stop(context, Some(name.as_str()).filter(|name| !name.is_empty()));
    }
    let of_stack = match (&args.file, &args.image) {
        (Some(name), None) if is_a_name(context, name) => run_reference::find(context, name, None, None)?,
        _ => None,
    };
    let wanted = NotebookArgs {
        file: args.file.filter(|_| of_stack.is_none()),
        gpu: args.use_gpu,
        port: args.port,
        bind: args.bind,
        detach: args.detach,
        no_browser: args.no_browser,
        image: of_stack.or(args.image),
        path: args.path,
        another: args.new,
        watch: args.watch,
        idle: args.idle,
        as_hub: args.as_hub,
        arguments: args.arguments,
    };
    notebook::start(context, &wanted)
}

/// Whether an argument can be the name of an image of a stack: nothing else is called so.
fn is_a_name(context: &Context, argument: &str) -> bool {
    !argument.contains(['/', '.']) && !context.working_dir.join(argument).is_file()
}
