#compdef dock
# Completion of `source dock NAME`: zsh completes what is sourced as if it were a command.

local -a docks
docks=(${(f)"$(command dock-env --complete 2>/dev/null)"})
if (( CURRENT == 2 )); then
    compadd -a docks
else
    compadd -- --no-forward --forward --expose --accept-new
fi
