#!/bin/sh
# shellcheck shell=bash
# dock: work with another machine's Docker engine in this shell.
#
#     source dock NAME
#     castoff
#
# For bash and zsh. In fish: dock-env NAME --shell fish | source
#
# Nothing that comes from a dock or from the list of docks is evaluated here: dock-env prints lines NAME=VALUE, of which
# this file takes the names that it knows. The values that it changes are kept in _DOCK_OLD_*, and castoff restores
# them. A backslash before a word avoids aliases, and `builtin` avoids functions.

if [ -z "${BASH_VERSION-}${ZSH_VERSION-}" ]; then
    # Run as a program, it is read by /bin/sh, which usually is neither; then $0 is this file.
    if [ "${0##*/}" = dock ]; then
        echo 'dock: it changes the shell that you type in, which must read it itself: source dock NAME' >&2
        exit 2
    fi
    echo 'dock: only bash and zsh can read it: source dock NAME; in fish: dock-env NAME --shell fish | source' >&2
    # shellcheck disable=SC2317 # not every shell can return from here
    return 2 2>/dev/null || exit 2
elif [ -n "${BASH_VERSION-}" ] && ! (return 0 2>/dev/null); then
    echo 'dock: it changes the shell that you type in, which must read it itself: source dock NAME' >&2
    exit 2
elif [ -n "${ZSH_VERSION-}" ] && [ "${ZSH_EVAL_CONTEXT#*file}" = "${ZSH_EVAL_CONTEXT-}" ]; then
    echo 'dock: it changes the shell that you type in, which must read it itself: source dock NAME' >&2
    exit 2
fi

# shellcheck disable=SC2317 # castoff is for the user to call
#begin
# Keeps a variable's value and state: unset, set (v), or exported (x).
_dock_keep() {
    \builtin local _dock_is
    _dock_is=$(\builtin typeset -p "$1" 2>/dev/null) || _dock_is=
    # The attributes come before the name, as in `declare -rx NAME=` or `export NAME=`.
    _dock_is=${_dock_is%%"$1"*}
    case $_dock_is in
    *-*r* | readonly*)
        \builtin printf 'dock: %s is read-only in this shell, and nothing was changed\n' "$1" >&2
        return 1
        ;;
    esac
    if [ -z "$2" ]; then
        \builtin unset "_DOCK_OLD_$1"
        return
    fi
    case $_dock_is in
    *x*) \builtin printf -v "_DOCK_OLD_$1" 'x%s' "$3" ;;
    *) \builtin printf -v "_DOCK_OLD_$1" 'v%s' "$3" ;;
    esac
}

# Restores a variable to what was kept of it, and forgets that.
_dock_restore() {
    \builtin unset "$1" "_DOCK_OLD_$1"
    case $2 in
    x*) \builtin export "$1=${2#x}" ;;
    v*) \builtin printf -v "$1" '%s' "${2#v}" ;;
    esac
}

# What a docked shell does before each prompt: puts back a mark that was lost, and shows, once, the notices that the
# dock's agent left in a file. Nearly always there is nothing to do, and that takes no process.
_dock_watch() {
    \builtin local _dock_is _dock_newline='
'
    if [ -n "${ZSH_VERSION-}" ]; then
        \builtin set -- precmd_functions "${precmd_functions+set}"
    else
        \builtin set -- PROMPT_COMMAND "${PROMPT_COMMAND+set}"
    fi
    _dock_is=$(\builtin typeset -p "$1" 2>/dev/null) || _dock_is=
    case ${_dock_is%%"$1"*} in
    # The agent's log has it, too.
    *-*r* | readonly*)
        \builtin unset _DOCK_NOTICE
        return
        ;;
    esac
    if [ -z "$2" ]; then
        _DOCK_OLD_HOOKS='unset'
    fi
    # castoff finds this text again. In child shells, which lack the function, it does nothing.
    # shellcheck disable=SC2016 # it is expanded before the prompt
    _DOCK_HOOK='[ -z "${_DOCK_PROMPT-}${_DOCK_NOTICE-}" ] || _dock_before_prompt'
    _dock_define_append
    _dock_append
}

# Puts our hook behind all others that run before a prompt: they may need the last command's exit code, or rebuild the
# prompt.
_dock_define_append() {
    function _dock_append {
        \builtin local _dock_is _dock_newline='
'
        if [ -n "${ZSH_VERSION-}" ]; then
            precmd_functions+=(_dock_before_prompt)
            return
        fi
        _dock_is=$(\builtin typeset -p PROMPT_COMMAND 2>/dev/null) || _dock_is=
        case ${_dock_is%%PROMPT_COMMAND*}:$BASH_VERSION in
        # Of an array, older versions run the first element only.
        *-*a*:[1-4].* | *-*a*:5.0.*) ;;
        *-*a*:*)
            PROMPT_COMMAND+=("$_DOCK_HOOK")
            return
            ;;
        esac
        # shellcheck disable=SC2128,SC2178 # of an array, the first is meant
        PROMPT_COMMAND=${PROMPT_COMMAND:+$PROMPT_COMMAND$_dock_newline}$_DOCK_HOOK
    }
}

_dock_define_castoff() {
    function _dock_before_prompt {
        if [ -n "${ZSH_VERSION-}" ]; then
            \builtin emulate -L zsh
        fi
        \builtin local _dock_line IFS=
        # A theme that rebuilds the prompt each time does not know of the mark.
        if [ -n "${_DOCK_PROMPT-}" ]; then
            case ${PS1-} in
            *"$_DOCK_PROMPT"*) ;;
            *) PS1=${PS1-}$_DOCK_PROMPT ;;
            esac
        fi
        # A hook that was added behind ours since, and rebuilds the prompt, would remove the mark. bash-preexec itself
        # has to be the last.
        if [ -n "${ZSH_VERSION-}" ]; then
            _dock_line=${precmd_functions[-1]}
        else
            _dock_line=${PROMPT_COMMAND[*]: -1}
        fi
        case $_dock_line in
        _dock_before_prompt | *"$_DOCK_HOOK" | *__bp_interactive_mode | '') ;;
        *)
            _dock_unwatch
            _dock_append
            ;;
        esac
        if [ -s "${_DOCK_NOTICE-}" ]; then
            while \builtin read -r _dock_line; do
                \builtin printf '%s\n' "$_dock_line" >&2
            done <"$_DOCK_NOTICE"
            \builtin true >|"$_DOCK_NOTICE"
        fi
    }

    # Removes our hook from those that run before a prompt, wherever it is by now.
    function _dock_unwatch {
        \builtin local _dock_is _dock_before _dock_after _dock_newline='
'
        if [ -n "${ZSH_VERSION-}" ]; then
            \builtin emulate -L zsh
            \builtin local -a _dock_left
            for _dock_is in "${precmd_functions[@]}"; do
                if [ -n "$_dock_is" ] && [ "$_dock_is" != _dock_before_prompt ]; then
                    _dock_left+=("$_dock_is")
                fi
            done
            precmd_functions=("${_dock_left[@]}")
            if [ -n "${_DOCK_OLD_HOOKS-}" ] && [ "${#precmd_functions[@]}" -eq 0 ]; then
                \builtin unset precmd_functions
            fi
            return
        fi
        _dock_is=$(\builtin typeset -p PROMPT_COMMAND 2>/dev/null) || _dock_is=
        case ${_dock_is%%PROMPT_COMMAND*} in
        *-*a*)
            _dock_before=${#PROMPT_COMMAND[@]} _dock_after=0
            while [ "$_dock_before" -gt 0 ]; do
                if [ -n "${PROMPT_COMMAND[_dock_after]+set}" ]; then
                    _dock_before=$((_dock_before - 1))
                    if [ "${PROMPT_COMMAND[_dock_after]}" = "$_DOCK_HOOK" ]; then
                        \builtin unset "PROMPT_COMMAND[$_dock_after]"
                    fi
                fi
                _dock_after=$((_dock_after + 1))
            done
            ;;
        esac
        case ${PROMPT_COMMAND-} in
        *"$_DOCK_HOOK"*)
            _dock_before=${PROMPT_COMMAND%"$_DOCK_HOOK"*}
            _dock_before=${_dock_before%"$_dock_newline"}
            _dock_after=${PROMPT_COMMAND##*"$_DOCK_HOOK"}
            if [ -z "$_dock_before" ]; then
                case $_dock_after in
                "$_dock_newline"*) _dock_after=${_dock_after#"$_dock_newline"} ;;
                # Somebody went on in the same line.
                ?*) _dock_before=: ;;
                esac
            fi
            PROMPT_COMMAND=$_dock_before$_dock_after
            ;;
        esac
        if [ -n "${_DOCK_OLD_HOOKS-}" ] && [ -z "${PROMPT_COMMAND-}" ]; then
            case ${_dock_is%%PROMPT_COMMAND*} in
            *-*a*) \builtin unset 'PROMPT_COMMAND[0]' ;;
            *) \builtin unset PROMPT_COMMAND ;;
            esac
        fi
    }

    function castoff {
        if [ -n "${ZSH_VERSION-}" ]; then
            \builtin emulate -L zsh
        fi
        \command dock-env --release --pid "$$" 2>/dev/null || \builtin true
        _dock_restore DOCKER_HOST "${_DOCK_OLD_DOCKER_HOST-}"
        _dock_restore DOCKER_IP "${_DOCK_OLD_DOCKER_IP-}"
        _dock_restore DOCKER_CONTEXT "${_DOCK_OLD_DOCKER_CONTEXT-}"
        _dock_restore DOCKER_TLS "${_DOCK_OLD_DOCKER_TLS-}"
        _dock_restore DOCKER_TLS_VERIFY "${_DOCK_OLD_DOCKER_TLS_VERIFY-}"
        _dock_restore DOCKER_CERT_PATH "${_DOCK_OLD_DOCKER_CERT_PATH-}"
        _dock_restore BUILDX_BUILDER "${_DOCK_OLD_BUILDX_BUILDER-}"
        _dock_restore TESTCONTAINERS_HOST_OVERRIDE "${_DOCK_OLD_TESTCONTAINERS_HOST_OVERRIDE-}"
        _dock_restore TC_HOST "${_DOCK_OLD_TC_HOST-}"
        _dock_restore TESTCONTAINERS_CONNECTION_MODE "${_DOCK_OLD_TESTCONTAINERS_CONNECTION_MODE-}"
        _dock_restore TESTCONTAINERS_DOCKER_SOCKET_OVERRIDE "${_DOCK_OLD_TESTCONTAINERS_DOCKER_SOCKET_OVERRIDE-}"
        # Removes from the prompt only what we appended, wherever it is by now.
        if [ -n "${_DOCK_PROMPT-}" ]; then
            case ${_OLD_VIRTUAL_PS1-} in
            *"$_DOCK_PROMPT"*)
                _OLD_VIRTUAL_PS1=${_OLD_VIRTUAL_PS1%"$_DOCK_PROMPT"*}${_OLD_VIRTUAL_PS1##*"$_DOCK_PROMPT"}
                ;;
            esac
            case ${PS1-} in
            *"$_DOCK_PROMPT"*)
                PS1=${PS1%"$_DOCK_PROMPT"*}${PS1##*"$_DOCK_PROMPT"}
                ;;
            esac
            if [ -n "${_DOCK_OLD_PS1-}" ] && [ -z "${PS1-}" ]; then
                \builtin unset PS1
            fi
        fi
        if [ -n "${_DOCK_HOOK-}" ]; then
            _dock_unwatch
        fi
        \builtin unset _DOCK_MONIKER _DOCK_PROMPT _DOCK_OLD_PS1 _DOCK_NOTICE _DOCK_HOOK _DOCK_OLD_HOOKS
        \builtin unset -f castoff _dock_restore _dock_before_prompt _dock_unwatch
        \builtin unset -f _dock_append 2>/dev/null || \builtin true
    }
}

# Reads lines NAME=VALUE, and sets them in this shell.
_dock_apply() {
    if [ -n "${ZSH_VERSION-}" ]; then
        \builtin emulate -L zsh
    fi
    if ! { _dock_keep DOCKER_HOST "${DOCKER_HOST+set}" "${DOCKER_HOST-}" &&
        _dock_keep DOCKER_IP "${DOCKER_IP+set}" "${DOCKER_IP-}" &&
        _dock_keep DOCKER_CONTEXT "${DOCKER_CONTEXT+set}" "${DOCKER_CONTEXT-}" &&
        _dock_keep DOCKER_TLS "${DOCKER_TLS+set}" "${DOCKER_TLS-}" &&
        _dock_keep DOCKER_TLS_VERIFY "${DOCKER_TLS_VERIFY+set}" "${DOCKER_TLS_VERIFY-}" &&
        _dock_keep DOCKER_CERT_PATH "${DOCKER_CERT_PATH+set}" "${DOCKER_CERT_PATH-}" &&
        _dock_keep BUILDX_BUILDER "${BUILDX_BUILDER+set}" "${BUILDX_BUILDER-}" &&
        _dock_keep TESTCONTAINERS_HOST_OVERRIDE "${TESTCONTAINERS_HOST_OVERRIDE+set}" \
            "${TESTCONTAINERS_HOST_OVERRIDE-}" &&
        _dock_keep TC_HOST "${TC_HOST+set}" "${TC_HOST-}" &&
        _dock_keep TESTCONTAINERS_CONNECTION_MODE "${TESTCONTAINERS_CONNECTION_MODE+set}" \
            "${TESTCONTAINERS_CONNECTION_MODE-}" &&
        _dock_keep TESTCONTAINERS_DOCKER_SOCKET_OVERRIDE "${TESTCONTAINERS_DOCKER_SOCKET_OVERRIDE+set}" \
            "${TESTCONTAINERS_DOCKER_SOCKET_OVERRIDE-}"; }; then
        \builtin unset _DOCK_OLD_DOCKER_HOST _DOCK_OLD_DOCKER_IP _DOCK_OLD_DOCKER_CONTEXT _DOCK_OLD_DOCKER_TLS \
            _DOCK_OLD_DOCKER_TLS_VERIFY _DOCK_OLD_DOCKER_CERT_PATH _DOCK_OLD_BUILDX_BUILDER \
            _DOCK_OLD_TESTCONTAINERS_HOST_OVERRIDE _DOCK_OLD_TC_HOST _DOCK_OLD_TESTCONTAINERS_CONNECTION_MODE \
            _DOCK_OLD_TESTCONTAINERS_DOCKER_SOCKET_OVERRIDE
        \command dock-env --release --pid "$$" 2>/dev/null || \builtin true
        return 1
    fi
    \builtin unset DOCKER_HOST DOCKER_IP DOCKER_CONTEXT DOCKER_TLS DOCKER_TLS_VERIFY DOCKER_CERT_PATH BUILDX_BUILDER \
        TESTCONTAINERS_HOST_OVERRIDE TC_HOST TESTCONTAINERS_CONNECTION_MODE TESTCONTAINERS_DOCKER_SOCKET_OVERRIDE
    while [ $# -gt 0 ]; do
        case $1 in
        DOCKER_HOST=* | DOCKER_IP=* | DOCKER_TLS=* | DOCKER_TLS_VERIFY=* | DOCKER_CERT_PATH=* | _DOCK_MONIKER=* | \
            TESTCONTAINERS_HOST_OVERRIDE=* | TC_HOST=* | TESTCONTAINERS_CONNECTION_MODE=* | \
            TESTCONTAINERS_DOCKER_SOCKET_OVERRIDE=*)
            \builtin export "${1?}"
            ;;
        prompt=*)
            _DOCK_PROMPT=${1#prompt=}
            # A virtual environment keeps the prompt that it found, and restores it when it is deactivated.
            if [ -n "${_OLD_VIRTUAL_PS1+set}" ]; then
                _OLD_VIRTUAL_PS1=$_OLD_VIRTUAL_PS1$_DOCK_PROMPT
            fi
            if [ -z "${PS1+set}" ]; then
                _DOCK_OLD_PS1='unset'
            fi
            # A child shell may have inherited its parent's prompt.
            case ${PS1-} in
            *"$_DOCK_PROMPT"*) [ -n "${_DOCK_ADOPTED-}" ] || PS1=$PS1$_DOCK_PROMPT ;;
            *) PS1=${PS1-}$_DOCK_PROMPT ;;
            esac
            ;;
        notice=*)
            _DOCK_NOTICE=${1#notice=}
            ;;
        esac
        \builtin shift
    done
    if [ -n "${_DOCK_PROMPT-}${_DOCK_NOTICE-}" ]; then
        _dock_watch
    fi
    _dock_define_castoff
}

# Leaves only what castoff needs, where it may be called; `status` is that of docking.
_dock_leave() {
    if [ -n "${_DOCK_MONIKER-}" ]; then
        # A shell that was started in a docked one has its variables, but not its functions.
        \builtin typeset -f castoff >/dev/null || _dock_define_castoff
    else
        \builtin unset -f _dock_restore
    fi
    \builtin unset -f _dock_keep _dock_watch _dock_define_append _dock_define_castoff _dock_apply _dock_source _dock_leave 2>/dev/null || \builtin true
    return "$1"
}
#end

_dock_source() {
    \builtin local _dock_shell=bash _dock_adopt _dock_lines _DOCK_ADOPTED _dock_newline='
'
    _dock_adopt='' _DOCK_ADOPTED=''
    if [ -n "${ZSH_VERSION-}" ]; then
        \builtin emulate -L zsh
        _dock_shell=zsh
    fi
    # A shell that was started in a docked one has its variables, and not its functions: it gets them, and the mark.
    if [ -n "${_DOCK_MONIKER-}" ] && ! \builtin typeset -f castoff >/dev/null; then
        _dock_adopt=--adopt
    fi
    case ${1-}$_dock_adopt in
    '' | -h* | --help*)
        \builtin printf '%s\n' 'usage: source dock NAME [--no-forward] [--forward PORT|CONTAINER]... [--expose PORT]... [--accept-new]' '' \
            'All that speaks Docker in this shell then works on the dock NAME; castoff goes back.' \
            'Without NAME, a shell that was started in a docked one gets its mark and castoff, too.' \
            'DOCKERUTILS_DISABLE_PROMPT=1 leaves the prompt alone. ls-dock lists the docks.' >&2
        [ -n "${1-}" ] || return 2
        return 0
        ;;
    esac
    _dock_lines=$(\command dock-env "$@" ${_dock_adopt:+"$_dock_adopt"} --shell "$_dock_shell" --lines --pid "$$") || return
    \builtin set --
    if [ -n "$_dock_adopt" ]; then
        _DOCK_ADOPTED=yes
        # These values are the dock's: castoff must not go back to them.
        \builtin unset DOCKER_HOST DOCKER_IP DOCKER_TLS DOCKER_TLS_VERIFY DOCKER_CERT_PATH TESTCONTAINERS_HOST_OVERRIDE \
            TC_HOST TESTCONTAINERS_CONNECTION_MODE TESTCONTAINERS_DOCKER_SOCKET_OVERRIDE
    fi
    _dock_lines=$_dock_lines$_dock_newline
    while [ -n "$_dock_lines" ]; do
        \builtin set -- "$@" "${_dock_lines%%"$_dock_newline"*}"
        _dock_lines=${_dock_lines#*"$_dock_newline"}
    done
    _dock_apply "$@"
}

if _dock_source "$@"; then
    _dock_leave 0
else
    _dock_leave "$?"
fi
