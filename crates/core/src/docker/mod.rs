//! The engine: which one, how it is reached, and what is asked of it.

pub mod build;
pub mod connect;
pub mod containers;
pub mod images;
pub mod options;
