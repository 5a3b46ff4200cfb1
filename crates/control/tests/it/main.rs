//! Plans as text, and the driver upon a store in memory.

mod driver;
mod plans;
