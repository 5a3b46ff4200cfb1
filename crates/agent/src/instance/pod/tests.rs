use proptest::prelude::*;

use super::*;

fn policy(policy: RestartWhen, max: u32) -> RestartPolicy {
    RestartPolicy {
        policy,
        maximum_retry_count: max,
    }
}

/// `I` init, `S` sidecar, `M` main; then `.` not started, `r` running, a digit: ended with this code. As `I0 Sr M.`.
fn containers(text: &str) -> Vec<Seen> {
    let one = |word: &str| {
        let (role, rest) = word.split_at(1);
        let (state, code) = match rest.chars().next().unwrap() {
            '.' => (State::Created, None),
            'r' => (State::Running, None),
            digit => (State::Exited, Some(digit.to_digit(10).unwrap() as i32)),
        };
        Seen {
            role: match role {
                "I" => Role::Init,
                "S" => Role::Sidecar,
                _ => Role::Main,
            },
            state,
            code,
            starts: u32::from(state != State::Created),
            due_ms: 0,
            asked: false,
        }
    };
    text.split_whitespace().map(one).collect()
}

fn next(when: RestartWhen, text: &str) -> Step {
    plan(&policy(when, 0), false, &containers(text))
}

#[test]
fn containers_are_started_in_order() {
    use RestartWhen::*;
    for (seen, step) in [
        ("I. S. I. M. M.", Step::Start(0)),
        ("Ir S. I. M. M.", Step::Rest),
        ("I0 S. I. M. M.", Step::Start(1)),
        ("I0 Sr I. M. M.", Step::Start(2)),
        ("I0 Sr Ir M. M.", Step::Rest),
        ("I0 Sr I0 M. M.", Step::Start(3)),
        ("I0 Sr I0 Mr M.", Step::Start(4)),
        ("I0 Sr I0 Mr Mr", Step::Rest),
        // A sidecar that ended is started again and holds nobody up.
        ("I0 S1 I. M. M.", Step::Start(1)),
        ("I0 S0 I0 Mr Mr", Step::Start(1)),
    ] {
        for when in [No, OnFailure, Always, UnlessStopped] {
            assert_eq!(next(when, seen), step, "{seen} under {when:?}");
        }
    }
    let mut tired = containers("I0 S1 I. M.");
    tired[1].due_ms = 400;
    assert_eq!(
        plan(&policy(No, 0), false, &tired),
        Step::Start(2),
        "the others do not wait for it"
    );
    let mut first = containers("S. I. M.");
    first[0].due_ms = 400;
    assert_eq!(
        plan(&policy(No, 0), false, &first),
        Step::Wait(400),
        "but for its first start"
    );
}

#[test]
fn a_failed_init_container_is_tried_again_or_ends_the_instance() {
    use RestartWhen::*;
    assert_eq!(next(Always, "Sr I1 M."), Step::Start(1));
    assert_eq!(next(OnFailure, "Sr I1 M."), Step::Start(1));
    assert_eq!(next(No, "Sr I1 M."), Step::Stop(vec![0]));
    assert_eq!(next(No, "S0 I1 M."), Step::End, "no sidecar is started again for that");
    assert_eq!(next(No, "I1 M."), Step::End);
    let mut waits = containers("I1 M.");
    waits[0].due_ms = 200;
    assert_eq!(plan(&policy(Always, 0), false, &waits), Step::Wait(200));
    waits[0].starts = 4;
    assert_eq!(plan(&policy(OnFailure, 3), false, &waits), Step::End, "given up");
}

#[test]
fn each_container_is_started_again_by_itself() {
    use RestartWhen::*;
    assert_eq!(next(Always, "Mr M0"), Step::Start(1));
    assert_eq!(next(OnFailure, "Mr M0"), Step::Rest);
    assert_eq!(next(OnFailure, "Mr M1"), Step::Start(1));
    assert_eq!(next(No, "Mr M1"), Step::Rest);
    let mut two = containers("M1 M1 Mr");
    (two[0].due_ms, two[1].due_ms) = (800, 100);
    assert_eq!(plan(&policy(Always, 0), false, &two), Step::Wait(100));
    two[1].due_ms = 0;
    assert_eq!(plan(&policy(Always, 0), false, &two), Step::Start(1));
}

#[test]
fn the_instance_ends_with_its_main_containers_and_sidecars_go_last_first() {
    use RestartWhen::*;
    assert_eq!(next(No, "Sr Sr M0 M1"), Step::Stop(vec![1]));
    let mut asked = containers("Sr Sr M0 M1");
    asked[1].asked = true;
    assert_eq!(plan(&policy(No, 0), false, &asked), Step::Rest);
    assert_eq!(next(No, "Sr S0 M0 M1"), Step::Stop(vec![0]));
    assert_eq!(next(No, "S0 S9 M0 M1"), Step::End);
    assert_eq!(next(No, "M0 M1"), Step::End);
    assert_eq!(next(OnFailure, "M0 M0"), Step::End);
    let stop = |text: &str| plan(&policy(Always, 0), true, &containers(text));
    assert_eq!(stop("Sr Sr Mr Mr"), Step::Stop(vec![2, 3]));
    assert_eq!(stop("Sr Ir M. M."), Step::Stop(vec![1]), "also before its turn came");
    assert_eq!(stop("Sr Sr M0 M."), Step::Stop(vec![1]));
    assert_eq!(stop("Sr S0 M0 M0"), Step::Stop(vec![0]));
    assert_eq!(stop("I. S. M."), Step::End);
    let mut half = containers("Mr Mr");
    half[0].asked = true;
    assert_eq!(plan(&policy(No, 0), true, &half), Step::Stop(vec![1]));
}

fn ended(name: &str, code: i32) -> shim::ContainerStatus {
    shim::ContainerStatus {
        name: name.into(),
        state: State::Exited,
        exit: Some(Exit {
            code,
            at_ns: 2_000_000_000,
            ..Exit::default()
        }),
        last_started_ns: Some(1_000_000_000),
        starts: 1,
        ..shim::ContainerStatus::default()
    }
}

#[test]
fn the_first_that_failed_tells_how_it_ended() {
    use Role::*;
    let fresh = |name: &str| shim::ContainerStatus {
        name: name.into(),
        ..shim::ContainerStatus::default()
    };
    let code = |roles: &[Role], all: &[shim::ContainerStatus]| outcome(roles, all).code;
    assert_eq!(code(&[Main, Main], &[ended("a", 0), ended("b", 0)]), 0);
    assert_eq!(
        code(&[Sidecar, Main, Main], &[ended("s", 143), ended("a", 0), ended("b", 4)]),
        4
    );
    assert_eq!(code(&[Init, Main], &[ended("i", 3), fresh("a")]), 3);
    assert_eq!(
        code(&[Init, Main], &[ended("i", 0), fresh("a")]),
        0,
        "stopped before its turn"
    );
    let failed = outcome(&[Main], &[ended("a", 2)]);
    assert_eq!(failed.error.as_deref(), Some("container a: it ended with code 2"));
}

fn pod() -> InstanceSpec {
    serde_json::from_value(serde_json::json!({
        "image": "base",
        "initContainers": [{"name": "init"}, {"name": "side", "restartPolicy": "Always"}],
        "containers": [{"name": "web", "image": "nginx"}, {"name": "job"}],
        "restartPolicy": {"policy": "on-failure"},
    }))
    .unwrap()
}

#[test]
fn statuses_are_kubernetes() {
    let spec = pod();
    let mut all = vec![ended("init", 0), ended("side", 1), ended("web", 9), ended("job", 0)];
    all[1].state = State::Running;
    all[1].starts = 3;
    all[1].started_ns = Some(3_000_000_000);
    let mut seen = containers("I0 Sr M9 M0");
    seen[1].starts = 3;
    let before = BTreeMap::from([(
        "web".to_string(),
        ContainerStatus {
            image_id: "sha256:web".into(),
            ..ContainerStatus::default()
        },
    )]);
    let (init, main) = statuses(&spec, &all, &seen, &before, false);
    let line = |c: &ContainerStatus| {
        let last = c.last_termination.as_ref().map(|t| t.reason.clone());
        format!(
            "{} {} {} ready={} {last:?} {}",
            c.name,
            c.image,
            c.state.text(),
            c.ready,
            c.restart_count
        )
    };
    assert_eq!(line(&init[0]), "init base Terminated: Completed (0) ready=true None 0");
    assert_eq!(line(&init[1]), "side base Running ready=true Some(\"Error\") 2");
    assert_eq!(
        line(&main[0]),
        "web nginx Waiting: CrashLoopBackOff ready=false Some(\"Error\") 0"
    );
    assert_eq!(line(&main[1]), "job base Terminated: Completed (0) ready=false None 0");
    assert_eq!(main[0].image_id, "sha256:web");
    let (_, main) = statuses(&spec, &all, &seen, &before, true);
    assert_eq!(
        main[0].state.text(),
        "Terminated: Error (9)",
        "nothing is started any more"
    );
    let fresh: Vec<shim::ContainerStatus> = ["init", "side", "web", "job"]
        .map(|name| shim::ContainerStatus {
            name: name.into(),
            ..shim::ContainerStatus::default()
        })
        .into();
    let (init, main) = statuses(&spec, &fresh, &containers("I. S. M. M."), &before, false);
    assert_eq!(init[0].state.text(), "Waiting: PodInitializing");
    assert_eq!(main[0].state.text(), "Waiting: PodInitializing");
}

#[test]
fn a_lost_run_is_told_as_such() {
    let at = |s: i64| Timestamp::from_second(s).unwrap();
    let running = ContainerStatus {
        state: ContainerState::Running(Running {
            started_at: Some(at(100)),
        }),
        ready: true,
        pid: Some(1),
        ..ContainerStatus::default()
    };
    let after = |exit: Option<Exit>| {
        let mut s = running.clone();
        lost(&mut s, exit, at(200));
        s.state.text()
    };
    assert_eq!(after(None), "Terminated: Lost (137)");
    let written = |ns: u64| {
        Some(Exit {
            code: 4,
            at_ns: ns,
            ..Exit::default()
        })
    };
    assert_eq!(after(written(150_000_000_000)), "Terminated: Error (4)");
    assert_eq!(
        after(written(50_000_000_000)),
        "Terminated: Lost (137)",
        "that was an older run"
    );
}

proptest! {
    /// Whatever containers do, an instance that is to end comes to its end, each container asked once.
    #[test]
    fn winding_down_ends(words in proptest::collection::vec(0usize..9, 1..12)) {
        const WORDS: [&str; 9] = ["I.", "Ir", "I0", "S.", "Sr", "S1", "M.", "Mr", "M2"];
        let text: Vec<&str> = words.iter().map(|w| WORDS[*w]).collect();
        let mut seen = containers(&text.join(" "));
        for _ in 0..seen.len() * 2 + 1 {
            match plan(&RestartPolicy::default(), true, &seen) {
                Step::End => {
                    prop_assert!(seen.iter().all(|c| c.state != State::Running));
                    return Ok(());
                }
                Step::Stop(which) => for i in which {
                    prop_assert!(!seen[i].asked && seen[i].state == State::Running);
                    seen[i].asked = true;
                },
                Step::Rest => {
                    // One of those asked obeys.
                    let Some(c) = seen.iter_mut().find(|c| c.asked && c.state == State::Running) else {
                        return Err(TestCaseError::fail("rests for ever"));
                    };
                    c.state = State::Exited;
                }
                step => prop_assert!(false, "{step:?}"),
            }
        }
        prop_assert!(false, "never ends");
    }

    /// Under every policy that gives up, an instance whose programs all succeed at once runs each exactly once and ends.
    #[test]
    fn what_succeeds_runs_once(init in 0usize..4, main in 1usize..4) {
        let text = ["I."].repeat(init).into_iter().chain(["M."].repeat(main)).collect::<Vec<_>>().join(" ");
        for when in [RestartWhen::No, RestartWhen::OnFailure] {
            let mut seen = containers(&text);
            let mut order = Vec::new();
            loop {
                match plan(&policy(when, 0), false, &seen) {
                    Step::Start(i) => {
                        order.push(i);
                        seen[i].starts += 1;
                        (seen[i].state, seen[i].code) = (State::Exited, Some(0));
                    }
                    Step::End => break,
                    step => prop_assert!(false, "{step:?}"),
                }
            }
            prop_assert_eq!(order, (0..init + main).collect::<Vec<_>>());
        }
    }
}
