//! The states of an instance and the legal moves between them.
//!
//! ```text
//!            ┌────────────────────────── Failed ◄──────────────┐
//!            │ (spec changed, retried)      ▲                  │
//!            ▼                              │                  │
//!  Pending ──► Preparing ──► Created ──► Starting ──► Running ─┤
//!     ▲            (image, volumes,         ▲      ▲   │   │   │
//!     │             network, rootfs)        │      └───┘   ▼   │
//!     │                                     │  (re-adopt) Paused
//!     └──────────────── Exited ◄────────────┴────── Stopping ◄─┘
//!
//!  every state ──► Removing ──► (gone)
//! ```

use serde::{Deserialize, Serialize};

/// Where an instance is in its life. Docker's words are in brackets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Phase {
    /// Accepted, not yet looked at by a node. [created]
    #[default]
    Pending,
    /// Image, volumes and network are being made ready. [created]
    Preparing,
    /// All is ready, nothing runs. [created]
    Created,
    /// The shim is up; the entrypoint or the guest is on its way. [created]
    Starting,
    /// The entrypoint or the machine runs. [running]
    Running,
    /// All its processes or processors are frozen. [paused]
    Paused,
    /// Asked to stop, grace runs. [running]
    Stopping,
    /// It ended by itself or was stopped. [exited]
    Exited,
    /// It could not be made or started; `status.message` says why. [dead]
    Failed,
    /// Being removed. [removing]
    Removing,
}

impl Phase {
    /// Every phase, for tests and completion.
    pub const ALL: [Phase; 10] = [
        Phase::Pending,
        Phase::Preparing,
        Phase::Created,
        Phase::Starting,
        Phase::Running,
        Phase::Paused,
        Phase::Stopping,
        Phase::Exited,
        Phase::Failed,
        Phase::Removing,
    ];

    /// Whether the move from `self` to `next` is legal.
    pub fn may_become(self, next: Phase) -> bool {
        use Phase::*;
        if next == Removing || self == next {
            return true;
        }
        match self {
            Pending => matches!(next, Preparing | Failed),
            Preparing => matches!(next, Created | Starting | Failed | Pending),
            Created => matches!(next, Starting | Preparing | Failed),
            Starting => matches!(next, Running | Exited | Failed | Stopping),
            Running => matches!(next, Paused | Stopping | Exited | Failed),
            Paused => matches!(next, Running | Stopping | Exited | Failed),
            Stopping => matches!(next, Exited | Failed),
            Exited => matches!(next, Pending | Preparing | Created | Starting | Failed),
            Failed => matches!(next, Pending | Preparing | Created | Starting | Exited),
            Removing => false,
        }
    }

    /// Whether processes of the instance exist.
    pub fn is_live(self) -> bool {
        matches!(self, Phase::Starting | Phase::Running | Phase::Paused | Phase::Stopping)
    }

    /// Whether it came to an end and stays there until somebody starts it.
    pub fn is_ended(self) -> bool {
        matches!(self, Phase::Exited | Phase::Failed)
    }

    /// As it stands in JSON and in tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Pending => "Pending",
            Phase::Preparing => "Preparing",
            Phase::Created => "Created",
            Phase::Starting => "Starting",
            Phase::Running => "Running",
            Phase::Paused => "Paused",
            Phase::Stopping => "Stopping",
            Phase::Exited => "Exited",
            Phase::Failed => "Failed",
            Phase::Removing => "Removing",
        }
    }
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removal_is_always_legal_and_final() {
        for p in Phase::ALL {
            assert!(p.may_become(Phase::Removing), "{p}");
            assert_eq!(Phase::Removing.may_become(p), p == Phase::Removing, "{p}");
        }
    }

    #[test]
    fn nothing_runs_without_starting() {
        for p in Phase::ALL {
            if p.may_become(Phase::Running) && p != Phase::Running {
                assert!(p.is_live(), "{p} is not live and may become Running");
            }
        }
    }
}
