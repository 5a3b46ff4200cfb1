//! Tap interfaces.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use crate::check;

const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
const TUNSETPERSIST: libc::c_ulong = 0x4004_54cb;
const IFF_TAP: i16 = 0x0002;
const IFF_NO_PI: i16 = 0x1000;
const IFF_VNET_HDR: i16 = 0x4000;

#[repr(C)]
struct InterfaceRequest {
    name: [u8; 16],
    flags: i16,
    rest: [u8; 22],
}

/// Opens the tap interface of this name, making it if it does not exist. It lives as long as the descriptor, unless
/// made to stay with [`persist`].
pub fn open_tap(name: &str) -> io::Result<OwnedFd> {
    let mut request = InterfaceRequest {
        name: [0; 16],
        flags: IFF_TAP | IFF_NO_PI | IFF_VNET_HDR,
        rest: [0; 22],
    };
    // The last byte stays NUL.
    let room = request.name.get_mut(..name.len()).filter(|_| name.len() < 16);
    room.ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("interface name {name} is too long"),
        )
    })?
    .copy_from_slice(name.as_bytes());
    let file = File::options().read(true).write(true).open("/dev/net/tun")?;
    // SAFETY: `request` has the size of struct ifreq and outlives the call.
    check(unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF as _, &request) }.into())?;
    Ok(file.into())
}

/// Makes a tap interface stay when its descriptor is closed, or go then.
pub fn persist(tap: &OwnedFd, stay: bool) -> io::Result<()> {
    // SAFETY: the argument is a number.
    check(unsafe { libc::ioctl(tap.as_raw_fd(), TUNSETPERSIST as _, libc::c_int::from(stay)) }.into()).map(drop)
}
