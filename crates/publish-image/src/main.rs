//! The `publish-image` command.

dockerutils_core::main!(publish_image);
