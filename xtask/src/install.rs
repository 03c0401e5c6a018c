//! `cargo xtask install`: the programs, the `dock` shim, completions for bash, zsh and fish, manual pages.

use std::env;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use clap::Parser;
use dockerutils_test_support::process::announce;

use crate::error::Error;
use crate::workspace::{Profile, Workspace, describe};

#[derive(Parser)]
pub(crate) struct Args {
    /// Where `bin` and `share` are
    #[arg(long, value_name = "DIR", default_value_os_t = default_prefix())]
    prefix: PathBuf,
}

/// What a command prints about itself, and where that is installed below the prefix.
const PAGES: [(&str, &str, &str, &str); 4] = [
    ("bash", "share/bash-completion/completions", "", ""),
    ("zsh", "share/zsh/site-functions", "_", ""),
    ("fish", "share/fish/vendor_completions.d", "", ".fish"),
    ("man", "share/man/man1", "", ".1"),
];

/// Files of `crates/dock/shim` that are installed unchanged: the file, its directory, its name there, its mode.
const SHIM: [(&str, &str, &str, u32); 5] = [
    // It is to be sourced; run as a program, it says so.
    ("dock.sh", "bin", "dock", 0o755),
    ("completion.bash", "share/bash-completion/completions", "source", 0o644),
    ("completion.zsh", "share/zsh/site-functions", "_dock", 0o644),
    ("dock.1", "share/man/man1", "dock.1", 0o644),
    ("castoff.1", "share/man/man1", "castoff.1", 0o644),
];

/// The shim's helper: only fish's users type it.
pub(crate) const SHIM_HELPER: &str = "dock-env";

pub(crate) fn run(args: &Args) -> Result<(), Error> {
    let workspace = Workspace::load()?;
    announce("building (a few minutes, the first time)");
    install(&workspace, Profile::Installed, &args.prefix)?;
    for program in &workspace.programs {
        announce(format_args!(
            "installed {}",
            args.prefix.join("bin").join(&program.name).display()
        ));
    }
    let bin = args.prefix.join("bin");
    let path = env::var_os("PATH").unwrap_or_default();
    if !env::split_paths(&path).any(|directory| directory == bin) {
        announce(format_args!(
            "\nhint: {} is not on your PATH: export PATH={0}:$PATH",
            bin.display()
        ));
    }
    let shell = env::var("SHELL").unwrap_or_default();
    if let Some(hint) = completion_hint(&shell, &args.prefix, has_bash_completion()) {
        announce(format_args!("\nhint: {hint}"));
    }
    Ok(())
}

/// Whether bash loads the installed completions.
fn has_bash_completion() -> bool {
    ["/usr/share", "/usr/local/share", "/opt/homebrew/share"]
        .iter()
        .any(|share| Path::new(share).join("bash-completion/bash_completion").exists())
}

/// What the user's shell needs to find the completions below `prefix`.
fn completion_hint(shell: &str, prefix: &Path, has_bash_completion: bool) -> Option<String> {
    match Path::new(shell).file_name()?.to_str()? {
        "bash" if !has_bash_completion => {
            Some("bash completes our commands where the package bash-completion is installed".to_owned())
        }
        // The system's directories are in its fpath.
        "zsh" if !["/usr", "/usr/local"].iter().any(|system| prefix == Path::new(system)) => Some(format!(
            "zsh completes our commands with this line in ~/.zshrc, before compinit: fpath=({}/share/zsh/site-functions $fpath)",
            prefix.display()
        )),
        _ => None,
    }
}

/// Builds all programs and puts them, with their completions and pages, below `prefix`.
pub(crate) fn install(workspace: &Workspace, profile: Profile, prefix: &Path) -> Result<(), Error> {
    let built = workspace.build(profile)?;
    for program in workspace.built(profile) {
        let from = built.join(&program.name);
        let content = fs::read(&from).map_err(Error::file(&from))?;
        put(&prefix.join("bin"), &program.name, &content, 0o755)?;
    }
    for command in workspace.commands() {
        for (page, directory, before, after) in PAGES {
            let content = describe(&built, command, page)?;
            put(
                &prefix.join(directory),
                &format!("{before}{}{after}", command.name),
                &content,
                0o644,
            )?;
        }
    }
    let shim = workspace.root.join("crates/dock/shim");
    for (file, directory, name, mode) in SHIM {
        let from = shim.join(file);
        let content = fs::read(&from).map_err(Error::file(&from))?;
        put(&prefix.join(directory), name, &content, mode)?;
    }
    for helper in workspace.programs.iter().filter(|program| program.name == SHIM_HELPER) {
        for (page, directory, _, after) in PAGES.into_iter().filter(|(page, ..)| matches!(*page, "fish" | "man")) {
            let content = describe(&built, helper, page)?;
            put(
                &prefix.join(directory),
                &format!("{SHIM_HELPER}{after}"),
                &content,
                0o644,
            )?;
        }
    }
    Ok(())
}

/// Writes a file in one step: a running program can't be overwritten, and no other process should see half of a file.
fn put(directory: &Path, name: &str, content: &[u8], mode: u32) -> Result<(), Error> {
    fs::create_dir_all(directory).map_err(Error::file(directory))?;
    let mut file = tempfile::NamedTempFile::new_in(directory).map_err(Error::file(directory))?;
    let path = directory.join(name);
    file.write_all(content).map_err(Error::file(&path))?;
    file.as_file()
        .set_permissions(fs::Permissions::from_mode(mode))
        .map_err(Error::file(&path))?;
    file.persist(&path)
        .map_err(|error| error.error)
        .map_err(Error::file(&path))?;
    Ok(())
}

fn default_prefix() -> PathBuf {
    Path::new(&env::var_os("HOME").unwrap_or_default()).join(".local")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_that_would_not_find_the_completions_gets_a_hint() {
        let hint = |shell, prefix, has| completion_hint(shell, Path::new(prefix), has);
        assert!(hint("/bin/bash", "/p", false).unwrap().contains("bash-completion"));
        assert_eq!(hint("/bin/bash", "/p", true), None);
        let zsh = hint("/bin/zsh", "/home/ann/.local", true).unwrap();
        assert!(
            zsh.contains("fpath=(/home/ann/.local/share/zsh/site-functions $fpath)"),
            "{zsh}"
        );
        assert_eq!(hint("/bin/zsh", "/usr/local", true), None);
        assert_eq!(hint("/usr/bin/fish", "/p", false), None);
    }
}
