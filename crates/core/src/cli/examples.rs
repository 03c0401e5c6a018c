//! The examples of each command's manual and reference page.

/// Command lines with what each is for.
type Examples = &'static [(&'static str, &'static str)];

/// The examples of a command; empty for an unknown command, which gets no page.
pub(super) fn of(command: &str) -> Option<Examples> {
    Some(match command {
        "build-image" => &[
            ("build-image dev", "build docker/dev/Dockerfile"),
            (
                "build-image all --dry-run",
                "print the docker commands that would build all images",
            ),
            ("build-image dev --layers", "show what makes the image large"),
            ("build-image all --check", "say what could be better in the Dockerfiles"),
        ],
        "run-image" => &[
            ("run-image dev", "run the image, built first where it is not there"),
            ("run-image dev -c 'pytest -x'", "run another command in it"),
            ("run-image web -k", "run it in the background, and keep it"),
            (
                "run-image dev --dock far --watch",
                "run it on a dock, and keep the project in step meanwhile",
            ),
        ],
        "run-notebook" => &[
            ("run-notebook analysis.ipynb", "JupyterLab, with this notebook open"),
            (
                "run-notebook --dock far --watch",
                "on a dock, with the project in step meanwhile",
            ),
            (
                "run-notebook --detach --json | jq -r .url",
                "in the background; its URL for a script",
            ),
            ("run-notebook --stop", "end the one of this project"),
        ],
        "publish-image" => &[
            ("publish-image web", "push it where docker/dockerutils.cfg says"),
            (
                "publish-image web --publish-tag team/web:1.2",
                "push it by another name",
            ),
        ],
        "transfer-image" => &[
            ("transfer-image dev far", "send the project's image to a dock"),
            (
                "transfer-image postgres:17 ann@10.0.0.7",
                "send any image to any machine that ssh reaches",
            ),
            ("transfer-image dev localhost --from far", "bring an image from a dock"),
        ],
        "build-stack" => &[
            ("build-stack", "build, test and push what is stale"),
            (
                "build-stack science --no-push",
                "one image, and what it starts from, by hand",
            ),
            ("build-stack --base main -j 4", "on a branch: what main has is copied"),
            (
                "build-stack --dock far --dry-run",
                "print the plan in place of carrying it out",
            ),
        ],
        "plan-stack" => &[
            ("plan-stack", "what is to be built, copied or tested again, and why"),
            (
                "plan-stack --base main",
                "with the commits of this branch that led to it",
            ),
            ("plan-stack --mermaid", "a flowchart, for a page or a job's summary"),
            (
                "plan-stack --bake | docker buildx bake -f - --push",
                "build and push what is stale",
            ),
            (
                "plan-stack --tags",
                "the tags in the registry, and of which branches they are",
            ),
        ],
        "tag-stack" => &[
            (
                "tag-stack 2026.3-main 2026.3-stable",
                "what proved good gets another tag",
            ),
            (
                "tag-stack 2026.3-stable stable --dry-run",
                "what would be moved, and why",
            ),
            (
                "tag-stack 2026.3-main 2026.3-stable --verdict-key verdict.pub",
                "only verdicts that this key signed count",
            ),
        ],
        "test-stack" => &[
            ("test-stack 2026.10-main", "test all images of this tag in the registry"),
            (
                "test-stack --only science",
                "test what the engine has under the tag of the branch",
            ),
            (
                "test-stack --kind workflow -g 2026.10-main",
                "test the images from within, with GPUs",
            ),
            ("test-stack --dry-run", "print what would be started"),
        ],
        "genversion" => &[
            ("genversion", "write _version.py.bld, and print the version"),
            ("genversion --dry-run", "print it, and write nothing"),
        ],
        "register-dock" => &[
            ("register-dock ann@10.0.0.7 far", "a machine that ssh reaches"),
            (
                "register-dock --host tcp://10.0.0.8:2376 --tls-dir ~/certs near",
                "an engine on TCP",
            ),
            ("register-dock --force gpu-box far", "give the name to another machine"),
        ],
        "unregister-dock" => &[("unregister-dock far", "take it off the list; nothing is removed there")],
        "ls-dock" => &[
            ("ls-dock", "all docks and their state"),
            ("ls-dock --check far", "what stands between here and its engine"),
            ("ls-dock --ports", "the ports of containers that answer here"),
        ],
        "ssh-dock" => &[
            ("ssh-dock far", "a shell there"),
            ("ssh-dock far df -h /", "a command there"),
            (
                "rsync -a -e ssh-dock data/ far:/data/",
                "files, over the connection that stands",
            ),
        ],
        "nb-dock" => &[
            ("nb-dock far", "JupyterLab there, in the browser here"),
            (
                "nb-dock far --env torch --detach",
                "in an environment there, left running",
            ),
            (
                "nb-dock far --launch 'srun --gres=gpu:1'",
                "on a node that the batch system chooses",
            ),
            ("nb-dock far --stop", "end it"),
        ],
        "sync-up" => &[
            ("sync-up --list", "what would travel"),
            ("sync-up", "send what changed here"),
            ("sync-up --ours src/a.py", "settle a conflict by this machine's version"),
        ],
        "sync-down" => &[
            ("sync-down", "bring what changed on the dock"),
            ("sync-down --theirs src/a.py", "settle a conflict by the dock's version"),
            ("sync-down --restore", "bring back what the last sync took here"),
        ],
        "dock-env" => &[
            ("source dock far", "dock this bash or zsh"),
            ("dock-env far --shell fish | source", "dock this fish"),
            ("castoff", "go back, in each of them"),
        ],
        _ => return None,
    })
}

/// The section of a manual page (man(7)).
pub(super) fn roff(examples: Examples) -> String {
    let escape = |text: &str| text.replace('\\', "\\e").replace('-', "\\-");
    let mut section = ".SH EXAMPLES\n".to_owned();
    for (line, purpose) in examples {
        section.push_str(&format!(".TP\n\\fB{}\\fR\n{}\n", escape(line), escape(purpose)));
    }
    section
}

/// The part of a reference page.
pub(super) fn markdown(examples: Examples) -> String {
    let width = examples.iter().map(|(line, _)| line.len()).max().unwrap_or(0);
    let lines: Vec<String> = examples
        .iter()
        .map(|(line, purpose)| format!("{line:width$}  # {purpose}"))
        .collect();
    format!("\n```text\n{}\n```\n", lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_are_lines_of_a_page() {
        let examples = of("ls-dock").unwrap();
        assert!(roff(examples).contains(".TP\n\\fBls\\-dock \\-\\-check far\\fR\nwhat stands"));
        assert!(markdown(examples).contains("\nls-dock --ports      # the ports"));
        assert!(of("cat").is_none());
    }
}
