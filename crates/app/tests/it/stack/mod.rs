//! The whole program on a host of its own: real containers, real microvms, the real command line.

mod build;
mod compose;
mod containers;
mod docker;
mod docker_files;
mod docker_networks;
mod docker_py;
mod docker_views;
mod docker_volumes;
mod files;
mod health;
mod images;
mod life;
mod machines;
mod microvms;
mod networks;
mod pods;
mod registries;
mod sharing;

use biga_testkit::Daemon;

/// A daemon with busybox in its store.
fn daemon() -> Daemon {
    let d = Daemon::start(env!("CARGO_BIN_EXE_biga"));
    d.import_busybox();
    d
}
