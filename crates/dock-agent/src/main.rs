//! The `dock-agent` program: holds the connection to a dock that ssh reaches. Commands start it; users don't. OpenSSH's
//! client starts it, too, to ask the user something.

use std::io;
use std::process::ExitCode;

use dock_agent::ssh::{SshConnector, if_asked};
use dock_client::docks::Access;
use dock_client::env::Env;
use dock_link::program::{self, Worker};

fn main() -> ExitCode {
    program::keep_to_itself();
    if let Some(code) = if_asked() {
        return code;
    }
    program::main(async |worker: Worker| match worker.dock().access.clone() {
        Access::Ssh(access) => worker.serve(SshConnector::new(access, Env::from_process())).await,
        Access::Tcp { .. } | Access::Context { .. } => {
            Err(io::Error::other("the engine of this dock is reached without an agent"))
        }
    })
}
