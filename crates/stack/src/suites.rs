//! The tests of an image.

use serde::{Deserialize, Serialize};

/// Which tests of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TestKind {
    /// Those of all images and of this one, on the engine that built it, before it is pushed.
    Basic,
    /// Those that follow the push.
    Integration,
    /// Those in the image.
    Workflow,
}

impl TestKind {
    /// Its name, as `--kind` takes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Basic => "basic",
            Self::Integration => "integration",
            Self::Workflow => "workflow",
        }
    }
}
