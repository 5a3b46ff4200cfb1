//! Maps of sparse files: which bytes of a file the tar holds.

use super::header::number;
use super::pax::{GnuSparse, parse};

/// Offset and length of a piece with data.
pub type Segment = (u64, u64);

/// Pieces that one file may have.
const MAX_SEGMENTS: usize = 1 << 20;

/// Entries of 24 bytes in an old GNU header or its extension blocks; an empty one ends them.
pub(super) fn old_gnu(bytes: &[u8], map: &mut Vec<Segment>) -> Result<(), ()> {
    for entry in bytes.chunks_exact(24) {
        if entry[0] == 0 || entry[12] == 0 {
            return Ok(());
        }
        let offset = number(&entry[..12]).ok_or(())?;
        let len = number(&entry[12..]).ok_or(())?;
        push(map, offset, len)?;
    }
    Ok(())
}

/// Versions 0.0 and 0.1: the map is in the PAX header.
pub(super) fn from_pax(sparse: &GnuSparse) -> Result<Option<Vec<Segment>>, ()> {
    let mut map = Vec::new();
    if let Some(text) = &sparse.map {
        let mut numbers = text.split(|&b| b == b',');
        while let Some(offset) = numbers.next() {
            let len = numbers.next().ok_or(())?;
            push(&mut map, parse(offset).ok_or(())?, parse(len).ok_or(())?)?;
        }
        return Ok(Some(map));
    }
    if sparse.offsets.is_empty() {
        return Ok(None);
    }
    if sparse.offsets.len() != sparse.lengths.len() {
        return Err(());
    }
    for (&offset, &len) in sparse.offsets.iter().zip(&sparse.lengths) {
        push(&mut map, offset, len)?;
    }
    Ok(Some(map))
}

/// Version 1.0: the map stands before the data: lines of digits, the first says how many pairs follow.
/// Fed byte by byte until it says that it is done.
#[derive(Debug, Default)]
pub(super) struct LineMap {
    line: Vec<u8>,
    left: Option<usize>,
    offset: Option<i64>,
    pub map: Vec<Segment>,
}

impl LineMap {
    /// `Ok(true)` when the map is complete.
    pub(super) fn feed(&mut self, byte: u8) -> Result<bool, ()> {
        if byte != b'\n' {
            if self.line.len() >= 20 {
                return Err(());
            }
            self.line.push(byte);
            return Ok(false);
        }
        let value: i64 = parse(&self.line).ok_or(())?;
        self.line.clear();
        match (self.left, self.offset.take()) {
            (None, _) => {
                let count = usize::try_from(value).map_err(drop)?;
                if count > MAX_SEGMENTS {
                    return Err(());
                }
                self.left = Some(count);
            }
            (Some(_), None) => self.offset = Some(value),
            (Some(left), Some(offset)) => {
                push(&mut self.map, offset, value)?;
                self.left = Some(left - 1);
            }
        }
        Ok(self.left == Some(0))
    }
}

/// A map is in order, within the file, and names as many bytes as the tar holds.
pub(super) fn check(map: &[Segment], real_size: u64, held: u64) -> Result<(), ()> {
    let (mut end, mut sum) = (0u64, 0u64);
    for &(offset, len) in map {
        if offset < end {
            return Err(());
        }
        end = offset.checked_add(len).ok_or(())?;
        sum = sum.checked_add(len).ok_or(())?;
    }
    if end > real_size || sum != held {
        Err(())
    } else {
        Ok(())
    }
}

fn push(map: &mut Vec<Segment>, offset: i64, len: i64) -> Result<(), ()> {
    if map.len() >= MAX_SEGMENTS {
        return Err(());
    }
    map.push((u64::try_from(offset).map_err(drop)?, u64::try_from(len).map_err(drop)?));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_checked() {
        assert!(check(&[(0, 5), (10, 5), (20, 0)], 20, 10).is_ok());
        assert!(check(&[(10, 5), (0, 5)], 20, 10).is_err());
        assert!(check(&[(0, 5), (4, 5)], 20, 10).is_err());
        assert!(check(&[(18, 5)], 20, 5).is_err());
        assert!(check(&[(0, 5)], 20, 6).is_err());
        assert!(check(&[(u64::MAX, 5)], u64::MAX, 5).is_err());
    }

    #[test]
    fn lines() {
        let mut m = LineMap::default();
        let done: Vec<bool> = b"2\n0\n5\n10\n7\n".iter().map(|&b| m.feed(b).unwrap()).collect();
        assert_eq!(done.iter().filter(|d| **d).count(), 1);
        assert_eq!(m.map, [(0, 5), (10, 7)]);
        let mut m = LineMap::default();
        assert!(b"1\n-5\n5\n".iter().any(|&b| m.feed(b).is_err()));
    }
}
