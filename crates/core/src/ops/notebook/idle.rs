//! Ending a server that nobody uses: `--idle 2h`.

use std::time::Duration;

use tokio::time::Instant;

use crate::docker::options::go_values;
use crate::jupyter::client::ServerClient;

/// How often a server is asked: a twentieth of its limit, within these.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);

/// Parses how long a server may be idle, as docker writes durations: `2h`, `90m`, `1h30m`.
///
/// # Errors
/// What is wrong with it, as the end of a sentence.
pub fn parse_limit(text: &str) -> Result<Duration, String> {
    let nanoseconds = go_values::duration(text)?;
    match u64::try_from(nanoseconds) {
        Ok(nanoseconds) if nanoseconds > 0 => Ok(Duration::from_nanos(nanoseconds)),
        _ => Err("is not longer than nothing".to_owned()),
    }
}

/// Since when a server is idle.
#[derive(Clone, Copy, Debug)]
pub struct IdleClock {
    limit: Duration,
    /// When it was last seen to be used.
    used: Instant,
}

/// How a server was at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Whether a kernel works.
    pub is_busy: bool,
    /// Open connections to kernels.
    pub connections: u32,
    /// How long neither a kernel nor a page has done anything, as the server says.
    pub idle: Duration,
}

impl IdleClock {
    /// A clock that begins now.
    pub const fn new(limit: Duration, now: Instant) -> Self {
        Self { limit, used: now }
    }

    /// Takes in how the server is; whether it has been idle for the whole limit. Time in which it could not be asked counts,
    /// but does not end it: this is called with an answer only.
    pub fn is_over(&mut self, now: Instant, usage: Usage) -> bool {
        let used = match usage.is_busy || usage.connections > 0 {
            true => now,
            false => now.checked_sub(usage.idle).unwrap_or(self.used),
        };
        self.used = self.used.max(used);
        now.saturating_duration_since(self.used) >= self.limit
    }
}

/// Waits until a server has been idle for this long: no kernel has worked, no page was connected to one, and no page has asked
/// for anything. An open page keeps the server.
pub async fn idle_for(client: &ServerClient, limit: Duration) {
    let mut clock = IdleClock::new(limit, Instant::now());
    let pause = (limit / 20).clamp(SHORTEST, LONGEST);
    loop {
        tokio::time::sleep(pause).await;
        // A server that does not answer may be behind a link that is away: its kernels may work.
        let (Ok(status), Ok(kernels)) = (client.status().await, client.kernels().await) else {
            continue;
        };
        let usage = Usage {
            is_busy: kernels.iter().any(|kernel| kernel.is_busy()),
            connections: status.connections,
            idle: status.idle,
        };
        if clock.is_over(Instant::now(), usage) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use dockerutils_test_support::{Reply, ScriptedEngine};
    use serde_json::json;

    use super::super::samples::{status, token};
    use super::*;
    use crate::jupyter::base_path::BasePath;
    use crate::jupyter::client::ServerAddress;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn limits_are_durations_of_docker() {
        assert_eq!(parse_limit("2h").unwrap(), 2 * HOUR);
        assert_eq!(parse_limit("1h30m").unwrap(), HOUR * 3 / 2);
        for (text, part) in [
            ("0", "not longer"),
            ("-1h", "not longer"),
            ("2", "not a duration"),
            ("", "not a duration"),
        ] {
            let error = parse_limit(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn a_server_is_idle_only_after_its_whole_limit_without_use() {
        let start = Instant::now();
        let at = |hours: u32| start + HOUR * hours;
        let unused = |idle: u32| Usage {
            is_busy: false,
            connections: 0,
            idle: HOUR * idle,
        };
        let mut clock = IdleClock::new(HOUR * 2, start);
        // What was before it began does not count.
        assert!(!clock.is_over(at(1), unused(50)));
        let busy = Usage {
            is_busy: true,
            ..unused(1)
        };
        assert!(!clock.is_over(at(2), busy));
        let connected = Usage {
            connections: 1,
            ..unused(2)
        };
        assert!(!clock.is_over(at(3), connected));
        // A page was used between the looks.
        assert!(!clock.is_over(at(6), unused(1)));
        assert!(!clock.is_over(at(6), unused(3)));
        assert!(clock.is_over(at(7), unused(2)));
    }

    #[tokio::test]
    async fn a_server_is_asked_until_it_is_idle() {
        let kernel = |state: &str| Reply::json(200, &json!([{"id": "k", "execution_state": state}]));
        let server = ScriptedEngine::start()
            .on("GET", "/api/status", Reply::error(502, "the link is away"))
            .on("GET", "/api/status", status(0, 1))
            .on("GET", "/api/kernels", kernel("busy"))
            .on("GET", "/api/kernels", kernel("busy"))
            .on("GET", "/api/kernels", kernel("idle"));
        let address = ServerAddress::Unix(server.socket());
        let client = ServerClient::new(address, BasePath::default(), false, &token());
        idle_for(&client, Duration::from_millis(100)).await;
        let asked = server
            .requests()
            .iter()
            .filter(|request| request.path == "/api/kernels")
            .count();
        assert_eq!(asked, 3);
    }
}
