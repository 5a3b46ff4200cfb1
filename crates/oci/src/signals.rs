//! Signals by name or number, as users write them.

/// Names and numbers, without `SIG`.
const NAMES: [(&str, i32); 34] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("IOT", 6),
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
    ("CLD", 17),
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
    ("POLL", 29),
    ("PWR", 30),
    ("SYS", 31),
];
/// First and last real-time signal a program can use under glibc.
const REAL_TIME: (i32, i32) = (34, 64);

/// The number of a signal: `SIGTERM`, `term`, `15`, `RTMIN+3`.
pub fn parse(text: &str) -> Option<i32> {
    if let Ok(n) = text.parse::<i32>() {
        return (1..=REAL_TIME.1).contains(&n).then_some(n);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some((_, n)) = NAMES.iter().find(|(s, _)| *s == name) {
        return Some(*n);
    }
    let offset = |s: &str| if s.is_empty() { Some(0) } else { s.parse::<i32>().ok() };
    let n = if let Some(rest) = name.strip_prefix("RTMIN") {
        REAL_TIME.0 + offset(rest)?
    } else {
        REAL_TIME.1 + offset(name.strip_prefix("RTMAX")?)?
    };
    (REAL_TIME.0..=REAL_TIME.1).contains(&n).then_some(n)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        assert_eq!(parse("SIGTERM"), Some(15));
        assert_eq!(parse("kill"), Some(9));
        assert_eq!(parse("10"), Some(10));
        assert_eq!(parse("RTMIN+3"), Some(37));
        assert_eq!(parse("SIGRTMAX-1"), Some(63));
        assert_eq!(
            (parse("0"), parse("65"), parse("NO"), parse("RTMIN+99")),
            (None, None, None, None)
        );
    }
}
