//! Pulls an image into a store that goes away again, and prints the CPU it took (this process alone):
//! `pull localhost:5000/name:tag`. Compare with `gzip -dc` of its layers.

use biga_image::{ImageStore, Options, PullOptions};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let name = std::env::args().nth(1).ok_or("usage: pull REGISTRY/NAME:TAG")?;
    let dir = tempfile::tempdir()?;
    let store = ImageStore::open(dir.path(), Options::default())?;
    let (before, start) = (cpu(), std::time::Instant::now());
    let image = store.pull(&name.parse()?, &PullOptions::default(), |_| {}).await?;
    let (used, wall) = (cpu() - before, start.elapsed().as_secs_f64());
    let blobs: u64 = image.layers.iter().map(|l| l.blob_size).sum();
    println!(
        "{} layers, {blobs} bytes compressed, {} bytes unpacked",
        image.layers.len(),
        image.size
    );
    println!("{used:.3} s of CPU, {wall:.3} s");
    Ok(())
}

/// Seconds of CPU that this process used.
fn cpu() -> f64 {
    let clock = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    clock.tv_sec as f64 + clock.tv_nsec as f64 / 1e9
}
