//! `build-image --check` and BuildKit's own checks: of the same Dockerfiles, both find the same by BuildKit's rules, in the same
//! words and lines, whether the engine is asked or not.

use std::collections::BTreeSet;

use dockerutils_test_support::{Random, Sandbox, lab};
use serde_json::Value;

const SEED: u64 = 19;
/// Dockerfiles that are put together by chance.
const GENERATED: usize = 80;
/// BuildKit's rules of engine 28 that need no more than the Dockerfile.
const RULES: [&str; 15] = [
    "ConsistentInstructionCasing",
    "DuplicateStageName",
    "FromAsCasing",
    "FromPlatformFlagConstDisallowed",
    "InvalidDefaultArgInFrom",
    "JSONArgsRecommended",
    "LegacyKeyValueFormat",
    "MaintainerDeprecated",
    "MultipleInstructionsDisallowed",
    "NoEmptyContinuation",
    "RedundantTargetPlatform",
    "ReservedStageName",
    "SecretsUsedInArgOrEnv",
    "StageNameCasing",
    "WorkdirRelativePath",
];
const FROMS: [&str; 9] = [
    "FROM dockerutils-lab-base:1",
    "FROM dockerutils-lab-base:1 AS one",
    "FROM dockerutils-lab-base:1 as Two",
    "from dockerutils-lab-base:1 AS three",
    "From dockerutils-lab-base:1 As Four",
    "FROM --platform=$TARGETPLATFORM dockerutils-lab-base:1",
    "FROM --platform=linux/amd64 dockerutils-lab-base:1",
    "FROM --platform=linux/amd64 dockerutils-lab-base:1 AS for-amd64",
    "FROM scratch AS context",
];
const STEPS: [&str; 30] = [
    "RUN true",
    "run true",
    "Run true",
    "RUN true && \\\n\n  false",
    "RUN true && \\\n  # a comment\n  false",
    "RUN <<EOF\nCMD x\n\nEOF",
    "ARG A=1",
    "ARG API_TOKEN",
    "ARG API_TOKEN=x PASSWORD=y OTHER",
    "ENV SECRET=1",
    "ENV A=1 AUTH=2",
    "ENV KEY value",
    "ENV PLAIN some value",
    "ENV PUBLIC_KEY=1 KEYBOARD=2",
    "LABEL a b",
    "LABEL a=b",
    "CMD echo hello",
    "CMD [\"echo\"]",
    "cmd exec echo",
    "ENTRYPOINT echo",
    "ENTRYPOINT [\"echo\"]",
    "SHELL [\"/bin/sh\", \"-c\"]",
    "HEALTHCHECK CMD true",
    "HEALTHCHECK NONE",
    "MAINTAINER ann",
    "WORKDIR app",
    "WORKDIR /app",
    "EXPOSE 80 53/udp",
    "USER 1000",
    "STOPSIGNAL SIGTERM",
];

fn generated(random: &mut Random) -> String {
    let mut text = String::new();
    if random.one_in(4) {
        text += *random.pick(&["ARG A=1\n", "arg SECRET_TOKEN=1\n", "# a comment\n"]);
    }
    for _ in 0..=usize::from(random.one_in(2)) {
        text += *random.pick(&FROMS);
        text.push('\n');
        while !random.one_in(7) {
            text += *random.pick(&STEPS);
            text.push('\n');
        }
    }
    text
}

/// What is found by BuildKit's rules.
fn found(report: &Value) -> BTreeSet<String> {
    let findings = report["findings"].as_array().expect("a list").iter();
    let of_rules = findings.filter(|finding| RULES.iter().any(|rule| finding["rule"] == *rule));
    of_rules
        .map(|finding| format!("{} {} {}", finding["line"], finding["rule"], finding["message"]))
        .collect()
}

#[test]
fn what_buildkit_finds_is_found_without_it_in_its_words() {
    let engine = lab::engine("28").expect("the lab");
    let mut random = Random::new(SEED);
    let mut sandbox = Sandbox::named("rt-checks");
    let mut texts = Vec::new();
    for number in 0..GENERATED {
        let text = generated(&mut random);
        sandbox = sandbox.file(&format!("docker/d{number:03}/Dockerfile"), text.clone());
        texts.push(text);
    }
    let check = |how: &str| {
        let report = sandbox
            .command("build-image")
            .args(["all", how, "--json"])
            .env("DOCKER_HOST", &engine.host)
            .any_stdout()
            .any_stderr()
            .run();
        report.json()["images"].as_array().expect("a list").clone()
    };
    let (theirs, ours) = (check("--check=engine"), check("--check"));
    assert_eq!((theirs.len(), ours.len()), (GENERATED, GENERATED));
    let mut wrong = Vec::new();
    let mut compared = 0;
    for ((theirs, ours), text) in theirs.iter().zip(&ours).zip(&texts) {
        let is_asked = theirs["findings"]
            .as_array()
            .is_some_and(|findings| findings.iter().any(|finding| finding["found_by"] == "buildkit"));
        let (theirs, ours) = (found(theirs), found(ours));
        compared += if is_asked { theirs.len() } else { 0 };
        if theirs != ours {
            let theirs_only: Vec<_> = theirs.difference(&ours).collect();
            let ours_only: Vec<_> = ours.difference(&theirs).collect();
            wrong.push(format!(
                "{text}\nonly BuildKit: {theirs_only:#?}\nonly ours: {ours_only:#?}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{} differ\n{}", wrong.len(), wrong.join("\n----\n"));
    assert!(compared > 100, "only {compared} findings of BuildKit were compared");
}

#[test]
fn an_engine_without_checks_is_said_and_ours_are_there() {
    let engine = lab::engine("20").expect("the lab");
    let sandbox = Sandbox::named("rt-checks-old").file("docker/dev/Dockerfile", "FROM debian\n");
    sandbox
        .command("build-image")
        .args(["dev", "--check=engine"])
        .env("DOCKER_HOST", &engine.host)
        .stdout_has("BaseWithoutVersion")
        .stderr_has("these are ours alone")
        .run();
}
