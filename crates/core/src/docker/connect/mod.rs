//! Which engine, how it is reached, and what docker's own configuration says of both.

pub mod adaptive_compression;
pub(in crate::docker) mod bounded_stream;
pub mod client_config;
pub(in crate::docker) mod connection_error;
pub mod context_store;
pub(in crate::docker) mod credential_helper;
pub mod dock_engine;
pub mod endpoint;
pub mod engine;
pub(in crate::docker) mod grpc;
pub(in crate::docker) mod json_messages;
pub mod locality;
pub mod login;
pub(in crate::docker) mod redaction;
pub mod stream;
pub mod systemd_units;
