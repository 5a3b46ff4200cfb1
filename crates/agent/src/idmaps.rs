//! User ids for instances that have their own: 65536 each, none shared by two.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use biga_wire::config::IdMap;
use parking_lot::Mutex;

use crate::instance::Failure;

/// Ids of each.
const SIZE: u32 = 65_536;
/// The first range: within what systemd sets aside for containers (524288 to 1879048191), above what `/etc/subuid` usually
/// gives to users.
const FIRST: u32 = 0x4000_0000 / SIZE;
/// How many ranges there are.
const COUNT: u32 = 0x3000_0000 / SIZE;
/// File in an instance's state directory with the first id of its range.
const FILE: &str = "ids";

/// The ranges that are taken.
pub struct IdMaps {
    /// Directories of the instances that keep their ranges.
    instances: PathBuf,
    /// The shim's program, which can hold namespaces.
    shim: Arc<OwnedFd>,
    taken: Mutex<BTreeMap<u32, String>>,
    /// What `/etc/subuid` and `/etc/subgid` give to users of the host.
    foreign: Vec<(u32, u32)>,
}

impl IdMaps {
    /// Reads which ranges the instances below `instances` have.
    pub fn new(instances: PathBuf, shim: Arc<OwnedFd>) -> IdMaps {
        let mut taken = BTreeMap::new();
        for entry in std::fs::read_dir(&instances).into_iter().flatten().flatten() {
            if let Some(base) = read(&entry.path()) {
                taken.insert(base, entry.file_name().to_string_lossy().into_owned());
            }
        }
        let subordinate = ["/etc/subuid", "/etc/subgid"].map(|p| std::fs::read_to_string(p).unwrap_or_default());
        IdMaps {
            instances,
            shim,
            taken: Mutex::new(taken),
            foreign: subordinate.iter().flat_map(|t| foreign(t)).collect(),
        }
    }

    /// The range of an instance, its own as long as it exists.
    pub fn range(&self, uid: &str) -> Result<IdMap, Failure> {
        let map = |base| IdMap { base, size: SIZE };
        let dir = self.instances.join(uid);
        let mut taken = self.taken.lock();
        if let Some(base) = read(&dir).filter(|b| taken.get(b).is_none_or(|owner| owner == uid)) {
            taken.insert(base, uid.to_owned());
            return Ok(map(base));
        }
        let base = free(&taken, &self.foreign)
            .ok_or_else(|| Failure::new("NoUserIds", "all ranges of user ids are taken: remove instances"))?;
        std::fs::write(dir.join(FILE), base.to_string())
            .map_err(|e| Failure::new("StateFailed", format!("cannot note the user ids of {uid}: {e}")))?;
        taken.insert(base, uid.to_owned());
        Ok(map(base))
    }

    /// Gives back the range of an instance that is gone.
    pub fn release(&self, uid: &str) {
        self.taken.lock().retain(|_, owner| owner != uid);
    }

    /// Makes a user namespace with these ids, and a network namespace that belongs to it; as long as the latter is held, the
    /// former is.
    pub async fn network(&self, ids: IdMap) -> Result<OwnedFd, Failure> {
        let shim = self.shim.clone();
        let made = tokio::task::spawn_blocking(move || network(&shim, ids)).await;
        made.unwrap_or_else(|e| Err(io::Error::other(e)))
            .map_err(|e| Failure::new("UserNamespaceFailed", format!("cannot make a user namespace: {e}")))
    }
}

fn read(dir: &Path) -> Option<u32> {
    std::fs::read_to_string(dir.join(FILE)).ok()?.trim().parse().ok()
}

/// `name:first:count`, a line each.
fn foreign(text: &str) -> Vec<(u32, u32)> {
    let line = |l: &str| {
        let mut words = l.split(':').skip(1).map(|n| n.trim().parse::<u32>().ok());
        Some((words.next()??, words.next()??))
    };
    text.lines().filter_map(line).collect()
}

/// The first id of the lowest free range.
fn free(taken: &BTreeMap<u32, String>, foreign: &[(u32, u32)]) -> Option<u32> {
    let apart = |base: u32| {
        foreign
            .iter()
            .all(|(first, count)| base >= first.saturating_add(*count) || base.saturating_add(SIZE) <= *first)
    };
    (FIRST..FIRST + COUNT)
        .map(|slot| slot * SIZE)
        .find(|base| !taken.contains_key(base) && apart(*base))
}

fn network(shim: &OwnedFd, ids: IdMap) -> io::Result<OwnedFd> {
    let mut holder = Command::new(format!("/proc/self/fd/{}", shim.as_raw_fd()))
        .arg(biga_container::userns::HOLD)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let made = held(&mut holder, ids);
    // The end of its input ends it.
    drop(holder.stdin.take());
    holder.wait()?;
    made
}

fn held(holder: &mut std::process::Child, ids: IdMap) -> io::Result<OwnedFd> {
    let mut line = String::new();
    if let Some(out) = holder.stdout.take() {
        BufReader::new(out).read_line(&mut line)?;
    }
    if line != "ready\n" {
        return Err(io::Error::other(line.trim().to_owned()));
    }
    biga_container::userns::write_maps(holder.id(), &ids).map_err(io::Error::other)?;
    Ok(std::fs::File::open(format!("/proc/{}/ns/net", holder.id()))?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_never_overlap() {
        let dir = tempfile::tempdir().unwrap();
        let null: Arc<OwnedFd> = Arc::new(std::fs::File::open("/dev/null").unwrap().into());
        let maps = IdMaps::new(dir.path().to_owned(), null.clone());
        for uid in ["a", "b", "c"] {
            std::fs::create_dir(dir.path().join(uid)).unwrap();
        }
        let (a, b) = (maps.range("a").unwrap(), maps.range("b").unwrap());
        assert_ne!(a.base, b.base);
        assert_eq!(maps.range("a").unwrap(), a, "it stays");
        // After a restart of the daemon, too.
        let again = IdMaps::new(dir.path().to_owned(), null);
        let c = again.range("c").unwrap();
        assert!(c.base != a.base && c.base != b.base);
        assert_eq!(again.range("b").unwrap(), b);
        again.release("a");
        std::fs::remove_dir_all(dir.path().join("a")).unwrap();
        std::fs::create_dir(dir.path().join("d")).unwrap();
        assert_eq!(again.range("d").unwrap().base, a.base);
    }

    #[test]
    fn ranges_of_the_hosts_users_are_left_alone() {
        let first = FIRST * SIZE;
        let text = format!("me:{first}:65536\nyou:{}:10\nodd\n", first + SIZE + 5);
        assert_eq!(free(&BTreeMap::new(), &foreign(&text)), Some(first + 2 * SIZE));
    }
}
