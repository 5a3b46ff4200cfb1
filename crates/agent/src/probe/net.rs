//! What the network of instances needs: nftables, bridges, taps, forwarding.

use biga_model::Ability;
use rustix::thread::UnshareFlags;

use super::host::{Host, apart, run};
use super::{degraded, missing, ok};

/// Uses each of what Biga's rules use: a map, NAT, a named counter of the connection state.
const NFT_TRIAL: &str = "\
table ip biga_probe {
  map ports { type inet_service : ipv4_addr . inet_service; elements = { 80 : 10.0.0.2 . 80 } }
  chain prerouting { type nat hook prerouting priority dstnat; dnat to tcp dport map @ports; }
  chain postrouting { type nat hook postrouting priority srcnat; ip saddr 10.0.0.0/24 masquerade; }
  chain forward { type filter hook forward priority filter; ct state established,related accept; }
}
delete table ip biga_probe
";

const LINK_TRIAL: &str = "\
link add bp0 type bridge
link add bp1 type veth peer name bp2
link set bp1 master bp0
";

/// Things tried in a network namespace of their own.
pub(super) fn trials(host: &Host) -> Vec<Ability> {
    let tried = apart(UnshareFlags::NEWNET, || vec![nft(host), bridge(host)]);
    tried.unwrap_or_else(|e| {
        let why = format!("no network namespace to try it in: {e}");
        let cost = "instances have no network";
        ["nft", "bridge"]
            .map(|n| missing(n, why.clone(), cost, "run `biga serve` as root"))
            .into()
    })
}

fn nft(host: &Host) -> Ability {
    let cost = "no NAT and no published ports: instances reach each other and nothing beyond";
    let Some(program) = host.program("nft") else {
        return missing("nft", "no program nft", cost, "apt-get install nftables");
    };
    match run(&program, &["-f", "-"], NFT_TRIAL) {
        Ok(said) if said.success => ok("nft", "takes maps, NAT and filters"),
        Ok(said) => missing(
            "nft",
            format!("refuses a trial: {}", said.complaint()),
            cost,
            "load nf_tables, nft_chain_nat, nft_masq and nft_ct, or use a kernel that has them",
        ),
        Err(e) => missing("nft", format!("{}: {e}", program.display()), cost, "reinstall nftables"),
    }
}

fn bridge(host: &Host) -> Ability {
    let cost = "instances have no network";
    let Some(program) = host.program("ip") else {
        return degraded(
            "bridge",
            "not tried: no program ip",
            "none where the kernel has it",
            "apt-get install iproute2",
        );
    };
    match run(&program, &["-batch", "-"], LINK_TRIAL) {
        Ok(said) if said.success => ok("bridge", "with veth pairs"),
        Ok(said) => missing(
            "bridge",
            said.complaint(),
            cost,
            "load bridge and veth: `modprobe bridge veth`",
        ),
        Err(e) => missing("bridge", e.to_string(), cost, "reinstall iproute2"),
    }
}

/// How machines join a network.
pub(super) fn tun(host: &Host) -> Ability {
    use std::os::unix::fs::FileTypeExt;
    let device = host.at("/dev/net/tun");
    let opened = std::fs::File::options().read(true).write(true).open(&device);
    match (device.metadata(), opened) {
        (Ok(m), Ok(_)) if m.file_type().is_char_device() => ok("tun", "taps"),
        (Ok(_), Ok(_)) => missing(
            "tun",
            "/dev/net/tun is no device",
            "machines have no network",
            "recreate it",
        ),
        (_, Err(e)) | (Err(e), _) => missing(
            "tun",
            format!("/dev/net/tun: {e}"),
            "machines and microvms have no network",
            "load the module: `modprobe tun`",
        ),
    }
}

/// Moves machines' packets in the kernel.
pub(super) fn vhost_net(host: &Host) -> Ability {
    if host.exists("/dev/vhost-net") {
        return ok("vhost-net", "present");
    }
    missing(
        "vhost-net",
        "no /dev/vhost-net",
        "QEMU moves machines' packets itself: more processor time for the same traffic",
        "load the module: `modprobe vhost_net`",
    )
}

pub(super) fn ip_forward(host: &Host) -> Ability {
    match host.read("/proc/sys/net/ipv4/ip_forward").as_deref() {
        Some("1") => ok("ip-forward", "on"),
        _ => degraded(
            "ip-forward",
            "off",
            "instances reach nothing beyond the host",
            "`biga serve` switches it on; nothing to do unless something switches it off again",
        ),
    }
}

/// What others' packet filters do to forwarded and bridged packets. Docker leaves both of these behind.
pub(super) fn bridge_filter(host: &Host) -> Ability {
    let drops = forward_drops(host);
    let bridged = host.read("/proc/sys/net/bridge/bridge-nf-call-iptables").as_deref() == Some("1");
    let remedy = "iptables -P FORWARD ACCEPT, or accept Biga's bridges there (Docker: the chain DOCKER-USER)";
    match (drops, bridged) {
        (true, true) => degraded(
            "forwarding",
            "iptables drops forwarded packets, and bridged ones count as such",
            "instances may not reach each other nor the outside",
            format!("{remedy}; sysctl -w net.bridge.bridge-nf-call-iptables=0"),
        ),
        (true, false) => degraded(
            "forwarding",
            "iptables drops forwarded packets",
            "instances may not reach the outside",
            remedy,
        ),
        (false, _) => ok("forwarding", "nothing drops forwarded packets by policy"),
    }
}

/// Whether the policy of the chain FORWARD is DROP. `iptables` speaks to nftables or to the older tables,
/// whichever the host uses; without it, ask nftables.
fn forward_drops(host: &Host) -> bool {
    let asked = |program: &str, args: &[&str]| {
        let said = host.program(program).and_then(|p| run(&p, args, "").ok())?;
        said.success.then_some(said.stdout)
    };
    match asked("iptables", &["-w", "5", "-S", "FORWARD"]) {
        Some(rules) => rules.lines().any(|l| l.trim() == "-P FORWARD DROP"),
        None => asked("nft", &["list", "chain", "ip", "filter", "FORWARD"]).is_some_and(|c| c.contains("policy drop")),
    }
}
