//! Real containers, held by a real shim. They need root and `busybox` linked statically.

mod basics;
mod checkpoints;
mod controllers;
mod devices;
mod external;
mod hidden;
mod isolation;
mod labels;
mod life;
mod limits;
mod mounts;
mod pods;
mod shared;
mod streams;
mod support;
mod system;
mod userns;
mod version2;
