//! Which image run-image and run-notebook run in a repository with a stack: that of spec.yml, by the name of its directory.

use dockerutils_core::cli::Context;
use dockerutils_core::config::project::Project;
use dockerutils_core::config::stack::{FILE, around};
use dockerutils_core::error::Result;

use crate::current::CurrentStack;

/// The keys by which `docker/dockerutils.cfg` names an image: if it does, that image is meant.
const NAMING_KEYS: [&str; 3] = ["name", "tag", "prefix"];

/// The image of the stack around the working directory that has this name, with another name or tag where these are given; `None` if
/// there is none, or if `docker/dockerutils.cfg` says what the name stands for. What was decided is printed.
///
/// # Errors
/// A stack that can't be read, and no image of the project has the name either; a branch that is not known.
pub fn find(context: &Context, name: &str, image_name: Option<&str>, tag: Option<&str>) -> Result<Option<String>> {
    let Some(directory) = around(&context.working_dir, &context.env.home()) else {
        return Ok(None);
    };
    let project = Project::find(&context.working_dir, &context.env).ok();
    let stack = match CurrentStack::in_directory(context, &directory, None, tag.is_some()) {
        Ok(stack) => stack,
        Err(error) if project.as_ref().is_some_and(|project| project.runnable(name).is_ok()) => {
            let path = directory.join(FILE);
            context
                .printer
                .detail(&format!("{} is ignored: {}", path.display(), error.with_causes()));
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let mut targets = stack.targets.iter().filter(|target| target.name == name);
    let Some(target) = targets.next() else {
        return Ok(None);
    };
    let mut designation = target.designation.clone();
    if let Some(project) = &project {
        let settings = project.settings(name);
        if NAMING_KEYS.iter().any(|key| settings.has(key)) {
            context.printer.note(&format!(
                "{name} is the image that [{name}] of docker/dockerutils.cfg names, and not {designation} of {FILE}"
            ));
            return Ok(None);
        }
        if project.runnable(name).is_ok() {
            context.printer.note(&format!(
                "{name} is {designation} of {FILE}: [{name}] of docker/dockerutils.cfg names no other image"
            ));
        }
    }
    if let (Some(_), None) = (targets.next(), tag) {
        context
            .printer
            .note(&format!("{name} is in several plans: this is that of {}", target.plan));
    }
    if let Some(other) = image_name {
        other.clone_into(&mut designation.name);
    }
    if let Some(tag) = tag {
        tag.clone_into(&mut designation.tag);
    }
    Ok(Some(designation.to_string()))
}
