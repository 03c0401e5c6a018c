//! Runs a command on a dock, or opens a terminal there.
//!
//! ```text
//! $ ssh-dock far df -h /
//! $ rsync -a -e ssh-dock data/ far:/data/
//! ```

use clap::Parser;
use dockerutils_core::cli::{Command, Context, GlobalArgs};
use dockerutils_core::error::{ExitStatus, Result};
use dockerutils_core::ops::docks::ssh::{self, SshArgs};

/// Run a command on a dock, or open a terminal there
///
/// Everything behind the dock's name is the command, joined by blanks as ssh does; without one, a login shell. It goes over
/// the connection that stands already, so it begins at once. stdin, stdout and stderr are clean: it works as `rsync -e
/// ssh-dock`. In a terminal, `~.` at the beginning of a line leaves. Without a name, the dock is the one that this shell is
/// docked to.
#[derive(Debug, Parser)]
#[command(
    after_long_help = "Exit codes: the command's own; 255 for all failures of ssh-dock itself, and where a signal ended \
the command, as ssh has them; 130 interrupted."
)]
pub struct Args {
    /// Run the ssh client in place of our own connection, with these options of it, in one word
    #[arg(short = 's', long, value_name = "OPTIONS", allow_hyphen_values = true)]
    pub ssh_options: Option<String>,
    /// Log in as this user, not as the dock's
    #[arg(short = 'l', long, value_name = "USER")]
    pub login: Option<String>,
    /// Give the command a terminal, too
    #[arg(short = 't', long)]
    pub tty: bool,
    /// The dock; the current one, unless it is named
    #[arg(value_name = "DOCK")]
    pub name: Option<String>,
    /// The command
    #[arg(value_name = "COMMAND", trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<String>,
    /// What every command takes.
    #[command(flatten)]
    pub global: GlobalArgs,
}

/// The command.
pub const COMMAND: Command<Args> = Command {
    name: "ssh-dock",
    run,
    global: |args| &args.global,
    own_failure: Some(ExitStatus::SSH_CLIENT),
};

fn run(args: Args, context: &Context) -> Result<ExitStatus> {
    let wanted = SshArgs {
        ssh_options: args.ssh_options,
        user: args.login,
        tty: args.tty,
        name: args.name,
        command: args.command,
    };
    ssh::ssh(context, &wanted)
}
