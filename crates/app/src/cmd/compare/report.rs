//! Medians, as a table and as JSON.

use biga_model::{Isolation, Memory, NodeStatus};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::measure::Sample;
use super::probe::{Outcome, PROBES};
use crate::output::TextTable;

/// The whole comparison.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    image: String,
    rounds: u32,
    host: Value,
    isolations: Vec<Column>,
    /// What the figures are, by their key.
    explanations: Map<String, Value>,
    notes: Vec<String>,
}

/// One isolation.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Column {
    isolation: Isolation,
    accelerator: String,
    shared_kernel: bool,
    seccomp: Option<bool>,
    /// Whether its figures may be held against the others'.
    comparable: bool,
    rounds: usize,
    medians: Value,
    /// Of the work inside: how many times the container's figure.
    relative: Map<String, Value>,
    failures: Vec<String>,
    #[serde(skip)]
    samples: Vec<Sample>,
}

const EMULATED: &str = "emulated (TCG): its figures say nothing of what it costs with KVM";

impl Report {
    /// An empty report.
    pub fn new(image: &str, rounds: u32, node: &NodeStatus) -> Report {
        let mut explanations = Map::new();
        for (k, v) in [
            (
                "startNs",
                "from the request to the entrypoint's first instruction (a machine's: until its guest agent runs a program); nanoseconds",
            ),
            (
                "startCpuNs",
                "CPU time until then of the daemon, the shim, its helpers and QEMU; kernel threads are not in it; nanoseconds",
            ),
            (
                "memoryBytes",
                "proportional memory of the shim and all processes below it, without pages of files",
            ),
            ("kernelBytes", "memory the kernel spends for it, as its cgroup says"),
            (
                "hostMemoryBytes",
                "the two above together: what the host pays, pages of files apart",
            ),
            (
                "filePageBytes",
                "proportional memory that is pages of files: programs and the image; a guest's own page cache counts as memory",
            ),
            (
                "diskBytes",
                "blocks in the instance's state directory; the image is shared and not in it",
            ),
        ] {
            explanations.insert(k.into(), v.into());
        }
        for p in &PROBES {
            explanations.insert(format!("{}Ns", p.key), format!("{}; nanoseconds", p.what).into());
        }
        Report {
            image: image.into(),
            rounds,
            host: json!({"cpus": node.cpus, "memory": node.memory, "kernel": node.kernel, "accelerator": node.accelerator}),
            isolations: Vec::new(),
            explanations,
            notes: Vec::new(),
        }
    }

    fn column(&mut self, isolation: Isolation) -> &mut Column {
        let at = self.isolations.iter().position(|c| c.isolation == isolation);
        let at = at.unwrap_or_else(|| {
            self.isolations.push(Column {
                isolation,
                accelerator: String::new(),
                shared_kernel: isolation == Isolation::Container,
                seccomp: None,
                comparable: true,
                rounds: 0,
                medians: Value::Null,
                relative: Map::new(),
                failures: Vec::new(),
                samples: Vec::new(),
            });
            self.isolations.len() - 1
        });
        &mut self.isolations[at]
    }

    /// Adds a measured start.
    pub fn add(&mut self, isolation: Isolation, sample: Sample) {
        let c = self.column(isolation);
        c.accelerator = sample.accelerator.clone();
        c.comparable = sample.accelerator != "tcg";
        c.seccomp = sample.seccomp;
        c.samples.push(sample);
        c.rounds = c.samples.len();
        c.medians = medians(&c.samples);
        if !c.comparable {
            self.note(format!("{isolation}: {EMULATED}"));
        }
        self.relate();
    }

    /// Says something about the whole, once.
    pub fn note(&mut self, text: String) {
        if !self.notes.contains(&text) {
            self.notes.push(text);
        }
    }

    /// Holds the work inside each against the same work in the container.
    fn relate(&mut self) {
        let Some(base) = self
            .isolations
            .iter()
            .find(|c| c.shared_kernel)
            .map(|c| c.medians.clone())
        else {
            return;
        };
        for c in self.isolations.iter_mut().filter(|c| !c.shared_kernel) {
            let keys = PROBES.iter().map(|p| format!("{}Ns", p.key));
            c.relative = keys
                .filter_map(|k| {
                    let (own, base) = (c.medians[&k].as_f64()?, base[&k].as_f64().filter(|b| *b > 0.0)?);
                    let times = (own / base * 100.0).round() / 100.0;
                    Some((k, json!(times)))
                })
                .collect();
        }
    }

    /// Notes a start that failed.
    pub fn fail(&mut self, isolation: Isolation, why: String) {
        let c = self.column(isolation);
        if !c.failures.contains(&why) {
            c.failures.push(why);
        }
    }

    /// Whether every isolation gave figures.
    pub fn complete(&self) -> bool {
        self.isolations.iter().all(|c| c.rounds > 0)
    }

    /// A row for each figure, a column for each isolation.
    pub fn render(&self) -> String {
        let mut t = TextTable::new(std::iter::once(format!("median of {}", self.rounds)).chain(
            self.isolations.iter().map(|c| match c.accelerator.as_str() {
                "" => c.isolation.to_string(),
                "tcg" => format!("{}, emulated", c.isolation),
                a => format!("{} ({a})", c.isolation),
            }),
        ));
        for (key, title, show) in rows() {
            let cells = self.isolations.iter().map(|c| match c.medians[&key].as_u64() {
                Some(n) => match c.relative.get(&key).and_then(Value::as_f64) {
                    Some(times) => format!("{} (x{times:.1})", show(n)),
                    None => show(n),
                },
                None => "--".into(),
            });
            t.row(std::iter::once(title).chain(cells));
        }
        let words =
            |f: &dyn Fn(&Column) -> &'static str| self.isolations.iter().map(|c| f(c).to_string()).collect::<Vec<_>>();
        let add = |t: &mut TextTable, title: &str, cells: Vec<String>| {
            t.row(std::iter::once(title.to_string()).chain(cells));
        };
        add(
            &mut t,
            "kernel",
            words(&|c| if c.shared_kernel { "the host's" } else { "its own" }),
        );
        add(
            &mut t,
            "system call filter",
            words(&|c| match (c.seccomp, c.shared_kernel) {
                (Some(true), true) => "on the process",
                (Some(true), false) => "on QEMU",
                (Some(false), _) => "none",
                (None, _) => "--",
            }),
        );
        add(
            &mut t,
            "processor",
            words(&|c| match (c.accelerator.as_str(), c.shared_kernel) {
                ("", true) => "the host's",
                ("kvm", _) => "the host's (KVM)",
                ("tcg", _) => "emulated (TCG)",
                _ => "--",
            }),
        );
        let mut out = t.render();
        out.push_str("\n(x…): times the container's figure\n");
        for n in &self.notes {
            out.push_str(&format!("{n}\n"));
        }
        for c in &self.isolations {
            for f in c.failures.iter().chain(&probe_failures(&c.samples)) {
                out.push_str(&format!("{}: {f}\n", c.isolation));
            }
        }
        out.push_str("\nWhat was measured:\n");
        for (key, title, _) in rows() {
            if let Some(text) = self.explanations.get(&key).and_then(Value::as_str) {
                out.push_str(&format!("  {title}: {}\n", text.trim_end_matches("; nanoseconds")));
            }
        }
        out
    }
}

type Show = fn(u64) -> String;

/// Key, title and spelling of each figure.
fn rows() -> Vec<(String, String, Show)> {
    let bytes: Show = |n| Memory(n).human();
    let mut rows: Vec<(String, String, Show)> = vec![
        ("startNs".into(), "start".into(), duration),
        ("startCpuNs".into(), "CPU to start".into(), duration),
        ("memoryBytes".into(), "process memory".into(), bytes),
        ("kernelBytes".into(), "kernel memory".into(), bytes),
        ("hostMemoryBytes".into(), "memory in all".into(), bytes),
        ("filePageBytes".into(), "file pages".into(), bytes),
        ("diskBytes".into(), "disk used".into(), bytes),
    ];
    rows.extend(
        PROBES
            .iter()
            .map(|p| (format!("{}Ns", p.key), p.title.to_string(), duration as Show)),
    );
    rows
}

/// Three digits and a unit.
fn duration(ns: u64) -> String {
    let (v, unit) = match ns {
        0..1_000 => return format!("{ns} ns"),
        1_000..1_000_000 => (ns as f64 / 1e3, "µs"),
        1_000_000..1_000_000_000 => (ns as f64 / 1e6, "ms"),
        _ => (ns as f64 / 1e9, "s"),
    };
    match v {
        v if v < 10.0 => format!("{v:.2} {unit}"),
        v if v < 100.0 => format!("{v:.1} {unit}"),
        v => format!("{v:.0} {unit}"),
    }
}

fn medians(samples: &[Sample]) -> Value {
    let of = |f: &dyn Fn(&Sample) -> Option<u64>| median(samples.iter().filter_map(f).collect());
    let mut m = Map::new();
    let mut set = |k: &str, v: Option<u64>| {
        m.insert(k.into(), json!(v));
    };
    set("startNs", of(&|s| s.start_ns));
    set("startCpuNs", of(&|s| Some(s.cpu_ns)));
    set("memoryBytes", of(&|s| s.memory));
    set("kernelBytes", of(&|s| s.kernel_memory));
    set("hostMemoryBytes", of(&Sample::host_memory));
    set("filePageBytes", of(&|s| s.file_pages));
    set("diskBytes", of(&|s| s.disk));
    for p in &PROBES {
        let v = of(&|s| match s.probes.as_ref()?.get(p.key)? {
            Outcome::Took(n) => Some(*n),
            Outcome::Failed(_) => None,
        });
        set(&format!("{}Ns", p.key), v);
    }
    m.into()
}

/// The middle one; of two middle ones their mean.
fn median(mut all: Vec<u64>) -> Option<u64> {
    all.sort_unstable();
    let n = all.len();
    match n {
        0 => None,
        n if n % 2 == 1 => Some(all[n / 2]),
        n => Some(all[n / 2 - 1].midpoint(all[n / 2])),
    }
}

fn probe_failures(samples: &[Sample]) -> Vec<String> {
    let mut out = Vec::new();
    for (key, outcome) in samples.iter().filter_map(|s| s.probes.as_ref()).flatten() {
        if let Outcome::Failed(why) = outcome {
            let text = format!("probe {key}: {why}");
            if !out.contains(&text) {
                out.push(text);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cmd::compare::probe::Probes;

    fn sample(start_ms: u64, accelerator: &str) -> Sample {
        let mut probes = Probes::new();
        probes.insert("exec", Outcome::Took(3_100_000));
        probes.insert("cpu", Outcome::Took(start_ms * 10_000_000));
        probes.insert("network", Outcome::Failed("it ended with code 1".into()));
        Sample {
            start_ns: Some(start_ms * 1_000_000),
            cpu_ns: start_ms * 500_000,
            memory: Some(900 << 10),
            file_pages: Some(1 << 20),
            kernel_memory: None,
            disk: Some(40 << 10),
            seccomp: Some(accelerator.is_empty()),
            accelerator: accelerator.into(),
            probes: Some(probes),
        }
    }

    #[test]
    fn medians_stand_side_by_side() {
        let node = NodeStatus::default();
        let mut r = Report::new("busybox", 3, &node);
        for ms in [12, 10, 500] {
            r.add(Isolation::Container, sample(ms, ""));
            r.add(Isolation::Microvm, sample(ms * 100, "tcg"));
        }
        r.fail(Isolation::Vm, "no such image".into());
        insta::assert_snapshot!("compare", r.render());
        assert!(!r.complete());
        let v = serde_json::to_value(&r).unwrap();
        assert_eq!(v["isolations"][0]["medians"]["startNs"], 12_000_000);
        assert_eq!(v["isolations"][1]["comparable"], false);
        assert_eq!(v["isolations"][0]["medians"]["networkNs"], Value::Null);
        assert_eq!(v["isolations"][0]["relative"], json!({}));
        assert_eq!(v["isolations"][1]["relative"], json!({"execNs": 1.0, "cpuNs": 100.0}));
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![9, 1, 5]), Some(5));
        assert_eq!(median(vec![4, 2]), Some(3));
        assert_eq!(median(vec![u64::MAX, u64::MAX]), Some(u64::MAX));
    }

    #[test]
    fn durations_have_three_digits() {
        for (ns, text) in [
            (999, "999 ns"),
            (1_500, "1.50 µs"),
            (12_345_678, "12.3 ms"),
            (1_520_000_000, "1.52 s"),
        ] {
            assert_eq!(duration(ns), text);
        }
    }
}
