//! What goes when images take too much disk.

use std::collections::HashSet;
use std::time::Duration;

use biga_image::{ImageId, ImageRecord};

use crate::support::*;

async fn image(s: &Store, seed: u64) -> ImageRecord {
    s.import(
        TarBuilder::new().file("data", &noise(400_000, seed)).end(),
        &format!("{seed}"),
    )
    .await
}

fn ids(all: &[&ImageRecord]) -> HashSet<ImageId> {
    all.iter().map(|r| r.image_id.clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_least_recently_used_go() {
    let s = Store::with(|o| o.disk_budget = Some(1_500_000));
    let (a, b, c) = (image(&s, 1).await, image(&s, 2).await, image(&s, 3).await);
    assert!(s.store.over_budget(&HashSet::new()).unwrap().is_empty());
    let d = image(&s, 4).await;
    assert!(s.store.usage().unwrap() > 1_500_000);
    // The first is used again, so the second is the one that goes; unless it is in use.
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        s.store.touch(&a.image_id);
    }
    assert_eq!(
        s.store.over_budget(&HashSet::new()).unwrap(),
        std::slice::from_ref(&b.image_id)
    );
    assert_eq!(
        s.store.over_budget(&ids(&[&b])).unwrap(),
        std::slice::from_ref(&c.image_id)
    );
    assert!(s.store.over_budget(&ids(&[&a, &b, &c, &d])).unwrap().is_empty());
    // Nothing went by asking; now what nobody names any more goes.
    assert_eq!(s.store.list().unwrap().len(), 4);
    let report = s.store.gc(&ids(&[&a, &c, &d])).await.unwrap();
    assert_eq!(report.images, 1);
    assert!(s.store.usage().unwrap() <= 1_500_000 && s.store.over_budget(&HashSet::new()).unwrap().is_empty());
    assert_eq!(s.files("used"), [a.image_id.hex()]);
    s.store.gc(&ids(&[&c, &d])).await.unwrap();
    assert!(
        s.files("used").is_empty(),
        "a note on an image that is gone is of no use"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_used_a_moment_ago_is_not_collected() {
    let s = Store::with(|o| o.gc_grace = Duration::from_secs(3600));
    let image = image(&s, 1).await;
    let old = std::time::SystemTime::now() - Duration::from_secs(7200);
    let file = |dir: &str, name: String| {
        std::fs::File::options()
            .write(true)
            .open(s.dir.path().join(dir).join(name))
            .unwrap()
    };
    file("images", format!("{}.json", image.image_id.hex()))
        .set_modified(old)
        .unwrap();
    s.store.touch(&image.image_id);
    assert_eq!(s.store.gc(&HashSet::new()).await.unwrap().images, 0);
    file("used", image.image_id.hex().to_owned()).set_modified(old).unwrap();
    assert_eq!(s.store.gc(&HashSet::new()).await.unwrap().images, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn collections_and_pulls_at_once() {
    use crate::fake::{Content, Fake};
    let c = Content::of(&TarBuilder::new().file("data", &noise(300_000, 9)).end(), "amd64");
    let fake = Fake::start(move |a| c.reply(a));
    let s = Store::new();
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (store, stopped) = (s.store.clone(), stop.clone());
    let collecting = tokio::spawn(async move {
        while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
            store.gc(&HashSet::new()).await.unwrap();
        }
    });
    for _ in 0..20 {
        let options = biga_image::PullOptions {
            platform: Some("linux/amd64".parse().unwrap()),
            ..Default::default()
        };
        // No grace here, so it may be gone right after; but a pull never finds half of what it needs, and never fails.
        s.store.pull(&fake.reference("app"), &options, |_| {}).await.unwrap();
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    collecting.await.unwrap();
    s.store.gc(&HashSet::new()).await.unwrap();
    assert!(s.files("layers").is_empty() && s.files("blobs/sha256").is_empty());
}
