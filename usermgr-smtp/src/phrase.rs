//! Display names as RFC 5322 §3.2.5 and RFC 6532 §3.2 have them.

use std::borrow::Cow;

/// The name as it is when it consists of words, and else in quotes.
pub(crate) fn quote(name: &str) -> Cow<'_, str> {
    if name.split(' ').all(is_atom) {
        return Cow::Borrowed(name);
    }
    let mut quoted = String::with_capacity(name.len() + 2);
    quoted.push('"');
    for c in name.chars() {
        if matches!(c, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted.push('"');
    Cow::Owned(quoted)
}

/// What stands in the quotes of a text that is quoted as a whole.
pub(crate) fn unquote(text: &str) -> Option<String> {
    let mut rest = text.strip_prefix('"')?.chars();
    let mut name = String::new();
    loop {
        match rest.next()? {
            '"' => return rest.as_str().is_empty().then_some(name),
            '\\' => name.push(rest.next()?),
            c => name.push(c),
        }
    }
}

/// RFC 5322 §3.2.3, and every character beyond ASCII (RFC 6532 §3.2).
fn is_atom(word: &str) -> bool {
    let is_atext = |c: char| !c.is_ascii() || c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c);
    !word.is_empty() && word.chars().all(is_atext)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_more_than_words_stands_in_quotes() {
        for name in ["Ana", "Ana Lux", "R&D", "Müller & Söhne", "好的", "a-b_c+d!"] {
            assert_eq!(quote(name), name);
        }
        for name in
            ["Acme.io", "A, B", "A: B", "a@b", "A (b)", "A;", "[A]", "A  B", "A<b>", "Müller, S.", "\tA"]
        {
            assert_eq!(quote(name), format!("\"{name}\""), "{name:?}");
        }
        assert_eq!(quote(r#"a "b" \c"#), r#""a \"b\" \\c""#);
    }

    #[test]
    fn what_was_quoted_is_read_back() {
        for name in ["", "a", "a.b", "\"", "\\", "\\\"", "a \"b\" c\\", "ü,\"ö\""] {
            let quoted = quote(name);
            assert_eq!(unquote(&quoted).unwrap_or_else(|| quoted.clone().into_owned()), name, "{name:?}");
        }
        for text in ["", "\"", "a", "\"a", "\"a\\\"", "\"a\"b", "\"a\"b\"", "a\""] {
            assert_eq!(unquote(text), None, "{text:?}");
        }
    }
}
