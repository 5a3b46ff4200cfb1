//! The command line, in the form engines know from `runc`: options before and after the verb, with one dash or two, with `=` or
//! a space.

use std::path::PathBuf;

use crate::error::Error;

/// Options before the verb.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Global {
    /// Where state is kept.
    pub root: PathBuf,
    /// Where failures and warnings are written, beside standard error.
    pub log: Option<PathBuf>,
    /// As JSON.
    pub log_json: bool,
    /// Control groups by systemd.
    pub systemd: bool,
    /// CRIU's program.
    pub criu: String,
}

/// A command line.
#[derive(Debug)]
pub struct Invocation {
    /// Options before the verb.
    pub global: Global,
    /// The verb; `--version` and `--help` too.
    pub verb: String,
    /// What follows it.
    pub rest: Vec<String>,
}

/// Where state is kept by default.
pub const ROOT: &str = "/run/biga-oci";

/// Splits a command line (without the program's name) at its verb.
pub fn parse(args: Vec<String>) -> Result<Invocation, Error> {
    let mut global = Global {
        root: ROOT.into(),
        log: None,
        log_json: false,
        systemd: false,
        criu: "criu".into(),
    };
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        let Some((name, value)) = option(&arg) else {
            return Ok(Invocation {
                global,
                verb: arg,
                rest: args.collect(),
            });
        };
        let on = value.is_none_or_true();
        let mut value = |what: &str| value.clone().or_else(|| args.next()).ok_or_else(|| missing(what));
        match name {
            "root" => global.root = value("root")?.into(),
            "log" => {
                let path = value("log")?;
                global.log = (!path.is_empty() && path != "/dev/stderr").then(|| path.into());
            }
            "log-format" => {
                global.log_json = match value("log-format")?.as_str() {
                    "json" => true,
                    "text" => false,
                    other => {
                        return Err(Error::Usage(format!(
                            "unknown log format {other:?}: it is text or json"
                        )));
                    }
                }
            }
            // Nothing differs here: told apart is only root or not.
            "rootless" => drop(value(name)?),
            "criu" => global.criu = value(name)?,
            "debug" => {}
            "systemd-cgroup" => global.systemd = on,
            "v" | "version" => return Ok(only(global, "--version")),
            "h" | "help" => return Ok(only(global, "--help")),
            _ => return Err(unknown(&arg)),
        }
    }
    Ok(only(global, "--help"))
}

fn only(global: Global, verb: &str) -> Invocation {
    Invocation {
        global,
        verb: verb.into(),
        rest: Vec::new(),
    }
}

fn missing(name: &str) -> Error {
    Error::Usage(format!("option --{name} needs a value"))
}

fn unknown(arg: &str) -> Error {
    Error::Usage(format!("unknown option {arg}: `biga oci --help` lists what there is"))
}

/// Name and value of an option; `None` for anything else.
fn option(arg: &str) -> Option<(&str, Inline)> {
    let name = arg.strip_prefix("--").or_else(|| arg.strip_prefix('-'))?;
    if name.is_empty() {
        return None;
    }
    Some(match name.split_once('=') {
        Some((name, value)) => (name, Inline(Some(value.to_owned()))),
        None => (name, Inline(None)),
    })
}

/// A value behind `=`.
#[derive(Debug, Clone)]
struct Inline(Option<String>);

impl Inline {
    fn or_else(self, other: impl FnOnce() -> Option<String>) -> Option<String> {
        self.0.or_else(other)
    }

    fn is_none_or_true(&self) -> bool {
        self.0.as_deref().is_none_or(|v| v != "false")
    }
}

/// An option of a verb: its names, and whether it takes a value.
pub type Known = (&'static str, &'static str, bool);

/// What follows a verb.
#[derive(Debug, Default)]
pub struct Options {
    values: Vec<(&'static str, String)>,
    /// What is no option.
    pub words: Vec<String>,
}

impl Options {
    /// Sorts out what follows a verb. With `command`, options end at the first word, since a command has its own.
    pub fn parse(rest: Vec<String>, known: &[Known], command: bool) -> Result<Options, Error> {
        let mut options = Options::default();
        let mut rest = rest.into_iter();
        while let Some(arg) = rest.next() {
            if arg == "--" {
                options.words.extend(rest);
                break;
            }
            let Some((name, value)) = option(&arg) else {
                options.words.push(arg);
                if command {
                    options.words.extend(rest);
                    break;
                }
                continue;
            };
            let known = known
                .iter()
                .find(|(long, short, _)| *long == name || (!short.is_empty() && *short == name));
            let Some((long, _, takes)) = known else {
                return Err(unknown(&arg));
            };
            let value = if *takes {
                value.or_else(|| rest.next()).ok_or_else(|| missing(long))?
            } else if value.is_none_or_true() {
                String::new()
            } else {
                continue;
            };
            options.values.push((long, value));
        }
        Ok(options)
    }

    /// Whether an option was given.
    pub fn has(&self, name: &str) -> bool {
        self.values.iter().any(|(n, _)| *n == name)
    }

    /// The last value of an option.
    pub fn get(&self, name: &str) -> Option<&str> {
        let last = self.values.iter().rev().find(|(n, _)| *n == name);
        last.map(|(_, v)| v.as_str())
    }

    /// Every value of an option.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let of = move |(n, v): &'a (&'static str, String)| (*n == name).then_some(v.as_str());
        self.values.iter().filter_map(of)
    }

    /// A number.
    pub fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, Error> {
        let parse = |v: &str| {
            v.parse()
                .map_err(|_| Error::Usage(format!("--{name} takes a number, not {v:?}")))
        };
        self.get(name).map(parse).transpose()
    }

    /// The one container this is about.
    pub fn id(&self) -> Result<&str, Error> {
        match self.words.first() {
            Some(id) => Ok(id),
            None => Err(Error::Usage("the container's id is missing".into())),
        }
    }

    /// Refuses words beyond so many.
    pub fn at_most(&self, count: usize) -> Result<(), Error> {
        match self.words.get(count) {
            Some(word) => Err(Error::Usage(format!("{word:?} is too much"))),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn the_line_of_an_engine() {
        let line = "--root /x --log=/l --log-format json --systemd-cgroup create --bundle /b --pid-file=/p web";
        let i = parse(words(line)).unwrap();
        assert_eq!(i.global.root, PathBuf::from("/x"));
        assert_eq!(i.global.log, Some("/l".into()));
        assert!(i.global.log_json && i.global.systemd);
        assert_eq!(i.verb, "create");
        let known = [("bundle", "b", true), ("pid-file", "", true)];
        let o = Options::parse(i.rest, &known, false).unwrap();
        assert_eq!((o.get("bundle"), o.get("pid-file")), (Some("/b"), Some("/p")));
        assert_eq!(o.id().unwrap(), "web");
    }

    #[test]
    fn options_of_a_command_are_its_own() {
        let known = [("tty", "t", false), ("env", "e", true)];
        let o = Options::parse(words("-t -e A=1 -e B=2 web ls -t --env x"), &known, true).unwrap();
        assert!(o.has("tty"));
        assert_eq!(o.all("env").collect::<Vec<_>>(), ["A=1", "B=2"]);
        assert_eq!(o.words, ["web", "ls", "-t", "--env", "x"]);
        let o = Options::parse(words("web --force"), &[("force", "f", false)], false).unwrap();
        assert!(o.has("force"));
    }

    #[test]
    fn nothing_is_guessed() {
        assert!(matches!(parse(words("--what create")), Err(Error::Usage(_))));
        assert!(matches!(parse(words("--root")), Err(Error::Usage(_))));
        assert!(matches!(Options::parse(words("--x"), &[], false), Err(Error::Usage(_))));
    }
}
