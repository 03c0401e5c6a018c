//! A disk on one side whose power can be cut, and the person who works on it.
//!
//! It is an ext4 file system in a file. A cut copies the file at a moment when nothing is being written, which is what a disk
//! has at that moment, kills what works on it, and mounts the copy in its place.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use super::promise::{Version, padding};

/// Makes the disk `$1`, mounted at `$2`, and then obeys: `mount`, `cut`, `end`.
///
/// All that has its working directory there stops before the copy, and ends after it. The copy is taken again until the
/// device has written nothing meanwhile, and has nothing to write.
const POWER: &str = r#"
cd /
image=$1 at=$2
number=0
[ -e /dev/loop-control ] || mknod /dev/loop-control c 10 237
while [ "$number" -lt 64 ]; do
    [ -e "/dev/loop$number" ] || mknod "/dev/loop$number" b 7 "$number"
    number=$((number + 1))
done
there() { mkdir -p "$at" && mount -o loop "$image" "$at" && chmod 777 "$at" && rm -rf "$at/lost+found"; }
workers() { find /proc/[0-9]*/cwd -maxdepth 0 \( -lname "$at" -o -lname "$at/*" \) 2>/dev/null | cut -d / -f 3; }
cut_power() {
    stopped=
    while pids=$(workers) && [ "$pids" != "$stopped" ]; do
        kill -STOP $pids 2>/dev/null
        stopped=$pids
    done
    device=$(losetup -n -O NAME -j "$image") || return
    count=/sys/block/${device#/dev/}/stat
    while :; do
        before=$(cat "$count")
        cp --sparse=always "$image" "$image.cut" || return
        after=$(cat "$count")
        set -- $after
        if [ "$before" = "$after" ] && [ "$9" = 0 ]; then break; fi
    done
    if [ -n "$stopped" ]; then kill -KILL $stopped 2>/dev/null; fi
    umount -l "$at" && mv "$image.cut" "$image" && there
}
while read -r verb; do
    case $verb in
    mount) there ;;
    cut) cut_power ;;
    end) umount -l "$at"; rm -f "$image" "$image.cut"; rmdir "$at" ;;
    esac
    echo "done $?"
done
"#;

/// Obeys somebody who works below `$1` and has things of his own in `$2`, and says what versions he replaced or removed: what
/// was at a path is first taken away by a rename, and looked at then.
const WORK: &str = r#"
cd /
umask 022
root=$1 own=$2
mkdir -p "$root" "$own"
exchange=
if mv --help 2>/dev/null | grep -q -e --exchange; then exchange=1; fi
content() { printf '%08d\n' "$1"; head -c "$2" /dev/zero | tr '\0' x; }
take() { mv -T "$1" "$own/old" 2>/dev/null && was="$was $(head -c 8 "$own/old")"; }
while read -r verb path version padding; do
    p=$root/$path was= code=0
    case $verb in
    save)
        content "$version" "$padding" > "$own/new"
        mkdir -p "${p%/*}"
        if [ -n "$exchange" ] && [ -f "$p" ] && mv -T --exchange "$own/new" "$p" 2>/dev/null; then
            was=$(head -c 8 "$own/new")
        else
            take "$p"
            # Somebody else may have made one meanwhile.
            until ln -T "$own/new" "$p" 2>/dev/null; do take "$p" || mkdir -p "${p%/*}"; done
        fi
        ;;
    write)
        was=$(head -c 8 "$p" 2>/dev/null)
        mkdir -p "${p%/*}" && content "$version" "$padding" > "$p" || code=1
        ;;
    remove) take "$p" ;;
    move) mkdir -p "$root/${version%/*}" && mv -n -T "$p" "$root/$version" 2>/dev/null ;;
    rest) sync -f "$own" && sync -f "$root" || code=1 ;;
    esac
    rm -f "$own/old" "$own/new"
    echo "done $code $was"
done
"#;

/// A shell that obeys, a line for a line.
#[derive(Debug)]
struct Obedient {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Obedient {
    fn new(mut shell: Command, script: &str, arguments: [&str; 2]) -> Self {
        shell.args(["-c", script, "sh"]).args(arguments);
        let mut child = shell.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self {
            child,
            stdin,
            stdout: BufReader::new(stdout),
        }
    }

    /// What it says of an order, behind the code, which must be 0.
    fn order(&mut self, order: &str) -> String {
        writeln!(self.stdin, "{order}").unwrap();
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        let rest = line.strip_prefix("done 0");
        rest.unwrap_or_else(|| panic!("{order}: {line:?}")).trim().to_owned()
    }
}

impl Drop for Obedient {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A disk, and who works on it.
#[derive(Debug)]
pub(super) struct Disk {
    power: Obedient,
    /// Who works, after the disk was mounted.
    worker: Option<Obedient>,
}

/// What somebody does with a file.
#[derive(Clone, Debug)]
pub(super) enum Edit {
    /// Saves a new version under another name first, as editors do.
    Save(String),
    /// Writes a new version in the old one's place. Who does that while a sync runs may take a file that is no version.
    Write(String),
    Remove(String),
    /// Gives it another name, where nothing has that.
    Move(String, String),
}

impl Disk {
    /// Mounts the file system in the file `image` at `at`, open to everybody, by a shell of root.
    pub(super) fn new(root: Command, image: &str, at: &Path) -> Self {
        let at = at.to_str().unwrap();
        let mut power = Obedient::new(root, POWER, [image, at]);
        power.order("mount");
        Self { power, worker: None }
    }

    /// Has somebody work on it: below `root`, which is on the disk, as is `own`.
    pub(super) fn hire(&mut self, shell: Command, root: &Path, own: &Path) {
        let paths = [root, own].map(|path| path.to_str().unwrap());
        let mut worker = Obedient::new(shell, WORK, paths);
        worker.order("rest");
        self.worker = Some(worker);
    }

    fn ask(&mut self, order: &str) -> Vec<Version> {
        let said = self.worker.as_mut().unwrap().order(order);
        // What is not whole was no version.
        said.split_whitespace().filter_map(|word| word.parse().ok()).collect()
    }

    /// Does this with a file; what versions were there.
    pub(super) fn edit(&mut self, edit: &Edit, version: Version) -> Vec<Version> {
        let padding = padding(version);
        self.ask(&match edit {
            Edit::Save(path) => format!("save {path} {version} {padding}"),
            Edit::Write(path) => format!("write {path} {version} {padding}"),
            Edit::Remove(path) => format!("remove {path}"),
            Edit::Move(from, to) => format!("move {from} {to}"),
        })
    }

    /// Has all that was written come to the disk.
    pub(super) fn rest(&mut self) {
        self.ask("rest");
    }

    /// Cuts the power, and gives it back.
    pub(super) fn cut(&mut self) {
        self.power.order("cut");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.worker = None;
        let _ = writeln!(self.power.stdin, "end");
        let mut line = String::new();
        let _ = self.power.stdout.read_line(&mut line);
    }
}
