//! An agent whose docks are this machine: shows what an agent's program has to do, and is what the tests of processes
//! run.
//!
//! The host of a dock decides how it behaves: `needs-password` asks for a password (`open sesame`), and
//! `needs-password-soon` waits a second before that; `down` can't be reached.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use dock_client::docks::Access;
use dock_link::program::Worker;
use dock_link::timing::Timing;
use fake::{Dock, FakeConnector};

#[path = "../tests/fake/mod.rs"]
mod fake;

fn main() -> ExitCode {
    dock_link::program::main(async |worker: Worker| {
        let Access::Ssh(access) = worker.dock().access.clone() else {
            return Err(std::io::Error::other("this dock is no machine"));
        };
        let mut dock = Dock::new(access.docker_socket.unwrap_or_default());
        dock.password = access
            .host
            .starts_with("needs-password")
            .then(|| "open sesame".to_owned());
        dock.set_reachable(access.host != "down");
        let soon = access.host == "needs-password-soon";
        let timing = Timing {
            answer: Duration::from_secs(if soon { 1 } else { 60 }),
            tick: Duration::from_millis(100),
            idle_brief: Duration::from_millis(500),
            ..Timing::default()
        };
        worker.with_timing(timing).serve(FakeConnector(Arc::new(dock))).await
    })
}
