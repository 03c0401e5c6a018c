//! `source dock`, `castoff` and their completions in real shells: bash, zsh and fish. What they are docked to is a scripted
//! engine on TCP; docks that ssh reaches are in `docks_ssh.rs`.

use std::fmt::Write as _;
use std::process::Command;
use std::sync::Once;

use dockerutils_core::agent::paths::state_directory;
use dockerutils_core::env::Env;
use dockerutils_core::sync::trash::Trash;
use dockerutils_test_support::{Outcome, Reply, ScriptedEngine, binary, machine};
use dockerutils_tests::dock_home::DockHome;
use serde_json::json;

/// A moniker that runs something wherever it is evaluated.
const HOSTILE: &str = "x[$(touch pwned)]`touch pwned`'\\%5B!!";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shell {
    Bash,
    Zsh,
}

const SHELLS: [Shell; 2] = [Shell::Bash, Shell::Zsh];

/// A home with docks: `far`, `near` and a hostile one that answer, `dead` that does not.
struct Bench {
    home: DockHome,
    _engine: ScriptedEngine,
    address: String,
}

impl Bench {
    fn new() -> Self {
        static INSTALLED: Once = Once::new();
        INSTALLED.call_once(|| {
            for (program, package) in [("zsh", "zsh"), ("fish", "fish"), ("shellcheck", "shellcheck")] {
                machine::require(program, &[package], "testing the shell shims").unwrap();
            }
        });
        let info = json!({ "ServerVersion": "26.1.5", "Name": "box", "NCPU": 8 });
        let engine = ScriptedEngine::start().on("GET", "/info", Reply::json(200, &info));
        let address = engine.tcp();
        let mut list = "version: 1\ndocks:\n".to_owned();
        let docks = [
            ("far", &*address),
            ("near", &address),
            (HOSTILE, &address),
            ("dead", "127.0.0.1:1"),
        ];
        for (moniker, address) in docks {
            let moniker = json!(moniker);
            writeln!(list, "- moniker: {moniker}\n  tcp:\n    address: {address}").unwrap();
        }
        let home = DockHome::new();
        home.sandbox().write("../home/.config/dockerutils/docks.yml", list);
        Self {
            home,
            _engine: engine,
            address,
        }
    }

    /// Runs a program with a clean environment, and no engine chosen.
    fn program(&self, program: &str, words: &[&str], stdin: &str) -> Outcome {
        let program = self.home.program(program).args(words);
        program.env("TERM", "dumb").stdin(stdin).spawn().wait()
    }

    fn run(&self, shell: Shell, script: &str) -> Outcome {
        match shell {
            Shell::Bash => self.program("bash", &["--norc", "--noprofile", "-c", script], ""),
            Shell::Zsh => self.program("zsh", &["-f", "-c", script], ""),
        }
    }

    /// Runs it, and shows stdout; a failure of the shell fails the test.
    fn said(&self, shell: Shell, script: &str) -> String {
        let outcome = self.run(shell, script);
        assert_eq!(outcome.code, 0, "{shell:?}: {script}\n{outcome}");
        outcome.stdout
    }

    fn assert_nothing_ran(&self) {
        assert!(
            !self.home.sandbox().project().join("pwned").exists(),
            "a moniker was evaluated"
        );
    }
}

/// A function `state`, which prints all that a shell has: variables with their attributes, functions, aliases, options.
fn state_function(shell: Shell) -> &'static str {
    match shell {
        Shell::Bash => {
            "state() { declare -p | grep -Ev '^declare -[a-zA-Z-]+ \
             (_|BASH[A-Z_]*|PIPESTATUS|S?RANDOM|SECONDS|EPOCH[A-Z]*|LINENO|FUNCNAME|GROUPS|DIRSTACK|OPTIND)(=|$)'; \
             declare -F; alias; set +o; shopt; trap; echo \"$#:$*\"; }\n"
        }
        Shell::Zsh => {
            "state() { typeset -p | grep -Ev '^(export|typeset|readonly)?( -[a-zA-Z0-9]+)*( [0-9]+)? \
             ?(_|[0-9?!#$*@-]|RANDOM|SECONDS|EPOCH[A-Z]*|LINENO|TTYIDLE|argv|ARGC|status|pipestatus|funcstack|func[a-z]*|zsh_\
             eval_context|ZSH_EVAL_CONTEXT|ZSH_SUBSHELL|HISTCMD|dirstack|parameters|functions|history|options|aliases|jobs.*)(=|$)'; \
             typeset +f; alias; set -o; trap; echo \"$#:$*\"; }\n"
        }
    }
}

/// What stands behind the line `== NAME` and before the next such line.
fn section<'a>(text: &'a str, name: &str) -> &'a str {
    let (_, rest) = text
        .split_once(&format!("== {name}\n"))
        .unwrap_or_else(|| panic!("no section {name} in:\n{text}"));
    rest.split_once("== ").map_or(rest, |(section, _)| section)
}

#[test]
fn what_docking_sets_castoff_sets_back_whatever_was_there() {
    let bench = Bench::new();
    let befores = [
        "",
        "export DOCKER_HOST=unix:///elsewhere DOCKER_IP=10.9.9.9 DOCKER_CONTEXT=other",
        "DOCKER_HOST=tcp://plain; export DOCKER_HOST; DOCKER_TLS_VERIFY=1; export DOCKER_CERT_PATH='/my certs'; \
         export BUILDX_BUILDER=",
        "DOCKER_HOST=; export DOCKER_TLS=1; DOCKER_IP=\"it's \\$(touch pwned)\"; BUILDX_BUILDER=b",
        "set -- one 'two three'; IFS=x",
        "export TESTCONTAINERS_HOST_OVERRIDE=10.1.1.1 TC_HOST=; TESTCONTAINERS_DOCKER_SOCKET_OVERRIDE='/my socket'; \
         export TESTCONTAINERS_CONNECTION_MODE=bridge_ip",
    ];
    let manners = [
        "",
        "set -eu",
        "alias export=false unset=false builtin=false printf=false command=false local=false typeset=false shift=false",
    ];
    for shell in SHELLS {
        for before in befores {
            for manner in manners {
                let aliases = if shell == Shell::Bash {
                    "shopt -s expand_aliases"
                } else {
                    ""
                };
                let script = format!(
                    "{}PS1='$ '\n{aliases}\n{before}\n{manner}\necho '== before'; state\nsource dock far\necho '== docked'\necho \
                     \"$DOCKER_HOST|$DOCKER_IP|$_DOCK_MONIKER|$PS1\"\nenv | grep -c '^DOCKER_\\(TLS\\|TLS_VERIFY\\|CERT_PATH\\|\
                     CONTEXT\\)=\\|^BUILDX_BUILDER=\\|^T[EC].*_\\(HOST\\|OVERRIDE\\)=' || :\nenv | grep -c '^DOCKER_HOST=\\|^DOCKER_IP=\\|^_DOCK_MONIKER='\n\
                     castoff\necho '== after'; state\n",
                    state_function(shell)
                );
                let outcome = bench.run(shell, &script);
                assert_eq!(outcome.code, 0, "{script}\n{outcome}");
                assert_eq!(
                    section(&outcome.stdout, "docked"),
                    format!("tcp://{0}|127.0.0.1|[dock:far] |$ [dock:far] \n0\n3\n", bench.address),
                    "{script}\n{outcome}"
                );
                similar(
                    section(&outcome.stdout, "before"),
                    section(&outcome.stdout, "after"),
                    &format!("{shell:?} {script}"),
                );
                assert!(
                    outcome
                        .stderr
                        .starts_with("docked to far: docker 26.1.5 on box, 8 CPUs\n"),
                    "{outcome}"
                );
                assert!(outcome.stderr.lines().count() == 1, "{outcome}");
            }
        }
    }
    bench.assert_nothing_ran();
}

/// The same text, or a failure that shows the lines that differ.
fn similar(one: &str, other: &str, what: &str) {
    let missing: Vec<&str> = one
        .lines()
        .filter(|line| !other.lines().any(|found| found == *line))
        .collect();
    let new: Vec<&str> = other
        .lines()
        .filter(|line| !one.lines().any(|found| found == *line))
        .collect();
    assert!(
        missing.is_empty() && new.is_empty(),
        "{what}\ngone: {missing:#?}\nnew: {new:#?}"
    );
    assert!(one.lines().count() > 10, "there was no state at all: {one}");
}

/// All orders of a virtual environment's activate (A) and deactivate (X), and docking (D) and casting off (C).
const ORDERS: [&str; 6] = ["AXDC", "ADXC", "ADCX", "DAXC", "DACX", "DCAX"];

#[test]
fn a_virtual_environment_and_a_dock_come_and_go_in_any_order() {
    let bench = Bench::new();
    machine::require("python3", &["python3-venv"], "a virtual environment").unwrap();
    let venv = bench.program("python3", &["-m", "venv", "--without-pip", "my env"], "");
    assert_eq!(venv.code, 0, "{venv}");
    for shell in SHELLS {
        for prompt in [
            "PS1='$ '",
            "PS1='[dock:far] $ '",
            "PS1=",
            "unset PS1",
            "PS1='50%% \\w $(echo x) '; export PS1",
        ] {
            for disabled in [
                "",
                "DOCKERUTILS_DISABLE_PROMPT=1; export DOCKERUTILS_DISABLE_PROMPT",
                "export VIRTUAL_ENV_DISABLE_PROMPT=1",
            ] {
                for strict in ["", "set -eu"] {
                    for order in ORDERS {
                        one_order(&bench, shell, &format!("{prompt}\n{disabled}\n{strict}"), order);
                    }
                }
            }
        }
    }
}

fn one_order(bench: &Bench, shell: Shell, before: &str, order: &str) {
    let mut script = format!(
        "{before}\nshow() {{ echo \"== $1\"; echo \"${{PS1-unset}}|${{DOCKER_HOST-unset}}|${{VIRTUAL_ENV+venv}}\"; }}\nshow 0\n"
    );
    for (step, letter) in (1..).zip(order.chars()) {
        script.push_str(match letter {
            'A' => ". './my env/bin/activate'\n",
            'X' => "deactivate\n",
            'D' => "source dock far 2>/dev/null\n",
            _ => "castoff\n",
        });
        writeln!(script, "show {step}").unwrap();
    }
    let text = bench.said(shell, &script);
    let what = format!("{shell:?} {order} {before}\n{text}");
    let prompt = |step: usize| section(&text, &step.to_string()).split('|').next().unwrap().to_owned();
    let marked = !before.contains("DOCKERUTILS_DISABLE_PROMPT");
    let count = |prompt: &str| prompt.matches("[dock:far] ").count();
    let (mut docked, mut active) = (false, false);
    for (step, letter) in (1..).zip(order.chars()) {
        match letter {
            'A' | 'X' => active = letter == 'A',
            _ => docked = letter == 'D',
        }
        let shown = prompt(step);
        assert_eq!(
            count(&shown),
            count(&prompt(0)) + usize::from(docked && marked),
            "step {step} of {what}"
        );
        let line = section(&text, &step.to_string());
        assert_eq!(line.contains("|tcp://127.0.0.1:"), docked, "step {step} of {what}");
        assert_eq!(line.trim_end().ends_with("|venv"), active, "step {step} of {what}");
        if active && !before.contains("VIRTUAL_ENV_DISABLE_PROMPT") {
            assert!(shown.starts_with("(my env) "), "step {step} of {what}");
        }
    }
    // A virtual environment alone leaves its mark in a prompt that was empty; all others are as they were.
    let left = prompt(order.len());
    let empty = before.starts_with("PS1=\n") || before.starts_with("unset PS1");
    assert!(
        left == prompt(0) || (empty && (left == "(my env) " || left.is_empty())),
        "{left:?} is left of {what}"
    );
}

#[test]
fn a_second_dock_is_refused_and_a_shell_below_can_go_back() {
    let bench = Bench::new();
    for shell in SHELLS {
        let name = if shell == Shell::Bash { "bash" } else { "zsh -f" };
        let outcome = bench.run(
            shell,
            &format!(
                "export DOCKER_HOST=before\nsource dock far\nsource dock near; echo \"$? $DOCKER_HOST\"\n{name} -c 'source dock near; \
                 echo \"$?\"; castoff; echo \"${{DOCKER_HOST-unset}} ${{_DOCK_MONIKER-unset}}\"'\ncastoff; echo $DOCKER_HOST\n"
            ),
        );
        assert_eq!(
            outcome.stdout,
            format!("1 tcp://{}\n1\nunset unset\nbefore\n", bench.address),
            "{outcome}"
        );
        assert!(
            outcome
                .stderr
                .contains("this shell is docked to \"far\" already, and not to \"near\"\n\nhint: castoff\n"),
            "{outcome}"
        );
    }
}

#[test]
fn a_shell_that_was_started_in_a_docked_one_gets_its_mark_and_castoff_when_it_asks() {
    let bench = Bench::new();
    for (shell, name) in [(Shell::Bash, "bash --norc"), (Shell::Zsh, "zsh -f")] {
        for words in ["", "far"] {
            let below = format!(
                "PS1='$ '; source dock {words} 2>/dev/null; echo \"$? $DOCKER_HOST $PS1|\"; source dock far 2>&1; castoff; echo \
                 \"${{DOCKER_HOST-unset}} ${{_DOCK_MONIKER-unset}} $PS1|\""
            );
            let said = bench.said(
                shell,
                &format!(
                    "source dock far 2>/dev/null\n{name} -c '{}'\nexport PS1\n{name} -c 'source dock 2>/dev/null; echo \"<$PS1>\"'\necho \
                     \"$DOCKER_HOST\"\n",
                    below.replace('\'', r"'\''")
                ),
            );
            let address = &bench.address;
            assert!(
                said.starts_with(&format!(
                    "0 tcp://{address} $ [dock:far] |\ndock-env: this shell is docked to \"far\" already\n"
                )),
                "{shell:?} {said}"
            );
            assert!(said.contains("\nunset unset $ |\n"), "{shell:?} {said}");
            // One that has the prompt of the one above has the mark already.
            assert_eq!(said.matches("[dock:far]").count(), 2, "{shell:?} {said}");
            assert!(said.ends_with(&format!("\ntcp://{address}\n")), "{shell:?} {said}");
        }
    }
    let fish = "dock-env far --shell fish | source; fish --no-config -c 'dock-env --adopt --shell fish | source; echo \
                $DOCKER_HOST(fish_right_prompt); castoff; set --query DOCKER_HOST; or echo gone'";
    let outcome = bench.program("fish", &["--no-config", "-c", fish], "");
    assert_eq!(
        outcome.stdout,
        format!("tcp://{}[dock:far] \ngone\n", bench.address),
        "{outcome}"
    );
}

#[test]
fn a_prompt_that_is_made_anew_each_time_has_the_mark() {
    let bench = Bench::new();
    let typed = |making: &str, meanwhile: &str| {
        format!(
            "print() {{ echo \"$3\"; }}\n[ -z \"$ZSH_VERSION\" ] || unfunction print\n{making}\nsource dock far 2>/dev/null\n{meanwhile}\n\
             true\nprint -r -- \"<$PS1>\"\ncastoff\ntrue\nprint -r -- \"<$PS1>\"\nexit 0\n"
        )
    };
    let bash = ("bash", &["--norc", "--noprofile", "-i"][..]);
    let zsh = ("zsh", &["-f", "-i"][..]);
    for ((program, words), making, meanwhile) in [
        (bash, "make() { PS1='made '; }; PROMPT_COMMAND=make", ""),
        // Of an array, all are run: what makes the prompt anew need not be the first.
        (bash, "make() { PS1='made '; }; PROMPT_COMMAND=(true make)", ""),
        // A theme that is set up, or set up again, in a docked shell comes behind ours, or takes the place of all.
        (
            bash,
            "make() { PS1='made '; }",
            "PROMPT_COMMAND=\"$PROMPT_COMMAND; make\"",
        ),
        (bash, "make() { PS1='made '; }", "PROMPT_COMMAND+=(make)"),
        (zsh, "precmd() { PS1='made '; }", ""),
        (zsh, "make() { PS1='made '; }; precmd_functions=(make)", ""),
        (zsh, "make() { PS1='made '; }", "precmd_functions+=(make)"),
        (
            zsh,
            "setopt ksh_arrays; make() { PS1='made '; }",
            "precmd_functions+=(make)",
        ),
    ] {
        let outcome = bench.program(program, words, &typed(making, meanwhile));
        assert!(
            outcome.stdout.contains("<made [dock:far] >"),
            "{program} {making} {meanwhile} {outcome}"
        );
        assert!(
            outcome.stdout.contains("<made >"),
            "{program} {making} {meanwhile} {outcome}"
        );
    }
    let fish = "function fish_right_prompt; echo mine; end; dock-env far --shell fish | source; function fish_right_prompt; echo -n 'made '; \
                end; emit fish_prompt; emit fish_prompt; fish_right_prompt; echo; function fish_right_prompt; echo -n 'again '; end; \
                castoff; fish_right_prompt; functions --all | string match '_dock*'; set --names | string match --ignore-case '_dock*'; \
                true";
    let outcome = bench.program("fish", &["--no-config", "-c", fish], "");
    assert_eq!(outcome.stdout, "made [dock:far] \nagain ", "{outcome}");
}

#[test]
fn a_file_of_the_shim_s_name_in_the_current_folder_is_not_read_by_a_dot() {
    let bench = Bench::new();
    let here = "mkdir ~/here && cd ~/here && echo 'echo another file' >dock\n";
    for shell in SHELLS {
        let said = bench.said(
            shell,
            &format!("{here}. dock far\necho \"$_DOCK_MONIKER\"\ncastoff\nrm -r ~/here\n"),
        );
        assert_eq!(said, "[dock:far] \n", "{shell:?}");
    }
    // What the guide warns of: `source` of zsh looks here first, whatever PATH says.
    let outcome = bench.program(
        "zsh",
        &["-f", "-c", &format!("{here}source dock far; rm -r ~/here")],
        "",
    );
    assert_eq!(outcome.stdout, "another file\n", "{outcome}");
}

#[test]
fn a_dock_that_cannot_be_reached_changes_nothing() {
    let bench = Bench::new();
    for shell in SHELLS {
        for (dock, code) in [("dead", 3), ("nope", 2), ("", 2)] {
            let script = format!(
                "{}set -- a b\nDOCKER_TLS_VERIFY=1\ncastoff() {{ echo mine; }}\necho '== before'; state\nif source dock {dock}; then \
                 exit 9; else echo \"== code\n$?\"; fi\necho '== after'; state; castoff\n",
                state_function(shell)
            );
            // Without a name, a sourced file has the positional parameters of its caller.
            let script = if dock.is_empty() {
                script.replace("set -- a b", "")
            } else {
                script
            };
            let outcome = bench.run(shell, &script);
            assert_eq!(outcome.code, 0, "{script}\n{outcome}");
            assert_eq!(section(&outcome.stdout, "code").trim(), code.to_string(), "{outcome}");
            assert!(outcome.stdout.ends_with("mine\n"), "{outcome}");
            let after = section(&outcome.stdout, "after").trim_end_matches("mine\n");
            similar(section(&outcome.stdout, "before"), after, &format!("{shell:?} {dock}"));
        }
    }
}

#[test]
fn a_variable_that_cannot_be_changed_leaves_all_as_it_was() {
    let bench = Bench::new();
    for shell in SHELLS {
        let outcome = bench.run(
            shell,
            "export DOCKER_HOST=before; readonly DOCKER_CERT_PATH=/x\nsource dock far; echo \"$? $DOCKER_HOST ${_DOCK_MONIKER-unset}\"\n\
             typeset -f castoff _dock_keep _dock_restore || echo none\n",
        );
        assert_eq!(outcome.stdout, "1 before unset\nnone\n", "{shell:?} {outcome}");
        assert!(
            outcome
                .stderr
                .contains("dock: DOCKER_CERT_PATH is read-only in this shell"),
            "{outcome}"
        );
    }
}

#[test]
fn a_hostile_moniker_runs_nothing_and_is_shown() {
    let bench = Bench::new();
    let quoted = HOSTILE.replace('\'', r"'\''");
    let script = format!(
        "PS1='$ '\nsource dock '{quoted}'\nprintf '%s\\n' \"$_DOCK_MONIKER\"\necho \"$PS1\"\nls-dock --json >/dev/null\ncastoff\necho \
         \"[$PS1]\"\n"
    );
    for shell in SHELLS {
        let said = bench.said(shell, &script);
        assert!(said.starts_with(&format!("[dock:{HOSTILE}] \n")), "{said}");
        assert!(said.ends_with("[$ ]\n"), "{said}");
    }
    // Prompts are expanded by interactive shells, when and how their options say.
    let typed = format!("setopt prompt_subst prompt_bang 2>/dev/null\n{script}echo done\nexit 0\n");
    for (program, words) in [("bash", &["--norc", "--noprofile", "-i"][..]), ("zsh", &["-f", "-i"])] {
        let outcome = bench.program(program, words, &typed);
        assert!(outcome.stdout.contains("done"), "{program} {outcome}");
        bench.assert_nothing_ran();
    }
    for (program, options) in [("bash", "--norc"), ("zsh", "-f")] {
        let eval = format!(
            "eval \"$(dock-env '{quoted}' --shell {program} --pid $$)\"; printf '%s' \"$_DOCK_MONIKER\"; castoff"
        );
        let outcome = bench.program(program, &[options, "-c", &eval], "");
        assert_eq!(outcome.stdout, format!("[dock:{HOSTILE}] "), "{outcome}");
    }
    let fish_quoted = HOSTILE.replace('\\', r"\\").replace('\'', r"\'");
    let fish = format!(
        "dock-env '{fish_quoted}' --shell fish | source; printf '%s\\n' $_DOCK_MONIKER; fish_right_prompt; castoff"
    );
    let outcome = bench.program("fish", &["--no-config", "-c", &fish], "");
    assert!(outcome.stdout.starts_with(&format!("[dock:{HOSTILE}] \n")), "{outcome}");
    bench.assert_nothing_ran();
}

#[test]
fn the_shim_is_sourced_by_bash_and_zsh_and_says_so() {
    let bench = Bench::new();
    for (program, words, code, part) in [
        (
            "bash",
            &["--norc", "dock", "far"][..],
            2,
            "must read it itself: source dock NAME",
        ),
        ("dock", &["far"], 2, "must read it itself: source dock NAME"),
        (
            "dash",
            &["-c", "\"$(command -v dock)\" far"],
            2,
            "must read it itself: source dock NAME",
        ),
        (
            "dash",
            &["-c", ". \"$(command -v dock)\"; echo $?"],
            0,
            "only bash and zsh can read it: source dock NAME",
        ),
        ("bash", &["-c", "source dock"], 2, "usage: source dock NAME"),
        ("zsh", &["-f", "-c", "source dock --help"], 0, "castoff goes back"),
    ] {
        let outcome = bench.program(program, words, "");
        assert_eq!(outcome.code, code, "{program} {words:?} {outcome}");
        assert!(outcome.stderr.contains(part), "{program} {words:?} {outcome}");
    }
}

#[test]
fn fish_is_docked_and_goes_back() {
    let bench = Bench::new();
    let dump = "set | string match -rv '^(history|PWD|SHLVL|code|status|pipestatus|CMD_DURATION|last_pid|_|hostname|fish_[a-z]+|version|line|generation_.*) '; set -x | string match -rv '^(PWD|SHLVL|_) '; functions -a | string split ','";
    for before in [
        "",
        "set -gx DOCKER_HOST before; set -g DOCKER_TLS_VERIFY 1; set -gx BUILDX_BUILDER",
        "set -gx TESTCONTAINERS_HOST_OVERRIDE 10.1.1.1; set -g TC_HOST ''; set -gx TESTCONTAINERS_CONNECTION_MODE bridge_ip",
        "set -gx DOCKER_CERT_PATH '/my certs'; function fish_right_prompt; echo mine; end",
    ] {
        let script = format!(
            "{before}\nfunctions castoff fish_right_prompt >/dev/null\necho '== before'\n{dump}\ndock-env far --shell fish | source\nset code $status\necho '== \
             docked'\necho \"$code|$DOCKER_HOST|$_DOCK_MONIKER|\"(fish_right_prompt)\nenv | grep -c \
             'DOCKER_TLS_VERIFY\\|DOCKER_CERT_PATH\\|BUILDX_BUILDER\\|TESTCONTAINERS\\|TC_HOST'\ndock-env near --shell fish | source\necho \"$status\"\ncastoff\necho '== \
             after'\n{dump}\ndock-env dead --shell fish | source\nset code $status\necho '== dead'\necho $code\n"
        );
        let outcome = bench.program("fish", &["--no-config", "-c", &script], "");
        assert_eq!(outcome.code, 0, "{outcome}");
        let mine = if before.contains("mine") { "mine" } else { "" };
        let docked = section(&outcome.stdout, "docked");
        assert!(
            docked.starts_with(&format!("0|tcp://{}|[dock:far] |{mine}", bench.address)),
            "{outcome}"
        );
        assert!(docked.ends_with("[dock:far] \n0\n1\n"), "{outcome}");
        similar(
            section(&outcome.stdout, "before"),
            section(&outcome.stdout, "after"),
            before,
        );
        assert_eq!(section(&outcome.stdout, "dead"), "1\n", "{outcome}");
    }
}

#[test]
fn shellcheck_finds_nothing() {
    let bench = Bench::new();
    let shim = concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/dock/shim");
    for file in ["dock.sh", "completion.bash"] {
        let outcome = bench.program("shellcheck", &[&format!("{shim}/{file}")], "");
        assert_eq!(outcome.code, 0, "{outcome}");
    }
    for program in [
        "ls-dock",
        "ssh-dock",
        "unregister-dock",
        "run-image",
        "transfer-image",
        "register-dock",
        "build-image",
        "sync-down",
        "build-stack",
        "run-notebook",
    ] {
        let script = Command::new(binary(program))
            .args(["--dockerutils-describe", "bash"])
            .output()
            .unwrap();
        let script = String::from_utf8(script.stdout).unwrap();
        // clap's own part is clap's.
        let own = script.split_once("\n_dockerutils_words").unwrap().1;
        let outcome = bench.program("shellcheck", &["-s", "bash", "-"], &format!("_dockerutils_words{own}"));
        assert_eq!(outcome.code, 0, "{program} {outcome}");
    }
}

#[test]
fn monikers_are_completed_and_never_evaluated() {
    let bench = Bench::new();
    let shim = concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/dock/shim");
    let hostile = "x\\[\\$\\(touch\\ pwned\\)\\]";
    for (words, expected) in [
        ("source dock f", "far\n"),
        ("ls-dock n", "near\n"),
        ("ls-dock far d", "dead\n"),
        ("unregister-dock x", hostile),
        ("ssh-dock -l ann f", "far\n"),
        ("run-image --dock n", "near\n"),
        ("ssh-dock far f", ""),
        ("source dock far --exp", "--expose\n"),
        ("ls-dock --wi", "--wide\n"),
    ] {
        let command = words.split(' ').next().unwrap();
        let file = if command == "source" {
            format!("source {shim}/completion.bash")
        } else {
            format!("eval \"$({command} --dockerutils-describe bash)\"")
        };
        let last = words.rsplit(' ').next().unwrap();
        let previous = words.rsplit(' ').nth(1).unwrap();
        let script = format!(
            "{file}\nCOMP_WORDS=({words})\nCOMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))\nfunction=$(complete -p {command})\nfunction=${{function#*-F \
             }}\n${{function%% *}} {command} {last} {previous}\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"\n"
        );
        let said = bench.said(Shell::Bash, &script);
        assert!(
            said.starts_with(expected) && (!expected.is_empty() || said == "\n"),
            "{words}: {said}"
        );

        let fish = format!("{command} --dockerutils-describe fish | source; complete -C '{words}'");
        // fish takes the value of an option for the first word.
        if command != "source" && !words.contains(" -l ") {
            let outcome = bench.program("fish", &["--no-config", "-c", &fish], "");
            let expected = if expected == hostile {
                "x[$(touch pwned)]"
            } else {
                expected.trim_end()
            };
            assert!(outcome.stdout.starts_with(expected), "{words}: {outcome}");
        }
    }
    let fish = "dock-env --dockerutils-describe fish | source; complete -C 'dock-env f'";
    assert!(
        bench
            .program("fish", &["--no-config", "-c", fish], "")
            .stdout
            .starts_with("far")
    );
    bench.assert_nothing_ran();
}

#[test]
fn zsh_completes_monikers_at_a_terminal() {
    let bench = Bench::new();
    let shim = concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/dock/shim");
    let functions = bench.home.sandbox().write(
        "../functions/_dock",
        std::fs::read(format!("{shim}/completion.zsh")).unwrap(),
    );
    for program in ["ls-dock", "run-image"] {
        let script = Command::new(binary(program))
            .args(["--dockerutils-describe", "zsh"])
            .output()
            .unwrap();
        bench
            .home
            .sandbox()
            .write(&format!("../functions/_{program}"), script.stdout);
    }
    let functions = functions.parent().unwrap().display().to_string();
    // A pseudo-terminal of zsh's own: the completion system works at a terminal only.
    for (typed, completed) in [
        ("source dock fa", "source dock far"),
        ("source dock far --exp", "source dock far --expose"),
        ("ls-dock nea", "ls-dock near"),
        ("run-image --dock nea", "run-image --dock near"),
        ("ls-dock x", "ls-dock x\\[\\$\\(touch\\ pwned\\)\\]"),
    ] {
        let script = format!(
            "zmodload zsh/zpty\nzpty -b z zsh -f -i\nzpty -w z \"PS1=; fpath=({functions} \\$fpath); autoload -U compinit; compinit -u -D; \
             print re''ady\"\nzpty -r z out '*ready*'\nzpty -w -n z $'{typed}\\t'\nsleep 0.7\nzpty -w -n z $'\\x01print -r -- \
             \"<\\x05>\"\\n'\nsleep 0.3\nwhile zpty -r -t z line; do print -r -- \"$line\"; done\nzpty -d z\n"
        );
        let outcome = bench.program("zsh", &["-f", "-c", &script], "");
        assert!(outcome.stdout.contains(completed), "{typed}: {outcome}");
    }
    bench.assert_nothing_ran();
}

/// What is typed, and words that have to be among those that are offered; with a `-` before it, one that must not be.
const NAMED: &[(&str, &[&str])] = &[
    ("build-image ", &["web", "all", "clean", "-shell"]),
    ("build-image w", &["web", "-all"]),
    ("run-image ", &["web", "shell", "db", "-all"]),
    ("run-image -k s", &["shell", "-web"]),
    ("publish-image ", &["web", "db", "-shell"]),
    ("transfer-image ", &["web", "busybox", "-far"]),
    ("transfer-image web ", &["busybox", "far", "localhost"]),
    ("transfer-image --from ", &["far", "localhost"]),
    ("ssh-dock f", &["far"]),
    ("ls-dock n", &["near"]),
    ("unregister-dock n", &["near"]),
    ("sync-up --dock n", &["near"]),
    ("sync-down --dock n", &["near"]),
    ("run-image -n ", &["bridge", "backend"]),
    ("run-image --network b", &["bridge", "backend"]),
    ("register-dock gp", &["gpu-1"]),
    ("register-dock --context d", &["desk"]),
    ("dock-env f", &["far"]),
    ("run-image --attach ", &["mine", "-others", "-web"]),
    ("sync-down --restore ", &["src/old.py", "gone", "-setup.cfg"]),
    ("sync-down --list --restore g", &["gone"]),
    ("sync-down ", &["-src/old.py", "-gone"]),
    ("build-stack ", &["science", "base"]),
    ("build-stack base s", &["science"]),
    ("build-stack --only s", &["science"]),
    ("test-stack --only s", &["science"]),
    ("run-image sc", &["science"]),
    // Files, too.
    ("run-notebook s", &["science", "some.ipynb"]),
];

/// A project, an engine with images and networks, hosts and contexts.
fn with_names(bench: &Bench) -> ScriptedEngine {
    let sandbox = bench.home.sandbox();
    for (file, text) in [
        ("docker/web/Dockerfile", "FROM scratch\n"),
        ("images/spec.yml", "images: {base: {}, science: {depend_on: base}}\n"),
        ("some.ipynb", "{}"),
        (
            "docker/dockerutils.cfg",
            "[run_image]\nsynthetic_images = shell\n[shell]\nname = web\n[db]\nname = postgres\nprefix = False\n",
        ),
        ("../home/.ssh/config", "Host gpu-1 *.example.com\n"),
        ("../home/.docker/contexts/meta/0/meta.json", "{\"Name\":\"desk\"}"),
    ] {
        sandbox.write(file, text);
    }
    let images = json!([{ "Id": "sha256:1", "RepoTags": ["busybox:1", "<none>:<none>"], "ParentId": "", "RepoDigests": [], "Created": 0, "Size": 1, "SharedSize": -1, "Labels": {}, "Containers": -1 }]);
    let networks = json!([{ "Name": "bridge" }, { "Name": "backend" }]);
    let container = |name: &str, project: &str, user: &str| {
        let labels = json!({ "io.dockerutils.project": project, "io.dockerutils.user": user });
        json!({ "Id": name, "Names": [format!("/{name}")], "Labels": labels })
    };
    let containers = json!([
        container("mine", "sample", "tester"),
        container("others", "sample", "somebody"),
        container("web", "elsewhere", "tester"),
    ]);
    // What syncs took of the project.
    let env = Env::from_pairs([("HOME", sandbox.home().to_str().unwrap())]);
    let root = sandbox.project().canonicalize().unwrap();
    let trash = Trash::open(&state_directory(&env), &root, None);
    for path in ["removed/src/old.py", "overwritten/gone"] {
        let file = trash.directory().join("1700000000.abc").join(path);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, "old").unwrap();
    }
    ScriptedEngine::start()
        .on("GET", "/containers/json*", Reply::json(200, &containers))
        .on("GET", "/images/json*", Reply::json(200, &images))
        .on("GET", "/networks*", Reply::json(200, &networks))
}

#[test]
fn whatever_an_argument_names_is_completed_in_bash_and_fish() {
    let bench = Bench::new();
    let engine = with_names(&bench);
    let host = format!("DOCKER_HOST=tcp://{}", engine.tcp());
    for (typed, expected) in NAMED {
        let command = typed.split(' ').next().unwrap();
        let (before, last) = typed.rsplit_once(' ').unwrap();
        let previous = before.rsplit(' ').next().unwrap();
        let bash = format!(
            "export {host}\neval \"$({command} --dockerutils-describe bash)\"\nCOMP_WORDS=({before} '{last}')\n\
             COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))\nfunction=$(complete -p {command})\nfunction=${{function#*-F }}\n${{function%% *}} \
             {command} '{last}' '{previous}'\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"\n"
        );
        let bash = bench.said(Shell::Bash, &bash);
        let fish = format!(
            "set -x {} \n{command} --dockerutils-describe fish | source; complete -C '{typed}'",
            host.replace('=', " ")
        );
        let fish = bench.program("fish", &["--no-config", "-c", &fish], "").stdout;
        for (shell, said) in [("bash", bash), ("fish", fish)] {
            // fish takes the value of an option for the first word.
            if shell == "fish" && typed.contains(" -k ") {
                continue;
            }
            let words: Vec<&str> = said.lines().map(|line| line.split('\t').next().unwrap()).collect();
            for word in *expected {
                let (is_there, word) = word.strip_prefix('-').map_or((true, *word), |word| (false, word));
                let found = words
                    .iter()
                    .any(|offered| *offered == word || offered.starts_with(&format!("{word}:")));
                assert_eq!(found, is_there, "{shell}: {typed:?} {word}: {words:?}");
            }
        }
    }
}

#[test]
fn whatever_an_argument_names_is_completed_by_zsh_at_a_terminal() {
    let bench = Bench::new();
    let engine = with_names(&bench);
    let sandbox = bench.home.sandbox();
    let commands = [
        "build-image",
        "run-image",
        "publish-image",
        "transfer-image",
        "ssh-dock",
        "register-dock",
        "sync-up",
        "sync-down",
        "build-stack",
        "run-notebook",
    ];
    for program in commands {
        let script = Command::new(binary(program))
            .args(["--dockerutils-describe", "zsh"])
            .output()
            .unwrap();
        sandbox.write(&format!("../functions/_{program}"), script.stdout);
    }
    let functions = sandbox.project().join("../functions").display().to_string();
    for (typed, completed) in [
        ("build-image we", "build-image web"),
        ("run-image -k she", "run-image -k shell"),
        ("publish-image d", "publish-image db"),
        ("transfer-image bus", "transfer-image busybox:1"),
        ("transfer-image web fa", "transfer-image web far"),
        ("ssh-dock fa", "ssh-dock far"),
        ("run-image -n bac", "run-image -n backend"),
        ("run-image --network=bac", "run-image --network=backend"),
        ("register-dock gp", "register-dock gpu-1"),
        ("sync-up --dock loc", "sync-up --dock localhost"),
        ("run-image --attach mi", "run-image --attach mine"),
        ("sync-down --restore sr", "sync-down --restore src/old.py"),
        ("sync-down dock", "sync-down docker"),
        ("build-stack sci", "build-stack science"),
        ("build-stack --only sci", "build-stack --only science"),
        ("run-notebook sci", "run-notebook science"),
        ("run-notebook som", "run-notebook some.ipynb"),
    ] {
        let script = format!(
            "zmodload zsh/zpty\nzpty -b z zsh -f -i\nzpty -w z \"PS1=; export DOCKER_HOST=tcp://{}; fpath=({functions} \\$fpath); autoload -U \
             compinit; compinit -u -D; print re''ady\"\nzpty -r z out '*ready*'\nzpty -w -n z $'{typed}\\t\\x01print -r -- \
             \"<\\x05>\"\\n'\nzpty -r z out '*<*>*<*>*' || :\nprint -r -- \"$out\"\nzpty -d z\n",
            engine.tcp()
        );
        let outcome = bench.program("zsh", &["-f", "-c", &script], "");
        assert!(
            outcome.stdout.replace('\\', "").contains(&format!("<{completed}")),
            "{typed}: {outcome}"
        );
    }
}
