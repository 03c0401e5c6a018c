//! What is to be started, as a value.

use sha2::{Digest as _, Sha256};

use super::DockNotebookArgs;
use super::remote::StartRequest;
use crate::agent::paths::state_directory;
use crate::config::project::Project;
use crate::context::Context;
use crate::docks::Dock;
use crate::error::{Error, Result};
use crate::hexadecimal::{hex, is_hex};
use crate::hint;
use crate::output::visible;
use crate::shell;
use dock_client::sync_memory;

/// How many bytes of the hash form a key.
const KEY: usize = 8;

/// A server on a dock, and how it is reached from here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DockNotebookPlan {
    /// The dock's moniker.
    pub(super) moniker: String,
    pub(super) request: StartRequest,
    /// The port here that was asked for.
    pub(super) port: Option<u16>,
    /// The project around the working directory, if the dock has no copy of it.
    pub(super) not_synced: Option<String>,
}

impl DockNotebookPlan {
    /// The server of the project around the working directory if the dock has a copy of that, else of the home there.
    ///
    /// # Errors
    /// Words that can't be handed on, and a project of another user.
    pub(super) fn of(context: &Context, dock: &Dock, args: &DockNotebookArgs) -> Result<Self> {
        let (mut directory, mut not_synced) = (None, None);
        // Where there is no project, there is no workspace either; what is wrong with one that is there, a sync says.
        if let Ok(project) = Project::find_or_repository(&context.working_dir, &context.env) {
            let state = state_directory(&context.env);
            directory =
                sync_memory::workspace(&state, project.root(), &dock.moniker).filter(|path| path.starts_with('/'));
            if directory.is_none() {
                not_synced = Some(project.name());
            }
        }
        let launch = match &args.launch {
            Some(line) => launch_words(line)?,
            None => Vec::new(),
        };
        let environment = args.environment.clone().filter(|name| !name.is_empty());
        let all = launch
            .iter()
            .chain(&args.arguments)
            .chain(&environment)
            .chain(&directory);
        if let Some(word) = all.into_iter().find(|word| word.contains(['\n', '\r', '\0'])) {
            return Err(Error::usage(format!(
                "{:?} has a line feed in it, which can't be handed on to JupyterLab",
                visible(word)
            ))
            .hint("put it into a file of jupyter's configuration on the dock"));
        }
        let key = key(
            &context.env.user(),
            directory.as_deref(),
            environment.as_deref(),
            &launch,
        );
        Ok(Self {
            moniker: dock.moniker.clone(),
            request: StartRequest {
                key,
                directory,
                environment,
                launch,
                arguments: args.arguments.clone(),
            },
            port: args.port,
            not_synced,
        })
    }

    /// The command on the dock, as it can be typed. It listens on a socket there besides, whose path is chosen there.
    pub(super) fn line(&self) -> String {
        let program = match &self.request.environment {
            Some(environment) if environment.contains('/') => format!("{environment}/bin/jupyter-lab"),
            _ => "jupyter-lab".to_owned(),
        };
        let words = self
            .request
            .launch
            .iter()
            .cloned()
            .chain([program, "--no-browser".to_owned()]);
        let mut line = shell::join(words.chain(self.request.arguments.iter().cloned()));
        if let Some(directory) = &self.request.directory {
            line = format!("cd {} && {line}", shell::quote(directory));
        }
        shell::join(["ssh-dock", &self.moniker, &line])
    }
}

/// The words of `--launch`.
fn launch_words(line: &str) -> Result<Vec<String>> {
    let words = shell::split(line).map_err(|cause| {
        Error::usage(format!("--launch {line:?} can't be split into words"))
            .because(cause)
            .hint("it takes a command in one word: --launch 'srun --gres=gpu:1'")
    })?;
    match words.is_empty() {
        true => Err(Error::usage("--launch names no command").hint(hint!("nb-dock --launch {}", "srun --gres=gpu:1"))),
        false => Ok(words),
    }
}

/// Whether this can be a key: it comes back from the dock, and names a file here.
pub(super) fn is_key(text: &str) -> bool {
    is_hex(text, 2 * KEY)
}

/// The name of a server on the dock: a second call with the same finds it. Several users here may share the user there, and each
/// has servers of their own.
fn key(user: &str, directory: Option<&str>, environment: Option<&str>, launch: &[String]) -> String {
    let mut text = Vec::new();
    let parts = [user, directory.unwrap_or_default(), environment.unwrap_or_default()];
    for part in parts.into_iter().chain(launch.iter().map(String::as_str)) {
        text.extend_from_slice(part.as_bytes());
        text.push(0);
    }
    hex(Sha256::digest(&text).get(..KEY).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_user_place_environment_and_launcher_has_a_server_of_its_own() {
        let launch = ["srun".to_owned()];
        let keys = [
            key("ann", None, None, &[]),
            key("bob", None, None, &[]),
            key("ann", Some("/data"), None, &[]),
            key("ann", None, Some("/data"), &[]),
            key("ann", None, None, &launch),
        ];
        for (at, one) in keys.iter().enumerate() {
            assert!(is_key(one), "{one}");
            assert!(!keys.iter().skip(at + 1).any(|other| other == one), "{keys:?}");
        }
        assert_eq!(key("ann", None, None, &[]), keys[0]);
    }

    #[test]
    fn the_plan_is_a_line_to_type() {
        let plan = DockNotebookPlan {
            moniker: "far".into(),
            request: StartRequest {
                key: "k".into(),
                directory: Some("/data/my app".into()),
                environment: Some("torch".into()),
                launch: launch_words("srun --gres=gpu:1").unwrap(),
                arguments: vec!["--LabApp.collaborative=True".into()],
            },
            port: None,
            not_synced: None,
        };
        assert_eq!(
            plan.line(),
            "ssh-dock far \"cd '/data/my app' && srun --gres=gpu:1 jupyter-lab --no-browser --LabApp.collaborative=True\""
        );
        for bad in ["", "'"] {
            assert!(launch_words(bad).unwrap_err().hint_text().unwrap().contains("--launch"));
        }
    }
}
