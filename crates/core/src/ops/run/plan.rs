//! The plan of a run: the words of the equivalent `docker run`, as a value that is printed, tested, and then carried
//! out.

use std::collections::BTreeMap;

use super::ports;
use crate::config::project::{Origin, Project, designated};
use crate::config::settings::{Settings, boolean};
use crate::config::variables::{self, VariableError, Word};
use crate::docker::connect::locality::Locality;
use crate::docker::containers::{LABEL_PROJECT, LABEL_USER};
use crate::docker::options::run_options::RunOptions;
use crate::env::{AWS_VARIABLES, Env};
use crate::error::{Error, Result};
use crate::hint;
use crate::naming::{Designation, legal_container_name};

/// How the name of a run-image's container ends, for strftime.
const NAME_ENDING: &str = "%y-%m-%d_%H.%M.%S";

/// The arguments of run-image.
#[derive(Clone, Debug, Default)]
pub struct RunArgs {
    /// An image type, a synthetic or a configured image.
    pub image: String,
    /// The image itself, `repository:tag`, if it is not the project's: the section of its name counts all the same, and need not
    /// exist. It is never built here.
    pub reference: Option<String>,
    /// `docker run` options.
    pub args: Option<String>,
    /// Run in the background, and keep the container when it ends.
    pub keep: bool,
    /// The command, in place of the image's.
    pub command: Option<String>,
    /// The network to join.
    pub network: Option<String>,
    /// Give the container the GPUs.
    pub gpu: bool,
    /// `NAME=VALUE`, or `NAME` with the environment's value.
    pub env: Vec<String>,
    /// Another name for the image.
    pub image_name: Option<String>,
    /// Another tag for the image.
    pub image_tag: Option<String>,
    /// Build the image first.
    pub build: bool,
    /// Refuse to build an image that isn't there.
    pub no_build: bool,
    /// Keep the project and its copy on the dock in step while the container runs.
    pub watch: bool,
}

/// What the engine and the terminal decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunEnvironment {
    /// Whether the engine is on another machine.
    pub locality: Locality,
    /// Whether stdin is a terminal.
    pub terminal: bool,
    /// What the engine offers for `-g`.
    pub gpu: GpuSupport,
}

/// How an engine gives GPUs to containers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GpuSupport {
    /// By the runtime `nvidia`; assumed if no engine was asked.
    #[default]
    Runtime,
    /// By CDI devices.
    Cdi,
}

/// The image that is to be run.
#[derive(Clone, Debug)]
pub(in crate::ops) struct RunImage {
    /// As the engine is told it: name and tag, or a digest.
    pub reference: String,
    /// The image type that builds it.
    pub built_as: Option<String>,
    /// Sentences about a name that had to be changed.
    pub notes: Vec<String>,
}

/// What a command adds to the words that a section and the command line make. run-image adds nothing.
#[derive(Clone, Debug)]
pub(in crate::ops) struct RunAdditions {
    /// Options after those of the section: docker takes the last one of each.
    pub options: Vec<Word>,
    /// Labels beside those of the project and the user.
    pub labels: Vec<(&'static str, String)>,
    /// Whether the image has an init of its own: it gets no other, unless the section says so.
    pub has_init: bool,
    /// Whether it runs in the background, whatever the section's `interactive` says. It is removed at its end all the same.
    pub detached: bool,
    /// How the container's name ends, for strftime.
    pub name_ending: &'static str,
}

impl Default for RunAdditions {
    fn default() -> Self {
        Self {
            options: Vec::new(),
            labels: Vec::new(),
            has_init: false,
            detached: false,
            name_ending: NAME_ENDING,
        }
    }
}

/// A run, before it is carried out.
#[derive(Clone, Debug)]
pub struct RunPlan {
    /// The image, as the engine is told it.
    pub reference: String,
    /// The image type that builds the image. A synthetic image may have the name and tag of one.
    pub built_as: Option<String>,
    /// The container's name.
    pub name: String,
    /// The options of `docker run`, variables by name.
    pub options: Vec<Word>,
    /// The command, variables by name.
    pub command: Vec<Word>,
    /// Sentences about names that had to be changed.
    pub notes: Vec<String>,
    /// The variables before `docker` in the printed line, with a trailing blank: they name the engine.
    pub docker_prefix: String,
    way_to_root: String,
    unique: UniqueName,
}

/// A container's name: its beginning, and the second of the start, which ends it.
#[derive(Clone, Debug)]
struct UniqueName {
    beginning: String,
    at: jiff::Zoned,
    /// For strftime.
    ending: &'static str,
}

impl UniqueName {
    fn name(&self) -> String {
        legal_container_name(&format!("{}{}", self.beginning, self.at.strftime(self.ending)))
    }
}

impl RunPlan {
    /// Plans a run.
    ///
    /// # Errors
    /// No such image, a wrong configuration.
    pub fn new(
        project: &Project,
        args: &RunArgs,
        around: RunEnvironment,
        env: &Env,
        now: &jiff::Zoned,
    ) -> Result<Self> {
        if let Some(reference) = &args.reference {
            let image = RunImage {
                reference: reference.clone(),
                built_as: None,
                notes: Vec::new(),
            };
            return Self::of_image(project, image, args, around, env, (now, RunAdditions::default()));
        }
        let origin = project.runnable(&args.image)?;
        let own = project.designation(&args.image)?;
        let named = match (&args.image_name, &args.image_tag) {
            (None, None) => own,
            (name, tag) => designated(
                name.as_deref().unwrap_or(&own.designation.name),
                tag.as_deref().unwrap_or(&own.designation.tag),
            ),
        };
        let built_as = match origin {
            Origin::Dockerfile => Some(args.image.clone()),
            Origin::Configuration => type_that_makes(project, &named.designation)?,
        };
        let image = RunImage {
            reference: named.designation.to_string(),
            built_as,
            notes: named.notes,
        };
        Self::of_image(project, image, args, around, env, (now, RunAdditions::default()))
    }

    /// Plans a run of this image, by the section that `args` name, which need not exist.
    ///
    /// # Errors
    /// A wrong configuration.
    pub(in crate::ops) fn of_image(
        project: &Project,
        image: RunImage,
        args: &RunArgs,
        around: RunEnvironment,
        env: &Env,
        (now, more): (&jiff::Zoned, RunAdditions),
    ) -> Result<Self> {
        let keys = Keys {
            settings: project.settings(&args.image),
            docked: around.locality == Locality::Docked,
            env,
        };
        let unique = UniqueName {
            beginning: format!("{}_{}_", project.user(), args.image),
            at: now.clone(),
            ending: more.name_ending,
        };
        let name = unique.name();
        let keep = args.keep || keys.keeps()?;

        let mut options = match more.has_init && keys.text("init")?.is_none() {
            true => Vec::new(),
            false => keys.init()?,
        };
        options.extend([Word::literal("--name"), Word::literal(&name)]);
        options.extend(environment(&keys, args, around.locality, env)?);
        if !keep {
            options.push(Word::literal("--rm"));
        }
        options.extend(keys.keep_options()?);
        options.extend(keys.interactive(keep || more.detached, around.terminal)?);
        options.extend(keys.gpu(args.gpu, around.gpu)?);
        options.extend(keys.network(args.network.as_deref())?);
        options.extend(keys.volumes(project, env)?);
        options.extend(keys.options("ports")?);
        match args.args.as_deref().filter(|text| !text.is_empty()) {
            Some(text) => options.extend(options_at("--args", argument_words("--args", text, env)?, env)?),
            None => options.extend(keys.options("args")?),
        }
        options.extend(more.options);
        let own_labels = [(LABEL_PROJECT, project.name()), (LABEL_USER, project.user().to_owned())];
        for (label, value) in own_labels.into_iter().chain(more.labels) {
            options.extend([Word::literal("--label"), Word::literal(format!("{label}={value}"))]);
        }
        let mut notes = image.notes;
        if around.locality == Locality::Docked {
            let (on_loopback, said) = ports::on_loopback(options, env);
            options = on_loopback;
            notes.extend(said);
        }
        let command = match args.command.as_deref().filter(|text| !text.is_empty()) {
            Some(text) => argument_words("--command", text, env)?,
            None => keys.words("cmd")?,
        };
        Ok(Self {
            reference: image.reference,
            built_as: image.built_as,
            name,
            options,
            command,
            notes,
            docker_prefix: String::new(),
            way_to_root: project.way_to_root(),
            unique,
        })
    }

    /// Takes the name of the next second, because another run has this one.
    pub(in crate::ops) fn rename(&mut self) {
        let taken = self.name.clone();
        self.unique.at = self.unique.at.saturating_add(jiff::SignedDuration::from_secs(1));
        self.name = self.unique.name();
        let name = self.name.clone();
        self.replace(&taken, &name);
    }

    /// Puts another word in the place of the first option that is this one.
    pub(in crate::ops) fn replace(&mut self, option: &str, other: &str) {
        let found = self.options.iter_mut().find(|word| **word == Word::literal(option));
        if let Some(word) = found {
            *word = Word::literal(other);
        }
    }

    /// Takes out the last option that is this one, with its value.
    pub(in crate::ops) fn take_out(&mut self, option: &str, value: &str) {
        let pair = [Word::literal(option), Word::literal(value)];
        let found = self.options.windows(2).rposition(|words| *words == pair);
        if let Some(found) = found {
            self.options.drain(found..found + 2);
        }
    }

    /// The equivalent docker command, to be pasted in the directory of the call, with variables by name.
    pub fn line(&self) -> String {
        self.line_of("run", self.options.iter())
    }

    /// The equivalent docker commands where the container gets an archive before it starts: `packing` is the command line that
    /// prints it. They are for a container in the background.
    pub(in crate::ops) fn lines_with(&self, packing: &str) -> [String; 3] {
        let detached = Word::literal("-d");
        let created = self.line_of("create", self.options.iter().filter(|word| **word != detached));
        let prefix = &self.docker_prefix;
        let name = variables::print(&[Word::literal(&self.name)]);
        [
            created,
            format!("{packing} | {prefix}docker cp - {name}:/"),
            format!("{prefix}docker start {name}"),
        ]
    }

    fn line_of<'a>(&self, verb: &str, options: impl Iterator<Item = &'a Word>) -> String {
        let mut words = vec![Word::literal("docker"), Word::literal(verb)];
        words.extend(options.cloned());
        words.push(Word::literal(&self.reference));
        words.extend(self.command.iter().cloned());
        format!("{}{}{}", self.way_to_root, self.docker_prefix, variables::print(&words))
    }

    /// Options and command with the values of the environment.
    ///
    /// # Errors
    /// A variable that isn't set.
    pub fn expand(&self, env: &Env) -> Result<(Vec<String>, Vec<String>)> {
        let expand = |words: &[Word]| variables::expand(words, env).map_err(|cause| variable_error("", &cause));
        Ok((expand(&self.options)?, expand(&self.command)?))
    }

    /// The text of an error about the expanded options, with variables by name again.
    pub(in crate::ops) fn masked(&self, cause: &dyn std::error::Error, env: &Env) -> String {
        masked(self.options.iter().chain(&self.command), cause, env)
    }
}

/// The text of an error about expanded words, with the variables' values replaced by their names: they may be secrets.
pub(super) fn masked<'a>(
    words: impl IntoIterator<Item = &'a Word>,
    cause: &dyn std::error::Error,
    env: &Env,
) -> String {
    /// Shorter values are no secrets, and occur in other words, too.
    const SECRET_LENGTH: usize = 4;
    let mut values: Vec<(&str, &str)> = words
        .into_iter()
        .flat_map(Word::variables)
        .filter_map(|name| Some((name, env.get(name).filter(|value| value.len() >= SECRET_LENGTH)?)))
        .collect();
    // A value may be a part of another: the longest is replaced first.
    values.sort_by_key(|(_, value)| std::cmp::Reverse(value.len()));
    values.into_iter().fold(cause.to_string(), |text, (name, value)| {
        text.replace(value, &format!("${{{name}}}"))
    })
}

/// Returns the words if they are options of `docker run`; the error names the place where they are written.
fn options_at(place: &str, words: Vec<Word>, env: &Env) -> Result<Vec<Word>> {
    let expanded = variables::expand(&words, env).map_err(|cause| variable_error(place, &cause))?;
    match RunOptions::parse(&expanded) {
        Ok(_) => Ok(words),
        Err(cause) => Err(Error::usage(format!("{place}: {}", masked(&words, &cause, env)))
            .hint("these are options of docker run: https://docs.docker.com/reference/cli/docker/container/run/")),
    }
}

/// The keys of an image's section as run-image reads them: in a docked shell, `<key>_docked` goes first.
struct Keys<'a> {
    settings: Settings<'a>,
    docked: bool,
    env: &'a Env,
}

impl Keys<'_> {
    /// The key to read: `<key>_docked` if the shell is docked and the section has it.
    fn key(&self, key: &str) -> String {
        let docked = format!("{key}_docked");
        if self.docked && self.settings.has(&docked) {
            docked
        } else {
            key.to_owned()
        }
    }

    fn text(&self, key: &str) -> Result<Option<(String, String)>> {
        let key = self.key(key);
        Ok(self.settings.text(&key)?.map(|text| (key, text)))
    }

    fn words(&self, key: &str) -> Result<Vec<Word>> {
        match self.text(key)? {
            Some((key, text)) => checked(variables::parse(&text, None), &self.settings.place(&key), self.env),
            None => Ok(Vec::new()),
        }
    }

    /// The words of a key that holds options of `docker run`.
    fn options(&self, key: &str) -> Result<Vec<Word>> {
        options_at(&self.settings.place(&self.key(key)), self.words(key)?, self.env)
    }

    fn init(&self) -> Result<Vec<Word>> {
        match self.text("init")? {
            Some((_, text)) if boolean(&text) == Some(false) => Ok(Vec::new()),
            Some((_, text)) if boolean(&text).is_none() => self.options("init"),
            _ => Ok(vec![Word::literal("--init")]),
        }
    }

    /// Whether the section asks to keep the container: `keep_container = True`, or `-d` without `--rm` in it.
    fn keeps(&self) -> Result<bool> {
        Ok(match self.text("keep_container")? {
            Some((_, text)) => boolean(&text).unwrap_or(!text.contains("--rm")),
            None => false,
        })
    }

    /// What else `keep_container` says: docker options other than `--rm`.
    fn keep_options(&self) -> Result<Vec<Word>> {
        match self.text("keep_container")? {
            Some((_, text)) if boolean(&text).is_none() => Ok(self
                .options("keep_container")?
                .into_iter()
                .filter(|word| *word != Word::literal("--rm"))
                .collect()),
            _ => Ok(Vec::new()),
        }
    }

    fn interactive(&self, detached: bool, terminal: bool) -> Result<Vec<Word>> {
        if detached {
            return Ok(vec![Word::literal("-d")]);
        }
        match self.text("interactive")? {
            Some((_, text)) if boolean(&text) == Some(false) => Ok(Vec::new()),
            Some((_, text)) if boolean(&text).is_none() => self.options("interactive"),
            // Without a terminal, docker would refuse -t.
            _ => Ok(vec![Word::literal(if terminal { "-it" } else { "-i" })]),
        }
    }

    fn gpu(&self, asked: bool, support: GpuSupport) -> Result<Vec<Word>> {
        let wanted = match self.text("gpu")? {
            _ if asked => true,
            Some((_, text)) => match boolean(&text) {
                Some(wanted) => wanted,
                None => return self.options("gpu"),
            },
            None => false,
        };
        let words: &[&str] = match (wanted, support) {
            (false, _) => &[],
            (true, GpuSupport::Runtime) => &["--runtime=nvidia", "-e", "NVIDIA_VISIBLE_DEVICES=all"],
            (true, GpuSupport::Cdi) => &["--gpus", "all"],
        };
        Ok(words.iter().map(|word| Word::literal(*word)).collect())
    }

    fn network(&self, asked: Option<&str>) -> Result<Vec<Word>> {
        let (mut words, place) = match asked.filter(|name| !name.is_empty()) {
            Some(name) => (argument_words("--network", name, self.env)?, "--network".to_owned()),
            None => (self.words("network")?, self.settings.place(&self.key("network"))),
        };
        // A bare name, which options may follow, or options alone.
        if words.first().is_some_and(|name| !name.print().starts_with('-')) {
            words.insert(0, Word::literal("--network"));
        }
        options_at(&place, words, self.env)
    }

    fn volumes(&self, project: &Project, env: &Env) -> Result<Vec<Word>> {
        let Some((key, text)) = self.text("volumes")? else {
            return Ok(Vec::new());
        };
        let replacements = BTreeMap::from([
            ("project_root", project.root().display().to_string()),
            ("user", project.user().to_owned()),
            ("project", project.name()),
            ("home", env.home().display().to_string()),
        ]);
        let place = self.settings.place(&key);
        options_at(
            &place,
            checked(variables::parse(&text, Some(&replacements)), &place, env)?,
            env,
        )
    }
}

/// The `-e` options: the section's `environment`, the command line, its `env` section, AWS's variables.
///
/// In docker later ones win, so what the command line sets is left out of the sections after it.
fn environment(keys: &Keys<'_>, args: &RunArgs, locality: Locality, env: &Env) -> Result<Vec<Word>> {
    let mut words = keys.options("environment")?;
    let mut set = |word: Word| words.extend([Word::literal("-e"), word]);
    let is_given = |name: &str| args.env.iter().any(|given| given.split('=').next() == Some(name));
    for given in &args.env {
        checked(Word::assignment(given, false).map(|word| vec![word]), "--env", env)?
            .into_iter()
            .for_each(&mut set);
    }
    if let Some((key, section)) = keys.text("env")? {
        let named = keys.settings.sibling(&section);
        if !named.exists() {
            return Err(keys
                .settings
                .error(&key, &format!("there is no section [{section}]"))
                .hint(hint!("add it: [{section}] with a NAME = value for each variable"; section = section)));
        }
        for name in named.keys().into_iter().filter(|name| !is_given(name)) {
            let value = named.text(name)?.unwrap_or_default();
            let text = format!("{name}={value}");
            checked(
                Word::assignment(&text, true).map(|word| vec![word]),
                &named.place(name),
                env,
            )?
            .into_iter()
            .for_each(&mut set);
        }
    }
    if locality == Locality::Local {
        for name in AWS_VARIABLES {
            // By name only: docker takes the value from the environment, so that no argv has it.
            if env.non_empty(name).is_some() && !is_given(name) {
                set(Word::literal(name));
            }
        }
    }
    Ok(words)
}

fn argument_words(option: &str, text: &str, env: &Env) -> Result<Vec<Word>> {
    checked(variables::parse(text, None), option, env)
}

/// Returns the words if all their variables are set; the error names the place where they are written.
fn checked(words: Result<Vec<Word>, VariableError>, place: &str, env: &Env) -> Result<Vec<Word>> {
    words
        .and_then(|words| variables::expand(&words, env).map(|_| words))
        .map_err(|cause| variable_error(place, &cause))
}

pub(super) fn variable_error(place: &str, cause: &VariableError) -> Error {
    let error = if place.is_empty() {
        Error::usage(cause.to_string())
    } else {
        Error::usage(format!("{place}: {cause}"))
    };
    match cause.hint() {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

/// The image type that is built under this name and tag, if there is one.
fn type_that_makes(project: &Project, designation: &Designation) -> Result<Option<String>> {
    for image in project.image_types() {
        if project.designation(image)?.designation == *designation {
            return Ok(Some(image.clone()));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn plan(config: &str, args: &RunArgs, around: RunEnvironment, env: &Env) -> Result<RunPlan> {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("proj");
        fs::create_dir_all(root.join("docker/dev")).unwrap();
        fs::write(root.join("docker/dev/Dockerfile"), "FROM scratch\n").unwrap();
        fs::write(root.join("docker/dockerutils.cfg"), config).unwrap();
        let project = Project::find(&root, env).unwrap();
        let now: jiff::Zoned = "2026-11-21T09:08:07[UTC]".parse().unwrap();
        RunPlan::new(&project, args, around, env, &now)
    }

    const LOCAL: RunEnvironment = RunEnvironment {
        locality: Locality::Local,
        terminal: true,
        gpu: GpuSupport::Runtime,
    };
    const LABELS: &str = "--label io.dockerutils.project=proj --label io.dockerutils.user=ann";

    fn env() -> Env {
        Env::from_pairs([("USER", "ann"), ("HOME", "/home/ann"), ("X", "1"), ("AWS_REGION", "eu")])
    }

    fn dev() -> RunArgs {
        RunArgs {
            image: "dev".to_owned(),
            ..RunArgs::default()
        }
    }

    fn line(config: &str, args: &RunArgs) -> String {
        plan(config, args, LOCAL, &env()).unwrap().line()
    }

    #[test]
    fn the_words_stand_in_the_originals_order() {
        let config =
            "[dev]\nvolumes = -v {home}/x:/x\nports = -p 1:1\nargs = --cpus 2\ncmd = sh -c 'echo $X'\nnetwork = net\n";
        assert_eq!(
            line(config, &dev()),
            format!(
                "docker run --init --name ann_dev_26-11-21_09.08.07 -e AWS_REGION --rm -it --network net -v /home/ann/x:/x \
                 -p 1:1 --cpus 2 {LABELS} proj-dev:ann sh -c 'echo '\"${{X}}\""
            )
        );
    }

    #[test]
    fn a_synthetic_image_is_built_as_the_type_whose_name_it_has() {
        let config = "[run_image]\nsynthetic_images = gpu, other\n[gpu]\nname = dev\n[other]\nname = dev\ntag = 2\n";
        let built_as = |image: &str| {
            let args = RunArgs {
                image: image.to_owned(),
                ..RunArgs::default()
            };
            plan(config, &args, LOCAL, &env()).unwrap().built_as
        };
        assert_eq!(built_as("dev").as_deref(), Some("dev"));
        assert_eq!(built_as("gpu").as_deref(), Some("dev"));
        assert_eq!(built_as("other"), None);
    }

    #[test]
    fn the_command_line_beats_the_file() {
        let config = "[dev]\nargs = --cpus 2\ncmd = a\nnetwork = net\nenv = vars\ninteractive = -i\n[vars]\nA = file\nB = 'b c'\n";
        let args = RunArgs {
            args: Some("-m 1g".into()),
            command: Some("b c".into()),
            network: Some("other".into()),
            env: vec!["A=b=c".into(), "FOO".into()],
            keep: true,
            gpu: true,
            ..dev()
        };
        assert_eq!(
            line(config, &args),
            format!(
                "docker run --init --name ann_dev_26-11-21_09.08.07 -e A=b=c -e FOO -e 'B=b c' -e AWS_REGION -d \
                 --runtime=nvidia -e NVIDIA_VISIBLE_DEVICES=all --network other -m 1g {LABELS} proj-dev:ann b c"
            )
        );
    }

    #[test]
    fn docked_keys_win_where_docked_and_aws_stays_home() {
        let config = "[dev]\nvolumes = -v /a:/a\nvolumes_docked = -v /b:/b\nports = -p 1:1\n";
        let docked = RunEnvironment {
            locality: Locality::Docked,
            ..LOCAL
        };
        let line = plan(config, &dev(), docked, &env()).unwrap().line();
        assert!(
            line.contains("-v /b:/b") && !line.contains("/a:/a") && !line.contains("AWS"),
            "{line}"
        );
    }

    #[test]
    fn keys_that_never_worked_do() {
        for (config, has, has_not) in [
            ("[dev]\nkeep_container = True\n", " -d ", "--rm"),
            ("[dev]\ninteractive = -i\n", " --rm -i ", "-it"),
            ("[dev]\ninteractive =\n", " --rm --label", "-it"),
            ("[dev]\ninit = False\n", "run --name", "--init"),
            ("[dev]\nenvironment = -e Q=$X\n", "-e Q=${X} ", "Q=1"),
        ] {
            let line = line(config, &dev());
            assert!(line.contains(has) && !line.contains(has_not), "{config}: {line}");
        }
    }

    #[test]
    fn values_are_words_as_ever() {
        for (config, has) in [
            (
                "[dev]\nnetwork = net --dns 1.1.1.1\n",
                "-it --network net --dns 1.1.1.1 --label",
            ),
            ("[dev]\nnetwork = --network net\n", "-it --network net --label"),
            (
                "[dev]\nenv = e\n[e]\nA = \"b c\"\nB = b c\nC = $X\n",
                "-e 'A=b c' -e 'B=b c' -e C=\"${X}\" -e AWS",
            ),
        ] {
            let line = line(config, &dev());
            assert!(line.contains(has), "{config}: {line}");
        }
        let args = RunArgs {
            network: Some("$X".into()),
            env: vec!["AWS_REGION=us".into()],
            ..dev()
        };
        let line = line("", &args);
        assert!(line.contains("-e AWS_REGION=us --rm -it --network ${X} "), "{line}");
    }

    #[test]
    fn errors_name_their_place() {
        for (config, part) in [
            (
                "[dev]\nvolumes = -v {hme}:/x\n",
                "docker/dockerutils.cfg:2: [dev] volumes: {hme} is not one of",
            ),
            ("[dev]\nports = -p eighty\n", "docker/dockerutils.cfg:2: [dev] ports: "),
            (
                "[dev]\nargs = --mem 1g\n",
                "docker/dockerutils.cfg:2: [dev] args: unknown option --mem",
            ),
            ("[dev]\nenv = none\n", "[dev] env: there is no section [none]"),
            ("[dev]\ncmd = 'a\n", "[dev] cmd: a single quotation is not closed"),
        ] {
            let error = plan(config, &dev(), LOCAL, &env()).unwrap_err();
            assert!(error.to_string().contains(part), "{error}");
        }
        let unset = plan("[dev]\ncmd = $NONE\n", &dev(), LOCAL, &env()).unwrap_err();
        assert_eq!(
            unset.to_string(),
            "docker/dockerutils.cfg:2: [dev] cmd: $NONE is not set"
        );
        assert!(unset.hint_text().unwrap().contains("$$NONE"));
    }
}
