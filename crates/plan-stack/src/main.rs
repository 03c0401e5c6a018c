//! The `plan_stack` command.

dockerutils_core::main!(plan_stack);
