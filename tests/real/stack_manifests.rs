//! Descriptions of images of a stack, on engines with both stores: a Debian with its own dpkg and a real pip; conda is scripted, in the
//! form of the real one. The registry, in which lists of packages travel, is Debian's.

use std::fs;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dockerutils_core::cli::{Context, GlobalArgs};
use dockerutils_core::docker::connect::client_config::ClientConfig;
use dockerutils_core::env::Env;
use dockerutils_core::error::Error;
use dockerutils_core::output::{Printer, Verbosity};
use dockerutils_stack::artifacts::Artifacts;
use dockerutils_stack::graph::Graph;
use dockerutils_stack::manifests::packages::PackageManager;
use dockerutils_stack::manifests::{self, DescribeRequest, Description, KeptImage};
use dockerutils_stack::registry_state::Registries;
use dockerutils_stack::spec::Spec;
use dockerutils_stack::tags::{StackTarget, TagSource, targets};
use dockerutils_test_support::lab::{self, LabEngine, NotebookImage};
use dockerutils_test_support::process::capture_text;
use dockerutils_test_support::registry::Registry as Server;
use dockerutils_test_support::{Invocation, Sandbox, wait};
use registry_client::{Digest, EMPTY, MANIFEST, Options, Registry, RegistryCredentials, RemoteDescriptor};
use serde_json::json;

/// Prints what `conda list --json` prints for one package that conda installed, and one that pip did.
const CONDA: &str = r#"#!/bin/sh
test "$1 $2" = "list --json" || exit 2
echo '[{"base_url": "https://conda.anaconda.org/conda-forge", "build_number": 0, "build_string": "h1", "channel": "conda-forge",
 "dist_name": "mathlib-VERSION-h1", "name": "mathlib", "platform": "linux-64", "version": "VERSION"},
 {"channel": "pypi", "name": "nbgitpuller", "version": "1.2.1"}]'
"#;

/// A stack of one image on an engine, described by the library as build-stack describes it.
struct Site {
    engine: LabEngine,
    home: tempfile::TempDir,
    spec: Spec,
    target: StackTarget,
    /// The containers and images of this test have it in their names.
    name: String,
}

impl Site {
    fn new(engine: &str, test: &str, registry: &str, section: &str) -> Self {
        let engine = lab::engine(engine).unwrap();
        let name = format!("{}-{test}", lab::mark().unwrap());
        let home = tempfile::tempdir().unwrap();
        let text = format!(
            "tag: {{prefix: 1}}\nimages:\n  science: {{image_name: {registry}/{name}{section}}}\nall_info_cmds:\n  PY: {{description: Python, \
             command: python --version}}\n  FENCE: {{description: 'a </summary> | b', command: \"printf '```\\n</details>\\n````\\n# x\\n'\"}}\n  \
             ENDLESS: {{description: endless, command: yes}}\n  ABSENT: {{description: absent, command: conda-of-nowhere list}}\n  PIPE: \
             {{description: a shell's, command: echo one two | wc -w}}\n  NET: {{description: interfaces, command: ls /sys/class/net}}\n  SLOW: \
             {{description: slow, command: sleep 600}}\n"
        );
        let spec = Spec::parse(&text, Path::new("spec.yml")).unwrap();
        fs::create_dir(home.path().join("science")).unwrap();
        fs::write(home.path().join("science/Dockerfile"), "FROM debian:13\n").unwrap();
        let graph = Graph::read(&spec, home.path()).unwrap();
        let source = TagSource {
            branch: "main".to_owned(),
            ..TagSource::default()
        };
        let (targets, _) = targets(&spec, &graph, &source).unwrap();
        Self {
            engine,
            home,
            spec,
            target: targets.into_iter().next().unwrap(),
            name,
        }
    }

    fn docker(&self, arguments: &[&str]) -> String {
        capture_text(self.engine.docker().args(arguments)).unwrap()
    }

    /// Makes the image of what a script leaves in a container of another one.
    fn make(&self, from: &str, script: &str) {
        self.docker(&[
            "run",
            "--name",
            &self.name,
            "--user=0",
            "--entrypoint=sh",
            from,
            "-ec",
            script,
        ]);
        let label = format!("LABEL {}", lab::label().unwrap());
        self.docker(&[
            "commit",
            "--change",
            &label,
            "--change",
            "LABEL who=a|b",
            &self.name,
            &self.reference(),
        ]);
        self.docker(&["rm", &self.name]);
    }

    fn reference(&self) -> String {
        self.target.designation.to_string()
    }

    fn context(&self) -> Context {
        let env = Env::from_pairs([
            ("HOME", self.home.path().to_str().unwrap()),
            ("USER", "tester"),
            ("DOCKER_HOST", &self.engine.host),
        ]);
        let printer = Printer::new("build-stack", Verbosity::Quiet, false, &env);
        Context::new(
            env,
            PathBuf::from(self.home.path()),
            printer,
            GlobalArgs::default(),
            None,
        )
    }

    fn describe(&self) -> Result<Description, Error> {
        let context = self.context();
        context.block_on(self.description(&context))
    }

    async fn description(&self, context: &Context) -> Result<Description, Error> {
        let engine = context.connect().await?;
        let reference = self.reference();
        let request = DescribeRequest {
            spec: &self.spec,
            target: &self.target,
            parent: None,
            reference: &reference,
            digest: None,
            earlier: &[],
        };
        manifests::describe(context, &engine, &request).await
    }

    /// Describes the image as a runner whose results lie in this folder.
    fn keep(&self, folder: &str, digest: &Digest, before: Option<&Digest>) -> (Description, Artifacts) {
        let context = self.context();
        let artifacts = Artifacts::at(self.home.path().join(folder));
        let kept = context.block_on(async {
            let logins = ClientConfig::of(&context.env)?;
            let registries = Registries::reach([self.target.designation.name.as_str()], &logins, &context.env).await?;
            let engine = context.connect().await?;
            let reference = self.reference();
            let image = KeptImage {
                spec: &self.spec,
                target: &self.target,
                parent: None,
                reference: &reference,
                digest: Some(digest.as_str()),
                before: before.map(Digest::as_str),
                registries: Some(&registries),
                artifacts: &artifacts,
            };
            manifests::keep(&context, &engine, &image).await
        });
        (kept.unwrap(), artifacts)
    }

    /// The containers that were made of the image.
    fn containers(&self) -> String {
        self.docker(&[
            "ps",
            "--all",
            "--quiet",
            "--filter",
            &format!("ancestor={}", self.reference()),
        ])
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = capture_text(self.engine.docker().args(["rm", "--force", &self.name]));
        let _ = capture_text(self.engine.docker().args(["rmi", "--force", &self.reference()]));
    }
}

/// Puts a manifest by a tag, in place of what an engine pushes: what it is of does not matter to what is attached to it.
async fn pushed(server: &Server, repository: &str, tag: &str) -> Digest {
    let registry = Registry::connect(server.address(), RegistryCredentials::Anonymous, Options::default());
    let registry = registry.await.unwrap();
    registry.put_blob(repository, "{}".into()).await.unwrap();
    let manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": RemoteDescriptor::of(EMPTY, b"{}"), "layers": [],
        "annotations": { "tag": tag } });
    let put = registry.put_manifest(repository, tag, MANIFEST, manifest.to_string().into());
    put.await.unwrap()
}

fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Runtime::new().unwrap().block_on(test)
}

fn packages_travel(engine: &str, test: &str) {
    let server = Server::here().start().unwrap();
    let section = ", info_cmds: [PY, FENCE], tags: [{name: python, command: \"python -c 'import sys; print(\\\"python-%d.%d\\\" % \
                   sys.version_info[:2])'\"}]";
    let site = Site::new(engine, test, server.address(), section);
    let jupyter = site.engine.notebook_image(NotebookImage::Jupyter).unwrap();
    let conda = |version: &str| {
        let script = CONDA.replace("VERSION", version);
        format!("cat > /usr/local/bin/conda <<'end'\n{script}end\nchmod +x /usr/local/bin/conda\n")
    };
    site.make(&jupyter, &conda("1.0"));
    let stable = run(pushed(&server, &site.name, "1-stable"));
    let (first, artifacts) = site.keep("first", &stable, None);
    assert_eq!(first.notes, Vec::<String>::new());
    assert_eq!(first.differences, []);
    assert_eq!(first.tags, ["python-3.13"]);
    let versions = |manager: PackageManager, name: &str| {
        let list = first.packages.lists.get(&manager);
        list.and_then(|list| list.get(name)).cloned()
    };
    let dpkg = site.docker(&[
        "run",
        "--rm",
        "--entrypoint=dpkg-query",
        &jupyter,
        "--show",
        "--showformat=${Version}",
        "dpkg",
    ]);
    assert_eq!(versions(PackageManager::Apt, "dpkg").as_deref(), Some(dpkg.trim()));
    assert_eq!(versions(PackageManager::Conda, "mathlib").as_deref(), Some("1.0"));
    assert_eq!(versions(PackageManager::Conda, "nbgitpuller"), None, "pip installed it");
    assert!(
        versions(PackageManager::Pip, "jupyterlab").is_some(),
        "{:?}",
        first.packages
    );
    let page = fs::read_to_string(artifacts.page(&site.reference())).unwrap();
    assert!(
        page.contains("<summary>Python</summary>\n\n<code>python --version</code>\n\n```text\nPython 3.13."),
        "{page}"
    );
    // The texts of the image stay in their places.
    assert!(
        page.contains("<summary>a &#60;/summary&#62; &#124; b</summary>"),
        "{page}"
    );
    assert!(
        page.contains("\n`````text\n```\n</details>\n````\n# x\n`````\n\n</details>"),
        "{page}"
    );
    assert!(page.contains("| <code>who</code> | <code>a&#124;b</code> |"), "{page}");
    assert!(
        page.contains(&format!("| Digest | <code>{stable}</code> |", stable = stable.as_str())),
        "{page}"
    );

    // Another image, described by another runner: it has no page of the one before.
    let change =
        "python -m pip uninstall --yes --quiet jupyterlab; dpkg --remove --force-depends netbase 2>/dev/null || true\n";
    site.make(&jupyter, &format!("{}{change}", conda("2.0")));
    let main = run(pushed(&server, &site.name, "1-main"));
    let (second, artifacts) = site.keep("second", &main, Some(&stable));
    let from: Vec<&str> = second
        .differences
        .iter()
        .map(|difference| difference.from.as_str())
        .collect();
    assert_eq!(from, ["the image before", "1-stable"]);
    for difference in &second.differences {
        let by = &difference.packages.0;
        assert_eq!(by[&PackageManager::Conda].changed["mathlib"], ["1.0", "2.0"]);
        let went: Vec<&String> = by[&PackageManager::Pip].went.keys().collect();
        assert_eq!(went, ["jupyterlab"]);
        assert!(by[&PackageManager::Pip].came.is_empty());
    }
    // As JSON beside the page, and in the list of pages.
    let text = fs::read_to_string(artifacts.page_json(&site.reference())).unwrap();
    let document: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        document["differences"][1]["packages"]["conda"]["changed"]["mathlib"],
        json!(["1.0", "2.0"])
    );
    manifests::write_index(&artifacts).unwrap();
    let index = fs::read_to_string(artifacts.manifests().join("index.md")).unwrap();
    assert!(index.contains("| [science]("), "{index}");
    // Described again, the same is not attached twice, and it still differs from the image before, and not from itself.
    for before in [None, Some(&main)] {
        let (again, _) = site.keep("second", &main, before);
        assert_eq!(again.differences, second.differences);
    }
    let lists = run(async {
        let registry = Registry::connect(server.address(), RegistryCredentials::Anonymous, Options::default());
        registry
            .await
            .unwrap()
            .referrers(&site.name, &main, None)
            .await
            .unwrap()
    });
    assert_eq!(lists.len(), 1);
    assert_eq!(site.containers(), "");
}

#[test]
fn packages_are_told_and_travel_with_an_image_of_a_classic_store() {
    packages_travel("26", "travel");
}

#[test]
fn packages_are_told_and_travel_with_an_image_of_containerds_store() {
    packages_travel("28-containerd", "travelc");
}

#[test]
fn what_a_command_does_has_its_bounds() {
    for engine in ["20", "28-containerd"] {
        let section = ", info_cmds: [ENDLESS, ABSENT, PIPE, NET, PY]";
        let site = Site::new(engine, "bounds", "reg.example", section);
        site.make(lab::BASE_IMAGE, "true");
        let described = site.describe().unwrap();
        let said = |name: &str| described.outputs.iter().find(|output| output.name == name).unwrap();
        assert!(said("ENDLESS").output.len() <= 200_000 && said("ENDLESS").output.starts_with("y\ny\n"));
        assert_eq!(said("ENDLESS").note.as_deref(), Some("cut after 200 kB"));
        assert_eq!(
            said("ABSENT").note.as_deref(),
            Some("conda-of-nowhere is not in the image")
        );
        assert_eq!(said("PIPE").output, "2");
        // Nothing but the loopback interface and what kernels add to each namespace.
        assert!(!said("NET").output.contains("eth"), "{:?}", said("NET"));
        assert_eq!(described.packages.count(), 0);
        assert!(
            described.packages.unknown.is_empty(),
            "a busybox has no package manager"
        );
        assert_eq!(site.containers(), "");
    }
}

#[test]
fn an_image_without_a_shell_has_a_page_all_the_same() {
    let site = Site::new("26", "shell", "reg.example", ", info_cmds: [PY]");
    // A root without a shell.
    let folder = site.home.path().join("root");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("file"), "x").unwrap();
    let mut tar = std::process::Command::new("tar");
    tar.args(["--create", "--directory"]).arg(&folder).arg("file");
    let mut import = site.engine.docker();
    import.args(["import", "-", &site.reference()]);
    dockerutils_test_support::process::pipe(&mut tar, &mut import).unwrap();
    let described = site.describe().unwrap();
    assert_eq!(described.outputs, []);
    assert_eq!(described.notes.len(), 1, "{:?}", described.notes);
    assert!(
        described.notes[0].contains("it has no /bin/sh"),
        "{:?}",
        described.notes
    );
    assert_eq!(site.containers(), "");
}

#[test]
fn tags_that_commands_print_are_checked() {
    for (command, said) in [
        (
            "echo 1-stable",
            "prints 1-stable, which is a tag of a branch, of a commit or of what proved good",
        ),
        (
            "echo sha256-5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef",
            "which is a tag of what is attached to an image",
        ),
        ("echo a b", "prints \"a b\", which can't be a tag"),
        ("sh -c 'echo no >&2; exit 3'", "ended with code 3: no"),
        ("nowhere", "ended with code 12"),
    ] {
        let section = format!(", tags: [{{name: odd, command: \"{command}\"}}]");
        let site = Site::new("26", "tags", "reg.example", &section);
        site.make(lab::BASE_IMAGE, "true");
        let error = site.describe().unwrap_err().to_string();
        assert!(
            error.starts_with("science: ") && error.contains(said),
            "{command}: {error}"
        );
        assert_eq!(site.containers(), "");
    }
}

#[test]
fn who_is_interrupted_leaves_no_container() {
    for engine in ["26", "28-containerd"] {
        let site = Site::new(engine, "cut", "reg.example", ", info_cmds: [SLOW]");
        site.make(lab::BASE_IMAGE, "true");
        let context = site.context();
        let is_over = Arc::new(AtomicBool::new(false));
        let interrupted = context.block_on(async {
            let seen = Arc::clone(&is_over);
            let watch = async {
                loop {
                    let running = tokio::task::block_in_place(|| site.containers());
                    if !running.is_empty() {
                        seen.store(true, Ordering::Relaxed);
                        return;
                    }
                    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                }
            };
            tokio::select! {
                described = site.description(&context) => described.map(drop),
                // As Ctrl-C does: what is under way is dropped.
                () = watch => Ok(()),
            }
        });
        interrupted.unwrap();
        assert!(is_over.load(Ordering::Relaxed), "the command sleeps for ten minutes");
        wait::until("the container to be gone", || site.containers().is_empty());
    }
}

/// A project whose only image is in a registry, and not on the engine.
struct Published {
    sandbox: Sandbox,
    engine: LabEngine,
    registry: Server,
}

impl Published {
    fn new(engine: &str, commands: &str) -> Self {
        let engine = lab::engine(engine).unwrap();
        let registry = Server::on(&engine).shared().start().unwrap();
        let address = registry.address();
        let spec = format!(
            "tag: {{prefix: 1}}\nimages:\n  tool: {{image_name: {address}/tool, info_cmds: [{commands}]}}\nall_info_cmds:\n  ECHO: {{command: \
             echo hello}}\n  SLOW: {{command: sleep 600}}\n"
        );
        let sandbox = Sandbox::new()
            .file("images/spec.yml", spec)
            .file("images/tool/Dockerfile", "FROM scratch\nCOPY file /\n")
            .file("images/tool/file", "x");
        sandbox
            .program("/bin/sh")
            .args(["-ec", "git init -q -b main"])
            .any_stderr()
            .run();
        let published = Self {
            sandbox,
            engine,
            registry,
        };
        let reference = published.reference();
        // A layer of its own: engines remember where they pushed one.
        let script = format!("echo {reference} > /own");
        let container = published.docker(&["run", "--detach", lab::BASE_IMAGE, "sh", "-c", &script]);
        published.docker(&["wait", &container]);
        published.docker(&["commit", &container, &reference]);
        published.docker(&["rm", &container]);
        published.docker(&["push", "--quiet", &reference]);
        published.docker(&["rmi", &reference]);
        published
    }

    fn reference(&self) -> String {
        format!("{}/tool:1-main", self.registry.address())
    }

    fn docker(&self, arguments: &[&str]) -> String {
        capture_text(self.engine.docker().args(arguments))
            .unwrap()
            .trim()
            .to_owned()
    }

    fn describe(&self) -> Invocation<'_> {
        let command = self.sandbox.command("build-stack").arg("--describe");
        command.env("DOCKER_HOST", &self.engine.host).any_stdout().any_stderr()
    }

    fn containers(&self) -> String {
        self.docker(&[
            "ps",
            "--all",
            "--quiet",
            "--filter",
            &format!("ancestor={}", self.reference()),
        ])
    }
}

#[test]
fn what_is_only_in_the_registry_is_described_by_the_command() {
    for engine in ["26", "28-containerd"] {
        let published = Published::new(engine, "ECHO");
        let outcome = published.describe().run();
        let name = published.reference().replace(['/', ':'], "-");
        let page = format!("manifests/{name}.md");
        assert!(outcome.stdout.trim().ends_with(&page), "{}", outcome.stdout);
        let text = published.sandbox.read(&page);
        assert!(
            text.contains("<code>echo hello</code>\n\n```text\nhello\n```\n"),
            "{text}"
        );
        assert!(
            published
                .sandbox
                .read("manifests/index.md")
                .contains(&format!("| [tool]({name}.md) |"))
        );
        let document = published
            .describe()
            .arg("--json")
            .args(["--artifacts", "elsewhere"])
            .run()
            .json();
        let digest = document["images"][0]["digest"].as_str().unwrap().to_owned();
        assert!(text.contains(&digest), "{text}");
        assert!(published.sandbox.project().join("elsewhere").join(&page).exists());
        assert_eq!(published.containers(), "");
    }
}

#[test]
fn ctrl_c_leaves_no_container_of_a_description() {
    let published = Published::new("26", "SLOW");
    let running = published.describe().code(130).spawn();
    wait::until("the container of the description", || {
        !published.containers().is_empty()
    });
    running.interrupt();
    running.wait();
    assert_eq!(published.containers(), "");
    assert_eq!(published.sandbox.leftovers(), Vec::<String>::new());
}
