//! The `build_stack` command.

dockerutils_core::main!(build_stack);
