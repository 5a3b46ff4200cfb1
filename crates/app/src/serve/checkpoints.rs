//! Checkpoints of instances, made by this node's agent once for both APIs.

use biga_wire::checkpoint::{Checkpoint, CheckpointWanted};

use super::node::{Fault, FaultKind, Node};

impl Node {
    /// Saves the processes of an instance.
    pub async fn checkpoint(&self, namespace: &str, name: &str, wanted: CheckpointWanted) -> Result<(), Fault> {
        let (streams, namespace, name) = (self.streams().clone(), namespace.to_owned(), name.to_owned());
        // In a task of its own: what has begun is finished, whether or not the client stays.
        let work = tokio::spawn(async move { streams.checkpoint(&namespace, &name, &wanted).await });
        let done = work.await.map_err(|e| Fault {
            kind: FaultKind::Failed,
            message: e.to_string(),
        })?;
        Ok(done?)
    }

    /// Checkpoints of an instance, oldest first.
    pub async fn checkpoints(&self, namespace: &str, name: &str) -> Result<Vec<Checkpoint>, Fault> {
        Ok(self.streams().checkpoints(namespace, name).await?)
    }

    /// Removes a checkpoint.
    pub async fn checkpoint_remove(&self, namespace: &str, name: &str, checkpoint: &str) -> Result<(), Fault> {
        Ok(self.streams().remove_checkpoint(namespace, name, checkpoint).await?)
    }
}
