//! Changing limits while a container runs.

use super::living;
use crate::args::{Global, Known, Options};
use crate::error::{Error, Step};
use crate::spec::resources::{BlockIo, Cpu, Memory, Pids, Resources};
use crate::{limits, state};

const UPDATE: [Known; 18] = [
    ("resources", "r", true),
    ("blkio-weight", "", true),
    ("cpu-period", "", true),
    ("cpu-quota", "", true),
    ("cpu-burst", "", true),
    ("cpu-idle", "", true),
    ("cpu-share", "", true),
    ("cpu-rt-period", "", true),
    ("cpu-rt-runtime", "", true),
    ("cpuset-cpus", "", true),
    ("cpuset-mems", "", true),
    ("memory", "", true),
    ("memory-reservation", "", true),
    ("memory-swap", "", true),
    ("pids-limit", "", true),
    ("kernel-memory", "", true),
    ("l3-cache-schema", "", true),
    ("mem-bw-schema", "", true),
];

pub(super) fn update(global: &Global, rest: Vec<String>) -> Result<i32, Error> {
    let o = Options::parse(rest, &UPDATE, false)?;
    o.at_most(1)?;
    let (_, state, _) = living(global, o.id()?)?;
    let resources = match o.get("resources") {
        Some(path) => from_file(path)?,
        None => from_options(&o)?,
    };
    if !resources.devices.is_empty() {
        return Err(Error::unsupported(
            "devices",
            "which devices can be used is settled when a container is made",
        ));
    }
    limits::apply(&mut state.group(), &resources)?;
    Ok(0)
}

fn from_file(path: &str) -> Result<Resources, Error> {
    let what = || format!("read {path}");
    let text = if path == "-" {
        let mut text = Vec::new();
        std::io::Read::read_to_end(&mut std::io::stdin(), &mut text).step(what)?;
        text
    } else {
        std::fs::read(path).step(what)?
    };
    state::parse(&text).map_err(|source| Error::Json {
        path: path.to_owned(),
        source,
    })
}

fn from_options(o: &Options) -> Result<Resources, Error> {
    for name in ["l3-cache-schema", "mem-bw-schema", "kernel-memory"] {
        if o.has(name) {
            return Err(Error::unsupported(format!("--{name}"), "this runtime does not do it"));
        }
    }
    let text = |name: &str| o.get(name).unwrap_or_default().to_owned();
    Ok(Resources {
        memory: Some(Memory {
            limit: o.number("memory")?,
            reservation: o.number("memory-reservation")?,
            swap: o.number("memory-swap")?,
            ..Memory::default()
        }),
        cpu: Some(Cpu {
            shares: o.number("cpu-share")?,
            quota: o.number("cpu-quota")?,
            burst: o.number("cpu-burst")?,
            period: o.number("cpu-period")?,
            realtime_runtime: o.number("cpu-rt-runtime")?,
            realtime_period: o.number("cpu-rt-period")?,
            cpus: text("cpuset-cpus"),
            mems: text("cpuset-mems"),
            idle: o.number("cpu-idle")?,
        }),
        pids: Some(Pids {
            limit: o.number("pids-limit")?,
        }),
        block_io: Some(BlockIo {
            weight: o.number("blkio-weight")?,
            ..BlockIo::default()
        }),
        ..Resources::default()
    })
}
