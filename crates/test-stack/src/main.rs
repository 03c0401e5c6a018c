//! The `test_stack` command.

dockerutils_core::main!(test_stack);
