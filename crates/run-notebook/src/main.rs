//! The `run-notebook` command.

dockerutils_core::main!(run_notebook);
