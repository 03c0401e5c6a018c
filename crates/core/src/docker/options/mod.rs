//! What the options of `docker build` and `docker run` mean.

pub mod build_options;
pub(in crate::docker) mod csv;
pub mod flags;
pub(in crate::docker) mod go_values;
pub mod run_options;
