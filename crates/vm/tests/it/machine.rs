//! Machines, with a disk whose boot sector is the whole operating system.

use std::fs;
use std::path::Path;

use biga_vm::disk::{self, Format};
use biga_vm::machine::MachineWorkload;
use biga_vm::seed::{self, Seed};
use biga_wire::config::{Limits, Machine, Workload};
use biga_wire::shim::ErrorCode;
use biga_wire::workload::MAIN;

use crate::support::guest::{Image, hypervisor};
use crate::support::{Shim, shell};

/// A boot sector that writes `disk boots` to the serial line, sends back what it reads there, and switches the machine off at a
/// `q` and when the power button is pressed:
///
/// ```text
/// start: outw 602, 100 (enable the button); print text
/// loop:  inw 600, bit 8 (pressed)? -> off; inb 3fd, bit 0 (input)? read 3f8; q -> off; else write it back
/// off:   outw 604, 2000 (sleep state 5)
/// ```
#[rustfmt::skip]
const BOOT_SECTOR: [u8; 95] = [
    0xfa, 0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xc0, 0xba, 0x02, 0x06, 0xb8, 0x00, 0x01, 0xef, 0xbe, 0x52,
    0x7c, 0xac, 0x84, 0xc0, 0x74, 0x05, 0xe8, 0x2a, 0x00, 0xeb, 0xf6, 0xba, 0x00, 0x06, 0xed, 0xa9,
    0x00, 0x01, 0x75, 0x15, 0xba, 0xfd, 0x03, 0xec, 0xa8, 0x01, 0x74, 0xef, 0xba, 0xf8, 0x03, 0xec,
    0x3c, 0x71, 0x74, 0x05, 0xe8, 0x0c, 0x00, 0xeb, 0xe2, 0xba, 0x04, 0x06, 0xb8, 0x00, 0x20, 0xef,
    0xf4, 0xeb, 0xfd, 0x50, 0xba, 0xfd, 0x03, 0xec, 0xa8, 0x20, 0x74, 0xfb, 0x58, 0xba, 0xf8, 0x03,
    0xee, 0xc3, 0x64, 0x69, 0x73, 0x6b, 0x20, 0x62, 0x6f, 0x6f, 0x74, 0x73, 0x0d, 0x0a, 0x00,
];

fn machine() -> (tempfile::TempDir, Machine) {
    let dir = tempfile::Builder::new().prefix("biga-vm").tempdir().unwrap();
    for name in ["run", "state"] {
        fs::create_dir(dir.path().join(name)).unwrap();
    }
    let base = dir.path().join("base.raw");
    let mut bytes = vec![0; 1 << 20];
    bytes[..BOOT_SECTOR.len()].copy_from_slice(&BOOT_SECTOR);
    bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
    fs::write(&base, bytes).unwrap();
    let clone = dir.path().join("state/disk.qcow2");
    disk::clone(&base, disk::inspect(&base).unwrap(), &clone, Some(8 << 20)).unwrap();
    let more = dir.path().join("more.raw");
    disk::raw(&more, 4 << 20).unwrap();
    let seed_image = dir.path().join("state/seed.img");
    seed::write(&seed_image, &Seed::default()).unwrap();
    let config = Machine {
        hypervisor: hypervisor(64),
        disk: clone,
        disks: vec![more],
        seed: Some(seed_image),
        ..Machine::default()
    };
    (dir, config)
}

fn boot(dir: tempfile::TempDir, config: &Machine) -> (Shim, Image) {
    let image = Image {
        dir,
        config: Default::default(),
    };
    let shim = image.shim_config(Workload::Machine(Box::new(config.clone())));
    let mut shim = Shim::boot(MachineWorkload::new(&shim, config));
    shim.until("boot", |host| {
        host.streams[&MAIN].out().contains("disk boots").then_some(())
    });
    (shim, image)
}

#[test]
fn a_disk_boots_talks_pauses_and_stops_by_its_power_button() {
    let (dir, config) = machine();
    let (mut shim, _image) = boot(dir, &config);
    shim.input(MAIN, b"hello");
    shim.until("echo", |host| {
        host.streams[&MAIN].out().ends_with("hello").then_some(())
    });

    shim.workload.pause(&mut shim.host).unwrap();
    shim.input(MAIN, b"paused");
    for _ in 0..5 {
        shim.turn(std::time::Duration::from_millis(100));
    }
    assert!(shim.main().out().ends_with("hello"));
    shim.workload.resume(&mut shim.host).unwrap();
    shim.until("echo", |host| {
        host.streams[&MAIN].out().ends_with("paused").then_some(())
    });

    let stats = shim.workload.stats(&mut shim.host).unwrap();
    assert!(
        stats.cpu_ns > 0 && stats.memory > 1 << 20 && stats.block_read >= 512,
        "{stats:?}"
    );
    assert_eq!(shim.workload.console(), Some(MAIN));
    // Nobody answers for the guest agent.
    let fault = shim.exec(shell("true")).unwrap_err();
    assert_eq!(fault.code, ErrorCode::State);
    assert!(fault.message.contains("qemu-guest-agent"), "{fault}");
    assert_eq!(
        shim.workload.signal(MAIN, 1, &mut shim.host).unwrap_err().code,
        ErrorCode::Unsupported
    );
    shim.workload
        .update(
            &Limits {
                memory: Some(48 << 20),
                ..Limits::default()
            },
            &mut shim.host,
        )
        .unwrap();
    let more = Limits {
        memory: Some(1 << 30),
        ..Limits::default()
    };
    assert_eq!(
        shim.workload.update(&more, &mut shim.host).unwrap_err().code,
        ErrorCode::Unsupported
    );

    shim.signal(MAIN, 15);
    let exit = shim.wait_exit(MAIN);
    assert_eq!((exit.code, exit.signal, exit.error), (0, None, None));
    shim.delete();
    shim.delete();
}

#[test]
fn one_that_switches_itself_off_ended_well_and_one_that_is_killed_did_not() {
    let (dir, config) = machine();
    let (mut shim, image) = boot(dir, &config);
    shim.input(MAIN, b"q");
    assert_eq!(shim.wait_exit(MAIN).code, 0);
    shim.delete();
    let (mut shim, image) = boot(image.dir, &config);
    let pid = shim.workload.pids(&mut shim.host).unwrap()[0];
    shim.signal(MAIN, 9);
    let exit = shim.wait_exit(MAIN);
    assert_eq!((exit.code, exit.signal), (137, Some(9)));
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
    shim.delete();
    // The clone is whole and free again.
    disk::grow(&config.disk, Format::Qcow2, 16 << 20).unwrap();
    drop(image);
}

#[test]
fn a_disk_that_is_no_image_is_told_in_qemus_words() {
    let (dir, config) = machine();
    fs::write(&config.disk, "this is not a disk").unwrap();
    let image = Image {
        dir,
        config: Default::default(),
    };
    let shim = image.shim_config(Workload::Machine(Box::new(config.clone())));
    let mut shim = Shim::new(MachineWorkload::new(&shim, &config));
    shim.workload.create(&mut shim.host).unwrap();
    shim.workload.start(&mut shim.host).unwrap();
    let fault = shim
        .until("the failure", |host| host.streams.get(&MAIN)?.started.clone())
        .unwrap_err();
    assert!(fault.message.contains("qcow2"), "{fault}");

    let gone = Machine {
        disk: "/nonexistent/disk".into(),
        ..config
    };
    let shim_config = image.shim_config(Workload::Machine(Box::new(gone.clone())));
    let mut shim = Shim::new(MachineWorkload::new(&shim_config, &gone));
    assert!(
        shim.workload
            .create(&mut shim.host)
            .unwrap_err()
            .message
            .contains("/nonexistent/disk")
    );
}
