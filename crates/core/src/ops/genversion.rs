//! The version of a project, written to a file that images can include.

use crate::config::project::Project;
use crate::context::Context;
use crate::error::{ExitStatus, Result};
use crate::hint;
use crate::output::{Printer, visible};
use crate::version::{Versioneer, Versions, file};

/// Writes the version of the project around the working directory, and prints it.
///
/// # Errors
/// No project, a configuration that versioneer would refuse, a file that can't be written.
pub fn generate(context: &Context) -> Result<ExitStatus> {
    let printer = &context.printer;
    let project = Project::find(&context.working_dir, &context.env)?;
    let versions = match Versioneer::find(project.root())? {
        Some(versioneer) if context.global.dry_run => {
            printer.plan(&[line(&versioneer, &known(&versioneer, printer)?)])?;
            return Ok(ExitStatus::SUCCESS);
        }
        Some(versioneer) => Some(write(&versioneer, printer)?),
        None => {
            if project.root().join("versioneer.py").is_file() {
                printer.warning(
                    "versioneer.py is not configured, so no version is written: neither setup.cfg nor pyproject.toml \
                     sets VCS and versionfile_source",
                );
            }
            None
        }
    };
    match versions {
        versions if printer.json() => printer.result_json(&versions)?,
        Some(versions) => printer.result(versions.version()),
        None => {}
    }
    Ok(ExitStatus::SUCCESS)
}

/// The line of a build's plan that stands for [`before_build`]; `None` where the project does not use versioneer.
///
/// # Errors
/// A configuration that versioneer would refuse.
pub fn planned(project: &Project) -> Result<Option<String>> {
    let found = Versioneer::find(project.root())?;
    Ok(found.map(|_| format!("{}genversion", project.way_to_root())))
}

/// Writes the version before images are built; nothing where the project does not use versioneer.
///
/// # Errors
/// Those of [`generate`], except for a missing project.
pub fn before_build(project: &Project, printer: &Printer) -> Result<()> {
    if let Some(versioneer) = Versioneer::find(project.root())? {
        write(&versioneer, printer)?;
    }
    Ok(())
}

fn write(versioneer: &Versioneer, printer: &Printer) -> Result<Versions> {
    let versions = known(versioneer, printer)?;
    file::write(&versioneer.file(), &versions)?;
    printer.detail(&line(versioneer, &versions));
    Ok(versions)
}

/// The version, with a warning where it says nothing of the project.
fn known(versioneer: &Versioneer, printer: &Printer) -> Result<Versions> {
    let versions = versioneer.versions()?;
    if let Some(error) = versions.unknown() {
        let refusal = versions.refusal().map(|why| format!(" ({why})")).unwrap_or_default();
        printer.warning(&format!("the version is {}: {error}{refusal}", versions.version()));
    }
    if versions.is_cut_off() {
        printer.warning(&format!(
            "the version is {}: this clone has only the last commits, and no tag is among them; get the rest: \
             git fetch --unshallow --tags",
            versions.version()
        ));
    }
    for program in versions.unrun() {
        printer.warning(&format!(
            "{} of the repository's own configuration was not run, and files that it makes equal count as changed; if you \
             trust it: {}",
            visible(&program.key),
            hint!("git config --global {} {}", program.key, program.command)
        ));
    }
    Ok(versions)
}

fn line(versioneer: &Versioneer, versions: &Versions) -> String {
    format!("write {}: {}", versioneer.file().display(), versions.version())
}
