//! The `register-dock` command.

dockerutils_core::main!(register_dock);
