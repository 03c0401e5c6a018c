//! What a project says of itself: its root, its image types, its `docker/dockerutils.cfg`; and what the user says of all projects.

pub mod ini;
pub mod own;
pub mod project;
pub mod settings;
pub mod trust;
pub mod variables;
