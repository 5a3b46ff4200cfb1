//! What a build shows: lines, or on a terminal one line a step with the time it took, and below the one at work what it writes.

use std::time::{Duration, Instant};

use biga_wire::build::Event;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::output::{clean, draws, note};

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Progress {
    /// Live on a terminal
    Auto,
    /// Lines
    Plain,
}

/// Bytes of a step's output that are kept for the case that it fails.
const KEPT: usize = 256 << 10;
/// Bytes of the end of its output that are looked at for them.
const SHOWN: usize = 2 << 10;
/// Lines of output below a step.
const BELOW: usize = 4;

/// Shows a build.
pub struct View {
    quiet: bool,
    live: Option<Live>,
}

struct Live {
    bars: MultiProgress,
    step: Option<Step>,
    last: String,
}

struct Step {
    bar: ProgressBar,
    below: ProgressBar,
    title: String,
    since: Instant,
    cached: bool,
    output: String,
}

impl View {
    /// A view on standard error.
    pub fn new(progress: Progress, quiet: bool) -> View {
        let live = progress == Progress::Auto && !quiet && draws();
        View {
            quiet,
            live: live.then(|| Live {
                bars: MultiProgress::new(),
                step: None,
                last: String::new(),
            }),
        }
    }

    /// Shows what happened.
    pub fn show(&mut self, event: Event) {
        match &mut self.live {
            _ if self.quiet => {}
            Some(live) => live.show(event),
            None => plain(event),
        }
    }

    /// It is done.
    pub fn done(&mut self) {
        if let Some(live) = &mut self.live {
            live.end_step(true);
        }
    }

    /// It failed: what the step wrote is shown in full.
    pub fn failed(&mut self) {
        if let Some(live) = &mut self.live {
            let output = live.step.as_ref().map(|s| s.output.clone()).unwrap_or_default();
            live.end_step(false);
            for line in output.lines() {
                note(clean(line));
            }
        }
    }
}

fn plain(event: Event) {
    match event {
        Event::Step {
            number, total, text, ..
        } => note(format!("Step {number}/{total} : {}", clean(&text))),
        Event::Cached => note(" ---> Using cache"),
        // Programs that draw do so on terminals only, and this may be one all the same.
        Event::Output { text, .. } => text.lines().for_each(|l| note(clean(l))),
        Event::Made { image } => note(format!(" ---> {}", short(&image))),
        Event::Note { text } => note(clean(&text)),
        Event::Built { image } => note(format!("built {}", short(&image))),
        Event::Tagged { name } => note(format!("named {name}")),
        Event::Of { event, .. } => plain(*event),
        Event::Running { .. } | Event::Removed { .. } | Event::Pulling { .. } | Event::Broken => {}
    }
}

fn short(image: &str) -> &str {
    let hex = image.strip_prefix("sha256:").unwrap_or(image);
    hex.get(..12).unwrap_or(hex)
}

impl Live {
    fn show(&mut self, event: Event) {
        match event {
            Event::Step {
                number, total, text, ..
            } => {
                self.end_step(true);
                self.begin(format!("[{number}/{total}] {}", clean(&text)));
            }
            Event::Cached => {
                if let Some(step) = &mut self.step {
                    step.cached = true;
                }
            }
            Event::Output { text, .. } => {
                if let Some(step) = &mut self.step {
                    step.write(&text);
                }
            }
            Event::Pulling { reference, progress: p } => {
                if let Some(step) = &mut self.step {
                    let part = p.part.strip_prefix("sha256:").unwrap_or(&p.part);
                    let part = part.get(..12).unwrap_or(part);
                    step.below
                        .set_message(format!("    {reference} {part} {} {}/{}", p.action, p.done, p.total));
                }
            }
            Event::Note { text } => drop(self.bars.println(clean(&text))),
            Event::Built { image } => {
                self.end_step(true);
                self.last = format!("built {}", short(&image));
                drop(self.bars.println(&self.last));
            }
            Event::Tagged { name } => drop(self.bars.println(format!("named {name}"))),
            Event::Of { event, .. } => self.show(*event),
            Event::Broken | Event::Running { .. } | Event::Removed { .. } | Event::Made { .. } => {}
        }
    }

    fn begin(&mut self, title: String) {
        let bar = self.bars.add(ProgressBar::new_spinner());
        if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg} {elapsed}") {
            bar.set_style(style);
        }
        bar.set_message(title.clone());
        bar.enable_steady_tick(Duration::from_millis(120));
        let below = self.bars.add(ProgressBar::new_spinner());
        if let Ok(style) = ProgressStyle::with_template("{wide_msg}") {
            below.set_style(style);
        }
        self.step = Some(Step {
            bar,
            below,
            title,
            since: Instant::now(),
            cached: false,
            output: String::new(),
        });
    }

    fn end_step(&mut self, good: bool) {
        let Some(step) = self.step.take() else { return };
        step.below.finish_and_clear();
        step.bar.finish_and_clear();
        let took = step.since.elapsed().as_secs_f64();
        let line = match (good, step.cached) {
            (false, _) => format!("✗ {} {took:.1}s", step.title),
            (true, true) => format!("= {} cached", step.title),
            (true, false) => format!("✓ {} {took:.1}s", step.title),
        };
        drop(self.bars.println(line));
    }
}

impl Step {
    fn write(&mut self, text: &str) {
        self.output.push_str(text);
        if self.output.len() > KEPT {
            let cut = self.output.len() - KEPT / 2;
            let cut = (cut..self.output.len()).find(|i| self.output.is_char_boundary(*i));
            self.output.drain(..cut.unwrap_or(0));
        }
        let from = self.output.len().saturating_sub(SHOWN);
        let from = (from..=self.output.len()).find(|i| self.output.is_char_boundary(*i));
        let lines: Vec<&str> = self.output[from.unwrap_or(0)..].lines().collect();
        let last = lines[lines.len().saturating_sub(BELOW)..]
            .iter()
            .map(|l| format!("    {}", clean(l)));
        self.below.set_message(last.collect::<Vec<_>>().join("\n"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_live_view_keeps_the_end_of_long_output() {
        let mut live = Live {
            bars: MultiProgress::with_draw_target(indicatif::ProgressDrawTarget::hidden()),
            step: None,
            last: String::new(),
        };
        live.show(Event::Step {
            number: 1,
            total: 1,
            text: "RUN x".into(),
            line: 1,
            stage: String::new(),
        });
        for i in 0..40_000 {
            live.show(Event::Output {
                stderr: false,
                text: format!("zeile ü {i}\n"),
            });
        }
        let step = live.step.as_ref().unwrap();
        assert!(step.output.len() <= KEPT && step.output.ends_with("39999\n"));
        assert_eq!(step.below.message().lines().count(), BELOW);
        live.show(Event::Built {
            image: format!("sha256:{}", "a".repeat(64)),
        });
        assert!(live.step.is_none() && live.last == "built aaaaaaaaaaaa");
    }
}
