//! The label by which a notebook's container is found again, and what is known of the server in it before it runs.

use std::fmt;

use crate::jupyter::base_path::BasePath;

/// The longest value that is taken from an engine, in bytes.
const LONGEST: usize = 2048;

/// What serves in a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerKind {
    /// A Jupyter server.
    Jupyter,
    /// Something else with web pages: RStudio, or what the user said.
    Page,
}

/// The value of the label `io.dockerutils.notebook`: `jupyter:8888/`, or `page:8787/path`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotebookLabel {
    pub kind: ServerKind,
    /// The port inside the container that is published for it.
    pub port: u16,
    /// The base path of a Jupyter server, as far as it is known before the server says it; or the path of the first page.
    pub path: String,
}

impl NotebookLabel {
    /// The label of a Jupyter server that is expected on this port, below `/`.
    pub fn jupyter(port: u16) -> Self {
        Self {
            kind: ServerKind::Jupyter,
            port,
            path: "/".to_owned(),
        }
    }

    /// The label of something with web pages, the first of them at this path; a slash in front is added.
    pub fn page(port: u16, path: &str) -> Self {
        Self {
            kind: ServerKind::Page,
            port,
            path: format!("/{}", path.trim_start_matches('/')),
        }
    }

    /// Parses the label's value; `None` if it is not ours, or would lead elsewhere than to the port.
    pub fn parse(value: &str) -> Option<Self> {
        let (kind, rest) = value.split_once(':').filter(|_| value.len() <= LONGEST)?;
        let kind = match kind {
            "jupyter" => ServerKind::Jupyter,
            "page" => ServerKind::Page,
            _ => return None,
        };
        let (port, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let port = port.parse().ok().filter(|port| *port > 0)?;
        let path = if path.is_empty() { "/" } else { path };
        let is_sound = match kind {
            ServerKind::Jupyter => BasePath::parse(path).is_some(),
            ServerKind::Page => is_page(path),
        };
        is_sound.then(|| Self {
            kind,
            port,
            path: path.to_owned(),
        })
    }

    /// The base path that a Jupyter server is expected to have.
    pub(super) fn base_path(&self) -> BasePath {
        BasePath::parse(&self.path).unwrap_or_default()
    }
}

impl fmt::Display for NotebookLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            ServerKind::Jupyter => "jupyter",
            ServerKind::Page => "page",
        };
        write!(f, "{kind}:{}{}", self.port, self.path)
    }
}

/// Whether this is the path of a page, perhaps with a query: `/vnc.html?autoconnect=1`.
fn is_page(path: &str) -> bool {
    path.starts_with('/')
        && !path.starts_with("//")
        && path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_read_as_it_was_written() {
        for (label, text) in [
            (NotebookLabel::jupyter(8888), "jupyter:8888/"),
            (NotebookLabel::page(8787, ""), "page:8787/"),
            (NotebookLabel::page(6080, "vnc.html?a=b"), "page:6080/vnc.html?a=b"),
        ] {
            assert_eq!(label.to_string(), text);
            assert_eq!(NotebookLabel::parse(text), Some(label));
        }
        assert_eq!(NotebookLabel::parse("jupyter:8888"), Some(NotebookLabel::jupyter(8888)));
        let based = NotebookLabel::parse("jupyter:1/user/ann").unwrap();
        assert_eq!(based.base_path().as_str(), "/user/ann/");
    }

    #[test]
    fn anothers_label_is_not_ours() {
        for value in [
            "",
            "8888",
            "vnc:1/",
            "jupyter:0/",
            "jupyter:65536/",
            "jupyter:1//evil/",
            "page:1//evil/",
            "page:1/a b",
            "page:1/\\\\evil",
            "page:1@evil/",
            "page:/",
        ] {
            assert_eq!(NotebookLabel::parse(value), None, "{value:?}");
        }
    }
}
