//! Times and durations as users type them.

use biga_model::Timestamp;

/// Reads a point in time: RFC 3339, seconds since 1970, or a duration before `now` as `10m` or `1h30m`.
pub fn since(s: &str, now: Timestamp) -> Result<Timestamp, String> {
    let bad = || format!("{s:?} is no time: write 2026-01-31T12:00:00Z, or how long ago, as 10m or 1h30m");
    if let Ok(t) = s.parse::<Timestamp>() {
        return Ok(t);
    }
    if s.bytes().all(|b| b.is_ascii_digit()) && s.len() >= 9 {
        let n: i64 = s.parse().map_err(|_| bad())?;
        return Timestamp::from_second(n).map_err(|_| bad());
    }
    let secs = seconds(s).map_err(|_| bad())?;
    let back = jiff::SignedDuration::from_secs(i64::try_from(secs).map_err(|_| bad())?);
    now.checked_sub(back).map_err(|_| bad())
}

/// Reads `90`, `90s`, `10m`, `1h30m` or `2d` as seconds.
pub fn seconds(s: &str) -> Result<u64, String> {
    let bad = || format!("{s:?} is no duration: write seconds, or 90s, 10m, 1h30m, 2d");
    if s.is_empty() {
        return Err(bad());
    }
    let mut total = 0u64;
    let mut number = String::new();
    for c in s.chars() {
        if c.is_ascii_digit() {
            number.push(c);
            continue;
        }
        let factor = match c {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            _ => return Err(bad()),
        };
        let n: u64 = number.parse().map_err(|_| bad())?;
        number.clear();
        total = n
            .checked_mul(factor)
            .and_then(|n| total.checked_add(n))
            .ok_or_else(bad)?;
    }
    if !number.is_empty() {
        // Only a bare number may go without a unit.
        if total != 0 {
            return Err(bad());
        }
        total = number.parse().map_err(|_| bad())?;
    }
    Ok(total)
}

/// Reads `500ms`, `30s` or `1m30s` as milliseconds, at least one; a bare number is seconds.
pub fn millis(s: &str) -> Result<u64, String> {
    let bad = || format!("{s:?} is no duration: write 500ms, 30s or 1m30s");
    if !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit()) {
        let n: u64 = s.parse().map_err(|_| bad())?;
        return n.checked_mul(1000).filter(|n| *n > 0).ok_or_else(bad);
    }
    let d: jiff::SignedDuration = s.parse().map_err(|_| bad())?;
    u64::try_from(d.as_millis()).ok().filter(|n| *n > 0).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_times() {
        for (s, n) in [
            ("90", 90),
            ("90s", 90),
            ("10m", 600),
            ("1h30m", 5400),
            ("2d", 172_800),
            ("0", 0),
        ] {
            assert_eq!(seconds(s), Ok(n), "{s}");
        }
        for bad in ["", "m", "1x", "-5", "1h30", "99999999999999999999", "1.5h"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
        for (s, n) in [
            ("500ms", 500),
            ("30s", 30_000),
            ("1m30s", 90_000),
            ("2", 2000),
            ("1h", 3_600_000),
        ] {
            assert_eq!(millis(s), Ok(n), "{s}");
        }
        for bad in ["", "0", "0s", "-1s", "x", "5 parsecs"] {
            assert!(millis(bad).is_err(), "{bad}");
        }
        let now: Timestamp = "2026-01-01T01:00:00Z".parse().unwrap();
        assert_eq!(since("30m", now).unwrap().to_string(), "2026-01-01T00:30:00Z");
        assert_eq!(since("1767225600", now).unwrap().to_string(), "2026-01-01T00:00:00Z");
        assert_eq!(
            since("2025-05-05T00:00:00Z", now).unwrap().to_string(),
            "2025-05-05T00:00:00Z"
        );
        assert!(since("yesterday", now).is_err());
    }
}
