//! All docks and how they are, asked at once.

use std::time::Duration;

use futures_util::future::join_all;
use serde::Serialize;

use super::facts::{self, Facts};
use crate::agent::CallOptions;
use crate::agent::target::Target;
use crate::agent::wire::FailureKind;
use crate::context::Context;
use crate::docker::connect::dock_engine;
use crate::docker::connect::endpoint::{Choice, Endpoint, Origin};
use crate::docker::connect::engine::Engine;
use crate::docker::connect::locality::{self, Locality};
use crate::docks::{self, Dock, Docks, LOCAL, LOCALHOST, Named};
use crate::env::Env;
use crate::error::{Error, ExitStatus, Result};
use crate::output::table::{Align, Table};
use crate::output::{one_line, size, visible};
use crate::shell;

/// How long one dock may take; all are asked at the same time.
const LIMIT: Duration = Duration::from_secs(5);

/// The columns that go on a narrow terminal, the least needed one first.
const DISPENSABLE: [&str; 9] = [
    "ROUND TRIP",
    "IMAGES",
    "CPUS",
    "ENGINE",
    "CONTAINERS",
    "MEMORY",
    "GPUS",
    "WHERE",
    "DISK FREE",
];

/// What ls-dock is asked for.
#[derive(Clone, Debug, Default)]
pub struct ListArgs {
    /// The docks; all of them where none is named.
    pub names: Vec<String>,
    /// Say more of each.
    pub wide: bool,
}

/// How a dock is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DockState {
    /// Its engine answers.
    Running,
    /// It can't be reached, or its engine does not answer.
    Unreachable,
    /// A person has to answer a question first.
    NeedsLogin,
    /// The user may not use its engine.
    NotPermitted,
}

/// One line of the list.
#[derive(Clone, Debug, Serialize)]
pub struct DockRow {
    /// The dock's name.
    pub moniker: String,
    /// Whether this shell's docker commands go there.
    pub current: bool,
    /// Where it is: `ann@10.0.0.7`, an address, a docker context.
    pub place: String,
    /// How it is.
    pub state: DockState,
    /// Why it is not running.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The same in full, as the commands say it that need the engine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What would help.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Its engine and machine.
    #[serde(flatten)]
    pub facts: Option<Facts>,
}

/// An engine to be asked.
enum ListedEngine {
    Here(Choice),
    Dock(Dock),
}

/// Lists docks.
///
/// # Errors
/// A damaged list, and a dock that is named and not there.
pub fn list(context: &Context, args: &ListArgs) -> Result<ExitStatus> {
    let (printer, env) = (&context.printer, &context.env);
    let entries = entries(args, env)?;
    if context.global.dry_run {
        let asked: Vec<String> = entries.iter().map(|entry| format!("ask {}", entry.place())).collect();
        printer.plan(&asked)?;
        return Ok(ExitStatus::SUCCESS);
    }
    let current = current_name(env);
    let rows = context.block_on(async {
        let asked = entries.iter().map(|entry| row(entry, env, args.wide, &current));
        Ok(join_all(asked).await)
    })?;
    if printer.json() {
        printer.result_json(&rows)?;
    } else {
        printer.table(&table(&rows, args.wide));
        let docks = Docks::read(env)?;
        for doubt in [LOCALHOST, LOCAL].iter().filter_map(|name| docks.doubt(name)) {
            printer.warning(&doubt);
        }
        if docks.iter().next().is_none() {
            printer.note("\nthere are no docks yet: register-dock HOST MONIKER");
        }
    }
    // Who asks for some of them wants to know of these; the list of all is an answer in any case.
    let down = rows.iter().any(|row| row.state != DockState::Running);
    Ok(if down && !args.names.is_empty() {
        ExitStatus::UNREACHABLE
    } else {
        ExitStatus::SUCCESS
    })
}

fn entries(args: &ListArgs, env: &Env) -> Result<Vec<ListedEngine>> {
    let found = Docks::read(env)?;
    if args.names.is_empty() {
        let here = here(env).map(ListedEngine::Here);
        return Ok(here
            .into_iter()
            .chain(found.iter().cloned().map(ListedEngine::Dock))
            .collect());
    }
    args.names
        .iter()
        .map(|name| match found.named(name)? {
            Named::Here => dock_engine::here(env).map(ListedEngine::Here),
            Named::Dock(dock) => Ok(ListedEngine::Dock(dock.clone())),
        })
        .collect()
}

/// The engine that is used where nothing is docked.
fn here(env: &Env) -> Option<Choice> {
    let plain = Env::from_pairs(
        env.iter()
            .filter(|(name, _)| docks::current(env).is_none() || !dock_engine::ENGINE_VARIABLES.contains(name)),
    );
    // What leads nowhere is no row; commands that use it say why.
    Endpoint::choose(&plain).ok()
}

fn current_name(env: &Env) -> String {
    docks::current(env).unwrap_or(LOCALHOST).to_owned()
}

impl ListedEngine {
    fn name(&self, env: &Env) -> String {
        match self {
            Self::Dock(dock) => dock.moniker.clone(),
            Self::Here(choice) => match (
                &choice.origin,
                locality::by_address(&choice.endpoint, &choice.origin, env),
            ) {
                (Origin::Context(name), Locality::Docked) => format!("(context {name})"),
                (Origin::Host, Locality::Docked) if docks::current(env).is_none() => "(DOCKER_HOST)".to_owned(),
                _ => LOCALHOST.to_owned(),
            },
        }
    }

    fn place(&self) -> String {
        match self {
            Self::Dock(dock) => dock.access.place(),
            Self::Here(choice) => choice.endpoint.to_string(),
        }
    }
}

async fn row(entry: &ListedEngine, env: &Env, wide: bool, current: &str) -> DockRow {
    let asked = tokio::time::timeout(LIMIT, ask(entry, env, wide)).await;
    let moniker = entry.name(env);
    let mut row = DockRow {
        current: moniker == current || (current == LOCALHOST && matches!(entry, ListedEngine::Here(_))),
        place: entry.place(),
        moniker,
        state: DockState::Running,
        reason: None,
        error: None,
        hint: None,
        facts: None,
    };
    match asked {
        Ok(Ok(facts)) => row.facts = Some(facts),
        Ok(Err((state, error))) => {
            row.state = state;
            row.reason = Some(match (state, entry) {
                (DockState::NotPermitted, ListedEngine::Here(choice)) => match &choice.endpoint {
                    Endpoint::Unix(socket) => format!("you may not use {}", socket.display()),
                    _ => reason(&error),
                },
                _ => reason(&error),
            });
            row.error = Some(error.with_causes());
            row.hint = error.hint_text().map(str::to_owned);
        }
        Err(_) => {
            row.state = DockState::Unreachable;
            row.reason = Some(format!("no answer within {} s", LIMIT.as_secs()));
            row.error = row.reason.clone();
            if let ListedEngine::Dock(dock) = entry {
                row.hint = Some(format!("ls-dock --check {}", shell::quote(&dock.moniker)));
            }
        }
    }
    row
}

/// The last cause is the one that says why, in the fewest words.
fn reason(error: &Error) -> String {
    let mut words = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        words = inner.to_string();
        cause = inner.source();
    }
    words
}

/// Whether the user may not use the engine's socket on this machine.
fn is_denied(error: &Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        let io = inner.downcast_ref::<std::io::Error>();
        if io.is_some_and(|io| io.kind() == std::io::ErrorKind::PermissionDenied) {
            return true;
        }
        cause = inner.source();
    }
    false
}

async fn ask(entry: &ListedEngine, env: &Env, wide: bool) -> Result<Facts, (DockState, Error)> {
    let unreachable = |error: Error| match is_denied(&error) {
        true => (DockState::NotPermitted, error),
        false => (DockState::Unreachable, error),
    };
    let dock = match entry {
        ListedEngine::Here(choice) => {
            let engine = Engine::connect_to(choice.clone()).await.map_err(unreachable)?;
            let mut facts = facts::of_engine(&engine).await.map_err(unreachable)?;
            if wide && locality::of(&engine, env).await.locality == Locality::Local {
                facts::add_own_machine(&mut facts);
            }
            return Ok(facts);
        }
        ListedEngine::Dock(dock) => dock,
    };
    let options = CallOptions::impatient();
    let Some(agent) = dock_engine::agent(dock, env).map_err(unreachable)? else {
        let engine = dock_engine::connect(dock, env, &options).await.map_err(unreachable)?;
        return facts::of_engine(&engine).await.map_err(unreachable);
    };
    // An agent that is started for the list ends soon after it: fifty docks are not to leave fifty processes behind.
    let options = options.briefly();
    if let Err(failure) = agent.try_connect(&options).await.map_err(unreachable)? {
        let state = match failure.kind {
            FailureKind::NeedsPerson => DockState::NeedsLogin,
            _ => DockState::Unreachable,
        };
        return Err((state, failure.into_error()));
    }
    let engine = match dock_engine::connect(dock, env, &options).await {
        Ok(engine) => engine,
        // Where the way to the engine was refused, the agent says of which kind that is.
        Err(error) => match agent.try_open(Target::Engine, &options).await {
            Ok(Err(failure)) if failure.kind == FailureKind::Denied => {
                return Err((DockState::NotPermitted, failure.into_error()));
            }
            _ => return Err(unreachable(error)),
        },
    };
    let mut facts = facts::of_engine(&engine).await.map_err(unreachable)?;
    if wide {
        facts::add_machine(&mut facts, &agent, &options).await;
    }
    Ok(facts)
}

fn table(rows: &[DockRow], wide: bool) -> Table {
    let mut columns = vec![
        ("  DOCK", Align::Left),
        ("WHERE", Align::Left),
        ("STATE", Align::Left),
        ("ENGINE", Align::Left),
        ("CONTAINERS", Align::Right),
        ("ROUND TRIP", Align::Right),
    ];
    if wide {
        columns.extend([
            ("IMAGES", Align::Right),
            ("CPUS", Align::Right),
            ("MEMORY", Align::Right),
            ("GPUS", Align::Right),
            ("DISK FREE", Align::Right),
        ]);
    }
    if rows.iter().any(|row| row.reason.is_some()) {
        columns.push(("WHY", Align::Left));
    }
    let mut table = Table::new(columns).dropping(DISPENSABLE);
    for row in rows {
        table.row(cells(row, wide));
    }
    table
}

fn cells(row: &DockRow, wide: bool) -> Vec<String> {
    let mark = if row.current { "*" } else { " " };
    let mut cells = vec![
        format!("{mark} {}", visible(&row.moniker)),
        visible(&row.place),
        match row.state {
            DockState::Running => "running",
            DockState::Unreachable => "unreachable",
            DockState::NeedsLogin => "needs login",
            DockState::NotPermitted => "not permitted",
        }
        .to_owned(),
    ];
    let none = || "-".to_owned();
    match &row.facts {
        Some(facts) => {
            cells.push(facts.version.clone());
            cells.push(match facts.containers - facts.running {
                0 => facts.running.to_string(),
                _ => format!("{} of {}", facts.running, facts.containers),
            });
            cells.push(format!("{:.1} ms", facts.round_trip_ms));
            if wide {
                cells.extend([facts.images.to_string(), facts.cpus.to_string(), size(facts.memory)]);
                cells.push(match (facts.gpus, facts.gpu_support) {
                    (Some(0), false) => "0".to_owned(),
                    (Some(number), true) if number > 0 => number.to_string(),
                    // There, and not for containers.
                    (Some(number), false) => format!("({number})"),
                    (_, true) => "yes".to_owned(),
                    (None, false) => none(),
                });
                cells.push(match facts.disk {
                    Some(disk) if disk.low => format!("{} LOW", size(disk.free)),
                    Some(disk) => size(disk.free),
                    None => none(),
                });
            }
        }
        None => cells.extend((0..if wide { 8 } else { 3 }).map(|_| none())),
    }
    // The hint belongs to what is wrong; the table has room for the shortest of both.
    cells.push(match (row.state, &row.reason, &row.hint) {
        (DockState::NeedsLogin, _, Some(hint)) => one_line(hint),
        (_, Some(reason), _) => one_line(reason),
        _ => String::new(),
    });
    cells
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(moniker: &str, state: DockState) -> DockRow {
        DockRow {
            moniker: moniker.into(),
            current: moniker == "far",
            place: "ann@10.0.0.7".into(),
            state,
            reason: (state != DockState::Running).then(|| "connection refused".into()),
            error: None,
            hint: Some("ssh-dock near true".into()),
            facts: (state == DockState::Running).then(|| Facts {
                version: "26.1.5".into(),
                running: 2,
                containers: 3,
                memory: 16_000_000_000,
                round_trip_ms: 0.42,
                disk: Some(facts::Disk::new(1_000_000_000, 100_000_000_000)),
                ..Facts::default()
            }),
        }
    }

    #[test]
    fn an_engine_that_one_may_not_use_is_told_from_one_that_is_not_there() {
        let of = |kind: std::io::ErrorKind| is_denied(&Error::unreachable("no").because(std::io::Error::from(kind)));
        assert!(of(std::io::ErrorKind::PermissionDenied));
        assert!(!of(std::io::ErrorKind::ConnectionRefused));
        let rows = [row("far", DockState::NotPermitted)];
        assert!(table(&rows, false).lines()[1].contains("  not permitted  "), "{rows:?}");
    }

    #[test]
    fn a_dock_is_a_line_and_the_current_one_is_marked() {
        let rows = [
            row("far", DockState::Running),
            row("dead\x1b[2J", DockState::Unreachable),
            row("near", DockState::NeedsLogin),
        ];
        assert_eq!(
            table(&rows, false).lines(),
            [
                "  DOCK  WHERE         STATE        ENGINE  CONTAINERS  ROUND TRIP  WHY",
                "* far   ann@10.0.0.7  running      26.1.5      2 of 3      0.4 ms",
                "  dead  ann@10.0.0.7  unreachable  -                -           -  connection refused",
                "  near  ann@10.0.0.7  needs login  -                -           -  ssh-dock near true",
            ]
        );
        let wide = table(&rows, true).lines();
        assert!(
            wide[1].contains("16.0 GB") && wide[1].contains("1.0 GB LOW"),
            "{wide:#?}"
        );
    }
}
