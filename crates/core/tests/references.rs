//! The grammar of references, ours against the docker client's, over generated names with a fixed seed. No engine is needed; the
//! docker client is.
#![allow(clippy::expect_used)]

use std::process::{Command, Stdio};

use dockerutils_core::naming::{is_repository, is_tag};
use dockerutils_test_support::{Random, Reply, ScriptedEngine};

const PARTS: [&str; 28] = [
    "a",
    "a",
    "b2",
    "/a",
    "/team",
    "a--b",
    "a__b",
    "reg",
    "docker.io",
    "localhost",
    "-",
    "_",
    ".",
    "--",
    "__",
    "___",
    "-a",
    "a-",
    "a_b",
    "a.b",
    "a..b",
    "[::1]",
    "[g]",
    ":5000",
    ":",
    "/",
    "B",
    "reg.example:5000/",
];

/// A name and its tag.
fn reference(random: &mut Random) -> (String, String) {
    let parts = 1 + random.index(3);
    let mut name: String = (0..parts).map(|_| *random.pick(&PARTS)).collect();
    if random.one_in(2) {
        name = format!(
            "{}/{name}",
            random.pick(&[
                "docker.io",
                "-docker.io",
                "a-.example",
                "localhost",
                "[::1]:5000",
                "team"
            ])
        );
    }
    let tag = random.pick(&["1", "latest", "_x", "V1.2-rc_3", "1", "a", ".x", "a b", "x/y"]);
    (name, (*tag).to_owned())
}

#[test]
fn references_are_taken_as_the_docker_client_takes_them() {
    let mut random = Random::new(15);
    let engine = ScriptedEngine::start().on("POST", "/images/*/tag", Reply::empty(201));
    let config = tempfile::tempdir().expect("a directory");
    let (mut differences, mut taken) = (Vec::new(), 0);
    for _ in 0..150 {
        let (name, tag) = reference(&mut random);
        let first = name.split('/').next().unwrap_or_default();
        // docker takes a first part with a capital letter for a host. One that has neither dot nor port is a slip of the pen.
        let is_odd = name.contains('/') && first.contains('B') && !first.contains(['.', ':']);
        let before = engine.requests().len();
        let status = Command::new("docker")
            .args(["-H", &engine.host(), "tag", "x"])
            .arg(format!("{name}:{tag}"))
            .env("DOCKER_CONFIG", config.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .expect("the docker client, to compare with");
        let asked = engine.requests();
        let is_asked = asked.iter().skip(before).any(|request| request.path.ends_with("/tag"));
        assert_eq!(status.success(), is_asked, "{name}:{tag}");
        let ours = is_repository(&name) && is_tag(&tag);
        taken += usize::from(is_asked);
        if (ours || !is_odd) && ours != is_asked {
            differences.push(format!("{name}:{tag}: docker {is_asked}, ours {ours}"));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    assert!(taken > 20, "{taken}");
}
