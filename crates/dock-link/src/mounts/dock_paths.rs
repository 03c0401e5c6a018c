//! What the dock says of paths: whether it has them, and where they lead.

use std::io;
use std::time::Duration;

use dock_client::agent::target::{Exec, RemoteCommand, Target};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, timeout};

use crate::link::{Link, OpenOptions};
use crate::transport::Connector;

/// How long the dock may take to say something of paths.
const LIMIT: Duration = Duration::from_secs(20);
/// What a line of an answer may have, in bytes.
const WORD: u64 = 16;
/// The most that a login shell may print before that, in bytes.
const GREETING: u64 = 64 * 1024;

/// Prints for each path whether the dock has it.
const EXISTS: &str = r#"for p; do
if [ -e "$p" ] || [ -L "$p" ]; then echo yes; else echo no; fi
done"#;

/// Prints for each path but the first whether it is below the first one once all links are followed. What is no link itself
/// need not be entered for that: it may be another user's.
const PLACES: &str = r#"w=$(cd -P "$1" 2>/dev/null && pwd -P) || w=
shift
for p; do
if [ -L "$p" ]; then r=$(readlink -f "$p" 2>/dev/null) || r=
else r=$(cd -P "${p%/*}/" 2>/dev/null && pwd -P) && r=${r%/}/${p##*/} || r=
fi
if [ -z "$w" ] || { [ -z "$r" ] && ! [ -L "$p" ]; }; then echo hidden
elif ! [ -e "$p" ] && ! [ -L "$p" ]; then echo absent
else case $r in
"$w"|"$w"/*) echo inside ;;
*) echo outside ;;
esac
fi
done"#;

/// Where a path leads on the dock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Into the workspace.
    Inside,
    /// Out of it.
    Outside,
    /// There is nothing.
    Absent,
    /// The dock's user may not look there.
    Hidden,
}

/// Whether the dock has these paths.
pub(super) async fn exist<C: Connector>(link: &Link<C>, paths: &[String]) -> io::Result<Vec<bool>> {
    let said = ask(link, EXISTS, &[], paths).await?;
    Ok(said.iter().map(|word| word == "yes").collect())
}

/// Where these paths in a workspace lead.
pub(super) async fn places<C: Connector>(link: &Link<C>, workspace: &str, paths: &[String]) -> io::Result<Vec<Place>> {
    let said = ask(link, PLACES, &[workspace.to_owned()], paths).await?;
    said.iter().map(|word| place(word)).collect()
}

fn place(word: &str) -> io::Result<Place> {
    match word {
        "inside" => Ok(Place::Inside),
        "outside" => Ok(Place::Outside),
        "absent" => Ok(Place::Absent),
        "hidden" => Ok(Place::Hidden),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Runs a script that prints a word for each of these paths; `first` precedes them.
async fn ask<C: Connector>(
    link: &Link<C>,
    script: &str,
    first: &[String],
    paths: &[String],
) -> io::Result<Vec<String>> {
    let words = ["sh", "-c", script, "sh"].into_iter().map(str::to_owned);
    let words = words.chain(first.iter().chain(paths).cloned()).collect();
    let target = Target::Exec(Exec {
        command: RemoteCommand::Argv(words),
        pty: None,
    });
    let options = OpenOptions {
        arrival: Instant::now(),
        patience: LIMIT,
        answers: false,
    };
    let asking = async {
        let (mut connection, _over) = link.open(options, &target).await.map_err(io::Error::other)?;
        let _ = connection.stream.shutdown().await;
        let mut text = Vec::new();
        let most = GREETING + WORD * paths.len() as u64;
        connection.stream.take(most).read_to_end(&mut text).await?;
        io::Result::Ok(text)
    };
    let text = timeout(LIMIT, asking).await??;
    let text = String::from_utf8_lossy(&text);
    // A login shell's greeting may come first.
    let lines: Vec<&str> = text.lines().collect();
    let own = lines
        .len()
        .checked_sub(paths.len())
        .ok_or(io::ErrorKind::UnexpectedEof)?;
    Ok(lines.into_iter().skip(own).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::process::Command;

    use super::*;

    #[test]
    fn what_a_container_has_made_lead_out_of_the_workspace_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().canonicalize().unwrap();
        for directory in ["real/app/src/deep", "real/app/a b", "real/app-other", "etc"] {
            fs::create_dir_all(base.join(directory)).unwrap();
        }
        fs::write(base.join("real/app/file"), "x").unwrap();
        fs::write(base.join("etc/passwd"), "x").unwrap();
        // Where workspaces are may be a link itself.
        symlink("real", base.join("w")).unwrap();
        let app = base.join("w/app");
        for (text, link) in [
            ("/etc", "absolute"),
            ("../../etc", "relative"),
            ("src", "within"),
            ("../app-other", "beside"),
            ("nothing", "dangling"),
            ("/nothing/at/all", "far"),
            ("loop", "loop"),
            ("../../etc/passwd", "a-file"),
        ] {
            symlink(text, app.join(link)).unwrap();
        }
        let path = |path: &str| format!("{}{path}", app.display());
        let expected = [
            ("", Place::Inside),
            ("/src", Place::Inside),
            ("/src/deep", Place::Inside),
            ("/a b", Place::Inside),
            ("/file", Place::Inside),
            ("/within", Place::Inside),
            ("/within/deep", Place::Inside),
            ("/dangling", Place::Inside),
            ("/absolute", Place::Outside),
            ("/absolute/passwd", Place::Outside),
            ("/relative", Place::Outside),
            ("/relative/passwd", Place::Outside),
            ("/beside", Place::Outside),
            ("/far", Place::Outside),
            ("/loop", Place::Outside),
            ("/a-file", Place::Outside),
            ("/none", Place::Absent),
            ("/none/deep", Place::Hidden),
        ];
        for shell in ["sh", "bash"] {
            let said = Command::new(shell)
                .args(["-c", PLACES, "sh"])
                .arg(&app)
                .args(expected.iter().map(|(end, _)| path(end)))
                .output()
                .unwrap();
            let said = String::from_utf8(said.stdout).unwrap();
            let places: Vec<_> = said.lines().map(|word| place(word).unwrap()).collect();
            let pairs: Vec<_> = expected.iter().map(|(end, _)| *end).zip(places).collect();
            assert_eq!(pairs, expected, "{shell}");
        }
        // A workspace that is not there has nothing in it.
        let said = Command::new("sh")
            .args(["-c", PLACES, "sh", "/nothing/at/all", "/etc"])
            .output()
            .unwrap();
        assert_eq!(String::from_utf8(said.stdout).unwrap(), "hidden\n");
    }
}
