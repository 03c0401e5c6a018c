//! What the agents of docks share, whatever carries their bytes.
//!
//! An agent is two processes of one program ([`program::main`]). The *supervisor* makes the sockets and keeps them; the
//! *worker*, its child, serves them, and is started again when it dies: connections wait in the sockets' queues
//! meanwhile. Both hold one lock, so that there is only one agent, whichever of them is killed: a worker without a
//! supervisor goes on.
//!
//! - [`transport`]: the one trait of what carries the bytes;
//! - [`program`]: the main function: supervisor or worker; `supervisor`, and what it hands to its worker, `handover`;
//! - [`service`]: both sockets, and how long to live;
//! - `context_socket`: the socket of a docker context, on which systemd listens, and what it starts when somebody connects;
//! - [`link`]: the connection to the dock: made when it is needed, restored when it breaks, dropped when it is idle;
//! - [`prompts`]: questions to the user who waits for a link;
//! - [`http`]: what docker clients and the engine say to each other, relayed, and changed where that is asked for;
//! - `ports`: makes what containers publish on the dock answer here, too;
//! - `exposures`: ports of this machine that docked shells have opened to containers there;
//! - `notices`: sentences for the people in docked shells;
//! - [`mounts`]: what containers mount of this machine, and what becomes of it on the dock;
//! - `disk`: what may wait for this machine's disks;
//! - `relay`: other bytes from here to the dock and back;
//! - `shells`: the docked shells that the agent lives for;
//! - [`timing`]: every time limit; [`log`]: what happened, limited in size.

#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)
)]

mod context_socket;
mod disk;
mod exposures;
mod handover;
pub mod http;
pub mod link;
pub mod log;
pub mod mounts;
mod notices;
pub mod ports;
pub mod program;
pub mod prompts;
mod relay;
mod remembered;
pub mod service;
mod shells;
mod supervisor;
pub mod timing;
pub mod transport;
