//! One function for each thing that reads foreign bytes. The fuzzers call them: the one of `cargo xtask fuzz`, which needs
//! no special compiler, and those of `fuzz/`, which `cargo fuzz` builds. None may panic, whatever it is given; what a
//! function says beside that it asserts.

use std::fs::File;
use std::io::{Cursor, Read};
use std::path::Path;

use crate::layer::{Limits, convert};
use crate::split::TarReader;
use crate::store::oci;
use crate::{DiskFormat, Platform, disk};

/// Something that reads foreign bytes.
pub type Target = fn(&[u8]);

/// All of them, by name.
pub const TARGETS: [(&str, Target); 9] = [
    ("layer", layer),
    ("split", split),
    ("manifest", manifest),
    ("config", config),
    ("reference", reference),
    ("challenge", challenge),
    ("docker_config", docker_config),
    ("disk", disk_header),
    ("policy_key", policy_key),
];

/// Bounds that keep one try short.
pub fn limits() -> Limits {
    Limits {
        entries: 5000,
        tar_bytes: 16 << 20,
        image_bytes: 1 << 30,
        memory: 16 << 20,
        ratio: 1100,
    }
}

fn scratch(bytes: &[u8]) -> Option<File> {
    use std::os::unix::fs::FileExt;
    let fd = rustix::fs::memfd_create("fuzz", rustix::fs::MemfdFlags::CLOEXEC).ok()?;
    let file = File::from(fd);
    file.write_all_at(bytes, 0).ok()?;
    Some(file)
}

/// A layer's blob: what is taken gives the same tar again, and the same file system when it is taken once more.
pub fn layer(blob: &[u8]) {
    let (Some(image), Some(parts)) = (scratch(b""), scratch(b"")) else {
        return;
    };
    let handles = image.try_clone().and_then(|i| Ok((i, parts.try_clone()?)));
    let Ok((image_again, parts_again)) = handles else {
        return;
    };
    let Ok(converted) = convert(blob, image, parts, &limits()) else {
        return;
    };
    let mut tar = Vec::new();
    let read = TarReader::new(parts_again, image_again).and_then(|mut r| r.read_to_end(&mut tar));
    assert!(read.is_ok(), "a tar that was taken does not come out again: {read:?}");
    assert_eq!(tar.len() as u64, converted.tar_size, "it comes out with another size");
    assert_eq!(
        crate::digest::of(&tar),
        crate::digest::spell(&converted.diff_id),
        "it comes out changed"
    );
}

/// A split and a layer file that do not belong together.
pub fn split(bytes: &[u8]) {
    let half = bytes.len() / 2;
    let (Some(parts), Some(image)) = (scratch(&bytes[..half]), scratch(&bytes[half..])) else {
        return;
    };
    if let Ok(mut reader) = TarReader::new(parts, image) {
        // It may claim any length.
        let _ = std::io::copy(&mut (&mut reader).take(1 << 20), &mut std::io::sink());
    }
}

/// A manifest or an index.
pub fn manifest(bytes: &[u8]) {
    for media_type in ["", oci::OCI_MANIFEST, oci::OCI_INDEX] {
        match oci::document(bytes, media_type, "x") {
            Ok(oci::Document::Manifest(m)) => {
                assert!(m.layers.iter().all(|l| crate::digest::is_digest(&l.digest)));
                let _ = crate::policy::signing::texts(&m).count();
            }
            Ok(oci::Document::Index(i)) => drop(oci::choose(&i, &Platform::host(), "x").cloned()),
            Err(_) => {}
        }
    }
    let _ = oci::error_text(bytes);
}

/// An image's config.
pub fn config(bytes: &[u8]) {
    for layers in [0, 1, 2] {
        if let Ok(c) = oci::config(bytes, layers, "x") {
            assert!(c.rootfs.diff_ids.iter().all(|d| crate::digest::is_digest(d)));
            let _ = c.platform().to_string();
        }
    }
}

/// A reference: what is taken is printed as what is taken for the same.
pub fn reference(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(r) = text.parse::<biga_model::Reference>() {
        assert_eq!(r.to_string().parse().as_ref(), Ok(&r), "{text:?}");
        assert_eq!(r.familiar().parse().as_ref(), Ok(&r), "{text:?}");
        assert!(!r.object_name().contains('/'));
    }
    if let Ok(p) = text.parse::<Platform>() {
        assert_eq!(p.to_string().parse().as_ref(), Ok(&p), "{text:?}");
    }
}

/// What a registry demands, and a token service's answer.
pub fn challenge(bytes: &[u8]) {
    crate::registry::fuzz_challenge(&String::from_utf8_lossy(bytes), bytes);
}

/// Docker's config file.
pub fn docker_config(bytes: &[u8]) {
    crate::registry::docker_config::fuzz(bytes);
}

/// A disk's first bytes.
pub fn disk_header(bytes: &[u8]) {
    let Some(file) = scratch(bytes) else {
        return;
    };
    let _ = disk::detect(&file);
    let _ = disk::check(&file, DiskFormat::Qcow2);
}

/// A public key, and bytes said to be signed by it.
pub fn policy_key(bytes: &[u8]) {
    let (spki, rest) = bytes.split_at(bytes.len().min(91));
    if let Ok(key) = crate::policy::Key::from_spki(spki, Path::new("x")) {
        let _ = key.verify(rest, rest);
    }
}

/// A layer's blob that is read in pieces of the worst size must give what it gives whole.
pub fn layer_in_pieces(blob: &[u8]) {
    struct OneByOne<'b>(Cursor<&'b [u8]>);
    impl Read for OneByOne<'_> {
        fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
            let n = out.len().min(1);
            self.0.read(&mut out[..n])
        }
    }
    let once = |from: &mut dyn Read| {
        let (image, parts) = (scratch(b"")?, scratch(b"")?);
        Some(convert(std::io::BufReader::new(from), image, parts, &limits()).map_err(|e| e.to_string()))
    };
    let (whole, pieces) = (once(&mut Cursor::new(blob)), once(&mut OneByOne(Cursor::new(blob))));
    assert_eq!(whole, pieces);
}
