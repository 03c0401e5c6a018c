//! What the agent of a dock has to say at the next prompt of a docked shell: that a mount of plain docker or compose is the
//! dock's, and this machine's was meant. In real shells, and on a real dock.

use std::fs;
use std::time::Duration;

use dockerutils_test_support::lab::{self, LabEngine};
use dockerutils_test_support::{Invocation, Outcome, Reply, Sandbox, ScriptedEngine, binary, machine};
use dockerutils_tests::dock_home::DockHome;
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

/// A docked home on a real dock: its user, its projects, and this test's own mark.
struct Docked {
    home: DockHome,
    engine: LabEngine,
    mark: String,
}

impl Docked {
    fn new(test: &str) -> Self {
        need_shells();
        let engine = lab::engine("26").unwrap();
        let mark = format!("notices-{test}-{}", std::process::id());
        let home = DockHome::of(Sandbox::named(&mark));
        home.use_key(&engine.ssh().unwrap().key, "");
        home.register(&engine, "ann", "far");
        Self { home, engine, mark }
    }

    fn program(&self, program: &str) -> Invocation<'_> {
        self.home
            .program(program)
            .env("TERM", "dumb")
            .env("USER", &self.mark)
            .env("LOGNAME", &self.mark)
            .limit(Duration::from_secs(120))
    }
}

impl Drop for Docked {
    fn drop(&mut self) {
        self.program("unregister-dock").arg("far").spawn().wait();
        if let Ok(mut exec) = self.engine.exec("rm") {
            let root = self.home.sandbox().home().parent().unwrap().display().to_string();
            let workspace = format!("/home/ann/workspaces/{}", self.mark);
            // The engine made the first of them, empty, as this is about.
            let _ = exec.args(["-rf", &root, &workspace]).status();
        }
    }
}

#[test]
fn a_mount_of_what_only_this_machine_has_is_told_at_the_next_prompt_of_its_shell() {
    let bench = Docked::new("mount");
    bench.home.sandbox().write("data/x", "x");
    bench.home.sandbox().write("conf", "x");
    bench.home.sandbox().write("empty/.keep", "");
    fs::remove_file(bench.home.sandbox().project().join("empty/.keep")).unwrap();
    // The log has it at last: it is at the prompt behind that, where it was not at one before.
    let wait = "for i in (seq 600); grep -q 'a mount of [^ ]*/SOURCE ' $LOG; and break; sleep 0.1; end";
    let wait_posix = "for i in $(seq 600); do grep -q 'a mount of [^ ]*/SOURCE ' $LOG && break; sleep 0.1; done";
    let root = bench.home.sandbox().project().display().to_string();
    // As outcomes show it.
    let shown_root = format!("[SANDBOX]/{}", bench.mark);
    for (words, dock, wait, log) in [
        (
            &["bash", "--norc", "--noprofile", "-i"][..],
            "source dock far",
            wait_posix,
            "LOG=${_DOCK_NOTICE%.notice-*}.log",
        ),
        (
            &["zsh", "-f", "-i"],
            "source dock far",
            wait_posix,
            "LOG=${_DOCK_NOTICE%.notice-*}.log",
        ),
        (
            &["fish", "--no-config", "-i"],
            "dock-env far --shell fish | source",
            wait,
            "set LOG (string replace -r '.notice-.*' .log $_DOCK_NOTICE)",
        ),
    ] {
        let (name, wait_for) = (words[0], |source: &str| wait.replace("SOURCE", source));
        // A file, a directory, one that both machines have, one that is empty here, too, and no path.
        let run = format!(
            "docker run --rm -v {root}/data:/x -v /etc/passwd:/p -v {root}/empty:/e -v vol-{}:/v dockerutils-lab-base:1 ls -d /x",
            bench.mark
        );
        let mount = format!(
            "docker create --name {0}-{name} --mount type=bind,source={root}/conf,target=/c dockerutils-lab-base:1",
            bench.mark
        );
        let script = format!(
            "{dock}\n{log}\n{run}\n{}\ntrue\n{mount}\n{}\ntrue\ncastoff\nexit 0\n",
            wait_for("data"),
            wait_for("conf")
        );
        let (program, options) = words.split_first().unwrap();
        let outcome = bench.program(program).args(options).stdin(&script).spawn().wait();
        let told = |source: &str| {
            format!(
                "dock: a mount of {shown_root}/{source} leads to that path on far, where it is empty, not to this \
                 machine's (run-image sends"
            )
        };
        // fish, which is no terminal's here, has no prompt; the shell of a person has.
        let shown = |source: &str| outcome.stderr.matches(&told(source)).count();
        if name == "fish" {
            assert!(shown("data") <= 1, "{outcome}");
        } else {
            assert_eq!((shown("data"), shown("conf")), (1, 1), "{name} {outcome}");
        }
        assert!(!outcome.stderr.contains("a mount of /etc/passwd"), "{outcome}");
        assert!(
            !outcome.stderr.contains(&format!("a mount of {shown_root}/empty")),
            "{outcome}"
        );
        // Each shell hears of it anew; the log, after some minutes.
        bench
            .program("unregister-dock")
            .arg("far")
            .any_stdout()
            .any_stderr()
            .run();
        let ssh = bench.engine.ssh().unwrap();
        let (host, port) = (ssh.address.ip().to_string(), ssh.address.port().to_string());
        bench
            .program("register-dock")
            .args([&host, "far", "-u", "ann", "--port", &port])
            .any_stdout()
            .any_stderr()
            .run();
        let _ = bench.engine.exec("rm").unwrap().args(["-rf", &root]).status();
    }
}

#[test]
fn a_mount_of_a_project_names_its_copy_and_run_image_is_not_told() {
    let bench = Docked::new("copy");
    bench.home.sandbox().write(
        "docker/dockerutils.cfg",
        "[box]\nname = dockerutils-lab-base\ntag = 1\nprefix = False\ninteractive = False\nvolumes = -v {project_root}:/app\n",
    );
    bench.home.sandbox().write("sub/a", "a");
    let script = "source dock far 2>/dev/null\nsync-up\nrun-image box -c 'ls /app'\ndocker run --rm -v \"$PWD/sub\":/x dockerutils-lab-base:1 ls /x\n\
                  LOG=${_DOCK_NOTICE%.notice-*}.log\n\
                  for i in $(seq 600); do grep -q 'a mount of' $LOG && break; sleep 0.1; done\nfile=$_DOCK_NOTICE\ncat $file\ncat $LOG\ncastoff\n\
                  test -e $file || echo gone\n";
    let outcome = bench.program("bash").args(["--norc", "-c", script]).spawn().wait();
    assert_eq!(outcome.code, 0, "{outcome}");
    let (root, copy) = (
        format!("[SANDBOX]/{}", bench.mark),
        format!("/home/ann/workspaces/{0}/code/{0}", bench.mark),
    );
    let line = format!(
        "a mount of {root}/sub leads to that path on far, where it is empty, not to this machine's; the project's copy \
         there is {copy}/sub (sync-up"
    );
    assert!(outcome.stdout.contains(&format!("\ndock: {line}")), "{outcome}");
    assert_eq!(outcome.stdout.matches("a mount of ").count(), 2, "{outcome}");
    assert!(outcome.stdout.ends_with("gone\n"), "{outcome}");
}
