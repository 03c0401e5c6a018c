//! HTTP/1.1 on the connections between docker clients and a dock's engine.
//!
//! - `relay`: reads and writes, and passes what is not held as it comes;
//! - `exchanges`: which bytes are passed, held, changed or answered here, as values without a connection;
//! - [`conversation`]: both directions without sockets, for tests of any bytes;
//! - `engine_stream`: the engine's end, which is opened anew while a request is held;
//! - `hooks`: what decides about requests;
//! - `framing`: where one message ends and the next begins.

pub mod conversation;
mod engine_stream;
mod exchanges;
mod framing;
pub(crate) mod hooks;
pub(crate) mod relay;
