//! The engines against the shared suite, and the embedded one against kills and power loss.

mod crash;
mod engines;
mod power;
mod typed;
