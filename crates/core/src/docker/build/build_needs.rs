//! What a build's options need of the builder: each option takes effect, or is refused by name, or, where docker's own
//! client just goes on, causes a warning.
//!
//! This follows `docker buildx build` 0.13 and later with the engine's own builder, and `docker build` without
//! BuildKit.

use std::path::Path;

use super::builder::Builder;
use super::request::BuildRequest;
use crate::docker::connect::engine::{ApiVersion, Engine};
use crate::docker::images::image_store::Store;
use crate::docker::options::build_options::{BuildOptions, Need, Needing};
use crate::error::{Error, Result};
use crate::hint;

/// The API of the first engine (23) with a BuildKit that knows limits for its RUNs.
const LIMITS: ApiVersion = ApiVersion(1, 42);

/// What the builder and its engine can do.
#[derive(Clone, Copy, Debug)]
struct Ability {
    builder: Builder,
    api: ApiVersion,
    is_containerd: bool,
}

/// Compares the options with what this engine can do; returns warnings about ignored options.
///
/// # Errors
/// An option that has no effect, a folder that is not there.
pub(in crate::docker) async fn check(engine: &Engine, builder: Builder, request: &BuildRequest) -> Result<Vec<String>> {
    let options = &request.options;
    let needing = options.needing();
    // The engine's store is only queried if it matters.
    let asks_store =
        builder == Builder::BuildKit && needing.iter().any(|needing| needing.need == Need::ContainerdStore);
    let ability = Ability {
        builder,
        api: engine.api(),
        is_containerd: asks_store && Store::is_containerd(&engine.info().await?),
    };
    check_contexts(options, &request.context)?;
    let mut warnings = Vec::new();
    for needing in &needing {
        warnings.extend(answer(needing, ability, &engine.choice().engine())?);
    }
    Ok(warnings)
}

/// The warning or error about an option, if any.
fn answer(Needing { option, need }: &Needing, ability: Ability, engine: &str) -> Result<Option<String>> {
    match (need, ability.builder) {
        (Need::Classic, Builder::BuildKit) => Ok(Some(format!(
            "option {option} is ignored: this engine builds with BuildKit, which does not have it"
        ))),
        (Need::BuildKit | Need::ContainerdStore, Builder::Classic) => Err(Error::usage(format!(
            "option {option} needs BuildKit, but {engine} builds with the classic builder"
        ))
        .hint("unset DOCKER_BUILDKIT, or build on an engine that has BuildKit")),
        (Need::ContainerdStore, Builder::BuildKit) if !ability.is_containerd => Err(Error::usage(format!(
            "option {option} needs containerd's image store, but {engine} has the classic one"
        ))
        .hint(
            "remove the option, or turn that store on in the engine's /etc/docker/daemon.json (engine 24 or later): \
             {\"features\": {\"containerd-snapshotter\": true}}",
        )),
        (Need::Limits, Builder::BuildKit) if ability.api < LIMITS => Ok(Some(format!(
            "option {option} is ignored: this engine is older than 23, and its BuildKit does not have it"
        ))),
        _ => Ok(None),
    }
}

/// A named context without a folder would be an empty one.
fn check_contexts(options: &BuildOptions, root: &Path) -> Result<()> {
    for (name, place) in options.contexts.iter().filter(|(_, place)| is_folder(place)) {
        let path = root.join(place);
        if !path.is_dir() {
            return Err(Error::usage(format!(
                "option --build-context {name}={place} leads nowhere: {} is not a folder",
                path.display()
            ))
            .hint(hint!(
                "name a folder, as seen from {}, or docker-image://REFERENCE",
                root.display()
            )));
        }
    }
    Ok(())
}

/// Whether a named context is a folder of this machine.
pub fn is_folder(place: &str) -> bool {
    !place.contains("://") && !place.starts_with("git@") && !place.starts_with("target:")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::Env;

    const OLD: ApiVersion = ApiVersion(1, 41);
    const NEW: ApiVersion = ApiVersion(1, 45);

    /// The outcome for each option: none, a warning, or an error.
    fn said(words: &str, builder: Builder, api: ApiVersion, is_containerd: bool) -> Vec<&'static str> {
        let words: Vec<String> = words.split(' ').map(str::to_owned).collect();
        let options = BuildOptions::parse(&words, Path::new("/"), &Env::default()).unwrap();
        let ability = Ability {
            builder,
            api,
            is_containerd,
        };
        let needing = options.needing();
        needing
            .iter()
            .map(|needing| match answer(needing, ability, "the engine") {
                Ok(None) => "",
                Ok(Some(warning)) => {
                    assert!(warning.contains(&needing.option), "{warning}");
                    "warning"
                }
                Err(error) => {
                    assert!(error.to_string().contains(&needing.option), "{error}");
                    assert!(error.hint_text().is_some(), "{error}");
                    "error"
                }
            })
            .collect()
    }

    #[test]
    fn what_is_asked_for_is_done_or_refused_or_said() {
        use Builder::{BuildKit, Classic};
        let classic_only = "--memory 1g --memory-swap 2g -c 2 --cpu-period 1 --cpu-quota 1 --cpuset-cpus 0 --cpuset-mems 0 \
                            --security-opt a --squash --isolation process";
        assert_eq!(said(classic_only, BuildKit, NEW, false), ["warning"; 10]);
        assert_eq!(said(classic_only, Classic, NEW, false), [""; 10]);
        let buildkit_only = "--cache-to type=inline --no-cache-filter a --metadata-file m --allow network.host \
                             --cache-from type=local,src=x --build-context a=https://b/c";
        assert_eq!(said(buildkit_only, BuildKit, OLD, false), [""; 6]);
        assert_eq!(said(buildkit_only, Classic, NEW, false), ["error"; 6]);
        for option in [
            "--sbom=true",
            "--attest type=sbom",
            "--provenance=true",
            "--provenance=mode=max",
            "--annotation a=b",
            "--cache-to type=registry,ref=x",
            "--cache-to x",
            "--platform linux/amd64,linux/arm64",
        ] {
            assert_eq!(said(option, BuildKit, NEW, false), ["error"], "{option}");
            assert_eq!(said(option, BuildKit, NEW, true), [""], "{option}");
            assert_eq!(said(option, Classic, NEW, false), ["error"], "{option}");
        }
        let limits = "--shm-size 1m --ulimit core=0 --cgroup-parent x";
        assert_eq!(said(limits, BuildKit, OLD, false), ["warning"; 3]);
        assert_eq!(said(limits, BuildKit, NEW, false), [""; 3]);
        assert_eq!(said(limits, Classic, OLD, false), [""; 3]);
        for option in [
            "--sbom=false",
            "--provenance=true --provenance=false",
            "--attest type=sbom,disabled=true",
            "--platform linux/amd64",
            "--cache-from a,b",
            "--isolation default",
            "--squash=false",
        ] {
            for builder in [BuildKit, Classic] {
                assert!(said(option, builder, OLD, false).is_empty(), "{option}");
            }
        }
    }

    #[test]
    fn a_context_that_leads_nowhere_is_named() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("there")).unwrap();
        std::fs::write(folder.path().join("file"), "").unwrap();
        for (place, is_right) in [
            ("there", true),
            (".", true),
            ("docker-image://x", true),
            ("https://example.org/x.git", true),
            ("nowhere", false),
            ("file", false),
        ] {
            let words = ["--build-context".to_owned(), format!("name={place}")];
            let options = BuildOptions::parse(&words, folder.path(), &Env::default()).unwrap();
            let checked = check_contexts(&options, folder.path());
            assert_eq!(checked.is_ok(), is_right, "{place}: {checked:?}");
        }
    }
}
