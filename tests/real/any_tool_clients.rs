//! Clients of Docker that are not ours, unchanged, on real docks: docker compose and buildx of Debian, Testcontainers,
//! pytest-docker and repo2docker of PyPI, and the calls of dev containers.

mod options;

use std::fs;
use std::os::unix::fs::symlink;

use dockerutils_test_support::Outcome;
use dockerutils_test_support::process::pipe;
use dockerutils_tests::{debian_clients, python};

use crate::any_tool::{Docked, IMAGE};

/// A home that is docked, with clients of docker's age 26.1 and with Python packages.
struct Bench {
    docked: Docked,
    /// What a script begins with.
    environment: String,
}

impl Bench {
    fn new(test: &str) -> Self {
        let docked = Docked::new(test);
        let clients = debian_clients::directory().unwrap();
        let python = python::CONTAINER_TOOLS.commands().unwrap();
        let home = docked.home.sandbox().home();
        fs::create_dir_all(home.join(".docker")).unwrap();
        symlink(clients.join("cli-plugins"), home.join(".docker/cli-plugins")).unwrap();
        let environment = format!(
            "export PATH=\"{}:{}:$PATH\" IMAGE={IMAGE} PYTHONDONTWRITEBYTECODE=1\n",
            python.display(),
            clients.display()
        );
        Self { docked, environment }
    }

    /// Runs a script in a docked shell, with both streams in one.
    fn bash(&self, script: &str) -> Outcome {
        self.docked.bash(&format!("{}{script}", self.environment))
    }

    fn write(&self, path: &str, content: &str) {
        self.docked.home.sandbox().write(path, content);
    }

    /// Sends the project, as a person does once.
    fn sync(&self) {
        let said = self.docked.bash("sync-up -q");
        assert_eq!(said.code, 0, "{said}");
    }

    /// What the engine of the dock says, asked directly.
    fn there(&self, script: &str) -> String {
        let output = std::process::Command::new("sh")
            .args(["-c", script])
            .env("DOCKER_HOST", &self.docked.engine.host)
            .env("MARK", &self.docked.mark)
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.there(
            "{ docker ps -aq --filter name=\"$MARK\"; docker ps -aq --filter ancestor=\"$MARK-ryuk:1\"; } | sort -u | xargs -r docker rm -fv\n\
             docker network ls -q --filter name=\"$MARK\" | xargs -r docker network rm\n\
             docker volume ls -q --filter name=\"$MARK\" | xargs -r docker volume rm -f\n\
             docker images -q --filter reference=\"$MARK*\" | xargs -r docker rmi -f",
        );
    }
}

/// Waits in a script until a command succeeds; says so if it does not.
fn until(command: &str) -> String {
    format!("for i in $(seq 600); do {command} && break; sleep 0.1; [ $i != 600 ]; done || echo 'error: in vain' >&2")
}

#[test]
fn testcontainers_mounts_the_project_and_reaches_its_ports() {
    let bench = Bench::new("testcontainers");
    bench.write("data/in", "in\n");
    bench.write("out/.keep", "");
    bench.write("suite.py", include_str!("any_tool_clients/testcontainers_alone.py"));
    bench.sync();
    let said = bench.bash(&format!(
        "export TESTCONTAINERS_RYUK_DISABLED=true\npython3 suite.py\n{}; cat out/made",
        until("test -s out/made")
    ));
    assert_eq!(
        said.stdout,
        "port in\n\n\
         exec BytesExecResult(exit_code=0, output=b'b c\\ntouch: /data/x: Read-only file system\\ncopied600\\n')\n\
         binds ['HERE/data:/data:ro', 'HERE/out:/out:rw']\n\
         client 0 (b'in\\n', b'')\n\
         logs (b'ready\\n', b'')\n\
         made\n",
        "{said}"
    );
}

#[test]
fn what_testcontainers_leaves_behind_is_reaped_when_its_process_is_gone() {
    let bench = Bench::new("ryuk");
    bench.write("data/in", "in");
    bench.write("suite.py", include_str!("any_tool_clients/testcontainers_killed.py"));
    bench.sync();
    // Every Debian has Perl, and so has the dock.
    let make = "mkdir \"$0\" && cd \"$0\" && cat > ryuk.pl && tar --create --dereference --directory / $(ldd /usr/bin/perl | grep -o \
                '/[^ ]*') /usr/bin/perl /usr/lib/*/perl-base --directory \"$0\" ryuk.pl | docker import --change 'ENTRYPOINT [\"/usr/bin/perl\", \
                \"/ryuk.pl\"]' - \"$1\"; rm -r \"$0\"";
    let (folder, image) = (
        format!("/tmp/{}", bench.docked.mark),
        format!("{}-ryuk:1", bench.docked.mark),
    );
    let mut cat = std::process::Command::new("cat");
    cat.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/real/any_tool_clients/ryuk.pl"));
    let mut sh = bench.docked.engine.exec("sh").unwrap();
    pipe(&mut cat, sh.args(["-c", make, &folder, &image])).unwrap();
    let said = bench.bash(&format!(
        "export RYUK_CONTAINER_IMAGE={image} RYUK_RECONNECTION_TIMEOUT=1s\n\
         python3 suite.py &\nwait $!\necho $?\n\
         session=$(docker ps --filter ancestor={image} --format '{{{{.Names}}}}' | sed s/testcontainers-ryuk-//)\n\
         test -n \"$session\" || echo no session\n\
         left() {{ docker ps -aq --filter label=org.testcontainers.session-id=$session; docker network ls -q --filter \
         label=org.testcontainers.session-id=$session; }}\n{}\nleft\n{}",
        until("test -z \"$(left)\""),
        until(&format!("test -z \"$(docker ps -aq --filter ancestor={image})\"")),
    ));
    assert_eq!(said.stdout.lines().next(), Some("in"), "{said}");
    assert!(said.stdout.ends_with("\n137\n"), "{said}");
}

#[test]
fn compose_2_builds_starts_watches_and_ends_a_project() {
    let bench = Bench::new("compose-2");
    bench.write(
        "web/Dockerfile",
        &format!("FROM {IMAGE}\nARG WHO\nRUN echo \"$WHO\" > /who\nCOPY page /www/page\n"),
    );
    bench.write("web/page", "built\n");
    bench.write("site/index", "hello\n");
    bench.write("secret", "hush\n");
    bench.write("common.env", "FROM_FILE=1\n");
    bench.write(
        "compose.yml",
        &format!(
            r#"
services:
  database:
    image: {IMAGE}
    command: sh -c 'echo up > /state/up; exec nc -ll -p 5432 -e cat /state/up'
    init: true
    volumes:
    - state:/state
    - type: tmpfs
      target: /scratch
    healthcheck:
      test: nc localhost 5432 < /dev/null | grep up
      interval: 1s
      retries: 60
  web:
    build:
      context: web
      args:
        WHO: compose
    command: sh -c 'cat /who /www/page /run/secrets/hush /config; nc database 5432; echo started > /site/started; exec nc -ll -p 80 -e cat /site/index'
    init: true
    env_file: common.env
    depends_on:
      database:
        condition: service_healthy
    ports:
    - "80"
    volumes:
    - ./site:/site
    - type: bind
      source: ./site/index
      target: /index
      read_only: true
    secrets: [hush]
    configs:
    - source: config
      target: /config
    develop:
      watch:
      - action: sync
        path: web
        target: /www
volumes:
  state: {{}}
secrets:
  hush:
    file: ./secret
configs:
  config:
    file: ./common.env
"#
        ),
    );
    bench.sync();
    let said = bench.bash(&format!(
        "exec 3>&1 >log 2>&1\nexport COMPOSE_PROJECT_NAME=\"$MARK\"\n\
         docker compose version --short >&3\n\
         docker compose up -d --build --wait || echo up failed >&3\n\
         docker compose logs --no-log-prefix web >&3\n\
         port=$(docker compose port web 80)\nask() {{ (exec 9<>/dev/tcp/127.0.0.1/${{port##*:}} && timeout 5 cat <&9) > ask; }}\n{}\n\
         docker compose exec -T web cat /index >&3\n\
         echo changed > site/index\n{}; cat ask >&3\n\
         docker compose ps -q | sort > before\ndocker compose up -d --wait; docker compose ps -q | sort > after; cmp before after >&3 && echo unchanged >&3\n\
         docker compose run --rm -T --no-deps -v \"$PWD\"/site:/extra web cat /extra/started >&3\n\
         docker compose cp web:/who copied; cat copied >&3\n\
         docker compose watch --no-up > watching 2>&1 & watch=$!\n{}\n\
         echo watched > web/page\n{}; docker compose exec -T web cat /www/page >&3\nkill -INT $watch; wait $watch\n\
         docker compose down -v -t 1 --rmi local; docker ps -aq --filter name=\"$MARK\" >&3; docker volume ls -q --filter name=\"$MARK\" >&3\n\
         cat site/started >&3; grep -i -E 'warn|error' log >&3",
        until("ask; test -s ask"),
        until("ask; grep -q changed ask"),
        until("grep -q enabled watching"),
        until("docker compose exec -T web grep -q watched /www/page"),
    ));
    let version = said.stdout.lines().next().unwrap_or_default();
    assert!(version.starts_with("2."), "{said}");
    // It clears its line, terminal or not.
    let rest = said.stdout.strip_prefix(version).unwrap().replace("\u{1b}[2K", "");
    assert_eq!(
        rest,
        "\ncompose\nbuilt\nhush\nFROM_FILE=1\nup\nhello\nchanged\nunchanged\nstarted\ncompose\nwatched\nstarted\n",
        "{said}\n{}",
        bench.docked.read("log")
    );
}

#[test]
fn buildx_builds_with_the_engine_of_the_dock() {
    let bench = Bench::new("buildx");
    bench.write("secret", "hush\n");
    bench.write("other/file", "of another context\n");
    bench.write("app/file", "of the context\n");
    bench.write(
        "app/Dockerfile",
        &format!(
            "# syntax-free\nFROM {IMAGE} AS base\nARG WHO=nobody\nCOPY file /file\nCOPY --from=other file /other\n\
             RUN --mount=type=secret,id=s --mount=type=cache,target=/cache cat /run/secrets/s > /secret; echo \"$WHO\" > /who\n\
             RUN --mount=type=bind,target=/here wc -c < /here/file > /size\n\
             FROM scratch AS files\nCOPY --from=base /file /other /secret /who /size /\nFROM base\n"
        ),
    );
    bench.write(
        "docker-bake.hcl",
        "variable \"MARK\" {}\ntarget \"default\" {\n  context = \"app\"\n  contexts = { other = \"other\" }\n  args = { WHO = \"bake\" }\n  \
         secret = [\"id=s,src=secret\"]\n  tags = [\"${MARK}:baked\"]\n}\n",
    );
    let said = bench.bash(
        "exec 3>&1 >log 2>&1\ndocker buildx inspect | grep -E '^(Driver|Status)' | tr -d ' ' >&3\n\
         build() { docker buildx build --build-context other=other --secret id=s,src=secret --build-arg WHO=me \"$@\" app; }\n\
         build --load -t \"$MARK:1\" --metadata-file meta --iidfile id\ngrep -c containerimage.config.digest meta >&3\n\
         test \"$(cat id)\" = \"$(docker image inspect -f '{{.Id}}' \"$MARK:1\")\" && echo same >&3\n\
         docker run --rm \"$MARK:1\" cat /file /other /secret /who /size >&3\n\
         build --target files -o type=local,dest=out; ls out >&3; cat out/size >&3\n\
         build --target files -o - | tar t | sort | tail -1 >&3\n\
         docker buildx bake; docker run --rm \"$MARK:baked\" cat /who >&3\n\
         build -t \"$MARK:1\" --progress=plain 2>&1 | grep -c CACHED >&3\n\
         docker buildx du | grep -q Total && echo du >&3\n\
         cat app/Dockerfile | docker build -q --build-context other=other --secret id=s,src=secret --build-arg WHO=me -f - app >id2; cmp id id2 || diff id <(tr -d '\\n' <id2) >&3\n\
         docker buildx build --call=check app >/dev/null; true",
    );
    assert_eq!(
        said.stdout,
        "Driver:docker\nStatus:running\n1\nsame\nof the context\nof another context\nhush\nme\n15\nfile\nother\nsecret\nsize\nwho\n15\nwho\nbake\n4\ndu\n",
        "{said}\n{}",
        bench.docked.read("log")
    );
}

#[test]
fn pytest_docker_starts_what_its_compose_file_says() {
    let bench = Bench::new("pytest");
    bench.write("tests/data/in", "in\n");
    bench.write(
        "tests/docker-compose.yml",
        &format!(
            "services:\n  server:\n    image: {IMAGE}\n    command: nc -ll -p 7000 -e cat /data/in\n    init: true\n    volumes:\n    - ./data:/data:ro\n    \
             ports: ['7000']\n"
        ),
    );
    bench.write(
        "tests/test_server.py",
        include_str!("any_tool_clients/pytest_docker.py"),
    );
    bench.sync();
    let said = bench.bash("pytest -q -p no:cacheprovider tests; docker ps -aq --filter name=\"$MARK\"");
    let last = said.stdout.trim_end().lines().last().unwrap_or_default();
    assert!(last.starts_with("2 passed"), "{said}");
}

#[test]
fn the_calls_of_dev_containers_do_what_they_do_here() {
    let bench = Bench::new("dev");
    bench.write("data/in", "in\n");
    bench.write("calls.py", include_str!("any_tool_clients/api_calls.py"));
    bench.sync();
    let said = bench.bash(&format!(
        "python3 calls.py\n{}; cat made put",
        until("test -s made && test -s put")
    ));
    assert_eq!(
        said.stdout,
        "event True\n\
         attached (1, 18) b'Container started\\n'\n\
         found [True]\n\
         mounts [('bind', '/workspaces/app', 'HERE')]\n\
         shell /workspaces/app\nin\nb\n[1]\n\n\
         shell 3000000\n[0]\n\n\
         put True\n\
         run ExecResult(exit_code=0, output=b'ran\\n')\n\
         get 3000000 True\n\
         put True\n\
         tty ExecResult(exit_code=0, output=b'terminal\\r\\n')\n\
         size True\n\
         top True\n\
         stats True\n\
         ended 0\n\
         made\nput",
        "{said}"
    );
}

#[test]
fn the_command_line_of_dev_containers_does_what_it_does_here() {
    let bench = Bench::new("devcontainer");
    bench.write("data/in", "in\n");
    bench.sync();
    // The lines are those that the CLI of dev containers and VS Code write; each shell is told what to do by its stdin.
    let said = bench.bash(&format!(
        "docker version --format '{{{{.Server.Os}}}}'\n\
         docker run --sig-proxy=false -a STDOUT -a STDERR --mount type=bind,source=\"$PWD\",target=/workspaces/app,consistency=cached \
         --mount type=volume,src=\"$MARK-vscode\",dst=/vscode -l devcontainer.local_folder=\"$PWD\" -l \
         devcontainer.metadata='[{{\"remoteUser\":\"root\"}}]' --name \"$MARK-dev\" --entrypoint /bin/sh {IMAGE} -c 'echo Container started\n\
         trap \"exit 0\" 15\nexec \"$@\"\nwhile sleep 1 & wait $!; do :; done' - > started 2>&1 &\n{}; cat started\n\
         id=$(docker ps -q -a --filter label=devcontainer.local_folder=\"$PWD\")\n\
         docker inspect --type container $id > inspect.json\n\
         docker inspect -f '{{{{json .Mounts}}}}' $id | grep -c \"\\\"Source\\\":\\\"$PWD\\\"\"\n\
         printf 'cd /workspaces/app\\ncat data/in\\necho \"$A\" > written\\nexit 7\\n' | docker exec -i -u root -e A=b $id /bin/sh; echo $?\n\
         mkdir server; echo x > server/x; tar -c server | docker exec -i $id tar -x -C /vscode; docker exec $id cat /vscode/server/x\n\
         docker cp server $id:/tmp/; docker cp $id:/tmp/server/x - | tar -xO\n\
         docker commit $id \"$MARK:dev\" >/dev/null; docker image inspect -f '{{{{json .Config.Labels}}}}' \"$MARK:dev\" | grep -c devcontainer.metadata\n\
         docker stop -t 30 $id >/dev/null; wait; docker start $id >/dev/null; docker exec $id cat /workspaces/app/written\n\
         {}; cat written; docker rm -fv $id >/dev/null",
        until("grep -q started started"),
        until("test -s written"),
    ));
    assert_eq!(
        said.stdout, "linux\nContainer started\n1\nin\n7\nx\nx\n1\nb\nb\n",
        "{said}"
    );
}

#[test]
fn repo2docker_edits_the_project_that_it_has_built() {
    let bench = Bench::new("repo2docker");
    bench.write("Dockerfile", &format!("FROM {IMAGE}\nWORKDIR /home/work\nCOPY in in\n"));
    bench.write("in", "in\n");
    bench.sync();
    let said = bench.bash(&format!(
        "jupyter-repo2docker --editable --user-id 1000 --user-name me --image-name \"$MARK:r2d\" . sh -c 'cat in; echo made > made; echo said' > log 2>&1\n\
         echo $?; grep -x -E 'in|said' log\n{}; cat made",
        until("test -s made")
    ));
    assert_eq!(
        said.stdout,
        "0\nin\nsaid\nmade\n",
        "{said}\n{}",
        bench.docked.read("log")
    );
}
