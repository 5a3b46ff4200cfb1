//! Realtime of processors, which control groups of version 1 share among groups where the kernel does
//! (`CONFIG_RT_GROUP_SCHED`): each group has so much at most as its parent, all of a parent's together included.

use std::fs;
use std::path::{Path, PathBuf};

use biga_wire::config::Limits;

use super::{ROOT, write};
use crate::Error;
use crate::error::Context;

const RUNTIME: &str = "cpu.rt_runtime_us";
const PERIOD: &str = "cpu.rt_period_us";

/// Writes what is asked for into the group at `dir`, and what it needs into its parents.
pub(super) fn apply(dir: &Path, l: &Limits) -> Result<(), Error> {
    if l.cpu_realtime_runtime.is_none() && l.cpu_realtime_period.is_none() {
        return Ok(());
    }
    let Some(now) = Share::of(dir) else {
        return Err(Error::Field(
            "the realtime of processors",
            "this host's kernel shares none among control groups (CONFIG_RT_GROUP_SCHED)".into(),
        ));
    };
    let wanted = Share {
        runtime: l.cpu_realtime_runtime.unwrap_or(now.runtime),
        period: l.cpu_realtime_period.unwrap_or(now.period),
    };
    for (parent, share) in parents(dir, wanted.part()) {
        set(&parent.join(RUNTIME), share.runtime)?;
    }
    if wanted.period != now.period {
        // Between the two neither may be out of proportion.
        let low = now.runtime.min(wanted.runtime).min(wanted.period);
        set(&dir.join(RUNTIME), low)?;
        set(&dir.join(PERIOD), wanted.period)?;
    }
    set(&dir.join(RUNTIME), wanted.runtime)
}

fn set(path: &Path, value: u64) -> Result<(), Error> {
    write(path, &value.to_string()).step(|| {
        format!(
            "write {value} to {}: is there so much realtime left, and is the period not too short",
            path.display()
        )
    })
}

/// What a group has.
#[derive(Debug, Clone, Copy)]
struct Share {
    runtime: u64,
    period: u64,
}

impl Share {
    fn of(dir: &Path) -> Option<Share> {
        let read = |file| fs::read_to_string(dir.join(file)).ok()?.trim().parse::<i64>().ok();
        Some(Share {
            // -1 is all there is.
            runtime: read(RUNTIME)?.try_into().unwrap_or(u64::MAX),
            period: read(PERIOD)?.try_into().ok()?,
        })
    }

    /// Millionths of a processor.
    fn part(self) -> u64 {
        (u128::from(self.runtime) * 1_000_000 / u128::from(self.period.max(1)))
            .try_into()
            .unwrap_or(u64::MAX)
    }
}

/// Parents that have too little, highest first, and what they need so that `dir` can have `part`.
fn parents(dir: &Path, part: u64) -> Vec<(PathBuf, Share)> {
    let (mut all, mut below, mut needed) = (Vec::new(), dir, part);
    let root = Path::new(ROOT).join("cpu");
    while let Some(parent) = below.parent().filter(|p| *p != root && p.starts_with(&root)) {
        let Some(has) = Share::of(parent) else { break };
        needed = needed.saturating_add(others(parent, below));
        if has.part() < needed {
            let runtime = (u128::from(needed) * u128::from(has.period)).div_ceil(1_000_000);
            let runtime = u64::try_from(runtime).unwrap_or(u64::MAX);
            all.push((parent.to_owned(), Share { runtime, ..has }));
        }
        below = parent;
    }
    all.reverse();
    all
}

/// What all groups of a parent but one have.
fn others(parent: &Path, but: &Path) -> u64 {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    let dirs = entries.map(|e| e.path()).filter(|p| p != but && p.is_dir());
    dirs.filter_map(|p| Share::of(&p))
        .map(Share::part)
        .fold(0, u64::saturating_add)
}
