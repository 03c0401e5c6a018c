//! What a page says, and that nothing that an image says can leave its place on it.

use std::collections::BTreeMap;

use dockerutils_core::docker::images::image_history::HistoryStep;
use proptest::prelude::*;
use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

use super::packages::{PackageManager, PackageVersions};
use super::*;

/// A description in which each text of others is this one.
fn described(text: &str) -> Description {
    let owned = || text.to_owned();
    let versions = || PackageVersions::from([(owned(), owned())]);
    let lists = PackageLists {
        lists: BTreeMap::from([(PackageManager::Pip, versions())]),
        unknown: [PackageManager::Apt].into(),
    };
    Description {
        label: owned(),
        reference: owned(),
        digest: Some(owned()),
        base: vec![owned(), owned()],
        image: ImageHistory {
            id: owned(),
            platform: owned(),
            created: Some(owned()),
            size: 5_000_000,
            repo_digests: vec![owned()],
            labels: BTreeMap::from([(owned(), owned())]),
            layers: vec![HistoryStep {
                instruction: owned(),
                size: 1,
            }],
        },
        tags: vec![owned()],
        outputs: vec![InfoOutput {
            name: owned(),
            description: owned(),
            command: owned(),
            output: owned(),
            note: Some(owned()),
        }],
        differences: vec![Difference {
            from: owned(),
            packages: lists.since(&PackageLists::default()),
        }],
        packages: lists,
        notes: vec![owned()],
    }
}

/// What a page is made of, as a reader of CommonMark with GitHub's tables has it: everything but the texts.
fn skeleton(page: &str) -> Vec<String> {
    let options = Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH | Options::ENABLE_TASKLISTS;
    let mut in_fence = false;
    let mut parts: Vec<String> = Vec::new();
    for event in Parser::new_ext(page, options) {
        match event {
            Event::Start(Tag::CodeBlock(kind)) => {
                in_fence = true;
                parts.push(format!("fence {kind:?}"));
            }
            Event::End(TagEnd::CodeBlock) => in_fence = false,
            Event::Text(_) => {}
            // The title of a section is in HTML, with nothing in it that HTML obeys.
            Event::Html(html) if html.starts_with("<summary>") => {
                let title = html.trim_end();
                let title = title
                    .strip_prefix("<summary>")
                    .and_then(|title| title.strip_suffix("</summary>"));
                assert!(!title.unwrap().contains(['<', '>', '"', '`']), "{html}");
                parts.push("summary".to_owned());
            }
            event => {
                assert!(!in_fence, "{event:?} in a fence");
                parts.push(format!("{event:?}"));
            }
        }
    }
    parts
}

/// Texts that try to leave their place.
fn hostile() -> impl Strategy<Value = String> {
    let pieces = prop::sample::select(vec![
        "```",
        "````",
        "~~~",
        "\n",
        "\n\n",
        "\r",
        "|",
        "\\",
        "\\|",
        "</details>",
        "</summary>",
        "<b>",
        "<!--",
        "-->",
        "<script>",
        "&lt;",
        "&#60;",
        "[a](b)",
        "![a](b)",
        "# ",
        "- ",
        "1. ",
        "> ",
        "---",
        "===",
        "    ",
        "\t",
        "*",
        "_",
        "__",
        "~~",
        "`",
        "``",
        "$",
        "]: x",
        "https://a.example",
        "\u{202e}",
        "\u{2028}",
        "\0",
        "\x1b[2J",
        "x",
        "ä",
        " ",
        "<?",
        "<![CDATA[",
        "@ann",
        "[x]: y",
        "]",
        "\"",
        "'",
    ]);
    prop::collection::vec(pieces, 1..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn no_text_of_an_image_leaves_its_place(text in prop_oneof![hostile(), any::<String>()]) {
        // A text that is not empty, so that the same parts are there.
        let text = format!("x{text}x");
        prop_assert_eq!(skeleton(&described(&text).markdown()), skeleton(&described("xx").markdown()));
        let pages = |text: &str| page::index(&[("page.md".to_owned(), described(text))]);
        prop_assert_eq!(skeleton(&pages(&text)), skeleton(&pages("xx")));
        // Nor does it on a terminal, on which the page is shown.
        let page = described(&text).markdown();
        prop_assert!(!page.chars().any(|c| dockerutils_core::output::is_invisible(c) && c != '\n' && c != '\t'));
    }
}

#[test]
fn a_page_has_all_that_is_known_of_an_image() {
    let description = Description {
        label: "science".to_owned(),
        reference: "ghcr.io/team/science:2026.10-main".to_owned(),
        digest: Some("sha256:12".to_owned()),
        base: vec!["ghcr.io/team/base:2026.10-main".to_owned()],
        tags: vec!["python-3.13".to_owned()],
        outputs: vec![InfoOutput {
            name: "PY_VER".to_owned(),
            description: "Python Version".to_owned(),
            command: "python --version".to_owned(),
            output: "Python 3.13.1".to_owned(),
            note: None,
        }],
        ..described("x")
    };
    let page = description.markdown();
    for expected in [
        "# science\n",
        "| Reference | <code>ghcr.io/team/science:2026.10-main</code> |\n",
        "| Digest | <code>sha256:12</code> |\n",
        "| Made from | <code>ghcr.io/team/base:2026.10-main</code> |\n",
        "| Size | 5.0 MB |\n",
        "| Tags | <code>python-3.13</code> |\n",
        "| Packages | pip: 1, apt: not known |\n",
        "## Packages since x\n\n1 came, 0 went, 0 changed.\n",
        "<summary>Python Version</summary>\n\n<code>python --version</code>\n\n```text\nPython 3.13.1\n```\n\n</details>",
        "<summary>1 label</summary>",
    ] {
        assert!(page.contains(expected), "{expected}\n{page}");
    }
    let read: Description = serde_json::from_str(&description.json().unwrap()).unwrap();
    assert_eq!(read, description);
}

#[test]
fn the_index_lists_the_pages_of_the_folder_and_nothing_else() {
    let home = tempfile::tempdir().unwrap();
    let artifacts = Artifacts::at(home.path());
    for label in ["science", "base"] {
        let description = Description {
            label: label.to_owned(),
            reference: format!("ghcr.io/team/{label}:1-main"),
            ..Description::default()
        };
        let reference = &description.reference;
        artifacts::write(&artifacts.page(reference), description.markdown()).unwrap();
        artifacts::write(&artifacts.page_json(reference), description.json().unwrap()).unwrap();
    }
    let folder = artifacts.manifests();
    // A stranger's: of another form, and of another image than its name says.
    fs::write(folder.join("odd.json"), "[1]").unwrap();
    fs::copy(
        artifacts.page_json("ghcr.io/team/base:1-main"),
        folder.join("copy.json"),
    )
    .unwrap();
    write_index(&artifacts).unwrap();
    let index = fs::read_to_string(folder.join(INDEX)).unwrap();
    let rows: Vec<&str> = index
        .lines()
        .skip(4)
        .filter_map(|line| line.split(" | ").next())
        .collect();
    assert_eq!(
        rows,
        [
            "| [base](ghcr.io-team-base-1-main.md)",
            "| [science](ghcr.io-team-science-1-main.md)"
        ],
        "{index}"
    );
}

#[test]
fn what_a_command_prints_moves_no_tag_of_others() {
    let made = |spec: &str| {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join("a")).unwrap();
        fs::write(home.path().join("a/Dockerfile"), "FROM scratch\n").unwrap();
        let spec = Spec::parse(spec, Path::new("spec.yml")).unwrap();
        let graph = crate::graph::Graph::read(&spec, home.path()).unwrap();
        let source = crate::tags::TagSource {
            branch: "main".to_owned(),
            base_branch: Some("trunk".to_owned()),
            commit: Some("a1230af00dcafe".to_owned()),
        };
        let target = crate::tags::targets(&spec, &graph, &source).unwrap().0.remove(0);
        (spec, target)
    };
    let (spec, target) = made("tag: {prefix: [2026.1, 2026.2], sha: true}\nimages: {a: {image_name: t/a}}\n");
    let attached = format!("sha256-{}", "5".repeat(64));
    for tag in [
        "2026.1-main",
        "2026.1-release-7",
        "2026.2-main",
        "2026.1-a1230af",
        "2026.2-stable",
        "2026.1",
        "stable",
        "latest",
        &attached,
    ] {
        assert!(others_tag(&spec, &target, "python", tag).is_some(), "{tag}");
    }
    for tag in ["python-3.13", "3.13", "2026.10", "ubuntu-24.04"] {
        assert_eq!(others_tag(&spec, &target, "python", tag), None, "{tag}");
    }
    // Those of a plan that was not chosen are its own, too.
    let mut chosen = spec.clone();
    chosen.keep_plan("2026.1").unwrap();
    for tag in ["2026.2-main", "2026.2-stable"] {
        assert!(others_tag(&chosen, &target, "python", tag).is_some(), "{tag}");
    }
    // Without a prefix, a tag is a branch's name.
    let (spec, target) = made("images: {a: {image_name: t/a}}\n");
    assert_eq!(others_tag(&spec, &target, "python", "python-3.13"), None);
    for tag in ["main", "trunk", "work", "pythonic"] {
        assert!(others_tag(&spec, &target, "python", tag).is_some(), "{tag}");
    }
}
