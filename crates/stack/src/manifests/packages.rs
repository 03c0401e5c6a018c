//! The packages in an image, and in what two lists of them differ.
//!
//! They are asked of the tools themselves, in the forms that are made for programs: `dpkg-query`, `conda list --json`,
//! `pip list --format json`. Nobody's own commands are parsed.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The most packages of a manager, and the most characters of a name or version.
const MOST: usize = 20_000;
const LONGEST: usize = 200;
/// The fields of `dpkg-query` (dpkg-query(1)): the second letter of the status is `i` for what is installed.
const DPKG_FORMAT: &str = "${binary:Package}\\t${Version}\\t${db:Status-Abbrev}\\n";
/// The channel that conda names for what pip installed.
const OF_PIP: &str = "pypi";

/// What installs packages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PackageManager {
    /// Debian's and Ubuntu's.
    Apt,
    /// conda, mamba or micromamba.
    Conda,
    /// Python's own.
    Pip,
}

/// All of them, in the order of pages.
pub const MANAGERS: [PackageManager; 3] = [PackageManager::Apt, PackageManager::Conda, PackageManager::Pip];

/// Names with versions.
pub type PackageVersions = BTreeMap<String, String>;

/// The packages of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackageLists {
    /// By manager; one that is not in the image is not here.
    #[serde(flatten)]
    pub lists: BTreeMap<PackageManager, PackageVersions>,
    /// Those that are there, and gave no list that can be read.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub unknown: BTreeSet<PackageManager>,
}

/// In what packages differ from those of another image, by manager; one without a difference is not here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackageDiff(pub BTreeMap<PackageManager, ManagerDiff>);

/// Differences of one manager's packages.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManagerDiff {
    /// With their versions now.
    pub came: PackageVersions,
    /// With their versions before.
    pub went: PackageVersions,
    /// With their versions before and now.
    pub changed: BTreeMap<String, [String; 2]>,
}

impl PackageManager {
    /// What people call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Apt => "apt",
            Self::Conda => "conda",
            Self::Pip => "pip",
        }
    }

    /// The commands that list its packages, each for an image in which those before are not there or fail.
    pub(super) const fn commands(self) -> &'static [&'static [&'static str]] {
        match self {
            Self::Apt => &[&["dpkg-query", "--show", "--showformat", DPKG_FORMAT]],
            Self::Conda => &[
                &["conda", "list", "--json"],
                &["mamba", "list", "--json"],
                // Nothing is activated in a container whose entry point was not run.
                &["micromamba", "list", "--name", "base", "--json"],
            ],
            Self::Pip => &[
                &["python", "-m", "pip", "list", "--format", "json"],
                &["python3", "-m", "pip", "list", "--format", "json"],
                &["pip", "list", "--format", "json"],
            ],
        }
    }

    /// The packages in the output of one of these commands; `None` if it is something else.
    pub(super) fn read(self, output: &str) -> Option<PackageVersions> {
        let found: Vec<(String, String)> = match self {
            Self::Apt => dpkg(output)?,
            Self::Conda => listed(output, |entry| {
                entry.get("channel").and_then(Value::as_str) != Some(OF_PIP)
            })?,
            Self::Pip => listed(output, |_| true)?,
        };
        let is_short = |text: &str| !text.is_empty() && text.chars().count() <= LONGEST;
        let found = found
            .into_iter()
            .filter(|(name, version)| is_short(name) && is_short(version));
        Some(found.take(MOST).collect())
    }
}

/// Lines of [`DPKG_FORMAT`]. The architecture in a name stays only where a package is there for several.
fn dpkg(output: &str) -> Option<Vec<(String, String)>> {
    let mut found = Vec::new();
    for line in output.lines() {
        let mut fields = line.split('\t');
        let (name, version, status) = (fields.next()?, fields.next()?, fields.next()?);
        if status.chars().nth(1) == Some('i') {
            found.push((name.to_owned(), version.to_owned()));
        }
    }
    let plain = |name: &str| name.split(':').next().unwrap_or_default().to_owned();
    let mut times: BTreeMap<String, usize> = BTreeMap::new();
    for (name, _) in &found {
        *times.entry(plain(name)).or_default() += 1;
    }
    for (name, _) in &mut found {
        let short = plain(name);
        if times.get(&short) == Some(&1) {
            *name = short;
        }
    }
    Some(found)
}

/// The entries of a JSON list with `name` and `version`.
fn listed(output: &str, counts: impl Fn(&Value) -> bool) -> Option<Vec<(String, String)>> {
    // Warnings may come before it.
    let begin = output.find("[{").or_else(|| output.find('['))?;
    let mut documents = serde_json::Deserializer::from_str(output.get(begin..)?).into_iter::<Vec<Value>>();
    let entries = documents.next()?.ok()?;
    let field = |entry: &Value, name: &str| entry.get(name).and_then(Value::as_str).map(str::to_owned);
    let entries = entries.iter().filter(|entry| counts(entry));
    entries
        .map(|entry| Some((field(entry, "name")?, field(entry, "version")?)))
        .collect()
}

/// A name of a Python package as all its spellings have it (PEP 503).
fn normalized(name: &str) -> String {
    let mut made = String::with_capacity(name.len());
    for c in name.chars() {
        let c = if matches!(c, '-' | '_' | '.') {
            '-'
        } else {
            c.to_ascii_lowercase()
        };
        if c != '-' || !made.ends_with('-') {
            made.push(c);
        }
    }
    made
}

impl PackageLists {
    /// Leaves out of pip's list what conda installed: it would be said twice.
    pub(super) fn without_doubles(mut self) -> Self {
        let Some(conda) = self.lists.get(&PackageManager::Conda) else {
            return self;
        };
        let of_conda: BTreeSet<(String, String)> = conda
            .iter()
            .map(|(name, version)| (normalized(name), version.clone()))
            .collect();
        if let Some(pip) = self.lists.get_mut(&PackageManager::Pip) {
            pip.retain(|name, version| !of_conda.contains(&(normalized(name), version.clone())));
        }
        self
    }

    /// How many packages there are.
    pub fn count(&self) -> usize {
        self.lists.values().map(BTreeMap::len).sum()
    }

    /// In what these differ from those of another image. What is not known of one of them is no difference.
    pub fn since(&self, before: &Self) -> PackageDiff {
        let none = PackageVersions::new();
        let known = MANAGERS
            .into_iter()
            .filter(|manager| !self.unknown.contains(manager) && !before.unknown.contains(manager));
        let differences = known.map(|manager| {
            let old = before.lists.get(&manager).unwrap_or(&none);
            let new = self.lists.get(&manager).unwrap_or(&none);
            (manager, ManagerDiff::between(old, new))
        });
        PackageDiff(differences.filter(|(_, difference)| !difference.is_empty()).collect())
    }
}

impl ManagerDiff {
    fn between(old: &PackageVersions, new: &PackageVersions) -> Self {
        let absent_in = |from: &PackageVersions, other: &PackageVersions| -> PackageVersions {
            let from = from.iter().filter(|(name, _)| !other.contains_key(*name));
            from.map(|(name, version)| (name.clone(), version.clone())).collect()
        };
        let changed = old.iter().filter_map(|(name, before)| {
            let now = new.get(name).filter(|now| *now != before)?;
            Some((name.clone(), [before.clone(), now.clone()]))
        });
        Self {
            came: absent_in(new, old),
            went: absent_in(old, new),
            changed: changed.collect(),
        }
    }

    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.came.is_empty() && self.went.is_empty() && self.changed.is_empty()
    }
}

impl PackageDiff {
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many packages came, went and changed.
    pub fn counts(&self) -> [usize; 3] {
        let sum = |count: fn(&ManagerDiff) -> usize| self.0.values().map(count).sum();
        [
            sum(|difference| difference.came.len()),
            sum(|difference| difference.went.len()),
            sum(|difference| difference.changed.len()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn versions(pairs: &[(&str, &str)]) -> PackageVersions {
        let owned = |(name, version): &(&str, &str)| ((*name).to_owned(), (*version).to_owned());
        pairs.iter().map(owned).collect()
    }

    #[test]
    fn each_tool_is_read_in_its_own_form() {
        let dpkg = "adduser\t3.134\tii \nlibc6:amd64\t2.36-9\tii \nlibc6:i386\t2.36-9\tii \nzlib1g:amd64\t1:1.2\tii \nvim\t9\trc \n";
        assert_eq!(
            PackageManager::Apt.read(dpkg).unwrap(),
            versions(&[
                ("adduser", "3.134"),
                ("libc6:amd64", "2.36-9"),
                ("libc6:i386", "2.36-9"),
                ("zlib1g", "1:1.2")
            ]),
            "vim was removed, and only its configuration is left"
        );
        let conda = r#"[{"base_url": "x", "build_string": "h1", "channel": "conda-forge", "name": "numpy", "version": "2.1"},
            {"channel": "pypi", "name": "nbgitpuller", "version": "1.2"}]"#;
        assert_eq!(
            PackageManager::Conda.read(conda).unwrap(),
            versions(&[("numpy", "2.1")])
        );
        let pip = "WARNING: [notice] is old\n[{\"name\": \"numpy\", \"version\": \"2.1\"}, {\"name\": \"Nbgitpuller\", \"version\": \"1.2\"}]\n";
        assert_eq!(
            PackageManager::Pip.read(pip).unwrap(),
            versions(&[("Nbgitpuller", "1.2"), ("numpy", "2.1")])
        );
        assert_eq!(PackageManager::Pip.read("[]"), Some(PackageVersions::new()));
        for (manager, output) in [
            (PackageManager::Apt, "no packages found"),
            (PackageManager::Pip, "Package Version\nx 1"),
            (PackageManager::Pip, "[{\"name\": 1}]"),
            (PackageManager::Conda, "[{\"name\": \"x\""),
        ] {
            assert_eq!(manager.read(output), None, "{output}");
        }
    }

    #[test]
    fn lists_are_bounded() {
        let long = "x".repeat(LONGEST + 1);
        let entries: Vec<Value> = (0..MOST + 5)
            .map(|number| serde_json::json!({ "name": format!("p{number}"), "version": "1" }))
            .chain([serde_json::json!({ "name": long, "version": "1" })])
            .collect();
        let read = PackageManager::Pip.read(&Value::from(entries).to_string()).unwrap();
        assert_eq!(read.len(), MOST);
    }

    #[test]
    fn what_conda_installed_is_not_said_twice() {
        let lists = PackageLists {
            lists: BTreeMap::from([
                (PackageManager::Conda, versions(&[("ruamel.yaml", "1"), ("six", "2")])),
                (
                    PackageManager::Pip,
                    versions(&[("Ruamel_Yaml", "1"), ("six", "3"), ("own", "1")]),
                ),
            ]),
            unknown: BTreeSet::new(),
        };
        let lists = lists.without_doubles();
        assert_eq!(
            lists.lists[&PackageManager::Pip],
            versions(&[("own", "1"), ("six", "3")])
        );
        assert_eq!(lists.count(), 4);
    }

    #[test]
    fn what_came_went_and_changed_is_told_apart_and_survives_json() {
        let before = PackageLists {
            lists: BTreeMap::from([
                (PackageManager::Apt, versions(&[("a", "1"), ("b", "1"), ("c", "1")])),
                (PackageManager::Conda, versions(&[("x", "1")])),
            ]),
            unknown: BTreeSet::new(),
        };
        let now = PackageLists {
            lists: BTreeMap::from([
                (PackageManager::Apt, versions(&[("a", "1"), ("b", "2"), ("d", "1")])),
                (PackageManager::Pip, versions(&[("p", "1")])),
            ]),
            unknown: BTreeSet::from([PackageManager::Conda]),
        };
        let difference = now.since(&before);
        let expected = serde_json::json!({
            "apt": { "came": { "d": "1" }, "went": { "c": "1" }, "changed": { "b": ["1", "2"] } },
            "pip": { "came": { "p": "1" }, "went": {}, "changed": {} },
        });
        assert_eq!(
            serde_json::to_value(&difference).unwrap(),
            expected,
            "conda's are not known"
        );
        assert_eq!(difference.counts(), [2, 1, 1]);
        assert!(now.since(&now).is_empty());
        let text = serde_json::to_string(&now).unwrap();
        assert_eq!(serde_json::from_str::<PackageLists>(&text).unwrap(), now, "{text}");
    }
}
