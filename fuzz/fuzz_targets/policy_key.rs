#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| biga_image::fuzzing::policy_key(bytes));
