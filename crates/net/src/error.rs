//! What can go wrong here.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use crate::subnet::Subnet;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The prefix of kernel names does not fit.
    #[error("the name prefix {0:?} must be 1 to 8 lower-case letters and digits and begin with a letter")]
    Prefix(String),
    /// Nobody ensured this network.
    #[error("network {0} does not exist on this node")]
    NoNetwork(String),
    /// The spec or an earlier status holds something unreadable.
    #[error("network {network}: {field} {value:?} {why}")]
    Invalid {
        /// Name of the network.
        network: String,
        /// Which field.
        field: &'static str,
        /// What it holds.
        value: String,
        /// What is wrong with it.
        why: String,
    },
    /// A subnet is taken already.
    #[error("subnet {subnet} of network {network} overlaps {with}: choose another one")]
    Overlap {
        /// Name of the network.
        network: String,
        /// What was wanted.
        subnet: Subnet,
        /// What holds the addresses.
        with: String,
    },
    /// Every subnet of the pools overlaps something.
    #[error("no free subnet for network {network}: all of the node's pools overlap networks or routes of the host")]
    NoSubnet {
        /// Name of the network.
        network: String,
    },
    /// The container has no network namespace of ours.
    #[error("nothing is attached at {}: restart the instance to change its networks", .0.display())]
    NotAttached(std::path::PathBuf),
    /// All addresses are given away.
    #[error("subnet {subnet} has no free address")]
    NoAddress {
        /// The subnet.
        subnet: Subnet,
    },
    /// The address does not belong to the network or is reserved in it.
    #[error("address {address} {why} {subnet}")]
    BadAddress {
        /// The address.
        address: Ipv4Addr,
        /// `is not in`, `is reserved in`.
        why: &'static str,
        /// The subnet.
        subnet: Subnet,
    },
    /// Another instance has the address.
    #[error("address {address} is in use by instance {holder}")]
    AddressInUse {
        /// The address.
        address: Ipv4Addr,
        /// Who has it.
        holder: String,
    },
    /// The instance has another address on this network already.
    #[error("instance {instance} has address {has} on this network: release it before asking for {wanted}")]
    HasAddress {
        /// The instance.
        instance: String,
        /// Its address.
        has: Ipv4Addr,
        /// What was wanted.
        wanted: Ipv4Addr,
    },
    /// A port of the host is taken.
    #[error("port {port}/{protocol} of the host is already {by}")]
    PortInUse {
        /// The port.
        port: u16,
        /// `tcp` or `udp`.
        protocol: &'static str,
        /// Who has it: `published by instance …`, `in use by another program`.
        by: String,
    },
    /// No port of a range is free: of that from which ports are picked, or of one that was asked for.
    #[error("no {protocol} port of the host from {from} to {to} is free")]
    NoPort {
        /// `tcp` or `udp`.
        protocol: &'static str,
        /// Where the search began.
        from: u16,
        /// Where it ended.
        to: u16,
    },
    /// The host address of a published port cannot be used.
    #[error("host address {address:?} of port {port}/{protocol} {why}")]
    HostIp {
        /// What was asked for.
        address: String,
        /// The port inside.
        port: u16,
        /// `tcp` or `udp`.
        protocol: &'static str,
        /// What is wrong.
        why: String,
    },
    /// A hardware address that cannot be read.
    #[error("{0:?} is no hardware address of one station, as in 02:00:00:12:34:56")]
    Mac(String),
    /// A uid that cannot be a file name.
    #[error("uid {0:?} must be 1 to 64 letters, digits, '-', '_' or '.', and not begin with '.'")]
    Uid(String),
    /// More ends than names.
    #[error("instance {0} has more than {1} networks")]
    TooManyEndpoints(String, usize),
    /// A sysctl outside of the network namespace, or malformed.
    #[error("sysctl {0:?} cannot be set: only names below net. belong to a network namespace")]
    Sysctl(String),
    /// The kernel refused a netlink request.
    #[error("the kernel refused to {what}")]
    Netlink {
        /// What was asked.
        what: String,
        /// Its answer.
        #[source]
        source: std::io::Error,
    },
    /// A system call or file failed.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A helper program is missing or could not run.
    #[error("cannot run {program}: is it installed?")]
    Program {
        /// Its name.
        program: &'static str,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A helper program failed.
    #[error("{program} failed: {message}")]
    ProgramFailed {
        /// Its name.
        program: &'static str,
        /// Its last words.
        message: String,
    },
    /// A thread or task of ours ended without an answer.
    #[error("an internal task of the network ended early: {0}")]
    Task(&'static str),
}

impl Error {
    /// Whether the caller asked for something that cannot be, as opposed to the host failing.
    pub fn is_conflict(&self) -> bool {
        matches!(
            self,
            Error::Overlap { .. }
                | Error::AddressInUse { .. }
                | Error::HasAddress { .. }
                | Error::PortInUse { .. }
                | Error::BadAddress { .. }
        )
    }

    pub(crate) fn io(what: &'static str, path: impl Into<PathBuf>, source: impl Into<std::io::Error>) -> Error {
        Error::Io {
            what,
            path: path.into(),
            source: source.into(),
        }
    }

    pub(crate) fn netlink(what: impl Into<String>, source: impl Into<std::io::Error>) -> Error {
        Error::Netlink {
            what: what.into(),
            source: source.into(),
        }
    }
}
