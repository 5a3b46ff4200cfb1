//! Signals by name, as users write them: `SIGTERM`, `term`, `15`, `RTMIN+3` (`signal(7)`, x86).

/// Names and numbers, without `SIG`.
const NAMES: [(&str, i32); 34] = [
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
    ("IOT", 6),
    ("CLD", 17),
    ("POLL", 29),
];

/// First real-time signal a program can use under glibc.
const RTMIN: i32 = 34;
/// Last real-time signal.
const RTMAX: i32 = 64;

/// The number of a signal.
pub fn parse_signal(text: &str) -> Result<i32, String> {
    let bad = || format!("{text:?} is no signal: write a name as SIGTERM, or a number from 1 to {RTMAX}");
    if let Ok(n) = text.parse::<i32>() {
        return if (1..=RTMAX).contains(&n) { Ok(n) } else { Err(bad()) };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some((_, n)) = NAMES.iter().find(|(s, _)| *s == name) {
        return Ok(*n);
    }
    let offset = |s: &str| if s.is_empty() { Some(0) } else { s.parse::<i32>().ok() };
    let n = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(rest), _) => offset(rest).map(|o| RTMIN + o),
        (_, Some(rest)) => offset(rest).map(|o| RTMAX + o),
        _ => None,
    };
    n.filter(|n| (RTMIN..=RTMAX).contains(n)).ok_or_else(bad)
}

/// The name of a signal with `SIG`, or its number.
pub fn signal_name(n: i32) -> String {
    match NAMES.iter().find(|(_, m)| *m == n) {
        Some((name, _)) => format!("SIG{name}"),
        None => n.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        for (text, n) in [
            ("SIGTERM", 15),
            ("term", 15),
            ("9", 9),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
            ("SigHup", 1),
        ] {
            assert_eq!(parse_signal(text), Ok(n), "{text}");
        }
        for bad in ["", "SIG", "0", "65", "-1", "RTMIN-1", "RTMAX+1", "FOO"] {
            assert!(parse_signal(bad).is_err(), "{bad}");
        }
        assert_eq!((signal_name(15).as_str(), signal_name(40).as_str()), ("SIGTERM", "40"));
    }
}
