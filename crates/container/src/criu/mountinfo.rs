//! `/proc/PID/mountinfo` (proc_pid_mountinfo(5)).

use std::io;

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Its id.
    pub id: u64,
    /// The mount it is mounted on.
    pub parent: u64,
    /// The file system's device, `MAJOR:MINOR`.
    pub device: String,
    /// What of the file system is its root.
    pub root: String,
    /// Where it is, as the process sees it.
    pub point: String,
    /// Type of the file system.
    pub kind: String,
}

/// The mounts that a process sees, in the kernel's order: parents first.
pub fn of(pid: u32) -> io::Result<Vec<Mount>> {
    Ok(parse(&std::fs::read_to_string(format!("/proc/{pid}/mountinfo"))?))
}

fn parse(text: &str) -> Vec<Mount> {
    text.lines().filter_map(line).collect()
}

/// `ID PARENT MAJ:MIN ROOT POINT OPTIONS … - TYPE SOURCE OPTIONS`.
fn line(line: &str) -> Option<Mount> {
    let (head, tail) = line.split_once(" - ")?;
    let mut head = head.split(' ');
    let (id, parent) = (head.next()?.parse().ok()?, head.next()?.parse().ok()?);
    let (device, root, point) = (head.next()?, head.next()?, head.next()?);
    Some(Mount {
        id,
        parent,
        device: device.to_owned(),
        root: unescape(root),
        point: unescape(point),
        kind: tail.split(' ').next()?.to_owned(),
    })
}

/// Space, tab, newline and backslash stand there in octal.
fn unescape(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let code = after.get(..3).and_then(|d| std::str::from_utf8(d).ok());
        match code.and_then(|d| u8::from_str_radix(d, 8).ok()) {
            Some(byte) if first == b'\\' => {
                out.push(byte);
                rest = &after[3..];
            }
            _ => {
                out.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read() {
        let text = "73 72 0:32 /biga /sys/fs/cgroup/memory ro,nosuid shared:1 - cgroup cgroup rw,memory\n\
                    74 65 254:0 /a\\040b /data\\134x rw - ext4 /dev/vda rw\nnonsense\n";
        let all = parse(text);
        assert_eq!(all.len(), 2);
        assert_eq!((all[0].id, all[0].parent, all[0].kind.as_str()), (73, 72, "cgroup"));
        assert_eq!(all[1].device, "254:0");
        assert_eq!((all[1].root.as_str(), all[1].point.as_str()), ("/a b", "/data\\x"));
        assert!(of(std::process::id()).unwrap().iter().any(|m| m.kind == "proc"));
    }
}
