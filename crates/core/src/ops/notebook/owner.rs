//! Whose files a notebook's are: they belong to who owns the mounted project, and never to root unless that is root.
//!
//! Facts: docker-stacks' `start.sh` (as root it makes its user NB_UID and NB_GID; NB_USER=root with both 0 is for engines
//! without root), and the engine's security options `name=rootless` and `name=userns`.

use super::hub_home::HOME;
use super::image_kind::{ImageKind, NotebookImage};

/// Where a project is mounted, for every image.
pub const PROJECT_MOUNT: &str = "/home/jovyan/project";
/// Where else it is mounted if docker-stacks' user is root. Its start script copies all of /home/jovyan, the project
/// included, to a home that is not there yet; a mount in it makes it be there, and the server sees the project, not a copy.
const ROOT_MOUNT: &str = "/home/root/project";

/// How an engine maps the users of its containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserMapping {
    /// A number inside is the same number outside.
    None,
    /// Root inside is the engine's own user outside.
    Rootless,
    /// Root inside is a user outside that owns nothing (userns-remap).
    Remapped,
    /// Files belong to the user, whoever makes them inside: Docker Desktop shares the home folder so.
    Shared,
}

impl UserMapping {
    /// The mapping of an engine with these security options, on this operating system.
    pub fn of(security_options: &[String], operating_system: &str) -> Self {
        let has = |name: &str| {
            let options = security_options.iter().flat_map(|option| option.split(','));
            options.into_iter().any(|option| option == format!("name={name}"))
        };
        if operating_system.contains("Docker Desktop") {
            Self::Shared
        } else if has("rootless") {
            Self::Rootless
        } else if has("userns") {
            Self::Remapped
        } else {
            Self::None
        }
    }
}

/// What the decision depends on.
#[derive(Clone, Copy, Debug)]
pub struct OwnerFacts<'a> {
    pub kind: ImageKind,
    pub image: &'a NotebookImage,
    pub mapping: UserMapping,
    /// User and group that own the project on the engine's machine; `None` if that is not known.
    pub owner: Option<(u32, u32)>,
    /// Whether a container may start as root to become that user.
    pub root_wanted: bool,
    /// The user that the configuration says.
    pub configured: Option<&'a str>,
    /// Whether a volume is mounted over the home folder, as a hub does.
    pub as_hub: bool,
}

/// The decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileOwner {
    /// Options of `docker run`.
    pub options: Vec<String>,
    /// Whether the server runs as root.
    pub as_root: bool,
    /// The home folder inside.
    pub home: String,
    /// User and group that the server runs as, if they are known as numbers.
    pub user: Option<(u32, u32)>,
    /// Where the project is mounted.
    pub mounts: Vec<&'static str>,
    /// How it was decided.
    pub reason: String,
}

impl FileOwner {
    /// Decides.
    pub fn of(facts: &OwnerFacts<'_>) -> Self {
        let OwnerFacts { kind, image, .. } = *facts;
        let is_root = image.runs_as_root();
        let own_home = || match image.variable("HOME") {
            Some(home) => home.to_owned(),
            None if kind == ImageKind::DockerStacks => "/home/jovyan".to_owned(),
            None if kind == ImageKind::RStudio => "/home/rstudio".to_owned(),
            None if is_root => "/root".to_owned(),
            None => format!("/home/{}", image.user.split(':').next().unwrap_or_default()),
        };
        let unchanged = |reason: String| Self {
            options: Vec::new(),
            as_root: is_root && kind != ImageKind::DockerStacks,
            home: own_home(),
            user: numbers(facts.configured.unwrap_or(&image.user)),
            mounts: vec![PROJECT_MOUNT],
            reason,
        };
        if facts.configured.is_some() {
            return unchanged("files belong to the user that [notebook] names".to_owned());
        }
        if kind == ImageKind::Page {
            return unchanged("files belong to the user that the image runs as".to_owned());
        }
        match (facts.mapping, facts.owner) {
            (UserMapping::Shared, _) => unchanged("files belong to you: Docker Desktop shares them so".to_owned()),
            (UserMapping::Remapped, _) => unchanged(
                "files will not belong to you: the engine maps the users of its containers to others (userns-remap); args = \
                 --userns=host in [notebook] turns that off for the notebook"
                    .to_owned(),
            ),
            (UserMapping::None, None) => unchanged(
                "files belong to the user that the image runs as: who owns the project on the engine's machine is not known"
                    .to_owned(),
            ),
            (UserMapping::Rootless, _) => Self::root(facts, "the engine runs without root: its root is you"),
            (UserMapping::None, Some((0, _))) => Self::root(facts, "the project belongs to root"),
            (UserMapping::None, Some((user, group))) => Self::user(facts, user, group, &unchanged),
        }
    }

    /// As root inside.
    fn root(facts: &OwnerFacts<'_>, why: &str) -> Self {
        let (options, home, mounts): (&[&str], &str, Vec<&str>) = match facts.kind {
            ImageKind::DockerStacks => (
                &[
                    "--user",
                    "root",
                    "-e",
                    "NB_USER=root",
                    "-e",
                    "NB_UID=0",
                    "-e",
                    "NB_GID=0",
                ],
                "/home/root",
                vec![PROJECT_MOUNT, ROOT_MOUNT],
            ),
            ImageKind::RStudio => (&["-e", "USERID=0", "-e", "GROUPID=0"], "/root", vec![PROJECT_MOUNT]),
            _ if facts.image.runs_as_root() => (&[], "/root", vec![PROJECT_MOUNT]),
            _ => (&["--user", "0:0"], "/root", vec![PROJECT_MOUNT]),
        };
        // A home that the image sets is that of its own user: its configuration is there.
        let home = match facts.image.variable("HOME") {
            Some(home) if facts.kind != ImageKind::DockerStacks => home,
            _ => home,
        };
        Self {
            options: options.iter().map(|word| (*word).to_owned()).collect(),
            as_root: true,
            home: home.to_owned(),
            user: Some((0, 0)),
            mounts,
            reason: format!("the notebook runs as root: {why}"),
        }
    }

    /// As this user.
    fn user(facts: &OwnerFacts<'_>, user: u32, group: u32, unchanged: &impl Fn(String) -> Self) -> Self {
        let OwnerFacts { kind, image, .. } = *facts;
        let owned = format!("files belong to user {user}, group {group}, who owns the project");
        if kind == ImageKind::DockerStacks && facts.root_wanted {
            return Self {
                options: ["--user", "root", "-e"]
                    .map(str::to_owned)
                    .into_iter()
                    .chain([format!("NB_UID={user}"), "-e".to_owned(), format!("NB_GID={group}")])
                    .collect(),
                user: Some((user, group)),
                ..unchanged(format!("{owned}: the image starts as root and becomes that user"))
            };
        }
        if kind == ImageKind::RStudio {
            return Self {
                options: vec![
                    "-e".to_owned(),
                    format!("USERID={user}"),
                    "-e".to_owned(),
                    format!("GROUPID={group}"),
                ],
                user: Some((user, group)),
                ..unchanged(format!("{owned}: the image's user gets these numbers"))
            };
        }
        let mut options = vec!["--user".to_owned(), format!("{user}:{group}")];
        let mut home = unchanged(String::new()).home;
        if image.runs_as_root() || (image.variable("HOME").is_none() && kind != ImageKind::DockerStacks) {
            // The user has no home in the image, and docker would make it /. A hub's volume can be the home of anybody.
            home = if facts.as_hub { HOME } else { "/tmp" }.to_owned();
            options.extend(["-e".to_owned(), format!("HOME={home}")]);
        } else {
            // Homes of such images may be written to by the group: 100 is `users` wherever there is one.
            options.extend(["--group-add".to_owned(), "users".to_owned()]);
        }
        Self {
            options,
            as_root: false,
            home,
            user: Some((user, group)),
            ..unchanged(format!("{owned}: the notebook runs as that user"))
        }
    }
}

/// User and group, where both are numbers: `1000:100`. A user alone has the group of root, or one that the image knows.
fn numbers(user: &str) -> Option<(u32, u32)> {
    let (user, group) = user.split_once(':').unwrap_or((user, "0"));
    Some((user.parse().ok()?, group.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::super::image_kind::AskedPage;
    use super::super::image_kind::tests::image;
    use super::*;

    fn decided(image: &NotebookImage, mapping: UserMapping, owner: Option<(u32, u32)>, root_wanted: bool) -> FileOwner {
        FileOwner::of(&OwnerFacts {
            kind: image.kind(false, AskedPage::default()),
            image,
            mapping,
            owner,
            root_wanted,
            configured: None,
            as_hub: false,
        })
    }

    fn stacks() -> NotebookImage {
        NotebookImage {
            user: "1000".into(),
            ..image("tini -g -- start.sh", "start-notebook.py")
        }
    }

    fn options(image: &NotebookImage, mapping: UserMapping, owner: Option<(u32, u32)>) -> String {
        decided(image, mapping, owner, true).options.join(" ")
    }

    #[test]
    fn docker_stacks_becomes_the_user_with_root_or_without() {
        let ann = Some((1234, 99));
        assert_eq!(
            options(&stacks(), UserMapping::None, ann),
            "--user root -e NB_UID=1234 -e NB_GID=99"
        );
        let without = decided(&stacks(), UserMapping::None, ann, false);
        assert_eq!(without.options.join(" "), "--user 1234:99 --group-add users");
        assert_eq!((without.home.as_str(), without.as_root), ("/home/jovyan", false));
        let root = decided(&stacks(), UserMapping::None, Some((0, 0)), true);
        let rootless = decided(&stacks(), UserMapping::Rootless, ann, true);
        assert_eq!(root.options, rootless.options);
        assert_eq!(
            rootless.options.join(" "),
            "--user root -e NB_USER=root -e NB_UID=0 -e NB_GID=0"
        );
        // Its start script must not copy the project to root's home.
        assert_eq!(rootless.mounts, ["/home/jovyan/project", "/home/root/project"]);
        assert!(rootless.as_root && rootless.reason.contains("without root"));
    }

    #[test]
    fn other_images_run_as_the_user() {
        let ann = Some((1234, 99));
        let root = image("", "jupyter lab");
        assert_eq!(options(&root, UserMapping::None, ann), "--user 1234:99 -e HOME=/tmp");
        let mut own = NotebookImage {
            user: "nb".into(),
            ..image("tini --", "jupyter lab")
        };
        assert_eq!(options(&own, UserMapping::None, ann), "--user 1234:99 -e HOME=/tmp");
        own.variables.insert("HOME".into(), "/home/nb".into());
        assert_eq!(
            options(&own, UserMapping::None, ann),
            "--user 1234:99 --group-add users"
        );
        assert_eq!(options(&own, UserMapping::Rootless, ann), "--user 0:0");
        assert_eq!(options(&root, UserMapping::Rootless, ann), "");
        assert!(decided(&root, UserMapping::Rootless, ann, true).as_root);
        let mut rstudio = image("", "/init");
        rstudio.ports.insert(8787);
        assert_eq!(
            options(&rstudio, UserMapping::None, ann),
            "-e USERID=1234 -e GROUPID=99"
        );
    }

    #[test]
    fn what_can_t_be_is_said_and_nothing_is_done_about_it() {
        for (mapping, owner, word) in [
            (UserMapping::Remapped, Some((7, 7)), "userns-remap"),
            (UserMapping::Shared, Some((7, 7)), "Docker Desktop"),
            (UserMapping::None, None, "not known"),
        ] {
            let decided = decided(&stacks(), mapping, owner, true);
            assert_eq!(decided.options, [""; 0]);
            assert!(decided.reason.contains(word), "{}", decided.reason);
        }
        let chosen = FileOwner::of(&OwnerFacts {
            kind: ImageKind::DockerStacks,
            image: &stacks(),
            mapping: UserMapping::None,
            owner: Some((7, 7)),
            root_wanted: true,
            configured: Some("7:8"),
            as_hub: false,
        });
        assert_eq!((chosen.options.len(), chosen.user), (0, Some((7, 8))));
    }

    #[test]
    fn an_engine_says_how_it_maps_users() {
        let of = |options: &[&str], system: &str| {
            let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
            UserMapping::of(&options, system)
        };
        assert_eq!(
            of(&["name=seccomp,profile=builtin", "name=cgroupns"], "Debian"),
            UserMapping::None
        );
        assert_eq!(
            of(&["name=seccomp,profile=builtin", "name=rootless"], "Debian"),
            UserMapping::Rootless
        );
        assert_eq!(of(&["name=userns"], "Debian"), UserMapping::Remapped);
        assert_eq!(of(&[], "Docker Desktop"), UserMapping::Shared);
    }
}
