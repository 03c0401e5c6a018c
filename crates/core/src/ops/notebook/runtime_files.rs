//! The runtime files of the servers in a container, read as the user who runs them.

use std::time::Duration;

use crate::docker::connect::engine::Engine;
use crate::docker::containers::exec::{self, ExecCommand};
use crate::error::{Class, Result};
use crate::jupyter::runtime_file::{LARGEST, RuntimeFile};

/// How long the script may take.
const LIMIT: Duration = Duration::from_secs(20);
/// The most bytes of what it prints.
const MOST: usize = 256 * 1024;
/// The most users whose servers are looked for.
const USERS: usize = 4;

/// Prints the runtime files of the servers that live, and the users of servers that others run: `file CONTENT` and `user UID`,
/// each with a NUL behind it. Its argument is the largest size of a file.
///
/// The directories are those of jupyter_core's `jupyter_runtime_dir`, in our own environment and in those of the servers: an
/// entrypoint may have changed what the image says. A file whose process does not live was left by a server that was killed.
const SCRIPT: &str = r#"
most=$1
print_files() {
  for file in "$1"/jpserver-*.json "$1"/nbserver-*.json; do
    [ -f "$file" ] && [ -r "$file" ] || continue
    pid=${file##*-}
    pid=${pid%.json}
    case $pid in ''|*[!0-9]*) continue ;; esac
    [ -d "/proc/$pid" ] || continue
    printf 'file '
    head -c "$most" "$file"
    printf '\0'
  done
}
print_named() {
  case $1 in
    JUPYTER_RUNTIME_DIR=/*) print_files "${1#*=}" ;;
    JUPYTER_DATA_DIR=/*) print_files "${1#*=}/runtime" ;;
    XDG_DATA_HOME=/*) print_files "${1#*=}/jupyter/runtime" ;;
    HOME=/*) print_files "${1#*=}/.local/share/jupyter/runtime" ;;
  esac
}
for name in JUPYTER_RUNTIME_DIR JUPYTER_DATA_DIR XDG_DATA_HOME HOME; do
  eval "value=\${$name-}"
  print_named "$name=$value"
done
me=$(id -u)
for process in /proc/[0-9]*; do
  words=$(tr '\0' ' ' <"$process/cmdline") || continue
  case $words in *jupyter*|*ipython*) ;; *) continue ;; esac
  owner=$(ls -ldn "$process" | { read -r _ _ uid _; printf %s "$uid"; })
  if [ "$owner" != "$me" ]; then
    printf 'user %s\0' "$owner"
    continue
  fi
  tr '\0' '\n' <"$process/environ" | while IFS= read -r variable; do
    print_named "$variable"
  done
done
"#;

/// The servers in one container.
pub(super) struct RuntimeFiles<'a> {
    engine: &'a Engine,
    container: &'a str,
    /// The users, besides the container's own, who were seen to run a server.
    users: Vec<String>,
}

impl<'a> RuntimeFiles<'a> {
    /// Of a running container.
    pub(super) const fn of(engine: &'a Engine, container: &'a str) -> Self {
        Self {
            engine,
            container,
            users: Vec::new(),
        }
    }

    /// The runtime files that are there now. None where the image has no shell, and while nothing runs yet.
    ///
    /// # Errors
    /// An engine that is out of reach.
    pub(super) async fn read(&mut self) -> Result<Vec<RuntimeFile>> {
        let mut all = Vec::new();
        let mut take = |said: Said| {
            for file in said.files {
                if !all.contains(&file) {
                    all.push(file);
                }
            }
            said.users
        };
        if self.users.is_empty() {
            self.users = take(self.said_to(None).await?);
        }
        // Once it is known who runs servers, only they are asked.
        for user in self.users.clone() {
            take(self.said_to(Some(&user)).await?);
        }
        Ok(all)
    }

    async fn said_to(&self, user: Option<&str>) -> Result<Said> {
        let most = (LARGEST + 1).to_string();
        // What the shell itself complains about is not asked for.
        let command = ExecCommand {
            argv: &["sh", "-c", SCRIPT, "sh", &most],
            user,
            most: MOST,
            limit: LIMIT,
        };
        match exec::output(self.engine, self.container, &command).await {
            Ok(output) => Ok(Said::parse(&output.stdout)),
            Err(error) if error.class() == Class::Unreachable => Err(error),
            // There is no shell, or the container has ended: whoever waits for the server sees that.
            Err(_) => Ok(Said::default()),
        }
    }
}

/// What the script printed.
#[derive(Debug, Default, PartialEq, Eq)]
struct Said {
    files: Vec<RuntimeFile>,
    /// Numbers of users.
    users: Vec<String>,
}

impl Said {
    /// Takes what is a file of a server or a user's number; the container may print anything.
    fn parse(printed: &[u8]) -> Self {
        let mut said = Self::default();
        let mut records: Vec<&[u8]> = printed.split(|byte| *byte == 0).collect();
        // Behind the last NUL is nothing, or what was cut off.
        records.pop();
        for record in records {
            if let Some(content) = record.strip_prefix(b"file ") {
                said.files.extend(RuntimeFile::parse(content).ok());
            } else if let Some(user) = record.strip_prefix(b"user ")
                && let Some(user) = std::str::from_utf8(user).ok().and_then(|text| text.parse::<u32>().ok())
                // Who is not root in there does not become it by our asking.
                && user != 0
            {
                let user = user.to_string();
                if said.users.len() < USERS && !said.users.contains(&user) {
                    said.users.push(user);
                }
            }
        }
        said
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    const FILE: &str = r#"{"pid": 1, "port": 8888, "base_url": "/"}"#;

    #[test]
    fn what_a_container_prints_is_read_as_files_and_users_and_nothing_else() {
        let printed =
            format!("file {FILE}\0user 1000\0user 1000\0user root\0user -1\0noise\0file {{\0file {FILE}\0file {FILE}");
        let said = Said::parse(printed.as_bytes());
        assert_eq!(said.files.len(), 2);
        assert_eq!(said.users, ["1000"]);
        assert_eq!(Said::parse(b""), Said::default());
        let many: String = (0..100).map(|user| format!("user {user}\0")).collect();
        assert_eq!(Said::parse(many.as_bytes()).users.len(), USERS);
    }

    #[test]
    fn the_script_finds_the_files_of_servers_that_live() {
        let folder = tempfile::tempdir().unwrap();
        let runtime = folder.path().join("a b;$(touch pwned)/.local/share/jupyter/runtime");
        std::fs::create_dir_all(&runtime).unwrap();
        let write = |name: &str, content: &str| std::fs::write(runtime.join(name), content).unwrap();
        let own = std::process::id();
        write(&format!("jpserver-{own}.json"), FILE);
        write(&format!("nbserver-{own}.json"), &FILE.replace("8888", "8889"));
        // This process can't live, and this is not a server's.
        write("jpserver-4194999.json", FILE);
        write(&format!("kernel-{own}.json"), FILE);
        write(&format!("jpserver-{own}-open.html"), FILE);
        let output = Command::new("sh")
            .args(["-c", SCRIPT, "sh", "1000"])
            .env_clear()
            .env("PATH", std::env::var("PATH").unwrap())
            .env("HOME", folder.path().join("a b;$(touch pwned)"))
            .current_dir(folder.path())
            .output()
            .unwrap();
        let said = Said::parse(&output.stdout);
        let mut ports: Vec<_> = said.files.iter().map(|file| file.port).collect();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports, [Some(8888), Some(8889)], "{output:?}");
        assert!(!folder.path().join("pwned").exists());
    }
}
