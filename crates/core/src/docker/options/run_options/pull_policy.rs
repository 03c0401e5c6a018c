//! When the engine pulls the image of a container: docker's `--pull`.

/// When to pull the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PullPolicy {
    /// Before each run.
    Always,
    /// When the engine doesn't have it.
    #[default]
    Missing,
    /// Not at all.
    Never,
}

impl PullPolicy {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        match text {
            "always" => Ok(Self::Always),
            "missing" => Ok(Self::Missing),
            // docker accepts the empty word, and then never pulls.
            "never" | "" => Ok(Self::Never),
            _ => Err("is not one of always, missing and never".to_owned()),
        }
    }
}
