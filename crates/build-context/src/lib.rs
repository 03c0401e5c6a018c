//! The build context: which files of a folder are sent to the builder, and how.
//!
//! Both builders of the engine take the same files, chosen by `.dockerignore`, in two ways:
//!
//! - BuildKit asks for the list of files first and then for the contents that it lacks ([`walk`]);
//! - the classic builder takes one tar stream of all of them ([`archive`]).
//!
//! [`ignore`] reads and matches `.dockerignore`; [`weight`] tells which entries make a context heavy.
//! Paths inside a context are bytes with `/` between names, as the kernel and both protocols have them.

#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)
)]

pub mod archive;
mod follow;
pub mod ignore;
mod pattern;
mod stand_in;
pub mod walk;
pub mod weight;

pub use archive::{ArchiveError, ArchiveOptions, ExtraFile, write_archive};
pub use ignore::{Builder, PatternError, Patterns};
pub use stand_in::StandIn;
pub use walk::{ContextDir, ContextEntry, FileKind, Selector, Walk, WalkError, WalkOptions};
pub use weight::{Heavy, Weights};
