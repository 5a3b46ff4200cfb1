//! Disks by serial, and the host's port by name.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use biga_wire::guest::LayerRange;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::{Context, Error};

/// A device that does not appear within this never will.
const PATIENCE: Duration = Duration::from_secs(30);

/// Calls `find` until it finds. Devices appear a moment after their driver was loaded.
fn wait<T>(what: &str, mut find: impl FnMut() -> Option<T>) -> Result<T, Error> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = find() {
            return Ok(found);
        }
        if Instant::now() > deadline {
            return Err(Error::Device(what.to_owned()));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Name of the entry of `class` whose attribute file has this content.
fn by_attribute(class: &Path, attribute: &str, content: &str) -> Option<String> {
    fs::read_dir(class).ok()?.find_map(|entry| {
        let entry = entry.ok()?;
        let text = fs::read_to_string(entry.path().join(attribute)).ok()?;
        (text.trim() == content).then(|| entry.file_name().to_string_lossy().into_owned())
    })
}

/// Opens the port of this name.
pub fn port(name: &str) -> Result<File, Error> {
    let class = Path::new("/sys/class/virtio-ports");
    let path = wait("port to the host", || {
        let path = Path::new("/dev").join(by_attribute(class, "name", name)?);
        path.exists().then_some(path)
    })?;
    let open = File::options().read(true).write(true).open(&path);
    let file = open.step(|| format!("open {}", path.display()))?;
    rustix::io::ioctl_fionbio(&file, true).step(|| format!("set up {}", path.display()))?;
    // The driver learns the port's name before it learns that the host listens.
    wait("host at its port", || {
        let mut fds = [PollFd::new(&file, PollFlags::OUT)];
        let polled = poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
        (polled.is_ok() && !fds[0].revents().contains(PollFlags::HUP)).then_some(())
    })?;
    Ok(file)
}

/// Name of the disk with this serial, as `vda`.
pub fn disk(serial: &str) -> Result<String, Error> {
    wait(&format!("disk {serial}"), || {
        let name = by_attribute(Path::new("/sys/block"), "serial", serial)?;
        Path::new("/dev").join(&name).exists().then_some(name)
    })
}

/// The block device of each layer. A layer that does not fill its disk becomes a partition.
pub fn layers(disk: &str, ranges: &[LayerRange]) -> Result<Vec<PathBuf>, Error> {
    let path = Path::new("/dev").join(disk);
    if let [_] = ranges {
        return Ok(vec![path]);
    }
    let file = File::open(&path).step(|| format!("open {}", path.display()))?;
    let mut out = Vec::new();
    for (number, range) in (1u16..).zip(ranges) {
        biga_sys::partition::add_partition(&file, number, range.start, range.len)
            .step(|| format!("make partition {number} of {disk}"))?;
        out.push(Path::new("/dev").join(format!("{disk}{number}")));
    }
    if let Some(last) = out.last() {
        wait("last layer", || last.exists().then_some(()))?;
    }
    Ok(out)
}
