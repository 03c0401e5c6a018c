//! What the agent of a dock has to say at the next prompt of a docked shell, in real shells.

use dockerutils_test_support::{Outcome, Reply, Sandbox, ScriptedEngine, binary, machine};
use serde_json::json;

const SHIM: &str = include_str!("../../crates/dock/shim/dock.sh");

fn need_shells() {
    for (program, package) in [("zsh", "zsh"), ("fish", "fish")] {
        machine::require(program, &[package], "testing the shell shims").unwrap();
    }
}

/// A home with the shim, and the dock `far`, a scripted engine; `dock-env` gives a notice for it, as it does for docks that
/// have an agent. The notice is in `$HOME/notice`.
struct Shims {
    sandbox: Sandbox,
    _engine: ScriptedEngine,
}

impl Shims {
    fn new() -> Self {
        need_shells();
        let info = json!({ "ServerVersion": "26.1.5", "Name": "box", "NCPU": 8 });
        let engine = ScriptedEngine::start().on("GET", "/info", Reply::json(200, &info));
        let list = format!(
            "version: 1\ndocks:\n- moniker: far\n  tcp:\n    address: {}\n",
            engine.tcp()
        );
        let wrapper = format!(
            "#!/bin/sh\ncase \" $* \" in\n*' --lines '*) '{0}' \"$@\" && echo \"notice=$HOME/notice\" ;;\n*) '{0}' \"$@\" | \
             sed \"s|_dock_apply '|_dock_apply 'notice=$HOME/notice' '|\" ;;\nesac\n",
            binary("dock-env").display()
        );
        let sandbox = Sandbox::new()
            .file("../home/.config/dockerutils/docks.yml", list)
            .script("../bin/dock", SHIM)
            .script("../bin/dock-env", wrapper);
        Self {
            sandbox,
            _engine: engine,
        }
    }

    fn shell(&self, words: &[&str], script: &str) -> Outcome {
        let (program, options) = words.split_first().unwrap();
        let bin = self.sandbox.project().join("../bin").canonicalize().unwrap();
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
        let file = std::env::split_paths(&path)
            .map(|directory| directory.join(program))
            .find(|file| file.is_file())
            .unwrap();
        let outcome = self
            .sandbox
            .program(file)
            .args(options)
            .args(["-c", script])
            .env("PATH", path)
            .env_remove("DOCKER_HOST")
            .spawn()
            .wait();
        assert_eq!(outcome.code, 0, "{script}\n{outcome}");
        outcome
    }
}

/// Leaves a notice, does what the shell does before a prompt, twice, and shows what was said and that all was taken.
const PROMPTS: &str =
    "printf 'first line\\n\\\\n *\\n' >|~/notice\nprompts; prompts\n[ -s ~/notice ] && echo kept; :\n";

#[test]
fn a_notice_is_shown_once_before_a_prompt_of_bash_and_castoff_leaves_the_prompt_s_commands_as_they_were() {
    let bench = Shims::new();
    let prompts = "prompts() { local c; for c in \"${PROMPT_COMMAND[@]}\"; do eval \"$c\"; done; }\n";
    for (before, meanwhile, afterwards) in [
        ("", "", ""),
        ("PROMPT_COMMAND=", "", "declare -- PROMPT_COMMAND=\"\""),
        (
            "export PROMPT_COMMAND='echo mine'",
            "",
            "declare -x PROMPT_COMMAND=\"echo mine\"",
        ),
        (
            "PROMPT_COMMAND='echo mine # why'",
            "",
            "declare -- PROMPT_COMMAND=\"echo mine # why\"",
        ),
        (
            "PROMPT_COMMAND=('echo mine' 'echo other')",
            "",
            "declare -a PROMPT_COMMAND=([0]=\"echo mine\" [1]=\"echo other\")",
        ),
        (
            "PROMPT_COMMAND=([3]='echo mine')",
            "",
            "declare -a PROMPT_COMMAND=([3]=\"echo mine\")",
        ),
        // Others that come meanwhile.
        (
            "",
            "PROMPT_COMMAND=\"$PROMPT_COMMAND; echo more\"",
            "declare -- PROMPT_COMMAND=\":; echo more\"",
        ),
        (
            "",
            "PROMPT_COMMAND=\"echo more;$PROMPT_COMMAND\"",
            "declare -- PROMPT_COMMAND=\"echo more;\"",
        ),
        (
            "PROMPT_COMMAND='echo mine'",
            "PROMPT_COMMAND=\"echo more; $PROMPT_COMMAND; echo last\"",
            "declare -- PROMPT_COMMAND=\"echo more; echo mine; echo last\"",
        ),
        (
            "",
            "PROMPT_COMMAND=$PROMPT_COMMAND$'\\necho more'",
            "declare -- PROMPT_COMMAND=\"echo more\"",
        ),
    ] {
        for manner in ["", "set -eu", "set -o noclobber"] {
            let script = format!(
                "{prompts}{before}\n{manner}\nsource dock far 2>/dev/null\n{meanwhile}\n{PROMPTS}castoff\n\
                 prompts; echo '== after'\ndeclare -p PROMPT_COMMAND 2>/dev/null || :\ncompgen -v | grep -i _dock || :\n\
                 compgen -A function | grep -i dock || :\n"
            );
            let said = bench.shell(&["bash", "--norc", "--noprofile"], &script);
            assert_eq!(said.stderr, "first line\n\\n *\n", "{script}\n{said}");
            assert!(!said.stdout.contains("kept"), "{said}");
            let (during, after) = said.stdout.split_once("== after\n").unwrap();
            assert_eq!(after.trim_end(), afterwards, "{script}\n{said}");
            if before.contains("mine") {
                assert_eq!(during.matches("mine\n").count(), 3, "{script}\n{said}");
            }
        }
    }
    // One that can't be changed is left alone, and the shell is docked all the same.
    let script =
        "readonly PROMPT_COMMAND='echo mine'\nsource dock far 2>/dev/null\necho \"${_DOCK_NOTICE-none}\"\ncastoff\n";
    let said = bench.shell(&["bash", "--norc"], script);
    assert_eq!((said.stdout.as_str(), said.stderr.as_str()), ("none\n", ""), "{said}");
    // A shell below has the variables that are exported, and not the function.
    let script = "export PROMPT_COMMAND='echo mine'; source dock far 2>/dev/null; echo lost >~/notice; bash -c 'eval \"$PROMPT_COMMAND\"'";
    let said = bench.shell(&["bash", "--norc"], script);
    assert_eq!((said.stdout.as_str(), said.stderr.as_str()), ("mine\n", ""), "{said}");
    let script = "eval \"$(dock-env far --shell bash --pid $$)\" 2>/dev/null\necho told >~/notice\neval \"$PROMPT_COMMAND\"\ncastoff";
    assert_eq!(
        bench.shell(&["bash", "--norc"], script).stderr.lines().last(),
        Some("told")
    );
}

#[test]
fn a_notice_is_shown_once_before_a_prompt_of_zsh_and_of_fish() {
    let bench = Shims::new();
    let prompts = "prompts() { local f; for f in $precmd_functions; do $f; done; }\n";
    for (before, meanwhile, afterwards) in [
        ("", "", ""),
        ("mine() { echo mine; }; precmd_functions=(mine)", "", "( mine )"),
        ("precmd_functions=()", "", "(  )"),
        ("", "more() { echo more; }; precmd_functions+=(more)", "( more )"),
        ("typeset -Ua precmd_functions", "", "(  )"),
    ] {
        for manner in ["", "set -eu", "setopt noclobber ksh_arrays"] {
            // Arrays of ksh are another language, in which this test is not written.
            let (on, off) = if manner.contains("ksh") {
                ("unsetopt ksh_arrays", "setopt ksh_arrays")
            } else {
                ("", "")
            };
            let script = format!(
                "{prompts}{before}\n{manner}\nsource dock far 2>/dev/null\n{meanwhile}\n{on}\n{PROMPTS}{off}\ncastoff\necho '== after'\n\
                 typeset -p precmd_functions 2>/dev/null || :\nfunctions -m '*dock*'\ntypeset -m '*_DOCK*'\n"
            );
            let said = bench.shell(&["zsh", "-f"], &script);
            assert_eq!(said.stderr, "first line\n\\n *\n", "{script}\n{said}");
            assert!(!said.stdout.contains("kept"), "{said}");
            let (_, after) = said.stdout.split_once("== after\n").unwrap();
            assert!(after.trim_end().ends_with(afterwards), "{script}\n{said}");
            assert_eq!(after.is_empty(), afterwards.is_empty(), "{script}\n{said}");
        }
    }
    let script = "typeset -r precmd_functions; source dock far 2>/dev/null; echo ${_DOCK_NOTICE-none}; castoff";
    assert_eq!(bench.shell(&["zsh", "-f"], script).stdout, "none\n");

    let script = format!(
        "dock-env far --shell fish | source\nfunction prompts; emit fish_prompt; end\n{}castoff\nfunctions | grep -i dock\n\
         set --names | grep -i dock\ntrue\n",
        PROMPTS
            .replace(">|", ">")
            .replace("[ -s ~/notice ] && echo kept; :", "test -s ~/notice; and echo kept")
    );
    let said = bench.shell(&["fish", "--no-config"], &script);
    // There, a backslash is one in quotes, too, and printf makes a line feed of it.
    assert!(said.stderr.ends_with("\nfirst line\n *\n"), "{said}");
    assert_eq!(said.stdout, "", "{said}");
}
