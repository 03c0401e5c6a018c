//! Large files of which little changed: where both machines have rsync, it sends only that.
//!
//! It makes the new version beside the old one, in a directory of ours, and by the old one's help; from there it is put in
//! place as all else is, so that what is promised of whole files and of changes meanwhile does not depend on it. Where it
//! fails, for whatever reason, the file travels whole.
//!
//! The dock's rsync is a stranger to ours, which must know to defend itself: [`LEAST`].
//!
//! rsync checks by a digest of its own that what it made is what the other side has. How it reaches the dock: its `-e`
//! calls `PROGRAM HOST rsync --server ...`; with `-s`, paths are not part of that command line.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;

use super::{Item, ItemKind, OWN_DIRECTORY};
use crate::env::Env;
use crate::output::progress::bars::Bars;
use crate::output::visible;

/// Below, a file that both sides have goes whole just as soon: rsync needs some round trips, and reads both versions.
const LARGE: u64 = 8 * 1024 * 1024;

/// The oldest version of ours that talks to a dock's. A hostile one could write files of its choice here (CVE-2022-29154,
/// CVE-2024-12087), read other files of this machine byte by byte (CVE-2024-12086), and what is on the stack or beyond
/// (CVE-2024-12084, -12085). Distributions mend older ones without another number: that can't be told from outside.
pub const LEAST: (u32, u32, u32) = (3, 4, 0);

/// How long it may take to say its version.
const ANSWERS: Duration = Duration::from_secs(10);
/// How often it is looked at how much rsync has made here.
const LOOKED_AT: Duration = Duration::from_millis(200);
/// Beside the files that were listed, so much may lie there.
const SLACK: u64 = 1024 * 1024;

/// How long rsync may go on without anything going to and fro, in seconds.
const STALLED: &str = "60";

/// How rsync is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rsync {
    /// This machine's.
    pub program: PathBuf,
    /// What it calls in the place of ssh, in words that it splits at blanks.
    pub shell: String,
    /// The dock's name for that.
    pub host: String,
    /// The size of a file, in bytes, from which on it is worth the while.
    pub least: u64,
}

/// Which way files go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RsyncDirection<'a> {
    /// Into this directory of ours in the workspace.
    Up(&'a str),
    /// Into this directory of ours in the project, so many bytes at most.
    Down(&'a str, u64),
}

impl Rsync {
    /// By `ssh-dock`, which is beside our own program or on PATH. None where something is missing, or has a name that does
    /// not fit through rsync's command line.
    pub fn by_ssh_dock(moniker: &str, env: &Env) -> Option<Self> {
        let is_plain = |text: &str, also: &str| {
            !text.is_empty()
                && !text.starts_with('-')
                && text.chars().all(|c| c.is_ascii_alphanumeric() || also.contains(c))
        };
        let on_path = |name: &str| {
            std::env::split_paths(env.get("PATH").unwrap_or_default())
                .filter(|directory| directory.is_absolute())
                .map(|directory| directory.join(name))
                .find(|file| file.is_file())
        };
        let beside = std::env::current_exe().ok()?.with_file_name("ssh-dock");
        let ssh_dock = Some(beside)
            .filter(|file| file.is_file())
            .or_else(|| on_path("ssh-dock"))?;
        let shell = ssh_dock.to_str().filter(|path| is_plain(path, "/._-+"))?.to_owned();
        Some(Self {
            program: on_path("rsync")?,
            shell,
            host: Some(moniker).filter(|moniker| is_plain(moniker, "._-"))?.to_owned(),
            least: LARGE,
        })
    }

    /// Whether of a file that takes the place of the other side's little may have changed.
    pub fn is_worth(&self, from: &Item, to: Option<&Item>) -> bool {
        let is_large = |item: &Item| item.kind == ItemKind::File && item.stamp.size >= self.least;
        // Before 1970 there is no time that all take.
        is_large(from) && to.is_some_and(is_large) && from.stamp.mtime >= 0
    }

    /// Why this rsync is not let near a dock's; `None` where it is.
    pub async fn distrust(&self) -> Option<String> {
        let mut command = Command::new(&self.program);
        command
            .arg("--version")
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        let said = match tokio::time::timeout(ANSWERS, command.output()).await {
            Ok(Ok(output)) => String::from_utf8_lossy(&output.stdout).into_owned(),
            _ => String::new(),
        };
        match version(&said) {
            Some(version) if version >= LEAST => None,
            Some((major, minor, patch)) => Some(format!(
                "rsync {major}.{minor}.{patch} here is older than {}.{}.{}, and not safe against a hostile dock",
                LEAST.0, LEAST.1, LEAST.2
            )),
            None => Some(format!("{} does not report its version", self.program.display())),
        }
    }

    /// Makes these files anew, in a directory of ours on the side where they go.
    ///
    /// # Errors
    /// What rsync says. Some may be there all the same.
    pub async fn make(
        &self,
        direction: RsyncDirection<'_>,
        root: &Path,
        workspace: &str,
        paths: &[&[u8]],
        bars: &Bars,
    ) -> io::Result<()> {
        let own = String::from_utf8_lossy(OWN_DIRECTORY);
        let here = format!("{}/", root.display());
        let there = format!("{}:{workspace}/", self.host);
        // What lies where the files are to be is what they are made from. By its whole path: from rsync 3.4 on, one with
        // `..` is refused, and only the digest tells.
        let (from, to, old) = match direction {
            RsyncDirection::Up(directory) => (here, format!("{there}{own}/{directory}/"), workspace.to_owned()),
            RsyncDirection::Down(directory, _) => {
                (there, format!("{here}{own}/{directory}/"), root.display().to_string())
            }
        };
        let mut command = Command::new(&self.program);
        command
            .args(["-e", &self.shell])
            // Files alone, and their times; what is as old as ours is made anew, too.
            .args(["-stz", "--ignore-times", "--chmod=D700,F600", "--compare-dest", &old])
            .args(["--from0", "--files-from=-", "--timeout", STALLED])
            .args(["--info=progress2", "--outbuf=N"])
            .args([from, to])
            // It would write names in other letters.
            .env_remove("RSYNC_ICONV")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn()?;
        let mut list = Vec::new();
        for path in paths {
            list.extend_from_slice(path);
            list.push(0);
        }
        if let Some(mut stdin) = child.stdin.take() {
            // One that ended early says so by its code.
            let _ = stdin.write_all(&list).await;
        }
        let said = child.stdout.take();
        let running = async { tokio::join!(child.wait_with_output(), follow(said, bars)).0 };
        let output = match direction {
            RsyncDirection::Up(_) => running.await?,
            RsyncDirection::Down(directory, most) => {
                let own = root.join(own.as_ref()).join(directory);
                tokio::select! {
                    output = running => output?,
                    // It is killed when it is dropped.
                    () = outgrown(own, most.saturating_add(SLACK)) => {
                        return Err(io::Error::other("the dock sends more than was listed"));
                    }
                }
            }
        };
        if output.status.success() {
            return Ok(());
        }
        // The first line has the cause, the last one the code.
        let said = String::from_utf8_lossy(&output.stderr);
        let line = said.lines().find(|line| !line.trim().is_empty());
        Err(io::Error::other(
            line.map_or_else(|| output.status.to_string(), visible),
        ))
    }
}

/// Shows how far rsync is, as it tells.
async fn follow(said: Option<tokio::process::ChildStdout>, bars: &Bars) {
    let Some(mut said) = said else { return };
    let mut buffer = [0; 4096];
    let mut told = 0;
    // Where it can't be read, there is nothing to be shown.
    while let Ok(read @ 1..) = said.read(&mut buffer).await {
        let text = String::from_utf8_lossy(buffer.get(..read).unwrap_or_default()).into_owned();
        if let Some(bytes) = text.rsplit('\r').find_map(moved) {
            bars.advance(bytes.saturating_sub(told));
            told = told.max(bytes);
        }
    }
}

/// The bytes in a line of `--info=progress2`: `  32,768  10%  1.00MB/s    0:00:01`. Its separators are those of its language.
fn moved(line: &str) -> Option<u64> {
    let mut words = line.split_whitespace();
    let number: String = words.next()?.chars().filter(|c| !matches!(c, ',' | '.')).collect();
    words.next().filter(|percent| percent.ends_with('%'))?;
    number.parse().ok()
}

/// The version in what `rsync --version` says.
fn version(said: &str) -> Option<(u32, u32, u32)> {
    let mut words = said.lines().next()?.split_whitespace();
    if words.next()? != "rsync" || words.next()? != "version" {
        return None;
    }
    let mut numbers = words
        .next()?
        .trim_start_matches('v')
        .split(|c: char| !c.is_ascii_digit());
    let mut number = || numbers.next()?.parse().ok();
    Some((number()?, number()?, number().unwrap_or(0)))
}

/// Waits until more than this lies in a directory.
async fn outgrown(directory: PathBuf, most: u64) {
    loop {
        tokio::time::sleep(LOOKED_AT).await;
        let directory = directory.clone();
        let size = tokio::task::spawn_blocking(move || size_of(&directory)).await;
        if size.is_ok_and(|size| size > most) {
            return;
        }
    }
}

/// The bytes of all files in a directory; a file that vanishes meanwhile adds nothing.
fn size_of(directory: &Path) -> u64 {
    let mut folders = vec![directory.to_owned()];
    let mut all = 0_u64;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(found) if found.is_dir() => folders.push(entry.path()),
                Ok(found) => all = all.saturating_add(found.len()),
                Err(_) => {}
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_far_it_is_is_read_from_what_it_prints() {
        for (line, bytes) in [
            ("    104,857,600  33%   99.21MB/s    0:00:02  ", Some(104_857_600)),
            ("          0   0%    0.00kB/s    0:00:00", Some(0)),
            ("  1.234.567  99%", Some(1_234_567)),
            ("sending incremental file list", None),
            ("", None),
        ] {
            assert_eq!(moved(line), bytes, "{line}");
        }
    }

    #[test]
    fn versions_are_told_apart() {
        for (said, expected) in [
            ("rsync  version 3.5.0  protocol version 32\n", Some((3, 5, 0))),
            ("rsync  version v3.2.7  protocol version 31", Some((3, 2, 7))),
            ("rsync  version 3.4.0pre1  protocol version 32", Some((3, 4, 0))),
            ("openrsync: protocol version 29\nrsync version 2.6.9 compatible", None),
            ("", None),
        ] {
            assert_eq!(version(said), expected, "{said}");
        }
        assert!((3, 2, 7) < LEAST && (3, 4, 0) >= LEAST && (3, 10, 0) > LEAST);
    }

    #[test]
    fn names_that_do_not_fit_through_a_command_line_are_left_to_the_usual_way() {
        let folder = tempfile::tempdir().unwrap();
        for program in ["rsync", "ssh-dock"] {
            std::fs::write(folder.path().join(program), "").unwrap();
        }
        let env = Env::from_pairs([("PATH", folder.path().to_str().unwrap())]);
        let found = Rsync::by_ssh_dock("far.1", &env).unwrap();
        assert_eq!(
            (found.program, found.host.as_str()),
            (folder.path().join("rsync"), "far.1")
        );
        assert!(found.shell.ends_with("/ssh-dock"));
        for moniker in ["", "-e", "a b", "a:b", "x[$(touch pwned)]", "a/b", "\u{e9}"] {
            assert_eq!(Rsync::by_ssh_dock(moniker, &env), None, "{moniker}");
        }
        assert_eq!(Rsync::by_ssh_dock("far", &Env::default()), None);
    }
}
