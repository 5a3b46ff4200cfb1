//! One build: what it needs of its session, the builder's work, and what goes back to the client.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use biga_dockerfile::ignore::Ignore;
use futures_util::{StreamExt, stream};
use tokio::sync::mpsc;
use tonic::Status;

use crate::attrs::{self, Export, Request};
use crate::engine::{Building, Fault, FaultKind, Form, Source};
use crate::fault::{self, Shown};
use crate::jobs::{Job, Outcome};
use crate::progress::{Open, Steps};
use crate::proto::control::CacheEntry;
use crate::session::Session;
use crate::sync::{self, Few, Files};
use crate::{BuildKit, ByteStream};

/// How often a transfer tells how far it is.
const TICK: Duration = Duration::from_millis(200);
/// Events that may wait for a slow client.
const QUEUE: usize = 64;
/// How long a client may take to say what it wants.
const PATIENCE: Duration = Duration::from_secs(30);
/// What addresses of a client's standard input begin with.
const STDIN: &str = "http://buildkit-session/";

/// What is read before the builder begins.
#[derive(Default)]
struct Read {
    dockerfile: Option<Vec<u8>>,
    excludes: Vec<String>,
}

impl BuildKit {
    /// Builds a Dockerfile.
    pub(crate) async fn build(
        &self,
        job: &Arc<Job>,
        options: &HashMap<String, String>,
        imports: &[CacheEntry],
    ) -> Result<Outcome, Status> {
        let mut shown = Shown::default();
        let work = self.build_for(job, options, imports, &mut shown);
        let done = tokio::select! {
            biased;
            () = job.cancel.cancelled() => Err(Fault::new(FaultKind::Cancelled, "the build was cancelled")),
            done = work => done,
        };
        done.map_err(|e| fault::status(&e, Some(&shown)))
    }

    async fn build_for(
        &self,
        job: &Job,
        options: &HashMap<String, String>,
        imports: &[CacheEntry],
        shown: &mut Shown,
    ) -> Result<Outcome, Fault> {
        let mut wanted = job.wanted.subscribe();
        let wanted = tokio::time::timeout(PATIENCE, wanted.wait_for(Option::is_some)).await;
        let wanted = wanted.ok().and_then(Result::ok).and_then(|w| w.clone());
        let wanted = wanted.ok_or_else(|| Fault::invalid("no such build"))?;
        let mut request = attrs::request(options, imports)?;
        match attrs::export(&wanted.exporters)? {
            Some((Export::Image, names)) => request.build.tags = names,
            _ => request.build.discard = true,
        }
        let names = request.build.tags.clone();
        let session = self.inner.sessions.get(&wanted.session).await?;
        let run = Run {
            kit: self,
            job,
            session,
            // Of all builds: a client tells steps apart by it.
            id: format!("{:p} {}", job, wanted.session),
            discard: request.build.discard,
        };
        let building = run.prepare(request, shown).await?;
        let gone = run.session.gone.clone();
        tokio::select! {
            biased;
            () = gone.cancelled() => Err(Fault::new(FaultKind::Cancelled, "the client is gone")),
            image = run.follow(building) => Ok(Outcome { image: image?, names }),
        }
    }

    /// Gives the client what it wants to keep itself.
    pub(crate) async fn export(
        &self,
        job: &Job,
        build: &str,
        outcome: &Outcome,
        export: &Export,
        names: &[String],
    ) -> Result<(), Fault> {
        let (form, title) = match export {
            Export::Image => return Ok(()),
            Export::Files => (Form::Files, "exporting to client directory"),
            Export::Tar => (Form::Files, "exporting to client tarball"),
            Export::Docker => (Form::Docker, "exporting to docker image format"),
            Export::Oci => (Form::Oci, "exporting to oci image format"),
        };
        let open = Open::new(build, "export", title);
        job.feed.put(open.report()).await;
        let work = async {
            let id = job.wanted.borrow().as_ref().map(|w| w.session.clone());
            let session = self.inner.sessions.get(&id.unwrap_or_default()).await?;
            let content = self.inner.engine.export(&outcome.image, names, form).await?;
            match export {
                Export::Files => sync::send::send(&session, content).await,
                _ => session.send_file(content).await,
            }
        };
        let done = work.await;
        let error = done.as_ref().err().map(ToString::to_string);
        job.feed.put(open.done(error.as_deref())).await;
        done
    }
}

/// The rules of a `.dockerignore`.
fn patterns(text: Option<Vec<u8>>) -> Result<Vec<String>, Fault> {
    let text = String::from_utf8(text.unwrap_or_default())
        .map_err(|_| Fault::invalid("the .dockerignore is no UTF-8 text"))?;
    Ok(Ignore::parse(&text).map_err(Fault::invalid)?.patterns())
}

/// Whether a Dockerfile makes sense: said before its context is sent.
fn check(text: &[u8]) -> Result<(), Fault> {
    let text = std::str::from_utf8(text).map_err(|_| Fault::invalid("the Dockerfile is no UTF-8 text"))?;
    let wrong = |e: biga_dockerfile::Error| Fault {
        line: match &e {
            biga_dockerfile::Error::At { line, .. } => Some(*line),
            biga_dockerfile::Error::Whole(_) => None,
        },
        ..Fault::invalid(e.to_string())
    };
    biga_dockerfile::parse(text).map(drop).map_err(wrong)
}

/// A build at work.
struct Run<'a> {
    kit: &'a BuildKit,
    job: &'a Job,
    session: Arc<Session>,
    id: String,
    /// Nobody wants the image itself.
    discard: bool,
}

impl Run<'_> {
    /// Something that is no step of the Dockerfile.
    async fn internal<T>(
        &self,
        title: &str,
        counted: Option<(&str, &AtomicU64)>,
        work: impl Future<Output = Result<T, Fault>>,
    ) -> Result<T, Fault> {
        let open = Open::new(&self.id, title, &format!("[internal] {title}"));
        self.job.feed.put(open.report()).await;
        let mut tick = tokio::time::interval(TICK);
        tick.tick().await;
        let mut work = std::pin::pin!(work);
        let done = loop {
            tokio::select! {
                done = &mut work => break done,
                _ = tick.tick() => {
                    if let Some((what, bytes)) = counted {
                        self.job.feed.put(open.part(what, bytes.load(Ordering::Relaxed), 0, false)).await;
                    }
                }
            }
        };
        if let Some((what, bytes)) = counted {
            let bytes = bytes.load(Ordering::Relaxed);
            self.job.feed.put(open.part(what, bytes, 0, true)).await;
        }
        let error = done.as_ref().err().map(ToString::to_string);
        self.job.feed.put(open.done(error.as_deref())).await;
        done
    }

    async fn few(&self, title: &str, dir: &str, follow: Vec<String>) -> Result<Few, Fault> {
        let bytes = Arc::new(AtomicU64::new(0));
        let files = Files {
            dir: dir.to_owned(),
            follow,
            exclude: Vec::new(),
        };
        let pieces = sync::ask(self.session.clone(), files, bytes.clone());
        let what = format!("transferring {dir}:");
        self.internal(
            title,
            Some((&what, &bytes)),
            Few::read(pieces, biga_dockerfile::MAX_SIZE),
        )
        .await
    }

    /// The Dockerfile and what it leaves out of its context.
    async fn definition(&self, request: &Request, shown: &mut Shown) -> Result<Read, Fault> {
        let name = match request.build.dockerfile.as_str() {
            "" => "Dockerfile".to_owned(),
            name => name.trim_start_matches("./").to_owned(),
        };
        let dir = request.dockerfile_dir.as_deref().unwrap_or("dockerfile");
        let own = format!("{name}.dockerignore");
        let title = format!("load build definition from {name}");
        let few = self.few(&title, dir, vec![name.clone(), own.clone()]).await?;
        let missing = || {
            Fault::invalid(format!(
                "failed to read dockerfile: open {name}: no such file or directory"
            ))
        };
        let text = few.find(&name).ok_or_else(missing)?.to_vec();
        *shown = Shown {
            name,
            text: text.clone(),
        };
        check(&text)?;
        let ignore = match few.find(&own) {
            Some(text) => Some(text.to_vec()),
            None if request.remote.is_some() => None,
            None => self.ignore("load .dockerignore", &request.context_dir).await?,
        };
        Ok(Read {
            dockerfile: Some(text),
            excludes: patterns(ignore)?,
        })
    }

    async fn ignore(&self, title: &str, dir: &str) -> Result<Option<Vec<u8>>, Fault> {
        let few = self.few(title, dir, vec![".dockerignore".to_owned()]).await?;
        Ok(few.find(".dockerignore").map(<[u8]>::to_vec))
    }

    /// A further context, without what it leaves out itself.
    async fn named(&self, name: &str, dir: &str, bytes: &Arc<AtomicU64>) -> Result<ByteStream, Fault> {
        let ignore = self.ignore(&format!("load .dockerignore of {name}"), dir).await?;
        let files = Files {
            dir: dir.to_owned(),
            follow: Vec::new(),
            exclude: patterns(ignore)?,
        };
        Ok(sync::as_tar(sync::ask(self.session.clone(), files, bytes.clone())))
    }

    async fn prepare(&self, request: Request, shown: &mut Shown) -> Result<Box<dyn Building>, Fault> {
        let read = match (&request.remote, &request.dockerfile_dir) {
            // The Dockerfile comes with the context.
            (Some(_), None) => Read::default(),
            _ => self.definition(&request, shown).await?,
        };
        let bytes = Arc::new(AtomicU64::new(0));
        let mut build = request.build;
        let context: ByteStream = match request.remote {
            Some(address) if address.starts_with(STDIN) => {
                let address: http::Uri = address
                    .parse()
                    .map_err(|_| Fault::invalid("bad address of a context"))?;
                let count = bytes.clone();
                let pieces = self.session.pull(&address).await?;
                let counted = move |p: &std::io::Result<bytes::Bytes>| {
                    count.fetch_add(p.as_ref().map_or(0, |b| b.len() as u64), Ordering::Relaxed);
                };
                pieces.inspect(counted).boxed()
            }
            Some(address) => {
                build.remote = address;
                stream::empty().boxed()
            }
            None => {
                let files = Files {
                    dir: request.context_dir,
                    follow: Vec::new(),
                    exclude: read.excludes,
                };
                sync::as_tar(sync::ask(self.session.clone(), files, bytes.clone()))
            }
        };
        let mut named = Vec::new();
        for (name, dir) in &request.named {
            named.push((name.clone(), self.named(name, dir, &bytes).await?));
        }
        let source = Source {
            named,
            build,
            dockerfile: read.dockerfile,
            context,
            session: self.session.clone(),
        };
        let work = self.kit.inner.engine.prepare(source);
        let counted = Some(("transferring context:", &*bytes));
        let prepared = self.internal("load build context", counted, work).await?;
        if !request.warnings.is_empty() {
            let open = Open::new(&self.id, "options", "[internal] read options");
            self.job.feed.put(open.report()).await;
            for text in &request.warnings {
                self.job.feed.put(open.warning(text)).await;
            }
            self.job.feed.put(open.done(None)).await;
        }
        Ok(prepared)
    }

    /// The builder's work, told as it happens; the image's id.
    async fn follow(&self, building: Box<dyn Building>) -> Result<String, Fault> {
        let (tx, mut rx) = mpsc::channel(QUEUE);
        let mut work = std::pin::pin!(building.run(tx));
        let mut steps = Steps::new(&self.id, self.discard);
        let mut open = true;
        let done = loop {
            tokio::select! {
                biased;
                event = rx.recv(), if open => match event {
                    Some(event) => for report in steps.event(event) {
                        self.job.feed.put(report).await;
                    },
                    None => open = false,
                },
                done = &mut work => break done,
            }
        };
        while let Ok(event) = rx.try_recv() {
            for report in steps.event(event) {
                self.job.feed.put(report).await;
            }
        }
        let done = done.map_err(|e| Fault {
            line: e.line.or(steps.line()),
            ..e
        });
        let error = done.as_ref().err().map(ToString::to_string);
        for report in steps.end(error.as_deref()) {
            self.job.feed.put(report).await;
        }
        done
    }
}
