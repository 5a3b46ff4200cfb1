//! Machines that ask for their address.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use crate::support::*;

/// A guest's end: a namespace with an interface of this hardware address on the bridge.
fn guest(bridge: &str, mac: &str) -> Outside {
    let guest = Outside::unconnected();
    let path = guest.netns.to_str().unwrap().to_owned();
    run("ip", &["link", "add", "g0", "type", "veth", "peer", "name", "eth0"]);
    run("ip", &["link", "set", "eth0", "netns", &path]);
    run("ip", &["link", "set", "g0", "master", bridge, "up"]);
    guest.exec("ip", &["link", "set", "eth0", "address", mac, "up"]);
    guest
}

/// What udhcpc was told, as `name=value` lines; none where nobody answered.
fn udhcpc(guest: &Outside, dir: &std::path::Path, tries: &str) -> Option<String> {
    let (script, told) = (dir.join("script"), dir.join("told"));
    let text = format!("#!/bin/sh\n[ \"$1\" = bound ] && env > {}\nexit 0\n", told.display());
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let script = script.to_str().unwrap();
    let args = [
        "udhcpc", "-i", "eth0", "-f", "-n", "-q", "-t", tries, "-T", "1", "-s", script,
    ];
    let output = try_exec(&guest.netns, "busybox", &args);
    output.status.success().then(|| std::fs::read_to_string(told).unwrap())
}

#[test]
fn a_machine_gets_its_address_by_dhcp() {
    world(async |w| {
        let status = w.network("a").await;
        let mut end = w
            .net
            .endpoint(&uid_of("a"), "m", "eth0", Some([10, 88, 0, 77].into()), None)
            .unwrap();
        end.hostname = Some("machine".into());
        end.mtu = Some(1400);
        let taps = w.net.attach_machine("m", std::slice::from_ref(&end)).await.unwrap();
        let links = run("ip", &["-o", "link", "show", "master", &status.bridge]);
        assert!(links.contains(&taps[0]), "{links}");

        let (bridge, mac) = (status.bridge.clone(), end.mac.to_string());
        let dir = tempfile::tempdir().unwrap();
        let told = tokio::task::spawn_blocking(move || {
            let guest = guest(&bridge, &mac);
            udhcpc(&guest, dir.path(), "60")
        });
        let told = told.await.unwrap().expect("no lease");
        for line in [
            "ip=10.88.0.77",
            "subnet=255.255.255.0",
            "router=10.88.0.1",
            "dns=10.88.0.1",
            "hostname=machine",
            "serverid=10.88.0.1",
            "lease=86400",
        ] {
            assert!(told.lines().any(|l| l == line), "{line} in {told}");
        }
    });
}

#[test]
fn strangers_get_nothing() {
    world(async |w| {
        let status = w.network("a").await;
        let dir = tempfile::tempdir().unwrap();
        let told = tokio::task::spawn_blocking(move || {
            let guest = guest(&status.bridge, "02:00:00:00:00:99");
            udhcpc(&guest, dir.path(), "2")
        });
        assert_eq!(told.await.unwrap(), None);
    });
}

/// The frame of a question who has an address, with the empty header that taps have before it.
fn who_has(mac: [u8; 6], own: [u8; 4], wanted: [u8; 4]) -> Vec<u8> {
    let mut frame = vec![0; VNET_HEADER];
    frame.extend_from_slice(&[0xff; 6]);
    frame.extend_from_slice(&mac);
    frame.extend_from_slice(&[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend_from_slice(&mac);
    frame.extend_from_slice(&own);
    frame.extend_from_slice(&[0; 6]);
    frame.extend_from_slice(&wanted);
    frame
}

const VNET_HEADER: usize = 10;

#[test]
fn a_tap_carries_frames_to_other_instances() {
    world(async |w| {
        w.network("a").await;
        let x = w.instance("x", &["a"]).await;
        let end = w.net.endpoint(&uid_of("a"), "m", "eth0", None, None).unwrap();
        let taps = w.net.attach_machine("m", std::slice::from_ref(&end)).await.unwrap();
        // As QEMU does.
        let tap = std::fs::File::from(biga_sys::tun::open_tap(&taps[0]).unwrap());
        let (said, heard) = std::sync::mpsc::channel();
        let mut reader = tap.try_clone().unwrap();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length) = reader.read(&mut buffer) {
                let _ = said.send(buffer[..length].to_vec());
            }
        });
        let question = who_has(end.mac.0, end.address.octets(), x.ip().octets());
        let start = Instant::now();
        loop {
            (&tap).write_all(&question).unwrap();
            let frame = heard.recv_timeout(Duration::from_millis(500)).unwrap_or_default();
            let frame = frame.get(VNET_HEADER..).unwrap_or_default();
            // A reply, and by whom.
            if frame.get(12..14) == Some(&[8, 6]) && frame.get(20..22) == Some(&[0, 2]) {
                assert_eq!(frame[22..28], x.endpoints[0].mac.0);
                assert_eq!(frame[28..32], x.ip().octets());
                break;
            }
            assert!(start.elapsed() < DEADLINE, "no answer through the tap");
        }
    });
}
