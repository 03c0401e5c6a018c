#compdef dock
# Completion of `source dock NAME`: zsh completes what is sourced as if it were a command.

local -a docks
docks=(${(f)"$(command dock-env --complete 2>/dev/null)"})
(( CURRENT == 2 )) && compadd -a docks
