//! Archives as directories: an OCI layout on disk is packed into the tar that [`ImageStore::load`](crate::ImageStore::load) reads, and the tar
//! that [`ImageStore::save`](crate::ImageStore::save) writes is laid out as one.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use crate::erofs::show;
use crate::tarstream::{EntryKind, Input, Reader, write};

/// Why a directory could not be packed or laid out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read or written.
    #[error("cannot {what} {path}: {source}")]
    Io {
        /// What was tried, as `read`.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// It is no OCI layout and no unpacked `docker save`.
    #[error("{0} holds no images: it has neither index.json nor manifest.json")]
    NoImages(PathBuf),
    /// The archive could not be read.
    #[error("the archive cannot be read: {0}")]
    Archive(#[from] crate::tarstream::Error),
    /// The archive has something that belongs into no layout.
    #[error("the archive has an entry {0:?}, which belongs into no image layout")]
    Entry(String),
    /// The receiver of the tar is gone.
    #[error("the archive cannot be sent on: {0}")]
    Send(#[source] io::Error),
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_path_buf();
    move |source| Error::Io { what, path, source }
}

/// Writes the tar of a directory that holds an OCI layout, or an unpacked `docker save`. Links are followed, as whoever
/// names the directory may read what they lead to.
pub fn pack(dir: &Path, out: &mut impl Write) -> Result<(), Error> {
    if !dir.join("index.json").exists() && !dir.join("manifest.json").exists() {
        return Err(Error::NoImages(dir.to_path_buf()));
    }
    let mut files = Vec::new();
    collect(dir, "", &mut files)?;
    files.sort();
    for name in files {
        let path = dir.join(&name);
        let file = File::open(&path).map_err(failed("read", &path))?;
        let size = file.metadata().map_err(failed("read", &path))?.len();
        write::file(out, &name, size, file).map_err(Error::Send)?;
    }
    write::end(out).map_err(Error::Send)
}

/// Names of the files below a directory, as far as a layout has them: two directories deep.
fn collect(dir: &Path, prefix: &str, files: &mut Vec<String>) -> Result<(), Error> {
    for entry in fs::read_dir(dir).map_err(failed("list", dir))? {
        let entry = entry.map_err(failed("list", dir))?;
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        let (path, name) = (entry.path(), format!("{prefix}{name}"));
        let kind = fs::metadata(&path).map_err(failed("read", &path))?;
        if kind.is_file() && name.len() < 100 {
            files.push(name);
        } else if kind.is_dir() && name.matches('/').count() < 2 {
            collect(&path, &format!("{name}/"), files)?;
        }
    }
    Ok(())
}

/// Lays the tar of an OCI layout out in a directory, which must be new or empty.
pub fn unpack(archive: impl Read, dir: &Path) -> Result<(), Error> {
    fs::create_dir_all(dir).map_err(failed("create", dir))?;
    if fs::read_dir(dir).map_err(failed("list", dir))?.next().is_some() {
        let full = io::Error::new(io::ErrorKind::AlreadyExists, "it is not empty");
        return Err(failed("write into", dir)(full));
    }
    let mut tar = Reader::new(Input::new(archive, u64::MAX));
    while let Some(entry) = tar.next_entry()? {
        let name = show(&entry.path);
        let name = name.trim_end_matches('/');
        match entry.kind {
            EntryKind::Dir if matches!(name, "blobs" | "blobs/sha256") => {}
            EntryKind::File if is_layout_file(name) && entry.segments.is_none() => {
                let path = dir.join(name);
                let parent = path.parent().unwrap_or(dir);
                fs::create_dir_all(parent).map_err(failed("create", parent))?;
                let mut file = BufWriter::new(File::create_new(&path).map_err(failed("create", &path))?);
                loop {
                    let piece = tar.data(u64::MAX)?;
                    if piece.is_empty() {
                        break;
                    }
                    file.write_all(piece).map_err(failed("write", &path))?;
                }
                file.flush().map_err(failed("write", &path))?;
            }
            _ => return Err(Error::Entry(name.to_owned())),
        }
    }
    Ok(())
}

/// Only these are written: no other name can lead anywhere.
fn is_layout_file(name: &str) -> bool {
    match name.strip_prefix("blobs/sha256/") {
        Some(hex) => crate::digest::is_digest(&format!("sha256:{hex}")),
        None => matches!(name, "index.json" | "oci-layout" | "manifest.json"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layout_goes_both_ways() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let blob = format!("blobs/sha256/{}", "ab".repeat(32));
        fs::create_dir_all(from.path().join("blobs/sha256")).unwrap();
        for name in ["index.json", "oci-layout", &blob] {
            fs::write(from.path().join(name), name).unwrap();
        }
        let mut tar = Vec::new();
        pack(from.path(), &mut tar).unwrap();
        unpack(&tar[..], to.path()).unwrap();
        for name in ["index.json", "oci-layout", &blob] {
            assert_eq!(fs::read_to_string(to.path().join(name)).unwrap(), name);
        }
        // Not into what is there.
        assert!(unpack(&tar[..], to.path()).is_err());
        assert!(matches!(
            pack(&from.path().join("blobs"), &mut Vec::new()),
            Err(Error::NoImages(_))
        ));
    }

    #[test]
    fn nothing_is_written_elsewhere() {
        for name in [
            "../evil",
            "/evil",
            "blobs/sha256/../../evil",
            "blobs/sha256/xy",
            "evil",
            "blobs/sha256",
        ] {
            let dir = tempfile::tempdir().unwrap();
            let mut tar = Vec::new();
            write::file(&mut tar, name, 1, &b"x"[..]).unwrap();
            write::end(&mut tar).unwrap();
            let target = dir.path().join("a/b");
            assert!(matches!(unpack(&tar[..], &target), Err(Error::Entry(_))), "{name}");
            assert_eq!(fs::read_dir(&target).unwrap().count(), 0, "{name}");
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "{name}");
        }
    }
}
