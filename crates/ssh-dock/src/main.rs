//! The `ssh-dock` command.

dockerutils_core::main!(ssh_dock);
