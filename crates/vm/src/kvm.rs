//! Whether KVM runs a guest here.
//!
//! That `/dev/kvm` opens says little: inside some virtual machines it opens and then executes guests instruction by
//! instruction, or not at all. So a tiny guest is run, by the same QEMU and with the same processor model as later: it goes through
//! protected mode and paging into 64-bit mode, counts to fifty million, and says so. That takes a few hundredths of a second where
//! the processor does it.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Time given to QEMU and the guest together.
const PATIENCE: Duration = Duration::from_secs(4);
/// What QEMU exits with when the guest wrote 42 to its debug port.
const GOOD: i32 = 42 << 1 | 1;

/// Why KVM cannot be used. Shown to users by `biga doctor`.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No device.
    #[error(
        "/dev/kvm cannot be opened ({0}): the processor's virtualization is off, missing, or not passed on to this machine"
    )]
    Open(io::Error),
    /// No trial.
    #[error("KVM could not be tried out: {0}")]
    Trial(#[source] io::Error),
    /// QEMU gave up.
    #[error("/dev/kvm opens but does not run a guest: {0}")]
    Refused(String),
    /// The guest did not come through in time.
    #[error("/dev/kvm opens but does not run a guest: a test program of a few hundredths of a second did not end within {} s", PATIENCE.as_secs())]
    Stuck,
}

/// The guest, for a processor as it comes out of reset, at the lowest address of a 64 KiB firmware:
///
/// ```text
///      cli; lgdt cs:[gdtr]; cr0 |= PE; jmp 08:pm           16 bits
/// pm:  ds = 10; [1000] = 2003; [2000] = 3003; [3000] = 83  32 bits: tables for the first 2 MiB
///      cr4 |= PAE; cr3 = 1000; EFER |= LME; cr0 |= PG; jmp 18:lm
/// lm:  ecx = 50000000; 1: dec ecx; jnz 1b                  64 bits
///      out f4, 42; 2: hlt; jmp 2b
/// gdt: null, code 32, data, code 64; gdtr
/// ```
#[rustfmt::skip]
const GUEST: [u8; 198] = [
    0xfa, 0x2e, 0x66, 0x0f, 0x01, 0x16, 0xc0, 0x00, 0x0f, 0x20, 0xc0, 0x0c, 0x01, 0x0f, 0x22, 0xc0,
    0x66, 0xea, 0x18, 0x00, 0x0f, 0x00, 0x08, 0x00, 0x66, 0xb8, 0x10, 0x00, 0x8e, 0xd8, 0xc7, 0x05,
    0x00, 0x10, 0x00, 0x00, 0x03, 0x20, 0x00, 0x00, 0xc7, 0x05, 0x04, 0x10, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x00, 0xc7, 0x05, 0x00, 0x20, 0x00, 0x00, 0x03, 0x30, 0x00, 0x00, 0xc7, 0x05, 0x04, 0x20,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0xc7, 0x05, 0x00, 0x30, 0x00, 0x00, 0x83, 0x00, 0x00, 0x00,
    0xc7, 0x05, 0x04, 0x30, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x0f, 0x20, 0xe0, 0x83, 0xc8, 0x20,
    0x0f, 0x22, 0xe0, 0xb8, 0x00, 0x10, 0x00, 0x00, 0x0f, 0x22, 0xd8, 0xb9, 0x80, 0x00, 0x00, 0xc0,
    0x0f, 0x32, 0x0d, 0x00, 0x01, 0x00, 0x00, 0x0f, 0x30, 0x0f, 0x20, 0xc0, 0x0d, 0x00, 0x00, 0x00,
    0x80, 0x0f, 0x22, 0xc0, 0xea, 0x8b, 0x00, 0x0f, 0x00, 0x18, 0x00, 0xb9, 0x80, 0xf0, 0xfa, 0x02,
    0xff, 0xc9, 0x75, 0xfc, 0xb0, 0x2a, 0xe6, 0xf4, 0xf4, 0xeb, 0xfd, 0x0f, 0x1f, 0x44, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0x00, 0x00, 0x00, 0x9a, 0xcf, 0x00,
    0xff, 0xff, 0x00, 0x00, 0x00, 0x92, 0xcf, 0x00, 0xff, 0xff, 0x00, 0x00, 0x00, 0x9a, 0xaf, 0x00,
    0x1f, 0x00, 0xa0, 0x00, 0x0f, 0x00,
];

/// The firmware image: the guest, and at the reset vector a jump to it.
fn firmware() -> Vec<u8> {
    const SIZE: usize = 64 << 10;
    const RESET: usize = SIZE - 16;
    let mut image = vec![0; SIZE];
    image[..GUEST.len()].copy_from_slice(&GUEST);
    // A near jump counts from the instruction after it, modulo 64 KiB.
    let distance = (SIZE - (RESET + 3)) as u16;
    let [low, high] = distance.to_le_bytes();
    image[RESET..RESET + 3].copy_from_slice(&[0xe9, low, high]);
    image
}

/// Runs a tiny guest under KVM. Takes some hundredths of a second where KVM works and at most a few seconds where not; the answer
/// holds until the next boot of the host or another QEMU.
pub fn probe_kvm(qemu: &Path) -> Result<(), Error> {
    File::options()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .map_err(Error::Open)?;
    trial(qemu, "kvm", "host")
}

fn trial(qemu: &Path, accelerator: &str, cpu: &str) -> Result<(), Error> {
    fs::metadata(qemu).map_err(Error::Trial)?;
    let dir = tempfile::Builder::new()
        .prefix("biga-kvm")
        .tempdir()
        .map_err(Error::Trial)?;
    let (image, log) = (dir.path().join("probe.bin"), dir.path().join("log"));
    fs::write(&image, firmware()).map_err(Error::Trial)?;
    let child = tied(qemu)
        .args([
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-no-reboot",
            "-m",
            "16M",
        ])
        .args(["-M", "microvm,isa-serial=off,rtc=off,x-option-roms=off"])
        .args(["-accel", accelerator, "-cpu", cpu])
        .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-bios"])
        .arg(&image)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(&log).map_err(Error::Trial)?)
        .spawn()
        .map_err(Error::Trial)?;
    let code = wait(child)?;
    match code {
        Some(GOOD) => Ok(()),
        _ => {
            let words = fs::read_to_string(&log).unwrap_or_default();
            let words = crate::microvm::usage::last_lines(&words, 3);
            Err(Error::Refused(if words.is_empty() {
                "QEMU ended without a word".into()
            } else {
                words
            }))
        }
    }
}

/// QEMU, to be killed with whoever tries it: under a KVM that runs no guest it would spin for ever. `setpriv` of
/// util-linux arranges that; where it is missing QEMU runs as it is.
fn tied(qemu: &Path) -> Command {
    let setpriv = ["/usr/bin/setpriv", "/bin/setpriv"]
        .into_iter()
        .find(|p| Path::new(p).exists());
    match setpriv {
        Some(program) => {
            let mut command = Command::new(program);
            command.args(["--pdeathsig", "KILL"]).arg(qemu);
            command
        }
        None => Command::new(qemu),
    }
}

/// Waits for QEMU's end, and ends it when it takes too long.
fn wait(mut child: Child) -> Result<Option<i32>, Error> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(status.code()),
            Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
            other => {
                // Whichever it was, nothing may be left behind.
                let _ = child.kill();
                let _ = child.wait();
                return Err(match other {
                    Err(e) => Error::Trial(e),
                    Ok(_) => Error::Stuck,
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QEMU: &str = "/usr/bin/qemu-system-x86_64";

    #[test]
    fn the_test_guest_comes_through_where_it_can() {
        // The emulator runs it: so a failure under KVM is KVM's. On a loaded host it may take more than one try.
        let tries = (0..10).map(|_| trial(Path::new(QEMU), "tcg", "max"));
        let results: Vec<_> = tries.take_while(|r| matches!(r, Err(Error::Stuck))).collect();
        assert!(results.len() < 10, "the guest never came through");
    }

    #[test]
    fn a_qemu_that_refuses_is_quoted() {
        let error = trial(Path::new(QEMU), "tcg", "no-such-cpu").unwrap_err();
        assert!(error.to_string().contains("no-such-cpu"), "{error}");
        assert!(matches!(
            trial(Path::new("/nonexistent"), "tcg", "max"),
            Err(Error::Trial(_))
        ));
    }

    #[test]
    fn the_host_gets_an_answer() {
        // Either is right, depending on the machine; the words have to fit.
        if let Err(e) = probe_kvm(Path::new(QEMU)) {
            assert!(e.to_string().contains("/dev/kvm"), "{e}");
        }
    }
}
