//! What is run on the dock: scripts for a POSIX shell, with the tools that busybox has.
//!
//! Data never becomes part of a script: it comes as arguments, or in files with a NUL after each path. Paths begin with
//! `./`, so that none is taken for an option. Every script says a line first that only this call knows, since login shells
//! are known to print greetings.

use super::script_head::{compression_functions, in_workspace};
use super::trash_script::{trash_functions, trash_keep};

/// A shell function for the inside of single quotes: `exchange DIRECTORY/ NAME...` has files of the working directory and those of
/// the same names in the directory change places, each two by one renameat2(2). `$exchange` says by what: `mv`, which can do that
/// from coreutils 9.5 on, or, for perl, the number of the call and in `$exchange_program` what it runs.
macro_rules! exchange {
    () => {
        r#"
exchange() {
    to=$1
    shift
    case $exchange in
    mv) mv --exchange --no-copy -- "$@" "$to" ;;
    *) perl -e "$exchange_program" "$exchange" "$to" "$@" ;;
    esac
}
"#
    };
}

/// The code of a script that found that something changed meanwhile: nothing was done, and trying again helps.
pub const CHANGED_MEANWHILE: u8 = 79;

/// Finds the workspace, marks it, and lists it.
///
/// Arguments: the word of the call; `make` or `look`; where the workspace was the last time; the directory for workspaces
/// that the user chose; the user; the project; the digest of the last listing; the mark to be made; the format of `stat`.
/// An empty argument is none.
pub const LOOK: &str = concat!(
    r#"LC_ALL=C TZ=UTC0
export LC_ALL TZ
printf '%s\n' "dockerutils-sync $1"
own=.dockerutils-sync format=$9
"#,
    compression_functions!(),
    r#"if [ -n "$3" ] && [ -f "$3/$own/owner" ]; then
    w=$3
elif [ -n "$4" ]; then
    w=$4/$5/code/$6
else
    deepest=/data
    for d in /data/workspaces "/data/workspaces/$5" "/data/workspaces/$5/code" "/data/workspaces/$5/code/$6"; do
        [ -d "$d" ] && deepest=$d
    done
    if [ -d /data ] && [ -w "$deepest" ]; then base=/data; else base=${HOME:?is not set}; fi
    w=$base/workspaces/$5/code/$6
fi
case $w in
*'
'*) echo "a workspace can't have a line feed in its path" >&2; exit 73 ;;
/*) ;;
*) echo "the directory for workspaces is not an absolute path: $w" >&2; exit 73 ;;
esac
if [ "$2" = make ] && [ ! -d "$w" ]; then mkdir -p -- "$w" || exit 73; fi
if [ ! -d "$w" ]; then printf '%s\nabsent\n' "$w"; exit 0; fi
cd -P -- "$w" || exit 73
if [ -L "$own" ]; then echo "$w/$own is a symbolic link" >&2; exit 73; fi
if [ "$2" = make ] && [ ! -s "$own/owner" ]; then
    mkdir -p "$own" && chmod 700 "$own" && printf '%s' "$8" > "$own/owner.$1" || exit 73
    # A link is made whole or not at all: of two who come at once, one wins. Not every file system has links.
    [ -s "$own/owner" ] || rm -f "$own/owner"
    ln "$own/owner.$1" "$own/owner" 2>/dev/null || [ -s "$own/owner" ] || mv -f "$own/owner.$1" "$own/owner" || exit 73
    rm -f "$own/owner.$1"
fi
# What a sync left behind whose link was cut; one that still runs finds that its files are gone, and gives up.
if [ "$2" = make ]; then rm -rf "$own"/stage.* "$own"/made.*; fi
pwd -P
if [ -f "$own/owner" ]; then
    printf 'mark %s\n' "$(head -c 8192 "$own/owner" | wc -c)"
    head -c 8192 "$own/owner"
else
    echo unmarked
fi
generation=
if [ -f "$own/generation" ]; then generation=$(head -c 64 "$own/generation" | tr -cd 0-9a-f); fi
printf 'generation %s\n' "$generation"
id -u
# Not every date has parts of a second.
date '+%s %N'
compression=plain
for tool in gzip zstd; do
    if command -v "$tool" >/dev/null 2>&1; then compression=$tool; fi
done
tools=$compression
if command -v rsync >/dev/null 2>&1; then tools="$tools rsync"; fi
# A disk that takes names for one that differ in capitals alone has our own directory under both.
if [ -d "$own" ] && [ -d .DOCKERUTILS-SYNC ]; then tools="$tools folds"; fi
printf '%s\n' "$tools"
list() {
    find . -path "./$own" -prune -o -exec stat -c "$format" {} +
    printf '//status %s\n' "$?"
}
if [ -n "$7" ]; then
    digest=$(list 2>/dev/null | sha256sum)
    if [ "${digest%% *}" = "$7" ]; then echo same; exit 0; fi
fi
echo listing
list | compress "$compression"
"#
);

/// Names the directories that can't be looked into, each with a NUL after it.
pub const UNSEEN: &str = in_workspace!(
    r#"find . -path "./$own" -prune -o -type d -exec sh -c '
for d; do
    if [ ! -r "$d" ] || [ ! -x "$d" ]; then printf "%s\000" "$d"; fi
done' sh {} + 2>/dev/null
exit 0
"#
);

/// Prints `sha256sum`'s lines of the files that stdin names. Names must hold neither line feed nor backslash.
pub const SUMS: &str = in_workspace!(
    r#"xargs -0 sha256sum 2>/dev/null
exit 0
"#
);

/// Prints, for each path that stdin names, `l` and the text of a link, or `f` and the sum of a file, or `-`; each with a
/// NUL after it.
pub const ODD_SUMS: &str = in_workspace!(
    r#"xargs -0 sh -c '
for p; do
    if [ -L "$p" ]; then
        t=$(readlink "$p"; echo .)
        printf "l%s\000" "${t%??}"
    elif [ -f "$p" ] && s=$(sha256sum < "$p"); then
        printf "f%s\000" "${s%% *}"
    else
        printf "%s\000" -
    fi
done' sh 2>/dev/null
exit 0
"#
);

/// Names the state of the workspace, `$5`, and prints how it is called now; then the records of the paths that stdin names.
/// `$4` is the format of `stat`. A disk that is full is no reason to bring nothing: the state keeps its name.
pub const STAT: &str = in_workspace!(
    r#"if name_state "$5" 2>/dev/null && durable; then printf 'generation %s\n' "$5"; else echo generation; fi
xargs -0 stat -c "$4" 2>/dev/null
printf '//status 0\n'
"#
);

/// Names the state of the workspace, `$4`, and prints how it is called now.
pub const MARK: &str = in_workspace!(
    r#"if name_state "$4" 2>/dev/null && durable; then printf 'generation %s\n' "$4"; else echo generation; fi
"#
);

/// Prints samples of files, one behind the other: stdin has a path, where its sample begins, and how long it is, in blocks of 4096
/// bytes, with a NUL after each. What is not there says nothing, which shows in the length of all ([`super::samples`]).
pub const SAMPLES: &str = in_workspace!(
    r#"xargs -0 -n 30 sh -c '
while [ $# -ge 3 ]; do
    if [ -f "$1" ]; then dd if="$1" bs=4096 skip="$2" count="$3" 2>/dev/null; fi
    shift 3
done' sh
exit 0
"#
);

/// Takes what comes, and keeps nothing of it: the link is measured.
pub const PROBE: &str = in_workspace!("cat > /dev/null\n");

/// Sends the files that stdin names, as tar archives one after the other. `$4`: how they are compressed, `$5`: the level, for zstd.
pub const FETCH: &str = in_workspace!(
    compression_functions!(),
    r#"if [ "$4" = plain ]; then xargs -0 tar -cf -; else xargs -0 tar -cf - | compress "$4" "$5"; fi
exit 0
"#
);

/// Takes an archive into a directory of its own, looks whether everything is still as it was listed, and only then puts
/// its parts in place, each by a rename. [`super::send`] makes the archive, and says what its parts are.
///
/// Directly before a batch is put in place, its names are looked at once more: where one is not as it was listed, the batch
/// is left, and said. What is put in place is on the disk before it is named, and the names are before the end is said.
///
/// What is removed or replaced goes into the trash beside the workspace's mark. What can't be kept there is not removed
/// unless `$12` says `delete`; it is replaced all the same, since both sides had it at the last sync.
///
/// `$4`: the format of what is expected; `$5`: that of a record; `$6`: how the archive is compressed; `$7`: the directory in which
/// rsync made the parts that are not in the archive; `$8`: how the state is called that this leaves; `$9`: what is removed
/// and replaced, `$10`: what is kept at most, both in units of 1024 bytes; `$11`: how long, in seconds.
pub const APPLY: &str = in_workspace!(
    trash_functions!(),
    compression_functions!(),
    r#"s=$PWD/$own/stage.$1
rm -rf "$own"/stage.*
trap 'rm -rf "$s" "$own"/made.*' EXIT
trap 'exit 76' HUP INT TERM
mkdir "$s" || exit 73
umask 0
if [ "$6" = plain ]; then tar -xof - -C "$s"; else decompress "$6" | tar -xof - -C "$s"; fi || exit 73
umask 077
c=$s/c
if [ ! -f "$c/go" ]; then echo "what was sent came cut short" >&2; exit 76; fi
if [ -s "$c/skip" ]; then (cd "$s" && xargs -0 rm -rf < "$c/skip") || exit 73; fi
meanwhile() { echo "files of the workspace changed meanwhile" >&2; exit 79; }
if [ -s "$c/made" ]; then
    xargs -0 -n 3 sh -c 'mv -f -- "$1/$4" "$2/$5" && chmod "$3" "$2/$5"' sh "$own/$7" "$s" < "$c/made" || meanwhile
fi
if [ -s "$c/absent" ]; then
    xargs -0 sh -c 'for p; do if [ -e "$p" ] || [ -L "$p" ]; then exit 1; fi; done' sh < "$c/absent" || meanwhile
fi
if [ -s "$c/dirs" ]; then
    xargs -0 sh -c 'for p; do if [ -L "$p" ] || [ ! -d "$p" ]; then exit 1; fi; done' sh < "$c/dirs" || meanwhile
fi
if [ -s "$c/present" ]; then
    xargs -0 stat -c "$4" < "$c/present" 2>/dev/null | cmp -s - "$c/expected" || meanwhile
fi
name_state "$8" || exit 73
durable || exit 73
r=0 kept=
if [ -s "$c/out" ] || [ -s "$c/emptied" ] || [ -s "$c/present" ]; then
    if trash_open "$1" && trash_prune "$9" "${10}" "${11}"; then kept=$PWD/$trash_entry; fi
fi
exchange=
exchange_program='my $call = shift() + 0; my $to = shift(); my $code = 0;
for (@ARGV) { if (syscall($call, -100, $_, -100, $to . $_, 2) != 0) { $code = 1; print STDERR "cannot put $_ in place: $!\n" } }
exit $code'
export exchange_program
"#,
    exchange!(),
    r#"
mkdir "$c/other" && : > "$c/one" && : > "$c/other/one" || exit 73
# The number of renameat2(2), where the shell's tools have no name for it.
case $(uname -m) in
x86_64) number=316 ;;
aarch64 | riscv64) number=276 ;;
ppc64le) number=357 ;;
s390x) number=347 ;;
*) number= ;;
esac
for exchange in mv $number ""; do
    if [ -z "$exchange" ] || (cd "$c" && exchange "$c/other/" one) 2>/dev/null; then break; fi
done
batches='
s=$1 w=$2 format=$3 kept=$4 delete=$5 exchange=$6 r=0
shift 6"#,
    trash_keep!(),
    exchange!(),
    r#"
changed() { printf "changed %s\n" "$batch"; r=1; }
stuck() { printf "stuck %s\n" "$batch"; r=1; }
# What says of files that they are as they were, wherever they are now.
still() { stat -c "$format" -- "$@" 2>/dev/null | cut -d " " -f 1-4; }
nl="
"
is_expected() { case $nl$expected$nl in *"$nl$(still "$1")$nl"*) ;; *) return 1 ;; esac; }
is_ours() { case $nl$ours$nl in *"$nl$(stat -c "%i %n" -- "$1" 2>/dev/null)$nl"*) ;; *) return 1 ;; esac; }
# Whoever saves at this moment: what was at a name is taken by the same rename that puts ours there, and looked at then.
replace() {
    k=$s/$batch
    if [ -n "$kept" ]; then
        k=$kept/overwritten/$into
        (umask 022 && mkdir -p -- "$k") && mv -f -- "$@" "$k" || { stuck; return; }
    fi
    cd "$k" && ours=$(stat -c "%i %n" -- "$@") || { stuck; return; }
    if exchange "$w/$into" "$@" && [ "$(still "$@")" = "$expected" ]; then return; fi
    # Another sync goes on where this one was cut off: what was taken is kept.
    if [ ! -d "$s" ]; then r=1; return; fi
    refused=1
    for n; do
        if is_ours "$n"; then
            if ! (cd "$w/$into" && is_expected "$n"); then refused=; fi
            rm -f -- "$n"
            continue
        fi
        if is_expected "$n"; then continue; fi
        refused=
        if exchange "$w/$into" "$n" && is_ours "$n"; then rm -f -- "$n"; fi
    done
    if [ -n "$refused" ]; then stuck; else changed; fi
}
remove() {
    k=$kept/removed/$into
    (umask 022 && mkdir -p -- "$k") || { printf "full %s\n" "$batch"; return; }
    if [ "$(stat -c %d .)" != "$(stat -c %d -- "$k")" ]; then
        if keep removed "$@"; then rm -f -- "$@" || r=1; else printf "full %s\n" "$batch"; fi
        return
    fi
    mv -f -- "$@" "$k" || r=1
    cd "$k" || { r=1; return; }
    if [ "$(still "$@")" = "$expected" ] || [ ! -d "$s" ]; then return; fi
    back=
    for n; do
        if [ ! -e "./$n" ] && [ ! -L "./$n" ] || is_expected "$n"; then continue; fi
        back=1
        if ln -- "./$n" "$w/$into" 2>/dev/null; then rm -f -- "$n"; fi
    done
    if [ -n "$back" ]; then changed; fi
}
for a; do
    batch=${a%%/*} into=${a#*/./}
    cd "$s/$batch" || { r=1; continue; }
    case $batch in
    ?p*) set -- * ;;
    ?h*) set -- .[!.]* ;;
    *) set -- ..?* ;;
    esac
    # What was to be in it changed while it was sent.
    if [ ! -e "$1" ] && [ ! -L "$1" ]; then continue; fi
    # Not through a link.
    if ! cd -P -- "$w/$into" 2>/dev/null || [ "${PWD%/}/" != "$w/$into" ]; then changed; continue; fi
    case $batch in
    n*)
        for n; do
            if [ -e "./$n" ] || [ -L "./$n" ]; then changed; continue 2; fi
        done
        cd "$s/$batch" && mv -n -- "$@" "$w/$into"
        for n; do
            if [ ! -e "./$n" ] && [ ! -L "./$n" ]; then continue; fi
            if [ -e "$w/$into$n" ] || [ -L "$w/$into$n" ]; then changed; else stuck; fi
            break
        done
        continue
        ;;
    esac
    if ! stat -c "$format" -- "$@" 2>/dev/null | cmp -s - "$s/c/$batch"; then changed; continue; fi
    expected=$(cut -d " " -f 1-4 < "$s/c/$batch")
    case $batch in
    x*)
        if [ -n "$kept" ]; then
            remove "$@"
        elif [ -n "$delete" ]; then
            rm -f -- "$@" || r=1
        else
            printf "full %s\n" "$batch"
        fi
        ;;
    *)
        if [ -z "$exchange" ] && [ -n "$kept" ] && ! keep overwritten "$@"; then stuck; continue; fi
        cd "$s/$batch" || { r=1; continue; }
        if [ -n "$exchange" ]; then replace "$@"; else mv -f -- "$@" "$w/$into" || stuck; fi
        ;;
    esac
done
exit "$r"'
if [ -s "$c/out" ]; then xargs -0 sh -c "$batches" sh "$s" "$PWD" "$4" "$kept" "${12}" "$exchange" < "$c/out" || r=1; fi
if [ -s "$c/emptied" ]; then
    if [ -n "$kept" ]; then trash_rmdir < "$c/emptied"; else xargs -0 rmdir < "$c/emptied" 2>/dev/null; fi
fi
if [ -s "$c/into" ]; then xargs -0 sh -c "$batches" sh "$s" "$PWD" "$4" "$kept" "" "$exchange" < "$c/into" || r=1; fi
for m in "$c"/mode.*; do
    if [ -s "$m" ]; then xargs -0 chmod "${m##*.}" < "$m" || r=1; fi
done
durable || exit 73
printf 'done %s\n' "$r"
date '+%s %N'
printf 'generation %s\n' "$8"
if [ -s "$c/paths" ]; then xargs -0 stat -c "$5" < "$c/paths" 2>/dev/null; fi
printf '//status 0\n'
"#
);
