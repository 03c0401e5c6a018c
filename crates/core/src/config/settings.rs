//! The keys of `dockerutils.cfg`: which there are, and their values with file, line, section and key in every error.

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
    "cmd",
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
/// Those that `<key>_docked` may take the place of.
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

/// What one section says.
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
    /// The known key that is nearest.
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

    /// The value split into words as a shell splits them; none where the key is absent.
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

    /// A switch: `True`, `yes`, `on`, `1` and their opposites, in any case; none where the key is absent.
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

    /// The keys of this section and of `[DEFAULT]`; none where there is no such section.
    pub fn keys(&self) -> Vec<&'a str> {
        self.config.keys(self.section)
    }

    /// Whether the file has this section.
    pub fn exists(&self) -> bool {
        self.config.has_section(self.section)
    }
}

/// True and false as people write them; none for anything else.
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

/// Keys that no command knows. Left out: `[DEFAULT]`, sections that an `env` names, keys that `%(x)s` uses.
pub(super) fn unknown_keys(config: &Ini) -> Vec<UnknownKey> {
    let env_sections: BTreeSet<&str> = config
        .sections()
        .flat_map(|section| [config.raw(section, "env"), config.raw(section, "env_docked")])
        .flatten()
        .collect();
    let mut unknown = Vec::new();
    for section in config.sections().filter(|section| !env_sections.contains(section)) {
        let referenced = config.references(section);
        for (key, _) in config.own_keys(section) {
            let known = if section == "run_image" {
                RUN_IMAGE_KEYS.contains(&key) || is_image_key(key)
            } else {
                is_image_key(key)
            };
            if !known && !referenced.contains(key) {
                let candidates = IMAGE_KEYS.iter().chain(RUN_IMAGE_KEYS).copied();
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
        let found = unknown_keys(&config);
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!(found[0].place, "docker/dockerutils.cfg:4: [dev] volume");
        assert_eq!(found[0].nearest.as_deref(), Some("volumes"));
        assert_eq!(found[1].nearest.as_deref(), Some("ports"));
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
