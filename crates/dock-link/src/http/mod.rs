//! HTTP/1.1 on the connections between docker clients and a dock's engine.
//!
//! - [`observer`]: which containers are created, from the bytes that pass.

pub mod observer;
