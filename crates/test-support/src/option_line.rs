//! Lines of options, one for each test, in the form of the lists beside the differential tests.

/// Words split at blanks; quotes keep them together, and `$N` is a newline.
pub fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in line.chars() {
        match quote {
            Some(open) if c == open => quote = None,
            None if c == '\'' || c == '"' => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            None if c == ' ' => words.extend(word.take()),
            _ => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words.into_iter().map(|word| word.replace("$N", "\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::words;

    #[test]
    fn quotes_keep_words_together() {
        assert_eq!(
            words("-e 'A=b c' --label=\"x y\" ''"),
            ["-e", "A=b c", "--label=x y", ""]
        );
        assert_eq!(words(" a$Nb  c "), ["a\nb", "c"]);
    }
}
