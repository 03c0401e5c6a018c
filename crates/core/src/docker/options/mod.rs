//! What the options of `docker build` and `docker run` mean.

pub mod build_options;
pub(in crate::docker) mod csv;
pub mod flags;
pub(crate) mod go_values;
pub mod run_options;
