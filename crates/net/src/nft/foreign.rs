//! Other people's firewalls. Where the iptables table `filter` drops by policy what nobody accepts (Docker sets that
//! for FORWARD, ufw also for INPUT), an accept in our own table does not help: a packet must pass every table. So
//! rules for our bridges are put first there, and taken away with the last network.

use std::collections::BTreeSet;

use serde_json::Value;

use super::run;
use crate::Error;

/// What a chain of the table `ip filter` needs.
const NEEDS: [(&str, &[&str]); 2] = [
    ("FORWARD", &["iifname BRIDGES", "oifname BRIDGES"]),
    (
        "INPUT",
        &[
            "iifname BRIDGES udp dport 53",
            "iifname BRIDGES tcp dport 53",
            "iifname BRIDGES udp dport 67",
        ],
    ),
];

/// Docker leaves this chain, called first of FORWARD, to the administrator and never flushes it.
const DOCKER_USER: &str = "DOCKER-USER";

/// Puts our rules where they are needed and missing. `prefix` begins the names of our bridges; `named` are such as have
/// names of their users' choice.
pub fn let_through(prefix: &str, named: &BTreeSet<String>) -> Result<(), Error> {
    let patterns: Vec<String> = [format!("{prefix}*")]
        .into_iter()
        .chain(named.iter().cloned())
        .collect();
    let chains = list(&["list", "chains", "ip"])?;
    let mut script = String::new();
    for (chain, rules) in NEEDS {
        let drops = filter_chains(&chains).any(|c| c["name"] == chain && c["policy"] == "drop");
        if !drops {
            continue;
        }
        let docker = chain == "FORWARD" && filter_chains(&chains).any(|c| c["name"] == DOCKER_USER);
        let chain = if docker { DOCKER_USER } else { chain };
        let present = ours(chain, prefix)?;
        let all_there = patterns
            .iter()
            .all(|p| present.iter().filter(|(_, pattern)| pattern == p).count() == rules.len());
        if all_there && present.len() == rules.len() * patterns.len() {
            continue;
        }
        script.push_str(&removal(chain, prefix)?);
        for (pattern, rule) in patterns.iter().flat_map(|p| rules.iter().map(move |r| (p, r))) {
            let rule = rule.replace("BRIDGES", &format!("\"{pattern}\""));
            script.push_str(&format!(
                "insert rule ip filter {chain} {rule} counter accept comment \"{}\"\n",
                mark(prefix)
            ));
        }
    }
    if script.is_empty() {
        return Ok(());
    }
    run(&["-f", "-"], &script).map(drop)
}

/// The comment of our rules: names that users chose tell nothing of whose a rule is.
fn mark(prefix: &str) -> String {
    format!("{prefix} networks")
}

/// Takes our rules away again.
pub fn withdraw(prefix: &str) -> Result<(), Error> {
    let chains = list(&["list", "chains", "ip"])?;
    let mut script = String::new();
    for chain in ["FORWARD", "INPUT", DOCKER_USER] {
        if filter_chains(&chains).any(|c| c["name"] == chain) {
            script.push_str(&removal(chain, prefix)?);
        }
    }
    if script.is_empty() {
        return Ok(());
    }
    run(&["-f", "-"], &script).map(drop)
}

fn filter_chains(listing: &Value) -> impl Iterator<Item = &Value> {
    listing["nftables"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|o| o.get("chain"))
        .filter(|c| c["family"] == "ip" && c["table"] == "filter")
}

fn removal(chain: &str, prefix: &str) -> Result<String, Error> {
    Ok(ours(chain, prefix)?
        .iter()
        .map(|(handle, _)| format!("delete rule ip filter {chain} handle {handle}\n"))
        .collect())
}

/// Our rules in a chain, by handle and by the name they match: those with our mark, and those with our prefix, which nobody
/// else knows.
fn ours(chain: &str, prefix: &str) -> Result<Vec<(u64, String)>, Error> {
    let listing = list(&["list", "chain", "ip", "filter", chain])?;
    Ok(marked(&listing, prefix))
}

fn marked(listing: &Value, prefix: &str) -> Vec<(u64, String)> {
    let (mark, pattern) = (mark(prefix), format!("{prefix}*"));
    let rules = listing["nftables"].as_array().into_iter().flatten();
    rules
        .filter_map(|o| o.get("rule"))
        .filter_map(|rule| {
            let mut matches = rule["expr"].as_array().into_iter().flatten();
            let of_interface = |e: &&Value| {
                let key = e["match"]["left"]["meta"]["key"].as_str();
                key.is_some_and(|k| k == "iifname" || k == "oifname")
            };
            let name = matches.find(of_interface)?["match"]["right"].as_str()?;
            let ours = rule["comment"] == mark || name == pattern;
            ours.then(|| Some((rule["handle"].as_u64()?, name.to_owned())))?
        })
        .collect()
}

fn list(args: &[&str]) -> Result<Value, Error> {
    let mut all = vec!["-j"];
    all.extend_from_slice(args);
    Ok(serde_json::from_str(&run(&all, "")?).unwrap_or_default())
}
