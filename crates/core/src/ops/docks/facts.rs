//! What is worth knowing of a dock: its engine, its machine, what is free there.

use std::time::{Duration, Instant};

use bollard::models::SystemInfo;
use serde::Serialize;

use super::remote_script;
use crate::agent::{Agent, CallOptions};
use crate::docker::connect::engine::Engine;
use crate::error::Result;
use crate::output::visible;

/// How long a dock may take to look at its disk and its GPUs.
const LOOK_LIMIT: Duration = Duration::from_secs(5);
/// Less than this is little, whatever the size of the disk: an image of a few GB no longer fits.
const LITTLE: u64 = 5_000_000_000;

/// Says the free space where the engine keeps its data. An ordinary user may ask for it.
const LOOK_AT_DISK: &str = r#"df -Pk "$1" 2>/dev/null || df -Pk /"#;
/// The same, and the GPUs.
const LOOK: &str = r#"
df -Pk "$1" 2>/dev/null || df -Pk /
echo
if command -v nvidia-smi >/dev/null 2>&1; then echo "gpus=$(nvidia-smi -L 2>/dev/null | grep -c ^GPU)"; else echo gpus=0; fi
"#;

/// An engine, and what it says of its machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Facts {
    /// The engine's version.
    pub version: String,
    /// The API version that is spoken with it.
    pub api: String,
    /// `classic` or `containerd`.
    pub image_store: &'static str,
    /// The operating system of its machine.
    pub system: String,
    /// The processor's architecture.
    pub architecture: String,
    /// Containers that run.
    pub running: i64,
    /// Containers, whether they run or not.
    pub containers: i64,
    pub images: i64,
    /// Processors.
    pub cpus: i64,
    /// Bytes of memory.
    pub memory: u64,
    /// Milliseconds to the engine and back.
    pub round_trip_ms: f64,
    /// Whether the engine gives GPUs to containers.
    pub gpu_support: bool,
    /// GPUs of the machine; `None` where nobody could look.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpus: Option<u64>,
    /// The disk of the engine's data; `None` where nobody could look.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk: Option<Disk>,
    /// Where the engine keeps its data.
    #[serde(skip)]
    pub root: String,
    /// The time there, in seconds since 1970, less ours.
    #[serde(skip)]
    pub clock_skew: Option<f64>,
}

/// A disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Disk {
    /// Bytes that are free.
    pub free: u64,
    /// Bytes in all.
    pub total: u64,
    /// Whether little is left.
    pub low: bool,
}

impl Disk {
    /// A disk of so many bytes; less than a tenth free is little.
    pub fn new(free: u64, total: u64) -> Self {
        Self {
            free,
            total,
            low: free < LITTLE || free < total / 10,
        }
    }
}

/// Asks an engine.
///
/// # Errors
/// A broken connection, or its refusal.
pub async fn of_engine(engine: &Engine) -> Result<Facts> {
    let asked = jiff::Timestamp::now();
    let info = engine.info().await?;
    let started = Instant::now();
    // By the connection that `info` has opened: one round trip, and nothing to be made.
    engine
        .docker()
        .ping()
        .await
        .map_err(|cause| engine.error("ping", cause))?;
    let round_trip = started.elapsed();
    let skew = info
        .system_time
        .as_deref()
        .and_then(|time| time.parse::<jiff::Timestamp>().ok())
        // The answer took about one round trip, half of it after the clock was read.
        .map(|there| (there - asked).total(jiff::Unit::Second).unwrap_or_default() - round_trip.as_secs_f64() / 2.0);
    Ok(Facts {
        api: engine.api().to_string(),
        round_trip_ms: (round_trip.as_secs_f64() * 10_000.0).round() / 10.0,
        clock_skew: skew,
        ..of_info(&info)
    })
}

fn of_info(info: &SystemInfo) -> Facts {
    let text = |text: &Option<String>| text.as_deref().map(visible).unwrap_or_default();
    let containerd = info
        .driver_status
        .iter()
        .flatten()
        .flatten()
        .any(|word| word.contains("io.containerd.snapshotter"));
    let cdi = info
        .discovered_devices
        .iter()
        .flatten()
        .filter(|device| device.id.as_deref().is_some_and(|id| id.starts_with("nvidia.com/gpu")))
        .count();
    Facts {
        version: text(&info.server_version),
        image_store: if containerd { "containerd" } else { "classic" },
        system: text(&info.operating_system),
        architecture: text(&info.architecture),
        running: info.containers_running.unwrap_or_default(),
        containers: info.containers.unwrap_or_default(),
        images: info.images.unwrap_or_default(),
        cpus: info.ncpu.unwrap_or_default(),
        memory: info
            .mem_total
            .and_then(|bytes| u64::try_from(bytes).ok())
            .unwrap_or_default(),
        gpu_support: cdi > 0 || info.runtimes.iter().any(|runtimes| runtimes.contains_key("nvidia")),
        root: info
            .docker_root_dir
            .clone()
            .unwrap_or_else(|| "/var/lib/docker".to_owned()),
        ..Facts::default()
    }
}

/// The disk of this machine that a path is on; `None` where there is no such path.
pub fn own_disk(path: &str) -> Option<Disk> {
    let disk = rustix::fs::statvfs(path).ok()?;
    let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
    Some(Disk::new(bytes(disk.f_bavail), bytes(disk.f_blocks)))
}

/// The disk of a dock's machine that a path is on; `None` where it does not say.
pub async fn disk(path: &str, agent: &Agent, options: &CallOptions) -> Option<Disk> {
    let looked = remote_script::run(agent, LOOK_AT_DISK, &[path], options, LOOK_LIMIT).await;
    parse_look(&looked.ok()?.stdout).0
}

/// Adds what this machine says of itself, for an engine that runs on it.
pub fn add_own_machine(facts: &mut Facts) {
    facts.disk = own_disk(&facts.root);
    // As the driver of NVIDIA names them: nvidia0, nvidia1.
    let devices = std::fs::read_dir("/dev").into_iter().flatten().flatten();
    let gpus = devices
        .filter(|device| {
            let name = device.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix("nvidia"));
            number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
        })
        .count();
    facts.gpus = u64::try_from(gpus).ok();
}

/// Adds what only the machine can say: its disk and its GPUs. What it does not say stays unknown.
pub async fn add_machine(facts: &mut Facts, agent: &Agent, options: &CallOptions) {
    let root = facts.root.clone();
    if let Ok(output) = remote_script::run(agent, LOOK, &[&root], options, LOOK_LIMIT).await {
        (facts.disk, facts.gpus) = parse_look(&output.stdout);
    }
}

/// Reads what [`LOOK`] says: the second line of `df -P` (blocks of 1024 bytes: total, used, available), and `gpus=N`.
fn parse_look(text: &str) -> (Option<Disk>, Option<u64>) {
    let disk = text.lines().nth(1).and_then(|line| {
        let mut numbers = line.split_whitespace().skip(1).map(|word| word.parse::<u64>().ok());
        let total = numbers.next()??.checked_mul(1024)?;
        let free = numbers.nth(1)??.checked_mul(1024)?;
        Some(Disk::new(free, total))
    });
    let gpus = text
        .lines()
        .find_map(|line| line.strip_prefix("gpus=")?.trim().parse().ok());
    (disk, gpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disk_and_gpus_are_read_from_any_df() {
        let text = "Filesystem     1024-blocks     Used Available Capacity Mounted on\n/dev/nvme0n1p1   100000000 95000000   5000000      95% /var/lib/docker\n\ngpus=2\n";
        let (disk, gpus) = parse_look(text);
        let disk = disk.unwrap();
        assert_eq!(
            (disk.free, disk.total, disk.low),
            (5_120_000_000, 102_400_000_000, true)
        );
        assert_eq!(gpus, Some(2));
        assert!(!Disk::new(50_000_000_000, 100_000_000_000).low);
        for hostile in [
            "",
            "a\nb\n",
            "x\nfs 18446744073709551615 1 18446744073709551615 1% /\n",
            "\n\ngpus=-1",
        ] {
            assert_eq!(parse_look(hostile), (None, None), "{hostile}");
        }
    }
}
