#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| biga_image::fuzzing::disk_header(bytes));
