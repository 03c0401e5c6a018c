//! Starts JupyterLab on a dock itself, outside of containers, and opens it in the browser here.
//!
//! ```text
//! $ nb-dock far --env torch
//! ```

use clap::Parser;
use dockerutils_core::cli::{Command, Context, GlobalArgs};
use dockerutils_core::error::{ExitStatus, Result};
use dockerutils_core::ops::docks::notebook::{self, DockNotebookAction, DockNotebookArgs};

/// JupyterLab on a dock itself, outside of containers, in the browser here
///
/// It starts in the project's copy on the dock if there is one (sync-up makes it), else in the home there. It listens on a private
/// Unix socket there, and a port of 127.0.0.1 here leads to it; it asks for a token, which is in the printed URL. Ctrl-C stops it. A
/// link that is cut does not: the page goes on when the link is back, and the next nb-dock finds the server that runs.
///
/// JupyterLab is looked for in the project's own environment (.venv), in the PATH of a login shell there, then in the environments of
/// conda, mamba and venv.
#[derive(Debug, Parser)]
#[command(
    after_long_help = "Exit codes: 0 done, also where Ctrl-C has stopped the server; 1 failed: no JupyterLab there, or it does not \
start; 2 usage; 3 the dock can't be reached; 130 interrupted before the server answered."
)]
pub struct Args {
    /// The environment of conda, mamba or venv: its name, or its path there
    #[arg(short, long, value_name = "NAME")]
    pub env: Option<String>,
    /// Start it through a batch system, by this command: 'srun --gres=gpu:1'
    #[arg(long, value_name = "COMMAND", allow_hyphen_values = true)]
    pub launch: Option<String>,
    /// The port here; else 8888, or the next one that is free
    #[arg(short, long, value_name = "PORT")]
    pub port: Option<u16>,
    /// Leave it running, with a process here that leads to it
    #[arg(short, long)]
    pub detach: bool,
    /// Open no browser
    #[arg(long)]
    pub no_browser: bool,
    /// List your servers on the dock
    #[arg(long, conflicts_with_all = ["launch", "port", "detach", "no_browser", "arguments", "env"])]
    pub list: bool,
    /// Stop the server that would be found, or the one of this ID
    #[arg(
        long,
        value_name = "ID",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "",
        conflicts_with_all = ["list", "port", "detach", "no_browser", "arguments"]
    )]
    pub stop: Option<String>,
    /// What the process that stays with --detach is started with
    #[arg(long = notebook::FORWARD_OPTION, hide = true, value_name = "KEY")]
    pub forward: Option<String>,
    /// The dock; the current one, unless it is named
    #[arg(value_name = "DOCK")]
    pub name: Option<String>,
    /// Further arguments of JupyterLab
    #[arg(value_name = "JUPYTER ARGS", last = true)]
    pub arguments: Vec<String>,
    /// What every command takes.
    #[command(flatten)]
    pub global: GlobalArgs,
}

/// The command.
pub const COMMAND: Command<Args> = Command {
    name: "nb-dock",
    run,
    global: |args| &args.global,
    own_failure: None,
};

fn run(args: Args, context: &Context) -> Result<ExitStatus> {
    let action = match (args.forward, args.list, args.stop) {
        (Some(key), ..) => DockNotebookAction::Forward(key),
        (None, true, _) => DockNotebookAction::List,
        (None, false, Some(id)) => DockNotebookAction::Stop(Some(id).filter(|id| !id.is_empty())),
        (None, false, None) => DockNotebookAction::Start,
    };
    let wanted = DockNotebookArgs {
        name: args.name,
        environment: args.env,
        launch: args.launch,
        port: args.port,
        detach: args.detach,
        no_browser: args.no_browser,
        arguments: args.arguments,
        action,
    };
    notebook::notebook(context, &wanted)
}
