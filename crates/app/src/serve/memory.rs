//! Memory after work: what a burst of it took is given back once it is quiet.

use std::sync::Arc;
use std::time::Duration;

use biga_store::Store;
use futures_util::StreamExt;

/// Nothing was written for so long: it is quiet.
const QUIET: Duration = Duration::from_secs(5);
/// Writes that are worth it; a container's life is about ten.
const WORTH: u64 = 30;

/// So long after the work the store has let go of what it kept of it for watches (five minutes, looked at once a minute).
const FORGOTTEN: Duration = Duration::from_secs(7 * 60);

/// Gives memory back whenever the work after which it is worth it has ended, and once more when its history is forgotten. Where
/// nothing is written nothing wakes.
pub async fn give_back(store: Arc<dyn Store>) {
    let give = || drop(tokio::task::spawn_blocking(biga_sys::memory::give_back));
    let mut again: Option<tokio::task::AbortHandle> = None;
    let give = || {
        give();
        let later = tokio::spawn(async move {
            tokio::time::sleep(FORGOTTEN).await;
            give();
        });
        if let Some(earlier) = again.replace(later.abort_handle()) {
            earlier.abort();
        }
    };
    let ended = after_work(&*store, QUIET, give).await;
    tracing::debug!("memory is not given back any more: {ended}");
}

/// Calls `then` when much was written and nothing more is; gives why it does so no longer.
async fn after_work(store: &dyn Store, quiet: Duration, mut then: impl FnMut()) -> biga_store::Error {
    let work = async {
        let mut done = store.revision().await?;
        let mut last = done;
        loop {
            let mut writes = match store.watch("", Some(last)).await {
                Err(biga_store::Error::TooOld { .. }) => store.watch("", None).await?,
                writes => writes?,
            };
            match writes.next().await {
                None => return Err(biga_store::Error::Closed),
                Some(Err(biga_store::Error::Closed)) => return Err(biga_store::Error::Closed),
                Some(_) => drop(writes),
            }
            loop {
                tokio::time::sleep(quiet).await;
                let now = store.revision().await?;
                if now == last {
                    break;
                }
                last = now;
            }
            if last - done >= WORTH {
                done = last;
                then();
            }
        }
    };
    let ended: Result<std::convert::Infallible, _> = work.await;
    match ended {
        Err(e) => e,
        Ok(never) => match never {},
    }
}

#[cfg(test)]
mod tests {
    use biga_store::{MemoryStore, Precondition};

    use super::*;

    #[tokio::test]
    async fn much_work_is_followed_by_it_and_little_is_not() {
        let store = MemoryStore::new().unwrap();
        let (told, mut heard) = tokio::sync::mpsc::unbounded_channel();
        let following = tokio::spawn({
            let store = store.clone();
            async move { after_work(&*store, Duration::from_millis(5), || told.send(()).unwrap()).await }
        });
        let write = async |n: u64| {
            for i in 0..n {
                let key = format!("/k/{i}");
                store.put(&key, "v".into(), Precondition::None, None).await.unwrap();
            }
        };
        // Not at the first look already, whenever that is.
        tokio::task::yield_now().await;
        write(WORTH + 5).await;
        heard.recv().await.unwrap();
        write(WORTH / 2).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        let once = heard.try_recv().is_err();
        write(WORTH).await;
        heard.recv().await.unwrap();
        assert!(once, "what is little adds up before it is worth it");
        store.close();
        let ended = following.await.unwrap();
        assert!(matches!(ended, biga_store::Error::Closed), "{ended}");
    }
}
