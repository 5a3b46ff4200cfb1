//! What is not here: swarms and plugins, as a daemon that has none answers.

use axum::Router;
use axum::extract::Path;
use axum::response::Response;
use axum::routing::{any, get, post};
use http::StatusCode;
use serde_json::json;

use crate::error::Error;
use crate::state::DockerApi;

pub(super) fn routes() -> Router<DockerApi> {
    let mut r = Router::new()
        .route("/plugins", get(no_plugins))
        .route("/plugins/privileges", get(no_plugins_here))
        .route("/plugins/pull", post(no_plugins_here))
        .route("/plugins/create", post(no_plugins_here))
        .route("/plugins/{*rest}", any(no_plugin))
        .route("/swarm", get(no_swarm))
        .route("/swarm/leave", post(in_no_swarm))
        .route("/swarm/unlockkey", get(no_swarm))
        .route("/swarm/{*rest}", any(no_swarm_here));
    for kind in ["nodes", "services", "tasks", "secrets", "configs"] {
        r = r
            .route(&format!("/{kind}"), any(no_swarm))
            .route(&format!("/{kind}/{{*rest}}"), any(no_swarm));
    }
    r
}

async fn no_swarm() -> Error {
    let message = "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.";
    Error::new(StatusCode::SERVICE_UNAVAILABLE, message)
}

async fn in_no_swarm() -> Error {
    Error::new(StatusCode::SERVICE_UNAVAILABLE, "This node is not part of a swarm")
}

async fn no_swarm_here() -> Error {
    Error::missing("swarms (docker swarm init, join, update, unlock)")
}

async fn no_plugins() -> Response {
    super::ok(&json!([]))
}

async fn no_plugins_here() -> Error {
    Error::missing("Docker plugins")
}

async fn no_plugin(Path(rest): Path<String>) -> Error {
    let verbs = ["/json", "/enable", "/disable", "/push", "/set", "/upgrade"];
    let name = verbs.iter().find_map(|v| rest.strip_suffix(v)).unwrap_or(&rest);
    Error::not_found(format!("plugin \"{name}\" not found"))
}
