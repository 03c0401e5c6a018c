//! Whether a container that was started with `-g` has a GPU, said early, and which part is missing on the engine's machine if
//! not: its driver, NVIDIA's container toolkit, docker's runtime `nvidia`, or the description of its devices (CDI).
//!
//! Facts: the messages of docker, of `nvidia-container-cli` (libnvidia-container) and of `nvidia-smi`, and the guide of the
//! NVIDIA Container Toolkit.

use std::fmt;
use std::time::Duration;

use bollard::query_parameters::InspectContainerOptions;

use crate::docker::connect::engine::Engine;
use crate::docker::containers::exec::{self, ExecCommand, ExecOutput};
use crate::error::{Error, Result};
use crate::output::one_line;

/// How long nvidia-smi may take: a driver that is not kept loaded takes seconds a GPU.
const LIMIT: Duration = Duration::from_secs(60);
/// The most bytes of what it says: a line a GPU.
const MOST: usize = 64 * 1024;
/// The most characters of a message of others that are shown.
const SHOWN: usize = 300;
/// The exit codes of a program that is not there, or can't be run.
const ABSENT: [i64; 2] = [126, 127];
/// The variable by which the toolkit is told what of the driver a container gets.
const CAPABILITIES: &str = "NVIDIA_DRIVER_CAPABILITIES";

/// What is missing on the engine's machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MissingPart {
    /// The kernel's driver is not installed, not loaded, of another version than its libraries, or sees no GPU.
    Driver,
    /// NVIDIA's container toolkit is not installed, or gives containers nothing.
    Toolkit,
    /// The toolkit is there, but docker was not told of its runtime.
    Runtime,
    /// There is no description of the GPUs for CDI, or an old one.
    Cdi,
}

impl MissingPart {
    /// What to do about it, on the engine's machine.
    const fn remedy(self) -> &'static str {
        match self {
            Self::Driver => {
                "install or reload NVIDIA's driver there, until nvidia-smi lists the GPU on the machine itself: \
                 sudo apt install nvidia-driver (Debian, non-free), or sudo ubuntu-drivers install; then reboot it"
            }
            Self::Toolkit => {
                "install nvidia-container-toolkit there (from NVIDIA's package repository), then: \
                 sudo nvidia-ctk runtime configure --runtime=docker && sudo systemctl restart docker"
            }
            Self::Runtime => {
                "there: sudo nvidia-ctk runtime configure --runtime=docker && sudo systemctl restart docker"
            }
            Self::Cdi => {
                "there: sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml && sudo systemctl restart docker"
            }
        }
    }
}

impl fmt::Display for MissingPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Driver => "NVIDIA's driver",
            Self::Toolkit => "NVIDIA's container toolkit",
            Self::Runtime => "docker's runtime nvidia",
            Self::Cdi => "a description of the GPUs for CDI",
        })
    }
}

/// How a container was given its GPUs, and how the engine could have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct GpuSetup {
    /// Whether it runs in the runtime `nvidia`, by name or as the engine's default.
    has_runtime: bool,
    /// Whether devices were asked for by `--gpus`.
    has_request: bool,
    /// Whether devices were asked for by CDI's names.
    has_cdi: bool,
    /// What of the driver it is to get, where that is said.
    capabilities: Option<String>,
    /// Whether the engine knows the runtime `nvidia`.
    engine_has_runtime: bool,
}

/// The GPUs that a container sees, one a line as `nvidia-smi -L` lists them.
///
/// # Errors
/// It sees none: with the part that is missing on the engine's machine, and what to do there.
pub async fn check(engine: &Engine, id: &str, name: &str) -> Result<Vec<String>> {
    let command = ExecCommand {
        argv: &["nvidia-smi", "-L"],
        user: None,
        most: MOST,
        limit: LIMIT,
    };
    let output = exec::output(engine, id, &command).await?;
    let gpus = listed(&output);
    if !gpus.is_empty() {
        return Ok(gpus);
    }
    let setup = setup(engine, id).await?;
    Err(explained(engine, name, &output, &setup))
}

/// So many are named; no machine has more.
const GPUS: usize = 128;

/// The GPUs in an output of `nvidia-smi -L`: `GPU 0: NVIDIA A100 (UUID: GPU-...)`, and below each its parts (MIG).
fn listed(output: &ExecOutput) -> Vec<String> {
    if output.code != Some(0) {
        return Vec::new();
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let gpus = text
        .lines()
        .map(str::trim)
        .filter(|line| line.starts_with("GPU ") || line.starts_with("MIG "));
    gpus.take(GPUS).map(shortened).collect()
}

async fn setup(engine: &Engine, id: &str) -> Result<GpuSetup> {
    let inspected = engine
        .docker()
        .inspect_container(id, None::<InspectContainerOptions>)
        .await;
    let inspected = inspected.map_err(|cause| engine.error(id, cause))?;
    let info = engine.info().await?;
    let host = inspected.host_config.unwrap_or_default();
    let requests = host.device_requests.unwrap_or_default();
    let is_cdi = |driver: &Option<String>| driver.as_deref() == Some("cdi");
    let variables = inspected.config.and_then(|config| config.env).unwrap_or_default();
    let capabilities = variables
        .iter()
        .filter_map(|variable| variable.split_once('='))
        .find(|(name, _)| *name == CAPABILITIES);
    let runtime = host
        .runtime
        .filter(|runtime| !runtime.is_empty())
        .or(info.default_runtime);
    Ok(GpuSetup {
        has_runtime: runtime.as_deref() == Some("nvidia"),
        has_cdi: requests.iter().any(|request| is_cdi(&request.driver)),
        has_request: requests.iter().any(|request| !is_cdi(&request.driver)),
        capabilities: capabilities.map(|(_, value)| value.to_owned()),
        engine_has_runtime: info.runtimes.is_some_and(|runtimes| runtimes.contains_key("nvidia")),
    })
}

/// The error of a container without a GPU.
fn explained(engine: &Engine, name: &str, output: &ExecOutput, setup: &GpuSetup) -> Error {
    let text = output.text();
    if is_absent(output, &text) && is_without_utility(setup) {
        return Error::failed(format!(
            "whether container {name} has a GPU can't be seen: {CAPABILITIES} leaves nvidia-smi out of it"
        ))
        .hint("run it with -e NVIDIA_DRIVER_CAPABILITIES=compute,utility");
    }
    let part = missing(output, &text, setup);
    let said = match text.trim() {
        "" => format!("nvidia-smi lists no GPU (exit code {})", output.code.unwrap_or(-1)),
        said => shortened(said),
    };
    missing_error(engine, &format!("container {name} has no GPU"), part).because(said)
}

fn missing_error(engine: &Engine, what: &str, part: MissingPart) -> Error {
    let engine = engine.choice().engine();
    Error::failed(format!(
        "{what}: {part} is missing, or does not work, on the machine of {engine}"
    ))
    .hint(part.remedy())
}

/// Whether nvidia-smi is not in the container: the toolkit puts it there.
fn is_absent(output: &ExecOutput, text: &str) -> bool {
    output.code.is_some_and(|code| ABSENT.contains(&code)) || text.contains("executable file not found")
}

fn is_without_utility(setup: &GpuSetup) -> bool {
    let named = setup.capabilities.as_deref().filter(|named| !named.is_empty());
    setup.has_runtime && named.is_some_and(|named| !named.split(',').any(|one| matches!(one.trim(), "all" | "utility")))
}

/// What is missing where nvidia-smi says this.
fn missing(output: &ExecOutput, text: &str, setup: &GpuSetup) -> MissingPart {
    // The libraries of the driver come from the machine, too.
    let is_without_library = text.contains("libnvidia-ml.so");
    match (is_absent(output, text) || is_without_library, setup) {
        (true, setup) if setup.has_cdi => MissingPart::Cdi,
        (true, setup) if !setup.has_runtime && !setup.has_request && setup.engine_has_runtime => MissingPart::Runtime,
        (true, _) => MissingPart::Toolkit,
        // The toolkit's setting no-cgroups, or a reload of systemd that took the devices away again.
        (false, _) if text.contains("NVML: Unknown Error") => MissingPart::Toolkit,
        (false, _) => MissingPart::Driver,
    }
}

/// The error of a container that could not be started, with the missing part where it is for want of a GPU; any other error
/// as it is.
pub fn explain_start(engine: &Engine, error: Error) -> Error {
    match missing_at_start(&error.with_causes()) {
        Some(part) => missing_error(engine, "the container has no GPU and can't be started", part).because(error),
        None => error,
    }
}

/// What is missing where docker, or what it starts containers with, says this.
fn missing_at_start(message: &str) -> Option<MissingPart> {
    const SAID: [(&[&str], MissingPart); 9] = [
        (&["unknown or invalid runtime name: nvidia"], MissingPart::Runtime),
        (&["Unknown runtime specified nvidia"], MissingPart::Runtime),
        (&["CDI device injection failed"], MissingPart::Cdi),
        (&["unresolvable CDI devices"], MissingPart::Cdi),
        // `--gpus` without the toolkit.
        (&["could not select device driver", "gpu"], MissingPart::Toolkit),
        // What the runtime is configured as is not installed.
        (&["nvidia-container-runtime", "not found"], MissingPart::Toolkit),
        (
            &["nvidia-container-runtime", "no such file or directory"],
            MissingPart::Toolkit,
        ),
        (
            &["nvidia-container-cli", "executable file not found"],
            MissingPart::Toolkit,
        ),
        // Driver not loaded, library not found, versions that differ, no devices.
        (&["nvidia-container-cli"], MissingPart::Driver),
    ];
    let said = |parts: &[&str]| parts.iter().all(|part| message.contains(part));
    SAID.into_iter().find(|(parts, _)| said(parts)).map(|(_, part)| part)
}

/// A message of others, on a line that is not too long.
fn shortened(text: &str) -> String {
    let line = one_line(text);
    match line.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", line.get(..end).unwrap_or_default()),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use dockerutils_test_support::{Reply, ScriptedEngine};
    use serde_json::json;

    use super::super::samples::{connected, frame};
    use super::*;

    /// An engine with a container in which nvidia-smi says this.
    fn scripted(said: &str, code: i64, host: &serde_json::Value, capabilities: &str) -> ScriptedEngine {
        let env = [format!("NVIDIA_DRIVER_CAPABILITIES={capabilities}")];
        ScriptedEngine::start()
            .on("POST", "/containers/c1/exec", Reply::json(201, &json!({"Id": "e1"})))
            .on("POST", "/exec/e1/start", Reply::upgrade([frame(1, said)]))
            .on("GET", "/exec/e1/json", Reply::json(200, &json!({ "ExitCode": code })))
            .on(
                "GET",
                "/containers/c1/json",
                Reply::json(200, &json!({"Id": "c1", "HostConfig": host, "Config": {"Env": env}})),
            )
            .on(
                "GET",
                "/info",
                Reply::json(
                    200,
                    &json!({"Runtimes": {"runc": {}, "nvidia": {}}, "DefaultRuntime": "runc"}),
                ),
            )
    }

    #[tokio::test]
    async fn gpus_are_listed() {
        let said = "GPU 0: NVIDIA A100 (UUID: GPU-1)\n  MIG 1g.5gb Device 0: (UUID: MIG-1)\nGPU 1: X\u{1b}[2J\n";
        let scripted = scripted(said, 0, &json!({}), "all");
        let engine = connected(&scripted).await;
        assert_eq!(
            check(&engine, "c1", "nb").await.unwrap(),
            [
                "GPU 0: NVIDIA A100 (UUID: GPU-1)",
                "MIG 1g.5gb Device 0: (UUID: MIG-1)",
                "GPU 1: X"
            ]
        );
    }

    #[tokio::test]
    async fn the_missing_part_is_named_with_what_helps() {
        let nvidia = json!({"Runtime": "nvidia"});
        let cdi = json!({"DeviceRequests": [{"Driver": "cdi", "DeviceIDs": ["nvidia.com/gpu=all"]}]});
        let gpus = json!({"DeviceRequests": [{"Count": -1, "Capabilities": [["gpu"]]}]});
        let absent = "OCI runtime exec failed: exec: \"nvidia-smi\": executable file not found in $PATH: unknown\r\n";
        for (said, code, host, part, remedy) in [
            (
                "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.",
                9,
                &nvidia,
                "NVIDIA's driver",
                "nvidia-driver",
            ),
            (
                "Failed to initialize NVML: Driver/library version mismatch",
                18,
                &gpus,
                "NVIDIA's driver",
                "reload",
            ),
            ("No devices were found", 6, &nvidia, "NVIDIA's driver", "nvidia-driver"),
            ("", 0, &nvidia, "NVIDIA's driver", "nvidia-driver"),
            (
                "Failed to initialize NVML: Unknown Error",
                255,
                &nvidia,
                "toolkit",
                "nvidia-container-toolkit",
            ),
            (absent, 127, &nvidia, "toolkit", "nvidia-container-toolkit"),
            (absent, 126, &json!({}), "docker's runtime nvidia", "runtime configure"),
            (absent, 127, &cdi, "CDI", "cdi generate"),
            (
                "NVIDIA-SMI couldn't find libnvidia-ml.so library",
                12,
                &gpus,
                "toolkit",
                "nvidia-container-toolkit",
            ),
        ] {
            let scripted = scripted(said, code, host, "all");
            let engine = connected(&scripted).await;
            let error = check(&engine, "c1", "nb").await.unwrap_err();
            let message = error.to_string();
            assert!(message.starts_with("container nb has no GPU: "), "{message}");
            assert!(message.contains(part), "{said}: {message}");
            assert!(error.hint_text().unwrap().contains(remedy), "{said}: {error:?}");
        }
        let scripted = scripted(absent, 127, &nvidia, "compute");
        let engine = connected(&scripted).await;
        let error = check(&engine, "c1", "nb").await.unwrap_err();
        assert!(error.to_string().contains("can't be seen"), "{error}");
    }

    #[tokio::test]
    async fn a_start_that_fails_for_want_of_a_gpu_says_what_is_missing() {
        let scripted = ScriptedEngine::start();
        let engine = connected(&scripted).await;
        for (message, part) in [
            (
                "could not select device driver \"\" with capabilities: [[gpu]]",
                "container toolkit",
            ),
            ("unknown or invalid runtime name: nvidia", "docker's runtime nvidia"),
            (
                "failed to create shim task: OCI runtime create failed: unable to retrieve OCI runtime error: fork/exec \
                 /usr/bin/nvidia-container-runtime: no such file or directory",
                "container toolkit",
            ),
            (
                "nvidia-container-cli: initialization error: nvml error: driver not loaded",
                "NVIDIA's driver",
            ),
            (
                "nvidia-container-cli: initialization error: load library failed: libnvidia-ml.so.1: cannot open shared object file: \
                 no such file or directory",
                "NVIDIA's driver",
            ),
            (
                "CDI device injection failed: unresolvable CDI devices nvidia.com/gpu=all",
                "CDI",
            ),
        ] {
            let error = explain_start(
                &engine,
                Error::failed(format!("the container can't be started: {message}")),
            );
            assert!(error.to_string().contains(part), "{message}: {error}");
            assert!(error.with_causes().contains(message) && error.hint_text().is_some());
        }
        let other = explain_start(&engine, Error::failed("no space left on device"));
        assert_eq!(
            (other.to_string(), other.hint_text()),
            ("no space left on device".to_owned(), None)
        );
    }
}
