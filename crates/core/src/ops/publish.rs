//! Publishing an image: to Docker Hub, to Amazon's registry, to any other.

mod destination;
pub(super) mod prompt;

use std::collections::BTreeSet;

use serde::Serialize;

use crate::config::project::{Origin, Project, designated};
use crate::context::Context;
use crate::docker::connect::client_config::{ClientConfig, FoundLogin};
use crate::docker::connect::engine::Engine;
use crate::docker::connect::login::Login;
use crate::docker::images::image;
use crate::docker::images::push::{self, Layers, RegistryAuth};
use crate::error::{Error, ErrorDocument, ExitStatus, Result};
use crate::hint;
use crate::naming::{Designation, registry};
use crate::ops::build::warn_of_unknown_keys;
use crate::ops::run_records::connect_and_remind;
use crate::output::visible;
use crate::registry_helper::{Aws, EcrRegistry};
use crate::shell;
use destination::{Destination, RegistryKind, TagVariables};

/// Width of the line before the printed commands, as the original had it.
const RULE: usize = 76;
/// Docker Hub, as a key of docker's logins.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// What publish-image is asked for.
#[derive(Clone, Debug, Default)]
pub struct PublishArgs {
    /// The image type.
    pub image: String,
    /// Another name of the image.
    pub image_name: Option<String>,
    /// Tags to publish it under, in place of the configured one.
    pub tags: Vec<String>,
}

/// What is about to be published, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishPlan {
    /// What stands before each docker command: see [`Context::docker_prefix`].
    docker_prefix: String,
    /// The image on the engine.
    pub source: Designation,
    /// The references that it is published under: all of one repository.
    pub references: Vec<Designation>,
    /// The registry, where it is Amazon's.
    ecr: Option<EcrRegistry>,
}

/// The result for one reference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PublishReport {
    pub reference: String,
    /// How it went.
    pub status: PublishStatus,
    /// The digest of the image in the registry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// What became of its layers; `None` where nothing was pushed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layers: Option<Layers>,
    /// The command that pulls it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pull: Option<String>,
    #[serde(flatten)]
    pub why: Option<ErrorDocument>,
}

/// All that `--json` prints.
#[derive(Serialize)]
struct PublishDocument<'a> {
    images: Vec<&'a PublishReport>,
}

/// The outcome for one reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PublishStatus {
    /// It was pushed.
    Pushed,
    /// The registry had it already.
    Present,
    /// It could not be pushed.
    Failed,
}

impl PublishPlan {
    /// The equivalent command lines.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut add =
            |words: &[&str]| lines.push(format!("{}{}", self.docker_prefix, shell::join(words.iter().copied())));
        let source = self.source.to_string();
        for reference in self.references.iter().map(ToString::to_string) {
            if reference != source {
                add(&["docker", "tag", &source, &reference]);
            }
            add(&["docker", "push", &reference]);
        }
        if let (Some(ecr), Some(reference)) = (&self.ecr, self.references.first()) {
            let host = registry(&reference.name);
            let (_, repository) = reference.name.split_once('/').unwrap_or_default();
            let named = |action: &str, option: &str| {
                shell::join([
                    "aws",
                    "ecr",
                    action,
                    "--region",
                    &ecr.region,
                    "--registry-id",
                    &ecr.account,
                    option,
                    repository,
                ])
            };
            // The only commands with shell operators in them; the words between the operators are quoted.
            let first = [
                format!(
                    "{} | {}",
                    shell::join(["aws", "ecr", "get-login-password", "--region", &ecr.region]),
                    shell::join(["docker", "login", "--username", "AWS", "--password-stdin", &host])
                ),
                format!(
                    "{} >/dev/null || {}",
                    named("describe-repositories", "--repository-names"),
                    named("create-repository", "--repository-name")
                ),
            ];
            lines.splice(0..0, first);
        }
        lines
    }
}

/// Publishes an image.
///
/// # Errors
/// A wrong configuration, an engine that can't be reached, no login. A push that fails is reported, and in the status.
pub fn publish(context: &Context, args: &PublishArgs) -> Result<ExitStatus> {
    let printer = &context.printer;
    let project = Project::find(&context.working_dir, &context.env)?;
    warn_of_unknown_keys(&project, printer);
    let origin = project.runnable(&args.image)?;
    let named = project.designation(&args.image)?;
    let named = match &args.image_name {
        Some(name) => designated(name, &named.designation.tag),
        None => named,
    };
    let destination = Destination::read(project.settings(&args.image))?;
    for note in named.notes.iter().chain(&destination.notes) {
        printer.warning(note);
    }
    context.block_on(async {
        let config = ClientConfig::of(&context.env)?;
        let mut publisher = Publisher {
            context,
            config,
            aws: None,
            asked: None,
            warned: BTreeSet::new(),
        };
        let source = named.designation;
        // Before AWS or the user is asked for something in vain.
        let asks = destination.needs_identity() || destination.needs_hub_user();
        let engine = if asks && !context.global.dry_run {
            Some(engine_with(context, args, origin, &source).await?)
        } else {
            None
        };
        let plan = publisher.plan(&project, &destination, source, &args.tags).await?;
        if context.global.dry_run {
            printer.plan(&plan.lines())?;
            return Ok(ExitStatus::SUCCESS);
        }
        printer.note(&"=".repeat(RULE));
        plan.lines().iter().for_each(|line| printer.note(line));
        let engine = match engine {
            Some(engine) => engine,
            None => engine_with(context, args, origin, &plan.source).await?,
        };
        let auth = match engine.choice().endpoint.login_warning() {
            Some(warning) => {
                printer.warning(&warning);
                RegistryAuth::withheld()
            }
            None => publisher.login(&plan).await?,
        };
        let reports = publisher.push(&engine, &plan, &auth).await;
        publisher.print(&reports)
    })
}

/// The engine, which must have the image.
async fn engine_with(context: &Context, args: &PublishArgs, origin: Origin, source: &Designation) -> Result<Engine> {
    let engine = connect_and_remind(context).await?;
    if image::find(&engine, &source.to_string()).await?.is_some() {
        return Ok(engine);
    }
    let error = Error::failed(format!(
        "the engine at {} has no image {source}",
        engine.choice().endpoint
    ));
    Err(match (origin, &args.image_name) {
        (Origin::Dockerfile, None) => error.hint(hint!("build-image {}", args.image)),
        (Origin::Dockerfile, Some(name)) => error.hint(shell::join(["build-image", &args.image, "-i", name])),
        (Origin::Configuration, _) => error.hint(hint!("docker pull {}", source)),
    })
}

/// Where logins come from.
struct Publisher<'a> {
    context: &'a Context,
    config: ClientConfig,
    /// The program that speaks to AWS, once it was needed.
    aws: Option<Aws>,
    /// The login to Docker Hub that the user typed.
    asked: Option<Login>,
    /// Registries of which it was said that a login can't be had.
    warned: BTreeSet<String>,
}

impl Publisher<'_> {
    async fn plan(
        &mut self,
        project: &Project,
        destination: &Destination<'_>,
        source: Designation,
        tags: &[String],
    ) -> Result<PublishPlan> {
        let identity = if destination.needs_identity() {
            Some(self.aws()?.identity().await?)
        } else {
            None
        };
        let hub_user = if destination.needs_hub_user() {
            self.hub_user().await?
        } else {
            None
        };
        let values = TagVariables {
            identity: identity.as_ref(),
            hub_user: hub_user.as_deref(),
            user: project.user(),
        };
        let references = destination.references(&source, tags, &values, &self.context.env)?;
        let ecr = references
            .first()
            .filter(|_| destination.repo == RegistryKind::Aws)
            .and_then(|reference| EcrRegistry::parse(&registry(&reference.name)));
        Ok(PublishPlan {
            docker_prefix: self.context.docker_prefix()?,
            source,
            references,
            ecr,
        })
    }

    fn aws(&mut self) -> Result<&mut Aws> {
        match &mut self.aws {
            Some(aws) => Ok(aws),
            none => Ok(none.insert(Aws::start()?)),
        }
    }

    /// The user's name at Docker Hub. For a plan alone, the user is not asked.
    async fn hub_user(&mut self) -> Result<Option<String>> {
        let found = self.found(DOCKER_HUB).await;
        match found.login {
            Some(login) => match self.config.user_of(DOCKER_HUB, &login) {
                Some(user) => Ok(Some(user)),
                None => Err(Error::failed(
                    "the login to Docker Hub is a token without a user's name, but the image needs that name",
                )
                .hint("say where it goes: publication_tag = NAME/{image}:{tag}")),
            },
            None if self.context.global.dry_run || !prompt::can_ask() => Ok(None),
            None => Ok(Some(self.ask().await?.user)),
        }
    }

    async fn ask(&mut self) -> Result<Login> {
        if let Some(login) = &self.asked {
            return Ok(login.clone());
        }
        let login = prompt::ask(&self.context.printer, "Docker Hub").await?;
        self.context
            .printer
            .note("the login is used once, and not kept; `docker login` keeps one");
        self.asked = Some(login.clone());
        Ok(login)
    }

    /// The login for all of a plan's references, and the repository, where it has to be made.
    async fn login(&mut self, plan: &PublishPlan) -> Result<RegistryAuth> {
        let Some(first) = plan.references.first() else {
            return Ok(RegistryAuth::new(DOCKER_HUB, None));
        };
        let key = registry(&first.name);
        let printer = &self.context.printer;
        if plan.ecr.is_some() {
            let (_, repository) = first.name.split_once('/').unwrap_or_default();
            let aws = self.aws()?;
            let (user, secret) = aws.login(&key).await?;
            if aws.repository(&key, repository).await? {
                printer.note(&format!("made the repository {} at {key}", visible(repository)));
            }
            return Ok(RegistryAuth::new(&key, Some(&Login::new(user, secret))));
        }
        let found = self.found(&key).await;
        let hint = found.hint();
        let login = match found.login {
            Some(login) => Some(login),
            None if key == DOCKER_HUB && prompt::can_ask() => Some(self.ask().await?),
            None if key == DOCKER_HUB => {
                let error = Error::failed(format!("nobody is logged in to Docker Hub, where {first} goes"));
                return Err(match found.trouble {
                    Some(trouble) => error.hint(hint.unwrap_or_default()).because(trouble),
                    None => error.hint("docker login"),
                });
            }
            None => None,
        };
        let printer = &self.context.printer;
        printer.detail(&match &login {
            Some(login) => match self.config.user_of(&key, login) {
                Some(user) => format!("the login at {key} is that of {}", visible(&user)),
                None => format!("the login at {key} is a token"),
            },
            None => format!("no login at {key} is known: trying without one"),
        });
        Ok(RegistryAuth::new(&key, login.as_ref()).but(hint))
    }

    /// The login that docker would send; what can't be had is said once for each registry.
    async fn found(&mut self, registry: &str) -> FoundLogin {
        let found = self.config.credentials(registry).await;
        if let Some(warning) = found.warning()
            && self.warned.insert(registry.to_owned())
        {
            self.context.printer.warning(&warning);
        }
        found
    }

    async fn push(&self, engine: &Engine, plan: &PublishPlan, auth: &RegistryAuth) -> Vec<(PublishReport, ExitStatus)> {
        let printer = &self.context.printer;
        let mut reports = Vec::new();
        for reference in &plan.references {
            let done = push_one(self.context, engine, &plan.source, reference, auth).await;
            reports.push(match done {
                Ok(report) => (report, ExitStatus::SUCCESS),
                Err(error) => {
                    printer.error(&error);
                    let report = PublishReport {
                        reference: reference.to_string(),
                        status: PublishStatus::Failed,
                        digest: None,
                        layers: None,
                        pull: None,
                        why: Some(error.document()),
                    };
                    (report, error.class().status())
                }
            });
        }
        reports
    }

    fn print(&self, reports: &[(PublishReport, ExitStatus)]) -> Result<ExitStatus> {
        let printer = &self.context.printer;
        if printer.json() {
            printer.result_json(&PublishDocument {
                images: reports.iter().map(|(report, _)| report).collect(),
            })?;
        } else {
            let lines = reports.iter().filter_map(|(report, _)| report.pull.as_deref());
            lines.for_each(|line| printer.result(line));
        }
        let worst = reports.iter().map(|(_, status)| *status).max();
        Ok(worst.unwrap_or(ExitStatus::SUCCESS))
    }
}

/// The login that docker would send to the registry of this repository, for an engine that may have it. Nobody is asked for one.
///
/// # Errors
/// Nobody is logged in to Docker Hub, which takes nothing without a login.
pub async fn registry_auth(
    context: &Context,
    engine: &Engine,
    config: &ClientConfig,
    repository: &str,
) -> Result<RegistryAuth> {
    if let Some(warning) = engine.choice().endpoint.login_warning() {
        context.printer.warning(&warning);
        return Ok(RegistryAuth::withheld());
    }
    let key = registry(repository);
    let found = config.credentials(&key).await;
    let hint = found.hint();
    match found.login {
        None if key == DOCKER_HUB => {
            let error = Error::failed(format!("nobody is logged in to Docker Hub, where {repository} goes"));
            Err(match found.trouble {
                Some(trouble) => error.hint(hint.unwrap_or_default()).because(trouble),
                None => error.hint("docker login"),
            })
        }
        login => Ok(RegistryAuth::new(&key, login.as_ref()).but(hint)),
    }
}

/// Pushes an image under a reference, if the registry has not exactly it already.
///
/// # Errors
/// The registry's refusal, in its own words, with a hint; an engine that can't be reached.
pub async fn push_one(
    context: &Context,
    engine: &Engine,
    source: &Designation,
    reference: &Designation,
    auth: &RegistryAuth,
) -> Result<PublishReport> {
    let printer = &context.printer;
    if reference != source {
        push::tag(engine, source, reference).await?;
    }
    let (status, digest, layers) = match push::already_there(engine, reference, auth).await {
        Some(digest) => {
            printer.note(&format!("{reference} is there already ({digest})"));
            (PublishStatus::Present, digest, None)
        }
        None => {
            let pushed = push::push(engine, reference, auth, printer).await?;
            let Layers {
                pushed: sent,
                mounted,
                present,
            } = pushed.layers;
            printer.note(&format!(
                "{reference} is pushed ({}); layers: {sent} pushed, {mounted} mounted, {present} there already",
                pushed.digest
            ));
            (PublishStatus::Pushed, pushed.digest, Some(pushed.layers))
        }
    };
    Ok(PublishReport {
        reference: reference.to_string(),
        status,
        digest: Some(digest),
        layers,
        pull: Some(format!("docker pull {reference}")),
        why: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn designation(name: &str, tag: &str) -> Designation {
        Designation {
            name: name.into(),
            tag: tag.into(),
        }
    }

    #[test]
    fn the_lines_are_those_that_docker_would_be_told() {
        let plan = PublishPlan {
            docker_prefix: String::new(),
            source: designation("app-dev", "me"),
            references: vec![designation("ann/app-dev", "1"), designation("app-dev", "me")],
            ecr: None,
        };
        assert_eq!(
            plan.lines(),
            [
                "docker tag app-dev:me ann/app-dev:1",
                "docker push ann/app-dev:1",
                // It has this name already.
                "docker push app-dev:me",
            ]
        );
    }

    #[test]
    fn the_lines_for_amazon_log_in_and_make_the_repository() {
        let host = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";
        let plan = PublishPlan {
            docker_prefix: String::new(),
            source: designation("app-dev", "me"),
            references: vec![designation(&format!("{host}/team/app-dev"), "1")],
            ecr: EcrRegistry::parse(host),
        };
        assert_eq!(
            plan.lines(),
            [
                format!(
                    "aws ecr get-login-password --region eu-west-1 | docker login --username AWS --password-stdin {host}"
                ),
                "aws ecr describe-repositories --region eu-west-1 --registry-id 123456789012 --repository-names team/app-dev \
                 >/dev/null || aws ecr create-repository --region eu-west-1 --registry-id 123456789012 --repository-name team/app-dev"
                    .to_owned(),
                format!("docker tag app-dev:me {host}/team/app-dev:1"),
                format!("docker push {host}/team/app-dev:1"),
            ]
        );
    }
}
