//! What stands at a path, and paths as Docker's clients mean them.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, OFlags};

use super::beneath::{PATH, join, look, own_name, resolve};
use super::{Error, pack};

/// What stands at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat {
    /// Last component as it was asked for; `/` for the root.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// Type and permission bits, as `st_mode` has them.
    pub mode: u32,
    /// Seconds since 1970 and nanoseconds.
    pub mtime: (i64, u32),
    /// Of a symbolic link: the absolute path in the tree that it leads to.
    pub link_target: String,
}

/// A path of a tree, found: the last component was not followed unless the path ends with `/` or `/.`.
#[derive(Debug)]
pub struct Place {
    /// Good to find things by, not to read.
    pub fd: OwnedFd,
    /// Absolute, as it was asked for.
    pub path: Vec<u8>,
    /// How its entries begin in a tar: the last component, `.` where the path ends with one, `/` for the root.
    pub base: Vec<u8>,
}

/// Finds a path. One that is not absolute begins at the root.
pub fn find(root: BorrowedFd<'_>, path: &str) -> Result<Place, Error> {
    let path = absolute(path);
    let base = base(&path);
    let follow = path.ends_with(b"/") || base == b"." || base == b"..";
    let flags = if follow {
        // Followed by the kernel as well, but then it has to be a directory.
        OFlags::PATH | OFlags::DIRECTORY
    } else {
        PATH
    };
    let fd = resolve(root, &path, flags).map_err(|e| Error::at("find", &path, e))?;
    pack::refuse_kernel(fd.as_fd(), &path)?;
    Ok(Place { fd, path, base })
}

/// Says what stands at a place.
pub fn stat(root: BorrowedFd<'_>, place: &Place) -> Result<Stat, Error> {
    let s = look(&place.fd).map_err(|e| Error::at("look at", &place.path, e))?;
    let mode = u32::from(s.stx_mode);
    let is_link = FileType::from_raw_mode(mode) == FileType::Symlink;
    Ok(Stat {
        name: crate::show(&place.base),
        size: s.stx_size,
        mode,
        mtime: (s.stx_mtime.tv_sec, s.stx_mtime.tv_nsec),
        link_target: match is_link {
            true => String::from_utf8_lossy(&target(root, place)?).into_owned(),
            false => String::new(),
        },
    })
}

/// Where a symbolic link leads to in the end, or where it says that it leads to if there is nothing.
fn target(root: BorrowedFd<'_>, place: &Place) -> Result<Vec<u8>, Error> {
    if let Ok(end) = resolve(root, &place.path, OFlags::PATH)
        && let Some(path) = path_of(root, end.as_fd())
    {
        return Ok(path);
    }
    let text = rustix::fs::readlinkat(&place.fd, c"", Vec::new())
        .map_err(|e| Error::at("read the link", &place.path, e))?
        .into_bytes();
    let dir = place.path.iter().rposition(|b| *b == b'/').map_or(0, |i| i + 1);
    Ok(clean(&match text.starts_with(b"/") {
        true => text,
        false => join(&place.path[..dir], &text),
    }))
}

/// The path of a descriptor below the root, as the kernel spells it. It serves to tell people, never to open.
fn path_of(root: BorrowedFd<'_>, fd: BorrowedFd<'_>) -> Option<Vec<u8>> {
    let read = |fd| Some(rustix::fs::readlink(own_name(fd), Vec::new()).ok()?.into_bytes());
    let (root, path) = (read(root)?, read(fd)?);
    let inner = match &root[..] {
        b"/" => &path[..],
        root => path.strip_prefix(root)?,
    };
    match inner {
        b"" => Some(b"/".to_vec()),
        inner => inner.starts_with(b"/").then(|| inner.to_vec()),
    }
}

/// With a slash in front; a slash or dot at the end stays.
pub(super) fn absolute(path: &str) -> Vec<u8> {
    match path.starts_with('/') {
        true => path.as_bytes().to_vec(),
        false => [b"/", path.as_bytes()].concat(),
    }
}

/// The last component; `/` for the root. Slashes at the end do not count.
fn base(path: &[u8]) -> Vec<u8> {
    let end = path.iter().rposition(|b| *b != b'/').map_or(0, |i| i + 1);
    let last = path[..end].rsplit(|b| *b == b'/').next().unwrap_or_default();
    if last.is_empty() { b"/".to_vec() } else { last.to_vec() }
}

/// An absolute path without `.`, `..` and doubled slashes.
fn clean(path: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    [b"/", &parts.join(&b'/')[..]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_components() {
        for (path, want) in [
            ("/a/b", "b"),
            ("/a/b/", "b"),
            ("/a/.", "."),
            ("/", "/"),
            ("//", "/"),
            ("/a/..", ".."),
        ] {
            assert_eq!(base(path.as_bytes()), want.as_bytes(), "{path}");
        }
        assert_eq!(absolute("etc/x/"), b"/etc/x/");
        assert_eq!(clean(b"/a/../../b/./c//d"), b"/b/c/d");
        assert_eq!(clean(b"/.."), b"/");
    }

    #[test]
    fn links_stay_in_the_tree() {
        let dir = tempfile::tempdir().unwrap();
        let at = |p: &str| dir.path().join(p);
        std::fs::create_dir(at("etc")).unwrap();
        std::fs::write(at("etc/passwd"), "inside").unwrap();
        for (target, name) in [
            ("/etc/passwd", "abs"),
            ("../../../../etc/passwd", "up"),
            ("nowhere/x", "etc/dangling"),
            ("loop", "loop"),
            ("/etc", "dir"),
        ] {
            std::os::unix::fs::symlink(target, at(name)).unwrap();
        }
        let root = std::fs::File::open(dir.path()).unwrap();
        let look = |p: &str| find(root.as_fd(), p).and_then(|f| stat(root.as_fd(), &f));
        for name in ["abs", "/up"] {
            assert_eq!(look(name).unwrap().link_target, "/etc/passwd", "{name}");
        }
        assert_eq!(look("etc/dangling").unwrap().link_target, "/etc/nowhere/x");
        assert_eq!(look("loop").unwrap().link_target, "/loop");
        // With a slash the link is followed.
        let s = look("dir/").unwrap();
        assert!((s.mode & 0o170000, s.name.as_str()) == (0o040000, "dir"), "{s:?}");
        assert!(matches!(look("abs/"), Err(Error::NotADirectory(_))));
        assert!(matches!(look("/etc/none"), Err(Error::NotFound(p)) if p == "/etc/none"));
        assert_eq!(look("../../..").unwrap().mode & 0o170000, 0o040000);
        assert_eq!(look("etc/passwd").unwrap().size, 6);
    }
}
