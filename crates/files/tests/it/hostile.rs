//! Any archive: read as a tree, and unpacked beneath a root, it breaks nothing and leaves what is outside of the root as it is.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use biga_files::unpack::unpack;
use biga_files::{Ids, Owner, Tarball, Unpack};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

const NAMES: &[&str] = &[
    "a",
    "a/b",
    "a/b/c",
    "b",
    "./a",
    "..",
    "../out",
    "../../out",
    "a/../../out",
    "/",
    "/etc",
    "/out/x",
    "link",
    "link/x",
    "link/../x",
    "out",
    "out/x",
    "a//b",
    "a/.",
    "",
    ".",
    "a/b/",
    "\u{e4}",
    "x\ny",
];
const TARGETS: &[&str] = &[
    "a",
    "b",
    "..",
    "../out",
    "../../out",
    "/",
    "/out",
    "out",
    "link",
    "/proc/self/root",
    "",
    "a/b",
];
const KINDS: &[u8] = b"0125361gxLKSDMVZ\0";

/// One entry: its name, kind, link, content, mode.
type Piece = (&'static str, u8, &'static str, Vec<u8>, u32);

fn archive() -> impl Strategy<Value = Vec<u8>> {
    let content = prop_oneof![
        vec(any::<u8>(), 0..80),
        // Records of extended headers, some of them true to their length.
        select(vec![
            "12 path=../o\n",
            "11 size=9\n",
            "16 linkpath=../o\n",
            "30 SCHILY.xattr.user.a=bbbbbbb\n",
            "9 x=\n"
        ])
        .prop_map(|s: &str| s.as_bytes().to_vec()),
    ];
    let piece = (select(NAMES), select(KINDS), select(TARGETS), content, 0u32..0o10000);
    let whole = vec(piece, 0..12).prop_map(|pieces| written(&pieces));
    let spoiled = (vec(any::<u8>(), 0..8), vec(any::<u16>(), 0..8), any::<u16>());
    (whole, spoiled, any::<bool>()).prop_map(|(mut bytes, (values, places, cut), cut_off)| {
        for (v, at) in values.iter().zip(places) {
            let n = bytes.len();
            bytes[usize::from(at) % n] = *v;
        }
        if cut_off {
            bytes.truncate(usize::from(cut) % (bytes.len() + 1));
        }
        bytes
    })
}

fn written(pieces: &[Piece]) -> Vec<u8> {
    let mut b = tar::Builder::new(Vec::new());
    for (name, kind, link, content, mode) in pieces {
        let mut h = tar::Header::new_gnu();
        h.set_entry_type(tar::EntryType::new(*kind));
        h.set_mode(*mode);
        let old = h.as_old_mut();
        old.name[..name.len()].copy_from_slice(name.as_bytes());
        old.linkname[..link.len()].copy_from_slice(link.as_bytes());
        h.set_size(content.len() as u64);
        h.set_cksum();
        b.append(&h, &content[..]).unwrap();
    }
    b.into_inner().unwrap()
}

/// All that is below a directory but `root`, with what would tell a change.
fn outside(dir: &Path) -> BTreeMap<PathBuf, (u32, u64, u64, i64)> {
    let mut seen = BTreeMap::new();
    let mut todo = vec![dir.to_path_buf()];
    while let Some(d) = todo.pop() {
        for e in std::fs::read_dir(&d).unwrap().flatten() {
            let m = std::fs::symlink_metadata(e.path()).unwrap();
            if e.file_name() == "root" {
                continue;
            }
            seen.insert(e.path(), (m.mode(), m.ino(), m.nlink(), m.mtime_nsec()));
            if m.is_dir() {
                todo.push(e.path());
            }
        }
    }
    seen
}

fn cases(usual: u32) -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES").ok();
    ProptestConfig {
        cases: asked.and_then(|n| n.parse().ok()).unwrap_or(usual),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(cases(400))]

    #[test]
    fn any_archive_as_a_tree(bytes in archive()) {
        let dir = tempfile::tempdir().unwrap();
        if let Ok(t) = Tarball::read(&bytes[..], dir.path()) {
            for (path, node) in t.beneath(b"") {
                prop_assert!(!path.starts_with(b"/") && path.split(|b| *b == b'/').all(|c| c != b".." && !c.is_empty()));
                let _ = node.open();
            }
        }
    }

    #[test]
    fn any_bytes_as_an_archive(bytes in vec(any::<u8>(), 0..2000)) {
        let dir = tempfile::tempdir().unwrap();
        let _ = Tarball::read(&bytes[..], dir.path());
    }

    #[test]
    fn any_archive_stays_below_its_root(bytes in archive(), keep_kinds in any::<bool>(), ours in any::<bool>()) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        for d in ["root/in", "out"] {
            std::fs::create_dir_all(dir.path().join(d)).unwrap();
        }
        std::fs::write(dir.path().join("out/x"), "outside").unwrap();
        // Ways out that are there before.
        std::os::unix::fs::symlink("../../out", root.join("in/link")).unwrap();
        std::os::unix::fs::symlink("/out", root.join("in/b")).unwrap();
        let before = outside(dir.path());
        let at = std::fs::File::open(&root).unwrap();
        let options = Unpack {
            owner: if ours { Owner::Ours } else { Owner::Fixed(1, 1) },
            keep_kinds,
            rename: None,
            ids: Ids::default(),
        };
        let _ = unpack(at.as_fd(), "/in", &bytes[..], options);
        prop_assert_eq!(outside(dir.path()), before);
        prop_assert_eq!(std::fs::read_to_string(dir.path().join("out/x")).unwrap(), "outside");
    }
}
