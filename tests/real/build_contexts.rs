//! The build context arrives as the docker client's does: the same contexts are built with docker and with
//! build-image, and the trees in the images are compared.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, SystemTime};

use dockerutils_test_support::{Invocation, Sandbox};
use dockerutils_tests::far;
use dockerutils_tests::site::{self, EngineBuilder, Site};
use dockerutils_tests::tree::Tree;
use rustix::fs::{CWD, FileType, Mode, mknodat};

/// Builds with both, and compares `/ctx` in what they made.
fn compare(site: &Site, sandbox: &Sandbox, project: &str, images: &[&str]) {
    compare_by(site, sandbox, project, images, &|build_image| build_image);
}

/// [`compare`], where ours is called in some other way.
fn compare_by<'a>(
    site: &Site,
    sandbox: &'a Sandbox,
    project: &str,
    images: &[&str],
    call: &dyn Fn(Invocation<'a>) -> Invocation<'a>,
) {
    let began = SystemTime::now();
    site.docker_builds_the_same(sandbox, project, images, &[]);
    for image in images {
        call(site.build_image(sandbox)).arg(image).any_stdout().run();
        let tree =
            |name: &str| Tree::of(site, &format!("{project}-{name}:{}", site.tag()), "ctx").without_times_since(began);
        let (ours, mut docker) = (tree(image), tree(&format!("reference-{image}")));
        // BuildKit's client makes an empty file of a socket; docker's classic one and ours leave it out.
        docker.0.retain(|path, _| !path.ends_with("/socket"));
        assert!(!docker.0.is_empty(), "{site}: docker's own tree of {image} is empty");
        ours.assert_same(&docker, &format!("{site}: {image}"));
    }
}

/// An engine that counts as far is held to the rules that are read here, and gets the same by them.
fn compare_as_far(site: &Site, sandbox: &Sandbox, project: &str) {
    let tree = || Tree::of(site, &format!("{project}-web:{}", site.tag()), "ctx");
    let before = tree();
    site.build_image(sandbox)
        .env("DOCKER_IP", "192.0.2.1")
        .arg("web")
        .any_stdout()
        .run();
    let far = tree();
    assert!(
        !far.0.is_empty() && far.paths() == before.paths(),
        "{site}: {:?}",
        far.paths()
    );
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn set_time(path: &Path, time: Duration) {
    let file = File::open(path).unwrap();
    file.set_modified(SystemTime::UNIX_EPOCH + time).unwrap();
}

/// Everything that a file system can hold and a context can carry.
fn odd_files(sandbox: Sandbox) -> Sandbox {
    let names = [
        "name with space",
        " leading and trailing ",
        "quote\"d",
        "quote'd",
        "back\\slash",
        "new\nline",
        "tab\there",
        "star*",
        "question?",
        "brackets[a]",
        "#hash",
        "!bang",
        "$dollar",
        "%41percent+plus",
        "ünïcödé-日本語-🦀",
        "combining-e\u{301}",
        "-dash",
        "..dots",
        "~tilde",
    ];
    let sandbox = names
        .iter()
        .fold(sandbox, |sandbox, name| sandbox.file(&format!("names/{name}"), name));
    let deep = (0..40).map(|level| format!("level{level}/")).collect::<String>();
    // fuse-overlayfs, under some engines, wants room for an ending of its own in a name.
    let long = "x".repeat(240);
    let sandbox = sandbox
        .file(&format!("deep/{deep}bottom"), "far down")
        .file(&format!("{long}/{long}"), "a path that no old tar header holds")
        .file("files/empty", "")
        .file(
            "files/big",
            (0..80_000_u32).flat_map(u32::to_le_bytes).collect::<Vec<u8>>(),
        )
        .file("files/one", "1")
        .file("order/a.b", "")
        .file("order/a/b", "")
        .file("order/a-b", "")
        .dir("empty/also empty")
        .symlink("links", "does-not-matter");
    fs::remove_file(sandbox.project().join("links")).unwrap();
    let sandbox = sandbox
        .dir("links")
        .symlink("links/dangling", "no/such/file")
        .symlink("links/absolute", "/etc/passwd")
        .symlink("links/to-file", "../files/one")
        .symlink("links/to-dir", "../files")
        .symlink("links/upwards", "../../../../../etc")
        .symlink("links/loop", "loop")
        .symlink("links/odd", "new\nline 'quoted'");
    let project = sandbox.project().to_owned();
    for mode in [0o000, 0o400, 0o644, 0o755, 0o777, 0o4755, 0o2755, 0o1644, 0o7777] {
        let file = sandbox.write(&format!("modes/{mode:04o}"), format!("{mode:o}"));
        set_mode(&file, mode);
        let folder = project.join(format!("modes/dir{mode:04o}"));
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("inside"), "").unwrap();
        set_mode(&folder, mode | 0o500);
    }
    fs::create_dir(project.join("hard")).unwrap();
    fs::write(project.join("hard/b"), "one inode").unwrap();
    fs::hard_link(project.join("hard/b"), project.join("hard/a")).unwrap();
    let sandbox = sandbox.file("hard-far/a", "another").dir("hard-farther");
    fs::hard_link(project.join("hard-far/a"), project.join("hard-farther/b")).unwrap();
    File::create(project.join("files/sparse"))
        .unwrap()
        .set_len(1 << 20)
        .unwrap();
    mknodat(CWD, project.join("files/fifo"), FileType::Fifo, Mode::from(0o640), 0).unwrap();
    drop(UnixListener::bind(project.join("files/socket")).unwrap());
    set_time(&project.join("files/one"), Duration::new(1_000_000_000, 987_654_321));
    set_time(&project.join("files/big"), Duration::new(4_500_000_000, 1));
    set_time(&project.join("files/empty"), Duration::ZERO);
    set_time(&project.join("empty"), Duration::from_secs(946_684_800));
    sandbox
}

#[test]
fn a_context_of_ones_own_and_a_pip_conf_of_its_template_are_dockers() {
    const PROJECT: &str = "rt-own-context";
    site::everywhere(|site| {
        let _images = site.images(PROJECT);
        let config = "[build_image]\nimages_dir = images\n[web]\ncontext = {image_dir}\n[tool]\n\
                      dockerfile = tool_1.2.Dockerfile\n";
        let sandbox = Sandbox::named(PROJECT)
            .file("docker/dockerutils.cfg", config)
            .file("images/web/Dockerfile", "FROM dockerutils-lab-base:1\nCOPY . /ctx\n")
            .file("images/web/.dockerignore", "*.log\nDockerfile\n")
            .file("images/web/pip.conf.template", "of the image")
            .file("images/web/app/main", "1")
            .file("images/web/a.log", "")
            .file("tool_1.2.Dockerfile", "FROM dockerutils-lab-base:1\nCOPY . /ctx\n")
            .file(".dockerignore", "images/web/app\n")
            .file("pip.conf.template", "of the root");
        set_mode(&sandbox.project().join("images/web/pip.conf.template"), 0o640);
        compare(site, &sandbox, PROJECT, &["web", "tool"]);
        let name = |image: &str| format!("{PROJECT}-{image}:{}", site.tag());
        assert_eq!(site.file(&name("web"), "/ctx/pip.conf"), "of the image", "{site}");
        assert_eq!(site.file(&name("tool"), "/ctx/pip.conf"), "of the root", "{site}");
        // What changed is sent, and what was sent before is not mixed up with another image's.
        sandbox.write("images/web/app/main", "22");
        sandbox.write("images/web/pip.conf.template", "of the image, anew");
        compare(site, &sandbox, PROJECT, &["tool", "web"]);
        assert_eq!(site.file(&name("web"), "/ctx/pip.conf"), "of the image, anew", "{site}");
        assert_eq!(site.file(&name("web"), "/ctx/app/main"), "22", "{site}");
    });
}

#[test]
fn odd_files_arrive_as_dockers() {
    const PROJECT: &str = "rt-odd-files";
    let sandbox = odd_files(
        Sandbox::named(PROJECT)
            .file("docker/whole/Dockerfile", "FROM dockerutils-lab-base:1\nCOPY . /ctx/\n")
            .file(
                "docker/parts/Dockerfile",
                "FROM dockerutils-lab-base:1\n\
                 COPY links/to-file /ctx/file-by-link\n\
                 COPY files/one /ctx/single\n\
                 COPY files/one files/empty /ctx/two/\n\
                 COPY n*s/*e* /ctx/star/\n\
                 COPY names/question[?] /ctx/\n\
                 COPY [\"names/#hash\", \"names/name with space\", \"/ctx/json/\"]\n\
                 COPY --chown=7:8 hard /ctx/owned/\n\
                 COPY empty /ctx/empty/\n\
                 ADD files/../hard/a /ctx/added\n",
            )
            // The classic builder follows no link on the way to a file.
            .file(
                "docker/followed/Dockerfile",
                "FROM dockerutils-lab-base:1\n\
                 COPY links/to-dir/one /ctx/through-a-link\n\
                 COPY links/to-dir/e* /ctx/through-a-link-with-star/\n\
                 COPY links/to-dir /ctx/link-to-folder/\n",
            )
            .file(
                "docker/dockerutils.cfg",
                "[whole]\nbuild_args = --no-cache\n[parts]\nbuild_args = --no-cache\n[followed]\nbuild_args = --no-cache\n",
            ),
    );
    site::everywhere(|site| {
        let _images = site.images(PROJECT);
        compare(
            site,
            &sandbox,
            PROJECT,
            match site.builder {
                EngineBuilder::BuildKit => &["whole", "parts", "followed"],
                EngineBuilder::Classic => &["whole", "parts"],
            },
        );
    });
}

const IGNORE: &str = "\
# a comment, and a line of blanks\n\
   \n\
  *.log  \n\
**/cache\n\
/rooted\n\
build/**\n\
!build/keep\n\
!build/**/kept.*\n\
temp?\n\
**/*.tmp\n\
!**/important.tmp\n\
a/*/c\n\
node_modules/\n\
./dotted/file\n\
up/../folded\n\
doc[s-z]\n\
not-here\\*\n\
 # no comment\n\
.*.swp\n\
linked/inside\n\
docker/*/junk\n";

fn ignored_files(sandbox: Sandbox) -> Sandbox {
    [
        "a.log",
        "sub/a.log",
        "cache/x",
        "sub/cache/x",
        "sub/deep/cache/x/y",
        "rooted/x",
        "sub/rooted/x",
        "build/x",
        "build/keep/x",
        "build/sub/kept.txt",
        "build/sub/other.txt",
        "temp1",
        "temp12",
        "x.tmp",
        "sub/x.tmp",
        "sub/important.tmp",
        "a/b/c/d",
        "a/c",
        "a/b/d",
        "node_modules/x",
        "sub/node_modules/x",
        "dotted/file",
        "dotted/other",
        "folded",
        "docs",
        "doca",
        "not-here*",
        "not-hereX",
        "# no comment",
        "# a comment, and a line of blanks",
        ".x.swp",
        "docker/web/junk/x",
        "docker/web/other",
    ]
    .into_iter()
    .fold(sandbox, |sandbox, name| sandbox.file(name, name))
    .dir("build/empty")
    .symlink("linked", "sub")
}

#[test]
fn dockerignore_leaves_out_what_docker_leaves_out() {
    const PROJECT: &str = "rt-ignored-root";
    let sandbox = ignored_files(
        Sandbox::named(PROJECT)
            .file("docker/web/Dockerfile", "FROM dockerutils-lab-base:1\nCOPY . /ctx/\n")
            .file("docker/dockerutils.cfg", "[web]\nbuild_args = --no-cache\n")
            .file(".dockerignore", format!("\u{feff}{IGNORE}")),
    );
    // The Dockerfile and the list itself may be left out, too.
    let hidden = Sandbox::named("rt-ignored-hidden")
        .file("docker/web/Dockerfile", "FROM dockerutils-lab-base:1\nCOPY . /ctx/\n")
        .file("docker/dockerutils.cfg", "[web]\nbuild_args = --no-cache\n")
        .file(".dockerignore", "docker\n.dockerignore\r\n*.log")
        .file("a.log", "")
        .file("b", "");
    let all_but = Sandbox::named("rt-ignored-all-but")
        .file("docker/web/Dockerfile", "FROM dockerutils-lab-base:1\nCOPY . /ctx/\n")
        .file(".dockerignore", "*\n!src/**/*.rs\n!/exactly/this\n")
        .file("src/a/b/c.rs", "")
        .file("src/a/b/c.o", "")
        .file("exactly/this", "")
        .file("exactly/that", "")
        .file("other/x", "");
    site::everywhere(|site| {
        let _images = [PROJECT, "rt-ignored-hidden", "rt-ignored-all-but"].map(|project| site.images(project));
        compare(site, &sandbox, PROJECT, &["web"]);
        compare(site, &hidden, "rt-ignored-hidden", &["web"]);
        if site.builder == EngineBuilder::BuildKit {
            compare_as_far(site, &sandbox, PROJECT);
            compare_as_far(site, &hidden, "rt-ignored-hidden");
        }
        compare(site, &all_but, "rt-ignored-all-but", &["web"]);
        let tree = Tree::of(site, &format!("{PROJECT}-web:{}", site.tag()), "ctx");
        assert!(tree.0.contains_key("build/keep/x"), "{:?}", tree.paths());
        assert!(!tree.0.contains_key("build/x"), "{:?}", tree.paths());
    });
}

#[test]
fn a_dockerignore_beside_the_dockerfile_goes_before_the_one_in_the_root() {
    const PROJECT: &str = "rt-ignored-beside";
    let sandbox = ignored_files(
        Sandbox::named(PROJECT)
            .file("docker/web/Dockerfile", "FROM dockerutils-lab-base:1\nCOPY . /ctx/\n")
            .file("docker/web/Dockerfile.dockerignore", IGNORE)
            .file("docker/dockerutils.cfg", "[web]\nbuild_args = --no-cache\n")
            .file(".dockerignore", "*\n"),
    );
    // docker's classic client doesn't know such a file; ours gives it the meaning that it has to BuildKit.
    site::on_buildkit(|site| {
        let _images = site.images(PROJECT);
        compare(site, &sandbox, PROJECT, &["web"]);
        compare_as_far(site, &sandbox, PROJECT);
    });
    site::on_classic(|site| {
        let _images = site.images(PROJECT);
        site.build_image(&sandbox).arg("web").any_stdout().run();
        let tree = Tree::of(site, &format!("{PROJECT}-web:{}", site.tag()), "ctx");
        assert!(tree.0.contains_key("build/keep/x"), "{:?}", tree.paths());
        assert!(!tree.0.contains_key("build/x"), "{:?}", tree.paths());
    });
}

#[test]
fn a_name_that_is_not_utf8_arrives_or_is_named() {
    const PROJECT: &str = "rt-not-utf8";
    let sandbox = Sandbox::named(PROJECT)
        .file("docker/web/Dockerfile", "FROM dockerutils-lab-base:1\nCOPY . /ctx/\n")
        .file("docker/dockerutils.cfg", "[web]\nbuild_args = --no-cache\n");
    let name = OsStr::from_bytes(b"caf\xe9");
    fs::write(sandbox.project().join(name), "latin 1").unwrap();
    site::everywhere(|site| {
        let _images = site.images(PROJECT);
        let outcome = site.build_image(&sandbox).arg("web").spawn().wait();
        if outcome.code == 0 {
            let tree = Tree::of(site, &format!("{PROJECT}-web:{}", site.tag()), "ctx");
            assert!(tree.0.contains_key("caf\\xe9"), "{site}: {:?}", tree.paths());
        } else {
            // No docker client gets such a name into a newer BuildKit: its messages hold UTF-8 only.
            assert!(outcome.stderr.contains("caf"), "{site}: {outcome}");
            assert_eq!(outcome.code, 1, "{site}: {outcome}");
            assert_eq!(site.builder, EngineBuilder::BuildKit, "{site}: {outcome}");
        }
    });
}

#[test]
fn only_what_changed_is_sent() {
    const PROJECT: &str = "rt-incremental";
    // No engine has seen this content, or its build cache would have it.
    let now = SystemTime::now();
    let new = format!("{now:?} {}", std::process::id());
    site::on_buildkit(|site| {
        let _images = site.images(PROJECT);
        let sandbox = (0..200).fold(
            Sandbox::named(PROJECT).file("docker/web/Dockerfile", "FROM dockerutils-lab-base:1\nCOPY . /ctx/\n"),
            |sandbox, number| sandbox.file(&format!("files/{number}"), vec![b'x'; 20_000]),
        );
        sandbox.write("new", &new);
        let build = || {
            let report = site
                .build_image(&sandbox)
                .args(["web", "--json"])
                .any_stdout()
                .run()
                .json();
            let image = &report["images"][0];
            (
                image["context_bytes"].as_u64().unwrap(),
                image["status"].as_str().unwrap().to_owned(),
                image["id"].as_str().unwrap().to_owned(),
            )
        };
        let (cold, status, first) = build();
        assert!(cold > 4_000_000, "{site}: {cold} bytes");
        assert_eq!(status, "built", "{site}");
        let (unchanged, status, second) = build();
        assert!(unchanged < 30_000, "{site}: {unchanged} bytes");
        assert_eq!(status, "cached", "{site}");
        assert_eq!(second, first, "{site}");
        sandbox.write("files/7", "changed");
        let (one, status, third) = build();
        assert!(one < 30_000, "{site}: {one} bytes");
        assert_eq!(status, "built", "{site}");
        assert_ne!(third, first, "{site}");
        let image = format!("{PROJECT}-web:{}", site.tag());
        assert_eq!(site.file(&image, "/ctx/files/7"), "changed", "{site}");
        assert_eq!(site.inspect(&image)["Id"], third, "{site}");
        fs::remove_file(sandbox.project().join("files/8")).unwrap();
        build();
        let files = site.paths(&image, "/ctx/files");
        assert!(
            files.contains(&"7".to_owned()) && !files.contains(&"8".to_owned()),
            "{site}: {files:?}"
        );
    });
}

#[test]
fn dockerfiles_that_agree_in_size_and_time_are_told_apart() {
    const PROJECT: &str = "rt-same-time";
    let dockerfile = |word: &str| format!("FROM dockerutils-lab-base:1\nLABEL which={word}\n");
    let sandbox = Sandbox::named(PROJECT)
        .file("docker/one/Dockerfile", dockerfile("one"))
        .file("docker/two/Dockerfile", dockerfile("two"));
    for image in ["one", "two"] {
        let file = sandbox.project().join(format!("docker/{image}/Dockerfile"));
        set_time(&file, Duration::from_secs(1_600_000_000));
    }
    site::everywhere(|site| {
        let _images = site.images(PROJECT);
        for image in ["one", "two"] {
            site.build_image(&sandbox).arg(image).any_stdout().run();
            let built = site.inspect(&format!("{PROJECT}-{image}:{}", site.tag()));
            assert_eq!(built["Config"]["Labels"]["which"], image, "{site}");
        }
    });
}

#[test]
fn to_a_far_engine_the_context_goes_compressed_and_arrives_as_dockers() {
    const PROJECT: &str = "rt-far-context";
    const TEXT: usize = 8_000_000;
    // No engine has seen this content, or it would not be sent.
    let new = format!("{:?} {}\n", SystemTime::now(), std::process::id());
    let noise = (0..1_000_000_u64).map(|at| (at.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8);
    let sandbox = odd_files(Sandbox::named(PROJECT))
        .file("docker/web/Dockerfile", "FROM dockerutils-lab-base:1\nCOPY . /ctx/\n")
        .file("noise", noise.collect::<Vec<u8>>())
        .file("text", new.repeat(TEXT / new.len()));
    site::on_buildkit(|site| {
        let _images = site.images(PROJECT);
        let (link, address) = far::link(&site.engine, 20_000_000);
        compare_by(site, &sandbox, PROJECT, &["web"], &|build_image| {
            build_image
                .env("DOCKER_HOST", &address)
                // As `source dock` sets it: the near end of the link looks like an engine of this machine.
                .env("DOCKER_IP", "192.0.2.1")
        });
        let sent = link.bytes().0;
        // An engine before 23 takes no messages that are compressed.
        let compressed = !site.engine.version.starts_with("20.10");
        assert_eq!(sent < TEXT as u64 / 2, compressed, "{site}: {sent} bytes");
    });
}
