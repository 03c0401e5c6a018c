//! Whether a container that was started with `-g` has a GPU, and what is missing if not.

/// What is missing on the engine's machine.
pub enum MissingPart { Driver, Toolkit, Runtime, Cdi }
/// The GPUs, a line each of `nvidia-smi -L`; the error says what is missing and what to install.
pub async fn check(engine: &Engine, container: &str) -> Result<Vec<String>> { unimplemented!() }
/// The error of a start that failed for want of a GPU, with the missing part named; any other error as it is.
pub fn explain_start(engine: &Engine, error: Error) -> Error { unimplemented!() }
