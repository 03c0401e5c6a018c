//! The options of `docker create` that mount something: the container on a dock is the one that the same line makes here,
//! sources apart; and what is shown of it is what was said.
//!
//! "Here" is the dock's own engine, asked directly, where the project is at the same path as here: so that both are of
//! the same version, and nothing else than the agent lies between the two.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use dockerutils_test_support::option_line;
use dockerutils_test_support::process::{capture, pipe};
use serde_json::{Map, Value, json};

use crate::any_tool::{Docked, IMAGE};
use crate::run_options::{differing, normal, one_line};

/// One line is one case.
const LINES: &str = include_str!("lines.txt");
/// The agent sends the project before each container, for all that wait at once: the more there are, the fewer times.
const WORKERS: usize = 12;
const LABEL: &str = "io.dockerutils.mounts";

/// How an engine is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Here,
    Docked,
}

/// What became of a line.
#[derive(Debug)]
enum Made {
    /// A container, by its ID.
    Container(String),
    /// By the engine or the agent.
    Refused(String),
    /// By the client, in its own words.
    Unasked(String),
}

/// A line, with what only we have before it, and what became of it.
struct Case<'a> {
    line: &'a str,
    marker: &'a str,
    here: Made,
    docked: Made,
}

/// A project that is on a dock, in its workspace and at the path that it has here.
struct Bench {
    docked: Docked,
    /// The agent's socket, and the engine's.
    sockets: [PathBuf; 2],
}

impl Bench {
    fn new(engine: &str) -> Self {
        let docked = Docked::on(engine, &format!("options-{engine}"));
        let project = docked.home.sandbox();
        for file in [
            "data/in",
            "data/sub/deep/x",
            "file",
            "sp ace/x",
            "únï/日本/x",
            "co,mma/x",
            "it's",
            "q\"uote",
            "-dash/x",
            "do$llar/x",
            "back\\slash/x",
            "a;b&c/x",
            "%41+=?#/x",
            ".hidden/x",
            "[a]*/x",
            "co:lon/x/y",
            "left-out/x",
        ] {
            project.write(file, "x");
        }
        project.write(".dockerignore", "left-out\n");
        for (link, target) in [("link", "data"), ("colon", "co:lon")] {
            std::os::unix::fs::symlink(target, project.project().join(link)).unwrap();
        }
        // The file stays when the listener goes.
        drop(UnixListener::bind(project.project().join("socket")).unwrap());
        let said = docked.bash("sync-up -q >/dev/null && echo $DOCKER_HOST");
        let sandbox = docked.home.sandbox().home();
        let sandbox = sandbox.parent().unwrap().display().to_string();
        let agent = said.stdout.trim().trim_start_matches("unix://");
        let agent = agent.replace("[SANDBOX]", &sandbox);
        assert!(Path::new(&agent).exists(), "{said}");
        let direct = docked.engine.host.trim_start_matches("unix://").to_owned();
        let root = docked.root();
        let make = "mkdir -p \"$0\" && tar --extract --directory \"$0\"";
        let mut tar = Command::new("tar");
        tar.args(["--create", "--directory", &root, "."]);
        pipe(&mut tar, docked.engine.exec("sh").unwrap().args(["-c", make, &root])).unwrap();
        let bench = Self {
            docked,
            sockets: [agent, direct].map(PathBuf::from),
        };
        for side in [Side::Here, Side::Docked] {
            let line = "--name $OTHER -v $PWD/data:/data -v $PWD/data/sub:/sub:ro -v $VOLUME:/volume";
            let made = bench.create(side, "neighbour", option_line::words(line));
            assert!(matches!(made, Made::Container(_)), "{made:?}");
        }
        bench
    }

    fn socket(&self, side: Side) -> &Path {
        let [agent, direct] = &self.sockets;
        match side {
            Side::Here => direct,
            Side::Docked => agent,
        }
    }

    /// Has the docker client create a container.
    fn create(&self, side: Side, case: &str, words: Vec<String>) -> Made {
        let mark = &self.docked.mark;
        let words = words.into_iter().map(|word| {
            let word = word.replace("$PWD", &self.docked.root()).replace("$MARK", mark);
            let word = word.replace("$VOLUME", &format!("{mark}-{case}-{side:?}"));
            word.replace("$OTHER", &format!("{mark}-neighbour-{side:?}"))
        });
        let mut create = self.docker(side);
        create.args(["create", "--pull=never"]).args(words);
        let output = create.args([&format!("--label=test={mark}"), IMAGE]).output().unwrap();
        if output.status.success() {
            return Made::Container(String::from_utf8_lossy(&output.stdout).trim().to_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        match said.split_once("Error response from daemon: ") {
            Some((_, reason)) => Made::Refused(without_side(&one_line(reason))),
            None => Made::Unasked(without_side(&one_line(&said))),
        }
    }

    fn docker(&self, side: Side) -> Command {
        let mut docker = Command::new("docker");
        docker
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", self.docked.home.sandbox().home())
            .env("DOCKER_HOST", format!("unix://{}", self.socket(side).display()))
            .current_dir(self.docked.root())
            .stdin(Stdio::null());
        docker
    }

    fn case<'a>(&self, line: &'a str, number: usize) -> Case<'a> {
        let (marker, options) = match line.split_at_checked(2) {
            Some((marker @ ("! " | "~ " | "% "), options)) => (marker, options),
            _ => ("", line),
        };
        let create = |side| self.create(side, &number.to_string(), option_line::words(options));
        let (here, docked) = thread::scope(|scope| {
            let here = scope.spawn(|| create(Side::Here));
            let docked = create(Side::Docked);
            (here.join().unwrap(), docked)
        });
        Case {
            line,
            marker,
            here,
            docked,
        }
    }

    /// What the docker client says of containers, and of the volumes that the engine has created with them: directly, or through
    /// the agent.
    fn inspect(&self, side: Side, ids: &[&str]) -> BTreeMap<String, Value> {
        let inspect = |kind: &str, names: &[&str]| {
            let said = capture(self.docker(side).args(["inspect", "--type", kind]).args(names)).unwrap();
            let list: Vec<Value> = serde_json::from_slice(&said).unwrap();
            assert_eq!(list.len(), names.len());
            list
        };
        let containers = inspect("container", ids);
        let named = |container: &Value| -> Vec<(String, Value)> {
            let mounts = container["Mounts"].as_array().unwrap().iter();
            let ours = |name: &&str| name.contains(&self.docked.mark);
            mounts
                .filter_map(|mount| {
                    Some((
                        mount["Name"].as_str().filter(ours)?.to_owned(),
                        mount["Destination"].clone(),
                    ))
                })
                .collect()
        };
        let names: BTreeSet<String> = containers.iter().flat_map(&named).map(|named| named.0).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let volumes = names.iter().zip(inspect("volume", &names)).collect::<BTreeMap<_, _>>();
        let sections = containers.iter().map(|container| {
            let id = container["Id"].as_str().unwrap();
            let name = container["Name"].as_str().unwrap().trim_start_matches('/');
            let mut sections = Map::new();
            for (section, value) in [
                ("HostConfig", &container["HostConfig"]),
                ("Config", &container["Config"]),
                ("Mounts", &container["Mounts"]),
                ("Networks", &container["NetworkSettings"]["Networks"]),
            ] {
                sections.insert(section.to_owned(), normal(value.clone(), section, id, name));
            }
            let mut mounted = named(container);
            mounted.sort_by_key(|(_, destination)| destination.to_string());
            let volumes = mounted.into_iter().map(|(name, destination)| {
                let volume = &volumes[&name.as_str()];
                json!({"Destination": destination, "Labels": volume["Labels"], "Options": volume["Options"]})
            });
            sections.insert("Volumes".to_owned(), volumes.collect());
            let text = without_side(&Value::Object(sections).to_string());
            (
                id.to_owned(),
                by_target(without_label(serde_json::from_str(&text).unwrap())),
            )
        });
        sections.collect()
    }

    /// How the containers of these lines differ.
    fn differences(&self, cases: &[Case<'_>]) -> Vec<String> {
        let pairs = || {
            cases.iter().filter_map(|case| match case {
                Case {
                    here: Made::Container(here),
                    docked: Made::Container(docked),
                    ..
                } => Some((here.as_str(), docked.as_str())),
                _ => None,
            })
        };
        let direct = self.inspect(
            Side::Here,
            &pairs().flat_map(|(here, docked)| [here, docked]).collect::<Vec<_>>(),
        );
        let through = self.inspect(Side::Docked, &pairs().map(|(_, docked)| docked).collect::<Vec<_>>());
        let mut all = Vec::new();
        for Case {
            line,
            marker,
            here,
            docked,
        } in cases
        {
            let mut differences = String::new();
            match (here, docked, *marker) {
                (Made::Container(here), Made::Container(docked), "" | "~ " | "% ") => {
                    let (here, raw, shown) = (&direct[here], &direct[docked], &through[docked]);
                    if [
                        &raw["HostConfig"]["Binds"],
                        &raw["HostConfig"]["Mounts"],
                        &raw["Mounts"],
                    ]
                    .iter()
                    .any(|mounts| sources(mounts).contains(&self.docked.root()))
                    {
                        differences.push_str("\n    a source is not translated");
                    }
                    let mut expected = self.on_the_dock(here);
                    let [mut raw, mut shown, mut here] = [raw, shown, here].map(Clone::clone);
                    if *marker == "~ " {
                        for value in [&mut expected, &mut raw, &mut shown, &mut here] {
                            for place in ["Binds", "Mounts"] {
                                value["HostConfig"][place].take();
                            }
                            for mount in value["Mounts"].as_array_mut().into_iter().flatten() {
                                mount["Mode"].take();
                            }
                        }
                    }
                    differing("on the dock", &expected, &raw, &mut differences);
                    if *marker != "% " {
                        differing("shown", &here, &shown, &mut differences);
                    }
                }
                (Made::Refused(here), Made::Refused(docked), "") if here == docked => {}
                (Made::Unasked(here), Made::Unasked(docked), "") if here == docked => {}
                (_, Made::Refused(_), "! ") => {}
                (here, docked, _) => differences = format!("\n    here: {here:?}\n    docked: {docked:?}"),
            }
            if !differences.is_empty() {
                all.push(format!("{line}{differences}"));
            }
        }
        all
    }

    /// A container of here with the sources that it has on the dock: without links, in the shortest form, and in the workspace.
    fn on_the_dock(&self, here: &Value) -> Value {
        let mut there = here.clone();
        let moved = |path: &str| {
            let root = self.docked.root();
            let real = fs::canonicalize(path).ok()?.display().to_string();
            real.starts_with(&root)
                .then(|| real.replacen(&root, &self.docked.workspace(), 1))
        };
        for bind in there["HostConfig"]["Binds"].as_array_mut().into_iter().flatten() {
            let (source, rest) = bind.as_str().unwrap().split_once(':').unwrap();
            if let Some(moved) = moved(source) {
                *bind = json!(format!("{moved}:{rest}"));
            }
        }
        for pointer in ["/HostConfig/Mounts", "/Mounts", "/Volumes"] {
            let list = there.pointer_mut(pointer).and_then(Value::as_array_mut);
            for mount in list.into_iter().flatten() {
                for (place, key) in [
                    ("", "Source"),
                    ("/VolumeOptions/DriverConfig/Options", "device"),
                    ("/Options", "device"),
                ] {
                    let Some(place) = mount.pointer_mut(place) else {
                        continue;
                    };
                    // A device that is not to be bound is none of ours.
                    let bound = place["o"].as_str().is_some_and(|options| options.contains("bind"));
                    if key == "device" && !bound {
                        continue;
                    }
                    if let Some(moved) = place[key].as_str().and_then(moved) {
                        place[key] = json!(moved);
                    }
                }
            }
        }
        there
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let mark = &self.docked.mark;
        let clean = format!(
            "docker ps -aq --filter label=test={mark} | xargs -r docker rm -fv >/dev/null\n\
             docker volume ls -q --filter name={mark} | xargs -r docker volume rm >/dev/null"
        );
        let mut sh = Command::new("sh");
        // A failure of the test itself is the one to be seen.
        let _ = capture(sh.args(["-c", &clean]).env("DOCKER_HOST", &self.docked.engine.host));
    }
}

/// The text of the sources in a list of mounts: their targets may have the same paths.
fn sources(mounts: &Value) -> String {
    let sources = mounts
        .as_array()
        .into_iter()
        .flatten()
        .map(|mount| match mount.as_str() {
            Some(bind) => bind.split(':').next().unwrap_or_default().to_owned(),
            None => mount["Source"].to_string(),
        });
    sources.collect::<Vec<_>>().join("\n")
}

/// A text without the endings of our names.
fn without_side(text: &str) -> String {
    text.replace("-Here", "").replace("-Docked", "")
}

/// A container whose lists of mounts are in the order of their targets: the client's is chance, and sources differ.
fn by_target(mut container: Value) -> Value {
    for place in ["Binds", "Mounts"] {
        if let Some(list) = container["HostConfig"][place].as_array_mut() {
            list.sort_by_key(|mount| match mount.as_str() {
                Some(bind) => bind.split_once(':').map(|(_, rest)| rest.to_owned()),
                None => Some(mount["Target"].to_string()),
            });
        }
    }
    container
}

/// A container without our label, and with no labels for an empty list of them.
fn without_label(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let map = map.into_iter().map(|(key, value)| (key, without_label(value)));
            let is_empty = |value: &Value| value.as_object().is_none_or(Map::is_empty);
            let kept = map.filter(|(key, value)| key != LABEL && !(key == "Labels" && is_empty(value)));
            Value::Object(kept.collect())
        }
        Value::Array(list) => Value::Array(list.into_iter().map(without_label).collect()),
        other => other,
    }
}

/// All lines on one engine.
fn compare(engine: &str, step: usize) {
    let mut lines: Vec<(usize, &str)> = LINES
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .enumerate()
        .filter(|(number, _)| number % step == 0)
        .collect();
    assert!(lines.len() * step >= 200, "only {} lines", lines.len());
    // An engine looks for a driver that it does not have for 15 seconds: the other lines are tried meanwhile.
    lines.sort_by_key(|(_, line)| !line.contains("driver="));
    let bench = Bench::new(engine);
    let (next, cases) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                while let Some((number, line)) = lines.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let case = bench.case(line, *number);
                    cases.lock().unwrap().push(case);
                }
            });
        }
    });
    let differences = bench.differences(&cases.into_inner().unwrap());
    assert!(
        differences.is_empty(),
        "{} of {} lines differ:\n{}",
        differences.len(),
        lines.len(),
        differences.join("\n")
    );
}

#[test]
fn every_mount_option_makes_the_container_that_it_makes_here() {
    compare("26", 1);
}

#[test]
fn mount_options_make_the_same_containers_on_an_old_engine() {
    compare("20", 3);
}

#[test]
fn mount_options_make_the_same_containers_on_a_containerd_store() {
    compare("28-containerd", 3);
}
