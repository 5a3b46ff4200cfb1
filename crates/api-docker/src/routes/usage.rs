//! How much room containers and volumes take.

use biga_model::{Instance, Isolation, Object, Volume, VolumeMode};

use crate::state::DockerApi;
use crate::translate::image;

/// Bytes that a container's writable layer takes, and those with its image.
pub(super) async fn containers(api: &DockerApi, all: &[&Object<Instance>]) -> crate::error::Result<Vec<(u64, u64)>> {
    let dir = &api.inner.node.state_dir;
    let path = |o: &&Object<Instance>| {
        let own = format!("{dir}/instances/{}", o.uid());
        // A machine's and a microvm's writable layer is a disk among its files.
        if o.spec.isolation == Isolation::Container {
            format!("{own}/upper")
        } else {
            own
        }
    };
    let sizes = api.backend().usage(all.iter().map(path).collect()).await;
    let images = api.ready_images().await?;
    let groups = image::group(&images);
    let of_image = |o: &Object<Instance>| {
        let id = o.status_or_default().image_id;
        groups
            .iter()
            .find(|g| g.id == id)
            .map_or(0, |g| image::size(&g.objects))
    };
    let both = |(o, rw): (&&Object<Instance>, u64)| (rw, rw + of_image(o));
    Ok(all.iter().zip(sizes).map(both).collect())
}

/// Bytes that volumes take. What is mounted as a volume is not the node's, and counts as nothing.
pub(super) async fn volumes(api: &DockerApi, all: &[&Object<Volume>]) -> Vec<u64> {
    let path = |v: &&Object<Volume>| match (v.spec.mode, &v.spec.mount) {
        (VolumeMode::Directory | VolumeMode::Block, None) => v.status_or_default().path,
        (_, Some(_)) => String::new(),
    };
    api.backend().usage(all.iter().map(path).collect()).await
}
