//! The biga program.
fn main() {}
