//! What containers mount of this machine, as clients say it, and what becomes of it on the dock.
//!
//! - `notices`: reports containers that mount a path of the dock where one of this machine was meant.

mod notices;

pub(crate) use notices::{Mounts, Seen};
