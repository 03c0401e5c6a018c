//! Opening a URL with a secret in it in the user's browser.
//!
//! A program's arguments are seen by every user of the machine, and a browser keeps its own for as long as it runs. So the
//! browser gets the path of a private file (0600, in a directory that only the user can look into), which leads on to the URL,
//! and is removed when the browser has read it.
//!
//! Jupyter puts its file into its runtime directory, below `~/.local/share`; ours is in the directory of our sockets
//! ([`paths::own_directory`]), where nothing outlives a login and nobody else can look. Browsers from snap and flatpak see
//! neither: snap's see the files of their own `~/snap/NAME/common`, so that is where theirs is put, and flatpak's are given the
//! file by the desktop's portal, which xdg-open asks.

use std::fmt;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use notify::event::{AccessKind, EventKind};
use notify::{RecursiveMode, Watcher as _};
use tokio::process::Command;
use tokio::sync::mpsc;

use crate::agent::paths;
use crate::env::Env;
use crate::error::{Error, Result};
use crate::{hexadecimal, shell};

/// The user's choice of browsers: commands with colons between them, `%s` in place of the address (as Python's `webbrowser`
/// and xdg-open read it).
const BROWSER: &str = "BROWSER";
/// How a page's file begins.
const PREFIX: &str = "open-";
/// How it ends: browsers go by that.
const SUFFIX: &str = ".html";
/// The directory for pages of browsers from snap.
const SNAP_DIRECTORY: &str = "dockerutils";
/// How long a browser may take to read its page, before the command that opened it may end: one that starts on a slow disk takes
/// seconds.
const READING: Duration = Duration::from_secs(20);
/// How long it is left to a browser that has opened its page to read it.
const REST: Duration = Duration::from_secs(1);
/// How long the question for the default browser may take.
const QUESTION: Duration = Duration::from_secs(3);
/// When a page that was left is removed by the next one.
const STALE: Duration = Duration::from_secs(3600);

/// A program that opens pages.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Opener {
    /// The program and its arguments; `%s` among them stands for the page.
    words: Vec<String>,
    /// Whether it chooses the browser itself, as xdg-open does.
    is_desktop: bool,
    /// Whether it takes a path only, and no `file:` URL.
    takes_path: bool,
}

/// Why no browser is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoBrowser {
    /// The shell came by ssh: a browser here would not be in front of the user.
    Remote,
    /// There is no graphical desktop.
    NoDesktop,
    /// No program that opens pages is there.
    NoProgram,
    /// It was tried, and failed.
    Failed(String),
}

impl fmt::Display for NoBrowser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Remote => f.write_str("no browser is opened: this shell came by ssh"),
            Self::NoDesktop => f.write_str("no browser is opened: this machine has no graphical desktop"),
            Self::NoProgram => f.write_str("no browser is opened: there is neither xdg-open nor a browser in $BROWSER"),
            Self::Failed(why) => write!(f, "no browser is opened: {why}"),
        }
    }
}

/// A page that was given to a browser. Its file is removed when this is dropped.
#[derive(Debug)]
pub struct OpenedPage {
    file: PageFile,
    /// Says that the file was opened; `None` where that can't be seen.
    opened: Option<mpsc::Receiver<()>>,
    /// Ends the watching.
    _watcher: Option<notify::RecommendedWatcher>,
}

/// A private file, removed when this is dropped.
#[derive(Debug)]
struct PageFile(PathBuf);

impl Drop for PageFile {
    fn drop(&mut self) {
        // Whoever removed it before has done our work.
        let _ = fs::remove_file(&self.0);
    }
}

impl OpenedPage {
    /// Waits until the browser has read the page: for a command that ends at once, and removes it. Not for ever.
    pub async fn is_read(&mut self) {
        match &mut self.opened {
            Some(opened) => {
                let _ = tokio::time::timeout(READING, opened.recv()).await;
                tokio::time::sleep(REST).await;
            }
            // macOS does not say who reads a file.
            None => tokio::time::sleep(READING / 4).await,
        }
    }

    /// The file that leads to the URL.
    pub fn file(&self) -> &Path {
        &self.file.0
    }
}

/// Opens a URL in the user's browser, without waiting for it: it outlives this process, and what it says is not shown.
///
/// # Errors
/// Why no browser is opened, for a note; the URL is there to be opened by hand.
pub async fn open(env: &Env, url: &str) -> Result<OpenedPage, NoBrowser> {
    let openers = openers(env)?;
    let directory = directory(env, &openers).await.map_err(failed)?;
    let file = write(&directory, url)
        .map_err(|cause| NoBrowser::Failed(format!("a file in {} can't be written: {cause}", directory.display())))?;
    let (opened, watcher) = watch(&file.0);
    let mut why = NoBrowser::NoProgram;
    for opener in &openers {
        match start(opener, &file.0) {
            Ok(()) => {
                return Ok(OpenedPage {
                    file,
                    opened,
                    _watcher: watcher,
                });
            }
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
            Err(cause) => {
                let program = opener.words.first().map(String::as_str).unwrap_or_default();
                why = NoBrowser::Failed(format!("{program} can't be started: {cause}"));
            }
        }
    }
    Err(why)
}

fn failed(error: Error) -> NoBrowser {
    NoBrowser::Failed(error.with_causes())
}

/// The programs to be tried, in their order.
fn openers(env: &Env) -> Result<Vec<Opener>, NoBrowser> {
    let has_desktop = ["DISPLAY", "WAYLAND_DISPLAY"]
        .iter()
        .any(|name| env.non_empty(name).is_some());
    let is_wsl = ["WSL_DISTRO_NAME", "WSL_INTEROP"]
        .iter()
        .any(|name| env.non_empty(name).is_some());
    if env.non_empty("SSH_CONNECTION").is_some() && !has_desktop {
        return Err(NoBrowser::Remote);
    }
    let own = env.non_empty(BROWSER).map(chosen).unwrap_or_default();
    let program = |name: &str, takes_path| Opener {
        words: vec![name.to_owned()],
        is_desktop: true,
        takes_path,
    };
    let mut openers = own;
    if cfg!(target_os = "macos") {
        openers.push(program("open", true));
    } else {
        if is_wsl {
            // It leads to Windows' browser, which has another name for the file.
            openers.push(program("wslview", true));
        }
        if has_desktop {
            openers.push(program("xdg-open", true));
        }
    }
    match openers.is_empty() {
        true => Err(NoBrowser::NoDesktop),
        false => Ok(openers),
    }
}

/// The browsers in `$BROWSER`.
fn chosen(value: &str) -> Vec<Opener> {
    let commands = value.split(':').map(|command| command.trim().trim_end_matches('&'));
    commands
        .filter_map(|command| shell::split(command).ok().filter(|words| !words.is_empty()))
        .map(|words| Opener {
            words,
            is_desktop: false,
            takes_path: false,
        })
        .collect()
}

/// The directory for the page: one that the browser can read, and other users can't.
async fn directory(env: &Env, openers: &[Opener]) -> Result<PathBuf> {
    let own = paths::own_directory(env)?;
    let Some(first) = openers.iter().find(|opener| is_there(opener, env)) else {
        return Ok(own);
    };
    let snap = match first.is_desktop {
        true => snap_of_desktop(&default_browser().await.unwrap_or_default()),
        false => first.words.first().and_then(|program| snap_of_program(program, env)),
    };
    let Some(snap) = snap else {
        return Ok(own);
    };
    // Snap makes this directory when the program is first run.
    let common = env.home().join("snap").join(snap).join("common");
    if !common.is_dir() {
        return Ok(own);
    }
    let directory = common.join(SNAP_DIRECTORY);
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&directory)
        .map_err(|cause| Error::failed(format!("{} can't be made", directory.display())).because(cause))?;
    match paths::is_private(&directory) {
        true => Ok(directory),
        // The page is not for others.
        false => Ok(own),
    }
}

/// The desktop file of the default browser, such as `firefox_firefox.desktop`.
async fn default_browser() -> Option<String> {
    let asking = Command::new("xdg-settings")
        .args(["get", "default-web-browser"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(QUESTION, asking).await.ok()?.ok()?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The snap of a desktop file: snapd names it `SNAP_PROGRAM.desktop`.
fn snap_of_desktop(file: &str) -> Option<String> {
    let (snap, program) = file.strip_suffix(".desktop")?.split_once('_')?;
    (is_snap(snap) && !program.is_empty()).then(|| snap.to_owned())
}

/// The snap of a program on PATH that is snap's, or that is a script which starts it (Ubuntu's `/usr/bin/firefox`).
fn snap_of_program(program: &str, env: &Env) -> Option<String> {
    const SCRIPT: u64 = 64 * 1024;
    let path = on_path(program, env)?;
    let name = path.file_name()?.to_str()?.to_owned();
    let is_script_of_snap = || {
        let is_small = fs::metadata(&path).is_ok_and(|file| file.len() < SCRIPT);
        is_small && fs::read(&path).is_ok_and(|text| String::from_utf8_lossy(&text).contains("/snap/bin/"))
    };
    let is_of_snap =
        path.starts_with("/snap/bin") || path.starts_with("/var/lib/snapd/snap/bin") || is_script_of_snap();
    // `firefox.geckodriver` is a program of the snap `firefox`.
    let snap = name.split('.').next().unwrap_or_default();
    (is_of_snap && is_snap(snap)).then(|| snap.to_owned())
}

fn is_snap(name: &str) -> bool {
    let is_sound = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !name.is_empty() && name.bytes().all(is_sound)
}

fn is_there(opener: &Opener, env: &Env) -> bool {
    opener
        .words
        .first()
        .is_some_and(|program| on_path(program, env).is_some())
}

/// The file of a program, as a shell finds it.
fn on_path(program: &str, env: &Env) -> Option<PathBuf> {
    if program.contains('/') {
        return Some(PathBuf::from(program)).filter(|path| path.is_file());
    }
    let path = env.non_empty("PATH")?;
    std::env::split_paths(path)
        .map(|directory| directory.join(program))
        .find(|path| path.is_file())
}

/// Writes the page that leads to the URL.
fn write(directory: &Path, url: &str) -> Result<PageFile, io::Error> {
    sweep(directory);
    let random = hexadecimal::random::<8>().map_err(io::Error::other)?;
    let file = PageFile(directory.join(format!("{PREFIX}{random}{SUFFIX}")));
    let mut content = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&file.0)?;
    content.write_all(page(url).as_bytes())?;
    Ok(file)
}

/// Removes pages that commands left which were killed.
fn sweep(directory: &Path) {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    for entry in entries {
        let name = entry.file_name();
        let is_page = name
            .to_str()
            .is_some_and(|name| name.starts_with(PREFIX) && name.ends_with(SUFFIX));
        let modified = entry.metadata().and_then(|file| file.modified());
        let age = modified
            .ok()
            .and_then(|then| SystemTime::now().duration_since(then).ok());
        if is_page && age.is_some_and(|age| age > STALE) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// A page that leads on at once, also without scripts, and leaves no trace of itself in the history or in what the server is
/// told.
fn page(url: &str) -> String {
    let mut text = String::with_capacity(url.len());
    for c in url.chars() {
        match c {
            '&' => text.push_str("&amp;"),
            '<' => text.push_str("&lt;"),
            '>' => text.push_str("&gt;"),
            '"' => text.push_str("&quot;"),
            '\'' => text.push_str("&#39;"),
            c => text.push(c),
        }
    }
    format!(
        "<!DOCTYPE html>\n<html><head><meta charset=\"utf-8\"><meta name=\"referrer\" content=\"no-referrer\">\n\
         <meta http-equiv=\"refresh\" content=\"0;url={text}\"><title>Opening the notebook</title></head>\n\
         <body><a href=\"{text}\">Open the notebook</a></body></html>\n"
    )
}

/// Starts a program with the page, in a process group of its own: Ctrl-C is not meant for it.
fn start(opener: &Opener, file: &Path) -> io::Result<()> {
    let path = file.display().to_string();
    let address = if opener.takes_path {
        path
    } else {
        format!("file://{path}")
    };
    let has_place = opener.words.iter().any(|word| word.contains("%s"));
    let mut words = opener.words.iter().map(|word| word.replace("%s", &address));
    let program = words.next().unwrap_or_default();
    let mut command = Command::new(program);
    command.args(words);
    if !has_place {
        command.arg(&address);
    }
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .kill_on_drop(false)
        .spawn()?;
    // xdg-open ends at once, a browser may be its own first process: neither is left as a zombie.
    tokio::spawn(async move { child.wait().await.map(drop) });
    Ok(())
}

/// Says when a file is opened, where the system tells.
fn watch(file: &Path) -> (Option<mpsc::Receiver<()>>, Option<notify::RecommendedWatcher>) {
    if cfg!(target_os = "macos") {
        return (None, None);
    }
    let (sender, receiver) = mpsc::channel(1);
    let heard = move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|event| matches!(event.kind, EventKind::Access(AccessKind::Open(_)))) {
            // That it was opened before is known then.
            let _ = sender.try_send(());
        }
    };
    let watching = notify::recommended_watcher(heard).and_then(|mut watcher| {
        watcher.watch(file, RecursiveMode::NonRecursive)?;
        Ok(watcher)
    });
    match watching {
        Ok(watcher) => (Some(receiver), Some(watcher)),
        Err(_) => (None, None),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use dockerutils_test_support::{Sandbox, wait};

    use super::*;

    const URL: &str = "http://127.0.0.1:8888/lab?token=s3cret";

    /// An environment with a private runtime directory, and a browser that writes down its arguments and reads its page.
    fn with_browser(sandbox: &Sandbox, browser: &str) -> Env {
        let runtime = sandbox.home().join("run");
        DirBuilder::new().recursive(true).mode(0o700).create(&runtime).unwrap();
        fs::set_permissions(&runtime, fs::Permissions::from_mode(0o700)).unwrap();
        let home = sandbox.home().display().to_string();
        Env::from_pairs([
            ("HOME", home.clone()),
            ("XDG_RUNTIME_DIR", runtime.display().to_string()),
            ("PATH", std::env::var("PATH").unwrap()),
            (BROWSER, browser.to_owned()),
        ])
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_browser_gets_a_private_file_and_no_secret_on_its_command_line() {
        let sandbox = Sandbox::new().script(
            "browser",
            "#!/bin/sh\nprintf '%s\\n' \"$@\" >\"$0.args\"\ncat \"${2#file://}\" >\"$0.page.new\"\nmv \"$0.page.new\" \"$0.page\"\necho noise\n",
        );
        let program = sandbox.project().join("browser");
        let env = with_browser(
            &sandbox,
            &format!("nowhere-to-be-found:{} --new-window %s", program.display()),
        );
        let mut opened = open(&env, URL).await.unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(opened.file()), 0o600);
        assert_eq!(mode(opened.file().parent().unwrap()), 0o700);
        assert!(opened.file().starts_with(sandbox.home().join("run/dockerutils")));
        opened.is_read().await;
        wait::until("the page is read", || sandbox.project().join("browser.page").exists());
        let arguments = sandbox.read("browser.args");
        assert_eq!(arguments, format!("--new-window\nfile://{}\n", opened.file().display()));
        assert!(!arguments.contains("s3cret"));
        assert!(sandbox.read("browser.page").contains(&format!("url={URL}")));
        let file = opened.file().to_owned();
        drop(opened);
        assert!(!file.exists());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_browser_from_snap_gets_its_page_where_it_may_read() {
        let sandbox = Sandbox::new()
            .script("firefox", "#!/bin/sh\n# exec /snap/bin/firefox \"$@\"\n")
            .script("other", "#!/bin/sh\n");
        fs::create_dir_all(sandbox.home().join("snap/firefox/common")).unwrap();
        let path = |name: &str| sandbox.project().join(name).display().to_string();
        let opened = open(&with_browser(&sandbox, &path("firefox")), URL).await.unwrap();
        let common = sandbox.home().join("snap/firefox/common");
        assert!(opened.file().starts_with(&common), "{opened:?}");
        let opened = open(&with_browser(&sandbox, &path("other")), URL).await.unwrap();
        assert!(opened.file().starts_with(sandbox.home().join("run")), "{opened:?}");
        assert_eq!(snap_of_desktop("firefox_firefox.desktop").as_deref(), Some("firefox"));
        for other in ["firefox.desktop", "../x_y.desktop", "a_b", "_a.desktop", ""] {
            assert_eq!(snap_of_desktop(other), None, "{other:?}");
        }
    }

    #[tokio::test]
    async fn where_no_browser_can_be_opened_it_is_said_why() {
        let sandbox = Sandbox::new();
        let none = with_browser(&sandbox, "nowhere-to-be-found");
        assert_eq!(open(&none, URL).await.unwrap_err(), NoBrowser::NoProgram);
        let left = fs::read_dir(sandbox.home().join("run/dockerutils")).unwrap().count();
        assert_eq!(left, 0, "no page stays");
        for (variables, why) in [
            (
                vec![("SSH_CONNECTION", "a 1 b 2"), (BROWSER, "true")],
                Some(NoBrowser::Remote),
            ),
            (vec![("SSH_CONNECTION", "a 1 b 2"), ("DISPLAY", "localhost:10.0")], None),
            (vec![("WSL_DISTRO_NAME", "Debian")], None),
            (vec![], Some(NoBrowser::NoDesktop)),
        ] {
            let env = Env::from_pairs(variables.clone());
            // macOS has always a desktop, unless it is far.
            if cfg!(target_os = "macos") && why == Some(NoBrowser::NoDesktop) {
                continue;
            }
            assert_eq!(openers(&env).err(), why, "{variables:?}");
        }
    }

    #[test]
    fn a_page_leads_to_its_url_and_to_nothing_else() {
        let page = page("http://127.0.0.1/?a=\"><script>alert('x')</script>&b");
        assert!(!page.contains("<script>"), "{page}");
        assert!(
            page.contains("url=http://127.0.0.1/?a=&quot;&gt;&lt;script&gt;"),
            "{page}"
        );
    }

    #[test]
    fn pages_that_were_left_long_ago_go() {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str, age: Duration| {
            let path = directory.path().join(name);
            fs::write(&path, "x").unwrap();
            fs::File::open(&path)
                .unwrap()
                .set_modified(SystemTime::now() - age)
                .unwrap();
            path
        };
        let (old, young, other) = (
            file("open-1.html", 2 * STALE),
            file("open-2.html", STALE / 2),
            file("other.html", 2 * STALE),
        );
        sweep(directory.path());
        assert!(!old.exists() && young.exists() && other.exists());
    }
}
