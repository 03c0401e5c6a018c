#!/bin/bash
# Plays start.sh of docker-stacks: as root, it makes the user what NB_USER, NB_UID, NB_GID, CHOWN_HOME, CHOWN_EXTRA and
# GRANT_SUDO say, and becomes that user; as another, it says what it can't do. Then it starts what it is given.
set -e
log() {
    case $1 in
        WARNING:*) echo "$*" ;;
        *) [ -n "$JUPYTER_DOCKER_STACKS_QUIET" ] || echo "$*" ;;
    esac
}
is_yes() { [ "$1" = 1 ] || [ "$1" = yes ]; }
hooks() {
    local file
    for file in "$1"/*; do
        case $file in
            *.sh)
                # shellcheck disable=SC1090 # It is known only there.
                source "$file"
                ;;
            *) if [ -f "$file" ] && [ -x "$file" ]; then "$file"; fi ;;
        esac
    done
}

[ "$#" -gt 0 ] || set -- bash
hooks /usr/local/bin/start-notebook.d

if [ "$(id -u)" -ne 0 ]; then
    if is_yes "$GRANT_SUDO"; then log "WARNING: container must be started as root to grant sudo permissions!"; fi
    if ! whoami >/dev/null 2>&1; then
        if [ -w /etc/passwd ]; then
            { sed 's/^jovyan:/nayvoj:/' /etc/passwd; echo "$NB_USER:x:$(id -u):$(id -g):,,,:/home/jovyan:/bin/bash"; } >/tmp/passwd
            cat /tmp/passwd >/etc/passwd
            rm /tmp/passwd
        else
            log "WARNING: unable to fix missing /etc/passwd entry because we don't have write permission."
        fi
    fi
    if [ "$NB_UID" != 1000 ] && [ "$NB_UID" != "$(id -u)" ]; then
        log "WARNING: container must be started as root to change the desired user's id with NB_UID=\"$NB_UID\"!"
    fi
    if [ ! -w /home/jovyan ]; then log "WARNING: no write access to /home/jovyan. Try --group-add=users."; fi
    hooks /usr/local/bin/before-notebook.d
    log "Executing the command: $*"
    exec "$@"
fi

if id jovyan >/dev/null 2>&1 && [ "$NB_USER" != jovyan ]; then
    if [ "$NB_USER" != root ]; then usermod --home "/home/$NB_USER" --login "$NB_USER" jovyan; fi
fi
if [ "$NB_UID" != "$(id -u "$NB_USER")" ] || [ "$NB_GID" != "$(id -g "$NB_USER")" ]; then
    log "Update $NB_USER's UID:GID to $NB_UID:$NB_GID"
    if [ "$NB_GID" != "$(id -g "$NB_USER")" ]; then
        groupadd --force --gid "$NB_GID" --non-unique "${NB_GROUP:-$NB_USER}"
    fi
    userdel "$NB_USER"
    useradd --no-log-init --home "/home/$NB_USER" --shell /bin/bash --uid "$NB_UID" --gid "$NB_GID" --groups 100 "$NB_USER"
fi
if [ "$NB_USER" != jovyan ]; then
    if [ ! -e "/home/$NB_USER" ]; then cp -a /home/jovyan "/home/$NB_USER"; fi
    case $PWD/ in
        /home/jovyan/*) cd "/home/$NB_USER/${PWD:13}" ;;
    esac
fi
# Not below it, unless CHOWN_HOME_OPTS says so.
# shellcheck disable=SC2086 # The options are several words.
if is_yes "$CHOWN_HOME"; then chown $CHOWN_HOME_OPTS "$NB_UID:$NB_GID" "/home/$NB_USER"; fi
# shellcheck disable=SC2086 # The options are several words.
for directory in ${CHOWN_EXTRA//,/ }; do chown $CHOWN_EXTRA_OPTS "$NB_UID:$NB_GID" "$directory"; done
if is_yes "$GRANT_SUDO"; then echo "$NB_USER ALL=(ALL) NOPASSWD:ALL" >/etc/sudoers.d/added-by-start-script; fi
export XDG_CACHE_HOME=/home/$NB_USER/.cache
hooks /usr/local/bin/before-notebook.d
log "Running as $NB_USER: $*"
exec sudo --preserve-env --set-home --user "$NB_USER" \
    env LD_LIBRARY_PATH="$LD_LIBRARY_PATH" PATH="$PATH" PYTHONPATH="$PYTHONPATH" "$@"
