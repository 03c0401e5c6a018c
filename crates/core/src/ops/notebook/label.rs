//! The label by which a notebook's container is found again.

use std::fmt;

/// What serves in the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerKind {
    /// A Jupyter server, with a token of ours.
    Jupyter,
    /// Something with web pages: RStudio, or what `--port` and `--path` say.
    Page,
}

/// What the label `io.dockerutils.notebook` says: `jupyter:8888`, or `page:8787/path`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotebookLabel {
    pub kind: ServerKind,
    /// The port inside the container that is published.
    pub port: u16,
    /// The path of the first page, with its slash in front; for [`ServerKind::Jupyter`] the base path as far as it is known.
    pub path: String,
}

impl NotebookLabel {
    /// Parses the label's value; `None` if it is not ours.
    pub fn parse(value: &str) -> Option<Self> { unimplemented!() }
}

impl fmt::Display for NotebookLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { unimplemented!() }
}
