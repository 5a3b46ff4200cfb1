//! One blob as a stream. A connection that breaks is taken up again where it broke; digest and size are checked as the
//! bytes pass by.

use bytes::Bytes;
use reqwest::StatusCode;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc::Sender;

use super::client::unreachable;
use super::repo::{Repo, header, mismatch};
use crate::Error;

/// Progress is told at most once for so many bytes.
const TELL_EVERY: u64 = 256 << 10;

/// What arrives at the other end of a fetch.
pub(crate) enum Piece {
    Data(Bytes),
    /// All came, and it was what was named. A stream that ends without this was broken off.
    End,
}

struct State<'a> {
    digest: &'a str,
    size: u64,
    hasher: Sha256,
    done: u64,
    told: u64,
}

/// Fetches a blob from the first source that has it.
pub(crate) async fn fetch(
    sources: &[Repo<'_>],
    digest: &str,
    size: u64,
    to: Sender<Piece>,
    progress: &(dyn Fn(u64) + Send + Sync),
) -> Result<(), Error> {
    let mut state = State {
        digest,
        size,
        hasher: Sha256::new(),
        done: 0,
        told: 0,
    };
    let mut sources = sources.iter().peekable();
    let mut failures = 0;
    while let Some(&repo) = sources.peek() {
        let before = state.done;
        match stream(repo, &mut state, &to, progress).await {
            Ok(()) => {
                progress(state.done);
                let actual = crate::digest::finish(state.hasher);
                if actual != digest {
                    return Err(mismatch("the digest of a blob", digest, &actual));
                }
                return to.send(Piece::End).await.map_err(|_| Error::Cancelled);
            }
            Err(Error::Cancelled) => return Err(Error::Cancelled),
            // More came than there is: what was passed on cannot be right, and nobody can go on behind it.
            Err(e) if state.done > state.size => return Err(e),
            Err(e) => {
                failures = if state.done > before { 1 } else { failures + 1 };
                if e.retryable() && failures < repo.client.attempts {
                    tracing::debug!("{digest} broke at byte {}: {e}; going on there", state.done);
                    tokio::time::sleep(repo.client.pause(failures)).await;
                    continue;
                }
                sources.next();
                if sources.peek().is_none() {
                    return Err(e);
                }
                tracing::info!("{} has no use for {digest}: {e}; asking the next", repo.registry);
                failures = 0;
            }
        }
    }
    Err(Error::Cancelled)
}

/// One connection, from where the state stands to the end.
async fn stream(
    repo: &Repo<'_>,
    state: &mut State<'_>,
    to: &Sender<Piece>,
    progress: &(dyn Fn(u64) + Send + Sync),
) -> Result<(), Error> {
    if state.done == state.size && state.size > 0 {
        return Ok(());
    }
    let mut response = repo.open_blob(state.digest, state.done).await?;
    let mut skip = match response.status() {
        StatusCode::PARTIAL_CONTENT => {
            let range = header(&response, "content-range").unwrap_or_default();
            if !range.starts_with(&format!("bytes {}-", state.done)) {
                return Err(mismatch(
                    "the range of a blob",
                    &format!("bytes {}-", state.done),
                    &range,
                ));
            }
            0
        }
        // It has no ranges: what is known already is read again and dropped.
        _ => state.done,
    };
    let url = response.url().clone();
    while let Some(mut piece) = response.chunk().await.map_err(|e| unreachable(&url, e))? {
        let drop = skip.min(piece.len() as u64);
        skip -= drop;
        let _ = piece.split_to(drop as usize);
        if piece.is_empty() {
            continue;
        }
        state.done += piece.len() as u64;
        if state.done > state.size {
            return Err(mismatch("the size of a blob", &state.size.to_string(), "more"));
        }
        state.hasher.update(&piece);
        to.send(Piece::Data(piece)).await.map_err(|_| Error::Cancelled)?;
        if state.done - state.told >= TELL_EVERY {
            state.told = state.done;
            progress(state.done);
        }
    }
    if state.done < state.size {
        return Err(Error::Unreachable {
            url: url.path().to_owned(),
            why: format!("it ended after {} of {} bytes", state.done, state.size),
        });
    }
    Ok(())
}
