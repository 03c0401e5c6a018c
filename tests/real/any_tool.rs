//! Bind mounts of plain docker, compose and others on a dock: a project of this machine is what they mount.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use dockerutils_test_support::lab::{self, LabEngine, Store, Suite, Throwaway};
use dockerutils_test_support::{Invocation, Outcome, Sandbox, machine, process, wait};
use dockerutils_tests::dock_home::DockHome;
use serde_json::Value;

/// A home that is docked to a real dock, with a project that is a git repository.
pub(crate) struct Docked {
    pub(crate) home: DockHome,
    pub(crate) engine: LabEngine,
    /// In the names of all that the test makes, and in the environment.
    pub(crate) mark: String,
}

impl Docked {
    pub(crate) fn new(test: &str) -> Self {
        Self::at(test, None)
    }

    /// Behind a link that begins at this address, if it is given.
    pub(crate) fn at(test: &str, link: Option<SocketAddr>) -> Self {
        let mark = format!("any-tool-{test}-{}", std::process::id());
        Self::of(DockHome::of(Sandbox::named(&mark)), "26", mark, link)
    }

    /// On an engine of the lab.
    pub(crate) fn on(engine: &str, test: &str) -> Self {
        let mark = format!("any-tool-{test}-{}", std::process::id());
        Self::of(DockHome::of(Sandbox::named(&mark)), engine, mark, None)
    }

    /// The user `mark` in a home of its own.
    pub(crate) fn of(home: DockHome, engine: &str, mark: String, link: Option<SocketAddr>) -> Self {
        Self::with(home, lab::engine(engine).unwrap(), mark, link)
    }

    fn with(home: DockHome, engine: LabEngine, mark: String, link: Option<SocketAddr>) -> Self {
        let ssh = engine.ssh().unwrap();
        home.use_key(&ssh.key, "");
        home.registration(&ssh, link.unwrap_or(ssh.address), "ann", "far").run();
        home.bash("git init --quiet");
        Self { home, engine, mark }
    }

    pub(crate) fn program(&self, program: &str) -> Invocation<'_> {
        self.home
            .program(program)
            .env("TERM", "dumb")
            .env("USER", &self.mark)
            .env("LOGNAME", &self.mark)
            .env("MARK", &self.mark)
            .limit(Duration::from_secs(180))
    }

    /// Runs a script in a docked shell, with both streams in one.
    pub(crate) fn bash(&self, script: &str) -> Outcome {
        let script = format!("source dock far >/dev/null 2>&1\nexec 2>&1\n{script}");
        self.program("bash")
            .args(["--norc", "--noprofile", "-c", &script])
            .spawn()
            .wait()
    }

    /// A file of the project.
    pub(crate) fn read(&self, path: &str) -> String {
        fs::read_to_string(self.home.sandbox().project().join(path)).unwrap_or_default()
    }

    /// The project's copy on the dock.
    pub(crate) fn workspace(&self) -> String {
        format!("/home/ann/workspaces/{0}/code/{0}", self.mark)
    }

    /// What a script says on the dock, as root; the workspace is its first argument.
    pub(crate) fn there(&self, script: &str) -> String {
        let mut exec = self.engine.exec("sh").unwrap();
        process::capture_text(exec.args(["-c", script, "sh", &self.workspace()])).unwrap_or_default()
    }

    pub(crate) fn root(&self) -> String {
        self.home.sandbox().project().display().to_string()
    }
}

impl Drop for Docked {
    fn drop(&mut self) {
        let _ = self.bash(
            "docker ps -aq --filter name=\"$MARK\" | xargs -r docker rm -fv\n\
             docker volume ls -q --filter name=\"$MARK\" | xargs -r docker volume rm",
        );
        self.program("unregister-dock").arg("far").spawn().wait();
        if let Ok(mut exec) = self.engine.exec("rm") {
            let workspace = format!("/home/ann/workspaces/{}", self.mark);
            let _ = exec.args(["-rf", &self.root(), &workspace]).status();
        }
    }
}

pub(crate) const IMAGE: &str = "dockerutils-lab-base:1";

#[test]
fn what_a_person_has_sent_is_mounted_and_what_a_container_makes_is_here_when_it_has_ended() {
    let bench = Docked::new("run");
    bench.home.sandbox().write("words.txt", "one\ntwo\n");
    bench.home.sandbox().write("data/in", "in");
    let run = format!("docker run --rm --name \"$MARK\" -v \"$PWD\":/app -w /app {IMAGE}");
    // No tool has a folder travel without a person's word.
    let refused = bench.bash(&format!("{run} wc -l words.txt"));
    assert_eq!(refused.code, 125, "{refused}");
    let line = format!("cd [SANDBOX]/{} && sync-up --dock far", bench.mark);
    assert!(refused.stdout.contains(&line), "{refused}");
    let said = bench.bash("sync-up -q\nsource dock far");
    assert!(said.stdout.contains("1 sent") || said.code != 3, "{said}");
    // What is here now, with each way to say it.
    let said = bench.bash(&format!(
        "{run} wc -l words.txt\necho three >> words.txt\n{run} wc -l words.txt\n\
         docker run --rm --mount type=bind,source=\"$PWD\"/data,target=/d,readonly {IMAGE} sh -c 'cat /d/in; echo; touch /d/x 2>&1'\n\
         docker volume create \"$MARK\" -o type=none -o o=bind -o device=\"$PWD\"/data >/dev/null\n\
         docker run --rm -v \"$MARK\":/d {IMAGE} ls /d\n\
         docker volume inspect -f '{{{{.Options.device}}}} {{{{.Labels}}}}' \"$MARK\"\ndocker volume rm \"$MARK\" >/dev/null\n\
         ln -s data link; docker run --rm -v \"$PWD\"/link:/d {IMAGE} ls /d; rm link"
    ));
    let device = format!("[SANDBOX]/{}/data map[]", bench.mark);
    assert_eq!(
        said.stdout,
        format!("2 words.txt\n3 words.txt\nin\ntouch: /d/x: Read-only file system\nin\n{device}\nin\n"),
        "{said}"
    );
    // What a container makes, removes and changes is here when docker run returns.
    let said = bench.bash(&format!(
        "{run} sh -c 'wc -l < words.txt > count.txt; rm data/in; echo four >> words.txt'\ncat count.txt words.txt; ls data"
    ));
    assert_eq!(said.stdout, "3\none\ntwo\nthree\nfour\n", "{said}");
    // It is kept in step meanwhile, both ways, and the agent knows who uses it.
    let said = bench.bash(&format!(
        "docker run -d --name \"$MARK\" -v \"$PWD\":/app -v \"$PWD\"/words.txt:/w:ro {IMAGE} sh -c 'until test -e /app/go; do sleep 0.1; done; echo \
         made > /app/made; sleep 600' >/dev/null\nfor i in $(seq 300); do ls-dock --mounts | grep -q 'in step' && break; sleep 0.1; \
         done; ls-dock --mounts\ndocker inspect \"$MARK\" > inspect.json\ntouch go\n\
         docker ps --filter volume=\"$PWD\" --format 'by volume: {{{{.Names}}}}'\ndocker commit \"$MARK\" \"$MARK\" >/dev/null\n\
         docker image inspect -f '{{{{json .Config.Labels}}}}' \"$MARK\"; docker rmi \"$MARK\" >/dev/null\n\
         for i in $(seq 300); do test -s made && break; sleep 0.1; done; cat made\n\
         ls-dock --mounts --json | tr -d ' \\n'; echo\ndocker rm -f \"$MARK\" >/dev/null"
    ));
    assert!(said.stdout.contains("\nmade\n"), "{said}");
    assert!(said.stdout.contains("kept in step"), "{said}");
    assert!(said.stdout.contains("\"running\":true"), "{said}");
    assert!(said.stdout.contains(&format!("by volume: {}\n", bench.mark)), "{said}");
    assert!(said.stdout.contains("\"io.dockerutils.mounts\":\"\""), "{said}");
    let inspect: Value = serde_json::from_str(&bench.read("inspect.json")).unwrap();
    let root = bench.root();
    // The client has them in no order.
    let binds: BTreeSet<String> = inspect[0]["HostConfig"]["Binds"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|bind| bind.as_str().map(str::to_owned))
        .collect();
    let expected = [format!("{root}:/app"), format!("{root}/words.txt:/w:ro")];
    assert_eq!(binds, BTreeSet::from(expected), "{inspect}");
    assert!(!inspect.to_string().contains("io.dockerutils.mounts"), "{inspect}");
    assert!(!inspect.to_string().contains("/workspaces/"), "{inspect}");
}

#[test]
fn what_is_not_on_the_dock_is_refused_by_name_and_never_made_there() {
    let bench = Docked::new("refused");
    let sandbox = bench.home.sandbox();
    sandbox.write("words.txt", "one\n");
    sandbox.write("big/data", "x");
    sandbox.write(".dockerignore", "big\n");
    sandbox.write("../home/pictures/p", "x");
    bench.bash("sync-up");
    let try_it = |source: &str| bench.bash(&format!("docker run --rm -v {source}:/x {IMAGE} ls /x"));
    for (source, why) in [
        ("\"$PWD\"/big", "is left out by .dockerignore"),
        ("\"$PWD\"/nothing", "does not exist here"),
        ("$HOME", "is never sent to a dock"),
        ("/", "is never sent to a dock"),
        ("$HOME/pictures", "is in no project"),
    ] {
        let refused = try_it(source);
        assert_eq!(refused.code, 125, "{source} {refused}");
        assert!(refused.stdout.contains(why), "{source} {refused}");
    }
    // What the dock has for itself, and what both have.
    for source in ["/var/run/docker.sock", "/dev/null", "/etc/passwd"] {
        let said = try_it(source);
        assert_eq!((said.code, said.stdout.as_str()), (0, "/x\n"), "{source}");
    }
    // The engine by this machine's socket, as tools find it in DOCKER_HOST.
    let said = bench.bash(&format!(
        "docker run --rm -v \"${{DOCKER_HOST#unix://}}\":/var/run/docker.sock {IMAGE} ls /var/run/docker.sock"
    ));
    assert_eq!(said.stdout, "/var/run/docker.sock\n", "{said}");
    // Taken literally, the engine does what it always did.
    let said = bench.bash(&format!(
        "export DOCK_MOUNTS=literal; docker run --rm -v \"$PWD\":/x {IMAGE} ls -A /x"
    ));
    assert_eq!((said.code, said.stdout.as_str()), (0, ""), "{said}");
}

#[test]
fn a_link_that_a_container_puts_into_the_copy_leads_no_mount_out_of_it() {
    let bench = Docked::new("stray");
    bench.home.sandbox().write("src/a", "a\n");
    bench.home.sandbox().write("words.txt", "one\n");
    bench.bash("sync-up");
    let mount = format!("docker run --rm -v \"$PWD\"/src:/s {IMAGE} ls /s");
    // What was removed there is removed here when it is brought: it is put back, and stays a conflict.
    let said = bench.bash(&format!(
        "docker run --rm -v \"$PWD\":/app {IMAGE} sh -c 'rm -r /app/src && ln -s /etc /app/src'\nmkdir -p src && echo a > src/a\n{mount}"
    ));
    assert_eq!(said.code, 125, "{said}");
    assert!(said.stdout.contains("leads out of the project's copy"), "{said}");
    assert!(!said.stdout.contains("passwd"), "{said}");
    let line = format!("cd [SANDBOX]/{} && sync-up --dock far --ours src", bench.mark);
    assert!(said.stdout.contains(&line), "{said}");
    let said = bench.bash(&format!("sync-up -q --ours src >/dev/null 2>&1\n{mount}"));
    assert_eq!((said.code, said.stdout.as_str()), (0, "a\n"), "{said}");
    // What was removed there is not made anew as an empty folder.
    let said = bench.bash(&format!(
        "ssh-dock far rm -r workspaces/\"$MARK\"/code/\"$MARK\"/src </dev/null\n{mount}"
    ));
    assert_eq!(said.code, 125, "{said}");
    assert!(said.stdout.contains("was removed on dock"), "{said}");
}

#[test]
fn compose_starts_a_project_and_finds_nothing_changed_the_second_time() {
    machine::require("docker-compose", &["docker-compose"], "testing compose on a dock").unwrap();
    let bench = Docked::new("compose");
    let sandbox = bench.home.sandbox();
    sandbox.write("site/index", "hello\n");
    sandbox.write(
        "docker-compose.yml",
        format!(
            "version: '3.4'\nservices:\n  web:\n    image: {IMAGE}\n    container_name: ${{MARK}}-web\n    command: sh -c 'cat /site/index; echo \
             up > /site/state; sleep 600'\n    init: true\n    volumes:\n    - ./site:/site\n    - named:/named\n    healthcheck:\n      test: test -s \
             /site/state\n      interval: 1s\n  other:\n    image: {IMAGE}\n    container_name: ${{MARK}}-other\n    command: sleep 600\n    init: true\n    \
             depends_on: [web]\n    volumes:\n    - type: bind\n      source: ./site\n      target: /s\n      read_only: true\nvolumes:\n  named: {{}}\n"
        ),
    );
    bench.bash("sync-up");
    let up = "docker-compose -p \"$MARK\" up -d 2>&1; docker ps --filter name=\"$MARK\" --format '{{.ID}}' | sort";
    let said = bench.bash(&format!(
        "{{ {up}; }} > first\nfor i in $(seq 300); do test -s site/state && break; sleep 0.1; done; cat site/state\n{{ {up}; }} > second\ncat second\n\
         docker-compose -p \"$MARK\" logs --no-color web\ndocker-compose -p \"$MARK\" down -v -t 1"
    ));
    assert!(said.stdout.starts_with("up\n"), "{said}");
    let ids = |text: &str| -> Vec<String> {
        let ids = text
            .lines()
            .filter(|line| line.len() == 12 && line.bytes().all(|byte| byte.is_ascii_hexdigit()));
        ids.map(str::to_owned).collect()
    };
    let (first, second) = (bench.read("first"), bench.read("second"));
    assert_eq!(ids(&first).len(), 2, "{first}");
    assert_eq!(ids(&first), ids(&second), "{second}");
    assert!(
        second.contains("up-to-date") && !second.contains("Recreating"),
        "{second}"
    );
    assert!(said.stdout.contains("hello"), "{said}");
}

#[test]
fn many_containers_at_once_and_an_agent_that_is_killed_lose_nothing() {
    let bench = Docked::new("many");
    bench.home.sandbox().write("in", "in\n");
    bench.bash("sync-up");
    let said = bench.bash(&format!(
        "for i in 1 2 3 4 5 6 7 8; do docker run --rm --name \"$MARK-$i\" -v \"$PWD\":/app -w /app {IMAGE} sh -c \"cat in > out-$i\" & done; wait\n\
         cat out-*"
    ));
    assert_eq!(said.stdout, "in\n".repeat(8), "{said}");
    // A container that the dock has made bear the label has nothing brought here.
    let workspace = format!("/home/ann/workspaces/{0}/code/{0}", bench.mark);
    let label = serde_json::json!({ workspace.clone(): bench.root() });
    let posing = bench
        .engine
        .docker()
        .args(["run", "-d", "--name", &format!("{}-posing", bench.mark)])
        .args([
            "--label",
            &format!("io.dockerutils.mounts={label}"),
            "-v",
            &format!("{workspace}:/app"),
            IMAGE,
        ])
        .args(["sh", "-c", "echo x > /app/unasked; sleep 600"])
        .output();
    assert!(posing.unwrap().status.success());
    let said = bench.bash(&format!(
        "docker run -d --name \"$MARK-own\" -v \"$PWD\"/in:/in {IMAGE} sleep 600 >/dev/null\n\
         for i in $(seq 300); do ls-dock --mounts | grep -q 'own .*in step' && break; sleep 0.1; done; ls-dock --mounts; docker rm -f \
         \"$MARK-own\" >/dev/null"
    ));
    assert!(said.stdout.contains("-own"), "{said}");
    assert!(!said.stdout.contains("posing"), "{said}");
    // The worker and what syncs for it: a container goes on, and what it makes comes all the same.
    let said = bench.bash(&format!(
        "docker run -d --name \"$MARK\" -v \"$PWD\":/app {IMAGE} sh -c 'until test -e /app/go; do sleep 0.1; done; echo made > /app/made; sleep 600' \
         >/dev/null\npkill -9 -s $(cat \"$XDG_RUNTIME_DIR\"/dockerutils/*.lock) -f 'dock-agent worker'\ndocker ps -q --filter name=\"^$MARK\\$\" | wc -l\ntouch go\n\
         for i in $(seq 600); do test -s made && break; sleep 0.1; done; cat made\nls-dock --mounts"
    ));
    assert!(said.stdout.starts_with("1\nmade\n"), "{said}");
    assert!(said.stdout.contains("kept in step"), "{said}");
    // Killed in the middle of a creation: it is done, or it is not; docker says so, and the next one works.
    let said = bench.bash(&format!(
        "head -c 50000000 /dev/urandom > ../large && mv ../large large\ndocker create --name \"$MARK-a\" -v \"$PWD\":/app {IMAGE} >/dev/null 2>&1 & sleep 0.3\n\
         pkill -9 -s $(cat \"$XDG_RUNTIME_DIR\"/dockerutils/*.lock) -f 'dock-agent worker'; wait\n\
         docker run --rm -v \"$PWD\":/app {IMAGE} sh -c 'wc -c < /app/large'"
    ));
    assert_eq!(said.stdout, "50000000\n", "{said}");
    wait::until("the agent has ended", || {
        bench
            .program("unregister-dock")
            .args(["far"])
            .any_stdout()
            .any_stderr()
            .spawn()
            .wait();
        bench.home.agents() == 0
    });
}

#[test]
fn what_is_mounted_by_name_is_kept_in_step_as_what_is_mounted_by_its_path() {
    let bench = Docked::new("by-name");
    bench.home.sandbox().write("data/in", "in\n");
    bench.home.sandbox().write("other/in", "other\n");
    bench.bash("sync-up");
    // A volume that stands for a folder here, by each way to mount it.
    let said = bench.bash(&format!(
        "docker volume create \"$MARK\" -o type=none -o o=bind -o device=\"$PWD\"/data >/dev/null\n\
         echo new > data/in\n\
         docker run --rm -v \"$MARK\":/d {IMAGE} sh -c 'cat /d/in; echo made > /d/made'; cat data/made\n\
         docker run --rm --mount type=volume,src=\"$MARK\",dst=/d {IMAGE} sh -c 'rm /d/made; echo more > /d/more'; ls data\n\
         docker run --rm -v \"$MARK-plain\":/d {IMAGE} sh -c 'echo kept > /d/kept'; docker run --rm -v \"$MARK-plain\":/d {IMAGE} cat /d/kept\n\
         ls-dock --mounts --json | tr -d ' \\n'; echo"
    ));
    assert_eq!(said.stdout, "new\nmade\nin\nmore\nkept\n[]\n", "{said}");
    // What another container mounts, by its name and its ID, whether it runs or not; and it is shown as it is here.
    let said = bench.bash(&format!(
        "id=$(docker create --name \"$MARK-a\" -v \"$PWD\"/other:/o -v \"$MARK\":/d {IMAGE} sleep 600)\n\
         docker run --rm --volumes-from \"$MARK-a\" {IMAGE} sh -c 'cat /o/in; echo by-name > /o/made'; cat other/made\n\
         docker run -d --name \"$MARK-b\" --volumes-from $id {IMAGE} sh -c 'until test -e /o/go; do sleep 0.1; done; echo by-id > /d/made; sleep 600' >/dev/null\n\
         for i in $(seq 300); do ls-dock --mounts 2>/dev/null | grep -q 'b .*in step' && break; sleep 0.1; done; ls-dock --mounts 2>/dev/null | grep -c in.step\n\
         docker inspect -f '{{{{range .Mounts}}}}{{{{if eq .Type \"bind\"}}}}{{{{.Source}}}}{{{{end}}}}{{{{end}}}} ({{{{index .Config.Labels \"io.dockerutils.mounts\"}}}})' \"$MARK-b\"\n\
         touch other/go; for i in $(seq 300); do test -s data/made && break; sleep 0.1; done; cat data/made"
    ));
    let shown = format!("[SANDBOX]/{}/other ()", bench.mark);
    assert_eq!(said.stdout, format!("other\nby-name\n1\n{shown}\nby-id\n"), "{said}");
    // An agent that has just begun asks the engine.
    let said = bench.bash(&format!(
        "docker stop -t 0 \"$MARK-b\" >/dev/null\n\
         pkill -9 -s $(cat \"$XDG_RUNTIME_DIR\"/dockerutils/*.lock) -f 'dock-agent worker'\n\
         docker run --rm --volumes-from \"$MARK-b\" {IMAGE} sh -c 'echo after > /o/after'; cat other/after\n\
         docker run --rm -v \"$MARK\":/d:ro -v \"$MARK-plain\":/p {IMAGE} sh -c 'ls /d; echo > /p/x'"
    ));
    assert_eq!(said.stdout, "after\nin\nmade\nmore\n", "{said}");
    // A dock that has made a volume bear the label of another place, or a container one of its own, has nothing followed by that.
    let posing = bench
        .engine
        .docker()
        .args([
            "volume",
            "create",
            &format!("{}-posing", bench.mark),
            "-o",
            "type=none",
            "-o",
            "o=bind",
        ])
        .args(["-o", &format!("device={}", bench.workspace())])
        .args([
            "--label",
            &format!("io.dockerutils.mounts={}", serde_json::json!({"/etc": bench.root()})),
        ])
        .output();
    assert!(posing.unwrap().status.success());
    let posing = bench
        .engine
        .docker()
        .args(["create", "--name", &format!("{}-stranger", bench.mark)])
        .args([
            "--label",
            &format!(
                "io.dockerutils.mounts={}",
                serde_json::json!({bench.workspace(): bench.root()})
            ),
        ])
        .args(["-v", &format!("{}:/app", bench.workspace()), IMAGE])
        .output();
    assert!(posing.unwrap().status.success());
    let said = bench.bash(&format!(
        "docker run -d --name \"$MARK-c\" -v \"$MARK-posing\":/p --volumes-from \"$MARK-stranger\" {IMAGE} sleep 600 >/dev/null && echo runs\n\
         ls-dock --mounts 2>/dev/null | grep -c -- -c; docker rm -fv \"$MARK-a\" \"$MARK-b\" \"$MARK-c\" >/dev/null"
    ));
    assert_eq!(said.stdout, "runs\n0\n", "{said}");
}

#[test]
fn what_the_engine_says_of_a_mount_names_the_path_that_was_said_and_events_show_no_label() {
    let bench = Docked::new("said");
    bench.home.sandbox().write("file", "x");
    bench.home.sandbox().write("data/in", "in");
    bench.bash("sync-up");
    let said = bench.bash(&format!(
        "docker create --name \"$MARK\" --mount type=bind,src=\"$PWD\"/file,dst=/f {IMAGE} true >/dev/null\n\
         docker create --name \"$MARK-v\" --mount type=volume,src=\"$MARK-v\",dst=/d,volume-opt=type=none,volume-opt=o=bind,volume-opt=device=\"$PWD\"/data \
         {IMAGE} true >/dev/null\n\
         ssh-dock far rm -r workspaces/\"$MARK\"/code/\"$MARK\"/file workspaces/\"$MARK\"/code/\"$MARK\"/data </dev/null\n\
         docker start \"$MARK\"; docker start \"$MARK-v\"\n\
         docker create -v \"$PWD\"/:/d:nonsense {IMAGE}"
    ));
    let root = format!("[SANDBOX]/{}", bench.mark);
    assert!(
        said.stdout
            .contains(&format!("bind source path does not exist: {root}/file\n")),
        "{said}"
    );
    assert!(said.stdout.contains(&format!("mount {root}/data:")), "{said}");
    assert!(said.stdout.contains("invalid mode: nonsense"), "{said}");
    assert!(!said.stdout.contains("/workspaces/"), "{said}");
    // The stream goes on meanwhile: each event is there as soon as it has happened.
    let said = bench.bash(&format!(
        "docker events --filter label=mark=\"$MARK\" --format '{{{{json .}}}}' > events & events=$!\n\
         for i in $(seq 300); do docker run --rm --label mark=\"$MARK\" -v \"$PWD\"/:/d {IMAGE} true; test -s events && break; sleep 0.1; done\n\
         docker run --rm --name \"$MARK-last\" --label mark=\"$MARK\" -v \"$PWD\"/:/d {IMAGE} true\n\
         for i in $(seq 300); do grep -q '\"destroy\".*-last' events && break; sleep 0.1; done; kill $events; wait $events 2>/dev/null\n\
         grep -c '\"start\".*-last' events; grep -c io.dockerutils.mounts events"
    ));
    assert_eq!(said.stdout, "1\n0\n", "{said}");
    let events = bench.read("events");
    let first: Value = serde_json::from_str(events.lines().next().unwrap_or_default()).unwrap();
    assert_eq!(first["Actor"]["Attributes"]["mark"], bench.mark.as_str(), "{events}");
}

#[test]
fn the_tasks_of_a_service_are_followed_and_a_service_that_is_deployed_again_is_the_same() {
    let throwaway = Throwaway::start(Suite::Trixie, Store::Classic, None).unwrap();
    let mark = format!("any-tool-service-{}", std::process::id());
    let bench = Docked::with(
        DockHome::of(Sandbox::named(&mark)),
        throwaway.engine().clone(),
        mark,
        None,
    );
    let sandbox = bench.home.sandbox();
    sandbox.write("site/index", "hello\n");
    sandbox.write(
        "stack.yml",
        format!(
            "version: '3.7'\nservices:\n  web:\n    image: {IMAGE}\n    command: sh -c 'cat /site/index > /site/state; until test -e /site/go; do sleep 0.1; done; \
             echo made > /v/made; sleep 600'\n    init: true\n    networks: [machine]\n    volumes:\n    - ./site:/site\n    - data:/v\n\
             networks:\n  machine:\n    external: true\n    name: host\nvolumes:\n  data:\n    driver_opts: {{type: none, o: bind, device: {}/data}}\n",
            bench.root()
        ),
    );
    sandbox.write("data/in", "in\n");
    bench.bash("sync-up");
    assert_eq!(
        bench.there("docker swarm init --advertise-addr 127.0.0.1 >/dev/null && echo ready"),
        "ready"
    );
    let deploy = "docker stack deploy --resolve-image never -c stack.yml \"$MARK\"";
    let said = bench.bash(&format!(
        "{deploy} >/dev/null 2>log || exec cat log\n\
         for i in $(seq 600); do test -s site/state && break; sleep 0.1; done; cat site/state\n\
         for i in $(seq 300); do ls-dock --mounts 2>/dev/null | grep -q 'in step' && break; sleep 0.1; done; ls-dock --mounts 2>/dev/null | grep -c 'in step'\n\
         touch site/go; for i in $(seq 300); do test -s data/made && break; sleep 0.1; done; cat data/made\n\
         show() {{ docker service inspect \"$MARK\"_web; docker inspect $(docker service ps -q \"$MARK\"_web); }}\n\
         show > shown; docker service ps -q --no-trunc \"$MARK\"_web > tasks; {deploy} >/dev/null 2>log || cat log; docker service ps -q --no-trunc \"$MARK\"_web | cmp - tasks && echo same\n\
         grep -c -e /workspaces/ -e io.dockerutils.mounts shown; grep -c -e \"$PWD\"/site -e \"$PWD\"/data shown\n\
         docker stack rm \"$MARK\" >/dev/null 2>&1"
    ));
    assert_eq!(
        said.stdout,
        "hello\n1\nmade\nsame\n0\n4\n",
        "{said}\n{}",
        bench.read("shown")
    );
}
