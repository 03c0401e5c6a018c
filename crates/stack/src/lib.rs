//! Stacks: families of images that depend on each other, and are built, tested and published together.
//!
//! - [`artifacts`] says where the results of a run lie;
//! - [`spec`] reads what a repository says about its stack, in `spec.yml` and `change_ignore.json`;
//! - [`graph`] has the images and their directories, in the order of their builds;
//! - [`tags`] names them, and gives a child what leads to its parent;
//! - [`input_digest`] is a digest of all that a build depends on;
//! - [`history`] is what git and CI say;
//! - [`plan`] puts them together, as a function of values: what is built, copied, tested again or left alone, and why;
//! - [`registry_state`] asks registries what they hold, and [`tag_list`] says which tags are whose;
//! - [`manifests`] describes images: their layers, packages, what differs from the one before;
//! - [`summary`] is what CI shows of a plan or a run;
//! - [`suites`] runs the tests of an image;
//! - [`verdicts`] travel with an image: what its tests said, signed where there is a key;
//! - [`promotion`] gives all images another tag, when they proved good;
//! - [`planning`] reads all of these and makes the plan; it is what the command plan-stack does;
//! - [`building`] carries a plan out: what the command build-stack does. [`pending_tests`] remembers what was pushed before its
//!   tests ended;
//! - [`current`] is a stack as it is checked out, with the names of its images;
//! - `ownership` says whose stacks are used;
//! - [`testing`] is what the command test-stack does, and [`run_reference`] says which image of a stack run-image and run-notebook
//!   are asked for.

#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)
)]

pub mod artifacts;
pub mod building;
pub mod current;
pub mod graph;
pub mod history;
pub mod input_digest;
pub mod manifests;
mod ownership;
pub mod pending_tests;
pub mod plan;
pub mod planning;
pub mod promotion;
pub mod registry_state;
pub mod run_reference;
pub mod spec;
pub mod suites;
pub mod summary;
pub mod tag_list;
pub mod tags;
pub mod testing;
pub mod verdicts;
