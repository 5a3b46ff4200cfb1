//! Docker's ids and names for Biga's objects.

use std::fmt::Write;

use sha2::{Digest, Sha256};

/// Docker's id of an object: 64 hexadecimal digits made of its uid, the same for all time.
pub fn docker_id(uid: &str) -> String {
    Sha256::digest(uid.as_bytes())
        .iter()
        .fold(String::with_capacity(64), |mut s, b| {
            let _ = write!(s, "{b:02x}");
            s
        })
}

/// The first twelve digits of an id, without `sha256:`.
pub fn short(id: &str) -> String {
    let id = id.strip_prefix("sha256:").unwrap_or(id);
    id.get(..12).unwrap_or(id).to_string()
}

/// Biga's name of a Docker network: Docker's `bridge` is the network `default`.
pub fn network_name(docker: &str) -> &str {
    match docker {
        "bridge" => biga_model::kinds::network::DEFAULT_NETWORK,
        other => other,
    }
}

/// Docker's name of a network.
pub fn docker_network(name: &str) -> &str {
    match name {
        biga_model::kinds::network::DEFAULT_NETWORK => "bridge",
        other => other,
    }
}

/// The ids of Docker's two networks that are none.
pub fn predefined_id(name: &str) -> String {
    docker_id(&format!("biga.dev/network/{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_stable() {
        let id = docker_id("0c5a8f9e-0000-4000-8000-000000000000");
        assert_eq!(id.len(), 64);
        assert_eq!(id, docker_id("0c5a8f9e-0000-4000-8000-000000000000"));
        assert_eq!(short(&id), id[..12]);
        assert_eq!(short("sha256:abcdefabcdefabcdef"), "abcdefabcdef");
        assert_eq!(
            (network_name("bridge"), docker_network("default"), network_name("a")),
            ("default", "bridge", "a")
        );
    }
}
