//! Paths as docker's client rewrites them: by their text alone, without a look at the disk.

use std::path::Path;

/// The shortest path that means the same: without `.` and doubled slashes, and without `..` and what it undoes (Go's
/// `path.Clean`).
pub(super) fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut kept: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if kept.last().is_some_and(|last| *last != "..") => {
                kept.pop();
            }
            ".." if rooted => {}
            part => kept.push(part),
        }
    }
    match (rooted, kept.is_empty()) {
        (true, _) => format!("/{}", kept.join("/")),
        (false, true) => ".".to_owned(),
        (false, false) => kept.join("/"),
    }
}

/// `path` made absolute, if a leading dot shows that it is a path.
pub(super) fn from_dot(path: &str, working_dir: &Path) -> Result<String, String> {
    if !path.starts_with('.') {
        return Ok(path.to_owned());
    }
    match working_dir.to_str() {
        Some(base) => Ok(clean(&format!("{base}/{path}"))),
        None => Err("is relative to the working directory, and that is not UTF-8".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_as_go_cleans_them() {
        for (path, cleaned) in [
            ("/a//b/./c/..", "/a/b"),
            ("/..", "/"),
            ("../a", "../a"),
            ("a/../..", ".."),
            ("", "."),
            ("a/..", "."),
            ("../../x", "../../x"),
            ("/", "/"),
        ] {
            assert_eq!(clean(path), cleaned, "{path}");
        }
    }

    #[test]
    fn only_a_leading_dot_means_the_working_directory() {
        let base = Path::new("/work/here");
        assert_eq!(from_dot(".", base).unwrap(), "/work/here");
        assert_eq!(from_dot("../x", base).unwrap(), "/work/x");
        assert_eq!(from_dot("x", base).unwrap(), "x");
        assert_eq!(from_dot("~/x", base).unwrap(), "~/x");
    }
}
