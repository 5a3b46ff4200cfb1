//! Secrets and agents of SSH that came with a request, where the client is not asked over a session.

use std::collections::{BTreeMap, HashMap};
use std::io;

use async_trait::async_trait;
use biga_wire::build::{Build, MAX_SECRET, Secret};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio_util::io::{ReaderStream, StreamReader};

use crate::{Client, Error};

/// Most secrets of one build.
const MAX_SECRETS: usize = 64;

/// What came along.
pub struct Given {
    secrets: HashMap<String, Vec<u8>>,
    agents: BTreeMap<String, String>,
}

/// Takes what stands before the context.
pub async fn take(
    request: &Build,
    context: BoxStream<'static, io::Result<Bytes>>,
) -> Result<(Option<Given>, BoxStream<'static, io::Result<Bytes>>), Error> {
    if request.secrets.is_empty() && request.agents.is_empty() {
        return Ok((None, context));
    }
    let mut given = Given {
        secrets: HashMap::new(),
        agents: request.agents.clone(),
    };
    check(&request.secrets)?;
    let mut body = StreamReader::new(context);
    for s in &request.secrets {
        let mut value = vec![0; s.size];
        let read = body.read_exact(&mut value).await;
        read.map_err(|e| Error::Invalid(format!("the secret {} did not come: {e}", s.id)))?;
        given.secrets.insert(s.id.clone(), value);
    }
    Ok((Some(given), ReaderStream::with_capacity(body, 128 << 10).boxed()))
}

fn check(secrets: &[Secret]) -> Result<(), Error> {
    if secrets.len() > MAX_SECRETS {
        return Err(Error::Invalid(format!("a build has at most {MAX_SECRETS} secrets")));
    }
    match secrets.iter().find(|s| s.size > MAX_SECRET) {
        Some(s) => Err(Error::Invalid(format!(
            "the secret {} is larger than {MAX_SECRET} bytes",
            s.id
        ))),
        None => Ok(()),
    }
}

#[async_trait]
impl Client for Given {
    async fn credentials(&self, _registry: &str) -> Result<Option<(String, String)>, Error> {
        Ok(None)
    }

    async fn secret(&self, id: &str) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.secrets.get(id).cloned())
    }

    async fn has_agent(&self, id: &str) -> Result<bool, Error> {
        Ok(self.agents.contains_key(id))
    }

    async fn forward_agent(&self, id: &str, mut io: UnixStream) -> Result<(), Error> {
        let path = self.agents.get(id).map(String::as_str).unwrap_or_default();
        let failed = |e: io::Error| Error::Failed(format!("agent of SSH {id} at {path}: {e}"));
        let mut agent = UnixStream::connect(path).await.map_err(failed)?;
        tokio::io::copy_bidirectional(&mut io, &mut agent)
            .await
            .map_err(failed)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{TryStreamExt, stream};

    use super::*;

    fn body(pieces: &[&'static str]) -> BoxStream<'static, io::Result<Bytes>> {
        let pieces: Vec<_> = pieces.iter().map(|p| Ok(Bytes::from_static(p.as_bytes()))).collect();
        stream::iter(pieces).boxed()
    }

    fn wanted(sizes: &[usize]) -> Build {
        let one = |(i, size): (usize, &usize)| Secret {
            id: format!("s{i}"),
            size: *size,
        };
        Build {
            secrets: sizes.iter().enumerate().map(one).collect(),
            ..Build::default()
        }
    }

    #[tokio::test]
    async fn secrets_stand_before_the_context() {
        let (given, rest) = take(&wanted(&[3, 0, 4]), body(&["on", "etwos", "context", "more"]))
            .await
            .unwrap();
        let given = given.unwrap();
        let secret = |id| given.secrets[id].clone();
        assert_eq!(
            (secret("s0"), secret("s1"), secret("s2")),
            (b"one".to_vec(), vec![], b"twos".to_vec())
        );
        let rest: Vec<Bytes> = rest.try_collect().await.unwrap();
        assert_eq!(rest.concat(), b"contextmore");
        let (given, _) = take(&Build::default(), body(&["x"])).await.unwrap();
        assert!(given.is_none());
        assert!(take(&wanted(&[10]), body(&["short"])).await.is_err());
        assert!(take(&wanted(&[MAX_SECRET + 1]), body(&[])).await.is_err());
        assert!(take(&wanted(&[0; 65]), body(&[])).await.is_err());
    }
}
