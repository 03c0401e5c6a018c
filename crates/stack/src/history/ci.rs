//! What CI systems say about a build in their environment: the branch, and the range of commits.
//!
//! The branch of a request that comes from a fork is not one of this repository: anybody may call theirs `main`. It is called as the
//! request, `pr-5` or `mr-5`.
//!
//! - GitHub Actions: `GITHUB_HEAD_REF` and `GITHUB_BASE_REF` for a pull request, else `GITHUB_REF_NAME`, and `before` of
//!   the event in `GITHUB_EVENT_PATH`, which also has the commit's message, the title of a pull request and the main branch (<https://docs.github.com/en/actions/reference/workflows-and-actions/variables>);
//! - GitLab CI: `CI_MERGE_REQUEST_SOURCE_BRANCH_NAME` and `CI_MERGE_REQUEST_TARGET_BRANCH_NAME`, else
//!   `CI_COMMIT_BRANCH`, `CI_COMMIT_BEFORE_SHA` and `CI_DEFAULT_BRANCH` (<https://docs.gitlab.com/ci/variables/predefined_variables/>);
//! - Jenkins: `CHANGE_BRANCH` and `CHANGE_TARGET`, else `BRANCH_NAME` or `GIT_BRANCH`, and
//!   `GIT_PREVIOUS_SUCCESSFUL_COMMIT` (<https://plugins.jenkins.io/git/>).

use std::path::Path;

use dockerutils_core::env::Env;
use dockerutils_core::project_file;
use serde_json::Value;

use super::RangeStart;

/// The words by which a commit or a pull request asks that nothing is built.
const SKIP: &str = "skip ci";

/// A CI system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CiSystem {
    /// GitHub Actions.
    GitHub,
    /// GitLab CI.
    GitLab,
    /// Jenkins, with its plugin for git.
    Jenkins,
}

impl CiSystem {
    /// Its name, for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::GitHub => "GitHub Actions",
            Self::GitLab => "GitLab CI",
            Self::Jenkins => "Jenkins",
        }
    }
}

/// What a CI system says about the build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CiVariables {
    pub system: CiSystem,
    /// The branch that is built.
    pub branch: Option<String>,
    /// The branch that it is to be merged into.
    pub base_branch: Option<String>,
    /// The repository's main branch.
    pub default_branch: Option<String>,
    /// The commit that was built before.
    pub before: Option<String>,
    /// The message of the commit that is built, and the title of what it is to be merged by: as far as it says them.
    pub messages: Vec<String>,
    /// The page of this run.
    pub run: Option<String>,
}

impl CiVariables {
    /// What the environment says; `None` outside of CI.
    pub fn read(env: &Env) -> Option<Self> {
        let first = |names: &[&str]| names.iter().find_map(|name| env.non_empty(name)).map(str::to_owned);
        let mut messages: Vec<String> = Vec::new();
        let mut default_branch = None;
        let (system, branch, base_branch, before) = if env.get("GITHUB_ACTIONS") == Some("true") {
            let event = env
                .non_empty("GITHUB_EVENT_PATH")
                .and_then(|path| read_event(Path::new(path)))
                .unwrap_or_default();
            let said = ["/head_commit/message", "/pull_request/title"];
            let said = said.iter().filter_map(|path| event.pointer(path)?.as_str());
            messages.extend(said.map(str::to_owned));
            // The name may be a tag's.
            let name = (env.get("GITHUB_REF_TYPE") != Some("tag")).then(|| first(&["GITHUB_REF_NAME"]));
            let text = |path: &str| event.pointer(path).and_then(Value::as_str);
            default_branch = text("/repository/default_branch").map(str::to_owned);
            let request = PullRequest {
                prefix: "pr",
                number: event
                    .get("number")
                    .and_then(Value::as_u64)
                    .map(|number| number.to_string()),
                // The repository of a fork may have been removed.
                is_from_fork: event.get("pull_request").is_some()
                    && text("/pull_request/head/repo/full_name") != text("/pull_request/base/repo/full_name"),
                branch: first(&["GITHUB_HEAD_REF"]),
                base: first(&["GITHUB_BASE_REF"]),
            };
            let branch = request.branch().or(name.flatten());
            let before = event.get("before").and_then(Value::as_str).map(str::to_owned);
            (CiSystem::GitHub, branch, first(&["GITHUB_BASE_REF"]), before)
        } else if env.get("GITLAB_CI") == Some("true") {
            messages.extend(first(&["CI_COMMIT_MESSAGE"]));
            messages.extend(first(&["CI_MERGE_REQUEST_TITLE"]));
            default_branch = first(&["CI_DEFAULT_BRANCH"]);
            (
                CiSystem::GitLab,
                PullRequest {
                    prefix: "mr",
                    number: first(&["CI_MERGE_REQUEST_IID"]),
                    is_from_fork: first(&["CI_MERGE_REQUEST_SOURCE_PROJECT_ID"])
                        != first(&["CI_MERGE_REQUEST_PROJECT_ID"]),
                    branch: first(&["CI_MERGE_REQUEST_SOURCE_BRANCH_NAME"]),
                    base: first(&["CI_MERGE_REQUEST_TARGET_BRANCH_NAME"]),
                }
                .branch()
                .or_else(|| first(&["CI_COMMIT_BRANCH"])),
                first(&["CI_MERGE_REQUEST_TARGET_BRANCH_NAME"]),
                first(&["CI_COMMIT_BEFORE_SHA"]),
            )
        } else if env.non_empty("JENKINS_URL").is_some() {
            messages.extend(first(&["CHANGE_TITLE"]));
            let local = env
                .non_empty("GIT_BRANCH")
                .map(|name| name.strip_prefix("origin/").unwrap_or(name).to_owned());
            (
                CiSystem::Jenkins,
                PullRequest {
                    prefix: "pr",
                    number: first(&["CHANGE_ID"]),
                    is_from_fork: first(&["CHANGE_FORK"]).is_some(),
                    branch: first(&["CHANGE_BRANCH"]),
                    base: first(&["CHANGE_TARGET"]),
                }
                .branch()
                .or_else(|| first(&["BRANCH_NAME"]))
                .or(local),
                first(&["CHANGE_TARGET"]),
                first(&["GIT_PREVIOUS_SUCCESSFUL_COMMIT"]),
            )
        } else {
            return None;
        };
        Some(Self {
            system,
            branch,
            base_branch,
            default_branch,
            // Zeros stand for no commit: the branch is new.
            before: before.filter(|id| id.bytes().any(|byte| byte != b'0')),
            messages,
            run: match system {
                CiSystem::GitHub => github_run(env),
                CiSystem::GitLab => first(&["CI_JOB_URL"]),
                CiSystem::Jenkins => first(&["BUILD_URL"]),
            },
        })
    }

    /// Whether somebody wrote "skip ci", in any case: in the message of the commit that is built, or in the title of the pull or merge
    /// request.
    pub fn is_skipped(&self, commit_message: &str) -> bool {
        let mut said = self.messages.iter().map(String::as_str).chain([commit_message]);
        said.any(|text| text.to_lowercase().contains(SKIP))
    }

    /// The range that is built: since the base branch, or since the last build; of a branch that is new, since the main branch.
    pub fn start(&self) -> Option<RangeStart> {
        let base = self.base_branch.clone().map(RangeStart::Base);
        let range = base.or_else(|| self.before.clone().map(RangeStart::Since));
        range.or_else(|| self.main_branch().map(|main| RangeStart::Base(main.to_owned())))
    }

    /// The repository's main branch, unless it is the one that is built.
    pub fn main_branch(&self) -> Option<&str> {
        let main = self.default_branch.as_deref();
        main.filter(|main| self.branch.as_deref().is_some_and(|branch| branch != *main))
    }
}

/// A pull or merge request, as far as CI tells of it.
struct PullRequest {
    /// What its name begins with where it is called by its number.
    prefix: &'static str,
    number: Option<String>,
    is_from_fork: bool,
    branch: Option<String>,
    base: Option<String>,
}

impl PullRequest {
    /// The branch that is built, under a name that no branch of this repository has unasked; `None` where there is no request.
    fn branch(self) -> Option<String> {
        let branch = self.branch?;
        if !self.is_from_fork && self.base.as_ref() != Some(&branch) {
            return Some(branch);
        }
        let number = self.number.unwrap_or_else(|| "fork".to_owned());
        Some(format!("{}-{number}", self.prefix))
    }
}

/// The page of a run of GitHub Actions.
fn github_run(env: &Env) -> Option<String> {
    let of = |name| env.non_empty(name);
    let (server, repository) = (of("GITHUB_SERVER_URL")?, of("GITHUB_REPOSITORY")?);
    Some(format!("{server}/{repository}/actions/runs/{}", of("GITHUB_RUN_ID")?))
}

/// GitHub's event.
fn read_event(path: &Path) -> Option<Value> {
    serde_json::from_slice(&project_file::read(path).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn assert_says(pairs: &[(&str, &str)], branch: Option<&str>, start: Option<RangeStart>) {
        let said = CiVariables::read(&Env::from_pairs(pairs.iter().copied())).unwrap();
        assert_eq!((said.branch.as_deref(), said.start()), (branch, start));
    }

    #[test]
    fn a_run_has_a_page() {
        let page = |pairs: &[(&str, &str)]| CiVariables::read(&Env::from_pairs(pairs.iter().copied())).unwrap().run;
        let github = [
            ("GITHUB_ACTIONS", "true"),
            ("GITHUB_SERVER_URL", "https://github.com"),
            ("GITHUB_REPOSITORY", "team/stack"),
            ("GITHUB_RUN_ID", "7"),
        ];
        assert_eq!(
            page(&github).as_deref(),
            Some("https://github.com/team/stack/actions/runs/7")
        );
        assert_eq!(
            page(&[("GITLAB_CI", "true"), ("CI_JOB_URL", "https://x/1")]).as_deref(),
            Some("https://x/1")
        );
        assert_eq!(page(&[("JENKINS_URL", "x")]), None);
    }

    #[test]
    fn who_writes_skip_ci_is_heard() {
        let folder = tempfile::tempdir().unwrap();
        let event = folder.path().join("event.json");
        let event = event.to_str().unwrap();
        let github = [("GITHUB_ACTIONS", "true"), ("GITHUB_EVENT_PATH", event)];
        let is_skipped = |pairs: &[(&str, &str)], message: &str| {
            let said = CiVariables::read(&Env::from_pairs(pairs.iter().copied())).unwrap();
            said.is_skipped(message)
        };
        for (text, expected) in [
            (r#"{"head_commit": {"message": "Docs [Skip CI]"}}"#, true),
            (r#"{"pull_request": {"title": "skip ci: words"}}"#, true),
            (r#"{"head_commit": {"message": "Skip the CI"}}"#, false),
            (r#"{"head_commit": null}"#, false),
            ("no JSON", false),
        ] {
            std::fs::write(event, text).unwrap();
            assert_eq!(is_skipped(&github, "A change"), expected, "{text}");
        }
        assert!(is_skipped(&github, "words, skip ci"));
        let gitlab = [("GITLAB_CI", "true"), ("CI_MERGE_REQUEST_TITLE", "[skip ci] x")];
        assert!(is_skipped(&gitlab, "A change"));
        let jenkins = [("JENKINS_URL", "x"), ("CHANGE_TITLE", "no")];
        assert!(!is_skipped(&jenkins, "A change"));
    }

    #[test]
    fn branch_and_range_are_those_of_the_environment() {
        let folder = tempfile::tempdir().unwrap();
        let event = folder.path().join("event.json");
        std::fs::write(&event, r#"{"before": "abc", "after": "def"}"#).unwrap();
        let event = event.to_str().unwrap();
        let since = |id: &str| Some(RangeStart::Since(id.to_owned()));
        let base = |name: &str| Some(RangeStart::Base(name.to_owned()));
        let github = ("GITHUB_ACTIONS", "true");
        let push = [
            github,
            ("GITHUB_REF_NAME", "work"),
            ("GITHUB_HEAD_REF", ""),
            ("GITHUB_EVENT_PATH", event),
        ];
        assert_says(&push, Some("work"), since("abc"));
        let request = [
            github,
            ("GITHUB_REF_NAME", "5/merge"),
            ("GITHUB_HEAD_REF", "work"),
            ("GITHUB_BASE_REF", "main"),
        ];
        assert_says(&request, Some("work"), base("main"));
        assert_says(
            &[github, ("GITHUB_REF_NAME", "v1"), ("GITHUB_REF_TYPE", "tag")],
            None,
            None,
        );
        let gitlab = ("GITLAB_CI", "true");
        let zeros = "0000000000000000000000000000000000000000";
        assert_says(
            &[gitlab, ("CI_COMMIT_BRANCH", "w"), ("CI_COMMIT_BEFORE_SHA", zeros)],
            Some("w"),
            None,
        );
        assert_says(
            &[gitlab, ("CI_COMMIT_BRANCH", "w"), ("CI_COMMIT_BEFORE_SHA", "a1")],
            Some("w"),
            since("a1"),
        );
        let main = ("CI_DEFAULT_BRANCH", "main");
        let new = [gitlab, ("CI_COMMIT_BRANCH", "w"), ("CI_COMMIT_BEFORE_SHA", zeros), main];
        assert_says(&new, Some("w"), base("main"));
        let first = [
            gitlab,
            ("CI_COMMIT_BRANCH", "main"),
            ("CI_COMMIT_BEFORE_SHA", zeros),
            main,
        ];
        assert_says(&first, Some("main"), None);
        let of_new = format!(r#"{{"before": "{zeros}", "repository": {{"default_branch": "trunk"}}}}"#);
        let path = folder.path().join("new.json");
        std::fs::write(&path, of_new).unwrap();
        let new = [
            github,
            ("GITHUB_REF_NAME", "work"),
            ("GITHUB_EVENT_PATH", path.to_str().unwrap()),
        ];
        assert_says(&new, Some("work"), base("trunk"));
        let merge = [
            gitlab,
            ("CI_MERGE_REQUEST_SOURCE_BRANCH_NAME", "w"),
            ("CI_MERGE_REQUEST_TARGET_BRANCH_NAME", "main"),
        ];
        assert_says(&merge, Some("w"), base("main"));
        let jenkins = ("JENKINS_URL", "https://ci.example/");
        let previous = ("GIT_PREVIOUS_SUCCESSFUL_COMMIT", "a1");
        assert_says(&[jenkins, ("GIT_BRANCH", "origin/w"), previous], Some("w"), since("a1"));
        let change = [
            jenkins,
            ("BRANCH_NAME", "PR-1"),
            ("CHANGE_BRANCH", "w"),
            ("CHANGE_TARGET", "main"),
        ];
        assert_says(&change, Some("w"), base("main"));
        assert_eq!(CiVariables::read(&Env::from_pairs([("HOME", "/")])), None);
    }

    #[test]
    fn a_request_from_a_fork_has_no_branch_of_ours() {
        let folder = tempfile::tempdir().unwrap();
        let event = folder.path().join("event.json");
        let path = event.to_str().unwrap();
        let github = [
            ("GITHUB_ACTIONS", "true"),
            ("GITHUB_HEAD_REF", "main"),
            ("GITHUB_BASE_REF", "release"),
            ("GITHUB_EVENT_PATH", path),
        ];
        let release = || Some(RangeStart::Base("release".to_owned()));
        let request = |head: &str| {
            format!(
                r#"{{"number": 5, "pull_request": {{"head": {{"repo": {head}}}, "base": {{"repo": {{"full_name": "t/s"}}}}}}}}"#
            )
        };
        for (head, branch) in [
            (r#"{"full_name": "t/s"}"#, "main"),
            (r#"{"full_name": "mallory/s"}"#, "pr-5"),
            ("null", "pr-5"),
        ] {
            std::fs::write(&event, request(head)).unwrap();
            assert_says(&github, Some(branch), release());
        }
        // A request from a branch to itself is none.
        let same = [
            ("GITHUB_ACTIONS", "true"),
            ("GITHUB_HEAD_REF", "main"),
            ("GITHUB_BASE_REF", "main"),
        ];
        assert_says(&same, Some("pr-fork"), Some(RangeStart::Base("main".to_owned())));
        let gitlab = [
            ("GITLAB_CI", "true"),
            ("CI_MERGE_REQUEST_SOURCE_BRANCH_NAME", "main"),
            ("CI_MERGE_REQUEST_TARGET_BRANCH_NAME", "release"),
            ("CI_MERGE_REQUEST_SOURCE_PROJECT_ID", "8"),
            ("CI_MERGE_REQUEST_PROJECT_ID", "7"),
            ("CI_MERGE_REQUEST_IID", "12"),
        ];
        assert_says(&gitlab, Some("mr-12"), release());
        let jenkins = [
            ("JENKINS_URL", "x"),
            ("BRANCH_NAME", "PR-5"),
            ("CHANGE_BRANCH", "main"),
            ("CHANGE_TARGET", "release"),
            ("CHANGE_FORK", "mallory"),
            ("CHANGE_ID", "5"),
        ];
        assert_says(&jenkins, Some("pr-5"), release());
    }
}
