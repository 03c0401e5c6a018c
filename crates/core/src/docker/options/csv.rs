//! One record of comma-separated values, as Go's `encoding/csv` reads the values of `--mount`, `--network`, `--gpus`,
//! `--secret` and `--cache-from`.

/// The fields of the first record of `text`.
pub(in crate::docker) fn record(text: &str) -> Result<Vec<String>, String> {
    // Go reads a line of a file: `\r\n` is one line break there, and blank lines are skipped.
    let text = text.replace("\r\n", "\n");
    let text = text.strip_suffix('\r').unwrap_or(&text).trim_start_matches('\n');
    if text.is_empty() {
        return Err("is empty".to_owned());
    }
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        let (field, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_field(quoted)?,
            None => plain_field(rest)?,
        };
        fields.push(field);
        match after.strip_prefix(',') {
            Some(next) => rest = next,
            None => return Ok(fields),
        }
    }
}

fn plain_field(rest: &str) -> Result<(String, &str), String> {
    let (field, after) = rest.split_at(rest.find([',', '\n']).unwrap_or(rest.len()));
    if field.contains('"') {
        return Err("has a quote within a field that is not quoted".to_owned());
    }
    Ok((field.to_owned(), after))
}

/// `rest` begins after the opening quote; a doubled quote stands for one.
fn quoted_field(mut rest: &str) -> Result<(String, &str), String> {
    let mut field = String::new();
    while let Some((part, after)) = rest.split_once('"') {
        field.push_str(part);
        if after.is_empty() || after.starts_with([',', '\n']) {
            return Ok((field, after));
        }
        match after.strip_prefix('"') {
            Some(next) => rest = next,
            None => return Err("has text after a closing quote".to_owned()),
        }
        field.push('"');
    }
    Err("has a quote that is never closed".to_owned())
}

#[cfg(test)]
mod tests {
    use super::record;

    #[test]
    fn fields_are_split_as_go_splits_them() {
        for (text, fields) in [
            ("a", vec!["a"]),
            ("a,b", vec!["a", "b"]),
            ("a,", vec!["a", ""]),
            (",", vec!["", ""]),
            ("\"a,b\",c", vec!["a,b", "c"]),
            ("\"a\"\"b\"", vec!["a\"b"]),
            ("\"a\nb\",c\nd", vec!["a\nb", "c"]),
            ("\n\na, b\nc", vec!["a", " b"]),
        ] {
            assert_eq!(record(text).unwrap(), fields, "{text:?}");
        }
        for text in ["", "\n", "a\"b", "\"a", "\"a\"b", "a, \"b\""] {
            assert!(record(text).is_err(), "{text:?}");
        }
    }
}
