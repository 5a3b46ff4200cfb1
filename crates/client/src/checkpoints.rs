//! Checkpoints of instances.

use biga_wire::checkpoint::{Checkpoint, CheckpointWanted};
use http::Method;

use crate::http::{request, request_json};
use crate::node::instance_path;
use crate::{Client, Error};

impl Client {
    /// Saves the processes of an instance. Unless they are left running, the instance ends; write that it should not run then.
    pub async fn checkpoint(&self, namespace: &str, name: &str, wanted: &CheckpointWanted) -> Result<(), Error> {
        let body = serde_json::to_value(wanted).map_err(|e| Error::protocol(e.to_string()))?;
        let path = instance_path(namespace, name, "checkpoints");
        let r = request_json(Method::POST, &path, "application/json", &body)?;
        self.call(r).await.map(drop)
    }

    /// Checkpoints of an instance, oldest first.
    pub async fn checkpoints(&self, namespace: &str, name: &str) -> Result<Vec<Checkpoint>, Error> {
        self.json(request(Method::GET, &instance_path(namespace, name, "checkpoints"))?)
            .await
    }

    /// Removes a checkpoint of an instance, which is a plain name.
    pub async fn checkpoint_remove(&self, namespace: &str, name: &str, checkpoint: &str) -> Result<(), Error> {
        let path = instance_path(namespace, name, &format!("checkpoints/{checkpoint}"));
        self.call(request(Method::DELETE, &path)?).await.map(drop)
    }
}
