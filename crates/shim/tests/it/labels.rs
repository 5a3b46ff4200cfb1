//! AppArmor: a profile that is loaded for the test, and what it forbids.

use biga_container::labels::has_apparmor;
use biga_testkit::apparmor::Profile;
use biga_wire::config::IdMap;
use biga_wire::shim::{ErrorCode, Reply, Request};

use crate::support::{Rig, spec};

const LOOK: &str = "cat /proc/self/attr/current; (echo x >/forbidden/file) 2>&1; echo x >/tmp/file && echo wrote";

fn under(profile: &Profile, script: &str) -> Rig {
    let rig = Rig::sh(script).with(|c| c.apparmor = Some(profile.name.clone()));
    std::fs::create_dir(rig.layer().join("forbidden")).unwrap();
    rig
}

#[test]
fn a_profile_confines_the_program_and_who_enters() {
    let Some(profile) = Profile::load("plain") else { return };
    let ids = IdMap {
        base: 1_400_000,
        size: 65_536,
    };
    for (ids, strict, init) in [(None, false, false), (None, true, true), (Some(ids), false, false)] {
        let rig = under(&profile, &format!("{LOOK}; sleep 1000"))
            .with(|c| {
                c.namespaces.user = ids;
                c.no_new_privileges = strict;
                c.process.init = init;
            })
            .up();
        crate::support::until("its words", || rig.log().contains("wrote").then_some(()));
        let (exit, out, err) = rig.exec(&["sh", "-c", LOOK]);
        assert_eq!(exit.code, 0, "{err}");
        for text in [rig.log(), out] {
            assert!(text.starts_with(&profile.confined()), "{text}");
            assert!(text.contains("ermission denied") && text.ends_with("wrote\n"), "{text}");
        }
        assert!(!rig.layer().join("forbidden/file").exists());
    }
}

#[test]
fn each_container_of_a_pod_has_its_own() {
    let Some(profile) = Profile::load("pod") else { return };
    let rig = Rig::pod(&[("a", "sleep 1000"), ("b", "sleep 1000")])
        .with_pod(|p| p.containers[1].container.apparmor = Some(profile.name.clone()))
        .up();
    rig.start("a");
    rig.start("b");
    let label = |name| rig.exec_in(name, &["cat", "/proc/self/attr/current"]).1;
    assert_eq!((label("a"), label("b")), ("unconfined\n".into(), profile.confined()));
}

#[test]
fn a_profile_that_is_not_loaded_is_named() {
    if !has_apparmor() {
        eprintln!("this host has no AppArmor");
        return;
    }
    let mut rig = Rig::sh("echo it ran").with(|c| c.apparmor = Some("bigatest-missing".into()));
    match rig.launch() {
        Reply::Error { message, .. } => {
            assert!(
                message.contains("bigatest-missing") && message.contains("loaded"),
                "{message}"
            )
        }
        other => panic!("{other:?}"),
    }
    assert!(!rig.log().contains("it ran"));
}

#[test]
fn without_apparmor_the_wish_is_left_out() {
    if has_apparmor() {
        eprintln!("this host has AppArmor");
        return;
    }
    let rig = Rig::sh("echo it ran").with(|c| c.apparmor = Some("bigatest-missing".into()));
    let (exit, log) = rig.run();
    assert_eq!((exit.code, log.as_str()), (0, "it ran\n"));
}

#[test]
fn a_profile_taken_away_refuses_who_would_enter() {
    let Some(profile) = Profile::load("gone") else { return };
    let rig = under(&profile, "sleep 1000").up();
    drop(profile);
    let exec = Request::Exec {
        exec: Box::new(spec(&["true"])),
    };
    match rig.ask(exec) {
        Reply::Error { code, message } => assert!(code == ErrorCode::Failed && message.contains("loaded"), "{message}"),
        other => panic!("{other:?}"),
    }
}
