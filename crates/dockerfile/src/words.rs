//! Words of a line: split where white space stands outside of quotes, and left as they were written.

/// Words with quotes and escapes in them.
pub(crate) fn raw_words(text: &str, escape: char) -> Vec<String> {
    let mut all = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match quote {
            None if c.is_whitespace() => {
                if !word.is_empty() {
                    all.push(std::mem::take(&mut word));
                }
                continue;
            }
            None if c == '"' || c == '\'' => quote = Some(c),
            Some(q) if c == q => quote = None,
            _ => {}
        }
        word.push(c);
        if c == escape && quote != Some('\'') {
            word.extend(chars.next());
        }
    }
    if !word.is_empty() {
        all.push(word);
    }
    all
}

/// A word without its quotes and escapes; `None` where a quote stays open.
pub(crate) fn unquote(word: &str, escape: char) -> Option<String> {
    let mut out = String::new();
    let mut quote = None;
    let mut chars = word.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (None, '"' | '\'') => quote = Some(c),
            (Some(q), c) if c == q => quote = None,
            (Some('\''), c) => out.push(c),
            (_, c) if c == escape => out.extend(chars.next()),
            (_, c) => out.push(c),
        }
    }
    quote.is_none().then_some(out)
}

/// A list of strings in JSON; nothing else is one.
pub(crate) fn json_list(text: &str) -> Option<Vec<String>> {
    let text = text.trim();
    text.starts_with('[').then(|| serde_json::from_str(text).ok())?
}

/// `NAME=value` words with quotes left in, or in the old form `NAME the whole rest`.
pub(crate) fn pairs(name: &str, text: &str, escape: char) -> Result<Vec<(String, String)>, String> {
    let words = raw_words(text, escape);
    let Some(first) = words.first() else {
        return Err(format!("{name} requires at least one argument"));
    };
    if !first.contains('=') {
        let (key, rest) = text
            .split_once(char::is_whitespace)
            .ok_or_else(|| format!("{name} must have two arguments"))?;
        return Ok(vec![(key.to_owned(), rest.trim().to_owned())]);
    }
    let pair = |w: &String| match w.split_once('=') {
        None => Err(format!(
            "Syntax error - can't find = in {w:?}. Must be of the form: name=value"
        )),
        Some(("", _)) => Err(format!("{name} names can not be blank")),
        Some((k, v)) => Ok((k.to_owned(), v.to_owned())),
    };
    words.iter().map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_keep_their_quotes() {
        let words = raw_words(r#"a  "b c"d 'e "f' g\ h "i\"j""#, '\\');
        assert_eq!(words, ["a", r#""b c"d"#, r#"'e "f'"#, r"g\ h", r#""i\"j""#]);
        assert_eq!(unquote(r#""b c"d\ e'f\'"#, '\\').as_deref(), Some(r"b cd ef\"));
        assert_eq!(unquote("\"open", '\\'), None);
    }

    #[test]
    fn pairs_in_both_forms() {
        let get = |t| pairs("ENV", t, '\\');
        let pair = |k: &str, v: &str| (k.to_string(), v.to_string());
        assert_eq!(get("A=1 B=\"x y\"").unwrap(), [pair("A", "1"), pair("B", "\"x y\"")]);
        assert_eq!(get("A  the rest = x").unwrap(), [pair("A", "the rest = x")]);
        for bad in ["", "A", "A=1 B", "=x"] {
            assert!(get(bad).is_err(), "{bad}");
        }
    }
}
