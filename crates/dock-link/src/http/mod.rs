//! HTTP/1.1 on the connections between docker clients and a dock's engine.
//!
//! - `framing`: where one message ends and the next begins;
//! - [`observer`]: which containers are created, from the bytes that pass.

mod framing;
pub mod observer;
