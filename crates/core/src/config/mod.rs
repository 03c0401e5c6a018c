//! The configuration of a project: its root, its image types, its `docker/dockerutils.cfg`; and the user's own for all
//! projects.

pub mod ini;
pub mod own;
pub mod project;
pub mod settings;
pub mod stack;
pub mod trust;
pub mod variables;
