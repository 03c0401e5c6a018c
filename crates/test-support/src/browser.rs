//! A browser: Debian's Chromium without a window, driven by chromedriver over HTTP as [WebDriver] says, and what a test
//! does with JupyterLab in it.
//!
//! It runs in a container on the machine's own engine, in the machine's network: it sees 127.0.0.1 as the user's browser
//! does. The container ends with the test, however that ends.
//!
//! ```no_run
//! use dockerutils_test_support::Browser;
//!
//! let browser = Browser::start();
//! browser.open("http://127.0.0.1:8888/lab/tree/a.ipynb?token=secret");
//! browser.wait_for_notebook();
//! assert_eq!(browser.run_cell("6*7"), "42");
//! ```
//!
//! [WebDriver]: https://www.w3.org/TR/webdriver2/
#![expect(clippy::panic, clippy::expect_used, reason = "a harness fails its test by panicking")]

use std::fmt;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::http;
use crate::lab::{self, Lab, NotebookImage};
use crate::wait::{self, PATIENCE};

/// Runs chromedriver until stdin ends, so that it ends with the test, however the test ends. It chooses a free port.
const KEEPER: &str = "chromedriver --port=0 2>&1 & driver=$!; cat >/dev/null; kill $driver; wait";

/// What chromedriver says when it listens.
const STARTED: &str = "started successfully on port ";

/// The name of an element's identifier in JSON, which the standard prescribes.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// The window's width and height: both columns of JupyterLab fit, and a notebook of some cells.
const WINDOW: (u32, u32) = (1280, 900);

/// Keys that have no character, as the standard numbers them.
const SHIFT: &str = "\u{e008}";
const ENTER: &str = "\u{e007}";
const RELEASE: &str = "\u{e000}";

/// JupyterLab's notebook that is in front.
const NOTEBOOK: &str = ".jp-NotebookPanel:not(.lm-mod-hidden)";

/// A browser with one window; it ends when this is dropped.
#[derive(Debug)]
pub struct Browser {
    driver: Child,
    stdin: Option<ChildStdin>,
    address: SocketAddr,
    session: String,
}

/// A part of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element(String);

impl Browser {
    /// Starts one, which takes two seconds when its image is there.
    ///
    /// # Panics
    /// When the image can't be made, or the browser does not start.
    pub fn start() -> Self {
        Self::start_seeing(&[])
    }

    /// A browser that sees these directories of the machine by their own paths, for pages `file://`.
    ///
    /// # Panics
    /// As [`Browser::start`].
    pub fn start_seeing(directories: &[&Path]) -> Self {
        static STARTED_ONES: AtomicU32 = AtomicU32::new(0);
        let image = lab::notebook_image(NotebookImage::Browser).expect("the lab's image with a browser");
        let lab = Lab::open().expect("the lab");
        let number = STARTED_ONES.fetch_add(1, Ordering::Relaxed);
        let mut run = lab.docker();
        run.args([
            "run",
            "--rm",
            "--interactive",
            "--init",
            "--network=host",
            "--shm-size=1g",
        ]);
        run.arg(format!("--name={}-browser-{}-{number}", lab.mark(), std::process::id()));
        run.args(lab.labels());
        for directory in directories.iter().map(|directory| directory.display()) {
            run.arg(format!("--volume={directory}:{directory}:ro"));
        }
        let mut driver = run
            .args([&image, "sh", "-c", KEEPER])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("docker");
        let stdin = driver.stdin.take();
        let port = port(driver.stdout.take().expect("it is piped"));
        let mut browser = Self {
            driver,
            stdin,
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            session: String::new(),
        };
        let (width, height) = WINDOW;
        let size = format!("--window-size={width},{height}");
        // In a container, root has no user namespaces for Chromium's own sandbox.
        let arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
            &size,
        ];
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "acceptInsecureCerts": true,
            "browserName": "chrome",
            "goog:chromeOptions": { "args": arguments },
        } } });
        let session = browser.call("POST", "/session", &wanted).expect("a session");
        browser.session = session
            .get("sessionId")
            .and_then(Value::as_str)
            .expect("a session has a name")
            .to_owned();
        browser
    }

    /// Opens a page, and waits until it is loaded; what its scripts do after that is not waited for.
    ///
    /// # Panics
    /// When nothing answers there.
    pub fn open(&self, url: &str) {
        self.must("POST", "/url", &json!({ "url": url }));
    }

    /// Loads the page again.
    ///
    /// # Panics
    /// When it can't be loaded.
    pub fn reload(&self) {
        self.must("POST", "/refresh", &json!({}));
    }

    /// The address of the page that is shown.
    ///
    /// # Panics
    /// When the browser is gone.
    pub fn url(&self) -> String {
        text(&self.must("GET", "/url", &Value::Null))
    }

    /// Runs the body of a function of JavaScript in the page, with these `arguments`, and returns what it returns.
    ///
    /// # Panics
    /// When it throws.
    pub fn script(&self, body: &str, arguments: &[Value]) -> Value {
        self.must("POST", "/execute/sync", &json!({ "script": body, "args": arguments }))
    }

    /// The first element of this CSS selector, as soon as there is one.
    ///
    /// # Panics
    /// When there is none in time.
    pub fn wait_for(&self, selector: &str) -> Element {
        self.found(selector, || self.all(selector).into_iter().next())
    }

    /// The elements of this CSS selector that are there now, in the page's order.
    ///
    /// # Panics
    /// When the browser is gone.
    pub fn all(&self, selector: &str) -> Vec<Element> {
        let found = self.must(
            "POST",
            "/elements",
            &json!({ "using": "css selector", "value": selector }),
        );
        let elements = found.as_array().into_iter().flatten();
        elements
            .filter_map(|element| Some(Element(element.get(ELEMENT)?.as_str()?.to_owned())))
            .collect()
    }

    /// Waits until `look` finds something.
    ///
    /// # Panics
    /// When it finds nothing in time; the message names the picture of the page at that moment.
    pub fn found<T>(&self, what: &str, look: impl FnMut() -> Option<T>) -> T {
        // Only a failure takes the picture.
        wait::found(fmt::from_fn(|f| write!(f, "{what} ({})", self.evidence())), look)
    }

    /// Clicks on an element.
    ///
    /// # Panics
    /// When it is gone, or something lies over it.
    pub fn click(&self, element: &Element) {
        self.must("POST", &format!("/element/{}/click", element.0), &json!({}));
    }

    /// Types into an element.
    ///
    /// # Panics
    /// When it is gone, or takes no text.
    pub fn keys(&self, element: &Element, keys: &str) {
        self.must(
            "POST",
            &format!("/element/{}/value", element.0),
            &json!({ "text": keys }),
        );
    }

    /// Types into whatever has the focus, as a keyboard does.
    ///
    /// # Panics
    /// When the browser is gone.
    pub fn keys_to_page(&self, keys: &str) {
        let strokes = keys.chars().map(String::from);
        let strokes: Vec<Value> = strokes
            .flat_map(|key| ["keyDown", "keyUp"].map(|action| json!({ "type": action, "value": key })))
            .collect();
        let keyboard = json!({ "actions": [{ "type": "key", "id": "keyboard", "actions": strokes }] });
        self.must("POST", "/actions", &keyboard);
    }

    /// The text of an element as a reader sees it.
    ///
    /// # Panics
    /// When it is gone.
    pub fn text(&self, element: &Element) -> String {
        text(&self.must("GET", &format!("/element/{}/text", element.0), &Value::Null))
    }

    /// Writes a picture of what the window shows, for people to look at, and returns its path: `target/pictures/NAME.png`.
    ///
    /// # Panics
    /// When the file can't be written.
    pub fn picture(&self, name: &str) -> PathBuf {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/pictures");
        fs::create_dir_all(&directory).expect("a directory below target");
        let file = directory.join(format!("{name}.png"));
        let picture = text(&self.must("GET", "/screenshot", &Value::Null));
        fs::write(&file, STANDARD.decode(picture).expect("a picture in base64")).expect("a place for the picture");
        file
    }

    /// The end of the message of a test that fails in front of this page.
    fn evidence(&self) -> String {
        let file = self.picture(&format!("failed-{}", std::process::id()));
        format!("{} shows {}", file.display(), self.url())
    }

    /// Calls chromedriver within the session.
    fn must(&self, method: &str, path: &str, body: &Value) -> Value {
        let path = format!("/session/{}{path}", self.session);
        self.call(method, &path, body)
            .unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// Calls chromedriver; the `value` of what it answers.
    fn call(&self, method: &str, path: &str, body: &Value) -> Result<Value, String> {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let fields = ["Content-Type: application/json; charset=utf-8"];
        let answer = http::send(self.address, method, path, &fields, body.as_bytes(), PATIENCE)
            .map_err(|error| format!("chromedriver: {error}"))?;
        let value = answer.json().get("value").cloned().unwrap_or_default();
        if answer.status == 200 {
            return Ok(value);
        }
        let part = |name| value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        Err(format!("{}: {}", part("error"), part("message")))
    }
}

/// What a test does with JupyterLab in the page.
impl Browser {
    /// Waits until a notebook is open, its kernel idle, and nothing lies over it.
    ///
    /// # Panics
    /// When that is not so in time.
    pub fn wait_for_notebook(&self) {
        // The indicator beside the kernel's name is idle before there is a kernel, too; the status bar names both.
        let ready = "const bar = document.querySelector('#jp-main-statusbar'); \
                     return !document.querySelector('#jupyterlab-splash, .jp-Dialog') \
                     && !!document.querySelector(arguments[0] + ' .jp-CodeCell .cm-content') \
                     && !!bar && / \\| Idle/.test(bar.innerText) && !/No Kernel/.test(bar.innerText)";
        self.found("a notebook whose kernel is idle", || {
            self.script(ready, &[NOTEBOOK.into()]).as_bool().filter(|ready| *ready)
        });
    }

    /// Types one line of code into the last cell, and has it run: in JupyterLab, a new cell appears below. Returns the
    /// cell's number from the top, for [`Browser::output`]; waits for nothing.
    ///
    /// # Panics
    /// When there is no such cell.
    pub fn start_cell(&self, code: &str) -> usize {
        let cells = self.all(&format!("{NOTEBOOK} .jp-CodeCell .cm-content"));
        let last = cells
            .last()
            .unwrap_or_else(|| panic!("a notebook without a cell; {}", self.evidence()));
        self.click(last);
        self.keys(last, &format!("{code}{SHIFT}{ENTER}{RELEASE}"));
        cells.len() - 1
    }

    /// What a cell has printed and returned so far, as a reader sees it; `None` while it has not ended.
    ///
    /// # Panics
    /// When the browser is gone.
    pub fn output(&self, cell: usize) -> Option<String> {
        let ended = "const cell = document.querySelectorAll(arguments[0] + ' .jp-CodeCell')[arguments[1]]; \
                     return /\\[\\d+\\]/.test(cell.querySelector('.jp-InputPrompt').textContent)";
        let is_over = self.script(ended, &[NOTEBOOK.into(), cell.into()]) == json!(true);
        is_over.then(|| self.output_so_far(cell))
    }

    /// What a cell has printed and returned so far, as a reader sees it.
    ///
    /// # Panics
    /// When the browser is gone.
    pub fn output_so_far(&self, cell: usize) -> String {
        let read = "const cell = document.querySelectorAll(arguments[0] + ' .jp-CodeCell')[arguments[1]]; \
                    const outputs = cell ? [...cell.querySelectorAll('.jp-OutputArea-output')] : []; \
                    return outputs.map(output => output.innerText).join('\\n')";
        text(&self.script(read, &[NOTEBOOK.into(), cell.into()]))
            .trim()
            .to_owned()
    }

    /// [`Browser::start_cell`], and what the cell has printed and returned in the end.
    ///
    /// # Panics
    /// When it does not end in time.
    pub fn run_cell(&self, code: &str) -> String {
        let cell = self.start_cell(code);
        self.found(&format!("the end of the cell {code:?}"), || self.output(cell))
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Its end of stdin ends the container; a failure from here on must not fail a test.
        drop(self.stdin.take());
        let _ = self.driver.wait();
    }
}

/// The port that chromedriver says that it listens on.
fn port(stdout: impl Read + Send + 'static) -> u16 {
    let (sender, started) = mpsc::channel();
    thread::spawn(move || {
        // Read to the end: a program whose output nobody reads would stop.
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if let Some((_, port)) = line.split_once(STARTED) {
                // The test that waited has gone if this fails.
                let _ = sender.send(port.trim_end_matches('.').parse());
            }
        }
    });
    started
        .recv_timeout(PATIENCE)
        .expect("chromedriver listens")
        .expect("a port is a number")
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
