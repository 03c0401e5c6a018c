//! JupyterLab on the machine of a dock, outside of containers.

use std::path::Path;
use std::process::{Command, Stdio};

use super::place::wait;
use super::{Error, LabEngine};
use crate::process::{self, announce};

/// The certificates that this machine trusts.
const CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// What installs it, as root; [`LabEngine::jupyterlab`].
const INSTALL: &str = include_str!("jupyterlab.sh");

impl LabEngine {
    /// Makes sure that the dock's machine has JupyterLab, in the virtual environment `/opt/jupyter`, of which no PATH knows: a test
    /// leads to it as it likes. That takes a minute, once.
    ///
    /// # Errors
    /// When it is the machine's own engine, which is not a dock, or the packages can't be had.
    pub fn jupyterlab(&self) -> Result<(), Error> {
        let there = |path| {
            let mut test = self.exec("test")?;
            Ok::<_, Error>(
                test.args(["-e", path])
                    .stdin(Stdio::null())
                    .status()
                    .is_ok_and(|status| status.success()),
            )
        };
        if there("/opt/jupyter/ready")? {
            return Ok(());
        }
        let socket = Path::new(self.host.trim_start_matches("unix://"));
        let _lock = wait(
            &socket.with_file_name("jupyterlab.lock"),
            "lab: waiting for another process that installs JupyterLab",
        )?;
        if there("/opt/jupyter/ready")? {
            return Ok(());
        }
        announce(format_args!("lab: installing JupyterLab on {}", self.name));
        let mut sh = self.exec("sh")?;
        sh.args(["-c", INSTALL]);
        let certificates = if Path::new(CERTIFICATES).exists() {
            CERTIFICATES
        } else {
            "/dev/null"
        };
        process::pipe(Command::new("cat").arg(certificates), &mut sh)?;
        Ok(())
    }
}
