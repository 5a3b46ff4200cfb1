//! The rules: one nft table, changed by running `nft`.
//!
//! A run of `nft` costs some 10 ms of CPU, so rules are written once and all that changes later are elements of sets
//! and maps. Callers change what is *wanted*; [`Rules::sync`] brings the kernel there in one run, and callers who
//! waited meanwhile find their work done.
//!
//! - [`script`]: the text of the table
//! - [`foreign`]: making other people's firewalls let our packets through

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};

use parking_lot::Mutex;
use serde_json::Value;

use crate::Error;

pub mod foreign;
mod script;

/// A set or map of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Set {
    /// Names of all bridges.
    Bridges,
    /// Bridges of internal networks.
    Internal,
    /// Pairs of bridges between which packets pass: each with itself.
    Same,
    /// Subnets whose packets leave with the host's address.
    Nat,
    /// All subnets.
    Subnets,
    /// Ports published on every address: `tcp . 8080 : 10.88.0.2 . 80`.
    PortsAny,
    /// Ports published on one address: `192.0.2.1 . tcp . 8080 : 10.88.0.2 . 80`.
    PortsIp,
    /// Ports that are open at the instance's own address: `10.88.0.2 . tcp . 80`.
    PortsOpen,
    /// Source addresses of packets that leave: `10.88.0.0/24 : 192.0.2.7`.
    Sources,
    /// Bridges whose instances are reached from outside at every port.
    Unprotected,
    /// Bridges without translation, whose instances answer pings from everywhere.
    Routed,
    /// Bridges cut off from the host itself.
    Isolated,
}

const SETS: [Set; 12] = [
    Set::Bridges,
    Set::Internal,
    Set::Same,
    Set::Nat,
    Set::Subnets,
    Set::PortsAny,
    Set::PortsIp,
    Set::PortsOpen,
    Set::Sources,
    Set::Unprotected,
    Set::Routed,
    Set::Isolated,
];

impl Set {
    fn name(self) -> &'static str {
        match self {
            Set::Bridges => "bridges",
            Set::Internal => "internal",
            Set::Same => "same",
            Set::Nat => "nat",
            Set::Subnets => "subnets",
            Set::PortsAny => "ports_any",
            Set::PortsIp => "ports_ip",
            Set::PortsOpen => "ports_open",
            Set::Sources => "sources",
            Set::Unprotected => "unprotected",
            Set::Routed => "routed",
            Set::Isolated => "isolated",
        }
    }

    /// Whether its keys are names of bridges.
    pub fn is_bridges(self) -> bool {
        matches!(
            self,
            Set::Bridges | Set::Internal | Set::Same | Set::Unprotected | Set::Routed | Set::Isolated
        )
    }

    /// Whether its elements are published ports.
    pub fn is_ports(self) -> bool {
        matches!(self, Set::PortsAny | Set::PortsIp | Set::PortsOpen)
    }
}

/// Elements: set and key → value, empty for plain sets.
pub type Elements = BTreeMap<(Set, String), String>;

/// The table of one daemon.
pub struct Rules {
    table: String,
    wanted: Mutex<Elements>,
    kernel: Mutex<Kernel>,
}

#[derive(Default)]
struct Kernel {
    /// What we know to be there; nothing before the first look.
    elements: Option<Elements>,
    /// Whether chains and rules were written.
    written: bool,
}

impl Rules {
    /// Of the table with this name. Looks at nothing yet.
    pub fn new(table: &str) -> Rules {
        Rules {
            table: table.to_owned(),
            wanted: Mutex::new(Elements::new()),
            kernel: Mutex::new(Kernel::default()),
        }
    }

    /// Changes what is wanted. Call [`Rules::sync`] after it.
    pub fn change<T>(&self, change: impl FnOnce(&mut Elements) -> T) -> Result<T, Error> {
        self.look()?;
        Ok(change(&mut self.wanted.lock()))
    }

    /// Brings the kernel to what is wanted. Nothing is run where it is there already.
    pub fn sync(&self) -> Result<(), Error> {
        self.look()?;
        let mut kernel = self.kernel.lock();
        let first = self.try_sync(&mut kernel);
        if first.is_ok() {
            return Ok(());
        }
        // Somebody may have flushed the ruleset: look again and write it anew.
        kernel.elements = Some(self.list()?);
        kernel.written = false;
        self.try_sync(&mut kernel)
    }

    /// Has the next [`Rules::sync`] compare with the kernel and write the rules again, whatever we remember.
    pub fn distrust(&self) -> Result<(), Error> {
        let mut kernel = self.kernel.lock();
        if kernel.elements.is_some() {
            kernel.elements = Some(self.list()?);
            kernel.written = false;
        }
        Ok(())
    }

    /// Removes the table.
    pub fn delete(&self) -> Result<(), Error> {
        let mut kernel = self.kernel.lock();
        self.wanted.lock().clear();
        kernel.elements = Some(Elements::new());
        kernel.written = false;
        run(
            &["-f", "-"],
            &format!("add table ip {0}\ndelete table ip {0}\n", self.table),
        )
        .map(drop)
    }

    /// The first look takes over what an earlier run of the daemon left.
    fn look(&self) -> Result<(), Error> {
        let mut kernel = self.kernel.lock();
        if kernel.elements.is_none() {
            let found = self.list()?;
            self.wanted.lock().clone_from(&found);
            kernel.elements = Some(found);
        }
        Ok(())
    }

    fn try_sync(&self, kernel: &mut Kernel) -> Result<(), Error> {
        let wanted = self.wanted.lock().clone();
        let have = kernel.elements.clone().unwrap_or_default();
        let mut text = String::new();
        if !kernel.written {
            text.push_str(&script::base(&self.table));
        }
        for (element, value) in &have {
            if wanted.get(element) != Some(value) {
                script::element(&mut text, &self.table, "delete", element.0, &element.1, value);
            }
        }
        for (element, value) in &wanted {
            if have.get(element) != Some(value) {
                script::element(&mut text, &self.table, "add", element.0, &element.1, value);
            }
        }
        if text.is_empty() {
            return Ok(());
        }
        run(&["-f", "-"], &text)?;
        kernel.written = true;
        kernel.elements = Some(wanted);
        Ok(())
    }

    fn list(&self) -> Result<Elements, Error> {
        match run(&["-j", "list", "table", "ip", &self.table], "") {
            Ok(text) => Ok(elements(&text)),
            Err(Error::ProgramFailed { message, .. }) if message.contains("No such file") => Ok(Elements::new()),
            Err(e) => Err(e),
        }
    }
}

/// Reads the elements out of a listing.
fn elements(listing: &str) -> Elements {
    let listing: Value = serde_json::from_str(listing).unwrap_or_default();
    let mut found = Elements::new();
    for object in listing["nftables"].as_array().into_iter().flatten() {
        let set = object.get("set").or_else(|| object.get("map")).unwrap_or(&Value::Null);
        let Some(&kind) = SETS.iter().find(|s| set["name"] == s.name()) else {
            continue;
        };
        for elem in set["elem"].as_array().into_iter().flatten() {
            let (key, value) = match elem.as_array().map(Vec::as_slice) {
                Some([key, value]) => (text(key), text(value)),
                _ => (text(elem), Some(String::new())),
            };
            if let (Some(key), Some(value)) = (key, value) {
                found.insert((kind, key), value);
            }
        }
    }
    found
}

/// One element in nft's own syntax.
fn text(value: &Value) -> Option<String> {
    if let Some(parts) = value["concat"].as_array() {
        let parts: Option<Vec<_>> = parts.iter().map(text).collect();
        return Some(parts?.join(" . "));
    }
    if let Some(prefix) = value.get("prefix") {
        return Some(format!("{}/{}", prefix["addr"].as_str()?, prefix["len"]));
    }
    match value {
        Value::String(s) => Some(s.clone()),
        Value::Number(n) => Some(n.to_string()),
        _ => None,
    }
}

/// Runs `nft` in the calling thread's network namespace and returns what it prints.
pub fn run(args: &[&str], input: &str) -> Result<String, Error> {
    let program = "nft";
    let spawn = |path: &str| {
        Command::new(path)
            .args(args)
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
    };
    // It lives in sbin, which is not in everybody's PATH.
    let mut child = match spawn(program) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => spawn("/usr/sbin/nft"),
        other => other,
    }
    .map_err(|source| Error::Program { program, source })?;
    // `nft` reads all input before it prints, so this cannot block; where it ended early its message says why.
    let written = child.stdin.take().map(|mut stdin| stdin.write_all(input.as_bytes()));
    let output = child
        .wait_with_output()
        .map_err(|source| Error::Program { program, source })?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(Error::ProgramFailed { program, message });
    }
    if let Some(Err(source)) = written {
        return Err(Error::Program { program, source });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_is_read_back() {
        let listing = r#"{"nftables": [{"metainfo": {}}, {"table": {"family": "ip", "name": "t"}},
            {"set": {"name": "bridges", "elem": ["t-aa"]}}, {"set": {"name": "internal"}},
            {"set": {"name": "same", "elem": [{"concat": ["t-aa", "t-aa"]}]}},
            {"set": {"name": "nat", "elem": [{"prefix": {"addr": "10.1.0.0", "len": 24}}]}},
            {"set": {"name": "foreign", "elem": ["x"]}},
            {"map": {"name": "ports_ip", "elem": [[{"concat": ["127.0.0.1", "udp", 81]}, {"concat": ["10.1.0.2", 80]}]]}}]}"#;
        let found: Vec<_> = elements(listing).into_iter().map(|((s, k), v)| (s, k, v)).collect();
        let expected = [
            (Set::Bridges, "t-aa", ""),
            (Set::Same, "t-aa . t-aa", ""),
            (Set::Nat, "10.1.0.0/24", ""),
            (Set::PortsIp, "127.0.0.1 . udp . 81", "10.1.0.2 . 80"),
        ]
        .map(|(s, k, v)| (s, k.to_owned(), v.to_owned()));
        assert_eq!(found, expected);
        assert!(elements("").is_empty());
        assert!(elements("[1, {}]").is_empty());
    }
}
