//! Capabilities, `--security-opt`, namespaces, `--sysctl` and `--ulimit`.

use std::path::Path;

use bollard::models::{HostConfig, ResourcesUlimits};
use bollard::models::{HostConfigCgroupnsModeEnum as CgroupNamespace, HostConfigIsolationEnum as Isolation};

use super::error::{GivenOption, OptionError};
use super::facts::ClientFacts;
use crate::docker::options::go_values;

/// Capabilities as engines name them, sorted; `ALL` stands for all.
pub(super) fn capabilities(names: &[String]) -> Vec<String> {
    let mut normal: Vec<String> = names
        .iter()
        .map(|name| match name.to_uppercase() {
            name if name == "ALL" || name.starts_with("CAP_") => name,
            name => format!("CAP_{name}"),
        })
        .collect();
    normal.sort();
    normal.dedup();
    normal
}

/// Reads the `--security-opt`s: a seccomp profile is a file of the client's, sent as it is, and
/// `systempaths=unconfined` is not an option of the engine's but an empty list of hidden paths.
pub(super) fn apply_security(
    entries: &[GivenOption],
    facts: &ClientFacts<'_>,
    host: &mut HostConfig,
) -> Result<(), OptionError> {
    let mut options = Vec::new();
    for entry in entries {
        let text = entry.value.as_str();
        if text == "systempaths=unconfined" {
            host.masked_paths = Some(Vec::new());
            host.readonly_paths = Some(Vec::new());
            continue;
        }
        let (key, value) = match text.split_once('=') {
            Some(pair) => pair,
            None if text == "no-new-privileges" => (text, ""),
            None => text.split_once(':').unwrap_or((text, "")),
        };
        if value.is_empty() && key != "no-new-privileges" {
            return Err(entry.refuse("is not NAME=VALUE"));
        }
        options.push(match (key, value) {
            ("seccomp", "unconfined" | "builtin") | (_, "") => text.to_owned(),
            ("seccomp", file) => format!("seccomp={}", seccomp_profile(entry, file, facts)?),
            _ => text.to_owned(),
        });
    }
    // Options without an entry for the engine leave an empty list, as in docker.
    if !entries.is_empty() {
        host.security_opt = Some(options);
    }
    Ok(())
}

fn seccomp_profile(entry: &GivenOption, file: &str, facts: &ClientFacts<'_>) -> Result<String, OptionError> {
    let path = facts.working_dir.join(Path::new(file));
    let profile = (facts.read_file)(&path).map_err(|source| entry.unreadable(source))?;
    let profile = String::from_utf8(profile).map_err(|_| entry.refuse("the profile is not UTF-8"))?;
    if let Err(error) = serde_json::from_str::<serde_json::Value>(&profile) {
        return Err(entry.refuse(format!("the profile is not JSON: {error}")));
    }
    Ok(compact(&profile))
}

/// JSON without the blanks between its words; the rest, including the order of its keys, is unchanged.
fn compact(json: &str) -> String {
    let (mut in_string, mut escaped) = (false, false);
    json.chars()
        .filter(|c| {
            let kept = in_string || !c.is_ascii_whitespace();
            match (in_string, escaped, *c) {
                (true, true, _) => escaped = false,
                (true, false, '\\') => escaped = true,
                (_, false, '"') => in_string = !in_string,
                _ => {}
            }
            kept
        })
        .collect()
}

/// `--pid`: `host` or `container:NAME`.
pub(super) fn pid(value: &str) -> Result<String, String> {
    match value.strip_prefix("container:") {
        Some(name) if !name.is_empty() => Ok(value.to_owned()),
        None if matches!(value, "" | "host") => Ok(value.to_owned()),
        _ => Err("is neither `host` nor `container:NAME`".to_owned()),
    }
}

/// `--uts` and `--userns`: `host` or nothing.
pub(super) fn host_or_own(value: &str) -> Result<String, String> {
    if matches!(value, "" | "host") {
        Ok(value.to_owned())
    } else {
        Err("is not `host`".to_owned())
    }
}

/// `--cgroupns`.
pub(super) fn cgroup_namespace(value: &str) -> Result<CgroupNamespace, String> {
    match value {
        "" => Ok(CgroupNamespace::EMPTY),
        "host" => Ok(CgroupNamespace::HOST),
        "private" => Ok(CgroupNamespace::PRIVATE),
        _ => Err("is neither `host` nor `private`".to_owned()),
    }
}

/// `--isolation`.
pub(super) fn isolation(value: &str) -> Result<Isolation, String> {
    match value.to_lowercase().as_str() {
        "" => Ok(Isolation::EMPTY),
        "default" => Ok(Isolation::DEFAULT),
        "process" => Ok(Isolation::PROCESS),
        "hyperv" => Ok(Isolation::HYPERV),
        _ => Err("is not one of default, process and hyperv".to_owned()),
    }
}

/// `--sysctl`: only those that each container has of its own.
pub(super) fn sysctl(value: &str) -> Result<(String, String), String> {
    const OWN: [&str; 8] = [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ];
    let (name, setting) = value.split_once('=').ok_or("is not NAME=VALUE")?;
    if OWN.contains(&name) || name.starts_with("net.") || name.starts_with("fs.mqueue.") {
        Ok((name.to_owned(), setting.to_owned()))
    } else {
        Err("is not a sysctl that a container has of its own".to_owned())
    }
}

/// `--ulimit NAME=SOFT[:HARD]`.
pub(in crate::docker) fn ulimit(value: &str) -> Result<ResourcesUlimits, String> {
    const NAMES: [&str; 15] = [
        "core",
        "cpu",
        "data",
        "fsize",
        "locks",
        "memlock",
        "msgqueue",
        "nice",
        "nofile",
        "nproc",
        "rss",
        "rtprio",
        "rttime",
        "sigpending",
        "stack",
    ];
    let (name, limits) = value.split_once('=').ok_or("is not NAME=SOFT:HARD")?;
    if !NAMES.contains(&name) {
        return Err(format!("`{name}` is not a limit: {}", NAMES.join(", ")));
    }
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let (soft, hard) = (go_values::decimal_integer(soft)?, go_values::decimal_integer(hard)?);
    // -1 is no limit.
    if hard != -1 && (soft == -1 || soft > hard) {
        return Err("has a soft limit above the hard one".to_owned());
    }
    Ok(ResourcesUlimits {
        name: Some(name.to_owned()),
        soft: Some(soft),
        hard: Some(hard),
    })
}
