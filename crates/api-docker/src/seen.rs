//! Instances as they were parsed last, and the line of `docker ps` of each.
//!
//! Clients list again and again, and look up by id, which no key of the store holds. What the store gives is bytes with a
//! revision: while an instance has the same one, it is neither parsed nor translated again.

use std::collections::HashMap;
use std::sync::Arc;

use axum::body::Bytes;
use biga_model::{Instance, Network, Object, Timestamp, Volume};
use biga_store::{ListOptions, Objects, Revision, Store, typed};
use parking_lot::Mutex;

use crate::error::Result;
use crate::state::DockerApi;
use crate::translate::ids::docker_id;
use crate::translate::inspect::Beside;
use crate::translate::{created, list};

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
    line: Mutex<Option<Line>>,
}

/// A rendered line and what it was rendered of, beside the instance.
struct Line {
    around: Arc<Surroundings>,
    /// All but the text that the time changes: an object of JSON without its closing brace.
    open: Bytes,
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
        }
    }

    /// Appends the line of `docker ps` as of `now`, with sizes (its own bytes, and with its image's) if there are. `render` makes all
    /// else of it, where it is not known; the second of what it gives tells whether that may be kept.
    pub fn write_line(
        &self,
        out: &mut Vec<u8>,
        around: &Arc<Surroundings>,
        now: Timestamp,
        sizes: Option<(u64, u64)>,
        render: impl FnOnce() -> (serde_json::Value, bool),
    ) {
        let mut line = self.line.lock();
        let open = match &*line {
            Some(l) if Arc::ptr_eq(&l.around, around) => l.open.clone(),
            _ => {
                let (value, keep) = render();
                let mut text = value.to_string().into_bytes();
                text.pop();
                let open = Bytes::from(text);
                *line = keep.then(|| Line {
                    around: around.clone(),
                    open: open.clone(),
                });
                open
            }
        };
        drop(line);
        out.extend_from_slice(&open);
        if let Some((own, all)) = sizes {
            out.extend_from_slice(format!(",\"SizeRw\":{own},\"SizeRootFs\":{all}").as_bytes());
        }
        out.extend_from_slice(b",\"Status\":");
        out.extend_from_slice(
            serde_json::Value::from(list::status_text(&self.object, now))
                .to_string()
                .as_bytes(),
        );
        out.push(b'}');
    }
}

impl Seen {
    /// All instances of a namespace, by name. What cannot be read is left out and logged.
    pub async fn instances(&self, store: &dyn Store, namespace: &str) -> Result<Vec<Arc<Known>>> {
        let prefix = typed::prefix::<Instance>(Some(namespace));
        let listing = store
            .list(&prefix, ListOptions::default())
            .await
            .map_err(typed::Error::from)?;
        let mut all = Vec::with_capacity(listing.entries.len());
        let mut known = self.instances.lock();
        for entry in &listing.entries {
            match known.get(&entry.key) {
                Some(k) if k.revision == entry.revision => all.push(k.clone()),
                _ => match typed::decode(entry) {
                    Ok(object) => {
                        let k = Arc::new(Known::new(object, entry.revision));
                        known.insert(entry.key.clone(), k.clone());
                        all.push(k);
                    }
                    Err(e) => tracing::error!(error = %e, "left out of a list"),
                },
            }
        }
        if known.len() > all.len() {
            let there: std::collections::HashSet<&str> = listing.entries.iter().map(|e| &*e.key).collect();
            known.retain(|key, _| there.contains(&**key));
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
