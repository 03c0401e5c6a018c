//! The `run-image` command.

dockerutils_core::main!(run_image);
