//! The 512-byte header block.

/// Bytes of a block.
pub(super) const BLOCK: usize = 512;

/// One header block as it stands.
pub(super) struct Header<'b>(pub &'b [u8; BLOCK]);

impl Header<'_> {
    pub(super) fn is_zero(&self) -> bool {
        self.0.iter().all(|&b| b == 0)
    }

    /// The sum counts its own field as blanks. Old programs summed signed bytes.
    pub(super) fn checksum_holds(&self) -> bool {
        let Some(want) = octal(&self.0[148..156]) else {
            return false;
        };
        let (mut unsigned, mut signed) = (0i64, 0i64);
        for (i, &b) in self.0.iter().enumerate() {
            let b = if (148..156).contains(&i) { b' ' } else { b };
            unsigned += i64::from(b);
            signed += i64::from(b.cast_signed());
        }
        want == unsigned || want == signed
    }

    /// The name, with ustar's prefix before it.
    pub(super) fn name(&self) -> Vec<u8> {
        let name = text(&self.0[..100]);
        // GNU's magic "ustar  \0" means other fields where ustar has the prefix.
        let ustar = &self.0[257..263] == b"ustar\0";
        let prefix = if ustar { text(&self.0[345..500]) } else { b"" };
        if prefix.is_empty() {
            name.to_vec()
        } else {
            [prefix, b"/", name].concat()
        }
    }

    pub(super) fn link(&self) -> Vec<u8> {
        text(&self.0[157..257]).to_vec()
    }

    pub(super) fn kind(&self) -> u8 {
        self.0[156]
    }

    pub(super) fn mode(&self) -> Option<i64> {
        number(&self.0[100..108])
    }

    pub(super) fn uid(&self) -> Option<i64> {
        number(&self.0[108..116])
    }

    pub(super) fn gid(&self) -> Option<i64> {
        number(&self.0[116..124])
    }

    pub(super) fn size(&self) -> Option<i64> {
        number(&self.0[124..136])
    }

    pub(super) fn mtime(&self) -> Option<i64> {
        number(&self.0[136..148])
    }

    pub(super) fn major(&self) -> Option<i64> {
        number(&self.0[329..337])
    }

    pub(super) fn minor(&self) -> Option<i64> {
        number(&self.0[337..345])
    }

    /// Old GNU sparse files: the true size.
    pub(super) fn gnu_real_size(&self) -> Option<i64> {
        number(&self.0[483..495])
    }

    /// Old GNU sparse files: more of the map follows in a block of its own.
    pub(super) fn gnu_extended(&self) -> bool {
        self.0[482] != 0
    }

    /// Old GNU sparse files: the map's first four entries.
    pub(super) fn gnu_sparse(&self) -> &[u8] {
        &self.0[386..482]
    }
}

/// Up to the first NUL.
fn text(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|&b| b == 0).unwrap_or(field.len());
    &field[..end]
}

/// Octal digits, or GNU's binary form marked by the highest bit. `None` where it is neither or does not fit.
pub(super) fn number(field: &[u8]) -> Option<i64> {
    let first = *field.first()?;
    if first & 0x80 == 0 {
        return octal(field);
    }
    // Two's complement; the mark is not part of the number, and the next bit is the sign.
    let negative = first & 0x40 != 0;
    let start = if negative {
        i64::from((first | 0x80).cast_signed())
    } else {
        i64::from(first & 0x3f)
    };
    field[1..].iter().try_fold(start, |n, &b| {
        let n = n.checked_mul(256)?;
        n.checked_add(i64::from(b))
    })
}

/// Octal digits between blanks and NULs; an empty field is 0.
fn octal(field: &[u8]) -> Option<i64> {
    let blank = |b: &u8| matches!(b, b' ' | 0);
    let start = field.iter().position(|b| !blank(b)).unwrap_or(field.len());
    let digits = &field[start..];
    let end = digits.iter().position(blank).unwrap_or(digits.len());
    digits[..end].iter().try_fold(0i64, |n, &b| {
        let digit = matches!(b, b'0'..=b'7').then(|| i64::from(b - b'0'))?;
        n.checked_mul(8)?.checked_add(digit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        assert_eq!(number(b"0000644\0"), Some(0o644));
        assert_eq!(number(b"   644 \0"), Some(0o644));
        assert_eq!(number(b"\0\0\0\0\0\0\0\0"), Some(0));
        assert_eq!(number(b"00006x4\0"), None);
        assert_eq!(number(b"-000001\0"), None);
        assert_eq!(number(&[0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xfe]), Some(0xffff_fffe));
        assert_eq!(number(&[0xff; 12]), Some(-1));
        assert_eq!(number(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe]), Some(-2));
        assert_eq!(
            number(&[0x80, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
            None
        );
    }
}
