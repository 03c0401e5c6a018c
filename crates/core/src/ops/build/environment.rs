//! Where the builds of a plan happen.

use std::path::PathBuf;
use std::sync::Arc;

use crate::docker::build::builder::Builder;
use crate::docker::connect::client_config::ClientConfig;
use crate::docker::connect::engine::Engine;
use crate::docker::connect::locality::Locality;
use crate::env::Env;
use crate::output::Printer;

/// Where builds happen.
pub(super) struct BuildEnvironment {
    pub(super) engine: Engine,
    pub(super) locality: Locality,
    pub(super) builder: Builder,
    pub(super) config: Arc<ClientConfig>,
    pub(super) root: PathBuf,
    pub(super) env: Env,
    pub(super) printer: Printer,
    /// BUILDKIT_PROGRESS.
    pub(super) progress: Option<String>,
    /// The variables that lead a script's docker to the engine of `--dock`; none without it.
    pub(super) docker_variables: Vec<(&'static str, String)>,
}
