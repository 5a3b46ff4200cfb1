//! Input, output, terminals, execs, the log.

use biga_wire::shim::{ErrorCode, ExecSpec, Reply, Request, State};
use biga_wire::{Frame, FrameKind};

use crate::support::{Rig, spec, until};

const MEGABYTES: usize = 5 << 20;

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 % 251) as u8).collect()
}

#[test]
fn megabytes_go_in_and_out_without_loss() {
    let rig = Rig::new(&["cat"])
        .with(|c| c.process.stdin = true)
        .config(|c| c.log.path = None)
        .up();
    let mut c = rig.connect();
    assert_eq!(c.ask(&Request::Attach { stdin: true }), Reply::Ok);
    let data = pattern(MEGABYTES);
    let mut writer = crate::support::Client {
        stream: c.stream.try_clone().unwrap(),
    };
    let sent = data.clone();
    let thread = std::thread::spawn(move || {
        writer.stdin(&sent);
        writer.eof();
    });
    let (exit, out, err) = c.collect_bytes();
    thread.join().unwrap();
    assert_eq!((exit.code, err.len()), (0, 0));
    assert!(out == data, "{} of {} bytes", out.len(), data.len());
}

#[test]
fn a_slow_client_holds_the_process_back_and_a_gone_one_does_not() {
    let rig = Rig::sh("yes 0123456789abcde | head -c 8000000; touch /tmp/done; sleep 1000")
        .config(|c| {
            c.log.path = None;
            c.wait_attach_ms = 60_000;
        })
        .up();
    let mut slow = rig.connect();
    assert_eq!(slow.ask(&Request::Attach { stdin: false }), Reply::Ok);
    slow.read_until("0123");
    assert_ne!(
        rig.exec(&["test", "-e", "/tmp/done"]).0.code,
        0,
        "it cannot be done while nobody reads"
    );
    drop(slow);
    until("the released process", || {
        (rig.exec(&["test", "-e", "/tmp/done"]).0.code == 0).then_some(())
    });
}

/// What it has not read waits on disk, beside the log.
#[test]
fn a_slow_client_beside_a_log_holds_up_nobody_and_misses_nothing() {
    let rig = Rig::sh("yes 0123456789abcde | head -c 8000000; echo err >&2; exit 3")
        .config(|c| c.start = false)
        .up();
    let (mut slow, mut fast) = (rig.connect(), rig.connect());
    for c in [&mut slow, &mut fast] {
        assert_eq!(c.ask(&Request::Attach { stdin: false }), Reply::Ok);
    }
    assert!(matches!(rig.ask(Request::Start), Reply::Status { .. }));
    let (exit, out, err) = fast.collect_bytes();
    assert_eq!((exit.code, out.len(), err.as_slice()), (3, 8_000_000, &b"err\n"[..]));
    let (exit, late, err) = slow.collect_bytes();
    assert_eq!((exit.code, err.as_slice()), (3, &b"err\n"[..]));
    assert!(late == out, "{} of {} bytes", late.len(), out.len());
}

#[test]
fn output_is_held_for_the_first_client() {
    let rig = Rig::sh("echo first; echo second >&2; exit 4")
        .config(|c| c.wait_attach_ms = 60_000)
        .up();
    let process = format!("/proc/{}", rig.status().pid.unwrap());
    until("the end of its process", || {
        (!std::path::Path::new(&process).exists()).then_some(())
    });
    // Told now, the end would have the instance cleared away before anybody saw what it said.
    assert_eq!(rig.status().state, State::Running);
    let mut c = rig.connect();
    assert_eq!(c.ask(&Request::Attach { stdin: false }), Reply::Ok);
    let (exit, out, err) = c.collect();
    assert_eq!((exit.code, out.as_str(), err.as_str()), (4, "first\n", "second\n"));
    assert_eq!(rig.log().len(), 13);
}

#[test]
fn a_terminal() {
    let rig =
        Rig::sh("tty; stty size; test -c /dev/console && echo console; read line; echo got $line; stty size; exit 5")
            .with(|c| {
                c.process.tty = true;
                c.process.stdin = true;
            })
            .config(|c| c.start = false)
            .up();
    let mut c = rig.connect();
    assert_eq!(c.ask(&Request::Attach { stdin: true }), Reply::Ok);
    c.send(&Frame::resize(33, 101));
    // The size was set once a later request of the same connection's shim is answered.
    rig.status();
    assert!(matches!(rig.ask(Request::Start), Reply::Status { .. }));
    let seen = c.read_until("console\r\n");
    assert!(seen.contains("/dev/pts/0\r\n33 101\r\n"), "{seen:?}");
    c.send(&Frame::resize(40, 120));
    c.stdin(b"hello\n");
    let (exit, out, _) = c.collect();
    assert!(out.contains("got hello\r\n40 120\r\n"), "{out:?}");
    assert_eq!(exit.code, 5);
}

#[test]
fn exec_with_a_terminal_and_control_c() {
    let rig = Rig::new(&["sleep", "1000"]).up();
    let mut c = rig.connect();
    let exec = ExecSpec {
        tty: true,
        stdin: true,
        window: Some((10, 20)),
        ..spec(&["sh", "-c", "stty size; echo $TERM; exec sleep 1000"])
    };
    assert!(matches!(
        c.ask(&Request::Exec { exec: Box::new(exec) }),
        Reply::Exec { .. }
    ));
    c.read_until("10 20\r\nxterm\r\n");
    c.stdin(&[3]);
    let (exit, ..) = c.collect();
    assert_eq!((exit.code, exit.signal), (130, Some(2)));
}

#[test]
fn execs_keep_their_exit_codes_apart() {
    let rig = Rig::new(&["sleep", "1000"]).up();
    let rig = &rig;
    std::thread::scope(|s| {
        for worker in 0..6 {
            s.spawn(move || {
                for n in 0..12 {
                    let code = worker * 12 + n;
                    let script = format!("echo out{code}; echo err{code} >&2; exit {code}");
                    let (exit, out, err) = rig.exec(&["sh", "-c", &script]);
                    assert_eq!((exit.code, exit.error), (code, None));
                    assert_eq!((out, err), (format!("out{code}\n"), format!("err{code}\n")));
                }
            });
        }
    });
}

#[test]
fn exec_as_somebody_else_with_input() {
    let rig = Rig::new(&["sleep", "1000"])
        .with(|c| c.process.env.push("A=1".into()))
        .up();
    let mut c = rig.connect();
    let exec = ExecSpec {
        user: Some("web".into()),
        cwd: Some("/tmp".into()),
        env: vec!["A=2".into(), "B=3".into()],
        stdin: true,
        ..spec(&["sh", "-c", "id -u; pwd; echo $A$B; cat"])
    };
    assert!(matches!(
        c.ask(&Request::Exec { exec: Box::new(exec) }),
        Reply::Exec { .. }
    ));
    c.stdin(b"input");
    c.eof();
    let (exit, out, _) = c.collect();
    assert_eq!((exit.code, out.as_str()), (0, "33\n/tmp\n23\ninput"));
}

#[test]
fn exec_of_nothing_fails_and_leaves_the_connection() {
    let rig = Rig::new(&["sleep", "1000"]).up();
    let mut c = rig.connect();
    for (args, code) in [
        (["nothing"], ErrorCode::NotFound),
        (["/etc/passwd"], ErrorCode::NotExecutable),
    ] {
        match c.ask(&Request::Exec {
            exec: Box::new(spec(&args)),
        }) {
            Reply::Error { code: got, .. } => assert_eq!(got, code),
            other => panic!("{other:?}"),
        }
    }
    assert!(matches!(c.ask(&Request::Status), Reply::Status { .. }));
}

#[test]
fn exec_ends_although_a_child_of_it_lives_on() {
    let rig = Rig::new(&["sleep", "1000"]).up();
    let (exit, out, _) = rig.exec(&["sh", "-c", "sleep 1000 & echo here; exit 6"]);
    assert_eq!((exit.code, out.as_str()), (6, "here\n"));
}

#[test]
fn a_signal_to_an_exec() {
    let rig = Rig::new(&["sleep", "1000"]).up();
    let mut c = rig.connect();
    assert!(matches!(
        c.ask(&Request::Exec {
            exec: Box::new(spec(&["sleep", "1000"]))
        }),
        Reply::Exec { .. }
    ));
    c.send(&Frame::with_number(FrameKind::Signal, 10));
    let (exit, ..) = c.collect();
    assert_eq!((exit.code, exit.signal), (138, Some(10)));
}

#[test]
fn the_log_rotates() {
    let rig = Rig::sh("for i in $(seq 1 200); do echo line $i; done; printf end")
        .config(|c| {
            c.log.max_size = 4000;
            c.log.max_files = 3;
        })
        .up();
    rig.wait();
    let text = std::fs::read_to_string(rig.dir.join("log")).unwrap();
    let last = text.lines().last().unwrap();
    assert!(last.ends_with(" stdout P end"), "{last}");
    assert!(rig.dir.join("log.2").exists() && !rig.dir.join("log.3").exists());
    assert!(std::fs::metadata(rig.dir.join("log.1")).unwrap().len() <= 4000);
}

#[test]
fn malformed_requests_are_refused() {
    let rig = Rig::new(&["sleep", "1000"]).up();
    let mut c = rig.connect();
    c.send(&Frame::new(FrameKind::Request, b"{\"do\":\"fly\"}".to_vec()));
    let reply: Reply = c.next().unwrap().parse().unwrap();
    assert!(
        matches!(
            reply,
            Reply::Error {
                code: ErrorCode::Invalid,
                ..
            }
        ),
        "{reply:?}"
    );
    assert_eq!(c.next(), None);
    let mut c = rig.connect();
    c.send(&Frame::new(FrameKind::Stdin, b"x".to_vec()));
    assert!(matches!(
        c.next().unwrap().parse().unwrap(),
        Reply::Error {
            code: ErrorCode::Invalid,
            ..
        }
    ));
}
