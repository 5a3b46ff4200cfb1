//! The process dies, at every step in turn and at any moment: what is left is whole, and what is not needed goes.

use std::collections::HashSet;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use biga_image::{ArchiveFormat, Error, ImageStore, Options, PullOptions, Steps};

use crate::fake::{Content, Fake};
use crate::support::*;

/// Set in the process that is to die: the store's directory.
const DIR: &str = "BIGA_TEST_CRASH_DIR";
/// The registry it pulls from.
const HOST: &str = "BIGA_TEST_CRASH_HOST";
/// The step before which it dies; none where it is killed from outside.
const STEP: &str = "BIGA_TEST_CRASH_STEP";

fn die() -> ! {
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    std::process::abort()
}

/// What the dying process does: imports, pulls, removes and collects, so that every kind of step comes by.
#[tokio::test(flavor = "multi_thread")]
async fn the_one_that_dies() {
    // Run by nobody but the tests below.
    let (Ok(dir), Ok(host)) = (std::env::var(DIR), std::env::var(HOST)) else {
        return;
    };
    let at: Option<usize> = std::env::var(STEP).ok().map(|s| s.parse().unwrap());
    let count = AtomicUsize::new(0);
    let steps = Steps::new(move |_| {
        if at == Some(count.fetch_add(1, Ordering::SeqCst)) {
            die();
        }
    });
    let store = ImageStore::open(Path::new(&dir), Options { steps, ..quick() }).unwrap();
    work(&store, &host).await.unwrap();
}

async fn work(store: &Arc<ImageStore>, host: &str) -> Result<(), Error> {
    let import = async |seed: u64, cmd: &str| {
        let tar = TarBuilder::new().file("data", &noise(20_000, seed)).end();
        let config = biga_image::ImageConfig {
            cmd: vec![cmd.into()],
            ..Default::default()
        };
        store.import_rootfs(std::io::Cursor::new(tar), config, None).await
    };
    let (a, b) = (import(1, "a").await?, import(1, "b").await?);
    let pulled = pull(store, host).await?;
    store.remove(&a.image_id).await?;
    let c = import(2, "c").await?;
    store
        .gc(&HashSet::from([pulled.image_id.clone(), c.image_id.clone()]))
        .await?;
    assert!(store.get(&b.image_id).is_err());
    store.remove(&c.image_id).await?;
    Ok(())
}

async fn pull(store: &Arc<ImageStore>, host: &str) -> Result<biga_image::ImageRecord, Error> {
    let options = PullOptions {
        platform: Some("linux/amd64".parse().unwrap()),
        ..PullOptions::default()
    };
    store
        .pull(&format!("{host}/app").parse().unwrap(), &options, |_| {})
        .await
}

fn child(dir: &Path, host: &str) -> Command {
    let mut c = Command::new(std::env::current_exe().unwrap());
    c.args(["--exact", "crash::the_one_that_dies", "--nocapture"])
        .env(DIR, dir)
        .env(HOST, host)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    c
}

/// Everything that the store lists is whole, what is not listed goes, and work goes on.
async fn check(dir: &Path, host: &str, when: &str) {
    let store = ImageStore::open(dir, quick()).unwrap_or_else(|e| panic!("{when}: {e}"));
    let count = |sub: &str| std::fs::read_dir(dir.join(sub)).unwrap().count();
    assert_eq!(count("tmp"), 0, "{when}");
    let all = store.list().unwrap();
    for record in &all {
        // Written out, every layer proves its digest.
        let id = record.image_id.clone();
        let saved = store.save(&[(id, vec![])], tokio::io::sink(), ArchiveFormat::Oci).await;
        saved.unwrap_or_else(|e| panic!("{when}: {e}"));
    }
    let keep = all.iter().map(|r| r.image_id.clone()).collect();
    store.gc(&keep).await.unwrap();
    let layers: HashSet<_> = all
        .iter()
        .flat_map(|r| r.layers.iter().map(|l| l.diff_id.clone()))
        .collect();
    assert_eq!(count("layers"), 3 * layers.len(), "{when}");
    assert_eq!(count("blobs/sha256"), 2 * all.len(), "{when}");
    // The pull that was broken off goes through now.
    let record = pull(&store, host).await.unwrap_or_else(|e| panic!("{when}: {e}"));
    store.gc(&HashSet::from([record.image_id])).await.unwrap();
    assert_eq!((count("images"), count("layers"), count("tmp")), (1, 6, 0), "{when}");
}

fn registry() -> Fake {
    // Two layers, so that a crash can come between them.
    let c = Content::of_layers(
        &[
            TarBuilder::new().file("one", &noise(60_000, 5)).end(),
            TarBuilder::new().file("two", &noise(60_000, 6)).end(),
        ],
        "amd64",
    );
    Fake::start(move |a| c.reply(a))
}

#[tokio::test(flavor = "multi_thread")]
async fn at_every_step() {
    let fake = registry();
    let mut step = 0;
    loop {
        let dir = tempfile::tempdir().unwrap();
        let out = child(dir.path(), &fake.host)
            .env(STEP, step.to_string())
            .output()
            .unwrap();
        let when = format!("before step {step}");
        check(dir.path(), &fake.host, &when).await;
        if out.status.success() {
            break;
        }
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.signal(), Some(9), "{when}: {said}");
        step += 1;
    }
    // Each of the work's writes and removals is a step: fewer would mean that they are not noticed.
    assert!(step > 40, "{step}");
}

#[tokio::test(flavor = "multi_thread")]
async fn at_any_moment() {
    use rand::Rng;
    let fake = registry();
    let dir = tempfile::tempdir().unwrap();
    for round in 0..15 {
        let pause = Duration::from_micros(rand::rng().random_range(0..120_000));
        let mut c = child(dir.path(), &fake.host).spawn().unwrap();
        tokio::time::sleep(pause).await;
        c.kill().unwrap();
        let ended = c.wait().unwrap();
        let mut said = String::new();
        c.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert!(ended.success() || ended.signal() == Some(9), "{said}");
        check(dir.path(), &fake.host, &format!("round {round}, after {pause:?}")).await;
    }
}
