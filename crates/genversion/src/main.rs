//! The `genversion` command.

dockerutils_core::main!(genversion);
