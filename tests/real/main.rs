//! Tests of kind "real": our commands on real engines, docks, registries, shells and terminals, in one program.
//!
//! What they share is the library of this package; `docs/` is tested here, too.

mod agent;
mod another_user;
mod any_tool;
mod any_tool_clients;
mod any_tool_faults;
mod any_tool_ports;
mod build_all;
mod build_contexts;
mod build_failures;
mod build_layers;
mod build_memory;
mod build_options;
mod checks;
mod dockerfiles;
mod docks_context;
mod docks_shells;
mod docks_ssh;
mod docs;
mod exposed_ports;
mod lab;
mod moves_over;
mod notices;
mod patience;
mod ports;
mod progress;
mod publish;
mod publish_terminal;
mod registry;
mod run_api_socket;
mod run_cut;
mod run_options;
mod run_terminal;
mod run_values;
mod side_by_side;
mod ssh_transport;
mod sync;
mod sync_crashes;
mod transfer;
mod transfer_crashes;
mod transfer_interrupted;
mod transfer_ssh;
mod tunnel;
mod versioneer;
