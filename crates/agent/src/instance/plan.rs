//! What to do next with one instance: a pure function of what is wanted and what is seen.
//!
//! The task that owns the instance calls [`plan`] after every change of either side and carries the one step out;
//! then it looks again. No clock, no I/O: time comes in as a number.

use biga_model::{Phase, Power, RestartPolicy, RestartWhen};

/// What is wanted, cut down to what decides.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    /// Desired power state.
    pub power: Power,
    /// `metadata.generation`.
    pub generation: i64,
    /// `spec.restartRequest`.
    pub restart_request: u64,
    /// What to do when it ends.
    pub restart_policy: RestartPolicy,
    /// Remove it when it ends.
    pub auto_remove: bool,
    /// Deletion was asked for.
    pub deleting: bool,
}

/// What is seen, cut down to what decides.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// Where it is.
    pub phase: Phase,
    /// The generation the phase answers.
    pub observed_generation: i64,
    /// The restart request that was carried out.
    pub observed_restart: u64,
    /// Exit code of the last run.
    pub exit_code: Option<i32>,
    /// How often the policy started it again.
    pub restart_count: u32,
    /// Whether the user stopped the last run.
    pub stopped_by_user: bool,
    /// Whether it has to be restarted because its health check failed.
    pub unhealthy: bool,
    /// Whether it is to rest whatever its policy: it was ended by a checkpoint, or could not go on from one.
    pub set_aside: bool,
    /// Whether a shim holds it.
    pub held: bool,
    /// Milliseconds until the next restart is due; 0 when it is.
    pub restart_due_ms: u64,
}

/// The next step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing: wait for a change.
    Rest,
    /// Wait so many milliseconds, then restart.
    Backoff(u64),
    /// Make image, volumes and names ready, run nothing.
    Prepare,
    /// Make all ready and run it. The reason says what for.
    Launch(LaunchReason),
    /// Ask it to end.
    Stop(StopReason),
    /// Freeze.
    Pause,
    /// Thaw.
    Resume,
    /// Undo the shim of an ended run.
    Reap,
    /// Undo everything and let the object go.
    Remove,
}

/// Why it is launched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LaunchReason {
    /// The user wants it to run.
    Wanted,
    /// The user asked for a restart.
    Requested,
    /// The restart policy.
    Policy,
}

/// Why it is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// The user wants it off.
    Wanted,
    /// To be started again.
    Restart,
    /// To be removed.
    Removal,
    /// Its health check failed, and it is restarted then.
    Unhealthy,
}

/// First delay of the restart back-off, doubled with every restart.
pub const FIRST_BACKOFF_MS: u64 = 100;
/// Longest delay of the restart back-off.
pub const LAST_BACKOFF_MS: u64 = 60_000;
/// A run as long as this ends the back-off.
pub const STABLE_MS: u64 = 10_000;

/// Delay before the `n`th restart in a row (from 0).
pub fn backoff_ms(n: u32) -> u64 {
    FIRST_BACKOFF_MS.saturating_mul(1 << n.min(20)).min(LAST_BACKOFF_MS)
}

/// The next step.
pub fn plan(wanted: &Wanted, seen: &Seen) -> Step {
    if wanted.deleting {
        return plan_removal(seen);
    }
    let restart = wanted.restart_request > seen.observed_restart && wanted.power != Power::Stopped;
    match seen.phase {
        Phase::Pending | Phase::Preparing => match wanted.power {
            Power::Stopped => Step::Prepare,
            _ => Step::Launch(LaunchReason::Wanted),
        },
        Phase::Created => match wanted.power {
            Power::Stopped => Step::Rest,
            _ => Step::Launch(LaunchReason::Wanted),
        },
        Phase::Starting | Phase::Running if restart => Step::Stop(StopReason::Restart),
        Phase::Paused if restart || wanted.power == Power::Stopped => Step::Resume,
        Phase::Starting => match wanted.power {
            Power::Stopped => Step::Stop(StopReason::Wanted),
            _ => Step::Rest,
        },
        Phase::Running => match wanted.power {
            Power::Running if seen.unhealthy => Step::Stop(StopReason::Unhealthy),
            Power::Running => Step::Rest,
            Power::Stopped => Step::Stop(StopReason::Wanted),
            Power::Paused => Step::Pause,
        },
        Phase::Paused => match wanted.power {
            Power::Paused => Step::Rest,
            _ => Step::Resume,
        },
        Phase::Stopping => Step::Rest,
        Phase::Exited | Phase::Failed if seen.held => Step::Reap,
        Phase::Exited | Phase::Failed => plan_ended(wanted, seen, restart),
        Phase::Removing => Step::Remove,
    }
}

fn plan_removal(seen: &Seen) -> Step {
    match seen.phase {
        Phase::Starting | Phase::Running => Step::Stop(StopReason::Removal),
        Phase::Paused => Step::Resume,
        Phase::Stopping => Step::Rest,
        _ => Step::Remove,
    }
}

fn plan_ended(wanted: &Wanted, seen: &Seen, restart: bool) -> Step {
    if restart {
        return Step::Launch(LaunchReason::Requested);
    }
    if wanted.power == Power::Stopped {
        return if wanted.auto_remove { Step::Remove } else { Step::Rest };
    }
    // The user turned it off and on again, or mended the spec of what had failed.
    if seen.stopped_by_user || (seen.phase == Phase::Failed && seen.observed_generation < wanted.generation) {
        return Step::Launch(LaunchReason::Wanted);
    }
    if seen.set_aside {
        return Step::Rest;
    }
    if !seen.unhealthy && !policy_restarts(&wanted.restart_policy, seen) {
        return if wanted.auto_remove { Step::Remove } else { Step::Rest };
    }
    match seen.restart_due_ms {
        0 => Step::Launch(LaunchReason::Policy),
        ms => Step::Backoff(ms),
    }
}

/// Whether the policy starts an instance again that ended by itself.
fn policy_restarts(policy: &RestartPolicy, seen: &Seen) -> bool {
    match policy.policy {
        RestartWhen::No => false,
        RestartWhen::Always | RestartWhen::UnlessStopped => true,
        RestartWhen::OnFailure => {
            let failed = seen.phase == Phase::Failed || seen.exit_code.unwrap_or(0) != 0;
            let left = policy.maximum_retry_count == 0 || seen.restart_count < policy.maximum_retry_count;
            failed && left
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wanted(power: Power) -> Wanted {
        Wanted {
            power,
            generation: 1,
            restart_request: 0,
            restart_policy: RestartPolicy::default(),
            auto_remove: false,
            deleting: false,
        }
    }

    fn seen(phase: Phase) -> Seen {
        Seen {
            phase,
            observed_generation: 1,
            observed_restart: 0,
            exit_code: None,
            restart_count: 0,
            stopped_by_user: false,
            unhealthy: false,
            set_aside: false,
            held: phase.is_live(),
            restart_due_ms: 0,
        }
    }

    /// One line a phase: the step for each wanted power, so that a change of the plan is read at a glance.
    #[test]
    fn the_plan_at_a_glance() {
        let mut text = String::new();
        for phase in Phase::ALL {
            let step = |p| format!("{:?}", plan(&wanted(p), &seen(phase)));
            let mut deleting = wanted(Power::Running);
            deleting.deleting = true;
            let mut restart = wanted(Power::Running);
            restart.restart_request = 1;
            text += &format!(
                "{phase:<10} on={} off={} paused={} restart={:?} delete={:?}\n",
                step(Power::Running),
                step(Power::Stopped),
                step(Power::Paused),
                plan(&restart, &seen(phase)),
                plan(&deleting, &seen(phase)),
            );
        }
        insta::assert_snapshot!(text);
    }

    #[test]
    fn policies_are_dockers() {
        use RestartWhen::*;
        let ended = |code, user| Seen {
            exit_code: Some(code),
            stopped_by_user: user,
            ..seen(Phase::Exited)
        };
        let with = |policy, max| Wanted {
            restart_policy: RestartPolicy {
                policy,
                maximum_retry_count: max,
            },
            ..wanted(Power::Running)
        };
        let again = Step::Launch(LaunchReason::Policy);
        assert_eq!(plan(&with(No, 0), &ended(1, false)), Step::Rest);
        assert_eq!(plan(&with(Always, 0), &ended(0, false)), again);
        assert_eq!(plan(&with(UnlessStopped, 0), &ended(0, false)), again);
        assert_eq!(plan(&with(OnFailure, 0), &ended(0, false)), Step::Rest);
        assert_eq!(plan(&with(OnFailure, 0), &ended(2, false)), again);
        let tired = Seen {
            restart_count: 3,
            ..ended(2, false)
        };
        assert_eq!(plan(&with(OnFailure, 3), &tired), Step::Rest);
        let mut off = with(Always, 0);
        off.power = Power::Stopped;
        assert_eq!(plan(&off, &ended(0, true)), Step::Rest, "a stopped one stays stopped");
        let mut rm = with(No, 0);
        rm.auto_remove = true;
        assert_eq!(plan(&rm, &ended(0, false)), Step::Remove);
        rm.power = Power::Stopped;
        assert_eq!(plan(&rm, &ended(143, true)), Step::Remove, "a stop is an end too");
        rm.restart_policy.policy = Always;
        assert_eq!(
            plan(&rm, &ended(143, true)),
            Step::Remove,
            "no policy starts what was stopped"
        );
    }

    #[test]
    fn an_unhealthy_one_is_restarted_whatever_its_policy() {
        let sick = |phase| Seen {
            unhealthy: true,
            ..seen(phase)
        };
        let mut w = wanted(Power::Running);
        w.auto_remove = true;
        assert_eq!(plan(&w, &sick(Phase::Running)), Step::Stop(StopReason::Unhealthy));
        let ended = Seen {
            held: false,
            ..sick(Phase::Exited)
        };
        assert_eq!(plan(&w, &ended), Step::Launch(LaunchReason::Policy));
        w.power = Power::Stopped;
        assert_eq!(plan(&w, &sick(Phase::Running)), Step::Stop(StopReason::Wanted));
        assert_eq!(plan(&w, &ended), Step::Remove);
    }

    #[test]
    fn what_was_set_aside_waits_for_the_user() {
        for phase in [Phase::Exited, Phase::Failed] {
            let mut s = seen(phase);
            (s.set_aside, s.exit_code) = (true, Some(137));
            let mut w = wanted(Power::Running);
            w.restart_policy.policy = RestartWhen::Always;
            assert_eq!(plan(&w, &s), Step::Rest, "no policy starts it anew");
            w.restart_request = 1;
            assert_eq!(plan(&w, &s), Step::Launch(LaunchReason::Requested));
            w.restart_request = 0;
            s.stopped_by_user = true;
            assert_eq!(plan(&w, &s), Step::Launch(LaunchReason::Wanted));
        }
    }

    #[test]
    fn backoff_grows_and_ends() {
        assert_eq!((backoff_ms(0), backoff_ms(1), backoff_ms(3)), (100, 200, 800));
        assert_eq!(backoff_ms(u32::MAX), LAST_BACKOFF_MS);
    }

    /// What a step makes of the phase when it succeeds.
    fn after(step: Step, phase: Phase) -> Option<Phase> {
        Some(match step {
            Step::Rest | Step::Backoff(_) | Step::Reap => return None,
            Step::Prepare => Phase::Created,
            Step::Launch(_) => Phase::Running,
            Step::Stop(_) => Phase::Exited,
            Step::Pause => Phase::Paused,
            Step::Resume if phase == Phase::Paused => Phase::Running,
            Step::Resume => return None,
            Step::Remove => Phase::Removing,
        })
    }

    proptest! {
        /// From every state, following the plan reaches rest (or removal) in a few steps: it never goes round in circles.
        #[test]
        fn the_plan_comes_to_rest(phase in 0usize..10, power in 0usize..3, deleting: bool, restart in 0u64..2, user: bool) {
            let powers = [Power::Running, Power::Stopped, Power::Paused];
            let mut w = wanted(powers[power]);
            w.deleting = deleting;
            w.restart_request = restart;
            let mut s = seen(Phase::ALL[phase]);
            s.stopped_by_user = user;
            for _ in 0..8 {
                let step = plan(&w, &s);
                if step == Step::Rest || s.phase == Phase::Removing {
                    return Ok(());
                }
                match step {
                    Step::Reap => s.held = false,
                    Step::Launch(_) => { s.observed_restart = w.restart_request; s.stopped_by_user = false; s.held = true }
                    Step::Stop(r) => { s.held = false; s.stopped_by_user = r == StopReason::Wanted }
                    _ => {}
                }
                s.observed_generation = w.generation;
                if let Some(next) = after(step, s.phase) {
                    s.phase = next;
                }
            }
            prop_assert!(false, "no rest from {:?} under {:?}", s, w);
        }
    }
}
