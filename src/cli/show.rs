//! What commands print: tables, numbers, progress and where the time goes.
//!
//! Rank 0 alone prints. On a terminal progress is a bar; elsewhere it is a plain line now and then.

use super::Context;
use comfy_table::{CellAlignment, Table, presets};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Prints a line to standard output on rank 0, unless `--quiet`.
pub fn line(context: &Context, text: impl std::fmt::Display) {
    if context.world.is_root() && !context.common.quiet {
        println!("{text}");
    }
}

/// A table without frame lines; columns from the second on are right-aligned.
pub fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(header.iter().copied());
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// A count with thin groups: `1 234 567`.
pub fn count(n: impl Into<u128>) -> String {
    let digits = n.into().to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// A size in bytes with a binary unit: `1.3 GiB`.
pub fn bytes(n: impl Into<u128>) -> String {
    let n = n.into();
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let (mut value, mut unit) = (n as f64, 0);
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{n} B") } else { format!("{value:.1} {}", units[unit]) }
}

/// A duration: `12 ms`, `3.4 s`, `2 min 05 s`.
pub fn duration(d: Duration) -> String {
    match d.as_secs_f64() {
        s if s < 1.0 => format!("{:.0} ms", s * 1e3),
        s if s < 60.0 => format!("{s:.1} s"),
        s => format!("{} min {:02.0} s", (s / 60.0) as u64, s % 60.0),
    }
}

/// Measures the steps of a command for the line "where the time went".
pub struct Steps {
    begun: Instant,
    last: Instant,
    steps: Vec<(&'static str, Duration)>,
}

impl Steps {
    /// Starts the clock.
    pub fn begin() -> Self {
        let now = Instant::now();
        Self { begun: now, last: now, steps: Vec::new() }
    }

    /// The time since the last mark went into `name`.
    pub fn mark(&mut self, name: &'static str) {
        let now = Instant::now();
        self.steps.push((name, now - self.last));
        self.last = now;
    }

    /// `time: 1.2 s (read 0.9 s, write 0.3 s)`.
    pub fn summary(&self) -> String {
        let parts: Vec<_> = self.steps.iter().map(|(n, d)| format!("{n} {}", duration(*d))).collect();
        format!("time: {} ({})", duration(self.begun.elapsed()), parts.join(", "))
    }
}

/// Progress over a known amount of work: a bar on a terminal, a line every few seconds elsewhere.
pub struct Progress {
    name: &'static str,
    total: AtomicU64,
    done: AtomicU64,
    bar: Option<ProgressBar>,
    plain: Option<Mutex<Instant>>,
    begun: Instant,
}

const PLAIN_EVERY: Duration = Duration::from_secs(5);

impl Progress {
    /// Starts on rank 0; silent on the others and under `--quiet`. `unit` is `bytes` or a plural.
    pub fn begin(context: &Context, name: &'static str, total: u64, unit: &str) -> Self {
        let shown = context.world.is_root() && !context.common.quiet;
        let terminal = std::io::stderr().is_terminal();
        let bar = (shown && terminal).then(|| {
            let amount = if unit == "bytes" { "{bytes}/{total_bytes}" } else { "{human_pos}/{human_len}" };
            let template = format!("{name:>10} [{{bar:30}}] {amount} {unit} {{eta}}");
            let style =
                ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar());
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr_with_hz(8));
            bar.set_style(style.progress_chars("=> "));
            bar
        });
        let now = Instant::now();
        let plain = (shown && !terminal).then(|| Mutex::new(now));
        Self { name, total: total.into(), done: 0.into(), bar, plain, begun: now }
    }

    /// Sets the whole amount once it is known.
    pub fn set_total(&self, total: u64) {
        self.total.store(total, Ordering::Relaxed);
        if let Some(bar) = &self.bar {
            bar.set_length(total);
        }
    }

    /// Sets how much is done.
    pub fn set(&self, done: u64) {
        self.done.store(done, Ordering::Relaxed);
        if let Some(bar) = &self.bar {
            bar.set_position(done);
        }
        let Some(Ok(mut last)) = self.plain.as_ref().map(|p| p.try_lock()) else { return };
        if last.elapsed() >= PLAIN_EVERY {
            *last = Instant::now();
            let total = self.total.load(Ordering::Relaxed).max(1);
            let percent = done as f64 / total as f64 * 100.0;
            eprintln!("{}: {percent:.0} % after {}", self.name, duration(self.begun.elapsed()));
        }
    }

    /// Adds to what is done.
    pub fn add(&self, more: u64) {
        let done = self.done.load(Ordering::Relaxed) + more;
        self.set(done);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(count(0u64), "0");
        assert_eq!(count(999u64), "999");
        assert_eq!(count(1_234_567u64), "1 234 567");
        assert_eq!(bytes(1023u64), "1023 B");
        assert_eq!(bytes(1536u64), "1.5 KiB");
        assert_eq!(bytes(u64::MAX), "16.0 EiB");
        assert_eq!(duration(Duration::from_millis(12)), "12 ms");
        assert_eq!(duration(Duration::from_secs(125)), "2 min 05 s");
    }
}
