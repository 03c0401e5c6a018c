//! The options of `docker run`, from words to the request that the engine gets.
//!
//! This takes two steps, both without input and output of their own. [`RunOptions::parse`] parses the words by docker's
//! own rules, and refuses what docker refuses. [`RunOptions::plan`] adds what the docker client would read beside its
//! command line (its environment, its directory, files that options name, the engine's API version: [`ClientFacts`])
//! and makes the [`ContainerPlan`].
//!
//! The meaning of each option follows docker/cli 28.2 (`cli/command/container/opts.go`, `opts/`); a
//! differential test compares the requests with those of the docker client, option by option.
//!
//! Where we stop earlier: a restart policy, a type or propagation of a mount, or an isolation that does
//! not exist is an error here, where docker leaves it to the engine to refuse it.

mod bind;
mod device;
mod environment;
mod error;
mod facts;
mod health;
mod mount;
mod network;
mod path;
mod plan;
pub(in crate::docker) mod platform;
mod port;
mod pull_policy;
pub(in crate::docker) mod security;
mod table;

use std::collections::{BTreeSet, HashMap};

use bollard::models::{ContainerCreateBody, HostConfig, Mount, RestartPolicy, RestartPolicyNameEnum};

pub use self::bind::with_other_sources;
pub use self::error::OptionError;
pub use self::facts::{ClientFacts, EngineSystem};
pub use self::plan::{Attach, ContainerFile, ContainerPlan};
pub use self::pull_policy::PullPolicy;

use self::environment::Pairs;
use self::error::GivenOption;
use self::health::Health;
use self::network::Networks;
use self::table::{FLAGS, Need};
use crate::docker::options::flags::{self, Positionals};
use crate::docker::options::go_values;

/// The parsed options of one `docker run`, independent of where they will run.
#[derive(Debug, Clone, PartialEq)]
pub struct RunOptions {
    /// Options that need no facts go straight into the request.
    config: ContainerCreateBody,
    host: HostConfig,
    exposed_ports: BTreeSet<String>,

    environment: Pairs,
    labels: Pairs,
    networks: Networks,
    health: Health,
    attach: Vec<GivenOption>,
    devices: Vec<GivenOption>,
    mounts: Vec<(GivenOption, Mount)>,
    security: Vec<GivenOption>,
    volumes: Vec<GivenOption>,
    log_driver: Option<String>,
    log_options: Vec<GivenOption>,
    restart: Option<GivenOption>,
    remove: Option<GivenOption>,
    kernel_memory: Option<i64>,
    api_socket: Option<GivenOption>,
    distrust: Option<GivenOption>,
    /// The options that not every engine has.
    needs: Vec<(GivenOption, Need)>,

    // What the client itself does.
    name: Option<String>,
    platform: Option<String>,
    detach: Option<GivenOption>,
    detach_keys: Option<String>,
    sig_proxy: bool,
    pull: PullPolicy,
    quiet: bool,
}

impl Default for RunOptions {
    /// `docker run` without options.
    fn default() -> RunOptions {
        RunOptions {
            config: ContainerCreateBody::default(),
            host: HostConfig {
                // Values that docker always sends, and that engines distinguish from absent ones, if only in `docker
                // inspect`.
                blkio_device_read_bps: Some(Vec::new()),
                blkio_device_read_iops: Some(Vec::new()),
                blkio_device_write_bps: Some(Vec::new()),
                blkio_device_write_iops: Some(Vec::new()),
                blkio_weight_device: Some(Vec::new()),
                devices: Some(Vec::new()),
                dns: Some(Vec::new()),
                dns_options: Some(Vec::new()),
                dns_search: Some(Vec::new()),
                memory_swappiness: Some(-1),
                oom_kill_disable: Some(false),
                pids_limit: Some(0),
                port_bindings: Some(HashMap::new()),
                restart_policy: Some(RestartPolicy {
                    name: Some(RestartPolicyNameEnum::NO),
                    maximum_retry_count: Some(0),
                }),
                ulimits: Some(Vec::new()),
                ..HostConfig::default()
            },
            exposed_ports: BTreeSet::new(),
            environment: Pairs::default(),
            labels: Pairs::default(),
            networks: Networks::default(),
            health: Health::default(),
            attach: Vec::new(),
            devices: Vec::new(),
            mounts: Vec::new(),
            security: Vec::new(),
            volumes: Vec::new(),
            log_driver: None,
            log_options: Vec::new(),
            restart: None,
            remove: None,
            kernel_memory: None,
            api_socket: None,
            distrust: None,
            needs: Vec::new(),
            name: None,
            platform: None,
            detach: None,
            detach_keys: None,
            sig_proxy: true,
            pull: PullPolicy::default(),
            quiet: false,
        }
    }
}

impl RunOptions {
    /// Whether the container gets the engine's socket, and with it the client's credentials.
    pub fn shares_api_socket(&self) -> bool {
        self.api_socket.is_some()
    }

    /// Parses options; the image and its command are not among them.
    ///
    /// # Errors
    ///
    /// The first word that docker would refuse, or a word that is not an option; then options that exclude each other.
    pub fn parse(words: &[String]) -> Result<RunOptions, OptionError> {
        let parsed = flags::parse(FLAGS, words, Positionals::Refuse)?;
        let mut options = RunOptions::default();
        for given in parsed.given {
            let entry = GivenOption {
                on: given.is_on(),
                option: given.written,
                value: given.value,
            };
            let action = given.flag.action;
            if action.need != Need::Any {
                options.needs.push((entry.clone(), action.need));
            }
            (action.set)(&mut options, entry)?;
        }
        options.check()?;
        Ok(options)
    }

    fn attach(&mut self, entry: GivenOption) -> Result<(), OptionError> {
        let value = entry.value.to_lowercase();
        if !matches!(value.as_str(), "stdin" | "stdout" | "stderr") {
            return Err(entry.refuse("is not one of stdin, stdout and stderr"));
        }
        self.attach.push(GivenOption { value, ..entry });
        Ok(())
    }

    fn publish(&mut self, entry: &GivenOption) -> Result<(), OptionError> {
        let bindings = self.host.port_bindings.get_or_insert_default();
        for (port, binding) in entry.read(port::publish)? {
            bindings
                .entry(port.clone())
                .or_default()
                .get_or_insert_default()
                .push(binding);
            self.exposed_ports.insert(port);
        }
        Ok(())
    }

    fn expose(&mut self, entry: &GivenOption) -> Result<(), OptionError> {
        self.exposed_ports.extend(entry.read(port::expose)?);
        Ok(())
    }

    fn restart(&mut self, entry: GivenOption) -> Result<(), OptionError> {
        let (name, count) = entry.value.split_once(':').unwrap_or((&entry.value, ""));
        let name = match name {
            "" if entry.value.is_empty() => RestartPolicyNameEnum::EMPTY,
            "no" => RestartPolicyNameEnum::NO,
            "always" => RestartPolicyNameEnum::ALWAYS,
            "unless-stopped" => RestartPolicyNameEnum::UNLESS_STOPPED,
            "on-failure" => RestartPolicyNameEnum::ON_FAILURE,
            _ => {
                return Err(entry.refuse("is not one of no, always, unless-stopped and on-failure[:COUNT]"));
            }
        };
        let maximum_retry_count = match count {
            "" => 0,
            count => go_values::decimal_integer(count).map_err(|reason| entry.refuse(format!("its count {reason}")))?,
        };
        self.host.restart_policy = Some(RestartPolicy {
            name: Some(name),
            maximum_retry_count: Some(maximum_retry_count),
        });
        let restarts = !matches!(name, RestartPolicyNameEnum::EMPTY | RestartPolicyNameEnum::NO);
        self.restart = restarts.then_some(entry);
        Ok(())
    }

    fn ulimit(&mut self, entry: &GivenOption) -> Result<(), OptionError> {
        let limit = entry.read(security::ulimit)?;
        let limits = self.host.ulimits.get_or_insert_default();
        limits.retain(|known| known.name != limit.name);
        limits.push(limit);
        limits.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(())
    }

    /// Whether `--publish-all` is among them.
    pub fn publishes_all(&self) -> bool {
        self.host.publish_all_ports == Some(true)
    }

    /// The user that `--user` names.
    pub fn user(&self) -> Option<&str> {
        self.config.user.as_deref()
    }

    /// Whether `--workdir` is among them.
    pub fn sets_working_dir(&self) -> bool {
        self.config.working_dir.is_some()
    }

    /// Whether `--entrypoint` is among them.
    pub fn sets_entrypoint(&self) -> bool {
        self.config.entrypoint.is_some()
    }

    /// Whether `--read-only` is among them.
    pub fn has_read_only_root(&self) -> bool {
        self.host.readonly_rootfs == Some(true)
    }

    /// Whether some `--env` names this variable.
    pub fn names_variable(&self, name: &str) -> bool {
        self.environment.names(name)
    }

    /// Whether `--publish` names this port of the container, such as `8888/tcp`.
    pub fn publishes(&self, port: &str) -> bool {
        let bindings = self.host.port_bindings.iter().flatten();
        bindings.into_iter().any(|(known, _)| known == port)
    }

    /// Whether something is mounted at this path of the container.
    pub fn mounts_at(&self, target: &str) -> bool {
        let of_volume = |entry: &GivenOption| {
            let mut parts = entry.value.split(':');
            let first = parts.next();
            parts.next().or(first) == Some(target)
        };
        let of_mount = |mount: &Mount| mount.target.as_deref() == Some(target);
        self.volumes.iter().any(of_volume) || self.mounts.iter().any(|(_, mount)| of_mount(mount))
    }

    /// Checks options against each other.
    fn check(&self) -> Result<(), OptionError> {
        if let (Some(remove), Some(restart)) = (&self.remove, &self.restart) {
            return Err(restart.conflict(&remove.option));
        }
        if let (Some(detach), Some(attach)) = (&self.detach, self.attach.first()) {
            return Err(attach.conflict(&detach.option));
        }
        if let (Some("none"), Some(option)) = (self.log_driver.as_deref(), self.log_options.first()) {
            return Err(option.conflict("--log-driver none"));
        }
        self.health.config().map(|_| ())
    }
}

/// The same options, with each `--publish` without an address on 127.0.0.1: on a machine that others reach, a port is
/// not open to them unless the user wants that.
///
/// # Errors
///
/// Words that are not options, and ports that can't be parsed.
pub fn publish_on_loopback(words: &[String]) -> Result<Vec<String>, OptionError> {
    let parsed = flags::parse(FLAGS, words, Positionals::Refuse)?;
    let mut words = words.to_vec();
    for given in parsed.given.iter().filter(|given| given.flag.long == "publish") {
        let entry = GivenOption {
            option: given.written.clone(),
            value: given.value.clone(),
            on: false,
        };
        let Some(spec) = entry.read(port::on_loopback)? else {
            continue;
        };
        // The value is the end of the option's last word: all of it, or after `-p` or `--publish=`.
        if let Some(word) = words.get_mut(given.words.end.saturating_sub(1))
            && let Some(before) = word.strip_suffix(&given.value)
        {
            *word = format!("{before}{spec}");
        }
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split(' ')
            .filter(|word| !word.is_empty())
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn what_is_given_can_be_asked_for() {
        let given = RunOptions::parse(&words(
            "-u 7 -p 127.0.0.1:1:80 -v /a:/b:ro -v /c --mount type=bind,src=/d,dst=/e",
        ));
        let given = given.unwrap();
        assert_eq!(given.user(), Some("7"));
        assert!(given.publishes("80/tcp") && !given.publishes("1/tcp"));
        for (target, is_there) in [("/b", true), ("/c", true), ("/e", true), ("/a", false), ("/d", false)] {
            assert_eq!(given.mounts_at(target), is_there, "{target}");
        }
        assert_eq!(RunOptions::default().user(), None);
    }

    #[test]
    fn open_addresses_become_the_loopback_address() {
        let line =
            "-it -p80 -p 8080:80 --publish=[::]:1:1 -p=1-2:1-2/udp -p 0.0.0.0:5:5 -itp6:6 -p target=7,published=8 -e p";
        let expected = "-it -p127.0.0.1::80 -p 127.0.0.1:8080:80 --publish=[::]:1:1 -p=127.0.0.1:1-2:1-2/udp \
                        -p 0.0.0.0:5:5 -itp127.0.0.1:6:6 -p 127.0.0.1:8:7 -e p";
        assert_eq!(publish_on_loopback(&words(line)).unwrap(), words(expected));
    }
}
