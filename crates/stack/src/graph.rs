//! The images of a stack and their directories, each after the image that it starts from.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path, PathBuf};

use dockerutils_core::config::stack::repository_root;
use dockerutils_core::error::{Error, Result};
use dockerutils_core::hint;
use dockerutils_core::project_file;

use crate::spec::{FILE, Spec};

/// The name of a Dockerfile, where the spec names no other.
const DOCKERFILE: &str = "Dockerfile";

/// The images in the order of their builds: a parent before its children, otherwise as in the spec.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Graph {
    pub images: Vec<StackImage>,
    /// What is worth a remark, and no error.
    pub notes: Vec<String>,
}

/// An image of a stack, and where it is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StackImage {
    /// The name of its directory, and its key in the spec.
    pub name: String,
    /// The position in [`Graph::images`] of the image that it starts from.
    pub parent: Option<usize>,
    /// Its build context.
    pub directory: PathBuf,
    pub dockerfile: PathBuf,
    /// What is in its Dockerfile.
    pub text: String,
}

impl Graph {
    /// The images of the spec, in this directory.
    ///
    /// # Errors
    /// A `depend_on` or `root` that leads nowhere, a circle, an image without a directory or a Dockerfile.
    pub fn read(spec: &Spec, directory: &Path) -> Result<Self> {
        let mut graph = Self::default();
        for (name, parent) in ordered(spec)? {
            let folder = directory.join(&name);
            if !folder.is_dir() {
                return Err(spec
                    .fault(
                        &["images", &name],
                        true,
                        format!("{name} has no directory: there is no {}", folder.display()),
                    )
                    .hint(hint!(
                        "make {}, or take {} out of the file",
                        folder.join(DOCKERFILE).display(),
                        name
                    )));
            }
            stays_inside(&folder, directory)?;
            let named = spec.image(&name).and_then(|image| image.dockerfile.as_deref());
            let dockerfile = folder.join(inside(spec, &name, named.unwrap_or(DOCKERFILE))?);
            let text = project_file::read(&dockerfile)
                .map_err(|cause| Error::usage(format!("{} can't be read", dockerfile.display())).because(cause))?;
            let parent = parent.and_then(|parent| graph.position(&parent));
            graph.images.push(StackImage {
                name,
                parent,
                directory: folder,
                dockerfile,
                text: String::from_utf8_lossy(&text).into_owned(),
            });
        }
        graph.notes = notes(spec, directory);
        Ok(graph)
    }

    /// The position of an image.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.images.iter().position(|image| image.name == name)
    }

    /// The positions of the images that start from this one.
    pub fn children(&self, position: usize) -> impl Iterator<Item = usize> {
        let images = self.images.iter().enumerate();
        images
            .filter(move |(_, image)| image.parent == Some(position))
            .map(|(index, _)| index)
    }
}

/// The path of a Dockerfile, which must be in the image's directory: only that is the build's.
fn inside<'p>(spec: &Spec, name: &str, path: &'p str) -> Result<&'p Path> {
    let inside = Path::new(path);
    let is_inside = !path.is_empty() && inside.components().all(|part| matches!(part, Component::Normal(_)));
    match is_inside {
        true => Ok(inside),
        false => Err(spec.fault(
            &["images", name, "dockerfile"],
            false,
            format!("{path:?} is not a file in the directory of {name}"),
        )),
    }
}

/// Checks that the directory of an image is in the repository of the images' directory, links included: a clone brings its own
/// links, and a build sends what is there, and pushes it where the clone says.
fn stays_inside(folder: &Path, directory: &Path) -> Result<()> {
    let root = repository_root(directory);
    let real = |path: &Path| {
        path.canonicalize()
            .map_err(|cause| Error::usage(format!("{} can't be read", path.display())).because(cause))
    };
    let (target, root) = (real(folder)?, real(&root)?);
    if target.starts_with(&root) {
        return Ok(());
    }
    let shown = folder.display();
    Err(Error::usage(format!(
        "{shown} leads to {}, outside of the repository: its content would be sent to the engine",
        target.display()
    ))
    .hint(hint!(
        "if that is intended, put a copy in its place: cp -r {} ...",
        target.display()
    )))
}

/// The images, each with its parent, parents first.
fn ordered(spec: &Spec) -> Result<Vec<(String, Option<String>)>> {
    let names = || spec.images.iter().map(|(name, _)| name.as_str());
    for (index, root) in spec.roots.iter().enumerate() {
        let Some(image) = spec.image(root) else {
            let index = index.to_string();
            return Err(spec.unknown(&["root", &index], false, root, names(), "image"));
        };
        if let Some(parent) = &image.depend_on {
            return Err(spec.fault(
                &["images", root, "depend_on"],
                false,
                format!("{root} is a root, and depends on {parent}"),
            ));
        }
    }
    for (name, image) in &spec.images {
        if let Some(parent) = &image.depend_on
            && spec.image(parent).is_none()
        {
            return Err(spec.unknown(&["images", name, "depend_on"], false, parent, names(), "image"));
        }
    }
    let mut done: BTreeSet<&str> = BTreeSet::new();
    let mut order = Vec::new();
    while order.len() < spec.images.len() {
        let before = order.len();
        for (name, image) in &spec.images {
            let parent = image.depend_on.as_deref();
            if !done.contains(name.as_str()) && parent.is_none_or(|parent| done.contains(parent)) {
                done.insert(name);
                order.push((name.clone(), image.depend_on.clone()));
            }
        }
        if order.len() == before {
            return Err(circle(spec, &done));
        }
    }
    Ok(order)
}

/// The error that names a circle among the images that are not done.
fn circle(spec: &Spec, done: &BTreeSet<&str>) -> Error {
    let first = spec
        .images
        .iter()
        .map(|(name, _)| name.as_str())
        .find(|name| !done.contains(name));
    let mut way: Vec<&str> = Vec::new();
    let mut next = first;
    while let Some(name) = next {
        if let Some(begin) = way.iter().position(|known| *known == name) {
            way.drain(..begin);
            break;
        }
        way.push(name);
        next = spec.image(name).and_then(|image| image.depend_on.as_deref());
    }
    let first = way.first().copied().unwrap_or_default();
    let names = way.iter().copied().chain([first]);
    let said = names.collect::<Vec<_>>().join(", which depends on ");
    let said = said.replacen(", which depends on ", " depends on ", 1);
    spec.fault(&["images", first, "depend_on"], false, format!("a circle: {said}"))
}

/// Remarks: directories with a Dockerfile that the spec does not name, and images that `root` leaves out.
fn notes(spec: &Spec, directory: &Path) -> Vec<String> {
    let mut notes = Vec::new();
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut folders: Vec<String> = entries
        .filter(|entry| entry.path().join(DOCKERFILE).is_file())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    folders.sort();
    for folder in folders.iter().filter(|folder| spec.image(folder).is_none()) {
        notes.push(format!(
            "{} has a Dockerfile, and {FILE} has no image {folder}",
            directory.join(folder).display()
        ));
    }
    for (name, image) in &spec.images {
        if !spec.roots.is_empty() && image.depend_on.is_none() && !spec.roots.contains(name) {
            notes.push(format!(
                "{name} depends on no image of the stack, and root does not name it"
            ));
        }
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(spec: &str, folders: &[&str]) -> Result<Graph> {
        let home = tempfile::tempdir().unwrap();
        for folder in folders {
            fs::create_dir_all(home.path().join(folder)).unwrap();
            fs::write(home.path().join(folder).join(DOCKERFILE), "FROM scratch\n").unwrap();
        }
        Graph::read(&Spec::parse(spec, Path::new("spec.yml")).unwrap(), home.path())
    }

    #[track_caller]
    fn assert_refused(spec: &str, folders: &[&str], message: &str) {
        let error = graph(spec, folders).unwrap_err().to_string();
        assert!(error.starts_with(message), "{error}");
    }

    #[test]
    fn a_parent_comes_before_its_children() {
        let spec = "images:\n  leaf: {depend_on: branch}\n  branch: {depend_on: base}\n  other: {depend_on: base}\n  base: {}\n";
        let graph = graph(spec, &["leaf", "branch", "other", "base", "stray"]).unwrap();
        let names: Vec<_> = graph.images.iter().map(|image| image.name.as_str()).collect();
        assert_eq!(names, ["base", "branch", "other", "leaf"]);
        assert_eq!(graph.images[3].parent, Some(1));
        assert_eq!(graph.children(0).collect::<Vec<_>>(), [1, 2]);
        assert!(graph.notes[0].ends_with("stray has a Dockerfile, and spec.yml has no image stray"));
    }

    #[test]
    fn what_can_not_be_ordered_is_named() {
        assert_refused(
            "images:\n  a: {depend_on: c}\n  b: {depend_on: a}\n  c: {depend_on: b}\n  d: {depend_on: a}\n",
            &[],
            "spec.yml:2:18: a circle: a depends on c, which depends on b, which depends on a",
        );
        assert_refused(
            "images:\n  a: {depend_on: a}\n",
            &[],
            "spec.yml:2:18: a circle: a depends on a",
        );
        assert_refused(
            "images:\n  a: {}\n  b: {depend_on: aa}\n",
            &[],
            "spec.yml:3:18: there is no image \"aa\"",
        );
        assert_refused(
            "root: [a, x]\nimages: {a: {}}\n",
            &["a"],
            "spec.yml:1:11: there is no image \"x\"",
        );
        assert_refused(
            "root: b\nimages:\n  a: {}\n  b: {depend_on: a}\n",
            &[],
            "spec.yml:4:18: b is a root, and depends on a",
        );
    }

    #[test]
    fn the_directory_of_an_image_is_no_link_out_of_the_repository() {
        let home = tempfile::tempdir().unwrap();
        let (images, other) = (home.path().join("stack/images"), home.path().join("other"));
        let shared = home.path().join("stack/shared");
        for folder in [&images, &other, &shared, &home.path().join("stack/.git")] {
            fs::create_dir_all(folder).unwrap();
            fs::write(folder.join(DOCKERFILE), "FROM scratch\n").unwrap();
        }
        let spec = Spec::parse("images: {a: {}}\n", Path::new("spec.yml")).unwrap();
        std::os::unix::fs::symlink(&other, images.join("a")).unwrap();
        let error = Graph::read(&spec, &images).unwrap_err().to_string();
        assert!(
            error.ends_with("/other, outside of the repository: its content would be sent to the engine"),
            "{error}"
        );
        fs::remove_file(images.join("a")).unwrap();
        std::os::unix::fs::symlink(&shared, images.join("a")).unwrap();
        assert_eq!(Graph::read(&spec, &images).unwrap().images.len(), 1);
    }

    #[test]
    fn a_key_without_a_directory_is_said() {
        assert_refused(
            "images:\n  a: {}\n  b: {}\n",
            &["a"],
            "spec.yml:3:3: b has no directory: there is no /",
        );
        assert_refused(
            "images:\n  a: {dockerfile: ../x}\n",
            &["a"],
            "spec.yml:2:19: \"../x\" is not a file in the directory of a",
        );
    }
}
