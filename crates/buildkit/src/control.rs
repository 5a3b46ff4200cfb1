//! The services' calls: what a client says of a build, and what it hears.

use std::collections::HashMap;
use std::sync::Arc;

use biga_wire::cache::{CacheFilter, CacheRecord, Expression};
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt, StreamExt};
use tonic::{Request, Response, Status};

use crate::attrs::{self, Export};
use crate::engine::{Fault, FaultKind};
use crate::jobs::{Ending, Job, Outcome, Wanted, linger};
use crate::proto::control::{
    DiskUsageRequest, DiskUsageResponse, Exporter, InfoResponse, ListWorkersResponse, PruneRequest, SolveRequest,
    SolveResponse, StatusRequest, StatusResponse, UsageRecord, Version, WorkerRecord,
};
use crate::proto::gateway::{self, Cap, PongResponse, Ref, ReturnRequest};
use crate::proto::{Empty, Platform, Timestamp};
use crate::{BuildKit, fault};

type Answer<T> = Result<Response<T>, Status>;

/// The frontend that is here.
const FRONTEND: &str = "dockerfile.v0";
/// What names the build in calls of the gateway.
const BUILD_ID: &str = "buildkit-controlapi-buildid";
/// Clients take this label as the sign that images can be written out as archives.
const SNAPSHOTTER: &str = "org.mobyproject.buildkit.worker.snapshotter";
/// What the gateway does.
const CAPS: [&str; 5] = [
    "solve.base",
    "return",
    "returnmap",
    "proto.refarray",
    "gateway.solve.evaluate",
];

fn plain(fault: &Fault) -> Status {
    fault::status(fault, None)
}

impl BuildKit {
    fn job(&self, name: &str) -> Result<Arc<Job>, Status> {
        if name.is_empty() || name.len() > 256 {
            return Err(Status::invalid_argument("a build needs a reference"));
        }
        let job = self.inner.jobs.get(name);
        job.ok_or_else(|| Status::resource_exhausted("too many builds at a time"))
    }

    fn version(&self) -> Version {
        Version {
            package: "biga.dev/biga".into(),
            version: self.inner.about.version.clone(),
            revision: self.inner.about.revision.clone(),
        }
    }

    fn worker(&self) -> WorkerRecord {
        let about = &self.inner.about;
        WorkerRecord {
            id: about.id.clone(),
            labels: [(SNAPSHOTTER.to_owned(), "erofs".to_owned())].into(),
            platforms: vec![Platform {
                os: about.os.clone(),
                architecture: about.architecture.clone(),
                variant: String::new(),
            }],
            version: Some(self.version()),
        }
    }

    pub(crate) async fn workers(self) -> Answer<ListWorkersResponse> {
        Ok(Response::new(ListWorkersResponse {
            record: vec![self.worker()],
        }))
    }

    pub(crate) async fn info(self) -> Answer<InfoResponse> {
        Ok(Response::new(InfoResponse {
            version: Some(self.version()),
        }))
    }

    pub(crate) async fn disk_usage(self, r: Request<DiskUsageRequest>) -> Answer<DiskUsageResponse> {
        let wanted = expressions(&r.into_inner().filter)?;
        let all = self.inner.engine.usage().await.map_err(|e| plain(&e))?;
        let meant = all
            .into_iter()
            .filter(|r| wanted.is_empty() || wanted.iter().any(|e| e.fits(r)));
        Ok(Response::new(DiskUsageResponse {
            record: meant.map(usage_record).collect(),
        }))
    }

    pub(crate) async fn prune(
        self,
        r: Request<PruneRequest>,
    ) -> Answer<BoxStream<'static, Result<UsageRecord, Status>>> {
        let wanted = r.into_inner();
        let filter = CacheFilter {
            all: wanted.all,
            any: expressions(&wanted.filter)?,
            unused_for: seconds(wanted.keep_duration),
            keep_bytes: u64::try_from(wanted.keep_bytes).ok().filter(|n| *n > 0),
        };
        let before = self.inner.engine.usage().await.map_err(|e| plain(&e))?;
        let done = self.inner.engine.prune(filter).await.map_err(|e| plain(&e))?;
        let gone = before.into_iter().filter(move |r| done.removed.contains(&r.id));
        let records: Vec<_> = gone.map(usage_record).map(Ok).collect();
        Ok(Response::new(stream::iter(records).boxed()))
    }

    pub(crate) async fn ping(self) -> Answer<PongResponse> {
        let cap = |id: &str| Cap {
            id: id.to_owned(),
            enabled: true,
        };
        Ok(Response::new(PongResponse {
            frontend_caps: CAPS.iter().map(|c| cap(c)).collect(),
            llb_caps: Vec::new(),
            workers: vec![self.worker()],
        }))
    }

    /// A build from its beginning to its end. Ends it when its client goes.
    pub(crate) async fn control_solve(self, r: Request<SolveRequest>) -> Answer<SolveResponse> {
        let message = r.into_inner();
        let job = self.job(&message.reference)?;
        let _ending = Ending(job.clone());
        let wanted = wanted(&message);
        let export = attrs::export(&wanted.exporters).map_err(|e| plain(&e))?;
        attrs::cache_exports(&wanted.cache_exports).map_err(|e| plain(&e))?;
        if message.definition.is_some_and(|d| !d.is_empty()) {
            return Err(plain(&Fault::unsupported("solving a graph of operations (LLB)")));
        }
        job.wanted.send_replace(Some(wanted.clone()));
        let outcome = match message.frontend.as_str() {
            "" => returned(&job).await?,
            FRONTEND => {
                let imports = message.cache.map(|c| c.imports).unwrap_or_default();
                Some(self.build(&job, &message.frontend_attrs, &imports).await?)
            }
            other => return Err(plain(&Fault::unsupported(format!("the frontend {other}")))),
        };
        let (Some(outcome), Some((export, names))) = (outcome, export) else {
            return Ok(Response::new(SolveResponse::default()));
        };
        if export != Export::Image {
            self.export(&job, &message.reference, &outcome, &export, &names)
                .await
                .map_err(|e| plain(&e))?;
        }
        Ok(Response::new(SolveResponse {
            exporter_response: response(&outcome, &export),
        }))
    }

    pub(crate) async fn gateway_solve(self, r: Request<gateway::SolveRequest>) -> Answer<gateway::SolveResponse> {
        let job = self.job_of(&r)?;
        let message = r.into_inner();
        if message.frontend != FRONTEND {
            let what = match message.frontend.is_empty() {
                true => "solving a graph of operations (LLB)".to_owned(),
                false => format!("the frontend {}", message.frontend),
            };
            return Err(plain(&Fault::unsupported(what)));
        }
        if !message.frontend_inputs.is_empty() {
            return Err(plain(&Fault::unsupported(
                "an input of a frontend that is a graph (LLB)",
            )));
        }
        let outcome = self.build(&job, &message.frontend_opt, &message.cache_imports).await?;
        let id = format!("{}-{}", outcome.image, job.outcomes.lock().len());
        job.outcomes.lock().insert(id.clone(), outcome);
        Ok(Response::new(gateway::SolveResponse {
            result: Some(gateway::Result {
                reference: Some(Ref { id }),
                ..gateway::Result::default()
            }),
        }))
    }

    pub(crate) async fn gateway_return(self, r: Request<ReturnRequest>) -> Answer<Empty> {
        let job = self.job_of(&r)?;
        job.returned.send_replace(Some(r.into_inner()));
        // The call that waits for it may be about to come.
        linger(job);
        Ok(Response::new(Empty {}))
    }

    fn job_of<T>(&self, r: &Request<T>) -> Result<Arc<Job>, Status> {
        let id = r.metadata().get(BUILD_ID).and_then(|v| v.to_str().ok());
        self.job(id.unwrap_or_default())
    }

    /// Reports until the build has ended.
    pub(crate) async fn status(
        self,
        r: Request<StatusRequest>,
    ) -> Answer<BoxStream<'static, Result<StatusResponse, Status>>> {
        let job = self.job(&r.get_ref().reference)?;
        let reader = Reader(job);
        let reports = stream::unfold(reader, |reader| async move {
            let mut report = reader.0.feed.next().await?;
            // What is there already goes along.
            for _ in 0..64 {
                let Some(Some(more)) = reader.0.feed.next().now_or_never() else {
                    break;
                };
                report.vertexes.extend(more.vertexes);
                report.statuses.extend(more.statuses);
                report.logs.extend(more.logs);
                report.warnings.extend(more.warnings);
            }
            Some((Ok(report), reader))
        });
        Ok(Response::new(reports.boxed()))
    }
}

/// Who reads the reports of a build.
struct Reader(Arc<Job>);

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.feed.left();
    }
}

fn expressions(filters: &[String]) -> Result<Vec<Expression>, Status> {
    let some = filters.iter().filter(|f| !f.is_empty());
    let read: Result<_, String> = some.map(|f| Expression::parse(f)).collect();
    read.map_err(|why| plain(&Fault::invalid(why)))
}

/// Of nanoseconds; nothing of none.
fn seconds(nanoseconds: i64) -> Option<u64> {
    let whole = u64::try_from(nanoseconds).ok().filter(|n| *n > 0);
    whole.map(|n| n.div_ceil(1_000_000_000))
}

fn usage_record(r: CacheRecord) -> UsageRecord {
    let time = |seconds: i64| Some(Timestamp { seconds, nanos: 0 });
    UsageRecord {
        mutable: r.kind == "exec.cachemount",
        in_use: r.in_use,
        size: i64::try_from(r.size).unwrap_or(i64::MAX),
        description: r.description,
        record_type: r.kind,
        shared: r.shared,
        created_at: time(r.created),
        last_used_at: time(r.used),
        id: r.id,
    }
}

fn wanted(message: &SolveRequest) -> Wanted {
    let mut exporters = message.exporters.clone();
    if exporters.is_empty() && !message.exporter_deprecated.is_empty() {
        exporters.push(Exporter {
            kind: message.exporter_deprecated.clone(),
            attrs: message.exporter_attrs_deprecated.clone(),
        });
    }
    Wanted {
        session: message.session.clone(),
        exporters,
        cache_exports: message.cache.as_ref().map(|c| c.exports.clone()).unwrap_or_default(),
    }
}

/// What the client's own function made of the builds that it asked for.
async fn returned(job: &Job) -> Result<Option<Outcome>, Status> {
    let mut returned = job.returned.subscribe();
    let done = returned.wait_for(Option::is_some).await;
    let Ok(Some(done)) = done.map(|d| d.clone()) else {
        return Err(plain(&Fault::new(FaultKind::Cancelled, "the build was cancelled")));
    };
    if let Some(error) = done.error.filter(|e| e.code != 0) {
        return Err(fault::passed_on(&error));
    }
    let id = done.result.and_then(|r| match r.reference {
        Some(reference) => Some(reference.id),
        None => Some(r.ref_deprecated).filter(|id| !id.is_empty()),
    });
    let Some(id) = id.filter(|id| !id.is_empty()) else {
        return Ok(None);
    };
    let outcome = job.outcomes.lock().get(&id).cloned();
    match outcome {
        Some(outcome) => Ok(Some(outcome)),
        None => Err(Status::not_found(format!("there is no result {id} of this build"))),
    }
}

fn response(outcome: &Outcome, export: &Export) -> HashMap<String, String> {
    let mut all = HashMap::new();
    if matches!(export, Export::Image | Export::Docker | Export::Oci) {
        for key in ["containerimage.digest", "containerimage.config.digest"] {
            all.insert(key.to_owned(), outcome.image.clone());
        }
    }
    if !outcome.names.is_empty() {
        all.insert("image.name".into(), outcome.names.join(","));
    }
    all
}
