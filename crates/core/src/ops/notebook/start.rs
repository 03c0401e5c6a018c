//! Starting a notebook: from the plan to a server that answers, and to its end.

use std::collections::VecDeque;
use std::io::IsTerminal as _;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bollard::models::ImageConfig;

use super::foreground::{Foreground, follow};
use super::gpu_check;
use super::home_content;
use super::hub_home::{self, NewVolume};
use super::idle;
use super::image_kind::{ImageKind, NotebookImage};
use super::label::ServerKind;
use super::listener::{self, BoundListener};
use super::owner::UserMapping;
use super::plan::{
    DATA, ImageSource, NotebookArgs, NotebookFacts, NotebookPlan, NotebookReference, PASSWORD_VARIABLE,
    forget_hub_token, without_hub_variable,
};
use super::ready::{self, Awaited, READY_LIMIT, Ready};
use super::servers::{self, FoundNotebook, NotebookServer};
use super::start_script::{self, PARENT, SAYS, SHELL, ScriptWants};
use crate::agent::CallOptions;
use crate::agent::target::Exit;
use crate::browser;
use crate::config::project::Project;
use crate::config::settings::NOTEBOOK;
use crate::context::Context;
use crate::docker::connect::client_config::ClientConfig;
use crate::docker::connect::engine::Engine;
use crate::docker::connect::locality::Locality;
use crate::docker::containers::container::{self, Created, Refusal};
use crate::docker::containers::heard::OutputCounter;
use crate::docker::containers::log::ContainerLog;
use crate::docker::containers::path_inside::{PathKind, PathsInside};
use crate::docker::containers::terminal::Signals;
use crate::docker::containers::{foreground as engine_foreground, port_owner};
use crate::docker::images::image::{self, ImageFacts};
use crate::docker::options::run_options::{ContainerPlan, RunOptions};
use crate::env::Env;
use crate::error::{Class, Error, ExitStatus, Result};
use crate::hint;
use crate::jupyter::base_path::{BasePath, encoded};
use crate::jupyter::token::{TOKEN_VARIABLE, Token};
use crate::ops::build::{self, BuildArgs};
use crate::ops::docks::remote_script;
use crate::ops::run::{self, CREATE_GRACE, GpuSupport, NAMES, RULE, RunEnvironment, bind_mounts};
use crate::ops::run_records::connect_and_remind;
use crate::ops::sync::DockedProject;
use crate::output::{Printer, visible};
use crate::sync::manifest::Memory;
use crate::sync::plan::Direction;

/// So many ports are tried from the first on, as Jupyter does.
const PORTS: u16 = 50;
/// So many last lines of a container that ended are shown.
const LAST_LINES: usize = 20;
/// How long the output of a container that has ended may take to come.
const LAST_OUTPUT: Duration = Duration::from_secs(1);
/// How long the end of a container may take to show.
const END: Duration = Duration::from_secs(2);
/// How long a dock may take to answer a small question.
const QUESTION: Duration = Duration::from_secs(30);
/// Says who is logged in there, and whether a folder exists.
const WHO: &str = r#"id -u; id -g; if [ -d "$1" ]; then echo yes; fi"#;

/// The end of a container, for which is waited.
pub(super) type ContainerEnd = Pin<Box<dyn Future<Output = Result<ExitStatus>>>>;

/// A container that runs, with its output and its end.
pub(super) struct Running {
    pub engine: Engine,
    pub id: String,
    pub name: String,
    pub log: ContainerLog,
    pub heard: Arc<OutputCounter>,
    pub tty: bool,
    /// Whether the engine removes it at its end.
    pub is_removed: bool,
    pub end: ContainerEnd,
}

/// Starts a notebook, or shows the one that the project has.
///
/// # Errors
/// A wrong configuration, an engine that can't be reached, an image that can't be had, a container that can't start, a server
/// that does not answer.
pub fn start(context: &Context, args: &NotebookArgs) -> Result<ExitStatus> {
    let printer = &context.printer;
    if args.bind.is_some() && args.detach {
        return Err(
            Error::usage("--bind has a listener in this command, which --detach ends").hint("leave out one of them"),
        );
    }
    let project = Project::find_or_folder(&context.working_dir, &context.env)?;
    build::warn_of_unknown_keys(&project, printer);
    let file = args
        .file
        .as_deref()
        .map(|file| in_project(&context.working_dir, &project, file))
        .transpose()?;
    let env = without_hub_variable(&run::environment_of_root(&context.env, &project));
    let image = NotebookReference::choose(&project, args, &env)?;
    if context.global.dry_run {
        let plan = context.block_on(foreseen(context, &project, &image, args, &env))?;
        printer.plan(&plan.lines())?;
        return Ok(ExitStatus::SUCCESS);
    }
    let token = Token::generate()?;
    let env = with_token(&env, &token);
    let wanted = Wanted {
        context,
        project: &project,
        args,
        image: &image,
        env: &env,
        token: &token,
        file: file.as_deref(),
    };
    let mut prepared = match context.block_on(wanted.prepare())? {
        Preparation::Found(server) => return wanted.show_found(*server),
        Preparation::Planned(prepared) => *prepared,
    };
    let docked = prepared.docked.take();
    context.block_on_uninterrupted(async {
        let running = wanted.execute(prepared);
        let Some(mut docked) = docked else {
            return running.await;
        };
        if args.watch {
            return bind_mounts::in_step(context, &mut docked, running, false).await;
        }
        let status = running.await;
        if status.as_ref().is_err_and(bind_mounts::is_cut_off) || (args.detach && status.is_ok()) {
            printer.note("files that the notebook makes come with run-notebook --stop, or with sync-down");
            return status;
        }
        bind_mounts::last_round(context, &mut docked, Direction::Down).await;
        status
    })
}

/// The environment with the token, for the variables that are given by name.
fn with_token(env: &Env, token: &Token) -> Env {
    let own = [TOKEN_VARIABLE, PASSWORD_VARIABLE];
    let others = env.iter().filter(|(name, _)| !own.contains(name));
    Env::from_pairs(others.chain(own.map(|name| (name, token.reveal()))))
}

/// A file of the project, relative to its root.
fn in_project(working_dir: &Path, project: &Project, file: &str) -> Result<PathBuf> {
    let absent = |cause: std::io::Error| {
        Error::usage(format!("{file} can't be opened"))
            .because(cause)
            .hint("name a notebook that is there; without one, the server's first page is opened")
    };
    let found = working_dir.join(file).canonicalize().map_err(absent)?;
    let root = project.root().canonicalize().map_err(absent)?;
    found.strip_prefix(&root).map(Path::to_owned).map_err(|_| {
        Error::usage(format!(
            "{file} is outside of {}, which the notebook sees",
            project.root().display()
        ))
        .hint(hint!(
            "go to its folder, and call run-notebook there: cd {}",
            found.parent().unwrap_or(&root).display()
        ))
    })
}

/// What is known of the engine's machine without its engine.
async fn machine_facts(context: &Context, project: &Project, locality: Locality) -> (Option<(u32, u32)>, bool) {
    if locality == Locality::Local {
        let owner = std::fs::metadata(project.root()).ok();
        return (owner.map(|owner| (owner.uid(), owner.gid())), Path::new(DATA).is_dir());
    }
    let Ok(Some((_, agent))) = bind_mounts::dock_with_files(context) else {
        return (None, false);
    };
    let asked = remote_script::run(&agent, WHO, &[DATA], &CallOptions::of_terminal(), QUESTION).await;
    let Ok(output) = asked else {
        return (None, false);
    };
    if output.exit != Exit::Code(0) {
        return (None, false);
    }
    let mut lines = output.stdout.lines();
    let mut number = || lines.next()?.trim().parse::<u32>().ok();
    let owner = number().zip(number());
    (owner, lines.next() == Some("yes"))
}

/// The plan as far as it is known without making anything: the engine is asked about the image, if it answers.
async fn foreseen(
    context: &Context,
    project: &Project,
    image: &NotebookReference,
    args: &NotebookArgs,
    env: &Env,
) -> Result<NotebookPlan> {
    let printer = &context.printer;
    let locality = build::where_it_would_be(context.engine_choice()?, env, printer).await;
    let mut found = None;
    let (mut mapping, mut gpu) = (UserMapping::None, GpuSupport::default());
    match context.connect().await {
        Ok(engine) => {
            mapping = mapping_of(&engine).await?;
            if args.gpu {
                gpu = run::gpu_support(&engine, false).await?;
            }
            let there = image::find_with_config(&engine, &image.reference).await?;
            found = there.map(|(_, config)| NotebookImage::of(config));
        }
        Err(error) => printer.detail(&format!(
            "the engine is not asked about the image: {}",
            error.with_causes()
        )),
    }
    if found.is_none() {
        printer.note(&format!(
            "the engine does not have {}, or does not answer: how the image starts its server is assumed",
            image.reference
        ));
    }
    let (owner, has_data) = machine_facts(context, project, locality).await;
    let facts = NotebookFacts {
        around: RunEnvironment {
            locality,
            terminal: std::io::stdin().is_terminal(),
            gpu,
        },
        image: found.unwrap_or_else(|| assumed(image, project)),
        mapping,
        owner,
        has_data,
        has_aws: env.home().join(".aws").is_dir(),
        wants: ScriptWants::of_project(project.root()),
    };
    let mut plan = NotebookPlan::new(project, image, &facts, args, env, &jiff::Zoned::now())?;
    plan.run.docker_prefix = context.docker_prefix()?;
    if locality == Locality::Docked {
        plan.run.options = bind_mounts::planned(context, project, &plan.run.options, env)?;
        plan.run.docker_prefix += bind_mounts::variable(context, project, &plan.run.options, env)?;
    }
    // A line that docker would refuse is not printed. The token is not there yet, and no option depends on it.
    let (options, _) = plan.run.expand(env)?;
    RunOptions::parse(&options).map_err(|cause| refused(project, &plan.run.masked(&cause, env)))?;
    plan.run.notes.iter().for_each(|note| printer.warning(note));
    say_what_is_decided(printer, &plan, None);
    Ok(plan)
}

/// Says whose files they will be, and what is put into the container; of a hub's volume, whether it is new, if that is known.
fn say_what_is_decided(printer: &Printer, plan: &NotebookPlan, is_volume_new: Option<bool>) {
    printer.note(&plan.owner.reason);
    if let Some(purpose) = plan.script_purpose() {
        printer.note(&format!(
            "docker/notebook's start script is put into the container, at {}: {purpose}",
            start_script::SCRIPT
        ));
    }
    if let Some(hub) = &plan.hub {
        let content = match is_volume_new {
            Some(true) => "it is empty at first",
            Some(false) => "it has what was left in it",
            None => "a new one is empty",
        };
        printer.note(&format!(
            "a volume is mounted over {}, as a hub does; {content}, and it is kept; after run-notebook --stop, this removes it: {}",
            hub.path,
            hub.removal(&plan.run.docker_prefix)
        ));
    }
}

/// An image that can't be looked at: docker/notebook starts its server by itself, and others are of docker-stacks.
fn assumed(image: &NotebookReference, project: &Project) -> NotebookImage {
    let (entrypoint, command) = match image.source {
        ImageSource::Built if project.root().join("docker/notebook/start-notebook").is_file() => {
            ("start-notebook", NOTEBOOK)
        }
        ImageSource::Built => ("", NOTEBOOK),
        _ => ("start.sh", "start-notebook.py"),
    };
    NotebookImage {
        entrypoint: Some(entrypoint.to_owned())
            .filter(|word| !word.is_empty())
            .into_iter()
            .collect(),
        command: vec![command.to_owned()],
        ..NotebookImage::default()
    }
}

async fn mapping_of(engine: &Engine) -> Result<UserMapping> {
    let info = engine.info().await?;
    Ok(UserMapping::of(
        &info.security_options.unwrap_or_default(),
        &info.operating_system.unwrap_or_default(),
    ))
}

fn refused(project: &Project, cause: &str) -> Error {
    Error::usage(format!(
        "docker run's options of the notebook ([{NOTEBOOK}] of {}): {cause}",
        project.config().path().display()
    ))
    .hint("run-notebook --dry-run shows all of them")
}

/// What a call is for.
struct Wanted<'a> {
    context: &'a Context,
    project: &'a Project,
    args: &'a NotebookArgs,
    image: &'a NotebookReference,
    /// With the token in it.
    env: &'a Env,
    token: &'a Token,
    /// The file to open, relative to the project's root.
    file: Option<&'a Path>,
}

/// A server that the project has already.
struct FoundServer {
    /// The container's name.
    name: String,
    /// The path of the page that it was started for.
    page: Option<String>,
    /// Where the project is inside.
    mounts: Vec<String>,
    ready: Ready,
    token: Token,
    /// What `--json` says of it.
    server: Option<NotebookServer>,
}

/// All that is known before the container is made.
struct Prepared {
    engine: Engine,
    plan: NotebookPlan,
    container: ContainerPlan,
    /// The ports at which it may be published, in the order in which they are tried; none if the plan publishes none.
    ports: Vec<u16>,
    config: ClientConfig,
    locality: Locality,
    docked: Option<DockedProject>,
    /// The volume of `--as-hub`, if it was made for this start.
    volume: Option<NewVolume>,
}

enum Preparation {
    Found(Box<FoundServer>),
    Planned(Box<Prepared>),
}

impl Wanted<'_> {
    async fn prepare(&self) -> Result<Preparation> {
        let Self {
            context,
            project,
            args,
            image,
            env,
            ..
        } = *self;
        let printer = &context.printer;
        let engine = connect_and_remind(context).await?;
        let config = ClientConfig::of(env)?;
        let locality = build::where_is(&engine, env, printer).await;
        // What does not need each other's answer is asked side by side: a dock is round trips away.
        let own = async {
            match args.another {
                true => Ok(None),
                false => self.own_server(&engine, locality).await,
            }
        };
        let machine = machine_facts(context, project, locality);
        let (own, (owner, has_data), mapping) = tokio::join!(own, machine, mapping_of(&engine));
        if let Some(found) = own? {
            return Ok(Preparation::Found(Box::new(found)));
        }
        let gpu = match args.gpu || project.settings(NOTEBOOK).has("gpu") {
            true => run::gpu_support(&engine, args.gpu).await?,
            false => GpuSupport::default(),
        };
        let (image_facts, image_config) = self.image_on(&engine, locality, &config).await?;
        let facts = NotebookFacts {
            around: RunEnvironment {
                locality,
                terminal: std::io::stdin().is_terminal(),
                gpu,
            },
            image: NotebookImage::of(image_config),
            mapping: mapping?,
            owner,
            has_data,
            has_aws: env.home().join(".aws").is_dir(),
            wants: ScriptWants::of_project(project.root()),
        };
        let mut plan = NotebookPlan::new(project, image, &facts, args, env, &jiff::Zoned::now())?;
        let published = plan.published();
        let (run, ports, foreign) = tokio::try_join!(
            run::free_plan(&engine, plan.run),
            free_ports(&engine, published, locality == Locality::Local),
            image::architecture_warning(&engine, &image.reference, &image_facts)
        )?;
        if let Some(warning) = foreign {
            printer.warning(&warning);
        }
        plan.run = run;
        plan.run.docker_prefix = context.docker_prefix()?;
        plan.run.notes.iter().for_each(|note| printer.warning(note));
        let mut volume = None;
        if let Some(hub) = &plan.hub {
            let hidden = hub_home::hidden(&engine, &image.reference, hub, env).await?;
            volume = hub.make(&engine).await?;
            if let Some(sentence) = hidden {
                printer.warning(&sentence);
            }
        }
        let docked = match locality {
            Locality::Docked => {
                let docked = bind_mounts::mount(context, project, &mut plan.run.options, env).await?;
                plan.run.docker_prefix += bind_mounts::variable(context, project, &plan.run.options, env)?;
                docked
            }
            Locality::Local => None,
        };
        if args.watch && docked.is_none() {
            printer.note("nothing of the project is mounted from a dock: there is nothing to keep in step");
        }
        let container = self.container(&engine, locality, &config, &plan).await?;
        container.warnings.iter().for_each(|warning| printer.warning(warning));
        Ok(Preparation::Planned(Box::new(Prepared {
            engine,
            plan,
            container,
            ports,
            config,
            locality,
            docked,
            volume,
        })))
    }

    async fn container(
        &self,
        engine: &Engine,
        locality: Locality,
        config: &ClientConfig,
        plan: &NotebookPlan,
    ) -> Result<ContainerPlan> {
        let refuse = |cause: &str| refused(self.project, cause);
        let printer = &self.context.printer;
        let made = run::container_plan(
            (engine, locality),
            config,
            self.project,
            &plan.run,
            self.env,
            &refuse,
            printer,
        );
        let mut container = made.await?;
        forget_hub_token(container.body.env.get_or_insert_default());
        Ok(container)
    }

    /// The server of this project that runs on this engine.
    async fn own_server(&self, engine: &Engine, locality: Locality) -> Result<Option<FoundServer>> {
        let Self { context, project, .. } = *self;
        let local = locality == Locality::Local;
        let is_meant = |found: &FoundNotebook| {
            let is_as_hub = found.label.path.starts_with("/user/");
            self.args.image.as_ref().is_none_or(|image| *image == found.image) && (!self.args.as_hub || is_as_hub)
        };
        let own = of_project(context, engine, project, local).await?;
        let Some(found) = own.into_iter().find(is_meant) else {
            return Ok(None);
        };
        let (ready, token) = match found.reach(context, engine, local).await {
            Err(error) if is_young(&found) => self.awaited(engine, local, &found, error).await?,
            reached => reached?,
        };
        let server = match context.printer.json() {
            true => Some(found.describe_ready(engine, &ready, &token).await),
            false => None,
        };
        Ok(Some(FoundServer {
            name: found.name,
            page: found.page,
            mounts: found.project_mounts,
            ready,
            token,
            server,
        }))
    }

    /// Waits for a server that another call has just started.
    async fn awaited(
        &self,
        engine: &Engine,
        local: bool,
        found: &FoundNotebook,
        error: Error,
    ) -> Result<(Ready, Token)> {
        let Some(token) = found.token.clone() else {
            return Err(error);
        };
        self.context.printer.note(&format!(
            "container {} was started for this project, and its server does not answer yet",
            visible(&found.name)
        ));
        let awaited = Awaited {
            container: &found.id,
            name: &found.name,
            label: &found.label,
            token: &token,
            limit: READY_LIMIT,
            shows_log: false,
            wants_root_dir: self.file.is_some(),
        };
        let ready = ready::wait(self.context, engine, local, &awaited).await?;
        Ok((ready, token))
    }

    /// Gives the URL of a server that the project has.
    fn show_found(&self, found: FoundServer) -> Result<ExitStatus> {
        let printer = &self.context.printer;
        let FoundServer {
            name,
            page,
            mounts,
            ready,
            token,
            server,
        } = found;
        printer.note(&format!(
            "container {} serves this project already; --new starts another one, run-notebook --stop ends it",
            visible(&name)
        ));
        let root_dir = ready.runtime.as_ref().and_then(|runtime| runtime.root_dir.clone());
        let file = self.file.and_then(|file| {
            let root_dir = Path::new(root_dir.as_deref()?);
            mounts.iter().find_map(|mount| {
                let file = Path::new(mount).join(file);
                file.strip_prefix(root_dir).ok()?.to_str().map(str::to_owned)
            })
        });
        self.warn_of_file(file.as_deref(), ready.kind);
        let path = self.args.path.as_ref().or(page.as_ref());
        let url = url(&ready, &token, file.as_deref(), path.map(String::as_str));
        self.context.block_on(async {
            let bound = match self.args.bind {
                Some(address) => Some(BoundListener::bind(address, ready.port).await?),
                None => None,
            };
            let page = self.show(&url, &ready, server).await?;
            if let Some(bound) = bound {
                printer.warning(&bound.warning());
                printer.note("Ctrl-C ends the listener of --bind; the server goes on");
                bound.serve().await;
            }
            if let Some(mut page) = page {
                page.is_read().await;
            }
            Ok(ExitStatus::SUCCESS)
        })
    }

    /// Says that the file which was asked for is not shown.
    fn warn_of_file(&self, shown: Option<&str>, kind: ServerKind) {
        let why = match kind {
            _ if self.file.is_none() => return,
            ServerKind::Jupyter if shown.is_some() => return,
            ServerKind::Jupyter => "the file is not below the server's root folder: its first page is shown",
            ServerKind::Page => "this is no Jupyter server, and opens no file by its URL: its page is shown",
        };
        self.context.printer.warning(why);
    }

    /// Prints the URL, and opens it.
    async fn show(
        &self,
        url: &str,
        ready: &Ready,
        server: Option<NotebookServer>,
    ) -> Result<Option<browser::OpenedPage>> {
        let Self { context, args, .. } = *self;
        let printer = &context.printer;
        if let Some(warning) = ready.warning() {
            printer.warning(&warning);
        }
        if let Some(mut server) = server {
            server.url = Some(url.to_owned());
            printer.result_json(&server)?;
            return Ok(None);
        }
        printer.result(url);
        if let Some(line) = listener::ssh_line(&context.env, ready.port) {
            printer.note(&format!("from the machine that this shell came from: {line}"));
        }
        if args.no_browser {
            return Ok(None);
        }
        match browser::open(&context.env, url).await {
            Ok(page) => Ok(Some(page)),
            Err(why) => {
                printer.detail(&why.to_string());
                Ok(None)
            }
        }
    }

    /// Has the engine have the image, and gives what it is.
    async fn image_on(
        &self,
        engine: &Engine,
        locality: Locality,
        config: &ClientConfig,
    ) -> Result<(ImageFacts, ImageConfig)> {
        let Self {
            context,
            project,
            image,
            ..
        } = *self;
        let printer = &context.printer;
        let reference = image.reference.as_str();
        let pull = async || {
            printer.note(&format!("docker pull {reference}"));
            image::pull(engine, config, reference, None, printer).await
        };
        let mut there = None;
        match image.source {
            ImageSource::Built => {
                let wanted = BuildArgs {
                    image: NOTEBOOK.to_owned(),
                    force_base: true,
                    ..BuildArgs::default()
                };
                run::build_image(context, (engine, locality), project, &wanted).await?;
            }
            ImageSource::Pulled => {
                if let Err(error) = pull().await {
                    if image::find(engine, reference).await?.is_none() {
                        return Err(error);
                    }
                    printer.warning(&format!("{}: the one that is there is run", error.with_causes()));
                }
            }
            ImageSource::PulledIfAbsent => {
                there = image::find_with_config(engine, reference).await?;
                if there.is_none() {
                    pull().await?;
                }
            }
            ImageSource::There => {}
        }
        if there.is_none() {
            there = image::find_with_config(engine, reference).await?;
        }
        there.ok_or_else(|| {
            Error::failed(format!(
                "the engine has no image {reference}, and DOCKER_DS_DONT_PULL is set"
            ))
            .hint(hint!(
                "unset DOCKER_DS_DONT_PULL, or name another image: run-notebook --image {}",
                "quay.io/jupyter/base-notebook"
            ))
        })
    }

    /// Makes and starts the container, waits for its server, shows it, and stays with it unless that is not wanted.
    async fn execute(&self, mut prepared: Prepared) -> Result<ExitStatus> {
        let Self {
            context, args, token, ..
        } = *self;
        let printer = &context.printer;
        let local = prepared.locality == Locality::Local;
        // Declared before the container, so that it is dropped after it.
        let volume = prepared.volume.take();
        say_what_is_decided(printer, &prepared.plan, Some(volume.is_some()));
        printer.note(&"=".repeat(RULE));
        let mut signals = Signals::listen()?;
        let (plan, created, mut running) = self.begin(prepared, &mut signals).await?;
        let ready = self.until_ready(&plan, &mut running, local, &mut signals).await?;
        let engine = running.engine.clone();
        if args.gpu {
            match signals
                .guard(Duration::ZERO, gpu_check::check(&engine, &running.id, &running.name))
                .await
            {
                Ok(gpus) => gpus.iter().for_each(|gpu| printer.note(&visible(gpu))),
                Err(error) if error.class() == Class::Interrupted => return Err(error),
                Err(error) => printer.error(&error),
            }
        }
        let bound = match args.bind {
            Some(address) => Some(BoundListener::bind(address, ready.port).await?),
            None => None,
        };
        // From here on it goes on, whatever happens to this command.
        created.keep();
        if let Some(volume) = volume {
            volume.keep();
        }
        let root_dir = ready.runtime.as_ref().and_then(|runtime| runtime.root_dir.as_deref());
        let file = self.file.and_then(|file| plan.below(root_dir, file));
        self.warn_of_file(file.as_deref(), ready.kind);
        let url = url(&ready, token, file.as_deref(), plan.path.as_deref());
        if plan.start.kind == ImageKind::RStudio && !printer.json() {
            printer.note(&format!("log in as rstudio, with this password: {}", token.reveal()));
        }
        if plan.start.kind == ImageKind::Page {
            printer.warning(
                "every user and every page of this machine reaches this server; if it has no login of its own, they can use it",
            );
        }
        let server = self.described(&running, &ready, &plan).await?;
        let page = self.show(&url, &ready, server).await?;
        if plan.hub.is_none()
            && matches!(plan.start.kind, ImageKind::DockerStacks | ImageKind::StartsJupyter)
            && let Some(sentence) = home_content::hidden_by_a_hub(&engine, &running.id, &plan.owner.home).await
        {
            printer.note(&sentence);
        }
        if args.detach {
            if let Some(mut page) = page {
                page.is_read().await;
            }
            printer.note(&hint!("run-notebook --stop {} ends it", running.name));
            return Ok(ExitStatus::SUCCESS);
        }
        printer.note("Ctrl-C stops it");
        if let Some(bound) = &bound {
            printer.warning(&bound.warning());
        }
        let serving = async {
            match bound {
                Some(bound) => bound.serve().await,
                None => std::future::pending().await,
            }
        };
        let foreground = Foreground {
            context,
            client: ready.client(token),
            idle: self.idle()?,
        };
        tokio::select! {
            status = follow(&foreground, running, &mut signals) => status,
            () = serving => Err(Error::failed("the listener of --bind has ended")),
        }
    }

    /// How long it may be idle.
    fn idle(&self) -> Result<Option<Duration>> {
        let settings = self.project.settings(NOTEBOOK);
        match (self.args.idle, settings.text("idle")?) {
            (None, Some(text)) => match idle::parse_limit(&text) {
                Ok(limit) => Ok(Some(limit)),
                Err(cause) => Err(settings.error("idle", &cause).hint("write a time such as: idle = 2h")),
            },
            (limit, _) => Ok(limit),
        }
    }

    /// What `--json` says of a server that was just started; `None` without it.
    async fn described(&self, running: &Running, ready: &Ready, plan: &NotebookPlan) -> Result<Option<NotebookServer>> {
        if !self.context.printer.json() {
            return Ok(None);
        }
        let engine = &running.engine;
        let Some(found) = servers::of_container(engine, &running.id, self.project.user()).await? else {
            return Err(Error::failed(format!("container {} has ended meanwhile", running.name)));
        };
        let mut server = found.describe_ready(engine, ready, self.token).await;
        if plan.start.kind == ImageKind::RStudio {
            server.token = Some(self.token.reveal().to_owned());
        }
        Ok(Some(server))
    }

    /// Creates and starts the container: under another name or at another port where the first is taken.
    async fn begin(&self, prepared: Prepared, signals: &mut Signals) -> Result<(NotebookPlan, Created, Running)> {
        let printer = &self.context.printer;
        let Prepared {
            engine,
            mut plan,
            mut container,
            ports,
            config,
            locality,
            docked: _,
            volume: _,
        } = prepared;
        let local = locality == Locality::Local;
        let first = plan.published();
        let mut ports = ports.into_iter();
        let (mut names, mut tries) = (1, 0);
        let mut is_new = true;
        loop {
            if let Some(first) = first
                && is_new
            {
                let Some(port) = ports.next() else {
                    return Err(
                        Error::failed(format!("the ports from {first} on are taken, {tries} were tried"))
                            .hint("choose another beginning: run-notebook --port 18888"),
                    );
                };
                tries += 1;
                plan.publish_at(port);
                container = self.container(&engine, locality, &config, &plan).await?;
            }
            is_new = true;
            plan.lines().iter().for_each(|line| printer.note(line));
            let creating = container::try_create(&engine, &container);
            let created = match signals.guard(CREATE_GRACE, creating).await? {
                Ok(created) => created,
                // A notebook that began in the same second has taken the name meanwhile.
                Err(Refusal::NameTaken(_)) if names < NAMES => {
                    names += 1;
                    is_new = false;
                    plan.run.rename();
                    container.name = Some(plan.run.name.clone());
                    continue;
                }
                Err(Refusal::NameTaken(error) | Refusal::NoImage(error)) => return Err(error),
            };
            created.warnings.iter().for_each(|warning| printer.warning(warning));
            if let Some(hub) = &plan.hub {
                let home = container::archive(&[hub.folder()], &[])?;
                let putting = async {
                    // Nothing in the container runs yet that could change it after this.
                    hub.check(&mut PathsInside::of(&engine, created.id())).await?;
                    refused_put(container::put(&engine, created.id(), home).await)
                };
                if let Some(obstacle) = signals.guard(CREATE_GRACE, putting).await? {
                    printer.warning(&format!("{} stays root's, as {obstacle}", hub.path));
                }
            }
            if let Some(purpose) = plan.script_purpose()
                && let Some(obstacle) = signals
                    .guard(CREATE_GRACE, put_script(&engine, &created, plan.hub.is_some()))
                    .await?
            {
                printer.warning(&start_script::without_it(purpose, &obstacle));
                // Removed, so that its name is free.
                drop(created);
                plan.leave_script_out();
                container = self.container(&engine, locality, &config, &plan).await?;
                is_new = false;
                continue;
            }
            let heard = Arc::new(OutputCounter::default());
            let id = created.id().to_owned();
            let starting = async {
                let condition = if container.remove { "removed" } else { "next-exit" };
                let (log, end) = tokio::try_join!(
                    ContainerLog::of_new(&engine, &id, container.tty, &heard),
                    engine_foreground::wait(&engine, &id, condition)
                )?;
                container::start(&engine, &id, None).await?;
                Ok((log, end))
            };
            match signals.guard(Duration::ZERO, starting).await {
                Ok((log, end)) => {
                    let running = Running {
                        engine,
                        id,
                        name: plan.run.name.clone(),
                        log,
                        heard,
                        tty: container.tty,
                        is_removed: container.remove,
                        end: Box::pin(end),
                    };
                    return Ok((plan, created, running));
                }
                Err(error) if first.is_some() && port_owner::is_taken(&error) => {
                    printer.detail(&error.with_causes());
                    // Removed, so that its name is free.
                    drop(created);
                }
                Err(error) => {
                    let error = port_owner::explain(&engine, error, local, &self.context.env).await;
                    return Err(match self.args.gpu {
                        true => gpu_check::explain_start(&engine, error),
                        false => error,
                    });
                }
            }
        }
    }

    /// Waits until the server answers. A container that ends before is an error, with its last lines.
    async fn until_ready(
        &self,
        plan: &NotebookPlan,
        running: &mut Running,
        local: bool,
        signals: &mut Signals,
    ) -> Result<Ready> {
        let printer = &self.context.printer;
        let awaited = Awaited {
            container: &running.id,
            name: &running.name,
            label: &plan.label,
            token: self.token,
            limit: READY_LIMIT,
            shows_log: false,
            wants_root_dir: self.file.is_some(),
        };
        let waiting = ready::wait(self.context, &running.engine, local, &awaited);
        tokio::pin!(waiting);
        let mut last = VecDeque::new();
        let mut is_open = true;
        let failed = loop {
            tokio::select! {
                ready = &mut waiting => match ready {
                    Ok(ready) => return Ok(ready),
                    Err(error) => break Err(error),
                },
                status = &mut running.end => break Ok(status?),
                line = running.log.next(), if is_open => match line {
                    Some(Ok(line)) => {
                        // The start script says what takes long, and what could not be done.
                        match line.starts_with(SAYS) {
                            true => printer.note(&line),
                            false => printer.detail(&line),
                        }
                        keep(&mut last, line);
                    }
                    // Its end, or that of the link, is told by the others.
                    Some(Err(_)) | None => is_open = false,
                },
                () = signals.ending() => return Err(Error::interrupted()),
            }
        };
        let status = match failed {
            Ok(status) => status,
            // Perhaps it does not answer because it has ended.
            Err(error) => match tokio::time::timeout(END, &mut running.end).await {
                Ok(Ok(status)) => status,
                Ok(Err(_)) | Err(_) => return Err(error),
            },
        };
        let rest = async {
            while let Some(Ok(line)) = running.log.next().await {
                keep(&mut last, line);
            }
        };
        // What is not there by then is not waited for.
        let _ = tokio::time::timeout(LAST_OUTPUT, rest).await;
        Err(self.died(plan, running, status, last))
    }

    fn died(&self, plan: &NotebookPlan, running: &Running, status: ExitStatus, last: VecDeque<String>) -> Error {
        let printer = &self.context.printer;
        for line in last {
            printer.excerpt(&format!("  {line}"));
        }
        let message = format!(
            "container {} ended with code {} before its server answered",
            running.name,
            status.code()
        );
        let error = match status.is_success() {
            true => Error::failed(message),
            false => Error::new(Class::Code(status.code()), message),
        };
        match plan.start.kind {
            ImageKind::Plain if status.code() == 127 => error.hint(hint!(
                "is JupyterLab in {}? Install it there, or name an image that has it: run-notebook --image REF",
                self.image.reference
            )),
            _ => error.hint("run-notebook -v shows all that it says"),
        }
    }
}

/// Puts the start script into a container that has not been started. If that can't be, a clause says why not.
async fn put_script(engine: &Engine, created: &Created, as_hub: bool) -> Result<Option<String>> {
    if !container::has(engine, created.id(), SHELL).await? {
        return Ok(Some(format!("the image has no {SHELL}")));
    }
    // Nothing in the container runs yet that could change it after this.
    let mut paths = PathsInside::of(engine, created.id());
    match start_script::obstacle(&mut paths).await {
        Ok(None) => {}
        Ok(obstacle) => return Ok(obstacle),
        Err(error) if matches!(error.class(), Class::Unreachable | Class::Interrupted) => return Err(error),
        Err(error) => return Ok(Some(error.with_causes())),
    }
    // A folder above it that is made in passing could be anybody's on old engines.
    let parent = match paths.at(PARENT).await? {
        PathKind::Nothing => Some(start_script::folder(PARENT)),
        _ => None,
    };
    let archive = start_script::archive(parent.as_slice(), as_hub)?;
    refused_put(container::put(engine, created.id(), archive).await)
}

/// Why the engine does not take something into a container, as a clause.
fn refused_put(put: Result<()>) -> Result<Option<String>> {
    match put {
        Ok(()) => Ok(None),
        Err(error) if matches!(error.class(), Class::Unreachable | Class::Interrupted) => Err(error),
        Err(error) => Ok(Some(format!("the engine refuses it ({})", error.with_causes()))),
    }
}

/// Whether a server was started so lately that it may not answer yet.
fn is_young(found: &FoundNotebook) -> bool {
    let age = |started: jiff::Timestamp| Duration::try_from(jiff::Timestamp::now().duration_since(started)).ok();
    found.started.and_then(age).is_some_and(|age| age < READY_LIMIT)
}

fn keep(last: &mut VecDeque<String>, line: String) {
    if last.len() == LAST_LINES {
        last.pop_front();
    }
    last.push_back(line);
}

/// The URL of the page that is wanted: a path, a file, or the first page.
fn url(ready: &Ready, token: &Token, file: Option<&str>, path: Option<&str>) -> String {
    match path {
        Some(path) if ready.kind == ServerKind::Jupyter && file.is_none() => {
            let scheme = if ready.secure { "https" } else { "http" };
            let page = ready.base_path.join(&encoded(path));
            format!("{scheme}://127.0.0.1:{}{page}?{}", ready.port, token.in_query())
        }
        // From the server's root on, as its label has the path that it was started with.
        Some(path) if ready.kind == ServerKind::Page => {
            let scheme = if ready.secure { "https" } else { "http" };
            let page = BasePath::default().join(&encoded(path.trim_start_matches('/')));
            format!("{scheme}://127.0.0.1:{}{page}", ready.port)
        }
        _ => ready.url(token, file),
    }
}

/// Ports from the first on that nothing has, as far as that can be seen from here; none if no port is wanted.
async fn free_ports(engine: &Engine, first: Option<u16>, local: bool) -> Result<Vec<u16>> {
    let Some(first) = first else {
        return Ok(Vec::new());
    };
    let taken = port_owner::published(engine).await?;
    let is_free =
        |port: &u16| !taken.contains(port) && (!local || TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok());
    Ok((first..=first.saturating_add(PORTS)).filter(is_free).collect())
}

/// The notebooks of this project, the newest first. Another project may have the same name.
pub(super) async fn of_project(
    context: &Context,
    engine: &Engine,
    project: &Project,
    local: bool,
) -> Result<Vec<FoundNotebook>> {
    let mut found = servers::find(engine, project.user(), Some(&project.name())).await?;
    if !found.is_empty() {
        let root = mounted_root(context, project, local);
        // Without such a mount, the section has mounted something else: the name decides.
        found.retain(|found| found.mounted.is_none() || found.mounted == root);
    }
    Ok(found)
}

/// The folder of the engine's machine that a notebook of this project has mounted.
fn mounted_root(context: &Context, project: &Project, local: bool) -> Option<String> {
    if local {
        return Some(project.root().display().to_string());
    }
    let (dock, _) = bind_mounts::dock_with_files(context).ok()??;
    let root = project.root().canonicalize().ok()?;
    let memory = Memory::peek(&root, &dock.moniker, &context.env);
    let workspace = memory.header()?.workspace.clone();
    (!workspace.is_empty()).then_some(workspace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_one_of_the_project() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("proj");
        std::fs::create_dir_all(root.join("docker/dev")).unwrap();
        std::fs::create_dir_all(root.join("sub")).unwrap();
        for file in ["proj/docker/dev/Dockerfile", "proj/sub/a.ipynb", "b.ipynb"] {
            std::fs::write(folder.path().join(file), "").unwrap();
        }
        let env = Env::from_pairs([("USER", "ann"), ("HOME", "/home/ann")]);
        let project = Project::find(&root, &env).unwrap();
        let found = |from: &str, file: &str| in_project(&root.join(from), &project, file);
        assert_eq!(found("sub", "a.ipynb").unwrap(), Path::new("sub/a.ipynb"));
        assert_eq!(found("", "sub/a.ipynb").unwrap(), Path::new("sub/a.ipynb"));
        let outside = found("", "../b.ipynb").unwrap_err();
        assert!(outside.to_string().contains("is outside of"), "{outside}");
        assert!(
            found("", "none.ipynb")
                .unwrap_err()
                .to_string()
                .contains("can't be opened")
        );
    }

    #[test]
    fn the_token_takes_the_place_of_another_one() {
        let env = Env::from_pairs([("JUPYTER_TOKEN", "weak"), ("A", "1")]);
        let token = Token::generate().unwrap();
        let with = with_token(&env, &token);
        assert_eq!(with.get("JUPYTER_TOKEN"), Some(token.reveal()));
        assert_eq!((with.get("PASSWORD"), with.get("A")), (Some(token.reveal()), Some("1")));
    }
}
