//! The `dock-env` program.

dockerutils_core::main!(dock_env);
