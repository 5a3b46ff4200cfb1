//! Integration tests: the whole API over a store in memory and a fake node, asked by raw HTTP and by the real `docker`.

#![recursion_limit = "256"]

mod bad_input;
mod bad_routes;
mod cli;
mod copies;
mod crowd;
mod fields;
mod fuzz;
mod fuzz_streams;
mod golden;
mod http_calls;
mod images;
mod listing;
mod node;
mod process;
mod questions;
mod rename;
mod streams;
mod support;
