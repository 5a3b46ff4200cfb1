//! What a stage begins with: an image, pulled where it is missing.

use biga_image::{Auth, ImageRecord, LayerState, Progress, PullOptions};
use biga_model::{Isolation, PullPolicy, Reference};
use biga_wire::build::Event;
use biga_wire::http;
use tokio::sync::mpsc;

use crate::{Audience, Builder, Error, Prepared};

/// Reports of a pull that may wait for a slow listener; more are dropped.
const QUEUE: usize = 64;

impl Prepared {
    /// The image that a name in a Dockerfile means.
    pub(crate) async fn image(&self, name: &str, audience: &Audience) -> Result<ImageRecord, Error> {
        let here = self.builder.here(name).await;
        match here {
            Ok(record) if !self.request.pull || name.parse::<biga_image::ImageId>().is_ok() => return Ok(record),
            // It is here and not meant for this.
            Err(e) if !matches!(e, Error::NotFound(_)) => return Err(e),
            _ => {}
        }
        let reference: Reference = name
            .parse()
            .map_err(|e| Error::Invalid(format!("invalid reference format: {name:?}: {e}")))?;
        let mut auth = self.auth(&reference.registry);
        if let (Auth::Anonymous, Some(client)) = (&auth, &self.client)
            && let Some((username, password)) = audience.wait(client.credentials(&reference.registry)).await?
        {
            // Clients put a token in the password's place where there is no user.
            auth = match username.is_empty() {
                true => Auth::Identity(password),
                false => Auth::Basic { username, password },
            };
        }
        audience.wait(self.builder.pull(&reference, auth, audience)).await
    }

    fn auth(&self, registry: &str) -> Auth {
        // Docker's clients know the usual registry by an address of old.
        let names: &[&str] = match registry {
            "docker.io" => &["docker.io", "https://index.docker.io/v1/", "index.docker.io"],
            _ => &[],
        };
        let host = |k: &str| {
            k.trim_start_matches("https://")
                .trim_start_matches("http://")
                .split('/')
                .next()
                == Some(registry)
        };
        let mut found = self
            .auths
            .iter()
            .filter(|(k, _)| names.contains(&k.as_str()) || host(k));
        found.next().map(|(_, a)| a.clone()).unwrap_or_default()
    }
}

impl Builder {
    /// An image that is on this node, by name or id or the beginning of one.
    pub(crate) async fn here(&self, name: &str) -> Result<ImageRecord, Error> {
        let found = self
            .engine
            .images
            .resolve(name, PullPolicy::Never, Isolation::Container)
            .await;
        let failure = match found {
            Ok(record) => return Ok(record),
            Err(f) => f,
        };
        let is_hex = name.len() >= 4 && name.len() <= 64 && name.bytes().all(|b| b.is_ascii_hexdigit());
        if is_hex && failure.reason == "ImageNotPresent" {
            let all = self.store().list()?;
            let mut fits = all.into_iter().filter(|r| r.image_id.hex().starts_with(name));
            if let (Some(only), None) = (fits.next(), fits.next()) {
                return Ok(only);
            }
        }
        match failure.reason {
            "ImageNotPresent" => Err(Error::NotFound(failure.to_string())),
            _ => Err(failure.into()),
        }
    }

    async fn pull(&self, reference: &Reference, auth: Auth, audience: &Audience) -> Result<ImageRecord, Error> {
        let name = reference.familiar();
        audience.note(format!("Pulling {name}")).await?;
        let options = PullOptions {
            auth,
            ..PullOptions::default()
        };
        let (tx, mut rx) = mpsc::channel(QUEUE);
        let progress = move |p: Progress| {
            if let Progress::Layer {
                digest,
                state,
                done,
                total,
            } = p
            {
                let action = match state {
                    LayerState::Waiting => "waiting",
                    LayerState::Exists => "exists",
                    LayerState::Transferring => "downloading",
                    LayerState::Done => "done",
                };
                let _ = tx.try_send(http::Progress {
                    part: digest,
                    action: action.into(),
                    done,
                    total,
                });
            }
        };
        let mut pulling = std::pin::pin!(self.store().pull(reference, &options, progress));
        let record = loop {
            tokio::select! {
                Some(progress) = rx.recv() => {
                    audience.tell(Event::Pulling { reference: name.clone(), progress }).await?;
                }
                done = &mut pulling => {
                    break done.map_err(|e| match e {
                        e @ (biga_image::Error::NotFound { .. } | biga_image::Error::Denied { .. }) => Error::NotFound(format!(
                            "pull access denied for {name}, repository does not exist or may require 'docker login': {e}"
                        )),
                        e => Error::Failed(format!("cannot pull {name}: {}", Error::from(e))),
                    })?;
                }
            }
        };
        self.engine.images.name(reference, &record).await?;
        self.engine.images.keep_budget(Some(&record.image_id)).await;
        // Judged as any image that is to run.
        let found = self
            .engine
            .images
            .resolve(&name, PullPolicy::Never, Isolation::Container)
            .await?;
        Ok(found)
    }
}
