//! The line of advice for what an image has in vain.

use super::waste::{Waste, WasteCause};

/// Why it is in vain, in a few words.
pub(super) fn why(waste: &Waste, line_of: &impl Fn(usize) -> Option<usize>) -> String {
    let what = waste
        .cache()
        .map(|cache| format!("{}, ", cache.what))
        .unwrap_or_default();
    match waste.cause {
        WasteCause::Deleted(layer) => format!("{what}deleted by {}", named(layer, line_of)),
        WasteCause::Replaced(layer) => format!("{what}written again by {}", named(layer, line_of)),
        WasteCause::Kept => waste.cache().map(|cache| cache.what).unwrap_or_default().to_owned(),
    }
}

/// What helps. `line` is that of the layer which has it.
pub(super) fn advice(waste: &Waste, line: Option<usize>, line_of: &impl Fn(usize) -> Option<usize>) -> String {
    let Some(line) = line else {
        return match waste.cause {
            WasteCause::Kept => "it comes with the base image: ask for a smaller one".to_owned(),
            WasteCause::Deleted(_) | WasteCause::Replaced(_) => {
                "it comes with the base image, which keeps it: leave it alone, or start from a smaller one".to_owned()
            }
        };
    };
    match (waste.cause, waste.cache()) {
        (_, Some(cache)) => format!("line {line}: {}", cache.mend),
        (WasteCause::Deleted(layer), None) => format!(
            "line {line}: delete it in the same RUN ({} comes too late), or write it in an earlier stage",
            named(layer, line_of)
        ),
        (WasteCause::Replaced(layer), None) => format!(
            "line {line}: do there what {} does (COPY has --chown and --chmod), or write it once",
            named(layer, line_of)
        ),
        (WasteCause::Kept, None) => format!("line {line}: delete it there"),
    }
}

fn named(layer: usize, line_of: &impl Fn(usize) -> Option<usize>) -> String {
    match line_of(layer) {
        Some(line) => format!("line {line}"),
        None => format!("layer {}", layer + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_names_the_line_that_is_to_change() {
        let waste = |path: &str, cause| Waste {
            path: path.as_bytes().to_vec(),
            size: 1,
            cause,
        };
        let line_of = |layer: usize| [None, Some(3), Some(7)].get(layer).copied().flatten();
        let deleted = waste("opt/big", WasteCause::Deleted(2));
        assert_eq!(why(&deleted, &line_of), "deleted by line 7");
        assert!(advice(&deleted, Some(3), &line_of).starts_with("line 3: delete it in the same RUN (line 7 comes"));
        let lists = waste("var/lib/apt/lists", WasteCause::Deleted(2));
        assert_eq!(why(&lists, &line_of), "apt's lists of packages, deleted by line 7");
        assert_eq!(
            advice(&lists, Some(3), &line_of),
            "line 3: end that RUN with && rm -rf /var/lib/apt/lists/*"
        );
        assert!(advice(&lists, None, &line_of).contains("base image"));
        assert!(advice(&waste("a", WasteCause::Replaced(2)), Some(3), &line_of).contains("--chown"));
    }
}
