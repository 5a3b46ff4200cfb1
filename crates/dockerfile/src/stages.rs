//! A whole Dockerfile: what stands before the first `FROM`, and the stages.

use crate::instruction::Instruction;
use crate::mount::Mount;
use crate::{Error, Step, lines};

/// Most instructions.
const MAX_STEPS: usize = 10_000;

/// A Dockerfile.
#[derive(Debug, Clone, PartialEq)]
pub struct Dockerfile {
    /// The character that takes the meaning off the next, and continues lines.
    pub escape: char,
    /// `ARG`s before the first stage.
    pub globals: Vec<Step>,
    /// At least one.
    pub stages: Vec<Stage>,
}

/// A stage.
#[derive(Debug, Clone, PartialEq)]
pub struct Stage {
    /// Its `FROM`.
    pub from: Step,
    /// In small letters.
    pub name: Option<String>,
    /// All behind its `FROM`.
    pub steps: Vec<Step>,
}

/// Reads a Dockerfile.
pub fn parse(text: &str) -> Result<Dockerfile, Error> {
    let (logical, escape) = lines::split(text)?;
    if logical.is_empty() {
        return Err(Error::Whole("the Dockerfile cannot be empty".into()));
    }
    if logical.len() > MAX_STEPS {
        return Err(Error::Whole(format!(
            "the Dockerfile has more than {MAX_STEPS} instructions"
        )));
    }
    let mut file = Dockerfile {
        escape,
        globals: Vec::new(),
        stages: Vec::new(),
    };
    for l in logical {
        let read = Instruction::parse(&l.text, l.heredocs, escape).map_err(|e| Error::at(l.line, e))?;
        let step = Step {
            line: l.line,
            text: l.text,
            instruction: read,
        };
        file.add(step)?;
    }
    match file.stages.is_empty() {
        true => Err(Error::Whole(
            "No image was generated. This issue occurs if the Dockerfile has no FROM".into(),
        )),
        false => Ok(file),
    }
}

impl Dockerfile {
    fn add(&mut self, step: Step) -> Result<(), Error> {
        match (&step.instruction, self.stages.last_mut()) {
            (Instruction::From { name, .. }, _) => {
                let name = name.clone();
                if name.is_some() && self.stages.iter().any(|s| s.name == name) {
                    return Err(Error::at(
                        step.line,
                        format!("duplicate name {}", name.unwrap_or_default()),
                    ));
                }
                self.stages.push(Stage {
                    from: step,
                    name,
                    steps: Vec::new(),
                });
            }
            (_, Some(stage)) => stage.steps.push(step),
            (Instruction::Arg(_), None) => self.globals.push(step),
            (_, None) => return Err(Error::at(step.line, "no build stage in current context")),
        }
        Ok(())
    }

    /// The stage of these before `end` that a word means: its name, or its number from 0.
    pub fn stage(&self, word: &str, end: usize) -> Option<usize> {
        let word = word.to_ascii_lowercase();
        let before = self.stages.iter().take(end);
        let named = before.clone().position(|s| s.name.as_deref() == Some(word.as_str()));
        named.or_else(|| word.parse().ok().filter(|n| *n < before.len()))
    }

    /// The stage to build: the last where no target is named.
    pub fn target(&self, target: &str) -> Result<usize, Error> {
        match target {
            "" => Ok(self.stages.len() - 1),
            word => self
                .stage(word, self.stages.len())
                .ok_or_else(|| Error::Whole(format!("target stage {word:?} could not be found"))),
        }
    }

    /// Which stages the target needs, itself among them. `bases` has for each stage the one it begins with.
    pub fn needed(&self, target: usize, bases: &[Option<usize>]) -> Vec<bool> {
        let mut needed = vec![false; self.stages.len()];
        if let Some(n) = needed.get_mut(target) {
            *n = true;
        }
        // Every stage needs only such as stand before it.
        for (i, stage) in self.stages.iter().enumerate().rev() {
            if !needed[i] {
                continue;
            }
            let words = stage.steps.iter().flat_map(|s| match &s.instruction {
                Instruction::Copy(t) => t.from.as_deref().into_iter().collect(),
                Instruction::Run(r) => r.mounts.iter().filter_map(|m| Mount::from_of(m)).collect(),
                _ => Vec::new(),
            });
            let copied = words.filter_map(|w| self.stage(w, i));
            let base = bases.get(i).copied().flatten().filter(|b| *b < i);
            for used in copied.chain(base).collect::<Vec<_>>() {
                needed[used] = true;
            }
        }
        needed
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::instruction::{Command, Run, Transfer};

    #[test]
    fn a_whole_file() {
        let file = parse(
            "ARG V=1\nFROM --platform=linux/amd64 img:$V AS Base\nRUN [\"a\",\"b\"]\nRUN --network=none echo hi\n\
             FROM scratch\nCOPY --from=base --chown=1:2 --chmod=0644 --link /a /b /c/\nADD [\"a b\", \"/d\"]\n\
             COPY <<one <<\"two\" /to/\n1\none\n$2\ntwo\nONBUILD RUN x\n",
        )
        .unwrap();
        assert_eq!((file.globals.len(), file.stages.len()), (1, 2));
        let base = &file.stages[0];
        assert_eq!(base.name.as_deref(), Some("base"));
        assert_eq!(base.from.text, "FROM --platform=linux/amd64 img:$V AS Base");
        assert_eq!(
            base.steps[1].instruction,
            Instruction::Run(Run {
                command: Command::Shell("echo hi".into()),
                documents: vec![],
                network: Some("none".into()),
                mounts: vec![],
                security: None
            })
        );
        let steps = &file.stages[1].steps;
        let Instruction::Copy(copy) = &steps[0].instruction else {
            panic!("{steps:?}")
        };
        let want = Transfer {
            sources: vec!["/a".into(), "/b".into()],
            dest: "/c/".into(),
            from: Some("base".into()),
            chown: Some("1:2".into()),
            chmod: Some("0644".into()),
            ..Transfer::default()
        };
        assert_eq!(*copy, want);
        let Instruction::Copy(add) = &steps[1].instruction else {
            panic!("{steps:?}")
        };
        assert!(add.add && add.sources == ["a b"] && add.dest == "/d");
        let Instruction::Copy(docs) = &steps[2].instruction else {
            panic!("{steps:?}")
        };
        assert!(docs.sources.is_empty() && docs.documents.len() == 2 && docs.dest == "/to/");
        assert!(docs.documents[0].expand && !docs.documents[1].expand);
        assert_eq!(steps[3].line, 13);
    }

    #[test]
    fn needed_stages() {
        let file =
            parse("FROM a AS one\nFROM one AS two\nFROM b\nFROM c AS four\nCOPY --from=two x y\nCOPY --from=nginx x y")
                .unwrap();
        let bases = [None, Some(0), None, None];
        assert_eq!(file.needed(3, &bases), [true, true, false, true]);
        assert_eq!(file.needed(2, &bases), [false, false, true, false]);
        assert_eq!(
            (file.target("TWO"), file.target("2"), file.target("")),
            (Ok(1), Ok(2), Ok(3))
        );
        assert!(
            file.target("none")
                .unwrap_err()
                .to_string()
                .contains("could not be found")
        );
        // A stage sees only those before it.
        assert_eq!(file.stage("four", 3), None);
    }

    #[test]
    fn errors_have_lines() {
        for (text, line, why) in [
            ("FROM a\nFOO x", 2, "unknown instruction: FOO"),
            ("RUN x\nFROM a", 1, "no build stage"),
            ("FROM", 1, "FROM requires either one or three arguments"),
            ("FROM a b", 1, "FROM requires either one or three arguments"),
            ("FROM a AS 1x", 1, "invalid name"),
            ("FROM a AS x\nFROM b AS X", 2, "duplicate name x"),
            ("FROM a\n\n# c\nCOPY x", 4, "Destination could not be determined"),
            ("FROM a\nCOPY", 2, "at least two arguments"),
            ("FROM a\nRUN", 2, "RUN requires at least one argument"),
            ("FROM a\nRUN --foo=1 x", 2, "unknown flag: --foo"),
            ("FROM a\nENV A", 2, "ENV must have two arguments"),
            ("FROM a\nENV A=1 B", 2, "can't find = in \"B\""),
            ("FROM a\nSHELL /bin/sh", 2, "JSON form"),
            ("FROM a\nONBUILD ONBUILD RUN x", 2, "Chaining ONBUILD"),
            ("FROM a\nHEALTHCHECK MAYBE", 2, "Unknown type"),
            ("FROM a\nUSER a b", 2, "exactly one argument"),
            ("FROM a\nRUN <<E\nx\n", 2, "unterminated heredoc"),
            ("FROM a\nARG =x", 2, "can not be blank"),
        ] {
            let e = parse(text).unwrap_err();
            let Error::At { line: at, why: said } = &e else {
                panic!("{text:?}: {e}")
            };
            assert!(*at == line && said.contains(why), "{text:?}: {e}");
        }
        assert!(parse("# only\n").unwrap_err().to_string().contains("cannot be empty"));
        assert!(parse("ARG x").is_err());
    }

    #[test]
    fn lines_of_run() {
        let run = |text: &str| match parse(&format!("FROM a\n{text}")).unwrap().stages[0].steps[0]
            .instruction
            .clone()
        {
            Instruction::Run(r) => r,
            other => panic!("{other:?}"),
        };
        assert_eq!(run("RUN <<E\na\nb\nE").line('\\'), Command::Shell("a\nb\n".into()));
        let r = run("RUN cat <<E >x\n$a\nE");
        assert_eq!(r.line('\\'), Command::Shell("cat <<E >x\n$a\nE\n".into()));
        assert_eq!(r.script('\\'), None);
        assert_eq!(run("RUN <<E\n#!/bin/x\nb\nE").script('\\'), Some("#!/bin/x\nb\n"));
    }

    const SAMPLE: &str = "# escape=\\\nARG A=1\nFROM --platform=$P busybox:${A:-2} AS one\nRUN --network=none <<EOF\nx $A\nEOF\n\
        COPY --from=0 [\"a\", \"/b\"]\nADD --checksum=sha256:x http://h/f /d/\nENV A=\"b c\" D=$A\nLABEL a=b\nEXPOSE 80/tcp\n\
        HEALTHCHECK --interval=1s CMD [\"x\"]\nONBUILD COPY . /\nSHELL [\"/bin/x\"]\nCMD a \\\n # c\n  b\n";

    proptest! {
        #[test]
        fn mutilated_files_do_not_panic(
            cuts in proptest::collection::vec((0usize..400, 0usize..12, "[\\PC\n$<\"'{}\\\\=]{0,4}"), 1..6),
        ) {
            let mut text: Vec<char> = SAMPLE.chars().collect();
            for (at, len, new) in cuts {
                let at = at % (text.len() + 1);
                let end = (at + len).min(text.len());
                text.splice(at..end, new.chars());
            }
            let text: String = text.into_iter().collect();
            if let Ok(file) = parse(&text) {
                for step in file.stages.iter().flat_map(|s| &s.steps) {
                    let vars = |n: &str| Some(n.repeat(2));
                    if let Ok(i) = step.instruction.expand(file.escape, &vars) {
                        let mut config = serde_json::Map::new();
                        let _ = crate::config::apply(&mut config, &i);
                        let _ = crate::config::remark(&i, &config);
                    }
                }
                let bases = vec![Some(0); file.stages.len()];
                let _ = file.needed(file.stages.len() - 1, &bases);
            }
        }

        #[test]
        fn any_text(text in "\\PC{0,80}") {
            let _ = parse(&text);
        }
    }
}
