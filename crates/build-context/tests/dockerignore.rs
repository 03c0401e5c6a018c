//! What is sent of a build context, compared with what the docker client sends.
//!
//! Each case is a generated tree with a generated `.dockerignore`. The real client builds it on a fake
//! engine, which keeps the archive that it receives; ours must have the same entries in the same order.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use build_context::{ArchiveOptions, Builder, ContextDir, FileKind, WalkError, WalkOptions, ignore, write_archive};
use dockerutils_test_support::Random;

/// Each takes the docker client about 50 ms.
const CASES: u64 = 360;

#[test]
fn sends_what_the_docker_client_sends() {
    let next = AtomicU64::new(0);
    let outcomes = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= CASES {
                        return;
                    }
                    let outcome = compare(seed);
                    outcomes.lock().unwrap().push((seed, outcome));
                }
            });
        }
    });
    let outcomes = outcomes.into_inner().unwrap();
    let failures: Vec<String> = outcomes
        .iter()
        .filter_map(|(seed, outcome)| Some((seed, outcome.as_ref().err()?)))
        .map(|(seed, difference)| format!("case {seed}: {difference}"))
        .collect();
    assert!(
        failures.is_empty(),
        "{} of {CASES} cases differ\n{}",
        failures.len(),
        failures.join("\n")
    );
    // The generator must keep making cases that mean something.
    let count = |outcome: Outcome| {
        let same = outcomes.iter().filter(|(_, o)| *o == Ok(outcome));
        same.count()
    };
    assert!(count(Outcome::Sent) > 200, "{} sent", count(Outcome::Sent));
    assert!(count(Outcome::Refused) > 10, "{} refused", count(Outcome::Refused));
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Sent,
    Refused,
}

fn compare(seed: u64) -> Result<Outcome, String> {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("context");
    let mut random = Random::new(seed);
    plant(&root, &mut random);
    let ignore_file = ignore_file(&root, &mut random);
    fs::write(root.join(".dockerignore"), &ignore_file).unwrap();

    let theirs = docker_archive(directory.path(), &root);
    let ours = our_archive(&root);
    let describe = |difference: String| {
        let file = String::from_utf8_lossy(&ignore_file);
        format!("{difference}\n--- .dockerignore\n{file}\n---")
    };
    let (theirs, ours) = match (theirs, ours) {
        (Ok(theirs), Ok(ours)) => (theirs, ours),
        (Err(_), Err(_)) => return Ok(Outcome::Refused),
        (Ok(_), Err(ours)) => return Err(describe(format!("only ours refuses it: {ours}"))),
        (Err(theirs), Ok(_)) => return Err(describe(format!("only docker refuses it: {theirs}"))),
    };
    let (theirs, ours) = (list(&theirs), list(&ours));
    if theirs != ours {
        let only = |these: &[Item], those: &[Item]| -> String {
            let only = these.iter().filter(|item| !those.contains(item));
            only.map(|item| format!("\n  {item:?}")).collect()
        };
        return Err(describe(format!(
            "only docker sends:{}\nonly we send:{}",
            only(&theirs, &ours),
            only(&ours, &theirs)
        )));
    }
    compare_walk(&root, &ignore_file, &ours).map_err(describe)?;
    Ok(Outcome::Sent)
}

/// The list that BuildKit gets has the same files, and more of them only below an exception with wildcards.
fn compare_walk(root: &Path, ignore_file: &[u8], sent: &[Item]) -> Result<(), String> {
    // Sent in any case by the classic client; BuildKit asks for them in another way.
    let is_ours = |path: &str| path == ".dockerignore" || path == "Dockerfile";
    let sent: BTreeSet<String> = sent
        .iter()
        .filter(|item| item.kind != tar::EntryType::Directory)
        .map(|item| item.path.clone())
        .filter(|path| !is_ours(path))
        .collect();
    let exclude = ignore::read(ignore_file).unwrap();
    let wildcard_exception = exclude
        .iter()
        .any(|pattern| pattern.starts_with(b"!") && pattern.iter().any(|byte| b"*?[]^\\".contains(byte)));
    let context = ContextDir::open(root).unwrap();
    let options = WalkOptions {
        exclude,
        builder: Builder::BuildKit,
        ..WalkOptions::default()
    };
    let mut listed = BTreeSet::new();
    let mut directories = BTreeSet::from([Vec::new()]);
    for entry in context.walk(&options).map_err(|error| error.to_string())? {
        let entry = match entry {
            Ok(entry) => entry,
            // It also looks where the classic client does not, and needs more patterns there.
            Err(WalkError::Pattern(_)) => return Ok(()),
            Err(error) => return Err(error.to_string()),
        };
        let parent = entry.as_path().parent().unwrap();
        if !directories.contains(parent.as_os_str().as_bytes()) {
            return Err(format!("{:?} is listed before its parent", entry.as_path()));
        }
        let path = entry.path.escape_ascii().to_string();
        if entry.kind == FileKind::Directory {
            directories.insert(entry.path);
        } else if !is_ours(&path) {
            listed.insert(path);
        }
    }
    if listed == sent || (wildcard_exception && listed.is_superset(&sent)) {
        return Ok(());
    }
    let difference: Vec<_> = listed.symmetric_difference(&sent).collect();
    Err(format!("the walk and the archive differ in {difference:?}"))
}

fn our_archive(root: &Path) -> Result<Vec<u8>, String> {
    let exclude = ignore::read(&fs::read(root.join(".dockerignore")).unwrap());
    let options = ArchiveOptions {
        exclude: exclude.map_err(|error| error.to_string())?,
        dockerfile: Some(b"Dockerfile".to_vec()),
        extra: None,
    };
    let mut archive = Vec::new();
    let context = ContextDir::open(root).unwrap();
    write_archive(&context, &options, &mut archive, |_| {}).map_err(|error| error.to_string())?;
    Ok(archive)
}

#[derive(Debug, PartialEq, Eq)]
struct Item {
    path: String,
    kind: tar::EntryType,
    mode: u32,
    owner: (u64, u64),
    mtime: u64,
    link: Option<String>,
    /// Their length and hash, which is what a failure should print.
    contents: (usize, u64),
}

/// The entries of an archive.
///
/// The tar crate cuts PAX records at newlines, which names may have, so they are read here.
fn list(archive: &[u8]) -> Vec<Item> {
    let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
    let mut records = BTreeMap::new();
    let mut items = Vec::new();
    for entry in tar::Archive::new(archive).entries().unwrap().raw(true) {
        let mut entry = entry.unwrap();
        let mut contents = Vec::new();
        entry.read_to_end(&mut contents).unwrap();
        let header = entry.header();
        if header.entry_type() == tar::EntryType::XHeader {
            records = pax_records(&contents);
            continue;
        }
        let path = records.remove("path");
        let path = path.unwrap_or_else(|| header.path_bytes().into_owned());
        let link = records.remove("linkpath");
        let link = link.or_else(|| header.link_name_bytes().map(|link| link.into_owned()));
        items.push(Item {
            path: text(path.strip_suffix(b"/").unwrap_or(&path)),
            kind: header.entry_type(),
            mode: header.mode().unwrap(),
            owner: (header.uid().unwrap(), header.gid().unwrap()),
            mtime: header.mtime().unwrap(),
            link: link.map(|link| text(&link)),
            contents: (contents.len(), hash(&contents)),
        });
        assert!(records.is_empty(), "{records:?}");
    }
    items
}

fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

fn pax_records(mut body: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut records = BTreeMap::new();
    while !body.is_empty() {
        let space = body.iter().position(|byte| *byte == b' ').unwrap();
        let length: usize = str::from_utf8(&body[..space]).unwrap().parse().unwrap();
        let record = &body[space + 1..length - 1];
        assert_eq!(body[length - 1], b'\n');
        let equals = record.iter().position(|byte| *byte == b'=').unwrap();
        let key = String::from_utf8(record[..equals].to_vec()).unwrap();
        records.insert(key, record[equals + 1..].to_vec());
        body = &body[length..];
    }
    records
}

/// Builds with the docker client on a fake engine, and returns what the engine got, or what the client says.
fn docker_archive(directory: &Path, root: &Path) -> Result<Vec<u8>, String> {
    let socket = directory.join("engine.sock");
    let engine = Engine::start(&socket);
    let output = Command::new("docker")
        .args(["build", "-q", "."])
        .current_dir(root)
        .env("DOCKER_BUILDKIT", "0")
        .env("DOCKER_HOST", format!("unix://{}", socket.display()))
        .env("DOCKER_CONFIG", directory)
        .env_remove("DOCKER_CONTEXT")
        .stdin(Stdio::null())
        .output()
        .expect("the docker client is needed");
    let archive = engine.archive.lock().unwrap().take();
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    match archive {
        // A pattern that turns out wrong late only ends docker's archive early, which nobody can want.
        Some(archive) if output.status.success() && !message.contains("Error matching") => Ok(archive),
        _ => {
            assert!(
                message.contains("syntax error in pattern") || message.contains("illegal exclusion pattern"),
                "docker failed for another reason: {message}"
            );
            Err(message)
        }
    }
}

/// An engine that answers a ping and takes one build.
struct Engine {
    archive: Arc<Mutex<Option<Vec<u8>>>>,
}

impl Engine {
    fn start(socket: &Path) -> Self {
        let listener = UnixListener::bind(socket).unwrap();
        let archive = Arc::new(Mutex::new(None));
        let engine = Self {
            archive: Arc::clone(&archive),
        };
        // It ends with the test's process: nothing connects once the client is gone.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let archive = Arc::clone(&archive);
                std::thread::spawn(move || serve(stream.unwrap(), &archive));
            }
        });
        engine
    }
}

fn serve(mut stream: UnixStream, archive: &Mutex<Option<Vec<u8>>>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    loop {
        let mut request = String::new();
        if reader.read_line(&mut request).unwrap_or(0) == 0 {
            return;
        }
        let mut chunked = false;
        loop {
            let mut header = String::new();
            reader.read_line(&mut header).unwrap();
            if header.trim().is_empty() {
                break;
            }
            chunked |= header.to_ascii_lowercase().starts_with("transfer-encoding: chunked");
        }
        let body: &str = if request.contains("/build?") {
            assert!(chunked, "{request}");
            *archive.lock().unwrap() = Some(read_chunks(&mut reader));
            "{\"stream\":\"sha256:0\"}"
        } else {
            ""
        };
        let response = format!(
            "HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nBuilder-Version: 1\r\nOstype: linux\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        if stream.write_all(response.as_bytes()).is_err() {
            return;
        }
    }
}

fn read_chunks(reader: &mut impl BufRead) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let size = u64::from_str_radix(line.trim(), 16).unwrap();
        reader.take(size).read_to_end(&mut body).unwrap();
        reader.read_line(&mut line).unwrap();
        if size == 0 {
            return body;
        }
    }
}

const NAMES: &[&str] = &[
    "a",
    "b",
    "c",
    "ab",
    "abc",
    "a.c",
    "a-c",
    "foo",
    "foo.txt",
    "bar.go",
    ".dot",
    ".git",
    "dir",
    "sub",
    "x y",
    "[a]",
    "a*b",
    "a^b",
    "d1",
    "1",
    "é",
    "日本",
    "w\n",
    "#x",
    "!x",
    "back\\slash",
    "ü.txt",
    "a-name-that-is-so-long-that-no-two-of-them-fit-into-the-hundred-bytes-of-a-header",
    "Dockerfile",
    ".dockerignore",
];

/// Makes a tree of some 40 entries.
fn plant(root: &Path, random: &mut Random) {
    fs::create_dir(root).unwrap();
    fs::write(root.join("Dockerfile"), "FROM scratch\n").unwrap();
    fs::write(root.join(".dockerignore"), "").unwrap();
    let mut directories = vec![root.to_owned()];
    let mut files: Vec<PathBuf> = Vec::new();
    for _ in 0..40 {
        let path = random.pick(&directories).join(random.pick(NAMES));
        if path.symlink_metadata().is_ok() {
            continue;
        }
        match random.index(12) {
            0..=3 => {
                fs::create_dir(&path).unwrap();
                directories.push(path);
                continue;
            }
            4 => symlink(*random.pick(&["a", "../dir", "/etc", "nowhere"]), &path).unwrap(),
            5 if !files.is_empty() => fs::hard_link(random.pick(&files), &path).unwrap(),
            _ => {
                fs::write(&path, "x".repeat(random.index(1200))).unwrap();
                let mode = *random.pick(&[0o644, 0o755, 0o600, 0o4755, 0o2640, 0o1777, 0o400]);
                fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
                files.push(path);
            }
        }
    }
    for directory in directories.iter().skip(1) {
        let mode = *random.pick(&[0o755, 0o755, 0o700, 0o1777]);
        fs::set_permissions(directory, fs::Permissions::from_mode(mode)).unwrap();
    }
}

fn ignore_file(root: &Path, random: &mut Random) -> Vec<u8> {
    let mut paths = Vec::new();
    collect(root, root, &mut paths);
    let mut file = String::new();
    if random.one_in(12) {
        file.push('\u{feff}');
    }
    let newline = *random.pick(&["\n", "\n", "\n", "\r\n"]);
    for _ in 0..=random.index(6) {
        file.push_str(&line(&paths, random));
        file.push_str(newline);
    }
    let mut file = file.into_bytes();
    if random.one_in(20) {
        file.extend_from_slice(b"a\xff*");
    }
    file
}

fn collect(root: &Path, directory: &Path, paths: &mut Vec<String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.symlink_metadata().unwrap().is_dir() {
            collect(root, &path, paths);
        }
        let relative = path.strip_prefix(root).unwrap();
        paths.push(relative.to_str().unwrap().replace('\n', "?"));
    }
    paths.sort();
}

fn line(paths: &[String], random: &mut Random) -> String {
    const WHOLE: &[&str] = &[
        "*",
        "**",
        "**/*",
        "*/*",
        "*/**",
        "**/**",
        "***",
        "****",
        "# comment",
        " # not a comment",
        "",
        "!",
        "!/",
        "/",
        ".",
        "..",
        "../a",
        "**/..",
        "**/*.txt",
        "**/a",
        "**a",
        "a**",
        "**/a/**",
        "!**/a",
        "!**",
        "!*",
        "*.go",
        "?",
        "??",
        ".*",
        "**/.*",
        "!.dockerignore",
        "Dockerfile",
        ".dockerignore",
        "[a-c]",
        "[^a]",
        "[^a]*",
        "[*]",
        "[?]",
        "[**]",
        "[[:alpha:]]",
        "[[:nope:]]",
        "[]a]",
        "[a",
        "a]",
        "[z-a]",
        "[a-]",
        "[-a]",
        "\\",
        "a\\",
        "\\d",
        "*\\d",
        "\\D*",
        "a\\b",
        "**\\z",
        "*^b",
        "a^b",
        "a^*",
        "\\x61*",
        "\\141*",
        "\\Qa*\\E*",
        "\\Qa*",
        "foo\\.txt",
        "\\a*",
        "[\\d]",
        "[\\]a]",
        "[[]a]",
        "[a\\-c]*",
        "*/",
        "/*",
        "/**/",
        "a/**/b",
        "a/**b",
        "dir/*/..",
        "!!x",
        "! a",
        "!#x",
        "\u{a0}a\u{3000}",
        "*[!a]",
        "{a,b}",
        "a|b",
        "(a)",
        "a+",
        "$a",
        "[\u{e9}]",
        "?.txt",
        "日*",
        "[A-*]",
        "[a*]b",
        "[*-a]",
        "[^*]",
        "\\é*",
        "back\\\\slash",
        "\\[a\\]",
        "a\\*b",
        "**/[[]a]",
        "\\_*",
        "a*[-a]",
        "**a[-a]",
        ".*[-a]",
        "[^a]*[-a]",
        "?*b[-a]",
    ];
    // What such tokens mean side by side, nobody would guess.
    const TOKENS: &[&str] = &[
        "*",
        "*",
        "**",
        "/",
        "/",
        "a",
        "b",
        "c",
        "?",
        "[",
        "]",
        "[a",
        "a]",
        "-",
        "^",
        "\\",
        "\\d",
        ".",
        "1",
        "é",
        "!",
        "x",
        "[^",
        "[:alpha:]",
        "\\Q",
        "\\E",
        "\\b",
        "{",
        ")",
        "|",
        "$",
        "+",
        "\\x61",
        "foo",
        "[a-c]",
        "**/",
        "/**",
    ];
    match random.index(6) {
        0 | 1 => return (*random.pick(WHOLE)).to_owned(),
        2 => {
            let count = 1 + random.index(6);
            return (0..count).map(|_| *random.pick(TOKENS)).collect();
        }
        _ => {}
    }
    let mut text = match paths.len() {
        0 => "a".to_owned(),
        count => paths[random.index(count)].clone(),
    };
    for _ in 0..random.index(3) {
        let runes: Vec<char> = text.chars().collect();
        let at = random.index(runes.len());
        let rune = runes[at];
        let with = match random.index(8) {
            0 | 1 => "*".to_owned(),
            2 => "?".to_owned(),
            3 => "**".to_owned(),
            4 => format!("[{rune}-{rune}]"),
            5 => format!("[^{rune}]"),
            6 => format!("\\{rune}"),
            _ => "[a-c]".to_owned(),
        };
        text = runes
            .iter()
            .enumerate()
            .map(
                |(index, rune)| {
                    if index == at { with.clone() } else { rune.to_string() }
                },
            )
            .collect();
    }
    let before = *random.pick(&["", "", "", "", "/", "./", "**/", "*/", "a/../", " "]);
    let after = *random.pick(&["", "", "", "", "/", "/**", "/*", " ", "/..", "*", "/."]);
    let exception = if random.one_in(3) { "!" } else { "" };
    format!("{exception}{before}{text}{after}")
}
