//! What the dockerutils commands share.
//!
//! `docs/architecture.md` lists the modules from the use cases down; arrows point down only. What is below both this crate and the
//! agents is in `dock-client`, and is named here, too, for the commands.

#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)
)]

// What is below is in every signature here.
pub use dock_client::{
    agent, docks, env, error, hexadecimal, hint, mount_sync, private_file, project_file, registry_helper, shell,
    terminal,
};

pub mod browser;
pub mod cli;
pub mod config;
pub mod context;
pub mod docker;
pub mod heartbeat;
pub mod jupyter;
pub mod machine_id;
pub mod naming;
pub mod ops;
pub mod output;
pub mod patience;
pub mod sync;
pub mod version;
