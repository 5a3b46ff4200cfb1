//! How many lists of fifty instances a second the API answers: one process, a unix socket, connections kept alive.
//!
//! `cargo run --release -p biga-server --example list_rate [CONNECTIONS [SECONDS]]`

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use biga_api_kube::Registry;
use biga_model::{EnvVar, Instance, InstanceSpec, Object};
use biga_server::{Options, Server, UnixOptions};
use biga_store::{MemoryStore, SpecWriter};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;

type Failure = Box<dyn std::error::Error + Send + Sync>;

const PATHS: [(&str, &str); 4] = [
    ("list of 50", "/apis/biga.dev/v1/namespaces/default/instances"),
    (
        "list of 50 by label",
        "/apis/biga.dev/v1/namespaces/default/instances?labelSelector=app%3Dweb",
    ),
    ("get", "/apis/biga.dev/v1/namespaces/default/instances/web-7"),
    ("healthz", "/healthz"),
];

fn instance(n: usize) -> Object<Instance> {
    let mut o = Object::<Instance>::new(
        format!("web-{n}"),
        InstanceSpec {
            image: "registry.example/team/web:1.2".into(),
            ..Default::default()
        },
    );
    let env = |i| EnvVar {
        name: format!("VARIABLE_{i}"),
        value: "some value of usual length".into(),
    };
    o.spec.containers = vec![biga_model::ContainerSpec {
        name: "main".into(),
        env: (0..8).map(env).collect(),
        ..Default::default()
    }];
    o.metadata.labels.insert("app".into(), "web".into());
    o
}

async fn client(
    socket: std::path::PathBuf,
    path: &'static str,
    until: Instant,
    count: Arc<AtomicU64>,
) -> Result<u64, Failure> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(UnixStream::connect(socket).await?)).await?;
    tokio::spawn(connection);
    let mut size = 0;
    while Instant::now() < until {
        let request = Request::get(path).header("host", "biga").body(Empty::<Bytes>::new())?;
        let response = sender.send_request(request).await?;
        if !response.status().is_success() {
            return Err(format!("{path} answered {}", response.status()).into());
        }
        let mut body = response.into_body();
        size = 0;
        while let Some(frame) = body.frame().await {
            size += frame?.data_ref().map_or(0, |d| d.len() as u64);
        }
        count.fetch_add(1, Ordering::Relaxed);
    }
    Ok(size)
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut args = std::env::args().skip(1);
    let connections: usize = args.next().map_or(Ok(4), |a| a.parse())?;
    let seconds: u64 = args.next().map_or(Ok(3), |a| a.parse())?;
    let store = MemoryStore::new()?;
    let instances = SpecWriter::<Instance>::new(store.clone());
    for n in 0..50 {
        instances.create(instance(n)).await?;
    }
    let socket = std::env::temp_dir().join(format!("biga-list-rate-{}.sock", std::process::id()));
    let options = Options {
        unix: Some(UnixOptions::new(&socket)),
        ..Options::default()
    };
    let router = Registry::new(store).with::<Instance>().router();
    let shutdown = CancellationToken::new();
    let server = tokio::spawn(Server::bind(&options).await?.run(router, shutdown.clone()));
    println!("{connections} connections, {seconds} s each; client and server share this process");
    for (what, path) in PATHS {
        let count = Arc::new(AtomicU64::new(0));
        let began = Instant::now();
        let until = began + Duration::from_secs(seconds);
        let clients: Vec<_> = (0..connections)
            .map(|_| tokio::spawn(client(socket.clone(), path, until, count.clone())))
            .collect();
        let mut size = 0;
        for c in clients {
            size = c.await??;
        }
        let rate = count.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64();
        println!("{what:<22} {rate:>9.0} requests/s  {size:>7} bytes each");
    }
    shutdown.cancel();
    server.await?;
    Ok(())
}
