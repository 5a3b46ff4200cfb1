//! Builds the programs that are carried: statically linked, without relocations, small.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

const TARGET: &str = "x86_64-unknown-linux-gnu";
const PROGRAMS: [&str; 3] = ["biga-shim", "biga-guest", "biga-oci"];
/// Crates that the programs are made of.
const SOURCES: [&str; 8] = ["container", "files", "guest", "oci", "shim", "sys", "vm", "wire"];

fn main() {
    let root = PathBuf::from(variable("CARGO_MANIFEST_DIR")).join("../..");
    for name in SOURCES {
        for part in ["src", "Cargo.toml"] {
            println!(
                "cargo::rerun-if-changed={}",
                root.join("crates").join(name).join(part).display()
            );
        }
    }
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={}", root.join("Cargo.toml").display());
    println!("cargo::rerun-if-changed={}", root.join("Cargo.lock").display());

    // A directory of its own: the outer cargo holds the lock of the usual one.
    let target = env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| root.join("target"), PathBuf::from)
        .join("payload");
    build(&root, &target);
    let out = PathBuf::from(variable("OUT_DIR"));
    for name in PROGRAMS {
        let from = target.join(TARGET).join("payload").join(name);
        if let Err(e) = std::fs::copy(&from, out.join(name)) {
            panic!("cannot copy {}: {e}", from.display());
        }
    }
    println!("cargo::rustc-env=BIGA_OCI_MARK={}", mark(&out.join("biga-oci")));
}

/// Tells one build of a program from another: FNV-1a over its bytes.
fn mark(path: &Path) -> String {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("cannot read {}: {e}", path.display()));
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    format!("{:016x}", bytes.iter().fold(0xcbf2_9ce4_8422_2325, step))
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|e| panic!("cargo did not set {name}: {e}"))
}

fn build(root: &Path, target: &Path) {
    let mut cargo = Command::new(variable("CARGO"));
    cargo
        .current_dir(root)
        .args(["build", "--profile", "payload", "--target", TARGET, "--target-dir"])
        .arg(target);
    for name in PROGRAMS {
        cargo.args(["-p", name, "--bin", name]);
    }
    // What the outer cargo (or clippy) set for itself must not change how these are built.
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        let outer = [
            "CARGO_FEATURE_",
            "CARGO_CFG_",
            "CARGO_PKG_",
            "CARGO_PROFILE_",
            "CLIPPY_",
        ]
        .iter()
        .any(|p| name.starts_with(p));
        let exact = [
            "CARGO_ENCODED_RUSTFLAGS",
            "CARGO_BUILD_TARGET",
            "CARGO_MANIFEST_DIR",
            "CARGO_MANIFEST_PATH",
            "RUSTC",
            "RUSTC_WORKSPACE_WRAPPER",
            "RUSTC_WRAPPER",
            "RUSTDOC",
            "TARGET",
            "HOST",
            "PROFILE",
            "OPT_LEVEL",
            "DEBUG",
            "OUT_DIR",
            "NUM_JOBS",
            "LD_LIBRARY_PATH",
        ]
        .contains(&name.as_str());
        if outer || exact {
            cargo.env_remove(&name);
        }
    }
    cargo.env("RUSTFLAGS", "-C target-feature=+crt-static -C relocation-model=static");
    match cargo.status() {
        Ok(status) if status.success() => {}
        Ok(status) => panic!("building {PROGRAMS:?} failed: {status}"),
        Err(e) => panic!("cannot run cargo: {e}"),
    }
}
