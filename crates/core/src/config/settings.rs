//! The keys of `dockerutils.cfg`: a list of them, and their values with file, line, section and key in every error.

use std::collections::BTreeSet;

use super::ini::Ini;
use crate::error::{Error, Result};
use crate::hint;
use crate::naming::nearest;
use crate::shell;

/// Keys of an image's section.
const IMAGE_KEYS: &[&str] = &[
    "args",
    "build_args",
    "check_skip",
    "cmd",
    "context",
    "dockerfile",
    "env",
    "environment",
    "gpu",
    "image_repo",
    "init",
    "interactive",
    "keep_container",
    "name",
    "network",
    "ports",
    "post_build_script",
    "pre_build_script",
    "prefix",
    "publication_tag",
    "pull_FROM_on_force",
    "tag",
    "volumes",
];
/// Keys that `<key>_docked` can replace.
const DOCKED_KEYS: &[&str] = &[
    "args",
    "cmd",
    "environment",
    "gpu",
    "init",
    "interactive",
    "keep_container",
    "network",
    "ports",
    "volumes",
];
/// Keys of `[run_image]`.
const RUN_IMAGE_KEYS: &[&str] = &["synthetic_images"];
/// Keys of `[build_image]`.
const BUILD_IMAGE_KEYS: &[&str] = &["images_dir"];
/// The section of run-notebook, which is also that of the image type of this name.
pub const NOTEBOOK: &str = "notebook";
/// Keys of `[notebook]` beside those of an image.
const NOTEBOOK_KEYS: &[&str] = &["idle", "image", "path", "port", "root"];
/// Sections of commands: the name in the file, the name of the command (which the original's documentation uses), and
/// their keys.
const COMMANDS: [(&str, &str, &[&str]); 2] = [
    ("run_image", "run-image", RUN_IMAGE_KEYS),
    ("build_image", "build-image", BUILD_IMAGE_KEYS),
];
/// The beginning of section names that are for a key `env`, by custom.
const ENVIRONMENT: &str = "env_";

/// The settings of one section.
#[derive(Clone, Copy, Debug)]
pub struct Settings<'a> {
    config: &'a Ini,
    section: &'a str,
}

/// A key that no command knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownKey {
    /// `docker/dockerutils.cfg:12: [dev] volume`.
    pub place: String,
    /// The most similar known key.
    pub nearest: Option<String>,
}

impl<'a> Settings<'a> {
    pub(super) const fn new(config: &'a Ini, section: &'a str) -> Self {
        Self { config, section }
    }

    /// The section's name.
    pub const fn section(&self) -> &'a str {
        self.section
    }

    /// Whether the key is there, in the section or in `[DEFAULT]`.
    pub fn has(&self, key: &str) -> bool {
        self.config.has_section(self.section) && self.config.raw(self.section, key).is_some()
    }

    /// The value of a key.
    ///
    /// # Errors
    /// A `%(x)s` that can't be resolved.
    pub fn text(&self, key: &str) -> Result<Option<String>> {
        Ok(self.config.get(self.section, key)?)
    }

    /// The value split into words as a shell splits them; `None` where the key is absent.
    ///
    /// # Errors
    /// A quotation that isn't closed.
    pub fn words(&self, key: &str) -> Result<Option<Vec<String>>> {
        let Some(text) = self.text(key)? else {
            return Ok(None);
        };
        shell::split(&text).map(Some).map_err(|cause| {
            self.error(key, &cause.to_string())
                .hint(hint!("the value is: {text}"; text = text))
        })
    }

    /// A switch: `True`, `yes`, `on`, `1` and their opposites, in any case; `None` where the key is absent.
    ///
    /// # Errors
    /// Another word.
    pub fn switch(&self, key: &str) -> Result<Option<bool>> {
        self.text(key)?
            .map(|text| {
                boolean(&text).ok_or_else(|| {
                    self.error(key, &format!("{text:?} is neither true nor false"))
                        .hint(hint!("{} = True", key))
                })
            })
            .transpose()
    }

    /// A configuration error at this key: file, line, section and key, then the message.
    pub fn error(&self, key: &str, message: &str) -> Error {
        Error::usage(format!("{}: {message}", self.place(key)))
    }

    /// `docker/dockerutils.cfg:12: [dev] volumes`.
    pub fn place(&self, key: &str) -> String {
        place(self.config, self.section, key)
    }

    /// Another section of the same file.
    pub const fn sibling(&self, section: &'a str) -> Self {
        Self {
            config: self.config,
            section,
        }
    }

    /// The keys of this section and of `[DEFAULT]`; `None` where there is no such section.
    pub fn keys(&self) -> Vec<&'a str> {
        self.config.keys(self.section)
    }

    /// Whether the file has this section.
    pub fn exists(&self) -> bool {
        self.config.has_section(self.section)
    }
}

/// True and false as people write them; `None` for anything else.
pub fn boolean(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "t" | "yes" | "y" | "on" | "1" => Some(true),
        "false" | "f" | "no" | "n" | "off" | "0" => Some(false),
        _ => None,
    }
}

fn place(config: &Ini, section: &str, key: &str) -> String {
    let file = config.path().display();
    match config.line(section, key) {
        Some(line) => format!("{file}:{line}: [{section}] {key}"),
        None => format!("{file}: [{section}] {key}"),
    }
}

/// The name that the file uses for the section of a command: `run_image` or `build_image`, or as the command is
/// spelled.
pub(super) fn section_of_command(config: &Ini, section: &'static str) -> &'static str {
    let spelled = COMMANDS.iter().find(|(known, _, _)| *known == section);
    match spelled {
        Some((_, spelled, _)) if !config.has_section(section) && config.has_section(spelled) => spelled,
        _ => section,
    }
}

/// Warnings about sections whose names are spelled like commands (`build-image`), unless an image type has that name.
pub(super) fn spelled_as_commands(config: &Ini, types: &[String]) -> Vec<String> {
    let spelled = COMMANDS
        .iter()
        .filter(|(_, spelled, _)| config.has_section(spelled) && !types.iter().any(|name| name == spelled));
    spelled
        .map(|(known, spelled, _)| {
            let file = config.path().display();
            let line = config.section_line(spelled).unwrap_or_default();
            if config.has_section(known) {
                format!("{file}:{line}: [{spelled}] is ignored, because there is [{known}]")
            } else {
                format!("{file}:{line}: [{spelled}] is read as [{known}]; rename it")
            }
        })
        .collect()
}

/// The sections that an `env` names.
fn named_environments(config: &Ini) -> BTreeSet<&str> {
    config
        .sections()
        .flat_map(|section| [config.raw(section, "env"), config.raw(section, "env_docked")])
        .flatten()
        .collect()
}

/// Sections of variables that no `env` names yet, by their names: `[env_...]`, unless an image has that name.
pub(super) fn unnamed_environments<'a>(config: &'a Ini, types: &[String]) -> Vec<&'a str> {
    let named = named_environments(config);
    config
        .sections()
        .filter(|section| section.starts_with(ENVIRONMENT) && !named.contains(section))
        .filter(|section| !types.iter().any(|name| name == section))
        .filter(|section| !config.own_keys(section).any(|(key, _)| key == "name"))
        .collect()
}

/// The keys of `[DEFAULT]` that are for images: as in the original, only for one that has a section.
pub(super) fn defaults_of_images(config: &Ini) -> Vec<&str> {
    let keys = config.default_keys().map(|(key, _)| key);
    keys.filter(|key| is_image_key(key)).collect()
}

/// Keys that no command knows. Left out: `[DEFAULT]`, sections that an `env` names or that are named like them, keys
/// that `%(x)s` uses.
pub(super) fn unknown_keys(config: &Ini, types: &[String]) -> Vec<UnknownKey> {
    let mut environments = named_environments(config);
    environments.extend(unnamed_environments(config, types));
    let mut unknown = Vec::new();
    for section in config.sections().filter(|section| !environments.contains(section)) {
        let referenced = config.references(section);
        let of_command = match section {
            NOTEBOOK => NOTEBOOK_KEYS,
            _ => COMMANDS
                .iter()
                .find(|(known, spelled, _)| section == *known || section == *spelled)
                .map(|(_, _, keys)| *keys)
                .unwrap_or_default(),
        };
        for (key, _) in config.own_keys(section) {
            let known = of_command.contains(&key) || is_image_key(key);
            if !known && !referenced.contains(key) {
                let of_commands = [RUN_IMAGE_KEYS, BUILD_IMAGE_KEYS].into_iter().flatten();
                let own = if section == NOTEBOOK { NOTEBOOK_KEYS } else { &[] };
                let candidates = own.iter().chain(IMAGE_KEYS).chain(of_commands).copied();
                unknown.push(UnknownKey {
                    place: place(config, section, key),
                    nearest: nearest(key, candidates).map(str::to_owned),
                });
            }
        }
    }
    unknown
}

fn is_image_key(key: &str) -> bool {
    IMAGE_KEYS.contains(&key)
        || key
            .strip_suffix("_docked")
            .is_some_and(|plain| DOCKED_KEYS.contains(&plain))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn ini(text: &str) -> Ini {
        Ini::parse(Path::new("docker/dockerutils.cfg"), text).unwrap()
    }

    #[test]
    fn unknown_keys_name_their_place_and_the_nearest() {
        let config = ini(
            "[DEFAULT]\nany = 1\n[dev]\nvolume = -v a:b\nport = %(mine)s\nmine = 1\nenv = e\nports_docked = x\n[e]\nFREE = 1\n",
        );
        let found = unknown_keys(&config, &[]);
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!(found[0].place, "docker/dockerutils.cfg:4: [dev] volume");
        assert_eq!(found[0].nearest.as_deref(), Some("volumes"));
        assert_eq!(found[1].nearest.as_deref(), Some("ports"));
    }

    #[test]
    fn the_keys_of_a_notebook_are_known_in_its_section_alone() {
        let config = ini("[notebook]\nimage = a\nport = 1\nvolumes = -v a:b\nimag = c\n[dev]\nidle = 2h\n");
        let found = unknown_keys(&config, &[]);
        let places: Vec<(&str, Option<&str>)> = found
            .iter()
            .map(|unknown| (unknown.place.as_str(), unknown.nearest.as_deref()))
            .collect();
        assert_eq!(places.len(), 2, "{places:?}");
        assert_eq!(places[0], ("docker/dockerutils.cfg:5: [notebook] imag", Some("image")));
        assert_eq!(places[1].0, "docker/dockerutils.cfg:7: [dev] idle");
    }

    #[test]
    fn sections_of_commands_may_be_spelled_as_the_command_is() {
        let config = ini("[run-image]\nsynthetic_images = a\n[build-image]\nimages_dir = x\n");
        assert_eq!(unknown_keys(&config, &[]), []);
        assert_eq!(section_of_command(&config, "run_image"), "run-image");
        assert_eq!(
            spelled_as_commands(&config, &[]),
            [
                "docker/dockerutils.cfg:1: [run-image] is read as [run_image]; rename it",
                "docker/dockerutils.cfg:3: [build-image] is read as [build_image]; rename it",
            ]
        );
        // An image type may have that name.
        assert_eq!(
            spelled_as_commands(&config, &["run-image".to_owned(), "build-image".to_owned()]),
            [""; 0]
        );
        let both = ini("[run-image]\nsynthetic_images = a\n[run_image]\nsynthetic_images = b\n");
        assert_eq!(section_of_command(&both, "run_image"), "run_image");
        assert_eq!(
            spelled_as_commands(&both, &[]),
            ["docker/dockerutils.cfg:1: [run-image] is ignored, because there is [run_image]"]
        );
    }

    #[test]
    fn sections_of_variables_need_no_image_that_names_them() {
        let config =
            ini("[env_a]\nA = 1\n[env_b]\nname = x\nB = 1\n[env_c]\nC = 1\n[dev]\nenv = env_c\n[env_d]\nD = 1\n");
        assert_eq!(unnamed_environments(&config, &["env_d".to_owned()]), ["env_a"]);
        let unknown: Vec<String> = unknown_keys(&config, &["env_d".to_owned()])
            .into_iter()
            .map(|unknown| unknown.place)
            .collect();
        assert_eq!(
            unknown,
            [
                "docker/dockerutils.cfg:5: [env_b] B",
                "docker/dockerutils.cfg:11: [env_d] D"
            ]
        );
    }

    #[test]
    fn errors_name_file_line_section_and_key() {
        let config = ini("[dev]\n\npull_FROM_on_force = maybe\nbuild_args = 'open\n");
        let settings = Settings::new(&config, "dev");
        let error = settings.switch("pull_FROM_on_force").unwrap_err();
        assert_eq!(
            error.to_string(),
            "docker/dockerutils.cfg:3: [dev] pull_FROM_on_force: \"maybe\" is neither true nor false"
        );
        assert!(
            settings
                .words("build_args")
                .unwrap_err()
                .to_string()
                .contains("cfg:4: [dev] build_args")
        );
        assert_eq!(settings.switch("absent").unwrap(), None);
    }
}
