//! The documentation says what happens: the command lines of every page are run, in order, and their output compared.
//!
//! How a page is written:
//!
//! - A fence `console` holds commands after `$ ` (with `> ` before the lines that continue one) and what they print,
//!   both streams together. A line `...` stands for any lines, `...` in a line for any text; times, sizes, IDs and the
//!   number of blanks between words do not count. A command that fails is followed by `$ echo $?`.
//! - A fence with `title="docker/web/Dockerfile"` is a file, written when its turn comes.
//! - A fence `console notest="why"` is not run: its commands are in [`NOT_RUN`].
//!
//! A page begins in an empty folder `my-app` in the home directory of the user `ann`, on the machine's own engine. These
//! two names, port 8080 and the image `busybox` stand for others in the test: pages that run side by side do not meet,
//! and no build finds the steps of an earlier run in the cache. So does `localhost:5000`: a page that names it finds a
//! registry there, which lets in `ann` with the password `correct-horse`. A page that registers the machine
//! `build-machine` finds it in `~/.ssh/config`: a dock of the lab.
#![expect(clippy::panic, clippy::expect_used, reason = "a harness fails its test by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use dockerutils_test_support::lab::{self, LabEngine};
use dockerutils_test_support::process::capture_text;
use dockerutils_test_support::registry::Registry;
use dockerutils_test_support::{Sandbox, binary, free_port, machine};

/// How long one command of a page may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a server of an example may take until it listens.
const SERVER_START: Duration = Duration::from_secs(15);

/// What pages call the project, the user, a port that is free, and the image that theirs are FROM.
const PROJECT: &str = "my-app";
const USER: &str = "ann";
const PORT: &str = "8080";
const BASE: &str = "busybox";
/// Its tag on pages: a good base has a version.
const BASE_TAG: &str = "1.37";
/// What `source dock` reads.
const SHIM: &str = include_str!("../../crates/dock/shim/dock.sh");
/// The machine that a page registers as a dock.
const DOCK: &str = "register-dock build-machine";
const REGISTRY: &str = "localhost:5000";
const PASSWORD: &str = "correct-horse";

/// Commands that no test can run, each with its page. A page that has another fails, and so does a line too many here.
const NOT_RUN: &[(&str, &str)] = &[
    ("README.md", "cargo xtask demo"),
    ("README.md", "cargo xtask test"),
    ("README.md", "cargo xtask install"),
    ("README.md", "cargo xtask install --prefix /usr/local"),
    ("CONTRIBUTING.md", "cargo xtask test"),
    ("CONTRIBUTING.md", "cargo xtask test --list"),
    ("CONTRIBUTING.md", "cargo xtask test --stage unit"),
    ("CONTRIBUTING.md", "cargo xtask test --stage fmt --stage clippy"),
    ("CONTRIBUTING.md", "cargo xtask test --changed"),
    ("CONTRIBUTING.md", "cargo xtask test --stress"),
    ("CONTRIBUTING.md", "cargo deny check advisories"),
    ("CONTRIBUTING.md", "cargo xtask lab up"),
    ("CONTRIBUTING.md", "cargo xtask lab status"),
    ("CONTRIBUTING.md", "cargo xtask lab down"),
    ("CONTRIBUTING.md", "cargo xtask lab down --all"),
    ("CONTRIBUTING.md", "cargo xtask tidy"),
    ("CONTRIBUTING.md", "cargo xtask fuzz ini --seconds 600"),
    ("CONTRIBUTING.md", "cargo xtask soak sync --minutes 60"),
    ("CONTRIBUTING.md", "cargo xtask soak transfer --minutes 60"),
    ("CONTRIBUTING.md", "cargo xtask gen"),
    ("docs/guides/stacks.md", "plan-stack --base main"),
    (
        "docs/guides/stacks.md",
        "plan-stack --bake | docker buildx bake -f - --push",
    ),
    ("docs/guides/stacks.md", "plan-stack --tags"),
    ("docs/guides/stacks.md", "tag-stack 2026.10-main 2026.10-stable"),
    ("docs/guides/stacks.md", "tag-stack 2026.10-stable stable"),
    (
        "docs/guides/stacks.md",
        "openssl genpkey -algorithm ed25519 -out verdict.key",
    ),
    (
        "docs/guides/stacks.md",
        "openssl pkey -in verdict.key -pubout -out verdict.pub",
    ),
    (
        "docs/guides/stacks.md",
        "tag-stack --verdict-key verdict.pub 2026.10-main 2026.10-stable",
    ),
    ("docs/guides/stacks.md", "oras discover ghcr.io/team/base:2026.10-main"),
    ("docs/guides/stacks.md", "build-stack --base main"),
    ("docs/guides/stacks.md", "build-stack science --no-push"),
    ("docs/guides/stacks.md", "build-stack --only science --no-push"),
    ("docs/guides/stacks.md", "build-stack --no-test"),
    ("docs/guides/stacks.md", "test-stack 2026.10-main"),
    ("docs/guides/stacks.md", "test-stack --only science"),
    ("docs/guides/stacks.md", "test-stack --kind workflow -g 2026.10-main"),
    ("docs/guides/stacks.md", "run-image science -c 'python --version'"),
    ("docs/guides/stacks.md", "run-notebook science"),
    ("docs/guides/stacks.md", "build-stack --describe"),
    ("docs/guides/stacks.md", "build-stack science --describe --json"),
    ("docs/guides/stacks-from-docker-stacks.md", "plan-stack"),
    ("docs/guides/live-development.md", "run-image train"),
    ("docs/guides/live-development.md", "echo $?"),
    ("docs/guides/live-development.md", "run-image --attach"),
    (
        "CONTRIBUTING.md",
        "cargo nextest run --package dockerutils-tests docs::",
    ),
    ("docs/performance.md", "cargo xtask bench"),
    ("docs/performance.md", "cargo xtask bench startup"),
    ("docs/performance.md", "cargo xtask bench context"),
    ("docs/performance.md", "cargo xtask bench run"),
    ("docs/performance.md", "cargo xtask bench context --dock"),
    ("docs/performance.md", "cargo xtask bench dock"),
    ("docs/performance.md", "cargo xtask bench notebook"),
    ("docs/performance.md", "cargo xtask bench stack"),
    ("docs/performance.md", "cargo xtask bench sync"),
    ("docs/performance.md", "cargo xtask bench transfer"),
    (
        "docs/performance.md",
        "cargo xtask bench context --runs 3 --engine 28-containerd",
    ),
    ("docs/guides/gpu-and-cpu.md", "run-image train -t gpu -g"),
    ("docs/guides/build-speed.md", "build-image private"),
    ("docs/guides/live-development.md", "sync-up --watch"),
    ("docs/guides/any-tool.md", "source dock far --expose 5432"),
    (
        "docs/guides/any-tool.md",
        "docker run --rm busybox nc host.docker.internal 5432",
    ),
    ("docs/guides/first-dock.md", "rsync -a -e ssh-dock data/ far:data/"),
    (
        "docs/guides/first-dock.md",
        "register-dock --host tcp://10.0.0.7:2376 --tls-dir ~/certs lab",
    ),
    ("docs/guides/first-dock.md", "register-dock --context colima"),
    (
        "docs/guides/locked-down-servers.md",
        "register-dock server lab --docker-socket /run/user/1000/docker.sock",
    ),
    ("docs/guides/moving-over.md", "pip uninstall dockerutils"),
    ("docs/guides/notebook-on-a-dock.md", "nb-dock far"),
    ("docs/guides/notebook-on-a-dock.md", "nb-dock far --detach"),
    ("docs/guides/notebook-on-a-dock.md", "nb-dock far --stop"),
    (
        "docs/guides/notebook-on-a-dock.md",
        "nb-dock far --launch 'srun --gres=gpu:1'",
    ),
    ("docs/guides/notebooks.md", "run-notebook analysis.ipynb"),
    ("docs/guides/notebooks.md", "run-notebook --dock far"),
    ("docs/guides/notebooks.md", "run-notebook --as-hub"),
    (
        "docs/guides/notebooks.md",
        "curl -fsS \"$(run-notebook --detach --json | jq -r .url)\"",
    ),
    ("docs/guides/notebooks.md", "run-notebook --image rocker/rstudio"),
    ("docs/guides/publish.md", "docker login"),
    ("docs/guides/publish.md", "publish-image web"),
    ("docs/guides/publish.md", "aws sso login --profile work"),
    ("docs/guides/publish.md", "AWS_PROFILE=work publish-image web"),
];

/// Languages of fences. Command lines in any other than `console` would not be run.
const LANGUAGES: [&str; 8] = [
    "console",
    "dockerfile",
    "ini",
    "json",
    "makefile",
    "rust",
    "text",
    "yaml",
];

macro_rules! pages {
    ($($test:ident: $page:literal,)*) => {
        /// Each page has a test of its own.
        const PAGES: &[&str] = &[$($page),*];
        $(
            #[test]
            fn $test() {
                run(&Page::read($page));
            }
        )*
    };
}

pages! {
    readme: "README.md",
    changelog: "CHANGELOG.md",
    contributing: "CONTRIBUTING.md",
    index: "docs/README.md",
    architecture: "docs/architecture.md",
    checks: "docs/checks.md",
    concepts: "docs/concepts.md",
    glossary: "docs/glossary.md",
    performance: "docs/performance.md",
    security: "docs/security.md",
    guide_check: "docs/guides/check.md",
    guide_build_speed: "docs/guides/build-speed.md",
    guide_first_dock: "docs/guides/first-dock.md",
    guide_first_image: "docs/guides/first-image.md",
    guide_gpu_and_cpu: "docs/guides/gpu-and-cpu.md",
    guide_layers: "docs/guides/layers.md",
    guide_live_development: "docs/guides/live-development.md",
    guide_any_tool: "docs/guides/any-tool.md",
    guide_locked_down_servers: "docs/guides/locked-down-servers.md",
    guide_makefiles: "docs/guides/makefiles.md",
    guide_notebook_image: "docs/guides/notebook-image.md",
    guide_moving_over: "docs/guides/moving-over.md",
    guide_notebook_on_a_dock: "docs/guides/notebook-on-a-dock.md",
    guide_notebooks: "docs/guides/notebooks.md",
    guide_publish: "docs/guides/publish.md",
    guide_stacks: "docs/guides/stacks.md",
    guide_stacks_from_chartpress: "docs/guides/stacks-from-chartpress.md",
    guide_stacks_from_docker_stacks: "docs/guides/stacks-from-docker-stacks.md",
    guide_stacks_from_ucsd: "docs/guides/stacks-from-ucsd.md",
    guide_transfer: "docs/guides/transfer.md",
}

#[test]
fn every_page_is_run() {
    let pages: BTreeSet<String> = PAGES.iter().map(|page| (*page).to_owned()).collect();
    assert_eq!(pages, all_pages(), "the list of pages in tests/real/docs.rs");
}

#[test]
fn what_is_not_run_is_listed() {
    let mut found = BTreeSet::new();
    for page in PAGES {
        for part in Page::read(page).parts {
            if let Part::NotRun(commands) = part {
                found.extend(commands.into_iter().map(|command| (*page, command)));
            }
        }
    }
    let listed: BTreeSet<(&str, String)> = NOT_RUN
        .iter()
        .map(|(page, command)| (*page, (*command).to_owned()))
        .collect();
    assert_eq!(found, listed);
}

#[test]
fn links_lead_somewhere() {
    for page in PAGES {
        let text = fs::read_to_string(root().join(page)).expect(page);
        let directory = root().join(page);
        let directory = directory.parent().expect("a page lies in a directory");
        for link in links(&text) {
            if link.contains("://") {
                continue;
            }
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() {
                root().join(page)
            } else {
                directory.join(path)
            };
            assert!(target.exists(), "{page} links to {link}, which is not there");
            if !anchor.is_empty() {
                let text = fs::read_to_string(&target).expect(link);
                assert!(
                    headings(&text).any(|heading| slug(heading) == anchor),
                    "{page} links to {link}, and there is no such heading"
                );
            }
        }
    }
}

/// The first column of the tables in concepts.md between the markers is the list of keys that the code knows.
#[test]
fn every_key_of_the_configuration_is_explained() {
    let source = fs::read_to_string(root().join("crates/core/src/config/settings.rs")).expect("the list of keys");
    let concepts = fs::read_to_string(root().join("docs/concepts.md")).expect("concepts.md");
    for (list, marker) in [
        ("IMAGE_KEYS", "keys"),
        ("DOCKED_KEYS", "docked keys"),
        ("RUN_IMAGE_KEYS", "run_image keys"),
        ("NOTEBOOK_KEYS", "notebook keys"),
        ("BUILD_IMAGE_KEYS", "build_image keys"),
    ] {
        let known = between(&source, &format!("const {list}: &[&str] = &["), "];");
        let known: BTreeSet<&str> = known.split('"').skip(1).step_by(2).collect();
        let (begin, end) = (format!("<!-- {marker} -->"), format!("<!-- /{marker} -->"));
        let explained: BTreeSet<&str> = between(&concepts, &begin, &end)
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
            .collect();
        assert_eq!(explained, known, "{marker} of docs/concepts.md");
    }
}

#[test]
fn wildcards_stand_for_what_varies() {
    let matches = |expected: &str, actual: &str| {
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
        all_match(&lines(expected), &lines(actual))
    };
    assert!(matches("a\n...\nd", "a\nb\nc\nd"));
    assert!(matches("a\n...\nd", "a\nd"));
    assert!(matches("...", ""));
    assert!(matches("took ... s, x...", "took  1.5 s,   xyz"));
    assert!(!matches("took ... s", "took 1.5 m"));
    assert!(!matches("a", "a\nb"));
    assert!(!matches("", "a"));
    assert!(!matches("aba...aba", "aba"));
}

#[test]
fn what_differs_from_run_to_run_is_left_out() {
    for (page, real) in [
        ("built  1.2  2.0 MB", "built 10.9    2.1 MB"),
        ("#5 DONE 0.3s", "#5 DONE 12.0s"),
        ("ann_web_26-01-02_03.04.05 x", "ann_web_27-11-12_13.14.15 x"),
        ("sha256:0123456789ab", "sha256:ba9876543210ff"),
    ] {
        assert_eq!(steady(page), steady(real));
    }
    for (page, real) in [
        ("127.0.0.1", "127.0.0.2"),
        ("5 steps", "6 steps"),
        ("defaced", "facaded"),
        ("a 1.2s", "a 1.2"),
    ] {
        assert_ne!(steady(page), steady(real));
    }
}

#[test]
fn names_are_replaced_as_words() {
    assert_eq!(
        replace_word("ann_dev planned x:ann", "ann", "bob"),
        "bob_dev planned x:bob"
    );
}

/// A page: its fences, in order.
struct Page {
    name: &'static str,
    parts: Vec<Part>,
}

enum Part {
    /// A file, seen from the project.
    File { path: String, text: String },
    /// Commands to run.
    Console(Vec<Step>),
    /// Commands that are not run.
    NotRun(Vec<String>),
}

/// A command and what it prints.
struct Step {
    line: usize,
    command: String,
    output: Vec<String>,
}

impl Page {
    fn read(name: &'static str) -> Self {
        let text = fs::read_to_string(root().join(name)).expect(name);
        let mut parts = Vec::new();
        let mut lines = (1..).zip(text.lines());
        while let Some((at, line)) = lines.next() {
            assert!(
                !line.trim_start().starts_with("```") || line.starts_with("```"),
                "{name}:{at}: a fence that is indented is not read here"
            );
            let Some(info) = line.strip_prefix("```") else {
                continue;
            };
            let body: Vec<(usize, &str)> = lines.by_ref().take_while(|(_, line)| *line != "```").collect();
            let language = info.split(' ').next().unwrap_or_default();
            let title = attribute(info, "title");
            assert!(
                LANGUAGES.contains(&language) || title.is_some(),
                "{name}:{at}: {language:?} is none of {LANGUAGES:?}"
            );
            if let Some(path) = title {
                let text = body.iter().map(|(_, line)| format!("{line}\n")).collect();
                parts.push(Part::File { path, text });
            } else if language == "console" {
                let steps = steps(name, &body);
                parts.push(match attribute(info, "notest") {
                    Some(_) => Part::NotRun(steps.into_iter().map(|step| step.command).collect()),
                    None => Part::Console(steps),
                });
            } else if let Some((line, _)) = body.iter().find(|(_, line)| line.starts_with("$ ")) {
                panic!("{name}:{line}: a command line belongs in a fence `console`");
            }
        }
        Self { name, parts }
    }

    /// Whether a command or a file of it has this in it.
    fn names(&self, text: &str) -> bool {
        self.parts.iter().any(|part| match part {
            Part::File { text: content, .. } => content.contains(text),
            Part::Console(steps) => steps.iter().any(|step| step.command.contains(text)),
            Part::NotRun(_) => false,
        })
    }
}

fn steps(name: &str, body: &[(usize, &str)]) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for (line, text) in body {
        if let Some(command) = text.strip_prefix("$ ") {
            steps.push(Step {
                line: *line,
                command: command.to_owned(),
                output: Vec::new(),
            });
            continue;
        }
        let Some(step) = steps.last_mut() else {
            panic!("{name}:{line}: a console begins with a command");
        };
        match text.strip_prefix("> ") {
            Some(more) if step.output.is_empty() => {
                step.command.push('\n');
                step.command.push_str(more);
            }
            _ => step.output.push((*text).to_owned()),
        }
    }
    steps
}

/// The value of `name="value"` in the first line of a fence.
fn attribute(info: &str, name: &str) -> Option<String> {
    let (_, rest) = info.split_once(&format!(" {name}=\""))?;
    Some(rest.split('"').next()?.to_owned())
}

/// Runs a page from its first line to its last.
fn run(page: &Page) {
    if !page.parts.iter().any(|part| matches!(part, Part::Console(_))) {
        return;
    }
    for (program, package) in [("make", "make"), ("curl", "curl"), ("jq", "jq")] {
        machine::require(program, &[package], "the examples of the documentation")
            .expect("a program that the pages use");
    }
    let mut visit = Visit::begin(page);
    if page.names(DOCK) {
        visit.make_dock();
    }
    let mut shell = Shell::start(&visit);
    for part in &page.parts {
        match part {
            Part::File { path, text } => visit.write(path, text),
            Part::Console(steps) => {
                for (index, step) in steps.iter().enumerate() {
                    let (mut output, mut code) = shell.run(&visit.real(&step.command));
                    // A reader types more slowly than a server begins to listen.
                    let began = Instant::now();
                    while step.command.starts_with("curl ") && code != 0 && began.elapsed() < SERVER_START {
                        thread::sleep(Duration::from_millis(100));
                        (output, code) = shell.run(&visit.real(&step.command));
                    }
                    let output: Vec<String> = visit.shown(&output).lines().map(str::to_owned).collect();
                    let place = format!("{}:{}: $ {}", page.name, step.line, step.command);
                    assert!(
                        all_match(&step.output, &output),
                        "{place}\n--- the page says\n{}\n--- it is\n{}\n---",
                        step.output.join("\n"),
                        output.join("\n")
                    );
                    let says_code = steps.get(index + 1).is_some_and(|next| next.command == "echo $?");
                    assert!(
                        code == 0 || says_code,
                        "{place}\nit ends with code {code}, and the page does not say so:\n{}",
                        output.join("\n")
                    );
                }
            }
            Part::NotRun(_) => {}
        }
    }
}

/// What a page finds: a home, an engine, names that nobody else uses; removed at the end, with what the page made.
struct Visit {
    sandbox: Sandbox,
    engine: LabEngine,
    user: String,
    port: String,
    base: String,
    name: String,
    /// The machine that the page registers, if it does.
    dock: Option<LabEngine>,
    /// Where the page names one.
    registry: Option<Registry>,
}

impl Visit {
    fn begin(page: &Page) -> Self {
        let engine = lab::engine("local").expect("the machine's own engine");
        let sandbox = Sandbox::named("unused");
        static VISITS: AtomicUsize = AtomicUsize::new(0);
        // Pages run in threads of one process, or in processes of their own: it depends on the runner.
        let number = VISITS.fetch_add(1, Ordering::Relaxed);
        let mark = lab::mark().expect("the lab");
        let id = format!("{mark}x{}x{number}", std::process::id());
        let user = format!("{USER}{id}");
        let registry = page.names(REGISTRY).then(|| {
            let recipe = Registry::on(&engine).user(&user, PASSWORD);
            recipe.start().expect("a registry for the page")
        });
        let visit = Self {
            engine,
            sandbox,
            registry,
            user,
            port: free_port().expect("a free port").to_string(),
            base: format!("{BASE}{id}"),
            name: format!("{PROJECT}{id}"),
            dock: None,
        };
        fs::create_dir(visit.project()).expect("a home takes a folder");
        visit.make_base(&visit.engine);
        visit
    }

    /// BuildKit knows a step again by the layers below it: a layer of our own makes all steps new.
    fn make_base(&self, engine: &LabEngine) {
        let docker = |arguments: &[&str]| {
            capture_text(engine.docker().args(arguments)).expect("an image of our own to build from")
        };
        let content = format!("{} {:?}", self.base, SystemTime::now());
        let container = docker(&["create", "--name", &self.base, lab::BASE_IMAGE]);
        let file = self.sandbox.write("run", content);
        docker(&["cp", &file.display().to_string(), &format!("{container}:/etc/run")]);
        let labels = format!("LABEL {} {}", lab::label().expect("the lab"), self.label());
        docker(&["commit", "--change", &labels, &container, &self.base]);
        docker(&["tag", &self.base, &format!("{}:{BASE_TAG}", self.base)]);
        docker(&["rm", &container]);
    }

    /// A dock of the lab as `build-machine` of `~/.ssh/config`, its host key known.
    fn make_dock(&mut self) {
        let dock = lab::engine("26").expect("a dock of the lab");
        let ssh = dock.ssh().expect("a dock that takes ssh");
        self.make_base(&dock);
        let folder = self.sandbox.home().join(".ssh");
        let known_hosts = folder.join("known_hosts");
        let known = ssh.known_hosts();
        let known = known
            .lines()
            .find(|line| line.contains(" ssh-ed25519 "))
            .unwrap_or_default();
        let known = format!("{known}\n");
        let config = format!(
            "Host build-machine\n  HostName {}\n  User ann\n  IdentityFile {}\n  UserKnownHostsFile {}\n  GlobalKnownHostsFile /dev/null\n",
            ssh.address.ip(),
            ssh.key.display(),
            known_hosts.display()
        );
        for (file, text) in [(folder.join("config"), config), (known_hosts, known)] {
            fs::create_dir_all(&folder)
                .and_then(|()| fs::write(file, text))
                .expect("a home takes files");
        }
        // OpenSSH reads the configuration of the password database's home, whatever HOME says.
        let ssh = "#!/bin/sh\nexec /usr/bin/ssh -F \"$HOME/.ssh/config\" \"$@\"\n";
        for (name, text) in [("ssh", ssh), ("dock", SHIM)] {
            let file = self.sandbox.write(&format!("../bin/{name}"), text);
            fs::set_permissions(file, fs::Permissions::from_mode(0o755)).expect("it is ours");
        }
        self.dock = Some(dock);
    }

    /// The label of all images of this visit.
    fn label(&self) -> String {
        format!("io.dockerutils.test={}", self.base)
    }

    fn project(&self) -> PathBuf {
        self.sandbox.home().join(&self.name)
    }

    fn write(&self, path: &str, text: &str) {
        let file = self.project().join(path);
        fs::create_dir_all(file.parent().expect("a file lies in a directory")).expect(path);
        fs::write(&file, self.real(text)).expect(path);
        if text.starts_with("#!") {
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect(path);
        }
    }

    /// What a page says, with the names of this run.
    fn real(&self, text: &str) -> String {
        let text = match &self.registry {
            Some(registry) => text.replace(REGISTRY, registry.address()),
            None => text.to_owned(),
        };
        let text = replace_word(&text, BASE, &self.base);
        let text = replace_word(&text, PROJECT, &self.name);
        replace_word(&replace_word(&text, USER, &self.user), PORT, &self.port)
    }

    /// What a command said, with the names of the page.
    fn shown(&self, text: &str) -> String {
        let text = text.replace(&self.sandbox.home().display().to_string(), "/home/ann");
        let text = match &self.registry {
            Some(registry) => text.replace(registry.address(), REGISTRY),
            None => text,
        };
        let text = replace_word(&text, &self.base, BASE);
        let text = replace_word(&text, &self.name, PROJECT);
        replace_word(&replace_word(&text, &self.user, USER), &self.port, PORT)
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        // Whatever happened, nothing stays; what is gone already is no failure.
        if self.dock.is_some() {
            let mut unregister = Command::new(binary("unregister-dock"));
            let _ = capture_text(
                unregister
                    .arg("far")
                    .env("HOME", self.sandbox.home())
                    .env_remove("XDG_RUNTIME_DIR"),
            );
        }
        for engine in std::iter::once(&self.engine).chain(&self.dock) {
            self.clean(engine);
        }
    }
}

impl Visit {
    /// Removes what a page made on an engine.
    fn clean(&self, engine: &LabEngine) {
        let label = format!("label=io.dockerutils.user={}", self.user);
        let list = ["ps", "--all", "--quiet", "--filter", &label];
        let containers = capture_text(engine.docker().args(list)).unwrap_or_default();
        for container in containers.lines() {
            let _ = capture_text(engine.docker().args(["rm", "--force", container]));
        }
        // There only where the base image could not be made.
        let _ = capture_text(engine.docker().args(["rm", "--force", &self.base]));
        let list = ["images", "--format={{.Repository}}:{{.Tag}}"];
        let images = capture_text(engine.docker().args(list)).unwrap_or_default();
        let ours = |image: &&str| image.contains(&format!("{}-", self.name));
        for image in images.lines().filter(ours).chain([self.base.as_str()]) {
            let _ = capture_text(engine.docker().args(["rmi", "--force", image]));
        }
        // Those that another one has taken the name from.
        let list = ["images", "--quiet", "--filter", &format!("label={}", self.label())];
        for image in capture_text(engine.docker().args(list)).unwrap_or_default().lines() {
            let _ = capture_text(engine.docker().args(["rmi", "--force", image]));
        }
    }
}

/// bash, in the page's project, with both streams in one, as on a terminal.
struct Shell {
    child: Child,
    stdin: ChildStdin,
    lines: Receiver<io::Result<String>>,
}

/// The line after the output of each command.
const MARK: &str = "--- docs.rs: code";

impl Shell {
    fn start(visit: &Visit) -> Self {
        let bin = binary("build-image");
        let bin = bin.parent().expect("a program lies in a directory");
        let path = std::env::var("PATH").unwrap_or_default();
        let home = visit.sandbox.home();
        let (reader, writer) = io::pipe().expect("a pipe");
        let mut child = Command::new("bash")
            .args(["--noprofile", "--norc"])
            .env_clear()
            .env("HOME", &home)
            .env(
                "PATH",
                format!("{}:{}:{path}", home.with_file_name("bin").display(), bin.display()),
            )
            .env("USER", &visit.user)
            .env("LOGNAME", &visit.user)
            .env("LANG", "C.UTF-8")
            .current_dir(visit.project())
            .stdin(Stdio::piped())
            .stdout(writer.try_clone().expect("a pipe has many writers"))
            .stderr(writer)
            .spawn()
            .expect("bash");
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(reader).lines() {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self {
            stdin: child.stdin.take().expect("stdin is piped"),
            child,
            lines,
        }
    }

    /// Runs a command in it; its output and exit code. The next command finds the code in `$?`.
    fn run(&mut self, command: &str) -> (String, i32) {
        let script = format!(
            "{{ {command}\n}} </dev/null\n__code=$?; printf '\\n{MARK} %s\\n' \"$__code\"; (exit \"$__code\")\n"
        );
        self.stdin
            .write_all(script.as_bytes())
            .expect("bash reads what it is told");
        let mut output = String::new();
        loop {
            let Ok(line) = self.lines.recv_timeout(PATIENCE) else {
                panic!("$ {command}\nended the shell, or took too long, after:\n{output}");
            };
            let line = line.expect("output in UTF-8");
            if let Some(code) = line.strip_prefix(MARK) {
                // The mark stands on a line of its own, whether the output ends with one or not.
                output.pop();
                let code = code.trim().parse().expect("a code is a number");
                return (output, code);
            }
            output.push_str(&line);
            output.push('\n');
        }
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether the lines are those that the page says.
fn all_match(expected: &[String], actual: &[String]) -> bool {
    match expected.split_first() {
        None => actual.is_empty(),
        Some((first, rest)) if first == "..." => {
            (0..=actual.len()).any(|skipped| all_match(rest, actual.get(skipped..).unwrap_or(&[])))
        }
        Some((first, rest)) => actual
            .split_first()
            .is_some_and(|(line, lines)| line_matches(first, line) && all_match(rest, lines)),
    }
}

fn line_matches(expected: &str, actual: &str) -> bool {
    let (expected, actual) = (steady(expected), steady(actual));
    let Some((begin, rest)) = expected.split_once("...") else {
        return expected == actual;
    };
    let Some(mut left) = actual.strip_prefix(begin) else {
        return false;
    };
    let mut pieces: Vec<&str> = rest.split("...").collect();
    let end = pieces.pop().unwrap_or_default();
    for piece in pieces {
        match left.split_once(piece) {
            Some((_, after)) => left = after,
            None => return false,
        }
    }
    left.ends_with(end)
}

/// A line without what differs from run to run: seconds and sizes, container names' times, IDs, numbers of blanks.
fn steady(line: &str) -> String {
    const STAMP: &str = "00-00-00_00.00.00";
    let mut steady = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(first) = rest.chars().next() {
        let digits = |text: &str| text.replace(|c: char| c.is_ascii_digit(), "0");
        if let Some(stamp) = rest.get(..STAMP.len()).filter(|text| digits(text) == STAMP) {
            steady.push_str(STAMP);
            rest = rest.strip_prefix(stamp).unwrap_or_default();
            continue;
        }
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '.';
        let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end.max(first.len_utf8()));
        let is_id = word.len() >= 12 && word.chars().all(|c| c.is_ascii_hexdigit());
        let decimal = word.strip_suffix('s').unwrap_or(word).split_once('.');
        let is_number = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
        if is_id {
            steady.push_str("ID");
        } else if decimal.is_some_and(|(whole, part)| is_number(whole) && is_number(part)) {
            steady.push_str(if word.ends_with('s') { "0.0s" } else { "0.0" });
        } else {
            steady.push_str(word);
        }
        rest = after;
    }
    steady.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Replaces `from` where it stands between characters that are neither letters nor digits.
fn replace_word(text: &str, from: &str, to: &str) -> String {
    let mut replaced = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(from) {
        replaced.push_str(before);
        let inside = replaced.ends_with(char::is_alphanumeric) || after.starts_with(char::is_alphanumeric);
        replaced.push_str(if inside { from } else { to });
        rest = after;
    }
    replaced.push_str(rest);
    replaced
}

fn between<'a>(text: &'a str, begin: &str, end: &str) -> &'a str {
    text.split_once(begin)
        .and_then(|(_, rest)| rest.split_once(end))
        .unwrap_or_else(|| panic!("no {begin} ... {end}"))
        .0
}

/// The targets of `[text](target)`.
/// The links of a page, without text in files and commands that only looks like a link.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let prose = text.split("```").step_by(2);
    prose.flat_map(|part| part.split("](").skip(1).filter_map(|rest| rest.split(')').next()))
}

fn headings(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| line.trim_start_matches('#').trim())
}

/// The anchor that GitHub gives a heading.
fn slug(heading: &str) -> String {
    heading
        .to_lowercase()
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The pages that people write: those of docs/reference are made from the commands themselves.
fn all_pages() -> BTreeSet<String> {
    let mut pages = BTreeSet::new();
    let mut directories = vec![PathBuf::new(), PathBuf::from("docs")];
    while let Some(directory) = directories.pop() {
        let entries = fs::read_dir(root().join(&directory)).expect("a directory of pages");
        for entry in entries {
            let name = entry.expect("an entry").file_name();
            let path = directory.join(name);
            if root().join(&path).is_dir() {
                let is_ours = path.starts_with("docs") && path != Path::new("docs");
                if is_ours && path != Path::new("docs/reference") {
                    directories.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "md") {
                pages.insert(path.display().to_string());
            }
        }
    }
    pages
}
