//! The `build-image` command.

dockerutils_core::main!(build_image);
