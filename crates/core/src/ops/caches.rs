//! Directories in which tools keep what an image does not need: where they lie, who fills them, how they stay empty.

/// What tools leave behind, known by where it lies.
pub(in crate::ops) struct Cache {
    /// The names of its directory, one after the other; `*` before them stands for any directories, or none.
    names: &'static [&'static str],
    anywhere: bool,
    /// Whose it is.
    pub(in crate::ops) what: &'static str,
    /// What the instruction that wrote it should do.
    pub(in crate::ops) mend: &'static str,
    /// How it fills, if a command of a RUN shows it.
    pub(in crate::ops) filling: Option<Filling>,
}

/// How a cache fills, and stays empty.
pub(in crate::ops) struct Filling {
    /// The programs that fill it.
    pub(in crate::ops) programs: &'static [&'static str],
    /// The words of which one follows the program then.
    pub(in crate::ops) verbs: &'static [&'static str],
    /// The option that keeps it empty.
    pub(in crate::ops) option: Option<&'static str>,
    /// The variable that does the same.
    pub(in crate::ops) variable: Option<&'static str>,
    /// The command that empties it: a program, and the words that are among its own.
    pub(in crate::ops) cleaning: Option<&'static [&'static str]>,
    /// Where a cache mount keeps it out of the image.
    pub(in crate::ops) mount: &'static str,
    /// The variables that put the cache elsewhere.
    pub(in crate::ops) places: &'static [&'static str],
}

/// What fills nothing by itself.
const FILLING: Filling = Filling {
    programs: &[],
    verbs: &[],
    option: None,
    variable: None,
    cleaning: None,
    mount: "",
    places: &[],
};

const fn at(names: &'static [&'static str], what: &'static str, mend: &'static str) -> Cache {
    Cache {
        names,
        anywhere: false,
        what,
        mend,
        filling: None,
    }
}

const fn anywhere(names: &'static [&'static str], what: &'static str, mend: &'static str) -> Cache {
    Cache {
        names,
        anywhere: true,
        what,
        mend,
        filling: None,
    }
}

impl Cache {
    const fn filled(mut self, filling: Filling) -> Self {
        self.filling = Some(filling);
        self
    }

    /// Its directory, without a slash before it.
    pub(in crate::ops) fn directory(&self) -> String {
        self.names.join("/")
    }

    /// Whether `rm -rf` of this word empties it.
    pub(in crate::ops) fn is_emptied_by_deleting(&self, word: &str) -> bool {
        let word = word.trim_end_matches('*').trim_end_matches('/');
        let starts = (1..=self.names.len()).map(|count| self.names.get(..count).unwrap_or_default().join("/"));
        let mut starts = starts.skip(if self.anywhere { 0 } else { 1 });
        word.contains(&self.directory()) || starts.any(|start| word.ends_with(&format!("/{start}")))
    }
}

/// The cache that this program fills.
pub(in crate::ops) fn filled_by(program: &str) -> Option<(&'static Cache, &'static Filling)> {
    let mut caches = CACHES.iter().filter_map(|cache| Some((cache, cache.filling.as_ref()?)));
    caches.find(|(_, filling)| filling.programs.contains(&program))
}

/// The more particular ones first.
static CACHES: [Cache; 16] = [
    at(
        &["var", "lib", "apt", "lists"],
        "apt's lists of packages",
        "end that RUN with && rm -rf /var/lib/apt/lists/*",
    )
    .filled(Filling {
        programs: &["apt-get", "apt", "aptitude"],
        verbs: &["update"],
        mount: "/var/lib/apt",
        ..FILLING
    }),
    at(
        &["var", "cache", "apt"],
        "what apt downloaded",
        "begin that RUN with --mount=type=cache,target=/var/cache/apt",
    ),
    at(
        &["var", "cache", "dnf"],
        "what dnf downloaded",
        "end that RUN with && dnf clean all",
    )
    .filled(Filling {
        programs: &["dnf", "microdnf"],
        verbs: &["install", "update", "upgrade"],
        cleaning: Some(&["dnf", "clean"]),
        mount: "/var/cache/dnf",
        ..FILLING
    }),
    at(
        &["var", "cache", "yum"],
        "what yum downloaded",
        "end that RUN with && yum clean all",
    )
    .filled(Filling {
        programs: &["yum"],
        verbs: &["install", "update", "upgrade"],
        cleaning: Some(&["yum", "clean"]),
        mount: "/var/cache/yum",
        ..FILLING
    }),
    at(
        &["var", "cache", "apk"],
        "what apk downloaded",
        "use apk add --no-cache in that RUN",
    )
    .filled(Filling {
        programs: &["apk"],
        verbs: &["add", "update", "upgrade"],
        option: Some("--no-cache"),
        mount: "/var/cache/apk",
        ..FILLING
    }),
    anywhere(
        &[".cache", "pip"],
        "what pip downloaded",
        "use pip install --no-cache-dir in that RUN, or begin it with --mount=type=cache,target=/root/.cache/pip",
    )
    .filled(Filling {
        programs: &["pip", "pip3", "pip2"],
        verbs: &["install", "wheel", "download"],
        option: Some("--no-cache-dir"),
        variable: Some("PIP_NO_CACHE_DIR"),
        cleaning: Some(&["pip", "cache", "purge"]),
        mount: "/root/.cache/pip",
        places: &["PIP_CACHE_DIR", "XDG_CACHE_HOME"],
    }),
    anywhere(
        &[".cache", "uv"],
        "what uv downloaded",
        "begin that RUN with --mount=type=cache,target=/root/.cache/uv",
    )
    .filled(Filling {
        programs: &["uv"],
        verbs: &["pip", "sync", "add"],
        option: Some("--no-cache"),
        variable: Some("UV_NO_CACHE"),
        cleaning: Some(&["uv", "cache", "clean"]),
        mount: "/root/.cache/uv",
        places: &["UV_CACHE_DIR", "XDG_CACHE_HOME"],
    }),
    anywhere(
        &[".cache", "go-build"],
        "Go's build cache",
        "begin that RUN with --mount=type=cache,target=/root/.cache/go-build, or build in an earlier stage",
    ),
    anywhere(
        &["conda", "pkgs"],
        "what conda downloaded",
        "end that RUN with && conda clean --all --yes",
    )
    .filled(Filling {
        programs: &["conda", "mamba", "micromamba"],
        verbs: &["install", "create", "update", "upgrade", "env"],
        cleaning: Some(&["conda", "clean"]),
        mount: "/opt/conda/pkgs",
        ..FILLING
    }),
    anywhere(
        &[".npm", "_cacache"],
        "what npm downloaded",
        "begin that RUN with --mount=type=cache,target=/root/.npm",
    )
    .filled(Filling {
        programs: &["npm"],
        verbs: &["install", "ci", "i"],
        cleaning: Some(&["npm", "cache", "clean"]),
        mount: "/root/.npm",
        places: &["npm_config_cache", "NPM_CONFIG_CACHE"],
        ..FILLING
    }),
    anywhere(
        &[".cache", "yarn"],
        "what yarn downloaded",
        "end that RUN with && yarn cache clean",
    )
    .filled(Filling {
        programs: &["yarn"],
        verbs: &["install", "add", "global"],
        cleaning: Some(&["yarn", "cache", "clean"]),
        mount: "/usr/local/share/.cache/yarn",
        ..FILLING
    }),
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
pub(in crate::ops) fn cache_depth(path: &[u8]) -> Option<usize> {
    let names: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
    CACHES.iter().find_map(|cache| cache.depth(&names))
}

/// The cache whose directory this is.
pub(in crate::ops) fn cache_of(directory: &[u8]) -> Option<&'static Cache> {
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
