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
fn integration_tests_are_asked_for_where_there_are_some() {
    let spec = "images: {base: {integration_tests: true}, leaf: {integration_tests: true}, twig: {}}\n";
    let spec = Spec::parse(spec, Path::new("spec.yml")).unwrap();
    let directory = tempfile::tempdir().unwrap();
    for image in ["leaf", "twig"] {
        std::fs::create_dir_all(directory.path().join(image).join("integration_tests")).unwrap();
    }
    let images = promoted(&spec, directory.path(), &PromotionArgs::default()).unwrap();
    let asked: Vec<bool> = images.iter().map(|image| image.integration_tests).collect();
    assert_eq!(asked, [false, true, false]);
}
