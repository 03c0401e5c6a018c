//! What a project says of itself: its root, its image types, its `docker/dockerutils.cfg`.

pub mod ini;
pub mod project;
pub mod settings;
pub mod trust;
pub mod variables;
