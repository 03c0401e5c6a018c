//! What the tests of every crate share, and `xtask` with them.
//!
//! - [`Sandbox`]: a temporary home and project in which one of our commands runs.
//! - [`ScriptedEngine`]: a Docker engine that answers as the test tells it to, and records the requests.
//! - [`ScriptedRegistry`]: a registry that keeps what is written, and misbehaves when it is told to.
//! - [`Terminal`]: a program at a terminal.
//! - [`lab`]: real engines, old and new, with both image stores.
//! - [`SshHome`]: the part of a home that OpenSSH's client reads.
//! - [`Browser`]: a headless Chromium, and JupyterLab in it.
//! - [`free_port`]: a port that no other test has.
//! - [`SlowLink`]: a slow link to an address, which can be cut.
//! - [`registry`]: a real registry, with passwords and TLS.
//! - [`oras`]: the client of OCI artifacts.
//! - [`local_engine`]: the machine's own engine, set up if there is none.
//! - [`option_line`]: the lines of differential tests.
//! - [`Random`]: numbers that a seed repeats.
//! - [`wait`]: waits for events, however slow the machine is.
//! - [`mutex`]: locks that a panic elsewhere does not spoil.
//! - [`machine`] and [`process`]: how the lab and `xtask` install packages and run programs.
//!
//! ```no_run
//! use dockerutils_test_support::{Reply, Sandbox, ScriptedEngine};
//!
//! let engine = ScriptedEngine::start().on("GET", "/images/web:me/json", Reply::error(500, "disk on fire"));
//! let sandbox = Sandbox::new().file("docker/web/Dockerfile", "FROM scratch\n");
//! sandbox
//!     .command("run-image")
//!     .arg("web")
//!     .engine(&engine)
//!     .code(125)
//!     .stderr_has("disk on fire")
//!     .run();
//! ```

mod browser;
pub mod http;
pub mod lab;
pub mod local_engine;
pub mod machine;
pub mod mutex;
pub mod option_line;
pub mod oras;
mod port;
pub mod process;
mod random;
pub mod registry;
mod sandbox;
mod scripted_engine;
mod scripted_registry;
mod slow_link;
mod ssh_home;
mod terminal;
pub mod wait;

pub use browser::{Browser, Element};
pub use port::free_port;
pub use random::Random;
pub use sandbox::{Invocation, Outcome, Running, Sandbox, binary};
pub use scripted_engine::{Recorded, Reply, ScriptedEngine};
pub use scripted_registry::{Interference, Misbehaviour, RegistryStore, ScriptedRegistry};
pub use slow_link::SlowLink;
pub use ssh_home::SshHome;
pub use terminal::Terminal;
