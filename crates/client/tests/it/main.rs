//! The client against scripted answers on a real socket.

mod calls;
mod script;
mod watching;
