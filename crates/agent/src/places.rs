//! Names and numbers of an instance's interfaces.

use std::collections::BTreeSet;

use biga_model::NetworkEndpoint;

/// What an instance's interfaces have already.
#[derive(Debug, Default)]
pub(crate) struct Places {
    interfaces: BTreeSet<String>,
    slots: BTreeSet<u8>,
}

impl Places {
    /// Of one with these ends.
    pub fn of(ends: &[NetworkEndpoint]) -> Places {
        Places {
            interfaces: ends.iter().map(|e| e.interface.clone()).collect(),
            slots: ends.iter().map(Places::slot_of).collect(),
        }
    }

    /// The number of an end on the host: the interface's own unless it was noted.
    pub fn slot_of(e: &NetworkEndpoint) -> u8 {
        let number = e.interface.trim_start_matches(|c: char| !c.is_ascii_digit());
        e.slot.or_else(|| number.parse().ok()).unwrap_or(0)
    }

    /// Takes the first free name with the prefix, and the first free number.
    pub fn take(&mut self, prefix: &str) -> (String, u8) {
        let mut names = (0..=u8::MAX).map(|n| format!("{prefix}{n}"));
        let interface = names.find(|n| !self.interfaces.contains(n)).unwrap_or_default();
        // Where it can be, both are the same.
        let own = interface.strip_prefix("eth").and_then(|n| n.parse().ok());
        let mut numbers = own.into_iter().chain(0..=u8::MAX);
        let slot = numbers.find(|n| !self.slots.contains(n)).unwrap_or(u8::MAX);
        self.interfaces.insert(interface.clone());
        self.slots.insert(slot);
        (interface, slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(interface: &str, slot: Option<u8>) -> NetworkEndpoint {
        NetworkEndpoint {
            interface: interface.into(),
            slot,
            ..NetworkEndpoint::default()
        }
    }

    #[test]
    fn each_prefix_counts_for_itself_and_each_end_has_its_number() {
        let mut places = Places::default();
        assert_eq!(places.take("eth"), ("eth0".into(), 0));
        assert_eq!(places.take("net1"), ("net10".into(), 1));
        assert_eq!(places.take("eth"), ("eth1".into(), 2));
        assert_eq!(places.take("net1"), ("net11".into(), 3));
    }

    #[test]
    fn what_is_free_is_taken() {
        let mut places = Places::of(&[end("eth1", None), end("lan0", Some(0)), end("eth3", None)]);
        assert_eq!(places.take("eth"), ("eth0".into(), 2));
        assert_eq!(places.take("eth"), ("eth2".into(), 4));
        assert_eq!(places.take("lan"), ("lan1".into(), 5));
        assert_eq!(Places::slot_of(&end("eth7", None)), 7);
        assert_eq!(Places::slot_of(&end("net10", Some(1))), 1);
    }
}
