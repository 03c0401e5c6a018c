//! transfer-image through crashes at moments that chance picks, against a model of what it promises: a name never leads to
//! less than before.
//!
//! Here a few rounds run, the same ones each time, as far as engines let that be. `cargo xtask soak transfer` runs them for as
//! long as one likes, each time others; it prints the seed, by which the same come again.

use std::env;
use std::fmt;
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use dockerutils_test_support::lab::{self, LabEngine, Store, Suite, Throwaway};
use dockerutils_test_support::process::{announce, capture};
use dockerutils_test_support::{Outcome, Random, Running, SlowLink};
use dockerutils_tests::far;
use dockerutils_tests::moving::{Moving, docker, docker_succeeds, partial_images, saved_layers};
use rustix::process::Signal;

/// For how many seconds each destination has crashes; what `cargo xtask soak` sets, with the seed.
pub(crate) const SECONDS: &str = "DOCKERUTILS_SOAK_SECONDS";
pub(crate) const SEED: &str = "DOCKERUTILS_SOAK_SEED";

/// Without them: so many rounds at each destination, by a seed that has them killed, cut off, and the engine die.
const ROUNDS: u64 = 3;
const FIRST_SEED: u64 = 837_290;

/// The images that go by one name.
const VERSIONS: usize = 3;
/// Layers of each version alone, besides the base's and the one that all have; of such a size that each travels alone.
const LAYERS: usize = 2;
const LAYER: u64 = 5_000_000;
/// Of the link, in bits a second.
const CAPACITY: u64 = 160_000_000;
/// After the layers, so many bytes go to the destination until all is over, about.
const TAIL: u64 = 8_000;

/// What happens to a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Crash {
    Nothing,
    /// The process is ended at once.
    Killed,
    /// Ctrl-C.
    Interrupted,
    /// All connections end.
    Cut,
    /// The engine of the destination ends in order, or dies; it is started again.
    Stopped,
    Died,
    /// Somebody tidies the destination up.
    Pruned,
    /// Somebody gives transfers up: the same user on the same machine, or on another, and all.
    GivenUp,
    AllGivenUp,
}

/// The engine's own crashes take long, and are rarer.
const CRASHES: [Crash; 15] = [
    Crash::Nothing,
    Crash::Killed,
    Crash::Killed,
    Crash::Killed,
    Crash::Interrupted,
    Crash::Interrupted,
    Crash::Cut,
    Crash::Cut,
    Crash::Stopped,
    Crash::Died,
    Crash::Died,
    Crash::Pruned,
    Crash::Pruned,
    Crash::GivenUp,
    Crash::AllGivenUp,
];

/// A round, as chance made it.
#[derive(Clone, Debug)]
struct Round {
    /// The version that is sent.
    version: usize,
    /// Of which source.
    source: usize,
    crash: Crash,
    /// When: so many bytes of what is to be sent have gone, or so many after it.
    moment: Moment,
    /// Another version that is sent by the same name at the same time, from the other source.
    beside: Option<usize>,
    /// Whether what has no name is removed from the destination before, so that its layers have to be sent again.
    tidied: bool,
}

#[derive(Clone, Copy, Debug)]
enum Moment {
    /// This many thousandths of the layers have been sent.
    Layers(u64),
    /// This many bytes after them.
    After(u64),
}

impl Round {
    fn new(chance: &mut Random) -> Self {
        let version = chance.index(VERSIONS);
        Self {
            version,
            source: chance.index(2),
            crash: *chance.pick(&CRASHES),
            moment: match chance.one_in(2) {
                true => Moment::Layers(chance.below(1000)),
                false => Moment::After(chance.below(TAIL)),
            },
            beside: chance
                .one_in(4)
                .then(|| (version + 1 + chance.index(VERSIONS - 1)) % VERSIONS),
            tidied: !chance.one_in(3),
        }
    }
}

/// The promise: what a name may lead to.
#[derive(Debug)]
struct Promise {
    /// What it led to, whole, when nothing went on.
    before: Option<usize>,
    /// The versions that were sent since, to the end or not.
    sent: Vec<usize>,
    /// One of those that were sent to the end, as transfer-image said.
    done: Vec<usize>,
}

impl Promise {
    const fn nothing() -> Self {
        Self {
            before: None,
            sent: Vec::new(),
            done: Vec::new(),
        }
    }

    /// Whether it is kept by a name that leads to this version, whole.
    fn allows(&self, now: Option<usize>) -> bool {
        if let [only] = self.sent[..]
            && self.done == [only]
        {
            return now == Some(only);
        }
        let is_sent = now.is_some_and(|version| self.sent.contains(&version));
        is_sent || (now == self.before && self.done.is_empty())
    }

    /// Nothing goes on any more, and this is what it leads to.
    fn settle(&mut self, now: Option<usize>) {
        *self = Self {
            before: now,
            ..Self::nothing()
        };
    }
}

/// The images that go by one name, at both sources.
struct Versions {
    /// Removes them at the end.
    _moving: Moving,
    sources: [LabEngine; 2],
    /// One more than are sent by the name: it is there all the time by a name of its own.
    names: [String; VERSIONS + 1],
}

impl Versions {
    fn build() -> Self {
        let sources = ["28-containerd", "26"].map(|name| lab::engine(name).unwrap());
        let [first, second] = &sources;
        let moving = Moving::on("crash", &[first, second]);
        let (repository, tag) = moving.name.rsplit_once(':').unwrap();
        let names = std::array::from_fn(|version| format!("{repository}-{version}:{tag}"));
        let noise = |file: &str| format!("RUN head -c {LAYER} /dev/urandom > /{file}\n");
        let common = &moving.name;
        moving.build(first, &format!("FROM dockerutils-lab-base:1\n{}", noise("common")));
        for (version, name) in names.iter().enumerate() {
            let layers: String = (0..LAYERS).map(|number| noise(&format!("layer{number}"))).collect();
            let sums = format!("RUN sha256sum /common /layer* > /sums && echo {version} > /version\n");
            moving.build_as(first, name, &format!("FROM {common}\n{layers}{sums}"));
        }
        let sending = moving.transfer(first).args(&names).args([second.host.as_str(), "-q"]);
        sending.any_stdout().any_stderr().run();
        Self {
            _moving: moving,
            sources,
            names,
        }
    }
}

/// A destination, and what goes there.
struct Scene<'a> {
    name: String,
    moving: Moving,
    /// Another machine of the same user.
    elsewhere: Moving,
    versions: &'a Versions,
    throwaway: Throwaway,
    link: SlowLink,
    address: String,
}

impl<'a> Scene<'a> {
    fn set(suite: Suite, store: Store, versions: &'a OnceLock<Versions>) -> Self {
        let name = format!("{suite:?}-{store}").to_lowercase();
        let throwaway = Throwaway::start(suite, store, None).unwrap();
        let versions = versions.get_or_init(Versions::build);
        let [first, second] = &versions.sources;
        let (link, address) = far::link(throwaway.engine(), CAPACITY);
        Self {
            moving: Moving::on(&format!("crash-{name}"), &[first, second]),
            elsewhere: Moving::on(&format!("elsewhere-{name}"), &[]),
            name,
            versions,
            throwaway,
            link,
            address,
        }
    }

    fn source(&self, number: usize) -> &LabEngine {
        &self.versions.sources[number]
    }

    fn dest(&self) -> &LabEngine {
        self.throwaway.engine()
    }

    /// Begins to send a version by the name.
    fn send(&self, version: usize, source: usize) -> Running {
        let source = self.source(source);
        docker(source, &["tag", &self.versions.names[version], &self.moving.name]);
        self.moving
            .transfer(source)
            .args([self.moving.name.as_str(), &self.address, "-q"])
            .spawn()
    }

    /// The version that a name leads to; fails where that is not whole.
    fn leads_to(&self, name: &str) -> Result<Option<usize>, String> {
        let dest = self.dest();
        if !docker_succeeds(dest, &["image", "inspect", name]) {
            return Ok(None);
        }
        let script = "sha256sum -c -s /sums && cat /version";
        let mut run = dest.docker();
        run.args(["run", "--rm", "--network=none", name, "sh", "-c", script]);
        let said = capture(&mut run).map_err(|error| format!("{name} does not run: {error}"))?;
        let version = String::from_utf8_lossy(&said).trim().parse();
        let version: usize = version.map_err(|error| format!("{name} has no version: {error}"))?;
        // The base's, the common one, those of the version, and the one with the sums.
        let (saved, whole) = (saved_layers(dest, name), 2 + LAYERS + 1);
        match saved == whole {
            true => Ok(Some(version)),
            false => Err(format!("{name} has {saved} layers of {whole}")),
        }
    }

    fn play(&self, round: &Round, promise: &mut Promise) {
        if round.tidied {
            docker(self.dest(), &["image", "prune", "--force"]);
        }
        let to_send = self.layers_to_send(round);
        let before = self.link.bytes().0;
        let mut running = self.send(round.version, round.source);
        let beside = round
            .beside
            .map(|version| (version, self.send(version, 1 - round.source)));
        promise.sent.push(round.version);
        promise.sent.extend(round.beside);
        let moment = before
            + match round.moment {
                Moment::Layers(thousandths) => to_send * thousandths / 1000,
                Moment::After(bytes) => to_send + bytes,
            };
        // The moment is short, and what comes after it is shorter: it is looked for more often than other events are.
        while self.link.bytes().0 < moment && !running.has_ended() {
            thread::sleep(Duration::from_millis(1));
        }
        self.crash(round.crash, &mut running);
        let outcome = running.wait();
        self.check_end(round, &outcome, ends_so(round.crash, &outcome));
        if outcome.code == 0 {
            promise.done.push(round.version);
        }
        let alone = beside.is_none();
        if let Some((version, running)) = beside {
            let outcome = running.wait();
            // It was neither killed nor interrupted. But it may have found that its name was given to the other one's image,
            // again and again.
            let was_told = matches!(round.crash, Crash::Killed | Crash::Interrupted);
            let crash = if was_told { Crash::Nothing } else { round.crash };
            self.check_end(round, &outcome, outcome.code == 1 || ends_so(crash, &outcome));
            if outcome.code == 0 {
                promise.done.push(version);
            }
        }
        let now = self.leads_to(&self.moving.name).unwrap_or_else(|broken| {
            panic!("{}: {broken}\n{round:?}\n{promise:?}\n{outcome}", self.name);
        });
        assert!(
            promise.allows(now),
            "{}: the name leads to {now:?}\n{round:?}\n{promise:?}\n{outcome}",
            self.name
        );
        if outcome.code == 0 && alone {
            self.check_nothing_is_kept(round);
        }
        promise.settle(now);
    }

    /// About how many bytes of layers a round sends.
    fn layers_to_send(&self, round: &Round) -> u64 {
        let source = self.source(round.source);
        let plan = self
            .moving
            .transfer(source)
            .args([
                self.versions.names[round.version].as_str(),
                &self.dest().host,
                "--dry-run",
                "--json",
            ])
            .any_stdout()
            .any_stderr()
            .run();
        plan.json()["images"][0]["bytes_to_send"].as_u64().unwrap()
    }

    fn crash(&self, crash: Crash, running: &mut Running) {
        let abort = |moving: &Moving, arguments: &[&str]| {
            let invocation = moving.transfer(self.source(0)).args(["--abort", &self.dest().host]);
            invocation.args(arguments).any_stdout().any_stderr().run();
        };
        match crash {
            Crash::Nothing => {}
            Crash::Killed if !running.has_ended() => running.signal(Signal::KILL),
            Crash::Interrupted if !running.has_ended() => running.signal(Signal::INT),
            Crash::Killed | Crash::Interrupted => {}
            Crash::Cut => self.link.drop_connections(),
            Crash::Stopped | Crash::Died => {
                let signal = match crash {
                    Crash::Died => Signal::KILL,
                    _ => Signal::TERM,
                };
                self.throwaway.stop_engine(signal).unwrap();
                self.throwaway.start_engine().unwrap();
            }
            Crash::Pruned => drop(docker_succeeds(self.dest(), &["image", "prune", "--force"])),
            Crash::GivenUp => abort(&self.moving, &[]),
            Crash::AllGivenUp => abort(&self.elsewhere, &["--all"]),
        }
    }

    fn check_end(&self, round: &Round, outcome: &Outcome, is_expected: bool) {
        assert!(is_expected, "{}: {round:?}\n{outcome}", self.name);
    }

    fn check_nothing_is_kept(&self, round: &Round) {
        let source = self.source(round.source);
        let image = docker(
            source,
            &[
                "image",
                "inspect",
                "--format={{.Id}}",
                &self.versions.names[round.version],
            ],
        );
        let left = partial_images(self.dest(), &image);
        assert!(left.is_empty(), "{}: {round:?} left {left:?}", self.name);
    }

    /// After all, each version arrives, and nothing else is there.
    fn end(&self) {
        for version in 0..VERSIONS {
            let outcome = self.send(version, version % 2).wait();
            assert_eq!(outcome.code, 0, "{}: {outcome}", self.name);
            assert_eq!(self.leads_to(&self.moving.name), Ok(Some(version)), "{}", self.name);
        }
        let abort = self
            .moving
            .transfer(self.source(0))
            .args(["--abort", &self.dest().host]);
        abort.any_stdout().any_stderr().run();
        let label = format!("label={}", dockerutils_tests::moving::PARTIAL_LABEL);
        let left = docker(self.dest(), &["images", "--all", "--quiet", "--filter", &label]);
        assert_eq!(left, "", "{}", self.name);
    }
}

/// Whether transfer-image may end so: with success whatever happens, unless it was told to end, or had not yet begun.
fn ends_so(crash: Crash, outcome: &Outcome) -> bool {
    let had_begun = outcome.stderr.contains("trying again");
    match (crash, outcome.code) {
        (_, 0) | (Crash::Killed, 137) | (Crash::Interrupted, 130) => true,
        // The engine went away when it was first asked.
        (Crash::Cut | Crash::Stopped | Crash::Died, 3) => !had_begun,
        _ => false,
    }
}

impl fmt::Display for Scene<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

pub(crate) fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().unwrap())
}

/// Crashes transfers to one destination, until the time is over, where there is a limit.
fn crash_on(suite: Suite, store: Store, limit: Option<Duration>, seed: u64, versions: &OnceLock<Versions>) {
    let scene = Scene::set(suite, store, versions);
    let mut chance = Random::new(seed);
    // A name that nobody sends to, of an image that shares a layer with the others.
    let (kept, version) = (format!("kept-{}", scene.moving.name), VERSIONS);
    let source = scene.source(0);
    docker(source, &["tag", &scene.versions.names[version], &kept]);
    let first = scene.moving.transfer(source);
    let first = first.args([kept.as_str(), &scene.dest().host, "-q"]);
    first.any_stdout().any_stderr().run();
    docker(source, &["rmi", &kept]);
    let mut promise = Promise::nothing();
    let began = Instant::now();
    let mut rounds = 0;
    while rounds < ROUNDS || limit.is_some_and(|limit| began.elapsed() < limit) {
        rounds += 1;
        let round = Round::new(&mut chance);
        announce(format_args!("{scene} {rounds}: {round:?}"));
        scene.play(&round, &mut promise);
        assert_eq!(scene.leads_to(&kept), Ok(Some(version)), "{scene}: {round:?}");
    }
    scene.end();
    announce(format_args!(
        "{scene}: {rounds} rounds in {:?}, seed {seed}",
        began.elapsed()
    ));
}

#[test]
fn a_name_never_leads_to_less_than_before() {
    // In the test run, a few rounds at two destinations; in a soak, everywhere.
    let (limit, seed) = (number(SECONDS), number(SEED).unwrap_or(FIRST_SEED));
    let places: &[(Suite, Store)] = match limit {
        None => &[(Suite::Trixie, Store::Classic), (Suite::Sid, Store::Containerd)],
        Some(_) => &[
            (Suite::Bookworm, Store::Classic),
            (Suite::Trixie, Store::Classic),
            (Suite::Trixie, Store::Containerd),
            (Suite::Sid, Store::Classic),
            (Suite::Sid, Store::Containerd),
        ],
    };
    announce(format_args!("seed {seed}"));
    let limit = limit.map(Duration::from_secs);
    let versions = OnceLock::new();
    thread::scope(|scope| {
        // While the destinations are started.
        scope.spawn(|| {
            versions.get_or_init(Versions::build);
        });
        for (number, (suite, store)) in (0..).zip(places) {
            // Each has a course of its own.
            let seed = seed.wrapping_add(number << 32);
            let versions = &versions;
            scope.spawn(move || crash_on(*suite, *store, limit, seed, versions));
        }
    });
}

#[test]
fn the_model_of_the_promise_finds_what_breaks_it() {
    let promise = |before, sent: &[usize], done: &[usize]| Promise {
        before,
        sent: sent.to_vec(),
        done: done.to_vec(),
    };
    // Interrupted: the old one or the new one, never none.
    let interrupted = promise(Some(0), &[1], &[]);
    assert!(interrupted.allows(Some(0)) && interrupted.allows(Some(1)));
    assert!(!interrupted.allows(None) && !interrupted.allows(Some(2)));
    // Done: the new one.
    let done = promise(Some(0), &[1], &[1]);
    assert!(done.allows(Some(1)) && !done.allows(Some(0)) && !done.allows(None));
    // Two at once: the last of them, whichever that is.
    let two = promise(Some(0), &[1, 2], &[1]);
    assert!(two.allows(Some(1)) && two.allows(Some(2)) && !two.allows(Some(0)) && !two.allows(None));
    let first = promise(None, &[1], &[]);
    assert!(first.allows(None) && first.allows(Some(1)));
}
