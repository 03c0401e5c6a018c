//! The plan of a notebook: that of a run by the section `[notebook]`, with the words that make it one.

use std::path::Path;

use super::hub_home::HubHome;
use super::image_kind::{AskedPage, ImageKind, NotebookImage, ServerStart};
use super::label::{NotebookLabel, ServerKind};
use super::owner::{FileOwner, OwnerFacts, PROJECT_MOUNT, UserMapping};
use super::start_script::{PROJECT_VARIABLE, SCRIPT, ScriptDecision, ScriptStart, ScriptWants};
use crate::config::project::Project;
use crate::config::settings::{NOTEBOOK, Settings};
use crate::config::variables::Word;
use crate::docker::connect::locality::Locality;
use crate::docker::containers::{LABEL_NOTEBOOK, LABEL_NOTEBOOK_PAGE};
use crate::docker::options::run_options::RunOptions;
use crate::env::Env;
use crate::error::{Error, Result};
use crate::hint;
use crate::jupyter::token::TOKEN_VARIABLE;
use crate::naming::Designation;
use crate::ops::run::plan::{RunAdditions, RunArgs, RunEnvironment, RunImage, RunPlan};

/// How the name of a notebook's container ends, for strftime; as the original named them.
const NAME_ENDING: &str = "%Y_%m_%d_%H.%M.%S";
/// The image that is run where a project says no other.
const DEFAULT_IMAGE: &str = "resero/docker-ds";
/// The variable by which RStudio Server gets its password.
pub const PASSWORD_VARIABLE: &str = "PASSWORD";
/// What a hub gives to its users' servers: who has it can ask the hub as that user.
const HUB_TOKEN: &str = "JUPYTERHUB_API_TOKEN";
/// Variables of the user that ask for copies of notebooks on save; the older name, too.
const DIFFS: [&str; 2] = ["DOCKER_DS_DIFFS", "RESERO_JUPYTER_DIFFS"];
/// A folder that is mounted where it exists.
pub const DATA: &str = "/data";

/// What run-notebook is asked for.
#[derive(Clone, Debug, Default)]
pub struct NotebookArgs {
    /// A notebook to open, relative to the working directory.
    pub file: Option<String>,
    pub gpu: bool,
    /// The server's port, inside and, if it is free, here.
    pub port: Option<u16>,
    /// The address of a listener here, beside 127.0.0.1.
    pub bind: Option<std::net::IpAddr>,
    pub detach: bool,
    pub no_browser: bool,
    /// Another image.
    pub image: Option<String>,
    /// The path of the first page.
    pub path: Option<String>,
    /// Start another server though the project has one.
    pub another: bool,
    /// Keep the project and its copy on the dock in step while it runs.
    pub watch: bool,
    /// End it when no kernel has worked and nobody was connected for that long.
    pub idle: Option<std::time::Duration>,
    /// As a JupyterHub starts it: with a volume over the home folder.
    pub as_hub: bool,
    /// Arguments for Jupyter.
    pub arguments: Vec<String>,
}

/// Where the image of a notebook comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageSource {
    /// It is built from docker/notebook.
    Built,
    /// It is pulled each time.
    Pulled,
    /// It is pulled if the engine does not have it.
    PulledIfAbsent,
    /// It must be there.
    There,
}

/// The image of a notebook.
#[derive(Clone, Debug)]
pub struct NotebookReference {
    pub source: ImageSource,
    /// As the engine is told it.
    pub reference: String,
    /// Sentences about a name that had to be changed.
    notes: Vec<String>,
}

impl NotebookReference {
    /// The image by the command line, `[notebook]`, docker/notebook, and the environment, in this order.
    ///
    /// # Errors
    /// A key that can't be read.
    pub fn choose(project: &Project, args: &NotebookArgs, env: &Env) -> Result<Self> {
        let settings = project.settings(NOTEBOOK);
        let named = match &args.image {
            Some(image) => Some(image.clone()),
            None => settings.text("image")?.filter(|image| !image.is_empty()),
        };
        if let Some(reference) = named {
            return Ok(Self {
                source: ImageSource::PulledIfAbsent,
                reference,
                notes: Vec::new(),
            });
        }
        let is_built = project.image_types().iter().any(|name| name == NOTEBOOK);
        if is_built || settings.has("name") || project.synthetic_images().iter().any(|name| name == NOTEBOOK) {
            let named = project.designation(NOTEBOOK)?;
            return Ok(Self {
                source: if is_built {
                    ImageSource::Built
                } else {
                    ImageSource::PulledIfAbsent
                },
                reference: named.designation.to_string(),
                notes: named.notes,
            });
        }
        let is_pulled = env.get("DOCKER_DS_DONT_PULL").is_none_or(|value| value == "pull");
        Ok(Self {
            source: if is_pulled {
                ImageSource::Pulled
            } else {
                ImageSource::There
            },
            reference: Designation {
                name: DEFAULT_IMAGE.to_owned(),
                tag: if args.gpu { "gpu" } else { "latest" }.to_owned(),
            }
            .to_string(),
            notes: Vec::new(),
        })
    }
}

/// What is known of the engine, its machine and the image.
#[derive(Clone, Debug)]
pub struct NotebookFacts {
    pub around: RunEnvironment,
    pub image: NotebookImage,
    pub mapping: UserMapping,
    /// User and group that own the project on the engine's machine.
    pub owner: Option<(u32, u32)>,
    /// Whether the engine's machine has [`DATA`].
    pub has_data: bool,
    /// Whether this machine has `~/.aws`.
    pub has_aws: bool,
    /// What the project's files ask of the start script.
    pub wants: ScriptWants,
}

/// A notebook, before it is started.
#[derive(Clone, Debug)]
pub struct NotebookPlan {
    /// The run.
    pub run: RunPlan,
    pub start: ServerStart,
    pub owner: FileOwner,
    /// How the container is found again.
    pub label: NotebookLabel,
    /// The path of the first page, if another than Jupyter's own is wanted.
    pub path: Option<String>,
    /// The port of the engine's machine; `None` if `[notebook]` publishes the server's port itself.
    published: Option<u16>,
    /// Whether the server begins in the project, and shows that.
    begins_in_project: bool,
    /// How the container begins with the start script, which is put into it.
    script: Option<ScriptStart>,
    /// The home folder with a volume over it.
    pub hub: Option<HubHome>,
}

impl NotebookPlan {
    /// Plans a notebook.
    ///
    /// # Errors
    /// A wrong configuration, arguments that the image can't be given.
    pub fn new(
        project: &Project,
        image: &NotebookReference,
        facts: &NotebookFacts,
        args: &NotebookArgs,
        env: &Env,
        now: &jiff::Zoned,
    ) -> Result<Self> {
        let settings = project.settings(NOTEBOOK);
        let run_args = RunArgs {
            image: NOTEBOOK.to_owned(),
            gpu: args.gpu,
            ..RunArgs::default()
        };
        let run_image = RunImage {
            reference: image.reference.clone(),
            built_as: (image.source == ImageSource::Built).then(|| NOTEBOOK.to_owned()),
            notes: image.notes.clone(),
        };
        let plan = |more: RunAdditions| {
            RunPlan::of_image(project, run_image.clone(), &run_args, facts.around, env, (now, more))
        };
        let additions = RunAdditions {
            has_init: facts.image.has_init(),
            detached: true,
            name_ending: NAME_ENDING,
            ..RunAdditions::default()
        };
        // What the section says by itself, so that nothing is said twice.
        let configured = plan(additions.clone())?;
        let (words, configured_command) = configured.expand(env)?;
        let configured = RunOptions::parse(&words)
            .map_err(|cause| Error::usage(format!("[{NOTEBOOK}]: {}", configured.masked(&cause, env))))?;

        let path = match &args.path {
            Some(path) => Some(path.clone()),
            None => settings.text("path")?,
        };
        let asked = AskedPage {
            port: match args.port {
                Some(port) => Some(port),
                None => number(settings, "port")?,
            },
            path: path.as_deref(),
        };
        let kind = facts.image.kind(image.source == ImageSource::Built, asked);
        let owner = FileOwner::of(&OwnerFacts {
            kind,
            image: &facts.image,
            mapping: facts.mapping,
            owner: facts.owner,
            root_wanted: settings.switch("root")?.unwrap_or(true),
            configured: configured.user(),
            as_hub: args.as_hub,
        });
        let hub = match args.as_hub {
            true => Some(hub_home(project, image, kind, &owner, &configured)?),
            false => None,
        };
        let start = ServerStart::new(&facts.image, kind, asked, owner.as_root, &args.arguments)?;
        let label = NotebookLabel {
            kind: match kind {
                ImageKind::RStudio | ImageKind::Page => ServerKind::Page,
                _ => ServerKind::Jupyter,
            },
            port: start.port,
            path: match (kind, &path) {
                _ if let Some(hub) = &hub => hub.base_path(),
                (ImageKind::Page, Some(path)) => format!("/{}", path.trim_start_matches('/')),
                _ => "/".to_owned(),
            },
        };
        let inside = format!("{}/tcp", start.port);
        let published = (!configured.publishes(&inside)).then_some(asked.port.unwrap_or(start.port));

        let mut options: Vec<String> = owner.options.clone();
        let mut set = |variable: String| options.extend(["-e".to_owned(), variable]);
        for (name, value) in &start.variables {
            set(format!("{name}={value}"));
        }
        match kind {
            ImageKind::RStudio => set(PASSWORD_VARIABLE.to_owned()),
            ImageKind::Page => {}
            // By name: docker takes the value from the environment, so that no argv has it.
            _ => ["NOTEBOOK_MODE=lab", TOKEN_VARIABLE]
                .map(str::to_owned)
                .into_iter()
                .for_each(&mut set),
        }
        let copies = DIFFS.iter().any(|name| env.non_empty(name).is_some());
        if copies {
            set(format!("{}=1", DIFFS[0]));
        }
        if let Some(hub) = &hub {
            options.extend(hub.options(start.port));
        }
        if let Some(port) = published {
            options.extend(["-p".to_owned(), binding(port, start.port)]);
        }
        let root = project.root().display().to_string();
        for target in &owner.mounts {
            if !configured.mounts_at(target) {
                options.extend(mount(&root, target, false));
            }
        }
        if facts.has_data && !configured.mounts_at(DATA) {
            options.extend(mount(DATA, DATA, false));
        }
        let aws = format!("{}/.aws", owner.home.trim_end_matches('/'));
        if facts.has_aws && facts.around.locality == Locality::Local && !configured.mounts_at(&aws) {
            options.extend(mount(&env.home().join(".aws").display().to_string(), &aws, true));
        }
        let is_image_s = facts.image.shows(PROJECT_MOUNT) || facts.image.depends_on_working_dir();
        let begins_in_project = kind == ImageKind::Plain
            || (kind == ImageKind::StartsJupyter && !is_image_s && !configured.sets_working_dir());
        if begins_in_project {
            options.extend(["-w", PROJECT_MOUNT].map(str::to_owned));
        }
        let command = if !configured_command.is_empty() {
            configured_command
        } else if start.command.is_empty() {
            facts.image.own_command(kind)
        } else {
            start.command.clone()
        };
        let wants = ScriptWants {
            hub: args.as_hub,
            copies: copies || is_told_to_copy(&facts.image, &configured),
            ..facts.wants
        };
        let (script, impossible) = match ScriptDecision::of(&facts.image, kind, wants, &configured, &command) {
            ScriptDecision::Not => (None, None),
            ScriptDecision::Impossible(sentence) => (None, Some(sentence)),
            ScriptDecision::Put(start) => (Some(start), None),
        };
        if let Some(script) = &script {
            options.extend(["-e".to_owned(), project_variable(&owner)]);
            if script.is_entrypoint {
                options.extend(["--entrypoint", SCRIPT].map(str::to_owned));
            }
        }
        let page = path.clone().filter(|_| label.kind == ServerKind::Jupyter);
        let page = page.map(|page| (LABEL_NOTEBOOK_PAGE, page));
        let mut run = plan(RunAdditions {
            options: options.into_iter().map(Word::literal).collect(),
            labels: [(LABEL_NOTEBOOK, label.to_string())].into_iter().chain(page).collect(),
            ..additions
        })?;
        if without_hub_token(&mut run.options) {
            run.notes.push(format!(
                "{HUB_TOKEN} is not passed on: who has it can ask the hub in your name"
            ));
        }
        run.notes.extend(impossible);
        match (run.command.is_empty(), &script) {
            (true, None) => run.command = start.command.iter().map(Word::literal).collect(),
            (true, Some(_)) => run.command = command.iter().map(Word::literal).collect(),
            (false, _) => run.command.extend(args.arguments.iter().map(Word::literal)),
        }
        if let Some(script) = &script {
            run.command.splice(..0, script.before.iter().map(Word::literal));
        }
        Ok(Self {
            run,
            start,
            owner,
            label,
            path,
            published,
            begins_in_project,
            script,
            hub,
        })
    }

    /// The equivalent docker commands.
    pub fn lines(&self) -> Vec<String> {
        let files = match &self.hub {
            Some(hub) => hint!("run-notebook --start-files={}", hub.word()),
            None => "run-notebook --start-files".to_owned(),
        };
        let mut lines: Vec<String> = self.hub.iter().map(|hub| hub.line(&self.run.docker_prefix)).collect();
        match (&self.script, &self.hub) {
            (None, None) => lines.push(self.run.line()),
            _ => lines.extend(self.run.lines_with(&files)),
        }
        lines
    }

    /// What the start script is for, if it is put into the container.
    pub fn script_purpose(&self) -> Option<&str> {
        self.script.as_ref().map(|script| script.purpose.as_str())
    }

    /// Lets the container begin without the start script, as if nothing had asked for it.
    pub fn leave_script_out(&mut self) {
        let Some(script) = self.script.take() else {
            return;
        };
        self.run.command.drain(..script.before.len());
        self.run.take_out("-e", &project_variable(&self.owner));
        if script.is_entrypoint {
            self.run.take_out("--entrypoint", SCRIPT);
        }
    }

    /// The port of the engine's machine that is wanted; `None` if `[notebook]` publishes the server's port itself.
    pub const fn published(&self) -> Option<u16> {
        self.published
    }

    /// Takes another port of the engine's machine.
    pub fn publish_at(&mut self, port: u16) {
        if let Some(old) = self.published.replace(port) {
            self.run
                .replace(&binding(old, self.start.port), &binding(port, self.start.port));
        }
    }

    /// A file of the project, by its path below the server's root folder; `None` if it is not below it.
    pub fn below(&self, root_dir: Option<&Path>, inside: &Path) -> Option<String> {
        // docker-stacks and ours begin in the home folder.
        let mounted = Path::new(self.owner.mounts.last()?);
        let root_dir = match root_dir {
            Some(root_dir) => root_dir,
            None if self.begins_in_project => mounted,
            None => mounted.parent()?,
        };
        let below = |mount: &&str| {
            let file = Path::new(mount).join(inside);
            file.strip_prefix(root_dir).ok()?.to_str().map(str::to_owned)
        };
        self.owner.mounts.iter().rev().find_map(below)
    }
}

/// The home folder of `--as-hub`.
fn hub_home(
    project: &Project,
    image: &NotebookReference,
    kind: ImageKind,
    owner: &FileOwner,
    configured: &RunOptions,
) -> Result<HubHome> {
    if matches!(kind, ImageKind::RStudio | ImageKind::Page) {
        return Err(Error::usage(format!(
            "{} starts no server of Jupyter, and a JupyterHub starts no other",
            image.reference
        ))
        .hint("leave out --as-hub"));
    }
    if configured.has_read_only_root() {
        return Err(Error::usage(format!(
            "[{NOTEBOOK}] has --read-only: what stands in for a hub can't be put into such a container"
        ))
        .hint("take --read-only out of [notebook], or leave out --as-hub"));
    }
    if configured.mounts_at(&owner.home) {
        return Err(Error::usage(format!(
            "[{NOTEBOOK}] mounts something at {}, where --as-hub mounts a volume",
            owner.home
        ))
        .hint("take the mount out of [notebook], or leave out --as-hub"));
    }
    let home = HubHome::new(
        (project.root(), &project.name()),
        project.user(),
        &image.reference,
        &owner.home,
        owner.user,
    );
    home.check_path()?;
    Ok(home)
}

/// The variable that tells the start script where the project is.
fn project_variable(owner: &FileOwner) -> String {
    let mount = owner.mounts.last().copied().unwrap_or(PROJECT_MOUNT);
    format!("{PROJECT_VARIABLE}={mount}")
}

/// Whether the image or the configuration asks for copies of notebooks.
fn is_told_to_copy(image: &NotebookImage, configured: &RunOptions) -> bool {
    let is_on = |value: &str| !matches!(value.trim().to_ascii_lowercase().as_str(), "" | "0" | "false" | "no");
    DIFFS
        .iter()
        .any(|name| configured.names_variable(name) || image.variable(name).is_some_and(is_on))
}

/// The value of `-p` for a port of the engine's machine and one of the container.
fn binding(outside: u16, inside: u16) -> String {
    format!("127.0.0.1:{outside}:{inside}")
}

/// The options that mount a folder.
fn mount(source: &str, target: &str, read_only: bool) -> [String; 2] {
    if source.contains(':') {
        let quoted = match source.contains([',', '"']) {
            true => format!("\"source={}\"", source.replace('"', "\"\"")),
            false => format!("source={source}"),
        };
        let suffix = if read_only { ",readonly" } else { "" };
        return [
            "--mount".to_owned(),
            format!("type=bind,{quoted},target={target}{suffix}"),
        ];
    }
    let suffix = if read_only { ":ro" } else { "" };
    ["-v".to_owned(), format!("{source}:{target}{suffix}")]
}

/// A port in a key.
fn number(settings: Settings<'_>, key: &str) -> Result<Option<u16>> {
    let Some(text) = settings.text(key)? else {
        return Ok(None);
    };
    match text.parse() {
        Ok(port) if port > 0 => Ok(Some(port)),
        _ => Err(settings
            .error(key, &format!("{text:?} is not a port"))
            .hint(hint!("a number from 1 to 65535: {} = 8888", key))),
    }
}

/// Removes the options that give the container a hub's token; says whether there were any.
fn without_hub_token(options: &mut Vec<Word>) -> bool {
    let is_token = |text: &str| text.split('=').next() == Some(HUB_TOKEN);
    let is_one_word = |text: &str| {
        ["-e", "--env="]
            .iter()
            .any(|option| text.strip_prefix(option).is_some_and(is_token))
    };
    let before = options.len();
    let mut kept: Vec<Word> = Vec::with_capacity(before);
    for word in options.drain(..) {
        let printed = word.print();
        let follows_option = kept
            .last()
            .is_some_and(|last| matches!(last.print().as_str(), "-e" | "--env"));
        if follows_option && is_token(&printed) {
            kept.pop();
        } else if !is_one_word(&printed) {
            kept.push(word);
        }
    }
    *options = kept;
    options.len() < before
}

/// The environment with an empty text for a hub's token, for what configurations expand.
pub fn without_hub_variable(env: &Env) -> Env {
    let without = |(name, value)| if name == HUB_TOKEN { (name, "") } else { (name, value) };
    Env::from_pairs(env.iter().map(without))
}

/// Removes a hub's token from a container's environment, however it came there.
pub fn forget_hub_token(variables: &mut Vec<String>) {
    variables.retain(|pair| pair.split('=').next() != Some(HUB_TOKEN));
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::image_kind::tests::image;
    use super::*;
    use crate::ops::run::GpuSupport;

    const LOCAL: RunEnvironment = RunEnvironment {
        locality: Locality::Local,
        terminal: true,
        gpu: GpuSupport::Runtime,
    };

    fn env() -> Env {
        Env::from_pairs([("USER", "ann"), ("HOME", "/home/ann")])
    }

    fn stacks() -> NotebookFacts {
        NotebookFacts {
            around: LOCAL,
            image: NotebookImage {
                user: "1000".into(),
                ..image("tini -g -- start.sh", "start-notebook.py")
            },
            mapping: UserMapping::None,
            owner: Some((1001, 1002)),
            has_data: false,
            has_aws: false,
            wants: ScriptWants::default(),
        }
    }

    struct Place {
        _folder: tempfile::TempDir,
        project: Project,
    }

    fn place(config: Option<&str>, has_type: bool, env: &Env) -> Place {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("proj");
        fs::create_dir_all(root.join("docker")).unwrap();
        if let Some(config) = config {
            fs::write(root.join("docker/dockerutils.cfg"), config).unwrap();
        }
        if has_type {
            fs::create_dir_all(root.join("docker/notebook")).unwrap();
            fs::write(root.join("docker/notebook/Dockerfile"), "FROM scratch\n").unwrap();
        }
        let project = Project::find_or_folder(&root, env).unwrap();
        Place {
            _folder: folder,
            project,
        }
    }

    fn plan_in(place: &Place, facts: &NotebookFacts, args: &NotebookArgs, env: &Env) -> Result<NotebookPlan> {
        let image = NotebookReference::choose(&place.project, args, env)?;
        let now: jiff::Zoned = "2026-11-21T09:08:07[UTC]".parse().unwrap();
        NotebookPlan::new(&place.project, &image, facts, args, env, &now)
    }

    /// The printed line, with the root as `ROOT`.
    fn line(config: &str, facts: &NotebookFacts, args: &NotebookArgs) -> String {
        let place = place(Some(config), false, &env());
        let plan = plan_in(&place, facts, args, &env()).unwrap();
        plan.run
            .line()
            .replace(&place.project.root().display().to_string(), "ROOT")
    }

    const LABELS: &str = "--label io.dockerutils.project=proj --label io.dockerutils.user=ann --label io.dockerutils.notebook=jupyter:8888/";

    #[test]
    fn the_line_of_the_default_image() {
        assert_eq!(
            line("", &stacks(), &NotebookArgs::default()),
            format!(
                "docker run --name ann_notebook_2026_11_21_09.08.07 --rm -d --user root -e NB_UID=1001 -e NB_GID=1002 -e \
                 NOTEBOOK_MODE=lab -e JUPYTER_TOKEN -p 127.0.0.1:8888:8888 -v ROOT:/home/jovyan/project {LABELS} \
                 resero/docker-ds:latest"
            )
        );
    }

    #[test]
    fn what_this_machine_has_is_mounted() {
        let facts = NotebookFacts {
            has_data: true,
            has_aws: true,
            ..stacks()
        };
        let local = line("", &facts, &NotebookArgs::default());
        assert!(
            local.contains(
                " -v ROOT:/home/jovyan/project -v /data:/data -v /home/ann/.aws:/home/jovyan/.aws:ro --label"
            ),
            "{local}"
        );
        let docked = NotebookFacts {
            around: RunEnvironment {
                locality: Locality::Docked,
                ..LOCAL
            },
            ..facts
        };
        assert!(!line("", &docked, &NotebookArgs::default()).contains(".aws"));
    }

    #[test]
    fn the_section_decides_what_it_names() {
        let config = "[notebook]\nimage = lab:1\nvolumes = -v /d:/data -v /other:/home/jovyan/project\nports = -p 9999:8888\n\
                      args = --user 7 -m 1g\nenvironment = -e JUPYTERHUB_API_TOKEN -e A=1\n";
        let facts = NotebookFacts {
            has_data: true,
            ..stacks()
        };
        assert_eq!(
            line(config, &facts, &NotebookArgs::default()),
            format!(
                "docker run --name ann_notebook_2026_11_21_09.08.07 -e A=1 --rm -d -v /d:/data -v \
                 /other:/home/jovyan/project -p 9999:8888 --user 7 -m 1g -e NOTEBOOK_MODE=lab -e JUPYTER_TOKEN {LABELS} lab:1"
            )
        );
        let error = plan_in(
            &place(Some("[notebook]\nport = eighty\n"), false, &env()),
            &stacks(),
            &NotebookArgs::default(),
            &env(),
        );
        assert_eq!(
            error.unwrap_err().to_string(),
            "docker/dockerutils.cfg:2: [notebook] port: \"eighty\" is not a port"
        );
    }

    #[test]
    fn a_plain_image_is_given_jupyter_lab_in_the_project() {
        let facts = NotebookFacts {
            image: image("", "python3"),
            ..stacks()
        };
        let args = NotebookArgs {
            image: Some("python:3".into()),
            port: Some(9000),
            arguments: vec!["--debug".into()],
            ..NotebookArgs::default()
        };
        let line = line("", &facts, &args);
        assert!(line.starts_with("docker run --init --name "), "{line}");
        assert!(
            line.contains(
                " --user 1001:1002 -e HOME=/tmp -e NOTEBOOK_MODE=lab -e JUPYTER_TOKEN -p 127.0.0.1:9000:9000 "
            ),
            "{line}"
        );
        assert!(
            line.ends_with(
                " -w /home/jovyan/project --label io.dockerutils.project=proj --label io.dockerutils.user=ann --label \
                 io.dockerutils.notebook=jupyter:9000/ python:3 jupyter lab --ip=0.0.0.0 --no-browser --port=9000 --debug"
            ),
            "{line}"
        );
    }

    #[test]
    fn a_server_that_begins_elsewhere_begins_in_the_project() {
        let of = |working_dir: &str, command: &str| {
            let facts = NotebookFacts {
                image: NotebookImage {
                    working_dir: working_dir.to_owned(),
                    ..image("", command)
                },
                ..stacks()
            };
            line("", &facts, &NotebookArgs::default()).contains(" -w /home/jovyan/project ")
        };
        assert!(of("/srv", "jupyter lab") && of("", "jupyter lab") && of("", "python3"));
        assert!(!of("/home/jovyan", "jupyter lab") && !of("/srv", "./jupyter-lab") && !of("/srv", "start-notebook.py"));
    }

    #[test]
    fn the_image_is_chosen_in_the_original_s_order() {
        let chosen = |config: Option<&str>, has_type: bool, args: &NotebookArgs, env: &Env| {
            let found = NotebookReference::choose(&place(config, has_type, env).project, args, env).unwrap();
            (found.reference, found.source)
        };
        let none = NotebookArgs::default();
        let gpu = NotebookArgs {
            gpu: true,
            ..NotebookArgs::default()
        };
        let named = NotebookArgs {
            image: Some("x/y@sha256:1".into()),
            ..NotebookArgs::default()
        };
        let config = "[notebook]\nname = lab\ntag = 2\nprefix = False\n";
        for (found, reference, source) in [
            (
                chosen(None, true, &none, &env()),
                "proj-notebook:ann",
                ImageSource::Built,
            ),
            (chosen(Some(config), true, &none, &env()), "lab:2", ImageSource::Built),
            (
                chosen(Some(config), false, &none, &env()),
                "lab:2",
                ImageSource::PulledIfAbsent,
            ),
            (
                chosen(None, true, &named, &env()),
                "x/y@sha256:1",
                ImageSource::PulledIfAbsent,
            ),
            (
                chosen(Some(""), false, &gpu, &env()),
                "resero/docker-ds:gpu",
                ImageSource::Pulled,
            ),
        ] {
            assert_eq!(found, (reference.to_owned(), source));
        }
        for (value, source) in [
            ("pull", ImageSource::Pulled),
            ("1", ImageSource::There),
            ("", ImageSource::There),
        ] {
            let env = Env::from_pairs([("USER", "ann"), ("HOME", "/home/ann"), ("DOCKER_DS_DONT_PULL", value)]);
            assert_eq!(chosen(Some(""), false, &none, &env).1, source, "{value:?}");
        }
    }

    #[test]
    fn diffs_are_asked_for_by_both_names() {
        for name in DIFFS {
            let env = Env::from_pairs([("USER", "ann"), ("HOME", "/home/ann"), (name, "yes")]);
            let plan = plan_in(&place(Some(""), false, &env), &stacks(), &NotebookArgs::default(), &env).unwrap();
            assert!(plan.run.line().contains(" -e DOCKER_DS_DIFFS=1 -p "), "{name}");
            assert_eq!(
                plan.script_purpose(),
                Some("notebooks that are saved are copied to .diffs"),
                "{name}"
            );
        }
    }

    #[test]
    fn a_project_that_asks_for_the_script_has_its_container_begin_with_it() {
        let wants = ScriptWants {
            package: true,
            ..ScriptWants::default()
        };
        let lines_of = |facts: &NotebookFacts, config: &str| {
            let place = place(Some(config), false, &env());
            let plan = plan_in(&place, facts, &NotebookArgs::default(), &env()).unwrap();
            (plan.lines(), plan)
        };
        let facts = NotebookFacts { wants, ..stacks() };
        let (lines, mut plan) = lines_of(&facts, "");
        let name = "ann_notebook_2026_11_21_09.08.07";
        assert!(
            lines[0].starts_with(&format!("docker create --name {name} --rm --user root ")),
            "{lines:?}"
        );
        assert!(
            lines[0].contains(" -e NOTEBOOK_PROJECT=/home/jovyan/project ")
                && lines[0]
                    .ends_with(" resero/docker-ds:latest /opt/dockerutils/start-notebook --stay start-notebook.py"),
            "{lines:?}"
        );
        assert_eq!(
            lines[1..],
            [
                format!("run-notebook --start-files | docker cp - {name}:/"),
                format!("docker start {name}")
            ]
        );
        assert_eq!(plan.script_purpose(), Some("the project is installed (pip install -e)"));
        plan.leave_script_out();
        let lines = plan.lines();
        assert!(
            lines.len() == 1 && lines[0].contains(" --rm -d ") && !lines[0].contains("NOTEBOOK_PROJECT"),
            "{lines:?}"
        );
        assert!(
            lines[0].ends_with(" resero/docker-ds:latest start-notebook.py"),
            "{lines:?}"
        );

        let server = NotebookFacts {
            image: image("jupyter lab", "--ip=0.0.0.0"),
            ..facts.clone()
        };
        let (lines, mut plan) = lines_of(&server, "");
        assert!(
            lines[0].contains(" --entrypoint /opt/dockerutils/start-notebook ")
                && lines[0].ends_with(" resero/docker-ds:latest --stay jupyter lab --ip=0.0.0.0"),
            "{lines:?}"
        );
        plan.leave_script_out();
        assert!(
            !plan.run.line().contains("--entrypoint") && plan.run.line().ends_with(":latest --ip=0.0.0.0"),
            "{}",
            plan.run.line()
        );
        let (lines, plan) = lines_of(&facts, "[notebook]\nargs = --read-only\n");
        assert!(lines.len() == 1 && plan.run.notes[0].contains("read-only"), "{lines:?}");
    }

    #[test]
    fn a_hub_s_volume_is_mounted_over_the_home() {
        let args = NotebookArgs {
            as_hub: true,
            ..NotebookArgs::default()
        };
        let place = place(Some(""), false, &env());
        let plan = plan_in(&place, &stacks(), &args, &env()).unwrap();
        let lines = plan.lines();
        let volume = &plan.hub.as_ref().unwrap().volume;
        assert!(
            lines[0].starts_with("docker volume create --label io.dockerutils.project=proj ")
                && lines[0].ends_with(&format!(
                    "--label io.dockerutils.notebook-home=resero/docker-ds:latest {volume}"
                )),
            "{lines:?}"
        );
        let mounted = format!(
            " -v {volume}:/home/jovyan:nocopy -e JUPYTERHUB_USER=ann -e JUPYTERHUB_SERVICE_URL=http://0.0.0.0:8888/user/ann/ "
        );
        assert!(
            lines[1].contains(&mounted) && lines[1].contains("=jupyter:8888/user/ann/ "),
            "{lines:?}"
        );
        assert!(
            lines[2].starts_with("run-notebook --start-files=/home/jovyan:1001:1002 | docker cp - "),
            "{lines:?}"
        );
        // A user without a home in the image has the folder that hubs mount.
        let plain = NotebookFacts {
            image: image("", "python3"),
            ..stacks()
        };
        let lines = plan_in(&place, &plain, &args, &env()).unwrap().lines();
        assert!(
            lines[1].contains(" --user 1001:1002 -e HOME=/home/jovyan ")
                && lines[1].ends_with(
                    " /opt/dockerutils/start-notebook --stay jupyter lab --ip=0.0.0.0 --no-browser --port=8888"
                ),
            "{lines:?}"
        );
        // An image that has the script keeps its command.
        let own = NotebookFacts {
            image: image("tini -g -- /opt/dockerutils/start-notebook", "jupyter lab"),
            ..stacks()
        };
        let lines = plan_in(&place, &own, &args, &env()).unwrap().lines();
        assert!(lines[1].ends_with(" resero/docker-ds:latest jupyter lab"), "{lines:?}");
        let page = NotebookArgs {
            port: Some(80),
            path: Some("docs".into()),
            ..args
        };
        let error = plan_in(&place, &plain, &page, &env()).unwrap_err();
        assert!(error.to_string().contains("starts no server of Jupyter"), "{error}");
    }

    #[test]
    fn another_port_takes_the_place_of_the_first() {
        let place = place(Some(""), false, &env());
        let mut plan = plan_in(&place, &stacks(), &NotebookArgs::default(), &env()).unwrap();
        plan.publish_at(8890);
        assert_eq!(plan.published(), Some(8890));
        let line = plan.run.line();
        assert!(
            line.contains(" -p 127.0.0.1:8890:8888 ") && !line.contains("8888:8888"),
            "{line}"
        );
    }

    #[test]
    fn rstudio_has_a_password_and_a_page_has_nothing() {
        let mut rstudio = image("", "/init");
        rstudio.ports.insert(8787);
        let facts = NotebookFacts {
            image: rstudio,
            ..stacks()
        };
        let shown = line("", &facts, &NotebookArgs::default());
        assert!(
            shown.contains(" -e USERID=1001 -e GROUPID=1002 -e PASSWORD -p 127.0.0.1:8787:8787 "),
            "{shown}"
        );
        assert!(
            shown.contains("io.dockerutils.notebook=page:8787") && !shown.contains("TOKEN"),
            "{shown}"
        );
        let web = NotebookFacts {
            image: image("", "serve"),
            ..stacks()
        };
        let args = NotebookArgs {
            port: Some(80),
            path: Some("docs".into()),
            ..NotebookArgs::default()
        };
        let shown = line("", &web, &args);
        assert!(
            shown.contains(" -p 127.0.0.1:80:80 ") && shown.contains("=page:80/docs "),
            "{shown}"
        );
        assert!(!shown.contains(" -e "), "{shown}");
    }

    #[test]
    fn a_file_is_named_as_the_server_sees_it() {
        let place = place(Some(""), false, &env());
        let plan = plan_in(&place, &stacks(), &NotebookArgs::default(), &env()).unwrap();
        let below = |root: Option<&str>| plan.below(root.map(Path::new), Path::new("a/b.ipynb"));
        assert_eq!(below(Some("/home/jovyan")).as_deref(), Some("project/a/b.ipynb"));
        assert_eq!(below(Some("/home/jovyan/project")).as_deref(), Some("a/b.ipynb"));
        assert_eq!(below(Some("/srv")), None);
        assert_eq!(below(None).as_deref(), Some("project/a/b.ipynb"));
    }

    #[test]
    fn a_folder_with_a_colon_in_its_name_is_mounted_too() {
        assert_eq!(
            mount("/a:b", "/c", true),
            ["--mount", "type=bind,source=/a:b,target=/c,readonly"]
        );
        assert_eq!(
            mount("/a:b,c", "/c", false),
            ["--mount", "type=bind,\"source=/a:b,c\",target=/c"]
        );
        assert_eq!(mount("/a", "/c", true), ["-v", "/a:/c:ro"]);
    }

    #[test]
    fn a_hub_s_token_stays_here() {
        let words = |text: &str| crate::config::variables::parse(text, None).unwrap();
        for text in [
            "-e JUPYTERHUB_API_TOKEN",
            "--env JUPYTERHUB_API_TOKEN=x",
            "--env=JUPYTERHUB_API_TOKEN",
            "-eJUPYTERHUB_API_TOKEN",
        ] {
            let mut options = words(&format!("-e A {text} -e B"));
            assert!(without_hub_token(&mut options), "{text}");
            assert_eq!(options, words("-e A -e B"));
        }
        let mut options = words("-e JUPYTERHUB_API_TOKENS -e B");
        assert!(!without_hub_token(&mut options));
        let mut variables = vec!["JUPYTERHUB_API_TOKEN=x".to_owned(), "A=1".to_owned()];
        forget_hub_token(&mut variables);
        assert_eq!(variables, ["A=1"]);
    }
}
