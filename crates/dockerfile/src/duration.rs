//! Durations as Go writes them, in nanoseconds.

/// Nanoseconds of `1m30s`, `500ms`, `1.5h`.
pub(crate) fn parse(text: &str) -> Option<u64> {
    let mut total: u64 = 0;
    let mut rest = text;
    if rest == "0" {
        return Some(0);
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        let after = &rest[digits..];
        let unit = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let scale = match &after[..unit] {
            "ns" => 1.0,
            "us" | "µs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        total = total.checked_add((number * scale) as u64)?;
        rest = &after[unit..];
    }
    (!text.is_empty()).then_some(total)
}

/// As Go prints so many nanoseconds: `1m30s`, `500ms`, `0s`.
pub fn show(nanos: u64) -> String {
    let fraction = |value: u64, unit: u64, name: &str| {
        let text = format!("{}", value as f64 / unit as f64);
        format!("{text}{name}")
    };
    match nanos {
        0 => "0s".into(),
        n if n < 1_000 => format!("{n}ns"),
        n if n < 1_000_000 => fraction(n, 1_000, "µs"),
        n if n < 1_000_000_000 => fraction(n, 1_000_000, "ms"),
        n => {
            let (hours, minutes) = (n / 3_600_000_000_000, n / 60_000_000_000 % 60);
            let seconds = fraction(n % 60_000_000_000, 1_000_000_000, "s");
            match (hours, minutes) {
                (0, 0) => seconds,
                (0, m) => format!("{m}m{seconds}"),
                (h, m) => format!("{h}h{m}m{seconds}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways() {
        for (text, nanos) in [
            ("0s", 0),
            ("1m30s", 90_000_000_000),
            ("500ms", 500_000_000),
            ("1h0m5s", 3_605_000_000_000),
            ("1.5s", 1_500_000_000),
            ("2µs", 2_000),
        ] {
            assert_eq!((parse(text), show(nanos).as_str()), (Some(nanos), text));
        }
        for bad in ["", "5", "x", "1d", "s", "1.2.3s"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
