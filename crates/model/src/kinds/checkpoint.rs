//! Names of checkpoints, and which instances have them.

use super::instance_validate::Errors;
use crate::InstanceSpec;

/// Longest name of a checkpoint.
const MAX_NAME: usize = 128;

/// What is wrong with a checkpoint's name, if anything: it becomes the name of a directory.
pub fn checkpoint_name_fault(name: &str) -> Option<String> {
    let begins = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    (!begins || name.len() > MAX_NAME || !name.chars().all(plain)).then(|| {
        format!(
            "{name:?} is no name of a checkpoint: it begins with a letter or a digit, has only letters, digits and . _ - in it, and \
             at most {MAX_NAME} of them"
        )
    })
}

pub(super) fn validate(spec: &InstanceSpec, e: &mut Errors) {
    const AT: &str = "spec.restoreFrom";
    let Some(name) = &spec.restore_from else { return };
    if let Some(why) = checkpoint_name_fault(name) {
        e.add(AT, why);
    }
    if spec.isolation.is_virtual() || spec.is_pod() {
        e.add(AT, "is for containers of one program: nothing else has checkpoints");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_names_of_directories() {
        for good in ["a", "7", "before-update_2.1"] {
            assert_eq!(checkpoint_name_fault(good), None, "{good}");
        }
        let long = "x".repeat(MAX_NAME + 1);
        for bad in ["", ".", "..", ".a", "-x", "a/b", "a b", "\u{e4}", "a\n", &long] {
            assert!(checkpoint_name_fault(bad).is_some(), "{bad:?}");
        }
    }
}
