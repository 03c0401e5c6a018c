//! Whether a server is still there, while somebody leads to it.

use std::time::Duration;

use super::remote::{DockServers, ServerOnDock};
use crate::agent::target::Target;
use crate::agent::wire::FailureKind;
use crate::agent::{Agent, CallOptions};
use crate::error::{Class, Result};
use crate::output::Printer;
use tokio::time::sleep;

/// How often it is looked. Each time costs a connection over the link, which shows the agent that it is needed, too.
const PERIOD: Duration = Duration::from_secs(5);

/// Waits until a server has ended, by itself or by another hand, and removes what it left on the dock. A link that is cut is no end: it
/// is waited for, however long that takes. With a printer, what only a person can mend is said, once. Ends early if `is_wanted` says so,
/// which is asked each time.
///
/// # Errors
/// None that a link could be the cause of.
pub(super) async fn until_ended(
    agent: &Agent,
    servers: &DockServers<'_>,
    server: &ServerOnDock,
    target: &Target,
    printer: Option<&Printer>,
    is_wanted: impl Fn() -> bool,
) -> Result<()> {
    let options = match printer {
        Some(_) => CallOptions::of_terminal(),
        None => CallOptions::unattended(),
    };
    let mut said = String::new();
    loop {
        sleep(PERIOD).await;
        if !is_wanted() {
            return Ok(());
        }
        let failure = match agent.try_open(target.clone(), &options).await {
            Ok(Ok(_)) => {
                said.clear();
                continue;
            }
            Ok(Err(failure)) => failure,
            // An agent that was killed is started again by the next look.
            Err(_) => continue,
        };
        if matches!(failure.kind, FailureKind::Unreachable) {
            continue;
        }
        if failure.kind == FailureKind::NeedsPerson {
            let error = failure.into_error();
            let text = error.with_causes();
            if let Some(printer) = printer.filter(|_| said != text) {
                printer.error(&error);
                said = text;
            }
            continue;
        }
        // Nothing listens there: it is busy with its end, or has ended.
        match servers.look_now(&server.key).await {
            Ok(Some(now)) if now.lives && now.call == server.call => {}
            Ok(_) => {
                let stopping = servers.stop(&server.key, &server.call, Duration::ZERO, Duration::ZERO);
                return stopping.await;
            }
            Err(error) if error.class() == Class::Unreachable => {}
            Err(error) => return Err(error),
        }
    }
}
