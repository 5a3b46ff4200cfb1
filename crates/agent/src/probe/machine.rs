//! What machines and microvms need beside QEMU, and room for all of it.

use std::path::Path;

use biga_model::{Ability, Memory};

use super::{Kvm, degraded, missing, ok};

const GIB: u64 = 1 << 30;
/// Less free space than this and the first image may already not fit.
const TIGHT: u64 = 2 * GIB;

pub(super) fn kvm(outcome: Kvm) -> Ability {
    let cost = "machines and microvms run in QEMU's emulator (TCG): some ten times slower, otherwise the same";
    match outcome {
        Kvm::Runs => ok("kvm", "runs a guest"),
        Kvm::Broken(why) => degraded(
            "kvm",
            format!("the device opens and no guest runs: {why}"),
            cost,
            "where this host is itself a machine, switch on nested virtualisation for it",
        ),
        Kvm::Absent(why) => missing(
            "kvm",
            why,
            cost,
            "load kvm_intel or kvm_amd, switch on VT-x or AMD-V in the firmware, and let this user open /dev/kvm",
        ),
    }
}

pub(super) fn guest_kernel(path: &Path) -> Ability {
    match path.metadata() {
        Ok(m) if m.is_file() && m.len() > 0 => ok("guest-kernel", path.display().to_string()),
        Ok(_) | Err(_) => missing(
            "guest-kernel",
            format!("no kernel at {}", path.display()),
            "microvms cannot start",
            "run `biga setup`",
        ),
    }
}

/// Free space on the file system that holds, or will hold, the state.
pub(super) fn disk_space(state: &Path) -> Ability {
    let Some(existing) = state.ancestors().find(|p| p.exists()) else {
        return missing(
            "disk",
            format!("{} does not exist", state.display()),
            "nothing can be stored",
            "create it",
        );
    };
    let remedy = "free some, or give `biga serve --state` a directory on a larger file system";
    match rustix::fs::statvfs(existing) {
        Ok(fs) => {
            let free = fs.f_bavail.saturating_mul(fs.f_frsize);
            let detail = format!("{} free at {}", Memory(free).human(), existing.display());
            match free {
                f if f >= TIGHT => ok("disk", detail),
                _ => degraded(
                    "disk",
                    detail,
                    "pulling an image or a container's own writes may fail",
                    remedy,
                ),
            }
        }
        Err(e) => missing(
            "disk",
            format!("{}: {e}", existing.display()),
            "nothing can be stored",
            remedy,
        ),
    }
}
