//! Events are kept for an hour.

use biga_model::Timestamp;

use crate::action::Action;
pub use crate::view::SeenEvent;

/// Seconds that an event is kept after it last happened.
pub const KEPT_SECONDS: i64 = 3600;
/// At most so many events are kept, the newest: a crash loop must not fill the store.
pub const MAX_EVENTS: usize = 5000;

/// Which events go.
pub fn plan<'a>(events: impl Iterator<Item = &'a SeenEvent>, now: Timestamp) -> Vec<Action> {
    let mut newest_first: Vec<&SeenEvent> = events.collect();
    newest_first.sort_by(|a, b| b.time.cmp(&a.time).then_with(|| a.id.cmp(&b.id)));
    newest_first
        .into_iter()
        .enumerate()
        .filter(|(i, e)| *i >= MAX_EVENTS || now.as_second() - e.time.as_second() >= KEPT_SECONDS)
        .map(|(_, e)| Action::Delete { id: e.id.clone() })
        .collect()
}
