//! The `biga` program against a small fake daemon, from outside.

mod fake;
mod objects;
mod run;
mod terminal;
mod verbs;
