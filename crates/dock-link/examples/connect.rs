//! Connects to a dock as a command does, and asks the user at the terminal: `connect HOST ENGINE-SOCKET`.

use std::io::Write as _;
use std::process::ExitCode;

use dock_client::agent::{Agent, CallOptions};
use dock_client::docks::{Access, Dock, Forward, MountPaths, SshAccess};
use dock_client::env::Env;
use dock_client::error::{Error, Result};

#[tokio::main]
async fn main() -> ExitCode {
    let said = tokio::select! {
        result = connect() => match result {
            Ok(()) => "connected".to_owned(),
            Err(error) => format!("failed: {error}"),
        },
        // As in a command: when it is interrupted, what is under way is dropped.
        _ = tokio::signal::ctrl_c() => "interrupted".to_owned(),
    };
    match writeln!(std::io::stdout(), "{said}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

async fn connect() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut next = || {
        arguments
            .next()
            .ok_or_else(|| Error::usage("connect HOST ENGINE-SOCKET"))
    };
    let dock = Dock {
        moniker: "far".into(),
        access: Access::Ssh(SshAccess {
            host: next()?,
            docker_socket: Some(next()?),
            ..SshAccess::default()
        }),
        workspace: None,
        forward: Forward::default(),
        mounts: MountPaths::default(),
    };
    let agent = Agent::of(&dock, &Env::from_process())?;
    agent.connect(&CallOptions::of_terminal()).await
}
