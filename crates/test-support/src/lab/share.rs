//! The engines' share of a busy machine's processors.
//!
//! If docker makes its control groups by itself (its driver is `cgroupfs`), all containers of the machine are in one
//! group, and the kernel gives that the weight of a single process (cgroups(7): 1024 `cpu.shares`, or 100 of
//! `cpu.weight`). Each engine of the lab plays a machine of its own. When six of them, with all that they build and
//! run, share the time of one process beside the tests and other load, they are silent for so long that a test takes
//! them for dead. If systemd makes the groups, the containers have half of the machine.

use std::fs;

/// The file of the group's weight for each version of control groups, the weight of one process, and that of as many
/// processes as there are engines.
const WEIGHTS: [(&str, &str, &str); 3] = [
    ("/sys/fs/cgroup/cpu/docker/cpu.shares", "1024", "8192"),
    ("/sys/fs/cgroup/cpu,cpuacct/docker/cpu.shares", "1024", "8192"),
    ("/sys/fs/cgroup/docker/cpu.weight", "100", "800"),
];

/// Gives the containers of this machine the weight of several processes, unless the weight was changed otherwise.
pub(super) fn raise() {
    for (file, one, several) in WEIGHTS {
        change(file, one, several);
    }
}

/// Undoes what [`raise`] did.
pub(super) fn lower() {
    for (file, one, several) in WEIGHTS {
        change(file, several, one);
    }
}

fn change(file: &str, from: &str, to: &str) {
    if fs::read_to_string(file).is_ok_and(|weight| weight.trim() == from) {
        // Without the permission, the engines are as slow as before.
        let _ = fs::write(file, to);
    }
}
