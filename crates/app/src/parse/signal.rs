//! Signals on the command line.

use biga_model::{parse_signal, signal_name};

/// Number of a signal, from its name or number.
pub fn number(s: &str) -> Result<i32, String> {
    parse_signal(s)
}

/// Checks a signal and gives the spelling that stands in a spec: `SIGTERM`, or a number.
pub fn name(s: &str) -> Result<String, String> {
    number(s).map(signal_name)
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
