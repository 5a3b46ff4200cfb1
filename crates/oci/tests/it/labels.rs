//! AppArmor: a profile that is loaded for the test, under our runtime and under `runc`.

use biga_container::labels::has_apparmor;
use biga_testkit::apparmor::Profile;

use crate::support::{Bundle, Runtime};

const LOOK: &str = "cat /proc/self/attr/current; (echo x >/forbidden/file) 2>&1; echo x >/tmp/file && echo wrote";

fn bundle(runtime: Runtime, profile: &str, script: &str) -> Bundle {
    let bundle = Bundle::sh(runtime, script).with(|c, _| c["process"]["apparmorProfile"] = profile.into());
    std::fs::create_dir(bundle.rootfs().join("forbidden")).unwrap();
    bundle
}

#[test]
fn a_profile_confines_as_by_runc() {
    let (Some(profile), Some(other)) = (Profile::load("oci-one"), Profile::load("oci-two")) else {
        return;
    };
    let [ours, theirs] = [Runtime::Ours, Runtime::Runc].map(|runtime| {
        let program = bundle(runtime, &profile.name, LOOK).run().ok();
        let running = bundle(runtime, &profile.name, "sleep 1000");
        running.up();
        (program, running.exec(LOOK).ok())
    });
    assert_eq!(ours, theirs, "ours first: the program, and who enters");
    assert_eq!(ours.0, ours.1);
    assert!(ours.0.starts_with(&profile.confined()), "{ours:?}");
    assert!(
        ours.0.contains("ermission denied") && ours.0.ends_with("wrote\n"),
        "{ours:?}"
    );
    // Who enters may have a profile of its own.
    let running = bundle(Runtime::Ours, &profile.name, "sleep 1000");
    running.up();
    let words = [
        "exec",
        "--apparmor",
        &other.name,
        &running.id,
        "cat",
        "/proc/self/attr/current",
    ];
    assert_eq!(running.call(&words).ok(), other.confined());
    let words = ["exec", "--apparmor", "bigatest-missing", &running.id, "true"];
    running.call(&words).refused("is it loaded?");
}

#[test]
fn a_profile_that_is_not_loaded_is_named() {
    let b = bundle(Runtime::Ours, "bigatest-missing", "echo it ran");
    let said = match has_apparmor() {
        true => b.run().refused("is it loaded?"),
        false => b.run().refused("no AppArmor"),
    };
    assert!(!said.contains("it ran"));
    assert!(!b.dir.join("state").join(&b.id).exists(), "nothing is left");
    let free = bundle(Runtime::Ours, "unconfined", "echo it ran");
    assert_eq!(free.run().ok(), "it ran\n");
}
