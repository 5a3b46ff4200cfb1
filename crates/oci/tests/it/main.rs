//! Real containers, as root: by our runtime, and by `runc` where they are compared.

mod answers;
mod attacks;
mod cases;
mod checkpoints;
mod conformance;
mod engines;
mod labels;
mod life;
mod support;
