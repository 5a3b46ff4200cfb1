//! Other people's firewalls. Where the iptables table `filter` drops by policy what nobody accepts (Docker sets that
//! for FORWARD, ufw also for INPUT), an accept in our own table does not help: a packet must pass every table. So
//! rules for our bridges are put first there, and taken away with the last network.

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

/// Puts our rules where they are needed and missing. `bridges` is the prefix of our bridges' names.
pub fn let_through(bridges: &str) -> Result<(), Error> {
    let chains = list(&["list", "chains", "ip"])?;
    let mut script = String::new();
    for (chain, rules) in NEEDS {
        let drops = filter_chains(&chains).any(|c| c["name"] == chain && c["policy"] == "drop");
        if !drops {
            continue;
        }
        let docker = chain == "FORWARD" && filter_chains(&chains).any(|c| c["name"] == DOCKER_USER);
        let chain = if docker { DOCKER_USER } else { chain };
        let present = ours(chain, bridges)?.len();
        if present == rules.len() {
            continue;
        }
        script.push_str(&removal(chain, bridges)?);
        for rule in rules {
            let rule = rule.replace("BRIDGES", &format!("\"{bridges}*\""));
            script.push_str(&format!("insert rule ip filter {chain} {rule} counter accept\n"));
        }
    }
    if script.is_empty() {
        return Ok(());
    }
    run(&["-f", "-"], &script).map(drop)
}

/// Takes our rules away again.
pub fn withdraw(bridges: &str) -> Result<(), Error> {
    let chains = list(&["list", "chains", "ip"])?;
    let mut script = String::new();
    for chain in ["FORWARD", "INPUT", DOCKER_USER] {
        if filter_chains(&chains).any(|c| c["name"] == chain) {
            script.push_str(&removal(chain, bridges)?);
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

fn removal(chain: &str, bridges: &str) -> Result<String, Error> {
    Ok(ours(chain, bridges)?
        .iter()
        .map(|handle| format!("delete rule ip filter {chain} handle {handle}\n"))
        .collect())
}

/// Handles of our rules in a chain: those that match our bridges' names, which nobody else knows.
fn ours(chain: &str, bridges: &str) -> Result<Vec<u64>, Error> {
    let listing = list(&["list", "chain", "ip", "filter", chain])?;
    Ok(handles(&listing, &format!("{bridges}*")))
}

fn handles(listing: &Value, pattern: &str) -> Vec<u64> {
    let rules = listing["nftables"].as_array().into_iter().flatten();
    rules
        .filter_map(|o| o.get("rule"))
        .filter(|rule| {
            let mut matches = rule["expr"].as_array().into_iter().flatten();
            matches.any(|e| e["match"]["right"] == pattern)
        })
        .filter_map(|rule| rule["handle"].as_u64())
        .collect()
}

fn list(args: &[&str]) -> Result<Value, Error> {
    let mut all = vec!["-j"];
    all.extend_from_slice(args);
    Ok(serde_json::from_str(&run(&all, "")?).unwrap_or_default())
}
