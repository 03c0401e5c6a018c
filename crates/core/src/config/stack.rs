//! Where a stack of images is, and what its images are called: as much of `spec.yml` as commands need that know no stacks. (The
//! crate `dockerutils-stack` reads all of it, with errors that name the line.)

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::trust::Caller;
use crate::env::Env;
use crate::project_file;

/// The name of the file, in the directory of the images.
pub const FILE: &str = "spec.yml";
/// Where the images are looked for, seen from the root of a repository.
pub const DIRECTORIES: [&str; 3] = ["images", "docker", "."];
/// The longest text, in bytes, and the most brackets that open a list or a mapping: for so many in one another, the scanner of YAML
/// takes the square of their number (60 s for 200,000).
pub const LONGEST: usize = 1 << 20;
/// See [`LONGEST`].
pub const MOST_BRACKETS: usize = 10_000;

/// Whether a text is within the bounds of what is read.
pub fn is_bounded(text: &str) -> bool {
    let brackets = text.bytes().filter(|byte| matches!(byte, b'[' | b'{'));
    text.len() <= LONGEST && brackets.count() <= MOST_BRACKETS
}

/// The directory of the images of the stack around a directory: upwards to the root of the repository, and neither in the home
/// directory nor in that of the system.
pub fn around(working: &Path, home: &Path) -> Option<PathBuf> {
    for (depth, folder) in working.ancestors().enumerate() {
        let is_general = folder.parent().is_none() || folder == home;
        if depth > 0 && is_general {
            return None;
        }
        let names = DIRECTORIES.iter().filter(|name| depth == 0 || **name != ".");
        let mut usual = names.map(|name| folder.join(name));
        if let Some(found) = usual.find(|directory| directory.join(FILE).is_file()) {
            return Some(found);
        }
        if folder.join(".git").exists() {
            return None;
        }
    }
    None
}

/// The root of the repository that a directory of images is in: where git's is, else the folder above.
pub fn repository_root(directory: &Path) -> PathBuf {
    let mut above = directory.ancestors();
    let root = above.find(|folder| folder.join(".git").exists());
    root.or(directory.parent()).unwrap_or(directory).to_owned()
}

/// The names of the images of the stack around a directory: none where there is no stack, or it can't be read, or is another user's.
pub fn image_names(working: &Path, env: &Env) -> Vec<String> {
    let names = around(working, &env.home()).and_then(|directory| names_in(&directory, env));
    names.unwrap_or_default()
}

/// The part of the file with the names.
#[derive(Deserialize)]
struct NamesFile {
    #[serde(default)]
    images: BTreeMap<String, IgnoredAny>,
}

fn names_in(directory: &Path, env: &Env) -> Option<Vec<String>> {
    let path = directory.join(FILE);
    let caller = Caller::of_process(env);
    caller
        .check(&repository_root(directory), &[directory, path.as_path()])
        .ok()?;
    let text = String::from_utf8(project_file::read(&path).ok()?).ok()?;
    let file: NamesFile = is_bounded(&text).then(|| serde_yaml::from_str(&text).ok())??;
    Some(file.images.into_keys().collect())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn names(place: &str, spec: &str, from: &str) -> Vec<String> {
        let home = tempfile::tempdir().unwrap();
        let root = home.path().join("team");
        // `.` is no folder to be made before there is one around it.
        for folder in ["", place, from] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        fs::write(root.join(place).join(FILE), spec).unwrap();
        let env = Env::from_pairs([("HOME", home.path().to_str().unwrap())]);
        image_names(&root.join(from), &env)
    }

    #[test]
    fn names_are_those_below_images() {
        let spec = "tag: {prefix: 2023.10}\nimages:\n  science:\n    image_name: r.example/science\n    depend_on: base\n  base: {}\n  \
                    2024: {}\nplans: &p [x]\nother: *p\n";
        for (place, from) in [("images", "."), ("docker", "notebooks/deep"), (".", ".")] {
            assert_eq!(names(place, spec, from), ["2024", "base", "science"], "{place}");
        }
        assert!(names("elsewhere", spec, ".").is_empty());
        assert!(names(".", spec, "below").is_empty());
    }

    #[test]
    fn what_can_not_be_read_has_no_names() {
        let brackets = format!("images: {{a: {}{}}}\n", "[".repeat(20_000), "]".repeat(20_000));
        for spec in ["", "images: [a]\n", "images:\n\tx\n", "a: *b\n", &brackets] {
            assert!(
                names("images", spec, ".").is_empty(),
                "{}",
                spec.get(..20).unwrap_or(spec)
            );
        }
    }

    #[test]
    fn the_root_is_git_s_or_the_folder_above() {
        let home = tempfile::tempdir().unwrap();
        let images = home.path().join("a/images");
        fs::create_dir_all(&images).unwrap();
        assert_eq!(repository_root(&images), home.path().join("a"));
        fs::create_dir(home.path().join(".git")).unwrap();
        assert_eq!(repository_root(&images), home.path());
    }
}
