//! The options of `docker build`: words to values, and from values to BuildKit's frontend attributes or the classic
//! builder's query. Meanings follow docker's reference of `docker buildx build` 28 and of `docker build` 20.10.

mod table;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bollard::models::ResourcesUlimits;

use super::flags::{self, FlagError, Positionals};
use crate::env::Env;

/// All options of a build: a field without a comment is the option of its name, `--target` or `--label`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BuildOptions {
    /// `--tag`, besides the tags that the build gives by itself.
    pub tags: Vec<String>,
    /// `--file`, where it takes the place of the image type's Dockerfile.
    pub file: Option<PathBuf>,
    pub target: Option<String>,
    /// `--build-arg`: a name without a value is left out if the environment doesn't have it, as docker does.
    pub build_args: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
    pub secrets: Vec<Secret>,
    pub ssh: Vec<SshForward>,
    /// `--cache-from`: type and attributes.
    pub cache_from: Vec<Attributes>,
    pub cache_to: Vec<Attributes>,
    pub network: Option<String>,
    /// `--platform`, several joined by commas; else `DOCKER_DEFAULT_PLATFORM`.
    pub platform: Option<String>,
    pub no_cache: bool,
    /// `--no-cache-filter`: stages.
    pub no_cache_filter: Vec<String>,
    pub pull: bool,
    /// `--add-host`: `name:address`.
    pub add_hosts: Vec<String>,
    /// `--shm-size` in bytes.
    pub shm_size: Option<i64>,
    pub ulimits: Vec<ResourcesUlimits>,
    pub cgroup_parent: Option<String>,
    /// `--build-context`: name, and a folder, URL or `docker-image://` reference.
    pub contexts: Vec<(String, String)>,
    /// `--allow`: entitlements.
    pub allow: Vec<String>,
    /// `--attest`, `--provenance`, `--sbom`: kind and attributes.
    pub attestations: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub iidfile: Option<PathBuf>,
    pub metadata_file: Option<PathBuf>,
    pub quiet: bool,
    /// `--progress`: `auto`, `plain`, `tty` or `quiet`.
    pub progress: Option<String>,
    pub compress: bool,
    /// What only the classic builder knows.
    pub classic: ClassicOptions,
    /// The option that each attestation was requested by, by the attestation's kind.
    pub attested: BTreeMap<String, String>,
}

/// What an option needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// The classic builder; BuildKit has no counterpart, and docker ignores the option then.
    Classic,
    /// BuildKit.
    BuildKit,
    /// BuildKit, and containerd's image store: only that keeps what an image has beside its layers.
    ContainerdStore,
    /// The BuildKit of engine 23 or later; an older one ignores the option.
    Limits,
}

/// An option that not every builder or engine has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needing {
    /// The option, with what distinguishes it from others of its kind.
    pub option: String,
    pub need: Need,
}

/// Options that BuildKit has no counterpart for; a field without a comment is the option of its name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClassicOptions {
    /// `--memory` in bytes.
    pub memory: Option<i64>,
    /// `--memory-swap` in bytes, -1 for no limit.
    pub memory_swap: Option<i64>,
    pub cpu_shares: Option<i64>,
    /// `--cpu-period` in microseconds.
    pub cpu_period: Option<i64>,
    /// `--cpu-quota` in microseconds.
    pub cpu_quota: Option<i64>,
    pub cpuset_cpus: Option<String>,
    pub cpuset_mems: Option<String>,
    pub isolation: Option<String>,
    pub security_opts: Vec<String>,
    pub squash: bool,
    /// `--rm=false` keeps the intermediate containers.
    pub keep_containers: bool,
    pub force_rm: bool,
}

/// A secret of `RUN --mount=type=secret,id=ID`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    /// The name that the Dockerfile uses.
    pub id: String,
    /// Where its value comes from.
    pub source: SecretSource,
}

// The value must not reach a log.
impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secret({:?}, ..)", self.id)
    }
}

/// Where a [`Secret`] comes from.
#[derive(Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// A file on this machine, read when the build asks for it.
    File(PathBuf),
    /// An environment variable of this process.
    Environment { name: String, value: String },
}

/// An ssh agent of `RUN --mount=type=ssh,id=ID`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshForward {
    /// The name that the Dockerfile uses.
    pub id: String,
    /// One agent's socket, or key files.
    pub paths: Vec<PathBuf>,
}

/// A list such as `type=registry,ref=x`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// The `type`.
    pub kind: String,
    /// The rest.
    pub values: BTreeMap<String, String>,
}

/// An option that can't be used: which, and why.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BuildOptionError {
    /// docker would refuse it, too.
    #[error(transparent)]
    Grammar(#[from] FlagError),
    /// The value makes no sense.
    #[error("option {option} is `{value}`: {why}")]
    Value {
        /// The option as written.
        option: String,
        value: String,
        why: String,
    },
    /// There is no name before its `=`. The value is not shown: it may be a secret.
    #[error("option {option} has no name before its `=`")]
    Nameless {
        /// The option as written.
        option: String,
    },
    /// docker has it, but build-image can't do it.
    #[error("option {option} is not possible in build-image: {why}")]
    OutOfPlace {
        /// The option as written.
        option: String,
        /// Why, and what to use.
        why: &'static str,
    },
}

impl BuildOptions {
    /// The options that not every builder can do.
    pub fn needing(&self) -> Vec<Needing> {
        let classic = &self.classic;
        let has_isolation = classic
            .isolation
            .as_deref()
            .is_some_and(|name| !name.is_empty() && name != "default");
        let switches = [
            (Need::Classic, "--memory", classic.memory.is_some()),
            (Need::Classic, "--memory-swap", classic.memory_swap.is_some()),
            (Need::Classic, "--cpu-shares", classic.cpu_shares.is_some()),
            (Need::Classic, "--cpu-period", classic.cpu_period.is_some()),
            (Need::Classic, "--cpu-quota", classic.cpu_quota.is_some()),
            (Need::Classic, "--cpuset-cpus", classic.cpuset_cpus.is_some()),
            (Need::Classic, "--cpuset-mems", classic.cpuset_mems.is_some()),
            (Need::Classic, "--security-opt", !classic.security_opts.is_empty()),
            (Need::Classic, "--squash", classic.squash),
            (Need::Classic, "--isolation", has_isolation),
            (Need::BuildKit, "--no-cache-filter", !self.no_cache_filter.is_empty()),
            (Need::BuildKit, "--metadata-file", self.metadata_file.is_some()),
            (Need::BuildKit, "--allow", !self.allow.is_empty()),
            (Need::Limits, "--shm-size", self.shm_size.is_some()),
            (Need::Limits, "--ulimit", !self.ulimits.is_empty()),
            (Need::Limits, "--cgroup-parent", self.cgroup_parent.is_some()),
        ];
        let switches = switches.into_iter().filter(|(_, _, is_given)| *is_given);
        let mut needing: Vec<(Need, String)> = switches.map(|(need, option, _)| (need, option.to_owned())).collect();
        let secrets = self.secrets.iter().map(|secret| format!("--secret id={}", secret.id));
        let agents = self.ssh.iter().map(|ssh| format!("--ssh {}", ssh.id));
        let contexts = self.contexts.iter().map(|(name, _)| format!("--build-context {name}"));
        let caches = self.cache_from.iter().filter(|cache| cache.kind != "registry");
        let caches = caches.map(|cache| format!("--cache-from type={}", cache.kind));
        let buildkit = secrets.chain(agents).chain(contexts).chain(caches);
        needing.extend(buildkit.map(|option| (Need::BuildKit, option)));
        for cache in &self.cache_to {
            // That cache is written into the image itself.
            let need = match cache.kind.as_str() {
                "inline" => Need::BuildKit,
                _ => Need::ContainerdStore,
            };
            needing.push((need, format!("--cache-to type={}", cache.kind)));
        }
        let annotations = self.annotations.keys().map(|key| format!("--annotation {key}"));
        let platforms = self.platform.iter().filter(|platform| platform.contains(','));
        let platforms = platforms.map(|platform| format!("--platform {platform}"));
        let beside = self.attested.values().cloned().chain(annotations).chain(platforms);
        needing.extend(beside.map(|option| (Need::ContainerdStore, option)));
        needing
            .into_iter()
            .map(|(need, option)| Needing { option, need })
            .collect()
    }

    /// Parses the words of `build_args`. Paths are relative to `root`, where docker would be called.
    ///
    /// # Errors
    /// The first option that can't be used. A word that is not an option would be a second build context, and is an
    /// error, too.
    pub fn parse(words: &[String], root: &Path, env: &Env) -> Result<Self, BuildOptionError> {
        let mut options = Self::default();
        for given in flags::parse(table::FLAGS, words, Positionals::Refuse)?.given {
            let option = table::GivenOption::new(&given, root, env);
            (given.flag.action)(&mut options, &option)?;
        }
        if options.platform.is_none() {
            let default = env
                .get("DOCKER_DEFAULT_PLATFORM")
                .filter(|platform| !platform.is_empty());
            options.platform = default.map(str::to_owned);
        }
        Ok(options)
    }
}

impl Attributes {
    fn joined(&self) -> String {
        self.values
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect::<Vec<_>>()
            .join(",")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<BuildOptions, BuildOptionError> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let env = Env::from_pairs([("TOKEN", "t0p"), ("SSH_AUTH_SOCK", "/run/agent")]);
        BuildOptions::parse(&words, Path::new("/project"), &env)
    }

    #[test]
    fn values_are_read_as_docker_reads_them() {
        let options = parse(&[
            "--build-arg",
            "A=1",
            "--build-arg=TOKEN",
            "--build-arg",
            "ABSENT",
            "--label",
            "x",
            "--pull",
            "--shm-size",
            "64m",
            "--ulimit",
            "nofile=1024:2048",
            "--add-host",
            "db=[::1]",
            "--platform",
            "linux/amd64",
            "--cache-from",
            "me/x:1,me/y",
            "--security-opt",
            "a=b,c",
            "--secret",
            "id=k,env=TOKEN",
            "--ssh",
            "default",
            "-tq:1",
        ])
        .unwrap();
        assert_eq!(
            options.build_args,
            BTreeMap::from([("A".into(), "1".into()), ("TOKEN".into(), "t0p".into())])
        );
        assert_eq!(options.labels, BTreeMap::from([("x".into(), String::new())]));
        assert!(options.pull);
        assert_eq!(options.shm_size, Some(64 << 20));
        assert_eq!(options.add_hosts, ["db:::1"]);
        let references: Vec<&str> = options
            .cache_from
            .iter()
            .map(|cache| cache.values["ref"].as_str())
            .collect();
        assert_eq!(references, ["me/x:1", "me/y"]);
        assert_eq!(options.classic.security_opts, ["a=b", "c"]);
        assert_eq!(options.tags, ["q:1"]);
        assert_eq!(options.ssh[0].paths, [PathBuf::from("/run/agent")]);
        assert!(!format!("{options:?}").contains("Environment"));
    }

    #[test]
    fn the_environments_platform_counts_where_no_option_names_one() {
        let platform = |variable: &str, words: &[&str]| {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            let env = Env::from_pairs([("DOCKER_DEFAULT_PLATFORM", variable)]);
            let options = BuildOptions::parse(&words, Path::new("/project"), &env);
            options.unwrap().platform
        };
        assert_eq!(platform("linux/arm64", &[]).as_deref(), Some("linux/arm64"));
        assert_eq!(
            platform("linux/arm64", &["--platform", "linux/amd64"]).as_deref(),
            Some("linux/amd64")
        );
        assert_eq!(platform("", &[]), None);
    }

    #[test]
    fn what_has_no_place_says_so() {
        for (words, part) in [
            (&["--push"][..], "publish-image"),
            (&["--builder", "x"], "--builder"),
            (&["--output", "type=local,dest=out"], "--output"),
            (&["--secret", "id=x,src=/no/such"], "/no/such is not a file"),
            (&["--secret", "src=x"], "needs an id"),
            (&["--ulimit", "nofile"], "NAME=SOFT:HARD"),
            (&["--shm-size", "big"], "512m"),
            (&["--label", "=x"], "--label has no name"),
            (&["--label="], "--label has no name"),
            (&["--build-arg", "=x"], "--build-arg has no name"),
            (&["--build-arg", ""], "--build-arg has no name"),
            (&["--build-context", "=x"], "NAME=FOLDER"),
            (&["--tarjet", "x"], "--target"),
            (&["."], "`.`"),
        ] {
            let error = parse(words).unwrap_err().to_string();
            assert!(error.contains(part), "{words:?}: {error}");
        }
    }
}
