//! Every option of `docker build`, and where its value goes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{Attributes, BuildOptionError, BuildOptions, Secret, SecretSource, SshForward};
use crate::docker::options::flags::{self, Flag, Given};
use crate::docker::options::run_options::security;
use crate::docker::options::{csv, go_values};
use crate::env::Env;

/// What an option changes in what was parsed so far.
pub(super) type Apply = fn(&mut BuildOptions, &GivenOption<'_>) -> Result<(), BuildOptionError>;

/// An option as the user gave it, and what its value may refer to.
pub(super) struct GivenOption<'a> {
    /// `-t` or `--tag`, as written.
    option: &'a str,
    value: &'a str,
    /// For a switch: whether it was turned on.
    on: bool,
    /// The directory in which docker would be called.
    root: &'a Path,
    env: &'a Env,
}

impl<'a> GivenOption<'a> {
    pub(super) fn new(given: &'a Given<'_, Apply>, root: &'a Path, env: &'a Env) -> Self {
        Self {
            option: &given.written,
            value: &given.value,
            on: given.is_on(),
            root,
            env,
        }
    }

    fn text(&self) -> String {
        self.value.to_owned()
    }

    fn path(&self) -> PathBuf {
        self.root.join(self.value)
    }

    /// The value, read by `read`.
    fn read<T>(&self, read: impl FnOnce(&str) -> Result<T, String>) -> Result<T, BuildOptionError> {
        read(self.value).map_err(|why| self.refuse(why))
    }

    /// The error that this value is wrong.
    fn refuse(&self, why: impl Into<String>) -> BuildOptionError {
        BuildOptionError::Value {
            option: self.option.to_owned(),
            value: self.value.to_owned(),
            why: why.into(),
        }
    }

    /// The error that build-image can't do it.
    fn out_of_place(&self, why: &'static str) -> BuildOptionError {
        BuildOptionError::OutOfPlace {
            option: self.option.to_owned(),
            why,
        }
    }

    /// A name, and what follows `=`, if anything.
    fn named(&self) -> Result<(&'a str, Option<&'a str>), BuildOptionError> {
        let (name, text) = match self.value.split_once('=') {
            Some((name, text)) => (name, Some(text)),
            None => (self.value, None),
        };
        match name.is_empty() {
            true => Err(BuildOptionError::Nameless {
                option: self.option.to_owned(),
            }),
            false => Ok((name, text)),
        }
    }
}

const BUILDER: &str = "the engine's own builder is used; `docker buildx build --builder` uses another";
const CHECKS: &str = "it builds nothing; use `docker build --check`";
const FILES: &str = "it makes no image; `docker build --output` writes files";
const PUSH: &str = "publish-image pushes";
const STREAM: &str = "docker removed it; the context is sent incrementally anyway";

/// The options, in the order of their names.
pub(super) static FLAGS: &[Flag<Apply>] = &[
    valued("add-host", |o, e| push(&mut o.add_hosts, e.read(add_host))),
    valued("allow", |o, e| extend(&mut o.allow, Ok(listed(e.value)))),
    valued("annotation", |o, e| {
        let (key, text) = e
            .value
            .split_once('=')
            .ok_or_else(|| e.refuse("it must be KEY=VALUE"))?;
        insert(&mut o.annotations, key, text)
    }),
    valued("attest", attestation),
    valued("build-arg", |o, e| match e.named()? {
        (name, Some(text)) => insert(&mut o.build_args, name, text),
        (name, None) => match e.env.get(name) {
            Some(text) => insert(&mut o.build_args, name, text),
            None => Ok(()),
        },
    }),
    valued("build-context", |o, e| push(&mut o.contexts, e.read(context))),
    valued("builder", |_, e| Err(e.out_of_place(BUILDER))),
    valued("cache-from", |o, e| extend(&mut o.cache_from, e.read(caches))),
    valued("cache-to", |o, e| extend(&mut o.cache_to, e.read(caches))),
    valued("call", |_, e| Err(e.out_of_place(CHECKS))),
    valued("cgroup-parent", |o, e| put(&mut o.cgroup_parent, Ok(e.text()))),
    switch("check", |_, e| Err(e.out_of_place(CHECKS))),
    switch("compress", |o, e| turn(&mut o.compress, e.on)),
    valued("cpu-period", |o, e| {
        put(&mut o.classic.cpu_period, e.read(go_values::integer))
    }),
    valued("cpu-quota", |o, e| {
        put(&mut o.classic.cpu_quota, e.read(go_values::integer))
    }),
    valued("cpu-shares", |o, e| {
        put(&mut o.classic.cpu_shares, e.read(go_values::integer))
    })
    .short('c'),
    valued("cpuset-cpus", |o, e| put(&mut o.classic.cpuset_cpus, Ok(e.text()))),
    valued("cpuset-mems", |o, e| put(&mut o.classic.cpuset_mems, Ok(e.text()))),
    switch("debug", of_the_client).short('D'),
    switch("disable-content-trust", of_the_client),
    valued("file", |o, e| put(&mut o.file, Ok(e.path()))).short('f'),
    switch("force-rm", |o, e| turn(&mut o.classic.force_rm, e.on)),
    valued("iidfile", |o, e| put(&mut o.iidfile, Ok(e.path()))),
    valued("isolation", |o, e| put(&mut o.classic.isolation, Ok(e.text()))),
    valued("label", |o, e| {
        let (key, text) = e.named()?;
        insert(&mut o.labels, key, text.unwrap_or_default())
    }),
    // That happens anyway.
    switch("load", of_the_client),
    valued("memory", |o, e| put(&mut o.classic.memory, e.read(go_values::size))).short('m'),
    valued("memory-swap", |o, e| {
        put(&mut o.classic.memory_swap, e.read(go_values::size_or_unlimited))
    }),
    valued("metadata-file", |o, e| put(&mut o.metadata_file, Ok(e.path()))),
    valued("network", |o, e| put(&mut o.network, Ok(e.text()))),
    switch("no-cache", |o, e| turn(&mut o.no_cache, e.on)),
    valued("no-cache-filter", |o, e| {
        extend(&mut o.no_cache_filter, Ok(listed(e.value)))
    }),
    valued("output", |_, e| match e.read(attributes)?.kind.as_str() {
        "docker" | "image" => Ok(()),
        _ => Err(e.out_of_place(FILES)),
    })
    .short('o'),
    valued("platform", |o, e| {
        let platform = o.platform.get_or_insert_default();
        if !platform.is_empty() {
            platform.push(',');
        }
        platform.push_str(e.value);
        Ok(())
    }),
    valued("progress", |o, e| put(&mut o.progress, e.read(progress))),
    valued("provenance", |o, e| {
        attest(o, e, "provenance", "mode=min,inline-only=true")
    }),
    switch("pull", |o, e| turn(&mut o.pull, e.on)),
    switch("push", |_, e| Err(e.out_of_place(PUSH))),
    switch("quiet", |o, e| turn(&mut o.quiet, e.on)).short('q'),
    switch("rm", |o, e| turn(&mut o.classic.keep_containers, !e.on)),
    valued("sbom", |o, e| attest(o, e, "sbom", "")),
    valued("secret", |o, e| {
        push(&mut o.secrets, e.read(|text| secret(text, e.root, e.env)))
    }),
    valued("security-opt", |o, e| {
        extend(&mut o.classic.security_opts, e.read(csv::record))
    }),
    valued("shm-size", |o, e| put(&mut o.shm_size, e.read(go_values::size))),
    switch("squash", |o, e| turn(&mut o.classic.squash, e.on)),
    valued("ssh", |o, e| push(&mut o.ssh, e.read(|text| ssh(text, e.root, e.env)))),
    switch("stream", |_, e| Err(e.out_of_place(STREAM))),
    valued("tag", |o, e| push(&mut o.tags, Ok(e.text()))).short('t'),
    valued("target", |o, e| put(&mut o.target, Ok(e.text()))),
    valued("ulimit", |o, e| push(&mut o.ulimits, e.read(security::ulimit))),
];

const fn switch(long: &'static str, set: Apply) -> Flag<Apply> {
    Flag::switch(long, set)
}

const fn valued(long: &'static str, set: Apply) -> Flag<Apply> {
    Flag::valued(long, set)
}

/// An option about the docker client, or for what happens anyway.
fn of_the_client(_: &mut BuildOptions, _: &GivenOption<'_>) -> Result<(), BuildOptionError> {
    Ok(())
}

fn put<T>(slot: &mut Option<T>, value: Result<T, BuildOptionError>) -> Result<(), BuildOptionError> {
    *slot = Some(value?);
    Ok(())
}

fn push<T>(list: &mut Vec<T>, value: Result<T, BuildOptionError>) -> Result<(), BuildOptionError> {
    list.push(value?);
    Ok(())
}

fn extend<T>(list: &mut Vec<T>, values: Result<Vec<T>, BuildOptionError>) -> Result<(), BuildOptionError> {
    list.extend(values?);
    Ok(())
}

fn insert(map: &mut BTreeMap<String, String>, name: &str, value: &str) -> Result<(), BuildOptionError> {
    map.insert(name.to_owned(), value.to_owned());
    Ok(())
}

fn turn(switch: &mut bool, on: bool) -> Result<(), BuildOptionError> {
    *switch = on;
    Ok(())
}

/// `--attest`: a kind with its attributes; `disabled=true` revokes it.
fn attestation(options: &mut BuildOptions, given: &GivenOption<'_>) -> Result<(), BuildOptionError> {
    let mut attributes = given.read(attributes)?;
    if attributes.kind.is_empty() {
        return Err(given.refuse("it must have a type, as in type=provenance"));
    }
    let disabled = attributes.values.remove("disabled");
    if disabled.is_none_or(|disabled| disabled != "true") {
        let option = format!("{} type={}", given.option, attributes.kind);
        options.attested.insert(attributes.kind.clone(), option);
        options
            .attestations
            .insert(attributes.kind.clone(), attributes.joined());
    }
    Ok(())
}

/// `--provenance` and `--sbom`: a switch, or attributes.
fn attest(
    options: &mut BuildOptions,
    given: &GivenOption<'_>,
    kind: &str,
    of_true: &str,
) -> Result<(), BuildOptionError> {
    let values = match flags::parse_bool(given.value) {
        Some(false) => {
            options.attestations.remove(kind);
            options.attested.remove(kind);
            return Ok(());
        }
        Some(true) => of_true,
        None => given.value,
    };
    options.attested.insert(kind.to_owned(), given.option.to_owned());
    insert(&mut options.attestations, kind, values)
}

fn listed(text: &str) -> Vec<String> {
    text.split(',').map(str::to_owned).collect()
}

fn progress(text: &str) -> Result<String, String> {
    match text {
        "auto" | "plain" | "tty" | "quiet" | "rawjson" => Ok(text.to_owned()),
        _ => Err("it must be auto, plain, tty or quiet".to_owned()),
    }
}

fn context(text: &str) -> Result<(String, String), String> {
    match text.split_once('=').filter(|(name, _)| !name.is_empty()) {
        Some((name, place)) => Ok((name.to_owned(), place.to_owned())),
        None => Err("it must be NAME=FOLDER or NAME=URL".to_owned()),
    }
}

fn add_host(value: &str) -> Result<String, String> {
    // docker accepts both signs between name and address; an IPv6 address may be in brackets after `=`.
    let pair = value.split_once('=').or_else(|| value.split_once(':'));
    let (name, address) = pair.unwrap_or_default();
    let address = address
        .strip_prefix('[')
        .and_then(|inner| inner.strip_suffix(']'))
        .unwrap_or(address);
    match name.is_empty() || address.is_empty() {
        true => Err("it must be NAME:ADDRESS".to_owned()),
        false => Ok(format!("{name}:{address}")),
    }
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
            _ => return Err(format!("`{key}` is not one of id, src, env and type")),
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
                return Err(format!("{} is not a file", path.display()));
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
