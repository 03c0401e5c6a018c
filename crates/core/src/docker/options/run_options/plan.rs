//! From options and facts to a container: the request to the engine, and the client's own work around it.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use bollard::models::{
    ContainerCreateBody, DeviceRequest, HostConfig, HostConfigLogConfig, Mount, MountBindOptions, MountType,
    NetworkingConfig,
};

use super::device::Device;
use super::error::GivenOption;
use super::mount::Volume;
use super::pull_policy::PullPolicy;
use super::table::Need;
use super::{ClientFacts, EngineSystem, OptionError, RunOptions};
use super::{device, environment, mount, platform, security};
use crate::docker::options::flags;

/// Where `--use-api-socket` puts the client's credentials.
const CREDENTIALS_DIR: &str = "/run/secrets/docker";

/// A file to copy into the container between its creation and its start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerFile {
    /// Its absolute path in the container.
    pub path: String,
    /// Its permission bits.
    pub mode: u32,
    /// Its content. May be secret.
    pub content: String,
}

/// The streams of the container that the client takes part in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attach {
    /// The client's input goes to the container.
    pub stdin: bool,
    /// The container's output comes to the client.
    pub stdout: bool,
    /// The container's error output comes to the client.
    pub stderr: bool,
}

/// A container to create, and what the client does around it.
#[derive(Debug, Clone, PartialEq)]
pub struct ContainerPlan {
    /// The container's name; the engine invents one otherwise.
    pub name: Option<String>,
    /// The platform to pull and to create for, in its usual spelling.
    pub platform: Option<String>,
    /// The request to the engine.
    pub body: ContainerCreateBody,
    /// Print the container's ID and leave it alone.
    pub detach: bool,
    /// The engine removes the container when it has ended.
    pub remove: bool,
    /// The container's input stays open.
    pub interactive: bool,
    /// The container has a terminal.
    pub tty: bool,
    /// What to attach to; nothing when detached.
    pub attach: Attach,
    /// Pass signals on to the container.
    pub sig_proxy: bool,
    /// The keys that detach, where the user chose them.
    pub detach_keys: Option<String>,
    /// Where to write the container's ID. It must not exist yet.
    pub cidfile: Option<PathBuf>,
    /// When to pull the image.
    pub pull: PullPolicy,
    /// Show nothing of the pull.
    pub quiet: bool,
    /// What to copy into the container before it starts.
    pub files: Vec<ContainerFile>,
    /// Notes for the user, though nothing is wrong.
    pub warnings: Vec<String>,
    /// The kernel's memory in bytes, if the engine still limits that: bollard's request has no field for it.
    pub kernel_memory: Option<i64>,
}

/// The API versions in which an engine accepts `KernelMemory`; the docker client sends it to no other.
const KERNEL_MEMORY: std::ops::Range<(u32, u32)> = (1, 40)..(1, 42);

impl ContainerPlan {
    /// The body of the request to the engine, whole.
    ///
    /// # Errors
    ///
    /// serde's errors; a request is always valid JSON.
    pub fn request(&self) -> serde_json::Result<serde_json::Value> {
        let mut request = serde_json::to_value(&self.body)?;
        if let Some(bytes) = self.kernel_memory
            && let Some(fields) = request.as_object_mut()
        {
            let host = fields.entry("HostConfig").or_insert_with(|| serde_json::json!({}));
            if let Some(host) = host.as_object_mut() {
                host.insert("KernelMemory".to_owned(), bytes.into());
            }
        }
        Ok(request)
    }
}

impl RunOptions {
    /// The container that these options, an image and a command make.
    ///
    /// # Errors
    ///
    /// An option that this engine doesn't have, a file that can't be read, or a file with wrong content.
    pub fn plan(&self, image: &str, command: &[String], facts: &ClientFacts<'_>) -> Result<ContainerPlan, OptionError> {
        self.check_engine(facts)?;
        let mut warnings = self.warnings(facts);
        let attach = self.streams();
        let open_stdin = self.config.open_stdin == Some(true);

        let mut env = self.environment.variables(facts)?;
        let mut host = self.host_config(facts)?;
        let files = self.share_socket(facts, &mut host, &mut env)?;
        let volumes = self.place_volumes(facts, &mut host)?;
        if host.mounts.is_some() && host.volume_driver.as_deref().is_some_and(|driver| !driver.is_empty()) {
            warnings.push("--volume-driver does not apply to a --mount; use its volume-driver key".to_owned());
        }

        let body = ContainerCreateBody {
            image: Some(image.to_owned()),
            cmd: (!command.is_empty()).then(|| command.to_vec()),
            env: Some(env),
            labels: Some(self.labels.labels(facts)?),
            attach_stdin: Some(attach.stdin),
            attach_stdout: Some(attach.stdout),
            attach_stderr: Some(attach.stderr),
            stdin_once: Some(open_stdin && attach.stdin),
            exposed_ports: Some(self.exposed_ports.iter().cloned().collect()),
            volumes: Some(volumes),
            healthcheck: self.health.config()?,
            networking_config: Some(NetworkingConfig {
                endpoints_config: Some(self.networks.endpoints(facts)?),
            }),
            host_config: Some(host),
            ..self.config.clone()
        };
        let set = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        Ok(ContainerPlan {
            name: set(&self.name),
            platform: self.platform(facts)?,
            body,
            detach: self.detach.is_some(),
            remove: self.remove.is_some(),
            interactive: open_stdin,
            tty: self.config.tty == Some(true),
            attach,
            sig_proxy: self.sig_proxy,
            detach_keys: set(&self.detach_keys),
            cidfile: set(&self.host.container_id_file).map(|file| facts.working_dir.join(Path::new(&file))),
            pull: self.pull,
            quiet: self.quiet,
            files,
            warnings,
            kernel_memory: self
                .kernel_memory
                .filter(|_| KERNEL_MEMORY.contains(&facts.api_version)),
        })
    }

    fn check_engine(&self, facts: &ClientFacts<'_>) -> Result<(), OptionError> {
        for (entry, need) in &self.needs {
            match *need {
                Need::Api(major, minor) if facts.api_version < (major, minor) => {
                    return Err(entry.too_old((major, minor), facts.api_version));
                }
                Need::Windows if facts.engine_system != EngineSystem::Windows => {
                    return Err(OptionError::OtherSystem {
                        option: entry.option.clone(),
                        needed: "Windows",
                    });
                }
                _ => {}
            }
        }
        match &self.distrust {
            Some(entry) if !entry.on => Err(entry.inexpressible("signatures of images are checked by docker only")),
            None if asks_for_trust((facts.env)("DOCKER_CONTENT_TRUST").as_deref()) => Err(OptionError::Inexpressible {
                option: "DOCKER_CONTENT_TRUST".to_owned(),
                reason: "signatures of images are checked by docker only",
            }),
            _ => Ok(()),
        }
    }

    fn warnings(&self, facts: &ClientFacts<'_>) -> Vec<String> {
        let servers = self.host.dns.iter().flatten();
        let local = servers.filter(|server| server.parse().is_ok_and(|address: IpAddr| address.is_loopback()));
        let mut warnings: Vec<String> = local
            .map(|server| format!("--dns {server} means this machine to you, but the container itself inside it"))
            .collect();
        if self.kernel_memory.is_some() && !KERNEL_MEMORY.contains(&facts.api_version) {
            warnings.push("--kernel-memory is ignored: this engine has no such limit".to_owned());
        }
        warnings
    }

    fn streams(&self) -> Attach {
        if self.detach.is_some() {
            return Attach::default();
        }
        let named = |stream| self.attach.iter().any(|entry| entry.value == stream);
        let unsaid = self.attach.is_empty();
        Attach {
            stdin: named("stdin") || self.config.open_stdin == Some(true),
            stdout: named("stdout") || unsaid,
            stderr: named("stderr") || unsaid,
        }
    }

    fn platform(&self, facts: &ClientFacts<'_>) -> Result<Option<String>, OptionError> {
        if self.platform.is_some() {
            return Ok(self.platform.clone().filter(|platform| !platform.is_empty()));
        }
        let variable = "DOCKER_DEFAULT_PLATFORM";
        match (facts.env)(variable).filter(|value| !value.is_empty()) {
            Some(value) => GivenOption {
                option: variable.to_owned(),
                value,
                on: false,
            }
            .read(platform::normalize)
            .map(Some),
            None => Ok(None),
        }
    }

    fn host_config(&self, facts: &ClientFacts<'_>) -> Result<HostConfig, OptionError> {
        let mut host = self.host.clone();
        host.auto_remove = Some(self.remove.is_some());
        host.network_mode = Some(self.networks.mode().to_owned());
        let (height, width) = if facts.api_version < (1, 42) {
            (0, 0)
        } else {
            facts.console_size
        };
        host.console_size = Some(vec![height, width]);
        host.log_config = Some(HostConfigLogConfig {
            typ: Some(self.log_driver.clone().unwrap_or_default()),
            config: Some(
                self.log_options
                    .iter()
                    .map(|entry| environment::pair(&entry.value))
                    .collect::<HashMap<_, _>>(),
            ),
        });
        host.cap_add = host.cap_add.map(|names| security::capabilities(&names));
        host.cap_drop = host.cap_drop.map(|names| security::capabilities(&names));
        security::apply_security(&self.security, facts, &mut host)?;
        self.add_devices(facts, &mut host)?;
        for (entry, mount) in &self.mounts {
            host.mounts
                .get_or_insert_default()
                .push(mount::resolved(entry, mount, facts)?);
        }
        Ok(host)
    }

    fn add_devices(&self, facts: &ClientFacts<'_>, host: &mut HostConfig) -> Result<(), OptionError> {
        let mut named = Vec::new();
        for entry in &self.devices {
            match entry.read(|value| device::device(value, facts.engine_system))? {
                Device::File(mapping) => host.devices.get_or_insert_default().push(mapping),
                Device::Named(name) => named.push(name),
            }
        }
        if !named.is_empty() {
            host.device_requests.get_or_insert_default().push(DeviceRequest {
                driver: Some("cdi".to_owned()),
                device_ids: Some(named),
                ..DeviceRequest::default()
            });
        }
        Ok(())
    }

    /// Puts the `--volume`s with a source into `host`, and returns those without.
    fn place_volumes(&self, facts: &ClientFacts<'_>, host: &mut HostConfig) -> Result<Vec<String>, OptionError> {
        let (mut binds, mut anonymous, mut seen) = (Vec::new(), Vec::new(), BTreeSet::new());
        for entry in &self.volumes {
            // Engines refuse the same volume twice, so docker drops what is written twice.
            if !seen.insert(&entry.value) {
                continue;
            }
            match mount::volume(entry, facts)? {
                Volume::Bind(bind) => binds.push(bind),
                Volume::Anonymous(path) => anonymous.push(path),
            }
        }
        if !binds.is_empty() {
            host.binds = Some(binds);
        }
        Ok(anonymous)
    }

    /// `--use-api-socket`: the engine's socket in the container, and the client's credentials beside it.
    fn share_socket(
        &self,
        facts: &ClientFacts<'_>,
        host: &mut HostConfig,
        env: &mut Vec<String>,
    ) -> Result<Vec<ContainerFile>, OptionError> {
        let Some(entry) = &self.api_socket else {
            return Ok(Vec::new());
        };
        let Some(socket) = facts.engine_socket else {
            return Err(entry.inexpressible("the engine isn't reached by a Unix socket of its own machine"));
        };
        host.mounts.get_or_insert_default().push(Mount {
            typ: Some(MountType::BIND),
            source: Some(socket.to_owned()),
            target: Some("/var/run/docker.sock".to_owned()),
            bind_options: Some(MountBindOptions::default()),
            ..Mount::default()
        });
        // If DOCKER_CONFIG is set, the container brings its own credentials.
        if env.iter().any(|variable| variable.starts_with("DOCKER_CONFIG=")) {
            return Ok(Vec::new());
        }
        let Some(credentials) = facts.credentials else {
            return Ok(Vec::new());
        };
        env.push(format!("DOCKER_CONFIG={CREDENTIALS_DIR}"));
        Ok(vec![ContainerFile {
            path: format!("{CREDENTIALS_DIR}/config.json"),
            mode: 0o600,
            content: credentials.to_owned(),
        }])
    }
}

/// docker treats a value that it doesn't understand as yes.
fn asks_for_trust(value: Option<&str>) -> bool {
    value.is_some_and(|value| !value.is_empty() && flags::parse_bool(value) != Some(false))
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split(' ')
            .filter(|word| !word.is_empty())
            .map(str::to_owned)
            .collect()
    }

    fn facts<'a>() -> ClientFacts<'a> {
        ClientFacts {
            env: &|_| None,
            read_file: &|_| Err(io::ErrorKind::NotFound.into()),
            working_dir: Path::new("/project"),
            api_version: (1, 50),
            engine_system: EngineSystem::Linux,
            engine_socket: None,
            console_size: (0, 0),
            proxies: &[],
            credentials: None,
        }
    }

    fn plan(line: &str, facts: &ClientFacts<'_>) -> Result<ContainerPlan, OptionError> {
        RunOptions::parse(&words(line))?.plan("image", &[], facts)
    }

    fn message(line: &str, facts: &ClientFacts<'_>) -> String {
        plan(line, facts).unwrap_err().to_string()
    }

    #[test]
    fn the_clients_own_work_is_in_the_plan() {
        let line = "-dit --name n --rm --sig-proxy=false --detach-keys ctrl-q --cidfile id --pull always -q";
        let made = plan(line, &facts()).unwrap();
        assert!(made.detach && made.remove && made.interactive && made.tty && made.quiet && !made.sig_proxy);
        assert_eq!(made.name.as_deref(), Some("n"));
        assert_eq!(made.detach_keys.as_deref(), Some("ctrl-q"));
        assert_eq!(made.cidfile.as_deref(), Some(Path::new("/project/id")));
        assert_eq!(made.pull, PullPolicy::Always);
        assert_eq!(made.attach, Attach::default());

        let made = plan("", &facts()).unwrap();
        assert!(made.sig_proxy && !made.detach && !made.remove);
        assert_eq!((made.pull, made.name, made.cidfile), (PullPolicy::Missing, None, None));
        assert_eq!(
            made.attach,
            Attach {
                stdin: false,
                stdout: true,
                stderr: true
            }
        );
        assert_eq!(
            plan("-a stdin", &facts()).unwrap().attach,
            Attach {
                stdin: true,
                stdout: false,
                stderr: false
            }
        );
    }

    #[test]
    fn errors_name_the_option_as_written_and_its_value() {
        assert_eq!(message("-p x:80", &facts()), "option -p is `x:80`: `x` is not a port");
        assert_eq!(
            message("--publish=x:80", &facts()),
            "option --publish is `x:80`: `x` is not a port"
        );
        assert_eq!(
            message("--rm --restart=always", &facts()),
            "option --restart can't be used together with --rm"
        );
        assert_eq!(
            message("--mount type=bind", &facts()),
            "option --mount is `type=bind`: has no target"
        );
        assert_eq!(
            message("--env-file no", &facts()),
            "option --env-file is `no`: the file can't be read"
        );
        assert_eq!(message("-it image", &facts()), "`image` is not an option");
        assert_eq!(
            message("--cpu-count 2", &facts()),
            "option --cpu-count is for an engine on Windows"
        );
        let old = ClientFacts {
            api_version: (1, 41),
            ..facts()
        };
        assert_eq!(
            message("--annotation a=b", &old),
            "option --annotation needs an engine with API 1.43, and this one has 1.41",
        );
        assert_eq!(
            message("--network name=n,ip=1.1.1.1 --ip 1.1.1.2", &facts()),
            "option --ip can't be used together with --network n,ip=...",
        );
    }

    #[test]
    fn no_error_shows_a_secret() {
        assert!(!message("-e =secret", &facts()).contains("secret"));
        let with_file = ClientFacts {
            read_file: &|_| Ok(b"\nA B=secret".to_vec()),
            ..facts()
        };
        assert_eq!(
            message("--env-file f", &with_file),
            "option --env-file: `f`, line 2: has a blank in its name"
        );
    }

    #[test]
    fn the_clients_environment_has_a_say() {
        let env = |name: &str| (name == "DOCKER_DEFAULT_PLATFORM").then(|| "linux/aarch64".to_owned());
        let elsewhere = ClientFacts { env: &env, ..facts() };
        assert_eq!(plan("", &elsewhere).unwrap().platform.as_deref(), Some("linux/arm64"));
        assert_eq!(
            plan("--platform linux/386", &elsewhere).unwrap().platform.as_deref(),
            Some("linux/386")
        );
        assert_eq!(plan("--platform=", &elsewhere).unwrap().platform, None);

        let env = |name: &str| (name == "DOCKER_CONTENT_TRUST").then(|| "1".to_owned());
        let trusting = ClientFacts { env: &env, ..facts() };
        assert!(message("", &trusting).contains("DOCKER_CONTENT_TRUST"));
        assert!(plan("--disable-content-trust", &trusting).is_ok());
        assert!(message("--disable-content-trust=false", &facts()).contains("--disable-content-trust"));
    }

    #[test]
    fn credentials_go_into_a_container_that_gets_the_socket() {
        let sharing = ClientFacts {
            engine_socket: Some("/run/d.sock"),
            credentials: Some("{}"),
            ..facts()
        };
        let made = plan("--use-api-socket", &sharing).unwrap();
        assert_eq!(
            made.body.env,
            Some(vec!["DOCKER_CONFIG=/run/secrets/docker".to_owned()])
        );
        let [file] = made.files.as_slice() else {
            panic!("one file, not {:?}", made.files)
        };
        assert_eq!(
            (file.path.as_str(), file.mode),
            ("/run/secrets/docker/config.json", 0o600)
        );
        assert!(
            plan("--use-api-socket -e DOCKER_CONFIG=/x", &sharing)
                .unwrap()
                .files
                .is_empty()
        );
        assert!(message("--use-api-socket", &facts()).contains("--use-api-socket"));
    }

    #[test]
    fn what_looks_wrong_is_said() {
        let warnings = |line| plan(line, &facts()).unwrap().warnings.len();
        assert_eq!(warnings("--dns 8.8.8.8"), 0);
        assert_eq!(warnings("--dns 127.0.0.53"), 1);
        assert_eq!(warnings("--kernel-memory 5m"), 1);
        assert_eq!(warnings("--volume-driver d --mount dst=/x"), 1);
    }
}
