//! Whose stacks are used: those of the caller and of root, and those in directories that the caller's own configuration trusts;
//! as with projects. A stack runs programs, sends files to an engine, and pushes images with the caller's logins.

use std::path::{Path, PathBuf};

use dockerutils_core::config::stack::repository_root;
use dockerutils_core::config::trust::Caller;
use dockerutils_core::env::Env;
use dockerutils_core::error::Result;

use crate::graph::Graph;
use crate::spec::{FILE, IGNORE_FILE};
use crate::suites;

/// Checks the files that say what the stack is, before they are read.
///
/// # Errors
/// One of them, or a directory around it, belongs to another user.
pub(crate) fn check_spec(env: &Env, directory: &Path) -> Result<()> {
    let files = [directory.to_owned(), directory.join(FILE), directory.join(IGNORE_FILE)];
    Caller::of_process(env).check(&repository_root(directory), &files)
}

/// Checks what has an effect unasked: the images' directories, their Dockerfiles, what these leave out, and the tests.
///
/// # Errors
/// As [`check_spec`].
pub(crate) fn check_images(env: &Env, directory: &Path, graph: &Graph) -> Result<()> {
    let caller = Caller::of_process(env);
    let root = repository_root(directory);
    for image in &graph.images {
        let mut files: Vec<PathBuf> = vec![
            image.directory.clone(),
            image.dockerfile.clone(),
            image.directory.join(".dockerignore"),
        ];
        if let Some(name) = image.dockerfile.file_name() {
            let ignored = format!("{}.dockerignore", name.to_string_lossy());
            files.push(image.dockerfile.with_file_name(ignored));
        }
        files.extend(suites::all_folders(image));
        caller.check(&root, &files)?;
    }
    Ok(())
}
