//! Forgetting old history: watches resume within five minutes, and after that list again.

use std::collections::VecDeque;

use biga_model::Timestamp;

use crate::action::Action;

/// Seconds of history that are kept.
pub const KEPT_SECONDS: i64 = 300;

/// Revisions and when they were seen, the oldest first.
pub type Marks = VecDeque<(Timestamp, u64)>;

/// Compacts to the newest revision that was seen long enough ago; `done` is the last compaction.
pub fn plan(marks: &Marks, done: u64, now: Timestamp) -> Option<Action> {
    let old = |(at, _): &&(Timestamp, u64)| now.as_second() - at.as_second() >= KEPT_SECONDS;
    let (_, revision) = marks.iter().rev().find(old)?;
    (*revision > done).then_some(Action::Compact { revision: *revision })
}
