//! Real guests under QEMU's emulator. Needs root and the programs that Biga itself needs.

mod life;
mod machine;
mod microvm;
mod storage;
mod support;
