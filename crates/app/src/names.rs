//! Names: made up for new instances, and close ones for typing errors.

const ADJECTIVES: &[&str] = &[
    "able", "agile", "amber", "ample", "apt", "astute", "azure", "bold", "brave", "brief", "bright", "brisk", "calm",
    "candid", "clear", "clever", "coral", "cosy", "crisp", "deft", "eager", "early", "fair", "fleet", "fond", "frank",
    "fresh", "gentle", "glad", "golden", "grand", "hardy", "honest", "humble", "ideal", "jolly", "keen", "kind",
    "lively", "loyal", "lucid", "merry", "mild", "neat", "nimble", "noble", "patient", "plain", "proud", "quick",
    "quiet", "rapid", "ready", "rosy", "royal", "sage", "silver", "smooth", "solid", "steady", "swift", "tidy",
    "vivid", "warm", "wise", "witty", "zesty",
];
const NOUNS: &[&str] = &[
    "anchor", "arrow", "badger", "beacon", "birch", "bison", "bridge", "brook", "canyon", "cedar", "chariot", "cliff",
    "cobalt", "comet", "condor", "crane", "dune", "eagle", "ember", "falcon", "fern", "finch", "fjord", "forge", "fox",
    "gale", "garnet", "glade", "grove", "harbour", "hare", "hawk", "heron", "horse", "iris", "island", "jasper",
    "kite", "lake", "lark", "linden", "lynx", "maple", "meadow", "moss", "oak", "ocean", "onyx", "orchid", "otter",
    "owl", "pebble", "pine", "quartz", "raven", "reef", "river", "robin", "slate", "sparrow", "spruce", "stag",
    "summit", "swan", "thistle", "tiger", "valley", "willow", "wren",
];

/// A name such as `quiet-otter`.
pub fn random() -> String {
    let r = random_number();
    let pick = |list: &[&'static str], n: u32| list[n as usize % list.len()];
    let [hi, lo] = [(r >> 32) as u32, r as u32];
    format!("{}-{}", pick(ADJECTIVES, hi), pick(NOUNS, lo))
}

fn random_number() -> u64 {
    // The standard library seeds each of these from the kernel's random numbers.
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}

/// The candidate that `word` was probably meant to be.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let far = (word.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|c| (distance(word, c), c))
        .filter(|(d, c)| *d <= far || (word.len() >= 3 && c.starts_with(word)))
        .min_by_key(|(d, _)| *d)
        .map(|(_, c)| c)
}

/// How many letters must be put in, taken out, changed or swapped with the next.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    for (j, c) in rows[0].iter_mut().enumerate() {
        *c = j;
    }
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let change = usize::from(a[i - 1] != b[j - 1]);
            let mut d = (rows[i - 1][j] + 1)
                .min(rows[i][j - 1] + 1)
                .min(rows[i - 1][j - 1] + change);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                d = d.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = d;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_up_names_are_valid_and_differ() {
        let names: std::collections::BTreeSet<String> = (0..200).map(|_| random()).collect();
        assert!(names.len() > 100, "{names:?}");
        assert!(names.iter().all(|n| biga_model::kind::is_resource_name(n)));
    }

    #[test]
    fn typing_errors_are_understood() {
        let all = ["web", "database", "worker-1", "worker-2"];
        assert_eq!(nearest("wbe", all), Some("web"));
        assert_eq!(nearest("databse", all), Some("database"));
        assert_eq!(nearest("data", all), Some("database"));
        assert_eq!(nearest("worker1", all), Some("worker-1"));
        assert_eq!(nearest("mail", all), None);
    }
}
