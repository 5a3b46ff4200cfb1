//! The `biga` program from outside: against a small fake daemon, and as a whole ([`stack`]).

mod fake;
mod objects;
mod oci;
mod run;
mod stack;
mod terminal;
mod verbs;
