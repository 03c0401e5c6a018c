//! The `ls-dock` command.

dockerutils_core::main!(ls_dock);
