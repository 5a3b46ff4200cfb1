//! Reading what an instance's shim wrote down: lines of the CRI log format, over rotated files, followed by inotify.
//!
//! ```text
//! 2026-11-30T19:24:58.123456789Z stdout F a whole line
//! 2026-11-30T19:24:58.123456790Z stderr P a piece of a line that the next entry continues
//! ```

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::inotify;
use tokio::io::unix::AsyncFd;

/// What to read.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// Go on as the instance writes, until it ended.
    pub follow: bool,
    /// Only the last so many lines.
    pub tail: Option<usize>,
    /// Only from this moment on (RFC 3339, UTC).
    pub since: Option<String>,
    /// Only up to this moment.
    pub until: Option<String>,
    /// Leave out the program's output.
    pub no_stdout: bool,
    /// Leave out the program's errors.
    pub no_stderr: bool,
}

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// RFC 3339 with nanoseconds, UTC.
    pub time: String,
    /// From standard error; from standard output otherwise.
    pub stderr: bool,
    /// Whether the line ends here.
    pub whole: bool,
    /// The text without its newline.
    pub text: Vec<u8>,
}

/// Reads one entry, without its newline; `None` where it is none.
pub fn parse(line: &[u8]) -> Option<Line> {
    let mut parts = line.splitn(4, |b| *b == b' ');
    let time = std::str::from_utf8(parts.next()?).ok()?;
    if time.len() < 20 {
        return None;
    }
    let stderr = match parts.next()? {
        b"stdout" => false,
        b"stderr" => true,
        _ => return None,
    };
    let whole = match parts.next()? {
        b"F" => true,
        b"P" => false,
        _ => return None,
    };
    Some(Line {
        time: time.to_string(),
        stderr,
        whole,
        text: parts.next().unwrap_or_default().to_vec(),
    })
}

/// Reads the entries of one log, oldest first.
pub struct Reader {
    path: PathBuf,
    query: Query,
    /// Files still to be read, oldest first.
    files: VecDeque<File>,
    pending: Vec<u8>,
    inode: u64,
    done: bool,
}

impl Reader {
    /// A reader of the log whose current file is `path`. A log that does not exist is empty.
    pub fn open(path: &Path, query: Query) -> io::Result<Reader> {
        let mut files = VecDeque::new();
        for n in (1..100).rev() {
            match File::open(rotated(path, n)) {
                Ok(f) => files.push_back(f),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        let mut inode = 0;
        match File::open(path) {
            Ok(f) => {
                inode = f.metadata()?.ino();
                files.push_back(f);
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
        let mut reader = Reader {
            path: path.to_path_buf(),
            query,
            files,
            pending: Vec::new(),
            inode,
            done: false,
        };
        if let Some(n) = reader.query.tail {
            reader.seek_tail(n)?;
        }
        Ok(reader)
    }

    /// Drops files and moves offsets so that reading starts at the `n`th whole line from the end.
    fn seek_tail(&mut self, n: usize) -> io::Result<()> {
        let mut left = n;
        let mut keep = VecDeque::new();
        while let Some(mut f) = self.files.pop_back() {
            let (start, found) = tail_offset(&mut f, left, &self.query)?;
            f.seek(SeekFrom::Start(start))?;
            keep.push_front(f);
            left -= found;
            if left == 0 {
                break;
            }
        }
        self.files = keep;
        Ok(())
    }

    /// The next entries that are there now; empty where there are none (yet).
    pub fn read(&mut self) -> io::Result<Vec<Line>> {
        let mut out = Vec::new();
        let mut buf = vec![0u8; 64 << 10];
        while !self.done && out.is_empty() {
            let Some(file) = self.files.front_mut() else {
                if !self.reopen()? {
                    break;
                }
                continue;
            };
            let n = file.read(&mut buf)?;
            if n > 0 {
                self.pending.extend_from_slice(&buf[..n]);
                self.cut(&mut out);
            } else if self.files.len() > 1 {
                self.files.pop_front();
                self.pending.clear();
            } else if !self.reopen()? {
                break;
            }
            // A new file just found means that the old one is complete now: the loop reads its rest first.
        }
        Ok(out)
    }

    /// Whether nothing more can come because of `until`.
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// Adds the current file where it is another one than the last we opened.
    fn reopen(&mut self) -> io::Result<bool> {
        match File::open(&self.path) {
            Ok(f) => {
                let inode = f.metadata()?.ino();
                let new = inode != self.inode;
                if new {
                    self.inode = inode;
                    self.files.push_back(f);
                }
                Ok(new)
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e),
        }
    }

    fn cut(&mut self, out: &mut Vec<Line>) {
        let mut from = 0;
        while let Some(end) = self.pending[from..].iter().position(|b| *b == b'\n') {
            let line = parse(&self.pending[from..from + end]);
            from += end + 1;
            let Some(line) = line else { continue };
            if self
                .query
                .until
                .as_ref()
                .is_some_and(|u| line.time.as_str() > u.as_str())
            {
                self.done = true;
                break;
            }
            if wants(&self.query, &line) {
                out.push(line);
            }
        }
        self.pending.drain(..from);
    }
}

fn wants(q: &Query, line: &Line) -> bool {
    let silenced = if line.stderr { q.no_stderr } else { q.no_stdout };
    !silenced && q.since.as_ref().is_none_or(|s| line.time.as_str() >= s.as_str())
}

fn rotated(path: &Path, n: u32) -> PathBuf {
    let mut s = path.as_os_str().to_owned();
    s.push(format!(".{n}"));
    PathBuf::from(s)
}

/// Where the last `n` wanted lines of `f` start, and how many of them it has (at most `n`). A line begins after
/// the end of the whole line before it, so that its pieces stay together.
fn tail_offset(f: &mut File, n: usize, q: &Query) -> io::Result<(u64, usize)> {
    let len = f.metadata()?.len();
    if n == 0 {
        return Ok((len, 0));
    }
    let mut starts: VecDeque<u64> = VecDeque::with_capacity(n.min(4096));
    let (mut at, mut line_start, mut begin) = (0u64, 0u64, 0u64);
    let mut pending = Vec::new();
    let mut buf = vec![0u8; 256 << 10];
    f.rewind()?;
    loop {
        let got = f.read(&mut buf)?;
        if got == 0 {
            break;
        }
        for b in &buf[..got] {
            at += 1;
            if *b != b'\n' {
                // The head of a line is enough to judge it.
                if pending.len() < 64 {
                    pending.push(*b);
                }
                continue;
            }
            if let Some(line) = parse(&pending)
                && line.whole
            {
                if wants(q, &line) {
                    if starts.len() == n {
                        starts.pop_front();
                    }
                    starts.push_back(begin.min(line_start));
                }
                begin = at;
            }
            line_start = at;
            pending.clear();
        }
    }
    Ok((starts.front().copied().unwrap_or(0), starts.len()))
}

/// Wakes when something in the directory of a log changes.
pub struct Watcher {
    fd: AsyncFd<OwnedFd>,
}

impl Watcher {
    /// Watches the directory of `path`.
    pub fn new(path: &Path) -> io::Result<Watcher> {
        use inotify::{CreateFlags, WatchFlags};
        let fd = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        let dir = path.parent().unwrap_or(Path::new("/"));
        inotify::add_watch(&fd, dir, WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVED_TO)?;
        // Deprecated for descriptors that break I/O safety, which an `OwnedFd` cannot; its successor is unsafe.
        #[allow(deprecated)]
        let fd = AsyncFd::new(fd)?;
        Ok(Watcher { fd })
    }

    /// Returns after the next change; several changes at once are one.
    pub async fn changed(&mut self) -> io::Result<()> {
        let mut guard = self.fd.readable_mut().await?;
        let mut buf = [0u8; 4096];
        loop {
            match rustix::io::read(guard.get_inner(), &mut buf) {
                Ok(n) if n > 0 => {}
                Ok(_) | Err(rustix::io::Errno::AGAIN) => break,
                Err(e) => return Err(e.into()),
            }
        }
        guard.clear_ready();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn stamp(n: usize) -> String {
        format!("2026-11-30T00:00:{:02}.{:09}Z", n / 1000, n % 1000)
    }

    fn write(path: &Path, from: usize, to: usize) {
        let mut f = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .unwrap();
        for n in from..to {
            let stream = if n % 2 == 0 { "stdout" } else { "stderr" };
            writeln!(f, "{} {stream} F line {n}", stamp(n)).unwrap();
        }
    }

    fn all(r: &mut Reader) -> Vec<String> {
        let mut out = Vec::new();
        loop {
            let lines = r.read().unwrap();
            if lines.is_empty() {
                return out;
            }
            out.extend(lines.into_iter().map(|l| String::from_utf8(l.text).unwrap()));
        }
    }

    #[test]
    fn rotated_files_come_first() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        write(&rotated(&log, 2), 0, 10);
        write(&rotated(&log, 1), 10, 20);
        write(&log, 20, 30);
        let lines = all(&mut Reader::open(&log, Query::default()).unwrap());
        assert_eq!(lines.len(), 30);
        assert_eq!((lines[0].as_str(), lines[29].as_str()), ("line 0", "line 29"));
        for tail in [0, 1, 5, 10, 15, 29, 30, 100] {
            let q = Query {
                tail: Some(tail),
                ..Query::default()
            };
            let lines = all(&mut Reader::open(&log, q).unwrap());
            assert_eq!(lines.len(), tail.min(30), "tail {tail}");
            if tail > 0 {
                assert_eq!(lines.last().unwrap(), "line 29");
            }
        }
        let q = Query {
            tail: Some(3),
            no_stderr: true,
            ..Query::default()
        };
        assert_eq!(
            all(&mut Reader::open(&log, q).unwrap()),
            ["line 24", "line 26", "line 28"]
        );
        let q = Query {
            since: Some(stamp(5)),
            until: Some(stamp(8)),
            ..Query::default()
        };
        assert_eq!(all(&mut Reader::open(&log, q).unwrap()).len(), 4);
    }

    #[test]
    fn a_reader_goes_over_rotation_without_loss() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        write(&log, 0, 5);
        let mut r = Reader::open(&log, Query::default()).unwrap();
        assert_eq!(all(&mut r).len(), 5);
        write(&log, 5, 7);
        std::fs::rename(&log, rotated(&log, 1)).unwrap();
        write(&log, 7, 9);
        assert_eq!(all(&mut r), ["line 5", "line 6", "line 7", "line 8"]);
        write(&log, 9, 10);
        assert_eq!(all(&mut r), ["line 9"]);
    }

    #[test]
    fn pieces_of_a_line_stay_together() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let text = format!(
            "{0} stdout F first\n{0} stdout P one \n{0} stdout F line\n{0} stdout P cut",
            stamp(1)
        );
        std::fs::write(&log, text).unwrap();
        let q = Query {
            tail: Some(1),
            ..Query::default()
        };
        assert_eq!(all(&mut Reader::open(&log, q).unwrap()), ["one ", "line"]);
    }

    #[test]
    fn rubbish_is_left_out() {
        for bad in [
            "",
            "x",
            "2026-11-30T00:00:00.0Z out F x",
            "2026-11-30T00:00:00.0Z stdout Q x",
            "\0\0\0",
        ] {
            assert_eq!(parse(bad.as_bytes()), None, "{bad:?}");
        }
    }

    #[tokio::test]
    async fn the_watcher_wakes_on_a_write() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let mut w = Watcher::new(&log).unwrap();
        write(&log, 0, 1);
        tokio::time::timeout(std::time::Duration::from_secs(60), w.changed())
            .await
            .unwrap()
            .unwrap();
    }
}
