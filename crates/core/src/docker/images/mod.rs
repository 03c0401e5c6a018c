//! Images: pulled, pushed, read, loaded and saved.

pub(in crate::docker) mod bounded_tar;
pub mod content_store;
pub mod image;
pub mod image_archive;
pub mod image_history;
pub mod image_load;
pub mod image_save;
pub mod image_store;
pub mod manifest;
pub mod push;
pub mod unpacking;
pub mod verdict;
