//! Running a project's image: carrying out its plan through the engine's API.

pub(in crate::ops) mod bind_mounts;
pub(in crate::ops) mod plan;
pub(in crate::ops) mod ports;
mod reattach;

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::config::project::Project;
use crate::context::Context;
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
use crate::env::Env;
use crate::error::{Error, ExitStatus, Result};
use crate::hint;
use crate::ops::build::{self, BuildArgs, BuildPlan, BuildStatus};
use crate::ops::genversion;
use crate::ops::run_records::{RunRecords, connect_and_remind};
use crate::ops::sync::DockedProject;
use crate::output::Printer;
use crate::terminal;
pub use plan::{GpuSupport, RunArgs, RunEnvironment, RunPlan};
pub use reattach::{attach, attachable};

/// The line above the printed command; the original drew it.
pub(in crate::ops) const RULE: usize = 76;
/// After an interruption while a container is created, how long to wait for its ID, so that it can be removed.
pub(in crate::ops) const CREATE_GRACE: Duration = Duration::from_secs(10);
/// How many names are tried for runs that begin in the same second.
pub(in crate::ops) const NAMES: usize = 60;

/// A container that was started in the background.
#[derive(Debug, Serialize)]
struct Started<'a> {
    id: &'a str,
    name: &'a str,
    image: String,
    ports: &'a [ports::Reached],
}

/// Runs what `args` ask for.
///
/// # Errors
/// A wrong configuration, an engine that can't be reached, an image that can't be had, a container that can't start.
pub fn run(context: &Context, args: &RunArgs) -> Result<ExitStatus> {
    let printer = &context.printer;
    let project = match args.reference {
        None => Project::find(&context.working_dir, &context.env)?,
        // A repository with a stack need not have docker/.
        Some(_) => Project::find_or_folder(&context.working_dir, &context.env)?,
    };
    build::warn_of_unknown_keys(&project, printer);
    // Checked before anything is asked of an engine.
    if args.reference.is_none() {
        project.runnable(&args.image)?;
    }
    let env = environment_of_root(&context.env, &project);
    let terminal = std::io::stdin().is_terminal();
    if context.global.dry_run {
        let choice = context.engine_choice()?;
        let locality = context.block_on(async { Ok(build::where_it_would_be(choice, &env, printer).await) })?;
        let around = RunEnvironment {
            locality,
            terminal,
            gpu: GpuSupport::default(),
        };
        let mut plan = RunPlan::new(&project, args, around, &env, &jiff::Zoned::now())?;
        plan.docker_prefix = context.docker_prefix()?;
        if around.locality == Locality::Docked {
            plan.options = bind_mounts::planned(context, &project, &plan.options, &env)?;
            plan.docker_prefix += bind_mounts::variable(context, &project, &plan.options, &env)?;
        }
        // A line that docker would refuse is not printed.
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
            Some(docked) => bind_mounts::in_step(context, docked, running, terminal).await,
            None => running.await,
        }
    })
}

/// The environment in which the configuration's variables are looked up: `$PWD` is the root.
pub(in crate::ops) fn environment_of_root(env: &Env, project: &Project) -> Env {
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
    docked: Option<DockedProject>,
    /// The project's root, and whether it is kept in step.
    root: PathBuf,
    watch: bool,
}

async fn prepare(context: &Context, project: &Project, args: &RunArgs, env: &Env, terminal: bool) -> Result<Prepared> {
    let printer = &context.printer;
    let engine = connect_and_remind(context).await?;
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
        Locality::Docked => {
            let docked = bind_mounts::mount(context, project, &mut plan.options, env).await?;
            plan.docker_prefix += bind_mounts::variable(context, project, &plan.options, env)?;
            docked
        }
        Locality::Local => None,
    };
    if args.watch && docked.is_none() {
        printer.note("nothing of the project is mounted from a dock: there is nothing to keep in step");
    }
    let refused = |cause: &str| option_error(project, args, cause);
    let container = container_plan((&engine, locality), &config, project, &plan, env, &refused, printer).await?;
    if container.tty && container.attach.stdin && !terminal {
        return Err(Error::usage("-t needs a terminal, but stdin is not one")
            .hint("remove -t from interactive, or run it in a terminal"));
    }
    if let Some(file) = container.cidfile.as_ref().filter(|file| file.exists()) {
        return Err(
            Error::usage(format!("the cidfile {} exists already", file.display())).hint("remove it, or name another")
        );
    }
    container.warnings.iter().for_each(|warning| printer.warning(warning));
    let reference = plan.reference.clone();
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

/// The container of a plan, with what the docker client would add: its environment, proxies, logins where an option asks for
/// them. `refused` makes the error of an option that docker would refuse, whose text has no values of variables.
///
/// # Errors
/// Such an option, a variable that is not set, logins that can't be read.
pub(in crate::ops) async fn container_plan(
    (engine, locality): (&Engine, Locality),
    config: &ClientConfig,
    project: &Project,
    plan: &RunPlan,
    env: &Env,
    refused: &impl Fn(&str) -> Error,
    printer: &Printer,
) -> Result<ContainerPlan> {
    let choice = engine.choice();
    let (options, command) = plan.expand(env)?;
    let parsed = RunOptions::parse(&options).map_err(|cause| refused(&plan.masked(&cause, env)))?;
    let proxies: Vec<(String, String)> = engine
        .proxy_variables(config)
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
    // Credential helpers are asked for all logins only if the container is to have them.
    let credentials = match parsed.shares_api_socket() {
        // Over plain TCP, everyone on the way could read them.
        true if choice.endpoint.is_in_clear() => {
            return Err(Error::usage(format!(
                "--use-api-socket gives the container all of your logins, but the connection to the engine at {} is not \
                 encrypted",
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
        ..ClientFacts::of(engine, &lookup, project.root())
    };
    let mut container = parsed
        .plan(&plan.reference, &command, &facts)
        .map_err(|cause| refused(&plan.masked(&cause, env)))?;
    if container.detach_keys.is_none() {
        container.detach_keys = config.detach_keys().map(str::to_owned);
    }
    Ok(container)
}

/// Gives a plan a container name that is free: names end in the second of the start, and runs may start in the same
/// one.
pub(in crate::ops) async fn free_plan(engine: &Engine, plan: RunPlan) -> Result<RunPlan> {
    let mut plan = plan;
    for _ in 1..NAMES {
        if !container::exists(engine, &plan.name).await? {
            break;
        }
        plan.rename();
    }
    Ok(plan)
}

/// How the engine gives GPUs to containers; an error with what is missing if it can't and the user asked for them.
///
/// # Errors
/// Such a lack, an engine that does not answer.
pub async fn gpu_support(engine: &Engine, asked: bool) -> Result<GpuSupport> {
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

/// Makes sure that the engine has the image: builds the project's own images, and pulls others.
async fn ensure_image(
    context: &Context,
    (engine, locality): (&Engine, Locality),
    config: &ClientConfig,
    project: &Project,
    args: &RunArgs,
    plan: &RunPlan,
    container: &ContainerPlan,
) -> Result<ImageFacts> {
    let reference = plan.reference.clone();
    if args.build && plan.built_as.is_none() {
        return Err(
            Error::usage(format!("there is nothing to build for {}", args.image)).hint(match args.reference {
                None => "run it without --build".to_owned(),
                Some(_) => hint!("build-stack {} --no-push", args.image),
            }),
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
    let reference = plan.reference.clone();
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
        let wanted = BuildArgs {
            image: image.to_owned(),
            image_name: args.image_name.clone(),
            image_tag: args.image_tag.clone(),
            ..BuildArgs::default()
        };
        return build_image(context, (engine, locality), project, &wanted).await;
    }
    if container.pull == PullPolicy::Never {
        return Err(Error::failed(format!(
            "the engine has no image {reference}, and --pull=never is given"
        )));
    }
    printer.note(&format!("docker pull {reference}"));
    let pulled = image::pull(engine, config, &reference, container.platform.as_deref(), printer).await;
    match args.reference {
        Some(_) => pulled.map_err(|error| error.hint(hint!("build it here: build-stack {} --no-push", args.image))),
        None => pulled,
    }
}

/// The error if the engine has the project's image for another platform. It can't be pulled instead: a registry's image
/// of the same name would be a stranger's; and building it again would give the same.
async fn other_platform(engine: &Engine, plan: &RunPlan, container: &ContainerPlan) -> Result<Option<Error>> {
    let (Some(image), Some(platform)) = (&plan.built_as, &container.platform) else {
        return Ok(None);
    };
    let reference = plan.reference.clone();
    Ok(image::find(engine, &reference).await?.map(|found| {
        Error::failed(format!(
            "the image {reference} is made for {}/{}, but is to run as {platform}",
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

/// Builds an image of the project.
///
/// # Errors
/// A wrong configuration, and a build that fails, which has been printed then.
pub(in crate::ops) async fn build_image(
    context: &Context,
    (engine, locality): (&Engine, Locality),
    project: &Project,
    wanted: &BuildArgs,
) -> Result<()> {
    let mut plan = BuildPlan::new(project, wanted, &context.env)?;
    plan.docker_prefix = context.docker_prefix()?;
    // Blocking on git is fine: nothing else runs here.
    tokio::task::block_in_place(|| genversion::before_build(project, &context.printer))?;
    let reports = build::run_plan_on(context, engine, locality, project, &plan).await?;
    if reports.images.iter().any(|report| report.status == BuildStatus::Failed) {
        // The build has printed the reason.
        return Err(Error::failed(format!(
            "{} could not be built, and is not run",
            wanted.image
        )));
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
            // A run that began in the same second has taken the name meanwhile.
            Err(Refusal::NameTaken(_)) if container.name.as_ref() == Some(&plan.name) && names < NAMES => {
                names += 1;
                plan.rename();
                container.name = Some(plan.name.clone());
                printer.note(&plan.line());
            }
            // The engine may have an image of this name for another platform.
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
                image: plan.reference.clone(),
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
    let records = RunRecords::of(&context.env);
    let mut record = reattach::record(engine, &id, &plan.name, root, *watch);
    reattach::write_down(&records, &record, printer);
    let heard = Arc::new(OutputCounter::default());
    let came = match foreground::run_attached(engine, created, container, &mut signals, &heard, started).await {
        Err(error) => Err(port_owner::explain(engine, error, *local, &context.env).await),
        came => came,
    };
    record.heard = heard.positions();
    reattach::came_out(context, engine, &records, &record, came).await
}
