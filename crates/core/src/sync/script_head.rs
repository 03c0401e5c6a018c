//! What every script begins with that works in a workspace on the dock.

/// What each script begins with: the words of a call, the greeting, and the way into the workspace, which must still
/// bear its mark. `$1` is the word of the call, `$2` the workspace, `$3` its mark.
macro_rules! in_workspace {
    ($($rest:expr),+) => {
        concat!(
            r#"LC_ALL=C TZ=UTC0 EXTRACT_UNSAFE_SYMLINKS=1
export LC_ALL TZ EXTRACT_UNSAFE_SYMLINKS
umask 077
printf '%s\n' "dockerutils-sync $1"
own=.dockerutils-sync mark= nonce=$1
cd -P -- "$2" && [ ! -L "$own" ] && IFS= read -r mark < "$own/owner"
if [ "$mark" != "$3" ]; then echo "the workspace is not the one that it was" >&2; exit 79; fi
durable() {
    # Where its disk refuses, what is there may not be so tomorrow. Not every sync takes a file.
    if ! said=$(sync -f "$own" 2>&1); then
        case $said in *rror\ sync* | *nput/output* | *"No space"*) printf '%s\n' "$said" >&2; return 1 ;; esac
        sync
    fi
}
name_state() {
    printf '%s' "$1" > "$own/generation.$nonce" && mv -f "$own/generation.$nonce" "$own/generation" && return
    rm -f "$own/generation.$nonce"
    return 1
}
"#,
            $($rest),+
        )
    };
}

pub(super) use in_workspace;

/// Shell functions that compress stdin and decompress it, by the words of [`super::compression`].
macro_rules! compression_functions {
    () => {
        r#"
compress() {
    case $1 in
    zstd) zstd -q -c "-${2:-1}" ;;
    gzip) gzip -1 ;;
    *) cat ;;
    esac
}
decompress() {
    case $1 in
    zstd) zstd -q -dc ;;
    gzip) gzip -dc ;;
    *) cat ;;
    esac
}
"#
    };
}

pub(super) use compression_functions;
