//! Images of an engine: whether one is there, pulling one, the architecture that it is for.

use std::time::Duration;

use bollard::models::{ContainerSummary, ImageConfig};
use bollard::query_parameters::{ListContainersOptionsBuilder, RemoveImageOptions, TagImageOptionsBuilder};
use bytes::Bytes;
use futures_util::StreamExt as _;
use http_body_util::Full;
use hyper::{Method, Request};

use super::verdict::RegistryVerdict;
use crate::docker::connect::client_config::ClientConfig;
use crate::docker::connect::engine::{Engine, found, one_line, refusal};
use crate::docker::connect::json_messages::Messages;
use crate::docker::connect::redaction::Redaction;
use crate::error::{Error, Result};
use crate::hint;
use crate::naming::{canonical, registry, split_reference};
use crate::output::progress::steps::{Ended, Steps};
use crate::output::{Printer, visible};

/// The pauses between tries to give a name that others give at the same time. Each refusal means that another got
/// through: as many can go through as there are pauses.
pub(in crate::docker) const NAMING_PAUSES: [Duration; 8] = [Duration::from_millis(50); 8];

/// What is known of an image on an engine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageFacts {
    /// `sha256:` and 64 hexadecimal digits: of the configuration, or of the manifest in a containerd store.
    pub id: String,
    /// Such as `linux`.
    pub os: String,
    /// Such as `amd64`, as Go names it.
    pub architecture: String,
    /// In bytes, if the engine says it.
    pub size: Option<u64>,
    /// The digests of its manifest in the registries from which it was pulled and to which it was pushed. An engine knows none of an
    /// image that was only built there.
    pub digests: Vec<String>,
}

impl ImageFacts {
    /// Whether it is the image with this digest in its registry.
    pub fn is_of(&self, digest: &str) -> bool {
        self.digests.iter().any(|known| known == digest)
    }
}

/// Looks an image up; `None` where the engine doesn't have it.
///
/// # Errors
/// The engine's refusal or a broken connection.
pub async fn find(engine: &Engine, reference: &str) -> Result<Option<ImageFacts>> {
    Ok(find_with_config(engine, reference).await?.map(|(facts, _)| facts))
}

/// [`find`], with what the image says about the containers that are made of it.
///
/// # Errors
/// The engine's refusal or a broken connection.
pub async fn find_with_config(engine: &Engine, reference: &str) -> Result<Option<(ImageFacts, ImageConfig)>> {
    let image = found(engine.docker().inspect_image(reference).await);
    let image = image.map_err(|cause| engine.error(reference, cause))?;
    Ok(image.map(|image| {
        let facts = ImageFacts {
            id: image.id.unwrap_or_default(),
            os: image.os.unwrap_or_default(),
            architecture: image.architecture.unwrap_or_default(),
            size: image.size.and_then(|bytes| bytes.try_into().ok()),
            digests: image
                .repo_digests
                .unwrap_or_default()
                .iter()
                .filter_map(|known| digest_of(known))
                .collect(),
        };
        (facts, image.config.unwrap_or_default())
    }))
}

/// The digest of `repository@digest`.
fn digest_of(known: &str) -> Option<String> {
    known.split_once('@').map(|(_, digest)| digest.to_owned())
}

/// Whether an engine has an image by this name that is another than the one with this digest in its registry.
///
/// # Errors
/// The engine's refusal or a broken connection.
pub async fn is_other(engine: &Engine, reference: &str, digest: &str) -> Result<bool> {
    let image = find(engine, reference).await?;
    Ok(image.is_some_and(|image| !image.is_of(digest)))
}

/// Has an image on an engine as it is in its registry: pulls it, where the engine has none or another by this name. Whether it was
/// pulled.
///
/// # Errors
/// As [`pull`]; the name is another image's in the registry by now.
pub async fn bring(
    engine: &Engine,
    config: &ClientConfig,
    reference: &str,
    digest: &str,
    printer: &Printer,
) -> Result<bool> {
    if find(engine, reference).await?.is_some_and(|image| image.is_of(digest)) {
        return Ok(false);
    }
    pull(engine, config, reference, None, printer).await?;
    match is_other(engine, reference, digest).await? {
        false => Ok(true),
        true => Err(
            Error::failed(format!("{reference} is another image now than a moment ago ({digest})"))
                .hint("somebody pushed meanwhile: call it again"),
        ),
    }
}

/// Checks that the name is still that of this image: on an engine that others use, too, it may be another's by now.
///
/// # Errors
/// It is another's, or nobody's; and as [`find`].
pub async fn check_same(engine: &Engine, reference: &str, id: &str) -> Result<()> {
    let now = find(engine, reference).await?;
    if now.is_some_and(|now| now.id == id) {
        return Ok(());
    }
    Err(Error::failed(format!(
        "{reference} is another image now on {}: somebody gave it the name meanwhile",
        engine.choice().engine()
    ))
    .hint("call it again, and have only one use this engine for it at a time"))
}

/// Takes a name from an image, and removes the image if it had no other and no container is of it. `None` if it was done, or if
/// there was nothing to do: the name is another image's now. Else why the engine did not.
///
/// # Errors
/// A broken connection, and other refusals of the engine.
pub async fn remove_unused(engine: &Engine, reference: &str, id: &str) -> Result<Option<String>> {
    match find(engine, reference).await? {
        Some(image) if image.id == id => {}
        _ => return Ok(None),
    }
    // containerd's store takes the image from below a container that does not run.
    let options = ListContainersOptionsBuilder::new().all(true).build();
    let listed = engine.docker().list_containers(Some(options)).await;
    let listed = listed.map_err(|cause| engine.error(reference, cause))?;
    let uses = |container: &&ContainerSummary| {
        container.image_id.as_deref() == Some(id) || container.image.as_deref() == Some(reference)
    };
    if let Some(container) = listed.iter().find(uses) {
        let name = container.names.iter().flatten().next().or(container.id.as_ref());
        let name = name.map(String::as_str).unwrap_or_default().trim_start_matches('/');
        return Ok(Some(format!("container {} is of it", visible(name))));
    }
    let answer = engine
        .docker()
        .remove_image(reference, None::<RemoveImageOptions>, None)
        .await;
    match answer {
        Err(bollard::errors::Error::DockerResponseServerError {
            status_code: 409,
            message,
        }) => Ok(Some(one_line(&message))),
        answer => {
            found(answer).map_err(|cause| engine.error(reference, cause))?;
            Ok(None)
        }
    }
}

/// Looks up an image that has just been made under this name.
///
/// containerd's store takes a name from one image before it gives it to the next: while others give it too, no image
/// may have it for a moment.
///
/// # Errors
/// As [`find`]; or no image has the name.
pub async fn find_made(engine: &Engine, reference: &str) -> Result<ImageFacts> {
    for pause in NAMING_PAUSES {
        if let Some(image) = find(engine, reference).await? {
            return Ok(image);
        }
        tokio::time::sleep(pause).await;
    }
    find(engine, reference)
        .await?
        .ok_or_else(|| Error::failed(format!("the engine has no image {reference}, though it was just made")))
}

/// Gives an image, by its ID or another name, a name; an image that had the name before loses it.
///
/// # Errors
/// The engine's refusal or a broken connection.
pub(in crate::docker) async fn tag(
    engine: &Engine,
    source: &str,
    name: &str,
) -> std::result::Result<(), bollard::errors::Error> {
    let (repository, tag, _) = split_reference(name);
    let options = TagImageOptionsBuilder::new()
        .repo(repository)
        .tag(tag.unwrap_or("latest"))
        .build();
    let mut pauses = NAMING_PAUSES.into_iter();
    loop {
        let tagged = engine.docker().tag_image(source, Some(options.clone())).await;
        match (tagged, pauses.next()) {
            (Err(bollard::errors::Error::DockerResponseServerError { message, .. }), Some(pause))
                if is_of_moving_name(&message) =>
            {
                tokio::time::sleep(pause).await;
            }
            (tagged, _) => return tagged,
        }
    }
}

/// Whether an engine refused a name because somebody else moved it at the same time: containerd's store creates a name
/// anew; it neither replaces one that was created meanwhile, nor removes one that is gone. The words are those of
/// engine 28.
pub(in crate::docker) fn is_of_moving_name(message: &str) -> bool {
    let is_of_name = ["image \"", "creating image ", "create an image ", "previous image "];
    let is_moved = ["already exists", "No such image", "not found"];
    is_of_name.iter().any(|words| message.contains(words)) && is_moved.iter().any(|words| message.contains(words))
}

/// Pulls an image, with the progress of each layer.
///
/// # Errors
/// The registry's refusal, in its own words, with a hint.
pub async fn pull(
    engine: &Engine,
    config: &ClientConfig,
    reference: &str,
    platform: Option<&str>,
    printer: &Printer,
) -> Result<()> {
    let full = canonical(reference);
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("fromImage", &full);
    if let Some(platform) = platform {
        query.append_pair("platform", platform);
    }
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(format!("/images/create?{}", query.finish()));
    // An engine gets the one login that it needs, unless others on the way could read it.
    let in_clear = engine.choice().endpoint.login_warning();
    let redaction = Redaction::default();
    let mut no_login = None;
    if let Some(warning) = in_clear {
        if config.has_logins() {
            printer.warning(&warning);
        }
    } else {
        let registry = registry(reference);
        let found = config.credentials(&registry).await;
        if let Some(warning) = found.warning() {
            printer.warning(&warning);
        }
        no_login = found.hint();
        if let Some(login) = found.login {
            request = request.header("X-Registry-Auth", login.registry_auth(&registry));
            redaction.add(&registry, &login);
        }
    }
    let request = request
        .body(Full::<Bytes>::default())
        .map_err(|cause| Error::failed(format!("{reference} can't be requested")).because(cause))?;
    let refused = |message: &str| {
        let said = one_line(&redaction.clean(message));
        Error::failed(format!("{reference} can't be pulled: {said}")).hint(pull_hint(
            reference,
            message,
            no_login.as_deref(),
        ))
    };
    let response = engine.worked(engine.request(request)).await?;
    if !response.status().is_success() {
        return Err(refused(&refusal(response).await.to_string()));
    }
    let mut steps = Steps::new(printer, false).of("Pulling");
    let title = format!("pulling {reference}");
    steps.running(&full, &title);
    let began = std::time::Instant::now();
    let mut messages = Messages::default();
    let mut chunks = engine.chunks(response);
    while let Some(chunk) = chunks.next().await {
        for message in messages.push(&chunk?) {
            let (current, total) = message.progress();
            if let Some(error) = message.error {
                steps.ended(&full, &title, Ended::Failed);
                return Err(refused(&error));
            }
            if let (Some(layer), Some(status)) = (message.id, message.status) {
                let done = status == "Pull complete" || status == "Already exists";
                // Extracting counts the same bytes once more.
                if done || status == "Downloading" {
                    steps.transfer(&full, &layer, current, total, done);
                }
            }
        }
    }
    steps.ended(&full, &title, Ended::Done(began.elapsed().as_secs_f64()));
    Ok(())
}

/// The hint. `no_login` is the hint if a login could not be read.
fn pull_hint(reference: &str, message: &str, no_login: Option<&str>) -> String {
    let host = registry(reference);
    let name = canonical(reference);
    let is_absent = ["not found", "manifest unknown"]
        .iter()
        .any(|sign| message.to_lowercase().contains(sign));
    match (RegistryVerdict::of(message, &name), no_login) {
        (RegistryVerdict::Denied, Some(no_login)) => no_login.to_owned(),
        (RegistryVerdict::Denied, None) if host.starts_with("https://index.docker.io") => {
            hint!("is the name right? If the image is private: docker login")
        }
        (RegistryVerdict::Denied, None) => hint!("is the name right? If the image is private: docker login {}", host),
        (RegistryVerdict::Busy, _) => "the registry is busy: try again in some minutes".to_owned(),
        (RegistryVerdict::Broken, _) => "look at the registry's log, or try again later".to_owned(),
        (RegistryVerdict::UnknownRepository | RegistryVerdict::Other, _) if is_absent => hint!(
            "is there such a tag? Look at the registry for the tags of {}",
            reference
        ),
        _ => hint!(
            "does the engine's machine reach the registry? Try there: docker pull {}",
            reference
        ),
    }
}

/// A warning if an image is for another platform than the engine's.
///
/// # Errors
/// The engine's refusal or a broken connection.
pub async fn architecture_warning(engine: &Engine, reference: &str, image: &ImageFacts) -> Result<Option<String>> {
    let version = engine.version().await?;
    let (os, arch) = (version.os.unwrap_or_default(), version.arch.unwrap_or_default());
    if image.architecture.is_empty() || arch.is_empty() {
        return Ok(None);
    }
    let differs = image.architecture != arch || image.os != os;
    Ok(differs.then(|| {
        format!(
            "{reference} is made for {}/{} and the engine runs {os}/{arch}: it will run by emulation, slowly, or not at all",
            image.os, image.architecture
        )
    }))
}
