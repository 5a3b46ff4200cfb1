//! Archives that clients send, of any bytes.

#![cfg(feature = "compression")]

mod hostile;
