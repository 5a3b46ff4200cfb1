//! What every command needs: the daemon, the namespace, and finding what the user named.

use biga_client::{Client, Error, ErrorKind, ListParams};
use biga_model::{Image, Instance, Kind, Object, Reference};

use crate::names::nearest;

/// What every command needs.
#[derive(Debug, Clone)]
pub struct Context {
    /// The daemon.
    pub client: Client,
    /// Where namespaced objects are looked for.
    pub namespace: String,
}

/// The shortest beginning of a uid that names an instance.
const SHORTEST_UID: usize = 4;

impl Context {
    /// Objects of kind `K`.
    pub fn api<K: Kind>(&self) -> biga_client::Api<K> {
        self.client.api(&self.namespace)
    }

    /// The instance a user means: its name, or the beginning of its uid.
    pub async fn instance(&self, word: &str) -> Result<Object<Instance>, Error> {
        if let Some(o) = self.api::<Instance>().get_opt(word).await? {
            return Ok(o);
        }
        let all = self.api::<Instance>().list(&ListParams::default()).await?.items;
        if word.len() >= SHORTEST_UID {
            let mut hits = all.iter().filter(|o| o.uid().starts_with(word));
            match (hits.next(), hits.next()) {
                (Some(one), None) => return Ok(one.clone()),
                (Some(_), Some(_)) => {
                    return Err(Error::new(
                        ErrorKind::Usage,
                        format!("more than one instance has a uid that begins with {word}: give more of it"),
                    ));
                }
                _ => {}
            }
        }
        let hint = match nearest(word, all.iter().map(|o| o.name())) {
            Some(n) => format!("did you mean {n}? `biga ps -a` lists them all"),
            None => "`biga ps -a` lists them".into(),
        };
        let ns = &self.namespace;
        Err(Error::new(
            ErrorKind::NotFound,
            format!("no instance named {word} in namespace {ns}: {hint}"),
        ))
    }

    /// An object by its name, with a hint where there is none.
    pub async fn named<K: Kind>(&self, name: &str) -> Result<Object<K>, Error> {
        if let Some(o) = self.api::<K>().get_opt(name).await? {
            return Ok(o);
        }
        let all = self.api::<K>().list(&ListParams::default()).await?.items;
        Err(Self::missing::<K>(name, all.iter().map(|o| o.name())))
    }

    fn missing<'a, K: Kind>(name: &str, all: impl IntoIterator<Item = &'a str>) -> Error {
        let kind = K::SINGULAR;
        let list = format!("`biga {kind} ls` lists them");
        let hint = match nearest(name, all) {
            Some(n) => format!("did you mean {n}? {list}"),
            None => list,
        };
        Error::new(ErrorKind::NotFound, format!("no {kind} named {name}: {hint}"))
    }

    /// The image a user means: a reference, the beginning of an id, or the object's name.
    pub async fn image(&self, word: &str) -> Result<Object<Image>, Error> {
        let reference = word.parse::<Reference>().ok();
        if let Some(r) = &reference
            && let Some(o) = self.api::<Image>().get_opt(&r.object_name()).await?
        {
            return Ok(o);
        }
        let all = self.api::<Image>().list(&ListParams::default()).await?.items;
        let id = word.strip_prefix("sha256:").unwrap_or(word);
        let by_id = |o: &&Object<Image>| {
            let own = o.status_or_default().image_id;
            id.len() >= SHORTEST_UID && own.strip_prefix("sha256:").unwrap_or(&own).starts_with(id)
        };
        if let Some(o) = all.iter().find(|o| o.name() == word || o.spec.reference == word) {
            return Ok(o.clone());
        }
        if let Some(o) = all.iter().find(by_id) {
            return Ok(o.clone());
        }
        let known: Vec<String> = all.iter().map(|o| familiar(&o.spec.reference)).collect();
        Err(Self::missing::<Image>(word, known.iter().map(String::as_str)))
    }
}

/// A reference as people write it.
pub fn familiar(reference: &str) -> String {
    reference
        .parse::<Reference>()
        .map_or_else(|_| reference.to_string(), |r| r.familiar())
}
