//! `/DEV:VALUE` of the limits on block devices.

use biga_model::IoDevice;

use super::size::size;

fn split(s: &str) -> Result<(IoDevice, &str), String> {
    let (path, value) = s
        .rsplit_once(':')
        .filter(|(p, v)| p.starts_with('/') && !v.is_empty())
        .ok_or_else(|| format!("{s:?} is no limit on a block device: write /dev/sda:VALUE"))?;
    let device = IoDevice {
        path: path.into(),
        ..IoDevice::default()
    };
    Ok((device, value))
}

fn number(s: &str, value: &str) -> Result<u64, String> {
    value.parse().map_err(|_| format!("{s:?}: {value:?} is no number"))
}

/// Reads `/dev/sda:500`.
pub fn weight(s: &str) -> Result<IoDevice, String> {
    let (mut d, value) = split(s)?;
    d.weight = Some(
        value
            .parse()
            .map_err(|_| format!("{s:?}: {value:?} is no weight, 10 to 1000"))?,
    );
    Ok(d)
}

/// Reads `/dev/sda:1m`.
pub fn read_bps(s: &str) -> Result<IoDevice, String> {
    let (mut d, value) = split(s)?;
    d.read_bps = Some(size(value)?);
    Ok(d)
}

/// Reads `/dev/sda:1m`.
pub fn write_bps(s: &str) -> Result<IoDevice, String> {
    let (mut d, value) = split(s)?;
    d.write_bps = Some(size(value)?);
    Ok(d)
}

/// Reads `/dev/sda:1000`.
pub fn read_iops(s: &str) -> Result<IoDevice, String> {
    let (mut d, value) = split(s)?;
    d.read_iops = Some(number(s, value)?);
    Ok(d)
}

/// Reads `/dev/sda:1000`.
pub fn write_iops(s: &str) -> Result<IoDevice, String> {
    let (mut d, value) = split(s)?;
    d.write_iops = Some(number(s, value)?);
    Ok(d)
}

/// Adds a limit to those of the same device.
pub fn merge(all: &mut Vec<IoDevice>, one: &IoDevice) {
    let Some(known) = all.iter_mut().find(|d| d.path == one.path) else {
        all.push(one.clone());
        return;
    };
    known.weight = one.weight.or(known.weight);
    known.read_bps = one.read_bps.or(known.read_bps);
    known.write_bps = one.write_bps.or(known.write_bps);
    known.read_iops = one.read_iops.or(known.read_iops);
    known.write_iops = one.write_iops.or(known.write_iops);
}

#[cfg(test)]
mod tests {
    use super::*;
    use biga_model::Memory;

    #[test]
    fn limits_of_one_device_are_put_together() {
        let mut all = Vec::new();
        for one in [
            read_bps("/dev/sda:1m"),
            write_iops("/dev/sda:10"),
            weight("/dev/sda:300"),
            read_iops("/dev/disk/by-id/a:b:7"),
        ] {
            merge(&mut all, &one.unwrap());
        }
        let sda = IoDevice {
            path: "/dev/sda".into(),
            weight: Some(300),
            read_bps: Some(Memory::mib(1)),
            write_iops: Some(10),
            ..IoDevice::default()
        };
        assert_eq!(all[0], sda);
        assert_eq!(
            (all[1].path.as_str(), all[1].read_iops),
            ("/dev/disk/by-id/a:b", Some(7))
        );
        for bad in [
            read_bps("sda:1m"),
            read_bps("/dev/sda"),
            weight("/dev/sda:x"),
            read_iops("/dev/sda:"),
        ] {
            assert!(bad.is_err());
        }
    }
}
