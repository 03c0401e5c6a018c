//! The candidates for an argument: the answer to a shell's completion, one a line.
//!
//! No process is started and no question is asked for it, and an engine that does not answer soon offers no candidates.

use std::collections::BTreeSet;
use std::time::Duration;

use bollard::query_parameters::{ListImagesOptions, ListNetworksOptions};

use super::CompletionKind;
use crate::config::project::Project;
use crate::docker::connect::endpoint::Endpoint;
use crate::docker::connect::engine::Engine;
use crate::docks::LOCALHOST;
use crate::env::Env;
use crate::ops::docks::environment::monikers;
use crate::output::is_invisible;

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
        CompletionKind::Run | CompletionKind::Publish => types(env, |project| {
            let synthetic = project
                .synthetic_images()
                .iter()
                .filter(|_| kind == CompletionKind::Run);
            let all: BTreeSet<String> = project
                .image_types()
                .iter()
                .chain(synthetic)
                .cloned()
                .chain(project.configured_images().map(str::to_owned))
                .collect();
            all.into_iter().collect()
        }),
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
    };
    // One a line: a name with line breaks or control characters can't be typed.
    words.retain(|word| !word.is_empty() && !word.chars().any(is_invisible));
    words
}

fn types(env: &Env, of: impl FnOnce(&Project) -> Vec<String>) -> Vec<String> {
    let project = std::env::current_dir()
        .ok()
        .and_then(|folder| Project::find(&folder, env).ok());
    project.map(|project| of(&project)).unwrap_or_default()
}

/// Asks the engine of the shell. An agent that does not run is not started for it: that might ask for a passphrase.
fn engine(env: &Env, ask: impl AsyncFnOnce(Engine) -> Option<Vec<String>>) -> Vec<String> {
    let asking = async {
        let engine = Engine::connect_to(Endpoint::choose(env).ok()?).await.ok()?;
        ask(engine).await
    };
    let Ok(runtime) = crate::context::runtime() else {
        return Vec::new();
    };
    let answer = runtime.block_on(async { tokio::time::timeout(LIMIT, asking).await });
    // A request that still waits for the engine is abandoned.
    runtime.shutdown_background();
    answer.ok().flatten().unwrap_or_default()
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
    fn an_engine_that_is_not_there_offers_nothing_and_docks_need_none() {
        let (_home, env) = home();
        assert!(answers(CompletionKind::Networks, 0, &env).is_empty());
        assert_eq!(answers(CompletionKind::Places, 0, &env), ["localhost"]);
        assert!(answers(CompletionKind::Docks, 0, &env).is_empty());
    }
}
