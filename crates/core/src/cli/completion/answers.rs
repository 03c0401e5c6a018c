//! The candidates for an argument: the answer to a shell's completion, one a line.
//!
//! No process is started and no question is asked for it, and an engine that does not answer soon offers no candidates.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use bollard::query_parameters::{ListImagesOptions, ListNetworksOptions};

use super::CompletionKind;
use crate::cli::{Context, GlobalArgs};
use crate::config::project::Project;
use crate::config::stack;
use crate::docker::connect::endpoint::Endpoint;
use crate::docker::connect::engine::Engine;
use crate::docks::LOCALHOST;
use crate::env::Env;
use crate::ops::docks::environment::monikers;
use crate::ops::notebook::servers;
use crate::ops::run::attachable;
use crate::ops::sync::restore;
use crate::output::{Printer, Verbosity, is_invisible};

/// How long an engine may take: the user has pressed the Tab key, and waits.
const LIMIT: Duration = Duration::from_secs(2);
/// At most this much of the user's ssh configuration is read, in bytes.
const CONFIG_LIMIT: usize = 1024 * 1024;

/// The candidates; `before` words of the same kind are on the command line already. What can't be found out is left
/// out.
pub(super) fn answers(kind: CompletionKind, before: usize, env: &Env) -> Vec<String> {
    let docks = || monikers(env).unwrap_or_default();
    let mut words = match kind {
        CompletionKind::Docks => docks(),
        CompletionKind::Places => docks().into_iter().chain([LOCALHOST.to_owned()]).collect(),
        CompletionKind::Build => types(env, |project| {
            let own = project.image_types().iter().cloned();
            own.chain(["all", "clean"].map(str::to_owned)).collect()
        }),
        CompletionKind::Publish => types(env, |project| {
            let all: BTreeSet<String> = named(project).collect();
            all.into_iter().collect()
        }),
        CompletionKind::Run => {
            let own = types(env, |project| {
                named(project)
                    .chain(project.synthetic_images().iter().cloned())
                    .collect()
            });
            let all: BTreeSet<String> = own.into_iter().chain(of_stack(env)).collect();
            all.into_iter().collect()
        }
        CompletionKind::Stack | CompletionKind::Opened => of_stack(env),
        CompletionKind::Transfer => {
            let mut words = types(env, |project| project.image_types().to_vec());
            words.extend(engine(env, images));
            // The first argument can't be the destination, which is the last one.
            if before > 0 {
                words.extend(answers(CompletionKind::Places, 0, env));
            }
            words
        }
        CompletionKind::Networks => engine(env, networks),
        // A host, and then a new name for it.
        CompletionKind::Hosts if before == 0 => hosts(env),
        CompletionKind::Hosts => Vec::new(),
        CompletionKind::Contexts => contexts(env),
        CompletionKind::Attachable => match project(env) {
            Some(project) => engine(env, async |engine: Engine| {
                attachable(&engine, env, &project).await.ok()
            }),
            None => Vec::new(),
        },
        CompletionKind::Notebooks => engine(env, async |engine: Engine| {
            let found = servers::find(&engine, &env.user(), None).await.ok()?;
            Some(found.into_iter().map(|notebook| notebook.name).collect())
        }),
        CompletionKind::KeptHere | CompletionKind::KeptThere => kept(kind, env).unwrap_or_default(),
    };
    // One a line: a name with line breaks or control characters can't be typed.
    words.retain(|word| !word.is_empty() && !word.chars().any(is_invisible));
    words
}

fn project(env: &Env) -> Option<Project> {
    let folder = std::env::current_dir().ok()?;
    Project::find(&folder, env).ok()
}

fn types(env: &Env, of: impl FnOnce(&Project) -> Vec<String>) -> Vec<String> {
    project(env).map(|project| of(&project)).unwrap_or_default()
}

/// The image types of a project, and the images that its configuration names.
fn named(project: &Project) -> impl Iterator<Item = String> {
    let types = project.image_types().iter().cloned();
    types.chain(project.configured_images().map(str::to_owned))
}

/// The images of the stack. Only its file is read: no registry is asked.
fn of_stack(env: &Env) -> Vec<String> {
    let folder = std::env::current_dir();
    folder
        .map(|folder| stack::image_names(&folder, env))
        .unwrap_or_default()
}

/// The paths that `--restore` can bring back, as they are named from the working directory.
fn kept(kind: CompletionKind, env: &Env) -> Option<Vec<String>> {
    let printer = Printer::new("sync-down", Verbosity::Quiet, false, env);
    let working_dir = std::env::current_dir().ok()?;
    let context = Context::new(env.clone(), working_dir, printer, GlobalArgs::default(), None);
    let project = Project::find(&context.working_dir, env).ok()?;
    let paths = match kind {
        CompletionKind::KeptThere => within(async { restore::kept_there(&context, &project).await.ok() })?,
        _ => restore::kept_here(&context, &project).ok()?,
    };
    let inside = context.working_dir.strip_prefix(project.root()).ok()?;
    Some(
        paths
            .iter()
            .filter_map(|path| from_below(inside, Path::new(std::str::from_utf8(path).ok()?)))
            .collect(),
    )
}

/// A path of a project, as it is named from a folder of it.
fn from_below(folder: &Path, path: &Path) -> Option<String> {
    let (mut folder, mut rest) = (folder.components().peekable(), path.components().peekable());
    while folder.peek().is_some() && folder.peek() == rest.peek() {
        folder.next();
        rest.next();
    }
    let up = folder.map(|_| Component::ParentDir);
    let named: PathBuf = up.chain(rest).collect();
    named.into_os_string().into_string().ok()
}

/// Asks the engine of the shell. An agent that does not run is not started for it: that might ask for a passphrase.
fn engine(env: &Env, ask: impl AsyncFnOnce(Engine) -> Option<Vec<String>>) -> Vec<String> {
    let asking = async {
        let engine = Engine::connect_to(Endpoint::choose(env).ok()?).await.ok()?;
        ask(engine).await
    };
    within(asking).unwrap_or_default()
}

/// The answer, if it comes within [`LIMIT`].
fn within<T>(asking: impl Future<Output = Option<T>>) -> Option<T> {
    let runtime = crate::context::runtime().ok()?;
    let answer = runtime.block_on(async { tokio::time::timeout(LIMIT, asking).await });
    // A request that still waits for the engine is abandoned.
    runtime.shutdown_background();
    answer.ok().flatten()
}

async fn images(engine: Engine) -> Option<Vec<String>> {
    let images = engine.docker().list_images(None::<ListImagesOptions>).await.ok()?;
    let tags = images.into_iter().flat_map(|image| image.repo_tags);
    Some(tags.filter(|tag| !tag.contains('<')).collect())
}

async fn networks(engine: Engine) -> Option<Vec<String>> {
    let networks = engine.docker().list_networks(None::<ListNetworksOptions>).await.ok()?;
    Some(networks.into_iter().filter_map(|network| network.name).collect())
}

/// The `Host` names of `~/.ssh/config`, without those of included files.
fn hosts(env: &Env) -> Vec<String> {
    let mut text = std::fs::read(env.home().join(".ssh/config")).unwrap_or_default();
    text.truncate(CONFIG_LIMIT);
    let text = String::from_utf8_lossy(&text);
    let names = text.lines().filter_map(|line| {
        let (keyword, names) = line.trim().split_once([' ', '\t', '='])?;
        keyword.eq_ignore_ascii_case("host").then_some(names)
    });
    names
        .flat_map(str::split_whitespace)
        .filter(|name| !name.contains(['*', '?', '!', '"', '=']))
        .map(str::to_owned)
        .collect()
}

/// The names of docker's contexts.
fn contexts(env: &Env) -> Vec<String> {
    let metas = std::fs::read_dir(env.docker_config_dir().join("contexts/meta"));
    let mut names: Vec<String> = metas
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let text = std::fs::read(entry.path().join("meta.json")).ok()?;
            let document: serde_json::Value = serde_json::from_slice(&text).ok()?;
            document.get("Name")?.as_str().map(str::to_owned)
        })
        .collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home() -> (tempfile::TempDir, Env) {
        let home = tempfile::tempdir().unwrap();
        let env = Env::from_pairs([
            ("HOME", home.path().to_str().unwrap()),
            ("DOCKER_HOST", "unix:///nowhere.sock"),
        ]);
        (home, env)
    }

    #[test]
    fn hosts_are_those_of_the_user_s_file_without_patterns() {
        let (home, env) = home();
        std::fs::create_dir(home.path().join(".ssh")).unwrap();
        std::fs::write(
            home.path().join(".ssh/config"),
            "Host gpu-1 *.example.com\n  HostName x\nhost=box\n# Host no\nHost !bad t\u{7}b\nMatch host other\n",
        )
        .unwrap();
        assert_eq!(answers(CompletionKind::Hosts, 0, &env), ["gpu-1", "box"]);
        assert!(answers(CompletionKind::Hosts, 1, &env).is_empty());
    }

    #[test]
    fn what_is_kept_is_named_from_where_one_is() {
        for (folder, path, expected) in [
            ("", "src/a.py", "src/a.py"),
            ("src", "src/a.py", "a.py"),
            ("src/pkg", "src/a.py", "../a.py"),
            ("docs", "src/a.py", "../src/a.py"),
        ] {
            let named = from_below(Path::new(folder), Path::new(path));
            assert_eq!(named.as_deref(), Some(expected), "{folder:?} {path}");
        }
    }

    #[test]
    fn an_engine_that_is_not_there_offers_nothing_and_docks_need_none() {
        let (_home, env) = home();
        assert!(answers(CompletionKind::Networks, 0, &env).is_empty());
        assert_eq!(answers(CompletionKind::Places, 0, &env), ["localhost"]);
        assert!(answers(CompletionKind::Docks, 0, &env).is_empty());
    }
}
