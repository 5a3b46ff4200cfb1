//! Partitions that the kernel is told of, without a table on the disk.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use crate::check;

const BLKPG: libc::c_ulong = 0x1269;
const BLKPG_ADD_PARTITION: libc::c_int = 1;

#[repr(C)]
struct Partition {
    start: i64,
    length: i64,
    number: libc::c_int,
    device_name: [u8; 64],
    volume_name: [u8; 64],
}

#[repr(C)]
struct Argument {
    operation: libc::c_int,
    flags: libc::c_int,
    length: libc::c_int,
    data: *const Partition,
}

/// Makes bytes `start..start + len` of a disk its partition `number` (1 and up). Both are multiples of 512.
/// On a read-only disk too.
pub fn add_partition(disk: impl AsFd, number: u16, start: u64, len: u64) -> io::Result<()> {
    let offset = |n: u64| i64::try_from(n).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput));
    let partition = Partition {
        start: offset(start)?,
        length: offset(len)?,
        number: number.into(),
        device_name: [0; 64],
        volume_name: [0; 64],
    };
    let argument = Argument {
        operation: BLKPG_ADD_PARTITION,
        flags: 0,
        length: size_of::<Partition>() as libc::c_int,
        data: &partition,
    };
    // SAFETY: both structures have the kernel's layout and outlive the call, which only reads them.
    check(unsafe { libc::ioctl(disk.as_fd().as_raw_fd(), BLKPG as _, &argument) }.into()).map(drop)
}
