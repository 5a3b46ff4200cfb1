//! Layers that mean harm, and layers that are merely broken.

use biga_image::layer::{Error, Limits};
use proptest::prelude::*;

use crate::support::*;

fn refused(tar: &[u8]) -> String {
    match try_layer(tar, &Limits::default()) {
        Ok(_) => panic!("it was taken"),
        Err(e) => e.to_string(),
    }
}

#[test]
fn escapes_are_refused() {
    for path in ["../evil", "a/../../evil", "/../evil", "..", "a/.."] {
        assert!(
            refused(&TarBuilder::new().file(path, b"x").end()).contains(".."),
            "{path}"
        );
    }
    let through = TarBuilder::new().symlink("dir", "/etc").file("dir/passwd", b"x").end();
    assert!(refused(&through).contains("no directory"));
    assert!(refused(&TarBuilder::new().link("x", "../../etc/shadow").end()).contains(".."));
    assert!(refused(&TarBuilder::new().link("x", "/etc/shadow").end()).contains("not in this layer"));
    let through = TarBuilder::new().symlink("dir", "/etc").link("x", "dir/shadow").end();
    assert!(refused(&through).contains("not in this layer"));
    assert!(refused(&TarBuilder::new().dir("d").link("x", "d").end()).contains("directory"));
}

#[test]
fn absolute_paths_are_made_relative() {
    let l = layer(&TarBuilder::new().file("/etc//./passwd", b"x").end());
    let m = Mounted::new(&l.image());
    assert_eq!(std::fs::read(m.path().join("etc/passwd")).unwrap(), b"x");
}

#[test]
fn bad_numbers_are_refused() {
    let base = TarBuilder::new().file("x", b"content").end();
    let with = |range: std::ops::Range<usize>, bytes: &[u8]| {
        let mut t = base.clone();
        t[range.start..range.start + bytes.len()].copy_from_slice(bytes);
        fix_checksum(&mut t, 0);
        refused(&t)
    };
    assert!(with(124..136, &[0xff; 12]).contains("size"));
    assert!(with(124..136, b"99999999999\0").contains("size"));
    assert!(
        with(
            124..136,
            &[0x80, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]
        )
        .contains("larger")
    );
    assert!(with(108..116, &[0xff; 8]).contains("owner"));
    assert!(with(108..116, &[0x80, 0, 0, 1, 0, 0, 0, 0]).contains("owner"));
    assert!(with(156..157, b"Z").contains("unknown type"));
    let mut t = base.clone();
    t[0] = b'y';
    assert!(refused(&t).contains("checksum"));
}

#[test]
fn truncation_is_noticed_at_every_place() {
    let tar = TarBuilder::new().file("a", &noise(2000, 1)).file("b", b"x").end();
    for end in (1..tar.len() - 1024).filter(|n| n % 97 == 0 && n % 512 != 0) {
        assert!(refused(&tar[..end]).contains("cut off"), "{end}");
    }
    let packed = gzip(&tar);
    for end in [1, 5, packed.len() / 2, packed.len() - 1] {
        assert!(try_layer(&packed[..end], &Limits::default()).is_err(), "{end}");
    }
    let packed = zstd::encode_all(&tar[..], 3).unwrap();
    for end in [5, packed.len() / 2, packed.len() - 1] {
        assert!(try_layer(&packed[..end], &Limits::default()).is_err(), "{end}");
    }
}

#[test]
fn bombs_are_refused() {
    let limits = Limits {
        entries: 50,
        tar_bytes: 1 << 20,
        image_bytes: 1 << 20,
        memory: 1 << 16,
        ratio: 10,
    };
    let kind = |tar: &[u8]| match try_layer(tar, &limits) {
        Ok(_) => panic!("it was taken"),
        Err(e) => e,
    };
    let mut many = TarBuilder::new();
    for i in 0..60 {
        many = many.file(&format!("{i}"), b"");
    }
    assert!(matches!(
        kind(&many.end()),
        Error::Erofs(biga_image::erofs::Error::TooManyEntries(50))
    ));
    let deep = TarBuilder::new()
        .file(&"a/".repeat(49), b"")
        .file(&"b/".repeat(49), b"")
        .end();
    assert!(matches!(
        kind(&deep),
        Error::Erofs(biga_image::erofs::Error::TooManyEntries(50))
    ));
    let long = gzip(&TarBuilder::new().file("x", &vec![0; 2 << 20]).end());
    assert!(kind(&long).to_string().contains("larger"));
    // A sparse file that claims to be huge.
    let dir = tempfile::tempdir().unwrap();
    std::fs::File::create(dir.path().join("s"))
        .unwrap()
        .set_len(1 << 40)
        .unwrap();
    for format in ["--format=gnu", "--format=posix"] {
        let tar = dir.path().join("t");
        run("tar", &["-C", str(dir.path()), format, "-S", "-cf", str(&tar), "s"]);
        assert!(
            matches!(
                kind(&std::fs::read(&tar).unwrap()),
                Error::Erofs(biga_image::erofs::Error::TooBig(_))
            ),
            "{format}"
        );
    }
}

#[test]
fn bombs_of_headers_are_refused() {
    // One that is too large, by its header alone.
    for (kind, size) in [
        (tar::EntryType::XHeader, 2 << 20),
        (tar::EntryType::GNULongName, 100_000),
    ] {
        let t = TarBuilder::new()
            .entry("x", kind, "", &vec![b'x'; size])
            .file("f", b"")
            .end();
        assert!(refused(&t).contains("too large"), "{kind:?}");
    }
    // Many small ones before one entry, each of which adds to what is held for it.
    let record = {
        let value = noise(60_000, 1);
        let rest = "SCHILY.xattr.user.x".len() + value.len() + 3;
        [format!("{} SCHILY.xattr.user.x=", rest + 5).as_bytes(), &value, b"\n"].concat()
    };
    let mut t = TarBuilder::new();
    for _ in 0..80 {
        t = t.entry("x", tar::EntryType::XHeader, "", &record);
    }
    assert!(refused(&t.file("f", b"").end()).contains("too large"));
    let one = TarBuilder::new()
        .entry("x", tar::EntryType::XHeader, "", &record)
        .file("f", b"");
    assert!(try_layer(&one.end(), &Limits::default()).is_ok());
}

#[test]
fn bombs_of_compression_are_refused() {
    // Zstd makes next to nothing of zeros, far beyond what any honest layer has.
    let head = TarBuilder::new().file("zeros", b"").end();
    let mut head = head[..512].to_vec();
    head[124..136].copy_from_slice(format!("{:011o}\0", 3u64 << 30).as_bytes());
    fix_checksum(&mut head, 0);
    let mut packer = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    std::io::Write::write_all(&mut packer, &head).unwrap();
    for _ in 0..(3 << 10) {
        std::io::Write::write_all(&mut packer, &[0; 1 << 20]).unwrap();
    }
    std::io::Write::write_all(&mut packer, &[0; 1024]).unwrap();
    let blob = packer.finish().unwrap();
    assert!(blob.len() < 1 << 20);
    let e = match try_layer(&blob, &Limits::default()) {
        Ok(_) => panic!("it was taken"),
        Err(e) => e.to_string(),
    };
    assert!(e.contains("times its size"), "{e}");
}

#[test]
fn duplicates_replace_each_other() {
    let tar = TarBuilder::new()
        .file("f", b"first")
        .link("also", "f")
        .file("f", b"second")
        .dir("d")
        .file("d/x", b"x")
        .symlink("d", "f")
        .end();
    let l = layer(&tar);
    fsck(&l.image());
    let m = Mounted::new(&l.image());
    let read = |n: &str| std::fs::read(m.path().join(n)).unwrap();
    assert_eq!((read("f"), read("also")), (b"second".to_vec(), b"first".to_vec()));
    assert!(m.path().join("d").is_symlink());
    assert_eq!(l.tar(), tar);
}

fn fix_checksum(tar: &mut [u8], at: usize) {
    tar[at + 148..at + 156].fill(b' ');
    let sum: u32 = tar[at..at + 512].iter().map(|&b| u32::from(b)).sum();
    tar[at + 148..at + 156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// A tar with a bit of everything, to be mutilated.
fn specimen() -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let p = dir.path();
    std::fs::create_dir(p.join("d")).unwrap();
    std::fs::write(p.join("d").join("n".repeat(150)), b"long").unwrap();
    std::fs::hard_link(p.join("d").join("n".repeat(150)), p.join("h")).unwrap();
    std::os::unix::fs::symlink("d", p.join("l")).unwrap();
    let sparse = std::fs::File::create(p.join("s")).unwrap();
    sparse.set_len(1 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"x", 1 << 19).unwrap();
    let tar = |format: &str| {
        run(
            "tar",
            &["-C", str(p), format, "-S", "-cf", str(&p.join("t")), "d", "h", "l", "s"],
        );
        std::fs::read(p.join("t")).unwrap()
    };
    let (gnu, posix) = (tar("--format=gnu"), tar("--format=posix"));
    let end = |t: &[u8]| t.chunks(512).rposition(|b| b.iter().any(|&b| b != 0)).unwrap() * 512 + 512;
    [&gnu[..end(&gnu)], &posix[..end(&posix)], &[0; 1024]].concat()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]
    /// Whatever is done to a tar: no panic, and what is taken is a sound file system and gives the same tar again.
    #[test]
    fn mutilated_tars(seed in any::<u64>()) {
        use rand::{Rng, SeedableRng};
        let specimen = specimen();
        let mut rng = rand::rngs::StdRng::seed_from_u64(seed);
        let limits = Limits { image_bytes: 1 << 30, ..Limits::default() };
        for _ in 0..60 {
            let mut t = specimen.clone();
            for _ in 0..rng.random_range(1..6) {
                let at = rng.random_range(0..t.len());
                match rng.random_range(0..4) {
                    0 => t[at] = rng.random(),
                    1 => t[at] = b"0179/.-\0 =,\n"[rng.random_range(0..12)],
                    2 => t.truncate(at.max(512)),
                    _ => {
                        let block = at / 512 * 512;
                        let to = rng.random_range(0..t.len()) / 512 * 512;
                        let end = (block + 512).min(t.len());
                        let piece = t[block..end].to_vec();
                        t.splice(to..to, piece);
                    }
                }
            }
            // Half of them get past the checksum.
            if rng.random() {
                for at in (0..t.len().saturating_sub(511)).step_by(512) {
                    if &t[at + 257..at + 262] == b"ustar" {
                        fix_checksum(&mut t, at);
                    }
                }
            }
            if let Ok(l) = try_layer(&t, &limits) {
                prop_assert_eq!(sha(&l.tar()), sha(&t));
                fsck(&l.image());
            }
        }
    }
}
