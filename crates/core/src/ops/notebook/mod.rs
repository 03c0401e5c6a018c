//! Notebook servers in containers: found, waited for, watched, and stopped.

pub mod gpu_check;
pub mod idle;
pub mod label;
pub mod listener;
mod port_here;
pub mod ready;
mod runtime_files;
#[cfg(test)]
mod samples;
pub mod servers;
pub mod stop;
