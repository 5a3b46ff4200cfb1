//! Amounts of bytes, as Docker reads them.

use biga_model::Memory;

/// Reads `512m`, `1.5G`, `64MiB` or a number of bytes. As with Docker every unit is a power of 1024, in either case of
/// letters; in YAML, where the form is that of Kubernetes, `M` is a million and `Mi` is what is meant here.
pub fn size(s: &str) -> Result<Memory, String> {
    let bad = || format!("{s:?} is no size: write a number with k, m, g or t, as in 512m");
    let t = s.trim();
    let split = t.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(t.len());
    let (number, unit) = t.split_at(split);
    let unit = unit.trim().to_ascii_lowercase();
    let letter = match unit
        .strip_suffix("ib")
        .or(unit.strip_suffix(['b', 'i']))
        .unwrap_or(&unit)
    {
        "" if matches!(unit.as_str(), "" | "b") => return number.parse().map(Memory).map_err(|_| bad()),
        "k" => "Ki",
        "m" => "Mi",
        "g" => "Gi",
        "t" => "Ti",
        "p" => "Pi",
        _ => return Err(bad()),
    };
    format!("{number}{letter}").parse().map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_dockers() {
        for text in [
            "128M",
            "128m",
            "128mb",
            "128MB",
            "128Mi",
            "128MiB",
            "128 M",
            "131072k",
            "134217728",
            "0.125g",
        ] {
            assert_eq!(size(text), Ok(Memory::mib(128)), "{text}");
        }
        assert_eq!(size("512b"), Ok(Memory(512)));
        assert_eq!(size("2T"), Ok(Memory(2 << 40)));
        for bad in ["", "m", "12x", "-1", "1.5", "1..5g", "ib", "12ib", "12i", "m12"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }
}
