//! What a container says of its notebook server: any runtime file and any label is refused, or leads to a path on a port of the
//! server itself, and nothing else.

use dockerutils_core::jupyter::base_path::{BasePath, encoded};
use dockerutils_core::jupyter::runtime_file::RuntimeFile;
use dockerutils_core::jupyter::token::Token;
use dockerutils_core::ops::notebook::label::NotebookLabel;

pub(crate) fn fuzz(input: (&[u8], &str)) {
    let (content, text) = input;
    if let Ok(file) = RuntimeFile::parse(content) {
        check(&file.base_path);
        assert!(file.port.is_some() != file.socket.is_some());
        assert!(file.socket.is_none_or(|path| path.is_absolute()));
    }
    if let Some(path) = BasePath::parse(text) {
        check(&path);
        assert_eq!(BasePath::parse(path.as_str()), Some(path));
    }
    if let Some(label) = NotebookLabel::parse(text) {
        assert!(label.path.starts_with('/') && !label.path.starts_with("//"));
        assert_eq!(NotebookLabel::parse(&label.to_string()), Some(label));
    }
    if let Some(token) = Token::from_environment_value(text) {
        assert!(token.in_query().bytes().all(|byte| byte.is_ascii_graphic() && byte != b'&'));
    }
    assert!(encoded(text).bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~/%".contains(&byte)));
}

fn check(path: &BasePath) {
    let text = path.as_str();
    assert!(text.starts_with('/') && text.ends_with('/') && !text.contains("//"), "{text}");
    assert!(text.split('/').all(|segment| segment != ".."), "{text}");
    assert!(text.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#\\".contains(&byte)), "{text}");
}
