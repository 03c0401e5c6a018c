//! What git keeps in a project, and what it ignores; what Jupyter keeps beside notebooks.

use super::*;

fn git(root: &Path, words: &[&str]) {
    let mut git = std::process::Command::new("git");
    let git = git.args(["-c", "user.name=Ann", "-c", "user.email=ann@example.com"]);
    assert!(
        git.args(words).current_dir(root).status().unwrap().success(),
        "{words:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn git_stays_on_its_side_unless_asked_and_what_is_there_already_stays() {
    let mut pair = Pair::new(Tools::Machine);
    let (here, there) = (pair.here(), pair.there());
    git(&here, &["init", "--quiet"]);
    // A submodule's is a file. No exception of .dockerignore is for a sync.
    for (path, text) in [
        ("a", "a"),
        ("lib/.git", "gitdir: ../.git/modules/lib\n"),
        (".dockerignore", "x\n!.git\n"),
    ] {
        write(&here, path, text);
    }
    write(&here, ".gitignore", "");
    let up = pair.up().await;
    assert!(up.is_clean(), "{up:?}");
    assert!(!there.join(".git").exists() && !there.join("lib/.git").exists());
    assert!(there.join(".gitignore").exists());
    // One that a container made.
    git(&there, &["init", "--quiet"]);
    write(&there, "lib/.git", "gitdir: /elsewhere\n");
    let before = tree(&here.join(".git"));
    assert!(pair.sync(Direction::Both).await.done.is_empty());
    assert_eq!(tree(&here.join(".git")), before);
    assert_eq!(read(&here, "lib/.git"), "gitdir: ../.git/modules/lib\n");
    fs::remove_dir_all(there.join(".git")).unwrap();
    fs::remove_file(there.join("lib/.git")).unwrap();

    pair.with_git = true;
    assert!(pair.up().await.is_clean());
    assert_eq!(tree(&there.join(".git")), before);
    pair.with_git = false;
    pair.said.lock().unwrap().clear();
    write(&here, ".git/later", "later");
    for _ in 0..2 {
        assert!(
            pair.sync(Direction::Both)
                .await
                .done
                .values()
                .all(|action| *action == Action::Forget)
        );
        assert_eq!(tree(&there.join(".git")), before, "it stays as it was");
    }
    let said = pair.said.lock().unwrap().clone();
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("--with-git keeps it in step again"), "{said:?}");
    // Asked again, it goes on: what is on both sides is compared.
    pair.with_git = true;
    assert!(pair.up().await.is_clean());
    assert_eq!(read(&there, ".git/later"), "later");
}

#[tokio::test(flavor = "multi_thread")]
async fn that_most_of_what_is_sent_is_ignored_by_git_is_said_once() {
    let pair = Pair::new(Tools::Machine);
    let here = pair.here();
    git(&here, &["init", "--quiet"]);
    write(&here, ".gitignore", "node_modules/\n.venv\n*.log\n");
    fs::create_dir_all(here.join("node_modules/x y")).unwrap();
    fs::create_dir_all(here.join(".venv/lib")).unwrap();
    for (path, size) in [
        ("node_modules/x y/large", 3_000_000),
        (".venv/lib/a", 1_000_000),
        ("own", 1_500_000),
        ("a b.log", 10),
    ] {
        fs::write(here.join(path), noise(size, 7)).unwrap();
    }
    let told = |pair: &Pair| {
        let said = pair.said.lock().unwrap();
        said.iter()
            .filter(|line| line.contains(".gitignore"))
            .cloned()
            .collect::<Vec<_>>()
    };
    pair.up().await;
    let said = told(&pair);
    assert_eq!(
        said,
        [
            "4.0 MB of this (3 files) are what .gitignore names. What no container needs stays here by .dockerignore: \
          printf '%s\\n' node_modules .venv 'a b.log' >> .dockerignore"
        ]
    );
    fs::write(here.join("node_modules/again"), noise(5_000_000, 8)).unwrap();
    pair.up().await;
    assert_eq!(told(&pair), said);

    // What git does not ignore is nobody's mistake.
    let pair = Pair::new(Tools::Machine);
    git(&pair.here(), &["init", "--quiet"]);
    write(&pair.here(), ".gitignore", "small\n");
    write(&pair.here(), "small", "small");
    fs::write(pair.here().join("large"), noise(5_000_000, 9)).unwrap();
    pair.up().await;
    assert_eq!(told(&pair), [] as [String; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn checkpoints_of_notebooks_stay_on_their_side_unless_the_project_wants_them() {
    let pair = Pair::new(Tools::Machine);
    let (here, there) = (pair.here(), pair.there());
    write(&here, "a.ipynb", "{}");
    write(&here, "sub/.ipynb_checkpoints/b-checkpoint.ipynb", "ours");
    assert!(pair.up().await.is_clean());
    assert!(there.join("a.ipynb").exists() && !there.join("sub/.ipynb_checkpoints").exists());
    write(&there, ".ipynb_checkpoints/a-checkpoint.ipynb", "theirs");
    assert!(pair.sync(Direction::Both).await.done.is_empty());
    assert!(!here.join(".ipynb_checkpoints").exists());
    write(&here, ".dockerignore", "!**/.ipynb_checkpoints\n");
    assert!(pair.sync(Direction::Both).await.is_clean());
    assert_eq!(read(&here, ".ipynb_checkpoints/a-checkpoint.ipynb"), "theirs");
    assert_eq!(read(&there, "sub/.ipynb_checkpoints/b-checkpoint.ipynb"), "ours");
}
