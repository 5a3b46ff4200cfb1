//! Containers.

mod attach;
mod attach_ws;
mod checkpoints;
mod create;
mod files;
mod life;
mod list;
mod logs;
mod remove;
mod rename;
mod stats;
mod top;
mod update;
mod wait;

pub(super) use attach::window;

use axum::Router;
use axum::routing::{delete, get, post};

use crate::state::DockerApi;

pub(super) fn routes() -> Router<DockerApi> {
    Router::new()
        .route("/containers/json", get(list::list))
        .route("/containers/create", post(create::create))
        .route("/containers/prune", post(remove::prune))
        .route("/containers/{id}", delete(remove::remove))
        .route("/containers/{id}/{alias}", delete(remove::remove_link))
        .route("/containers/{id}/json", get(list::inspect))
        .route("/containers/{id}/start", post(life::start))
        .route("/containers/{id}/stop", post(life::stop))
        .route("/containers/{id}/restart", post(life::restart))
        .route("/containers/{id}/kill", post(life::kill))
        .route("/containers/{id}/pause", post(life::pause))
        .route("/containers/{id}/unpause", post(life::unpause))
        .route("/containers/{id}/wait", post(wait::wait))
        .route("/containers/{id}/update", post(update::update))
        .route("/containers/{id}/resize", post(attach::resize))
        .route("/containers/{id}/attach", post(attach::attach))
        .route("/containers/{id}/attach/ws", get(attach_ws::attach_ws))
        .route("/containers/{id}/logs", get(logs::logs))
        .route("/containers/{id}/top", get(top::top))
        .route("/containers/{id}/stats", get(stats::stats))
        .route("/containers/{id}/rename", post(rename::rename))
        .route("/containers/{id}/changes", get(files::changes))
        .route("/containers/{id}/export", get(files::export))
        .route(
            "/containers/{id}/archive",
            get(files::read).head(files::stat).put(files::write),
        )
        .route(
            "/containers/{id}/checkpoints",
            get(checkpoints::list).post(checkpoints::create),
        )
        .route("/containers/{id}/checkpoints/{name}", delete(checkpoints::remove))
        .route("/commit", post(files::commit))
}
