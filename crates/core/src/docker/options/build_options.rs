//! The options of `docker build`: words to values, and from values to BuildKit's frontend attributes or the classic
//! builder's query. Meanings follow docker's reference of `docker buildx build` 28 and of `docker build` 20.10.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bollard::models::ResourcesUlimits;

use super::flags::{self, Flag, FlagError, Given, Positionals};
use super::run_options::security;
use crate::docker::options::csv;
use crate::docker::options::go_values;
use crate::env::Env;

/// Everything that a build can be told.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BuildOptions {
    /// `--tag`, besides the tags that the build gives by itself.
    pub tags: Vec<String>,
    /// `--file`, where it takes the place of the image type's Dockerfile.
    pub file: Option<PathBuf>,
    /// `--target`.
    pub target: Option<String>,
    /// `--build-arg`: a name without value that the environment doesn't have is left out, as docker does.
    pub build_args: BTreeMap<String, String>,
    /// `--label`.
    pub labels: BTreeMap<String, String>,
    /// `--secret`.
    pub secrets: Vec<Secret>,
    /// `--ssh`.
    pub ssh: Vec<SshForward>,
    /// `--cache-from`: type and attributes.
    pub cache_from: Vec<Attributes>,
    /// `--cache-to`.
    pub cache_to: Vec<Attributes>,
    /// `--network`.
    pub network: Option<String>,
    /// `--platform`, several joined by commas; else `DOCKER_DEFAULT_PLATFORM`.
    pub platform: Option<String>,
    /// `--no-cache`.
    pub no_cache: bool,
    /// `--no-cache-filter`: stages.
    pub no_cache_filter: Vec<String>,
    /// `--pull`.
    pub pull: bool,
    /// `--add-host`: `name:address`.
    pub add_hosts: Vec<String>,
    /// `--shm-size` in bytes.
    pub shm_size: Option<i64>,
    /// `--ulimit`.
    pub ulimits: Vec<ResourcesUlimits>,
    /// `--cgroup-parent`.
    pub cgroup_parent: Option<String>,
    /// `--build-context`: name, and a folder, URL or `docker-image://` reference.
    pub contexts: Vec<(String, String)>,
    /// `--allow`: entitlements.
    pub allow: Vec<String>,
    /// `--attest`, `--provenance`, `--sbom`: kind and attributes.
    pub attestations: BTreeMap<String, String>,
    /// `--annotation`.
    pub annotations: BTreeMap<String, String>,
    /// `--iidfile`.
    pub iidfile: Option<PathBuf>,
    /// `--metadata-file`.
    pub metadata_file: Option<PathBuf>,
    /// `--quiet`.
    pub quiet: bool,
    /// `--progress`: `auto`, `plain`, `tty` or `quiet`.
    pub progress: Option<String>,
    /// `--compress`.
    pub compress: bool,
    /// What only the classic builder knows.
    pub classic: ClassicOptions,
    /// As which options attestations were asked for, by their kinds.
    pub attested: BTreeMap<String, String>,
}

/// What an option needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// The classic builder; BuildKit has no counterpart, and docker goes on without.
    Classic,
    /// BuildKit.
    BuildKit,
    /// BuildKit, and an image store that keeps what stands beside an image's layers: containerd's.
    ContainerdStore,
    /// The BuildKit of engine 23 or later; an older one goes on without.
    Limits,
}

/// An option that needs something, as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needing {
    /// The option, with what tells it from others of its kind.
    pub option: String,
    /// What it needs.
    pub need: Need,
}

/// Options that BuildKit has no counterpart for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClassicOptions {
    /// `--memory` in bytes.
    pub memory: Option<i64>,
    /// `--memory-swap` in bytes, -1 for no limit.
    pub memory_swap: Option<i64>,
    /// `--cpu-shares`.
    pub cpu_shares: Option<i64>,
    /// `--cpu-period` in microseconds.
    pub cpu_period: Option<i64>,
    /// `--cpu-quota` in microseconds.
    pub cpu_quota: Option<i64>,
    /// `--cpuset-cpus`.
    pub cpuset_cpus: Option<String>,
    /// `--cpuset-mems`.
    pub cpuset_mems: Option<String>,
    /// `--isolation`.
    pub isolation: Option<String>,
    /// `--security-opt`.
    pub security_opts: Vec<String>,
    /// `--squash`.
    pub squash: bool,
    /// `--rm=false` keeps the intermediate containers.
    pub keep_containers: bool,
    /// `--force-rm`.
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
    Environment {
        /// Its name.
        name: String,
        /// Its value.
        value: String,
    },
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

/// An option that can't be taken: which, and why.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BuildOptionError {
    /// docker wouldn't take it apart either.
    #[error(transparent)]
    Grammar(#[from] FlagError),
    /// The value means nothing.
    #[error("option {option} is `{value}`: {why}")]
    Value {
        /// The option as written.
        option: String,
        /// Its value.
        value: String,
        /// What is wrong with it.
        why: String,
    },
    /// What it sets has no name. The value is not shown: it may be a secret.
    #[error("option {option} has no name before its `=`")]
    Nameless {
        /// The option as written.
        option: String,
    },
    /// docker knows it, and build-image can't do it.
    #[error("option {option} has no place in build-image: {why}")]
    OutOfPlace {
        /// The option as written.
        option: String,
        /// Why, and what to use.
        why: &'static str,
    },
}

/// What an option does, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    AddHost,
    Allow,
    Annotation,
    Attest,
    BuildArg,
    BuildContext,
    CacheFrom,
    CacheTo,
    CgroupParent,
    Compress,
    CpuPeriod,
    CpuQuota,
    CpuShares,
    CpusetCpus,
    CpusetMems,
    Debug,
    File,
    ForceRm,
    Iidfile,
    Isolation,
    Label,
    Load,
    Memory,
    MemorySwap,
    MetadataFile,
    Network,
    NoCache,
    NoCacheFilter,
    OutOfPlace(&'static str),
    Output,
    Platform,
    Progress,
    Provenance,
    Pull,
    Quiet,
    Rm,
    Sbom,
    Secret,
    SecurityOpt,
    ShmSize,
    Squash,
    Ssh,
    Tag,
    Target,
    Ulimit,
}

const BUILDER: &str = "the engine's own builder is used; `docker buildx build --builder` uses another";
const CHECKS: &str = "it builds nothing; use `docker build --check`";
const PUSH: &str = "publish-image pushes";
const STREAM: &str = "docker removed it; the context is sent incrementally anyway";

static FLAGS: &[Flag<Action>] = &[
    Flag::valued("add-host", Action::AddHost),
    Flag::valued("allow", Action::Allow),
    Flag::valued("annotation", Action::Annotation),
    Flag::valued("attest", Action::Attest),
    Flag::valued("build-arg", Action::BuildArg),
    Flag::valued("build-context", Action::BuildContext),
    Flag::valued("builder", Action::OutOfPlace(BUILDER)),
    Flag::valued("cache-from", Action::CacheFrom),
    Flag::valued("cache-to", Action::CacheTo),
    Flag::valued("call", Action::OutOfPlace(CHECKS)),
    Flag::valued("cgroup-parent", Action::CgroupParent),
    Flag::switch("check", Action::OutOfPlace(CHECKS)),
    Flag::switch("compress", Action::Compress),
    Flag::valued("cpu-period", Action::CpuPeriod),
    Flag::valued("cpu-quota", Action::CpuQuota),
    Flag::valued("cpu-shares", Action::CpuShares).short('c'),
    Flag::valued("cpuset-cpus", Action::CpusetCpus),
    Flag::valued("cpuset-mems", Action::CpusetMems),
    Flag::switch("debug", Action::Debug).short('D'),
    Flag::switch("disable-content-trust", Action::Debug),
    Flag::valued("file", Action::File).short('f'),
    Flag::switch("force-rm", Action::ForceRm),
    Flag::valued("iidfile", Action::Iidfile),
    Flag::valued("isolation", Action::Isolation),
    Flag::valued("label", Action::Label),
    Flag::switch("load", Action::Load),
    Flag::valued("memory", Action::Memory).short('m'),
    Flag::valued("memory-swap", Action::MemorySwap),
    Flag::valued("metadata-file", Action::MetadataFile),
    Flag::valued("network", Action::Network),
    Flag::switch("no-cache", Action::NoCache),
    Flag::valued("no-cache-filter", Action::NoCacheFilter),
    Flag::valued("output", Action::Output).short('o'),
    Flag::valued("platform", Action::Platform),
    Flag::valued("progress", Action::Progress),
    Flag::valued("provenance", Action::Provenance),
    Flag::switch("pull", Action::Pull),
    Flag::switch("push", Action::OutOfPlace(PUSH)),
    Flag::switch("quiet", Action::Quiet).short('q'),
    Flag::switch("rm", Action::Rm),
    Flag::valued("sbom", Action::Sbom),
    Flag::valued("secret", Action::Secret),
    Flag::valued("security-opt", Action::SecurityOpt),
    Flag::valued("shm-size", Action::ShmSize),
    Flag::switch("squash", Action::Squash),
    Flag::valued("ssh", Action::Ssh),
    Flag::switch("stream", Action::OutOfPlace(STREAM)),
    Flag::valued("tag", Action::Tag).short('t'),
    Flag::valued("target", Action::Target),
    Flag::valued("ulimit", Action::Ulimit),
];

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
            // That one is written into the image itself.
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

    /// Takes the words of `build_args` apart. Paths are seen from `root`, where docker would be called.
    ///
    /// # Errors
    /// The first option that can't be taken. A word that is no option would be a second build context, and is one too.
    pub fn parse(words: &[String], root: &Path, env: &Env) -> Result<Self, BuildOptionError> {
        let mut options = Self::default();
        for given in flags::parse(FLAGS, words, Positionals::Refuse)?.given {
            options.apply(&given, root, env)?;
        }
        if options.platform.is_none() {
            let default = env
                .get("DOCKER_DEFAULT_PLATFORM")
                .filter(|platform| !platform.is_empty());
            options.platform = default.map(str::to_owned);
        }
        Ok(options)
    }

    fn apply(&mut self, given: &Given<'_, Action>, root: &Path, env: &Env) -> Result<(), BuildOptionError> {
        let value = given.value.as_str();
        let wrong = |why: &str| BuildOptionError::Value {
            option: given.written.clone(),
            value: given.value.clone(),
            why: why.to_owned(),
        };
        let nameless = || BuildOptionError::Nameless {
            option: given.written.clone(),
        };
        let integer = || value.parse::<i64>().map_err(|_| wrong("it must be a whole number"));
        let bytes = || go_values::size(value).map_err(|why| wrong(&why));
        let listed = || attributes(value).map_err(|why| wrong(&why));
        match given.flag.action {
            Action::AddHost => self
                .add_hosts
                .push(add_host(value).ok_or_else(|| wrong("it must be NAME:ADDRESS"))?),
            Action::Allow => self.allow.extend(value.split(',').map(str::to_owned)),
            Action::Annotation => {
                let (key, text) = value.split_once('=').ok_or_else(|| wrong("it must be KEY=VALUE"))?;
                self.annotations.insert(key.to_owned(), text.to_owned());
            }
            Action::Attest => {
                let mut attributes = listed()?;
                if attributes.kind.is_empty() {
                    return Err(wrong("it must have a type, as in type=provenance"));
                }
                if attributes
                    .values
                    .remove("disabled")
                    .is_none_or(|disabled| disabled != "true")
                {
                    let option = format!("{} type={}", given.written, attributes.kind);
                    self.attested.insert(attributes.kind.clone(), option);
                    self.attestations.insert(attributes.kind.clone(), attributes.joined());
                }
            }
            Action::Provenance => self.attest("provenance", given, "mode=min,inline-only=true"),
            Action::Sbom => self.attest("sbom", given, ""),
            Action::BuildArg => {
                if value.is_empty() || value.starts_with('=') {
                    return Err(nameless());
                }
                if let Some((name, text)) = named_value(value, env) {
                    self.build_args.insert(name.to_owned(), text.to_owned());
                }
            }
            Action::BuildContext => {
                let (name, place) = value
                    .split_once('=')
                    .filter(|(name, _)| !name.is_empty())
                    .ok_or_else(|| wrong("it must be NAME=FOLDER or NAME=URL"))?;
                self.contexts.push((name.to_owned(), place.to_owned()));
            }
            Action::CacheFrom => self.cache_from.extend(caches(value).map_err(|why| wrong(&why))?),
            Action::CacheTo => self.cache_to.extend(caches(value).map_err(|why| wrong(&why))?),
            Action::CgroupParent => self.cgroup_parent = Some(value.to_owned()),
            Action::Compress => self.compress = given.is_on(),
            Action::CpuPeriod => self.classic.cpu_period = Some(integer()?),
            Action::CpuQuota => self.classic.cpu_quota = Some(integer()?),
            Action::CpuShares => self.classic.cpu_shares = Some(integer()?),
            Action::CpusetCpus => self.classic.cpuset_cpus = Some(value.to_owned()),
            Action::CpusetMems => self.classic.cpuset_mems = Some(value.to_owned()),
            // Both are about the docker client, or mean what happens anyway.
            Action::Debug | Action::Load => {}
            Action::File => self.file = Some(root.join(value)),
            Action::ForceRm => self.classic.force_rm = given.is_on(),
            Action::Iidfile => self.iidfile = Some(root.join(value)),
            Action::Isolation => self.classic.isolation = Some(value.to_owned()),
            Action::Label => {
                if value.is_empty() || value.starts_with('=') {
                    return Err(nameless());
                }
                let (key, text) = value.split_once('=').unwrap_or((value, ""));
                self.labels.insert(key.to_owned(), text.to_owned());
            }
            Action::Memory => self.classic.memory = Some(bytes()?),
            Action::MemorySwap => {
                self.classic.memory_swap = Some(if value == "-1" { -1 } else { bytes()? });
            }
            Action::MetadataFile => self.metadata_file = Some(root.join(value)),
            Action::Network => self.network = Some(value.to_owned()),
            Action::NoCache => self.no_cache = given.is_on(),
            Action::NoCacheFilter => self.no_cache_filter.extend(value.split(',').map(str::to_owned)),
            Action::OutOfPlace(why) => {
                return Err(BuildOptionError::OutOfPlace {
                    option: given.written.clone(),
                    why,
                });
            }
            Action::Output => {
                if !matches!(listed()?.kind.as_str(), "docker" | "image") {
                    return Err(BuildOptionError::OutOfPlace {
                        option: given.written.clone(),
                        why: "it makes no image; `docker build --output` writes files",
                    });
                }
            }
            Action::Platform => {
                let platform = self.platform.get_or_insert_default();
                if !platform.is_empty() {
                    platform.push(',');
                }
                platform.push_str(value);
            }
            Action::Progress => {
                if !["auto", "plain", "tty", "quiet", "rawjson"].contains(&value) {
                    return Err(wrong("it must be auto, plain, tty or quiet"));
                }
                self.progress = Some(value.to_owned());
            }
            Action::Pull => self.pull = given.is_on(),
            Action::Quiet => self.quiet = given.is_on(),
            Action::Rm => self.classic.keep_containers = !given.is_on(),
            Action::Secret => self.secrets.push(secret(value, root, env).map_err(|why| wrong(&why))?),
            Action::SecurityOpt => {
                let options = csv::record(value).map_err(|why| wrong(&why))?;
                self.classic.security_opts.extend(options);
            }
            Action::ShmSize => self.shm_size = Some(bytes()?),
            Action::Squash => self.classic.squash = given.is_on(),
            Action::Ssh => self.ssh.push(ssh(value, root, env).map_err(|why| wrong(&why))?),
            Action::Tag => self.tags.push(value.to_owned()),
            Action::Target => self.target = Some(value.to_owned()),
            Action::Ulimit => self.ulimits.push(security::ulimit(value).map_err(|why| wrong(&why))?),
        }
        Ok(())
    }

    fn attest(&mut self, kind: &str, given: &Given<'_, Action>, of_true: &str) {
        let values = match flags::parse_bool(&given.value) {
            Some(false) => {
                self.attestations.remove(kind);
                self.attested.remove(kind);
                return;
            }
            Some(true) => of_true,
            None => given.value.as_str(),
        };
        self.attestations.insert(kind.to_owned(), values.to_owned());
        self.attested.insert(kind.to_owned(), given.written.clone());
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

/// `NAME=VALUE`, or `NAME` with the environment's value; `None` where it has none.
fn named_value<'a>(text: &'a str, env: &'a Env) -> Option<(&'a str, &'a str)> {
    match text.split_once('=') {
        Some(pair) => Some(pair),
        None => Some((text, env.get(text)?)),
    }
}

fn add_host(value: &str) -> Option<String> {
    // docker takes both signs between name and address; an IPv6 address may be in brackets after `=`.
    let (name, address) = value.split_once('=').or_else(|| value.split_once(':'))?;
    let address = address
        .strip_prefix('[')
        .and_then(|inner| inner.strip_suffix(']'))
        .unwrap_or(address);
    (!name.is_empty() && !address.is_empty()).then(|| format!("{name}:{address}"))
}

fn attributes(text: &str) -> Result<Attributes, String> {
    let mut attributes = Attributes::default();
    for field in csv::record(text)? {
        match field.split_once('=') {
            Some((key, value)) if key.eq_ignore_ascii_case("type") => attributes.kind = value.to_owned(),
            Some((key, value)) => {
                attributes.values.insert(key.trim().to_owned(), value.to_owned());
            }
            // `--output docker` and `--attest sbom` name only the type.
            None if attributes.kind.is_empty() => attributes.kind = field,
            None => {
                attributes.values.insert(field, String::new());
            }
        }
    }
    Ok(attributes)
}

/// A cache with its attributes, or a list of references.
fn caches(value: &str) -> Result<Vec<Attributes>, String> {
    if value.contains('=') {
        return Ok(vec![attributes(value)?]);
    }
    let references = csv::record(value)?.into_iter();
    Ok(references
        .map(|reference| Attributes {
            kind: "registry".to_owned(),
            values: BTreeMap::from([("ref".to_owned(), reference)]),
        })
        .collect())
}

fn secret(value: &str, root: &Path, env: &Env) -> Result<Secret, String> {
    let mut id = None;
    let mut file = None;
    let mut variable = None;
    let mut kind = None;
    for field in csv::record(value)? {
        let (key, value) = field
            .split_once('=')
            .ok_or_else(|| format!("`{field}` must be KEY=VALUE"))?;
        match key.to_ascii_lowercase().as_str() {
            "type" if value == "file" || value == "env" => kind = Some(value.to_owned()),
            "type" => return Err(format!("type {value} is neither file nor env")),
            "id" => id = Some(value.to_owned()),
            "source" | "src" => file = Some(value.to_owned()),
            "env" => variable = Some(value.to_owned()),
            _ => return Err(format!("it knows no `{key}`, only id, src, env and type")),
        }
    }
    let id = id.filter(|id| !id.is_empty()).ok_or("it needs an id")?;
    // With type=env, `src` is the variable's name; with nothing but an id, a variable of that name goes first.
    if kind.as_deref() == Some("env") && variable.is_none() {
        variable = Some(file.take().unwrap_or_else(|| id.clone()));
    }
    if variable.is_none() && file.is_none() && kind.is_none() && env.get(&id).is_some() {
        variable = Some(id.clone());
    }
    let source = match variable {
        Some(name) => {
            let value = env
                .get(&name)
                .ok_or_else(|| format!("the environment has no {name}"))?
                .to_owned();
            SecretSource::Environment { name, value }
        }
        None => {
            let path = root.join(file.unwrap_or_else(|| id.clone()));
            if !path.is_file() {
                return Err(format!("{} is no file", path.display()));
            }
            SecretSource::File(path)
        }
    };
    Ok(Secret { id, source })
}

fn ssh(value: &str, root: &Path, env: &Env) -> Result<SshForward, String> {
    let (id, paths) = value.split_once('=').unwrap_or((value, ""));
    let paths: Vec<PathBuf> = paths
        .split(',')
        .filter(|path| !path.is_empty())
        .map(|path| root.join(path))
        .collect();
    let paths = if paths.is_empty() {
        let socket = env
            .non_empty("SSH_AUTH_SOCK")
            .ok_or("no ssh agent runs here (SSH_AUTH_SOCK is not set)")?;
        vec![PathBuf::from(socket)]
    } else {
        paths
    };
    Ok(SshForward {
        id: id.to_owned(),
        paths,
    })
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
            (&["--secret", "id=x,src=/no/such"], "/no/such is no file"),
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
