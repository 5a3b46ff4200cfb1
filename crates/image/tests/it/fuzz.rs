//! Everything that reads foreign bytes, fed with specimens that were mutilated at random. By default a few hundred tries
//! each; `cargo xtask fuzz --seconds N` goes on for longer. A try that fails is written to a file, and the same seed gives the same
//! tries again.

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use biga_image::fuzzing::{self, TARGETS, Target};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::support::*;

/// Seconds for each target, where more is wanted than a look.
const SECONDS: &str = "BIGA_FUZZ_SECONDS";
/// A number that makes the same tries again.
const SEED: &str = "BIGA_FUZZ_SEED";
/// Tries of a look.
const LOOK: usize = 400;

fn number(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|v| v.parse().unwrap_or_else(|_| panic!("{name} is no number")))
}

/// Tries until the time is up. `make` builds an input.
fn tries(name: &str, target: impl Fn(&[u8]), make: impl Fn(&mut StdRng) -> Vec<u8>) {
    let seed = number(SEED).unwrap_or_else(|| rand::rng().random());
    let mut rng = StdRng::seed_from_u64(seed);
    let end = number(SECONDS).map(|s| Instant::now() + Duration::from_secs(s));
    let mut count = 0;
    while end.map_or(count < LOOK, |end| Instant::now() < end) {
        let input = make(&mut rng);
        if catch_unwind(AssertUnwindSafe(|| target(&input))).is_err() {
            let (mut file, path) = tempfile::Builder::new()
                .prefix(&format!("fuzz-{name}-"))
                .tempfile()
                .and_then(|f| Ok(f.keep()?))
                .unwrap();
            file.write_all(&input).unwrap();
            panic!(
                "{name} failed at try {count} with {SEED}={seed}; the input is in {}",
                path.display()
            );
        }
        count += 1;
    }
    println!("{name}: {count} tries, {SEED}={seed}");
}

/// Mutilates bytes: flips, numbers that are dear to parsers, cuts, doublings, pieces of another specimen.
fn mutilate(bytes: &mut Vec<u8>, rng: &mut StdRng, words: &[&[u8]]) {
    for _ in 0..rng.random_range(1..8) {
        if bytes.is_empty() {
            bytes.push(rng.random());
        }
        let at = rng.random_range(0..bytes.len());
        let to = rng.random_range(at..=bytes.len().min(at + 600));
        match rng.random_range(0..8) {
            0 => bytes[at] = rng.random(),
            1 => bytes[at] ^= 1 << rng.random_range(0..8),
            2 => bytes[at] = [0, 0xff, 0x7f, 0x80, b'0', b'7', b'9', b'-'][rng.random_range(0..8)],
            3 => bytes.truncate(at),
            4 => drop(bytes.drain(at..to)),
            5 => {
                let piece = bytes[at..to].to_vec();
                let there = rng.random_range(0..=bytes.len());
                bytes.splice(there..there, piece);
            }
            6 if !words.is_empty() => {
                let word = words[rng.random_range(0..words.len())];
                bytes.splice(at..at, word.iter().copied());
            }
            _ => {
                let end = (at + 8).min(bytes.len());
                rng.fill(&mut bytes[at..end]);
            }
        }
    }
    bytes.truncate(1 << 20);
}

fn target(name: &str) -> Target {
    TARGETS
        .iter()
        .find(|(n, _)| *n == name)
        .unwrap_or_else(|| panic!("no target {name}"))
        .1
}

/// A target with specimens of its own.
fn specimens(name: &str, specimens: &[&[u8]], words: &[&[u8]]) {
    for s in specimens {
        target(name)(s);
    }
    tries(name, target(name), |rng| {
        let mut bytes = specimens[rng.random_range(0..specimens.len())].to_vec();
        if rng.random_ratio(1, 10) {
            bytes.extend_from_slice(specimens[rng.random_range(0..specimens.len())]);
        }
        mutilate(&mut bytes, rng, words);
        bytes
    });
}

const DIGEST: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

#[test]
fn every_target_is_fuzzed() {
    let here = [
        "layer",
        "split",
        "manifest",
        "config",
        "reference",
        "challenge",
        "docker_config",
        "disk",
        "policy_key",
    ];
    assert_eq!(TARGETS.map(|(n, _)| n), here);
}

#[test]
fn manifests() {
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","artifactType":"x/y","config":{{"mediaType":"a","digest":"{DIGEST}","size":1}},"layers":[{{"mediaType":"application/vnd.dev.cosign.simplesigning.v1+json","digest":"{DIGEST}","size":2,"annotations":{{"dev.cosignproject.cosign/signature":"AAAA"}}}}],"subject":{{"digest":"{DIGEST}","size":3}}}}"#
    );
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"digest":"{DIGEST}","size":1,"platform":{{"os":"linux","architecture":"amd64","variant":"v2"}}}},{{"digest":"{DIGEST}","size":18446744073709551615}}]}}"#
    );
    let error = br#"{"errors":[{"code":"DENIED","message":"no"}]}"#;
    let words: [&[u8]; 8] = [
        b"null",
        b"[]",
        b"{}",
        b"-1",
        b"1e999",
        b"\"\"",
        b"\"manifests\":[],",
        b"sha256:",
    ];
    specimens("manifest", &[manifest.as_bytes(), index.as_bytes(), error], &words);
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","created":"2024-01-01T00:00:00Z","config":{{"Env":["A=b"],"ExposedPorts":{{"80/tcp":{{}}}},"Labels":null,"Volumes":{{"/v":{{}}}},"Healthcheck":{{"Test":["NONE"]}}}},"rootfs":{{"type":"layers","diff_ids":["{DIGEST}"]}},"history":[{{"created_by":"x","empty_layer":true}}]}}"#
    );
    specimens("config", &[config.as_bytes(), br#"{"rootfs":{}}"#], &words);
}

#[test]
fn names_and_logins() {
    let digest = format!("a/b@{DIGEST}");
    let words: [&[u8]; 9] = [
        b":",
        b"/",
        b"@",
        b"sha256:",
        b"docker.io/",
        b"library/",
        b"..",
        b"[::1]",
        b"localhost:5000",
    ];
    let references: [&[u8]; 6] = [
        b"busybox",
        b"r.example:5000/a/b:c",
        digest.as_bytes(),
        b"[::1]:5/x",
        b"linux/arm/v7",
        b"x86_64",
    ];
    specimens("reference", &references, &words);
    let words: [&[u8]; 6] = [b"\"", b",", b"=", b"Bearer ", b"realm=", b"\\\""];
    let challenges: [&[u8]; 4] = [
        br#"Bearer realm="https://auth.example/token",service="reg",scope="repository:a/b:pull,push""#,
        b"Basic realm=\"x\"",
        br#"Basic realm="a", Bearer realm=https://b/ , service="c"#,
        br#"{"token":"abc","access_token":"","expires_in":60}"#,
    ];
    specimens("challenge", &challenges, &words);
    let words: [&[u8]; 5] = [b"null", b"{}", b"[]", b"bWU6cHc=", b"https://"];
    let files: [&[u8]; 2] = [
        br#"{"auths":{"https://index.docker.io/v1/":{"auth":"bWU6cHc="},"r":{"identitytoken":"t"}},"credHelpers":{"r":"h"},"credsStore":"s"}"#,
        br#"{"auths":{"r":{"username":"u","password":"p","registrytoken":"x"}}}"#,
    ];
    specimens("docker_config", &files, &words);
}

#[test]
fn disks_and_keys() {
    use rcgen::PublicKeyData;
    let mut qcow2 = vec![0u8; 512];
    qcow2[..4].copy_from_slice(b"QFI\xfb");
    (qcow2[7], qcow2[23], qcow2[28], qcow2[103]) = (3, 16, 64, 104);
    qcow2[104..112].copy_from_slice(&[0x68, 0x03, 0xf8, 0x57, 0, 0, 0, 8]);
    let words: [&[u8]; 5] = [b"QFI\xfb", &[0xE2, 0x79, 0x2A, 0xCA], b"vhdxfile", b"KDMV", &[0xff; 8]];
    specimens("disk", &[&qcow2, b"vhdxfile", &[0; 512]], &words);
    let keys = [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ED25519].map(|a| {
        [
            rcgen::KeyPair::generate_for(a).unwrap().subject_public_key_info(),
            vec![1; 80],
        ]
        .concat()
    });
    specimens(
        "policy_key",
        &[&keys[0], &keys[1]],
        &[&[0x30, 0x82], &[0x03, 0x42, 0x00]],
    );
}

/// An entry's header with its checksum.
fn header(rng: &mut StdRng, name: &[u8], link: &[u8], kind: u8, size: u64) -> [u8; 512] {
    let mut h = [0; 512];
    h[..name.len().min(100)].copy_from_slice(&name[..name.len().min(100)]);
    h[157..157 + link.len().min(100)].copy_from_slice(&link[..link.len().min(100)]);
    h[156] = kind;
    let mut octal = |at: usize, len: usize, n: u64| {
        let text = format!("{n:0w$o}", w = len - 1);
        if text.len() < len {
            h[at..at + text.len()].copy_from_slice(text.as_bytes());
        } else {
            h[at] = 0x80;
            h[at + len - 8..at + len].copy_from_slice(&n.to_be_bytes());
        }
    };
    octal(100, 8, rng.random_range(0..0o10000));
    let id: u64 = [0, 1000, 65_536, 4_000_000_000][rng.random_range(0..4)];
    octal(108, 8, id.min(0o777_7777));
    octal(116, 8, 0);
    octal(124, 12, size);
    octal(136, 12, rng.random_range(0..2_000_000_000));
    octal(329, 8, rng.random_range(0..4096));
    octal(337, 8, rng.random_range(0..1000));
    match rng.random_range(0..3) {
        0 => h[257..265].copy_from_slice(b"ustar\x0000"),
        1 => h[257..265].copy_from_slice(b"ustar  \0"),
        _ => {}
    }
    checksum(&mut h);
    h
}

fn checksum(h: &mut [u8]) {
    h[148..156].fill(b' ');
    let sum: u32 = h.iter().map(|&b| u32::from(b)).sum();
    h[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
}

fn path(rng: &mut StdRng) -> Vec<u8> {
    let parts: [&[u8]; 12] = [
        b"a",
        b"b",
        b"c",
        b"dir",
        b".wh.a",
        b".wh.dir",
        b".wh..wh..opq",
        b"..",
        b".",
        b"",
        b"disk",
        &[b'n'; 90],
    ];
    // The odd ones less often: a tar that is refused at its first entry teaches nothing.
    let pick = |rng: &mut StdRng| match rng.random_range(0..40) {
        0 => parts[7],
        n if n < 4 => parts[rng.random_range(4..7)],
        n if n < 6 => parts[rng.random_range(8..12)],
        _ => parts[rng.random_range(0..4)],
    };
    let mut out = Vec::new();
    for i in 0..rng.random_range(1..5) {
        if i > 0 {
            out.push(b'/');
        }
        out.extend_from_slice(pick(rng));
    }
    out
}

fn push_data(tar: &mut Vec<u8>, data: &[u8]) {
    tar.extend_from_slice(data);
    tar.resize(tar.len().next_multiple_of(512), 0);
}

/// A PAX header with records that matter.
fn pax(rng: &mut StdRng) -> Vec<u8> {
    let mut all = Vec::new();
    for _ in 0..rng.random_range(1..4) {
        let (key, value): (&[u8], Vec<u8>) = match rng.random_range(0..10) {
            0 => (b"path", path(rng)),
            1 => (b"linkpath", path(rng)),
            2 => (
                b"mtime",
                format!("{}.{}", rng.random_range(-9..9), rng.random::<u16>()).into(),
            ),
            3 => (b"uid", format!("{}", rng.random::<u32>()).into()),
            4 => (b"SCHILY.xattr.user.x", noise(rng.random_range(0..300), 1)),
            5 => (b"SCHILY.xattr.trusted.overlay.opaque", b"y".to_vec()),
            6 => (
                b"SCHILY.acl.access",
                b"user::rw-,user:1:r--,group::r--,mask::r--,other::r--".to_vec(),
            ),
            7 => (b"GNU.sparse.map", b"0,1,4096,3".to_vec()),
            8 => (
                b"GNU.sparse.realsize",
                format!("{}", rng.random_range(0..100_000)).into(),
            ),
            _ => (b"comment", noise(rng.random_range(0..50), 2)),
        };
        let rest = key.len() + value.len() + 3;
        let len = (1..)
            .map(|d| rest + d)
            .find(|n| n.to_string().len() + rest == *n)
            .unwrap();
        all.extend([format!("{len} ").as_bytes(), key, b"=", &value, b"\n"].concat());
    }
    all
}

/// A tar of random entries.
fn random_tar(rng: &mut StdRng) -> Vec<u8> {
    let mut tar = Vec::new();
    for _ in 0..rng.random_range(1..12) {
        if rng.random_ratio(1, 4) {
            let records = pax(rng);
            tar.extend(header(rng, b"pax", b"", b'x', records.len() as u64));
            push_data(&mut tar, &records);
        }
        if rng.random_ratio(1, 12) {
            let long = [path(rng), vec![b'l'; rng.random_range(0..300)]].concat();
            let kind = [b'L', b'K'][rng.random_range(0..2)];
            tar.extend(header(rng, b"././@LongLink", b"", kind, long.len() as u64 + 1));
            push_data(&mut tar, &[&long[..], &[0]].concat());
        }
        let (name, link) = (path(rng), path(rng));
        let kind = b"00000055522113467V"[rng.random_range(0..18)];
        let size = match kind {
            b'0' | b'7' => [0, 1, 100, 4000, 4096, 5000, 16_383, 20_000][rng.random_range(0..8)],
            _ => 0,
        };
        tar.extend(header(rng, &name, &link, kind, size as u64));
        let seed = rng.random();
        push_data(&mut tar, &if rng.random() { noise(size, seed) } else { vec![0; size] });
    }
    tar.resize(tar.len() + 1024, 0);
    tar
}

fn layer_input(rng: &mut StdRng) -> Vec<u8> {
    let mut tar = random_tar(rng);
    if rng.random_ratio(1, 3) {
        let words: [&[u8]; 4] = [
            b"ustar\x0000",
            &[0; 512],
            b"77777777777\0",
            &[0x80, 0, 0, 0, 0, 0, 0, 0],
        ];
        mutilate(&mut tar, rng, &words);
        if rng.random() {
            for at in (0..tar.len().saturating_sub(511)).step_by(512) {
                if &tar[at + 257..at + 262] == b"ustar" {
                    checksum(&mut tar[at..at + 512]);
                }
            }
        }
    }
    match rng.random_range(0..6) {
        0 => packed(gzip(&tar), rng),
        1 => packed(zstd::encode_all(&tar[..], 1).unwrap(), rng),
        _ => tar,
    }
}

fn packed(mut blob: Vec<u8>, rng: &mut StdRng) -> Vec<u8> {
    if rng.random_ratio(1, 3) {
        mutilate(&mut blob, rng, &[]);
    }
    blob
}

#[test]
fn layers() {
    tries("layer", target("layer"), layer_input);
    tries("layer_in_pieces", fuzzing::layer_in_pieces, random_tar);
}

/// What is taken is a sound file system for others, too.
#[test]
fn layers_before_fsck() {
    let taken = std::cell::Cell::new(0);
    let check = |blob: &[u8]| {
        if let Ok(l) = try_layer(blob, &fuzzing::limits()) {
            fsck(&l.image());
            taken.set(taken.get() + 1);
        }
    };
    let every_eighth = std::cell::Cell::new(0u32);
    tries("fsck", check, |rng| {
        every_eighth.set(every_eighth.get() + 1);
        // The program takes longer than what it checks.
        if every_eighth.get().is_multiple_of(8) {
            layer_input(rng)
        } else {
            Vec::new()
        }
    });
    assert!(taken.get() > 5, "only {} layers were taken", taken.get());
}

#[test]
fn splits() {
    let l = layer(
        &TarBuilder::new()
            .file("a", &noise(5000, 1))
            .file("b", b"small")
            .symlink("c", "a")
            .end(),
    );
    let (split, image) = (std::fs::read(l.split()).unwrap(), std::fs::read(l.image()).unwrap());
    let both = |split: &[u8]| {
        let mut image = image.clone();
        image.resize(split.len().max(image.len()), 0);
        [split, &image[..split.len()]].concat()
    };
    target("split")(&both(&split));
    tries("split", target("split"), |rng| {
        let mut s = split.clone();
        if rng.random() {
            mutilate(&mut s, rng, &[b"BIGASPL1"]);
        } else {
            // Past the compression: records and a table that say what they like.
            let mut records = noise(rng.random_range(0..40), rng.random());
            if rng.random() {
                records = [&[0, 3, b'a', b'b', b'c', 1][..], &[0xff; 9], &[1, 2]].concat();
            }
            let frame = zstd::encode_all(&records[..], 1).unwrap();
            let mut table = noise(rng.random_range(1..60), rng.random());
            table[0] &= 0x7f;
            let table = zstd::encode_all(&table[..], 1).unwrap();
            s = [
                &frame[..],
                &table,
                &(frame.len() as u64).to_le_bytes(),
                &[9; 8],
                b"BIGASPL1",
            ]
            .concat();
        }
        both(&s)
    });
}
