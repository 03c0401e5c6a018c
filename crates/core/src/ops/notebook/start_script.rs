//! The start script of docker/notebook in images that do not have it: when a project asks for it, and how a container begins
//! with it. It is put into the container before that starts, and writes `.diffs`, installs the project, and says whether its
//! notebooks are paired.

use std::fs::OpenOptions;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::fs::OFlags;

use super::hub_home::parse_word;
use super::image_kind::{ImageKind, NotebookImage, STACKS_COMMANDS, STACKS_ENTRYPOINT, file_name};
use crate::docker::containers::container::{self, ContainerFolder};
use crate::docker::containers::path_inside::PathsInside;
use crate::docker::options::run_options::{ContainerFile, RunOptions};
use crate::error::{Error, ExitStatus, Result};
use crate::output::{Printer, visible};

/// The folder of the script, which only root may write to. The images of docker/notebook have it at the same place.
const FOLDER: &str = "/opt/dockerutils";
/// The folder above it.
pub(super) const PARENT: &str = "/opt";
/// The script.
pub(super) const SCRIPT: &str = "/opt/dockerutils/start-notebook";
/// The script's option for images that are not ours: the server begins where it would begin without it.
pub(super) const STAY: &str = "--stay";
/// What runs the script.
pub(super) const SHELL: &str = "/bin/sh";
/// What each line of the script begins with.
pub(super) const SAYS: &str = "start-notebook: ";
/// The variable that tells the script where the project is.
pub(super) const PROJECT_VARIABLE: &str = "NOTEBOOK_PROJECT";
/// The most bytes of a project's file that are read.
const LARGEST: u64 = 1 << 20;

const START_NOTEBOOK: &str = include_str!("../../../../../docker/notebook/start-notebook");
const HUB_STANDIN: &str = include_str!("../../../../../docker/notebook/hub_standin.py");
const SERVER_CONFIG: &str = include_str!("../../../../../docker/notebook/jupyter_server_config.py");

/// What a project asks of the script.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScriptWants {
    /// The server starts as a JupyterHub starts it.
    pub hub: bool,
    /// Copies of each notebook that is saved, in `.diffs`.
    pub copies: bool,
    /// It is a package, to be installed.
    pub package: bool,
    /// It has a jupytext.toml.
    pub pairing: bool,
}

impl ScriptWants {
    /// What the files of this project ask for.
    pub fn of_project(root: &Path) -> Self {
        Self {
            hub: false,
            copies: false,
            package: root.join("setup.py").is_file() || describes_a_package(&root.join("pyproject.toml")),
            pairing: root.join("jupytext.toml").is_file(),
        }
    }

    /// What the script is for; `None` if nothing asks for it.
    fn purpose(self) -> Option<String> {
        let purposes = [
            (self.hub, "the server starts as a JupyterHub starts it"),
            (self.package, "the project is installed (pip install -e)"),
            (self.copies, "notebooks that are saved are copied to .diffs"),
            (self.pairing, "jupytext pairs notebooks, as jupytext.toml says"),
        ];
        let asked: Vec<&str> = purposes
            .into_iter()
            .filter_map(|(asked, purpose)| asked.then_some(purpose))
            .collect();
        (!asked.is_empty()).then(|| asked.join(", "))
    }
}

/// As the script decides it: a pyproject.toml that only configures tools describes no package.
fn describes_a_package(pyproject: &Path) -> bool {
    // A pipe would wait for a writer, and a device may do anything when it is opened.
    if !pyproject.is_file() {
        return false;
    }
    let mut text = Vec::new();
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open(pyproject);
    let read = opened.and_then(|file| file.take(LARGEST).read_to_end(&mut text));
    let text = String::from_utf8_lossy(&text);
    read.is_ok()
        && text
            .lines()
            .any(|line| line.starts_with("[build-system]") || line.starts_with("[project]"))
}

/// How a container begins with the script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ScriptStart {
    /// Whether the script takes the place of the image's entrypoint, which comes behind it then.
    pub is_entrypoint: bool,
    /// The words before the command.
    pub before: Vec<String>,
    /// What it is for.
    pub purpose: String,
}

/// Whether the script is put into a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ScriptDecision {
    /// Nothing asks for it, or the image has it.
    Not,
    /// It is asked for, and can't be had: a sentence.
    Impossible(String),
    Put(ScriptStart),
}

impl ScriptDecision {
    /// Decides for an image, the options that the configuration gives, and the command that will be run.
    pub fn of(
        image: &NotebookImage,
        kind: ImageKind,
        wants: ScriptWants,
        configured: &RunOptions,
        command: &[String],
    ) -> Self {
        let Some(purpose) = wants.purpose() else {
            return Self::Not;
        };
        let words = image.entrypoint.iter().chain(&image.command).chain(command);
        let mut programs = words.flat_map(|word| word.split_whitespace()).map(file_name);
        let has_it = programs.any(|program| program == "start-notebook");
        if matches!(kind, ImageKind::RStudio | ImageKind::Page) || (has_it && !wants.hub) {
            return Self::Not;
        }
        let is_of_stacks = |word: &String| STACKS_COMMANDS.contains(&file_name(word));
        let obstacle = if configured.has_read_only_root() {
            Some("its root file system is read-only")
        } else if configured.sets_entrypoint() {
            Some("[notebook] names an entrypoint")
        } else if ["/", PARENT, FOLDER].iter().any(|folder| configured.mounts_at(folder)) {
            Some("[notebook] mounts something at /opt")
        } else if image.entrypoint.iter().any(is_of_stacks) {
            Some("the image's entrypoint is the server")
        } else {
            None
        };
        if let Some(obstacle) = obstacle {
            return Self::Impossible(without_it(&purpose, obstacle));
        }
        if has_it {
            // What stands in for a hub comes beside it.
            return Self::Put(ScriptStart {
                is_entrypoint: false,
                before: Vec::new(),
                purpose,
            });
        }
        let is_server = image.entrypoint.iter().any(|word| word.contains("jupyter"));
        let is_entrypoint =
            !image.entrypoint.is_empty() && (is_server || command.first().is_none_or(|first| first.starts_with('-')));
        let own = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let before: Vec<String> = if is_entrypoint {
            std::iter::once(STAY.to_owned())
                .chain(image.entrypoint.iter().cloned())
                .collect()
        } else if kind == ImageKind::DockerStacks
            && !image.entrypoint.iter().any(|word| file_name(word) == STACKS_ENTRYPOINT)
        {
            // Old images of docker-stacks become the user in their command, and not before it.
            own(&[STACKS_ENTRYPOINT, SCRIPT, STAY])
        } else {
            own(&[SCRIPT, STAY])
        };
        Self::Put(ScriptStart {
            is_entrypoint,
            before,
            purpose,
        })
    }
}

/// The sentence for a container that begins without the script, though it was asked for.
pub(super) fn without_it(purpose: &str, obstacle: &str) -> String {
    format!("the container starts without docker/notebook's start script, as {obstacle}; it is for this: {purpose}")
}

/// Why the script is not put into a container, as a clause: what is written there must not come into a folder that is mounted, by
/// the image's links or else.
///
/// # Errors
/// A broken connection, an engine that does not say what is there.
pub(super) async fn obstacle(paths: &mut PathsInside<'_>) -> Result<Option<String>> {
    if let Some(obstacle) = paths.obstacle(FOLDER).await? {
        return Ok(Some(obstacle));
    }
    let mounts = paths.mounts().await?;
    let hit = mounts
        .into_iter()
        .find(|mount| mount.is_at_or_above(FOLDER) || mount.is_at_or_below(FOLDER));
    Ok(hit.map(|mount| match mount.named == mount.place {
        true => format!("something is mounted at {}", visible(&mount.named)),
        false => format!(
            "the mount at {} leads to {} by a link in the image",
            visible(&mount.named),
            visible(&mount.place)
        ),
    }))
}

/// What is put into the container, as an archive: the folder and what is in it, with what stands in for a hub if `as_hub`.
/// `before` are folders that come first.
///
/// # Errors
/// None, as all of it is known.
pub(super) fn archive(before: &[ContainerFolder], as_hub: bool) -> Result<Vec<u8>> {
    let file = |name: &str, mode: u32, content: &str| ContainerFile {
        path: format!("{FOLDER}/{name}"),
        mode,
        content: content.to_owned(),
    };
    let mut files = vec![
        file("start-notebook", 0o755, START_NOTEBOOK),
        file("jupyter_server_config.py", 0o644, SERVER_CONFIG),
    ];
    if as_hub {
        files.push(file("hub_standin.py", 0o644, HUB_STANDIN));
    }
    container::archive(&[before, &[folder(FOLDER)]].concat(), &files)
}

/// A folder that only root may write to.
pub(super) fn folder(path: &str) -> ContainerFolder {
    ContainerFolder {
        path: path.to_owned(),
        mode: 0o755,
        owner: (0, 0),
    }
}

/// Prints that archive: what the printed line gives `docker cp`. `home` is the folder of `--as-hub`, as its line names it, or empty.
///
/// # Errors
/// An output that is closed, a home that is not named so.
pub fn print_start_files(printer: &Printer, home: &str) -> Result<ExitStatus> {
    printer.give_stdout_away();
    let archive = match home {
        "" => archive(&[], false)?,
        home => archive(&[parse_word(home)?], true)?,
    };
    std::io::stdout()
        .write_all(&archive)
        .map_err(|cause| Error::failed("the start script can't be written").because(cause))?;
    Ok(ExitStatus::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::super::image_kind::AskedPage;
    use super::super::image_kind::tests::image;
    use super::*;

    const PACKAGE: ScriptWants = ScriptWants {
        hub: false,
        copies: false,
        package: true,
        pairing: false,
    };

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    fn decided(image: &NotebookImage, options: &str) -> ScriptDecision {
        let kind = image.kind(false, AskedPage::default());
        let command = match kind {
            ImageKind::Plain => words("jupyter lab"),
            _ => image.own_command(kind),
        };
        let configured = RunOptions::parse(&words(options)).unwrap();
        ScriptDecision::of(image, kind, PACKAGE, &configured, &command)
    }

    /// The words before the command; behind a `!` if they are for the script as the entrypoint.
    fn before(entrypoint: &str, command: &str) -> String {
        match decided(&image(entrypoint, command), "") {
            ScriptDecision::Put(start) => {
                format!(
                    "{}{}",
                    if start.is_entrypoint { "!" } else { "" },
                    start.before.join(" ")
                )
            }
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn the_command_runs_through_the_script_as_the_image_allows() {
        let script = "/opt/dockerutils/start-notebook --stay";
        for (entrypoint, command, expected) in [
            ("tini -g -- start.sh", "start-notebook.py", script),
            (
                "tini -g --",
                "start-notebook.sh",
                "start.sh /opt/dockerutils/start-notebook --stay",
            ),
            ("", "jupyter lab --ip=0.0.0.0", script),
            ("tini --", "jupyter lab", script),
            ("", "python3", script),
            ("/opt/entry.sh", "/bin/bash", script),
            ("jupyter lab", "--ip=0.0.0.0", "!--stay jupyter lab"),
            ("tini -- jupyter-lab", "", "!--stay tini -- jupyter-lab"),
            ("", "sh -c jupyter-lab", script),
        ] {
            assert_eq!(before(entrypoint, command), expected, "{entrypoint} | {command}");
        }
    }

    #[test]
    fn an_image_that_has_the_script_gets_no_other() {
        for (entrypoint, command) in [
            ("tini -g -- /opt/dockerutils/start-notebook", "jupyter lab"),
            ("", "start-notebook jupyter lab"),
            ("", "sh -c start-notebook"),
        ] {
            assert_eq!(before(entrypoint, command), "Not", "{entrypoint} {command}");
        }
        let configured = RunOptions::parse(&[]).unwrap();
        let plain = image("", "jupyter lab");
        let of = |wants, command: &str| {
            ScriptDecision::of(&plain, ImageKind::StartsJupyter, wants, &configured, &words(command))
        };
        assert_eq!(
            of(PACKAGE, "/opt/dockerutils/start-notebook jupyter lab"),
            ScriptDecision::Not
        );
        assert_eq!(of(ScriptWants::default(), "jupyter lab"), ScriptDecision::Not);
    }

    #[test]
    fn why_the_project_is_not_installed_is_said_with_the_next_step() {
        use std::os::unix::fs::PermissionsExt as _;

        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        let write = |name: &str, text: &str| std::fs::write(at(name), text).unwrap();
        write("setup.py", "");
        write(
            "python3",
            "#!/bin/sh\nprintf 'working\\nERROR: no network\\nhint: see above\\n' >&2\nexit 1\n",
        );
        std::fs::set_permissions(at("python3"), std::fs::Permissions::from_mode(0o755)).unwrap();
        write("start-notebook", START_NOTEBOOK);
        let path = format!("{}:{}", at(""), std::env::var("PATH").unwrap_or_default());
        let ran = std::process::Command::new("sh")
            .args([at("start-notebook").as_str(), STAY, "echo", "the server"])
            .env("PATH", path)
            .env("NOTEBOOK_PROJECT", at(""))
            .env("TMPDIR", at(""))
            .output()
            .unwrap();
        assert_eq!(String::from_utf8(ran.stdout).unwrap(), "the server\n");
        let said = String::from_utf8(ran.stderr).unwrap();
        assert!(
            said.contains("hint: see above\nstart-notebook: ERROR: no network\nstart-notebook: ")
                && said
                    .contains(" is not installed; a terminal of the server shows all of it: pip install --editable /"),
            "{said}"
        );
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3);
    }

    #[test]
    fn what_can_t_be_is_said_before() {
        for (options, part) in [
            ("--read-only", "read-only"),
            ("--entrypoint bash", "entrypoint"),
            ("-v /srv:/opt", "mounts something at /opt"),
        ] {
            let ScriptDecision::Impossible(sentence) = decided(&image("", "jupyter lab"), options) else {
                panic!("{options}");
            };
            assert!(
                sentence.contains(part) && sentence.contains("pip install -e"),
                "{sentence}"
            );
        }
        let old = image("tini -g -- start-notebook.sh", "");
        assert!(matches!(decided(&old, ""), ScriptDecision::Impossible(_)));
        let mut rstudio = image("", "/init");
        rstudio.ports.insert(8787);
        assert_eq!(decided(&rstudio, ""), ScriptDecision::Not);
    }

    #[test]
    fn the_archive_is_root_s_and_nobody_else_may_write_to_it() {
        for (with_parent, paths) in [
            (
                false,
                &[
                    "opt/dockerutils/",
                    "opt/dockerutils/start-notebook",
                    "opt/dockerutils/jupyter_server_config.py",
                ][..],
            ),
            (true, &["opt/", "opt/dockerutils/"]),
        ] {
            let parent = with_parent.then(|| folder(PARENT));
            let bytes = archive(parent.as_slice(), with_parent).unwrap();
            let mut found = Vec::new();
            for entry in tar::Archive::new(bytes.as_slice()).entries().unwrap() {
                let entry = entry.unwrap();
                let header = entry.header();
                assert_eq!((header.uid().unwrap(), header.gid().unwrap()), (0, 0));
                assert_eq!(header.mode().unwrap() & 0o022, 0);
                found.push((entry.path().unwrap().display().to_string(), header.mode().unwrap()));
            }
            assert!(
                paths.iter().zip(&found).all(|(path, (found, _))| path == found),
                "{found:?}"
            );
            let script = found.iter().find(|(path, _)| path.ends_with("start-notebook"));
            assert_eq!(script.unwrap().1, 0o755);
        }
    }

    #[test]
    fn a_project_asks_by_its_files() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let wants = || ScriptWants::of_project(root);
        assert_eq!(wants(), ScriptWants::default());
        std::fs::write(root.join("pyproject.toml"), "[tool.ruff]\n# [project]\n").unwrap();
        assert_eq!(wants(), ScriptWants::default());
        std::fs::write(root.join("pyproject.toml"), "# a package\n[project]\nname = \"a\"\n").unwrap();
        std::fs::write(root.join("jupytext.toml"), "").unwrap();
        assert!(wants().package && wants().pairing && !wants().copies);
        std::fs::remove_file(root.join("pyproject.toml")).unwrap();
        std::fs::write(root.join("setup.py"), "").unwrap();
        assert!(wants().package);
        for name in ["setup.py", "jupytext.toml"] {
            std::fs::remove_file(root.join(name)).unwrap();
        }
        // Nobody writes into these.
        for name in ["pyproject.toml", "setup.py", "jupytext.toml"] {
            let made = std::process::Command::new("mkfifo").arg(root.join(name)).status();
            assert!(made.unwrap().success());
        }
        assert_eq!(wants(), ScriptWants::default());
    }
}
