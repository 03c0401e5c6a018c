//! `--volume` and `--mount`.

use bollard::models::{
    Mount, MountBindOptions, MountBindOptionsPropagationEnum as Propagation, MountImageOptions, MountTmpfsOptions,
    MountType, MountVolumeOptions, MountVolumeOptionsDriverConfig,
};

use super::error::{GivenOption, OptionError};
use super::facts::ClientFacts;
use super::path;
use crate::docker::options::flags::parse_bool;
use crate::docker::options::{csv, go_values};

/// What a `--volume` asks for.
#[derive(Debug, PartialEq)]
pub(super) enum Volume {
    /// A volume without a name, at a path of the container.
    Anonymous(String),
    /// The engine's `Binds`: a directory of its host, or a named volume.
    Bind(String),
}

/// Reads `--volume [SOURCE:]TARGET[:OPTIONS]`.
pub(super) fn volume(entry: &GivenOption, facts: &ClientFacts<'_>) -> Result<Volume, OptionError> {
    let spec = entry.value.as_str();
    if !entry.read(has_source)? {
        return Ok(Volume::Anonymous(spec.to_owned()));
    }
    match spec.split_once(':') {
        Some((source, rest)) if source.starts_with('.') => {
            let source = path::from_dot(source, facts.working_dir).map_err(|reason| entry.refuse(reason))?;
            Ok(Volume::Bind(format!("{source}:{rest}")))
        }
        _ => Ok(Volume::Bind(spec.to_owned())),
    }
}

/// Whether the specification has a source before the target. A colon after a single letter is part of a
/// Windows drive, whatever the engine's system is.
fn has_source(spec: &str) -> Result<bool, String> {
    match spec.chars().count() {
        0 => return Err("is empty".to_owned()),
        1 | 2 => return Ok(false),
        _ => {}
    }
    let mut sections: Vec<String> = vec![String::new()];
    for c in spec.chars() {
        let Some(section) = sections.last_mut() else {
            break;
        };
        let mut letters = section.chars();
        let drive = matches!((letters.next(), letters.next()), (Some(letter), None) if letter.is_alphabetic());
        if c == ':' && !drive {
            sections.push(String::new());
        } else {
            section.push(c);
        }
    }
    if sections.iter().any(String::is_empty) {
        return Err("has nothing between its colons".to_owned());
    }
    match sections.len() {
        1 => Ok(false),
        2 | 3 => Ok(true),
        _ => Err("has too many colons".to_owned()),
    }
}

/// The mount as this engine gets it: with an absolute source, and nothing that the engine would misread.
pub(super) fn resolved(entry: &GivenOption, mount: &Mount, facts: &ClientFacts<'_>) -> Result<Mount, OptionError> {
    let forced = mount
        .bind_options
        .as_ref()
        .is_some_and(|bind| bind.read_only_force_recursive == Some(true));
    // An older engine would silently leave what is mounted below it writable.
    if forced && facts.api_version < (1, 44) {
        return Err(entry.too_old((1, 44), facts.api_version));
    }
    let mut mount = mount.clone();
    if let Some(source) = &mount.source {
        mount.source = Some(path::from_dot(source, facts.working_dir).map_err(|reason| entry.refuse(reason))?);
    }
    Ok(mount)
}

/// Reads `--mount type=...,source=...,target=...`. The source may still be relative to the client's
/// working directory.
pub(super) fn mount(value: &str) -> Result<Mount, String> {
    let mut mount = Mount {
        typ: Some(MountType::VOLUME),
        ..Mount::default()
    };
    for field in csv::record(value)? {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key.to_lowercase(), Some(value)),
            None => (field.to_lowercase(), None),
        };
        set(&mut mount, &key, value, &field)?;
    }
    check(&mount)?;
    Ok(mount)
}

fn set(mount: &mut Mount, key: &str, value: Option<&str>, field: &str) -> Result<(), String> {
    // These keys mean `=true` without a value.
    match key {
        "readonly" | "ro" => {
            mount.read_only = Some(boolean(key, value)?);
            return Ok(());
        }
        "volume-nocopy" => {
            volume_options(mount).no_copy = Some(boolean(key, value)?);
            return Ok(());
        }
        "bind-nonrecursive" => {
            bind_options(mount).non_recursive = Some(boolean(key, value)?);
            return Ok(());
        }
        _ => {}
    }
    let value = value.ok_or_else(|| format!("`{field}` is not KEY=VALUE"))?;
    match key {
        "type" => mount.typ = Some(mount_type(value)?),
        "source" | "src" => mount.source = Some(value.to_owned()),
        "target" | "dst" | "destination" => mount.target = Some(value.to_owned()),
        "consistency" => mount.consistency = Some(value.to_lowercase()),
        "bind-propagation" => bind_options(mount).propagation = Some(propagation(value)?),
        "bind-recursive" => match value {
            "enabled" => {}
            "disabled" => bind_options(mount).non_recursive = Some(true),
            "writable" => bind_options(mount).read_only_non_recursive = Some(true),
            "readonly" => bind_options(mount).read_only_force_recursive = Some(true),
            _ => {
                return Err("bind-recursive is not one of enabled, disabled, writable and readonly".to_owned());
            }
        },
        "volume-subpath" => volume_options(mount).subpath = Some(value.to_owned()),
        "volume-label" => insert(volume_options(mount).labels.get_or_insert_default(), value),
        "volume-driver" => driver(mount).name = Some(value.to_owned()),
        "volume-opt" => insert(driver(mount).options.get_or_insert_default(), value),
        "image-subpath" => {
            mount
                .image_options
                .get_or_insert_with(MountImageOptions::default)
                .subpath = Some(value.to_owned());
        }
        "tmpfs-size" => {
            let size = go_values::size(value).map_err(|reason| format!("tmpfs-size {reason}"))?;
            tmpfs_options(mount).size_bytes = Some(size);
        }
        "tmpfs-mode" => {
            let legal = value.chars().all(|c| c.is_digit(8));
            let mode = u32::from_str_radix(value, 8)
                .ok()
                .filter(|_| legal)
                .ok_or("tmpfs-mode is not an octal number")?;
            tmpfs_options(mount).mode = Some(i64::from(mode));
        }
        _ => return Err(format!("`{key}` is not one of its keys")),
    }
    Ok(())
}

fn check(mount: &Mount) -> Result<(), String> {
    if mount.target.as_deref().unwrap_or_default().is_empty() {
        return Err("has no target".to_owned());
    }
    let kind = mount.typ.unwrap_or(MountType::VOLUME);
    for (given, prefix, of) in [
        (mount.volume_options.is_some(), "volume-", MountType::VOLUME),
        (mount.image_options.is_some(), "image-", MountType::IMAGE),
        (mount.bind_options.is_some(), "bind-", MountType::BIND),
        (mount.tmpfs_options.is_some(), "tmpfs-", MountType::TMPFS),
    ] {
        if given && kind != of {
            return Err(format!("has {prefix}* keys, and its type is {kind}"));
        }
    }
    let read_only = mount.read_only == Some(true);
    if let Some(bind) = &mount.bind_options {
        if bind.read_only_non_recursive == Some(true) && !read_only {
            return Err("bind-recursive=writable needs readonly beside it".to_owned());
        }
        if bind.read_only_force_recursive == Some(true) {
            if !read_only {
                return Err("bind-recursive=readonly needs readonly beside it".to_owned());
            }
            if bind.propagation != Some(Propagation::RPRIVATE) {
                return Err("bind-recursive=readonly needs bind-propagation=rprivate beside it".to_owned());
            }
        }
    }
    Ok(())
}

fn boolean(key: &str, value: Option<&str>) -> Result<bool, String> {
    match value {
        None => Ok(true),
        Some(value) => parse_bool(value).ok_or_else(|| format!("{key} is neither true nor false")),
    }
}

fn mount_type(value: &str) -> Result<MountType, String> {
    match value.to_lowercase().as_str() {
        "bind" => Ok(MountType::BIND),
        "cluster" => Ok(MountType::CLUSTER),
        "image" => Ok(MountType::IMAGE),
        "npipe" => Ok(MountType::NPIPE),
        "tmpfs" => Ok(MountType::TMPFS),
        "volume" => Ok(MountType::VOLUME),
        _ => Err(format!(
            "`{value}` is not a type of mount: bind, volume, tmpfs, image, npipe or cluster"
        )),
    }
}

fn propagation(value: &str) -> Result<Propagation, String> {
    match value.to_lowercase().as_str() {
        "" => Ok(Propagation::EMPTY),
        "private" => Ok(Propagation::PRIVATE),
        "rprivate" => Ok(Propagation::RPRIVATE),
        "shared" => Ok(Propagation::SHARED),
        "rshared" => Ok(Propagation::RSHARED),
        "slave" => Ok(Propagation::SLAVE),
        "rslave" => Ok(Propagation::RSLAVE),
        _ => Err(format!(
            "`{value}` is not a propagation: [r]private, [r]shared or [r]slave"
        )),
    }
}

fn insert(map: &mut std::collections::HashMap<String, String>, value: &str) {
    let (key, value) = super::environment::pair(value);
    if !key.is_empty() {
        map.insert(key, value);
    }
}

fn bind_options(mount: &mut Mount) -> &mut MountBindOptions {
    mount.bind_options.get_or_insert_default()
}

fn tmpfs_options(mount: &mut Mount) -> &mut MountTmpfsOptions {
    mount.tmpfs_options.get_or_insert_default()
}

fn volume_options(mount: &mut Mount) -> &mut MountVolumeOptions {
    // docker always sends a driver beside them, and `docker inspect` shows it.
    mount.volume_options.get_or_insert_with(|| MountVolumeOptions {
        driver_config: Some(MountVolumeOptionsDriverConfig::default()),
        ..MountVolumeOptions::default()
    })
}

fn driver(mount: &mut Mount) -> &mut MountVolumeOptionsDriverConfig {
    volume_options(mount).driver_config.get_or_insert_default()
}
