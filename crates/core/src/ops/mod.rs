//! The use cases behind the commands. Each makes a plan, which is a value that can be printed, and then carries it out.

pub mod build;
mod caches;
pub mod check;
pub mod docks;
pub mod genversion;
pub mod layers;
pub mod notebook;
pub mod publish;
pub mod run;
mod run_records;
pub mod sync;
pub mod transfer;
