//! The systemd of a made-up user: on a machine that was not booted by systemd, too, and without touching the real user's.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Stdio};

use dockerutils_test_support::{machine, wait};

use crate::dock_home::DockHome;

/// Gives it cgroups of its own, and has it believe that the machine was booted by systemd; ends with its stdin, and leaves nothing.
/// `$1` is the cgroup's name, `$2` and `$3` the user and group, `$4` the runtime directory, `$5` the home.
const SCRIPT: &str = r#"set -e
mkdir -p /run/systemd
mount -t tmpfs tmpfs /run/systemd
mkdir /run/systemd/system
# No file system is mounted on itself.
mount -t tmpfs tmpfs /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
cgroup=/sys/fs/cgroup/$1
mkdir "$cgroup"
exec 3<&0
(
    exec </dev/null 3<&-
    echo 0 >"$cgroup/cgroup.procs"
    exec unshare --mount --cgroup sh -ec '
        mount -t tmpfs tmpfs /sys/fs/cgroup
        mount -t cgroup2 cgroup2 /sys/fs/cgroup
        chown -R "$2:$3" /sys/fs/cgroup
        cd /
        exec setpriv --reuid "$2" --regid "$3" --clear-groups env -i HOME="$5" XDG_RUNTIME_DIR="$4" \
            PATH=/usr/bin:/bin LOGNAME=tester USER=tester SYSTEMD_LOG_TARGET=console "$6" --user
    ' sh "$@"
) &
manager=$!
(
    cat <&3 >/dev/null
    # An old kernel can't do that at once.
    echo 1 >"$cgroup/cgroup.kill" || find "$cgroup" -name cgroup.procs -exec cat {} + | xargs -r kill -9
) &
wait "$manager" || :
kill $! 2>/dev/null || :
until find "$cgroup" -depth -type d -exec rmdir {} + 2>/dev/null; do sleep 0.05; done
"#;

/// A user's systemd. It ends with this, and so does what it started.
#[derive(Debug)]
pub struct UserManager {
    child: Child,
    lifeline: Option<ChildStdin>,
}

impl UserManager {
    /// The systemd of the user whose home this is.
    ///
    /// # Panics
    /// When it can't be started.
    pub fn start(home: &DockHome) -> Self {
        let why = "a user's systemd";
        machine::require("systemctl", &["systemd"], why).expect(why);
        machine::require("unshare", &["util-linux"], why).expect(why);
        let program = ["/usr/lib/systemd/systemd", "/lib/systemd/systemd"];
        let program = program.into_iter().find(|file| Path::new(file).is_file());
        let program = program.unwrap_or_else(|| panic!("systemctl is here, and no systemd"));
        let runtime = runtime(home);
        fs::set_permissions(&runtime, fs::Permissions::from_mode(0o700)).expect("it is ours");
        let user = rustix::process::geteuid().as_raw().to_string();
        let group = rustix::process::getegid().as_raw().to_string();
        let name = format!(
            "dockerutils-test-{}-{}",
            std::process::id(),
            home.sandbox().project().display()
        );
        let name = name.replace('/', "-");
        let mut unshare = machine::as_root("unshare").expect("root, or sudo");
        let mut child = unshare
            .args(["--mount", "--propagation", "private", "sh", "-c", SCRIPT, "sh"])
            .args([&name, &user, &group])
            .arg(&runtime)
            .arg(home.sandbox().home())
            .arg(program)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it is there");
        let lifeline = child.stdin.take();
        let socket = runtime.join("systemd/private");
        wait::until("the user's systemd listens", || {
            if child.try_wait().expect("it is ours").is_some() {
                let mut said = String::new();
                let stderr = child.stderr.as_mut().map(|stderr| stderr.read_to_string(&mut said));
                panic!("the user's systemd has ended: {said} {stderr:?}");
            }
            std::os::unix::net::UnixStream::connect(&socket).is_ok()
        });
        Self { child, lifeline }
    }
}

/// The XDG_RUNTIME_DIR of this home.
fn runtime(home: &DockHome) -> PathBuf {
    home.sandbox().project().with_file_name("runtime")
}

impl Drop for UserManager {
    fn drop(&mut self) {
        drop(self.lifeline.take());
        // A failure is one of the test itself, which is said already.
        let _ = self.child.wait();
    }
}
