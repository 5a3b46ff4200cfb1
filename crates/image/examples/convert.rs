//! Converts a layer and prints what it cost beside decompression alone:
//! `convert LAYER.tar.gz [OUT.erofs]`.

use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args_os().skip(1).map(PathBuf::from);
    let blob = args.next().ok_or("usage: convert LAYER.tar.gz [OUT.erofs]")?;
    let out = args.next();
    let image = match &out {
        Some(path) => File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)?,
        None => tempfile::tempfile()?,
    };
    let before = cpu();
    let converted = biga_image::layer::convert(
        BufReader::with_capacity(1 << 17, File::open(&blob)?),
        image,
        tempfile::tempfile()?,
        &biga_image::layer::Limits::default(),
    )?;
    println!("{converted:?}");
    println!("{:.3} s of CPU", cpu() - before);
    Ok(())
}

/// Seconds of CPU that this process used.
fn cpu() -> f64 {
    let clock = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    clock.tv_sec as f64 + clock.tv_nsec as f64 / 1e9
}
