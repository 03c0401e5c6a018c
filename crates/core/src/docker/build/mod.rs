//! One build of one Dockerfile on an engine: its request, its events, its result.
//!
//! There are two builders: [`crate::docker::build::buildkit`] if the engine has it, else
//! [`crate::docker::build::classic`].

pub mod build_needs;
pub mod builder;
pub mod buildkit;
pub mod classic;
pub mod dockerfile;
pub mod events;
mod logins;
pub mod pip_conf;
pub mod request;

use std::sync::Arc;

use crate::docker::connect::client_config::ClientConfig;
use crate::docker::connect::engine::Engine;
use crate::docker::connect::locality::Locality;
use crate::docker::containers::container::is_id;
use crate::docker::images::image;
use crate::error::{Error, Result};
use builder::Builder;
use events::{BuildEvent, BuildOutcome, Events};
use logins::Logins;
use request::BuildRequest;

/// Whether a build failed only because the engine's store changed while the finished image was put into it: another
/// build moved its name, or a layer was removed with the image that had the name before, after it was found and before
/// the next one was unpacked on it (moby/buildkit issue 6521; the words are those of engine 28). Nobody but the engine
/// is at fault, and building again takes every step from the cache.
fn is_of_the_store(message: &str) -> bool {
    let is_of_removed_layer = message.contains("parent snapshot ") && message.contains(" does not exist");
    image::is_of_moving_name(message) || is_of_removed_layer
}

/// Builds. For an engine elsewhere, the context is compressed if the link is slow, and it gets no more [`Logins`] than
/// the build needs.
///
/// Dropping the future cancels the build on the engine, too.
///
/// # Errors
/// [`events::BuildFailure`] as the cause if the build itself failed; else the error of the engine or the context.
pub async fn build(
    engine: &Engine,
    locality: Locality,
    builder: Builder,
    request: &BuildRequest,
    config: &Arc<ClientConfig>,
    events: Events,
) -> Result<BuildOutcome> {
    let logins = Logins::of_build(config, &engine.choice().endpoint, locality, request).telling(&events);
    for warning in build_needs::check(engine, builder, request).await? {
        // The receiver is gone if the build was given up.
        let _ = events.send(BuildEvent::Notice(warning)).await;
    }
    let mut outcome = match builder {
        Builder::BuildKit => {
            let build = async |request: &BuildRequest| {
                buildkit::build(engine, locality, request, config, logins.clone(), events.clone()).await
            };
            let mut built = build(request).await;
            for pause in image::NAMING_PAUSES {
                match &built {
                    Err(error) if is_of_the_store(&error.with_causes()) => {}
                    _ => break,
                }
                tokio::time::sleep(pause).await;
                // A step that has just run is in the cache, even in a build that uses nothing from the cache.
                built = build(&request.cached()).await;
            }
            built?
        }
        Builder::Classic => classic::build(engine, request, config, &logins, events).await?,
    };
    if let Some(tag) = request.tags.first() {
        let image = image::find_made(engine, tag).await?;
        outcome.id = if is_id(&image.id) { image.id } else { String::new() };
        outcome.size = image.size;
    }
    if let Some(file) = &request.options.iidfile {
        std::fs::write(file, &outcome.id)
            .map_err(|cause| Error::failed(format!("--iidfile {} can't be written", file.display())).because(cause))?;
    }
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use super::is_of_the_store;

    #[test]
    fn what_the_store_did_is_told_from_what_a_build_did() {
        for message in [
            "the build failed: failed to prepare extraction snapshot \"extract-344021853-bpRo sha256:17bb\": parent snapshot \
             sha256:e644 does not exist: not found",
            "the build failed: image \"docker.io/library/a:1\": already exists",
        ] {
            assert!(is_of_the_store(message), "{message}");
        }
        for message in [
            "the build failed: process \"/bin/sh -c false\" did not complete successfully: exit code: 1",
            "the build failed: failed to compute cache key: \"/parent\" does not exist: not found",
        ] {
            assert!(!is_of_the_store(message), "{message}");
        }
    }
}
