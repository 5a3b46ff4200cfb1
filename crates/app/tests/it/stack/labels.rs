//! Security modules of the host, by the program and by Docker's command line.

use biga_testkit::apparmor::Profile;
use biga_testkit::eventually;

use super::daemon;
use super::docker::{docker, has_docker};

const LOOK: &str = "cat /proc/self/attr/current; mkdir -p /forbidden; (echo x >/forbidden/file) 2>&1; echo x >/root/file && echo wrote";

#[test]
fn an_apparmor_profile_confines() {
    let Some(profile) = Profile::load("stack") else { return };
    let d = daemon();
    let option = format!("apparmor={}", profile.name);
    let words = ["--network", "none", "--security-opt", &option, "busybox", "sh", "-c"];
    let check = |text: String, whose: &str| {
        assert!(text.starts_with(&profile.confined()), "{whose}: {text}");
        assert!(
            text.contains("ermission denied") && text.ends_with("wrote"),
            "{whose}: {text}"
        );
    };
    d.biga(&[&["run", "-d", "--name", "ours"][..], &words, &["sleep 1000"]].concat())
        .ok();
    check(d.biga(&["exec", "ours", "sh", "-c", LOOK]).ok(), "who enters");
    check(
        d.biga(&[&["run", "--rm"][..], &words, &[LOOK]].concat()).ok(),
        "the program",
    );
    if has_docker() {
        let run = ["run", "-d", "--name", "theirs"];
        docker(&d, &[&run[..], &words, &["sleep 1000"]].concat()).ok();
        check(
            docker(&d, &["exec", "theirs", "sh", "-c", LOOK]).ok(),
            "who enters by docker",
        );
        let shown = docker(&d, &["inspect", "-f", "{{.AppArmorProfile}}", "theirs"]).ok();
        assert_eq!(shown, profile.name);
    }
    let wrong = [
        "run",
        "--rm",
        "--network",
        "none",
        "--security-opt",
        "apparmor=bigatest-missing",
        "busybox",
        "true",
    ];
    let refused = d.biga(&wrong);
    assert!(
        refused.code != 0 && refused.err.contains("bigatest-missing"),
        "{refused:?}"
    );
    assert!(refused.err.contains("is it loaded?"), "{refused:?}");
}

#[test]
fn what_the_host_has_no_module_for_is_left_out_and_said() {
    if biga_container::labels::has_selinux() {
        eprintln!("this host has SELinux");
        return;
    }
    let d = daemon();
    let mut words = vec![
        "run",
        "-d",
        "--name",
        "labelled",
        "--network",
        "none",
        "--security-opt",
        "label=type:x_t",
    ];
    if !biga_container::labels::has_apparmor() {
        words.extend(["--security-opt", "apparmor=mine"]);
    }
    words.extend(["busybox", "sleep", "1000"]);
    d.biga(&words).ok();
    d.until_phase("labelled", "Running");
    eventually("the events", || {
        let events = d.biga(&["get", "events"]).out;
        let told = |what| events.contains(what);
        let selinux = told("SELinux label was left out: this host has no SELinux");
        (selinux && (biga_container::labels::has_apparmor() || told("AppArmor profile \"mine\" was left out")))
            .then_some(())
    });
}
