//! Ports of what plain docker and others make on a dock: where their clients look for them, and what is said of the rest.

use dockerutils_test_support::lab::{self, LabEngine};
use dockerutils_test_support::{Invocation, Outcome};
use dockerutils_tests::dock_home::DockHome;

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
        "TC_HOST=localhost\nTESTCONTAINERS_DOCKER_SOCKET_OVERRIDE=/var/run/docker.sock\n\
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
