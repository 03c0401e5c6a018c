//! Pushing an image: the engine does it, with a login that travels in a header.
//!
//! Sources: the engine's API reference ("Push an image", "Get image information from the registry"); the words of its
//! progress and of its errors are those of engines 20.10 to 28.5, with both image stores.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::time::{Duration, Instant};

use base64::Engine as _;
use bytes::Bytes;
use futures_util::StreamExt as _;
use http_body_util::Full;
use hyper::{Method, Request};
use serde::{Deserialize, Serialize};

use super::image;
use super::verdict::{RegistryVerdict, may_be_of_no_login};
use crate::docker::connect::endpoint::LOGIN_HINT;
use crate::docker::connect::engine::{Engine, answer, one_line, refusal};
use crate::docker::connect::json_messages::Messages;
use crate::docker::connect::login::Login;
use crate::docker::connect::redaction::Redaction;
use crate::error::{Error, Result};
use crate::hint;
use crate::naming::{Designation, canonical, registry};
use crate::output::progress::steps::{Ended, Steps};
use crate::output::{Printer, visible};

/// The pauses between tries.
const PAUSES: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(6)];
/// More layers than any image has. Each is kept as long as the push takes.
const MOST_LAYERS: usize = 10_000;
/// How long a registry may fail: the engine's own tries, which it makes for a layer, and ours together.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long asking the registry what it has may take. Its purpose is to save time.
const LOOK_TIMEOUT: Duration = Duration::from_secs(20);
/// The most characters of a registry's message that are shown.
const MESSAGE_LIMIT: usize = 1000;

/// The login for a push, as the engine takes it.
pub struct RegistryAuth {
    header: String,
    redaction: Redaction,
    /// The login as engines check it; `None` without a login.
    check: Option<String>,
    /// Whether there may be a login that this engine is not given.
    is_withheld: bool,
    /// The hint if the registry refuses, and a login could not be read.
    hint: Option<String>,
}

// Secrets must not reach a log by way of a derived Debug.
impl fmt::Debug for RegistryAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RegistryAuth(..)")
    }
}

impl RegistryAuth {
    /// With this login, or without one: engines want the header all the same.
    pub fn new(registry: &str, login: Option<&Login>) -> Self {
        let (header, redaction) = match login {
            Some(login) => (login.registry_auth(registry), Redaction::of(registry, login)),
            None => (
                base64::engine::general_purpose::URL_SAFE.encode("{}"),
                Redaction::default(),
            ),
        };
        // A registry token only serves the purpose that it was issued for, and engines can't check one.
        let check = login.filter(|login| login.registry_token.is_empty()).map(|login| {
            let mut document = login.document();
            document.insert("serveraddress".to_owned(), registry.into());
            serde_json::Value::Object(document).to_string()
        });
        Self {
            header,
            redaction,
            check,
            is_withheld: false,
            hint: None,
        }
    }

    /// Adds the hint if the registry refuses, because a login could not be read.
    #[must_use]
    pub fn but(mut self, hint: Option<String>) -> Self {
        self.hint = hint;
        self
    }

    /// Without a login, because the engine is reached in clear text.
    pub fn withheld() -> Self {
        Self {
            is_withheld: true,
            ..Self::new("", None)
        }
    }

    /// A message of the registry's or the engine's on one line, without what was sent to them.
    fn clean(&self, message: &str) -> String {
        let message = visible(&one_line(&self.redaction.clean(message)));
        match message.char_indices().nth(MESSAGE_LIMIT) {
            Some((end, _)) => format!("{}...", message.get(..end).unwrap_or_default()),
            None => message,
        }
    }
}

/// How many of an image's layers were sent, mounted or present.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Layers {
    /// Sent to the registry.
    pub pushed: usize,
    /// Mounted by the registry from another of its repositories.
    pub mounted: usize,
    /// Present in the repository before.
    pub present: usize,
}

/// The result of a push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// The digest of the image in the registry.
    pub digest: String,
    /// What happened to its layers.
    pub layers: Layers,
}

/// Gives an image one more name.
///
/// # Errors
/// The engine's refusal or a broken connection.
pub async fn tag(engine: &Engine, source: &Designation, target: &Designation) -> Result<()> {
    image::tag(engine, &source.to_string(), &target.to_string())
        .await
        .map_err(|cause| engine.error(&format!("{source} can't be tagged as {target}"), cause))
}

/// The digest under which the registry has exactly this image by this tag; `None` if it hasn't, or can't be asked.
///
/// The engine is asked about both sides: it knows under which digests it pushed or pulled the image (with containerd's
/// store, the image's own digest), and it reaches registries that this machine may not.
pub async fn already_there(engine: &Engine, reference: &Designation, auth: &RegistryAuth) -> Option<String> {
    let image = engine.docker().inspect_image(&reference.to_string()).await.ok()?;
    let repository = canonical(&reference.name);
    let repository = repository.rsplit_once(':')?.0.to_owned();
    let known: Vec<String> = image
        .repo_digests
        .unwrap_or_default()
        .into_iter()
        .filter_map(|known| {
            let (name, digest) = known.split_once('@')?;
            let name = canonical(name);
            (name.rsplit_once(':')?.0 == repository).then(|| digest.to_owned())
        })
        .collect();
    if known.is_empty() {
        return None;
    }
    let there = tokio::time::timeout(LOOK_TIMEOUT, registrys_digest(engine, reference, auth))
        .await
        .ok()??;
    known.contains(&there).then_some(there)
}

async fn registrys_digest(engine: &Engine, reference: &Designation, auth: &RegistryAuth) -> Option<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Distribution {
        descriptor: Descriptor,
    }
    #[derive(Deserialize)]
    struct Descriptor {
        digest: String,
    }
    let request = Request::builder()
        .uri(format!("/distribution/{reference}/json"))
        .header("X-Registry-Auth", &auth.header)
        .body(Full::<Bytes>::default())
        .ok()?;
    let response = engine.request(request).await.ok()?;
    if !response.status().is_success() {
        return None;
    }
    let body = answer(response, 1024 * 1024).await.ok()?;
    let found: Distribution = serde_json::from_slice(&body).ok()?;
    Some(found.descriptor.digest).filter(|digest| is_digest(digest))
}

/// Pushes an image, with the progress of each layer. Failures that may pass (a registry that is busy, a connection that
/// breaks) are tried again.
///
/// # Errors
/// The registry's refusal, in its own words, with a hint.
pub async fn push(engine: &Engine, reference: &Designation, auth: &RegistryAuth, printer: &Printer) -> Result<Pushed> {
    let mut layers = BTreeMap::new();
    let mut pauses = PAUSES.iter();
    let mut trouble = Trouble::default();
    let mut is_login_right = false;
    loop {
        let mut message = match attempt(engine, reference, auth, &mut layers, &mut trouble, printer).await? {
            Ok(digest) => {
                return Ok(Pushed {
                    digest,
                    layers: count(&layers),
                });
            }
            Err(message) => message,
        };
        let mut verdict = RegistryVerdict::of(&message, &reference.name);
        let mut may_pass = verdict.may_pass();
        if verdict == RegistryVerdict::Denied && !is_login_right && may_be_of_no_login(&message) {
            match check_login(engine, auth).await {
                LoginCheck::Right => {
                    (is_login_right, may_pass) = (true, true);
                    message = format!("{message} (although the login is right)");
                }
                LoginCheck::Unchecked(said) => {
                    let of_check = RegistryVerdict::of(&said, &reference.name);
                    if of_check.may_pass() {
                        (message, verdict, may_pass) = (said, of_check, true);
                    }
                }
                LoginCheck::Wrong => {}
            }
        }
        trouble.failed(&message, Instant::now());
        match pauses.next() {
            Some(pause) if may_pass && !trouble.is_over(Instant::now(), *pause) => {
                printer.note(&format!(
                    "{reference}: {}; next try in {} s",
                    auth.clean(&message),
                    pause.as_secs()
                ));
                tokio::time::sleep(*pause).await;
            }
            _ => return Err(refused(reference, &message, verdict, auth)),
        }
    }
}

/// A registry's failures, over all tries.
#[derive(Default)]
struct Trouble {
    /// Since when nothing has progressed.
    since: Option<Instant>,
    /// The last message.
    message: Option<String>,
    /// The seconds that the engine last announced it waits, for each layer.
    waits: HashMap<String, u64>,
    /// The seconds that the user was last shown.
    told: u64,
    /// We no longer wait for the engine's own tries.
    is_given_up: bool,
}

impl Trouble {
    fn begins(&mut self, now: Instant) {
        self.since.get_or_insert(now);
    }

    /// A layer arrived.
    fn ends(&mut self) {
        self.since = None;
    }

    fn failed(&mut self, message: &str, now: Instant) {
        self.begins(now);
        self.message = Some(message.to_owned());
        self.waits.clear();
        self.told = 0;
    }

    /// Whether waiting so long would exceed [`PATIENCE`].
    fn is_over(&self, now: Instant, wait: Duration) -> bool {
        let is_late = |since: Instant| now.duration_since(since) + wait > PATIENCE;
        self.is_given_up || self.since.is_some_and(is_late)
    }

    /// The engine waits so many seconds before it tries a layer again; it counts them down. True if the user should be
    /// shown them.
    fn waits(&mut self, layer: &str, seconds: u64, now: Instant) -> bool {
        self.begins(now);
        if self.waits.len() >= MOST_LAYERS && !self.waits.contains_key(layer) {
            return false;
        }
        let before = self.waits.insert(layer.to_owned(), seconds).unwrap_or_default();
        // Layers that are pushed at the same time wait at the same time.
        let is_news = seconds > before && seconds != self.told;
        if is_news {
            self.told = seconds;
        }
        is_news
    }
}

/// The seconds in `Retrying in 5 seconds`, the engine's status of a layer.
fn wait_of(status: &str) -> Option<u64> {
    let (seconds, _) = status.strip_prefix("Retrying in ")?.split_once(" second")?;
    seconds.parse().ok()
}

/// What an engine found out about a login.
enum LoginCheck {
    Right,
    Wrong,
    /// It could not be checked; the message.
    Unchecked(String),
}

/// Makes the engine try the login by itself, as for `docker login`.
async fn check_login(engine: &Engine, auth: &RegistryAuth) -> LoginCheck {
    let Some(document) = &auth.check else {
        return LoginCheck::Wrong;
    };
    let request = Request::builder()
        .method(Method::POST)
        .uri("/auth")
        .header("Content-Type", "application/json")
        .body(Full::<Bytes>::from(document.clone()));
    let Ok(request) = request else {
        return LoginCheck::Wrong;
    };
    let answered = tokio::time::timeout(LOOK_TIMEOUT, engine.request(request)).await;
    match answered {
        Ok(Ok(response)) if response.status().is_success() => LoginCheck::Right,
        Ok(Ok(response)) => {
            let said = refusal(response).await.to_string();
            match RegistryVerdict::of(&said, "") {
                RegistryVerdict::Denied => LoginCheck::Wrong,
                _ => LoginCheck::Unchecked(said),
            }
        }
        // The next try shows whether the engine is there.
        Ok(Err(_)) | Err(_) => LoginCheck::Wrong,
    }
}

/// What became of one layer. A later value wins: what an earlier try pushed is present in the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fate {
    Present,
    Mounted,
    Pushed,
}

fn count(layers: &BTreeMap<String, Fate>) -> Layers {
    let of = |fate| layers.values().filter(|is| **is == fate).count();
    Layers {
        pushed: of(Fate::Pushed),
        mounted: of(Fate::Mounted),
        present: of(Fate::Present),
    }
}

/// One try: the digest, or the message of what failed. The outer error is the engine's, and a second try would not
/// help.
async fn attempt(
    engine: &Engine,
    reference: &Designation,
    auth: &RegistryAuth,
    layers: &mut BTreeMap<String, Fate>,
    trouble: &mut Trouble,
    printer: &Printer,
) -> Result<Result<String, String>> {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("tag", &reference.tag);
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("/images/{}/push?{}", reference.name, query.finish()))
        .header("X-Registry-Auth", &auth.header)
        .body(Full::<Bytes>::default())
        .map_err(|cause| Error::failed(format!("{reference} can't be requested")).because(cause))?;
    let response = engine.worked(engine.request(request)).await?;
    if !response.status().is_success() {
        return Ok(Err(refusal(response).await.to_string()));
    }
    let mut view = View::new(reference, printer);
    let mut digest = None;
    let mut messages = Messages::default();
    let mut chunks = engine.chunks(response);
    while let Some(chunk) = chunks.next().await {
        for message in messages.push(&chunk?) {
            let (current, total) = message.progress();
            if let Some(said) = message.aux("Digest") {
                digest = Some(said.to_owned());
            }
            if let Some(error) = message.error {
                view.end(false);
                return Ok(Err(error));
            }
            let status = message.status.unwrap_or_default();
            let Some(layer) = message.id else {
                // Only the classic store also has it in a document of its own.
                digest = digest.or_else(|| digest_of(&status, &reference.tag));
                continue;
            };
            if let Some(seconds) = wait_of(&status) {
                let now = Instant::now();
                if let Some(message) = &trouble.message
                    && trouble.is_over(now, Duration::from_secs(seconds))
                {
                    let message = message.clone();
                    trouble.is_given_up = true;
                    view.end(false);
                    return Ok(Err(message));
                }
                if trouble.waits(&layer, seconds, now) {
                    printer.note(&format!(
                        "{reference}: the registry failed at layer {}; the engine tries again in {seconds} s",
                        visible(&layer)
                    ));
                }
                continue;
            }
            if layers.len() >= MOST_LAYERS && !layers.contains_key(&layer) {
                continue;
            }
            let fate = match status.as_str() {
                "Pushed" => Some(Fate::Pushed),
                "Layer already exists" => Some(Fate::Present),
                mounted if mounted.starts_with("Mounted from ") => Some(Fate::Mounted),
                _ => None,
            };
            match fate {
                Some(fate) => view.ended(&layer, &status, fate),
                None if status == "Pushing" => view.moved(&layer, current, total),
                None => {}
            }
            if fate == Some(Fate::Pushed) {
                trouble.ends();
            }
            if let Some(fate) = fate {
                let known = layers.entry(layer).or_insert(fate);
                *known = fate.max(*known);
            }
        }
    }
    match digest.filter(|digest| is_digest(digest)) {
        Some(digest) => {
            view.end(true);
            Ok(Ok(digest))
        }
        None => {
            view.end(false);
            Ok(Err("the engine stopped in the middle: unexpected EOF".to_owned()))
        }
    }
}

/// How a push is shown: on a terminal a line for each layer that moves, elsewhere a line for each that ended.
struct View {
    steps: Steps,
    id: String,
    title: String,
    began: Instant,
    /// When each layer was first seen to move.
    moving: HashMap<String, Instant>,
}

impl View {
    fn new(reference: &Designation, printer: &Printer) -> Self {
        let mut view = Self {
            steps: Steps::new(printer, false).of("Pushing"),
            id: reference.to_string(),
            title: format!("pushing {reference}"),
            began: Instant::now(),
            moving: HashMap::new(),
        };
        view.steps.running(&view.id, &view.title);
        view
    }

    /// The key and the name of a layer's own line.
    fn line(&self, layer: &str) -> (String, String) {
        (format!("{} {layer}", self.id), format!("layer {layer}"))
    }

    fn moved(&mut self, layer: &str, current: u64, total: u64) {
        if self.moving.len() < MOST_LAYERS {
            self.moving.entry(layer.to_owned()).or_insert_with(Instant::now);
        }
        if self.steps.is_live() {
            let (key, name) = self.line(layer);
            self.steps.running(&key, &name);
            self.steps.transfer(&key, layer, current, total, false);
        } else {
            self.steps.transfer(&self.id, layer, current, total, false);
        }
    }

    fn ended(&mut self, layer: &str, status: &str, fate: Fate) {
        let what = match fate {
            Fate::Present => "is there already".to_owned(),
            // `Mounted from team/base`: the engine's words, as hostile as the registry.
            Fate::Mounted => status.replacen("Mounted", "is mounted", 1),
            Fate::Pushed => String::new(),
        };
        let (key, name) = self.line(layer);
        match (self.steps.is_live(), fate) {
            (true, Fate::Pushed) => {
                let took = self.moving.get(layer).map(Instant::elapsed).unwrap_or_default();
                self.steps.ended(&key, &name, Ended::Done(took.as_secs_f64()));
            }
            (true, _) => self.steps.ended(&key, &format!("{name} {what}"), Ended::Done(0.0)),
            (false, Fate::Pushed) => self.steps.transfer_done(&self.id, layer),
            (false, _) => self.steps.output(&self.id, format!("{layer} {what}\n").as_bytes()),
        }
    }

    fn end(&mut self, success: bool) {
        let how = if success {
            Ended::Done(self.began.elapsed().as_secs_f64())
        } else {
            Ended::Failed
        };
        self.steps.ended(&self.id, &self.title, how);
    }
}

/// The digest in `TAG: digest: sha256:... size: 527`.
fn digest_of(status: &str, tag: &str) -> Option<String> {
    let rest = status.strip_prefix(tag)?.strip_prefix(": digest: ")?;
    rest.split(' ').next().map(str::to_owned)
}

/// Checks a digest before it is printed.
fn is_digest(text: &str) -> bool {
    text.split_once(':').is_some_and(|(algorithm, hex)| {
        !algorithm.is_empty()
            && algorithm.bytes().all(|byte| byte.is_ascii_alphanumeric())
            && hex.len() >= 32
            && hex.len() <= 256
            && hex.bytes().all(|byte| byte.is_ascii_hexdigit())
    })
}

fn refused(reference: &Designation, message: &str, verdict: RegistryVerdict, auth: &RegistryAuth) -> Error {
    let key = registry(&reference.name);
    let on_hub = key.starts_with("https://");
    let host = if on_hub { "registry-1.docker.io" } else { key.as_str() };
    let login = if on_hub {
        "docker login".to_owned()
    } else {
        hint!("docker login {}", host)
    };
    let hint = match verdict {
        RegistryVerdict::Denied if auth.is_withheld => LOGIN_HINT.to_owned(),
        RegistryVerdict::Denied if auth.hint.is_some() => auth.hint.clone().unwrap_or_default(),
        RegistryVerdict::Denied => hint!("{login}, as somebody who may push to {}", reference.name; login = login),
        RegistryVerdict::Immutable => "publish it under a tag that is not there yet: --publish-tag TAG".to_owned(),
        RegistryVerdict::UnknownRepository => hint!("make the repository in the registry first: {}", reference.name),
        RegistryVerdict::Untrusted => hint!(
            "put the certificate of the registry's authority on the engine's machine: {}",
            format!("/etc/docker/certs.d/{host}/ca.crt")
        ),
        RegistryVerdict::Plain => hint!(
            "the registry speaks plain HTTP; if that is intended, name it in the engine's /etc/docker/daemon.json: \
             {{\"insecure-registries\": [{host}]}}";
            host = serde_json::Value::from(host)
        ),
        RegistryVerdict::Busy => "the registry is busy: try again in some minutes".to_owned(),
        RegistryVerdict::Full => {
            "your quota at the registry is full: remove old tags there, or ask its owner for more space".to_owned()
        }
        RegistryVerdict::Broken => "look at the registry's log, or try again later".to_owned(),
        RegistryVerdict::Nowhere | RegistryVerdict::Down => {
            // The engine's message names the address that it tried.
            let scheme = if message.contains(&format!("http://{host}/")) {
                "http"
            } else {
                "https"
            };
            hint!(
                "does the engine's machine reach the registry? Try there: curl {}",
                format!("{scheme}://{host}/v2/")
            )
        }
        RegistryVerdict::Other => hint!("docker push {} may say more", reference),
    };
    Error::new(
        verdict.class(),
        format!("{reference} can't be pushed: {}", auth.clean(message)),
    )
    .hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn designation() -> Designation {
        Designation {
            name: "reg.example:5000/team/x".into(),
            tag: "1".into(),
        }
    }

    #[test]
    fn a_registry_of_plain_http_is_tried_by_plain_http() {
        let auth = RegistryAuth::new("r", None);
        let hint = |message: &str| {
            let error = refused(
                &designation(),
                message,
                RegistryVerdict::of(message, &designation().name),
                &auth,
            );
            error.hint_text().unwrap_or_default().to_owned()
        };
        let plain = "Get \"http://reg.example:5000/v2/\": dial tcp 10.0.0.7:5000: connect: connection refused";
        assert!(
            hint(plain).ends_with("curl http://reg.example:5000/v2/"),
            "{}",
            hint(plain)
        );
        let secure = "Get \"https://reg.example:5000/v2/\": dial tcp 10.0.0.7:5000: connect: connection refused";
        assert!(
            hint(secure).ends_with("curl https://reg.example:5000/v2/"),
            "{}",
            hint(secure)
        );
    }

    #[test]
    fn a_registry_that_sends_the_login_back_does_not_have_it_printed() {
        let login = Login::new("ann".into(), "s3cret~?>".into());
        let auth = RegistryAuth::new("r", Some(&login));
        let basic = base64::engine::general_purpose::STANDARD.encode("ann:s3cret~?>");
        let message = format!("denied: Basic {basic} {} s3cret~?>\x1b[2J\nx", auth.header);
        let error = refused(
            &designation(),
            &message,
            RegistryVerdict::of(&message, &designation().name),
            &auth,
        )
        .to_string();
        assert_eq!(
            error,
            "reg.example:5000/team/x:1 can't be pushed: denied: Basic *** *** *** [2J x"
        );
        assert!(!format!("{auth:?}").contains("s3cret"));
    }

    #[test]
    fn a_message_has_an_end() {
        let auth = RegistryAuth::new("r", None);
        assert!(auth.clean(&"\u{fc}".repeat(100_000)).chars().count() <= MESSAGE_LIMIT + 3);
    }

    #[test]
    fn the_digest_is_read_where_only_the_status_has_it() {
        let digest = format!("sha256:{}", "ab".repeat(32));
        let status = format!("1.2: digest: {digest} size: 527");
        assert_eq!(digest_of(&status, "1.2").as_deref(), Some(digest.as_str()));
        assert_eq!(digest_of(&status, "1"), None);
        assert!(is_digest(&digest) && !is_digest("sha256:\x1b[2J") && !is_digest("sha256:12"));
    }

    #[test]
    fn a_registry_that_fails_is_borne_for_a_minute() {
        let second = Duration::from_secs(1);
        let begin = Instant::now();
        let mut trouble = Trouble::default();
        assert!(!trouble.is_over(begin, PATIENCE * 2));
        // The engine's countdown is shown once, also for layers that are pushed at the same time.
        let told: Vec<bool> = [("a", 5), ("b", 5), ("a", 4), ("b", 4), ("a", 10), ("b", 10), ("a", 9)]
            .into_iter()
            .map(|(layer, seconds)| trouble.waits(layer, seconds, begin))
            .collect();
        assert_eq!(told, [true, false, false, false, true, false, false]);
        // The engine gave up after fifty seconds.
        trouble.failed("500", begin + second * 50);
        assert!(!trouble.is_over(begin + second * 50, second) && trouble.is_over(begin + second * 50, second * 11));
        assert!(trouble.waits("a", 5, begin + second * 51));
        assert!(trouble.is_over(begin + second * 56, second * 10));
        // A layer that arrives ends the trouble.
        trouble.ends();
        assert!(!trouble.is_over(begin + second * 56, second * 10));
        assert_eq!(wait_of("Retrying in 1 second"), Some(1));
        assert_eq!(wait_of("Retrying in 15 seconds"), Some(15));
        assert_eq!(wait_of("Retrying in \u{1b}[2J seconds"), None);
    }

    #[test]
    fn what_an_earlier_try_pushed_counts_as_pushed() {
        let mut layers = BTreeMap::from([("a".to_owned(), Fate::Pushed)]);
        for (layer, fate) in [("a", Fate::Present), ("b", Fate::Mounted), ("c", Fate::Present)] {
            let known = layers.entry(layer.to_owned()).or_insert(fate);
            *known = fate.max(*known);
        }
        assert_eq!(
            count(&layers),
            Layers {
                pushed: 1,
                mounted: 1,
                present: 1
            }
        );
    }
}
