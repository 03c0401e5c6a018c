//! The pages of a list: the `Link` header (RFC 8288; distribution specification, "Listing Tags").

/// The most bytes of one page.
pub(crate) const PAGE: usize = 4 * 1024 * 1024;
/// The most bytes of all pages of one list together: more than a hundred thousand tags of the longest kind have.
pub(crate) const LIST: usize = 16 * 1024 * 1024;

/// The target of the link to the next page in a `Link` header.
pub fn next_page(header: &str) -> Option<&str> {
    let mut rest = header;
    while let Some((_, after)) = rest.split_once('<') {
        let (target, after) = after.split_once('>')?;
        let end = after.find('<').unwrap_or(after.len());
        let (parameters, others) = after.split_at_checked(end)?;
        let is_next = parameters.split([';', ',']).any(|parameter| {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            name.trim().eq_ignore_ascii_case("rel") && value.trim().trim_matches('"').eq_ignore_ascii_case("next")
        });
        if is_next {
            return Some(target);
        }
        rest = others;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_found() {
        for (header, target) in [
            (
                r#"</v2/a/tags/list?n=2&last=b>; rel="next""#,
                Some("/v2/a/tags/list?n=2&last=b"),
            ),
            (r#"<a>; rel="prev", <b>; x=1; rel=next"#, Some("b")),
            (r#"<a>; title="x"; rel="prev""#, None),
            ("<a", None),
            ("", None),
        ] {
            assert_eq!(next_page(header), target, "{header}");
        }
    }
}
