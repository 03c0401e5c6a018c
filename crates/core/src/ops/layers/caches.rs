//! Directories in which tools keep what an image does not need.

/// What tools leave behind, known by where it lies.
pub(super) struct Cache {
    /// The names of its directory, one after the other; `*` before them stands for any directories, or none.
    names: &'static [&'static str],
    anywhere: bool,
    /// Whose it is.
    pub(super) what: &'static str,
    /// What the instruction that wrote it should do.
    pub(super) mend: &'static str,
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
}
