//! The notebook servers of this user on an engine.

/// A server, as `--json` shows it.
#[derive(Serialize)]
pub struct NotebookServer {
    pub url: Option<String>,
    pub token: Option<String>,
    pub container: String,
    pub dock: Option<String>,
    pub image: String,
    /// The port of 127.0.0.1 here.
    pub port: Option<u16>,
    pub started: Option<String>,
    pub idle_seconds: Option<u64>,
    pub kernels: Option<u32>,
    pub connections: Option<u32>,
    pub error: Option<String>,
}

/// A running container with our label.
pub struct FoundNotebook { pub id: String, pub name: String, pub image: String, pub project: Option<String>, pub label: NotebookLabel, pub token: Option<Token>, /* published ports, started */ }

/// Those of this user, of one project or of all; newest first.
pub async fn find(engine: &Engine, user: &str, project: Option<&str>) -> Result<Vec<FoundNotebook>> { unimplemented!() }
/// Asks one how it is; an error of it is a field, so that others are shown all the same.
pub async fn describe(context: &Context, engine: &Engine, local: bool, found: &FoundNotebook) -> NotebookServer { unimplemented!() }
/// Its client and where it is reached, for a second run-notebook and for stop.
pub async fn reach(context: &Context, engine: &Engine, local: bool, found: &FoundNotebook) -> Result<Ready> { unimplemented!() }
