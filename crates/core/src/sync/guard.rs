//! What a dock never changes here without a person's word: the files that decide what leaves this machine, and those that
//! tools here run or obey unasked.
//!
//! A file is on the list where a tool that people have running takes orders from it, though nobody asked for that file or
//! for what it does: git at any command, a shell at its prompt, an editor that has the folder open. What runs when a person
//! says so (a Makefile, `package.json`, a build script, a test) is the project itself, and travels as all of it does.
//!
//! The list is data: [`RULES`]. `docs/security.md` has it as a table, and a test compares the two.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Component, Path, PathBuf};
use std::sync::LazyLock;

use super::plan::is_at_or_below;
use super::{Kind, Tree, ancestors, is_acceptable};
use crate::project_file;

/// Files of one kind, and why a dock does not change them.
#[derive(Debug)]
pub struct Rule {
    /// Each is the name of a file, or of a directory with all that is in it, at any depth; with `/`, several names one
    /// below the other. A `*` stands for any part of a name. Capitals do not count.
    pub names: &'static [&'static str],
    /// Why: who obeys it.
    pub why: &'static str,
}

/// Of a repository of git, [`GIT_DATA`] is not meant.
const GIT: Rule = Rule {
    names: &[".git", "*.git"],
    why: "git runs what its configuration and hooks name",
};

/// The directory that holds it counts as one of git.
const HEAD: Rule = Rule {
    names: &["HEAD"],
    why: "it makes a folder a repository whose configuration git obeys",
};

/// What leads to it from a file of the list, or from git's configuration here.
const LED: &str = "a file here that is obeyed unasked leads to it";

/// The list.
pub const RULES: &[Rule] = &[
    Rule {
        names: &[".dockerignore", "*.dockerignore", ".containerignore"],
        why: "it says what does not leave this machine",
    },
    Rule {
        names: &["docker/dockerutils.cfg", "dockerutils.cfg"],
        why: "it says what the commands do, and which scripts they run",
    },
    Rule {
        names: &["pip.conf.template"],
        why: "a build sends what it holds, or what it leads to",
    },
    GIT,
    HEAD,
    Rule {
        names: &[".gitconfig", ".lfsconfig"],
        why: "git obeys it, and git-lfs sends to the address in it",
    },
    Rule {
        names: &[".hg", ".jj", ".sl", ".bzr", "_darcs", ".pijul"],
        why: "version control runs what its configuration and hooks name",
    },
    Rule {
        names: &[
            ".husky",
            ".githooks",
            ".git-hooks",
            ".pre-commit-config.yaml",
            "lefthook*.yml",
            "lefthook*.yaml",
            "lefthook*.toml",
            "lefthook*.json",
            ".lefthook*",
            ".overcommit.yml",
            "*simple-git-hooks.*",
            "captainhook.json",
            "grumphp.yml*",
            ".lintstagedrc*",
            "lint-staged.config.*",
        ],
        why: "git's hooks run what it says",
    },
    Rule {
        names: &[".envrc", ".direnv", ".autoenv*"],
        why: "the shell runs it when you enter the folder",
    },
    Rule {
        names: &[".env"],
        why: "shells and compose take variables from it",
    },
    Rule {
        names: &[
            "flake.nix",
            "flake.lock",
            "shell.nix",
            "default.nix",
            "devenv.nix",
            "devenv.yaml",
            "devenv.lock",
            "devbox.json",
            "devbox.lock",
        ],
        why: "direnv evaluates it at the prompt",
    },
    Rule {
        names: &[
            ".tool-versions",
            "mise.toml",
            "mise.*.toml",
            "mise/config*",
            ".mise*",
            ".config/mise*",
        ],
        why: "it says which programs the shell finds, and runs hooks",
    },
    Rule {
        names: &[
            "rust-toolchain",
            "rust-toolchain.toml",
            ".cargo/config",
            ".cargo/config.toml",
            ".mvn",
        ],
        why: "prompts and editors start tools that run the programs in it",
    },
    Rule {
        names: &[
            ".vscode",
            "*.code-workspace",
            ".vs",
            ".idea",
            "*.iml",
            "*.ipr",
            "*.iws",
            ".fleet",
            ".zed",
            ".nova",
            "*.sublime-project",
            "*.sublime-workspace",
            ".project",
            ".classpath",
            ".factorypath",
            ".settings",
            ".externalToolBuilders",
            "nbproject",
            ".kdev4",
            "*.kdev4",
            "*.pro.user*",
            "CMakeLists.txt.user*",
            ".theia",
            ".helix",
            ".devcontainer",
            ".devcontainer.json",
        ],
        why: "an editor takes tasks, debuggers and tools from it",
    },
    Rule {
        names: &[
            ".exrc",
            "_exrc",
            ".vimrc",
            "_vimrc",
            ".gvimrc",
            ".lvimrc",
            ".local.vimrc",
            ".vim",
            ".nvimrc",
            ".nvim.lua",
            ".nvim",
            ".dir-locals.el",
            ".dir-locals-2.el",
            ".ropeproject",
            ".ycm_extra_conf.py",
        ],
        why: "an editor runs it when it opens a file beside it",
    },
    Rule {
        names: &[
            ".claude",
            "CLAUDE.md",
            "CLAUDE.local.md",
            "AGENTS.md",
            "GEMINI.md",
            ".mcp.json",
            ".cursor",
            ".cursorrules",
            ".windsurf",
            ".gemini",
            ".codex",
            ".continue",
            ".aider*",
            ".roo",
            ".kiro",
            ".amazonq",
            ".opencode",
            "opencode.json*",
        ],
        why: "an assistant takes orders, hooks and servers from it",
    },
    Rule {
        names: &[
            ".gdbinit",
            ".lldbinit",
            ".pdbrc",
            ".pdbrc.py",
            ".perldb",
            ".Rprofile",
            ".Renviron",
            ".RData",
            "*.Rproj",
            ".irbrc",
            ".pryrc",
            ".ghci",
            ".ocamlinit",
            ".iex.exs",
            ".octaverc",
            "startup.m",
        ],
        why: "an interpreter or debugger runs it when it starts in the folder",
    },
];

/// What may come of a repository of git: what a commit there changes, and what nothing here takes orders from.
pub const GIT_DATA: &[&str] = &[
    "HEAD",
    "ORIG_HEAD",
    "FETCH_HEAD",
    "MERGE_HEAD",
    "MERGE_MODE",
    "MERGE_MSG",
    "SQUASH_MSG",
    "AUTO_MERGE",
    "CHERRY_PICK_HEAD",
    "REVERT_HEAD",
    "COMMIT_EDITMSG",
    "index",
    "packed-refs",
    "refs",
    "logs",
    "objects",
];

/// What git obeys in a directory that it takes for a repository by what is in it.
const GIT_ORDERS: &[&str] = &[
    "config",
    "config.worktree",
    "commondir",
    "gitdir",
    "hooks",
    "info",
    "modules",
    "worktrees",
    "remotes",
    "branches",
];

/// A name, or a part of one on either side of a `*`.
enum Part {
    Whole(String),
    Starred(String, String),
}

impl Part {
    fn new(text: &str) -> Self {
        let text = fold(text.as_bytes()).into_owned();
        match text.split_once('*') {
            None => Self::Whole(text),
            Some((before, after)) => Self::Starred(before.to_owned(), after.to_owned()),
        }
    }

    fn matches(&self, name: &str) -> bool {
        match self {
            Self::Whole(whole) => whole == name,
            Self::Starred(before, after) => {
                name.len() >= before.len() + after.len() && name.starts_with(before) && name.ends_with(after)
            }
        }
    }
}

/// [`RULES`], by how they are looked for.
struct Compiled {
    whole: HashMap<String, &'static Rule>,
    starred: Vec<(Part, &'static Rule)>,
    long: Vec<(Vec<Part>, &'static Rule)>,
}

static COMPILED: LazyLock<Compiled> = LazyLock::new(|| {
    let mut compiled = Compiled {
        whole: HashMap::new(),
        starred: Vec::new(),
        long: Vec::new(),
    };
    // Those of git have rules of their own.
    let others = RULES.iter().filter(|rule| rule.why != GIT.why && rule.why != HEAD.why);
    for (name, rule) in others.flat_map(|rule| rule.names.iter().map(move |name| (name, rule))) {
        let mut parts: Vec<Part> = name.split('/').map(Part::new).collect();
        match (parts.len(), parts.pop()) {
            (1, Some(Part::Whole(name))) => drop(compiled.whole.insert(name, rule)),
            (1, Some(part)) => compiled.starred.push((part, rule)),
            (_, last) => {
                parts.extend(last);
                compiled.long.push((parts, rule));
            }
        }
    }
    compiled
});

/// A name as a file system sees it that takes capitals for small letters (macOS's), leaves out what has no width (macOS's
/// older one), or dots at the end (FAT).
fn fold(name: &[u8]) -> Cow<'_, str> {
    let text = String::from_utf8_lossy(name);
    let text = match text.trim_end_matches(['.', ' ']) {
        "" => text,
        trimmed if trimmed.len() == text.len() => text,
        trimmed => Cow::Owned(trimmed.to_owned()),
    };
    if text.bytes().all(|byte| byte.is_ascii() && !byte.is_ascii_uppercase()) {
        return text;
    }
    let seen = text.chars().filter(
        |c| !matches!(c, '\u{200c}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{206a}'..='\u{206f}' | '\u{feff}'),
    );
    // First to capitals: some small letters differ only there.
    Cow::Owned(seen.flat_map(char::to_uppercase).flat_map(char::to_lowercase).collect())
}

/// How a path is on the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    /// It is what the list names, or is in it.
    At(&'static str),
    /// It is a directory on the way to what the list names.
    Above(&'static str),
}

/// What is on the list in a project.
#[derive(Clone, Debug, Default)]
pub struct Guard {
    /// What files of the list lead to: it is obeyed as they are.
    led: BTreeSet<Vec<u8>>,
}

impl Guard {
    /// Of a project: what its links of the list lead to, and what else is known to be obeyed, is on the list, too.
    pub fn new(root: &Path, here: &Tree, obeyed: impl IntoIterator<Item = Vec<u8>>) -> Self {
        let mut guard = Self::default();
        let links = here
            .iter()
            .filter(|(path, item)| item.kind == Kind::Symlink && guard.find(path, here, true).is_some());
        let mut queue: Vec<Vec<u8>> = links.map(|(path, _)| path.clone()).chain(obeyed).collect();
        while let Some(path) = queue.pop() {
            if let Some(led) = leads_to(root, &path, here)
                && guard.led.insert(led.clone())
            {
                // Links in a directory that is obeyed.
                let below = super::below(here, &led).filter(|(_, item)| item.kind == Kind::Symlink);
                queue.extend(below.map(|(path, _)| path.clone()));
            }
        }
        guard
    }

    /// Why a dock may not change what is at a path; none where it may. An empty directory gives no orders: it may come, and
    /// it may go.
    pub fn holds(&self, path: &[u8], here: &Tree, there: &Tree) -> Option<&'static str> {
        let kinds = [here, there].map(|tree| tree.get(path).map(|item| item.kind));
        if kinds.iter().all(|kind| matches!(kind, None | Some(Kind::Directory))) {
            return None;
        }
        match self.find(path, here, kinds.contains(&Some(Kind::Symlink)))? {
            Found::At(why) | Found::Above(why) => Some(why),
        }
    }

    /// [`Guard::holds`] of a path's mode, also where it is a directory.
    pub fn holds_mode(&self, path: &[u8], here: &Tree) -> Option<&'static str> {
        match self.find(path, here, false)? {
            Found::At(why) => Some(why),
            Found::Above(_) => None,
        }
    }

    /// Why a dock may not put something else in the place of a directory here; `takes` says what a person has named.
    pub fn holds_below(&self, path: &[u8], here: &Tree, takes: impl Fn(&[u8]) -> bool) -> Option<&'static str> {
        super::below(here, path)
            .filter(|(lower, item)| item.kind != Kind::Directory && !takes(lower))
            .find_map(
                |(lower, item)| match self.find(lower, here, item.kind == Kind::Symlink)? {
                    Found::At(why) | Found::Above(why) => Some(why),
                },
            )
    }

    /// Whether a path that a person named stands for itself and all below: it is on the list itself.
    pub fn is_listed(&self, path: &[u8], here: &Tree) -> bool {
        matches!(self.find(path, here, false), Some(Found::At(_)))
    }

    fn find(&self, path: &[u8], here: &Tree, link: bool) -> Option<Found> {
        if self.led.iter().any(|led| is_at_or_below(path, led)) {
            return Some(Found::At(LED));
        }
        if in_repository(path, here) {
            return Some(Found::At(GIT.why));
        }
        listed(path, link)
    }
}

/// Whether git obeys it, because the directory that it is in looks like a repository.
fn in_repository(path: &[u8], here: &Tree) -> bool {
    let is = |directory: &[u8], name: &str, kind: Kind| {
        let full = match directory {
            b"" => name.as_bytes().to_vec(),
            directory => [directory, b"/", name.as_bytes()].concat(),
        };
        here.get(&full)
            .is_some_and(|item| (item.kind == Kind::Directory) == (kind == Kind::Directory))
    };
    std::iter::once(&b""[..]).chain(ancestors(path)).any(|directory| {
        let rest = match directory {
            b"" => path,
            directory => path.get(directory.len() + 1..).unwrap_or_default(),
        };
        let first = rest.split(|byte| *byte == b'/').next().unwrap_or_default();
        GIT_ORDERS.contains(&&*fold(first))
            && is(directory, "HEAD", Kind::File)
            && is(directory, "objects", Kind::Directory)
    })
}

/// What the list says of a path by its names; `link` where it is a symbolic link on either side.
fn listed(path: &[u8], link: bool) -> Option<Found> {
    let names: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
    let folded: Vec<Cow<'_, str>> = names.iter().map(|name| fold(name)).collect();
    let compiled = &*COMPILED;
    let mut above = None;
    let mut of_git = false;
    for (at, name) in folded.iter().enumerate() {
        if let Some(rule) = compiled.whole.get(&**name) {
            return Some(Found::At(rule.why));
        }
        if let Some((_, rule)) = compiled.starred.iter().find(|(part, _)| part.matches(name)) {
            return Some(Found::At(rule.why));
        }
        for (parts, rule) in &compiled.long {
            let mut pairs = parts.iter().zip(folded.get(at..).unwrap_or_default());
            if pairs.all(|(part, name)| part.matches(name)) {
                if at + parts.len() <= folded.len() {
                    return Some(Found::At(rule.why));
                }
                above = Some(Found::Above(rule.why));
            }
        }
        // What Windows calls it is git's own precaution.
        if name.ends_with(".git") || name == "git~1" {
            of_git = true;
            let rest = names.get(at + 1..).unwrap_or_default();
            if link || !is_data(rest) {
                return Some(Found::At(GIT.why));
            }
        }
    }
    let is_head = names.last() == Some(&&b"HEAD"[..])
        || (cfg!(target_os = "macos") && folded.last().is_some_and(|name| name == "head"));
    if is_head && !of_git {
        return Some(Found::At(HEAD.why));
    }
    above
}

/// Whether these names, in a repository of git, are among [`GIT_DATA`].
fn is_data(names: &[&[u8]]) -> bool {
    let [first, rest @ ..] = names else { return false };
    let is_folder = matches!(*first, b"refs" | b"logs" | b"objects");
    GIT_DATA.iter().any(|name| name.as_bytes() == *first)
        && (rest.is_empty() || is_folder)
        // It names other repositories.
        && !(*first == b"objects" && rest.first().is_some_and(|name| fold(name) == "info"))
}

/// Where a path leads, over all links on the way, as seen from the root; none where it leads out of the project.
fn leads_to(root: &Path, path: &[u8], here: &Tree) -> Option<Vec<u8>> {
    let words = |path: &[u8]| path.split(|byte| *byte == b'/').rev().map(<[u8]>::to_vec).collect();
    let mut left: Vec<Vec<u8>> = words(&below_root(root, path)?);
    let mut done: Vec<Vec<u8>> = Vec::new();
    // As many as the kernel follows.
    let mut links = 40;
    while let Some(name) = left.pop() {
        match name.as_slice() {
            b"" | b"." => continue,
            b".." => {
                done.pop()?;
                continue;
            }
            _ => done.push(name),
        }
        let so_far = done.join(&b'/');
        if let Some(item) = here.get(&so_far)
            && let Some(target) = &item.target
        {
            links -= 1;
            if links == 0 {
                return None;
            }
            done.pop();
            if target.starts_with(b"/") {
                done.clear();
            }
            left.extend(words(&below_root(root, target)?));
        }
    }
    let path = done.join(&b'/');
    is_acceptable(&path).then_some(path)
}

/// A path as it is, or an absolute one as it is seen from the root; none where it leads out.
fn below_root(root: &Path, path: &[u8]) -> Option<Vec<u8>> {
    if !path.starts_with(b"/") {
        return Some(path.to_vec());
    }
    let mut names: Vec<&OsStr> = Vec::new();
    for part in Path::new(OsStr::from_bytes(path)).components() {
        match part {
            Component::Normal(name) => names.push(name),
            Component::ParentDir => drop(names.pop()),
            _ => {}
        }
    }
    let full: PathBuf = std::iter::once(OsStr::new("/")).chain(names).collect();
    Some(full.strip_prefix(root).ok()?.as_os_str().as_bytes().to_vec())
}

/// What git's configuration and hooks here lead to in a project, as absolute paths, whether a sync is about them or not.
pub fn obeyed_by_git(root: &Path) -> Vec<Vec<u8>> {
    let Some((tree, repository)) = root
        .ancestors()
        .find_map(|folder| Some((folder, git_directory(&folder.join(".git"))?)))
    else {
        return Vec::new();
    };
    let mut obeyed = Vec::new();
    for file in ["config", "config.worktree"] {
        // What can't be read is not obeyed either.
        let config = project_file::read(&repository.join(file)).unwrap_or_default();
        obeyed.extend(named_in(&String::from_utf8_lossy(&config), tree, &repository));
    }
    let hooks = repository.join("hooks");
    let found = std::fs::read_dir(&hooks).into_iter().flatten().flatten();
    let links = found.map(|entry| entry.path()).chain([hooks, tree.join(".git")]);
    for link in links {
        if let Ok(target) = std::fs::read_link(&link) {
            obeyed.push(link.with_file_name(target).into_os_string().into_vec());
        }
    }
    obeyed
}

/// The repository that a `.git` stands for, with what its worktrees have in common.
fn git_directory(git: &Path) -> Option<PathBuf> {
    if git.is_dir() {
        return Some(git.to_owned());
    }
    let line = |file: &Path| {
        let text = project_file::read(file).ok()?;
        Some(String::from_utf8_lossy(&text).trim_end().to_owned())
    };
    let text = line(git)?;
    let own = git.with_file_name(text.strip_prefix("gitdir: ")?);
    Some(match line(&own.join("commondir")) {
        Some(common) => own.join(common),
        None => own,
    })
}

/// The paths in git's configuration that are there, absolute.
fn named_in(config: &str, tree: &Path, repository: &Path) -> Vec<Vec<u8>> {
    let mut named = Vec::new();
    for line in config.lines() {
        let Some((key, value)) = line.split_once('=') else {
            continue;
        };
        let key = key.trim().to_lowercase();
        // `path` of an include is seen from the file itself. What else is a path is a word of a command.
        let is_path = matches!(key.as_str(), "hookspath" | "path");
        let base = if key == "path" { repository } else { tree };
        for word in value.split_whitespace() {
            let word = word.trim_matches(['"', '\'', '!', ';']);
            let path = base.join(word);
            if !word.is_empty() && (is_path || word.contains('/')) && path.exists() {
                named.push(path.into_os_string().into_vec());
            }
        }
    }
    named
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::{Item, Stamp};

    fn item(kind: Kind, target: Option<&str>) -> Item {
        Item {
            kind,
            mode: 0o644,
            stamp: Stamp::default(),
            owner: 0,
            device: 0,
            target: target.map(|target| target.as_bytes().to_vec()),
        }
    }

    /// Directories end with `/`; a link has its text behind `->`.
    fn tree(paths: &[&str]) -> Tree {
        let items = paths
            .iter()
            .map(|path| match (path.strip_suffix('/'), path.split_once("->")) {
                (Some(path), _) => (path.as_bytes().to_vec(), item(Kind::Directory, None)),
                (_, Some((path, target))) => (path.as_bytes().to_vec(), item(Kind::Symlink, Some(target))),
                _ => (path.as_bytes().to_vec(), item(Kind::File, None)),
            });
        items.collect()
    }

    fn held(path: &str, here: &[&str], there: &[&str]) -> bool {
        let (here, there) = (tree(here), tree(there));
        let guard = Guard::new(Path::new("/p"), &here, Vec::new());
        guard.holds(path.as_bytes(), &here, &there).is_some()
    }

    #[test]
    fn what_decides_or_runs_here_is_held_wherever_it_lies_and_however_it_is_written() {
        for path in [
            ".dockerignore",
            "docker/web/Dockerfile.dockerignore",
            "sub/.DockerIgnore",
            "docker/dockerutils.cfg",
            "DOCKER/DockerUtils.cfg",
            ".git/config",
            ".git/hooks/pre-commit",
            ".GIT/config",
            ".g\u{200c}it/config",
            "git~1/config",
            ".git./config",
            "sub/.git/info/attributes",
            "sub/.git",
            ".git/commondir",
            ".git/objects/info/alternates",
            ".git/modules/lib/hooks/post-checkout",
            ".git/rebase-merge/git-rebase-todo",
            ".git/remotes/origin",
            "data/HEAD",
            "bare.git/config",
            ".envrc",
            "a/b/.envrc",
            "\u{212a}/.envrc",
            ".vscode/tasks.json",
            "sub/.VSCODE/settings.json",
            "my.code-workspace",
            ".hus\u{212a}y/pre-commit",
            ".config/mise/config.toml",
            "lefthook-local.yml",
            ".cargo/config.toml",
            ".claude/settings.json",
        ] {
            assert!(held(path, &[], &[path]), "{path}");
            assert!(held(path, &[path], &[]), "{path} removed");
        }
        for path in [
            "src/main.rs",
            "Makefile",
            "package.json",
            ".gitignore",
            ".gitattributes",
            ".gitmodules",
            ".editorconfig",
            ".git/HEAD",
            ".git/index",
            ".git/refs/heads/main",
            ".git/objects/ab/cdef",
            "head",
            "docker/web/Dockerfile",
            ".cargo/registry/x",
            "config",
            "vscode/tasks.json",
            ".environment",
        ] {
            assert!(!held(path, &[], &[path]), "{path}");
        }
    }

    #[test]
    fn links_and_files_in_the_place_of_directories_on_the_way_are_held_and_empty_directories_are_not() {
        for path in ["docker", ".config", ".git", ".vscode", ".cargo", "sub/docker"] {
            let (link, folder) = (format!("{path}->elsewhere"), format!("{path}/"));
            assert!(held(path, &[], &[&link]), "{path}");
            assert!(held(path, &[&folder], &[&link]), "{path}");
            assert!(held(path, &[&link], &[&folder]), "{path}");
            assert!(held(path, &[&folder], &[path]), "{path}");
            assert!(!held(path, &[], &[&folder]) && !held(path, &[&folder], &[]), "{path}");
        }
        // In a repository, no link is data.
        assert!(held(".git/refs", &[".git/refs/"], &[".git/refs->../evil"]));
    }

    #[test]
    fn what_files_of_the_list_lead_to_is_held_too() {
        let here = [
            ".vscode->tools/editor",
            "tools/",
            "tools/editor/",
            "tools/editor/deep->../../other",
            "other/",
            ".envrc->/p/env.sh",
            "sub/.exrc->../../../out",
            ".husky->loop",
            "loop->.husky",
        ];
        for path in ["tools/editor/tasks.json", "other/x", "env.sh"] {
            assert!(held(path, &here, &[path]), "{path}");
        }
        assert!(!held("tools/x", &here, &["tools/x"]));
        assert!(!held("out", &here, &["out"]));
        // A folder that looks like a repository.
        let bare = ["data/", "data/HEAD", "data/objects/", "data/refs/"];
        assert!(held("data/config", &bare, &["data/config"]));
        assert!(held("data/hooks/update", &bare, &["data/hooks/update"]));
        assert!(!held("data/rows.csv", &bare, &["data/rows.csv"]));
    }

    #[test]
    fn what_git_is_told_to_run_in_the_project_is_held() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let write = |path: &str, text: &str| {
            std::fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
            std::fs::write(root.join(path), text).unwrap();
        };
        write("tools/hooks/pre-push", "");
        write("tools/fsmonitor", "");
        write("shared.inc", "");
        write("scripts/pre-commit", "");
        write("sub/clean", "");
        let config = "[core]\n\thooksPath = tools/hooks\n fsmonitor = \"tools/fsmonitor\"\n[include]\n\tpath = ../shared.inc\n\
                      [filter \"x\"]\n clean = sh sub/clean %f\n[remote \"origin\"]\n url = git@host:a/b.git\n";
        write(".git/config", config);
        write(".git/hooks/x.sample", "");
        std::os::unix::fs::symlink("../../scripts/pre-commit", root.join(".git/hooks/pre-commit")).unwrap();
        let check = |root: &Path, expected: &[&str]| {
            let guard = Guard::new(root, &Tree::new(), obeyed_by_git(root));
            let led: Vec<String> = guard
                .led
                .iter()
                .map(|path| String::from_utf8(path.clone()).unwrap())
                .collect();
            assert_eq!(led, expected);
        };
        check(
            &root,
            &[
                "scripts/pre-commit",
                "shared.inc",
                "sub/clean",
                "tools/fsmonitor",
                "tools/hooks",
            ],
        );
        // A project that is a folder of the repository.
        check(&root.join("sub"), &["clean"]);
        check(&root.join("tools"), &["fsmonitor", "hooks"]);
        // A worktree beside it.
        let tree = root.join("trees/one");
        write(
            "trees/one/.git",
            &format!("gitdir: {}/.git/worktrees/one\n", root.display()),
        );
        write("trees/one/tools/hooks/x", "");
        write(".git/worktrees/one/commondir", "../..\n");
        check(&tree, &["tools/hooks"]);
    }

    #[test]
    fn the_list_in_the_documentation_is_this_one() {
        let page = include_str!("../../../../docs/security.md");
        let table = page
            .split_once("<!-- guarded -->\n")
            .and_then(|(_, rest)| rest.split_once("<!-- /guarded -->"))
            .map(|(table, _)| table.lines().skip(2).map(str::to_owned).collect::<Vec<_>>())
            .unwrap();
        let rows = RULES.iter().map(|rule| {
            let names: Vec<String> = rule.names.iter().map(|name| format!("`{name}`")).collect();
            format!("| {} | {} |", names.join(", "), rule.why)
        });
        assert_eq!(table, rows.collect::<Vec<_>>());
        let data: Vec<String> = GIT_DATA.iter().map(|name| format!("`{name}`")).collect();
        let (last, others) = data.split_last().unwrap();
        assert!(
            page.replace('\n', " ")
                .contains(&format!("{} and {last}", others.join(", ")))
        );
    }
}
