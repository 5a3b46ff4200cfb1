//! How the program is linked.

fn main() {
    // At a fixed address, as the engines written in Go are. The program holds tens of thousands of addresses, and a loader
    // that adjusts them touches two hundred pages, a third of all that a command line touches in its whole life. The stack,
    // the heap and the libraries keep their random addresses.
    println!("cargo::rustc-link-arg-bins=-no-pie");
    println!("cargo::rerun-if-changed=build.rs");
}
