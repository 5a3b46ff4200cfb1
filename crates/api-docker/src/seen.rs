//! Instances as they were parsed last, and the line of `docker ps` and the document of `docker inspect` of each.
//!
//! Clients list again and again, and look up by id, which no key of the store holds. What the store gives is bytes with a
//! revision: while an instance has the same one, it is neither parsed nor translated again.

use std::collections::HashMap;
use std::sync::Arc;

use axum::body::Bytes;
use biga_model::{Instance, Network, Object, Timestamp, Volume};
use biga_store::{Entry, ListOptions, Objects, Revision, Store, typed};
use parking_lot::Mutex;

use crate::error::Result;
use crate::state::DockerApi;
use crate::translate::ids::docker_id;
use crate::translate::inspect::Beside;
use crate::translate::{created, inspect, list};

/// What was seen of the store.
#[derive(Default)]
pub(crate) struct Seen {
    instances: Mutex<HashMap<String, Arc<Known>>>,
    around: Mutex<Option<(Vec<Revision>, Arc<Surroundings>)>>,
}

/// What documents of containers need beside the containers; read once for many of them.
#[derive(Debug, Default)]
pub(crate) struct Surroundings {
    networks: Vec<(String, String)>,
    volumes: Vec<(String, String)>,
}

impl Surroundings {
    async fn read(store: &Arc<dyn Store>, namespace: &str) -> Result<Surroundings> {
        let networks = Objects::<Network>::new(store.clone()).list(None).await?.items;
        let volumes = Objects::<Volume>::new(store.clone()).list(Some(namespace)).await?.items;
        Ok(Surroundings {
            networks: networks
                .iter()
                .map(|n| (n.name().to_string(), docker_id(n.uid())))
                .collect(),
            volumes: volumes
                .iter()
                .map(|v| (v.name().to_string(), v.status_or_default().path))
                .collect(),
        })
    }

    /// All that a document of `o` is made of beside it.
    pub fn beside<'a>(&'a self, api: &'a DockerApi, o: &Object<Instance>, image: &'a serde_json::Value) -> Beside<'a> {
        Beside {
            image: (!image.is_null()).then_some(image),
            networks: &self.networks,
            volumes: &self.volumes,
            execs: api.inner.execs.running(o.uid()),
            state_dir: &api.inner.node.state_dir,
        }
    }
}

/// One instance at one revision.
pub(crate) struct Known {
    revision: Revision,
    /// The instance.
    pub object: Arc<Object<Instance>>,
    /// Docker's id of it.
    pub id: String,
    /// When it was made, as exactly as is known.
    pub created: Option<Timestamp>,
    /// Whether it runs, or is on its way there.
    pub live: bool,
    line: Mutex<Option<Rendered>>,
    document: Mutex<Option<Rendered>>,
}

/// An object of JSON without its closing brace, and what it was rendered of, beside the instance.
struct Rendered {
    around: Arc<Surroundings>,
    open: Bytes,
}

/// What is kept, or what `render` makes; the second of what it gives tells whether that may be kept.
fn rendered(
    kept: &Mutex<Option<Rendered>>,
    around: &Arc<Surroundings>,
    render: impl FnOnce() -> (serde_json::Value, bool),
) -> Bytes {
    let mut kept = kept.lock();
    if let Some(r) = kept.as_ref().filter(|r| Arc::ptr_eq(&r.around, around)) {
        return r.open.clone();
    }
    let (value, keep) = render();
    let mut text = value.to_string().into_bytes();
    text.pop();
    let open = Bytes::from(text);
    *kept = keep.then(|| Rendered {
        around: around.clone(),
        open: open.clone(),
    });
    open
}

impl Known {
    fn new(object: Object<Instance>, revision: Revision) -> Known {
        Known {
            revision,
            id: docker_id(object.uid()),
            created: created(&object),
            live: object.status.as_ref().is_some_and(|s| s.phase.is_live()),
            object: Arc::new(object),
            line: Mutex::default(),
            document: Mutex::default(),
        }
    }

    /// Appends the line of `docker ps` as of `now`.
    pub async fn write_line(
        &self,
        out: &mut Vec<u8>,
        api: &DockerApi,
        around: &Arc<Surroundings>,
        now: Timestamp,
        sizes: Option<(u64, u64)>,
    ) {
        let id = api.image_of(&self.object).await;
        let image = api.image_config(&id).await;
        let open = rendered(&self.line, around, || {
            let mut value = list::entry(&self.object, &around.beside(api, &self.object, &image));
            value["ImageID"] = id.into();
            (value, self.may_be_kept(&image))
        });
        out.extend_from_slice(&open);
        write_sizes(out, sizes);
        out.extend_from_slice(b",\"Status\":");
        let status = serde_json::Value::from(list::status_text(&self.object, now));
        out.extend_from_slice(status.to_string().as_bytes());
        out.push(b'}');
    }

    /// The document of `docker inspect`.
    pub async fn document(&self, api: &DockerApi, around: &Arc<Surroundings>, sizes: Option<(u64, u64)>) -> Vec<u8> {
        let id = api.image_of(&self.object).await;
        let image = api.image_config(&id).await;
        let beside = around.beside(api, &self.object, &image);
        // Execs come and go without the instance.
        let quiet = beside.execs.is_empty();
        let render = || {
            let mut value = inspect::container(&self.object, &beside);
            value["Image"] = id.into();
            (value, self.may_be_kept(&image))
        };
        let open = match quiet {
            true => rendered(&self.document, around, render),
            false => rendered(&Mutex::default(), around, render),
        };
        let mut out = Vec::with_capacity(open.len() + 64);
        out.extend_from_slice(&open);
        write_sizes(&mut out, sizes);
        out.extend_from_slice(b"}\n");
        out
    }

    /// Before its first run an image's name may come to mean another image; and a config that cannot be read now may be there
    /// the next time.
    fn may_be_kept(&self, image: &serde_json::Value) -> bool {
        self.object.status.as_ref().is_some_and(|s| !s.image_id.is_empty()) && !image.is_null()
    }
}

/// Bytes of its own, and with its image's.
fn write_sizes(out: &mut Vec<u8>, sizes: Option<(u64, u64)>) {
    if let Some((own, all)) = sizes {
        out.extend_from_slice(format!(",\"SizeRw\":{own},\"SizeRootFs\":{all}").as_bytes());
    }
}

/// The instance of an entry, parsed unless it was before.
fn known(seen: &mut HashMap<String, Arc<Known>>, entry: &Entry) -> std::result::Result<Arc<Known>, typed::Error> {
    if let Some(k) = seen.get(&entry.key).filter(|k| k.revision == entry.revision) {
        return Ok(k.clone());
    }
    let k = Arc::new(Known::new(typed::decode(entry)?, entry.revision));
    seen.insert(entry.key.clone(), k.clone());
    Ok(k)
}

impl Seen {
    /// The instance of this name.
    pub async fn instance(&self, store: &dyn Store, namespace: &str, name: &str) -> Result<Option<Arc<Known>>> {
        let key = typed::key::<Instance>(namespace, name);
        let entry = store.get(&key).await.map_err(typed::Error::from)?;
        Ok(match entry {
            Some(entry) => Some(known(&mut self.instances.lock(), &entry)?),
            None => None,
        })
    }

    /// All instances of a namespace, by name. What cannot be read is left out and logged.
    pub async fn instances(&self, store: &dyn Store, namespace: &str) -> Result<Vec<Arc<Known>>> {
        let prefix = typed::prefix::<Instance>(Some(namespace));
        let listing = store
            .list(&prefix, ListOptions::default())
            .await
            .map_err(typed::Error::from)?;
        let mut all = Vec::with_capacity(listing.entries.len());
        let mut seen = self.instances.lock();
        for entry in &listing.entries {
            match known(&mut seen, entry) {
                Ok(k) => all.push(k),
                Err(e) => tracing::error!(error = %e, "left out of a list"),
            }
        }
        if seen.len() > all.len() {
            let there: std::collections::HashSet<&str> = listing.entries.iter().map(|e| &*e.key).collect();
            seen.retain(|key, _| there.contains(&**key));
        }
        Ok(all)
    }

    /// What documents of containers need beside the containers: the same one for as long as it is in force.
    pub async fn around(&self, store: &Arc<dyn Store>, namespace: &str) -> Result<Arc<Surroundings>> {
        let mut revisions = Vec::new();
        for prefix in [typed::prefix::<Network>(None), typed::prefix::<Volume>(Some(namespace))] {
            let listing = store
                .list(&prefix, ListOptions::default())
                .await
                .map_err(typed::Error::from)?;
            revisions.extend(listing.entries.iter().map(|e| e.revision));
            revisions.push(0);
        }
        if let Some((of, around)) = &*self.around.lock()
            && *of == revisions
        {
            return Ok(around.clone());
        }
        let around = Arc::new(Surroundings::read(store, namespace).await?);
        *self.around.lock() = Some((revisions, around.clone()));
        Ok(around)
    }
}
