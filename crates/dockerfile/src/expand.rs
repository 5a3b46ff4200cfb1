//! Variables, quotes and escapes of one word.
//!
//! `$NAME`, `${NAME}`, `${NAME:-word}`, `:+`, `:?` and the same without the colon, `${NAME#pattern}`, `##`, `%`, `%%`,
//! `${NAME/pattern/word}` and `//`. Within single quotes nothing is expanded; the escape character takes the meaning off what
//! follows.

use crate::glob::Pattern;

/// Longest result of one word, in bytes: what stands in a value may be put in many times.
const MAX: usize = 1 << 20;
/// Words nested in modifiers.
const MAX_DEPTH: usize = 32;

/// Values of variables.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// One string of a word.
pub fn word(text: &str, escape: char, vars: Lookup<'_>) -> Result<String, String> {
    let mut e = Expander::new(text, escape, vars, 0);
    e.run(None)?;
    Ok(e.out)
}

/// The words that it becomes: white space outside of quotes parts them, also that of values.
pub fn words(text: &str, escape: char, vars: Lookup<'_>) -> Result<Vec<String>, String> {
    let mut e = Expander::new(text, escape, vars, 0);
    e.run(None)?;
    e.end_word();
    Ok(e.words)
}

/// A document: variables are expanded, quotes are plain characters.
pub fn document(text: &str, escape: char, vars: Lookup<'_>) -> Result<String, String> {
    let mut e = Expander::new(text, escape, vars, 0);
    e.plain_quotes = true;
    e.run(None)?;
    Ok(e.out)
}

struct Expander<'a> {
    chars: Vec<char>,
    at: usize,
    escape: char,
    vars: Lookup<'a>,
    depth: usize,
    plain_quotes: bool,
    out: String,
    words: Vec<String>,
    current: Option<String>,
}

impl<'a> Expander<'a> {
    fn new(text: &str, escape: char, vars: Lookup<'a>, depth: usize) -> Expander<'a> {
        Expander {
            chars: text.chars().collect(),
            at: 0,
            escape,
            vars,
            depth,
            plain_quotes: false,
            out: String::new(),
            words: Vec::new(),
            current: None,
        }
    }

    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += 1;
        Some(c)
    }

    fn quoted(&mut self, text: &str) {
        self.out.push_str(text);
        self.current.get_or_insert_default().push_str(text);
    }

    fn open(&mut self, c: char) {
        self.out.push(c);
        match c.is_whitespace() {
            true => self.end_word(),
            false => self.current.get_or_insert_default().push(c),
        }
    }

    fn end_word(&mut self) {
        self.words.extend(self.current.take());
    }

    /// Up to the end, or up to `stop` outside of quotes, which is consumed.
    fn run(&mut self, stop: Option<&[char]>) -> Result<Option<char>, String> {
        while let Some(c) = self.next() {
            if self.out.len() > MAX {
                return Err(format!("a word becomes longer than {MAX} bytes"));
            }
            match c {
                c if stop.is_some_and(|s| s.contains(&c)) => return Ok(Some(c)),
                '\'' if !self.plain_quotes => self.single()?,
                '"' if !self.plain_quotes => self.double()?,
                '$' => {
                    let value = self.dollar()?;
                    value.chars().for_each(|c| self.open(c));
                }
                c if c == self.escape => match (self.next(), self.plain_quotes) {
                    (Some(n), true) if n != '$' && n != self.escape => self.quoted(&format!("{c}{n}")),
                    (Some(n), _) => self.quoted(n.encode_utf8(&mut [0; 4])),
                    (None, _) => self.quoted(c.encode_utf8(&mut [0; 4])),
                },
                c => self.open(c),
            }
        }
        match stop {
            Some(_) => Err("syntax error: missing '}'".into()),
            None => Ok(None),
        }
    }

    fn single(&mut self) -> Result<(), String> {
        self.current.get_or_insert_default();
        loop {
            match self.next() {
                Some('\'') => return Ok(()),
                Some(c) => self.quoted(c.encode_utf8(&mut [0; 4])),
                None => return Err("unexpected end of statement while looking for matching single-quote".into()),
            }
        }
    }

    fn double(&mut self) -> Result<(), String> {
        self.current.get_or_insert_default();
        loop {
            match self.next() {
                Some('"') => return Ok(()),
                Some('$') => {
                    let value = self.dollar()?;
                    self.quoted(&value);
                    if self.out.len() > MAX {
                        return Err(format!("a word becomes longer than {MAX} bytes"));
                    }
                }
                Some(c) if c == self.escape => match self.next() {
                    // Only these lose their meaning in double quotes.
                    Some(n) if n == '"' || n == '$' || n == self.escape => self.quoted(n.encode_utf8(&mut [0; 4])),
                    Some(n) => self.quoted(&format!("{c}{n}")),
                    None => return Err("unexpected end of statement while looking for matching double-quote".into()),
                },
                Some(c) => self.quoted(c.encode_utf8(&mut [0; 4])),
                None => return Err("unexpected end of statement while looking for matching double-quote".into()),
            }
        }
    }

    fn get(&self, name: &str) -> Option<String> {
        (self.vars)(name)
    }

    fn name(&mut self) -> String {
        let mut name = String::new();
        match self.peek() {
            Some(c) if c.is_ascii_alphabetic() || c == '_' => {
                while let Some(c) = self.peek().filter(|c| c.is_ascii_alphanumeric() || *c == '_') {
                    name.push(c);
                    self.at += 1;
                }
            }
            Some(c) if c.is_ascii_digit() => {
                while let Some(c) = self.peek().filter(char::is_ascii_digit) {
                    name.push(c);
                    self.at += 1;
                }
            }
            Some(c) if "@*#".contains(c) => {
                name.push(c);
                self.at += 1;
            }
            _ => {}
        }
        name
    }

    fn dollar(&mut self) -> Result<String, String> {
        if self.peek() != Some('{') {
            let name = self.name();
            return Ok(match name.is_empty() {
                true => "$".into(),
                false => self.get(&name).unwrap_or_default(),
            });
        }
        self.at += 1;
        let name = self.name();
        if name.is_empty() {
            return Err("syntax error: bad substitution".into());
        }
        let value = self.get(&name);
        let op = self.next().ok_or("syntax error: missing '}'")?;
        match op {
            '}' => Ok(value.unwrap_or_default()),
            ':' => {
                let op = self.next().ok_or("syntax error: missing '}'")?;
                self.choose(op, &name, value.filter(|v| !v.is_empty()))
            }
            '-' | '+' | '?' => self.choose(op, &name, value),
            '#' | '%' => {
                let longest = self.peek() == Some(op);
                self.at += usize::from(longest);
                let pattern = Pattern::of_word(&self.inner(&['}'])?.0, self.escape);
                let value = value.unwrap_or_default();
                Ok(match op {
                    '#' => trim_front(&value, &pattern, longest),
                    _ => trim_back(&value, &pattern, longest),
                })
            }
            '/' => {
                let all = self.peek() == Some('/');
                self.at += usize::from(all);
                let (pattern, end) = self.inner(&['/', '}'])?;
                let by = if end == '/' {
                    self.inner(&['}'])?.0
                } else {
                    String::new()
                };
                let pattern = Pattern::of_word(&pattern, self.escape);
                Ok(replace(&value.unwrap_or_default(), &pattern, &by, all))
            }
            other => Err(format!("unsupported modifier ({other}) in substitution")),
        }
    }

    /// `-`, `+` and `?` with the word behind them.
    fn choose(&mut self, op: char, name: &str, value: Option<String>) -> Result<String, String> {
        if !"-+?".contains(op) {
            return Err(format!("unsupported modifier (:{op}) in substitution"));
        }
        let word = self.inner(&['}'])?.0;
        match (op, value) {
            ('-', Some(value)) | ('?', Some(value)) => Ok(value),
            ('-', None) => Ok(word),
            ('+', Some(_)) => Ok(word),
            ('+', None) => Ok(String::new()),
            _ if word.is_empty() => Err(format!("{name}: is not allowed to be unset")),
            _ => Err(format!("{name}: {word}")),
        }
    }

    /// The word of a modifier, expanded, up to one of `stop`, and which.
    fn inner(&mut self, stop: &[char]) -> Result<(String, char), String> {
        if self.depth >= MAX_DEPTH {
            return Err("substitutions are nested too deep".into());
        }
        let mut inner = Expander::new("", self.escape, self.vars, self.depth + 1);
        std::mem::swap(&mut inner.chars, &mut self.chars);
        inner.at = self.at;
        let end = inner.run(Some(stop));
        self.at = inner.at;
        std::mem::swap(&mut inner.chars, &mut self.chars);
        Ok((inner.out, end?.unwrap_or('}')))
    }
}

/// Ends of every prefix, in bytes.
fn bounds(text: &str) -> Vec<usize> {
    text.char_indices().map(|(i, _)| i).chain([text.len()]).collect()
}

fn trim_front(value: &str, pattern: &Pattern, longest: bool) -> String {
    let mut ends = bounds(value);
    if longest {
        ends.reverse();
    }
    let cut = ends.into_iter().find(|&end| pattern.matches(&value[..end]));
    value[cut.unwrap_or(0)..].to_owned()
}

fn trim_back(value: &str, pattern: &Pattern, longest: bool) -> String {
    let mut starts = bounds(value);
    if !longest {
        starts.reverse();
    }
    let cut = starts.into_iter().find(|&start| pattern.matches(&value[start..]));
    value[..cut.unwrap_or(value.len())].to_owned()
}

fn replace(value: &str, pattern: &Pattern, by: &str, all: bool) -> String {
    let mut out = String::new();
    let mut rest = value;
    while !rest.is_empty() {
        let hit = bounds(rest)
            .into_iter()
            .rev()
            .find(|&end| end > 0 && pattern.matches(&rest[..end]));
        match hit {
            Some(end) => {
                out.push_str(by);
                rest = &rest[end..];
                if !all || out.len() > MAX {
                    break;
                }
            }
            None => {
                let next = rest.chars().next().map_or(rest.len(), char::len_utf8);
                out.push_str(&rest[..next]);
                rest = &rest[next..];
            }
        }
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn vars(name: &str) -> Option<String> {
        let known = [
            ("A", "one"),
            ("E", ""),
            ("P", "/usr/local/bin"),
            ("W", "two words"),
            ("F", "a.tar.gz"),
        ];
        known.iter().find(|(n, _)| *n == name).map(|(_, v)| v.to_string())
    }

    #[test]
    fn every_form() {
        for (text, want) in [
            ("$A", "one"),
            ("${A}x$Ax", "onex"),
            ("'$A'\"$A\"", "$Aone"),
            (r"\$A", "$A"),
            (r#""\$A \x""#, r"$A \x"),
            ("$", "$"),
            ("a$ b", "a$ b"),
            ("${U:-def}", "def"),
            ("${U-def}", "def"),
            ("${E:-def}", "def"),
            ("${E-def}", ""),
            ("${A:-def}", "one"),
            ("${A:+set}", "set"),
            ("${E:+set}", ""),
            ("${E+set}", "set"),
            ("${U+set}", ""),
            ("${A:?no}", "one"),
            ("${U:-${A}-$W}", "one-two words"),
            ("${U:-\"a}b\"}", "a}b"),
            ("${F%.*}", "a.tar"),
            ("${F%%.*}", "a"),
            ("${F#*.}", "tar.gz"),
            ("${F##*.}", "gz"),
            ("${P##*/}", "bin"),
            ("${P%/*}", "/usr/local"),
            ("${P/local/x}", "/usr/x/bin"),
            ("${P//\\//:}", ":usr:local:bin"),
            ("${F/./}", "atar.gz"),
            ("${F%nothing}", "a.tar.gz"),
            ("$1", ""),
            ("ü${A}ß", "üoneß"),
        ] {
            assert_eq!(word(text, '\\', &vars).as_deref(), Ok(want), "{text}");
        }
        assert_eq!(word("`$A\\", '`', &vars).as_deref(), Ok("$A\\"));
    }

    #[test]
    fn words_part_at_space() {
        let get = |t| words(t, '\\', &vars).unwrap();
        assert_eq!(get("$W x"), ["two", "words", "x"]);
        assert_eq!(get("\"$W\" ''"), ["two words", ""]);
        assert_eq!(get(" $U "), [""; 0]);
    }

    #[test]
    fn documents_keep_quotes() {
        let get = |t| document(t, '\\', &vars).unwrap();
        assert_eq!(get("say \"$A\" 'it' \\$A \\n"), "say \"one\" 'it' $A \\n");
    }

    #[test]
    fn what_is_wrong() {
        for (bad, why) in [
            ("${A", "missing '}'"),
            ("${", "bad substitution"),
            ("${}", "bad substitution"),
            ("${A!x}", "unsupported modifier (!)"),
            ("${A:x}", "unsupported modifier (:x)"),
            ("'open", "single-quote"),
            ("\"open", "double-quote"),
            ("${U:?gone}", "U: gone"),
            ("${U:-x", "missing '}'"),
        ] {
            let e = word(bad, '\\', &vars).unwrap_err();
            assert!(e.contains(why), "{bad}: {e}");
        }
        let deep = "${U:-".repeat(100) + &"}".repeat(100);
        assert!(word(&deep, '\\', &vars).is_err());
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "[$a-cA{}:#%/+?*\\\\\"' ü-]{0,40}") {
            let _ = word(&text, '\\', &vars);
            let _ = words(&text, '`', &vars);
            let _ = document(&text, '\\', &vars);
        }

        #[test]
        fn plain_text_stays(text in "[a-z0-9/._=-]{0,40}") {
            prop_assert_eq!(word(&text, '\\', &vars), Ok(text));
        }
    }
}
