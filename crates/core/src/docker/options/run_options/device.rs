//! `--device`, `--gpus` and the limits of block devices.

use bollard::models::{DeviceMapping, DeviceRequest, ResourcesBlkioWeightDevice, ThrottleDevice};

use super::facts::EngineSystem;
use super::path;
use crate::docker::options::{csv, go_values};

/// What a `--device` asks for.
#[derive(Debug, PartialEq)]
pub(super) enum Device {
    /// A device file.
    File(DeviceMapping),
    /// A device by its name in the Container Device Interface: `vendor.com/class=name`.
    Named(String),
}

/// Reads `--device`.
pub(super) fn device(value: &str, system: EngineSystem) -> Result<Device, String> {
    if is_cdi_name(value) {
        return Ok(Device::Named(value.to_owned()));
    }
    match system {
        EngineSystem::Linux => Ok(Device::File(linux_device(value)?)),
        // A class of devices, for the engine to understand.
        EngineSystem::Windows => Ok(Device::File(DeviceMapping {
            path_on_host: Some(value.to_owned()),
            ..DeviceMapping::default()
        })),
    }
}

/// `HOST[:CONTAINER][:PERMISSIONS]`. docker cleans a path only if it is the last part, and so do we.
fn linux_device(value: &str) -> Result<DeviceMapping, String> {
    let parts: Vec<&str> = value.split(':').collect();
    let (host, container, permissions) = match parts.as_slice() {
        [host] => (path::clean(host), None, "rwm"),
        [host, mode] if is_mode(mode) => (path::clean(host), None, *mode),
        [host, container] => ((*host).to_owned(), Some(path::clean(container)), "rwm"),
        [host, container, mode] if is_mode(mode) => ((*host).to_owned(), Some((*container).to_owned()), *mode),
        [_, _, mode] => return Err(format!("`{mode}` is not a combination of r, w and m")),
        _ => return Err("is not HOST:CONTAINER:PERMISSIONS".to_owned()),
    };
    let inside = container.unwrap_or_else(|| host.clone());
    if !inside.starts_with('/') {
        return Err(format!("`{inside}` is not an absolute path"));
    }
    if parts.first().is_some_and(|host| host.is_empty()) {
        return Err("names no device".to_owned());
    }
    Ok(DeviceMapping {
        path_on_host: Some(host),
        path_in_container: Some(inside),
        cgroup_permissions: Some(permissions.to_owned()),
    })
}

fn is_mode(text: &str) -> bool {
    let once = |c: char| text.matches(c).count() <= 1;
    !text.is_empty() && text.chars().all(|c| "rwm".contains(c) && once(c))
}

/// Whether a text is `vendor/class=name` by the rules of the Container Device Interface.
fn is_cdi_name(text: &str) -> bool {
    let Some(((vendor, class), name)) = text
        .split_once('=')
        .and_then(|(kind, name)| Some((kind.split_once('/')?, name)))
    else {
        return false;
    };
    let edges = |text: &str, first: fn(&char) -> bool| {
        text.chars().next().is_some_and(|c| first(&c)) && text.ends_with(|c: char| c.is_ascii_alphanumeric())
    };
    let of = |text: &str, others: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || others.contains(c));
    [vendor, class]
        .iter()
        .all(|part| edges(part, char::is_ascii_alphabetic) && of(part, "_-."))
        && edges(name, char::is_ascii_alphanumeric)
        && of(name, "_-.:")
}

/// `--device-cgroup-rule`: `c 1:3 mr`.
pub(super) fn cgroup_rule(value: &str) -> Result<String, String> {
    let number = |text: &str| text == "*" || (!text.is_empty() && text.chars().all(|c| c.is_ascii_digit()));
    let parts: Vec<&str> = value.split(' ').collect();
    let legal = match parts.as_slice() {
        ["a" | "c" | "b", numbers, mode] => {
            numbers
                .split_once(':')
                .is_some_and(|(major, minor)| number(major) && number(minor))
                && matches!(mode.len(), 1..=3)
                && mode.chars().all(|c| "rwm".contains(c))
        }
        _ => false,
    };
    if legal {
        Ok(value.to_owned())
    } else {
        Err("is not a rule, such as `c 1:3 mr`".to_owned())
    }
}

/// `--gpus all`, `--gpus 2`, `--gpus device=0,driver=nvidia`.
pub(super) fn gpus(value: &str) -> Result<DeviceRequest, String> {
    let mut request = DeviceRequest::default();
    let mut seen: Vec<String> = Vec::new();
    for field in csv::record(value)? {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (field.as_str(), None),
        };
        if seen.iter().any(|known| known == key) {
            return Err(format!("says `{key}` twice"));
        }
        seen.push(key.to_owned());
        match (key, value) {
            (text, None) => {
                seen.push("count".to_owned());
                request.count = Some(count(text)?);
            }
            ("count", Some(text)) => request.count = Some(count(text)?),
            ("driver", Some(text)) => request.driver = Some(text.to_owned()),
            ("device", Some(text)) => request.device_ids = Some(text.split(',').map(str::to_owned).collect()),
            ("capabilities", Some(text)) => {
                request.capabilities = Some(vec![text.split(',').chain(["gpu"]).map(str::to_owned).collect()]);
            }
            ("options", Some(text)) => {
                let pairs = csv::record(text)?;
                request.options = Some(pairs.iter().map(|pair| super::environment::pair(pair)).collect());
            }
            _ => return Err(format!("`{key}` is not one of its keys")),
        }
    }
    if request.device_ids.is_none() && !seen.iter().any(|key| key == "count") {
        request.count = Some(1);
    }
    request.capabilities.get_or_insert_with(|| vec![vec!["gpu".to_owned()]]);
    request.options.get_or_insert_default();
    Ok(request)
}

fn count(text: &str) -> Result<i64, String> {
    if text == "all" {
        return Ok(-1);
    }
    go_values::decimal_integer(text).map_err(|_| format!("`{text}` is neither `all` nor a number"))
}

/// `--blkio-weight-device /dev/sda:200`.
pub(super) fn weight(value: &str) -> Result<ResourcesBlkioWeightDevice, String> {
    let (path, weight) = block_device(value)?;
    let weight = go_values::decimal_unsigned(weight)?;
    if weight != 0 && !(10..=1000).contains(&weight) {
        return Err("has a weight that is not between 10 and 1000".to_owned());
    }
    Ok(ResourcesBlkioWeightDevice {
        path: Some(path.to_owned()),
        weight: usize::try_from(weight).ok(),
    })
}

/// `--device-read-bps /dev/sda:1mb`.
pub(super) fn bytes_per_second(value: &str) -> Result<ThrottleDevice, String> {
    let (path, rate) = block_device(value)?;
    Ok(ThrottleDevice {
        path: Some(path.to_owned()),
        rate: Some(go_values::size(rate)?),
    })
}

/// `--device-read-iops /dev/sda:1000`.
pub(super) fn operations_per_second(value: &str) -> Result<ThrottleDevice, String> {
    let (path, rate) = block_device(value)?;
    let rate = i64::try_from(go_values::decimal_unsigned(rate)?).map_err(|_| "has a rate that is too large")?;
    Ok(ThrottleDevice {
        path: Some(path.to_owned()),
        rate: Some(rate),
    })
}

fn block_device(value: &str) -> Result<(&str, &str), String> {
    let (path, setting) = value.split_once(':').ok_or("is not DEVICE:NUMBER")?;
    if path.starts_with("/dev/") {
        Ok((path, setting))
    } else {
        Err("names no device below /dev".to_owned())
    }
}
