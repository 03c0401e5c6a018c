//! `run-notebook` with images of all kinds: what plays RStudio and docker-stacks, a desktop, and an engine with and without a GPU.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use dockerutils_test_support::http::{self, HttpResponse};
use dockerutils_test_support::lab::{self, LabEngine, NotebookImage, Store, Suite, Throwaway};
use dockerutils_test_support::{Browser, process, wait};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::notebooks::{NOTEBOOK, Place};

/// A user whom no image knows.
const USER: u32 = 4321;
/// How long a server may take for one answer.
const ANSWER: Duration = Duration::from_secs(30);

impl Place {
    /// Serves the project by this image.
    fn with_image(&self, image: NotebookImage) {
        let image = self.engine.notebook_image(image).unwrap();
        let configuration = format!("[notebook]\nimage = {image}\n");
        self.home.sandbox().write("docker/dockerutils.cfg", configuration);
    }

    /// Who owns a file of the project here.
    fn owner_of(&self, path: &str) -> u32 {
        fs::metadata(self.home.sandbox().project().join(path)).unwrap().uid()
    }
}

/// Asks the server of a URL for a path, with these fields.
fn send(url: &str, method: &str, path: &str, fields: &[&str], body: &str) -> HttpResponse {
    let rest = url.strip_prefix("http://").unwrap();
    let address: SocketAddr = rest.split('/').next().unwrap().parse().unwrap();
    http::send(address, method, path, fields, body.as_bytes(), ANSWER).unwrap()
}

/// Signs in at what plays RStudio, as a browser does, with the token that run-notebook has made; writes a file as a session would.
fn writes_by_rstudio(place: &Place) {
    place.with_image(NotebookImage::Rstudio);
    let started = place.detached(&[]);
    let (url, password) = (started["url"].as_str().unwrap(), started["token"].as_str().unwrap());
    assert!(!url.contains(password), "{url}");
    let browser = Browser::start();
    browser.open(url);
    let field = |name: &str| browser.wait_for(&format!("input[name={name}]"));
    browser.keys(&field("username"), "rstudio");
    browser.keys(&field("password"), "wrong");
    browser.click(&browser.wait_for("button"));
    browser.found("the refusal", || browser.url().contains("error=1").then_some(()));
    browser.keys(&field("username"), "rstudio");
    browser.keys(&field("password"), password);
    browser.click(&browser.wait_for("button"));
    browser.wait_for("#rstudio");
    let status = browser.script(
        "const call = new XMLHttpRequest(); call.open('PUT', '/files/home/jovyan/project/made', false); call.send('by RStudio'); return call.status",
        &[],
    );
    assert_eq!(status, json!(201));
    browser.picture(&place.mark);
}

#[test]
fn rstudio_asks_for_the_password_and_its_files_belong_to_the_user() {
    let place = Place::near("rstudio");
    place.belongs_to(USER);
    writes_by_rstudio(&place);
    place.run_notebook().arg("--stop").any_stdout().any_stderr().run();
    assert_eq!(place.home.sandbox().read("made"), "by RStudio");
    assert_eq!(place.owner_of("made"), USER);
}

#[test]
fn rstudio_on_a_dock_is_signed_in_to_here() {
    let place = Place::far("26", "far-rstudio");
    writes_by_rstudio(&place);
    let stopped = place.run_notebook().arg("--stop").any_stdout().any_stderr().run();
    assert_eq!(place.home.sandbox().read("made"), "by RStudio", "{stopped}");
}

/// Saves a notebook by what plays docker-stacks, as JupyterLab does.
fn saves_by_stacks(place: &Place) -> String {
    place.with_image(NotebookImage::Stacks);
    let start = place.run_notebook().args(["--detach", "--no-browser"]);
    let started = start.any_stdout().any_stderr().run();
    let url = started.stdout.trim();
    let (page, token) = url.split_once("?token=").unwrap();
    assert!(page.ends_with("/lab"), "{url}");
    let token = format!("Authorization: token {token}");
    let notebook: Value = serde_json::from_str(NOTEBOOK).unwrap();
    let model = json!({ "type": "notebook", "format": "json", "content": notebook }).to_string();
    let fields = [token.as_str(), "Content-Type: application/json"];
    let saved = send(url, "PUT", "/api/contents/project/made.ipynb", &fields, &model);
    assert_eq!(saved.status, 201, "{}", String::from_utf8_lossy(&saved.body));
    assert_eq!(send(url, "GET", "/api/status", &[], "").status, 403);
    let stopped = place.run_notebook().arg("--stop").any_stdout().any_stderr().run();
    assert!(place.home.sandbox().project().join("made.ipynb").exists(), "{stopped}");
    started.stderr
}

#[test]
fn docker_stacks_becomes_the_user_who_owns_the_project() {
    let place = Place::near("stacks");
    place.belongs_to(USER);
    let said = saves_by_stacks(&place);
    assert!(
        said.contains("the image starts as root and becomes that user"),
        "{said}"
    );
    assert_eq!(place.owner_of("made.ipynb"), USER);
}

#[test]
fn docker_stacks_is_root_for_a_project_of_root() {
    let place = Place::near("stacks-root");
    let said = saves_by_stacks(&place);
    assert!(said.contains("the project belongs to root"), "{said}");
    assert_eq!(place.owner_of("made.ipynb"), 0);
}

#[test]
fn docker_stacks_on_a_dock_becomes_the_user_of_the_dock() {
    let place = Place::far("28", "far-stacks");
    let said = saves_by_stacks(&place);
    assert!(
        said.contains("the image starts as root and becomes that user"),
        "{said}"
    );
    let owner = process::capture_text(place.engine.exec("id").unwrap().args(["-u", "ann"])).unwrap();
    assert!(said.contains(&format!("NB_UID={owner}")), "{said}");
}

/// A desktop behind jupyter-server-proxy: the page shows the screen of a real VNC server, on which a program of X runs.
fn shows_a_desktop(place: &Place) {
    place.with_image(NotebookImage::Desktop);
    let started = place.detached(&["--path=desktop"]);
    let (url, token) = (started["url"].as_str().unwrap(), started["token"].as_str().unwrap());
    assert!(url.ends_with(&format!("/desktop?token={token}")), "{url}");
    let browser = Browser::start();
    browser.open(url);
    browser.found("a connected screen", || {
        let status = browser.text(&browser.wait_for("#status"));
        status.starts_with("Connected").then_some(())
    });
    // xterm says in the project that it runs, by the user whose the desktop is.
    let container = started["container"].as_str().unwrap();
    wait::until("a program on the desktop", || {
        let mut exec = place.engine.docker();
        let said = process::capture_text(exec.args(["exec", container, "cat", "/home/jovyan/project/desktop"]));
        said.is_ok_and(|said| !said.is_empty())
    });
    let canvas = browser.wait_for("#screen canvas");
    browser.click(&canvas);
    // What is typed into the page is typed there.
    browser.keys_to_page("echo typed >> /home/jovyan/project/typed\u{e007}");
    wait::until("what was typed", || {
        let mut exec = place.engine.docker();
        process::capture_text(exec.args(["exec", container, "cat", "/home/jovyan/project/typed"]))
            .is_ok_and(|said| said == "typed")
    });
    browser.picture(&place.mark);
    drop(browser);
    place.run_notebook().arg("--stop").any_stdout().any_stderr().run();
    assert_eq!(place.home.sandbox().read("typed"), "typed\n");
}

#[test]
fn a_desktop_is_shown_and_its_files_belong_to_the_user() {
    let place = Place::near("desktop");
    place.belongs_to(USER);
    shows_a_desktop(&place);
    assert_eq!(place.owner_of("typed"), USER);
    assert_eq!(place.home.sandbox().read("desktop"), format!("{USER}\n"));
}

#[test]
fn a_desktop_on_a_dock_is_shown_here() {
    shows_a_desktop(&Place::far("26", "far-desktop"));
}

/// What `nvidia-smi -L` says where there is a GPU.
const GPU: &str = "GPU 0: NVIDIA of the lab (UUID: GPU-0)";

/// An engine whose machine is given GPUs, and loses them.
struct GpuMachine(Throwaway);

impl GpuMachine {
    fn engine(&self) -> &LabEngine {
        self.0.engine()
    }

    /// Runs a script there as root.
    fn run(&self, script: &str) {
        process::capture(self.engine().exec("sh").unwrap().args(["-ec", script])).unwrap();
    }

    /// Starts the engine with these settings beside its own.
    fn settings(&self, settings: &str) {
        self.0.stop_engine(Signal::TERM).unwrap();
        self.run(&format!(
            "test -e /root/daemon.json || cp /run/lab/daemon.json /root/daemon.json; \
             sed 's|^{{|{{{settings}|' /root/daemon.json > /run/lab/daemon.json"
        ));
        self.0.start_engine().unwrap();
    }

    /// Makes an image with pages and this script as nvidia-smi, or none.
    fn image(&self, name: &str, nvidia_smi: &str) {
        let script = match nvidia_smi {
            "" => "true".to_owned(),
            body => format!("printf '%s\\n' '#!/bin/sh' '{body}' > /bin/nvidia-smi && chmod 755 /bin/nvidia-smi"),
        };
        let docker = |words: &[&str]| process::capture(self.engine().docker().args(words)).unwrap();
        docker(&["run", "--name", name, lab::BASE_IMAGE, "sh", "-c", &script]);
        docker(&["commit", name, name]);
        docker(&["rm", name]);
    }

    /// What `run-notebook -g` says with this image.
    fn said(&self, place: &Place, image: &str, code: i32) -> String {
        let start = place
            .run_notebook()
            .args(["-g", "--detach", "--no-browser", "--image", image]);
        let started = start.code(code).any_stdout().any_stderr().run();
        if code == 0 {
            place.run_notebook().arg("--stop").any_stdout().any_stderr().run();
        }
        assert_eq!(place.containers(), [""; 0], "{started}");
        started.stderr
    }
}

#[test]
fn a_gpu_is_said_early_and_what_is_missing_on_the_dock() {
    let machine = GpuMachine(Throwaway::start(Suite::Trixie, Store::Classic, None).unwrap());
    let place = Place::new("26", "gpu").on(machine.engine()).docked();
    machine.image("lab-gpu", &format!("echo \"{GPU}\""));
    machine.image(
        "lab-no-driver",
        "echo \"NVIDIA-SMI has failed because it could not communicate with the NVIDIA driver.\"; exit 9",
    );
    machine.image("lab-no-toolkit", "");

    // Docker was not told of a runtime.
    let said = machine.said(&place, "lab-gpu", 125);
    assert!(said.contains("neither the runtime nvidia nor a CDI device"), "{said}");
    assert!(said.contains("hint: install nvidia-container-toolkit there"), "{said}");

    // It was told of one that is not installed.
    machine.settings(r#""runtimes": {"nvidia": {"path": "nvidia-container-runtime"}},"#);
    let said = machine.said(&place, "lab-gpu", 125);
    assert!(said.contains("NVIDIA's container toolkit is missing"), "{said}");

    // Here it is runc, which gives a container nothing: what the image has counts.
    machine.run("ln -s \"$(command -v runc)\" /usr/local/bin/nvidia-container-runtime");
    let said = machine.said(&place, "lab-gpu", 0);
    assert!(said.contains(&format!("{GPU}\n")), "{said}");
    let at = |part: &str| said.find(part).unwrap_or_else(|| panic!("{part}: {said}"));
    assert!(at("--runtime=nvidia") < at(GPU), "{said}");
    let said = machine.said(&place, "lab-no-driver", 0);
    assert!(
        said.contains("NVIDIA's driver is missing, or does not work, on the machine of"),
        "{said}"
    );
    let said = machine.said(&place, "lab-no-toolkit", 0);
    assert!(said.contains("NVIDIA's container toolkit is missing"), "{said}");
}

/// What describes the devices of a machine for CDI: here, a container gets the program alone.
const CDI: &str = r#"{"cdiVersion": "0.6.0", "kind": "nvidia.com/gpu", "devices": [{"name": "all", "containerEdits":
{"mounts": [{"hostPath": "/usr/bin/nvidia-smi", "containerPath": "/bin/nvidia-smi", "options": ["ro", "bind"]}]}}]}"#;

#[test]
fn a_gpu_that_cdi_describes_is_said_early_and_a_description_that_is_missing() {
    let machine = GpuMachine(Throwaway::start(Suite::Sid, Store::Classic, None).unwrap());
    let place = Place::new("28", "gpu-cdi").on(machine.engine()).docked();
    let configuration = place.home.sandbox().read("docker/dockerutils.cfg");
    let configuration = format!("{configuration}args = --device nvidia.com/gpu=all\n");
    place.home.sandbox().write("docker/dockerutils.cfg", configuration);
    machine.image("lab-pages", "");
    machine.run("ln -s \"$(command -v runc)\" /usr/local/bin/nvidia-container-runtime");
    machine.settings(r#""runtimes": {"nvidia": {"path": "nvidia-container-runtime"}},"#);
    let said = machine.said(&place, "lab-pages", 125);
    assert!(
        said.contains("a description of the GPUs for CDI is missing, or does not work"),
        "{said}"
    );
    assert!(said.contains("nvidia-ctk cdi generate"), "{said}");
    machine.run(&format!(
        "printf '%s\\n' '#!/bin/sh' 'echo \"{GPU}\"' > /usr/bin/nvidia-smi; chmod 755 /usr/bin/nvidia-smi; \
         mkdir -p /etc/cdi && printf '%s' '{CDI}' > /etc/cdi/nvidia.json"
    ));
    let said = machine.said(&place, "lab-pages", 0);
    assert!(said.contains(&format!("{GPU}\n")), "{said}");
}
