//! Containers: made, attached to, and what holds their ports.

pub mod container;
pub mod foreground;
pub mod heard;
pub mod port_owner;
pub mod terminal;
