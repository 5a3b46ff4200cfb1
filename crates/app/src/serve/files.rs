//! Files of instances, done by this node's agent once for both APIs.

use biga_agent::files::{self, Error, Pieces};
use biga_image::files as trees;
use biga_model::Reference;
use biga_wire::files::{Change, ChangeKind, Commit, PathStat, Put};
use biga_wire::http::{ImageLine, ImageResult};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;

use super::node::{Fault, FaultKind, Node, Upload};

/// What is still read of a tar that was refused, in bytes and time.
const MAX_REST: usize = 64 << 20;
const REST_TIME: std::time::Duration = std::time::Duration::from_secs(10);

type Bytewise = BoxStream<'static, Result<Bytes, Fault>>;

impl From<Error> for Fault {
    fn from(e: Error) -> Fault {
        use trees::Error as Tree;
        let kind = match e {
            Error::Instance(e) => return e.into(),
            Error::Files(Tree::NotFound(_)) => FaultKind::NotFound,
            Error::Files(Tree::ReadOnly(_)) => FaultKind::Forbidden,
            Error::Files(
                Tree::NotADirectory(_)
                | Tree::InTheWay(_)
                | Tree::Escape(_)
                | Tree::Kernel(_)
                | Tree::Tar(_)
                | Tree::TooMuch(_),
            )
            | Error::Invalid(_) => FaultKind::Invalid,
            Error::Unsupported(_) => FaultKind::Unsupported,
            Error::State(_) => FaultKind::Conflict,
            Error::Files(Tree::Io { .. } | Tree::Stream(_)) | Error::Failed(_) => FaultKind::Failed,
        };
        Fault {
            kind,
            message: e.to_string(),
        }
    }
}

impl Node {
    /// What stands at a path in an instance.
    pub async fn files_stat(&self, namespace: &str, name: &str, path: &str) -> Result<PathStat, Fault> {
        Ok(stat(self.files().stat(namespace, name, path).await?))
    }

    /// What stands at a path in an instance, and the tar of it.
    pub async fn files_read(&self, namespace: &str, name: &str, path: &str) -> Result<(PathStat, Bytewise), Fault> {
        let (found, pieces) = self.files().read(namespace, name, path).await?;
        Ok((stat(found), stream(pieces)))
    }

    /// Unpacks a tar into a directory of an instance.
    pub async fn files_write(
        &self,
        namespace: &str,
        name: &str,
        path: &str,
        put: Put,
        tar: Upload,
    ) -> Result<(), Fault> {
        let put = files::Put {
            keep_kinds: put.keep_kinds,
            to_user: put.to_user,
        };
        let mut tar = tar;
        let written = self.files().write(namespace, name, path, &mut tar, put).await;
        if written.is_err() {
            // A client that is still sending reads the answer only when it is done.
            let rest = async {
                let mut passed = 0;
                while let Some(Ok(piece)) = tar.next().await {
                    passed += piece.len();
                    if passed > MAX_REST {
                        return;
                    }
                }
            };
            let _ = tokio::time::timeout(REST_TIME, rest).await;
        }
        Ok(written?)
    }

    /// What an instance changed of its image.
    pub async fn changes(&self, namespace: &str, name: &str) -> Result<Vec<Change>, Fault> {
        let list = self.files().changes(namespace, name).await?;
        let change = |c: trees::Change| Change {
            path: format!("/{}", String::from_utf8_lossy(&c.path)),
            kind: match c.kind {
                trees::ChangeKind::Modified => ChangeKind::Modified,
                trees::ChangeKind::Added => ChangeKind::Added,
                trees::ChangeKind::Deleted => ChangeKind::Deleted,
            },
        };
        Ok(list.into_iter().map(change).collect())
    }

    /// A tar of an instance's root file system.
    pub async fn export(&self, namespace: &str, name: &str) -> Result<Bytewise, Fault> {
        Ok(stream(self.files().export(namespace, name).await?))
    }

    /// Makes an image of an instance.
    pub async fn commit(&self, namespace: &str, name: &str, commit: Commit) -> Result<ImageResult, Fault> {
        let bad = |e: String| Fault {
            kind: FaultKind::Invalid,
            message: e,
        };
        let reference = commit.reference.as_deref().map(str::parse::<Reference>);
        let what = files::Commit {
            reference: reference.transpose().map_err(bad)?,
            author: commit.author,
            comment: commit.comment,
            changes: commit.changes,
            labels: commit.labels,
            pause: commit.pause,
        };
        let (files, namespace, name) = (self.files().clone(), namespace.to_owned(), name.to_owned());
        // In a task of its own: what is half made is finished, whether or not the client stays.
        let work = tokio::spawn(async move { files.commit(&namespace, &name, what).await });
        let done = work.await.map_err(|e| Fault {
            kind: FaultKind::Failed,
            message: e.to_string(),
        })?;
        let (reference, record) = done?;
        Ok(ImageResult {
            images: vec![ImageLine {
                reference: reference.familiar(),
                image_id: record.image_id.to_string(),
                digest: record.manifest_digest,
                ..ImageLine::default()
            }],
        })
    }
}

fn stat(s: trees::Stat) -> PathStat {
    PathStat {
        name: s.name,
        size: s.size,
        mode: s.mode,
        mtime: s.mtime.0,
        mtime_nsec: s.mtime.1,
        link_target: s.link_target,
    }
}

fn stream(pieces: Pieces) -> Bytewise {
    let pieces = futures_util::stream::unfold(pieces, |mut rx| async move { rx.recv().await.map(|p| (p, rx)) });
    pieces.map(|p| p.map_err(Fault::from)).boxed()
}
