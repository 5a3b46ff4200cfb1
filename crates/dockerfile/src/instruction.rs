//! Instructions: read from their line, and their variables expanded.

use crate::expand::{self, Lookup};
use crate::flags::Flags;
use crate::lines::{Heredoc, heredoc_word};
use crate::words::{json_list, pairs};
use crate::{config, duration};

/// What is run: words of its own, or a line for the shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// `["a", "b"]`
    Exec(Vec<String>),
    /// A line.
    Shell(String),
}

/// `RUN`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// What is run. With documents and the shell's form, the line that begins them.
    pub command: Command,
    /// `<<NAME` behind it.
    pub documents: Vec<Heredoc>,
    /// `--network`.
    pub network: Option<String>,
    /// `--mount`, each as it was written.
    pub mounts: Vec<String>,
    /// `--security`.
    pub security: Option<String>,
}

/// `COPY` and `ADD`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transfer {
    /// `ADD`: addresses are fetched and archives unpacked.
    pub add: bool,
    /// What is copied; without documents.
    pub sources: Vec<String>,
    /// Documents written in the file itself, copied after the sources.
    pub documents: Vec<Heredoc>,
    /// Where to.
    pub dest: String,
    /// `--from`: a stage by name or number, or an image.
    pub from: Option<String>,
    /// `--chown`.
    pub chown: Option<String>,
    /// `--chmod`.
    pub chmod: Option<String>,
    /// `--checksum`: of what is fetched.
    pub checksum: Option<String>,
    /// `--exclude`.
    pub excludes: Vec<String>,
    /// `--parents`: the sources' directories are kept.
    pub parents: bool,
    /// `--keep-git-dir`: a repository comes with its `.git`.
    pub keep_git_dir: bool,
    /// `--unpack`: whether archives are unpacked; as the instruction does by itself where unset.
    pub unpack: Option<bool>,
}

/// Who owns what is copied: what stands in `--chown`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// Name or number.
    pub user: String,
    /// Name or number; that of the user, or the same number, where unset.
    pub group: Option<String>,
}

impl Owner {
    /// Reads `user[:group]`.
    pub fn parse(text: &str) -> Option<Owner> {
        let (user, group) = match text.split_once(':') {
            Some((u, g)) => (u, Some(g)),
            None => (text, None),
        };
        let odd = |t: &str| t.is_empty() || t.contains([':', '/', ' ']);
        if odd(user) || group.is_some_and(odd) {
            return None;
        }
        Some(Owner {
            user: user.into(),
            group: group.map(str::to_owned),
        })
    }
}

/// `HEALTHCHECK`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Health {
    /// What is run; `None` switches off what the base has.
    pub test: Option<Command>,
    /// Nanoseconds; 0 where nothing is said.
    pub interval: u64,
    /// Nanoseconds.
    pub timeout: u64,
    /// Nanoseconds.
    pub start_period: u64,
    /// Nanoseconds.
    pub start_interval: u64,
    /// Failures in a row.
    pub retries: u32,
}

/// One instruction.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "the reference says what each is")]
pub enum Instruction {
    From {
        image: String,
        platform: Option<String>,
        name: Option<String>,
    },
    Arg(Vec<(String, Option<String>)>),
    Run(Run),
    Copy(Transfer),
    Cmd(Command),
    Entrypoint(Command),
    Env(Vec<(String, String)>),
    Label(Vec<(String, String)>),
    Expose(Vec<String>),
    Volume(Vec<String>),
    User(String),
    Workdir(String),
    Stopsignal(String),
    Shell(Vec<String>),
    Onbuild(String),
    Maintainer(String),
    Healthcheck(Health),
}

const TRANSFER: [&str; 6] = ["chown", "chmod", "link", "exclude", "from", "parents"];
const ADD: [&str; 7] = [
    "chown",
    "chmod",
    "link",
    "exclude",
    "checksum",
    "keep-git-dir",
    "unpack",
];

impl Instruction {
    /// Reads one instruction.
    pub(crate) fn parse(text: &str, documents: Vec<Heredoc>, escape: char) -> Result<Instruction, String> {
        let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let name = word.to_ascii_uppercase();
        let flags: &[&str] = match name.as_str() {
            "FROM" => &["platform"],
            "RUN" => &["mount", "network", "security"],
            "COPY" => &TRANSFER,
            "ADD" => &ADD,
            "HEALTHCHECK" => &["interval", "timeout", "start-period", "start-interval", "retries"],
            _ => &[],
        };
        let (flags, rest) = match name.as_str() {
            // Its own text may begin with them.
            "ONBUILD" => (Flags::default(), rest),
            _ => Flags::take(rest, flags, escape)?,
        };
        let rest = rest.trim();
        let some = |what: &str| match rest.is_empty() {
            true => Err(format!("{name} requires {what}")),
            false => Ok(rest.to_owned()),
        };
        let one = || match rest.split_whitespace().count() {
            1 => Ok(rest.to_owned()),
            _ => Err(format!("{name} requires exactly one argument")),
        };
        let any = "at least one argument";
        Ok(match name.as_str() {
            "FROM" => from(&flags, rest)?,
            "ARG" => Instruction::Arg(arg(&some(any)?, escape)?),
            "RUN" => {
                let command = command(&some(any)?);
                if !documents.is_empty() && matches!(command, Command::Exec(_)) {
                    return Err("a heredoc needs the shell form of RUN".into());
                }
                Instruction::Run(Run {
                    command,
                    documents,
                    network: flags.value("network")?,
                    mounts: flags.values("mount"),
                    security: flags.value("security")?,
                })
            }
            "COPY" | "ADD" => Instruction::Copy(transfer(&name, &flags, rest, documents, escape)?),
            "CMD" => Instruction::Cmd(command(rest)),
            "ENTRYPOINT" => Instruction::Entrypoint(command(&some(any)?)),
            "ENV" => Instruction::Env(pairs("ENV", rest, escape)?),
            "LABEL" => Instruction::Label(pairs("LABEL", rest, escape)?),
            "EXPOSE" => Instruction::Expose(some(any)?.split_whitespace().map(str::to_owned).collect()),
            "VOLUME" => {
                let text = some(any)?;
                let paths = json_list(&text).unwrap_or_else(|| text.split_whitespace().map(str::to_owned).collect());
                if paths.is_empty() || paths.iter().any(|p| p.trim().is_empty()) {
                    return Err("VOLUME specified can not be an empty string".into());
                }
                Instruction::Volume(paths)
            }
            "USER" => Instruction::User(one()?),
            "WORKDIR" => Instruction::Workdir(some("exactly one argument")?),
            "STOPSIGNAL" => Instruction::Stopsignal(one()?),
            "SHELL" => match json_list(rest) {
                Some(words) if !words.is_empty() => Instruction::Shell(words),
                _ if rest.is_empty() => return Err("SHELL requires at least one argument".into()),
                _ => return Err("SHELL requires the arguments to be in JSON form".into()),
            },
            "ONBUILD" => Instruction::Onbuild(onbuild(&some(any)?, documents, escape)?),
            "MAINTAINER" => Instruction::Maintainer(some("exactly one argument")?),
            "HEALTHCHECK" => Instruction::Healthcheck(health(&flags, rest)?),
            _ => return Err(format!("unknown instruction: {word}")),
        })
    }

    /// Reads an instruction that stands alone: of `ONBUILD`, or of a commit.
    pub fn alone(text: &str) -> Result<Instruction, String> {
        if text.contains('\n') {
            return Err("it is one instruction on one line".into());
        }
        Instruction::parse(text.trim(), Vec::new(), '\\')
    }

    /// With its variables expanded, where the instruction allows them.
    pub fn expand(&self, escape: char, vars: Lookup<'_>) -> Result<Instruction, String> {
        let word = |t: &String| expand::word(t, escape, vars).map_err(|e| format!("failed to process {t:?}: {e}"));
        let all = |list: &[String]| list.iter().map(word).collect::<Result<Vec<_>, _>>();
        let maybe = |t: &Option<String>| t.as_ref().map(word).transpose();
        let both = |list: &[(String, String)]| -> Result<Vec<_>, String> {
            list.iter().map(|(k, v)| Ok((word(k)?, word(v)?))).collect()
        };
        Ok(match self {
            Instruction::From { image, platform, name } => Instruction::From {
                image: word(image)?,
                platform: maybe(platform)?,
                name: name.clone(),
            },
            Instruction::Arg(list) => {
                let one = |(k, v): &(String, Option<String>)| Ok::<_, String>((word(k)?, maybe(v)?));
                Instruction::Arg(list.iter().map(one).collect::<Result<_, _>>()?)
            }
            Instruction::Copy(t) => {
                let document = |d: &Heredoc| -> Result<Heredoc, String> {
                    let content = match d.expand {
                        true => expand::document(&d.content, escape, vars)?,
                        false => d.content.clone(),
                    };
                    Ok(Heredoc { content, ..d.clone() })
                };
                Instruction::Copy(Transfer {
                    sources: all(&t.sources)?,
                    dest: word(&t.dest)?,
                    chown: maybe(&t.chown)?,
                    chmod: maybe(&t.chmod)?,
                    checksum: maybe(&t.checksum)?,
                    excludes: all(&t.excludes)?,
                    documents: t.documents.iter().map(document).collect::<Result<_, _>>()?,
                    ..t.clone()
                })
            }
            Instruction::Run(run) if !run.mounts.is_empty() => Instruction::Run(Run {
                mounts: all(&run.mounts)?,
                ..run.clone()
            }),
            Instruction::Env(list) => Instruction::Env(both(list)?),
            Instruction::Label(list) => Instruction::Label(both(list)?),
            Instruction::Expose(list) => {
                let mut out = Vec::new();
                for t in list {
                    let more = expand::words(t, escape, vars);
                    out.extend(more.map_err(|e| format!("failed to process {t:?}: {e}"))?);
                }
                Instruction::Expose(out)
            }
            Instruction::Volume(list) => Instruction::Volume(all(list)?),
            Instruction::User(t) => Instruction::User(word(t)?),
            Instruction::Workdir(t) => Instruction::Workdir(word(t)?),
            Instruction::Stopsignal(t) => Instruction::Stopsignal(word(t)?),
            other => other.clone(),
        })
    }

    /// As it is called.
    pub fn name(&self) -> &'static str {
        match self {
            Instruction::From { .. } => "FROM",
            Instruction::Arg(_) => "ARG",
            Instruction::Run(_) => "RUN",
            Instruction::Copy(t) if t.add => "ADD",
            Instruction::Copy(_) => "COPY",
            Instruction::Cmd(_) => "CMD",
            Instruction::Entrypoint(_) => "ENTRYPOINT",
            Instruction::Env(_) => "ENV",
            Instruction::Label(_) => "LABEL",
            Instruction::Expose(_) => "EXPOSE",
            Instruction::Volume(_) => "VOLUME",
            Instruction::User(_) => "USER",
            Instruction::Workdir(_) => "WORKDIR",
            Instruction::Stopsignal(_) => "STOPSIGNAL",
            Instruction::Shell(_) => "SHELL",
            Instruction::Onbuild(_) => "ONBUILD",
            Instruction::Maintainer(_) => "MAINTAINER",
            Instruction::Healthcheck(_) => "HEALTHCHECK",
        }
    }
}

fn command(text: &str) -> Command {
    match json_list(text) {
        Some(words) => Command::Exec(words),
        None => Command::Shell(text.to_owned()),
    }
}

fn from(flags: &Flags, rest: &str) -> Result<Instruction, String> {
    let words: Vec<&str> = rest.split_whitespace().collect();
    let name = match words[..] {
        [_] => None,
        [_, word, name] if word.eq_ignore_ascii_case("as") => {
            let name = name.to_ascii_lowercase();
            let fits =
                |(i, c): (usize, char)| c.is_ascii_lowercase() || (i > 0 && (c.is_ascii_digit() || "-_.".contains(c)));
            if !name.char_indices().all(fits) {
                return Err(format!(
                    "invalid name for build stage: {name:?}, name can't start with a number or contain symbols"
                ));
            }
            Some(name)
        }
        _ => return Err("FROM requires either one or three arguments".into()),
    };
    Ok(Instruction::From {
        image: words[0].to_owned(),
        platform: flags.value("platform")?,
        name,
    })
}

fn arg(text: &str, escape: char) -> Result<Vec<(String, Option<String>)>, String> {
    let one = |w: &String| {
        let (name, value) = match w.split_once('=') {
            Some((n, v)) => (n, Some(v.to_owned())),
            None => (&w[..], None),
        };
        match name.is_empty() {
            true => Err("ARG names can not be blank".to_owned()),
            false => Ok((name.to_owned(), value)),
        }
    };
    crate::words::raw_words(text, escape).iter().map(one).collect()
}

fn transfer(name: &str, flags: &Flags, rest: &str, documents: Vec<Heredoc>, escape: char) -> Result<Transfer, String> {
    let is_list = json_list(rest);
    let mut words = match &is_list {
        Some(words) => words.clone(),
        None => rest.split_whitespace().map(str::to_owned).collect(),
    };
    let dest = match words.len() {
        0 => return Err(format!("{name} requires at least two arguments")),
        1 => {
            return Err(format!(
                "{name} requires at least two arguments, but only one was provided. Destination could not be determined."
            ));
        }
        _ => words.pop().unwrap_or_default(),
    };
    if dest.is_empty() {
        return Err(format!("{name} needs a destination that is not empty"));
    }
    if is_list.is_none() && !documents.is_empty() {
        words.retain(|w| heredoc_word(w, escape).is_none());
    }
    flags.flag("link")?;
    let keep_git_dir = flags.flag("keep-git-dir")?;
    let owner = flags.value("chown")?;
    Ok(Transfer {
        add: name == "ADD",
        sources: words,
        documents,
        dest,
        from: flags.value("from")?,
        chown: owner,
        chmod: flags.value("chmod")?,
        checksum: flags.value("checksum")?,
        excludes: flags.values("exclude"),
        parents: flags.flag("parents")?,
        keep_git_dir,
        unpack: match flags.value("unpack") {
            Ok(None) => None,
            _ => Some(flags.flag("unpack")?),
        },
    })
}

fn onbuild(text: &str, documents: Vec<Heredoc>, escape: char) -> Result<String, String> {
    let name = text.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
    match name.as_str() {
        "ONBUILD" => return Err("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed".into()),
        "FROM" | "MAINTAINER" => return Err(format!("{name} isn't allowed as an ONBUILD trigger")),
        _ if !documents.is_empty() => return Err("a heredoc cannot be kept for a later build: copy a file".into()),
        _ => {}
    }
    Instruction::parse(text, Vec::new(), escape)?;
    Ok(text.to_owned())
}

fn health(flags: &Flags, rest: &str) -> Result<Health, String> {
    let time = |name: &str| -> Result<u64, String> {
        let Some(text) = flags.value(name)? else { return Ok(0) };
        match duration::parse(&text) {
            None => Err(format!("--{name}={text} is no duration, as 30s or 1m30s")),
            Some(n) if n > 0 && n < 1_000_000 => Err(format!("Interval {name:?} cannot be less than 1ms")),
            Some(n) => Ok(n),
        }
    };
    let retries = match flags.value("retries")? {
        None => 0,
        Some(text) => text
            .parse()
            .map_err(|_| format!("--retries={text} is no number of at least 0"))?,
    };
    let mut health = Health {
        test: None,
        interval: time("interval")?,
        timeout: time("timeout")?,
        start_period: time("start-period")?,
        start_interval: time("start-interval")?,
        retries,
    };
    let (kind, test) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    match kind.to_ascii_uppercase().as_str() {
        "NONE" if !test.trim().is_empty() => return Err("HEALTHCHECK NONE takes no arguments".into()),
        "NONE" if health != Health::default() => return Err("HEALTHCHECK NONE takes no options".into()),
        "NONE" => {}
        "CMD" => match command(test.trim()) {
            Command::Exec(words) if words.is_empty() => return Err("Missing command after HEALTHCHECK CMD".into()),
            Command::Shell(line) if line.is_empty() => return Err("Missing command after HEALTHCHECK CMD".into()),
            test => health.test = Some(test),
        },
        "" => return Err("HEALTHCHECK requires at least one argument".into()),
        other => return Err(format!("Unknown type {other:?} in HEALTHCHECK (try CMD)")),
    }
    Ok(health)
}

/// The shell line of a `RUN` with documents, and the script where the whole is one document with an interpreter of its own.
impl Run {
    /// What the shell is given: documents are put behind the line as they stood in the file.
    pub fn line(&self, escape: char) -> Command {
        let Command::Shell(line) = &self.command else {
            return self.command.clone();
        };
        match &self.documents[..] {
            [] => self.command.clone(),
            [only] if heredoc_word(line.trim(), escape).is_some() => Command::Shell(only.content.clone()),
            several => {
                let mut all = line.clone();
                for d in several {
                    all.push('\n');
                    all.push_str(&d.content);
                    all.push_str(&d.name);
                }
                Command::Shell(all + "\n")
            }
        }
    }

    /// The document that names its own interpreter (`#!`), where it is all there is to run.
    pub fn script(&self, escape: char) -> Option<&str> {
        match (&self.command, &self.documents[..]) {
            (Command::Shell(line), [only])
                if heredoc_word(line.trim(), escape).is_some() && only.content.starts_with("#!") =>
            {
                Some(&only.content)
            }
            _ => None,
        }
    }
}

impl Command {
    /// The words that are executed, with the shell of this config for a line.
    pub fn words(&self, config: &serde_json::Map<String, serde_json::Value>) -> Vec<String> {
        match self {
            Command::Exec(words) => words.clone(),
            Command::Shell(line) => {
                let mut words = config::shell(config);
                words.push(line.clone());
                words
            }
        }
    }
}
