//! Any text is read as a spec.yml, or refused with the place in it; what was read has images and plans, and names that lead
//! somewhere.

use std::path::Path;

use dockerutils_stack::spec::Spec;

pub(crate) fn fuzz(text: &str) {
    match Spec::parse(text, Path::new("images/spec.yml")) {
        Ok(spec) => {
            assert!(!spec.images.is_empty() && !spec.plans.is_empty());
            for (name, image) in &spec.images {
                assert!(!name.contains('/') && !name.starts_with('.'), "{name}");
                assert!(spec.image(name).is_some());
                assert!(image.info_cmds.iter().all(|command| spec.info_cmds.contains_key(command)));
                for plan in &spec.plans {
                    let _ = image.arguments(&plan.name);
                }
            }
            for plan in spec.plans.clone() {
                let mut one = spec.clone();
                one.keep_plan(&plan.name).expect("it is one of its plans");
                assert!(one.plans.iter().all(|kept| kept.name == plan.name));
            }
        }
        Err(error) => {
            let message = error.to_string();
            assert!(message.starts_with("images/spec.yml"), "{message}");
        }
    }
}
