# shellcheck shell=bash
# Completion of `source dock NAME`: monikers and options; files elsewhere. A moniker is data: no word of it is expanded.

_dockerutils_docks() {
    local dock quoted
    COMPREPLY=()
    while IFS= read -r dock; do
        printf -v quoted '%q' "$dock"
        if [[ $dock == "$1"* || $quoted == "$1"* ]]; then
            COMPREPLY+=("$quoted")
        fi
    done < <(command dock-env --complete 2>/dev/null)
}

_dockerutils_source() {
    COMPREPLY=()
    if ((COMP_CWORD == 2)) && [[ ${COMP_WORDS[1]} == dock ]]; then
        _dockerutils_docks "$2"
    elif ((COMP_CWORD > 2)) && [[ ${COMP_WORDS[1]} == dock && $2 == -* ]]; then
        local option
        for option in --no-forward --forward --expose --accept-new; do
            [[ $option != "$2"* ]] || COMPREPLY+=("$option")
        done
    elif ((COMP_CWORD == 1)) && [[ -n $2 && dock == "$2"* ]]; then
        # `source` looks for it on PATH, where files are not completed.
        COMPREPLY=(dock)
    fi
}

complete -F _dockerutils_source -o bashdefault -o default source .
