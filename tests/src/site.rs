//! A site: one engine of the lab and one of its two builders.

use std::fmt;
use std::io::Read;
use std::num::NonZero;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::process::{ChildStdout, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use dockerutils_test_support::lab::{self, LabEngine, Suite};
use dockerutils_test_support::process::{capture, capture_text};
use dockerutils_test_support::{Invocation, Sandbox};

/// The two builders of an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineBuilder {
    /// The one that we choose by ourselves.
    BuildKit,
    /// The one of `DOCKER_BUILDKIT=0`.
    Classic,
}

/// Where images are built.
#[derive(Debug, Clone)]
pub struct Site {
    /// The engine.
    pub engine: LabEngine,
    /// Its builder.
    pub builder: EngineBuilder,
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.engine.name, self.tag())
    }
}

/// Runs a test on every site of the lab, side by side.
///
/// # Panics
/// When it fails on one or more sites; all that failed are named.
pub fn everywhere(test: impl Fn(&Site) + Sync) {
    run(&[EngineBuilder::BuildKit, EngineBuilder::Classic], test);
}

/// [`everywhere`] where BuildKit builds.
///
/// # Panics
/// As there.
pub fn on_buildkit(test: impl Fn(&Site) + Sync) {
    run(&[EngineBuilder::BuildKit], test);
}

/// [`everywhere`] where the classic builder builds.
///
/// # Panics
/// As there.
pub fn on_classic(test: impl Fn(&Site) + Sync) {
    run(&[EngineBuilder::Classic], test);
}

/// As many at once as this machine has processors, and one that waits for its engine: more would take turns, and what each has
/// to do would take longer than an engine or a command may be silent.
fn run(builders: &[EngineBuilder], test: impl Fn(&Site) + Sync) {
    let engines = lab::engines().expect("the lab");
    let sites: Vec<Site> = builders
        .iter()
        .flat_map(|builder| {
            engines.iter().map(|engine| Site {
                engine: engine.clone(),
                builder: *builder,
            })
        })
        .collect();
    let failed = Mutex::new(Vec::new());
    let next = AtomicUsize::new(0);
    let visit = || {
        while let Some(site) = sites.get(next.fetch_add(1, Ordering::Relaxed)) {
            // The other sites are to be heard, too.
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| test(site))) {
                failed
                    .lock()
                    .expect("no panic while it is held")
                    .push((site.to_string(), panic));
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, NonZero::get) + 1 {
            scope.spawn(visit);
        }
    });
    let mut failed = failed.into_inner().expect("no panic while it was held");
    let names: Vec<String> = failed.iter().map(|(name, _)| name.clone()).collect();
    if let Some((_, panic)) = failed.pop() {
        eprintln_sites(&names);
        resume_unwind(panic);
    }
}

#[expect(clippy::print_stderr, reason = "the test runner shows it with the failure")]
fn eprintln_sites(names: &[String]) {
    eprintln!("\nfailed on: {}", names.join("; "));
}

/// `docker cp` from a container, entry by entry.
///
/// # Panics
/// When it has no such path.
pub(crate) fn copied(
    engine: &LabEngine,
    container: &str,
    path: &str,
    mut see: impl FnMut(&mut tar::Entry<'_, ChildStdout>),
) {
    let mut copy = engine.docker();
    copy.args(["cp", &format!("{container}:{path}"), "-"]);
    let mut child = copy.stdout(Stdio::piped()).spawn().expect("docker runs");
    let mut archive = tar::Archive::new(child.stdout.take().expect("it is piped"));
    for entry in archive.entries().expect("docker copies an archive") {
        see(&mut entry.expect("docker copies a whole archive"));
    }
    assert!(
        child.wait().expect("it is our child").success(),
        "{}: {container} has no {path}",
        engine.name
    );
}

impl Site {
    /// The tag of images built here: the two builders of one engine must not take each other's names.
    pub fn tag(&self) -> &'static str {
        match self.builder {
            EngineBuilder::BuildKit => "buildkit",
            EngineBuilder::Classic => "classic",
        }
    }

    /// `build-image` of this sandbox's project, on this engine, by this builder, with our [`Site::tag`].
    pub fn build_image<'a>(&self, sandbox: &'a Sandbox) -> Invocation<'a> {
        let invocation = sandbox
            .command("build-image")
            .env("DOCKER_HOST", &self.engine.host)
            .env("LOGNAME", self.tag())
            .env("USER", self.tag())
            .any_stderr();
        match self.builder {
            EngineBuilder::BuildKit => invocation,
            EngineBuilder::Classic => invocation.env("DOCKER_BUILDKIT", "0"),
        }
    }

    /// Lines of a shell with the real docker client on this engine, run in this sandbox's project.
    ///
    /// BuildKit needs a client with buildx: that of the lab's docks. The classic builder takes the machine's own.
    pub fn docker_runs(&self, sandbox: &Sandbox, lines: &str) -> Command {
        match self.builder {
            EngineBuilder::Classic => {
                let mut shell = Command::new("sh");
                shell
                    .args(["-ec", lines])
                    .current_dir(sandbox.project())
                    .env("DOCKER_BUILDKIT", "0")
                    .env("DOCKER_HOST", &self.engine.host)
                    .env("DOCKER_CONFIG", "/nonexistent");
                shell
            }
            EngineBuilder::BuildKit => {
                let image = lab::dock_image(Suite::Trixie).expect("the image of the lab's docks");
                let socket = self.engine.host.trim_start_matches("unix://");
                let sockets = Path::new(socket).parent().expect("a socket lies in a directory");
                let project = sandbox.project().display().to_string();
                let mut docker = lab::run().expect("the lab");
                docker.arg("--network=none");
                docker.arg(format!("--volume={project}:{project}"));
                docker.arg(format!("--volume={0}:{0}", sockets.display()));
                docker.arg(format!("--workdir={project}"));
                docker.arg(format!("--env=DOCKER_HOST={}", self.engine.host));
                docker.arg("--env=DOCKER_CONFIG=/nonexistent");
                docker.args([&image, "sh", "-ec", lines]);
                docker
            }
        }
    }

    /// Runs the lines that `build-image IMAGE --dry-run` prints with the real docker client, images named
    /// `PROJECT-reference-...` instead of `PROJECT-...`; `environment` is for both.
    ///
    /// # Panics
    /// When docker fails.
    pub fn docker_builds_the_same(
        &self,
        sandbox: &Sandbox,
        project: &str,
        images: &[&str],
        environment: &[(&str, &str)],
    ) {
        let mut lines: String = environment
            .iter()
            .map(|(name, value)| format!("export {name}='{}'\n", value.replace('\'', "'\\''")))
            .collect();
        for image in images {
            let printed = environment
                .iter()
                .fold(self.build_image(sandbox), |build, (name, value)| build.env(name, value))
                .args([image, "--dry-run"])
                .any_stdout()
                .run()
                .stdout;
            lines += &printed.replace(&format!(" -t {project}-"), &format!(" -t {project}-reference-"));
        }
        // While several builds have the same image, the classic builder of a containerd store loses it: a fault of the engine's, for
        // which docker does not try again.
        const LOST: &str = "unable to find image \"sha256:";
        for tries in 1.. {
            match capture(&mut self.docker_runs(sandbox, &lines)) {
                Ok(_) => break,
                Err(error) if tries < 4 && error.to_string().contains(LOST) => {}
                Err(error) => panic!("{self}: {error}"),
            }
        }
    }

    /// The docker client, speaking to this engine.
    pub fn docker(&self) -> Command {
        self.engine.docker()
    }

    /// What a file of this image holds, without the space around it.
    ///
    /// No container is run for it: engines that are busy lose what a container prints that ends at once.
    ///
    /// # Panics
    /// When there is no such image or file.
    pub fn file(&self, image: &str, path: &str) -> String {
        let mut text = String::new();
        self.copied(image, path, |entry| {
            text.clear();
            entry.read_to_string(&mut text).expect("a whole archive of text");
        });
        text.trim().to_owned()
    }

    /// The paths of what lies in a folder of this image, and below, seen from the folder.
    ///
    /// # Panics
    /// When there is no such image or folder.
    pub fn paths(&self, image: &str, folder: &str) -> Vec<String> {
        let mut paths = Vec::new();
        self.copied(image, &format!("{folder}/."), |entry| {
            let path = entry.path().expect("paths of UTF-8");
            paths.extend(path.to_str().map(|path| path.trim_start_matches("./").to_owned()));
        });
        paths.retain(|path| !path.is_empty() && path != ".");
        paths
    }

    /// `docker cp` from an image, entry by entry.
    fn copied(&self, image: &str, path: &str, see: impl FnMut(&mut tar::Entry<'_, ChildStdout>)) {
        let docker =
            |words: &[&str]| capture_text(self.docker().args(words)).unwrap_or_else(|error| panic!("{self}: {error}"));
        let container = docker(&["create", image, "true"]);
        copied(&self.engine, &container, path, see);
        docker(&["rm", "--force", &container]);
    }

    /// `docker image inspect`.
    ///
    /// # Panics
    /// When there is no such image.
    pub fn inspect(&self, image: &str) -> serde_json::Value {
        let json =
            capture(self.docker().args(["image", "inspect", image])).unwrap_or_else(|error| panic!("{self}: {error}"));
        let mut images: Vec<serde_json::Value> = serde_json::from_slice(&json).expect("docker prints JSON");
        images.pop().expect("docker found it")
    }

    /// The names of images that begin with this name and a dash, of this site's builder.
    pub fn names(&self, name: &str) -> Vec<String> {
        let listed = capture_text(self.docker().args([
            "images",
            "--filter",
            &format!("reference={name}-*:{}", self.tag()),
            "--format",
            "{{.Repository}}:{{.Tag}}",
        ]));
        listed.unwrap_or_default().lines().map(str::to_owned).collect()
    }

    /// Removes the images of this project (`NAME-...`) at the end of a test, however it ends.
    ///
    /// The name must not be the beginning of another test's.
    #[must_use]
    pub fn images(&self, name: &str) -> Images {
        Images {
            site: self.clone(),
            name: name.to_owned(),
        }
    }
}

/// Images of a test; see [`Site::images`].
#[derive(Debug)]
pub struct Images {
    site: Site,
    name: String,
}

impl Drop for Images {
    fn drop(&mut self) {
        let names = self.site.names(&self.name);
        if !names.is_empty() {
            // A test that failed may leave a container that holds an image; its own failure is the one to see.
            let _ = capture(self.site.docker().args(["rmi", "--force"]).args(names));
        }
    }
}
