//! The input digest of an image: a digest of all that its build depends on. Two builds with the same digest make the same
//! image, as far as the Dockerfile's own steps do.
//!
//! It is the SHA-256 of this text, and every line ends with a line feed:
//!
//! ```text
//! dockerutils-stack-input 1
//! dockerfile sha256:...
//! context sha256:...
//! arguments sha256:...
//! platforms sha256:...
//! parent sha256:...
//! bases sha256:...
//! ```
//!
//! Each line is a part, by which two digests are told apart: the Dockerfile's bytes; the context; `NAME=VALUE` of each
//! build argument that is not the parent's name or tag; the platforms; the parent's input digest; `REFERENCE=DIGEST` of
//! each image outside of the stack. In a part that is a list, its items are sorted by their bytes, and each is preceded by
//! its length in decimal digits and a colon. A part without anything is the digest of no bytes.
//!
//! The context is the files that the Dockerfile copies, adds or mounts, links followed, and that `.dockerignore` does not
//! leave out; all of them, where the Dockerfile of the parent has ONBUILD COPY or ADD. The item of a file is its path, a zero byte, its mode, a blank, and the digest of its contents; that of a
//! link has the mode `link` and the text of the link. A mode is `755` where the owner may execute the file, else `644`, as in
//! git, with the octal digit of set-user-ID, set-group-ID and sticky bits before it, where there is one. Times, owners,
//! extended attributes and directories do not count: they differ between two clones of the same commit.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};

use build_context::{ContextDir, ContextEntry, FileKind, WalkOptions};
use dockerutils_core::docker::build::dockerfile::source::{DockerfileSource, SourceInstruction};
use dockerutils_core::docker::build::request::BuildRequest;
use dockerutils_core::docker::options::build_options::BuildOptions;
use dockerutils_core::error::{Error, Result};
use dockerutils_core::hexadecimal::hex;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::graph::{Graph, StackImage};
use crate::tags::{BASE_IMAGE, BASE_TAG, StackTarget};

/// The first line of the text that is digested; its number is that of the format.
const FORMAT: &str = "dockerutils-stack-input 1";

/// The annotation by which an image says what it was made from: [`Inputs`] in JSON.
pub const ANNOTATION: &str = "io.dockerutils.stack.inputs";

/// The parts of an input digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inputs {
    pub dockerfile: String,
    pub context: String,
    pub arguments: String,
    pub platforms: String,
    pub parent: String,
    pub bases: String,
}

impl Inputs {
    /// The input digest.
    pub fn digest(&self) -> String {
        let Self {
            dockerfile,
            context,
            arguments,
            platforms,
            parent,
            bases,
        } = self;
        let text = format!(
            "{FORMAT}\ndockerfile {dockerfile}\ncontext {context}\narguments {arguments}\nplatforms {platforms}\n\
             parent {parent}\nbases {bases}\n"
        );
        digest(text.as_bytes())
    }

    /// The inputs of a target. `parent` is the parent's input digest; `bases` the digests of images outside of the stack,
    /// by their references.
    ///
    /// # Errors
    /// A context that can't be read; a base whose digest is not given.
    pub fn of(
        graph: &Graph,
        target: &StackTarget,
        parent: Option<&str>,
        bases: &BTreeMap<String, String>,
    ) -> Result<Self> {
        let Some(image) = graph.images.get(target.image) else {
            return Err(Error::failed(format!("there is no image {}", target.name)));
        };
        let above = image.parent.and_then(|parent| graph.images.get(parent));
        let own = target.arguments.iter();
        let own = own.filter(|(name, _)| parent.is_none() || !is_of_parent(name));
        let mut known = Vec::new();
        for base in &target.bases {
            let Some(digest) = pinned(base).or_else(|| bases.get(base).map(String::as_str)) else {
                return Err(Error::failed(format!(
                    "the digest of {base} is not known, from which {} is made",
                    image.name
                )));
            };
            known.push(format!("{base}={digest}").into_bytes());
        }
        Ok(Self {
            dockerfile: digest(image.text.as_bytes()),
            context: context(image, above.is_some_and(|parent| leaves_copies(&parent.text)))?,
            arguments: list(
                own.map(|(name, value)| format!("{name}={value}").into_bytes())
                    .collect(),
            ),
            platforms: list(
                target
                    .platforms
                    .iter()
                    .map(|platform| platform.clone().into_bytes())
                    .collect(),
            ),
            parent: parent.map_or_else(|| digest(b""), str::to_owned),
            bases: list(known),
        })
    }
}

/// The digest that a reference ends with.
pub fn pinned(reference: &str) -> Option<&str> {
    reference.split_once('@').map(|(_, digest)| digest)
}

/// Whether a build argument says what the parent is called: it changes with the branch, and the image does not.
fn is_of_parent(name: &str) -> bool {
    name == BASE_TAG || name == BASE_IMAGE
}

/// The digest of a list of items.
fn list(mut items: Vec<Vec<u8>>) -> String {
    items.sort_unstable();
    let mut hasher = Sha256::new();
    for item in items {
        hasher.update(format!("{}:", item.len()));
        hasher.update(item);
    }
    named(hasher)
}

/// The SHA-256 of bytes, as `sha256:HEX`.
pub(crate) fn digest(bytes: &[u8]) -> String {
    named(Sha256::new_with_prefix(bytes))
}

fn named(hasher: Sha256) -> String {
    format!("sha256:{}", hex(&hasher.finalize()))
}

/// The digest of the files that count.
fn context(image: &StackImage, is_copied_by_parent: bool) -> Result<String> {
    let mut wanted = copied(&image.text);
    if is_copied_by_parent {
        wanted.insert(".".to_owned());
    }
    if wanted.is_empty() {
        return Ok(digest(b""));
    }
    let request = BuildRequest {
        context: image.directory.clone(),
        dockerfile: image.dockerfile.clone(),
        tags: Vec::new(),
        options: BuildOptions::default(),
    };
    let options = WalkOptions {
        exclude: request.ignored(&image.directory)?,
        follow: wanted.into_iter().map(String::into_bytes).collect(),
        ..WalkOptions::default()
    };
    let failed = |cause| Error::failed(format!("the context of {} can't be read", image.name)).because(cause);
    let folder = ContextDir::open(&image.directory).map_err(failed)?;
    let mut items = Vec::new();
    for entry in folder.walk(&options).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let (mode, content) = match &entry.kind {
            FileKind::Directory => continue,
            FileKind::Symlink(target) => ("link".to_owned(), target.clone()),
            FileKind::File | FileKind::HardLink(_) => {
                let mut file = folder.open_file(&entry.path).map_err(failed)?;
                let content = content(&mut file).map_err(|cause| {
                    let path = folder.path().join(entry.as_path());
                    Error::failed(format!("{} can't be read", path.display())).because(cause)
                })?;
                (mode(&entry), content.into_bytes())
            }
            FileKind::Fifo => ("pipe".to_owned(), Vec::new()),
            FileKind::BlockDevice(device) => ("block".to_owned(), format!("{}:{}", device.major, device.minor).into()),
            FileKind::CharDevice(device) => ("char".to_owned(), format!("{}:{}", device.major, device.minor).into()),
        };
        items.push([entry.path.as_slice(), b"\0", mode.as_bytes(), b" ", &content].concat());
    }
    Ok(list(items))
}

fn mode(entry: &ContextEntry) -> String {
    let permissions = if entry.permissions & 0o100 == 0 { 0o644 } else { 0o755 };
    format!("{:o}", permissions | (entry.permissions & 0o7000))
}

fn content(file: &mut impl Read) -> io::Result<String> {
    let mut hasher = Sha256::new();
    let mut piece = vec![0; 64 * 1024];
    loop {
        match file.read(&mut piece) {
            Ok(0) => return Ok(named(hasher)),
            Ok(count) => hasher.update(piece.get(..count).unwrap_or_default()),
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
            Err(cause) => return Err(cause),
        }
    }
}

/// The paths of the context that a Dockerfile copies, adds or mounts. What can't be told before the build, a path with a
/// variable, is everything: `.`.
fn copied(dockerfile: &str) -> BTreeSet<String> {
    let source = DockerfileSource::read(dockerfile);
    let mut paths = BTreeSet::new();
    if source.fault.is_some() {
        paths.insert(".".to_owned());
    }
    for step in &source.instructions {
        if step.is_copy() && step.flag("from").is_none() {
            paths.extend(
                sources(step)
                    .into_iter()
                    .filter_map(|path| of_context(&path, source.escape)),
            );
        }
        if step.keyword == "run" {
            paths.extend(
                step.flags_named("mount")
                    .filter_map(mounted)
                    .filter_map(|path| of_context(&path, source.escape)),
            );
        }
    }
    paths
}

/// Whether a Dockerfile makes an image whose children copy from their own context.
fn leaves_copies(dockerfile: &str) -> bool {
    let source = DockerfileSource::read(dockerfile);
    source.instructions.iter().any(|step| {
        let next = step.arguments().split_whitespace().next().unwrap_or_default();
        let is_copy = next.eq_ignore_ascii_case("copy") || next.eq_ignore_ascii_case("add");
        step.keyword == "onbuild" && is_copy
    })
}

/// All arguments of COPY and ADD but the last.
fn sources(step: &SourceInstruction) -> Vec<String> {
    let mut words = match &step.json {
        Some(words) => words.clone(),
        None => step.words().into_iter().map(|(_, word)| word.to_owned()).collect(),
    };
    words.pop();
    words
}

/// The path of the context that `--mount=type=bind` mounts.
fn mounted(mount: &str) -> Option<String> {
    let fields: Vec<(&str, &str)> = mount
        .split(',')
        .map(|field| field.split_once('=').unwrap_or((field, "")))
        .collect();
    let value = |names: &[&str]| {
        let mut found = fields.iter().rev();
        found
            .find(|(name, _)| names.iter().any(|known| name.eq_ignore_ascii_case(known)))
            .map(|(_, value)| *value)
    };
    let is_bind = value(&["type"]).is_none_or(|kind| kind == "bind");
    (is_bind && value(&["from"]).is_none()).then(|| value(&["source", "src"]).unwrap_or(".").to_owned())
}

/// A source as a path of the context; `None` where it is none: a URL, a here-document.
fn of_context(path: &str, escape: char) -> Option<String> {
    let path = path.trim_matches(['"', '\'']);
    if path.starts_with("<<") || path.contains("://") || path.starts_with("git@") {
        return None;
    }
    if path.contains(['$', escape, '"', '\'']) {
        return Some(".".to_owned());
    }
    let path = path.trim_start_matches('/');
    Some(if path.is_empty() {
        ".".to_owned()
    } else {
        path.to_owned()
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::Path;

    use dockerutils_core::naming::Designation;

    use super::*;

    fn image(folder: &Path, text: &str) -> StackImage {
        StackImage {
            name: "a".to_owned(),
            parent: None,
            directory: folder.to_owned(),
            dockerfile: folder.join("Dockerfile"),
            text: text.to_owned(),
        }
    }

    fn graph(folder: &Path, text: &str) -> Graph {
        Graph {
            images: vec![image(folder, text)],
            notes: Vec::new(),
        }
    }

    fn target(arguments: &[(&str, &str)], bases: &[&str]) -> StackTarget {
        StackTarget {
            image: 0,
            name: "a".to_owned(),
            plan: "p".to_owned(),
            parent: None,
            designation: Designation {
                name: "a".to_owned(),
                tag: "x".to_owned(),
            },
            commit_tag: None,
            fallbacks: Vec::new(),
            arguments: arguments
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            bases: bases.iter().map(|&base| base.to_owned()).collect(),
            platforms: Vec::new(),
        }
    }

    const TEXT: &str = "FROM scratch\nCOPY src tool.sh /x/\n";

    fn files(folder: &Path) {
        fs::create_dir_all(folder.join("src")).unwrap();
        fs::create_dir_all(folder.join("test")).unwrap();
        for (name, text) in [("src/a", "a"), ("tool.sh", "b"), ("README.md", "c"), ("test/t.py", "d")] {
            fs::write(folder.join(name), text).unwrap();
        }
        symlink("a", folder.join("src/link")).unwrap();
    }

    #[test]
    fn the_format_is_what_is_documented() {
        let folder = tempfile::tempdir().unwrap();
        files(folder.path());
        let bases = BTreeMap::from([("debian:13".to_owned(), "sha256:1".to_owned())]);
        let target = target(&[("A", "1.10"), ("B", "")], &["debian:13", "x@sha256:2"]);
        let inputs = Inputs::of(&graph(folder.path(), TEXT), &target, None, &bases).unwrap();
        let of = |text: &str| digest(text.as_bytes());
        assert_eq!(
            of(""),
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        let item = |text: String| format!("{}:{text}", text.len());
        let context = [
            item(format!("src/a\0644 {}", of("a"))),
            item("src/link\0link a".to_owned()),
            item(format!("tool.sh\0644 {}", of("b"))),
        ];
        let expected = Inputs {
            dockerfile: of(TEXT),
            context: of(&context.concat()),
            arguments: of("6:A=1.102:B="),
            platforms: of(""),
            parent: of(""),
            bases: of("18:debian:13=sha256:119:x@sha256:2=sha256:2"),
        };
        assert_eq!(inputs, expected);
        let text = format!(
            "dockerutils-stack-input 1\ndockerfile {}\ncontext {}\narguments {}\nplatforms {}\nparent {}\nbases {}\n",
            expected.dockerfile,
            expected.context,
            expected.arguments,
            expected.platforms,
            expected.parent,
            expected.bases
        );
        assert_eq!(inputs.digest(), of(&text));
    }

    #[test]
    fn what_is_not_copied_does_not_count() {
        let folder = tempfile::tempdir().unwrap();
        files(folder.path());
        let at = |name: &str| folder.path().join(name);
        let now = || context(&image(folder.path(), TEXT), false).unwrap();
        let before = now();
        fs::write(at("README.md"), "other").unwrap();
        fs::write(at("test/t.py"), "other").unwrap();
        fs::write(at("src/a"), "a").unwrap();
        fs::set_permissions(at("src/a"), PermissionsExt::from_mode(0o664)).unwrap();
        fs::create_dir(at("src/empty")).unwrap();
        assert_eq!(now(), before);
        fs::write(at(".dockerignore"), "src/cache\n").unwrap();
        fs::write(at("src/cache"), "x").unwrap();
        assert_eq!(now(), before);
        fs::set_permissions(at("tool.sh"), PermissionsExt::from_mode(0o700)).unwrap();
        let executable = now();
        assert_ne!(executable, before);
        fs::remove_file(at("src/link")).unwrap();
        symlink("b", at("src/link")).unwrap();
        let relinked = now();
        assert_ne!(relinked, executable);
        fs::rename(at("src/a"), at("src/b")).unwrap();
        assert_ne!(now(), relinked);
        let all = context(&image(folder.path(), "FROM scratch\nCOPY . /\n"), false).unwrap();
        fs::write(at("README.md"), "third").unwrap();
        assert_ne!(
            context(&image(folder.path(), "FROM scratch\nCOPY . /\n"), false).unwrap(),
            all
        );
    }

    #[test]
    fn the_parents_name_does_not_count_and_its_digest_does() {
        let folder = tempfile::tempdir().unwrap();
        let made = |arguments: &[(&str, &str)], parent: Option<&str>| {
            let target = target(arguments, &[]);
            Inputs::of(&graph(folder.path(), "FROM x\n"), &target, parent, &BTreeMap::new())
                .unwrap()
                .digest()
        };
        let first = made(&[("BASE_TAG", "1-main"), ("A", "1")], Some("sha256:1"));
        assert_eq!(made(&[("BASE_TAG", "1-other"), ("A", "1")], Some("sha256:1")), first);
        assert_ne!(made(&[("BASE_TAG", "1-main"), ("A", "1")], Some("sha256:2")), first);
        assert_ne!(made(&[("BASE_TAG", "1-main"), ("A", "2")], Some("sha256:1")), first);
        let unknown = Inputs::of(
            &graph(folder.path(), "FROM x\n"),
            &target(&[], &["debian:13"]),
            None,
            &BTreeMap::new(),
        );
        assert!(unknown.unwrap_err().to_string().contains("debian:13"));
    }

    #[test]
    fn the_sources_of_copies_are_read() {
        let paths = |text: &str| copied(text).into_iter().collect::<Vec<_>>().join(" ");
        assert_eq!(
            paths("FROM a\nCOPY --chown=1 x/ y /z\nADD [\"b c\", \"/d\"]\n"),
            "b c x/ y"
        );
        assert_eq!(
            paths("FROM a\nCOPY --from=b x y\nADD https://x.example/y z\nCOPY <<E /x\nhi\nE\n"),
            ""
        );
        assert_eq!(paths("FROM a\nARG V\nCOPY $V /x\n"), ".");
        assert_eq!(paths("FROM a\nCOPY / /x\n"), ".");
        assert_eq!(
            paths("FROM a\nRUN --mount=type=bind,source=r.txt,target=/r --mount=type=cache,target=/c x\n"),
            "r.txt"
        );
        assert_eq!(paths("FROM a\nRUN --mount=target=/src make\n"), ".");
        assert!(leaves_copies("FROM a\nONBUILD COPY . /x\n") && !leaves_copies("FROM a\nONBUILD RUN x\n"));
    }
}
