//! The part of a home that OpenSSH's client reads: its configuration and the hosts that it knows.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// A home for OpenSSH's client, and for programs that ask the client for its configuration: they see this home's files
/// and no others.
///
/// OpenSSH uses the home of the password database, whatever HOME says. So there is an `ssh` in [`SshHome::bin`], which
/// must precede the machine's own on PATH, and reads this home's configuration.
#[derive(Debug, Clone)]
pub struct SshHome {
    home: PathBuf,
}

impl SshHome {
    /// Makes `.ssh` and `bin` in a directory that exists. No host is known, and the configuration has no further lines.
    ///
    /// # Errors
    /// When a file can't be written.
    pub fn make(home: &Path) -> io::Result<Self> {
        let made = Self { home: home.to_owned() };
        for directory in [made.ssh(), made.bin()] {
            fs::create_dir(&directory)?;
            fs::set_permissions(&directory, fs::Permissions::from_mode(0o700))?;
        }
        let wrapper = made.bin().join("ssh");
        let config = made.ssh().join("config");
        fs::write(
            &wrapper,
            format!("#!/bin/sh\nexec /usr/bin/ssh -F '{}' \"$@\"\n", config.display()),
        )?;
        fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755))?;
        made.configure("")?;
        Ok(made)
    }

    /// `~/.ssh`.
    pub fn ssh(&self) -> PathBuf {
        self.home.join(".ssh")
    }

    /// The directory with `ssh`.
    pub fn bin(&self) -> PathBuf {
        self.home.join("bin")
    }

    /// Writes `~/.ssh/config`: these lines, then those that exclude the machine's own known hosts.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn configure(&self, lines: &str) -> io::Result<()> {
        let known = self.known_hosts();
        let rest = format!(
            "Host *\n  UserKnownHostsFile {}\n  GlobalKnownHostsFile /dev/null\n",
            known.display()
        );
        let file = self.ssh().join("config");
        fs::write(&file, format!("{lines}\n{rest}"))?;
        fs::set_permissions(file, fs::Permissions::from_mode(0o600))
    }

    /// `~/.ssh/known_hosts`.
    pub fn known_hosts(&self) -> PathBuf {
        self.ssh().join("known_hosts")
    }

    /// Adds lines to known_hosts.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn trust(&self, known_hosts: &str) -> io::Result<()> {
        let before = match fs::read_to_string(self.known_hosts()) {
            Ok(before) => before,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error),
        };
        fs::write(self.known_hosts(), before + known_hosts)
    }
}
