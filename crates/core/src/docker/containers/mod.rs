//! Containers: made, attached to, asked, and what holds their ports.

pub mod container;
pub mod exec;
pub mod files;
pub mod foreground;
pub mod heard;
pub mod log;
pub mod path_inside;
pub mod port_owner;
pub mod standby;
pub mod terminal;

/// The label of what we create that has the project's name.
pub const LABEL_PROJECT: &str = "io.dockerutils.project";
/// The label with the name of the user who created it.
pub const LABEL_USER: &str = "io.dockerutils.user";
/// The label of a container that serves notebooks or another page: how it is reached.
pub const LABEL_NOTEBOOK: &str = "io.dockerutils.notebook";
/// The label with the path of a notebook server's first page, where another than Jupyter's own is wanted.
pub const LABEL_NOTEBOOK_PAGE: &str = "io.dockerutils.notebook-page";
