//! PAX extended headers: `length key=value\n`, repeated.

use super::Error;

/// What the records say, as far as it matters here.
#[derive(Debug, Default)]
pub(super) struct Pax {
    pub path: Option<Vec<u8>>,
    pub link: Option<Vec<u8>>,
    pub size: Option<i64>,
    pub uid: Option<i64>,
    pub gid: Option<i64>,
    /// Seconds and nanoseconds.
    pub mtime: Option<(i64, u32)>,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub sparse: GnuSparse,
}

/// GNU's records for sparse files, of all three versions.
#[derive(Debug, Default)]
pub(super) struct GnuSparse {
    pub major: Option<i64>,
    pub minor: Option<i64>,
    pub name: Option<Vec<u8>>,
    pub real_size: Option<i64>,
    /// Version 0.1: all offsets and lengths in one record.
    pub map: Option<Vec<u8>>,
    /// Version 0.0: a record for each, repeated.
    pub offsets: Vec<i64>,
    pub lengths: Vec<i64>,
}

impl Pax {
    /// Reads the records of one header, over what was read before.
    pub(super) fn read(&mut self, mut bytes: &[u8]) -> Result<(), Error> {
        // Some writers pad with NULs.
        while bytes.first().is_some_and(|&b| b != 0) {
            let blank = bytes
                .iter()
                .take(20)
                .position(|&b| b == b' ')
                .ok_or(Error::Pax("a record has no length"))?;
            let len: usize = parse(&bytes[..blank]).ok_or(Error::Pax("a record's length is no number"))?;
            if len > bytes.len() || len < blank + 4 || bytes[len - 1] != b'\n' {
                return Err(Error::Pax("a record's length is wrong"));
            }
            let record = &bytes[blank + 1..len - 1];
            let equals = record
                .iter()
                .position(|&b| b == b'=')
                .ok_or(Error::Pax("a record has no value"))?;
            self.set(&record[..equals], &record[equals + 1..])?;
            bytes = &bytes[len..];
        }
        Ok(())
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        let number = || parse::<i64>(value).ok_or(Error::Pax("a value is no number"));
        // An empty value takes back what was said before.
        let text = || (!value.is_empty()).then(|| value.to_vec());
        match key {
            b"path" => self.path = text(),
            b"linkpath" => self.link = text(),
            b"size" => self.size = Some(number()?),
            b"uid" => self.uid = Some(number()?),
            b"gid" => self.gid = Some(number()?),
            b"mtime" => self.mtime = Some(time(value).ok_or(Error::Pax("a time is not valid"))?),
            b"GNU.sparse.major" => self.sparse.major = Some(number()?),
            b"GNU.sparse.minor" => self.sparse.minor = Some(number()?),
            b"GNU.sparse.name" => self.sparse.name = text(),
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => self.sparse.real_size = Some(number()?),
            b"GNU.sparse.map" => self.sparse.map = text(),
            b"GNU.sparse.offset" => self.sparse.offsets.push(number()?),
            b"GNU.sparse.numbytes" => self.sparse.lengths.push(number()?),
            b"SCHILY.acl.access" => self.acl(b"system.posix_acl_access", value, false),
            b"SCHILY.acl.default" => self.acl(b"system.posix_acl_default", value, true),
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                }
            }
        }
        Ok(())
    }

    /// A list as text, unless it is there in the kernel's form.
    fn acl(&mut self, name: &[u8], text: &[u8], is_default: bool) {
        if let Some(value) = super::acl::encode(text, is_default)
            && !self.xattrs.iter().any(|(n, _)| n == name)
        {
            self.xattrs.insert(0, (name.to_vec(), value));
        }
    }
}

/// Digits as a number.
pub(super) fn parse<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Seconds with a decimal fraction, rounded down to nanoseconds.
fn time(text: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let nanos: u32 = digits.parse().ok()?;
    let lost = fraction.bytes().skip(9).any(|b| b != b'0');
    if !text.starts_with('-') || (nanos == 0 && !lost) {
        return Some((seconds, nanos));
    }
    // Before 1970 a fraction points backwards.
    match nanos + u32::from(lost) {
        0 => Some((seconds, 0)),
        n => Some((seconds.checked_sub(1)?, 1_000_000_000 - n)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records() {
        let mut p = Pax::default();
        p.read(b"12 path=abc\n22 mtime=1700000000.5\n19 SCHILY.xattr.u=\n\0\0\0")
            .unwrap();
        assert_eq!(p.path.as_deref(), Some(&b"abc"[..]));
        assert_eq!(p.mtime, Some((1_700_000_000, 500_000_000)));
        for bad in [
            &b"99 path=a\n"[..],
            b"path=a\n",
            b"5 a=b\n",
            b"6 abc\n",
            b"-1 a=b\n",
            b"12 size=12x\n",
        ] {
            assert!(Pax::default().read(bad).is_err(), "{}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn times() {
        assert_eq!(time(b"1.25"), Some((1, 250_000_000)));
        assert_eq!(time(b"-1.25"), Some((-2, 750_000_000)));
        assert_eq!(time(b"-0.5"), Some((-1, 500_000_000)));
        assert_eq!(time(b"-3"), Some((-3, 0)));
        assert_eq!(time(b"1.1234567899"), Some((1, 123_456_789)));
        assert_eq!(time(b"x"), None);
        assert_eq!(time(b"1.x"), None);
    }
}
