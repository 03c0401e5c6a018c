//! A container that only waits, in which programs are run to learn about its image.
//!
//! It has no network, mounts nothing, and is removed when it is dropped. If its user is killed before that, it ends by itself
//! after an hour, and the engine removes it.

use std::collections::HashMap;

use bollard::models::{ContainerCreateBody, HealthConfig, HostConfig};

use super::container::{Created, create, start};
use super::exec::{self, ExecCommand, ExecOutput};
use crate::docker::connect::engine::Engine;
use crate::docker::options::run_options::{Attach, ContainerPlan, PullPolicy};
use crate::error::{Class, Result};
use crate::hexadecimal::random;

/// What it waits for. An image without `sleep` still has what its shell brings; its input stays open.
const WAIT: &str = "sleep 3600 || read -r _";
/// What its name begins with, and how many random bytes follow.
const NAME: &str = "dockerutils-standby-";
const RANDOM: usize = 8;
/// docker's codes for a program that can't be run or is not there.
const NO_SHELL: [Class; 2] = [Class::Code(126), Class::Code(127)];
/// The most processes of it: enough for a package manager, and too few to hurt the engine's machine.
const PROCESSES: i64 = 1024;

/// A container that waits.
pub struct Standby {
    engine: Engine,
    container: Created,
}

impl Standby {
    /// Starts one of an image that the engine has; `None` if the image has no shell.
    ///
    /// # Errors
    /// The engine's refusal.
    pub async fn start(engine: &Engine, image: &str, labels: HashMap<String, String>) -> Result<Option<Self>> {
        let plan = ContainerPlan {
            // By it a container is found again whose creation was interrupted.
            name: Some(format!("{NAME}{}", random::<RANDOM>()?)),
            platform: None,
            body: ContainerCreateBody {
                image: Some(image.to_owned()),
                entrypoint: Some(vec!["/bin/sh".to_owned(), "-c".to_owned()]),
                cmd: Some(vec![WAIT.to_owned()]),
                open_stdin: Some(true),
                labels: Some(labels),
                // What the image's own check would start every few seconds.
                healthcheck: Some(HealthConfig {
                    test: Some(vec!["NONE".to_owned()]),
                    ..HealthConfig::default()
                }),
                host_config: Some(HostConfig {
                    auto_remove: Some(true),
                    network_mode: Some("none".to_owned()),
                    pids_limit: Some(PROCESSES),
                    ..HostConfig::default()
                }),
                ..ContainerCreateBody::default()
            },
            detach: true,
            remove: true,
            interactive: false,
            tty: false,
            attach: Attach::default(),
            sig_proxy: false,
            detach_keys: None,
            cidfile: None,
            pull: PullPolicy::Never,
            quiet: true,
            files: Vec::new(),
            warnings: Vec::new(),
            kernel_memory: None,
        };
        let container = create(engine, &plan).await?;
        match start(engine, container.id(), None).await {
            Ok(()) => Ok(Some(Self {
                engine: engine.clone(),
                container,
            })),
            Err(error) if NO_SHELL.contains(&error.class()) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Runs a program in it, as the image's user, for its output. That it fails, or is not there (codes 126 and 127), is no error.
    ///
    /// # Errors
    /// As [`exec::output`].
    pub async fn output(&self, command: &ExecCommand<'_>) -> Result<ExecOutput> {
        exec::output(&self.engine, self.container.id(), command).await
    }
}
