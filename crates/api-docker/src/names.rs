//! Names for containers that were given none.

const FIRST: &[&str] = &[
    "able", "agile", "amber", "ample", "astute", "bold", "brave", "bright", "calm", "candid", "clever", "crisp",
    "deft", "eager", "fair", "fresh", "gentle", "glad", "golden", "hardy", "honest", "jolly", "keen", "kind", "lively",
    "loyal", "lucid", "merry", "neat", "nimble", "noble", "patient", "proud", "quick", "quiet", "rapid", "sage",
    "steady", "swift", "vivid", "warm", "wise",
];
const SECOND: &[&str] = &[
    "anchor", "arrow", "badger", "beacon", "birch", "bison", "brook", "canyon", "cedar", "cliff", "comet", "condor",
    "crane", "dune", "eagle", "ember", "falcon", "fern", "finch", "fjord", "fox", "garnet", "glade", "grove", "hare",
    "heron", "iris", "island", "jasper", "kite", "lake", "lark", "linden", "lynx", "maple", "moss", "otter", "owl",
    "pebble", "quartz", "raven", "reef", "robin", "slate", "stag", "willow", "wren",
];

/// A name such as `quiet_otter`; from the `attempt`th on with a number, so that one is found however many there are.
pub(crate) fn random(attempt: usize) -> String {
    let bytes = uuid::Uuid::new_v4().into_bytes();
    let pick = |list: &[&'static str], hi: u8, lo: u8| list[usize::from(u16::from_be_bytes([hi, lo])) % list.len()];
    let name = format!(
        "{}_{}",
        pick(FIRST, bytes[0], bytes[1]),
        pick(SECOND, bytes[2], bytes[3])
    );
    match attempt {
        0..3 => name,
        _ => format!("{name}{}", u16::from_be_bytes([bytes[4], bytes[5]])),
    }
}
