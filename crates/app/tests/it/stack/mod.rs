//! The whole program on a host of its own: real containers, real microvms, the real command line.

mod build;
mod build_microvm;
mod build_more;
mod buildkit;
mod checkpoints;
mod compose;
mod containers;
mod devices;
mod docker;
mod docker_bollard;
mod docker_bridges;
mod docker_crowd;
mod docker_dial;
mod docker_events;
mod docker_files;
mod docker_images;
mod docker_more;
mod docker_networks;
mod docker_node;
mod docker_py;
mod docker_rename;
mod docker_socket;
mod docker_streams;
mod docker_views;
mod docker_volumes;
mod files;
mod health;
mod images;
mod labels;
mod life;
mod machines;
mod microvms;
mod networks;
mod peer;
mod pods;
mod registries;
mod runtimes;
mod sharing;
mod unit;

use biga_testkit::Daemon;

/// A daemon with busybox in its store.
fn daemon() -> Daemon {
    let d = Daemon::start(env!("CARGO_BIN_EXE_biga"));
    d.import_busybox();
    d
}
