//! `biga doctor`: what this host offers and lacks, and what each lack costs.

use std::path::PathBuf;

use biga_model::{Ability, AbilityState};

use crate::exit::Code;
use crate::output::{Colour, Format, OutputArgs, TextTable, clean, colours, emit, json, line, paint, yaml};

/// Arguments of `doctor`.
#[derive(Debug, clap::Args)]
pub struct DoctorArgs {
    #[command(flatten)]
    output: OutputArgs,
    /// Where the daemon keeps its state: its disk and its guest kernel are looked at
    #[arg(long, value_name = "DIR", default_value = "/var/lib/biga")]
    state: PathBuf,
}

/// Prints what was found. The code is 1 where something is missing.
pub fn doctor(args: &DoctorArgs) -> anyhow::Result<Code> {
    // Without the daemon: whoever has trouble starting it needs this most.
    let kvm = biga_agent::hypervisor::Hypervisors::new(args.state.clone());
    let found = biga_agent::node::abilities(args.state.clone(), || kvm.try_kvm());
    match args.output.get() {
        Format::Json => emit(&json(&found)?)?,
        Format::Yaml => emit(&yaml(&found)?)?,
        Format::Name => found.iter().try_for_each(|a| line(&a.name))?,
        Format::Table | Format::Wide => emit(&render(&found, colours()))?,
    }
    Ok(code(&found))
}

/// 1 where something is missing.
fn code(found: &[Ability]) -> Code {
    if found.iter().any(|a| a.state == AbilityState::Missing) {
        Code::FAILED
    } else {
        Code::OK
    }
}

/// A table of all, then what each lack costs and what to do about it.
fn render(found: &[Ability], colour: bool) -> String {
    let mut t = TextTable::new(["Ability", "State", "Found"]);
    for a in found {
        let (word, c) = match a.state {
            AbilityState::Ok => ("ok", Colour::Green),
            AbilityState::Degraded => ("degraded", Colour::Yellow),
            AbilityState::Missing => ("missing", Colour::Red),
        };
        t.row([a.name.as_str(), &paint(word, c, colour), &a.detail]);
    }
    let mut out = t.render();
    for a in found.iter().filter(|a| a.state != AbilityState::Ok) {
        out.push_str(&format!("\n{}: {}\n", clean(&a.name), clean(&a.cost)));
        if !a.remedy.is_empty() {
            out.push_str(&format!("  → {}\n", clean(&a.remedy)));
        }
    }
    let count = |s: AbilityState| found.iter().filter(|a| a.state == s).count();
    out.push_str(&format!(
        "\n{} ok, {} degraded, {} missing\n",
        count(AbilityState::Ok),
        count(AbilityState::Degraded),
        count(AbilityState::Missing)
    ));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ability(name: &str, state: AbilityState, detail: &str, cost: &str, remedy: &str) -> Ability {
        Ability {
            name: name.into(),
            state,
            detail: detail.into(),
            cost: cost.into(),
            remedy: remedy.into(),
        }
    }

    #[test]
    fn lacks_are_explained() {
        let found = [
            ability("erofs", AbilityState::Ok, "mounts from a file", "", ""),
            ability(
                "kvm",
                AbilityState::Degraded,
                "/dev/kvm opens, but runs no guest",
                "machines run under the emulator: ten times slower",
                "enable nested virtualisation",
            ),
            ability(
                "nft",
                AbilityState::Missing,
                "",
                "no published ports",
                "apt install nftables",
            ),
        ];
        insta::assert_snapshot!("doctor", render(&found, false));
        assert_eq!(code(&found), Code::FAILED);
        assert_eq!(code(&found[..2]), Code::OK);
        assert!(render(&found, true).contains("\x1b[31mmissing\x1b[0m"));
    }
}
