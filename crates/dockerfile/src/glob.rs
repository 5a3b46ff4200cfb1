//! Patterns of paths, matched in time that grows with the product of both lengths and no faster.

/// One step of a pattern.
#[derive(Debug, Clone, PartialEq)]
enum Token {
    One(char),
    /// `?`
    Any,
    /// `*`
    Run,
    /// `**` with all its slashes: any text.
    Deep,
    /// What follows it may be left out: stands before `Dirs`.
    Maybe,
    /// With `Maybe` before it `**/`: any number of whole directories.
    Dirs,
    Class {
        not: bool,
        ranges: Vec<(char, char)>,
    },
}

/// A pattern.
#[derive(Debug, Clone, PartialEq)]
pub struct Pattern {
    tokens: Vec<Token>,
    /// `*` and `?` stop at slashes.
    paths: bool,
}

impl Pattern {
    /// As sources of `COPY` are written (Go's `filepath.Match`). `None` where it is malformed.
    pub fn of_path(text: &str) -> Option<Pattern> {
        Pattern::parse(text, false)
    }

    /// As lines of `.dockerignore`: `**` crosses directories.
    pub fn of_ignore(text: &str) -> Option<Pattern> {
        Pattern::parse(text, true)
    }

    /// As in `${NAME#pattern}`: slashes are nothing special, and there are no classes.
    pub fn of_word(text: &str, escape: char) -> Pattern {
        let mut tokens = Vec::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            tokens.push(match c {
                '*' => Token::Run,
                '?' => Token::Any,
                c if c == escape => Token::One(chars.next().unwrap_or(c)),
                c => Token::One(c),
            });
        }
        Pattern { tokens, paths: false }
    }

    fn parse(text: &str, deep: bool) -> Option<Pattern> {
        let mut tokens = Vec::new();
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            let token = match c {
                '*' if deep && chars.peek() == Some(&'*') => {
                    while chars.next_if_eq(&'*').is_some() {}
                    match chars.next_if_eq(&'/') {
                        Some(_) => {
                            tokens.push(Token::Maybe);
                            Token::Dirs
                        }
                        None => Token::Deep,
                    }
                }
                '*' => Token::Run,
                '?' => Token::Any,
                '\\' => Token::One(chars.next()?),
                '[' => class(&mut chars)?,
                c => Token::One(c),
            };
            tokens.push(token);
        }
        Some(Pattern { tokens, paths: true })
    }

    /// Whether it has anything but plain characters.
    pub fn is_plain(&self) -> bool {
        self.tokens.iter().all(|t| matches!(t, Token::One(_)))
    }

    /// Whether the whole text fits.
    pub fn matches(&self, text: &str) -> bool {
        let n = self.tokens.len();
        // Which tokens may come next, after each character.
        let mut now = vec![false; n + 1];
        now[0] = true;
        self.skip(&mut now);
        for c in text.chars() {
            let mut next = vec![false; n + 1];
            for (i, token) in self.tokens.iter().enumerate().filter(|(i, _)| now[*i]) {
                let slash = self.paths && c == '/';
                match token {
                    Token::One(o) if *o == c => next[i + 1] = true,
                    Token::Any if !slash => next[i + 1] = true,
                    Token::Run if !slash => next[i] = true,
                    Token::Deep => next[i] = true,
                    Token::Dirs => {
                        next[i] = true;
                        // It ends behind a slash only.
                        next[i + 1] |= slash;
                    }
                    Token::Class { not, ranges } if !slash => {
                        let within = ranges.iter().any(|(a, b)| (*a..=*b).contains(&c));
                        next[i + 1] |= within != *not;
                    }
                    _ => {}
                }
            }
            self.skip(&mut next);
            now = next;
            if !now.contains(&true) {
                return false;
            }
        }
        now[n]
    }

    /// Tokens that may stand for nothing.
    fn skip(&self, now: &mut [bool]) {
        for (i, token) in self.tokens.iter().enumerate() {
            match token {
                Token::Run | Token::Deep if now[i] => now[i + 1] = true,
                // `Dirs` always follows it.
                Token::Maybe if now[i] => now[i + 1..i + 3].fill(true),
                _ => {}
            }
        }
    }
}

/// `[a-z]`, `[^a]`; the bracket is read already.
fn class(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<Token> {
    let not = chars.next_if(|c| *c == '^' || *c == '!').is_some();
    let mut ranges = Vec::new();
    let one = |chars: &mut std::iter::Peekable<std::str::Chars<'_>>| match chars.next()? {
        '\\' => chars.next(),
        c => Some(c),
    };
    loop {
        if chars.peek() == Some(&']') && !ranges.is_empty() {
            chars.next();
            return Some(Token::Class { not, ranges });
        }
        let low = one(chars)?;
        let high = match chars.next_if_eq(&'-') {
            Some(_) => one(chars)?,
            None => low,
        };
        ranges.push((low, high));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths() {
        for (p, t, fits) in [
            ("*.txt", "a.txt", true),
            ("*.txt", "d/a.txt", false),
            ("d/*", "d/a", true),
            ("d/*", "d/a/b", false),
            ("?.c", "a.c", true),
            ("[a-c]x[^0-9]", "bxy", true),
            ("[a-c]x[^0-9]", "bx1", false),
            (r"\*", "*", true),
            (r"\*", "a", false),
            ("**", "a/b", false),
            ("", "", true),
        ] {
            assert_eq!(Pattern::of_path(p).unwrap().matches(t), fits, "{p} {t}");
        }
        for bad in ["[", "[a", "\\", "[]"] {
            assert_eq!(Pattern::of_path(bad), None, "{bad}");
        }
    }

    #[test]
    fn ignores() {
        for (p, t, fits) in [
            ("**", "a/b", true),
            ("**/*.go", "x.go", true),
            ("**/*.go", "a/b/x.go", true),
            ("**/*.go", "a/b/x.gob", false),
            ("**/foo", "afoo", false),
            ("a/**", "a/b/c", true),
            ("a/**/b", "a/b", true),
            ("a/**/b", "a/x/y/b", true),
            ("a/**/b", "a/xb", false),
            ("a**b", "a/x/b", true),
            ("*/*", "a/b/c", false),
        ] {
            assert_eq!(Pattern::of_ignore(p).unwrap().matches(t), fits, "{p} {t}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics_or_hangs(p in "[a*?/\\[\\]\\\\^-]{0,60}", t in "[a/]{0,60}") {
            for p in [Pattern::of_path(&p), Pattern::of_ignore(&p)].into_iter().flatten() {
                let _ = p.matches(&t);
            }
        }

        #[test]
        fn plain_text_fits_itself(t in "[a-z/.]{0,30}") {
            let p = Pattern::of_ignore(&t).unwrap();
            prop_assert!(p.is_plain() && p.matches(&t));
        }
    }
}
