//! The `transfer-image` command.

dockerutils_core::main!(transfer_image);
