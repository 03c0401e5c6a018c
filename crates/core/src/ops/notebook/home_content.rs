//! What an image keeps in its home folder: a hub mounts each user's volume over it, and so hides it.

use std::collections::BTreeSet;
use std::time::Duration;

use bollard::models::ChangeType;

use crate::docker::connect::engine::Engine;
use crate::docker::containers::exec::{self, ExecCommand};
use crate::output::visible;

/// The most bytes of names that are read.
const NAMES: usize = 16 * 1024;
/// How long the container and the engine may take to answer.
const LIMIT: Duration = Duration::from_secs(5);
/// So many names are said.
const SAID: usize = 5;
/// So many characters of a name are said.
const LONGEST_NAME: usize = 40;
/// What every home folder begins with (`/etc/skel` of Debian), which a hub's volume has as well or nobody misses.
const SKELETON: [&str; 4] = [".bash_logout", ".bashrc", ".profile", ".cache"];
/// The names in a folder, each ended by a zero byte: they may hold anything else.
const LIST: &str = r#"cd "$1" || exit; for name in .* *; do if [ -e "$name" ]; then printf '%s\0' "$name"; fi; done"#;

/// A sentence about what the image of a running container keeps in this home folder; `None` if that is nothing, or can't be
/// seen.
pub(super) async fn hidden_by_a_hub(engine: &Engine, id: &str, home: &str) -> Option<String> {
    let looking = async {
        let listed = names(engine, id, home).await?;
        // Mounts and what the server has made since its start are not of the image.
        let changes = engine.docker().container_changes(id).await.ok()?.unwrap_or_default();
        let added = changes.into_iter().filter(|change| change.kind == ChangeType::_1);
        let added: BTreeSet<String> = added.map(|change| change.path).collect();
        sentence(home, &listed, &added)
    };
    tokio::time::timeout(2 * LIMIT, looking).await.ok()?
}

/// The same of a container in which nothing but a pause runs. What has changed in it is not asked: some engines walk through all of
/// the image's files for that.
pub(super) async fn hidden_in_untouched(engine: &Engine, id: &str, home: &str) -> Option<String> {
    sentence(home, &names(engine, id, home).await?, &BTreeSet::new())
}

/// The names in the home folder, each ended by a zero byte.
async fn names(engine: &Engine, id: &str, home: &str) -> Option<Vec<u8>> {
    let command = ExecCommand {
        argv: &["sh", "-c", LIST, "sh", home],
        user: None,
        most: NAMES,
        limit: LIMIT,
    };
    let listed = exec::output(engine, id, &command).await.ok()?;
    Some(listed.stdout)
}

fn sentence(home: &str, listed: &[u8], added: &BTreeSet<String>) -> Option<String> {
    let names = listed.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    let of_image: Vec<String> = names
        .filter(|name| !matches!(name.as_ref(), "" | "." | "..") && !SKELETON.contains(&name.as_ref()))
        .filter(|name| !added.contains(&format!("{home}/{name}")))
        .map(|name| shortened(&visible(&name)))
        .collect();
    if of_image.is_empty() {
        return None;
    }
    let more = match of_image.len().saturating_sub(SAID) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let said: Vec<String> = of_image.into_iter().take(SAID).collect();
    Some(format!(
        "the image keeps {}{more} in {}: a hub mounts a volume over that folder, and hides them",
        said.join(", "),
        shortened(&visible(home))
    ))
}

/// A name as it is said. A line with all of them is bounded by that.
fn shortened(name: &str) -> String {
    match name.char_indices().nth(LONGEST_NAME) {
        Some((end, _)) => format!("{}...", name.get(..end).unwrap_or_default()),
        None => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_the_image_s_is_named() {
        let added = BTreeSet::from(["/home/nb/.local".to_owned(), "/home/nb/project".to_owned()]);
        let of = |listed: &[u8]| sentence("/home/nb", listed, &added);
        assert_eq!(of(b".\0..\0.local\0project\0.bashrc\0"), None);
        assert_eq!(of(b""), None);
        assert_eq!(
            of(b".\0.local\0models\0.conf\n\0").unwrap(),
            "the image keeps models, .conf\u{fffd} in /home/nb: a hub mounts a volume over that folder, and hides them"
        );
        let many: Vec<u8> = (0..7).flat_map(|number| format!("f{number}\0").into_bytes()).collect();
        assert!(of(&many).unwrap().contains("f4 and 2 more in "));
        let long = "\u{e9}".repeat(9000) + "\0";
        let said = of(long.as_bytes()).unwrap();
        assert!(said.contains("\u{e9}... in /home/nb: ") && said.len() < 250, "{said}");
    }
}
