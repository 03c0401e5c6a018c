//! Adds a dock: another machine whose engine is used from here.
//!
//! ```text
//! $ register-dock ann@10.0.0.7 far
//! far is a dock: ann@10.0.0.7
//!   engine   docker 26.1.5, API 1.45, classic image store, 48.2 ms away
//!   machine  Debian GNU/Linux 13 (trixie) x86_64, 8 CPUs, 33.6 GB memory, no GPU
//!   disk     412 GB of 500 GB free
//!
//! hint: source dock far
//! ```

use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use dockerutils_core::cli::{Command, Context, GlobalArgs};
use dockerutils_core::docks::{Forward, MountPaths};
use dockerutils_core::error::{ExitStatus, Result};
use dockerutils_core::ops::docks::register::{self, RegisterArgs};

/// Add a dock: another machine whose engine is used from here
///
/// It connects, shows the host's key and asks whether to trust it, and asks the engine what it is. Where something is in
/// the way, nothing is registered, and the command that fixes it is said. The list of docks is docks.yml in the user's
/// configuration directory (~/.config/dockerutils).
#[derive(Debug, Parser)]
#[command(
    override_usage = "register-dock [OPTIONS] HOST [MONIKER]\n       register-dock [OPTIONS] --host ADDRESS \
[MONIKER]\n       register-dock [OPTIONS] --context NAME [MONIKER]",
    after_long_help = "Exit codes: 0 registered; 1 the moniker is taken, or the engine can't be used; 2 wrong usage or a \
damaged list; 3 the machine or its engine can't be reached; 130 interrupted."
)]
pub struct Args {
    /// [USER@]HOST[:PORT], a name, an address or a Host of ~/.ssh/config; and a name for the dock
    #[arg(value_name = "HOST MONIKER", num_args = 0..=2)]
    pub positional: Vec<String>,
    /// The user there; that of DOCK_USER or the ssh configuration, unless given
    #[arg(short, long, value_name = "USER")]
    pub user: Option<String>,
    /// The port of sshd
    #[arg(long, value_name = "PORT")]
    pub port: Option<u16>,
    /// The private key
    #[arg(long, value_name = "FILE")]
    pub identity: Option<PathBuf>,
    /// The directory there under which workspaces lie
    #[arg(long, value_name = "DIR")]
    pub workspace: Option<String>,
    /// The engine's socket there, where it isn't /var/run/docker.sock
    #[arg(long, value_name = "PATH")]
    pub docker_socket: Option<String>,
    /// Whose containers' published ports are to answer on this machine, too; mine, unless given
    #[arg(long, value_enum, value_name = "WHOSE")]
    pub forward: Option<Whose>,
    /// What a path means that docker, compose and other tools mount there; that of this machine's project, unless given
    #[arg(long, value_enum, value_name = "HOW")]
    pub mounts: Option<How>,
    /// Take the place of a dock of the same moniker; its --workspace, --forward and --mounts stay, unless given
    #[arg(short, long)]
    pub force: bool,
    /// Don't connect: only write it down
    #[arg(long)]
    pub no_check: bool,
    /// Trust a host key that is not known yet, without asking
    #[arg(long)]
    pub accept_new: bool,
    /// An engine that listens on TCP: tcp://ADDRESS:PORT
    #[arg(long, value_name = "ADDRESS", conflicts_with_all = ["context", "port", "identity"])]
    pub host: Option<String>,
    /// The folder with ca.pem, cert.pem and key.pem for --host
    #[arg(long, value_name = "DIR", requires = "host")]
    pub tls_dir: Option<PathBuf>,
    /// The engine of this docker context
    #[arg(long, value_name = "NAME", conflicts_with_all = ["port", "identity"])]
    pub context: Option<String>,
    /// Make a docker context for it, for IDEs and other tools that know contexts
    ///
    /// A dock that ssh reaches has an agent on this machine, and the context leads to the agent. Where your session has a
    /// systemd (`systemctl --user`), that starts the agent when something uses the context, also after a restart of this
    /// machine. Elsewhere the context answers only while the agent runs: `source dock NAME`, or any command with
    /// `--dock NAME`, starts it.
    #[arg(long)]
    pub make_context: bool,
    /// What every command takes.
    #[command(flatten)]
    pub global: GlobalArgs,
}

/// Whose ports are forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Whose {
    /// Those of containers that you made from here
    Mine,
    /// Those that bear your name in a label, too, whoever made them
    Labelled,
    /// Those of all containers
    All,
    /// Nobody's
    None,
}

/// What a path of a bind mount means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum How {
    /// In a project that sync-up has sent: its copy on the dock, kept in step
    Translated,
    /// The dock's own path, as its engine takes it
    Literal,
}

/// The command.
pub const COMMAND: Command<Args> = Command {
    name: "register-dock",
    run,
    global: |args| &args.global,
    own_failure: None,
};

fn run(args: Args, context: &Context) -> Result<ExitStatus> {
    let wanted = RegisterArgs {
        positional: args.positional,
        user: args.user,
        port: args.port,
        identity: args.identity,
        workspace: args.workspace,
        forward: args.forward.map(|whose| match whose {
            Whose::Mine => Forward::Mine,
            Whose::Labelled => Forward::Labelled,
            Whose::All => Forward::All,
            Whose::None => Forward::None,
        }),
        mounts: args.mounts.map(|how| match how {
            How::Translated => MountPaths::Translated,
            How::Literal => MountPaths::Literal,
        }),
        docker_socket: args.docker_socket,
        force: args.force,
        no_check: args.no_check,
        accept_new: args.accept_new,
        engine: args.host,
        tls_dir: args.tls_dir,
        context: args.context,
        make_context: args.make_context,
    };
    register::register(context, &wanted)
}
