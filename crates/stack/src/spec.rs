//! `spec.yml`: the images of a stack, and what is said about each.
//!
//! Two forms are read, as UCSD's DataHub stack has them, with our own keys beside theirs:
//!
//! - the newer one: `root`, `images`, `tag` and `all_info_cmds`;
//! - the older one: `images`, `plans` (or `tags`) and `manifests`, and in an image `dbuild_env`, `skip_plans` and
//!   `manifests`.
//!
//! Scalars are taken as they are written: a prefix `2023.10` needs no quotation marks. `docs/spec.schema.json` describes
//! the file for editors.

mod change_ignore;
mod yaml;

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

pub use dockerutils_core::config::stack::FILE;
use dockerutils_core::config::stack::{LONGEST, MOST_BRACKETS, is_bounded};
use dockerutils_core::error::{Error, Result};
use dockerutils_core::hint;
use dockerutils_core::naming::is_repository;
use dockerutils_core::project_file;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};

pub use change_ignore::{ChangeIgnore, FILE as IGNORE_FILE};
use yaml::{Fault, Node, NodePath};

/// A stack, as its `spec.yml` describes it, in whichever form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// The images that start from none of the stack, where the file names them.
    pub roots: Vec<String>,
    /// The images, by the names of their directories, in the order of the file.
    pub images: Vec<(String, ImageSpec)>,
    /// The tracks of the images; at least one.
    pub plans: Vec<PlanSpec>,
    /// Those that were not chosen: their tags are theirs all the same.
    pub other_plans: Vec<PlanSpec>,
    /// A tag with the commit is made beside the branch's.
    pub tag_sha: bool,
    /// The commands that tell about an image, by name.
    pub info_cmds: BTreeMap<String, InfoCommand>,
    /// Suites of pytest may run side by side on one engine.
    pub parallel: bool,
    source: SpecSource,
}

/// One image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ImageSpec {
    /// The repository: `ghcr.io/team/base`. Without it, the name of its directory.
    pub image_name: Option<String>,
    /// The image of the stack that it starts from.
    pub depend_on: Option<String>,
    /// Arguments of its build, in all plans.
    pub build_args: BTreeMap<String, String>,
    /// The commands whose output its manifest shows, by name.
    pub info_cmds: Vec<String>,
    /// It has integration tests.
    pub integration_tests: bool,
    /// It is removed from the engine when it is done.
    pub prune: bool,
    /// `false`: a build takes no cache from the registry.
    pub prepull: Option<bool>,
    /// Arguments of its build: in `common`, and in the plan of the same name.
    dbuild_env: BTreeMap<String, BTreeMap<String, String>>,
    /// The plans in which it is not built.
    pub skip_plans: Vec<String>,
    /// The older name of `info_cmds`.
    manifests: Vec<String>,
    /// Its Dockerfile, in its directory.
    pub dockerfile: Option<String>,
    /// The platforms that it is built for; without any, that of the engine.
    #[serde(deserialize_with = "several")]
    pub platforms: Vec<String>,
    /// Tags that a command in the image prints.
    pub tags: Vec<TagCommand>,
}

/// A tag that is what a command in the image prints.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TagCommand {
    pub name: String,
    pub command: String,
}

/// A command that tells about an image.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InfoCommand {
    #[serde(default)]
    pub description: String,
    pub command: String,
}

/// A track of the images: the same images, under tags of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanSpec {
    /// As the older form names it; in the newer form it is the prefix itself.
    pub name: String,
    /// What its tags begin with.
    pub prefix: Option<String>,
    /// What follows the prefix in the tag of the images that proved good.
    pub stable: String,
}

/// The file that a spec was read from: for the places in messages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct SpecSource {
    path: PathBuf,
    text: String,
}

/// All keys of both forms.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct SpecFile {
    #[serde(deserialize_with = "several")]
    root: Vec<String>,
    images: Ordered<ImageSpec>,
    tag: TagSection,
    all_info_cmds: BTreeMap<String, InfoCommand>,
    plans: Ordered<PlanSection>,
    /// Another name of `plans`.
    tags: Ordered<PlanSection>,
    manifests: BTreeMap<String, InfoCommand>,
    parallel: bool,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct TagSection {
    #[serde(deserialize_with = "several")]
    prefix: Vec<String>,
    sha: bool,
}

#[derive(Clone, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct PlanSection {
    tag_prefix: Option<String>,
    tag_stable_postfix: Option<String>,
}

/// What the tag of images that proved good ends with, where nothing else is said.
const STABLE: &str = "-stable";
/// The key of `dbuild_env` that counts in all plans.
const COMMON: &str = "common";

/// A mapping in the order of the file.
#[derive(Clone, Debug)]
struct Ordered<T>(Vec<(String, T)>);

impl<T> Default for Ordered<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Ordered<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for InOrder<T> {
            type Value = Ordered<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("names with values")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Ordered<T>, A::Error> {
                let mut all = Vec::new();
                while let Some(entry) = entries.next_entry()? {
                    all.push(entry);
                }
                Ok(Ordered(all))
            }
        }
        deserializer.deserialize_map(InOrder(PhantomData))
    }
}

/// One text, or a list of them.
fn several<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    struct OneOrMore;
    impl<'de> Visitor<'de> for OneOrMore {
        type Value = Vec<String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a text, or a list of texts")
        }

        fn visit_unit<E>(self) -> Result<Vec<String>, E> {
            Ok(Vec::new())
        }

        fn visit_str<E>(self, text: &str) -> Result<Vec<String>, E> {
            Ok(vec![text.to_owned()])
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<String>, A::Error> {
            let mut all = Vec::new();
            while let Some(item) = items.next_element()? {
                all.push(item);
            }
            Ok(all)
        }
    }
    deserializer.deserialize_any(OneOrMore)
}

impl Spec {
    /// Reads the `spec.yml` in the directory of the images.
    ///
    /// # Errors
    /// No such file, or what [`Spec::parse`] refuses.
    pub fn read(directory: &Path) -> Result<Self> {
        let path = directory.join(FILE);
        let bytes = project_file::read(&path).map_err(|cause| {
            Error::usage(format!("{} can't be read", path.display()))
                .because(cause)
                .hint("name the directory that has it: --dir images")
        })?;
        let text = String::from_utf8(bytes).map_err(|_| Error::usage(format!("{} is not UTF-8", path.display())))?;
        Self::parse(&text, &path)
    }

    /// Reads the text of a `spec.yml`; the path is for messages.
    ///
    /// # Errors
    /// Text that is no YAML, unknown keys, values of another kind, both forms at once, and names that lead nowhere. The
    /// message has file, line and column.
    pub fn parse(text: &str, path: &Path) -> Result<Self> {
        let source = SpecSource {
            path: path.to_owned(),
            text: text.to_owned(),
        };
        if !is_bounded(text) {
            return Err(Error::usage(format!(
                "{} has more than {} KiB, or more than {MOST_BRACKETS} opening brackets",
                path.display(),
                LONGEST >> 10
            )));
        }
        let node = Node::read(text).map_err(|error| source.not_yaml(&error))?;
        let file = SpecFile::deserialize(&node).map_err(|fault| source.error(&fault))?;
        Self::made(file, source)
    }

    fn made(file: SpecFile, source: SpecSource) -> Result<Self> {
        let SpecFile {
            root,
            images,
            tag,
            all_info_cmds,
            plans,
            tags,
            manifests,
            parallel,
        } = file;
        let both = |first: &[&str], second: &[&str]| {
            source.fault(
                second,
                true,
                format!("{} and {} say the same twice", first.join("."), second.join(".")),
            )
        };
        if !plans.0.is_empty() && !tags.0.is_empty() {
            return Err(both(&["plans"], &["tags"]).hint("keep one of them"));
        }
        let (tracks, their_key) = match plans.0.is_empty() {
            true => (tags.0, "tags"),
            false => (plans.0, "plans"),
        };
        if !tracks.is_empty() && !tag.prefix.is_empty() {
            return Err(both(&[their_key], &["tag", "prefix"]).hint("keep one of them"));
        }
        if !all_info_cmds.is_empty() && !manifests.is_empty() {
            return Err(both(&["all_info_cmds"], &["manifests"]).hint("keep one of them"));
        }
        let mut plans: Vec<PlanSpec> = match tracks.is_empty() {
            true => tag.prefix.iter().map(|prefix| PlanSpec::of_prefix(prefix)).collect(),
            false => tracks
                .iter()
                .map(|(name, section)| PlanSpec::of_section(name, section))
                .collect(),
        };
        if plans.is_empty() {
            plans.push(PlanSpec {
                name: "default".to_owned(),
                prefix: None,
                stable: STABLE.to_owned(),
            });
        }
        let mut made = Self {
            roots: root,
            images: images.0,
            plans,
            other_plans: Vec::new(),
            tag_sha: tag.sha,
            info_cmds: if all_info_cmds.is_empty() {
                manifests
            } else {
                all_info_cmds
            },
            parallel,
            source,
        };
        if made.images.is_empty() {
            return Err(made
                .fault(&["images"], false, "images names no image")
                .hint("images: {base: {image_name: team/base}}, with a directory base/ beside spec.yml"));
        }
        let is_older = tracks_are_older(&made.images);
        for index in 0..made.images.len() {
            made.check_image(index)?;
        }
        if let (Some((name, key)), true) = (is_older, tracks.is_empty()) {
            return Err(made
                .fault(
                    &["images", &name, key],
                    true,
                    format!("{key} is for plans, and there are none"),
                )
                .hint("plans: {PYTHON39: {tag_prefix: 2021.3}}"));
        }
        for (_, image) in &mut made.images {
            if image.info_cmds.is_empty() {
                image.info_cmds = std::mem::take(&mut image.manifests);
            }
        }
        Ok(made)
    }

    /// Refuses names in an image's section that lead nowhere.
    fn check_image(&self, index: usize) -> Result<()> {
        let Some((name, image)) = self.images.get(index) else {
            return Ok(());
        };
        let is_directory = !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\0']);
        if !is_directory {
            return Err(self.fault(
                &["images", name],
                true,
                format!("{name:?} is not the name of a directory beside {FILE}"),
            ));
        }
        if !image.info_cmds.is_empty() && !image.manifests.is_empty() {
            return Err(self.fault(
                &["images", name, "manifests"],
                true,
                "info_cmds and manifests say the same twice",
            ));
        }
        for (key, names) in [("info_cmds", &image.info_cmds), ("manifests", &image.manifests)] {
            for (index, command) in names.iter().enumerate() {
                let known = self.info_cmds.keys().map(String::as_str);
                self.check_name(&["images", name, key, &index.to_string()], command, known, "command")?;
            }
        }
        let plans = || self.plans.iter().map(|plan| plan.name.as_str());
        for (index, plan) in image.skip_plans.iter().enumerate() {
            self.check_name(
                &["images", name, "skip_plans", &index.to_string()],
                plan,
                plans(),
                "plan",
            )?;
        }
        for plan in image.dbuild_env.keys() {
            let known = plans().chain([COMMON]);
            if known.clone().all(|known| known != plan) {
                return Err(self.unknown(&["images", name, "dbuild_env", plan], true, plan, known, "plan"));
            }
        }
        Ok(())
    }

    fn check_name<'n>(
        &self,
        path: &[&str],
        name: &str,
        known: impl Iterator<Item = &'n str> + Clone,
        what: &str,
    ) -> Result<()> {
        match known.clone().any(|known| known == name) {
            true => Ok(()),
            false => Err(self.unknown(path, false, name, known, what)),
        }
    }

    /// The error for a name that is not known.
    pub(crate) fn unknown<'n>(
        &self,
        path: &[&str],
        is_key: bool,
        name: &str,
        known: impl Iterator<Item = &'n str> + Clone,
        what: &str,
    ) -> Error {
        let error = self.fault(path, is_key, format!("there is no {what} {name:?}"));
        match dockerutils_core::naming::nearest(name, known.clone()) {
            Some(near) => error.hint(hint!("did you mean {}?", near)),
            None => {
                let all: Vec<&str> = known.collect();
                match all.is_empty() {
                    true => error,
                    false => error.hint(hint!("there is {names}"; names = all.join(", "))),
                }
            }
        }
    }

    /// An error at a place of the file.
    pub(crate) fn fault(&self, path: &[&str], is_key: bool, message: impl Into<String>) -> Error {
        self.source.fault(path, is_key, message)
    }

    /// Leaves out all plans but this one.
    ///
    /// # Errors
    /// There is no such plan.
    pub fn keep_plan(&mut self, name: &str) -> Result<()> {
        let known = self.plans.iter().map(|plan| plan.name.as_str());
        if known.clone().all(|known| known != name) {
            return Err(self.unknown(&["plans"], true, name, known, "plan"));
        }
        let others = self.plans.extract_if(.., |plan| plan.name != name);
        self.other_plans.extend(others);
        Ok(())
    }

    /// All plans, also those that were not chosen.
    pub fn all_plans(&self) -> impl Iterator<Item = &PlanSpec> {
        self.plans.iter().chain(&self.other_plans)
    }

    /// Where an image is pushed, without a tag: its `image_name`, or the name of its directory.
    ///
    /// # Errors
    /// It can't be the name of a repository.
    pub fn repository(&self, name: &str) -> Result<String> {
        let named = self.image(name).and_then(|section| section.image_name.as_deref());
        let repository = named.unwrap_or(name);
        match is_repository(repository) {
            true => Ok(repository.to_owned()),
            false => Err(self.fault(
                &["images", name, "image_name"],
                false,
                format!("{repository:?} can't be the name of a repository"),
            )),
        }
    }

    /// The section of an image.
    pub fn image(&self, name: &str) -> Option<&ImageSpec> {
        self.images
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, image)| image)
    }
}

/// The first image with a key that only means something with plans, and this key.
fn tracks_are_older(images: &[(String, ImageSpec)]) -> Option<(String, &'static str)> {
    images.iter().find_map(|(name, image)| {
        let has_plan = image.dbuild_env.keys().any(|plan| plan != COMMON);
        match (has_plan, image.skip_plans.is_empty()) {
            (true, _) => Some((name.clone(), "dbuild_env")),
            (false, false) => Some((name.clone(), "skip_plans")),
            (false, true) => None,
        }
    })
}

impl ImageSpec {
    /// The arguments of its build in a plan: `build_args`, then `common`, then those of the plan; the later wins.
    pub fn arguments(&self, plan: &str) -> BTreeMap<String, String> {
        let mut arguments = self.build_args.clone();
        for part in [COMMON, plan] {
            arguments.extend(self.dbuild_env.get(part).into_iter().flatten().map(clone_pair));
        }
        arguments
    }
}

fn clone_pair((name, value): (&String, &String)) -> (String, String) {
    (name.clone(), value.clone())
}

impl PlanSpec {
    fn of_prefix(prefix: &str) -> Self {
        Self {
            name: prefix.to_owned(),
            prefix: (!prefix.is_empty()).then(|| prefix.to_owned()),
            stable: STABLE.to_owned(),
        }
    }

    fn of_section(name: &str, section: &PlanSection) -> Self {
        Self {
            name: name.to_owned(),
            prefix: section.tag_prefix.clone().filter(|prefix| !prefix.is_empty()),
            stable: section.tag_stable_postfix.clone().unwrap_or_else(|| STABLE.to_owned()),
        }
    }
}

impl SpecSource {
    fn fault(&self, path: &[&str], is_key: bool, message: impl Into<String>) -> Error {
        let path: NodePath = path.iter().map(|&part| part.to_owned()).collect();
        let place = match yaml::place(&self.text, &path, is_key) {
            Some((line, column)) => format!("{}:{line}:{column}", self.path.display()),
            None => self.path.display().to_string(),
        };
        Error::usage(format!("{place}: {}", message.into()))
    }

    fn error(&self, fault: &Fault) -> Error {
        let path: Vec<&str> = fault.path.iter().map(String::as_str).collect();
        let around = match path.as_slice() {
            [around @ .., _] if fault.is_key => around,
            all => all,
        };
        let inside = match around.is_empty() {
            true => String::new(),
            false => format!(" in {}", around.join(".")),
        };
        let error = self.fault(&path, fault.is_key, format!("{}{inside}", fault.message));
        match (fault.nearest, fault.known) {
            (Some(near), _) => error.hint(hint!("did you mean {}?", near)),
            (None, []) => error,
            (None, known) => error.hint(hint!("the keys here are {names}"; names = known.join(", "))),
        }
    }

    fn not_yaml(&self, error: &serde_yaml::Error) -> Error {
        let said = error.to_string();
        // It repeats the place at its end.
        let message = said.split(" at line ").next().unwrap_or_default();
        let place = match error.location() {
            Some(at) => format!("{}:{}:{}", self.path.display(), at.line(), at.column()),
            None => self.path.display().to_string(),
        };
        Error::usage(format!("{place}: {message}"))
    }
}

#[cfg(test)]
mod tests;
