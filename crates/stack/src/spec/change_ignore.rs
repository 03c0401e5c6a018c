//! `change_ignore.json`: which changes beside the images rebuild all of them, and which none.

use std::io;
use std::path::Path;

use dockerutils_core::error::{Error, Result};
use dockerutils_core::project_file;
use serde::Deserialize;

/// The name of the file in the directory of the images.
/// The name of the file.
pub const FILE: &str = "change_ignore.json";

/// The content of `change_ignore.json`. Its names are compared with the path component after the images' directory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields, default)]
pub struct ChangeIgnore {
    /// A change in one of these rebuilds nothing.
    pub change_ignore: Vec<String>,
    /// A change in one of these rebuilds all images.
    pub build_all: Vec<String>,
}

impl ChangeIgnore {
    /// Reads the file in the directory of the images; without one, nothing is named.
    ///
    /// # Errors
    /// A file that can't be read, or says something else.
    pub fn read(directory: &Path) -> Result<Self> {
        let path = directory.join(FILE);
        let text = match project_file::read(&path) {
            Ok(text) => text,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(cause) => return Err(Error::usage(format!("{} can't be read", path.display())).because(cause)),
        };
        serde_json::from_slice(&text).map_err(|cause| {
            let said = cause.to_string();
            // It repeats the place at its end.
            let message = said.split(" at line ").next().unwrap_or_default().to_owned();
            Error::usage(format!(
                "{}:{}:{}: {message}",
                path.display(),
                cause.line(),
                cause.column()
            ))
            .hint(r#"for example: {"ChangeIgnore": ["docs"], "BuildAll": ["tests_common"]}"#)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn it_is_read_and_its_errors_have_a_place() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(ChangeIgnore::read(folder.path()).unwrap(), ChangeIgnore::default());
        let read = |text: &str| {
            fs::write(folder.path().join(FILE), text).unwrap();
            ChangeIgnore::read(folder.path())
        };
        let both = read("{\n  \"ChangeIgnore\": [],\n  \"BuildAll\": [\"shared\", \"spec.yml\"]\n}").unwrap();
        assert_eq!(both.build_all, ["shared", "spec.yml"]);
        let error = read("{\n  \"BuildEverything\": []\n}").unwrap_err().to_string();
        assert!(
            error.ends_with(
                "change_ignore.json:2:19: unknown field `BuildEverything`, expected `ChangeIgnore` or `BuildAll`"
            ),
            "{error}"
        );
    }
}
