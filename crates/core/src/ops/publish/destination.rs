//! Where an image is published: `image_repo` and `publication_tag` of its section, turned into references.

use std::collections::BTreeMap;

use crate::config::project::CONFIG_FILE;
use crate::config::settings::Settings;
use crate::config::variables;
use crate::env::Env;
use crate::error::{Error, Result};
use crate::hint;
use crate::naming::{Designation, is_repository, is_tag, legal_repository, legal_tag, registry};
use crate::registry_helper::{EcrRegistry, Identity};

/// The key of the registry.
const REPO: &str = "image_repo";
/// The key of the reference.
const TAG: &str = "publication_tag";

/// A kind of registry, as `image_repo` says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegistryKind {
    /// Amazon's, ECR.
    Aws,
    /// Docker Hub.
    DockerHub,
    /// The registry of this host, perhaps with the beginning of all names there: `reg.example:5000/team`.
    Host(String),
}

/// What a section says of an image's publication.
#[derive(Clone, Debug)]
pub struct Destination<'a> {
    settings: Settings<'a>,
    /// The registry.
    pub repo: RegistryKind,
    /// The value of `publication_tag`.
    template: Option<String>,
    /// Sentences for the user.
    pub notes: Vec<String>,
}

/// What the variables of `publication_tag` stand for.
#[derive(Clone, Debug, Default)]
pub struct TagVariables<'a> {
    /// Who we are to AWS, where that is known.
    pub identity: Option<&'a Identity>,
    /// The user at Docker Hub, where that is known.
    pub hub_user: Option<&'a str>,
    /// The user of this machine.
    pub user: &'a str,
}

impl<'a> Destination<'a> {
    /// Reads a section.
    ///
    /// # Errors
    /// An `image_repo` that is no registry.
    pub fn read(settings: Settings<'a>) -> Result<Self> {
        let said = settings.text(REPO)?;
        let said = said.as_deref().unwrap_or_default().trim();
        let repo = repo(&settings, said)?;
        let mut notes = Vec::new();
        let template = settings
            .text(TAG)?
            .map(|text| match without_stray_quote(text.trim()) {
                Some(clean) => {
                    notes.push(format!(
                        "{}: the quotation mark at the end is left out",
                        settings.place(TAG)
                    ));
                    clean.to_owned()
                }
                None => text.trim().to_owned(),
            })
            .filter(|text| !text.is_empty());
        if repo == RegistryKind::DockerHub
            && !said.is_empty()
            && let Some(host) = template.as_deref().and_then(host)
            && !matches!(host, "docker.io" | "index.docker.io")
        {
            notes.push(format!(
                "{}: the image goes to {host}, though {REPO} is {said}",
                settings.place(TAG)
            ));
        }
        Ok(Self {
            settings,
            repo,
            template,
            notes,
        })
    }

    /// Whether the references can't be told without asking AWS who we are.
    pub fn needs_identity(&self) -> bool {
        self.repo == RegistryKind::Aws
            && self
                .template
                .as_ref()
                .is_none_or(|text| text.contains("{account}") || text.contains("{region}") || !text.contains(".dkr"))
    }

    /// Whether the references can't be told without the user's name at Docker Hub.
    pub fn needs_hub_user(&self) -> bool {
        self.repo == RegistryKind::DockerHub && self.template.is_none()
    }

    /// The references under which `source` is published: by `tags`, else by the one of the configuration.
    ///
    /// # Errors
    /// A `publication_tag` that can't be read or is no legal reference, or an illegal tag.
    pub fn references(
        &self,
        source: &Designation,
        tags: &[String],
        values: &TagVariables<'_>,
        env: &Env,
    ) -> Result<Vec<Designation>> {
        if let Some(tag) = tags.iter().find(|tag| !is_tag(tag)) {
            return Err(Error::usage(format!("{tag:?} can't be a tag")).hint(hint!("--publish-tag {}", legal_tag(tag))));
        }
        let one = match &self.template {
            Some(template) => self.expanded(template, source, values, env)?,
            None => Designation {
                name: self.default_name(&source.name, values)?,
                tag: source.tag.clone(),
            },
        };
        if self.repo == RegistryKind::Aws && EcrRegistry::parse(&registry(&one.name)).is_none() {
            return Err(self
                .settings
                .error(
                    TAG,
                    &format!("{one} is not at a registry of Amazon's, but {REPO} is aws"),
                )
                .hint(hint!(
                    "{} = {{account}}.dkr.ecr.{{region}}.amazonaws.com/{{image}}:{{tag}}",
                    TAG
                )));
        }
        if tags.is_empty() {
            return Ok(vec![one]);
        }
        let mut references: Vec<Designation> = Vec::new();
        for tag in tags {
            let reference = Designation {
                name: one.name.clone(),
                tag: tag.clone(),
            };
            if !references.contains(&reference) {
                references.push(reference);
            }
        }
        Ok(references)
    }

    /// What stands before the image's own name where nothing else is said.
    fn prefix(&self, values: &TagVariables<'_>) -> Result<Option<String>> {
        Ok(match &self.repo {
            RegistryKind::Aws => values.identity.map(|identity| {
                EcrRegistry {
                    account: identity.account.clone(),
                    region: identity.region.clone(),
                }
                .host()
            }),
            RegistryKind::Host(host) => Some(host.clone()),
            RegistryKind::DockerHub => None,
        })
    }

    fn default_name(&self, image: &str, values: &TagVariables<'_>) -> Result<String> {
        let prefix = match (self.prefix(values)?, values.hub_user) {
            (Some(prefix), _) => prefix,
            // Names at Docker Hub are in lower case, whatever was typed at the login.
            (None, Some(user)) => user.to_lowercase(),
            (None, None) => {
                return Err(Error::failed(
                    "nobody is logged in to Docker Hub, but the image needs the user's name there",
                )
                .hint(hint!(
                    "docker login, or say in {} where it goes: {} = NAME/{{image}}:{{tag}}",
                    CONFIG_FILE,
                    TAG
                )));
            }
        };
        let name = format!("{prefix}/{image}");
        if is_repository(&name) {
            return Ok(name);
        }
        Err(
            Error::usage(format!("{name} can't be the name of an image")).hint(hint!(
                "say in {} where it goes: {} = ...",
                CONFIG_FILE,
                TAG
            )),
        )
    }

    fn expanded(
        &self,
        template: &str,
        source: &Designation,
        values: &TagVariables<'_>,
        env: &Env,
    ) -> Result<Designation> {
        let wrong = |message: &str| self.settings.error(TAG, message);
        let mut braces = BTreeMap::from([
            ("image", source.name.clone()),
            ("tag", source.tag.clone()),
            ("user", values.user.to_owned()),
        ]);
        if let Some(identity) = values.identity {
            braces.insert("account", identity.account.clone());
            braces.insert("region", identity.region.clone());
        } else if let Some(name) = ["{account}", "{region}"]
            .into_iter()
            .find(|name| template.contains(name))
        {
            return Err(wrong(&format!("{name} is only known for AWS")).hint(hint!("{} = aws", REPO)));
        }
        let words = variables::parse(template, Some(&braces)).and_then(|words| {
            let unsplit: Vec<_> = words.into_iter().map(variables::Word::unsplit).collect();
            variables::expand(&unsplit, env)
        });
        let words = words.map_err(|cause| {
            let error = wrong(&cause.to_string());
            cause.hint().into_iter().fold(error, Error::hint)
        })?;
        let text = words.join(" ");
        let (name, tag) = match text.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, tag),
            // As docker has it.
            _ => (text.as_str(), "latest"),
        };
        let name = self.with_host(name, values)?;
        if !is_repository(&name) || !is_tag(tag) {
            return Err(wrong(&format!("{text:?} is not a legal reference")).hint(hint!(
                "a legal one would be {}:{}",
                legal_repository(&name),
                legal_tag(tag)
            )));
        }
        Ok(Designation {
            name,
            tag: tag.to_owned(),
        })
    }

    /// The name with the registry's host before it, where it has none of its own.
    fn with_host(&self, name: &str, values: &TagVariables<'_>) -> Result<String> {
        match (host(name), self.prefix(values)?) {
            (None, Some(prefix)) => Ok(format!("{prefix}/{name}")),
            (Some(own), Some(prefix)) if matches!(self.repo, RegistryKind::Host(_)) => {
                let host = prefix.split('/').next().unwrap_or_default();
                if own == host {
                    return Ok(name.to_owned());
                }
                Err(self
                    .settings
                    .error(TAG, &format!("it names the registry {own}, but {REPO} names {host}"))
                    .hint(hint!("leave {} out: {} is enough", REPO, TAG)))
            }
            _ => Ok(name.to_owned()),
        }
    }
}

/// The registry that a name begins with, where it does.
fn host(name: &str) -> Option<&str> {
    let (host, _) = name.split_once('/')?;
    (host.contains(['.', ':']) || host == "localhost").then_some(host)
}

fn repo(settings: &Settings<'_>, said: &str) -> Result<RegistryKind> {
    match said {
        "" | "docker_hub" | "docker" | "docker.io" | "index.docker.io" => return Ok(RegistryKind::DockerHub),
        "aws" => return Ok(RegistryKind::Aws),
        _ => {}
    }
    let place = said.strip_prefix("https://").unwrap_or(said).trim_end_matches('/');
    let host = place.split('/').next().unwrap_or_default();
    let is_host = host.contains(['.', ':']) || host == "localhost";
    if is_host && is_repository(&format!("{place}/x")) {
        return Ok(RegistryKind::Host(place.to_owned()));
    }
    Err(settings
        .error(
            REPO,
            &format!("{said:?} is neither aws, nor docker_hub, nor the host of a registry"),
        )
        .hint(hint!("{} = registry.example.com:5000", REPO)))
}

/// The text without the quotation mark at its end that nothing opened; `None` where there is no such mark.
fn without_stray_quote(text: &str) -> Option<&str> {
    ['"', '\'']
        .into_iter()
        .find(|quote| text.ends_with(*quote) && text.matches(*quote).count() % 2 == 1)
        .and_then(|quote| text.strip_suffix(quote))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::project::Project;

    /// A project whose image `dev` has this section.
    fn project(section: &str, env: &Env) -> (tempfile::TempDir, Project) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("docker/dev")).unwrap();
        std::fs::write(folder.path().join("docker/dev/Dockerfile"), "FROM scratch\n").unwrap();
        std::fs::write(
            folder.path().join("docker/dockerutils.cfg"),
            format!("[dev]\n{section}\n"),
        )
        .unwrap();
        let project = Project::find(folder.path(), env).unwrap();
        (folder, project)
    }

    /// What comes of a section, with these tags of the command line.
    fn references(section: &str, tags: &[&str]) -> Result<Vec<String>> {
        let env = Env::from_pairs([("HOME", "/h"), ("TEAM", "blue"), ("BLANK", "a b")]);
        let (_folder, project) = project(section, &env);
        let destination = Destination::read(project.settings("dev"))?;
        let identity = Identity {
            account: "123456789012".into(),
            region: "eu-west-1".into(),
        };
        let values = TagVariables {
            identity: destination.needs_identity().then_some(&identity),
            hub_user: destination.needs_hub_user().then_some("Ann"),
            user: "me",
        };
        let source = Designation {
            name: "app-dev".into(),
            tag: "t1".into(),
        };
        let tags: Vec<String> = tags.iter().map(|tag| (*tag).to_owned()).collect();
        let found = destination.references(&source, &tags, &values, &env)?;
        Ok(found.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn each_registry_has_a_reference_of_its_own() {
        const ECR: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";
        for (section, reference) in [
            ("", "ann/app-dev:t1".to_owned()),
            ("image_repo = docker_hub", "ann/app-dev:t1".to_owned()),
            ("image_repo = aws", format!("{ECR}/app-dev:t1")),
            (
                "image_repo = reg.example:5000",
                "reg.example:5000/app-dev:t1".to_owned(),
            ),
            (
                "image_repo = https://reg.example/team/",
                "reg.example/team/app-dev:t1".to_owned(),
            ),
            ("publication_tag = team/{image}:{tag}", "team/app-dev:t1".to_owned()),
            ("publication_tag = team/x", "team/x:latest".to_owned()),
            (
                "publication_tag = reg.example:5000/{user}/x:1",
                "reg.example:5000/me/x:1".to_owned(),
            ),
            (
                "publication_tag = reg.example:5000/x",
                "reg.example:5000/x:latest".to_owned(),
            ),
            (
                "publication_tag = \"$TEAM/x:${TEAM}-{tag}\"",
                "blue/x:blue-t1".to_owned(),
            ),
            (
                "image_repo = localhost\npublication_tag = a/{image}:1",
                "localhost/a/app-dev:1".to_owned(),
            ),
            (
                "image_repo = aws\npublication_tag = {account}.dkr.ecr.{region}.amazonaws.com/{image}:{tag}",
                format!("{ECR}/app-dev:t1"),
            ),
            (
                "image_repo = aws\npublication_tag = team/{image}:{tag}",
                format!("{ECR}/team/app-dev:t1"),
            ),
            (
                "image_repo = aws\npublication_tag = 210987654321.dkr.ecr.us-east-2.amazonaws.com/x:1",
                "210987654321.dkr.ecr.us-east-2.amazonaws.com/x:1".to_owned(),
            ),
        ] {
            assert_eq!(references(section, &[]).unwrap(), [reference], "{section}");
        }
    }

    #[test]
    fn tags_of_the_command_line_take_the_place_of_the_configured_one() {
        let section = "publication_tag = reg.example:5000/x:{tag}";
        assert_eq!(
            references(section, &["1.0", "latest", "1.0"]).unwrap(),
            ["reg.example:5000/x:1.0", "reg.example:5000/x:latest"]
        );
        let error = references(section, &["a b"]).unwrap_err();
        assert_eq!(error.hint_text(), Some("--publish-tag a-b"));
    }

    #[test]
    fn the_stray_quote_of_the_originals_example_is_left_out_and_said() {
        let section = "image_repo=aws\npublication_tag={account}.dkr.ecr.{region}.amazonaws.com/{image}:{tag}\"";
        assert_eq!(
            references(section, &[]).unwrap(),
            ["123456789012.dkr.ecr.eu-west-1.amazonaws.com/app-dev:t1"]
        );
        assert_eq!(without_stray_quote("\"a\""), None);
        assert_eq!(without_stray_quote("a'"), Some("a"));
        assert_eq!(without_stray_quote("a"), None);
    }

    #[test]
    fn a_registry_that_image_repo_does_not_say_is_said() {
        let env = Env::from_pairs([("HOME", "/h")]);
        for (section, note) in [
            (
                "image_repo = docker_hub\npublication_tag = reg.example/x",
                Some("the image goes to reg.example, though image_repo is docker_hub"),
            ),
            ("image_repo = docker_hub\npublication_tag = docker.io/me/x", None),
            ("image_repo = docker_hub\npublication_tag = me/x", None),
            ("publication_tag = reg.example/x", None),
        ] {
            let (_folder, project) = project(section, &env);
            let notes = Destination::read(project.settings("dev")).unwrap().notes;
            assert_eq!(notes.len(), note.iter().count(), "{section}: {notes:?}");
            assert!(
                notes.iter().zip(note).all(|(said, note)| said.ends_with(note)),
                "{notes:?}"
            );
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        for (section, part) in [
            (
                "publication_tag = x:$NOWHERE",
                "dockerutils.cfg:2: [dev] publication_tag: $NOWHERE is not set",
            ),
            (
                "publication_tag = {imgae}:1",
                "{imgae} is not one of {image}, {tag}, {user}",
            ),
            ("publication_tag = {account}/x:1", "{account} is only known for AWS"),
            ("publication_tag = Team/X:1", "\"Team/X:1\" is not a legal reference"),
            ("publication_tag = a b", "\"a b\" is not a legal reference"),
            ("publication_tag = x:$BLANK", "\"x:a b\" is not a legal reference"),
            ("publication_tag = x@sha256:12", "is not a legal reference"),
            (
                "publication_tag = -docker.io/x",
                "\"-docker.io/x\" is not a legal reference",
            ),
            ("publication_tag = docker-.io/x", "is not a legal reference"),
            ("publication_tag = [x]:5000/x", "is not a legal reference"),
            ("image_repo = -docker.io", "neither aws"),
            ("image_repo = ecr", "\"ecr\" is neither aws, nor docker_hub"),
            ("image_repo = x_y.example", "neither aws"),
            (
                "image_repo = a.example\npublication_tag = b.example/x:1",
                "it names the registry b.example, but image_repo names a.example",
            ),
            (
                "image_repo = aws\npublication_tag = b.example/x:{account}",
                "not at a registry of Amazon's",
            ),
        ] {
            let error = references(section, &[]).unwrap_err();
            assert!(error.to_string().contains(part), "{section}: {error}");
            assert_eq!(error.class(), crate::error::Class::Usage, "{section}");
        }
    }
}
