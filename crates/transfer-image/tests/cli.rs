//! The real `transfer-image` in a sandbox, between two scripted engines: help, plans, and each error with its hint.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a harness fails its test by panicking")]

use dockerutils_test_support::{Invocation, Reply, Sandbox, ScriptedEngine};
use serde_json::{Value, json};

const ID: &str = "sha256:1111111111111111111111111111111111111111111111111111111111111111";
const LAYER: &str = "sha256:2222222222222222222222222222222222222222222222222222222222222222";
const TOP: &str = "sha256:3333333333333333333333333333333333333333333333333333333333333333";

fn image() -> Value {
    json!({
        "Id": ID, "RepoTags": ["dev:1"], "Os": "linux", "Architecture": "amd64",
        "RootFS": { "Type": "layers", "Layers": [LAYER, TOP] },
    })
}

fn engine(id: &str) -> ScriptedEngine {
    ScriptedEngine::start()
        .on(
            "GET",
            "/info",
            Reply::json(200, &json!({ "ID": id, "Name": id, "DriverStatus": [["x", "y"]] })),
        )
        .on(
            "GET",
            "/version",
            Reply::json(200, &json!({ "Os": "linux", "Arch": "amd64" })),
        )
}

/// An engine that has the image `dev:1` of two layers.
fn source() -> ScriptedEngine {
    let names = json!([{
        "Id": ID, "ParentId": "", "RepoTags": ["dev:1"], "RepoDigests": [], "Created": 0, "Size": 1, "SharedSize": -1,
        "Labels": {}, "Containers": -1,
    }]);
    let step =
        |size: u64| json!({ "Id": "x", "Created": 0, "CreatedBy": "x", "Tags": null, "Size": size, "Comment": "" });
    engine("source")
        .on("GET", "/images/dev:1/json", Reply::json(200, &image()))
        .on(
            "GET",
            "/images/dev:1/history",
            Reply::json(200, &json!([step(2_000_000), step(0), step(9_000_000)])),
        )
        .on("GET", "/images/json", Reply::json(200, &names))
}

/// An engine that has an image of the lower layer.
fn destination() -> ScriptedEngine {
    let base = json!([{
        "Id": LAYER, "ParentId": "", "RepoTags": [], "RepoDigests": [], "Created": 0, "Size": 1, "SharedSize": -1,
        "Labels": {}, "Containers": -1,
    }]);
    engine("destination")
        .on("GET", "/images/json", Reply::json(200, &base))
        .on(
            "GET",
            &format!("/images/{LAYER}/json"),
            Reply::json(
                200,
                &json!({ "Id": LAYER, "RootFS": { "Type": "layers", "Layers": [LAYER] } }),
            ),
        )
}

fn transfer<'a>(sandbox: &'a Sandbox, source: &ScriptedEngine) -> Invocation<'a> {
    sandbox.command("transfer-image").engine(source)
}

#[test]
fn help_is_as_it_was() {
    let sandbox = Sandbox::new();
    let command = || sandbox.command("transfer-image");
    command().arg("-h").stdout(include_str!("help.txt")).run();
    command().arg("--help").stdout(include_str!("help-long.txt")).run();
    command().arg("--version").stdout("transfer-image 3.0.0\n").run();
}

#[test]
fn wrong_usage_is_code_2() {
    let sandbox = Sandbox::new();
    let command = || sandbox.command("transfer-image");
    command()
        .code(2)
        .stderr_has("<IMAGE... DEST>")
        .stderr_has("--help")
        .run();
    command()
        .arg("dev")
        .code(2)
        .stderr("transfer-image: dev is to be sent, and nothing says where to\n\nhint: transfer-image dev DEST\n")
        .run();
    command()
        .args(["--abort", "dev", "far"])
        .code(2)
        .stderr("transfer-image: --abort is of a whole destination, not of dev\n\nhint: transfer-image --abort far\n")
        .run();
    command()
        .args(["--all", "dev", "far"])
        .code(2)
        .stderr_has("--abort")
        .run();
    command()
        .args(["dev", "-oProxyCommand=x"])
        .code(2)
        .stderr_has("--help")
        .run();
    command()
        .args(["dev", "a b"])
        .code(2)
        .stderr_has("\"a b\" is not a place for images")
        .stderr_has("hint: a dock (ls-dock lists them), [user@]host[:port], or localhost")
        .run();
    command()
        .args(["dev", "ann@box"])
        .env("SSH_KEY", "/nowhere/key")
        .code(2)
        .stderr_has("there is no key /nowhere/key (SSH_KEY)")
        .stderr_has("hint: SSH_KEY names the private key's file")
        .run();
}

#[test]
fn a_plan_is_printed_and_nothing_is_sent() {
    let (sandbox, source, dest) = (Sandbox::new(), source(), destination());
    let host = dest.host();
    transfer(&sandbox, &source)
        .args(["dev:1", &host, "--dry-run"])
        .stdout_has("dev:1 to unix://")
        .stdout_has(": 1 layer to send (about 2.0 MB), 1 there\n")
        .run();
    let plan = transfer(&sandbox, &source)
        .args(["dev:1", &host, "--dry-run", "--json"])
        .any_stdout()
        .run()
        .json();
    assert_eq!(
        plan,
        json!({ "images": [{
            "image": "dev:1", "destination": host, "config_digest": ID,
            "layers_to_send": 1, "layers_skipped": 1, "bytes_to_send": 2_000_000,
        }] })
    );
    let asked = dest.requests();
    assert!(asked.iter().all(|request| request.method == "GET"), "{asked:?}");
}

#[test]
fn an_image_that_is_not_there_names_the_nearest() {
    let (sandbox, source, dest) = (Sandbox::new(), source(), destination());
    transfer(&sandbox, &source)
        .args(["dev:2", &dest.host()])
        .code(1)
        .stderr_has("transfer-image: there is no image dev:2 on the engine at unix://")
        .stderr_has("\n\nhint: is it dev:1?\n")
        .run();
}

#[test]
fn the_engine_that_has_the_image_is_no_destination() {
    let (sandbox, source, dest) = (Sandbox::new(), source(), engine("source"));
    let told = |invocation: Invocation<'_>, hint: &str| {
        invocation
            .args(["dev:1", &dest.host()])
            .code(2)
            .stderr_has(" is the engine that the image is on\n\nhint: ")
            .stderr_has(hint)
            .run();
    };
    told(
        transfer(&sandbox, &source),
        "name where the image is with --from (ls-dock lists the docks), or another destination",
    );
    let docked = transfer(&sandbox, &source).env("_DOCK_MONIKER", "[dock:far] ");
    told(
        docked,
        "this shell is docked there: castoff, or name where the image is: --from localhost",
    );
}

#[test]
fn engines_that_do_not_answer_are_code_3() {
    let (sandbox, source) = (Sandbox::new(), source());
    let nowhere = format!("unix://{}/none.sock", sandbox.project().display());
    transfer(&sandbox, &source)
        .args(["dev:1", &nowhere])
        .code(3)
        .stderr_has("no engine answers at")
        .run();
    sandbox
        .command("transfer-image")
        .args(["dev:1", &source.host()])
        .code(3)
        .stderr_has("no engine answers at")
        .run();
}

#[test]
fn a_key_is_needed_for_addresses_only_and_a_damaged_project_is_told() {
    let (sandbox, source, dest) = (Sandbox::new(), source(), destination());
    transfer(&sandbox, &source)
        .args(["dev:1", &dest.host(), "--dry-run"])
        .env("SSH_KEY", "/nowhere/key")
        .any_stdout()
        .run();
    sandbox.write("docker/dev/Dockerfile", "FROM scratch\n");
    sandbox.write("docker/dockerutils.cfg", "[dev\n");
    transfer(&sandbox, &source)
        .args(["dev", &dest.host(), "--dry-run"])
        .code(2)
        .stderr_has("dockerutils.cfg")
        .run();
}

/// An image of one layer as engine 26 saves it: the files of its archive, and its digests.
struct Saved {
    files: Vec<(String, Vec<u8>)>,
    layer: String,
    id: String,
}

fn digest(content: &[u8]) -> String {
    use sha2::{Digest as _, Sha256};
    let hex: String = Sha256::digest(content)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("sha256:{hex}")
}

impl Saved {
    fn new() -> Self {
        let layer = vec![7; 1024];
        let config = b"{\"os\":\"linux\"}".to_vec();
        let (layer_digest, id) = (digest(&layer), digest(&config));
        let path = |digest: &str| digest.replace("sha256:", "blobs/sha256/");
        Self {
            files: vec![(path(&layer_digest), layer), (path(&id), config)],
            layer: layer_digest,
            id,
        }
    }

    fn archive(&self) -> Vec<u8> {
        let mut archive = Vec::new();
        for (path, content) in &self.files {
            let mut header = tar::Header::new_gnu();
            // Not by set_path, which refuses paths that lead out of a directory.
            header
                .as_mut_bytes()
                .get_mut(..path.len())
                .unwrap()
                .copy_from_slice(path.as_bytes());
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            header.set_cksum();
            archive.extend_from_slice(header.as_bytes());
            archive.extend_from_slice(content);
            archive.resize(archive.len().next_multiple_of(512), 0);
        }
        archive.resize(archive.len() + 1024, 0);
        archive
    }

    /// An engine that has the image as `one:1`, and saves it as this archive.
    fn source(&self, archive: Vec<u8>) -> ScriptedEngine {
        let image = json!({
            "Id": self.id, "RepoTags": ["one:1"], "Os": "linux", "Architecture": "amd64",
            "RootFS": { "Type": "layers", "Layers": [self.layer] },
        });
        engine("source")
            .on("GET", "/images/one:1/json", Reply::json(200, &image))
            .on("GET", "/images/one:1/history", Reply::json(200, &json!([])))
            .on("GET", &format!("/images/{}/get", self.id), Reply::bytes(archive))
    }

    /// An engine that has no layer before, and the whole image afterwards.
    fn destination(&self) -> ScriptedEngine {
        let image = json!({
            "Id": self.id, "RepoTags": ["one:1"], "RootFS": { "Type": "layers", "Layers": [self.layer] },
        });
        empty()
            .on("GET", &format!("/images/{}/json", self.id), Reply::json(200, &image))
            .on("POST", &format!("/images/{}/tag", self.id), Reply::empty(201))
            .on("GET", "/images/one:1/json", Reply::json(200, &image))
    }
}

fn empty() -> ScriptedEngine {
    engine("destination").on("GET", "/images/json", Reply::json(200, &json!([])))
}

fn loaded() -> Reply {
    Reply::stream(&[json!({ "stream": "Loaded image" })])
}

/// The name that an image has while it is removed.
const REMOVING: &str = "io.dockerutils.transfer/removing";

/// Whether no image got a name, but the one for its removal.
fn is_unnamed(engine: &ScriptedEngine) -> bool {
    let removing = format!("repo={}", REMOVING.replace('/', "%2F"));
    let asked = engine.requests();
    let mut tags = asked.iter().filter(|request| request.path.ends_with("/tag"));
    tags.all(|request| request.query.contains(&removing))
}

#[test]
fn what_was_sent_is_told_in_one_document() {
    let saved = Saved::new();
    let (sandbox, source) = (Sandbox::new(), saved.source(saved.archive()));
    let dest = saved.destination().on("POST", "/images/load", loaded());
    let outcome = transfer(&sandbox, &source)
        .args(["one:1", &dest.host(), "--json"])
        .any_stdout()
        .run();
    let image = outcome.json()["images"][0].clone();
    let mut names: Vec<&String> = image.as_object().unwrap().keys().collect();
    names.sort();
    let expected = [
        "bytes_sent",
        "config_digest",
        "id",
        "image",
        "layers_sent",
        "layers_skipped",
        "seconds",
        "status",
    ];
    assert_eq!(names, expected);
    let sent = dest.request("POST", "/images/load").body.len();
    assert_eq!(
        (&image["image"], &image["status"], &image["config_digest"], &image["id"]),
        (
            &json!("one:1"),
            &json!("transferred"),
            &json!(saved.id),
            &json!(saved.id)
        )
    );
    assert_eq!(
        (&image["layers_sent"], &image["layers_skipped"], &image["bytes_sent"]),
        (&json!(1), &json!(0), &json!(sent))
    );
    assert!(image["seconds"].as_f64().unwrap() > 0.0);
    // The name is the last thing that it gets.
    let asked = dest.requests();
    let at = |end: &str| asked.iter().rposition(|request| request.path.ends_with(end)).unwrap();
    assert!(at("/load") < at("/tag") && at(&format!("{}/json", saved.id)) < at("/tag"));
}

#[test]
fn an_error_inside_a_success_is_a_failure_and_nothing_gets_a_name() {
    let saved = Saved::new();
    let error = json!({ "error": "no such thing", "errorDetail": { "message": "no such thing" } });
    let (sandbox, source) = (Sandbox::new(), saved.source(saved.archive()));
    let dest = empty().on(
        "POST",
        "/images/load",
        Reply::stream(&[json!({ "stream": "loading" }), error]),
    );
    transfer(&sandbox, &source)
        .args(["one:1", &dest.host(), "-q"])
        .code(1)
        .stderr_has("refuses the image: no such thing")
        .run();
    assert!(is_unnamed(&dest));
}

#[test]
fn an_engine_that_says_loaded_and_has_not_is_found_out() {
    let saved = Saved::new();
    let (sandbox, source) = (Sandbox::new(), saved.source(saved.archive()));
    let dest = empty().on("POST", "/images/load", loaded());
    transfer(&sandbox, &source)
        .args(["one:1", &dest.host(), "-q"])
        .code(1)
        .stderr_has("the image did not arrive whole at unix://")
        .stderr_has("it is not there")
        .run();
    assert!(is_unnamed(&dest));
}

#[test]
fn an_engine_that_has_other_layers_after_the_load_is_found_out() {
    let saved = Saved::new();
    let (sandbox, source) = (Sandbox::new(), saved.source(saved.archive()));
    let other = json!({ "Id": saved.id, "RootFS": { "Type": "layers", "Layers": [LAYER] } });
    let dest = empty()
        .on("POST", "/images/load", loaded())
        .on("GET", &format!("/images/{}/json", saved.id), Reply::json(200, &other))
        .on("POST", &format!("/images/{}/tag", saved.id), Reply::empty(201))
        .on("DELETE", "/images/*", Reply::json(200, &json!([])));
    transfer(&sandbox, &source)
        .args(["one:1", &dest.host(), "-q"])
        .code(1)
        .stderr_has("the image did not arrive whole at unix://")
        .stderr_has("it has other layers")
        .run();
    assert!(is_unnamed(&dest));
    // Removing it by its ID would also remove a name that it was given meanwhile.
    let removed = removed(&dest);
    assert!(!removed.is_empty());
    assert!(removed.iter().all(|path| *path == removal(&saved.id)), "{removed:?}");
}

fn removed(engine: &ScriptedEngine) -> Vec<String> {
    let asked = engine.requests().into_iter();
    let asked = asked.filter(|request| request.method == "DELETE");
    let paths = asked.map(|request| request.path.replace("%2F", "/").replace("%3A", ":"));
    // Several are removed at a time.
    let mut paths: Vec<_> = paths.collect();
    paths.sort();
    paths
}

/// The path by which an image without a name is removed.
fn removal(id: &str) -> String {
    format!("/images/{REMOVING}:{}", id.trim_start_matches("sha256:"))
}

/// A partial image of a transfer of the machine with this ID.
fn partial_image(id: &str, machine: &str, transfer: &str) -> Value {
    json!({
        "Id": id, "ParentId": "", "RepoTags": ["<none>:<none>"], "RepoDigests": [], "Created": 1_000_000, "Size": 1,
        "SharedSize": -1, "Containers": -1,
        "Labels": {
            "io.dockerutils.transfer": ID, "io.dockerutils.user": "tester", "io.dockerutils.transfer.machine": machine,
            "io.dockerutils.transfer.host": "lap\u{1b}top\ntwo", "io.dockerutils.transfer.id": transfer,
        },
    })
}

/// An engine that has these partial images.
fn engine_with_partial_images(partial_images: &[Value]) -> ScriptedEngine {
    engine("destination")
        .on("GET", "/images/json", Reply::json(200, &json!(partial_images)))
        // A partial image that is half removed.
        .on("GET", "/images/json", Reply::json(200, &json!([])))
        .on("POST", "/images/*/tag", Reply::empty(201))
        .on("DELETE", "/images/*", Reply::json(200, &json!([])))
}

/// The ID that the sandbox's machine has got by a transfer.
fn machine_id(sandbox: &Sandbox) -> String {
    let saved = Saved::new();
    let dest = saved.destination().on("POST", "/images/load", loaded());
    transfer(sandbox, &saved.source(saved.archive()))
        .args(["one:1", &dest.host(), "-q"])
        .any_stdout()
        .run();
    let state = sandbox.home().join(".local/state/dockerutils");
    let files = std::fs::read_dir(&state).unwrap().map(|entry| entry.unwrap().path());
    let ids: Vec<_> = files
        .filter(|path| path.extension().is_some_and(|end| end == "id"))
        .collect();
    // The lock of the transfer went with it.
    assert_eq!(std::fs::read_dir(state.join("transfers")).unwrap().count(), 0);
    let [id] = ids.as_slice() else { panic!("{ids:?}") };
    std::fs::read_to_string(id).unwrap().trim_end().to_owned()
}

#[test]
fn what_transfers_of_this_machine_left_is_removed_and_what_others_did_is_named() {
    let sandbox = Sandbox::new();
    let machine = machine_id(&sandbox);
    let partial_images = [
        partial_image(LAYER, &machine, "0123456789abcdef"),
        partial_image(TOP, &"f".repeat(32), "0123456789abcdef"),
    ];
    let abort = |dest: &ScriptedEngine, arguments: &[&str]| {
        let host = dest.host();
        let invocation = sandbox
            .command("transfer-image")
            .args(["--abort", &host])
            .args(arguments);
        invocation.any_stdout().any_stderr().run()
    };
    let dest = engine_with_partial_images(&partial_images);
    let outcome = abort(&dest, &[]);
    assert!(outcome.stdout.ends_with(": 1 unnamed image\n"), "{outcome}");
    for part in [
        "1 unnamed image with layers of",
        "another machine, lap",
        " days ago",
        "--abort --all",
    ] {
        assert!(outcome.stderr.contains(part), "{part}: {outcome}");
    }
    assert!(!outcome.stderr.contains('\u{1b}'), "{outcome}");
    assert_eq!(removed(&dest), [removal(LAYER)]);
    // A plan changes nothing.
    let dest = engine_with_partial_images(&partial_images);
    let outcome = abort(&dest, &["--all", "--dry-run"]);
    assert_eq!(outcome.stdout.lines().count(), 2, "{outcome}");
    assert!(removed(&dest).is_empty() && is_unnamed(&dest));
    let dest = engine_with_partial_images(&partial_images);
    let outcome = abort(&dest, &["--all", "--json"]).json();
    assert_eq!(outcome, json!({ "removed": [LAYER, TOP], "left": [] }));
    assert_eq!(removed(&dest), [removal(LAYER), removal(TOP)]);
}

#[test]
fn a_machine_that_has_sent_nothing_removes_nothing_of_others() {
    let sandbox = Sandbox::new();
    let dest = engine_with_partial_images(&[partial_image(LAYER, &"f".repeat(32), "0123456789abcdef")]);
    let outcome = sandbox
        .command("transfer-image")
        .args(["--abort", &dest.host(), "--json"])
        .any_stdout()
        .stderr_has("another machine")
        .run()
        .json();
    assert_eq!(outcome["removed"], json!([]));
    let left = &outcome["left"][0];
    assert_eq!((&left["image"], &left["kept_by"]), (&json!(ID), &json!([LAYER])));
    assert!(removed(&dest).is_empty());
    assert!(!sandbox.home().join(".local").exists(), "looking makes nothing");
}

#[test]
fn garbage_for_an_answer_is_a_link_that_was_cut() {
    let saved = Saved::new();
    let (sandbox, source) = (Sandbox::new(), saved.source(saved.archive()));
    let dest = saved
        .destination()
        .on("POST", "/images/load", Reply::garbage("SSH-2.0-x\r\n\r\n"))
        .on("POST", "/images/load", loaded());
    transfer(&sandbox, &source)
        .args(["one:1", &dest.host()])
        .any_stdout()
        .stderr_has("the link was cut")
        .stderr_has("trying again")
        .run();
}

#[test]
fn a_save_that_fails_or_breaks_off_is_a_failure() {
    let saved = Saved::new();
    let dest = empty().on("POST", "/images/load", loaded());
    for archive in [700, 0] {
        let (sandbox, source) = (Sandbox::new(), saved.source(saved.archive()[..archive].to_vec()));
        transfer(&sandbox, &source)
            .args(["one:1", &dest.host(), "--json"])
            .code(1)
            .any_stdout()
            .stderr_has("can't be read")
            .run();
    }
    let sandbox = Sandbox::new();
    let image = json!({
        "Id": saved.id, "RepoTags": ["one:1"], "RootFS": { "Type": "layers", "Layers": [saved.layer] },
    });
    let source = engine("source")
        .on("GET", "/images/one:1/json", Reply::json(200, &image))
        .on("GET", "/images/one:1/history", Reply::json(200, &json!([])))
        .on(
            "GET",
            "/images/*/get",
            Reply::error(500, "open /var/lib/docker: no space"),
        );
    let outcome = transfer(&sandbox, &source)
        .args(["one:1", &dest.host(), "--json"])
        .code(1)
        .any_stdout()
        .stderr_has("can't be read")
        .stderr_has("open /var/lib/docker: no space")
        .run();
    assert_eq!(outcome.json()["images"][0]["status"], "failed");
    assert!(is_unnamed(&dest));
}

#[test]
fn layers_and_a_configuration_that_are_not_what_they_are_called_are_refused() {
    for (damaged, said) in [
        (0, "is damaged at its source"),
        (1, "configuration is damaged at its source"),
    ] {
        let mut saved = Saved::new();
        saved.files[damaged].1[3] ^= 1;
        let (sandbox, source) = (Sandbox::new(), saved.source(saved.archive()));
        let dest = saved.destination().on("POST", "/images/load", loaded());
        transfer(&sandbox, &source)
            .args(["one:1", &dest.host(), "-q"])
            .code(1)
            .stderr_has(said)
            .run();
        assert!(is_unnamed(&dest));
    }
}

#[test]
fn names_that_lead_out_of_an_archive_lead_nowhere() {
    let mut saved = Saved::new();
    let sandbox = Sandbox::new();
    let outside = sandbox.project().join("outside").display().to_string();
    for path in [
        "../../outside",
        "../outside",
        &outside,
        "outside",
        "blobs/sha256/../../outside",
    ] {
        saved.files.insert(0, (path.to_owned(), b"outside".to_vec()));
    }
    let source = saved.source(saved.archive());
    let dest = saved.destination().on("POST", "/images/load", loaded());
    transfer(&sandbox, &source)
        .args(["one:1", &dest.host(), "-q"])
        .any_stdout()
        .run();
    // Neither written here nor handed on: what is sent has the layer's size, and little more.
    assert!(!sandbox.project().join("outside").exists());
    assert!(!sandbox.project().join("../outside").exists());
    assert!(sandbox.leftovers().is_empty());
}

#[test]
fn ids_and_digests_that_are_none_are_refused() {
    let sandbox = Sandbox::new();
    let (none, id) = (format!("sha256:../../{}", "0".repeat(58)), ID.to_owned());
    for (id, layer, said) in [
        (&none, LAYER, "gives an ID of dev:1 that is not valid"),
        (&id, "sha512:00", "gives a layer of dev:1 that is not valid"),
        (&id, none.as_str(), "gives a layer of dev:1 that is not valid"),
    ] {
        let image = json!({ "Id": id, "RepoTags": ["dev:1"], "RootFS": { "Type": "layers", "Layers": [layer] } });
        let source = engine("source").on("GET", "/images/dev:1/json", Reply::json(200, &image));
        transfer(&sandbox, &source)
            .args(["dev:1", &destination().host()])
            .code(1)
            .stderr_has(said)
            .run();
    }
    for garbage in [Reply::bytes("no JSON"), Reply::json(200, &json!([1]))] {
        let source = engine("source").on("GET", "/images/dev:1/json", garbage);
        transfer(&sandbox, &source)
            .args(["dev:1", &destination().host()])
            .code(1)
            .stderr_has("dev:1")
            .run();
    }
}

#[test]
fn a_destination_that_was_mistyped_leaves_nothing_behind() {
    let (sandbox, source) = (Sandbox::new(), source());
    transfer(&sandbox, &source)
        .args(["dev:1", "no-such-machine.invalid"])
        .code(3)
        .any_stderr()
        .run();
    let left: Vec<_> = std::fs::read_dir(sandbox.project().join("../runtime/dockerutils"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn this_machine_is_localhost_also_where_a_dock_was_registered_so() {
    let (sandbox, source) = (Sandbox::new(), source());
    let sandbox = sandbox.file(
        "../home/.config/dockerutils/docks.yml",
        "version: 1\ndocks:\n- moniker: localhost\n  tcp:\n    address: 127.0.0.1:1\n",
    );
    transfer(&sandbox, &source)
        .args(["dev:1", "localhost"])
        .code(2)
        .stderr_has("localhost is this machine, and not the dock tcp://127.0.0.1:1 that was registered by that name")
        .stderr_has("localhost is the engine that the image is on")
        .run();
}

#[test]
fn an_error_is_in_the_document() {
    let (sandbox, source) = (Sandbox::new(), source());
    let said = transfer(&sandbox, &source)
        .args(["dev:1", "a b", "--json"])
        .code(2)
        .any_stdout()
        .any_stderr()
        .run()
        .json();
    assert!(
        said["error"]
            .as_str()
            .unwrap()
            .contains("\"a b\" is not a place for images"),
        "{said}"
    );
    assert_eq!(said["kind"], "usage");
    assert!(said["hint"].as_str().unwrap().starts_with("a dock"), "{said}");
}
