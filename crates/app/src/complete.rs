//! What completion offers beside verbs and options: the names of what the daemon has.
//!
//! The shell starts this program for each press of the key, so a daemon that does not answer must not hold it up.

use std::ffi::OsStr;
use std::time::Duration;

use biga_client::{Client, Endpoint, ListParams, Resource};
use biga_model::{Image, Instance, Kind, Network, Node, Volume};
use clap::CommandFactory as _;
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate, ValueCompleter};

use crate::cli::Cli;
use crate::cmd::get::api_of;
use crate::context::{Context, familiar};

/// Longer nobody waits for a suggestion.
const PATIENCE: Duration = Duration::from_secs(1);

/// What is offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Offer {
    Instances,
    Volumes,
    Networks,
    Nodes,
    Images,
    /// An image as the first word of several; what follows is a command in it.
    ImageFirst,
    /// Kinds, and after a slash the names of one.
    Kinds,
    /// Names of the kind that stands before them.
    OfKind,
}

/// The verb, its argument, and what that takes.
const ARGUMENTS: &[(&[&str], &str, Offer)] = &[
    (&["run"], "words", Offer::ImageFirst),
    (&["run"], "network", Offer::Networks),
    (&["create"], "words", Offer::ImageFirst),
    (&["create"], "network", Offer::Networks),
    (&["start"], "names", Offer::Instances),
    (&["stop"], "names", Offer::Instances),
    (&["restart"], "names", Offer::Instances),
    (&["kill"], "names", Offer::Instances),
    (&["pause"], "names", Offer::Instances),
    (&["resume"], "names", Offer::Instances),
    (&["rm"], "names", Offer::Instances),
    (&["rename"], "name", Offer::Instances),
    (&["inspect"], "names", Offer::Instances),
    (&["logs"], "name", Offer::Instances),
    (&["exec"], "name", Offer::Instances),
    (&["attach"], "name", Offer::Instances),
    (&["console"], "name", Offer::Instances),
    (&["stats"], "names", Offer::Instances),
    (&["top"], "name", Offer::Instances),
    (&["wait"], "names", Offer::Instances),
    (&["update"], "names", Offer::Instances),
    (&["events"], "object", Offer::Instances),
    (&["diff"], "name", Offer::Instances),
    (&["commit"], "name", Offer::Instances),
    (&["export"], "name", Offer::Instances),
    (&["checkpoint", "create"], "name", Offer::Instances),
    (&["checkpoint", "ls"], "name", Offer::Instances),
    (&["checkpoint", "rm"], "name", Offer::Instances),
    (&["image", "push"], "image", Offer::Images),
    (&["image", "rm"], "images", Offer::Images),
    (&["image", "inspect"], "names", Offer::Images),
    (&["image", "save"], "images", Offer::Images),
    (&["image", "tag"], "image", Offer::Images),
    (&["image", "history"], "image", Offer::Images),
    (&["volume", "rm"], "names", Offer::Volumes),
    (&["volume", "inspect"], "names", Offer::Volumes),
    (&["network", "rm"], "names", Offer::Networks),
    (&["network", "inspect"], "names", Offer::Networks),
    (&["node", "inspect"], "names", Offer::Nodes),
    (&["get"], "kind", Offer::Kinds),
    (&["get"], "names", Offer::OfKind),
    (&["edit"], "kind", Offer::Kinds),
    (&["edit"], "name", Offer::OfKind),
    (&["delete"], "kind", Offer::Kinds),
    (&["delete"], "names", Offer::OfKind),
    (&["compare"], "image", Offer::Images),
];

/// The command line with these offers.
pub fn command() -> clap::Command {
    ARGUMENTS
        .iter()
        .fold(Cli::command(), |c, (path, id, offer)| attach(c, path, id, *offer))
}

fn attach(c: clap::Command, path: &[&'static str], id: &'static str, offer: Offer) -> clap::Command {
    match path.split_first() {
        // Not `mut_arg`: that puts the argument behind all others, and positions count.
        None => c.mut_args(|a| match a.get_id() == id {
            true => a.add(ArgValueCompleter::new(offer)),
            false => a,
        }),
        Some((verb, rest)) => c.mut_subcommand(verb, |s| attach(s, rest, id, offer)),
    }
}

impl ValueCompleter for Offer {
    fn complete(&self, current: &OsStr) -> Vec<CompletionCandidate> {
        let Some(current) = current.to_str() else {
            return Vec::new();
        };
        let all = suggestions(*self, current, &words());
        let fitting = all.into_iter().filter(|n| n.starts_with(current));
        fitting.map(CompletionCandidate::new).collect()
    }

    fn complete_at(&self, index: usize, current: &OsStr) -> Vec<CompletionCandidate> {
        match (self, index) {
            (Offer::ImageFirst, 1..) => Vec::new(),
            _ => self.complete(current),
        }
    }
}

/// The words of the line that is being completed: they come after `--`.
fn words() -> Vec<String> {
    let all = std::env::args_os().map(|a| a.to_string_lossy().into_owned());
    all.skip_while(|a| a != "--").skip(1).collect()
}

/// Names, or nothing where the daemon cannot say.
fn suggestions(offer: Offer, current: &str, words: &[String]) -> Vec<String> {
    if offer == Offer::Kinds && !current.contains('/') {
        return Resource::known().into_iter().map(|r| r.plural).collect();
    }
    let Some(cx) = context(words) else {
        return Vec::new();
    };
    let asked = async {
        match offer {
            Offer::Instances => names::<Instance>(&cx).await,
            Offer::Volumes => names::<Volume>(&cx).await,
            Offer::Networks => names::<Network>(&cx).await,
            Offer::Nodes => names::<Node>(&cx).await,
            Offer::Images | Offer::ImageFirst => images(&cx).await,
            Offer::Kinds => {
                let (kind, _) = current.split_once('/')?;
                let found = of_kind(&cx, kind).await?;
                Some(found.into_iter().map(|n| format!("{kind}/{n}")).collect())
            }
            Offer::OfKind => {
                let kind = words.iter().find(|w| known(w).is_some())?;
                of_kind(&cx, kind).await
            }
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let answered = runtime.map(|r| r.block_on(async { tokio::time::timeout(PATIENCE, asked).await }));
    answered.ok().and_then(Result::ok).flatten().unwrap_or_default()
}

/// Where the line says to ask, or the environment.
fn context(words: &[String]) -> Option<Context> {
    let host = match option(words, &["--host"]) {
        Some(h) => h.parse().ok()?,
        None => Endpoint::from_env().ok()?,
    };
    let from_env = || std::env::var("BIGA_NAMESPACE").ok().filter(|n| !n.is_empty());
    let namespace = option(words, &["--namespace", "-n"]).or_else(from_env);
    Some(Context {
        client: Client::new(host),
        namespace: namespace.unwrap_or_else(|| "default".into()),
    })
}

/// The value of an option, written as one word or as two.
fn option(words: &[String], names: &[&str]) -> Option<String> {
    let at = |(i, w): (usize, &String)| {
        if names.contains(&w.as_str()) {
            return words.get(i + 1).cloned();
        }
        let (name, value) = w.split_once('=')?;
        names.contains(&name).then(|| value.to_string())
    };
    words.iter().enumerate().find_map(at)
}

async fn names<K: Kind>(cx: &Context) -> Option<Vec<String>> {
    let list = cx.api::<K>().list(&ListParams::default()).await.ok()?;
    Some(list.items.iter().map(|o| o.name().to_string()).collect())
}

async fn images(cx: &Context) -> Option<Vec<String>> {
    let list = cx.api::<Image>().list(&ListParams::default()).await.ok()?;
    Some(list.items.iter().map(|o| familiar(&o.spec.reference)).collect())
}

fn known(word: &str) -> Option<Resource> {
    Resource::known().into_iter().find(|r| r.answers_to(word))
}

async fn of_kind(cx: &Context, kind: &str) -> Option<Vec<String>> {
    let list = api_of(cx, known(kind)?, false)
        .list(&ListParams::default())
        .await
        .ok()?;
    let name = |o: &serde_json::Value| o["metadata"]["name"].as_str().map(String::from);
    Some(list.items.iter().filter_map(name).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_argument_is_one() {
        let root = Cli::command();
        for (path, id, _) in ARGUMENTS {
            let mut at = &root;
            for verb in *path {
                at = at.find_subcommand(verb).unwrap_or_else(|| panic!("{path:?}"));
            }
            assert!(at.get_arguments().any(|a| a.get_id() == id), "{path:?} has no {id}");
        }
        command().debug_assert();
    }

    #[test]
    fn every_verb_that_takes_names_completes_them() {
        fn look(c: &clap::Command, path: &mut Vec<String>, left: &mut Vec<String>) {
            let names = c
                .get_arguments()
                .filter(|a| ["name", "names"].contains(&a.get_id().as_str()));
            for a in names.filter(|a| a.get_index().is_some() || a.is_positional()) {
                if a.get::<ArgValueCompleter>().is_none() {
                    left.push(path.join(" "));
                }
            }
            for s in c.get_subcommands() {
                path.push(s.get_name().into());
                look(s, path, left);
                path.pop();
            }
        }
        let mut left = Vec::new();
        look(&command(), &mut Vec::new(), &mut left);
        // These give a name to something new.
        assert_eq!(left, ["image import", "image tag", "volume create", "network create"]);
    }

    #[test]
    fn options_of_the_line_are_heeded() {
        let words = |s: &str| s.split(' ').map(String::from).collect::<Vec<_>>();
        let line = words("biga -n lab --host=unix:///a.sock stop w");
        assert_eq!(option(&line, &["--namespace", "-n"]).as_deref(), Some("lab"));
        assert_eq!(option(&line, &["--host"]).as_deref(), Some("unix:///a.sock"));
        assert_eq!(option(&line, &["--other"]), None);
        assert_eq!(context(&line).unwrap().namespace, "lab");
        assert!(context(&words("biga --host ftp://x stop w")).is_none());
    }

    #[test]
    fn kinds_need_no_daemon() {
        let all = suggestions(Offer::Kinds, "in", &[]);
        assert!(all.contains(&"instances".to_string()), "{all:?}");
    }
}
