//! Running a project's image: the words of the equivalent `docker run`, and running them through the API.

mod again;
mod ports;
mod workspace;

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::cli::Context;
use crate::config::project::{Origin, Project, designated};
use crate::config::settings::{Settings, boolean};
use crate::config::variables::{self, VariableError, Word};
use crate::docker::connect::client_config::ClientConfig;
use crate::docker::connect::endpoint::{Endpoint, LOGIN_HINT};
use crate::docker::connect::engine::Engine;
use crate::docker::connect::locality::Locality;
use crate::docker::containers::container::{self, PublishedPort, Refusal};
use crate::docker::containers::foreground;
use crate::docker::containers::heard::OutputCounter;
use crate::docker::containers::port_owner;
use crate::docker::containers::terminal::Signals;
use crate::docker::images::image::{self, ImageFacts};
use crate::docker::options::run_options::{ClientFacts, ContainerPlan, PullPolicy, RunOptions};
use crate::env::{AWS_VARIABLES, Env};
use crate::error::{Error, ExitStatus, Result};
use crate::hint;
use crate::naming::{Designation, legal_container_name};
use crate::ops::build::{self, BuildArgs, BuildPlan, BuildStatus};
use crate::ops::genversion;
use crate::ops::sync::Docked;
use crate::terminal;
pub use again::{attach, attachable, say_left};

/// The line above the printed command; the original drew it.
const RULE: usize = 76;
/// How long an engine that is interrupted in making a container may take to say what it made.
const CREATE_GRACE: Duration = Duration::from_secs(10);
/// So many runs in one second are no accident.
const NAMES: usize = 60;
/// The user and project of a container that we make.
pub(super) const LABEL_PROJECT: &str = "io.dockerutils.project";
pub(super) const LABEL_USER: &str = "io.dockerutils.user";

/// What run-image is asked for.
#[derive(Clone, Debug, Default)]
pub struct RunArgs {
    /// An image type, a synthetic or a configured image.
    pub image: String,
    /// `docker run` options.
    pub args: Option<String>,
    /// Run in the background, and keep the container when it ends.
    pub keep: bool,
    /// The command, in place of the image's.
    pub command: Option<String>,
    /// A network.
    pub network: Option<String>,
    /// Give it the GPUs.
    pub gpu: bool,
    /// `NAME=VALUE`, or `NAME` with the environment's value.
    pub env: Vec<String>,
    /// Another name for the image.
    pub image_name: Option<String>,
    /// Another tag for the image.
    pub image_tag: Option<String>,
    /// Build the image first.
    pub build: bool,
    /// Refuse to build an image that isn't there.
    pub no_build: bool,
    /// Keep the project and its copy on the dock in step while the container runs.
    pub watch: bool,
}

/// What the surroundings decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunEnvironment {
    /// Whether the engine is on another machine.
    pub locality: Locality,
    /// Whether stdin is a terminal.
    pub terminal: bool,
    /// What the engine offers for `-g`.
    pub gpu: GpuSupport,
}

/// How an engine gives GPUs to containers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GpuSupport {
    /// By the runtime `nvidia`; also what is assumed where no engine was asked.
    #[default]
    Runtime,
    /// By CDI devices.
    Cdi,
}

/// What is about to be run.
#[derive(Clone, Debug)]
pub struct RunPlan {
    /// The image.
    pub designation: Designation,
    /// The image type whose Dockerfile makes it; a synthetic image may share the name and tag of one.
    pub built_as: Option<String>,
    /// The container's name.
    pub name: String,
    /// The options of `docker run`, variables by name.
    pub options: Vec<Word>,
    /// The command, variables by name.
    pub command: Vec<Word>,
    /// Sentences about names that had to be changed.
    pub notes: Vec<String>,
    /// What stands before `docker`, with its blank: variables that name the engine.
    pub docker_prefix: String,
    way_to_root: String,
    /// The name without its last part, the second of the start; and that second.
    unique: (String, jiff::Zoned),
}

/// A container that was started in the background.
#[derive(Debug, Serialize)]
struct Started<'a> {
    id: &'a str,
    name: &'a str,
    image: String,
    ports: &'a [ports::Reached],
}

impl RunPlan {
    /// Plans a run.
    ///
    /// # Errors
    /// No such image, a wrong configuration.
    pub fn new(
        project: &Project,
        args: &RunArgs,
        around: RunEnvironment,
        env: &Env,
        now: &jiff::Zoned,
    ) -> Result<Self> {
        let origin = project.runnable(&args.image)?;
        let settings = project.settings(&args.image);
        let own = project.designation(&args.image)?;
        let named = match (&args.image_name, &args.image_tag) {
            (None, None) => own,
            (name, tag) => designated(
                name.as_deref().unwrap_or(&own.designation.name),
                tag.as_deref().unwrap_or(&own.designation.tag),
            ),
        };
        let built_as = match origin {
            Origin::Dockerfile => Some(args.image.clone()),
            Origin::Configuration => type_that_makes(project, &named.designation)?,
        };
        let keys = Keys {
            settings,
            docked: around.locality == Locality::Docked,
            env,
        };
        let unique = (format!("{}_{}_", project.user(), args.image), now.clone());
        let name = name_of(&unique);
        let keep = args.keep || keys.keeps()?;

        let mut options = keys.init()?;
        options.extend([Word::literal("--name"), Word::literal(&name)]);
        options.extend(environment(&keys, args, around.locality, env)?);
        if !keep {
            options.push(Word::literal("--rm"));
        }
        options.extend(keys.keep_options()?);
        options.extend(keys.interactive(args.keep || keep, around.terminal)?);
        options.extend(keys.gpu(args.gpu, around.gpu)?);
        options.extend(keys.network(args.network.as_deref())?);
        options.extend(keys.volumes(project, env)?);
        options.extend(keys.options("ports")?);
        match args.args.as_deref().filter(|text| !text.is_empty()) {
            Some(text) => options.extend(options_at("--args", argument_words("--args", text, env)?, env)?),
            None => options.extend(keys.options("args")?),
        }
        for (label, value) in [(LABEL_PROJECT, project.name()), (LABEL_USER, project.user().to_owned())] {
            options.extend([Word::literal("--label"), Word::literal(format!("{label}={value}"))]);
        }
        let mut notes = named.notes;
        if around.locality == Locality::Docked {
            let (on_loopback, said) = ports::on_loopback(options, env);
            options = on_loopback;
            notes.extend(said);
        }
        let command = match args.command.as_deref().filter(|text| !text.is_empty()) {
            Some(text) => argument_words("--command", text, env)?,
            None => keys.words("cmd")?,
        };
        Ok(Self {
            designation: named.designation,
            built_as,
            name,
            options,
            command,
            notes,
            docker_prefix: String::new(),
            way_to_root: project.way_to_root(),
            unique,
        })
    }

    /// Takes the name of the next second: another run took this one.
    fn rename(&mut self) {
        let taken = self.name.clone();
        let (_, at) = &mut self.unique;
        *at = at.saturating_add(jiff::SignedDuration::from_secs(1));
        self.name = name_of(&self.unique);
        let named = self.options.iter().position(|word| *word == Word::literal(&taken));
        if let Some(word) = named.and_then(|at| self.options.get_mut(at)) {
            *word = Word::literal(&self.name);
        }
    }

    /// The equivalent docker command, ready to be pasted where we were called, with variables by name.
    pub fn line(&self) -> String {
        let mut words = vec![Word::literal("docker"), Word::literal("run")];
        words.extend(self.options.iter().cloned());
        words.push(Word::literal(self.designation.to_string()));
        words.extend(self.command.iter().cloned());
        format!("{}{}{}", self.way_to_root, self.docker_prefix, variables::print(&words))
    }

    /// Options and command with the values of the environment.
    ///
    /// # Errors
    /// A variable that isn't set.
    pub fn expand(&self, env: &Env) -> Result<(Vec<String>, Vec<String>)> {
        let expand = |words: &[Word]| variables::expand(words, env).map_err(|cause| variable_error("", &cause));
        Ok((expand(&self.options)?, expand(&self.command)?))
    }

    /// The text of an error about the expanded options, with variables by name again.
    fn masked(&self, cause: &dyn std::error::Error, env: &Env) -> String {
        masked(self.options.iter().chain(&self.command), cause, env)
    }
}

/// The text of an error about words that were expanded, with variables by name again: they may be secrets.
fn masked<'a>(words: impl IntoIterator<Item = &'a Word>, cause: &dyn std::error::Error, env: &Env) -> String {
    /// What is shorter is no secret, and stands in other words, too.
    const SECRET_LENGTH: usize = 4;
    let mut values: Vec<(&str, &str)> = words
        .into_iter()
        .flat_map(Word::variables)
        .filter_map(|name| Some((name, env.get(name).filter(|value| value.len() >= SECRET_LENGTH)?)))
        .collect();
    // One may be a part of another.
    values.sort_by_key(|(_, value)| std::cmp::Reverse(value.len()));
    values.into_iter().fold(cause.to_string(), |text, (name, value)| {
        text.replace(value, &format!("${{{name}}}"))
    })
}

/// The words themselves, once they are found to be options of `docker run`: an error names where they were written.
fn options_at(place: &str, words: Vec<Word>, env: &Env) -> Result<Vec<Word>> {
    let expanded = variables::expand(&words, env).map_err(|cause| variable_error(place, &cause))?;
    match RunOptions::parse(&expanded) {
        Ok(_) => Ok(words),
        Err(cause) => Err(Error::usage(format!("{place}: {}", masked(&words, &cause, env)))
            .hint("these are options of docker run: https://docs.docker.com/reference/cli/docker/container/run/")),
    }
}

/// The keys of an image's section as run-image reads them: docked ones first where the shell is docked.
struct Keys<'a> {
    settings: Settings<'a>,
    docked: bool,
    env: &'a Env,
}

impl Keys<'_> {
    /// The key that counts: `<key>_docked` where docked and there.
    fn key(&self, key: &str) -> String {
        let docked = format!("{key}_docked");
        if self.docked && self.settings.has(&docked) {
            docked
        } else {
            key.to_owned()
        }
    }

    fn text(&self, key: &str) -> Result<Option<(String, String)>> {
        let key = self.key(key);
        Ok(self.settings.text(&key)?.map(|text| (key, text)))
    }

    fn words(&self, key: &str) -> Result<Vec<Word>> {
        match self.text(key)? {
            Some((key, text)) => checked(variables::parse(&text, None), &self.settings.place(&key), self.env),
            None => Ok(Vec::new()),
        }
    }

    /// The words of a key that holds options of `docker run`.
    fn options(&self, key: &str) -> Result<Vec<Word>> {
        options_at(&self.settings.place(&self.key(key)), self.words(key)?, self.env)
    }

    fn init(&self) -> Result<Vec<Word>> {
        match self.text("init")? {
            Some((_, text)) if boolean(&text) == Some(false) => Ok(Vec::new()),
            Some((_, text)) if boolean(&text).is_none() => self.options("init"),
            _ => Ok(vec![Word::literal("--init")]),
        }
    }

    /// Whether the section asks to keep the container: `keep_container = True`, or `-d` without `--rm` in it.
    fn keeps(&self) -> Result<bool> {
        Ok(match self.text("keep_container")? {
            Some((_, text)) => boolean(&text).unwrap_or(!text.contains("--rm")),
            None => false,
        })
    }

    /// What else `keep_container` says: docker options other than `--rm`.
    fn keep_options(&self) -> Result<Vec<Word>> {
        match self.text("keep_container")? {
            Some((_, text)) if boolean(&text).is_none() => Ok(self
                .options("keep_container")?
                .into_iter()
                .filter(|word| *word != Word::literal("--rm"))
                .collect()),
            _ => Ok(Vec::new()),
        }
    }

    fn interactive(&self, detached: bool, terminal: bool) -> Result<Vec<Word>> {
        if detached {
            return Ok(vec![Word::literal("-d")]);
        }
        match self.text("interactive")? {
            Some((_, text)) if boolean(&text) == Some(false) => Ok(Vec::new()),
            Some((_, text)) if boolean(&text).is_none() => self.options("interactive"),
            // A pipe has no terminal to give.
            _ => Ok(vec![Word::literal(if terminal { "-it" } else { "-i" })]),
        }
    }

    fn gpu(&self, asked: bool, support: GpuSupport) -> Result<Vec<Word>> {
        let wanted = match self.text("gpu")? {
            _ if asked => true,
            Some((_, text)) => match boolean(&text) {
                Some(wanted) => wanted,
                None => return self.options("gpu"),
            },
            None => false,
        };
        let words: &[&str] = match (wanted, support) {
            (false, _) => &[],
            (true, GpuSupport::Runtime) => &["--runtime=nvidia", "-e", "NVIDIA_VISIBLE_DEVICES=all"],
            (true, GpuSupport::Cdi) => &["--gpus", "all"],
        };
        Ok(words.iter().map(|word| Word::literal(*word)).collect())
    }

    fn network(&self, asked: Option<&str>) -> Result<Vec<Word>> {
        let (mut words, place) = match asked.filter(|name| !name.is_empty()) {
            Some(name) => (argument_words("--network", name, self.env)?, "--network".to_owned()),
            None => (self.words("network")?, self.settings.place(&self.key("network"))),
        };
        // A bare name, which options may follow; options alone are understood, too.
        if words.first().is_some_and(|name| !name.print().starts_with('-')) {
            words.insert(0, Word::literal("--network"));
        }
        options_at(&place, words, self.env)
    }

    fn volumes(&self, project: &Project, env: &Env) -> Result<Vec<Word>> {
        let Some((key, text)) = self.text("volumes")? else {
            return Ok(Vec::new());
        };
        let replacements = BTreeMap::from([
            ("project_root", project.root().display().to_string()),
            ("user", project.user().to_owned()),
            ("project", project.name()),
            ("home", env.home().display().to_string()),
        ]);
        let place = self.settings.place(&key);
        options_at(
            &place,
            checked(variables::parse(&text, Some(&replacements)), &place, env)?,
            env,
        )
    }
}

/// The `-e` options: the section's `environment`, the command line, its `env` section, AWS's variables.
///
/// Later ones win in docker: what the command line sets is left out of those behind it.
fn environment(keys: &Keys<'_>, args: &RunArgs, locality: Locality, env: &Env) -> Result<Vec<Word>> {
    let mut words = keys.options("environment")?;
    let mut set = |word: Word| words.extend([Word::literal("-e"), word]);
    let is_given = |name: &str| args.env.iter().any(|given| given.split('=').next() == Some(name));
    for given in &args.env {
        checked(Word::assignment(given, false).map(|word| vec![word]), "--env", env)?
            .into_iter()
            .for_each(&mut set);
    }
    if let Some((key, section)) = keys.text("env")? {
        let named = keys.settings.sibling(&section);
        if !named.exists() {
            return Err(keys
                .settings
                .error(&key, &format!("there is no section [{section}]"))
                .hint(hint!("add it: [{section}] with a NAME = value for each variable"; section = section)));
        }
        for name in named.keys().into_iter().filter(|name| !is_given(name)) {
            let value = named.text(name)?.unwrap_or_default();
            let text = format!("{name}={value}");
            checked(
                Word::assignment(&text, true).map(|word| vec![word]),
                &named.place(name),
                env,
            )?
            .into_iter()
            .for_each(&mut set);
        }
    }
    if locality == Locality::Local {
        for name in AWS_VARIABLES {
            // By name: docker takes the value from the environment, and no argv holds it.
            if env.non_empty(name).is_some() && !is_given(name) {
                set(Word::literal(name));
            }
        }
    }
    Ok(words)
}

fn argument_words(option: &str, text: &str, env: &Env) -> Result<Vec<Word>> {
    checked(variables::parse(text, None), option, env)
}

/// Words whose variables are all set; where one isn't, the error names the place that they come from.
fn checked(words: Result<Vec<Word>, VariableError>, place: &str, env: &Env) -> Result<Vec<Word>> {
    words
        .and_then(|words| variables::expand(&words, env).map(|_| words))
        .map_err(|cause| variable_error(place, &cause))
}

fn variable_error(place: &str, cause: &VariableError) -> Error {
    let error = if place.is_empty() {
        Error::usage(cause.to_string())
    } else {
        Error::usage(format!("{place}: {cause}"))
    };
    match cause.hint() {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

/// Runs what `args` ask for.
///
/// # Errors
/// A wrong configuration, an engine that can't be reached, an image that can't be had, a container that can't start.
pub fn run(context: &Context, args: &RunArgs) -> Result<ExitStatus> {
    let printer = &context.printer;
    let project = Project::find(&context.working_dir, &context.env)?;
    build::warn_of_unknown_keys(&project, printer);
    // Checked before anything is asked of an engine.
    project.runnable(&args.image)?;
    let env = environment_of_root(&context.env, &project);
    let terminal = std::io::stdin().is_terminal();
    if context.global.dry_run {
        let choice = context.engine_choice()?;
        let locality = context.block_on(async { Ok(build::where_it_would_be(&choice, &env, printer).await) })?;
        let around = RunEnvironment {
            locality,
            terminal,
            gpu: GpuSupport::default(),
        };
        let mut plan = RunPlan::new(&project, args, around, &env, &jiff::Zoned::now())?;
        plan.docker_prefix = context.docker_prefix()?;
        if around.locality == Locality::Docked {
            plan.options = workspace::planned(context, &project, &plan.options, &env)?;
        }
        // What could not be run is not printed as if it could.
        let (options, _) = plan.expand(&env)?;
        RunOptions::parse(&options).map_err(|cause| option_error(&project, args, &plan.masked(&cause, &env)))?;
        plan.notes.iter().for_each(|note| printer.warning(note));
        printer.plan(&[plan.line()])?;
        return Ok(ExitStatus::SUCCESS);
    }
    let mut prepared = context.block_on(prepare(context, &project, args, &env, terminal))?;
    let mut docked = prepared.docked.take().filter(|_| args.watch);
    context.block_on_uninterrupted(async {
        let running = execute(context, &project, args, &prepared);
        match &mut docked {
            Some(docked) => workspace::in_step(context, docked, running, terminal).await,
            None => running.await,
        }
    })
}

/// The environment in which the configuration's variables are looked up: `$PWD` is the root.
fn environment_of_root(env: &Env, project: &Project) -> Env {
    let root = project.root().display().to_string();
    Env::from_pairs(
        env.iter()
            .filter(|(name, _)| *name != "PWD")
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .chain([("PWD".to_owned(), root)]),
    )
}

fn option_error(project: &Project, args: &RunArgs, cause: &str) -> Error {
    Error::usage(format!(
        "docker run's options of {} ([{}] of {} and the command line): {cause}",
        args.image,
        args.image,
        project.config().path().display()
    ))
    .hint(hint!("run-image --dry-run {} shows all of them", args.image))
}

/// All that is known before the container is made.
struct Prepared {
    engine: Engine,
    config: ClientConfig,
    plan: RunPlan,
    container: ContainerPlan,
    local: bool,
    docked: Option<Docked>,
    /// The project's root, and whether it is kept in step.
    root: PathBuf,
    watch: bool,
}

async fn prepare(context: &Context, project: &Project, args: &RunArgs, env: &Env, terminal: bool) -> Result<Prepared> {
    let printer = &context.printer;
    let engine = context.connect().await?;
    let config = ClientConfig::of(env)?;
    let choice = engine.choice();
    let locality = build::where_is(&engine, env, printer).await;
    let gpu = if args.gpu || project.settings(&args.image).has("gpu") {
        gpu_support(&engine, args.gpu).await?
    } else {
        GpuSupport::default()
    };
    printer.detail(&format!(
        "the engine at {} (API {}) is {}",
        choice.endpoint,
        engine.api(),
        match locality {
            Locality::Local => "on this machine",
            Locality::Docked => "on another machine: AWS's variables stay here",
        }
    ));
    let around = RunEnvironment {
        locality,
        terminal,
        gpu,
    };
    let mut plan = free_plan(&engine, RunPlan::new(project, args, around, env, &jiff::Zoned::now())?).await?;
    plan.docker_prefix = context.docker_prefix()?;
    plan.notes.iter().for_each(|note| printer.warning(note));
    let docked = match locality {
        Locality::Docked => workspace::mount(context, project, &mut plan.options, env).await?,
        Locality::Local => None,
    };
    if args.watch && docked.is_none() {
        printer.note("nothing of the project is mounted from a dock: there is nothing to keep in step");
    }
    let (options, command) = plan.expand(env)?;
    let parsed = RunOptions::parse(&options).map_err(|cause| option_error(project, args, &plan.masked(&cause, env)))?;
    let proxies: Vec<(String, String)> = engine
        .proxy_variables(&config)
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
    // Helpers are asked for every login that there is only where somebody is to have them.
    let credentials = match parsed.shares_api_socket() {
        // They would cross the network for everyone to read.
        true if choice.endpoint.is_in_clear() => {
            return Err(Error::usage(format!(
                "--use-api-socket gives the container all of your logins, and the way to the engine at {} is not encrypted",
                choice.endpoint
            ))
            .hint(LOGIN_HINT));
        }
        true => {
            let (document, warnings) = config.resolved().await?;
            warnings.iter().for_each(|warning| printer.warning(warning));
            document
        }
        false => None,
    };
    let socket = match (&choice.endpoint, locality) {
        (Endpoint::Unix(path), Locality::Local) => path.to_str(),
        _ => None,
    };
    let lookup = |name: &str| env.get(name).map(str::to_owned);
    let facts = ClientFacts {
        engine_socket: socket,
        console_size: terminal::size(),
        proxies: &proxies,
        credentials: credentials.as_deref(),
        ..ClientFacts::of(&engine, &lookup, project.root())
    };
    let reference = plan.designation.to_string();
    let mut container = parsed
        .plan(&reference, &command, &facts)
        .map_err(|cause| option_error(project, args, &plan.masked(&cause, env)))?;
    if container.detach_keys.is_none() {
        container.detach_keys = config.detach_keys().map(str::to_owned);
    }
    if container.tty && container.attach.stdin && !terminal {
        return Err(Error::usage("-t asks for a terminal, and stdin is not one")
            .hint("take -t out of interactive, or run it in a terminal"));
    }
    if let Some(file) = container.cidfile.as_ref().filter(|file| file.exists()) {
        return Err(
            Error::usage(format!("the cidfile {} exists already", file.display())).hint("remove it, or name another")
        );
    }
    container.warnings.iter().for_each(|warning| printer.warning(warning));
    let image = ensure_image(context, (&engine, locality), &config, project, args, &plan, &container).await?;
    if container.platform.is_none()
        && let Some(warning) = image::architecture_warning(&engine, &reference, &image).await?
    {
        printer.warning(&warning);
    }
    Ok(Prepared {
        engine,
        config,
        plan,
        container,
        local: locality == Locality::Local,
        watch: args.watch && docked.is_some(),
        docked,
        root: project.root().to_owned(),
    })
}

/// The name of a container that begins so, at this time.
fn name_of((beginning, at): &(String, jiff::Zoned)) -> String {
    legal_container_name(&format!("{beginning}{}", at.strftime("%y-%m-%d_%H.%M.%S")))
}

/// A plan whose container name is free: names end in seconds, and two runs may begin in the same one.
async fn free_plan(engine: &Engine, plan: RunPlan) -> Result<RunPlan> {
    let mut plan = plan;
    for _ in 1..NAMES {
        if !container::exists(engine, &plan.name).await? {
            break;
        }
        plan.rename();
    }
    Ok(plan)
}

/// How the engine gives GPUs; an error that says what is missing where it can't and was asked.
async fn gpu_support(engine: &Engine, asked: bool) -> Result<GpuSupport> {
    let info = engine.info().await?;
    let runtimes = info.runtimes.unwrap_or_default();
    if runtimes.contains_key("nvidia") {
        return Ok(GpuSupport::Runtime);
    }
    // Engines since 28 list the devices that CDI offers; before, a folder of specifications says that CDI is on.
    let devices = info.discovered_devices.unwrap_or_default();
    let offers = |name: &str| name.starts_with("nvidia.com/gpu");
    if devices.iter().any(|device| device.id.as_deref().is_some_and(offers)) {
        return Ok(GpuSupport::Cdi);
    }
    if !asked {
        return Ok(GpuSupport::default());
    }
    Err(Error::failed(format!(
        "the engine at {} has no GPU for containers: neither the runtime nvidia nor a CDI device",
        engine.choice().endpoint
    ))
    .hint("install nvidia-container-toolkit there, then: sudo nvidia-ctk runtime configure --runtime=docker && sudo systemctl restart docker"))
}

/// The image type that is built under this name and tag, if there is one.
fn type_that_makes(project: &Project, designation: &Designation) -> Result<Option<String>> {
    for image in project.image_types() {
        if project.designation(image)?.designation == *designation {
            return Ok(Some(image.clone()));
        }
    }
    Ok(None)
}

/// Makes sure that the engine has the image: builds the project's own, pulls others.
async fn ensure_image(
    context: &Context,
    (engine, locality): (&Engine, Locality),
    config: &ClientConfig,
    project: &Project,
    args: &RunArgs,
    plan: &RunPlan,
    container: &ContainerPlan,
) -> Result<ImageFacts> {
    let reference = plan.designation.to_string();
    if args.build && plan.built_as.is_none() {
        return Err(
            Error::usage(format!("there is nothing to build for {}", args.image)).hint("run it without --build")
        );
    }
    let found = image::find(engine, &reference).await?;
    if let (Some(image), false, false) = (&found, args.build, container.pull == PullPolicy::Always) {
        return Ok(image.clone());
    }
    fetch_image(context, (engine, locality), config, project, args, plan, container).await?;
    image::find_made(engine, &reference).await
}

/// Builds or pulls an image that the engine does not have.
async fn fetch_image(
    context: &Context,
    (engine, locality): (&Engine, Locality),
    config: &ClientConfig,
    project: &Project,
    args: &RunArgs,
    plan: &RunPlan,
    container: &ContainerPlan,
) -> Result<()> {
    let reference = plan.designation.to_string();
    let printer = &context.printer;
    if let Some(image) = &plan.built_as
        && container.pull != PullPolicy::Always
    {
        if args.no_build {
            return Err(
                Error::failed(format!("the engine has no image {reference}, and --no-build is given"))
                    .hint(hint!("build-image {}", image)),
            );
        }
        return build_image(context, (engine, locality), project, image, args).await;
    }
    if container.pull == PullPolicy::Never {
        return Err(Error::failed(format!(
            "the engine has no image {reference}, and --pull=never is given"
        )));
    }
    printer.note(&format!("docker pull {reference}"));
    image::pull(engine, config, &reference, container.platform.as_deref(), printer).await
}

/// The error where an image that the project builds is there for another platform. A registry's by the same name would be a
/// stranger's, and built again it would be the same.
async fn other_platform(engine: &Engine, plan: &RunPlan, container: &ContainerPlan) -> Result<Option<Error>> {
    let (Some(image), Some(platform)) = (&plan.built_as, &container.platform) else {
        return Ok(None);
    };
    let reference = plan.designation.to_string();
    Ok(image::find(engine, &reference).await?.map(|found| {
        Error::failed(format!(
            "the image {reference} is made for {}/{}, and is to run as {platform}",
            found.os, found.architecture
        ))
        .hint(hint!(
            "in [{image}] of docker/dockerutils.cfg: build_args = --platform {}, then: build-image {}",
            platform,
            image;
            image = image
        ))
    }))
}

async fn build_image(
    context: &Context,
    (engine, locality): (&Engine, Locality),
    project: &Project,
    image: &str,
    args: &RunArgs,
) -> Result<()> {
    let wanted = BuildArgs {
        image: image.to_owned(),
        image_name: args.image_name.clone(),
        image_tag: args.image_tag.clone(),
        ..BuildArgs::default()
    };
    let mut plan = BuildPlan::new(project, &wanted, &context.env)?;
    plan.docker_prefix = context.docker_prefix()?;
    // git is waited for: nothing else goes on here.
    tokio::task::block_in_place(|| genversion::before_build(project, &context.printer))?;
    let reports = build::run_plan_on(context, engine, locality, project, &plan).await?;
    if reports.images.iter().any(|report| report.status == BuildStatus::Failed) {
        // The build has said why.
        return Err(Error::failed(format!("{image} could not be built, and is not run")));
    }
    Ok(())
}

async fn execute(context: &Context, project: &Project, args: &RunArgs, prepared: &Prepared) -> Result<ExitStatus> {
    let printer = &context.printer;
    let Prepared {
        engine,
        config,
        plan,
        container,
        local,
        docked: _,
        root,
        watch,
    } = prepared;
    let (plan, container) = (&mut plan.clone(), &mut container.clone());
    printer.note(&"=".repeat(RULE));
    printer.note(&plan.line());
    let mut signals = Signals::listen()?;
    let mut names = 1;
    let mut is_fetched = container.pull != PullPolicy::Missing;
    let created = loop {
        let creating = container::try_create(engine, container);
        match signals.guard(CREATE_GRACE, creating).await? {
            Ok(created) => break created,
            // A run that began in the same second has taken the name since it was looked for.
            Err(Refusal::NameTaken(_)) if container.name.as_ref() == Some(&plan.name) && names < NAMES => {
                names += 1;
                plan.rename();
                container.name = Some(plan.name.clone());
                printer.note(&plan.line());
            }
            // By this name it may have one of another platform.
            Err(Refusal::NoImage(_)) if !is_fetched => {
                is_fetched = true;
                if let Some(error) = other_platform(engine, plan, container).await? {
                    return Err(error);
                }
                let locality = if *local { Locality::Local } else { Locality::Docked };
                let fetching = fetch_image(context, (engine, locality), config, project, args, plan, container);
                signals.guard(Duration::ZERO, fetching).await?;
            }
            Err(Refusal::NameTaken(error) | Refusal::NoImage(error)) => return Err(error),
        }
    };
    created.warnings.iter().for_each(|warning| printer.warning(warning));
    if let Some(file) = &container.cidfile {
        std::fs::write(file, created.id()).map_err(|cause| {
            Error::failed(format!("the cidfile {} can't be written", file.display())).because(cause)
        })?;
    }
    if container.detach {
        let starting = container::start(engine, created.id(), container.detach_keys.as_deref());
        if let Err(error) = signals.guard(Duration::ZERO, starting).await {
            return Err(port_owner::explain(engine, error, *local, &context.env).await);
        }
        let id = created.keep();
        let published = container::published_ports(engine, &id).await.unwrap_or_default();
        let ports = ports::reached(context, engine.choice(), *local, &id, &published).await;
        if printer.json() {
            printer.result_json(&Started {
                id: &id,
                name: &plan.name,
                image: plan.designation.to_string(),
                ports: &ports,
            })?;
        } else {
            ports::show(printer, &ports);
            printer.result(&id);
        }
        return Ok(ExitStatus::SUCCESS);
    }
    let id = created.id().to_owned();
    let started = async |published: &[PublishedPort]| {
        printer.give_stdout_away();
        let ports = ports::reached(context, engine.choice(), *local, &id, published).await;
        ports::show(printer, &ports);
    };
    let records = again::RunRecords::of(&context.env);
    let mut record = again::record(engine, &id, &plan.name, root, *watch);
    again::write_down(&records, &record, printer);
    let heard = Arc::new(OutputCounter::default());
    let came = match foreground::run_attached(engine, created, container, &mut signals, &heard, started).await {
        Err(error) => Err(port_owner::explain(engine, error, *local, &context.env).await),
        came => came,
    };
    record.heard = heard.positions();
    again::came_out(context, engine, &records, &record, came).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn plan(config: &str, args: &RunArgs, around: RunEnvironment, env: &Env) -> Result<RunPlan> {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("proj");
        fs::create_dir_all(root.join("docker/dev")).unwrap();
        fs::write(root.join("docker/dev/Dockerfile"), "FROM scratch\n").unwrap();
        fs::write(root.join("docker/dockerutils.cfg"), config).unwrap();
        let project = Project::find(&root, env).unwrap();
        let now: jiff::Zoned = "2026-11-21T09:08:07[UTC]".parse().unwrap();
        RunPlan::new(&project, args, around, env, &now)
    }

    const LOCAL: RunEnvironment = RunEnvironment {
        locality: Locality::Local,
        terminal: true,
        gpu: GpuSupport::Runtime,
    };
    const LABELS: &str = "--label io.dockerutils.project=proj --label io.dockerutils.user=ann";

    fn env() -> Env {
        Env::from_pairs([("USER", "ann"), ("HOME", "/home/ann"), ("X", "1"), ("AWS_REGION", "eu")])
    }

    fn dev() -> RunArgs {
        RunArgs {
            image: "dev".to_owned(),
            ..RunArgs::default()
        }
    }

    fn line(config: &str, args: &RunArgs) -> String {
        plan(config, args, LOCAL, &env()).unwrap().line()
    }

    #[test]
    fn the_words_stand_in_the_originals_order() {
        let config =
            "[dev]\nvolumes = -v {home}/x:/x\nports = -p 1:1\nargs = --cpus 2\ncmd = sh -c 'echo $X'\nnetwork = net\n";
        assert_eq!(
            line(config, &dev()),
            format!(
                "docker run --init --name ann_dev_26-11-21_09.08.07 -e AWS_REGION --rm -it --network net -v /home/ann/x:/x \
                 -p 1:1 --cpus 2 {LABELS} proj-dev:ann sh -c 'echo '\"${{X}}\""
            )
        );
    }

    #[test]
    fn a_synthetic_image_is_built_as_the_type_whose_name_it_has() {
        let config = "[run_image]\nsynthetic_images = gpu, other\n[gpu]\nname = dev\n[other]\nname = dev\ntag = 2\n";
        let built_as = |image: &str| {
            let args = RunArgs {
                image: image.to_owned(),
                ..RunArgs::default()
            };
            plan(config, &args, LOCAL, &env()).unwrap().built_as
        };
        assert_eq!(built_as("dev").as_deref(), Some("dev"));
        assert_eq!(built_as("gpu").as_deref(), Some("dev"));
        assert_eq!(built_as("other"), None);
    }

    #[test]
    fn the_command_line_beats_the_file() {
        let config = "[dev]\nargs = --cpus 2\ncmd = a\nnetwork = net\nenv = vars\ninteractive = -i\n[vars]\nA = file\nB = 'b c'\n";
        let args = RunArgs {
            args: Some("-m 1g".into()),
            command: Some("b c".into()),
            network: Some("other".into()),
            env: vec!["A=b=c".into(), "FOO".into()],
            keep: true,
            gpu: true,
            ..dev()
        };
        assert_eq!(
            line(config, &args),
            format!(
                "docker run --init --name ann_dev_26-11-21_09.08.07 -e A=b=c -e FOO -e 'B=b c' -e AWS_REGION -d \
                 --runtime=nvidia -e NVIDIA_VISIBLE_DEVICES=all --network other -m 1g {LABELS} proj-dev:ann b c"
            )
        );
    }

    #[test]
    fn docked_keys_win_where_docked_and_aws_stays_home() {
        let config = "[dev]\nvolumes = -v /a:/a\nvolumes_docked = -v /b:/b\nports = -p 1:1\n";
        let docked = RunEnvironment {
            locality: Locality::Docked,
            ..LOCAL
        };
        let line = plan(config, &dev(), docked, &env()).unwrap().line();
        assert!(
            line.contains("-v /b:/b") && !line.contains("/a:/a") && !line.contains("AWS"),
            "{line}"
        );
    }

    #[test]
    fn keys_that_never_worked_do() {
        for (config, has, has_not) in [
            ("[dev]\nkeep_container = True\n", " -d ", "--rm"),
            ("[dev]\ninteractive = -i\n", " --rm -i ", "-it"),
            ("[dev]\ninteractive =\n", " --rm --label", "-it"),
            ("[dev]\ninit = False\n", "run --name", "--init"),
            ("[dev]\nenvironment = -e Q=$X\n", "-e Q=${X} ", "Q=1"),
        ] {
            let line = line(config, &dev());
            assert!(line.contains(has) && !line.contains(has_not), "{config}: {line}");
        }
    }

    #[test]
    fn values_are_words_as_ever() {
        for (config, has) in [
            (
                "[dev]\nnetwork = net --dns 1.1.1.1\n",
                "-it --network net --dns 1.1.1.1 --label",
            ),
            ("[dev]\nnetwork = --network net\n", "-it --network net --label"),
            (
                "[dev]\nenv = e\n[e]\nA = \"b c\"\nB = b c\nC = $X\n",
                "-e 'A=b c' -e 'B=b c' -e C=\"${X}\" -e AWS",
            ),
        ] {
            let line = line(config, &dev());
            assert!(line.contains(has), "{config}: {line}");
        }
        let args = RunArgs {
            network: Some("$X".into()),
            env: vec!["AWS_REGION=us".into()],
            ..dev()
        };
        let line = line("", &args);
        assert!(line.contains("-e AWS_REGION=us --rm -it --network ${X} "), "{line}");
    }

    #[test]
    fn errors_name_their_place() {
        for (config, part) in [
            (
                "[dev]\nvolumes = -v {hme}:/x\n",
                "docker/dockerutils.cfg:2: [dev] volumes: {hme} is not one of",
            ),
            ("[dev]\nports = -p eighty\n", "docker/dockerutils.cfg:2: [dev] ports: "),
            (
                "[dev]\nargs = --mem 1g\n",
                "docker/dockerutils.cfg:2: [dev] args: unknown option --mem",
            ),
            ("[dev]\nenv = none\n", "[dev] env: there is no section [none]"),
            ("[dev]\ncmd = 'a\n", "[dev] cmd: a single quotation is not closed"),
        ] {
            let error = plan(config, &dev(), LOCAL, &env()).unwrap_err();
            assert!(error.to_string().contains(part), "{error}");
        }
        let unset = plan("[dev]\ncmd = $NONE\n", &dev(), LOCAL, &env()).unwrap_err();
        assert_eq!(
            unset.to_string(),
            "docker/dockerutils.cfg:2: [dev] cmd: $NONE is not set"
        );
        assert!(unset.hint_text().unwrap().contains("$$NONE"));
    }
}
