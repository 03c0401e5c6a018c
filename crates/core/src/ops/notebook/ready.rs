//! Waiting until the server in a container that has started is ready.

/// The server that is waited for.
pub struct Awaited<'a> {
    /// The container's ID.
    pub container: &'a str,
    /// Its name, for messages.
    pub name: &'a str,
    /// What serves, on which port inside, and below which path.
    pub label: &'a NotebookLabel,
    pub token: &'a Token,
    /// Where ports are reached from here: published port inside -> port of 127.0.0.1 here. See [`crate::ops::run::ports`].
    pub ports: &'a [ReachedPort],
    /// How long to wait at most; READY_LIMIT where nothing else was asked for.
    pub limit: Duration,
}

pub const READY_LIMIT: Duration = Duration::from_secs(600);

/// A server that answers and takes our token.
pub struct Ready {
    /// The port of 127.0.0.1 here.
    pub port: u16,
    pub base_path: BasePath,
    pub secure: bool,
    /// What its runtime file says, where it could be read.
    pub runtime: Option<RuntimeFile>,
    /// Whether its first page is JupyterLab.
    pub shows_lab: bool,
    /// Sentences to be said as warnings: it asks for no token at all.
    pub warnings: Vec<String>,
}

impl Ready {
    /// `http://127.0.0.1:PORT/lab?token=...`; with a file (its path below the server's root folder), `/lab/tree/PATH?token=...`;
    /// `?token=` alone where it shows something other than lab; without a token for pages.
    pub fn url(&self, file: Option<&str>, token: Option<&Token>) -> String { unimplemented!() }
    /// A client of it.
    pub fn client(&self, token: &Token) -> ServerClient { unimplemented!() }
}

/// Waits; a container that ends meanwhile is an error with its last lines in it.
pub async fn wait(engine: &Engine, awaited: &Awaited<'_>, printer: &Printer) -> Result<Ready> { unimplemented!() }
