//! One build-stack at a time for a directory of images and an engine: two would test and name the same images.

use std::fs::{File, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::Path;
use std::time::Duration;

use dockerutils_core::agent::paths::state_directory;
use dockerutils_core::cli::Context;
use dockerutils_core::error::{Error, Result};
use dockerutils_core::private_file;

use crate::input_digest::digest;

/// How often is looked whether the other has ended.
const LOOK: Duration = Duration::from_millis(200);
/// The most digits of a process number.
const DIGITS: u64 = 20;

/// Held until it is dropped, or its process ends.
#[derive(Debug)]
pub struct StackLock {
    _file: File,
}

impl StackLock {
    /// Waits until no other build-stack works on this directory and engine; that is said.
    ///
    /// # Errors
    /// The file of the lock can't be made; no such dock.
    pub async fn take(context: &Context, directory: &Path) -> Result<Self> {
        let engine = context.engine_choice()?.endpoint.to_string();
        let folder = state_directory(&context.env).join("stack/locks");
        let failed = |cause| Error::failed(format!("no lock can be made in {}", folder.display())).because(cause);
        std::fs::create_dir_all(&folder).map_err(failed)?;
        let directory = directory.canonicalize().unwrap_or_else(|_| directory.to_owned());
        let key = digest(format!("{}\n{engine}", directory.display()).as_bytes());
        let path = folder.join(key.trim_start_matches("sha256:"));
        let mut file = private_file::open_lock(&path).map_err(failed)?;
        let mut is_said = false;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::Error(cause)) => return Err(failed(cause)),
                Err(TryLockError::WouldBlock) if is_said => {}
                Err(TryLockError::WouldBlock) => {
                    is_said = true;
                    context.printer.warning(&format!(
                        "waiting for another build-stack{} in {}; Ctrl-C ends this one",
                        holder(&path),
                        directory.display()
                    ));
                }
            }
            tokio::time::sleep(LOOK).await;
        }
        // Only for the message of those who wait.
        let noted = file.set_len(0).and_then(|()| file.rewind());
        let _ = noted.and_then(|()| write!(file, "{}", std::process::id()));
        Ok(Self { _file: file })
    }
}

/// The process that has noted itself, for people.
fn holder(path: &Path) -> String {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(DIGITS).read_to_string(&mut text));
    match read.is_ok() && !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        true => format!(" (process {text})"),
        false => String::new(),
    }
}
