//! `--idle 2h`.

/// Parses `2h`, `90m`, `1h30m`.
pub fn parse_limit(text: &str) -> Result<Duration, String> { unimplemented!() }
/// Returns when no kernel has worked and nobody was connected for that long.
pub async fn idle_for(client: &ServerClient, limit: Duration) { unimplemented!() }
