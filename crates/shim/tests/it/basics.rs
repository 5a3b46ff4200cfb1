//! Exit codes, identity, environment.

use biga_wire::shim::{ErrorCode, Reply, Request, State};

use crate::support::{Rig, fields};

#[test]
fn exit_codes() {
    for (script, code, signal) in [
        ("exit 0", 0, None),
        ("exit 3", 3, None),
        ("kill -9 $$; kill -KILL -1; exit 1", 1, None),
    ] {
        let (exit, log) = Rig::sh(script).run();
        assert_eq!((exit.code, exit.signal), (code, signal), "{script}: {log}");
        assert!(exit.at_ns > 0);
    }
}

#[test]
fn a_program_that_is_not_there_or_not_a_program() {
    for (args, code) in [
        (["/bin/nothing"], ErrorCode::NotFound),
        (["nothing"], ErrorCode::NotFound),
        (["/etc/passwd"], ErrorCode::NotExecutable),
        (["/etc"], ErrorCode::NotExecutable),
    ] {
        let mut rig = Rig::new(&args);
        match rig.launch() {
            Reply::Error { code: got, message } => {
                assert_eq!(got, code, "{args:?}");
                assert!(message.contains(args[0]), "{message}");
            }
            other => panic!("{args:?}: {other:?}"),
        }
        rig.shim_ends();
        assert!(rig.groups().is_empty());
    }
}

#[test]
fn a_later_start_that_fails_is_written_down() {
    let rig = Rig::new(&["nothing"]).config(|c| c.start = false).up();
    assert_eq!(rig.status().state, State::Created);
    match rig.ask(Request::Start) {
        Reply::Error { code, .. } => assert_eq!(code, ErrorCode::NotFound),
        other => panic!("{other:?}"),
    }
    let exit = rig.wait();
    assert_eq!(exit.code, 127);
    assert!(exit.error.unwrap().contains("nothing"));
}

#[test]
fn identity_environment_and_directory() {
    let rig = Rig::sh("id; echo $HOME $FOO; pwd; umask; hostname").with(|c| {
        c.process.user = "web".into();
        c.process.env.push("FOO=bar baz".into());
        c.process.cwd = "/made/up".into();
        c.process.umask = Some(0o027);
    });
    let (exit, log) = rig.run();
    assert_eq!(exit.code, 0, "{log}");
    assert_eq!(
        log,
        "uid=33(web) gid=34(web) groups=34(web),44(logs)\n/var/www bar baz\n/made/up\n0027\nbox\n"
    );
    let (_, log) = Rig::new(&["id"])
        .with(|c| {
            c.process.user = "1234:logs".into();
            c.process.additional_groups = vec!["77".into()];
        })
        .run();
    assert_eq!(log, "uid=1234 gid=44(logs) groups=44(logs),77\n");
}

#[test]
fn status_of_the_process() {
    let (_, log) = Rig::new(&["cat", "/proc/self/status"])
        .with(|c| c.no_new_privileges = true)
        .run();
    let f = fields(&log);
    assert_eq!(f["CapInh"], "0000000000000000");
    assert_eq!(f["CapEff"], f["CapBnd"]);
    assert_eq!(f["CapEff"], "00000000a80425fb", "what Docker gives");
    assert_eq!(f["CapAmb"], "0000000000000000");
    assert_eq!(f["NoNewPrivs"], "1");
    assert_eq!(f["Seccomp"], "2");
    assert_eq!(f["SigBlk"], "0000000000000000");
    assert_eq!(f["SigIgn"], "0000000000000000");
    let (_, log) = Rig::new(&["cat", "/proc/self/status"])
        .with(|c| c.process.user = "web".into())
        .run();
    let f = fields(&log);
    assert_eq!(
        (f["CapEff"].as_str(), f["CapPrm"].as_str()),
        ("0000000000000000", "0000000000000000")
    );
    assert_eq!(f["CapBnd"], "00000000a80425fb");
    assert_eq!(f["NoNewPrivs"], "0");
}
