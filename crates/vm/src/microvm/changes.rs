//! What a guest changed, kept as the tar of a layer when its main process ended well: for steps of builds.
//!
//! The disk with the changes is one that only the guest's kernel reads. So its init packs them, and they come as a stranger's tar
//! does. The file has its name only when it is whole.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use biga_wire::config::Microvm;
use biga_wire::files::FileFault;
use biga_wire::shim::Exit;
use biga_wire::workload::Output;

/// A guest that sends nothing for so long is switched off: it may have to walk many directories before it does.
pub const PATIENCE: Duration = Duration::from_secs(300);
/// Most bytes of a reason.
const MAX_FAULT: usize = 64 << 10;

/// A file in the making.
#[derive(Debug)]
pub struct Changes {
    out: BufWriter<File>,
    part: PathBuf,
    whole: PathBuf,
    /// Bytes that may still come.
    left: u64,
    /// The guest's reason for a failure, as far as it came.
    fault: Vec<u8>,
    /// Ours.
    broken: Option<String>,
}

impl Changes {
    /// Begins one of at most so many bytes.
    pub fn begin(state_dir: &Path, most: u64) -> io::Result<Changes> {
        let whole = state_dir.join(Microvm::CHANGES);
        let part = whole.with_extension("part");
        Ok(Changes {
            out: BufWriter::with_capacity(256 << 10, File::create(&part)?),
            part,
            whole,
            left: most,
            fault: Vec::new(),
            broken: None,
        })
    }

    /// Takes what the guest sent. False once it makes no sense to go on.
    pub fn take(&mut self, output: Output, bytes: &[u8]) -> bool {
        if output != Output::Stdout {
            let room = MAX_FAULT.saturating_sub(self.fault.len());
            self.fault.extend_from_slice(&bytes[..bytes.len().min(room)]);
            return true;
        }
        if self.broken.is_some() {
            return false;
        }
        match self.left.checked_sub(bytes.len() as u64) {
            None => self.broken = Some("they are more than its disk can hold".into()),
            Some(left) => {
                self.left = left;
                self.broken = self.out.write_all(bytes).err().map(|e| e.to_string());
            }
        }
        self.broken.is_none()
    }

    /// All came, or the guest gave up. Gives why there is no file.
    pub fn end(mut self, exit: &Exit) -> Option<String> {
        let broken = self.broken.take().or_else(|| match exit.code {
            0 => None,
            _ => Some(exit.error.clone().unwrap_or_else(|| said(&self.fault))),
        });
        let why = broken.or_else(|| {
            let kept = self.out.flush().and_then(|()| fs::rename(&self.part, &self.whole));
            kept.err().map(|e| e.to_string())
        })?;
        Some(format!("what it changed was not kept: {why}"))
    }
}

impl Drop for Changes {
    fn drop(&mut self) {
        // Not there where it got its name.
        let _ = fs::remove_file(&self.part);
    }
}

fn said(fault: &[u8]) -> String {
    match serde_json::from_slice(fault) {
        Ok(FileFault::Failed(why) | FileFault::Invalid(why) | FileFault::TooMuch(why)) => why,
        Ok(other) => format!("{other:?}"),
        Err(_) => "the guest gave no reason".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(code: i32) -> Exit {
        Exit {
            code,
            ..Exit::default()
        }
    }

    fn names(dir: &Path) -> Vec<String> {
        let all = fs::read_dir(dir).unwrap().flatten();
        all.map(|e| e.file_name().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn only_what_is_whole_has_the_name() {
        let dir = tempfile::tempdir().unwrap();
        let begin = |most| Changes::begin(dir.path(), most).unwrap();
        let mut c = begin(10);
        assert!(c.take(Output::Stdout, b"half"));
        drop(c);
        assert!(names(dir.path()).is_empty());

        let mut c = begin(10);
        let fault = serde_json::to_vec(&FileFault::TooMuch("very deep".into())).unwrap();
        assert!(c.take(Output::Stdout, b"half") && c.take(Output::Stderr, &fault));
        assert!(c.end(&ended(1)).unwrap().contains("very deep"));
        assert!(names(dir.path()).is_empty());

        let mut c = begin(10);
        assert!(c.take(Output::Stdout, b"0123456789") && !c.take(Output::Stdout, b"x"));
        assert!(c.end(&ended(0)).unwrap().contains("more than its disk"));
        assert!(names(dir.path()).is_empty());

        let mut c = begin(10);
        assert!(c.take(Output::Stdout, b"01234") && c.take(Output::Stdout, b"56789"));
        assert_eq!(c.end(&ended(0)), None);
        assert_eq!(names(dir.path()), [Microvm::CHANGES]);
        assert_eq!(fs::read(dir.path().join(Microvm::CHANGES)).unwrap(), b"0123456789");
    }
}
