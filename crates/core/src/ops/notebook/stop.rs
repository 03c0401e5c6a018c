//! Stopping a server properly.

/// A kernel whose work would be lost.
pub struct BusyKernel { pub kernel: String, pub path: Option<String>, pub state: String }
/// Those that work now.
pub async fn busy_kernels(client: &ServerClient) -> Result<Vec<BusyKernel>, ServerError> { unimplemented!() }
/// How it ended.
pub enum Stopped { ByItself /* api/shutdown */, Terminated, Killed, WasGone }
/// Stops the server and its container: `POST api/shutdown`, else SIGTERM; `now` resolves at the second Ctrl-C, which kills.
pub async fn stop(engine: &Engine, container: &str, client: Option<&ServerClient>, now: impl Future<Output = ()>, printer: &Printer) -> Result<Stopped> { unimplemented!() }
