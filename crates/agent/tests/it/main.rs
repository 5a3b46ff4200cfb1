//! The agent over a store in memory and a runtime without processes, alone and with the API and the controllers.

mod instances;
mod pods;
mod whole;
