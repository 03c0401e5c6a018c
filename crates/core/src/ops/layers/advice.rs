//! The line of advice for what an image has in vain.

use super::waste::{Cause, Waste};

/// What tools leave behind, known by where it lies.
pub(super) struct Cache {
    /// The names of its directory, one after the other; `*` before them stands for any directories, or none.
    names: &'static [&'static str],
    anywhere: bool,
    /// Whose it is.
    pub(super) what: &'static str,
    /// What the instruction that wrote it should do.
    mend: &'static str,
}

const fn at(names: &'static [&'static str], what: &'static str, mend: &'static str) -> Cache {
    Cache {
        names,
        anywhere: false,
        what,
        mend,
    }
}

const fn anywhere(names: &'static [&'static str], what: &'static str, mend: &'static str) -> Cache {
    Cache {
        names,
        anywhere: true,
        what,
        mend,
    }
}

/// The more particular ones first.
const CACHES: [Cache; 16] = [
    at(
        &["var", "lib", "apt", "lists"],
        "apt's lists of packages",
        "end that RUN with && rm -rf /var/lib/apt/lists/*",
    ),
    at(
        &["var", "cache", "apt"],
        "what apt downloaded",
        "begin that RUN with --mount=type=cache,target=/var/cache/apt",
    ),
    at(
        &["var", "cache", "dnf"],
        "what dnf downloaded",
        "end that RUN with && dnf clean all",
    ),
    at(
        &["var", "cache", "yum"],
        "what yum downloaded",
        "end that RUN with && yum clean all",
    ),
    at(
        &["var", "cache", "apk"],
        "what apk downloaded",
        "use apk add --no-cache in that RUN",
    ),
    anywhere(
        &[".cache", "pip"],
        "what pip downloaded",
        "use pip install --no-cache-dir in that RUN, or begin it with --mount=type=cache,target=/root/.cache/pip",
    ),
    anywhere(
        &[".cache", "uv"],
        "what uv downloaded",
        "begin that RUN with --mount=type=cache,target=/root/.cache/uv",
    ),
    anywhere(
        &[".cache", "go-build"],
        "Go's build cache",
        "begin that RUN with --mount=type=cache,target=/root/.cache/go-build, or build in an earlier stage",
    ),
    anywhere(
        &["conda", "pkgs"],
        "what conda downloaded",
        "end that RUN with && conda clean --all --yes",
    ),
    anywhere(
        &[".npm", "_cacache"],
        "what npm downloaded",
        "begin that RUN with --mount=type=cache,target=/root/.npm",
    ),
    anywhere(
        &[".cache", "yarn"],
        "what yarn downloaded",
        "end that RUN with && yarn cache clean",
    ),
    anywhere(
        &[".cargo", "registry"],
        "what cargo downloaded",
        "build in an earlier stage, and COPY --from it what is needed",
    ),
    anywhere(
        &[".cache"],
        "a cache",
        "delete it in the instruction that wrote it, or keep it in a --mount=type=cache",
    ),
    anywhere(
        &[".git"],
        "the history of a repository",
        "put a line .git into .dockerignore",
    ),
    at(
        &["tmp"],
        "temporary files",
        "delete them in the instruction that wrote them",
    ),
    at(
        &["var", "tmp"],
        "temporary files",
        "delete them in the instruction that wrote them",
    ),
];

impl Cache {
    /// How many names of the path lead to its directory, where the path lies in it.
    fn depth(&self, names: &[&[u8]]) -> Option<usize> {
        let starts_at = |at: &usize| {
            let part = names.get(*at..at + self.names.len());
            // Something must lie in it.
            part.is_some_and(|part| part.iter().zip(self.names).all(|(one, other)| *one == other.as_bytes()))
                && names.len() > at + self.names.len()
        };
        let last = if self.anywhere { names.len() } else { 1 };
        (0..last).find(starts_at).map(|at| at + self.names.len())
    }
}

/// How many names of the path lead to the cache that it lies in.
pub(super) fn cache_depth(path: &[u8]) -> Option<usize> {
    let names: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
    CACHES.iter().find_map(|cache| cache.depth(&names))
}

/// The cache whose directory this is.
pub(super) fn cache_of(directory: &[u8]) -> Option<&'static Cache> {
    let mut names: Vec<&[u8]> = directory.split(|byte| *byte == b'/').collect();
    let depth = names.len();
    names.push(b"*");
    CACHES.iter().find(|cache| cache.depth(&names) == Some(depth))
}

/// Why it is in vain, in a few words.
pub(super) fn why(waste: &Waste, line_of: &impl Fn(usize) -> Option<usize>) -> String {
    let what = waste
        .cache()
        .map(|cache| format!("{}, ", cache.what))
        .unwrap_or_default();
    match waste.cause {
        Cause::Deleted(layer) => format!("{what}deleted by {}", named(layer, line_of)),
        Cause::Replaced(layer) => format!("{what}written again by {}", named(layer, line_of)),
        Cause::Kept => waste.cache().map(|cache| cache.what).unwrap_or_default().to_owned(),
    }
}

/// What helps. `line` is that of the layer which has it.
pub(super) fn advice(waste: &Waste, line: Option<usize>, line_of: &impl Fn(usize) -> Option<usize>) -> String {
    let Some(line) = line else {
        return match waste.cause {
            Cause::Kept => "it comes with the base image: ask for a smaller one".to_owned(),
            Cause::Deleted(_) | Cause::Replaced(_) => {
                "it comes with the base image, which keeps it: leave it alone, or start from a smaller one".to_owned()
            }
        };
    };
    match (waste.cause, waste.cache()) {
        (_, Some(cache)) => format!("line {line}: {}", cache.mend),
        (Cause::Deleted(layer), None) => format!(
            "line {line}: delete it in the same RUN ({} comes too late), or write it in an earlier stage",
            named(layer, line_of)
        ),
        (Cause::Replaced(layer), None) => format!(
            "line {line}: do there what {} does (COPY has --chown and --chmod), or write it once",
            named(layer, line_of)
        ),
        (Cause::Kept, None) => format!("line {line}: delete it there"),
    }
}

fn named(layer: usize, line_of: &impl Fn(usize) -> Option<usize>) -> String {
    match line_of(layer) {
        Some(line) => format!("line {line}"),
        None => format!("layer {}", layer + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caches_are_known_by_where_they_lie() {
        let what = |path: &str| {
            let names: Vec<&[u8]> = path.as_bytes().split(|byte| *byte == b'/').collect();
            let depth = cache_depth(path.as_bytes())?;
            cache_of(&names[..depth].join(&b'/')).map(|cache| cache.what)
        };
        assert_eq!(what("var/lib/apt/lists/x"), Some("apt's lists of packages"));
        assert_eq!(what("srv/var/lib/apt/lists/x"), None);
        assert_eq!(what("root/.cache/pip/http/1"), Some("what pip downloaded"));
        assert_eq!(what("root/.cache/other"), Some("a cache"));
        assert_eq!(what("opt/conda/pkgs/a/b"), Some("what conda downloaded"));
        assert_eq!(what("app/.gitignore"), None);
        assert_eq!(what("app/.git/HEAD"), Some("the history of a repository"));
        assert_eq!(what("tmp/x"), Some("temporary files"));
        assert_eq!(what("tmp"), None);
    }

    #[test]
    fn advice_names_the_line_that_is_to_change() {
        let waste = |path: &str, cause| Waste {
            path: path.as_bytes().to_vec(),
            size: 1,
            cause,
        };
        let line_of = |layer: usize| [None, Some(3), Some(7)].get(layer).copied().flatten();
        let deleted = waste("opt/big", Cause::Deleted(2));
        assert_eq!(why(&deleted, &line_of), "deleted by line 7");
        assert!(advice(&deleted, Some(3), &line_of).starts_with("line 3: delete it in the same RUN (line 7 comes"));
        let lists = waste("var/lib/apt/lists", Cause::Deleted(2));
        assert_eq!(why(&lists, &line_of), "apt's lists of packages, deleted by line 7");
        assert_eq!(
            advice(&lists, Some(3), &line_of),
            "line 3: end that RUN with && rm -rf /var/lib/apt/lists/*"
        );
        assert!(advice(&lists, None, &line_of).contains("base image"));
        assert!(advice(&waste("a", Cause::Replaced(2)), Some(3), &line_of).contains("--chown"));
    }
}
