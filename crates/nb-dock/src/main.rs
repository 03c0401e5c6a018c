//! The `nb-dock` command.

dockerutils_core::main!(nb_dock);
