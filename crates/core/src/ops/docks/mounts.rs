//! The containers on docks that mount projects of this machine.

use serde::Serialize;

use super::agent_status::{self, FoundAgent};
use crate::agent::ProjectMount;
use crate::context::Context;
use crate::error::{ExitStatus, Result};
use crate::output::table::{Align, Table};
use crate::output::visible;

/// A container of a dock, and a project that it mounts.
#[derive(Debug, Serialize)]
struct MountRow {
    dock: String,
    #[serde(flatten)]
    mount: ProjectMount,
}

/// Lists the containers that mount projects, of these docks; of all where none is named. Nothing is started for it.
///
/// # Errors
/// A damaged list, a dock that is not in it, an agent that does not answer.
pub fn list(context: &Context, names: &[String]) -> Result<ExitStatus> {
    let Some(found) = agent_status::ask(context, names)? else {
        return Ok(ExitStatus::SUCCESS);
    };
    let mut rows = Vec::new();
    for (dock, agent) in found {
        if let FoundAgent::Running(status) = agent {
            rows.extend(status.mounts.into_iter().map(|mount| MountRow {
                dock: dock.moniker.clone(),
                mount,
            }));
        }
    }
    let printer = &context.printer;
    if printer.json() {
        printer.result_json(&rows)?;
    } else if rows.is_empty() {
        printer.note("no container mounts a project of this machine");
    } else {
        printer.table(&table(&rows));
    }
    Ok(ExitStatus::SUCCESS)
}

fn table(rows: &[MountRow]) -> Table {
    let columns = vec![
        ("DOCK", Align::Left),
        ("CONTAINER", Align::Left),
        ("PROJECT", Align::Left),
        ("ON THE DOCK", Align::Left),
        ("STATE", Align::Left),
    ];
    let mut table = Table::new(columns).dropping(["ON THE DOCK"]);
    for MountRow { dock, mount } in rows {
        let name = match mount.name.as_str() {
            "" => mount.container.get(..12).unwrap_or(&mount.container),
            name => name,
        };
        table.row([
            visible(dock),
            visible(name),
            visible(&mount.project.display().to_string()),
            visible(&mount.workspace),
            if mount.running { "kept in step" } else { "not running" }.to_owned(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_a_line_for_each_project_that_it_mounts() {
        let mount = |name: &str, running| MountRow {
            dock: "far".into(),
            mount: ProjectMount {
                container: "0123456789abcdef".into(),
                name: name.into(),
                running,
                project: "/home/ann/app".into(),
                workspace: "/data/w/app".into(),
            },
        };
        let lines = table(&[mount("web\x1b[2J", true), mount("", false)]).lines();
        assert!(lines[1].starts_with("far   web  "), "{lines:?}");
        assert!(
            lines[1].ends_with("/home/ann/app  /data/w/app  kept in step"),
            "{lines:?}"
        );
        assert!(
            lines[2].contains("0123456789ab ") && lines[2].ends_with("not running"),
            "{lines:?}"
        );
    }
}
