//! Every option of `docker run` 28, and where its value goes.

use super::error::{GivenOption, OptionError};
use super::pull_policy::PullPolicy;
use super::{RunOptions, device, environment, mount, network, platform, security};
use crate::docker::options::flags::Flag;
use crate::docker::options::go_values;

/// What an option changes in what was parsed so far.
type Set = fn(&mut RunOptions, GivenOption) -> Result<(), OptionError>;

/// What an option needs of the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// Nothing: every supported engine has it.
    Any,
    /// An API of at least this version.
    Api(u32, u32),
    /// An engine on Windows.
    Windows,
}

/// The meaning of an option.
#[derive(Clone, Copy)]
pub(super) struct OptionAction {
    pub need: Need,
    pub set: Set,
}

const fn switch(long: &'static str, set: Set) -> Flag<OptionAction> {
    Flag::switch(long, OptionAction { need: Need::Any, set })
}

const fn valued(long: &'static str, set: Set) -> Flag<OptionAction> {
    needing(Need::Any, long, set)
}

const fn needing(need: Need, long: &'static str, set: Set) -> Flag<OptionAction> {
    Flag::valued(long, OptionAction { need, set })
}

/// The options, in the order of `docker run --help`; the names that it hides come after those they stand for.
pub(super) static FLAGS: &[Flag<OptionAction>] = &[
    valued("add-host", |o, e| {
        push(&mut o.host.extra_hosts, e.read(network::extra_host))
    }),
    needing(Need::Api(1, 43), "annotation", |o, e| {
        insert(&mut o.host.annotations, Ok(environment::pair(&e.value)))
    }),
    valued("attach", |o, e| o.attach(e)).short('a'),
    valued("blkio-weight", |o, e| put(&mut o.host.blkio_weight, e.read(small))),
    valued("blkio-weight-device", |o, e| {
        push(&mut o.host.blkio_weight_device, e.read(device::weight))
    }),
    valued("cap-add", |o, e| push(&mut o.host.cap_add, Ok(e.value))),
    valued("cap-drop", |o, e| push(&mut o.host.cap_drop, Ok(e.value))),
    valued("cgroup-parent", |o, e| put(&mut o.host.cgroup_parent, Ok(e.value))),
    needing(Need::Api(1, 41), "cgroupns", |o, e| {
        put(&mut o.host.cgroupns_mode, e.read(security::cgroup_namespace))
    }),
    valued("cidfile", |o, e| put(&mut o.host.container_id_file, Ok(e.value))),
    needing(Need::Windows, "cpu-count", |o, e| {
        put(&mut o.host.cpu_count, e.read(go_values::integer))
    }),
    needing(Need::Windows, "cpu-percent", |o, e| {
        put(&mut o.host.cpu_percent, e.read(go_values::integer))
    }),
    valued("cpu-period", |o, e| {
        put(&mut o.host.cpu_period, e.read(go_values::integer))
    }),
    valued("cpu-quota", |o, e| {
        put(&mut o.host.cpu_quota, e.read(go_values::integer))
    }),
    valued("cpu-rt-period", |o, e| {
        put(&mut o.host.cpu_realtime_period, e.read(go_values::integer))
    }),
    valued("cpu-rt-runtime", |o, e| {
        put(&mut o.host.cpu_realtime_runtime, e.read(go_values::integer))
    }),
    valued("cpu-shares", |o, e| {
        put(&mut o.host.cpu_shares, e.read(go_values::integer))
    })
    .short('c'),
    valued("cpus", |o, e| put(&mut o.host.nano_cpus, e.read(go_values::nano_cpus))),
    valued("cpuset-cpus", |o, e| put(&mut o.host.cpuset_cpus, Ok(e.value))),
    valued("cpuset-mems", |o, e| put(&mut o.host.cpuset_mems, Ok(e.value))),
    switch("detach", |o, e| on(&mut o.detach, e)).short('d'),
    valued("detach-keys", |o, e| put(&mut o.detach_keys, Ok(e.value))),
    valued("device", |o, e| keep(&mut o.devices, e)),
    valued("device-cgroup-rule", |o, e| {
        push(&mut o.host.device_cgroup_rules, e.read(device::cgroup_rule))
    }),
    valued("device-read-bps", |o, e| {
        push(&mut o.host.blkio_device_read_bps, e.read(device::bytes_per_second))
    }),
    valued("device-read-iops", |o, e| {
        push(
            &mut o.host.blkio_device_read_iops,
            e.read(device::operations_per_second),
        )
    }),
    valued("device-write-bps", |o, e| {
        push(&mut o.host.blkio_device_write_bps, e.read(device::bytes_per_second))
    }),
    valued("device-write-iops", |o, e| {
        push(
            &mut o.host.blkio_device_write_iops,
            e.read(device::operations_per_second),
        )
    }),
    switch("disable-content-trust", |o, e| put(&mut o.distrust, Ok(e))),
    valued("dns", |o, e| push(&mut o.host.dns, e.read(network::address))),
    valued("dns-option", |o, e| push(&mut o.host.dns_options, Ok(e.value))),
    valued("dns-opt", |o, e| push(&mut o.host.dns_options, Ok(e.value))),
    valued("dns-search", |o, e| {
        push(&mut o.host.dns_search, e.read(network::search_domain))
    }),
    valued("domainname", |o, e| put(&mut o.config.domainname, Ok(e.value))),
    valued("entrypoint", |o, e| put(&mut o.config.entrypoint, Ok(vec![e.value]))),
    valued("env", |o, e| o.environment.variable(e)).short('e'),
    valued("env-file", |o, e| keep(&mut o.environment.files, e)),
    valued("expose", |o, e| o.expose(&e)),
    valued("gpus", |o, e| push(&mut o.host.device_requests, e.read(device::gpus))),
    valued("group-add", |o, e| push(&mut o.host.group_add, Ok(e.value))),
    valued("health-cmd", |o, e| {
        o.health.command(e);
        Ok(())
    }),
    valued("health-interval", |o, e| o.health.interval(e)),
    valued("health-retries", |o, e| o.health.retries(e)),
    needing(Need::Api(1, 44), "health-start-interval", |o, e| {
        o.health.start_interval(e)
    }),
    valued("health-start-period", |o, e| o.health.start_period(e)),
    valued("health-timeout", |o, e| o.health.timeout(e)),
    switch("help", |_, e| Err(e.inexpressible("it starts no container"))),
    valued("hostname", |o, e| put(&mut o.config.hostname, Ok(e.value))).short('h'),
    switch("init", |o, e| put(&mut o.host.init, Ok(e.on))),
    switch("interactive", |o, e| put(&mut o.config.open_stdin, Ok(e.on))).short('i'),
    needing(Need::Windows, "io-maxbandwidth", |o, e| {
        put(&mut o.host.io_maximum_bandwidth, e.read(go_values::size))
    }),
    needing(Need::Windows, "io-maxiops", |o, e| {
        put(&mut o.host.io_maximum_iops, e.read(natural))
    }),
    valued("ip", |o, e| put(&mut o.networks.ipv4, Ok(e))),
    valued("ip6", |o, e| put(&mut o.networks.ipv6, Ok(e))),
    valued("ipc", |o, e| put(&mut o.host.ipc_mode, Ok(e.value))),
    valued("isolation", |o, e| {
        put(&mut o.host.isolation, e.read(security::isolation))
    }),
    valued("kernel-memory", |o, e| {
        put(&mut o.kernel_memory, e.read(go_values::size))
    }),
    valued("label", |o, e| o.labels.label(e)).short('l'),
    valued("label-file", |o, e| keep(&mut o.labels.files, e)),
    valued("link", |o, e| {
        push(&mut o.host.links, e.read(network::link))?;
        keep(&mut o.networks.links, e)
    }),
    valued("link-local-ip", |o, e| keep(&mut o.networks.link_local, e)),
    valued("log-driver", |o, e| put(&mut o.log_driver, Ok(e.value))),
    valued("log-opt", |o, e| keep(&mut o.log_options, e)),
    valued("mac-address", |o, e| {
        if e.value.is_empty() {
            o.networks.mac = None;
            return Ok(());
        }
        e.read(network::mac)?;
        put(&mut o.networks.mac, Ok(e))
    }),
    valued("memory", |o, e| put(&mut o.host.memory, e.read(go_values::size))).short('m'),
    valued("memory-reservation", |o, e| {
        put(&mut o.host.memory_reservation, e.read(go_values::size))
    }),
    valued("memory-swap", |o, e| {
        put(&mut o.host.memory_swap, e.read(go_values::size_or_unlimited))
    }),
    valued("memory-swappiness", |o, e| {
        put(&mut o.host.memory_swappiness, e.read(swappiness))
    }),
    valued("mount", |o, e| {
        let mount = e.read(mount::mount)?;
        o.mounts.push((e, mount));
        Ok(())
    }),
    valued("name", |o, e| put(&mut o.name, Ok(e.value))),
    valued("network", |o, e| o.networks.attach(e)),
    valued("net", |o, e| o.networks.attach(e)),
    valued("network-alias", |o, e| keep(&mut o.networks.aliases, e)),
    valued("net-alias", |o, e| keep(&mut o.networks.aliases, e)),
    switch("no-healthcheck", |o, e| {
        o.health.disable(e);
        Ok(())
    }),
    switch("oom-kill-disable", |o, e| put(&mut o.host.oom_kill_disable, Ok(e.on))),
    valued("oom-score-adj", |o, e| {
        put(&mut o.host.oom_score_adj, e.read(go_values::integer))
    }),
    valued("pid", |o, e| put(&mut o.host.pid_mode, e.read(security::pid))),
    valued("pids-limit", |o, e| {
        put(&mut o.host.pids_limit, e.read(go_values::integer))
    }),
    valued("platform", |o, e| {
        let normal = if e.value.is_empty() {
            Ok(String::new())
        } else {
            e.read(platform::normalize)
        };
        put(&mut o.platform, normal)
    }),
    switch("privileged", |o, e| put(&mut o.host.privileged, Ok(e.on))),
    valued("publish", |o, e| o.publish(&e)).short('p'),
    switch("publish-all", |o, e| put(&mut o.host.publish_all_ports, Ok(e.on))).short('P'),
    valued("pull", |o, e| {
        o.pull = e.read(PullPolicy::parse)?;
        Ok(())
    }),
    switch("quiet", |o, e| {
        o.quiet = e.on;
        Ok(())
    })
    .short('q'),
    switch("read-only", |o, e| put(&mut o.host.readonly_rootfs, Ok(e.on))),
    valued("restart", |o, e| o.restart(e)),
    switch("rm", |o, e| on(&mut o.remove, e)),
    valued("runtime", |o, e| put(&mut o.host.runtime, Ok(e.value))),
    valued("security-opt", |o, e| keep(&mut o.security, e)),
    valued("shm-size", |o, e| put(&mut o.host.shm_size, e.read(go_values::size))),
    switch("sig-proxy", |o, e| {
        o.sig_proxy = e.on;
        Ok(())
    }),
    valued("stop-signal", |o, e| put(&mut o.config.stop_signal, Ok(e.value))),
    valued("stop-timeout", |o, e| {
        put(&mut o.config.stop_timeout, e.read(go_values::integer))
    }),
    valued("storage-opt", |o, e| {
        insert(&mut o.host.storage_opt, e.read(storage_option))
    }),
    valued("sysctl", |o, e| insert(&mut o.host.sysctls, e.read(security::sysctl))),
    valued("tmpfs", |o, e| insert(&mut o.host.tmpfs, Ok(tmpfs(&e.value)))),
    switch("tty", |o, e| put(&mut o.config.tty, Ok(e.on))).short('t'),
    valued("ulimit", |o, e| o.ulimit(&e)),
    switch("use-api-socket", |o, e| on(&mut o.api_socket, e)),
    valued("user", |o, e| put(&mut o.config.user, Ok(e.value))).short('u'),
    valued("userns", |o, e| {
        put(&mut o.host.userns_mode, e.read(security::host_or_own))
    }),
    valued("uts", |o, e| put(&mut o.host.uts_mode, e.read(security::host_or_own))),
    valued("volume", |o, e| keep(&mut o.volumes, e)).short('v'),
    valued("volume-driver", |o, e| put(&mut o.host.volume_driver, Ok(e.value))),
    valued("volumes-from", |o, e| push(&mut o.host.volumes_from, Ok(e.value))),
    valued("workdir", |o, e| put(&mut o.config.working_dir, Ok(e.value))).short('w'),
];

/// The last value counts.
fn put<T>(slot: &mut Option<T>, value: Result<T, OptionError>) -> Result<(), OptionError> {
    *slot = Some(value?);
    Ok(())
}

/// Each value counts.
fn push<T>(slot: &mut Option<Vec<T>>, value: Result<T, OptionError>) -> Result<(), OptionError> {
    slot.get_or_insert_default().push(value?);
    Ok(())
}

/// The last value of each name counts.
fn insert(
    slot: &mut Option<std::collections::HashMap<String, String>>,
    value: Result<(String, String), OptionError>,
) -> Result<(), OptionError> {
    let (name, value) = value?;
    slot.get_or_insert_default().insert(name, value);
    Ok(())
}

/// Kept until the client's facts are known.
fn keep(slot: &mut Vec<GivenOption>, entry: GivenOption) -> Result<(), OptionError> {
    slot.push(entry);
    Ok(())
}

/// A switch that an error may have to name.
fn on(slot: &mut Option<GivenOption>, entry: GivenOption) -> Result<(), OptionError> {
    *slot = entry.on.then_some(entry);
    Ok(())
}

fn small(text: &str) -> Result<u16, String> {
    u16::try_from(go_values::unsigned(text)?).map_err(|_| "is too large".to_owned())
}

fn natural(text: &str) -> Result<i64, String> {
    i64::try_from(go_values::unsigned(text)?).map_err(|_| "is too large".to_owned())
}

fn swappiness(text: &str) -> Result<i64, String> {
    let value = go_values::integer(text)?;
    // -1 leaves it to the engine.
    if (-1..=100).contains(&value) {
        Ok(value)
    } else {
        Err("is not between 0 and 100".to_owned())
    }
}

fn storage_option(text: &str) -> Result<(String, String), String> {
    if text.contains('=') {
        Ok(environment::pair(text))
    } else {
        Err("is not NAME=VALUE".to_owned())
    }
}

fn tmpfs(text: &str) -> (String, String) {
    let (path, options) = text.split_once(':').unwrap_or((text, ""));
    (path.to_owned(), options.to_owned())
}
