//! What a dock never changes here without the user's consent: the files that decide what leaves this
//! machine, and those that tools here run or obey unasked.
//!
//! A file is on the list if a tool that users have running takes orders from it, though the user asked neither for that
//! file nor for its effect: git at any command, a shell at its prompt, an editor that has the folder open. What runs
//! when the user says so (a Makefile, `package.json`, a build script, a test) is the project itself, and travels as all
//! of it does.
//!
//! The list is data: [`RULES`]. `docs/security.md` has it as a table, and a test compares the two.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};
use std::sync::LazyLock;

use serde::{Deserialize as _, Deserializer};

use super::{ItemKind, Tree, ancestors, is_acceptable, is_at_or_below, split};
use build_context::{PatternError, Selector};

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
/// What reads or writes through such a link here reads or writes what is not the project.
const OUT: &str = "it leads out of the project";
/// What sends what it finds by way of such a link sends what is to stay.
const IGNORED: &str = "it leads to what .dockerignore leaves out";
const UNKNOWN: &str = "the dock does not say where it leads";

/// In place of a reason that only another version of this program has.
const OTHER: &str = "another version of dockerutils says that something here obeys it";

/// Reads a reason that another process of this program has written.
///
/// # Errors
/// JSON that is not a string.
pub fn read_reason<'de, D: Deserializer<'de>>(from: D) -> Result<&'static str, D::Error> {
    let text = String::deserialize(from)?;
    let own = RULES.iter().map(|rule| rule.why).chain([LED, OUT, IGNORED, UNKNOWN]);
    Ok(own.into_iter().find(|why| *why == text).unwrap_or(OTHER))
}

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
        names: &[".envrc", ".direnv", ".autoenv*", ".rvmrc", ".shadowenv.d"],
        why: "the shell runs it when you enter the folder",
    },
    Rule {
        names: &[".env", ".env.*", "*.env"],
        why: "shells, compose and run-image take variables from it, and of a name alone this machine's",
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
            ".prototools",
            ".sdkmanrc",
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
            ".lite_project.lua",
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
            "jupyter_*config.py",
            "jupyter_*config.json",
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
enum NamePart {
    Whole(String),
    Starred(String, String),
}

impl NamePart {
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
    starred: Vec<(NamePart, &'static Rule)>,
    long: Vec<(Vec<NamePart>, &'static Rule)>,
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
        let mut parts: Vec<NamePart> = name.split('/').map(NamePart::new).collect();
        match (parts.len(), parts.pop()) {
            (1, Some(NamePart::Whole(name))) => drop(compiled.whole.insert(name, rule)),
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
enum GuardMatch {
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
    /// Links of the dock's that lead where no dock leads anybody, and why.
    stray: BTreeMap<Vec<u8>, &'static str>,
}

impl Guard {
    /// Of a project: what its links of the list lead to, and what else is known to be obeyed, is on the list, too.
    pub fn new(root: &Path, here: &Tree, obeyed: impl IntoIterator<Item = Vec<u8>>) -> Self {
        let mut guard = Self::default();
        let links = here
            .iter()
            .filter(|(path, item)| item.kind == ItemKind::Symlink && guard.find(path, here, true).is_some());
        let mut queue: Vec<Vec<u8>> = links.map(|(path, _)| path.clone()).chain(obeyed).collect();
        while let Some(path) = queue.pop() {
            if let Some(led) = leads_to(root, &path, here)
                && guard.led.insert(led.clone())
            {
                // Links in a directory that is obeyed.
                let below = super::below(here, &led).filter(|(_, item)| item.kind == ItemKind::Symlink);
                queue.extend(below.map(|(path, _)| path.clone()));
            }
        }
        guard
    }

    /// Looks at where these links of the dock's lead. A link that is here already stays what it is.
    ///
    /// # Errors
    /// A pattern of `.dockerignore` that Docker refuses.
    pub fn judge_links<'a>(
        &mut self,
        root: &Path,
        links: impl IntoIterator<Item = &'a Vec<u8>>,
        here: &Tree,
        there: &Tree,
        selector: &mut Selector,
    ) -> Result<(), PatternError> {
        for path in links {
            let target = there.get(path).and_then(|item| item.target.as_deref());
            let is_here = here.get(path).is_some_and(|item| item.target.as_deref() == target);
            let why = match target {
                None => Some(UNKNOWN),
                Some(_) if is_here => None,
                Some(target) => match destination(root, path, target, here) {
                    None => Some(OUT),
                    Some(end) if end.is_empty() || here.contains_key(&end) || there.contains_key(&end) => None,
                    Some(end) => (!selector.lists(&end, false)?).then_some(IGNORED),
                },
            };
            self.stray.extend(why.map(|why| (path.clone(), why)));
        }
        Ok(())
    }

    /// Why a dock may not change what is at a path; `None` where it may. An empty directory gives no orders: it may come, and
    /// it may go.
    pub fn holds(&self, path: &[u8], here: &Tree, there: &Tree) -> Option<&'static str> {
        let kinds = [here, there].map(|tree| tree.get(path).map(|item| item.kind));
        if kinds
            .iter()
            .all(|kind| matches!(kind, None | Some(ItemKind::Directory)))
        {
            return None;
        }
        if let Some((_, why)) = self.stray_at(path) {
            return Some(why);
        }
        match self.find(path, here, kinds.contains(&Some(ItemKind::Symlink)))? {
            GuardMatch::At(why) | GuardMatch::Above(why) => Some(why),
        }
    }

    /// [`Guard::holds`] of a path's mode, also where it is a directory.
    pub fn holds_mode(&self, path: &[u8], here: &Tree) -> Option<&'static str> {
        match self.find(path, here, false)? {
            GuardMatch::At(why) => Some(why),
            GuardMatch::Above(_) => None,
        }
    }

    /// Why a dock may not put something else in the place of a directory here; `takes` says what a person has named.
    pub fn holds_below(&self, path: &[u8], here: &Tree, takes: impl Fn(&[u8]) -> bool) -> Option<&'static str> {
        super::below(here, path)
            .filter(|(lower, item)| item.kind != ItemKind::Directory && !takes(lower))
            .find_map(
                |(lower, item)| match self.find(lower, here, item.kind == ItemKind::Symlink)? {
                    GuardMatch::At(why) | GuardMatch::Above(why) => Some(why),
                },
            )
    }

    /// Whether a path that a person named stands for itself and all below: it is on the list itself.
    pub fn is_listed(&self, path: &[u8], here: &Tree) -> bool {
        self.stray.contains_key(path) || matches!(self.find(path, here, false), Some(GuardMatch::At(_)))
    }

    /// The link of the dock's that leads where none may, where it is at a path or in the place of a directory above it; and why
    /// it may not. What that directory holds here goes only with the directory.
    pub fn stray_at<'a>(&'a self, path: &'a [u8]) -> Option<(&'a [u8], &'static str)> {
        let mut all = ancestors(path).chain([path]);
        all.find_map(|path| Some((path, *self.stray.get(path)?)))
    }

    fn find(&self, path: &[u8], here: &Tree, link: bool) -> Option<GuardMatch> {
        if self.led.iter().any(|led| is_at_or_below(path, led)) {
            return Some(GuardMatch::At(LED));
        }
        if in_repository(path, here) {
            return Some(GuardMatch::At(GIT.why));
        }
        // What takes the place of a directory on the way to it would lead elsewhere.
        let is_above = |led: &Vec<u8>| is_at_or_below(led, path);
        listed(path, link).or_else(|| self.led.iter().any(is_above).then_some(GuardMatch::Above(LED)))
    }
}

/// Whether a path is on the list by its names, as a link or as what it is.
pub fn is_named(path: &[u8]) -> bool {
    matches!(listed(path, true), Some(GuardMatch::At(_)))
}

/// Whether git obeys it, because the directory that it is in looks like a repository.
fn in_repository(path: &[u8], here: &Tree) -> bool {
    let is = |directory: &[u8], name: &str, kind: ItemKind| {
        let full = match directory {
            b"" => name.as_bytes().to_vec(),
            directory => [directory, b"/", name.as_bytes()].concat(),
        };
        here.get(&full)
            .is_some_and(|item| (item.kind == ItemKind::Directory) == (kind == ItemKind::Directory))
    };
    std::iter::once(&b""[..]).chain(ancestors(path)).any(|directory| {
        let rest = match directory {
            b"" => path,
            directory => path.get(directory.len() + 1..).unwrap_or_default(),
        };
        let first = rest.split(|byte| *byte == b'/').next().unwrap_or_default();
        GIT_ORDERS.contains(&&*fold(first))
            && is(directory, "HEAD", ItemKind::File)
            && is(directory, "objects", ItemKind::Directory)
    })
}

/// What the list says of a path by its names; `link` where it is a symbolic link on either side.
fn listed(path: &[u8], link: bool) -> Option<GuardMatch> {
    let names: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
    let folded: Vec<Cow<'_, str>> = names.iter().map(|name| fold(name)).collect();
    let compiled = &*COMPILED;
    let mut above = None;
    let mut of_git = false;
    for (at, name) in folded.iter().enumerate() {
        if let Some(rule) = compiled.whole.get(&**name) {
            return Some(GuardMatch::At(rule.why));
        }
        if let Some((_, rule)) = compiled.starred.iter().find(|(part, _)| part.matches(name)) {
            return Some(GuardMatch::At(rule.why));
        }
        for (parts, rule) in &compiled.long {
            let mut pairs = parts.iter().zip(folded.get(at..).unwrap_or_default());
            if pairs.all(|(part, name)| part.matches(name)) {
                if at + parts.len() <= folded.len() {
                    return Some(GuardMatch::At(rule.why));
                }
                above = Some(GuardMatch::Above(rule.why));
            }
        }
        // What Windows calls it is git's own precaution.
        if name.ends_with(".git") || name == "git~1" {
            of_git = true;
            let rest = names.get(at + 1..).unwrap_or_default();
            if link || !is_data(rest) {
                return Some(GuardMatch::At(GIT.why));
            }
        }
    }
    let is_head = names.last() == Some(&&b"HEAD"[..])
        || (cfg!(target_os = "macos") && folded.last().is_some_and(|name| name == "head"));
    if is_head && !of_git {
        return Some(GuardMatch::At(HEAD.why));
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

/// Where a link of the dock's would lead here: empty for the root, `None` if out of the project. A link that goes up
/// again after it went down is considered to lead out: the directory that it goes down through may become a link, too.
fn destination(root: &Path, path: &[u8], target: &[u8], here: &Tree) -> Option<Vec<u8>> {
    if target.starts_with(b"/") {
        return None;
    }
    let mut names: Vec<&[u8]> = split(path).0.split(|byte| *byte == b'/').collect();
    names.retain(|name| !name.is_empty());
    let mut down = false;
    for name in target.split(|byte| *byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." if down => return None,
            b".." => drop(names.pop()?),
            name => {
                down = true;
                names.push(name);
            }
        }
    }
    match names.join(&b'/') {
        end if end.is_empty() => Some(end),
        end => leads_to(root, &end, here),
    }
}

/// Where a path leads, over all links on the way, as seen from the root; `None` where it leads out of the project.
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

/// A path as it is, or an absolute one as it is seen from the root; `None` where it leads out.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::{Item, Stamp};
    use build_context::Builder;

    fn item(kind: ItemKind, target: Option<&str>) -> Item {
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
                (Some(path), _) => (path.as_bytes().to_vec(), item(ItemKind::Directory, None)),
                (_, Some((path, target))) => (path.as_bytes().to_vec(), item(ItemKind::Symlink, Some(target))),
                _ => (path.as_bytes().to_vec(), item(ItemKind::File, None)),
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
            "jupyter_server_config.py",
            "docker/web.env",
            ".env.production",
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
    fn links_that_lead_out_or_to_what_is_left_out_are_held() {
        let here = tree(&[
            "a",
            "sub/",
            "sub/deep/",
            "out->/srv",
            "sub/up->../..",
            "inner->sub/deep",
            ".env->elsewhere",
        ]);
        let mut selector = Selector::new(&[b".secret".to_vec(), b"build/*".to_vec()], Builder::default()).unwrap();
        let mut stray = |path: &str, target: &str| {
            let there = tree(&[&format!("{path}->{target}"), "new"]);
            let mut guard = Guard::default();
            let links = [path.as_bytes().to_vec()];
            let root = Path::new("/p");
            guard.judge_links(root, &links, &here, &there, &mut selector).unwrap();
            guard.holds(path.as_bytes(), &here, &there)
        };
        for target in ["a", "sub", "missing", "./sub//deep", "inner/x", "new", "."] {
            assert_eq!(stray("link", target), None, "{target}");
        }
        assert_eq!(stray("sub/deep/link", "../../a"), None);
        assert_eq!(stray("sub/link", ".."), None);
        // It is so here already.
        assert_eq!(stray("out", "/srv"), None);
        for target in [
            "/etc/passwd",
            "/p/a",
            "..",
            "../p/a",
            "out/x",
            "sub/up",
            "sub/../../x",
            "sub/deep/../x",
        ] {
            assert_eq!(stray("link", target), Some(OUT), "{target}");
        }
        assert_eq!(stray("sub/link", "../../p/a"), Some(OUT));
        assert_eq!(stray("out", "/srv/other"), Some(OUT));
        for (path, target) in [("link", ".secret"), ("link", "build/x"), ("sub/link", "../.secret")] {
            assert_eq!(stray(path, target), Some(IGNORED), "{target}");
        }
        let there = Tree::from([(b"link".to_vec(), item(ItemKind::Symlink, None))]);
        let mut guard = Guard::default();
        guard
            .judge_links(Path::new("/p"), there.keys(), &here, &there, &mut selector)
            .unwrap();
        assert_eq!(guard.holds(b"link", &here, &there), Some(UNKNOWN));
    }

    #[test]
    fn a_directory_on_the_way_to_what_a_link_leads_to_is_held_though_that_is_not_there() {
        let here = [".envrc->tools/env/envrc", "tools/", "tools/env/"];
        assert!(held("tools/env/envrc", &here, &["tools/env/envrc"]));
        assert!(held("tools/env", &here, &["tools/env->../evil"]));
        assert!(held("tools", &here, &["tools"]));
        assert!(!held("tools/other", &here, &["tools/other"]));
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
