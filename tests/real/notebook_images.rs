//! The lab's images of notebooks behave as those do that they stand for.

use std::fs;

use dockerutils_test_support::lab::{self, NotebookImage};
use dockerutils_test_support::process::capture_text;
use dockerutils_test_support::{http, wait};
use dockerutils_tests::jupyter::Jupyter;
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

/// A user whom no image knows.
const USER: u32 = 4321;

/// What the server's process runs as: its user, and the command that docker started.
fn server_of(jupyter: &Jupyter) -> (String, String) {
    let script = "for process in /proc/[0-9]*; do \
                      if tr '\\0' ' ' <$process/cmdline | grep -q '[j]upyter-lab'; then stat -c %u $process; fi; \
                  done 2>/dev/null | tail -1; cat /proc/1/comm";
    let said = jupyter.exec(&["sh", "-c", script]);
    let (user, first) = said.split_once('\n').unwrap();
    (user.to_owned(), first.to_owned())
}

#[test]
fn the_image_that_plays_docker_stacks_becomes_the_user_that_it_is_told() {
    let engine = lab::engine("local").unwrap();
    let image = engine.notebook_image(NotebookImage::Stacks).unwrap();
    let project = tempfile::tempdir().unwrap();
    std::os::unix::fs::chown(project.path(), Some(USER), Some(USER)).unwrap();
    let volume = format!("--volume={}:/home/jovyan/work", project.path().display());

    let as_root = [
        "--user=root",
        "--env=NB_UID=4321",
        "--env=NB_GID=4321",
        "--workdir=/home/jovyan/work",
        &volume,
    ];
    let jupyter = Jupyter::start(&engine, &image, &as_root, &[]);
    assert_eq!(
        server_of(&jupyter),
        ("4321".to_owned(), "tini".to_owned()),
        "{}",
        jupyter.log()
    );
    assert!(jupyter.log().contains("Executing: jupyter lab"), "{}", jupyter.log());
    jupyter.save_notebook("a.ipynb", &["1"]);
    assert_eq!(fs::metadata(project.path().join("a.ipynb")).unwrap().uid(), USER);
    drop(jupyter);

    let without = [
        "--user=4321",
        "--group-add=users",
        "--workdir=/home/jovyan/work",
        &volume,
    ];
    let jupyter = Jupyter::start(&engine, &image, &without, &[]);
    assert_eq!(
        server_of(&jupyter),
        ("4321".to_owned(), "tini".to_owned()),
        "{}",
        jupyter.log()
    );
    jupyter.save_notebook("b.ipynb", &["1"]);
    assert_eq!(fs::metadata(project.path().join("b.ipynb")).unwrap().uid(), USER);
}

#[test]
fn the_image_that_plays_rstudio_demands_its_variables() {
    let engine = lab::engine("local").unwrap();
    let image = engine.notebook_image(NotebookImage::Rstudio).unwrap();
    let label = lab::label().unwrap();
    let run = |options: &[&str]| {
        let mut run = engine.docker();
        run.args(["run", "--rm", "--label", &label, "--publish=127.0.0.1::8787"]);
        capture_text(run.args(options).arg(&image))
    };
    let error = run(&["--env=USERID=1000", "--env=PASSWORD=x"]).unwrap_err().to_string();
    assert!(error.contains("GROUPID: to be set"), "{error}");

    let id = run(&[
        "--detach",
        "--env=USERID=4321",
        "--env=GROUPID=4321",
        "--env=PASSWORD=secret",
    ])
    .unwrap();
    let docker = |words: &[&str]| capture_text(engine.docker().args(words)).unwrap();
    let address = docker(&["port", &id, "8787"]).parse().unwrap();
    let send = |method: &str, path: &str, body: &str| {
        http::send(address, method, path, &[], body.as_bytes(), Duration::from_secs(10))
    };
    wait::until("RStudio's page", || {
        send("GET", "/auth-sign-in", "").is_ok_and(|page| page.status == 200)
    });
    assert_eq!(send("GET", "/", "").unwrap().status, 302);
    assert_eq!(send("PUT", "/files/a", "x").unwrap().status, 403);
    assert_eq!(
        docker(&["exec", &id, "stat", "-c", "%u:%g", "/home/rstudio"]),
        "4321:4321"
    );
    docker(&["rm", "--force", &id]);
}

#[test]
fn a_dock_gets_an_image_once() {
    let engine = lab::engine("26").unwrap();
    let image = engine.notebook_image(NotebookImage::Rstudio).unwrap();
    let id = || capture_text(engine.docker().args(["image", "inspect", "--format={{.Id}}", &image])).unwrap();
    let first = id();
    assert_eq!(engine.notebook_image(NotebookImage::Rstudio).unwrap(), image);
    assert_eq!(id(), first);
}
