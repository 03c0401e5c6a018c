//! Projects for versioneer: what each is made of, as a script.

/// A project, and how it differs.
#[derive(Debug)]
pub struct Case {
    /// What is special about it.
    pub name: &'static str,
    /// The root, seen from the folder in which the script runs.
    pub root: &'static str,
    /// Which file has the configuration, and what it says; `STYLE` stands for each style in turn.
    pub configuration: (&'static str, &'static str),
    /// What makes it, in `sh`, after [`PRELUDE`]. The configuration is written after it.
    pub script: &'static str,
    /// A variable of the environment.
    pub variable: Option<(&'static str, &'static str)>,
    /// Releases of versioneer say different things of it.
    pub ages: bool,
    /// What is known of it.
    pub outcome: Outcome,
}

/// What is expected of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Ours and the original do the same, byte for byte.
    Same,
    /// The original writes Python that says something else than versioneer, or none; ours says what versioneer says.
    Mended,
    /// versioneer ends with an exception, and ours has an answer.
    Answered,
}

/// What scripts are made of. Times are fixed: a commit has the same name in each run.
pub const PRELUDE: &str = r#"
n=0
export GIT_AUTHOR_NAME=ann GIT_AUTHOR_EMAIL=ann@example.org GIT_COMMITTER_NAME=ann GIT_COMMITTER_EMAIL=ann@example.org
init() { git init -q -b master "$@"; }
commit() {
    n=$((n + 1))
    echo $n >"${1:-content}"
    git add "${1:-content}"
    GIT_AUTHOR_DATE="2024-01-02 03:04:$((n + 10)) +0100" GIT_COMMITTER_DATE="2024-01-02 03:04:$((n + 10)) ${zone:-+0100}" \
        git commit -q -m "commit $n"
}
tag() { git tag "$@"; }
annotate() { GIT_COMMITTER_DATE="2024-01-02 03:05:${2:-00} +0000" git tag -a -m "tag $1" "$1"; }
dirty() { echo changed >"${1:-content}"; }
origin() { init ../origin && cd ../origin; }
keywords() {
    mkdir -p src
    printf '%s\n' 'def get_keywords():' '    git_refnames = "$Format:%d$"' '    git_full = "$Format:%H$"' \
        '    git_date = "$Format:%ci$"' >src/_version.py
    echo 'src/_version.py export-subst' >.gitattributes
    git add src .gitattributes
}
archive() { git archive "${1:-HEAD}" | tar -x -C "$OLDPWD"; }
"#;

const SETUP_CFG: &str = "[versioneer]\nVCS = git\nstyle = STYLE\nversionfile_source = src/_version.py\ntag_prefix =\n";
const PREFIX_V: &str = "[versioneer]\nVCS = git\nstyle = STYLE\nversionfile_source = src/_version.py\ntag_prefix = v\n";
const PARENT: &str =
    "[versioneer]\nVCS = git\nversionfile_source = src/_version.py\ntag_prefix =\nparentdir_prefix = sample-\n";
const PYPROJECT: &str = "[project]\nname = 'sample'\n\n[tool.versioneer]\nVCS = \"git\"\nstyle = 'STYLE'\n\
                         versionfile_source = \"src/_version.py\"\ntag_prefix = \"v\"\n";
/// Where nothing depends on the style, as with [`PARENT`].
const ONCE: &str = "[versioneer]\nVCS = git\nversionfile_source = src/_version.py\ntag_prefix =\n";

const fn case(name: &'static str, script: &'static str) -> Case {
    Case {
        name,
        root: ".",
        configuration: ("setup.cfg", SETUP_CFG),
        script,
        variable: None,
        ages: false,
        outcome: Outcome::Same,
    }
}

impl Case {
    const fn says(self, text: &'static str) -> Self {
        self.file("setup.cfg", text)
    }

    const fn file(mut self, file: &'static str, text: &'static str) -> Self {
        self.configuration = (file, text);
        self
    }

    const fn at(mut self, root: &'static str) -> Self {
        self.root = root;
        self
    }

    const fn with(mut self, name: &'static str, value: &'static str) -> Self {
        self.variable = Some((name, value));
        self
    }

    const fn ages(mut self) -> Self {
        self.ages = true;
        self
    }

    const fn but(mut self, outcome: Outcome) -> Self {
        self.outcome = outcome;
        self
    }
}

/// All projects.
pub const CASES: &[Case] = &[
    // Trees without tags.
    case("no commit", "init"),
    case("no commit, with a parent", "init").says(PARENT),
    case("one commit", "init; commit"),
    case("three commits", "init; commit; commit; commit").ages(),
    case("one commit, dirty", "init; commit; dirty"),
    case("staged", "init; commit; dirty; git add content"),
    case("a new file", "init; commit; echo new >other"),
    case("a new file, staged", "init; commit; echo new >other; git add other"),
    case("a file deleted", "init; commit; rm content"),
    case("a mode changed", "init; commit; chmod +x content"),
    case("touched", "init; commit; touch -d 2020-01-01 content"),
    case(
        "a change that git is told not to see",
        "init; commit; git update-index --assume-unchanged content; dirty",
    ),
    case("another zone", "init; zone=-0730; commit"),
    case("SHA-256", "init --object-format=sha256; commit; commit"),
    case(
        "longer names of commits",
        "init; git config core.abbrev 12; commit; tag 1.0; commit",
    ),
    case(
        "shorter names of commits",
        "init; git config core.abbrev 4; commit; tag 1.0; commit; dirty",
    ),
    // Tags.
    case("tagged", "init; commit; tag 1.0"),
    case("annotated", "init; commit; annotate 1.0"),
    case("tagged and dirty", "init; commit; tag 1.0; dirty"),
    case("after a tag", "init; commit; tag 1.0; commit; commit").ages(),
    case("after a tag, dirty", "init; commit; tag 1.0; commit; dirty"),
    case("after an annotated tag", "init; commit; annotate 1.0; commit"),
    case("a prefix that fits", "init; commit; tag v1.0; commit").says(PREFIX_V),
    case("a prefix that does not fit", "init; commit; tag 1.0; commit").says(PREFIX_V),
    case("a prefix and no more", "init; commit; tag v; commit")
        .says(PREFIX_V)
        .ages(),
    case(
        "a word with the prefix",
        "init; commit; tag v1.0; commit; tag vnext; commit",
    )
    .says(PREFIX_V)
    .ages(),
    case("with and without the prefix", "init; commit; tag v1.0; tag 2.0; commit").says(PREFIX_V),
    case(
        "the nearer one does not fit",
        "init; commit; tag v1.0; commit; tag 2.0; commit",
    )
    .says(PREFIX_V),
    case("a word", "init; commit; tag nightly; commit").ages(),
    case(
        "a word after a number",
        "init; commit; tag 1.0; commit; tag nightly; commit; dirty",
    )
    .ages(),
    case("several tags", "init; commit; tag 1.0; tag 1.0.1; tag 0.9"),
    case(
        "several tags, one annotated",
        "init; commit; tag 2.0; annotate 1.0; commit",
    ),
    case(
        "two annotated tags",
        "init; commit; annotate 2.0 10; annotate 1.0 20; commit",
    ),
    case(
        "two annotated tags, the other way",
        "init; commit; annotate 2.0 20; annotate 1.0 10; commit",
    ),
    case("hyphens", "init; commit; tag release-1.0-rc-1-g12; commit")
        .says("[versioneer]\nVCS = git\nstyle = STYLE\nversionfile_source = v.py\ntag_prefix = release-\n"),
    case("a slash", "init; commit; tag release/1.0; commit")
        .says("[versioneer]\nVCS = git\nstyle = STYLE\nversionfile_source = v.py\ntag_prefix = release/\n"),
    case("a plus", "init; commit; tag 1.0+local; commit"),
    case("a plus, dirty", "init; commit; tag 1.0+local; dirty"),
    case("a tag that says dirty", "init; commit; tag 1.0-dirty; commit"),
    case("a post-release", "init; commit; tag 1.0.post2; commit; commit").ages(),
    case("a post-release, at the tag", "init; commit; tag 1.0.post2"),
    case("a post-release without a number", "init; commit; tag 1.0.post; commit").ages(),
    case("two post-releases", "init; commit; tag 1.0.post1.post2; commit").ages(),
    case("a negative post-release", "init; commit; tag 1.0.post-3; commit").ages(),
    case(
        "a post-release that is no number",
        "init; commit; tag 1.0.postx; commit",
    ),
    case(
        "a tag that was renamed",
        "init; commit; annotate 1.0; git update-ref refs/tags/2.0 refs/tags/1.0; tag -d 1.0; commit",
    ),
    case(
        "renamed out of the prefix",
        "init; commit; annotate x1.0; git update-ref refs/tags/v2.0 refs/tags/x1.0; commit",
    )
    .says(PREFIX_V),
    case("letters beyond ASCII", "init; commit; tag 1.0-münchen; commit"),
    case("letters beyond 16 bits", "init; commit; tag 1.0-😀; commit").but(Outcome::Mended),
    case("a quotation mark", "init; commit; tag '1.0\"x'; commit").but(Outcome::Mended),
    case("an apostrophe", "init; commit; tag \"1.0'x''y\"; commit"),
    case(
        "apostrophes that end Python's text",
        "init; commit; tag \"1.0'''+chr(0)+'''\"; commit",
    )
    .but(Outcome::Mended),
    case("no prefix, in quotation marks", "init; commit; tag 1.0; commit")
        .says("[versioneer]\nVCS = git\nstyle = STYLE\nversionfile_source = v.py\ntag_prefix = ''\n"),
    case("no prefix, in other quotation marks", "init; commit; tag 1.0; commit")
        .says("[versioneer]\nVCS = git\nstyle = STYLE\nversionfile_source = v.py\ntag_prefix = \"\"\n"),
    case("a prefix that is a pattern", "init; commit; tag va1.0; commit")
        .says("[versioneer]\nVCS = git\nstyle = STYLE\nversionfile_source = v.py\ntag_prefix = v*\n"),
    case("a prefix that looks like an option", "init; commit; commit")
        .says("[versioneer]\nVCS = git\nstyle = STYLE\nversionfile_source = v.py\ntag_prefix = --all\n"),
    // Branches.
    case(
        "another branch",
        "init; commit; tag 1.0; git checkout -qb feature; commit",
    ),
    case(
        "another branch, dirty",
        "init; commit; tag 1.0; git checkout -qb feature; dirty",
    ),
    case("main", "init; git branch -m main; commit; tag 1.0; commit"),
    case(
        "another branch, no tag",
        "init; git checkout -qb feature/x; commit; dirty",
    ),
    case(
        "a tag on a branch that was merged",
        "init; commit; git checkout -qb b; commit b; tag 1.0; git checkout -q master; \
          commit; git merge -q --no-edit b -m merged --no-ff",
    ),
    case(
        "a tag elsewhere",
        "init; commit; git checkout -qb b; commit; tag 1.0; git checkout -q master; commit",
    ),
    case("a branch like a tag", "init; commit; tag 1.0; git branch 1.0; commit"),
    case(
        "detached at master",
        "init; commit; tag 1.0; commit; git checkout -q --detach",
    ),
    case(
        "detached behind master",
        "init; commit; tag 1.0; commit; commit; git checkout -q HEAD~1; dirty",
    ),
    case(
        "detached at a tag",
        "init; commit; tag 1.0; commit; git checkout -q 1.0",
    ),
    case(
        "detached, no branch",
        "init; commit; tag 1.0; git checkout -q --detach; commit",
    ),
    case(
        "detached, no branch, no tag",
        "init; commit; git checkout -q --detach; commit",
    ),
    case(
        "detached, in other branches",
        "init; git branch -m a; commit; tag 1.0; commit; git branch b; git checkout -q --detach",
    ),
    case(
        "detached, in master and others",
        "init; commit; tag 1.0; commit; git branch a; git branch z; git checkout -q --detach",
    ),
    case(
        "detached, with brackets",
        "init; git branch -m 'fix(1)'; commit; tag 1.0; commit; git checkout -q --detach",
    ),
    case(
        "in a rebase",
        "init; commit; tag 1.0; commit; git checkout -qb x HEAD~1; commit; git rebase -q master || true",
    ),
    case(
        "a linked worktree",
        "origin; commit; tag 1.0; commit; git worktree add -q -b side ../sample/tree",
    )
    .at("tree"),
    case(
        "detached, master in a worktree",
        "init; commit; tag 1.0; commit; git checkout -q --detach; git worktree add -q ../side master",
    ),
    case(
        "a branch that is not UTF-8",
        "init; commit; tag 1.0; git checkout -qb \"$(printf 'b\\351')\"; commit",
    )
    .but(Outcome::Answered),
    case(
        "a tag that is not UTF-8",
        "init; commit; tag \"$(printf '1.0\\351')\"; commit",
    ),
    // Clones, and roots below the repository's.
    case(
        "shallow",
        "origin; commit; tag 1.0; commit; commit; git clone -q --depth 1 \"file://$PWD\" \"$OLDPWD\"",
    ),
    case(
        "shallow, with the tag",
        "origin; commit; commit; tag 1.0; commit; git clone -q --depth 2 \"file://$PWD\" \"$OLDPWD\"",
    ),
    case(
        "a clone without tags",
        "origin; commit; tag 1.0; commit; git clone -q --no-tags . \"$OLDPWD\"",
    ),
    case(
        "a folder of a repository",
        "init; mkdir -p sub/dir; commit; tag v1.0; commit",
    )
    .at("sub/dir")
    .says(PREFIX_V),
    case(
        "dirty above the root",
        "init; mkdir sub; commit; tag 1.0; commit sub/x; dirty",
    )
    .at("sub"),
    case("a repository that is broken", "init; commit; tag 1.0; rm .git/HEAD").says(PARENT),
    case("GIT_DIR elsewhere", "init; commit; tag 1.0; commit").with("GIT_DIR", "/nowhere"),
    case("GIT_WORK_TREE elsewhere", "init; commit; tag 1.0; commit").with("GIT_WORK_TREE", "/nowhere"),
    case("no git", "init; commit; tag 1.0").with("PATH", "/nowhere"),
    case("no git, with a parent", "init; commit; tag 1.0")
        .with("PATH", "/nowhere")
        .says(PARENT)
        .at("sample-2.0"),
    // No repository.
    case("no repository", "").says(ONCE),
    case("a folder that says the version", "").says(PARENT).at("sample-1.5"),
    case("the folder above says it", "").says(PARENT).at("sample-1.5/x"),
    case("the folder above that says it", "")
        .says(PARENT)
        .at("sample-1.5/x/y"),
    case("too far above", "").says(PARENT).at("sample-1.5/x/y/z"),
    case("the nearer of two folders", "")
        .says(PARENT)
        .at("sample-1.5/sample-1.6"),
    case("a folder that is only the prefix", "").says(PARENT).at("sample-"),
    case("a folder beyond ASCII", "").says(PARENT).at("sample-ü"),
    // Archives and source distributions.
    case(
        "keywords that are not filled in",
        "init; keywords; commit; tag 1.0; commit",
    )
    .says(ONCE),
    case("an archive", "origin; keywords; commit; tag 1.0; archive").says(ONCE),
    case(
        "an archive, several tags",
        "origin; keywords; commit; tag v1.0; tag v1.0rc1; tag 2.0; archive",
    )
    .says(PREFIX_V)
    .ages(),
    case("an archive, no tag", "origin; keywords; commit; archive").says(ONCE),
    case(
        "an archive, a branch with a number",
        "origin; keywords; commit; git branch 1.x; archive",
    )
    .says(ONCE),
    case(
        "an archive, words",
        "origin; keywords; commit; tag nightly; tag zero-1; archive",
    )
    .says(ONCE)
    .ages(),
    case(
        "an archive, words with the prefix",
        "origin; keywords; commit; tag v; tag vnext1; archive",
    )
    .says(PREFIX_V)
    .ages(),
    case(
        "an archive of an older commit",
        "origin; keywords; commit; tag 1.0; commit; archive HEAD~1",
    )
    .says(ONCE),
    case(
        "an archive in a repository",
        "origin; keywords; commit; tag 1.0; archive; cd \"$OLDPWD\"; init; commit; tag 9.0",
    )
    .says(ONCE),
    case(
        "keywords of an old git",
        "mkdir src; printf 'git_refnames = \" (1.5, release)\"\\r\\n  git_full = \"abc\"\\r\\n' >src/_version.py",
    )
    .says(ONCE),
    case(
        "a source distribution",
        "mkdir src; printf \"version_json = '''\\n{\\\"version\\\": \\\"1.0\\\", \\\"b\\\": [1, {}], \
          \\\"a\\\": \\\"\\303\\274\\\"}\\n'''  # END VERSION_JSON\\n\" >src/_version.py",
    )
    .says(ONCE),
    case(
        "a source distribution, with CR",
        "mkdir src; printf \"version_json = '''\\r\\n{\\\"version\\\": \\\"1.0\\\"}\\r\\n'''  \
          # END VERSION_JSON\\r\\n\" >src/_version.py",
    )
    .says(ONCE),
    case(
        "a source distribution that is broken",
        "mkdir src; printf \"version_json = '''\\n{\\n'''  # END VERSION_JSON\\n\" \
          >src/_version.py",
    )
    .says(ONCE),
    case(
        "a source file that is a folder",
        "init; mkdir -p src/_version.py; commit; tag 1.0",
    )
    .says(ONCE),
    // Configurations.
    case("pyproject.toml", "init; commit; tag v1.0; commit").file("pyproject.toml", PYPROJECT),
    case(
        "pyproject.toml before setup.cfg",
        "init; commit; tag v1.0; commit; printf '[versioneer]\\nVCS = hg\\n' >setup.cfg",
    )
    .file("pyproject.toml", PYPROJECT),
    case(
        "pyproject.toml without the table",
        "init; commit; tag 1.0; echo '[project]' >pyproject.toml",
    ),
    case(
        "pyproject.toml with an empty table",
        "init; commit; tag 1.0; echo '[tool.versioneer]' >pyproject.toml",
    ),
    case(
        "pyproject.toml that is broken",
        "init; commit; tag 1.0; echo '[tool.versioneer' >pyproject.toml",
    )
    .ages(),
    case("pyproject.toml without VCS", "init; commit").file("pyproject.toml", "[tool.versioneer]\nvcs = 'git'\n"),
    case("pyproject.toml without the source file", "init; commit")
        .file("pyproject.toml", "[tool.versioneer]\nVCS = 'git'\n"),
    case("neither style nor prefix", "init; commit; tag 1.0; commit")
        .says("[versioneer]\nVCS = git\nversionfile_source = src/_version.py\n"),
    case("an empty style", "init; commit; tag 1.0; commit")
        .says("[versioneer]\nVCS = git\nversionfile_source = v.py\nstyle =\n"),
    case("the default style", "init; commit; tag 1.0; commit")
        .says("[versioneer]\nVCS = git\nversionfile_source = v.py\nstyle = default\n"),
    case("no such style", "init; commit").says("[versioneer]\nVCS = git\nversionfile_source = v.py\nstyle = semver\n"),
    case("no such style, and nobody asks", "")
        .says("[versioneer]\nVCS = git\nversionfile_source = v.py\nstyle = semver\n"),
    case("keys in another case", "init; commit; tag v1.0; commit")
        .says("[DEFAULT]\nPre = v\n[versioneer]\nvcs: git\nVersionFile_Source: v.py\nTAG_PREFIX: %(PRE)s\n"),
    case("the source file is missing", "init; commit").says("[versioneer]\nVCS = git\n"),
    case("VCS is missing", "init; commit").says("[versioneer]\n#VCS = git\n"),
    case("another VCS", "init; commit").says("[versioneer]\nVCS = hg\nversionfile_source = v.py\n"),
    case("VCS in another case", "init; commit").says("[versioneer]\nVCS = Git\nversionfile_source = v.py\n"),
    case("a key twice", "init; commit").says("[versioneer]\nVCS = git\nvcs = git\nversionfile_source = v.py\n"),
    case("lines that end with CR", "init; commit; tag v1.0; commit")
        .says("[versioneer]\r\nVCS = git\r\nversionfile_source = v.py\r\ntag_prefix = v\r\n"),
];
