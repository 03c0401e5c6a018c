//! See the library.

dockerutils_core::main!(sync_up);
