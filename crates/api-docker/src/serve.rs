//! The connection loop.

use std::convert::Infallible;

use axum::Router;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::UnixListener;
use tower::ServiceExt;

/// Serves `app` on a unix socket until the future is dropped; connections that are open go on in tasks of their own.
///
/// HTTP/1 only, as Docker's socket. Clients that hijack a connection shut down their half of it at the end of their
/// input and still read ours, so half-closed connections are kept.
pub async fn serve(listener: UnixListener, app: Router) -> Infallible {
    loop {
        let socket = match listener.accept().await {
            Ok((socket, _)) => socket,
            Err(e) => {
                // Out of descriptors, mostly: connections end and give some back.
                tracing::warn!("the Docker socket takes no connection now: {e}");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                continue;
            }
        };
        let service = TowerToHyperService::new(
            app.clone()
                .map_request(|r: http::Request<_>| r.map(axum::body::Body::new)),
        );
        tokio::spawn(async move {
            let connection = hyper::server::conn::http1::Builder::new()
                .half_close(true)
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(socket), service)
                .with_upgrades();
            if let Err(e) = connection.await {
                tracing::debug!("a Docker connection ended: {e}");
            }
        });
    }
}
