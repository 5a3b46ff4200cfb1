//! Real containers, held by a real shim. They need root and `busybox` linked statically.

mod basics;
mod support;
