//! How the program is linked.

fn main() {
    // The program holds tens of thousands of addresses that the loader adjusts at every start. In packed form they take
    // a fiftieth of the room, and every command starts half a millisecond sooner. Needs glibc 2.36 (Debian 12).
    println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    println!("cargo::rerun-if-changed=build.rs");
}
