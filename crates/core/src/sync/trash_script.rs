//! The dock's side of the trash: what a sync removes or overwrites in a workspace is kept beside its mark, in
//! `.dockerutils-sync/trash`, in the form that [`super::trash`] reads.
//!
//! [`trash_functions`] and [`trash_keep`] are for scripts that change a workspace. What is about to be removed or replaced gets
//! a second name in the trash, so that its path never is absent. Where there are no second names, it is copied, and on the disk
//! before anything else is done.

use super::script_head::{compression_functions, in_workspace};

/// Shell functions, behind [`in_workspace`]:
///
/// - `trash_prune NEED LIMIT AGE`: removes the entries that are older than so many seconds, and the oldest ones as long as
///   all together have more than LIMIT without NEED, both in units of 1024 bytes. Fails where even then there is no room;
/// - `trash_open NONCE`: begins an entry, `$trash_entry`, before any of the following;
/// - `trash_rmdir`: removes the directories that stdin names, with a NUL after each, the deepest first. One that is not empty stays.
///
/// All their variables begin with `trash_`.
macro_rules! trash_functions {
    () => {
        r#"
trash_open() {
    if [ -L "$own/trash" ]; then echo "$own/trash is a symbolic link" >&2; return 1; fi
    mkdir -p "$own/trash" && trash_entry=$own/trash/$(date +%s).$1
}
trash_rmdir() {
    xargs -0 -n 200 sh -c '
kept=$1/removed last=
shift
umask 022
nl="
"
modes=$(stat -c %a "$@" 2>/dev/null) || modes=
rmdir "$@" 2>/dev/null
run() {
    if [ $# -eq 0 ]; then return; fi
    mkdir -p -- "$@"
    if [ -n "$last" ]; then chmod "$(printf %o "$((0$last & 0777 | 0700))")" "$@"; fi
}
first=1
for d; do
    if [ -n "$first" ]; then set --; first=; fi
    mode=${modes%%"$nl"*} modes=${modes#*"$nl"}
    if [ -d "$d" ]; then continue; fi
    if [ "$mode" != "$last" ]; then
        run "$@"
        set --
        last=$mode
    fi
    set -- "$@" "$kept/$d"
done
run "$@"' sh "$trash_entry"
}
trash_prune() {
    if [ -L "$own/trash" ] || [ ! -d "$own/trash" ]; then [ "$1" -le "$2" ]; return; fi
    trash_now=$(date +%s)
    for trash_e in "$own/trash"/[1-9]*.*; do
        trash_s=${trash_e##*/}
        trash_s=${trash_s%%.*}
        case $trash_s in *[!0-9]* | ???????????????*) continue ;; esac
        if [ "$((trash_now - trash_s))" -gt "$3" ]; then rm -rf "$trash_e"; fi
    done
    trash_used=0 trash_sizes=$(du -sk "$own/trash"/[1-9]*.* 2>/dev/null)
    while read -r trash_k trash_e; do
        trash_used=$((trash_used + ${trash_k:-0}))
    done <<END
$trash_sizes
END
    while read -r trash_k trash_e; do
        if [ "$((trash_used + $1))" -le "$2" ]; then break; fi
        if [ -n "$trash_e" ] && rm -rf "$trash_e"; then trash_used=$((trash_used - trash_k)); fi
    done <<END
$trash_sizes
END
    [ "$((trash_used + $1))" -le "$2" ]
}
"#
    };
}
pub(super) use trash_functions;

/// A shell function for the inside of single quotes: `keep REASON NAME...` keeps files and links of the working directory, which
/// is `$into` in the workspace, below `$kept`, the absolute path of the entry. Fails where one could not be kept: it must be
/// neither removed nor replaced then.
macro_rules! trash_keep {
    () => {
        r#"
keep() {
    k=$kept/$1/$into
    shift
    (umask 022 && mkdir -p -- "$k") || return
    if ln -- "$@" "$k" 2>/dev/null; then return; fi
    copied=
    for n; do
        if [ -e "$k/$n" ] || [ -L "$k/$n" ] || ln -- "./$n" "$k/$n" 2>/dev/null; then continue; fi
        if ! cp -pP -- "./$n" "$k/$n"; then rm -f -- "$k/$n"; return 1; fi
        copied=1
    done
    if [ -n "$copied" ]; then sync -f "$k" 2>/dev/null || sync; fi
}
"#
    };
}
pub(super) use trash_keep;

/// Lists the trash, as [`super::script::LOOK`] lists a workspace. `$4`: the format of a record; `$5`: how
/// the list is compressed.
pub const LIST: &str = concat!(
    in_workspace!(""),
    compression_functions!(),
    r#"
list() {
    if [ ! -L "$own/trash" ] && cd "$own/trash" 2>/dev/null; then
        find . -exec stat -c "$1" {} +
        printf '//status %s\n' "$?"
    else
        printf '//status 0\n'
    fi
}
list "$4" | compress "$5"
"#
);

/// Puts what stdin names back into the workspace: `./ENTRY/REASON/PATH`, in the order of paths and as far as possible those
/// of one directory one behind the other. Prints, for each of them, what became of it and its name, with a NUL behind:
/// `+`: it was put back; `=`: the same is there already; `w`: something is in the way; `!`: it could not be done.
///
/// What is there now is kept itself. Nothing is put through a symbolic link.
pub const RESTORE: &str = concat!(
    in_workspace!(""),
    r#"
if [ -L "$own/trash" ]; then echo "$own/trash is a symbolic link" >&2; exit 73; fi
xargs -0 -n 200 sh -c '
trash=$1 entry=$2 last=
shift 2
umask 022
say() { printf "%s%s\000" "$1" "$2"; }
is_there() { [ -e "$1" ] || [ -L "$1" ]; }
is_directory() { [ -d "$1" ] && [ ! -L "$1" ]; }
mode_as() { m=$(stat -c %a "$2" 2>/dev/null) && chmod "$m" "$1"; }
# Makes the directory $1 of the workspace as it is below $2, one level after the other.
way() {
    to=. from=$2 rest=$1
    while [ -n "$rest" ]; do
        case $rest in
        */*) part=${rest%%/*} rest=${rest#*/} ;;
        *) part=$rest rest= ;;
        esac
        to=$to/$part from=$from/$part
        if is_directory "$to"; then continue; fi
        if is_there "$to"; then why=w; return 1; fi
        if mkdir "$to"; then mode_as "$to" "$from"; else why=!; return 1; fi
    done
}
is_same() {
    if [ -L "$1" ] || [ -L "$2" ]; then
        [ -L "$1" ] && [ -L "$2" ] && [ "$(readlink "$1"; echo .)" = "$(readlink "$2"; echo .)" ]
    else
        cmp -s "$1" "$2"
    fi
}
# Puts $1 in the place of what is at ./$2.
replace() {
    if is_directory "./$2" || { [ ! -f "./$2" ] && [ ! -L "./$2" ]; }; then say w "$3"; return; fi
    if is_same "$1" "./$2"; then rm -f "$1"; say = "$3"; return; fi
    kept=$entry/overwritten/$2
    if mkdir -p "${kept%/*}" && { ln "./$2" "$kept" 2>/dev/null || cp -pP "./$2" "$kept"; } && mv -f "$1" "./$2"; then
        say + "$3"
    else
        say ! "$3"
    fi
}
put_directory() {
    if is_directory "./$2"; then rmdir "$1" 2>/dev/null; say = "$3"; return; fi
    if is_there "./$2"; then say w "$3"; return; fi
    if mkdir "./$2"; then mode_as "./$2" "$1"; rmdir "$1" 2>/dev/null; say + "$3"; else say ! "$3"; fi
}
# Puts back files of the directory $last of the trash: ./ENTRY/REASON, and perhaps /DIRECTORY.
run() {
    below=${last#./*/}
    case $below in
    */*) directory=${below#*/} reason=${below%%/*} ;;
    *) directory= reason=$below ;;
    esac
    root=${last#./}
    root=$trash/${root%%/*}/$reason
    if ! way "$directory" "$root"; then
        for p; do say "$why" "$p"; done
        return
    fi
    # They are changed now: with their own times they would look like what a power cut left.
    for p; do
        if [ -f "$trash/$p" ] && [ ! -L "$trash/$p" ]; then printf "%s\000" "$trash/$p"; fi
    done | xargs -0 touch -c -- 2>/dev/null
    first=1
    for p; do
        if [ -n "$first" ]; then set --; first=; fi
        from=$trash/$p path=${directory:+$directory/}${p##*/}
        if is_directory "$from"; then
            put_directory "$from" "$path" "$p"
        elif ! is_there "$from"; then
            say ! "$p"
        elif is_there "./$path"; then
            replace "$from" "$path" "$p"
        else
            set -- "$@" "$p"
        fi
    done
    if [ $# -eq 0 ]; then return; fi
    # A second name never takes the place of another: who is faster keeps what is his.
    if (cd "$trash" && ln -- "$@" "$OLDPWD/./$directory/") 2>/dev/null; then
        (cd "$trash" && rm -f -- "$@")
        for p; do say + "$p"; done
        return
    fi
    for p; do
        from=$trash/$p path=${directory:+$directory/}${p##*/}
        if is_there "./$path"; then
            replace "$from" "$path" "$p"
        elif ln "$from" "./$path" 2>/dev/null; then
            rm -f "$from"
            say + "$p"
        elif mv "$from" "./$path"; then
            say + "$p"
        else
            say ! "$p"
        fi
    done
}
# What held nothing else goes, too.
tidy() { (cd "$trash" && rmdir -p -- "$last") 2>/dev/null; }
for next; do
    if [ "${next%/*}" != "$last" ]; then
        if [ -n "$last" ]; then run "$@"; tidy; fi
        set --
        last=${next%/*}
    fi
    set -- "$@" "$next"
done
run "$@"
tidy
exit 0' sh "$own/trash" "$own/trash/$(date +%s).$1.restore"
durable
exit 0
"#
);

/// Removes what is kept too long, or is too much. `$4`, `$5` and `$6`: the arguments of `trash_prune`.
pub const PRUNE: &str = concat!(
    in_workspace!(""),
    trash_functions!(),
    r#"trash_prune "$4" "$5" "$6"
exit 0
"#
);
