//! The agent over a store in memory and a runtime without processes.

mod instances;
