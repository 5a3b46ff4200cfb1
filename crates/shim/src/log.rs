//! The log file: lines in the format of the Kubernetes CRI, with rotation.
//!
//! Each piece of output is written with one call, however many lines it holds. What has no line end yet waits for it, until
//! [`MAX_LINE`] or the process's end; then it is marked `P`.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use biga_wire::config;
use biga_wire::workload::Output;

use crate::files::now_ns;
use crate::sink::{self, Sink};

/// Longest text of one line in the file.
pub const MAX_LINE: usize = 16 << 10;

/// The log of one instance.
#[derive(Debug)]
pub struct Log {
    path: Option<PathBuf>,
    max_size: u64,
    max_files: u32,
    file: Option<File>,
    size: u64,
    /// Text without a line end yet: of standard output, of standard error.
    rest: [Vec<u8>; 2],
    batch: Vec<u8>,
    sink: Option<Sink>,
}

impl Log {
    /// Nothing is opened before something is written.
    pub fn new(config: &config::Log) -> Log {
        Log {
            path: config.path.clone(),
            max_size: config.max_size,
            max_files: config.max_files,
            file: None,
            size: 0,
            rest: [Vec::new(), Vec::new()],
            batch: Vec::new(),
            sink: config.sink.clone().map(Sink::new),
        }
    }

    /// When lines are to be sent again that their receiver did not take.
    pub fn wait(&self) -> Option<Duration> {
        self.sink.as_ref().and_then(Sink::wait)
    }

    /// Sends lines that wait for their receiver.
    pub fn flush(&mut self) {
        if let Some(sink) = &mut self.sink {
            sink.flush(&stamp(now_ns()));
        }
    }

    /// Adds output. A full disk loses log, but never stops the instance.
    pub fn add(&mut self, output: Output, bytes: &[u8]) {
        if self.path.is_none() && self.sink.is_none() {
            return;
        }
        let stamp = stamp(now_ns());
        let index = usize::from(output == Output::Stderr);
        let mut rest = std::mem::take(&mut self.rest[index]);
        for piece in bytes.split_inclusive(|b| *b == b'\n') {
            let (text, whole) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (piece, false),
            };
            let mut text = text;
            while rest.len() + text.len() > MAX_LINE {
                let (head, tail) = text.split_at(MAX_LINE - rest.len());
                rest.extend_from_slice(head);
                self.line(&stamp, output, false, &rest);
                rest.clear();
                text = tail;
            }
            if whole && rest.is_empty() {
                self.line(&stamp, output, true, text);
            } else {
                rest.extend_from_slice(text);
                if whole {
                    self.line(&stamp, output, true, &rest);
                    rest.clear();
                }
            }
        }
        self.rest[index] = rest;
        self.write();
        if let Some(sink) = &mut self.sink {
            sink.flush(&stamp);
        }
    }

    /// Writes what still waits for a line end.
    pub fn finish(&mut self) {
        let stamp = stamp(now_ns());
        for (index, output) in [Output::Stdout, Output::Stderr].into_iter().enumerate() {
            let rest = std::mem::take(&mut self.rest[index]);
            if !rest.is_empty() {
                self.line(&stamp, output, false, &rest);
            }
        }
        self.write();
        if let Some(sink) = &mut self.sink {
            sink.finish(&stamp);
        }
    }

    fn line(&mut self, stamp: &str, output: Output, whole: bool, text: &[u8]) {
        if let Some(sink) = &mut self.sink {
            let partial = !whole;
            sink.line(&sink::Line {
                stamp,
                output,
                partial,
                text,
            });
        }
        if self.path.is_none() {
            return;
        }
        self.batch.extend_from_slice(stamp.as_bytes());
        self.batch.extend_from_slice(match output {
            Output::Stdout => b" stdout ",
            Output::Stderr => b" stderr ",
        });
        self.batch.extend_from_slice(if whole { b"F " } else { b"P " });
        self.batch.extend_from_slice(text);
        self.batch.push(b'\n');
    }

    fn write(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let batch = std::mem::take(&mut self.batch);
        if self.write_batch(&batch).is_err() {
            // Opened anew next time: the disk may have room again, or the directory be back.
            self.file = None;
        }
        self.batch = batch;
        self.batch.clear();
        self.batch.shrink_to(MAX_LINE);
    }

    fn write_batch(&mut self, mut batch: &[u8]) -> io::Result<()> {
        let Some(path) = self.path.clone() else { return Ok(()) };
        while !batch.is_empty() {
            if self.file.is_none() {
                self.open(&path)?;
            }
            let mut fits = self.fitting(batch);
            if fits == 0 && self.size > 0 {
                rotate(&path, self.max_files)?;
                self.open(&path)?;
                fits = self.fitting(batch);
            }
            if fits == 0 {
                // A line longer than a whole file.
                fits = batch.iter().position(|b| *b == b'\n').map_or(batch.len(), |n| n + 1);
            }
            let (now, later) = batch.split_at(fits);
            if let Some(file) = &mut self.file {
                file.write_all(now)?;
            }
            self.size += fits as u64;
            batch = later;
        }
        Ok(())
    }

    /// Bytes of whole lines that the current file has room for.
    fn fitting(&self, batch: &[u8]) -> usize {
        let room = self.max_size.saturating_sub(self.size);
        match usize::try_from(room) {
            _ if self.max_size == 0 => batch.len(),
            Ok(room) if room < batch.len() => batch[..room].iter().rposition(|b| *b == b'\n').map_or(0, |n| n + 1),
            _ => batch.len(),
        }
    }

    fn open(&mut self, path: &Path) -> io::Result<()> {
        let file = File::options().create(true).append(true).open(path)?;
        self.size = file.metadata()?.len();
        self.file = Some(file);
        Ok(())
    }
}

fn numbered(path: &Path, n: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{n}"));
    name.into()
}

/// Moves `PATH` to `PATH.1` and so on, keeping `files` in all.
fn rotate(path: &Path, files: u32) -> io::Result<()> {
    if files <= 1 {
        return fs::remove_file(path);
    }
    for n in (1..files - 1).rev() {
        match fs::rename(numbered(path, n), numbered(path, n + 1)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
    }
    fs::rename(path, numbered(path, 1))
}

/// A time as RFC 3339 in UTC with nanoseconds.
pub fn stamp(ns: u64) -> String {
    let (seconds, nanos) = (ns / 1_000_000_000, ns % 1_000_000_000);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z")
}

/// Year, month and day of a day since 1970, counting in eras of 400 years that begin in March.
fn civil(days: u64) -> (u64, u64, u64) {
    let z = days + 719_468;
    let (era, day_of_era) = (z / 146_097, z % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps() {
        assert_eq!(stamp(0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(stamp(951_782_400_000_000_001), "2000-02-29T00:00:00.000000001Z");
        assert_eq!(stamp(1_796_083_199_000_000_000), "2026-11-30T23:59:59.000000000Z");
    }

    fn texts(path: &Path) -> Vec<String> {
        let all = fs::read_to_string(path).unwrap();
        all.lines().map(|l| l.split_once(' ').unwrap().1.to_owned()).collect()
    }

    #[test]
    fn lines_are_joined_cut_and_marked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = Log::new(&config::Log {
            path: Some(path.clone()),
            ..config::Log::default()
        });
        log.add(Output::Stdout, b"one\ntw");
        log.add(Output::Stderr, b"err\n");
        log.add(Output::Stdout, b"o\n\n");
        log.add(Output::Stdout, &vec![b'x'; MAX_LINE + 3]);
        log.add(Output::Stdout, b"\nend");
        log.finish();
        let x = "x".repeat(MAX_LINE);
        let want = [
            "stdout F one",
            "stderr F err",
            "stdout F two",
            "stdout F ",
            &format!("stdout P {x}"),
            "stdout F xxx",
            "stdout P end",
        ];
        assert_eq!(texts(&path), want);
    }

    #[test]
    fn old_files_are_kept_up_to_a_number() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = Log::new(&config::Log {
            path: Some(path.clone()),
            max_size: 100,
            max_files: 3,
            sink: None,
        });
        for n in 0..10 {
            log.add(Output::Stdout, format!("{n}{}\n", "-".repeat(30)).as_bytes());
        }
        let mut all: Vec<String> = Vec::new();
        for p in [numbered(&path, 2), numbered(&path, 1), path.clone()] {
            assert!(fs::metadata(&p).unwrap().len() <= 100);
            all.extend(texts(&p).iter().map(|t| t[9..10].to_owned()));
        }
        assert_eq!(all, ["7", "8", "9"], "one line of this length a file");
        assert!(!numbered(&path, 3).exists());
    }
}
