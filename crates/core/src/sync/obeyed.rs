//! What tools here obey in a project, beside what [`super::guard`] knows by its name: what configurations and links lead to.
//!
//! Paths are absolute, and need not be there: what is named and missing is obeyed as soon as a dock has brought it. In doubt
//! a path is obeyed; it is a conflict then that a person settles.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use super::guard::is_named;
use super::{Tree, split};
use crate::project_file;

/// The most files of git's configuration that are read for one repository: each may include others.
const CONFIGURATIONS: usize = 64;
/// The most names that are looked at in directories of the list that do not travel.
const LEFT_OUT: usize = 10_000;
/// Keys of git whose values are no files: names, addresses, references.
const NO_FILES: [&str; 11] = [
    "url",
    "pushurl",
    "insteadof",
    "pushinsteadof",
    "fetch",
    "push",
    "merge",
    "remote",
    "name",
    "email",
    "signingkey",
];

/// All of it, by what is `here` and by the links and directories that `.dockerignore` has `left_out`.
pub fn all(root: &Path, here: &Tree, left_out: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut obeyed = by_git(root, here, left_out);
    obeyed.extend(by_us(root));
    obeyed.extend(by_links_left_out(root, left_out));
    let bytes = obeyed.into_iter().map(|path| path.into_os_string().into_vec());
    bytes.collect()
}

/// What git's configuration and hooks here lead to, in repositories around the project and in it, whether a sync is about
/// them or not.
fn by_git(root: &Path, here: &Tree, left_out: &[Vec<u8>]) -> Vec<PathBuf> {
    let home = directories::BaseDirs::new().map(|dirs| dirs.home_dir().to_owned());
    let home = home.unwrap_or_default();
    let around = root.ancestors().find_map(Repository::find);
    let is_git = |path: &&Vec<u8>| split(path).1.eq_ignore_ascii_case(b".git");
    let inside = here.keys().chain(left_out).filter(is_git);
    let inside = inside.filter_map(|git| Repository::find(&root.join(OsStr::from_bytes(split(git).0))));
    let mut obeyed = Vec::new();
    for repository in around.into_iter().chain(inside) {
        repository.obeys(&home, &mut obeyed);
    }
    obeyed
}

/// A repository of git.
struct Repository {
    /// Where its files are.
    tree: PathBuf,
    /// What a worktree has for itself.
    own: PathBuf,
    /// What it has in common with other worktrees; without them, the same.
    common: PathBuf,
}

impl Repository {
    /// The one whose files are in this folder.
    fn find(tree: &Path) -> Option<Self> {
        let git = tree.join(".git");
        let own = if git.is_dir() {
            git
        } else {
            tree.join(line(&git)?.strip_prefix("gitdir: ")?)
        };
        let common = line(&own.join("commondir")).map_or_else(|| own.clone(), |common| own.join(common));
        Some(Self {
            tree: tree.to_owned(),
            own,
            common,
        })
    }

    fn obeys(&self, home: &Path, obeyed: &mut Vec<PathBuf>) {
        let mut configurations = Vec::new();
        for file in [
            PathBuf::from("/etc/gitconfig"),
            PathBuf::from("/usr/local/etc/gitconfig"),
            PathBuf::from("/opt/homebrew/etc/gitconfig"),
            home.join(".config/git/config"),
            home.join(".gitconfig"),
            self.common.join("config"),
            self.own.join("config.worktree"),
        ] {
            self.read(file, home, &mut configurations, obeyed);
        }
        let mut hooks = vec![self.common.join("hooks")];
        let settings = configurations.iter().flat_map(|(_, text)| settings(text));
        for (key, value) in settings.filter(|(key, _)| !NO_FILES.contains(&key.as_str())) {
            if key == "hookspath" {
                hooks.push(located(&value, &self.tree, home));
            }
            for word in value.split(|c: char| c.is_whitespace() || c == '=') {
                let word = word.trim_matches(['"', '\'', '!', ';', '(', ')']);
                let path = located(word, &self.tree, home);
                // A name alone is mostly that of a program on PATH.
                if word.contains('/') || (!word.is_empty() && path.is_file()) {
                    obeyed.push(path);
                }
            }
        }
        obeyed.extend(configurations.into_iter().map(|(file, _)| file));
        for folder in &hooks {
            let found = fs::read_dir(folder).into_iter().flatten().flatten();
            obeyed.extend(found.filter_map(|entry| target(&entry.path())));
        }
        obeyed.extend(hooks.iter().filter_map(|folder| target(folder)));
        obeyed.extend(target(&self.tree.join(".git")));
        obeyed.extend(hooks);
    }

    /// Reads a file of configuration, and those that it includes; each once.
    fn read(&self, file: PathBuf, home: &Path, read: &mut Vec<(PathBuf, String)>, obeyed: &mut Vec<PathBuf>) {
        if read.len() == CONFIGURATIONS || read.iter().any(|(known, _)| *known == file) {
            return;
        }
        // What can't be read is not obeyed either.
        let text = project_file::read(&file).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        obeyed.extend(target(&file));
        let folder = file.parent().unwrap_or(&self.tree).to_owned();
        let included = settings(&text).filter(|(key, _)| key == "path");
        let included: Vec<PathBuf> = included.map(|(_, value)| located(&value, &folder, home)).collect();
        read.push((file, text));
        for file in included {
            self.read(file, home, read, obeyed);
        }
    }
}

/// The only line of a small file.
fn line(file: &Path) -> Option<String> {
    let text = project_file::read(file).ok()?;
    Some(String::from_utf8_lossy(&text).trim_end().to_owned())
}

/// The keys and values in a file of git's configuration, keys in small letters.
fn settings(text: &str) -> impl Iterator<Item = (String, String)> {
    let text = text.replace("\\\r\n", " ").replace("\\\n", " ");
    let lines: Vec<String> = text.lines().map(|line| line.trim().to_owned()).collect();
    lines.into_iter().filter_map(|line| {
        // A section may have its first key on its own line.
        let line = match line.strip_prefix('[') {
            Some(section) => section.split_once(']')?.1,
            None => &line,
        };
        let (key, value) = line.split_once('=')?;
        let value = value.trim().trim_matches('"');
        Some((key.trim().to_lowercase(), value.to_owned()))
    })
}

/// A path as git has it: from the home folder, or else from `base`.
fn located(path: &str, base: &Path, home: &Path) -> PathBuf {
    match path.strip_prefix("~/") {
        Some(path) => home.join(path),
        None => base.join(path),
    }
}

/// Where a link leads; `None` if the path is not a link.
fn target(link: &Path) -> Option<PathBuf> {
    let target = fs::read_link(link).ok()?;
    Some(link.with_file_name(target))
}

/// What `docker/dockerutils.cfg` names that says which variables of this machine a container gets, or what it may do. It is
/// read as words: that of an option of another key is held, too.
fn by_us(root: &Path) -> Vec<PathBuf> {
    let text = project_file::read(&root.join("docker/dockerutils.cfg")).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let mut obeyed = Vec::new();
    let mut words = text.split_whitespace().map(|word| word.trim_matches(['"', '\'']));
    while let Some(word) = words.next() {
        let file = match word.split_once("seccomp=") {
            Some((_, file)) => Some(file),
            None if word == "--env-file" => words.next(),
            None => word.strip_prefix("--env-file="),
        };
        obeyed.extend(file.map(|file| root.join(file.trim_matches(['"', '\'']))));
    }
    obeyed
}

/// What links of the list lead to that do not travel themselves: a `.envrc` that `.dockerignore` names.
fn by_links_left_out(root: &Path, left_out: &[Vec<u8>]) -> Vec<PathBuf> {
    let mut obeyed = Vec::new();
    let named = left_out.iter().filter(|path| is_named(path));
    let mut queue: Vec<PathBuf> = named.map(|path| root.join(OsStr::from_bytes(path))).collect();
    let mut left = LEFT_OUT;
    while let Some(path) = queue.pop() {
        if let Some(target) = target(&path) {
            obeyed.push(target);
        } else if path.file_name() != Some(OsStr::new(".git")) {
            let found = fs::read_dir(&path).into_iter().flatten().flatten().take(left);
            let before = queue.len();
            queue.extend(found.map(|entry: fs::DirEntry| entry.path()));
            left -= queue.len() - before;
        }
    }
    obeyed
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::sync::guard::Guard;

    struct TestProject {
        _folder: tempfile::TempDir,
        root: PathBuf,
    }

    impl TestProject {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let root = folder.path().canonicalize().unwrap();
            Self { _folder: folder, root }
        }

        fn write(&self, path: &str, text: &str) {
            fs::create_dir_all(self.root.join(path).parent().unwrap()).unwrap();
            fs::write(self.root.join(path), text).unwrap();
        }

        fn link(&self, path: &str, target: &str) {
            fs::create_dir_all(self.root.join(path).parent().unwrap()).unwrap();
            symlink(target, self.root.join(path)).unwrap();
        }

        /// Whether each of these is held, seen from a folder of it.
        fn check(&self, root: &str, left_out: &[&str], held: &[&str], free: &[&str]) {
            let root = match root {
                "" => self.root.clone(),
                folder => self.root.join(folder),
            };
            let left_out: Vec<Vec<u8>> = left_out.iter().map(|path| path.as_bytes().to_vec()).collect();
            let here = Tree::new();
            let guard = Guard::new(&root, &here, all(&root, &here, &left_out));
            for path in held {
                assert!(guard.is_listed(path.as_bytes(), &here), "{path} is not held");
            }
            for path in free {
                assert!(!guard.is_listed(path.as_bytes(), &here), "{path} is held");
            }
        }
    }

    #[test]
    fn what_git_is_told_to_run_in_the_project_is_held() {
        let project = TestProject::new();
        project.write("tools/fsmonitor", "");
        project.write("scripts/pre-commit", "");
        project.write("alone.sh", "");
        let config = "[core]\n\thooksPath = tools/hooks\n fsmonitor = \"tools/fsmonitor\"\n[include]\n\tpath = ../shared.inc\n\
                      [filter \"x\"]\n clean = sh sub/clean %f\n smudge = sh \\\n  alone.sh\n\
                      [filter \"y\"] process = y --config=y/config\n[remote \"origin\"]\n url = git@host:a/b\n";
        project.write(".git/config", config);
        project.write(".git/hooks/x.sample", "");
        project.link(".git/hooks/pre-commit", "../../scripts/pre-commit");
        let held = [
            "scripts/pre-commit",
            "shared.inc",
            "sub/clean",
            "tools/fsmonitor",
            "tools/hooks/pre-push",
            "alone.sh",
            "y/config",
        ];
        // What is not there yet is held, too: it would be obeyed at once.
        project.check(
            "",
            &[],
            &held,
            &["scripts/other", "tools/x", "sh", "origin", "git@host:a/b"],
        );
        // A project that is a folder of the repository.
        project.write("sub/x", "");
        project.check("sub", &[], &["clean"], &["x"]);
        project.check("tools", &[], &["fsmonitor", "hooks"], &["x"]);
        // A worktree beside it, with a configuration of its own.
        let git = format!("gitdir: {}/.git/worktrees/one\n", project.root.display());
        project.write("trees/one/.git", &git);
        project.write(".git/worktrees/one/commondir", "../..\n");
        project.write(
            ".git/worktrees/one/config.worktree",
            "[core]\nfsmonitor = own/fsmonitor\n",
        );
        project.check("trees/one", &[], &["tools/hooks", "own/fsmonitor"], &["x"]);
    }

    #[test]
    fn what_an_included_configuration_and_a_repository_in_the_project_name_is_held() {
        let project = TestProject::new();
        project.write(
            ".git/config",
            "[include]\npath = ../shared.inc\n[includeIf \"gitdir:x\"]\npath = ../missing.inc\n",
        );
        project.write(
            "shared.inc",
            "[core]\nhooksPath = ci/hooks\n[include]\npath = deep/more.inc\npath = shared.inc\n",
        );
        project.write("deep/more.inc", "[filter \"x\"]\nclean = sh scripts/clean.sh\n");
        project.write("lib/.git/config", "[core]\nhooksPath = ../libhooks\n");
        project.link("lib/.git/hooks/pre-commit", "../../check.sh");
        project.write("module/.git", "gitdir: ../.git/modules/module\n");
        project.write(".git/modules/module/config", "[core]\nfsmonitor = ./monitor\n");
        let held = [
            "shared.inc",
            "missing.inc",
            "deep/more.inc",
            "ci/hooks/pre-commit",
            "scripts/clean.sh",
            "libhooks/pre-commit",
            "lib/check.sh",
            "module/monitor",
        ];
        project.check(
            "",
            &["lib/.git", "module/.git"],
            &held,
            &["scripts/x", "lib/x", "module/x"],
        );
    }

    #[test]
    fn what_links_of_the_list_lead_to_is_held_where_the_links_do_not_travel() {
        let project = TestProject::new();
        project.link(".envrc", "scripts/env.sh");
        project.link(".vscode/deep/tasks.json", "../../tools/tasks.json");
        project.link("data/link", "../free");
        project.check(
            "",
            &[".envrc", ".vscode", "data"],
            &["scripts/env.sh", "tools/tasks.json"],
            &["free", "tools/x"],
        );
    }

    #[test]
    fn what_says_which_variables_a_container_gets_is_held() {
        let project = TestProject::new();
        let cfg = "[web]\nargs = --env-file docker/web.vars --rm\n  --env-file='b.vars' --security-opt seccomp=docker/profile.json\n\
                   cmd = python main.py\n";
        project.write("docker/dockerutils.cfg", cfg);
        project.check(
            "",
            &[],
            &["docker/web.vars", "b.vars", "docker/profile.json"],
            &["main.py", "docker/x"],
        );
    }
}
