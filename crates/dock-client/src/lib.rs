//! The list of docks, the clients of the processes that serve the commands, and what both sides share: errors, the
//! environment, words of a shell, private files, the terminal. It contains nothing of engines, TLS or gRPC, as agents
//! are built on it.
//!
//! - [`agent`]: the client of a dock's agent: start it, handshake, open the engine, a TCP port or a command;
//! - [`registry_helper`]: the client of the programs that know one kind of registry, such as Amazon's;
//! - [`mount_sync`]: what an agent and the process that syncs for it say to each other;
//! - [`docks`]: the list of docks, and what ssh's own files say of them;
//! - [`sync_memory`]: where this machine remembers what it synced with which dock;
//! - [`terminal`]: its raw mode and size; [`text`]: text of others, made safe to show;
//! - [`private_file`] (written whole, locks), [`project_file`] (read), [`listening`] (which process has a port);
//! - [`shell`] (words, quoting), [`mod@env`] (variables), [`hexadecimal`], [`digest`], [`error`].

#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)
)]

pub mod agent;
pub mod digest;
pub mod docks;
pub mod env;
pub mod error;
pub mod hexadecimal;
pub mod listening;
pub mod mount_sync;
pub mod mutex;
pub mod private_file;
pub mod project_file;
pub mod registry_helper;
pub mod shell;
pub mod sync_memory;
pub mod terminal;
pub mod text;
