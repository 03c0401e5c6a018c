//! One suite at a time on an engine: suites publish fixed ports and give containers fixed names.
//!
//! The lock is the system's, on a file: whoever is killed lets go of it, once the tests have ended that it had started.

use std::fs::{DirBuilder, File, TryLockError};
use std::os::unix::fs::DirBuilderExt as _;
use std::time::{Duration, Instant};

use dockerutils_core::agent::paths::state_directory;
use dockerutils_core::cli::Context;
use dockerutils_core::docker::connect::engine::Engine;
use dockerutils_core::error::{Error, Result};
use dockerutils_core::output::progress::waiting::WaitingRow;
use dockerutils_core::private_file;
use sha2::{Digest as _, Sha256};

/// The pause between two tries.
const PAUSE: Duration = Duration::from_millis(100);
/// After so long it is said what is waited for.
const SAID_AFTER: Duration = Duration::from_secs(1);
/// How many bytes of the engine's digest are in the file's name.
const DIGITS: usize = 8;

/// The lock of an engine; it is free again when this is dropped.
#[derive(Debug)]
pub(super) struct EngineLock {
    file: File,
}

impl EngineLock {
    /// Waits until no other suite of this user runs on the engine.
    ///
    /// # Errors
    /// An engine that does not answer, a file that can't be written.
    pub(super) async fn take(context: &Context, engine: &Engine) -> Result<Self> {
        // An engine may be reached by several addresses.
        let id = engine.info().await?.id.filter(|id| !id.is_empty());
        let id = id.unwrap_or_else(|| engine.choice().endpoint.to_string());
        let digest = Sha256::digest(id);
        let name: String = digest.iter().take(DIGITS).map(|byte| format!("{byte:02x}")).collect();
        let directory = state_directory(&context.env).join("stack-tests");
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&directory);
        let path = directory.join(name).with_extension("lock");
        let failed = |cause| Error::failed(format!("{} can't be written", path.display())).because(cause);
        let file = made.and_then(|()| private_file::open_lock(&path)).map_err(failed)?;
        let began = Instant::now();
        let mut row = None;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { file }),
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(cause)) => return Err(failed(cause)),
            }
            if row.is_none() && began.elapsed() > SAID_AFTER {
                let text =
                    "waiting for other tests on this engine (parallel: true in spec.yml lets them run side by side)";
                row = Some(WaitingRow::new(&context.printer, text, began));
                if !context.printer.live() {
                    context.printer.note(text);
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// What is locked: as long as a process has it open, nobody else gets the lock.
    pub(super) const fn file(&self) -> &File {
        &self.file
    }
}
