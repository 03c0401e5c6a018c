//! The `tag_stack` command.

dockerutils_core::main!(tag_stack);
