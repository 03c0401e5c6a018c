//! Where the source of a bind mount is meant to be: in a project of this machine, or on the dock.
//!
//! A client names a path and no machine. What lies in a project that a person has sent to the dock is meant to be the
//! project's; the engine's socket, `/dev` and their like are the dock's; what is under the home directory and in no such
//! project is nothing that a container on a dock could have, and is refused, so that no engine makes an empty directory of
//! that name. What remains, the dock is asked for.

use std::ffi::OsString;
use std::fs;
use std::path::{Component, Path, PathBuf};

use dock_client::shell::quote;
use dock_client::sync_memory;

/// Paths that every Linux machine has for itself, with all that is below them.
const OF_THE_MACHINE: [&str; 9] = [
    "/var/run/docker.sock",
    "/run/docker.sock",
    "/dev",
    "/proc",
    "/sys",
    "/lib/modules",
    "/usr/lib/modules",
    "/etc/localtime",
    "/etc/timezone",
];

/// What this machine knows of itself and of its dock.
#[derive(Clone, Debug)]
pub(crate) struct HostPaths {
    /// Where this machine remembers what it synced.
    pub(crate) state: PathBuf,
    /// The user's home directory.
    pub(crate) home: PathBuf,
    /// The dock's moniker.
    pub(crate) moniker: String,
    /// This machine's sockets that lead to the dock's engine.
    pub(crate) engine_sockets: Vec<PathBuf>,
}

/// Where a source is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Location {
    /// In a project that was sent to this dock.
    Project {
        /// The project's root here, without links.
        root: PathBuf,
        /// The path seen from the root, without links, `.` and `..`; empty for the root itself.
        inside: String,
    },
    /// The dock's engine, by a socket of this machine.
    Engine,
    /// On the dock, whatever is there.
    Dock,
    /// On the dock, if it exists there.
    Unknown {
        /// Whether this machine has something of that name.
        is_here: bool,
    },
    /// Nowhere: why, and what helps.
    Refused(String),
}

impl HostPaths {
    /// Where an absolute path is, as a client said it. Reads this machine's file system.
    pub(crate) fn locate(&self, source: &str) -> Location {
        let said = Path::new(source);
        let (real, is_here) = real(said);
        let is = |path: &Path| self.engine_sockets.iter().any(|socket| socket == path);
        if is(said) || is(&real) {
            return Location::Engine;
        }
        // By the name that was said: /var/run is a link on most machines, and not always the same one.
        if OF_THE_MACHINE.iter().any(|path| said.starts_with(path)) && !has_parent(said) {
            return Location::Dock;
        }
        if let Some((root, inside)) = self.in_project(&real) {
            return match inside.to_str() {
                Some(inside) => Location::Project {
                    root,
                    inside: inside.to_owned(),
                },
                None => Location::Refused(format!(
                    "{source}: its name is not UTF-8, and can't be mounted on a dock"
                )),
            };
        }
        let home = fs::canonicalize(&self.home).unwrap_or_else(|_| self.home.clone());
        let moniker = quote(&self.moniker);
        if home.starts_with(&real) {
            return Location::Refused(format!(
                "{source} holds all projects and more, and is never sent to a dock: mount a project, or {}",
                Self::literally()
            ));
        }
        if let Some(root) = unsent_root(&real, &home) {
            return Location::Refused(format!(
                "{source} is not on dock {:?}, and nothing is sent there unasked. Send it once, it is kept in step from then on: \
                 cd {} && sync-up --dock {moniker}",
                self.moniker,
                quote(&root.display().to_string()),
            ));
        }
        if real.starts_with(&home) && (is_here || !self.is_in_a_workspace(said, &home)) {
            return Location::Refused(format!(
                "{source} is in no project (a folder with docker/, or a git repository), so dock {:?} can't have it. Put it into \
                 one and send that by sync-up, or {}",
                self.moniker,
                Self::literally()
            ));
        }
        Location::Unknown { is_here }
    }

    /// What a person does who means the dock's own path.
    pub(crate) const fn literally() -> &'static str {
        "mount the dock's own path of that name: export DOCK_MOUNTS=literal, until unset DOCK_MOUNTS"
    }

    /// The workspace of a project here, if it was ever sent to this dock.
    pub(crate) fn workspace(&self, root: &Path) -> Option<String> {
        sync_memory::workspace(&self.state, root, &self.moniker).filter(|workspace| !workspace.is_empty())
    }

    /// Whether a path on the dock is that of this source here, now: projects move, and are sent to other workspaces.
    pub(crate) fn leads_to(&self, source: &str, on_dock: &str) -> bool {
        self.place(source).is_some_and(|place| place == on_dock)
    }

    /// The path on the dock of a source in a project that was sent there.
    pub(crate) fn place(&self, source: &str) -> Option<String> {
        match self.locate(source) {
            Location::Project { root, inside } => Some(below(&self.workspace(&root)?, &inside)),
            _ => None,
        }
    }

    /// The innermost project around a path that was sent, and the path seen from its root.
    fn in_project(&self, real: &Path) -> Option<(PathBuf, PathBuf)> {
        real.ancestors().find_map(|root| {
            self.workspace(root)?;
            let inside = real.strip_prefix(root).ok()?;
            Some((root.to_owned(), inside.to_owned()))
        })
    }

    /// Whether a path is in what this machine knows as a workspace: a client may name it as the dock does. A dock says itself
    /// where its workspaces are, and none has the whole home in it.
    fn is_in_a_workspace(&self, path: &Path, home: &Path) -> bool {
        let workspaces = sync_memory::workspaces(&self.state);
        let mut workspaces = workspaces.iter().filter(|workspace| !home.starts_with(workspace));
        !has_parent(path) && workspaces.any(|workspace| path.starts_with(workspace))
    }
}

/// A path in a workspace.
pub(crate) fn below(workspace: &str, inside: &str) -> String {
    match inside {
        "" => workspace.to_owned(),
        inside => format!("{workspace}/{inside}"),
    }
}

/// The path without links, `.` and `..`, and whether it exists. What does not exist is seen from the last directory that does.
fn real(said: &Path) -> (PathBuf, bool) {
    let mut missing: Vec<OsString> = Vec::new();
    for existing in said.ancestors() {
        if let Ok(mut real) = fs::canonicalize(existing) {
            let is_here = missing.is_empty();
            for part in missing.iter().rev() {
                if part == ".." {
                    real.pop();
                } else {
                    real.push(part);
                }
            }
            return (real, is_here);
        }
        // `file_name` knows no `..`.
        match existing.components().next_back() {
            Some(Component::Normal(name)) => missing.push(name.to_owned()),
            Some(Component::ParentDir) => missing.push("..".into()),
            _ => {}
        }
    }
    (said.to_owned(), false)
}

fn has_parent(path: &Path) -> bool {
    path.components().any(|part| part == Component::ParentDir)
}

/// The root of a project or repository around a path.
fn unsent_root(real: &Path, home: &Path) -> Option<PathBuf> {
    let is_root = |folder: &&Path| {
        let docker = folder.join("docker");
        let has_type = || {
            let entries = fs::read_dir(&docker).into_iter().flatten().flatten();
            entries
                .take(1000)
                .any(|entry| entry.path().join("Dockerfile").is_file())
        };
        folder.join(".git").exists() || docker.join("dockerutils.cfg").is_file() || has_type()
    };
    let inner = real
        .ancestors()
        .take_while(|folder| *folder != home && folder.parent().is_some());
    inner.into_iter().find(is_root).map(Path::to_owned)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use tempfile::TempDir;

    use super::*;

    struct FakeHost {
        folder: TempDir,
        paths: HostPaths,
    }

    impl FakeHost {
        /// A home with a project that was sent, one that was not, and other files.
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let root = fs::canonicalize(folder.path()).unwrap();
            let home = root.join("home/ann");
            for path in [
                "app/src",
                "app/inner/.git",
                "other/docker/dev",
                "other/data",
                "pictures",
                "repo/.git",
            ] {
                fs::create_dir_all(home.join(path)).unwrap();
            }
            fs::write(home.join("other/docker/dev/Dockerfile"), "FROM scratch").unwrap();
            fs::create_dir_all(root.join("opt/tool")).unwrap();
            let paths = HostPaths {
                state: root.join("state"),
                home: home.clone(),
                moniker: "far away".into(),
                engine_sockets: vec![root.join("run/far.sock")],
            };
            let machine = Self { folder, paths };
            machine.sent(&home.join("app"), "/data/w/app");
            machine
        }

        fn sent(&self, root: &Path, workspace: &str) {
            let stem = sync_memory::stem(&self.paths.state, root, "far away");
            fs::create_dir_all(stem.parent().unwrap()).unwrap();
            let line = format!(
                "{{\"dockerutils_sync\":{},\"workspace\":{workspace:?}}}\n",
                sync_memory::VERSION
            );
            fs::write(stem.with_extension(sync_memory::MANIFEST), line).unwrap();
        }

        fn path(&self, path: &str) -> String {
            let root = fs::canonicalize(self.folder.path()).unwrap();
            root.join(path).to_str().unwrap().to_owned()
        }

        fn locate(&self, path: &str) -> Location {
            self.paths.locate(&self.path(path))
        }
    }

    fn refusal(location: Location) -> String {
        match location {
            Location::Refused(why) => why,
            other => panic!("not refused: {other:?}"),
        }
    }

    #[test]
    fn what_lies_in_a_project_that_was_sent_is_the_projects_however_it_is_spelled() {
        let machine = FakeHost::new();
        let home = PathBuf::from(machine.path("home/ann"));
        symlink(home.join("app"), home.join("link")).unwrap();
        symlink("src", home.join("app/s")).unwrap();
        for (path, inside) in [
            ("home/ann/app", ""),
            ("home/ann/app/", ""),
            ("home/ann/app/src", "src"),
            ("home/ann/app/./src/../src", "src"),
            ("home/ann/link/src", "src"),
            ("home/ann/app/s", "src"),
            ("home/ann/app/new/deep", "new/deep"),
            ("home/ann/app/nothing/../other", "other"),
            // A repository in it is a part of it, until it is sent itself.
            ("home/ann/app/inner", "inner"),
        ] {
            let expected = Location::Project {
                root: home.join("app"),
                inside: inside.into(),
            };
            assert_eq!(machine.locate(path), expected, "{path}");
        }
        machine.sent(&home.join("app/inner"), "/data/w/inner");
        let inner = Location::Project {
            root: home.join("app/inner"),
            inside: String::new(),
        };
        assert_eq!(machine.locate("home/ann/app/inner"), inner);
    }

    #[test]
    fn a_link_or_dots_that_lead_out_of_a_project_are_what_they_lead_to() {
        let machine = FakeHost::new();
        let home = PathBuf::from(machine.path("home/ann"));
        symlink(home.join("pictures"), home.join("app/p")).unwrap();
        for path in [
            "home/ann/app/p",
            "home/ann/app/../pictures",
            "home/ann/app/no/../../pictures",
        ] {
            assert!(refusal(machine.locate(path)).contains("is in no project"), "{path}");
        }
    }

    #[test]
    fn what_was_not_sent_is_refused_with_the_line_that_sends_it() {
        let machine = FakeHost::new();
        for (path, root) in [
            ("home/ann/other", "home/ann/other"),
            ("home/ann/other/data", "home/ann/other"),
            ("home/ann/repo/new", "home/ann/repo"),
        ] {
            let line = format!("cd {} && sync-up --dock 'far away'", machine.path(root));
            assert!(refusal(machine.locate(path)).ends_with(&line), "{path}");
        }
        for path in ["home/ann", "home", ""] {
            assert!(refusal(machine.locate(path)).contains("is never sent"), "{path}");
        }
        assert!(refusal(machine.paths.locate("/")).contains("is never sent"));
        assert!(refusal(machine.locate("home/ann/pictures")).contains("export DOCK_MOUNTS=literal"));
    }

    #[test]
    fn what_every_machine_has_for_itself_is_the_docks_and_the_rest_is_asked_for() {
        let machine = FakeHost::new();
        for path in [
            "/var/run/docker.sock",
            "/dev",
            "/dev/shm",
            "/proc",
            "/sys/fs/cgroup",
            "/etc/localtime",
        ] {
            assert_eq!(machine.paths.locate(path), Location::Dock, "{path}");
        }
        assert_eq!(machine.locate("run/far.sock"), Location::Engine);
        assert_eq!(machine.locate("opt/tool"), Location::Unknown { is_here: true });
        assert_eq!(machine.locate("opt/none"), Location::Unknown { is_here: false });
        assert_eq!(machine.paths.locate("/devices"), Location::Unknown { is_here: false });
        let around = machine
            .paths
            .locate(&format!("/dev/..{}", machine.path("home/ann/other")));
        assert!(refusal(around).contains("sync-up"));
    }

    #[test]
    fn a_workspace_of_a_dock_may_be_named_as_it_is_there() {
        let machine = FakeHost::new();
        let root = PathBuf::from(machine.path("home/ann/app"));
        let workspace = machine.path("home/ann/workspaces/ann/code/app");
        machine.sent(&root, &workspace);
        let inside = machine.paths.locate(&format!("{workspace}/src"));
        assert_eq!(inside, Location::Unknown { is_here: false });
        let beside = machine.paths.locate(&format!("{workspace}/../secret"));
        assert!(refusal(beside).contains("in no project"));
        // A dock may say anything of its workspace: what is here is not mounted from there by that.
        for workspace in ["home/ann", "home", "home/ann/pictures"] {
            machine.sent(&root, &machine.path(workspace));
            let pictures = machine.paths.locate(&machine.path("home/ann/pictures"));
            assert!(refusal(pictures).contains("in no project"), "{workspace}");
            let none = machine.paths.locate(&machine.path("home/ann/none"));
            assert!(refusal(none).contains("in no project"), "{workspace}");
        }
    }

    #[test]
    fn only_the_place_that_a_source_leads_to_is_followed() {
        let machine = FakeHost::new();
        let source = machine.path("home/ann/app/src");
        assert!(machine.paths.leads_to(&source, "/data/w/app/src"));
        for (source, there) in [
            (source.as_str(), "/data/w/app"),
            (source.as_str(), "/etc/shadow"),
            ("/etc/shadow", "/data/w/app/src"),
            ("\u{1b}[2J", "/data/w/app/src"),
        ] {
            assert!(!machine.paths.leads_to(source, there), "{source} {there}");
        }
    }
}
