//! Docks: the list of them, how they are, a shell that is docked to one, a terminal there.

mod agent_status;
pub mod check;
pub mod environment;
pub mod facts;
pub mod list;
pub mod mounts;
pub mod notebook;
pub mod ports;
pub mod register;
pub mod remote_script;
pub mod ssh;
pub mod ssh_host;
pub mod unregister;

use crate::context::Context;
use crate::docks::{self, Dock, Docks};
use crate::error::{Error, Result};

/// The dock of this name, or the one that the shell is docked to.
///
/// # Errors
/// No such dock, or no name in a shell that is not docked.
pub fn dock_or_current(context: &Context, name: Option<&str>) -> Result<Dock> {
    let docks = Docks::read(&context.env)?;
    match name.or_else(|| docks::current(&context.env)) {
        Some(name) => docks.get(name).cloned(),
        None => Err(Error::usage("which dock? None is named, and this shell is not docked")
            .hint("name one; `ls-dock` lists them")),
    }
}
