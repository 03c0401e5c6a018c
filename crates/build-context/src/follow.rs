//! Symbolic links on the way to the paths that a builder asks for.
//!
//! `COPY link/file` needs the link and what it leads to, so BuildKit names the paths that it will read
//! (`followpaths`) and the client adds what their links point to, as fsutil's `FollowLinks` does. The
//! context is `/` to a link: none leads out of it.

use std::collections::BTreeSet;

use super::ignore::clean;
use super::pattern::Matcher;
use super::walk::{ContextDir, WalkError};

/// The paths and all that their symbolic links lead to, sorted, without what lies below another of them.
///
/// `None` where that is everything, or where there were no paths.
pub(super) fn follow_links(context: &ContextDir, paths: &[Vec<u8>]) -> Result<Option<Vec<Vec<u8>>>, WalkError> {
    let mut resolved = BTreeSet::new();
    let mut queue: Vec<Vec<u8>> = paths.iter().rev().cloned().collect();
    while let Some(path) = queue.pop() {
        follow(context, &path, &mut resolved, &mut queue)?;
    }
    if paths.is_empty() {
        return Ok(None);
    }
    Ok(without_nested(resolved))
}

/// Goes along one path up to its first link, whose targets are queued.
fn follow(
    context: &ContextDir,
    path: &[u8],
    resolved: &mut BTreeSet<Vec<u8>>,
    queue: &mut Vec<Vec<u8>>,
) -> Result<(), WalkError> {
    let path = relative(path);
    let ends = path
        .iter()
        .enumerate()
        .filter_map(|(index, byte)| (*byte == b'/').then_some(index))
        .chain([path.len()]);
    for end in ends {
        let (current, rest) = path.split_at_checked(end).unwrap_or((&path, b""));
        let targets = targets(context, current)?;
        if targets.is_empty() && !rest.is_empty() {
            continue;
        }
        if resolved.insert(current.to_vec()) {
            queue.extend(targets.into_iter().rev().map(|target| [&target, rest].concat()));
        }
        break;
    }
    Ok(())
}

/// What a path, or any path that its last name matches, links to.
fn targets(context: &ContextDir, path: &[u8]) -> Result<Vec<Vec<u8>>, WalkError> {
    let (parent, name) = match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => path.split_at_checked(slash + 1).unwrap_or((b"", path)),
        None => (b"".as_slice(), path),
    };
    if !has_wildcard(name) {
        return Ok(target(context, parent, name)?.into_iter().collect());
    }
    let Ok(matcher) = Matcher::of_name(name) else {
        return Ok(Vec::new());
    };
    let directory = parent.strip_suffix(b"/").unwrap_or(parent);
    let mut targets = Vec::new();
    for name in context.names_in(directory)? {
        if matcher.matches(&name) {
            targets.extend(target(context, parent, &name)?);
        }
    }
    Ok(targets)
}

/// Where one symbolic link leads, from the context's root.
fn target(context: &ContextDir, parent: &[u8], name: &[u8]) -> Result<Option<Vec<u8>>, WalkError> {
    if matches!(name, b"." | b"..") {
        return Ok(None);
    }
    let target = context.read_link(&[parent, name].concat())?;
    Ok(target.map(|target| {
        if target.starts_with(b"/") {
            clean(&target)
        } else {
            clean(&[b"/", parent, &target].concat())
        }
    }))
}

/// A path inside the context, which is the root of all paths.
fn relative(path: &[u8]) -> Vec<u8> {
    let path = clean(&[b"/", path].concat());
    match path.strip_prefix(b"/") {
        Some(path) if !path.is_empty() => path.to_vec(),
        _ => b".".to_vec(),
    }
}

fn has_wildcard(name: &[u8]) -> bool {
    let mut bytes = name.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => {
                bytes.next();
            }
            b'*' | b'?' | b'[' => return true,
            _ => {}
        }
    }
    false
}

/// Drops the paths that lie below the one before them. `None` when the context itself is among them.
pub(super) fn without_nested(paths: impl IntoIterator<Item = Vec<u8>>) -> Option<Vec<Vec<u8>>> {
    let mut kept: Vec<Vec<u8>> = Vec::new();
    for path in paths {
        if path == b"." {
            return None;
        }
        let above = kept.last().map_or(b"".as_slice(), Vec::as_slice);
        let below = path.strip_prefix(above).is_some_and(|rest| rest.starts_with(b"/"));
        if !below {
            kept.push(path);
        }
    }
    Some(kept)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::*;

    fn followed(root: &Path, paths: &[&str]) -> Option<Vec<String>> {
        let context = ContextDir::open(root).unwrap();
        let paths: Vec<_> = paths.iter().map(|path| path.as_bytes().to_vec()).collect();
        let found = follow_links(&context, &paths).unwrap()?;
        Some(found.into_iter().map(|path| String::from_utf8(path).unwrap()).collect())
    }

    #[track_caller]
    fn check(root: &Path, paths: &[&str], expected: &[&str]) {
        let expected = expected.iter().map(|path| (*path).to_owned()).collect();
        assert_eq!(followed(root, paths), Some(expected));
    }

    #[test]
    fn links_lead_to_links() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        fs::create_dir(root.join("dir")).unwrap();
        fs::write(root.join("dir/file"), "").unwrap();
        symlink("file", root.join("dir/near")).unwrap();
        symlink("dir/near", root.join("far")).unwrap();
        symlink("dir", root.join("to-dir")).unwrap();
        check(root, &["far"], &["dir/file", "dir/near", "far"]);
        check(root, &["to-dir/near"], &["dir/file", "dir/near", "to-dir"]);
        check(root, &["dir/near", "dir"], &["dir"]);
        check(
            root,
            &["far", "nowhere/x"],
            &["dir/file", "dir/near", "far", "nowhere/x"],
        );
    }

    #[test]
    fn no_link_leads_out() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        symlink("/etc/passwd", root.join("absolute")).unwrap();
        symlink("../../../etc/passwd", root.join("up")).unwrap();
        check(root, &["absolute", "../up"], &["absolute", "etc/passwd", "up"]);
    }

    #[test]
    fn circles_end() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        symlink("self", root.join("self")).unwrap();
        symlink("b", root.join("a")).unwrap();
        symlink("a", root.join("b")).unwrap();
        symlink("deeper/x", root.join("deeper")).unwrap();
        check(root, &["self", "a"], &["a", "b", "self"]);
        check(root, &["deeper"], &["deeper"]);
    }

    #[test]
    fn wildcards_find_links() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        fs::create_dir(root.join("dir")).unwrap();
        symlink("/one", root.join("dir/l1")).unwrap();
        symlink("../two", root.join("dir/l2")).unwrap();
        symlink("/three", root.join("dir/other")).unwrap();
        check(root, &["dir/l*"], &["dir/l*", "one", "two"]);
        check(root, &["x*/y"], &["x*/y"]);
        symlink("dir", root.join("link")).unwrap();
        check(root, &["lin?/l1"], &["dir/l1", "lin?", "one"]);
    }

    #[test]
    fn the_context_itself_is_everything() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        symlink("/", root.join("all")).unwrap();
        assert_eq!(followed(root, &["."]), None);
        assert_eq!(followed(root, &["all", "x"]), None);
        assert_eq!(followed(root, &[]), None);
    }
}
