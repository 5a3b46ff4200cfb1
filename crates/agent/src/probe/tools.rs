//! Programs of other packages that Biga starts.

use biga_model::Ability;

use super::host::{Host, run};
use super::{degraded, missing, ok};

/// Below this, flags that Biga passes are not understood.
const OLDEST_QEMU: (u32, u32) = (7, 2);

/// QEMU itself, and its machine types that Biga uses.
pub(super) fn qemu(host: &Host) -> Vec<Ability> {
    let cost = "machines and microvms cannot run";
    let Some(program) = host.program("qemu-system-x86_64") else {
        return vec![missing(
            "qemu",
            "no qemu-system-x86_64",
            cost,
            "apt-get install qemu-system-x86 qemu-utils",
        )];
    };
    let said = match run(&program, &["--version"], "") {
        Ok(said) if said.success => said,
        Ok(said) => return vec![missing("qemu", said.complaint(), cost, "reinstall qemu-system-x86")],
        Err(e) => {
            return vec![missing(
                "qemu",
                format!("{}: {e}", program.display()),
                cost,
                "reinstall qemu-system-x86",
            )];
        }
    };
    let Some((version, parts)) = version_in(&said.stdout) else {
        let detail = format!(
            "says {:?} when asked for its version",
            said.stdout.lines().next().unwrap_or_default()
        );
        return vec![degraded(
            "qemu",
            detail,
            "it may not understand Biga's flags",
            "use a released QEMU",
        )];
    };
    if parts < OLDEST_QEMU {
        let remedy = "install 7.2 or newer (Debian 12 has it)";
        return vec![degraded(
            "qemu",
            format!("version {version}"),
            "machines may not start",
            remedy,
        )];
    }
    vec![ok("qemu", format!("version {version}"))]
}

/// The first `a.b[.c]` in a program's answer.
pub(super) fn version_in(text: &str) -> Option<(String, (u32, u32))> {
    text.split(|c: char| c.is_whitespace() || c == '(' || c == ',')
        .find_map(|word| {
            let word: String = word.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
            let mut parts = word.split('.').map(str::parse);
            match (parts.next(), parts.next()) {
                (Some(Ok(major)), Some(Ok(minor))) => Some((word.trim_end_matches('.').to_owned(), (major, minor))),
                _ => None,
            }
        })
}

/// Copies and clones of machine disks.
pub(super) fn qemu_img(host: &Host) -> Ability {
    present(
        host,
        "qemu-img",
        &["qemu-img"],
        "machine disks cannot be cloned or converted",
        "apt-get install qemu-utils",
    )
}

/// Shares directories with microvms.
pub(super) fn virtiofsd(host: &Host) -> Ability {
    let places = ["virtiofsd", "/usr/libexec/virtiofsd", "/usr/lib/qemu/virtiofsd"];
    let cost = "directories (named volumes and binds) cannot be shared into microvms";
    present(
        host,
        "virtiofsd",
        &places,
        cost,
        "apt-get install qemu-system-common, or virtiofsd on newer systems",
    )
}

/// Makes the file systems of block volumes and of microvms' writable layers.
pub(super) fn mkfs_ext4(host: &Host) -> Ability {
    let cost = "microvms have no writable layer and block volumes no file system";
    present(
        host,
        "mkfs.ext4",
        &["mkfs.ext4", "mke2fs"],
        cost,
        "apt-get install e2fsprogs",
    )
}

/// Saves and restores running containers.
pub(super) fn criu(host: &Host) -> Ability {
    let cost = "running containers cannot be checkpointed and restored; nothing else needs it";
    let remedy = "install CRIU 4 or newer: on Debian 13 apt-get install criu; Debian 12 has 3.17 only, which fails on kernels from 6.13 on";
    let Some(program) = host.program("criu") else {
        return missing("criu", "not installed", cost, remedy);
    };
    let version = run(&program, &["--version"], "");
    let Some((version, _)) = version.ok().filter(|s| s.success).and_then(|s| version_in(&s.stdout)) else {
        return degraded("criu", "does not tell its version", cost, "reinstall it");
    };
    // The only one that knows what it needs of this kernel.
    match biga_container::criu::check(&program) {
        Ok(()) => ok("criu", format!("version {version}")),
        Err(biga_container::criu::Error::Failed { reason, .. }) => {
            let detail = format!("version {version} does not work here: {reason}");
            degraded("criu", detail, cost, remedy)
        }
        Err(e) => degraded("criu", e.to_string(), cost, remedy),
    }
}

fn present(host: &Host, name: &str, programs: &[&str], cost: &str, remedy: &str) -> Ability {
    match programs.iter().find_map(|p| host.program(p)) {
        Some(path) => ok(name, path.display().to_string()),
        None => missing(name, "not installed", cost, remedy),
    }
}
