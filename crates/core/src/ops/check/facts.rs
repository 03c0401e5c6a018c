//! What the project knows about an image that is checked: its Dockerfile, options, names, and build context.

use std::path::PathBuf;

use build_context::weight::Weights;
use build_context::{ContextDir, FileKind, Patterns, WalkOptions};

use super::secrets::{is_secret_file, is_whole_context};
use super::subject::{ContextFacts, Facts};
use crate::config::project::Project;
use crate::docker::build::build_needs::is_folder;
use crate::docker::build::dockerfile::Dockerfile;
use crate::docker::build::dockerfile::source::DockerfileSource;
use crate::docker::build::request::{BuildRequest, link_target};
use crate::docker::options::build_options::BuildOptions;
use crate::env::Env;
use crate::error::Result;
use crate::ops::build::{BuildArgs, beside, made_images, other_tags, read_dockerfile};

/// Entries of a context that are looked at: more would take longer than a check may.
const ENTRIES: usize = 10_000;
/// Files that look like secrets and are named.
const SECRETS: usize = 10;

/// An image type, ready to be checked.
#[derive(Debug)]
pub(super) struct CheckedImage {
    pub(super) image: String,
    /// Its Dockerfile, relative to the root.
    pub(super) file: PathBuf,
    pub(super) text: String,
    pub(super) request: BuildRequest,
    /// The value of the key `check_skip`.
    pub(super) skip: String,
    pub(super) facts: Facts,
    /// Sentences about what had to be left out.
    pub(super) complaints: Vec<String>,
}

/// Reads what is to be checked. The build context is looked at by [`of_context`].
///
/// # Errors
/// No such Dockerfile, one that belongs to another user, a wrong configuration.
pub(super) fn checked_image(project: &Project, image: &str, args: &BuildArgs, env: &Env) -> Result<CheckedImage> {
    let settings = project.settings(image);
    let (file, folder) = (project.dockerfile(image)?, project.context(image)?);
    project.check_owners(&[
        project.image_dir(image)?,
        file.clone(),
        beside(&file),
        folder.clone(),
        folder.join(".dockerignore"),
    ])?;
    let words = settings.words("build_args")?.unwrap_or_default();
    let mut complaints = Vec::new();
    // A variable or secret of the build may not be there where it is only checked.
    let mut options = BuildOptions::parse(&words, project.root(), env).unwrap_or_else(|cause| {
        complaints.push(format!(
            "{}: {cause}: checked without build_args",
            settings.place("build_args")
        ));
        BuildOptions::default()
    });
    for (_, place) in options.contexts.iter_mut().filter(|(_, place)| is_folder(place)) {
        *place = project.at(std::path::Path::new(place)).display().to_string();
    }
    let file = match &options.file {
        Some(named) => {
            project.check_owners(&[named.clone(), beside(named)])?;
            named.strip_prefix(project.root()).unwrap_or(named).to_owned()
        }
        None => file,
    };
    link_target(&project.at(&file), project.root())?;
    let text = read_dockerfile(&project.at(&file))?;
    let made = made_images(project)?;
    let dockerfile = Dockerfile::parse(&text, &options);
    let request = BuildRequest {
        context: project.at(&folder),
        dockerfile: project.at(&file),
        tags: Vec::new(),
        options,
    };
    let patterns = request.ignored(&request.context)?;
    let facts = Facts {
        other_tags: other_tags(&made, &dockerfile, args.image_tag.as_deref()),
        is_published: settings.text("image_repo")?.is_some(),
        ignored: (!patterns.is_empty())
            .then(|| Patterns::parse(&patterns).ok())
            .flatten(),
        context: ContextFacts::default(),
        with_user: made
            .iter()
            .filter(|(other, _)| other != image && has_user(project, other))
            .map(|(_, name)| name.clone())
            .collect(),
        made: made.iter().map(|(_, name)| name.clone()).collect(),
    };
    Ok(CheckedImage {
        image: image.to_owned(),
        file,
        text,
        request,
        skip: settings.text("check_skip")?.unwrap_or_default(),
        facts,
        complaints,
    })
}

/// Whether an image type of the project runs as another user than root.
fn has_user(project: &Project, image: &str) -> bool {
    let Ok(file) = project.dockerfile(image) else {
        return false;
    };
    let text = read_dockerfile(&project.at(&file)).unwrap_or_default();
    let source = DockerfileSource::read(&text);
    let user = source.instructions.iter().rev().find(|step| step.keyword == "user");
    user.is_some_and(|step| !matches!(step.arguments().split(':').next(), Some("root" | "0")))
}

fn copies_all(text: &str) -> bool {
    let source = DockerfileSource::read(text);
    source.instructions.iter().any(|step| {
        let is_copy = step.is_copy() && step.flag("from").is_none();
        let words: Vec<&str> = match &step.json {
            Some(words) => words.iter().map(String::as_str).collect(),
            None => step.words().into_iter().map(|(_, word)| word).collect(),
        };
        is_copy && words.iter().rev().skip(1).any(|word| is_whole_context(word))
    })
}

/// What is in the context, if all of it is copied. What can't be read is left out: the build will say so.
pub(super) fn of_context(image: &CheckedImage) -> ContextFacts {
    let mut found = ContextFacts::default();
    if !copies_all(&image.text) {
        return found;
    }
    found.has_git = at_a_glance(image).has_git;
    let options = WalkOptions {
        exclude: image.request.ignored(&image.request.context).unwrap_or_default(),
        // The history is one matter, and what is in it another.
        withhold: vec![b".git".to_vec()],
        ..WalkOptions::default()
    };
    let Ok(walk) = ContextDir::open(&image.request.context).and_then(|folder| folder.walk(&options)) else {
        return found;
    };
    let mut weights = Weights::default();
    for entry in walk.take(ENTRIES).map_while(std::result::Result::ok) {
        weights.add(&entry);
        if let (FileKind::File, Ok(path)) = (&entry.kind, std::str::from_utf8(&entry.path))
            && is_secret_file(path)
            && found.secrets.len() < SECRETS
        {
            found.secrets.push(path.to_owned());
        }
    }
    found.size = weights.total();
    found.heaviest = weights.finish();
    found
}

/// The same at a glance, before a build: the root's entries alone.
pub(super) fn at_a_glance(image: &CheckedImage) -> ContextFacts {
    let mut found = ContextFacts::default();
    if !copies_all(&image.text) {
        return found;
    }
    let is_sent = |name: &str| {
        let ignored = image.facts.ignored.as_ref();
        !ignored.is_some_and(|patterns| patterns.matches(name.as_bytes()).unwrap_or(false))
    };
    let entries = std::fs::read_dir(&image.request.context)
        .into_iter()
        .flatten()
        .flatten();
    for entry in entries.take(ENTRIES) {
        let name = entry.file_name();
        let (Some(name), Ok(kind)) = (name.to_str(), entry.file_type()) else {
            continue;
        };
        if name == ".git" && kind.is_dir() && is_sent(name) {
            found.has_git = true;
        } else if kind.is_file() && is_secret_file(name) && is_sent(name) {
            found.secrets.push(name.to_owned());
        }
    }
    found.secrets.sort();
    found.secrets.truncate(SECRETS);
    found
}
