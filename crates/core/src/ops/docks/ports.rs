//! The ports of containers that the agents of docks forward to this machine.

use std::collections::BTreeSet;

use serde::Serialize;

use super::agent_status::{self, FoundAgent};
use crate::agent::{ExposedPort, Port};
use crate::context::Context;
use crate::docks::Forward;
use crate::error::{ExitStatus, Result};
use crate::output::table::{Align, Table};
use crate::output::{counted, one_line, visible};

/// A port of a dock's container.
#[derive(Debug, Serialize)]
struct PortRow {
    dock: String,
    #[serde(flatten)]
    port: Port,
}

/// A port of this machine that is open to the containers of a dock, or is to be.
#[derive(Debug, Serialize)]
struct ExposedRow {
    dock: String,
    exposed: ExposedPort,
}

/// Lists the ports that are forwarded now, and those that can't be, of these docks; of all where none is named. Nothing is
/// started for it.
///
/// # Errors
/// A damaged list, a dock that is not in it, an agent that does not answer.
pub fn list(context: &Context, names: &[String]) -> Result<ExitStatus> {
    let Some(found) = agent_status::ask(context, names)? else {
        return Ok(ExitStatus::SUCCESS);
    };
    let (mut rows, mut exposed) = (Vec::new(), Vec::new());
    let mut notes = BTreeSet::new();
    for (dock, mut agent) in found {
        let moniker = visible(&dock.moniker);
        if let FoundAgent::Running(status) = &mut agent {
            let of_this = std::mem::take(&mut status.exposed);
            exposed.extend(of_this.into_iter().map(|exposed| ExposedRow {
                dock: dock.moniker.clone(),
                exposed,
            }));
        }
        match agent {
            FoundAgent::None | FoundAgent::Ended if names.is_empty() => {}
            FoundAgent::None => {
                notes.insert(format!("{moniker}: ports are forwarded from docks that ssh reaches"));
            }
            FoundAgent::Ended => {
                notes.insert(format!(
                    "{moniker}: nothing uses it now; its ports are forwarded when something does"
                ));
            }
            FoundAgent::Running(status) if status.forward == Forward::None && status.ports.is_empty() => {
                notes.insert(format!("{moniker}: its ports are not forwarded, as requested"));
            }
            FoundAgent::Running(status) => {
                if status.more_ports > 0 {
                    notes.insert(format!("{moniker}: {} not shown", not_shown(status.more_ports)));
                }
                rows.extend(status.ports.into_iter().map(|port| PortRow {
                    dock: dock.moniker.clone(),
                    port,
                }));
            }
        }
    }
    let printer = &context.printer;
    if printer.json() {
        let all: Vec<ListedPort<'_>> = rows
            .iter()
            .map(ListedPort::Forwarded)
            .chain(exposed.iter().map(ListedPort::Exposed))
            .collect();
        printer.result_json(&all)?;
        return Ok(ExitStatus::SUCCESS);
    }
    if rows.is_empty() {
        printer.note("no ports are forwarded");
    } else {
        printer.table(&table(&rows));
    }
    if !exposed.is_empty() {
        printer.result("");
        printer.table(&exposed_table(&exposed));
    }
    notes.extend(
        exposed
            .iter()
            .filter_map(|row| row.exposed.hint.as_deref().map(one_line)),
    );
    notes.extend(rows.iter().filter_map(|row| row.port.hint.as_deref().map(one_line)));
    notes.iter().for_each(|note| printer.note(note));
    Ok(ExitStatus::SUCCESS)
}

/// A row of either kind, as JSON has them.
#[derive(Serialize)]
#[serde(untagged)]
enum ListedPort<'a> {
    Forwarded(&'a PortRow),
    Exposed(&'a ExposedRow),
}

fn not_shown(number: usize) -> String {
    let be = if number == 1 { "is" } else { "are" };
    format!("{} {be}", counted(number, "more port"))
}

fn table(rows: &[PortRow]) -> Table {
    let mut columns = vec![
        ("DOCK", Align::Left),
        ("CONTAINER", Align::Left),
        ("PORT", Align::Left),
        ("ON THE DOCK", Align::Left),
        ("HERE", Align::Left),
    ];
    if rows.iter().any(|row| row.port.reason.is_some()) {
        columns.push(("WHY", Align::Left));
    }
    let mut table = Table::new(columns).dropping(["PORT", "ON THE DOCK"]);
    for PortRow { dock, port } in rows {
        let address = match port.address.contains(':') {
            true => format!("[{}]", port.address),
            false => port.address.clone(),
        };
        let here = port
            .here
            .map_or_else(|| "-".to_owned(), |port| format!("127.0.0.1:{port}"));
        table.row([
            visible(dock),
            visible(&port.name),
            visible(&port.inside),
            format!("{}:{}", visible(&address), port.port),
            here,
            port.reason.as_deref().map(one_line).unwrap_or_default(),
        ]);
    }
    table
}

fn exposed_table(rows: &[ExposedRow]) -> Table {
    let mut columns = vec![
        ("DOCK", Align::Left),
        ("EXPOSED HERE", Align::Left),
        ("IN CONTAINERS", Align::Left),
    ];
    if rows.iter().any(|row| row.exposed.reason.is_some()) {
        columns.push(("WHY", Align::Left));
    }
    let mut table = Table::new(columns);
    for ExposedRow { dock, exposed } in rows {
        let port = exposed.port;
        table.row([
            visible(dock),
            format!("localhost:{port}"),
            match exposed.address {
                Some(_) => format!("host.docker.internal:{port}"),
                None => "-".to_owned(),
            },
            exposed.reason.as_deref().map(one_line).unwrap_or_default(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exposed_port_is_a_line_of_its_own_table() {
        let row = |port, reason: Option<&str>| ExposedRow {
            dock: "far".into(),
            exposed: ExposedPort {
                port,
                address: reason.is_none().then(|| "172.17.0.1".to_owned()),
                reason: reason.map(str::to_owned),
                hint: None,
            },
        };
        assert_eq!(
            exposed_table(&[row(5432, None), row(9999, Some("sshd\x1b[2J forbids it"))]).lines(),
            [
                "DOCK  EXPOSED HERE    IN CONTAINERS              WHY",
                "far   localhost:5432  host.docker.internal:5432",
                "far   localhost:9999  -                          sshd forbids it",
            ]
        );
    }

    #[test]
    fn a_port_is_a_line() {
        let port = Port {
            container: "8d1f".into(),
            name: "web\x1b[2J".into(),
            inside: "80/tcp".into(),
            address: "::".into(),
            port: 8080,
            here: Some(8081),
            reason: Some("8080 is taken here\n by 7/nc".into()),
            hint: None,
        };
        let udp = Port {
            inside: "53/udp".into(),
            address: "127.0.0.1".into(),
            port: 53,
            here: None,
            reason: Some("only TCP is forwarded".into()),
            ..port.clone()
        };
        let rows = [port, udp].map(|port| PortRow {
            dock: "far".into(),
            port,
        });
        assert_eq!(
            table(&rows).lines(),
            [
                "DOCK  CONTAINER  PORT    ON THE DOCK   HERE            WHY",
                "far   web        80/tcp  [::]:8080     127.0.0.1:8081  8080 is taken here by 7/nc",
                "far   web        53/udp  127.0.0.1:53  -               only TCP is forwarded",
            ]
        );
    }
}
