//! The finer limits, the same for `run`, `create` and `update`.

use biga_model::{IoDevice, Memory, Resources};

use crate::parse::env;
use crate::parse::fine;
use crate::parse::size::size;

/// Limits that few need.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct FineLimits {
    /// Microseconds of processor time a period; -1 is no limit
    #[arg(long, value_name = "MICROSECONDS", allow_negative_numbers = true)]
    cpu_quota: Option<i64>,
    /// Microseconds of a period, 1000 to 1000000
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_period: Option<u64>,
    /// Microseconds of unused processor time that may be saved up
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_burst: Option<u64>,
    /// Microseconds of realtime a period (control groups of version 1)
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_rt_runtime: Option<u64>,
    /// Microseconds of that period; 1000000 where left out
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_rt_period: Option<u64>,
    /// Memory nodes it may use, as 0-1
    #[arg(long, value_name = "LIST")]
    cpuset_mems: Option<String>,
    /// How gladly its memory is swapped, 0 to 100 (control groups of version 1)
    #[arg(long, value_name = "NUMBER")]
    memory_swappiness: Option<u64>,
    /// Let it wait instead of killing when memory runs out (control groups of version 1)
    #[arg(long)]
    oom_kill_disable: bool,
    /// Weight for block devices, 10 to 1000
    #[arg(long, value_name = "WEIGHT")]
    blkio_weight: Option<u16>,
    /// Weight for one block device
    #[arg(long, value_name = "/DEV:WEIGHT", value_parser = fine::weight)]
    blkio_weight_device: Vec<IoDevice>,
    /// So much may be read from a block device a second
    #[arg(long, value_name = "/DEV:SIZE", value_parser = fine::read_bps)]
    device_read_bps: Vec<IoDevice>,
    /// So much may be written to a block device a second
    #[arg(long, value_name = "/DEV:SIZE", value_parser = fine::write_bps)]
    device_write_bps: Vec<IoDevice>,
    /// So many reads from a block device a second
    #[arg(long, value_name = "/DEV:NUMBER", value_parser = fine::read_iops)]
    device_read_iops: Vec<IoDevice>,
    /// So many writes to a block device a second
    #[arg(long, value_name = "/DEV:NUMBER", value_parser = fine::write_iops)]
    device_write_iops: Vec<IoDevice>,
    /// Huge pages of a size at most, as 2MB=64m
    #[arg(long, value_name = "PAGE=SIZE", value_parser = huge_pages)]
    hugetlb: Vec<(String, Memory)>,
    /// Write to a file of its control group of version 2, as memory.high=1G
    #[arg(long, value_name = "FILE=VALUE", value_parser = env::key_value)]
    cgroup_conf: Vec<(String, String)>,
}

fn huge_pages(s: &str) -> Result<(String, Memory), String> {
    let (page, bytes) = s
        .split_once('=')
        .ok_or_else(|| format!("{s:?} is not PAGE=SIZE, as in 2MB=64m"))?;
    Ok((page.to_owned(), size(bytes)?))
}

impl FineLimits {
    /// Writes what was given.
    pub fn apply(&self, r: &mut Resources) {
        fn set<T: Clone>(to: &mut Option<T>, from: &Option<T>) {
            if from.is_some() {
                to.clone_from(from);
            }
        }
        set(&mut r.cpu_quota, &self.cpu_quota);
        set(&mut r.cpu_period, &self.cpu_period);
        set(&mut r.cpu_burst, &self.cpu_burst);
        set(&mut r.cpu_realtime_runtime, &self.cpu_rt_runtime);
        set(&mut r.cpu_realtime_period, &self.cpu_rt_period);
        set(&mut r.cpuset_mems, &self.cpuset_mems);
        set(&mut r.memory_swappiness, &self.memory_swappiness);
        set(&mut r.oom_kill_disable, &self.oom_kill_disable.then_some(true));
        set(&mut r.io_weight, &self.blkio_weight);
        let devices = [
            &self.blkio_weight_device,
            &self.device_read_bps,
            &self.device_write_bps,
            &self.device_read_iops,
            &self.device_write_iops,
        ];
        devices
            .into_iter()
            .flatten()
            .for_each(|d| fine::merge(&mut r.io_devices, d));
        r.hugepages.extend(self.hugetlb.iter().cloned());
        r.unified.extend(self.cgroup_conf.iter().cloned());
    }
}
