//! Amounts of memory and CPU, read in the Kubernetes and the Docker spelling.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An amount of memory or disk, in bytes. Reads `512Mi`, `1.5Gi`, `500M`, `512m` (Docker: mebibytes), `1073741824`;
/// writes the largest binary unit that holds it exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Memory(pub u64);

impl Memory {
    /// `n` mebibytes.
    pub const fn mib(n: u64) -> Memory {
        Memory(n << 20)
    }

    /// The amount in bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// For people: three digits and a binary unit, as in `1.50GiB`.
    pub fn human(self) -> String {
        let mut v = self.0 as f64;
        let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
        let mut u = 0;
        while v >= 1024.0 && u + 1 < units.len() {
            v /= 1024.0;
            u += 1;
        }
        match u {
            0 => format!("{}B", self.0),
            _ if v < 10.0 => format!("{v:.2}{}", units[u]),
            _ if v < 100.0 => format!("{v:.1}{}", units[u]),
            _ => format!("{v:.0}{}", units[u]),
        }
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(60, "Ei"), (50, "Pi"), (40, "Ti"), (30, "Gi"), (20, "Mi"), (10, "Ki")];
        for (shift, unit) in units {
            if self.0 != 0 && self.0.trailing_zeros() >= shift {
                return write!(f, "{}{unit}", self.0 >> shift);
            }
        }
        write!(f, "{}", self.0)
    }
}

impl FromStr for Memory {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let bad = || format!("{s:?} is no amount of memory: write a number with Ki, Mi, Gi or Ti, as in 512Mi");
        let t = s.trim();
        let split = t.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(t.len());
        let (number, unit) = t.split_at(split);
        let factor: f64 = match unit.trim() {
            "" | "b" | "B" => 1.0,
            "k" | "K" if unit == "k" => 1e3,
            "K" | "Ki" | "KiB" | "kib" => 1024.0,
            "M" | "MB" => 1e6,
            "m" | "Mi" | "MiB" | "mib" | "mb" => (1u64 << 20) as f64,
            "G" | "GB" => 1e9,
            "g" | "Gi" | "GiB" | "gib" | "gb" => (1u64 << 30) as f64,
            "T" | "TB" => 1e12,
            "t" | "Ti" | "TiB" | "tib" | "tb" => (1u64 << 40) as f64,
            "P" => 1e15,
            "Pi" => (1u64 << 50) as f64,
            "E" => 1e18,
            "Ei" => (1u64 << 60) as f64,
            _ => return Err(bad()),
        };
        if factor == 1.0 {
            return number.parse::<u64>().map(Memory).map_err(|_| bad());
        }
        let v: f64 = number.parse().map_err(|_| bad())?;
        let bytes = v * factor;
        if !bytes.is_finite() || bytes < 0.0 || bytes >= u64::MAX as f64 {
            return Err(bad());
        }
        Ok(Memory(bytes.round() as u64))
    }
}

/// An amount of CPU, in thousandths of one processor. Reads `1.5`, `500m`, `2`; writes `2` or `1500m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Cpus(pub u32);

impl Cpus {
    /// Thousandths of a processor.
    pub const fn millis(self) -> u32 {
        self.0
    }

    /// Whole processors, rounded up, at least one: the size of a machine.
    pub fn whole(self) -> u32 {
        self.0.div_ceil(1000).max(1)
    }
}

impl fmt::Display for Cpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_multiple_of(1000) {
            write!(f, "{}", self.0 / 1000)
        } else {
            write!(f, "{}m", self.0)
        }
    }
}

impl FromStr for Cpus {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let bad = || format!("{s:?} is no amount of CPU: write processors as 1.5, or thousandths as 1500m");
        let t = s.trim();
        let millis = match t.strip_suffix('m') {
            Some(n) => n.parse::<u32>().map_err(|_| bad())?,
            None => {
                let v: f64 = t.parse().map_err(|_| bad())?;
                if !(0.0..=4_000_000.0).contains(&v) {
                    return Err(bad());
                }
                (v * 1000.0).round() as u32
            }
        };
        if millis == 0 {
            return Err(format!("{s:?} is less than a thousandth of a processor"));
        }
        Ok(Cpus(millis))
    }
}

/// Reads a string or a number through `FromStr`.
fn string_or_number<'de, D: Deserializer<'de>, T: FromStr<Err = String>>(d: D) -> Result<T, D::Error> {
    struct V<T>(std::marker::PhantomData<T>);
    impl<T: FromStr<Err = String>> serde::de::Visitor<'_> for V<T> {
        type Value = T;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an amount, as a string or a number")
        }
        fn visit_str<E: serde::de::Error>(self, s: &str) -> Result<T, E> {
            s.parse().map_err(E::custom)
        }
        fn visit_u64<E: serde::de::Error>(self, n: u64) -> Result<T, E> {
            n.to_string().parse().map_err(E::custom)
        }
        fn visit_i64<E: serde::de::Error>(self, n: i64) -> Result<T, E> {
            n.to_string().parse().map_err(E::custom)
        }
        fn visit_f64<E: serde::de::Error>(self, n: f64) -> Result<T, E> {
            n.to_string().parse().map_err(E::custom)
        }
    }
    d.deserialize_any(V(std::marker::PhantomData))
}

macro_rules! as_string {
    ($t:ty) => {
        impl Serialize for $t {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $t {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                string_or_number(d)
            }
        }
    };
}
as_string!(Memory);
as_string!(Cpus);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_reads_both_spellings() {
        for (text, bytes) in [
            ("512Mi", 512 << 20),
            ("512m", 512 << 20),
            ("1.5Gi", 3 << 29),
            ("500M", 500_000_000),
            ("1g", 1 << 30),
            ("4096", 4096),
            ("10k", 10_000),
            ("10Ki", 10_240),
        ] {
            assert_eq!(text.parse::<Memory>().unwrap().bytes(), bytes, "{text}");
        }
        for bad in ["", "Mi", "-1", "1.5", "5 apples", "1e30Gi", "99999999Ei"] {
            assert!(bad.parse::<Memory>().is_err(), "{bad}");
        }
    }

    #[test]
    fn amounts_survive_writing_and_reading() {
        for n in [0u64, 1, 1023, 1024, 3 << 29, (1 << 40) + 1, u64::MAX] {
            assert_eq!(Memory(n).to_string().parse::<Memory>(), Ok(Memory(n)));
        }
        for n in [1u32, 500, 1000, 1500, 64_000] {
            assert_eq!(Cpus(n).to_string().parse::<Cpus>(), Ok(Cpus(n)));
        }
        assert_eq!(serde_json::from_str::<Cpus>("0.5").unwrap(), Cpus(500));
        assert_eq!(serde_json::from_str::<Cpus>("2").unwrap(), Cpus(2000));
        assert!(serde_json::from_str::<Cpus>("0").is_err());
    }
}
