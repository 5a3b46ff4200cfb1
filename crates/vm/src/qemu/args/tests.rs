//! Golden command lines: a change shows itself in review.

use super::*;

fn hypervisor(version: (u32, u32), kvm: bool) -> Hypervisor {
    Hypervisor {
        qemu: "/usr/bin/qemu-system-x86_64".into(),
        version,
        kvm,
        virtiofsd: None,
        cpus: 2,
        memory: 256 << 20,
    }
}

/// One option a line.
fn lines(args: &[String]) -> String {
    let mut out = String::new();
    for arg in args {
        out.push_str(if arg.starts_with('-') && !out.is_empty() {
            "\n"
        } else if out.is_empty() {
            ""
        } else {
            " "
        });
        out.push_str(arg);
    }
    out
}

fn disk(name: &str, file: &str, format: &'static str, read_only: bool) -> Disk {
    Disk {
        name: name.into(),
        file: file.into(),
        format,
        read_only,
    }
}

fn fds() -> Fds {
    Fds {
        qmp: 10,
        console: 11,
        channel: 12,
        taps: vec![13, 14],
    }
}

fn cards() -> Vec<Card> {
    let card = |mac: &str, mtu| Card { mac: mac.into(), mtu };
    vec![card("52:54:00:00:00:01", 1450), card("52:54:00:00:00:02", 0)]
}

fn a_microvm(hypervisor: &Hypervisor, shares: Vec<Share>) -> String {
    lines(&microvm(&MicrovmArgs {
        hypervisor,
        name: "web,1",
        kernel: Path::new("/k/vmlinux"),
        initrd: Path::new("/k/initrd.img"),
        disks: vec![
            disk("layers", "/run/a,b/layers.vmdk", "vmdk", true),
            disk("rw", "/state/rw.img", "raw", false),
        ],
        shares,
        cards: cards(),
        fds: fds(),
        tsc_khz: Some(2_300_000),
    }))
}

#[test]
fn microvm_by_emulation() {
    let old = a_microvm(&hypervisor((7, 2), false), Vec::new());
    insta::assert_snapshot!(old);
    assert_eq!(
        old,
        a_microvm(&hypervisor((10, 0), false), Vec::new()),
        "one line fits both versions"
    );
}

#[test]
fn microvm_by_kvm_with_a_share() {
    let share = Share {
        tag: "share0".into(),
        socket: "/run/i/fs0.sock".into(),
    };
    let line = a_microvm(&hypervisor((10, 0), true), vec![share]);
    insta::assert_snapshot!(line);
    // Where hardware isolates tenants nothing that protects them is switched off.
    assert!(!line.contains("mitigations=off") && !line.contains("nokaslr"));
}

fn a_machine(hypervisor: &Hypervisor, uefi: Option<(&Path, &Path)>) -> String {
    lines(&machine(&MachineArgs {
        hypervisor,
        name: "db",
        uuid: "0c0ffee0-1111-2222-3333-444455556666",
        disks: vec![
            disk("disk0", "/state/disk.qcow2", "qcow2", false),
            disk("seed", "/state/seed.img", "raw", true),
        ],
        cards: cards(),
        uefi,
        fds: fds(),
    }))
}

#[test]
fn machine_with_bios_by_emulation() {
    let old = a_machine(&hypervisor((7, 2), false), None);
    insta::assert_snapshot!(old);
    assert_eq!(
        old,
        a_machine(&hypervisor((10, 0), false), None),
        "one line fits both versions"
    );
}

#[test]
fn machine_with_uefi_by_kvm() {
    let uefi = (Path::new("/usr/share/OVMF/code,v.fd"), Path::new("/state/vars.fd"));
    insta::assert_snapshot!(a_machine(&hypervisor((10, 0), true), Some(uefi)));
}

#[test]
fn the_clock_rate_is_read() {
    assert_eq!(parse_tsc_khz("processor : 0\nbogomips\t: 4599.99\n"), Some(2_299_995));
    assert_eq!(parse_tsc_khz("bogomips : 0.0\n"), None);
    assert_eq!(parse_tsc_khz("nothing"), None);
}
