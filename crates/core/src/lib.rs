//! What the dockerutils commands share.
//!
//! Modules, from the use cases down; arrows point down only:
//!
//! - [`cli`]: the main function of every command, its global arguments, its [`cli::Context`];
//! - [`ops`]: the use cases: build, run, publish, genversion;
//! - [`agent`]: the client of a dock's agent; [`docks`]: the list of docks;
//! - [`registry_helper`]: the client of the programs that know one kind of registry, such as Amazon's;
//! - [`docker`]: the engine: connecting, build sessions, run options, attaching, pulling;
//! - [`sync`]: a project and its copy on a dock, kept in step;
//! - [`config`]: the project, its `docker/dockerutils.cfg`, replacement variables;
//! - [`version`]: the version of a project that uses versioneer, from git;
//! - [`output`]: what is printed and how: results, tables, JSON, progress; [`terminal`]: its raw mode and size;
//! - [`naming`] (names, tags, references), [`shell`] (words, quoting), [`mod@env`] (variables),
//!   [`private_file`] (written whole, locks), [`project_file`] (read), [`placed_file`] (there for a command's time), [`machine_id`], [`hexadecimal`], [`error`].

#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)
)]

// What is below is in every signature here.
pub use dock_client::{
    agent, docks, env, error, hexadecimal, hint, private_file, project_file, registry_helper, shell, terminal,
};

pub mod cli;
pub mod config;
pub mod docker;
pub mod machine_id;
pub mod naming;
pub mod ops;
pub mod output;
pub mod patience;
pub mod placed_file;
pub mod sync;
pub mod version;
