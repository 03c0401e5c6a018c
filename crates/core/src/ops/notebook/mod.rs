//! Notebook servers in containers: planned, started, found, waited for, watched, and stopped.
//!
//! [`start()`] goes from a [`plan`] (of the image's [kind](image_kind) and the files' [owner]) to a server that answers.

mod foreground;
pub mod gpu_check;
mod home_content;
mod hub_home;
pub mod idle;
pub mod image_kind;
pub mod label;
pub mod listener;
mod management;
pub mod owner;
pub mod plan;
mod port_here;
pub mod ready;
mod runtime_files;
#[cfg(test)]
mod samples;
pub mod servers;
mod start;
mod start_script;
pub mod stop;

pub use management::{list, stop};
pub use plan::NotebookArgs;
pub use start::start;
pub use start_script::print_start_files;
