//! Ports of what plain docker and others make on a dock: where their clients look for them, and what is said of the rest.

use dockerutils_test_support::lab::{self, LabEngine};
use dockerutils_test_support::{Invocation, Outcome, machine};
use dockerutils_tests::dock_home::DockHome;

use crate::ports::answers;

/// A home that is docked to a real dock; its containers are gone at the end.
struct Docked {
    home: DockHome,
    engine: LabEngine,
    /// Names what this test makes.
    mark: String,
}

impl Docked {
    fn new(engine: &str, test: &str) -> Self {
        let docked = Self {
            home: DockHome::new(),
            engine: lab::engine(engine).unwrap(),
            mark: format!("any-tool-ports-{test}-{}", std::process::id()),
        };
        docked.home.use_key(&docked.engine.ssh().unwrap().key, "");
        docked.home.register(&docked.engine, "ann", "far");
        docked
    }

    fn program(&self, program: &str) -> Invocation<'_> {
        let program = self.home.program(program);
        program.env("USER", &self.mark).env("LOGNAME", &self.mark)
    }

    fn bash(&self, script: &str) -> Outcome {
        let words = ["--norc", "--noprofile", "-c", script];
        self.program("bash").args(words).env("MARK", &self.mark).spawn().wait()
    }
}

impl Drop for Docked {
    fn drop(&mut self) {
        // Agents outlive commands, and would outlive this home.
        self.program("unregister-dock").arg("far").spawn().wait();
        let mut docker = self.engine.docker();
        let listed = docker
            .args(["ps", "-aq", "--filter", &format!("name={}", self.mark)])
            .output();
        for id in String::from_utf8_lossy(&listed.unwrap().stdout).lines() {
            let _ = self.engine.docker().args(["rm", "-f", id]).output();
        }
    }
}

#[test]
fn what_suites_read_leads_to_localhost_while_a_shell_is_docked() {
    let docked = Docked::new("26", "suites");
    let said = docked.bash(
        "show() { env | grep '^TESTCONTAINERS_\\|^TC_HOST' | sort; echo; }\nexport TESTCONTAINERS_HOST_OVERRIDE=10.1.1.1\nset -e\n\
         source dock far\nshow\ncastoff\nshow\nsource dock far --no-forward\nshow\ncastoff\nshow",
    );
    assert_eq!(said.code, 0, "{said}");
    assert_eq!(
        said.stdout,
        "TC_HOST=localhost\nTESTCONTAINERS_CONNECTION_MODE=docker_host\n\
         TESTCONTAINERS_DOCKER_SOCKET_OVERRIDE=/var/run/docker.sock\n\
         TESTCONTAINERS_HOST_OVERRIDE=localhost\n\nTESTCONTAINERS_HOST_OVERRIDE=10.1.1.1\n\n\
         TESTCONTAINERS_DOCKER_SOCKET_OVERRIDE=/var/run/docker.sock\n\nTESTCONTAINERS_HOST_OVERRIDE=10.1.1.1\n\n",
        "{said}"
    );
}

#[test]
fn what_does_not_answer_under_its_number_is_said_once_and_listed() {
    let docked = Docked::new("26", "said");
    let said = docked.bash(
        "source dock far\ndocker run -d --name $MARK -p 127.0.0.9:81:80 -p 127.0.0.9:5353:53/udp dockerutils-lab-base:1 sleep 300\n\
         until grep -q udp \"$_DOCK_NOTICE\" 2>/dev/null && grep -q 81 \"$_DOCK_NOTICE\"; do sleep 0.1; done\n\
         cat \"$_DOCK_NOTICE\"; ls-dock --ports",
    );
    assert_eq!(said.code, 0, "{said}");
    let udp = format!("dock: 53/udp of {} stays on far: only TCP is forwarded\n", docked.mark);
    assert_eq!(said.stdout.matches(&udp).count(), 1, "{said}");
    let low = "(81 is below 1024, which is opened here only where it is asked for by name)";
    assert!(said.stdout.contains(low), "{said}");
    let listed = said
        .stdout
        .lines()
        .filter(|line| line.starts_with("far "))
        .collect::<Vec<_>>();
    assert_eq!(listed.len(), 2, "{said}");
    assert!(
        listed.iter().any(|line| line.ends_with("only TCP is forwarded")),
        "{said}"
    );
    assert!(listed.iter().any(|line| line.contains("81 is below 1024")), "{said}");
}

/// The numbers in lines as those of `docker port`, each only once.
fn numbers(text: &str) -> Vec<u16> {
    let mut numbers: Vec<u16> = text
        .lines()
        .filter_map(|line| line.rsplit_once(':')?.1.trim().parse().ok())
        .collect();
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

#[test]
fn a_port_without_a_number_gets_one_that_is_true_here_and_on_the_dock() {
    for engine in ["20", "26", "28-containerd"] {
        let docked = Docked::new(engine, "random");
        let server = "dockerutils-lab-base:1 nc -ll -p 80 -e echo hello";
        let said = docked.bash(&format!(
            "source dock far\nset -e\ndocker run -d --name $MARK -p 80 -p 127.0.0.1::81 -p 82/udp {server} >/dev/null\n\
             docker port $MARK 80"
        ));
        assert_eq!(said.code, 0, "{engine} {said}");
        let [number] = *numbers(&said.stdout) else {
            panic!("{engine} {said}")
        };
        assert!((20_000..30_000).contains(&number), "{engine} {said}");
        answers(number);
        let both = numbers(&docked.bash("source dock far\ndocker port $MARK | grep tcp").stdout);
        assert_eq!(both.len(), 2, "{engine} {both:?}");
        assert!(
            both.iter().all(|number| (20_000..30_000).contains(number)),
            "{engine} {both:?}"
        );

        // Also all that an image exposes, and what the call does; with the paths of the dock, too.
        let said = docked.bash(&format!(
            "source dock far\nset -e\ndocker commit --change 'EXPOSE 80' $MARK $MARK:exposed >/dev/null\n\
             docker rm -f $MARK >/dev/null\nexport DOCK_MOUNTS=literal\n\
             docker run -d --name $MARK-all -P --expose 81 $MARK:exposed {} >/dev/null\n\
             docker port $MARK-all 80\ndocker restart -t 0 $MARK-all >/dev/null\ndocker port $MARK-all 80\n\
             docker port $MARK-all 81 >&2",
            server.strip_prefix("dockerutils-lab-base:1 ").unwrap()
        ));
        assert_eq!(said.code, 0, "{engine} {said}");
        // A restart may take the next number of its range.
        let found = numbers(&said.stdout);
        assert!(matches!(*found, [_] | [_, _]), "{engine} {said}");
        assert!(
            found.iter().all(|number| (20_000..30_000).contains(number)),
            "{engine} {said}"
        );
        let [.., last] = *numbers(said.stdout.lines().last().unwrap()) else {
            panic!("{engine} {said}")
        };
        answers(last);
        let gone = docked.bash("source dock far\ndocker rm -f $MARK-all\ndocker rmi $MARK:exposed");
        assert_eq!(gone.code, 0, "{engine} {gone}");
    }
}

#[test]
fn compose_finds_nothing_changed_in_a_service_whose_port_got_a_number() {
    machine::require("docker-compose", &["docker-compose"], "testing compose on a dock").unwrap();
    let docked = Docked::new("28-containerd", "compose");
    docked.home.sandbox().write(
        "docker-compose.yml",
        "version: '3.4'\nservices:\n  web:\n    image: dockerutils-lab-base:1\n    command: nc -ll -p 80 -e echo hello\n    \
         stop_grace_period: 0s\n    ports: ['80']\n",
    );
    let said = docked.bash(
        "source dock far\nset -e\nexport COMPOSE_PROJECT_NAME=$MARK\ndocker-compose up -d\nfirst=$(docker-compose ps -q)\n\
         docker-compose up -d\n[ \"$first\" = \"$(docker-compose ps -q)\" ]\ndocker-compose port web 80",
    );
    assert_eq!(said.code, 0, "{said}");
    let [number] = *numbers(&said.stdout) else {
        panic!("{said}")
    };
    assert!((20_000..30_000).contains(&number), "{said}");
    answers(number);
}
