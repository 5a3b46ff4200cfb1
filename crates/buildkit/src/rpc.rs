//! gRPC over one connection: paths, and which function answers each.

use std::convert::Infallible;
use std::future::Future;

use http::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use prost::Message;
use tonic::body::Body;
use tonic::server::Grpc;
use tonic::{Response, Status};
use tonic_prost::ProstCodec;

use crate::proto::Empty;
use crate::session::Io;
use crate::{BuildKit, MAX_MESSAGE};

/// Calls that one connection may have open.
const MAX_CALLS: u32 = 128;

type Answer = http::Response<Body>;

/// Serves a connection until it ends. A call whose client goes is dropped.
pub async fn serve(kit: BuildKit, io: impl Io + 'static) {
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let kit = kit.clone();
        async move { Ok::<_, Infallible>(answer(kit, request).await) }
    });
    let served = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_CALLS)
        .serve_connection(TokioIo::new(io), service)
        .await;
    if let Err(e) = served {
        tracing::debug!("a connection to the builder ended: {e}");
    }
}

async fn answer(kit: BuildKit, request: Request<Incoming>) -> Answer {
    let path = request.uri().path().to_owned();
    let Some((service, method)) = path.trim_start_matches('/').split_once('/') else {
        return unknown(&path);
    };
    match service {
        "moby.buildkit.v1.Control" => control(kit, method, request).await,
        "moby.buildkit.v1.frontend.LLBBridge" => gateway(kit, method, request).await,
        "grpc.health.v1.Health" if method == "Check" => unary(request, |_: tonic::Request<Empty>| healthy()).await,
        _ => unknown(&path),
    }
}

async fn control(kit: BuildKit, method: &str, request: Request<Incoming>) -> Answer {
    match method {
        "Solve" => unary(request, |r| kit.clone().control_solve(r)).await,
        "Status" => streaming(request, |r| kit.clone().status(r)).await,
        "ListWorkers" => unary(request, |_: tonic::Request<Empty>| kit.clone().workers()).await,
        "Info" => unary(request, |_: tonic::Request<Empty>| kit.clone().info()).await,
        "DiskUsage" => unary(request, |r| kit.clone().disk_usage(r)).await,
        "Prune" => streaming(request, |r| kit.clone().prune(r)).await,
        _ => unknown(&format!("moby.buildkit.v1.Control/{method}")),
    }
}

async fn gateway(kit: BuildKit, method: &str, request: Request<Incoming>) -> Answer {
    match method {
        "Ping" => unary(request, |_: tonic::Request<Empty>| kit.clone().ping()).await,
        "Solve" => unary(request, |r| kit.clone().gateway_solve(r)).await,
        "Return" => unary(request, |r| kit.clone().gateway_return(r)).await,
        "Evaluate" | "Warn" | "Inputs" => unary(request, |_: tonic::Request<Empty>| nothing()).await,
        _ => unknown(&format!("moby.buildkit.v1.frontend.LLBBridge/{method}")),
    }
}

async fn nothing() -> Result<Response<Empty>, Status> {
    Ok(Response::new(Empty {}))
}

/// `SERVING`.
#[derive(Clone, Copy, PartialEq, Message)]
struct Health {
    #[prost(int32, tag = "1")]
    status: i32,
}

async fn healthy() -> Result<Response<Health>, Status> {
    Ok(Response::new(Health { status: 1 }))
}

fn unknown(path: &str) -> Answer {
    Status::unimplemented(format!(
        "{path} is not supported by Biga: its builder builds Dockerfiles and solves no graphs of others"
    ))
    .into_http()
}

async fn unary<Q, A, F, Fut>(request: Request<Incoming>, call: F) -> Answer
where
    Q: Message + Default + Send + 'static,
    A: Message + Default + Send + 'static,
    F: Fn(tonic::Request<Q>) -> Fut,
    Fut: Future<Output = Result<Response<A>, Status>> + Send + 'static,
{
    let mut grpc = Grpc::new(ProstCodec::<A, Q>::default()).max_decoding_message_size(MAX_MESSAGE);
    grpc.unary(tower::service_fn(call), request).await
}

async fn streaming<Q, A, S, F, Fut>(request: Request<Incoming>, call: F) -> Answer
where
    Q: Message + Default + Send + 'static,
    A: Message + Default + Send + 'static,
    S: futures_util::Stream<Item = Result<A, Status>> + Send + 'static,
    F: Fn(tonic::Request<Q>) -> Fut,
    Fut: Future<Output = Result<Response<S>, Status>> + Send + 'static,
{
    let mut grpc = Grpc::new(ProstCodec::<A, Q>::default()).max_decoding_message_size(MAX_MESSAGE);
    grpc.server_streaming(tower::service_fn(call), request).await
}
