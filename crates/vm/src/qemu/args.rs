//! Command lines of QEMU 7.2 to 10.x, for microvms and machines.

use std::os::fd::RawFd;
use std::path::{Path, PathBuf};

use biga_wire::config::Hypervisor;
use biga_wire::guest;
use serde_json::{Value, json};

/// Devices a microvm can have: its virtio-mmio slots with the second interrupt controller.
pub const MMIO_SLOTS: usize = 24;

/// Name inside QEMU of the port that a microvm's init opens.
pub const GUEST_PORT: &str = "guest0";
/// Name inside QEMU of the port that a machine's guest agent opens.
pub const AGENT_PORT: &str = "qga0";

/// Descriptors of ours that QEMU inherits.
#[derive(Debug, Clone, Default)]
pub struct Fds {
    /// Monitor.
    pub qmp: RawFd,
    /// Serial console.
    pub console: RawFd,
    /// Guest channel of a microvm, guest agent of a machine.
    pub channel: RawFd,
    /// One open tap for each card.
    pub taps: Vec<RawFd>,
}

/// A card.
#[derive(Debug, Clone)]
pub struct Card {
    /// Hardware address.
    pub mac: String,
    /// Largest packet.
    pub mtu: u32,
}

/// A disk.
#[derive(Debug, Clone)]
pub struct Disk {
    /// Name inside QEMU, and the serial the guest sees.
    pub name: String,
    /// The file.
    pub file: PathBuf,
    /// `raw`, `qcow2`, `vmdk`; never guessed from the content.
    pub format: &'static str,
    /// The guest cannot write, and the file is opened so.
    pub read_only: bool,
}

/// A directory shared by a virtiofs daemon.
#[derive(Debug, Clone)]
pub struct Share {
    /// What the guest mounts.
    pub tag: String,
    /// Socket of the daemon.
    pub socket: PathBuf,
}

/// A microvm.
#[derive(Debug, Clone)]
pub struct MicrovmArgs<'a> {
    /// Program and size.
    pub hypervisor: &'a Hypervisor,
    /// Name for `ps`.
    pub name: &'a str,
    /// Guest kernel.
    pub kernel: &'a Path,
    /// Initramfs.
    pub initrd: &'a Path,
    /// Disks.
    pub disks: Vec<Disk>,
    /// Shared directories.
    pub shares: Vec<Share>,
    /// Cards.
    pub cards: Vec<Card>,
    /// Handed over.
    pub fds: Fds,
    /// Rate of the processor's clock in kHz, which the emulator's guest takes over.
    pub tsc_khz: Option<u32>,
}

/// A machine.
#[derive(Debug, Clone)]
pub struct MachineArgs<'a> {
    /// Program and size.
    pub hypervisor: &'a Hypervisor,
    /// Name for `ps`.
    pub name: &'a str,
    /// Identity the firmware shows.
    pub uuid: &'a str,
    /// The first boots.
    pub disks: Vec<Disk>,
    /// Cards.
    pub cards: Vec<Card>,
    /// Firmware code and variables; BIOS where unset.
    pub uefi: Option<(&'a Path, &'a Path)>,
    /// Handed over.
    pub fds: Fds,
}

/// Collects arguments.
struct Line(Vec<String>);

impl Line {
    fn flag(&mut self, flag: &str) {
        self.0.push(flag.to_owned());
    }

    fn opt(&mut self, flag: &str, value: impl Into<String>) {
        self.0.push(flag.to_owned());
        self.0.push(value.into());
    }

    fn json(&mut self, flag: &str, value: Value) {
        self.opt(flag, value.to_string());
    }
}

/// A comma in an option's value is written twice.
fn escape(text: &str) -> String {
    text.replace(',', ",,")
}

fn common(line: &mut Line, hypervisor: &Hypervisor, name: &str) {
    line.opt("-name", format!("guest={},debug-threads=on", escape(name)));
    line.flag("-nodefaults");
    line.flag("-no-user-config");
    line.opt("-display", "none");
    line.opt(
        "-sandbox",
        "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
    );
    line.opt(
        "-accel",
        match hypervisor.kvm {
            true => "kvm".to_owned(),
            // The translation cache is memory the host pays for: the default is a gigabyte.
            false => format!("tcg,thread=multi,tb-size={}", tb_size(hypervisor)),
        },
    );
    line.opt("-smp", hypervisor.cpus.max(1).to_string());
}

/// Megabytes of translation cache.
fn tb_size(hypervisor: &Hypervisor) -> u64 {
    (hypervisor.memory >> 21).clamp(64, 512)
}

fn cpu(hypervisor: &Hypervisor) -> &'static str {
    match hypervisor.kvm {
        true => "host",
        // What programs built for x86-64-v2 need, and a source of randomness.
        false => "qemu64,+ssse3,+sse4.1,+sse4.2,+popcnt,+rdrand,+aes,+pclmulqdq",
    }
}

fn memory(line: &mut Line, hypervisor: &Hypervisor, shared: bool) {
    let mib = (hypervisor.memory >> 20).max(64);
    line.opt("-m", format!("{mib}M"));
    if shared {
        line.opt("-object", format!("memory-backend-memfd,id=ram,size={mib}M,share=on"));
    }
}

fn blockdev(line: &mut Line, disk: &Disk) {
    let file = json!({
        "driver": "file",
        "filename": disk.file,
        "read-only": disk.read_only,
        "aio": "threads",
        "node-name": format!("{}-file", disk.name),
    });
    let mut node = json!({
        "driver": disk.format,
        "node-name": disk.name,
        "read-only": disk.read_only,
        "file": file,
    });
    if !disk.read_only {
        node["discard"] = json!("unmap");
        node["file"]["discard"] = json!("unmap");
    }
    line.json("-blockdev", node);
}

fn socket(line: &mut Line, id: &str, fd: RawFd) {
    line.opt("-chardev", format!("socket,id={id},fd={fd}"));
}

fn monitor(line: &mut Line, fds: &Fds) {
    socket(line, "qmp", fds.qmp);
    line.opt("-mon", "chardev=qmp,mode=control");
    socket(line, "con", fds.console);
    line.opt("-serial", "chardev:con");
}

fn cards(line: &mut Line, cards: &[Card], fds: &Fds, device: &str, tail: &str) {
    for (i, (card, fd)) in cards.iter().zip(&fds.taps).enumerate() {
        line.opt("-netdev", format!("tap,id=net{i},fd={fd},vhost=off"));
        let mtu = match card.mtu {
            0 => String::new(),
            mtu => format!(",host_mtu={mtu}"),
        };
        line.opt(
            "-device",
            format!("{device},netdev=net{i},mac={}{mtu}{tail}", escape(&card.mac)),
        );
    }
}

/// Arguments of a microvm, without the program.
pub fn microvm(args: &MicrovmArgs<'_>) -> Vec<String> {
    let hv = args.hypervisor;
    let mut line = Line(Vec::new());
    common(&mut line, hv, args.name);
    // A microvm that restarts ends.
    line.flag("-no-reboot");
    let shared = !args.shares.is_empty();
    let backend = if shared { ",memory-backend=ram" } else { "" };
    line.opt(
        "-M",
        format!("microvm,pit=off,pic=off,rtc=on,isa-serial=on,x-option-roms=off{backend}"),
    );
    line.opt("-cpu", cpu(hv));
    memory(&mut line, hv, shared);
    line.opt("-kernel", args.kernel.to_string_lossy());
    line.opt("-initrd", args.initrd.to_string_lossy());
    line.opt("-append", kernel_command_line(args));
    // Without it the emulated transport is the old one, which virtiofs does not speak.
    line.opt("-global", "virtio-mmio.force-legacy=false");
    monitor(&mut line, &args.fds);
    socket(&mut line, "guest", args.fds.channel);
    line.opt("-device", "virtio-serial-device,max_ports=2");
    line.opt(
        "-device",
        format!("virtserialport,chardev=guest,id={GUEST_PORT},name={}", guest::PORT),
    );
    line.opt("-device", "virtio-rng-device");
    for disk in &args.disks {
        blockdev(&mut line, disk);
        line.opt("-device", format!("virtio-blk-device,drive={0},serial={0}", disk.name));
    }
    for (i, share) in args.shares.iter().enumerate() {
        line.opt(
            "-chardev",
            format!("socket,id=fs{i},path={}", escape(&share.socket.to_string_lossy())),
        );
        line.opt(
            "-device",
            format!("vhost-user-fs-device,chardev=fs{i},tag={}", escape(&share.tag)),
        );
    }
    cards(&mut line, &args.cards, &args.fds, "virtio-net-device", "");
    line.0
}

fn kernel_command_line(args: &MicrovmArgs<'_>) -> String {
    let mut words = vec![
        "console=ttyS0",
        "quiet",
        "panic=-1",
        "reboot=t",
        "random.trust_cpu=on",
        "cryptomgr.notests",
        "rcupdate.rcu_expedited=1",
        "8250.nr_uarts=1",
        "i8042.noaux",
        "i8042.nopnp",
        "audit=0",
        "nowatchdog",
        "pci=off",
        "rdinit=/init",
    ]
    .join(" ");
    if !args.hypervisor.kvm {
        // The emulator is no isolation boundary of its own kind that these would harden; with KVM they stay on.
        words.push_str(" no_timer_check lpj=4000000 nokaslr mitigations=off");
        if let Some(khz) = args.tsc_khz {
            words.push_str(&format!(" tsc_early_khz={khz} tsc=reliable"));
        }
    }
    words
}

/// Arguments of a machine, without the program.
pub fn machine(args: &MachineArgs<'_>) -> Vec<String> {
    let hv = args.hypervisor;
    let mut line = Line(Vec::new());
    common(&mut line, hv, args.name);
    if is_uuid(args.uuid) {
        line.opt("-uuid", args.uuid);
    }
    line.opt("-M", "q35,usb=off,vmport=off,dump-guest-core=off");
    line.opt("-cpu", cpu(hv));
    memory(&mut line, hv, false);
    line.opt("-rtc", "base=utc,driftfix=slew");
    if let Some((code, vars)) = args.uefi {
        for (unit, file, read_only) in [(0, code, "on"), (1, vars, "off")] {
            line.opt(
                "-drive",
                format!(
                    "if=pflash,unit={unit},format=raw,readonly={read_only},file={}",
                    escape(&file.to_string_lossy())
                ),
            );
        }
    }
    monitor(&mut line, &args.fds);
    socket(&mut line, "qga", args.fds.channel);
    line.opt("-device", "virtio-serial-pci,max_ports=4");
    line.opt(
        "-device",
        format!("virtserialport,chardev=qga,id={AGENT_PORT},name=org.qemu.guest_agent.0"),
    );
    line.opt("-device", "virtio-rng-pci");
    line.opt("-device", "virtio-balloon-pci,id=balloon,deflate-on-oom=on");
    for (i, disk) in args.disks.iter().enumerate() {
        blockdev(&mut line, disk);
        line.opt(
            "-device",
            format!("virtio-blk-pci,drive={0},serial={0},bootindex={1}", disk.name, i + 1),
        );
    }
    // Without a boot ROM the firmware does not try the network.
    cards(&mut line, &args.cards, &args.fds, "virtio-net-pci", ",romfile=");
    line.0
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(i, b)| match i {
            8 | 13 | 18 | 23 => b == b'-',
            _ => b.is_ascii_hexdigit(),
        })
}

/// Rate of this host's time-stamp counter in kHz, by its `BogoMIPS` (twice the rate in MHz).
pub fn tsc_khz() -> Option<u32> {
    parse_tsc_khz(&std::fs::read_to_string("/proc/cpuinfo").ok()?)
}

fn parse_tsc_khz(cpuinfo: &str) -> Option<u32> {
    let line = cpuinfo
        .lines()
        .find(|l| l.to_ascii_lowercase().starts_with("bogomips"))?;
    let mips: f64 = line.split(':').nth(1)?.trim().parse().ok()?;
    let khz = (mips * 500.0).round();
    (khz > 100_000.0 && khz < 20_000_000.0).then_some(khz as u32)
}

#[cfg(test)]
mod tests;
