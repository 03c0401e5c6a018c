//! One container's life, as with `docker run`: created, attached, started, waited for, its exit code passed on.
//!
//! Facts: the engine's API reference, and docker's reference of `docker run` (exit codes 125, 126, 127).

use std::time::Duration;

use bollard::models::{ContainerCreateResponse, ContainerStateStatusEnum};
use bollard::query_parameters::{
    CreateContainerOptions, InspectContainerOptions, KillContainerOptions, RemoveContainerOptions,
    ResizeContainerTTYOptions, StartContainerOptions, UploadToContainerOptions,
};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Request};

use crate::docker::connect::engine::{Engine, answer, found, one_line, refusal};
use crate::docker::options::run_options::{ContainerFile, ContainerPlan};
use crate::error::{Class, Error, Result};

/// The code of `docker run` for a command that can't be run, and for one that isn't there.
const CANNOT_RUN: u8 = 126;
const NOT_FOUND: u8 = 127;
/// How long the removal of an unwanted container may take.
const CLEANING: Duration = Duration::from_secs(10);
/// How long after a lost answer the container may still appear.
const LATE: Duration = Duration::from_secs(2);
/// The pause between looks for it.
const LOOK: Duration = Duration::from_millis(100);
/// The most bytes of the engine's answer to a creation.
const LONGEST_ANSWER: usize = 1 << 20;

/// A container that was created, and is removed when this is dropped before [`Created::keep`].
pub struct Created {
    engine: Engine,
    id: String,
    /// Whether it is removed when this is dropped.
    pub(super) armed: bool,
    /// What the engine advises against.
    pub warnings: Vec<String>,
}

impl Created {
    /// A container that was created before.
    pub(super) fn unarmed(engine: &Engine, id: &str) -> Self {
        Self {
            engine: engine.clone(),
            id: id.to_owned(),
            armed: false,
            warnings: Vec::new(),
        }
    }

    /// The container's ID.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// From now on the container is not removed.
    pub fn keep(mut self) -> String {
        self.armed = false;
        std::mem::take(&mut self.id)
    }
}

impl Drop for Created {
    fn drop(&mut self) {
        if self.armed {
            clean_up(remove(&self.engine, &self.id));
        }
    }
}

/// Finishes the undoing when a call is dropped.
pub(crate) fn clean_up(undoing: impl Future) {
    // A future that was interrupted can't wait here; the runtime is still there to finish the call.
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        tokio::task::block_in_place(|| {
            runtime.block_on(async {
                // The engine may be what failed; then nothing can be done.
                let _ = tokio::time::timeout(CLEANING, undoing).await;
            });
        });
    }
}

/// A container that is being created. If the answer is lost, or not waited for, the container may exist all the same:
/// it is looked for by its name then, and removed.
struct Making<'a> {
    engine: &'a Engine,
    plan: &'a ContainerPlan,
    armed: bool,
}

impl Making<'_> {
    async fn undo(&self, name: &str) {
        let began = tokio::time::Instant::now();
        loop {
            let looked = self
                .engine
                .docker()
                .inspect_container(name, None::<InspectContainerOptions>);
            if let Ok(found) = looked.await {
                // A container of that name that has any other state was there before.
                let is_new = found.state.and_then(|state| state.status) == Some(ContainerStateStatusEnum::CREATED);
                let labels = found.config.and_then(|config| config.labels).unwrap_or_default();
                let wanted = self.plan.body.labels.iter().flatten();
                let is_ours = wanted.into_iter().all(|(key, value)| labels.get(key) == Some(value));
                if let Some(id) = found.id.filter(|_| is_new && is_ours) {
                    // Nobody is left to report to.
                    let _ = remove(self.engine, &id).await;
                }
                return;
            }
            // The engine may still be creating it.
            if began.elapsed() > LATE {
                return;
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

impl Drop for Making<'_> {
    fn drop(&mut self) {
        if let Some(name) = self.plan.name.as_deref().filter(|_| self.armed) {
            clean_up(self.undo(name));
        }
    }
}

/// Creates a container, without starting it.
///
/// # Errors
/// The engine's refusal.
pub async fn create(engine: &Engine, plan: &ContainerPlan) -> Result<Created> {
    try_create(engine, plan).await?.map_err(|refusal| match refusal {
        Refusal::NameTaken(error) | Refusal::NoImage(error) => error,
    })
}

/// Refusals that the caller can do something about.
#[derive(Debug)]
pub enum Refusal {
    /// Another container has the name; with the engine's refusal.
    NameTaken(Error),
    /// The engine does not have the image, or not for the requested platform; with the engine's refusal.
    NoImage(Error),
}

/// [`create`], with two refusals as a value: those that another name, or getting the image, helps against.
///
/// # Errors
/// Any other refusal.
pub async fn try_create(engine: &Engine, plan: &ContainerPlan) -> Result<Result<Created, Refusal>> {
    let options = CreateContainerOptions {
        name: plan.name.clone(),
        platform: plan.platform.clone().unwrap_or_default(),
    };
    let mut making = Making {
        engine,
        plan,
        armed: true,
    };
    let result = match plan.kernel_memory {
        None => engine.docker().create_container(Some(options), plan.body.clone()).await,
        Some(_) => make_by_request(engine, plan).await?,
    };
    // An answer of the engine is certain.
    making.armed = !matches!(
        result,
        Ok(_) | Err(bollard::errors::Error::DockerResponseServerError { .. })
    );
    drop(making);
    let is_taken = matches!(
        &result,
        Err(bollard::errors::Error::DockerResponseServerError { status_code: 409, message }) if message.contains("name")
    );
    let is_absent = matches!(
        &result,
        Err(bollard::errors::Error::DockerResponseServerError { status_code: 404, message }) if is_of_image(message)
    );
    let has_no_command = matches!(
        &result,
        Err(bollard::errors::Error::DockerResponseServerError { message, .. })
            if message.to_ascii_lowercase().contains("no command specified")
    );
    let made = match result.map_err(|cause| engine.error("the container can't be made", cause)) {
        Err(error) if has_no_command => {
            return Err(error.hint(
                "the image does not say what to run: write a CMD in its Dockerfile, the key cmd in its section, or \
                 run-image -c COMMAND",
            ));
        }
        Err(error) if is_taken => return Ok(Err(Refusal::NameTaken(error))),
        Err(error) if is_absent => return Ok(Err(Refusal::NoImage(error))),
        made => made?,
    };
    if !is_id(&made.id) {
        return Err(Error::failed(format!(
            "the engine at {} gave the container an ID that is not valid: {:?}",
            engine.choice().endpoint,
            one_line(&made.id)
        )));
    }
    let created = Created {
        engine: engine.clone(),
        id: made.id,
        armed: true,
        warnings: made.warnings,
    };
    if !plan.files.is_empty() {
        put(engine, &created.id, archive(&[], &plan.files)?).await?;
    }
    Ok(Ok(created))
}

/// Creates a container by a request of our own: it has fields that bollard does not know.
async fn make_by_request(
    engine: &Engine,
    plan: &ContainerPlan,
) -> Result<std::result::Result<ContainerCreateResponse, bollard::errors::Error>> {
    let mut query = form_urlencoded::Serializer::new(String::new());
    for (key, value) in [("name", &plan.name), ("platform", &plan.platform)] {
        if let Some(value) = value {
            query.append_pair(key, value);
        }
    }
    let body = plan.request().map(|body| body.to_string());
    let body = body.map_err(|cause| Error::failed("the container can't be requested").because(cause))?;
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("/containers/create?{}", query.finish()))
        .header("Content-Type", "application/json")
        .body(Full::<Bytes>::from(body))
        .map_err(|cause| Error::failed("the container can't be requested").because(cause))?;
    let response = engine.worked(engine.request(request)).await?;
    let status_code = response.status().as_u16();
    if !response.status().is_success() {
        let message = refusal(response).await.to_string();
        return Ok(Err(bollard::errors::Error::DockerResponseServerError {
            status_code,
            message,
        }));
    }
    let text = answer(response, LONGEST_ANSWER)
        .await
        .map_err(|cause| engine.lost(cause))?;
    Ok(serde_json::from_slice(&text).map_err(bollard::errors::Error::from))
}

/// Whether a text can be the ID of a container or an image. It is printed for scripts, and written to files that they
/// read: a text with blanks or options in it would be more than one word there.
pub(in crate::docker) fn is_id(text: &str) -> bool {
    text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric())
        && text.len() <= 128
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b":._-".contains(&byte))
}

/// Whether the missing thing is the image, and not another container whose network or volumes are used. Engines use the
/// second phrase for an image of another platform.
fn is_of_image(message: &str) -> bool {
    let message = message.to_lowercase();
    ["no such image", "image with reference"]
        .iter()
        .any(|words| message.contains(words))
}

/// A folder to put into a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerFolder {
    /// Its absolute path in the container.
    pub path: String,
    /// Its permission bits.
    pub mode: u32,
    /// Its user and group.
    pub owner: (u32, u32),
}

/// An archive of folders and files, with paths below `/`. The files belong to root.
///
/// # Errors
/// A path that no archive has.
pub fn archive(folders: &[ContainerFolder], files: &[ContainerFile]) -> Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    let failed = |path: &str| {
        let path = path.to_owned();
        move |cause: std::io::Error| Error::failed(format!("{path} can't be put into the container")).because(cause)
    };
    let below = |path: &str| path.trim_start_matches('/').to_owned();
    for folder in folders {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_size(0);
        header.set_mode(folder.mode);
        header.set_uid(folder.owner.0.into());
        header.set_gid(folder.owner.1.into());
        let appended = archive.append_data(&mut header, format!("{}/", below(&folder.path)), std::io::empty());
        appended.map_err(failed(&folder.path))?;
    }
    for file in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(file.content.len() as u64);
        header.set_mode(file.mode);
        header.set_uid(0);
        header.set_gid(0);
        let appended = archive.append_data(&mut header, below(&file.path), file.content.as_bytes());
        appended.map_err(failed(&file.path))?;
    }
    archive.into_inner().map_err(failed("an archive"))
}

/// Puts an archive into a container, running or not: what is there is replaced.
///
/// # Errors
/// The engine's refusal, such as that of a root file system that is read-only.
pub async fn put(engine: &Engine, id: &str, archive: Vec<u8>) -> Result<()> {
    let options = UploadToContainerOptions {
        path: "/".to_owned(),
        ..UploadToContainerOptions::default()
    };
    engine
        .docker()
        .upload_to_container(id, Some(options), bollard::body_full(archive.into()))
        .await
        .map_err(|cause| engine.error(id, cause))
}

/// Whether there is something at this path of a container, running or not.
///
/// # Errors
/// A broken connection.
pub async fn has(engine: &Engine, id: &str, path: &str) -> Result<bool> {
    let query = form_urlencoded::Serializer::new(String::new())
        .append_pair("path", path)
        .finish();
    let request = Request::builder()
        .method(Method::HEAD)
        .uri(format!("/containers/{id}/archive?{query}"))
        .body(Full::<Bytes>::default())
        .map_err(|cause| Error::failed(format!("{path} can't be asked for")).because(cause))?;
    let response = engine.worked(engine.request(request)).await?;
    Ok(response.status().is_success())
}

/// Removes a container, running or not; a missing one is not an error.
///
/// # Errors
/// The engine's refusal.
pub async fn remove(engine: &Engine, id: &str) -> Result<()> {
    let options = RemoveContainerOptions {
        force: true,
        v: true,
        ..RemoveContainerOptions::default()
    };
    match engine.docker().remove_container(id, Some(options)).await {
        Ok(())
        | Err(bollard::errors::Error::DockerResponseServerError {
            status_code: 404 | 409, ..
        }) => Ok(()),
        Err(cause) => Err(engine.error(id, cause)),
    }
}

/// Whether there is a container of this name or ID.
///
/// # Errors
/// The engine's refusal or a broken connection.
pub async fn exists(engine: &Engine, name: &str) -> Result<bool> {
    let answer = engine
        .docker()
        .inspect_container(name, None::<InspectContainerOptions>)
        .await;
    let container = found(answer).map_err(|cause| engine.error(name, cause))?;
    Ok(container.is_some())
}

/// Starts a container.
///
/// # Errors
/// The engine's refusal; with the class of docker's 126 and 127 where the command can't be run or isn't there.
pub async fn start(engine: &Engine, id: &str, detach_keys: Option<&str>) -> Result<()> {
    let options = StartContainerOptions {
        detach_keys: detach_keys.map(str::to_owned),
    };
    engine
        .docker()
        .start_container(id, Some(options))
        .await
        .map_err(|cause| match cause {
            bollard::errors::Error::DockerResponseServerError { message, .. } => Error::new(
                start_class(&message),
                format!("the container can't be started: {}", one_line(&message)),
            ),
            other => engine.error("the container can't be started", other),
        })
}

/// docker's exit code for the engine's message: 127 if the program isn't there, 126 if it can't be executed.
fn start_class(message: &str) -> Class {
    const ABSENT: [&str; 4] = [
        "executable file not found",
        "no such file or directory",
        "system cannot find the file specified",
        "failed to run runc create/start call: exec: not found",
    ];
    // `permission denied` of a mount has nothing to do with the command.
    let of_command = message.contains("exec") || message.contains("starting container process");
    if of_command && ABSENT.iter().any(|text| message.contains(text)) {
        Class::Code(NOT_FOUND)
    } else if of_command && (message.contains("permission denied") || message.contains("is a directory")) {
        Class::Code(CANNOT_RUN)
    } else {
        Class::Failed
    }
}

/// Sends a signal, such as `SIGINT`; nothing happens if the container has ended.
pub async fn signal(engine: &Engine, id: &str, signal: &str) {
    let options = KillContainerOptions {
        signal: signal.to_owned(),
    };
    let _ = engine.docker().kill_container(id, Some(options)).await;
}

/// Sets the size of the container's terminal; true if the engine accepted it.
pub async fn resize(engine: &Engine, id: &str, rows: u16, columns: u16) -> bool {
    if rows == 0 || columns == 0 {
        return true;
    }
    let options = ResizeContainerTTYOptions {
        h: rows.into(),
        w: columns.into(),
    };
    engine.docker().resize_container_tty(id, options).await.is_ok()
}

/// A port of the container that is published on its engine's machine.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct PublishedPort {
    /// Port and protocol inside, such as `5000/tcp`.
    pub container: String,
    /// The address that the engine listens on.
    pub host_ip: String,
    /// The port that it listens on.
    pub host_port: u16,
}

/// The ports of a running container.
///
/// # Errors
/// The engine's refusal.
pub async fn published_ports(engine: &Engine, id: &str) -> Result<Vec<PublishedPort>> {
    let inspected = engine
        .docker()
        .inspect_container(id, None::<InspectContainerOptions>)
        .await
        .map_err(|cause| engine.error(id, cause))?;
    let mut ports: Vec<PublishedPort> = inspected
        .network_settings
        .and_then(|settings| settings.ports)
        .unwrap_or_default()
        .into_iter()
        .flat_map(|(container, bindings)| {
            bindings.unwrap_or_default().into_iter().filter_map(move |binding| {
                Some(PublishedPort {
                    container: container.clone(),
                    host_ip: binding.host_ip.unwrap_or_default(),
                    host_port: binding.host_port?.parse().ok()?,
                })
            })
        })
        .collect();
    ports.sort();
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_starts_have_dockers_codes() {
        for (message, class) in [
            ("exec: \"nope\": executable file not found in $PATH", Class::Code(127)),
            ("exec: \"/etc\": permission denied", Class::Code(126)),
            (
                "starting container process caused: exec: \"/x\": is a directory",
                Class::Code(126),
            ),
            ("driver failed programming external connectivity", Class::Failed),
        ] {
            assert_eq!(start_class(message), class, "{message}");
        }
    }
}
