//! The two builders of engines, and which one is used.

use crate::docker::connect::engine::{ApiVersion, Engine};
use crate::docker::options::flags::parse_bool;

/// Which builder builds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Builder {
    /// BuildKit, inside the engine.
    BuildKit,
    /// The builder of docker before 23.
    Classic,
}

/// The builder for this engine: BuildKit wherever it exists, unless `DOCKER_BUILDKIT=0` chooses the other.
pub fn builder_of(engine: &Engine, docker_buildkit: Option<&str>) -> Builder {
    let refused = docker_buildkit.is_some_and(|value| parse_bool(value) == Some(false));
    // BuildKit came with API 1.39; engines for Windows don't have it. If an engine since 23 names builder 1, BuildKit
    // is turned off there, while 20.10 names 1 and has BuildKit all the same.
    let turned_off = engine.api() >= ApiVersion(1, 42) && engine.greeting().builder.as_deref() == Some("1");
    if refused || turned_off || engine.api() < ApiVersion(1, 39) || engine.greeting().os == "windows" {
        Builder::Classic
    } else {
        Builder::BuildKit
    }
}
