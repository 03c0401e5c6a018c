//! Specs of both forms, in the shapes that public ones have, and what is wrong with others.

use std::collections::BTreeSet;

use serde_json::Value;

use super::*;

fn read(text: &str) -> Spec {
    Spec::parse(text, Path::new("images/spec.yml")).unwrap_or_else(|error| panic!("{}", error.with_causes()))
}

#[track_caller]
fn assert_refused(text: &str, message: &str, hint: Option<&str>) {
    let error = Spec::parse(text, Path::new("images/spec.yml")).unwrap_err();
    assert_eq!((error.to_string().as_str(), error.hint_text()), (message, hint));
}

const NEWER: &str = "\
root: ground

images:
  ground:
    image_name: registry.example/farm/ground
    build_args:
      RUNTIME: python-3.12.1
      RUNTIME_SHORT: \"3.12\"
      HUB: 4.1.5
    info_cmds: [SYSTEM, PACKAGES]

  barn:
    image_name: registry.example/farm/barn
    depend_on: ground
    integration_tests: true
    info_cmds: [SYSTEM]
    prune: true

  silo:
    image_name: registry.example/farm/silo
    depend_on: ground
    integration_tests: false
    prune: false # a remark
    #prepull: false

tag:
  prefix: 2023.10

all_info_cmds:
  SYSTEM:
    description: The system
    command: uname -a
  PACKAGES:
    description: Packages
    command: bash -c 'list | grep \"a\\|b\"'
";

const OLDER: &str = "\
images:
  ground:
    image_name: farm/ground
    dbuild_env:
      common:
        SHARED: yes
      PY38:
        RUNTIME: python-3.8.10
        SHARED: none
      PY39:
        RUNTIME: '3.90'
    manifests: [SYSTEM]

  barn:
    image_name: farm/Barn
    depend_on: ground
    manifests: []

  silo:
    image_name: farm/silo
    depend_on: ground
    skip_plans: ['PY39']

plans:
  PY39:
    tag_prefix: 2021.30
    tag_stable_postfix: -good
  PY38:

manifests:
  SYSTEM:
    description: The system
    command: uname -o
";

#[test]
fn the_newer_form_is_read_as_it_is_written() {
    let spec = read(NEWER);
    assert_eq!(spec.roots, ["ground"]);
    let names: Vec<&str> = spec.images.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["ground", "barn", "silo"]);
    let ground = spec.image("ground").unwrap();
    assert_eq!(ground.image_name.as_deref(), Some("registry.example/farm/ground"));
    let arguments: Vec<_> = ground.arguments("2023.10").into_iter().collect();
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(
        arguments,
        [
            pair("HUB", "4.1.5"),
            pair("RUNTIME", "python-3.12.1"),
            pair("RUNTIME_SHORT", "3.12")
        ]
    );
    assert_eq!(ground.info_cmds, ["SYSTEM", "PACKAGES"]);
    let barn = spec.image("barn").unwrap();
    assert_eq!(barn.depend_on.as_deref(), Some("ground"));
    assert!(barn.integration_tests && barn.prune);
    assert_eq!(barn.prepull, None);
    assert_eq!(spec.plans, [PlanSpec::of_prefix("2023.10")]);
    assert_eq!(spec.plans[0].prefix.as_deref(), Some("2023.10"));
    assert_eq!(spec.info_cmds["PACKAGES"].command, r#"bash -c 'list | grep "a\|b"'"#);
}

#[test]
fn the_older_form_has_plans_with_arguments_of_their_own() {
    let spec = read(OLDER);
    let plan = |name: &str, prefix: Option<&str>, stable: &str| PlanSpec {
        name: name.to_owned(),
        prefix: prefix.map(str::to_owned),
        stable: stable.to_owned(),
    };
    assert_eq!(
        spec.plans,
        [plan("PY39", Some("2021.30"), "-good"), plan("PY38", None, "-stable")]
    );
    let ground = spec.image("ground").unwrap();
    let of = |plan: &str| ground.arguments(plan).into_values().collect::<Vec<_>>();
    assert_eq!(of("PY38"), ["python-3.8.10", "none"]);
    assert_eq!(of("PY39"), ["3.90", "yes"]);
    assert_eq!(ground.info_cmds, ["SYSTEM"]);
    assert_eq!(spec.image("silo").unwrap().skip_plans, ["PY39"]);
    // The same under their other name.
    let renamed = read(&OLDER.replace("plans:\n  PY39:", "tags:\n  PY39:"));
    assert_eq!(renamed.plans, spec.plans);
}

#[test]
fn our_own_keys_stand_beside_theirs() {
    let spec = read(
        "root: [a, b]\nparallel: true\ntag: {prefix: [1.10, 2.0], sha: true}\nimages:\n  a:\n    dockerfile: D\n    \
         platforms: linux/arm64\n    tags:\n    - {name: python, command: python --version}\n  b: \n",
    );
    assert_eq!(spec.roots, ["a", "b"]);
    assert!(spec.parallel && spec.tag_sha);
    let prefixes: Vec<_> = spec.plans.iter().map(|plan| plan.name.as_str()).collect();
    assert_eq!(prefixes, ["1.10", "2.0"]);
    let a = spec.image("a").unwrap();
    assert_eq!((a.dockerfile.as_deref(), a.platforms.len()), (Some("D"), 1));
    assert_eq!(a.tags[0].name, "python");
    assert_eq!(spec.image("b"), Some(&ImageSpec::default()));
}

#[test]
fn errors_have_file_line_and_column() {
    assert_refused(
        "images:\n  a:\n    image_nam: x\n",
        "images/spec.yml:3:5: there is no key \"image_nam\" in images.a",
        Some("did you mean image_name?"),
    );
    assert_refused(
        "images: {a: {}}\nzzzzzz: 1\n",
        "images/spec.yml:2:1: there is no key \"zzzzzz\"",
        Some("the keys here are root, images, tag, all_info_cmds, plans, tags, manifests, parallel"),
    );
    assert_refused(
        "images:\n  a:\n    prune: perhaps\n",
        "images/spec.yml:3:12: \"perhaps\" is neither true nor false in images.a.prune",
        None,
    );
    assert_refused(
        "images:\n- a\n",
        "images/spec.yml:2:1: invalid type: sequence, expected names with values in images",
        None,
    );
    assert_refused(
        "images:\n  a: b\n",
        "images/spec.yml:2:6: here go keys with values, not \"b\" in images.a",
        None,
    );
    assert_refused(
        "images: [\n",
        "images/spec.yml:2:1: did not find expected node content",
        None,
    );
    assert_refused(
        "tag: {prefix: 1}\n",
        "images/spec.yml:1:1: images names no image",
        Some("images: {base: {image_name: team/base}}, with a directory base/ beside spec.yml"),
    );
    assert_refused(
        "all_info_cmds: {SYSTEM: {description: x}}\nimages: {a: {}}\n",
        "images/spec.yml:1:25: the key \"command\" is missing in all_info_cmds.SYSTEM",
        None,
    );
}

#[test]
fn names_that_lead_nowhere_are_refused() {
    assert_refused(
        "images:\n  a:\n    info_cmds: [SYSTEN]\nall_info_cmds: {SYSTEM: {command: x}}\n",
        "images/spec.yml:3:17: there is no command \"SYSTEN\"",
        Some("did you mean SYSTEM?"),
    );
    assert_refused(
        "images:\n  a:\n    skip_plans: [X]\nplans: {PY38: {}}\n",
        "images/spec.yml:3:18: there is no plan \"X\"",
        Some("there is PY38"),
    );
    assert_refused(
        "images:\n  a:\n    dbuild_env:\n      PY39: {A: b}\nplans: {PY38: {}}\n",
        "images/spec.yml:4:7: there is no plan \"PY39\"",
        Some("did you mean PY38?"),
    );
    assert_refused(
        "images:\n  ../a: {}\n",
        "images/spec.yml:2:3: \"../a\" is not the name of a directory beside spec.yml",
        None,
    );
    assert_refused(
        "images: {a: {}}\nplans: {P: {}}\ntag: {prefix: 1}\n",
        "images/spec.yml:3:7: plans and tag.prefix say the same twice",
        Some("keep one of them"),
    );
}

/// The keys that a part of the file may have, as serde knows them.
fn keys<T: for<'n> Deserialize<'n>>() -> BTreeSet<&'static str> {
    let wrong = Node::Map(vec![("!".to_owned(), Node::Empty)]);
    let fault = T::deserialize(&wrong).err().map(|fault: Fault| fault.known);
    fault.unwrap_or_default().iter().copied().collect()
}

#[test]
fn the_schema_for_editors_has_the_same_keys() {
    let schema: Value = serde_json::from_str(include_str!("../../../../docs/spec.schema.json")).unwrap();
    let assert_keys = |place: &str, expected: BTreeSet<&'static str>| {
        let part = schema.pointer(place).unwrap_or_else(|| panic!("{place} is missing"));
        let known: BTreeSet<&str> = part["properties"]
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        assert_eq!(known, expected, "{place}");
        assert_eq!(part["additionalProperties"], Value::Bool(false), "{place}");
        let properties = part["properties"].as_object().unwrap();
        for (key, property) in properties {
            assert!(property["description"].is_string(), "{place}/{key} is not described");
        }
    };
    assert_keys("", keys::<SpecFile>());
    assert_keys("/$defs/image", keys::<ImageSpec>());
    assert_keys("/$defs/tag", keys::<TagSection>());
    assert_keys("/$defs/plan", keys::<PlanSection>());
    assert_keys("/$defs/infoCommand", keys::<InfoCommand>());
    assert_keys("/$defs/tagCommand", keys::<TagCommand>());
}

#[test]
fn brackets_in_brackets_end_before_the_scanner_takes_minutes() {
    for opening in ["[", "{a: ", "]["] {
        let text = format!("images: {}", opening.repeat(200_000));
        let error = Spec::parse(&text, Path::new("spec.yml")).unwrap_err().to_string();
        assert!(error.starts_with("spec.yml"), "{error}");
    }
    let deep = format!("images: {}", "[".repeat(9_000));
    assert!(Spec::parse(&deep, Path::new("spec.yml")).is_err());
}
