//! Changing the ends of a container while it runs, and its name server at Docker's address.

use std::fs;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::attach::{self, End};
use crate::ids::Names;
use crate::netlink::{Batch, Socket};
use crate::{Endpoint, Error, nft, way_out};

/// Where containers on networks of their own find their name server, as under Docker.
pub const RESOLVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

/// Questions to [`RESOLVER`] go to the network's own server. The sender's address is that of loopback until it is
/// masked; packets from outside must not reach loopback for that.
const REDIRECT: &str = "add table ip biga-dns
delete table ip biga-dns
table ip biga-dns {
    chain early { type filter hook prerouting priority raw; policy accept; iifname != \"lo\" ip daddr 127.0.0.0/8 drop; }
    chain output { type nat hook output priority -100; policy accept; ip daddr RESOLVER meta l4proto { tcp, udp } th dport 53 dnat to SERVER:53; }
    chain postrouting { type nat hook postrouting priority 100; policy accept; ip saddr 127.0.0.0/8 ip daddr SERVER masquerade; }
}
";

/// Runs `work` on a thread inside the namespace held at `path`.
fn inside<T: Send>(path: &Path, work: impl FnOnce() -> Result<T, Error> + Send) -> Result<T, Error> {
    if !attach::holds_netns(path) {
        return Err(Error::NotAttached(path.to_owned()));
    }
    let netns = fs::File::open(path).map_err(|e| Error::io("open", path, e))?;
    std::thread::scope(|scope| {
        let enter = || {
            move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network))
                .map_err(|e| Error::io("enter the network namespace at", path, e))?;
            work()
        };
        let thread = std::thread::Builder::new()
            .name("netns".into())
            .stack_size(256 << 10)
            .spawn_scoped(scope, enter)
            .map_err(|e| Error::io("start a thread for", path, e))?;
        thread.join().unwrap_or(Err(Error::Task("network namespace")))
    })
}

/// Makes the interfaces of `added` in a namespace that is in use.
pub fn plug(home: &mut Socket, names: &Names, path: &Path, uid: &str, added: &[End<'_>]) -> Result<(), Error> {
    let netns = fs::File::open(path).map_err(|e| Error::io("open", path, e))?;
    inside(path, || attach::add_ends(home, names, path, uid, added, &netns))
}

/// Sends what has no other route to the one of `endpoints` that leads out.
pub fn reroute(path: &Path, endpoints: &[Endpoint]) -> Result<(), Error> {
    let best = way_out(endpoints).and_then(|at| endpoints.get(at));
    let Some((interface, gateway)) = best.and_then(|e| Some((e.interface.clone(), e.gateway?))) else {
        return Ok(());
    };
    inside(path, || {
        let mut socket = Socket::open().map_err(|e| Error::io("open netlink in", path, e))?;
        let Some(index) = socket.index_of(&interface)? else {
            return Ok(());
        };
        let mut batch = Batch::new();
        batch.default_route(index, gateway);
        socket.run(batch)
    })
}

/// Has the server at `server` answer at [`RESOLVER`].
pub fn redirect(path: &Path, server: Ipv4Addr) -> Result<(), Error> {
    let script = REDIRECT
        .replace("SERVER", &server.to_string())
        .replace("RESOLVER", &RESOLVER.to_string());
    inside(path, || {
        let sysctl = Path::new("/proc/sys/net/ipv4/conf/all/route_localnet");
        fs::write(sysctl, "1").map_err(|e| Error::io("set the sysctl", sysctl, e))?;
        nft::run(&["-f", "-"], &script).map(drop)
    })
}
