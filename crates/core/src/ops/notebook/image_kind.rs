//! What kind of image a notebook's is, by its configuration: how its server is started, and where it listens.
//!
//! Facts: docker-stacks' `start.sh`, `start-notebook.py` and `docker-bits` (entrypoint `tini -g -- start.sh`, command
//! `start-notebook.py`; `start-notebook.sh` before, and now a shim that warns; `NOTEBOOK_ARGS` are more arguments), rocker's
//! `init_userconf.sh` (`USERID`, `GROUPID`, `PASSWORD`), and jupyter_server, which takes its port from `JUPYTER_PORT`.

use std::collections::{BTreeMap, BTreeSet};

use bollard::models::ImageConfig;

use crate::error::{Error, Result};

/// The port that Jupyter takes if nobody says another.
pub const JUPYTER_PORT: u16 = 8888;
/// The port of RStudio Server.
const RSTUDIO_PORT: u16 = 8787;
/// The commands of docker-stacks that start a server.
pub(super) const STACKS_COMMANDS: [&str; 4] = [
    "start-notebook.py",
    "start-notebook.sh",
    "start-singleuser.py",
    "start-singleuser.sh",
];
/// The entrypoint of docker-stacks, which prepares the user and is never a part of the command.
pub(super) const STACKS_ENTRYPOINT: &str = "start.sh";
/// Commands that images have when nobody gave them one: they end at once without a terminal.
const IDLE_COMMANDS: [&str; 9] = ["bash", "sh", "ash", "zsh", "python", "python3", "ipython", "R", "julia"];

/// How the server of an image is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageKind {
    /// The family of docker-stacks, whose start script takes NB_UID and NB_GID.
    DockerStacks,
    /// It starts a server of Jupyter by itself, as docker/notebook does.
    StartsJupyter,
    /// It starts nothing that is known: `jupyter lab` is its command.
    Plain,
    /// RStudio Server, as in rocker's images.
    RStudio,
    /// A page that `--port` and `--path` lead to.
    Page,
}

/// What an image says about its containers, as far as a notebook depends on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NotebookImage {
    pub entrypoint: Vec<String>,
    pub command: Vec<String>,
    pub variables: BTreeMap<String, String>,
    /// The TCP ports that it exposes.
    pub ports: BTreeSet<u16>,
    /// The user that it runs as; empty for root.
    pub user: String,
    /// The folder that its program begins in; empty for `/`.
    pub working_dir: String,
}

/// What the command line and `[notebook]` say about the page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AskedPage<'a> {
    /// The server's port.
    pub port: Option<u16>,
    /// The path of the first page.
    pub path: Option<&'a str>,
}

impl NotebookImage {
    /// What this configuration says.
    pub fn of(config: ImageConfig) -> Self {
        let variables = config.env.unwrap_or_default();
        let variables = variables.iter().filter_map(|pair| pair.split_once('='));
        let ports = config.exposed_ports.unwrap_or_default();
        let tcp = |port: &String| port.strip_suffix("/tcp").unwrap_or(port).parse().ok();
        Self {
            entrypoint: config.entrypoint.unwrap_or_default(),
            command: config.cmd.unwrap_or_default(),
            variables: variables
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            ports: ports.iter().filter_map(tcp).collect(),
            user: config.user.unwrap_or_default(),
            working_dir: config.working_dir.unwrap_or_default(),
        }
    }

    /// The value of a variable that it sets.
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    /// Whether it runs as root if nobody says another user.
    pub fn runs_as_root(&self) -> bool {
        let user = self.user.split(':').next().unwrap_or_default();
        matches!(user, "" | "0" | "root")
    }

    /// Whether its first process reaps others: it needs no second one that does.
    pub fn has_init(&self) -> bool {
        self.entrypoint
            .iter()
            .any(|word| matches!(file_name(word), "tini" | "dumb-init" | "catatonit" | "s6-svscan"))
            || self.words().next().is_some_and(|word| word == "/init")
    }

    /// Whether its server, which shows the folder that it begins in, would show this one, too.
    pub fn shows(&self, folder: &str) -> bool {
        let beginning = self.working_dir.trim_end_matches('/');
        let below = folder.strip_prefix(beginning).filter(|_| !beginning.is_empty());
        below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// Whether a program of its command is named from the folder that it begins in.
    pub fn depends_on_working_dir(&self) -> bool {
        self.words()
            .any(|word| word.starts_with("./") || word.starts_with("../"))
    }

    /// The command with which its server is started, behind its entrypoint.
    pub(super) fn own_command(&self, kind: ImageKind) -> Vec<String> {
        if kind != ImageKind::DockerStacks {
            return self.command.clone();
        }
        let own = self.command.iter().filter(|word| file_name(word) != STACKS_ENTRYPOINT);
        let own: Vec<String> = own.cloned().collect();
        if own.is_empty() {
            return vec![STACKS_COMMANDS[0].to_owned()];
        }
        own
    }

    fn words(&self) -> impl Iterator<Item = &String> {
        self.entrypoint.iter().chain(&self.command)
    }

    fn mentions(&self, text: &str) -> bool {
        self.words().any(|word| word.contains(text))
    }

    /// Its kind. `is_own` says that it is made by docker/notebook of the project, whose command is meant to be the server.
    pub fn kind(&self, is_own: bool, asked: AskedPage<'_>) -> ImageKind {
        let is_of_stacks = |word: &String| STACKS_COMMANDS.contains(&file_name(word));
        if self.words().any(is_of_stacks) || self.entrypoint.iter().any(|word| file_name(word) == STACKS_ENTRYPOINT) {
            return ImageKind::DockerStacks;
        }
        if self.mentions("jupyter") {
            return ImageKind::StartsJupyter;
        }
        if self.variable("RSTUDIO_VERSION").is_some() || self.mentions("rserver") || self.ports.contains(&RSTUDIO_PORT)
        {
            return ImageKind::RStudio;
        }
        let is_exposed = asked.port.is_some_and(|port| self.ports.contains(&port));
        if asked.port.is_some() && (asked.path.is_some() || is_exposed) {
            return ImageKind::Page;
        }
        let last = self.command.last().or(self.entrypoint.last());
        let is_idle = last.is_none_or(|word| IDLE_COMMANDS.contains(&file_name(word)));
        if is_own && !is_idle {
            return ImageKind::StartsJupyter;
        }
        ImageKind::Plain
    }

    /// The port that its server listens on.
    fn port(&self, kind: ImageKind, asked: AskedPage<'_>) -> u16 {
        let of_command = || {
            self.words().enumerate().find_map(|(at, word)| {
                let (option, value) = word.split_once('=').unwrap_or((word, ""));
                let is_port = matches!(option, "--port" | "--ServerApp.port" | "--NotebookApp.port");
                let next = || self.words().nth(at + 1).map(String::as_str);
                let value = if value.is_empty() { next() } else { Some(value) };
                is_port.then_some(value)??.parse().ok()
            })
        };
        let of_variable = || self.variable("JUPYTER_PORT")?.parse().ok();
        match kind {
            ImageKind::RStudio => RSTUDIO_PORT,
            ImageKind::Plain | ImageKind::Page => asked.port.unwrap_or(JUPYTER_PORT),
            // The command line of a server beats its environment.
            ImageKind::StartsJupyter => of_command().or(asked.port).or_else(of_variable).unwrap_or(JUPYTER_PORT),
            ImageKind::DockerStacks => asked.port.or_else(of_variable).unwrap_or(JUPYTER_PORT),
        }
    }
}

/// How the server is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerStart {
    pub kind: ImageKind,
    /// The port that it listens on inside.
    pub port: u16,
    /// The command; empty for the image's own.
    pub command: Vec<String>,
    /// Variables that it is given, beside the token.
    pub variables: Vec<(&'static str, String)>,
}

impl ServerStart {
    /// How the server of this image is started, as root if `as_root`, with more arguments for Jupyter.
    ///
    /// # Errors
    /// Arguments that can't be given to it.
    pub fn new(
        image: &NotebookImage,
        kind: ImageKind,
        asked: AskedPage<'_>,
        as_root: bool,
        arguments: &[String],
    ) -> Result<Self> {
        let port = image.port(kind, asked);
        let mut variables = Vec::new();
        let takes_port = matches!(kind, ImageKind::DockerStacks | ImageKind::StartsJupyter);
        if takes_port && asked.port == Some(port) && port != image.port(kind, AskedPage::default()) {
            variables.push(("JUPYTER_PORT", port.to_string()));
        }
        // Jupyter refuses to run as root if nobody says that it is meant.
        let allowed = as_root.then(|| "--allow-root".to_owned());
        let command = match kind {
            ImageKind::DockerStacks => {
                variables.extend(allowed.map(|allowed| ("NOTEBOOK_ARGS", allowed)));
                match arguments {
                    [] => Vec::new(),
                    arguments => image
                        .own_command(kind)
                        .into_iter()
                        .chain(arguments.iter().cloned())
                        .collect(),
                }
            }
            ImageKind::StartsJupyter => {
                let is_direct = image.words().any(|word| file_name(word).starts_with("jupyter"));
                let allowed = allowed.filter(|allowed| is_direct && !image.words().any(|word| word == allowed));
                let more: Vec<String> = allowed.into_iter().chain(arguments.iter().cloned()).collect();
                let words: Vec<&str> = image.words().map(|word| file_name(word)).collect();
                let is_shell_form = words.windows(2).any(|pair| matches!(pair, ["sh" | "bash", "-c"]));
                match more.as_slice() {
                    [] => Vec::new(),
                    _ if is_shell_form && arguments.is_empty() => Vec::new(),
                    _ if is_shell_form => {
                        return Err(Error::usage(
                            "the arguments after -- can't be given to the image's command, which is a line for a shell",
                        )
                        .hint("write CMD in its Dockerfile as a list: CMD [\"jupyter\", \"lab\", \"--ip=0.0.0.0\"]"));
                    }
                    more => image.command.iter().chain(more).cloned().collect(),
                }
            }
            ImageKind::Plain => ["jupyter", "lab", "--ip=0.0.0.0", "--no-browser"]
                .map(str::to_owned)
                .into_iter()
                .chain([format!("--port={port}")])
                .chain(allowed)
                .chain(arguments.iter().cloned())
                .collect(),
            ImageKind::RStudio | ImageKind::Page => match arguments {
                [] => Vec::new(),
                [first, ..] => {
                    return Err(Error::usage(format!(
                        "{first} is an argument for Jupyter, which this image does not start"
                    ))
                    .hint("its own arguments stand in the key cmd of [notebook]"));
                }
            },
        };
        Ok(Self {
            kind,
            port,
            command,
            variables,
        })
    }
}

/// The part after the last slash.
pub(super) fn file_name(word: &str) -> &str {
    word.rsplit('/').next().unwrap_or(word)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// An image with this entrypoint and command, each in words.
    pub fn image(entrypoint: &str, command: &str) -> NotebookImage {
        let words = |text: &str| {
            text.split(' ')
                .filter(|word| !word.is_empty())
                .map(str::to_owned)
                .collect()
        };
        NotebookImage {
            entrypoint: words(entrypoint),
            command: words(command),
            ..NotebookImage::default()
        }
    }

    const NOTHING: AskedPage<'static> = AskedPage { port: None, path: None };

    fn start(image: &NotebookImage, asked: AskedPage<'_>, as_root: bool, arguments: &[&str]) -> Result<ServerStart> {
        let arguments: Vec<String> = arguments.iter().map(|word| (*word).to_owned()).collect();
        ServerStart::new(image, image.kind(false, asked), asked, as_root, &arguments)
    }

    #[test]
    fn the_configuration_tells_the_kind() {
        for (entrypoint, command, kind) in [
            ("tini -g -- start.sh", "start-notebook.py", ImageKind::DockerStacks),
            ("tini -g --", "start-notebook.sh", ImageKind::DockerStacks),
            (
                "/usr/bin/tini -g -- /usr/local/bin/start.sh",
                "",
                ImageKind::DockerStacks,
            ),
            ("", "jupyter lab --ip=0.0.0.0", ImageKind::StartsJupyter),
            ("", "/bin/sh -c jupyter-lab", ImageKind::StartsJupyter),
            ("tini --", "jupyterhub-singleuser", ImageKind::StartsJupyter),
            ("", "/usr/lib/rstudio-server/bin/rserver", ImageKind::RStudio),
            ("", "python3", ImageKind::Plain),
            ("", "", ImageKind::Plain),
            ("", "nginx -g daemon", ImageKind::Plain),
        ] {
            assert_eq!(
                image(entrypoint, command).kind(false, NOTHING),
                kind,
                "{entrypoint} {command}"
            );
        }
        let mut rocker = image("", "/init");
        rocker.variables.insert("RSTUDIO_VERSION".into(), "2024.04".into());
        assert_eq!(rocker.kind(false, NOTHING), ImageKind::RStudio);
        assert!(rocker.has_init() && image("/usr/bin/tini --", "").has_init() && !image("sh", "").has_init());
    }

    #[test]
    fn a_page_is_what_a_port_and_a_path_lead_to() {
        let mut web = image("", "serve");
        let asked = |port, path| AskedPage { port, path };
        assert_eq!(web.kind(false, asked(Some(80), Some("docs"))), ImageKind::Page);
        // A plain image, whose Jupyter is to listen on another port.
        assert_eq!(web.kind(false, asked(Some(80), None)), ImageKind::Plain);
        web.ports.insert(80);
        assert_eq!(web.kind(false, asked(Some(80), None)), ImageKind::Page);
        assert_eq!(start(&web, asked(Some(80), None), false, &[]).unwrap().port, 80);
        let lab = image("", "jupyter lab");
        assert_eq!(
            lab.kind(false, asked(Some(9000), Some("desktop"))),
            ImageKind::StartsJupyter
        );
    }

    #[test]
    fn a_server_shows_what_is_below_where_it_begins() {
        let shows = |working_dir: &str| {
            let image = NotebookImage {
                working_dir: working_dir.to_owned(),
                ..NotebookImage::default()
            };
            image.shows("/home/jovyan/project")
        };
        assert!(shows("/home/jovyan") && shows("/home/jovyan/") && shows("/home/jovyan/project"));
        assert!(!shows("/home/jo") && !shows("/home/nb") && !shows("/") && !shows(""));
        assert!(image("", "./serve").depends_on_working_dir() && !image("", "serve").depends_on_working_dir());
    }

    #[test]
    fn the_project_s_own_notebook_image_starts_its_server() {
        assert_eq!(
            image("tini --", "start-lab").kind(true, NOTHING),
            ImageKind::StartsJupyter
        );
        // The command of the image that it is made of.
        assert_eq!(image("", "python3").kind(true, NOTHING), ImageKind::Plain);
    }

    #[test]
    fn docker_stacks_keeps_its_entrypoint_and_never_has_it_named() {
        let stacks = image("tini -g -- start.sh", "start-notebook.py");
        assert_eq!(start(&stacks, NOTHING, false, &[]).unwrap().command, [""; 0]);
        let with = start(&stacks, NOTHING, true, &["--debug"]).unwrap();
        assert_eq!(with.command, ["start-notebook.py", "--debug"]);
        assert_eq!(with.variables, [("NOTEBOOK_ARGS", "--allow-root".to_owned())]);
        let derived = image("tini -g -- start.sh", "start.sh jupyter lab");
        assert_eq!(
            start(&derived, NOTHING, false, &["-y"]).unwrap().command,
            ["jupyter", "lab", "-y"]
        );
        assert_eq!(
            start(&image("start.sh", ""), NOTHING, false, &["-y"]).unwrap().command,
            ["start-notebook.py", "-y"]
        );
    }

    #[test]
    fn the_port_is_that_of_the_server() {
        let asked = AskedPage {
            port: Some(9000),
            path: None,
        };
        let mut stacks = image("tini -g -- start.sh", "start-notebook.py");
        let there = start(&stacks, asked, false, &[]).unwrap();
        assert_eq!(
            (there.port, there.variables),
            (9000, vec![("JUPYTER_PORT", "9000".to_owned())])
        );
        stacks.variables.insert("JUPYTER_PORT".into(), "9000".into());
        let there = start(&stacks, asked, false, &[]).unwrap();
        assert_eq!((there.port, there.variables), (9000, vec![]));
        for command in [
            "jupyter lab --port=8899",
            "jupyter lab --port 8899",
            "jupyter lab --ServerApp.port=8899",
        ] {
            let there = start(&image("", command), asked, false, &[]).unwrap();
            assert_eq!((there.port, there.variables), (8899, vec![]), "{command}");
        }
        assert_eq!(
            start(&image("", "jupyter lab"), NOTHING, false, &[]).unwrap().port,
            8888
        );
    }

    #[test]
    fn a_plain_image_gets_a_command_and_others_get_arguments() {
        assert_eq!(
            start(&image("", "bash"), NOTHING, true, &["-y"]).unwrap().command,
            [
                "jupyter",
                "lab",
                "--ip=0.0.0.0",
                "--no-browser",
                "--port=8888",
                "--allow-root",
                "-y"
            ]
        );
        let own = image("tini --", "jupyter lab");
        assert_eq!(
            start(&own, NOTHING, true, &[]).unwrap().command,
            ["jupyter", "lab", "--allow-root"]
        );
        assert_eq!(
            start(&own, NOTHING, false, &["-y"]).unwrap().command,
            ["jupyter", "lab", "-y"]
        );
        let shell = image("", "/bin/sh -c jupyter-lab");
        assert_eq!(start(&shell, NOTHING, true, &[]).unwrap().command, [""; 0]);
        let error = start(&shell, NOTHING, false, &["-y"]).unwrap_err();
        assert!(error.hint_text().unwrap().contains("CMD [\"jupyter\""), "{error}");
        let mut rstudio = image("", "/init");
        rstudio.ports.insert(8787);
        assert_eq!(start(&rstudio, NOTHING, false, &[]).unwrap().port, 8787);
        assert!(start(&rstudio, NOTHING, false, &["-y"]).is_err());
    }
}
