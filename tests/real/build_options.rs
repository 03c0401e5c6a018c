//! Options of `docker build` in build_args, as they work on the engines: what is printed is run by the real docker
//! client, and the images that it makes are compared with ours.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::SystemTime;

use dockerutils_test_support::Sandbox;
use dockerutils_test_support::lab::{self, Client, Store, Suite, Throwaway};
use dockerutils_test_support::process::{capture, capture_text, on_path};
use dockerutils_test_support::wait;
use dockerutils_tests::site::{self, EngineBuilder, Site};

/// What a RUN finds of the options, in `/facts`.
const FACTS: &str = "FROM dockerutils-lab-base:1 AS first\n\
    ARG GIVEN\n\
    ARG FROM_ENVIRONMENT\n\
    ARG ABSENT=default\n\
    ARG EMPTY=full\n\
    RUN { echo given=$GIVEN; echo environment=$FROM_ENVIRONMENT; echo absent=$ABSENT; echo empty=$EMPTY; \
    echo files=$(ulimit -Sn):$(ulimit -Hn); echo core=$(ulimit -c); \
    echo shm=$(df -k /dev/shm | awk 'END { print $2 }'); \
    grep -E 'db|six' /etc/hosts | sort; echo links=$(ls /sys/class/net | grep -c ^eth); } > /facts\n\
    FROM first AS second\n\
    RUN echo second > /second\n";

fn facts(site: &Site, image: &str) -> String {
    site.file(image, "/facts")
}

/// Builds with both; what the RUN found, and the image's configuration, must be the same. Gives the facts.
fn compare(site: &Site, sandbox: &Sandbox, project: &str, environment: &[(&str, &str)]) -> String {
    site.docker_builds_the_same(sandbox, project, &["web"], environment);
    let ours = environment
        .iter()
        .fold(site.build_image(sandbox), |build, (name, value)| build.env(name, value));
    ours.arg("web").any_stdout().run();
    let name = format!("{project}-web:{}", site.tag());
    let reference = format!("{project}-reference-web:{}", site.tag());
    let (found, expected) = (facts(site, &name), facts(site, &reference));
    assert_eq!(found, expected, "{site}");
    let (ours, docker) = (site.inspect(&name), site.inspect(&reference));
    for part in ["Architecture", "Os", "Variant"] {
        assert_eq!(ours[part], docker[part], "{site}: {part}");
    }
    for part in [
        "Env",
        "Cmd",
        "Entrypoint",
        "Labels",
        "User",
        "WorkingDir",
        "Volumes",
        "ExposedPorts",
    ] {
        assert_eq!(ours["Config"][part], docker["Config"][part], "{site}: {part}");
    }
    found
}

#[test]
fn arguments_labels_limits_and_hosts() {
    const PROJECT: &str = "rt-options-run";
    let sandbox = Sandbox::named(PROJECT).file("docker/web/Dockerfile", FACTS).file(
        "docker/dockerutils.cfg",
        "[web]\nbuild_args = --no-cache --build-arg GIVEN='a b=c' --build-arg FROM_ENVIRONMENT --build-arg NOWHERE\n  \
             --build-arg EMPTY= --target first --label plain=1 --label 'spaced=a b, c' --label bare --shm-size 32m\n  \
             --ulimit nofile=1000:2000 --ulimit core=0 --add-host db:10.1.2.3 --add-host six:::1 --network none\n",
    );
    site::everywhere(|site| {
        let _images = site.images(PROJECT);
        let found = compare(site, &sandbox, PROJECT, &[("FROM_ENVIRONMENT", "it's me")]);
        let lines: Vec<&str> = found.lines().collect();
        for expected in ["given=a b=c", "absent=default", "empty=", "links=0"] {
            assert!(lines.contains(&expected), "{site}: {expected}:\n{found}");
        }
        let name = format!("{PROJECT}-web:{}", site.tag());
        assert_eq!(site.inspect(&name)["Config"]["Labels"]["spaced"], "a b, c", "{site}");
        // `--target first` ended there.
        let second = capture(
            site.docker()
                .args(["run", "--rm", "--network=none", &name, "cat", "/second"]),
        );
        assert!(second.is_err(), "{site}");
        // The BuildKit of 20.10 knows neither.
        if site.builder == EngineBuilder::Classic || !site.engine.version.starts_with("20.10") {
            for expected in ["files=1000:2000", "core=0", "shm=32768"] {
                assert!(lines.contains(&expected), "{site}: {expected}:\n{found}");
            }
        }
    });
}

#[test]
fn platform_names_host_network_and_more_tags() {
    const PROJECT: &str = "rt-options-more";
    let platform = match std::env::consts::ARCH {
        "x86_64" => "linux/amd64",
        "aarch64" => "linux/arm64",
        other => other,
    };
    let sandbox = Sandbox::named(PROJECT).file("docker/web/Dockerfile", FACTS).file(
        "docker/dockerutils.cfg",
        format!(
            "[web]\nbuild_args = --no-cache --network host --platform {platform} -t {PROJECT}-other:one \
                 --tag={PROJECT}-other:two --iidfile id.txt\n"
        ),
    );
    site::everywhere(|site| {
        let _images = site.images(PROJECT);
        // The file of the ID is one for all.
        let sandbox = Sandbox::named(PROJECT).file("docker/web/Dockerfile", FACTS).file(
            "docker/dockerutils.cfg",
            sandbox
                .read("docker/dockerutils.cfg")
                .replace("-other:", &format!("-{}:", site.tag())),
        );
        let others = ["one", "two"].map(|tag| format!("{PROJECT}-{}:{tag}", site.tag()));
        let reference = format!("{PROJECT}-reference-{}:one", site.tag());
        compare(site, &sandbox, PROJECT, &[]);
        let id = site.inspect(&format!("{PROJECT}-web:{}", site.tag()))["Id"].clone();
        for other in &others {
            assert_eq!(site.inspect(other)["Id"], id, "{site}: {other}");
        }
        assert_eq!(sandbox.read("id.txt"), id.as_str().unwrap(), "{site}");
        capture(site.docker().args(["rmi", "--force", &reference]).args(&others)).unwrap();
    });
}

#[test]
fn secrets_reach_a_run_and_nothing_else() {
    const PROJECT: &str = "rt-secrets";
    let sandbox = Sandbox::named(PROJECT)
        .file(
            "docker/web/Dockerfile",
            "FROM dockerutils-lab-base:1\n\
             RUN --mount=type=secret,id=file,required --mount=type=secret,id=variable,mode=0444 \
             --mount=type=secret,id=elsewhere,target=/there { cat /run/secrets/file; echo; cat /run/secrets/variable; \
             echo; cat /there; echo; ls -l /run/secrets | grep -c r--r--r--; } > /facts\n",
        )
        .file("secrets/file", "from a file")
        .file("secrets/elsewhere", "from another")
        .file(".dockerignore", "secrets\n")
        .file(
            "docker/dockerutils.cfg",
            "[web]\nbuild_args = --no-cache --secret id=file,src=secrets/file --secret id=variable,env=MY_SECRET \
             --secret type=file,id=elsewhere,source=secrets/elsewhere\n",
        );
    site::on_buildkit(|site| {
        let _images = site.images(PROJECT);
        let found = compare(site, &sandbox, PROJECT, &[("MY_SECRET", "from the environment")]);
        assert_eq!(found, "from a file\nfrom the environment\nfrom another\n1", "{site}");
        let history =
            capture_text(
                site.docker()
                    .args(["history", "--no-trunc", &format!("{PROJECT}-web:{}", site.tag())]),
            );
        assert!(!history.unwrap().contains("from the environment"), "{site}");
    });
    site::on_classic(|site| {
        site.build_image(&sandbox)
            .env("MY_SECRET", "x")
            .arg("web")
            .code(2)
            .any_stdout()
            .stderr_has("option --secret id=file needs BuildKit")
            .run();
    });
}

#[test]
fn a_secret_that_is_missing_is_named() {
    const PROJECT: &str = "rt-secret-missing";
    let sandbox = Sandbox::named(PROJECT).file(
        "docker/web/Dockerfile",
        "FROM dockerutils-lab-base:1\nRUN --mount=type=secret,id=token,required cat /run/secrets/token\n",
    );
    site::on_buildkit(|site| {
        let outcome = site.build_image(&sandbox).arg("web").code(1).any_stdout().run();
        assert!(outcome.stderr.contains("token"), "{site}: {outcome}");
    });
}

#[test]
fn named_contexts_and_heredocs() {
    const PROJECT: &str = "rt-named-contexts";
    let sandbox = Sandbox::named(PROJECT)
        .file(
            "docker/web/Dockerfile",
            "FROM start\nCOPY --from=other sub/file /facts\nRUN <<END\nset -e\necho heredoc >> /facts\nEND\n",
        )
        .file(".dockerignore", "elsewhere\n")
        .file("elsewhere/sub/file", "from another folder\n")
        .file("elsewhere/unused", vec![b'x'; 1_000_000])
        .file(
            "docker/dockerutils.cfg",
            "[web]\nbuild_args = --build-context other=elsewhere --build-context start=docker-image://dockerutils-lab-base:1 --no-cache\n",
        );
    site::on_buildkit(|site| {
        // The Dockerfile frontend of 20.10 knows neither.
        if site.engine.version.starts_with("20.10") {
            return;
        }
        let _images = site.images(PROJECT);
        assert_eq!(
            compare(site, &sandbox, PROJECT, &[]),
            "from another folder\nheredoc",
            "{site}"
        );
        let report = build(site, &sandbox, "web");
        assert!(report["context_bytes"].as_u64().unwrap() < 100_000, "{site}: {report}");
    });
}

/// An ssh-agent, killed at the end.
struct SshAgent(Child);

impl Drop for SshAgent {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl SshAgent {
    fn start(socket: &Path) -> Self {
        let child = Command::new("ssh-agent")
            .arg("-D")
            .arg("-a")
            .arg(socket)
            .stdout(Stdio::null())
            .spawn()
            .expect("ssh-agent is needed: apt-get install openssh-client");
        let agent = Self(child);
        wait::until("ssh-agent takes connections", || UnixStream::connect(socket).is_ok());
        agent
    }
}

/// Puts this machine's ssh-add and the libraries that it needs below `tools/` of the project: busybox has none.
fn add_ssh_add(sandbox: &Sandbox) {
    let program = on_path("ssh-add").expect("ssh-add is needed: apt-get install openssh-client");
    let listed = capture_text(Command::new("ldd").arg(&program)).unwrap();
    let libraries = listed
        .lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    for file in libraries.chain([program.to_str().unwrap()]) {
        let copy = sandbox.write(&format!("tools{file}"), fs::read(file).unwrap());
        fs::set_permissions(copy, fs::Permissions::from_mode(0o755)).unwrap();
    }
}

fn make_key(folder: &Path, name: &str) {
    capture(
        Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-C", name, "-f"])
            .arg(folder.join(name)),
    )
    .unwrap();
}

#[test]
fn ssh_agents_and_key_files_reach_a_run() {
    const PROJECT: &str = "rt-ssh";
    let sandbox = Sandbox::named(PROJECT)
        .file(
            "docker/web/Dockerfile",
            "FROM dockerutils-lab-base:1\n\
             COPY tools /\n\
             RUN --mount=type=ssh /usr/bin/ssh-add -l > /default\n\
             RUN --mount=type=ssh,id=deploy /usr/bin/ssh-add -l > /deploy\n\
             RUN --mount=type=ssh,id=deploy ! ls /root/.ssh\n",
        )
        .file(".dockerignore", "keys\nagent\n")
        .file(
            "docker/dockerutils.cfg",
            "[web]\nbuild_args = --no-cache --ssh default --ssh deploy=keys/one,keys/two\n",
        )
        .dir("keys");
    add_ssh_add(&sandbox);
    let keys = sandbox.project().join("keys");
    for name in ["agent", "one", "two"] {
        make_key(&keys, name);
    }
    let socket = sandbox.project().join("agent");
    let _agent = SshAgent::start(&socket);
    capture(
        Command::new("ssh-add")
            .arg("-q")
            .arg(keys.join("agent"))
            .env("SSH_AUTH_SOCK", &socket),
    )
    .unwrap();
    site::on_buildkit(|site| {
        let _images = site.images(PROJECT);
        site.build_image(&sandbox)
            .env("SSH_AUTH_SOCK", &socket)
            .arg("web")
            .any_stdout()
            .run();
        let image = format!("{PROJECT}-web:{}", site.tag());
        let names = |file: &str| -> Vec<String> {
            let listed = site.file(&image, file);
            listed
                .lines()
                .filter_map(|line| line.split_whitespace().nth(2))
                .map(str::to_owned)
                .collect()
        };
        assert_eq!(names("/default"), ["agent"], "{site}");
        assert_eq!(names("/deploy"), ["one", "two"], "{site}");
    });
    // The private agents of the key files are gone.
    assert!(sandbox.leftovers().is_empty(), "{:?}", sandbox.leftovers());
}

#[test]
fn a_cache_mount_lives_from_build_to_build() {
    const PROJECT: &str = "rt-cache-mount";
    // A cache of an engine outlives the test; this one is ours alone.
    let id = format!(
        "{:?}",
        SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap()
            .as_nanos()
    );
    let dockerfile = |word: &str| {
        format!(
            "FROM dockerutils-lab-base:1\nRUN --mount=type=cache,target=/cache,id={id} echo {word} >> /cache/log && cp /cache/log /facts\n"
        )
    };
    let sandbox = Sandbox::named(PROJECT)
        .file("docker/one/Dockerfile", dockerfile("one"))
        .file("docker/two/Dockerfile", dockerfile("two"));
    site::on_buildkit(|site| {
        let _images = site.images(PROJECT);
        for image in ["one", "two"] {
            site.build_image(&sandbox).arg(image).any_stdout().run();
        }
        assert_eq!(
            facts(site, &format!("{PROJECT}-two:{}", site.tag())),
            "one\ntwo",
            "{site}"
        );
    });
}

/// The report of a build, from `--json`.
fn build(site: &Site, sandbox: &Sandbox, image: &str) -> serde_json::Value {
    let report = site
        .build_image(sandbox)
        .args([image, "--json"])
        .any_stdout()
        .run()
        .json();
    report["images"][0].clone()
}

#[test]
fn cached_is_said_of_what_came_from_the_cache() {
    const PROJECT: &str = "rt-cached";
    let now = SystemTime::now();
    let content = format!("{now:?}");
    let sandbox = Sandbox::named(PROJECT)
        .file(
            "docker/web/Dockerfile",
            format!("FROM dockerutils-lab-base:1\nENV B='{now:?}'\nARG A\nRUN echo $A $B > /ran\nCOPY file /\n"),
        )
        // BuildKit knows a step again by what it is given, too: what an earlier run copied, and onto what.
        .file("file", &content);
    let no_cache = Sandbox::named(PROJECT)
        .file("docker/web/Dockerfile", sandbox.read("docker/web/Dockerfile"))
        .file("docker/dockerutils.cfg", "[web]\nbuild_args = --no-cache\n")
        .file("file", &content);
    site::everywhere(|site| {
        let _images = site.images(PROJECT);
        let first = build(site, &sandbox, "web");
        assert_eq!(first["status"], "built", "{site}: {first}");
        assert_eq!(first["cached_steps"], 0, "{site}: {first}");
        let second = build(site, &sandbox, "web");
        assert_eq!(second["status"], "cached", "{site}: {second}");
        assert_eq!(second["cached_steps"], second["steps"], "{site}: {second}");
        assert_eq!(second["id"], first["id"], "{site}");
        let third = build(site, &no_cache, "web");
        assert_eq!(third["status"], "built", "{site}: {third}");
        assert_eq!(third["cached_steps"], 0, "{site}: {third}");
        let image = site.inspect(&format!("{PROJECT}-web:{}", site.tag()));
        assert_eq!(image["Id"], third["id"], "{site}");
    });
}

#[test]
fn cache_from_takes_steps_of_an_image() {
    const PROJECT: &str = "rt-cache-from";
    let dockerfile = "FROM dockerutils-lab-base:1\nRUN date > /built\nRUN cat /proc/uptime > /second\n";
    // An engine of our own, because the test empties its build cache. From its other store no builder takes a cache
    // without a registry.
    let throwaway = Throwaway::start(Suite::Trixie, Store::Classic, None).unwrap();
    for builder in [EngineBuilder::BuildKit, EngineBuilder::Classic] {
        let site = Site {
            engine: throwaway.engine().clone(),
            builder,
        };
        let source = format!("{PROJECT}-source:{}", site.tag());
        let sandbox = Sandbox::named(PROJECT)
            .file("docker/source/Dockerfile", dockerfile)
            .file("docker/web/Dockerfile", dockerfile)
            .file(
                "docker/dockerutils.cfg",
                format!(
                    "[source]\nbuild_args = --build-arg BUILDKIT_INLINE_CACHE=1\n[web]\nbuild_args = --cache-from {source}\n"
                ),
            );
        site.build_image(&sandbox).arg("source").any_stdout().run();
        capture(site.docker().args(["builder", "prune", "--all", "--force"])).unwrap();
        let web = build(&site, &sandbox, "web");
        assert_eq!(web["cached_steps"], 2, "{site}: {web}");
        let built = |image: &str| site.file(&format!("{PROJECT}-{image}:{}", site.tag()), "/built");
        assert_eq!(built("web"), built("source"), "{site}");
    }
}

/// Whether docker's client and ours build with each of these options, the client of engine 26.1 with buildx 0.13.
#[test]
fn what_docker_refuses_is_refused_and_what_it_ignores_is_ignored() {
    const PROJECT: &str = "rt-options-needs";
    /// What docker passes over without a word, and we refuse.
    const STRICTER: [&str; 1] = ["--annotation a=b"];
    let sandbox = Sandbox::named(PROJECT)
        .file("docker/web/Dockerfile", "FROM dockerutils-lab-base:1\n")
        .file("file", "");
    for (name, is_containerd) in [("26", false), ("26-containerd", true)] {
        let engine = lab::engine(name).unwrap();
        let site = Site {
            engine: engine.clone(),
            builder: EngineBuilder::BuildKit,
        };
        let _images = site.images(PROJECT);
        let client = Client::start(&engine, sandbox.project()).unwrap();
        for (option, is_taken) in [
            ("--memory 1g", true),
            ("--memory-swap 2g", true),
            ("--cpu-shares 2", true),
            ("--cpu-period 1000", true),
            ("--cpu-quota 1000", true),
            ("--cpuset-cpus 0", true),
            ("--cpuset-mems 0", true),
            ("--security-opt seccomp=unconfined", true),
            ("--squash", true),
            ("--isolation process", true),
            ("--label =x", false),
            ("--build-arg =x", false),
            ("--build-context x=nowhere", false),
            ("--build-context x=file", false),
            ("--build-context x=docker", true),
            ("--provenance=true", is_containerd),
            ("--provenance=false", true),
            ("--attest type=provenance", is_containerd),
            ("--annotation a=b", is_containerd),
            ("--cache-to type=inline", true),
            ("--cache-to type=local,dest=/tmp/rt-options-needs", is_containerd),
        ] {
            let mut docker = client.exec(sandbox.project(), "docker");
            docker.args([
                "buildx",
                "build",
                "-t",
                &format!("{PROJECT}-reference-web:{}", site.tag()),
            ]);
            docker
                .args(["-f", "docker/web/Dockerfile"])
                .args(option.split(' '))
                .arg(".");
            let theirs = capture(&mut docker);
            let taken = theirs.is_ok() && (is_containerd || !STRICTER.contains(&option));
            assert_eq!(taken, is_taken, "{site}: docker and {option}: {theirs:?}");
            sandbox.write("docker/dockerutils.cfg", format!("[web]\nbuild_args = {option}\n"));
            // A folder for a cache is one of the client's.
            if option.contains("type=local") && is_taken {
                continue;
            }
            let code = if is_taken { 0 } else { 2 };
            let outcome = site
                .build_image(&sandbox)
                .arg("web")
                .code(code)
                .any_stdout()
                .any_stderr()
                .run();
            let is_ignored = outcome.stderr.contains("is ignored: this engine builds with BuildKit");
            let is_of_classic = option.starts_with("--memory")
                || option.starts_with("--cpu")
                || ["--security-opt", "--squash", "--isolation"]
                    .iter()
                    .any(|name| option.starts_with(name));
            assert_eq!(is_ignored, is_of_classic, "{site}: {option}: {outcome}");
        }
    }
}
