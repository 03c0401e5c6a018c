//! What is run on the dock: scripts for a POSIX shell, with the tools that busybox has.
//!
//! Data never becomes part of a script: it comes as arguments and on stdin. What a script says is in sections, each of which
//! begins with the word of the call, which only this call knows: neither a login shell's greeting nor a log can forge one.
//!
//! A server has a folder of its own below `~/.local/state/dockerutils/notebooks`, named by its key, mode 0700:
//!
//! | file | holds |
//! |---|---|
//! | `pid`, `host` | the number of the process that was started, and the host on which |
//! | `run` | [`RUN`], which becomes the server, on whichever host |
//! | `token` | the token, as `JUPYTER_TOKEN_FILE` names it: on no argv, and not in the environment of kernels |
//! | `arguments` | further arguments, one on each line |
//! | `directory`, `path`, `prefix`, `program` | where it is started, with which PATH, from which environment, what |
//! | `socket` | the socket's path, in a private folder of /tmp: a home may be too deep for one, or be on a network |
//! | `runtime/` | its runtime folder: the only `*server-*.json` in there is this server's, whichever host it runs on |
//! | `owner`, `call` | whose it is, and which call has started it |
//! | `log`, `node` | what it printed, on which host it runs |
//!
//! The folder outlives a server that was killed; the next call removes it.

/// What each script begins with. `$1` is the word of the call, `$2` the name of who calls.
macro_rules! with_functions {
    ($($rest:expr),+) => {
        concat!(
            r#"umask 077
mark=$1 owner=$2
shift 2
printf '\n%s begin\n' "$mark"
say() { printf '\n%s %s\n' "$mark" "$*"; }
base=${XDG_STATE_HOME:-${HOME:?is not set}/.local/state}/dockerutils/notebooks
line() { IFS= read -r line 2>/dev/null < "$1" || line=; }

# Whether the process that was started for the folder $1 still runs.
lives() {
    line "$1/host"
    host=$line
    line "$1/pid"
    pid=$line
    case $pid in '' | *[!0-9]*) return 1 ;; esac
    # A home that several hosts share: nothing is known of it here, and nothing removed.
    [ "$host" = "$(uname -n)" ] || return 0
    kill -0 "$pid" 2>/dev/null || return 1
    # Its number may be another process's by now. A launcher may have an environment of its own, and has the script's path.
    if [ -r "/proc/$pid/environ" ]; then
        cat "/proc/$pid/environ" "/proc/$pid/cmdline" 2>/dev/null | tr '\0' '\n' | grep -qxF -e "JUPYTER_RUNTIME_DIR=$1/runtime" -e "$1/run"
    fi
}

# Removes what the server of the folder $1 left.
remove() {
    line "$1/socket"
    case $line in
    /tmp/dockerutils-notebook.*/*/*) ;;
    /tmp/dockerutils-notebook.*/s) rm -f -- "$line"; rmdir -- "${line%/s}" 2>/dev/null ;;
    esac
    rm -rf -- "$1"
}
pause() { sleep 0.1 2>/dev/null || sleep 1; }

# One script at a time, where there is a flock; until its end, or `together`. None takes as long as others wait.
alone() {
    mkdir -p -- "$base" || exit 73
    exec 9> "$base/lock" || exit 73
    if command -v flock >/dev/null 2>&1; then
        until_then=$(($(date +%s) + 60))
        until flock -n 9 || [ "$(date +%s)" -ge "$until_then" ]; do pause; done
    fi
}
together() { exec 9>&-; }

# Says all that is known of the server of the folder $1.
tell() {
    say server "${1##*/}"
    for fact in directory prefix program host node call; do
        line "$1/$fact"
        say "$fact" "$line"
    done
    say here "$(uname -n)"
    if lives "$1"; then say lives yes; else say lives no; fi
    for file in "$1"/runtime/*server-*.json; do
        [ -f "$file" ] || continue
        say runtime
        head -c 20000 < "$file"
        break
    done
    if [ -f "$1/log" ]; then
        say log
        tail -n 20 < "$1/log" | tail -c 2000
    fi
}
"#,
            $($rest),+
        )
    };
}

/// Starts a server, or finds the one that runs.
///
/// Arguments after the first two: the key; the directory, empty for the home; the environment, empty for any; [`RUN`]; a word by which
/// a server of this call is told from others; the words that start it by a batch system. stdin: the token, then further arguments of
/// the server, each on a line.
pub(super) const START: &str = with_functions!(
    r#"
key=$1 directory=$2 wanted=$3 run=$4 call=$5
shift 5
state=$base/$key
alone
if [ -d "$state" ]; then
    if lives "$state"; then
        say found
        tell "$state"
        say end
        exit 0
    fi
    remove "$state"
fi
if [ -z "$directory" ] || ! cd -- "$directory" 2>/dev/null; then
    [ -z "$directory" ] || say absent "$directory"
    cd || exit 73
fi
directory=$(pwd)

# The PATH of a login shell, which may print other things, too.
login=$("${SHELL:-/bin/sh}" -l -c "printf '\n%s %s\n' $mark \"\$PATH\"" < /dev/null 2>/dev/null 9>&- | sed -n "s/^$mark //p" | tail -n 1)
PATH=${login:-$PATH}
export PATH

# Where environments are: of the project, those that conda lists, and where conda, mamba, venv and their like put them.
of_project() {
    for e in "$directory/.venv" "$directory/venv" "$directory/env" "$directory/.pixi/envs/default"; do printf '%s\n' "$e"; done
}
roots() {
    for e in "$HOME/miniforge3" "$HOME/mambaforge" "$HOME/miniconda3" "$HOME/anaconda3" "$HOME/micromamba" \
        "$HOME/.local/share/mamba" /opt/conda /opt/miniforge3 /opt/mambaforge /opt/miniconda3 /opt/anaconda3; do
        [ ! -d "$e/conda-meta" ] || printf '%s\n' "$e"
    done
}
of_account() {
    roots
    if [ -r "$HOME/.conda/environments.txt" ]; then cat "$HOME/.conda/environments.txt"; fi
    for e in "$HOME"/miniforge3/envs/* "$HOME"/mambaforge/envs/* "$HOME"/miniconda3/envs/* "$HOME"/anaconda3/envs/* \
        "$HOME"/micromamba/envs/* "$HOME"/.local/share/mamba/envs/* "$HOME"/.conda/envs/* /opt/conda/envs/* /opt/*/envs/* \
        "${WORKON_HOME:-$HOME/.virtualenvs}"/* "$HOME"/venvs/* "$HOME"/.venvs/* "$HOME"/envs/* "${PYENV_ROOT:-$HOME/.pyenv}"/versions/* \
        "$HOME"/.local/share/uv/tools/* "$HOME"/.local/share/pipx/venvs/* "$HOME"/.local/pipx/venvs/* "$HOME"/.local "$HOME"/* "$HOME"/.[!.]*; do
        if [ -d "$e/conda-meta" ] || [ -f "$e/pyvenv.cfg" ] || [ -x "$e/bin/jupyter-lab" ]; then printf '%s\n' "$e"; fi
    done
}
distinct() { awk 'NF && !seen[$0]++'; }

prefix= program=
case $wanted in
'')
    # The project's own, then what a login shell finds, then the only one that there is.
    prefix=$(of_project | while IFS= read -r e; do
        if [ -x "$e/bin/jupyter-lab" ]; then printf '%s\n' "$e"; break; fi
    done)
    [ -n "$prefix" ] || program=$(command -v jupyter-lab)
    case $program in /*) ;; *) program= ;; esac
    if [ -z "$prefix$program" ]; then
        others=$(of_account | distinct | while IFS= read -r e; do
            if [ -x "$e/bin/jupyter-lab" ]; then printf '%s\n' "$e"; fi
        done)
        case $others in
        '')
            say missing
            of_account | distinct | head -n 20
            say end
            exit 0
            ;;
        *'
'*)
            say several
            printf '%s\n' "$others" | head -n 20
            say end
            exit 0
            ;;
        *) prefix=$others ;;
        esac
    fi
    ;;
*)
    case $wanted in
    '~/'*) prefix=$HOME/${wanted#??} ;;
    /*) prefix=$wanted ;;
    */*) prefix=$directory/$wanted ;;
    *)
        prefix=$({
            [ "$wanted" != base ] || roots
            {
                printf '%s\n' "$directory/$wanted"
                of_account
            } | while IFS= read -r e; do
                if [ "${e##*/}" = "$wanted" ]; then printf '%s\n' "$e"; fi
            done
        } | while IFS= read -r e; do
            if [ -d "$e/conda-meta" ] || [ -f "$e/pyvenv.cfg" ] || [ -x "$e/bin/jupyter-lab" ]; then
                printf '%s\n' "$e"
                break
            fi
        done)
        ;;
    esac
    if [ -z "$prefix" ] || [ ! -d "$prefix" ]; then
        say unknown
        of_account | distinct | head -n 20
        say end
        exit 0
    fi
    if [ ! -x "$prefix/bin/jupyter-lab" ]; then
        say lacking "$prefix"
        say end
        exit 0
    fi
    ;;
esac
if [ -n "$prefix" ]; then
    PATH=$prefix/bin:$PATH program=$prefix/bin/jupyter-lab
fi

mkdir -- "$state" "$state/runtime" || exit 73
IFS= read -r token
printf '%s' "$token" > "$state/token" && cat > "$state/arguments" || exit 73
socket=$(mktemp -d /tmp/dockerutils-notebook.XXXXXX) && socket=$socket/s || socket=
printf '%s\n' "$socket" > "$state/socket"
printf '%s\n' "$directory" > "$state/directory"
printf '%s\n' "$PATH" > "$state/path"
printf '%s\n' "$prefix" > "$state/prefix"
printf '%s\n' "$program" > "$state/program"
printf '%s\n' "$owner" > "$state/owner"
printf '%s\n' "$call" > "$state/call"
uname -n > "$state/host"
printf '%s\n' "$run" > "$state/run"
# Of an activation, conda's scripts are written for bash.
shell=$(command -v bash) || shell=sh
# Its own session: what ends this one does not end it.
detached=$(command -v setsid) || detached=
JUPYTER_RUNTIME_DIR=$state/runtime
export JUPYTER_RUNTIME_DIR
(
    trap '' HUP
    exec ${detached:+"$detached"} "$@" "$shell" "$state/run"
) > "$state/log" 2>&1 < /dev/null 9>&- &
printf '%s\n' "$!" > "$state/pid" || { kill "$!"; remove "$state"; exit 73; }
# Until it is told from others: its process begins as a copy of this one.
tries=0
until lives "$state" || ! kill -0 "$!" 2>/dev/null || [ "$tries" -ge 50 ]; do
    tries=$((tries + 1))
    pause
done
say started
tell "$state"
say end
"#
);

/// Becomes the server, on the dock itself or on the host that a batch system has chosen. It lies in the server's folder, and takes
/// all that it needs from there: of the environment, a batch system carries what it wants.
pub(super) const RUN: &str = r#"umask 077
state=${0%/run}
line() { IFS= read -r line 2>/dev/null < "$state/$1" || line=; }
set --
given=' '
while IFS= read -r word; do
    set -- "$@" "$word"
    given="$given${word%%=*} "
done < "$state/arguments"
is_given() {
    for option; do
        case $given in *" $option "*) return 0 ;; esac
    done
    return 1
}
line prefix; prefix=$line
line path; PATH=$line
if [ -d "$prefix/conda-meta" ]; then
    CONDA_PREFIX=$prefix CONDA_DEFAULT_ENV=${prefix##*/}
    export CONDA_PREFIX CONDA_DEFAULT_ENV
    if [ -n "$BASH_VERSION" ]; then
        for script in "$prefix"/etc/conda/activate.d/*.sh; do
            if [ -r "$script" ]; then . "$script"; fi
        done
    fi
elif [ -n "$prefix" ]; then
    VIRTUAL_ENV=$prefix
    export VIRTUAL_ENV
fi
JUPYTER_RUNTIME_DIR=$state/runtime JUPYTER_TOKEN_FILE=$state/token
export PATH JUPYTER_RUNTIME_DIR JUPYTER_TOKEN_FILE
unset JUPYTER_TOKEN JUPYTERHUB_API_TOKEN
node=$(uname -n)
printf '%s\n' "$node" > "$state/node"
line host; host=$line
line socket
# No option may come twice: those that were asked for have the say.
if is_given --port --ServerApp.port --ip --ServerApp.ip --sock --ServerApp.sock; then
    :
elif [ "$host" != "$node" ]; then
    # From the dock to that host there is the network.
    set -- "--ServerApp.ip=$node" "$@"
elif [ -n "$line" ]; then
    # A server that is too old for a socket takes no notice of it, and listens at the address.
    set -- --ServerApp.ip=127.0.0.1 --ServerApp.port=8888 "--ServerApp.sock=$line" --ServerApp.sock_mode=0600 "$@"
else
    set -- --ServerApp.ip=127.0.0.1 "$@"
fi
if [ "$(id -u)" = 0 ] && ! is_given --allow-root; then set -- --allow-root "$@"; fi
line directory
cd -- "$line" || exit 73
is_given --notebook-dir --ServerApp.root_dir --ServerApp.notebook_dir || set -- "--ServerApp.root_dir=$line" "$@"
line program
exec "$line" --no-browser "$@"
"#;

/// Says how a server is. Arguments after the first two: its key, and for how many seconds to wait for its runtime file.
pub(super) const LOOK: &str = with_functions!(
    r#"
state=$base/$1
end=$(($(date +%s) + $2))
while [ -d "$state" ] && lives "$state"; do
    for file in "$state"/runtime/*server-*.json; do
        if [ -s "$file" ]; then break 2; fi
    done
    if [ "$(date +%s)" -ge "$end" ]; then break; fi
    pause
done
if [ -d "$state" ]; then tell "$state"; fi
say end
"#
);

/// Says how all servers of one owner are, and removes what was left by those that have ended.
pub(super) const LIST: &str = with_functions!(
    r#"
if [ -d "$base" ]; then
    alone
    for state in "$base"/*; do
        line "$state/owner"
        if [ ! -d "$state" ] || [ "$line" != "$owner" ]; then continue; fi
        if lives "$state"; then tell "$state"; else remove "$state"; fi
    done
fi
say end
"#
);

/// Ends a server, and removes what it leaves. Arguments after the first two: its key, for how many seconds to wait for its own end
/// before it is told to end, for how many more before it is killed, and which call has started it: another one of that key goes on.
pub(super) const STOP: &str = with_functions!(
    r#"
state=$base/$1 ended=
waits() {
    end=$(($(date +%s) + $1))
    while lives "$state"; do
        if [ "$(date +%s)" -ge "$end" ]; then return 1; fi
        pause
    done
}
# One that is just being started is ended, too.
alone
together
line "$state/call"
if [ "$line" != "$4" ]; then
    say end
    exit 0
fi
if [ -d "$state" ] && lives "$state"; then
    if [ "$host" != "$(uname -n)" ]; then
        say elsewhere "$host"
        say end
        exit 0
    fi
    ended=$pid
    if ! waits "$2"; then
        kill -TERM "$pid" 2>/dev/null
        # A launcher has what it launched in its own session.
        if ! waits "$3"; then
            kill -KILL -- "-$pid" 2>/dev/null || kill -KILL "$pid" 2>/dev/null
            waits 5
        fi
    fi
fi
alone
if [ -d "$state" ]; then
    if ! lives "$state"; then
        remove "$state"
    elif [ "$pid" = "$ended" ]; then
        say stuck "$pid"
    fi
fi
say end
"#
);
