//! Notebook servers in containers: found, waited for, watched, and stopped.

pub mod gpu_check;
pub mod idle;
pub mod label;
pub mod listener;
pub mod ready;
pub mod servers;
pub mod stop;
