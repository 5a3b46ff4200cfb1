//! Failures and warnings, where engines look for them: a file, as text or as one JSON object a line.

use std::fs::OpenOptions;
use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;

use crate::args::Global;

/// Says why the command failed: in the log if there is one, and on standard error.
pub fn failure(global: &Global, message: &str) {
    write(global, "error", message);
    eprintln!("biga oci: {message}");
}

/// Says what was not done as asked, though nothing failed.
pub fn warning(global: &Global, message: &str) {
    if global.log.is_some() {
        write(global, "warning", message);
    } else {
        eprintln!("biga oci: warning: {message}");
    }
}

fn write(global: &Global, level: &str, message: &str) {
    let Some(path) = &global.log else { return };
    let time = rfc3339(SystemTime::now());
    let line = if global.log_json {
        format!("{}\n", json!({"level": level, "msg": message, "time": time}))
    } else {
        format!("time=\"{time}\" level={level} msg={message:?}\n")
    };
    // A log that cannot be written must not hide the failure itself.
    if let Ok(mut file) = OpenOptions::new().create(true).append(true).open(path) {
        let _ = file.write_all(line.as_bytes());
    }
}

/// A time in UTC, as `2026-11-30T22:41:00.123456789Z`.
pub fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    // Civil date from days, by eras of 400 years that begin in March.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:09}Z",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60,
        since.subsec_nanos()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn times() {
        let at = |s| rfc3339(UNIX_EPOCH + Duration::from_secs(s));
        assert_eq!(at(0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00.000000000Z");
        assert_eq!(at(1_795_995_930), "2026-11-29T23:45:30.000000000Z");
    }
}
