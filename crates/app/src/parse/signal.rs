//! Names of signals.

/// Name without `SIG`, and number on x86 and ARM.
const SIGNALS: &[(&str, i32)] = &[
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("PWR", 30),
    ("SYS", 31),
];

/// First real-time signal for programs (two are the C library's own).
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

/// Reads `KILL`, `SIGKILL`, `kill` or `9`; also `RTMIN+3` and `RTMAX-1`.
pub fn number(s: &str) -> Result<i32, String> {
    let bad = || format!("{s:?} is no signal: write a name as TERM, or a number from 1 to 64");
    if let Ok(n) = s.parse::<i32>() {
        return if (1..=RTMAX).contains(&n) { Ok(n) } else { Err(bad()) };
    }
    let upper = s.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let offset = |t: &str| t.parse::<i32>().map_err(|_| bad());
    let n = if let Some(t) = name.strip_prefix("RTMIN") {
        RTMIN + if t.is_empty() { 0 } else { offset(t)? }
    } else if let Some(t) = name.strip_prefix("RTMAX") {
        RTMAX + if t.is_empty() { 0 } else { offset(t)? }
    } else {
        return SIGNALS
            .iter()
            .find(|(k, _)| *k == name)
            .map(|(_, n)| *n)
            .ok_or_else(bad);
    };
    if (RTMIN..=RTMAX).contains(&n) {
        Ok(n)
    } else {
        Err(bad())
    }
}

/// Checks a signal and gives the spelling that stands in a spec: `SIGTERM`, or a number.
pub fn name(s: &str) -> Result<String, String> {
    let n = number(s)?;
    Ok(SIGNALS
        .iter()
        .find(|(_, k)| *k == n)
        .map_or(n.to_string(), |(name, _)| format!("SIG{name}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_spellings_mean_the_same() {
        for s in ["KILL", "SIGKILL", "kill", "sigkill", "9"] {
            assert_eq!(number(s), Ok(9), "{s}");
            assert_eq!(name(s), Ok("SIGKILL".into()));
        }
        assert_eq!(number("RTMIN+3"), Ok(37));
        assert_eq!(number("SIGRTMAX-1"), Ok(63));
        assert_eq!(name("37"), Ok("37".into()));
        for bad in ["", "0", "65", "-1", "NOPE", "RTMIN-1", "RTMAX+1", "RTMIN+x"] {
            assert!(number(bad).is_err(), "{bad}");
        }
    }
}
