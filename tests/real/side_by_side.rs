//! Commands of one project side by side, as `make -j` starts them: none takes a file from another.

use std::fs;

use dockerutils_test_support::process::capture;
use dockerutils_test_support::{Sandbox, binary};
use dockerutils_tests::site;

const MAKEFILE: &str = "\
.PHONY: all plain-1 plain-2 script-1 script-2 version-1 version-2 version-3 run-1 run-2
all: plain-1 plain-2 script-1 script-2 version-1 version-2 version-3 run-1 run-2
plain-1 plain-2 script-1 script-2:
\t@build-image $@ -q
version-1 version-2 version-3:
\t@genversion
run-1 run-2:
\t@run-image plain-1 -q -c 'grep -q the-index /pip.conf'
";

#[test]
fn make_runs_mixed_commands_of_one_project_at_once() {
    const PROJECT: &str = "rt-make-at-once";
    site::everywhere(|site| {
        let _images = site.images(PROJECT);
        // The RUN makes an image whose packages would come from elsewhere a failure, and not a cached success.
        let dockerfile = |image: &str| {
            format!(
                "FROM dockerutils-lab-base:1\nCOPY pip.conf _version.py.bld /\n\
                 RUN grep -q the-index /pip.conf && grep -q json.loads /_version.py.bld && echo {image}\n"
            )
        };
        let images = ["plain-1", "plain-2", "script-1", "script-2"];
        let scripts = "[script-1]\npre_build_script = ./see\npost_build_script = ./see\n\
                       [script-2]\npre_build_script = ./see\npost_build_script = ./see\n";
        let sandbox = Sandbox::named(PROJECT)
            .file("Makefile", MAKEFILE)
            .file(
                "setup.cfg",
                "[versioneer]\nVCS = git\nversionfile_source = src/_version.py\n",
            )
            .file("docker/dockerutils.cfg", scripts)
            .file("pip.conf.template", "[global]\nindex-url = http://the-index/\n")
            .script("see", "#!/bin/sh\ngrep -q the-index pip.conf\n");
        let sandbox = images.iter().fold(sandbox, |sandbox, image| {
            sandbox.file(&format!("docker/{image}/Dockerfile"), dockerfile(image))
        });
        let history = "git init -q && git add setup.cfg && \
                       git -c user.name=ann -c user.email=ann@example.org commit -qm first && git tag 1.0";
        sandbox.program("/bin/sh").args(["-c", history]).run();
        let programs = binary("build-image");
        let programs = programs.parent().unwrap().display().to_string();
        let path = std::env::var("PATH").unwrap();
        for round in ["1", "2"] {
            let mut make = sandbox
                .program("make")
                .arg("-j8")
                .env("PATH", format!("{programs}:{path}"))
                .env("DOCKER_HOST", &site.engine.host)
                .env("LOGNAME", site.tag())
                .env("USER", site.tag())
                .any_stdout()
                .any_stderr();
            if site.builder == site::EngineBuilder::Classic {
                make = make.env("DOCKER_BUILDKIT", "0");
            }
            make.run();
            for image in images {
                let name = format!("{PROJECT}-{image}:{}", site.tag());
                assert!(site.file(&name, "/pip.conf").contains("the-index"), "{site}: {name}");
                assert!(
                    site.file(&name, "/_version.py.bld").contains("\"1.0\""),
                    "{site}: {name}"
                );
            }
            let names = fs::read_dir(sandbox.project()).unwrap().flatten();
            let mut names: Vec<String> = names
                .map(|entry| entry.file_name().to_string_lossy().into_owned())
                .collect();
            names.sort();
            let expected = [
                ".git",
                "Makefile",
                "_version.py.bld",
                "docker",
                "pip.conf.template",
                "see",
                "setup.cfg",
            ];
            assert_eq!(names, expected, "{site}: round {round}");
            // The second round builds anew, by another version of what it sends.
            sandbox.write("_version.py.bld", "of another time");
        }
        assert!(sandbox.leftovers().is_empty(), "{site}: {:?}", sandbox.leftovers());
        let containers = capture(
            site.docker()
                .args(["ps", "--quiet", "--filter", &format!("name={PROJECT}")]),
        );
        assert!(containers.unwrap().is_empty(), "{site}");
    });
}
