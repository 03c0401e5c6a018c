//! How much of a busy machine's processors the engines have.
//!
//! Where docker makes its control groups by itself (its driver is `cgroupfs`), all containers of the machine are in one group, and the
//! kernel weighs that as it weighs one process (cgroups(7): 1024 `cpu.shares`, or 100 of `cpu.weight`). Each engine of the lab plays a
//! machine of its own; six of them, with all that they build and run, in the time of one process beside the tests and whatever else
//! keeps the machine busy, are silent for so long that a test takes them for dead. Where systemd makes the groups, they have half of
//! the machine.

use std::fs;

/// Where the group's weight is, for each version of control groups: the file, the weight of one process, and that of as many as
/// there are engines.
const WEIGHTS: [(&str, &str, &str); 3] = [
    ("/sys/fs/cgroup/cpu/docker/cpu.shares", "1024", "8192"),
    ("/sys/fs/cgroup/cpu,cpuacct/docker/cpu.shares", "1024", "8192"),
    ("/sys/fs/cgroup/docker/cpu.weight", "100", "800"),
];

/// Gives the containers of this machine the weight of several processes, unless somebody has chosen another one.
pub(super) fn raise() {
    for (file, one, several) in WEIGHTS {
        change(file, one, several);
    }
}

/// Takes back what [`raise`] did.
pub(super) fn lower() {
    for (file, one, several) in WEIGHTS {
        change(file, several, one);
    }
}

fn change(file: &str, from: &str, to: &str) {
    if fs::read_to_string(file).is_ok_and(|weight| weight.trim() == from) {
        // Without the right to it, the engines are as slow as they were.
        let _ = fs::write(file, to);
    }
}
