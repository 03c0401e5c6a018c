//! Descriptions of images: what one is made of, what commands in it say, which packages it has, and in what they differ from those
//! of the image before and of the stable one.
//!
//! - `questions` asks a container of the image;
//! - [`packages`] reads lists of packages, and compares them;
//! - [`page`] and [`markdown`] write what is found as a page;
//! - [`travelling`] attaches the list of packages to the image in its registry, so that others can compare, too.

pub mod markdown;
pub mod packages;
pub mod page;
mod questions;
pub mod travelling;

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::time::Instant;

use dockerutils_core::cli::Context;
use dockerutils_core::docker::connect::engine::Engine;
use dockerutils_core::docker::containers::standby::Standby;
use dockerutils_core::docker::containers::{LABEL_PROJECT, LABEL_USER};
use dockerutils_core::docker::images::image_history::{self, ImageHistory};
use dockerutils_core::error::{Class, Error, Result};
use dockerutils_core::hint;
use dockerutils_core::output::one_line;
use dockerutils_core::output::progress::steps::{Ended, Steps};
use dockerutils_core::project_file;
use registry_client::Digest;
use serde::{Deserialize, Serialize};

use crate::artifacts::{self, Artifacts};
use crate::registry_state::Registries;
use crate::spec::{Spec, TagCommand};
use crate::tags::{STABLE, StackTarget, stable_tag};
use packages::{PackageDiff, PackageLists};
pub use questions::InfoOutput;

/// The page that lists the others.
const INDEX: &str = "index.md";
/// The most pages that it lists.
const PAGES: usize = 500;
/// What a page calls the image that the tag led to before.
const BEFORE: &str = "the image before";
/// The tag that docker takes where none is named.
const LATEST: &str = "latest";
/// What the tags begin with under which registries without a list keep what is attached to an image.
const REFERRERS: &str = "sha256-";
/// What the labels of our containers call a stack.
const PROJECT: &str = "stack";

/// An image, described. As JSON it lies beside its page.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Description {
    /// As in the plan.
    pub label: String,
    /// `repository:tag`.
    pub reference: String,
    /// The digest of its manifest in the registry.
    pub digest: Option<String>,
    /// What it starts from, and other images that it was made from.
    pub base: Vec<String>,
    /// What the engine says about it.
    pub image: ImageHistory,
    /// The tags that commands in it printed.
    pub tags: Vec<String>,
    /// What the commands of the spec said.
    pub outputs: Vec<InfoOutput>,
    pub packages: PackageLists,
    /// In what the packages differ from those of other images.
    pub differences: Vec<Difference>,
    /// What could not be found out, and why.
    pub notes: Vec<String>,
}

/// In what packages differ from those of another image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// The other one, in words: `the image before`, `2026.10-stable`.
    pub from: String,
    pub packages: PackageDiff,
}

/// The packages of another image, to compare with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Earlier {
    /// The other image, in words.
    pub name: String,
    pub packages: PackageLists,
}

/// What is to be described.
#[derive(Clone, Copy, Debug)]
pub struct DescribeRequest<'r> {
    pub spec: &'r Spec,
    pub target: &'r StackTarget,
    /// What it starts from in the stack.
    pub parent: Option<&'r StackTarget>,
    /// Its name on the engine: `repository:tag`, or an ID.
    pub reference: &'r str,
    /// The digest of its manifest in the registry, once it is there.
    pub digest: Option<&'r str>,
    /// With what its packages are compared.
    pub earlier: &'r [Earlier],
}

/// An image that is described and whose description is kept: what [`keep`] needs to know.
#[derive(Clone, Copy, Debug)]
pub struct KeptImage<'k> {
    pub spec: &'k Spec,
    pub target: &'k StackTarget,
    /// What it starts from in the stack.
    pub parent: Option<&'k StackTarget>,
    /// Its name on the engine: `repository:tag`, or an ID.
    pub reference: &'k str,
    /// The digest of its manifest in the registry; `None` if it was not pushed.
    pub digest: Option<&'k str>,
    /// The digest of the manifest that the tag led to before.
    pub before: Option<&'k str>,
    /// Where the registries are; `None` if none is to be asked.
    pub registries: Option<&'k Registries>,
    pub artifacts: &'k Artifacts,
}

impl Description {
    /// As a page in Markdown.
    pub fn markdown(&self) -> String {
        page::page(self)
    }

    /// As a document for programs, the same as [`Serialize`] writes.
    ///
    /// # Errors
    /// Never, for what was made by [`describe`].
    pub fn json(&self) -> Result<String> {
        let text = serde_json::to_string_pretty(self);
        text.map(|text| text + "\n")
            .map_err(|cause| Error::failed(format!("the description of {} has no JSON", self.reference)).because(cause))
    }
}

/// Describes an image that the engine has.
///
/// # Errors
/// The engine does not have it, or can't be reached; one of its `tags` commands fails or prints no tag. All else that can't be found
/// out is a note.
pub async fn describe(context: &Context, engine: &Engine, request: &DescribeRequest<'_>) -> Result<Description> {
    let target = request.target;
    let label = target.label(request.spec);
    let Some(image) = image_history::of_image(engine, request.reference).await? else {
        return Err(
            Error::failed(format!("there is no {} on the engine", request.reference))
                .hint(hint!("docker pull {}", request.reference)),
        );
    };
    let parent = request.parent.map(|parent| parent.designation.to_string());
    let mut made = Description {
        reference: target.designation.to_string(),
        digest: request.digest.map(str::to_owned),
        base: parent.into_iter().chain(target.bases.iter().cloned()).collect(),
        image,
        label,
        ..Description::default()
    };
    let mut steps = Steps::new(&context.printer, false).of("Describing");
    let title = format!("describing {}", made.label);
    steps.running(&made.reference, &title);
    let began = Instant::now();
    let asked = ask(context, engine, request, &mut made).await;
    let ended = match &asked {
        Ok(()) => Ended::Done(began.elapsed().as_secs_f64()),
        Err(_) => Ended::Failed,
    };
    steps.ended(&made.reference, &title, ended);
    asked?;
    made.differences = request
        .earlier
        .iter()
        .map(|earlier| Difference {
            from: earlier.name.clone(),
            packages: made.packages.since(&earlier.packages),
        })
        .collect();
    Ok(made)
}

/// Asks a container of the image.
async fn ask(context: &Context, engine: &Engine, request: &DescribeRequest<'_>, made: &mut Description) -> Result<()> {
    let section = request.spec.image(&request.target.name);
    let commands: &[TagCommand] = section.map_or(&[], |section| &section.tags);
    let labels = HashMap::from([
        (LABEL_PROJECT.to_owned(), PROJECT.to_owned()),
        (LABEL_USER.to_owned(), context.env.user()),
    ]);
    let silent = match Standby::start(engine, request.reference, labels).await {
        Ok(Some(container)) => {
            made.tags = questions::tags(&container, &made.label, commands).await?;
            made.packages = questions::packages(&container).await?;
            for name in section.map_or(&[][..], |section| &section.info_cmds) {
                if let Some(command) = request.spec.info_cmds.get(name) {
                    made.outputs.push(questions::info(&container, name, command).await?);
                }
            }
            return check_tags(request.spec, request.target, commands, &made.tags);
        }
        Ok(None) => "it has no /bin/sh".to_owned(),
        Err(error) if error.class() == Class::Failed || matches!(error.class(), Class::Code(_)) => {
            one_line(&error.with_causes())
        }
        Err(error) => return Err(error),
    };
    if !commands.is_empty() {
        return Err(Error::failed(format!(
            "{}: the commands below tags can't be run in it: {silent}",
            made.label
        ))
        .hint("an image whose tags are printed by commands needs /bin/sh"));
    }
    made.notes.push(format!("No command can be run in it: {silent}"));
    Ok(())
}

/// Refuses printed tags that are others': an image, and whoever made what it starts from, decides what its commands print.
fn check_tags(spec: &Spec, target: &StackTarget, commands: &[TagCommand], tags: &[String]) -> Result<()> {
    for (command, tag) in commands.iter().zip(tags) {
        if let Some(whose) = others_tag(spec, target, &command.name, tag) {
            return Err(Error::failed(format!(
                "{}: a command below tags prints {tag}, which is {whose}",
                target.label(spec)
            ))
            .hint("let the command print another one, such as python-3.13"));
        }
    }
    Ok(())
}

/// Whose tag this is or could be, if not that of a command of this name.
fn others_tag(spec: &Spec, target: &StackTarget, name: &str, tag: &str) -> Option<&'static str> {
    let is_of_prefix = |prefix: &str| {
        tag.strip_prefix(prefix)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '.', '_']))
    };
    let mut prefixes = spec.all_plans().filter_map(|plan| plan.prefix.as_deref());
    let own = [&target.designation.tag].into_iter().chain(&target.commit_tag);
    let mut known = own.chain(&target.fallbacks);
    let is_known = known.any(|known| known == tag) || spec.all_plans().any(|plan| stable_tag(plan) == tag);
    if is_known || tag == STABLE || tag == LATEST || prefixes.any(is_of_prefix) {
        return Some("a tag of a branch, of a commit or of what proved good");
    }
    if tag.starts_with(REFERRERS) {
        return Some("a tag of what is attached to an image");
    }
    // Any branch could be called so.
    let has_bare_plan = spec.all_plans().any(|plan| plan.prefix.is_none());
    let is_named = tag.strip_prefix(name).is_some_and(|rest| rest.starts_with('-'));
    (has_bare_plan && !is_named).then_some(
        "the tag of a branch, if one is called so: without a prefix it must begin with the name below tags and -",
    )
}

/// Describes an image, compares it with the one before and the stable one, writes its page and its JSON, and attaches its packages to
/// it in the registry. What goes wrong with the comparison is a note.
///
/// # Errors
/// Those of [`describe`]; a page that can't be written.
pub async fn keep(context: &Context, engine: &Engine, kept: &KeptImage<'_>) -> Result<Description> {
    let target = kept.target;
    let reference = target.designation.to_string();
    let file = kept.artifacts.page_json(&reference);
    let old = read(&file);
    // Described again, an image still differs from the one before it, and not from itself.
    let is_again = kept.digest.is_some() && old.as_ref().is_some_and(|old| old.digest.as_deref() == kept.digest);
    let mut notes = Vec::new();
    let mut earlier = Vec::new();
    let mut before = None;
    if let Some(registries) = kept.registries {
        let (last, stable) = tokio::join!(
            travelling::of_digest(
                registries,
                &target.designation.name,
                kept.before.filter(|before| kept.digest != Some(before)),
            ),
            travelling::of_stable(registries, kept.spec, target, kept.digest),
        );
        match last {
            Ok(found) => before = found,
            Err(error) => notes.push(format!(
                "The image before can't be compared: {}",
                one_line(&error.with_causes())
            )),
        }
        match stable {
            Ok(found) => earlier.extend(found),
            Err(error) => notes.push(format!(
                "The stable image can't be compared: {}",
                one_line(&error.with_causes())
            )),
        }
    }
    let of_old = old.as_ref().filter(|_| !is_again).map(|old| old.packages.clone());
    let before = before.or(of_old);
    let is_compared = before.is_some();
    earlier.splice(
        0..0,
        before.map(|packages| Earlier {
            name: BEFORE.to_owned(),
            packages,
        }),
    );
    let request = DescribeRequest {
        spec: kept.spec,
        target,
        parent: kept.parent,
        reference: kept.reference,
        digest: kept.digest,
        earlier: &earlier,
    };
    let mut description = describe(context, engine, &request).await?;
    if let Some(old) = old.filter(|_| is_again && !is_compared) {
        let same = old
            .differences
            .into_iter()
            .filter(|difference| difference.from == BEFORE);
        description.differences.splice(0..0, same);
    }
    if let (Some(registries), Some(digest)) = (kept.registries, kept.digest)
        && let Err(error) =
            travelling::attach(registries, &target.designation.name, digest, &description.packages).await
    {
        notes.push(format!(
            "Its packages are not attached: {}",
            one_line(&error.with_causes())
        ));
    }
    notes
        .iter()
        .for_each(|note| context.printer.warning(&format!("{}: {note}", description.label)));
    description.notes.extend(notes);
    artifacts::write(&kept.artifacts.page(&reference), description.markdown())?;
    artifacts::write(&file, &description.json()?)?;
    Ok(description)
}

/// Writes the page that lists the pages of the folder, those of earlier runs, too.
///
/// # Errors
/// A page that can't be written.
pub fn write_index(artifacts: &Artifacts) -> Result<()> {
    let mut pages = Vec::new();
    let entries = fs::read_dir(artifacts.manifests());
    for entry in entries.into_iter().flatten().flatten() {
        let path = entry.path();
        let is_json = path.extension().is_some_and(|ending| ending == "json");
        let (Some(description), true) = (is_json.then(|| read(&path)).flatten(), pages.len() < PAGES) else {
            continue;
        };
        // Whatever is in the file, its page is called as its reference.
        let page = path.with_extension("md");
        if artifacts.is_page_json(&path, &description.reference) && page.is_file() {
            let name = page.file_name().map(|name| name.to_string_lossy().into_owned());
            pages.push((name.unwrap_or_default(), description));
        }
    }
    pages.sort_by(|(one, _), (other, _)| one.cmp(other));
    artifacts::write(&artifacts.manifests().join(INDEX), page::index(&pages))
}

/// A description that was written before; `None` if it is not there, or is something else.
fn read(file: &Path) -> Option<Description> {
    serde_json::from_slice(&project_file::read(file).ok()?).ok()
}

/// A digest out of a plan or an answer.
fn parsed(digest: &str) -> Result<Digest> {
    Digest::parse(digest).map_err(|cause| Error::failed(format!("{} is no digest", one_line(digest))).because(cause))
}

#[cfg(test)]
mod tests;
