//! Which images and tags a promotion is of.

use super::*;

fn chosen(spec: &str, from: &str, plan: Option<&str>) -> Result<Vec<String>> {
    let spec = Spec::parse(spec, Path::new("spec.yml")).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let args = PromotionArgs {
        from: from.to_owned(),
        plan: plan.map(str::to_owned),
        ..PromotionArgs::default()
    };
    Ok(promoted(&spec, directory.path(), &args)?
        .into_iter()
        .map(|image| image.repository)
        .collect())
}

#[test]
fn the_plan_is_that_of_the_tag() {
    let spec = "images:\n  base: {image_name: r.example/base}\n  leaf: {depend_on: base, skip_plans: [GPU]}\n\
                plans: {CPU: {tag_prefix: 2021.3}, GPU: {tag_prefix: 2021.3-gpu}}\n";
    assert_eq!(chosen(spec, "2021.3-main", None).unwrap(), ["r.example/base", "leaf"]);
    assert_eq!(chosen(spec, "2021.3-gpu-main", None).unwrap(), ["r.example/base"]);
    assert_eq!(chosen(spec, "stable", Some("GPU")).unwrap(), ["r.example/base"]);
    let error = chosen(spec, "stable", None).unwrap_err();
    assert_eq!(error.to_string(), "stable is of none of the plans of spec.yml");
    assert_eq!(error.hint_text(), Some("name the plan: --plan, one of CPU, GPU"));
    assert!(chosen(spec, "2021.3-main", Some("TPU")).is_err());
    assert_eq!(
        chosen("images: {base: {}}\ntag: {prefix: 1}\n", "x", None).unwrap(),
        ["base"]
    );
    let error = chosen("images: {base: {image_name: B}}\n", "x", None).unwrap_err();
    assert_eq!(
        error.to_string(),
        "spec.yml:1:29: \"B\" can't be the name of a repository"
    );
}

#[test]
fn no_image_gets_a_tag_of_another_plan() {
    let spec =
        "images: {base: {image_name: r.example/base}}\nplans: {CPU: {tag_prefix: 2021.3}, GPU: {tag_prefix: 2021.2}}\n";
    let spec = Spec::parse(spec, Path::new("spec.yml")).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let promoted = |to: &str| {
        let args = PromotionArgs {
            from: "2021.3-main".to_owned(),
            to: to.to_owned(),
            ..PromotionArgs::default()
        };
        promoted(&spec, directory.path(), &args).map(|images| images.len())
    };
    for to in ["2021.3-stable", "stable", "2022-stable"] {
        assert_eq!(promoted(to).unwrap(), 1);
    }
    let error = promoted("2021.2-stable").unwrap_err();
    let says = "2021.2-stable is a tag of plan GPU, and 2021.3-main is one of plan CPU";
    assert_eq!(error.to_string(), says);
}

#[test]
fn tags_that_can_not_be_are_refused() {
    let check = |from: &str, to: &str| {
        let args = PromotionArgs {
            from: from.to_owned(),
            to: to.to_owned(),
            ..PromotionArgs::default()
        };
        check_tags(&args).map_err(|error| error.to_string())
    };
    check("2026.3-main", "2026.3-stable").unwrap();
    check("2026.3-stable", "stable").unwrap();
    assert_eq!(check("a/b", "c").unwrap_err(), "\"a/b\" can't be a tag");
    assert_eq!(check("a", "").unwrap_err(), "\"\" can't be a tag");
    assert_eq!(check("a", "a").unwrap_err(), "\"a\" is to get the tag that it has");
    let reserved = format!("sha256-{}", "0".repeat(64));
    assert!(
        check("a", &reserved)
            .unwrap_err()
            .ends_with("is the tag of what is attached to an image")
    );
}

#[test]
fn a_verdict_is_asked_for_of_each_kind_of_tests_that_there_is() {
    use TestKind::{Basic, Integration};
    let spec = "images: {base: {integration_tests: true}, leaf: {integration_tests: true}, twig: {}, far: {integration_tests: true}}\n";
    let spec = Spec::parse(spec, Path::new("spec.yml")).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let make = |folder: &str| std::fs::create_dir_all(directory.path().join(folder)).unwrap();
    let asked = || {
        let images = promoted(&spec, directory.path(), &PromotionArgs::default()).unwrap();
        images.into_iter().map(|image| image.tests).collect::<Vec<_>>()
    };
    // A directory that is there says more than spec.yml; of one that is not, spec.yml is all that is known.
    for folder in ["base", "leaf/integration_tests", "twig/integration_tests", "twig/test"] {
        make(folder);
    }
    assert_eq!(asked(), [vec![], vec![Integration], vec![Basic], vec![Integration]]);
    make("tests_common");
    assert_eq!(
        asked(),
        [
            vec![Basic],
            vec![Basic, Integration],
            vec![Basic],
            vec![Basic, Integration]
        ]
    );
}
