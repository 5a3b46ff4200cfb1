//! See lib.rs.
fn main() {}
