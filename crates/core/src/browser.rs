//! Opening a URL with a secret in it in the user's browser.

/// Keeps the private file that redirects; removed on drop.
pub struct OpenedPage { /* ... */ }
impl OpenedPage {
    /// Waits until the browser has read the file (bounded); for commands that end at once.
    pub async fn read(&self) { unimplemented!() }
}
/// Opens it, or says why no browser was opened.
pub fn open(env: &Env, url: &str) -> Result<OpenedPage, NoBrowser> { unimplemented!() }
pub enum NoBrowser { Remote, NoDisplay, NoProgram, /* ... */ }
