//! The `unregister-dock` command.

dockerutils_core::main!(unregister_dock);
