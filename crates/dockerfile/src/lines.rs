//! Logical lines: directives, comments, continuations and heredocs.

use crate::words::{raw_words, unquote};
use crate::{Error, MAX_SIZE};

/// A document within the file, after an instruction (`<<NAME`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heredoc {
    /// Its name, which also ends it.
    pub name: String,
    /// Its lines, each with its end.
    pub content: String,
    /// Variables in it are expanded; not where the name stands in quotes.
    pub expand: bool,
}

/// One instruction's text.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Logical {
    /// Its first line, from 1.
    pub line: usize,
    /// Continuations joined, without white space at the ends.
    pub text: String,
    pub heredocs: Vec<Heredoc>,
}

/// The instructions' texts, and the escape character.
pub(crate) fn split(text: &str) -> Result<(Vec<Logical>, char), Error> {
    if text.len() > MAX_SIZE {
        return Err(Error::Whole(format!("the Dockerfile is larger than {MAX_SIZE} bytes")));
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines: Vec<&str> = text.split('\n').map(|l| l.strip_suffix('\r').unwrap_or(l)).collect();
    let escape = directives(&lines)?;
    let mut all = Vec::new();
    let mut at = 0;
    while at < lines.len() {
        let first = lines[at].trim_start();
        if first.is_empty() || first.starts_with('#') {
            at += 1;
            continue;
        }
        let begin = at;
        let mut joined = String::new();
        let mut piece = first;
        loop {
            at += 1;
            let Some(kept) = continued(piece, escape) else {
                joined.push_str(piece);
                break;
            };
            joined.push_str(kept);
            // Comments and empty lines within an instruction are passed over.
            while lines.get(at).is_some_and(|l| is_nothing(l)) {
                at += 1;
            }
            match lines.get(at) {
                Some(next) => piece = next,
                None => break,
            }
        }
        let joined = joined.trim().to_owned();
        let mut heredocs = Vec::new();
        for (name, expand, chomp) in announced(&joined, escape) {
            let (content, next) =
                document(&lines, at, &name, chomp).ok_or_else(|| Error::at(begin + 1, "unterminated heredoc"))?;
            at = next;
            heredocs.push(Heredoc { name, content, expand });
        }
        if !joined.is_empty() {
            all.push(Logical {
                line: begin + 1,
                text: joined,
                heredocs,
            });
        }
    }
    Ok((all, escape))
}

fn is_nothing(line: &str) -> bool {
    let line = line.trim();
    line.is_empty() || line.starts_with('#')
}

/// What stands before the escape character at a line's end. One that is itself escaped does not count.
fn continued(line: &str, escape: char) -> Option<&str> {
    let kept = line.trim_end_matches([' ', '\t']).strip_suffix(escape)?;
    (!kept.ends_with(escape)).then_some(kept)
}

/// Directives stand before everything else: `# escape=X`, `# syntax=…`, `# check=…`.
fn directives(lines: &[&str]) -> Result<char, Error> {
    let mut escape = '\\';
    let mut seen: Vec<String> = Vec::new();
    for (i, line) in lines.iter().enumerate() {
        let Some((name, value)) = line.trim().strip_prefix('#').and_then(|c| c.split_once('=')) else {
            break;
        };
        let name = name.trim().to_ascii_lowercase();
        if !["escape", "syntax", "check"].contains(&name.as_str()) {
            break;
        }
        if seen.contains(&name) {
            return Err(Error::at(
                i + 1,
                format!("only one {name} parser directive can be used"),
            ));
        }
        if name == "escape" {
            escape = match value.trim() {
                "\\" => '\\',
                "`" => '`',
                other => {
                    return Err(Error::at(
                        i + 1,
                        format!("invalid escape token '{other}' does not match ` or \\"),
                    ));
                }
            };
        }
        seen.push(name);
    }
    Ok(escape)
}

/// The heredocs that an instruction begins: name, whether it is expanded, whether tabs are taken off.
fn announced(text: &str, escape: char) -> Vec<(String, bool, bool)> {
    let mut words = text.split_whitespace().map(str::to_ascii_uppercase);
    let first = words.next();
    let takes = |w: Option<&str>| matches!(w, Some("RUN" | "COPY" | "ADD"));
    let does = takes(first.as_deref()) || (first.as_deref() == Some("ONBUILD") && takes(words.next().as_deref()));
    if !does || !text.contains("<<") {
        return Vec::new();
    }
    raw_words(text, escape)
        .iter()
        .filter_map(|w| heredoc_word(w, escape))
        .collect()
}

/// `<<NAME`, `<<-NAME`, `3<<"NAME"`.
pub(crate) fn heredoc_word(word: &str, escape: char) -> Option<(String, bool, bool)> {
    let rest = word
        .trim_start_matches(|c: char| c.is_ascii_digit())
        .strip_prefix("<<")?;
    let (chomp, rest) = match rest.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    if rest.contains('<') {
        return None;
    }
    let name = unquote(rest, escape)?;
    let plain = !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || "\"'$".contains(c));
    plain.then(|| (name.clone(), name == rest, chomp))
}

/// The lines up to the one that is the name, and the line behind it.
fn document(lines: &[&str], from: usize, name: &str, chomp: bool) -> Option<(String, usize)> {
    let mut content = String::new();
    for (i, line) in lines.iter().enumerate().skip(from) {
        let line = if chomp { line.trim_start_matches('\t') } else { line };
        if line == name {
            return Some((content, i + 1));
        }
        content.push_str(line);
        content.push('\n');
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(file: &str) -> Vec<(usize, String)> {
        let (all, _) = split(file).unwrap();
        all.into_iter().map(|l| (l.line, l.text)).collect()
    }

    #[test]
    fn continuations_and_comments() {
        let file = "# hi\nFROM a\n\n  RUN x \\\n# no\n\n   && y \\ \n  && z\nRUN keep\\\\\nCMD q";
        let want = [
            (2, "FROM a"),
            (4, "RUN x    && y   && z"),
            (9, "RUN keep\\\\"),
            (10, "CMD q"),
        ];
        assert_eq!(texts(file), want.map(|(n, t)| (n, t.to_string())));
        assert_eq!(texts("RUN a \\"), [(1, "RUN a".to_string())]);
        assert_eq!(
            texts("\u{feff}FROM a\r\nRUN b\r\n"),
            [(1, "FROM a".into()), (2, "RUN b".into())]
        );
    }

    #[test]
    fn directives_stand_first() {
        let (all, escape) = split("# syntax=docker/dockerfile:1\n# escape=`\nRUN a `\n b\\\nCMD c").unwrap();
        assert_eq!(escape, '`');
        assert_eq!(all[0].text, "RUN a  b\\");
        assert_eq!(split("FROM a\n# escape=`\n").unwrap().1, '\\');
        let e = split("# escape=x\n").unwrap_err().to_string();
        assert!(e.contains("line 1") && e.contains("invalid escape token"), "{e}");
        assert!(split("# escape=`\n# ESCAPE=\\\n").is_err());
    }

    #[test]
    fn heredocs() {
        let (all, _) = split("RUN <<EOF\nfrom $X\n\nEOF\nCOPY <<-'A' <<B /to/\n\tone\nA\n# two\nB\nCMD x").unwrap();
        assert_eq!(all.len(), 3);
        let doc = |name: &str, content: &str, expand| Heredoc {
            name: name.into(),
            content: content.into(),
            expand,
        };
        assert_eq!(all[0].heredocs, [doc("EOF", "from $X\n\n", true)]);
        assert_eq!(all[1].heredocs, [doc("A", "one\n", false), doc("B", "# two\n", true)]);
        assert_eq!((all[2].line, all[2].text.as_str()), (10, "CMD x"));
        assert!(
            split("RUN cat <<EOF\nx")
                .unwrap_err()
                .to_string()
                .contains("unterminated")
        );
        // Not of these instructions, not within quotes, not a shift.
        for plain in [
            "CMD cat <<EOF",
            "RUN echo '<<EOF'",
            "RUN echo $((1 <<3))x",
            "RUN a<<EOF",
        ] {
            let ends = split(plain).map(|(l, _)| l[0].heredocs.len());
            assert!(ends == Ok(0) || plain.contains("<<3"), "{plain}");
        }
    }
}
