//! The styles: how the parts become a version.

use super::describe::Pieces;
use super::{Release, VersionError};

/// A style of versioneer, named after its output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// `TAG[+DISTANCE.gHEX[.dirty]]`
    Pep440,
    /// `TAG[[.dev0]+DISTANCE.gHEX[.dirty]]`, with `.dev0` on branches other than `master`.
    Pep440Branch,
    /// `TAG[.postDISTANCE[.dev0]+gHEX]`, with `.dev0` for a dirty tree.
    Pep440Post,
    /// `TAG[.postDISTANCE[.dev0]+gHEX[.dirty]]`, with `.dev0` on branches other than `master`.
    Pep440PostBranch,
    /// `TAG[.postN.devDISTANCE]`, without a mark for a dirty tree.
    Pep440Pre,
    /// `TAG[.postDISTANCE[.dev0]]`, with `.dev0` for a dirty tree.
    Pep440Old,
    /// `TAG[-DISTANCE-gHEX][-dirty]`
    GitDescribe,
    /// `TAG-DISTANCE-gHEX[-dirty]`
    GitDescribeLong,
}

impl Style {
    /// All of them, each with its name.
    pub const ALL: [(&str, Self); 8] = [
        ("pep440", Self::Pep440),
        ("pep440-branch", Self::Pep440Branch),
        ("pep440-post", Self::Pep440Post),
        ("pep440-post-branch", Self::Pep440PostBranch),
        ("pep440-pre", Self::Pep440Pre),
        ("pep440-old", Self::Pep440Old),
        ("git-describe", Self::GitDescribe),
        ("git-describe-long", Self::GitDescribeLong),
    ];

    /// The style of this name; `pep440` for an empty name and `default`.
    pub fn named(name: &str) -> Option<Self> {
        if matches!(name, "" | "default") {
            return Some(Self::Pep440);
        }
        Self::ALL
            .iter()
            .find_map(|(known, style)| (*known == name).then_some(*style))
    }
}

/// The version in a style.
///
/// # Errors
/// A tag that [`Style::Pep440Pre`] can't count up.
pub fn render(pieces: &Pieces, style: Style, release: Release) -> Result<String, VersionError> {
    let Pieces { distance, short, .. } = pieces;
    let when = |condition: bool, text: &'static str| if condition { text } else { "" };
    let dirty = |text| when(pieces.dirty, text);
    let aside = when(!pieces.on_master, ".dev0");
    // A tag that is no longer than its prefix has no version.
    let Some(tag) = pieces.tag.as_deref().filter(|tag| !tag.is_empty()) else {
        return Ok(match style {
            Style::Pep440 => format!("0+untagged.{distance}.g{short}{}", dirty(".dirty")),
            Style::Pep440Branch => format!("0{aside}+untagged.{distance}.g{short}{}", dirty(".dirty")),
            Style::Pep440Post => format!("0.post{distance}{}+g{short}", dirty(".dev0")),
            Style::Pep440PostBranch => format!("0.post{distance}{aside}+g{short}{}", dirty(".dirty")),
            Style::Pep440Pre => format!("0{}{distance}", release.pre_mark()),
            Style::Pep440Old => format!("0.post{distance}{}", dirty(".dev0")),
            Style::GitDescribe | Style::GitDescribeLong => format!("{short}{}", dirty("-dirty")),
        });
    };
    let moved = *distance > 0;
    let changed = moved || pieces.dirty;
    // A version has one +, after which dots separate.
    let plus = if tag.contains('+') { '.' } else { '+' };
    Ok(match style {
        Style::Pep440 if changed => format!("{tag}{plus}{distance}.g{short}{}", dirty(".dirty")),
        Style::Pep440Branch if changed => format!("{tag}{aside}{plus}{distance}.g{short}{}", dirty(".dirty")),
        Style::Pep440Post if changed => format!("{tag}.post{distance}{}{plus}g{short}", dirty(".dev0")),
        Style::Pep440PostBranch if changed => {
            format!("{tag}.post{distance}{aside}{plus}g{short}{}", dirty(".dirty"))
        }
        Style::Pep440Pre if moved => pre(tag, *distance, release)?,
        Style::Pep440Old if changed => format!("{tag}.post{distance}{}", dirty(".dev0")),
        Style::GitDescribe if !moved => format!("{tag}{}", dirty("-dirty")),
        Style::GitDescribe | Style::GitDescribeLong => format!("{tag}-{distance}-g{short}{}", dirty("-dirty")),
        _ => tag.to_owned(),
    })
}

/// The next post-release of a tag, as a development version.
fn pre(tag: &str, distance: u64, release: Release) -> Result<String, VersionError> {
    if !release.counts_post_releases() {
        return Ok(format!("{tag}{}{distance}", release.pre_mark()));
    }
    let mut parts = tag.split(".post");
    let before = parts.next().unwrap_or_default();
    let next = match (parts.next(), parts.next()) {
        (Some(""), None) => 1,
        (Some(number), None) => number
            .parse::<i64>()
            .ok()
            .and_then(|number| number.checked_add(1))
            .ok_or_else(|| VersionError::PostRelease { tag: tag.to_owned() })?,
        // Without a post-release, or with two, which versioneer ignores.
        _ => 0,
    };
    Ok(format!("{before}.post{next}.dev{distance}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(tag: Option<&str>, distance: u64, dirty: bool, on_master: bool) -> Pieces {
        Pieces {
            tag: tag.map(str::to_owned),
            distance,
            short: "4711abc".to_owned(),
            long: "4711abcdef".to_owned(),
            dirty,
            on_master,
            date: String::new(),
        }
    }

    fn all(pieces: &Pieces) -> Vec<String> {
        Style::ALL
            .iter()
            .map(|(_, style)| render(pieces, *style, Release::NEWEST).unwrap())
            .collect()
    }

    #[test]
    fn a_tagged_commit_is_its_tag() {
        let mut expected = vec!["1.0"; 7];
        expected.push("1.0-0-g4711abc");
        assert_eq!(all(&pieces(Some("1.0"), 0, false, false)), expected);
    }

    #[test]
    fn a_dirty_tree_off_master_says_so() {
        assert_eq!(
            all(&pieces(Some("1.0+x"), 3, true, false)),
            [
                "1.0+x.3.g4711abc.dirty",
                "1.0+x.dev0.3.g4711abc.dirty",
                "1.0+x.post3.dev0.g4711abc",
                "1.0+x.post3.dev0.g4711abc.dirty",
                "1.0+x.post0.dev3",
                "1.0+x.post3.dev0",
                "1.0+x-3-g4711abc-dirty",
                "1.0+x-3-g4711abc-dirty",
            ]
        );
    }

    #[test]
    fn without_a_tag_the_version_begins_with_0() {
        let expected = [
            "0+untagged.3.g4711abc",
            "0+untagged.3.g4711abc",
            "0.post3+g4711abc",
            "0.post3+g4711abc",
            "0.post0.dev3",
            "0.post3",
            "4711abc",
            "4711abc",
        ];
        assert_eq!(all(&pieces(None, 3, false, true)), expected);
        assert_eq!(all(&pieces(Some(""), 3, false, true)), expected);
    }

    #[test]
    fn pep440_pre_counts_post_releases_as_its_release_does() {
        let pre = |tag, release| render(&pieces(Some(tag), 3, false, true), Style::Pep440Pre, release);
        for (tag, release, expected) in [
            ("1.0.post4", Release::NEWEST, "1.0.post5.dev3"),
            ("1.0.post", Release::NEWEST, "1.0.post1.dev3"),
            ("1.0.post1.post2", Release::NEWEST, "1.0.post0.dev3"),
            ("1.0.post4", Release(0, 20), "1.0.post4.post0.dev3"),
            ("1.0", Release(0, 18), "1.0.post.dev3"),
        ] {
            assert_eq!(pre(tag, release).unwrap(), expected);
        }
        assert!(pre("1.0.postx", Release::NEWEST).is_err());
    }

    #[test]
    fn styles_have_names() {
        assert_eq!(Style::named(""), Some(Style::Pep440));
        assert_eq!(Style::named("default"), Some(Style::Pep440));
        assert_eq!(Style::named("pep440-old"), Some(Style::Pep440Old));
        assert_eq!(Style::named("PEP440"), None);
    }
}
