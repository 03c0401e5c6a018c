//! Runs the `git` command, as versioneer does: with arguments and without a shell, in the project's root.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::VersionError;

/// The time limit of one command. Looking for changes in the largest trees takes a few seconds.
const LIMIT: Duration = Duration::from_secs(30);

/// Settings that make git run programs or write colours, and do not change its answers. `safe.directory` is the user's:
/// in another user's repository, git refuses. `safe.bareRepository`: a folder of a cloned project can be a repository
/// itself, with a cloned configuration; such a repository is not used.
const SETTINGS: [&str; 13] = [
    "-c",
    "safe.bareRepository=explicit",
    "--no-optional-locks",
    "-c",
    "core.fsmonitor=false",
    "-c",
    "core.hooksPath=/dev/null",
    "-c",
    "log.showSignature=false",
    "-c",
    "color.ui=false",
    "-c",
    "column.ui=never",
];

/// git's answer.
#[derive(Debug)]
pub enum GitOutput {
    /// Its stdout, without blanks at both ends.
    Text(Vec<u8>),
    /// It failed or is not installed: the reason.
    Nothing(String),
}

/// Names of settings by which a repository makes git, or git-lfs, run programs while it looks for changes. Everything
/// else that runs programs then is turned off by [`SETTINGS`].
const PROGRAMS: &str = "^(filter|lfs[.]extension)[.].*[.](clean|process|smudge)$";
/// How deep submodules may be nested.
const SUBMODULES: usize = 16;

/// A repository that git is asked about, without running the programs in its own configuration.
///
/// A copied folder (an archive, a shared disk) brings its `.git/config`, and git runs the filters in it whenever it
/// compares a file. Only filters that the user's own configuration has in the same words are run; the others are
/// disabled. (That takes git 2.26; older ones run them, as in `git status`.)
#[derive(Debug)]
pub struct Repository<'a> {
    root: &'a Path,
    /// Options of git that disable filters.
    overrides: Vec<OsString>,
    unrun: Vec<ConfiguredProgram>,
}

/// A program in a repository's own configuration that is not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfiguredProgram {
    /// The setting, `filter.NAME.clean`.
    pub key: String,
    pub command: String,
}

impl<'a> Repository<'a> {
    /// The repository around this folder, and its submodules.
    ///
    /// # Errors
    /// As [`Repository::ask`].
    pub fn around(root: &'a Path) -> Result<Self, VersionError> {
        let mut repository = Self {
            root,
            overrides: Vec::new(),
            unrun: Vec::new(),
        };
        repository.put_out_of_force(root, SUBMODULES)?;
        Ok(repository)
    }

    /// Runs git in the root.
    ///
    /// # Errors
    /// It takes longer than 30 seconds, or a signal ends it.
    pub fn ask(&self, arguments: &[&str]) -> Result<GitOutput, VersionError> {
        ask_within(self.root, &self.overrides, arguments, LIMIT, "none")
    }

    /// Whether it is a shallow clone. git before 2.15 does not report that.
    ///
    /// # Errors
    /// As [`Repository::ask`].
    pub fn is_shallow(&self) -> Result<bool, VersionError> {
        Ok(match self.ask(&["rev-parse", "--is-shallow-repository"])? {
            GitOutput::Text(text) => text == b"true",
            GitOutput::Nothing(_) => false,
        })
    }

    /// The folder in which git is run.
    pub(super) const fn root(&self) -> &Path {
        self.root
    }

    /// The programs that would have been run.
    pub(super) fn unrun(&self) -> &[ConfiguredProgram] {
        &self.unrun
    }

    /// Disables the filters of the repository around a folder, and those of its submodules: git compares files in them
    /// with their configuration, and passes our options on.
    fn put_out_of_force(&mut self, folder: &Path, depth: usize) -> Result<(), VersionError> {
        let listed = |arguments: &[&str]| {
            Ok::<_, VersionError>(match ask_within(folder, &[], arguments, LIMIT, "none")? {
                GitOutput::Text(text) => text,
                // There are no keys, or git will report the error itself.
                GitOutput::Nothing(_) => Vec::new(),
            })
        };
        let programs = listed(&["config", "--show-scope", "-z", "--get-regexp", PROGRAMS])?;
        let (own, foreign): (Vec<_>, Vec<_>) = settings(&programs)
            .partition(|(scope, _, _)| !matches!(*scope, b"local" | b"worktree" | b"submodule" | b"unknown"));
        for (_, key, command) in foreign {
            if own
                .iter()
                .any(|(_, own_key, own_command)| (*own_key, *own_command) == (key, command))
            {
                continue;
            }
            let program = ConfiguredProgram {
                key: String::from_utf8_lossy(key).into_owned(),
                command: String::from_utf8_lossy(command).into_owned(),
            };
            if self.unrun.contains(&program) {
                continue;
            }
            // The value follows the first `=`: a name with `=` can't be overridden, and nobody uses one.
            if key.contains(&b'=') {
                return Err(VersionError::Filter { program });
            }
            self.unrun.push(program);
            let name = key.rsplitn(2, |byte| *byte == b'.').nth(1).unwrap_or_default();
            let mut put = |what: &[u8]| {
                let option = [name, what].concat();
                self.overrides
                    .extend([OsString::from("-c"), OsString::from_vec(option)]);
            };
            for what in [&b".clean="[..], b".process=", b".smudge=", b".required=false"] {
                put(what);
            }
        }
        // MODE OBJECT STAGE, a tab, and the path.
        let index = listed(&["ls-files", "--stage", "-z"])?;
        let submodules = index
            .split(|byte| *byte == 0)
            .filter(|entry| entry.starts_with(b"160000 "))
            .filter_map(|entry| entry.splitn(2, |byte| *byte == b'\t').nth(1));
        for path in submodules {
            let folder = folder.join(OsStr::from_bytes(path));
            if folder.join(".git").symlink_metadata().is_ok() && depth > 0 {
                self.put_out_of_force(&folder, depth - 1)?;
            }
        }
        Ok(())
    }
}

/// The files that git ignores in a folder: see [`super::ignored_by_git`].
pub(super) fn ignored(root: &Path) -> Option<BTreeSet<Vec<u8>>> {
    let arguments = [
        "ls-files",
        "--others",
        "--ignored",
        "--exclude-standard",
        "--directory",
        "-z",
    ];
    let Ok(GitOutput::Text(text)) = ask_within(root, &[], &arguments, LIMIT, "none") else {
        return None;
    };
    let paths = text.split(|byte| *byte == 0).filter(|path| !path.is_empty());
    Some(
        paths
            .map(|path| path.strip_suffix(b"/").unwrap_or(path).to_vec())
            .collect(),
    )
}

/// Parses the output of `git config --show-scope -z`: `SCOPE NUL KEY NEWLINE VALUE NUL`.
fn settings(listed: &[u8]) -> impl Iterator<Item = (&[u8], &[u8], &[u8])> {
    let mut parts = listed.split(|byte| *byte == 0);
    std::iter::from_fn(move || {
        let (scope, setting) = (parts.next()?, parts.next()?);
        let end = setting.iter().position(|byte| *byte == b'\n').unwrap_or(setting.len());
        let (key, value) = setting.split_at_checked(end)?;
        Some((scope, key, value.get(1..).unwrap_or_default()))
    })
}

fn ask_within(
    root: &Path,
    overrides: &[OsString],
    arguments: &[&str],
    limit: Duration,
    protocols: &str,
) -> Result<GitOutput, VersionError> {
    let child = Command::new("git")
        .args(SETTINGS)
        .args(overrides)
        .args(arguments)
        .current_dir(root)
        // It may name another repository than the root's.
        .env_remove("GIT_DIR")
        // In a partial clone, git may fetch missing objects, with whatever program the repository names.
        .env("GIT_NO_LAZY_FETCH", "1")
        .env("GIT_ALLOW_PROTOCOL", protocols)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(GitOutput::Nothing("git is not installed".to_owned()));
        }
        Err(error) => return Ok(GitOutput::Nothing(format!("git can't be run: {error}"))),
    };
    let output = output(&mut child, limit);
    if output.is_none() {
        // It may have ended just now.
        let _ = child.kill();
    }
    let status = child.wait();
    let Some((stdout, stderr)) = output else {
        return Err(VersionError::Slow {
            root: root.to_owned(),
            arguments: crate::shell::join(arguments),
            seconds: limit.as_secs(),
        });
    };
    match status {
        // Interrupted with us, or crashed: otherwise it would have answered.
        Ok(status) if status.signal().is_some() => Err(VersionError::Stopped {
            root: root.to_owned(),
            arguments: crate::shell::join(arguments),
            status,
        }),
        Ok(status) if status.success() => Ok(GitOutput::Text(stdout.trim_ascii().to_owned())),
        Ok(status) => Ok(GitOutput::Nothing(match String::from_utf8_lossy(&stderr).trim() {
            "" => format!("git {} ended with {status}", arguments.join(" ")),
            said => said.to_owned(),
        })),
        Err(error) => Ok(GitOutput::Nothing(format!("git can't be waited for: {error}"))),
    }
}

/// All of stdout and stderr; `None` if the time is over before their ends.
fn output(child: &mut Child, limit: Duration) -> Option<(Vec<u8>, Vec<u8>)> {
    let deadline = Instant::now() + limit;
    let stdout = collect(child.stdout.take());
    let stderr = collect(child.stderr.take());
    let all = |stream: mpsc::Receiver<Vec<u8>>| {
        stream
            .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            .ok()
    };
    Some((all(stdout)?, all(stderr)?))
}

/// Reads a stream to its end in a thread, so that neither of two pipes fills up.
fn collect(stream: Option<impl Read + Send + 'static>) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut stream) = stream {
            // What was read before an error is kept.
            let _ = stream.read_to_end(&mut bytes);
        }
        // The receiver is gone after the limit.
        let _ = sender.send(bytes);
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_git_that_takes_too_long_is_stopped() {
        let began = Instant::now();
        // git waits for an answer on a connection that nobody accepts.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("git://{}/x", listener.local_addr().unwrap());
        let Err(error) = ask_within(
            Path::new("/"),
            &[],
            &["ls-remote", &url],
            Duration::from_millis(200),
            "git",
        ) else {
            panic!("there is an answer");
        };
        assert!(
            error.to_string().starts_with("git ls-remote git://127.0.0.1"),
            "{error}"
        );
        assert!(began.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn what_a_repository_names_is_not_run() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let ran = root.join("ran");
        let git = |arguments: &[&str]| {
            let git = Command::new("git").args(arguments).current_dir(root).output().unwrap();
            assert!(git.status.success(), "{git:?}");
        };
        git(&["init", "-q"]);
        let identity = ["-c", "user.name=a", "-c", "user.email=a@b"];
        git(&[&identity[..], &["commit", "-q", "--allow-empty", "-m", "x"]].concat());
        std::fs::write(root.join("hook"), format!("#!/bin/sh\ntouch {}\n", ran.display())).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(root.join("hook"), mode).unwrap();
        std::fs::copy(root.join("hook"), root.join(".git/hooks/post-index-change")).unwrap();
        git(&["config", "core.fsmonitor", "./hook"]);
        git(&["config", "protocol.ext.allow", "always"]);
        let url = format!("ext::touch {}", ran.display());
        for arguments in [&["status"][..], &["update-index", "--refresh"], &["ls-remote", &url]] {
            Repository::around(root).unwrap().ask(arguments).unwrap();
            assert!(!ran.exists(), "{arguments:?}");
        }
        // Without our settings, it does.
        git(&["status"]);
        assert!(ran.exists());
    }

    /// A repository with a file that git must compare, and filters for it.
    fn changed_by_a_filter(root: &Path, filters: &[(&str, &str)]) {
        let git = |arguments: &[&str]| {
            let identity = ["-c", "user.name=a", "-c", "user.email=a@b"];
            let git = Command::new("git")
                .args(identity)
                .args(arguments)
                .current_dir(root)
                .output()
                .unwrap();
            assert!(git.status.success(), "{git:?}");
        };
        git(&["init", "-q"]);
        std::fs::write(root.join("file"), "text").unwrap();
        std::fs::write(root.join(".gitattributes"), "file filter=any\n").unwrap();
        git(&["add", "."]);
        git(&["commit", "-q", "-m", "x"]);
        for (key, command) in filters {
            git(&["config", key, command]);
        }
        // Other file times than in the index, and other contents of the same length.
        std::fs::write(root.join("file"), "TEXT").unwrap();
    }

    #[test]
    fn filters_of_a_copied_repository_are_not_run_and_are_said() {
        let folder = tempfile::tempdir().unwrap();
        let ran = folder.path().join("ran");
        let touch = format!("touch {}", ran.display());
        for (key, command) in [
            ("filter.any.clean", format!("{touch}; tr A-Z a-z")),
            ("filter.any.process", touch),
        ] {
            let root = folder.path().join(key);
            std::fs::create_dir(&root).unwrap();
            changed_by_a_filter(&root, &[(key, &command), ("filter.any.required", "true")]);
            let repository = Repository::around(&root).unwrap();
            let GitOutput::Text(said) = repository.ask(&["describe", "--always", "--dirty"]).unwrap() else {
                panic!("no answer");
            };
            assert!(said.ends_with(b"-dirty"), "{said:?}");
            assert!(!ran.exists(), "{key}");
            let program = ConfiguredProgram {
                key: key.to_owned(),
                command: command.clone(),
            };
            assert_eq!(repository.unrun(), [program]);
            // Without us, it is run.
            let mut git = Command::new("git");
            git.args(["describe", "--always", "--dirty"])
                .current_dir(&root)
                .output()
                .unwrap();
            assert!(ran.exists(), "{key}");
            std::fs::remove_file(&ran).unwrap();
        }
    }

    #[test]
    fn filters_of_a_submodule_are_not_run_either() {
        let folder = tempfile::tempdir().unwrap();
        let ran = folder.path().join("ran");
        let inner = folder.path().join("outer/inner");
        std::fs::create_dir_all(&inner).unwrap();
        let hook = format!("touch {}; cat", ran.display());
        changed_by_a_filter(&inner, &[("filter.any.clean", &hook), ("core.fsmonitor", &hook)]);
        let root = folder.path().join("outer");
        changed_by_a_filter(&root, &[]);
        // git looks no further than the first change.
        std::fs::write(root.join("file"), "text").unwrap();
        let repository = Repository::around(&root).unwrap();
        repository.ask(&["describe", "--always", "--dirty"]).unwrap();
        assert!(!ran.exists());
        assert_eq!(repository.unrun().len(), 1);
        let mut git = Command::new("git");
        git.args(["describe", "--always", "--dirty"])
            .current_dir(&root)
            .output()
            .unwrap();
        assert!(ran.exists());
    }

    #[test]
    fn a_folder_of_a_clone_that_is_a_repository_in_itself_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        changed_by_a_filter(root, &[("core.worktree", ".")]);
        // A clone can bring such a folder: git only refuses the name `.git` in a commit.
        for entry in std::fs::read_dir(root.join(".git")).unwrap() {
            let entry = entry.unwrap();
            std::fs::rename(entry.path(), root.join(entry.file_name())).unwrap();
        }
        std::fs::remove_dir(root.join(".git")).unwrap();
        let GitOutput::Nothing(why) = Repository::around(root).unwrap().ask(&["rev-parse", "HEAD"]).unwrap() else {
            panic!("it is one");
        };
        assert!(why.contains("bare repository"), "{why}");
    }

    #[test]
    fn what_the_users_own_configuration_has_too_is_run() {
        let said: &[u8] = b"global\0filter.a.clean\nx y\0local\0filter.a.clean\nx y\0local\0filter.b.clean\nx\ny\0";
        let found: Vec<_> = settings(said).collect();
        assert_eq!(found.len(), 3);
        assert_eq!(
            found.first(),
            Some(&(&b"global"[..], &b"filter.a.clean"[..], &b"x y"[..]))
        );
        assert_eq!(
            found.last(),
            Some(&(&b"local"[..], &b"filter.b.clean"[..], &b"x\ny"[..]))
        );
    }

    #[test]
    fn a_failure_is_told_in_gits_words() {
        let Ok(GitOutput::Nothing(why)) =
            Repository::around(Path::new("/"))
                .unwrap()
                .ask(&["rev-parse", "--verify", "x"])
        else {
            panic!("there is an answer");
        };
        assert!(why.starts_with("fatal: "), "{why}");
    }
}
