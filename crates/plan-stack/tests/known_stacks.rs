//! Stacks that others have: their directories, their FROM lines and their `spec.yml` are planned unchanged.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a harness fails its test by panicking"
)]

use std::path::Path;

use dockerutils_test_support::{Reply, Sandbox, ScriptedEngine};
use serde_json::json;

/// A registry that has these images, and no other; in a path, the API's `/v2` is left out.
fn registry(bases: &[&str]) -> ScriptedEngine {
    let blob = json!({ "mediaType": "application/vnd.oci.image.config.v1+json", "size": 2,
        "digest": "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a" });
    let manifest = json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": blob,
        "layers": [] });
    let absent = json!({ "errors": [{ "code": "MANIFEST_UNKNOWN", "message": "manifest unknown" }] });
    let registry = ScriptedEngine::start().on("GET", "/", Reply::json(200, &json!({})));
    let registry = bases.iter().fold(registry, |registry, base| {
        let reply = Reply::bytes(manifest.to_string())
            .header("Content-Type", "application/vnd.oci.image.manifest.v1+json")
            .header(
                "Docker-Content-Digest",
                "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
            );
        registry.on("HEAD", base, reply)
    });
    registry.on("GET", "/*/*/manifests/*", Reply::json(404, &absent))
}

/// The plan of a sandbox: each image with what is done, and its parent.
fn planned(sandbox: &Sandbox) -> Vec<String> {
    let commit = "git init -q -b main; git add -A; git -c user.name=ann -c user.email=ann@example.org commit -qm first";
    sandbox
        .program("/bin/sh")
        .args(["-ec", commit])
        .any_stdout()
        .any_stderr()
        .run();
    let outcome = sandbox.command("plan-stack").arg("--json").any_stdout().run();
    let plan = outcome.json();
    assert_eq!(plan["notes"], json!([]));
    let images = plan["images"].as_array().unwrap().iter();
    images
        .map(|image| {
            let word = |name: &str| image[name].as_str().unwrap_or("-").to_owned();
            format!("{} {} {}", word("image"), word("action"), word("parent"))
        })
        .collect()
}

/// The file in a guide that has this title.
fn in_guide(page: &str, title: &str) -> String {
    let guides = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/guides");
    let text = std::fs::read_to_string(guides.join(page)).unwrap();
    let (_, rest) = text.split_once(&format!(" title=\"{title}\"\n")).unwrap();
    rest.split_once("\n```").unwrap().0.to_owned() + "\n"
}

#[test]
fn jupyters_docker_stacks_are_planned_by_the_spec_of_the_guide() {
    let registry = registry(&["/library/ubuntu/manifests/24.04"]);
    let address = registry.tcp();
    let spec = in_guide("stacks-from-docker-stacks.md", "images/spec.yml");
    let spec = spec
        .replace("quay.io", &address)
        .replace("ubuntu:24.04", &format!("{address}/library/ubuntu:24.04"));
    let parents = [
        ("base-notebook", "docker-stacks-foundation"),
        ("minimal-notebook", "base-notebook"),
        ("scipy-notebook", "minimal-notebook"),
        ("r-notebook", "minimal-notebook"),
        ("julia-notebook", "minimal-notebook"),
        ("tensorflow-notebook", "scipy-notebook"),
        ("pytorch-notebook", "scipy-notebook"),
        ("datascience-notebook", "scipy-notebook"),
        ("pyspark-notebook", "scipy-notebook"),
        ("all-spark-notebook", "pyspark-notebook"),
    ];
    let foundation = "ARG ROOT_IMAGE=ubuntu:24.04\n\nFROM $ROOT_IMAGE\nARG NB_USER=\"jovyan\"\nSHELL [\"/bin/bash\", \"-o\", \"pipefail\", \"-c\"]\n\
                      COPY --chmod=755 fix-permissions /usr/local/bin/fix-permissions\nCOPY run-hooks.py start.sh /usr/local/bin/\n\
                      ENTRYPOINT [\"tini\", \"-g\", \"--\", \"start.sh\"]\n";
    let mut sandbox = Sandbox::new()
        .file("images/spec.yml", spec)
        .file("images/docker-stacks-foundation/Dockerfile", foundation)
        .file("images/docker-stacks-foundation/.dockerignore", "README.md\n");
    for name in ["fix-permissions", "run-hooks.py", "start.sh", "README.md"] {
        sandbox = sandbox.file(&format!("images/docker-stacks-foundation/{name}"), name);
    }
    for (image, parent) in parents {
        sandbox = sandbox
            .file(
                &format!("images/{image}/Dockerfile"),
                format!(
                    "ARG REGISTRY=quay.io\nARG OWNER=jupyter\nARG BASE_IMAGE=$REGISTRY/$OWNER/{parent}\nFROM $BASE_IMAGE\n\nUSER root\nRUN \
                     fix-permissions \"${{CONDA_DIR}}\"\nUSER ${{NB_UID}}\n"
                ),
            )
            .file(&format!("images/{image}/README.md"), image);
    }
    // What is beside: another variant, which is not in the spec.
    let sandbox = sandbox.file("images/pytorch-notebook/cuda12/Dockerfile", "FROM scratch\n");
    let expected: Vec<String> = [("docker-stacks-foundation", "-")]
        .into_iter()
        .chain(parents)
        .map(|(image, parent)| format!("{image} build {parent}"))
        .collect();
    assert_eq!(planned(&sandbox), expected);
}

#[test]
fn both_forms_of_ucsds_spec_are_planned_with_their_directories() {
    let registry = registry(&["/jupyter/datascience-notebook/manifests/python-3.11.8"]);
    let address = registry.tcp();
    let newer = format!(
        "root: datascience-notebook\n\nimages:\n  datascience-notebook:\n    image_name: {address}/ucsd-ets/datascience-notebook\n    \
         build_args:\n      PYTHON_VERSION: python-3.11.8\n      PY_VER_SHORT: \"3.11\"\n      JUPYTERHUB_VERSION: 4.0.2\n    info_cmds: \
         [PY_VER, CONDA_LIST]\n\n  rstudio-notebook:\n    image_name: {address}/ucsd-ets/rstudio-notebook\n    depend_on: \
         datascience-notebook\n    integration_tests: true\n    info_cmds: [PY_VER]\n    prune: true\n\n  scipy-ml-notebook:\n    image_name: \
         {address}/ucsd-ets/scipy-ml-notebook\n    depend_on: datascience-notebook\n    integration_tests: false\n    info_cmds: [PY_VER, \
         CUDA_VERSION]\n    prune: false # a comment\n    #prepull: false\n\ntag:\n  prefix: \"2023.4\"\n\nall_info_cmds:\n  PY_VER:\n    \
         description: Python Version\n    command: python --version\n  CONDA_LIST:\n    description: Conda Packages\n    command: conda \
         list\n  CUDA_VERSION:\n    description: CUDA Version\n    command: bash -c 'conda list | grep \"cuda\\|cudnn\\|nccl\"'\n"
    );
    let older = format!(
        "images:\n  datascience-notebook:\n    image_name: {address}/ucsd-ets/datascience-notebook\n    dbuild_env:\n      common:\n        \
         PY_VER_SHORT: \"3.11\"\n      PYTHON311:\n        PYTHON_VERSION: python-3.11.8\n    manifests: [PY_VER]\n  rstudio-notebook:\n    \
         image_name: {address}/ucsd-ets/rstudio-notebook\n    depend_on: datascience-notebook\n    integration_tests: true\n  \
         scipy-ml-notebook:\n    image_name: {address}/ucsd-ets/scipy-ml-notebook\n    depend_on: datascience-notebook\nplans:\n  \
         PYTHON311:\n    tag_prefix: 2023.4\n    tag_stable_postfix: -stable\nmanifests:\n  PY_VER:\n    description: Python Version\n    \
         command: python --version\n"
    );
    for spec in [newer, older] {
        let child = format!(
            "ARG BASE_TAG=latest\nFROM {address}/ucsd-ets/datascience-notebook:$BASE_TAG\n\nUSER root\nRUN apt-get update\nUSER $NB_UID\n"
        );
        let sandbox = Sandbox::new()
            .file("images/spec.yml", spec)
            .file(
                "images/change_ignore.json",
                "{\"ChangeIgnore\": [\"README.md\"], \"BuildAll\": [\"spec.yml\"]}",
            )
            .file("images/conftest.py", "")
            .file("images/tests_common/test_units.py", "")
            .file(
                "images/datascience-notebook/Dockerfile",
                format!(
                    "ARG PYTHON_VERSION=python-3.9.5\nFROM {address}/jupyter/datascience-notebook:$PYTHON_VERSION\nARG \
                     JUPYTERHUB_VERSION\nCOPY scripts/ /usr/share/datahub/scripts/\n"
                ),
            )
            .file("images/datascience-notebook/scripts/install-all.sh", "")
            .file("images/datascience-notebook/test/test_python.py", "")
            .file("images/datascience-notebook/workflow_tests/test_pandas.py", "")
            .file("images/rstudio-notebook/Dockerfile", child.clone())
            .file("images/rstudio-notebook/integration_tests/test_rstudio_ui.py", "")
            .file("images/scipy-ml-notebook/Dockerfile", child)
            .file("scripts/main.py", "");
        assert_eq!(
            planned(&sandbox),
            [
                "datascience-notebook build -",
                "rstudio-notebook build datascience-notebook",
                "scipy-ml-notebook build datascience-notebook"
            ]
        );
    }
}
