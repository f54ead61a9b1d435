//! What commands print: tables, numbers, progress and where the time goes.
//!
//! Rank 0 alone prints. On a terminal progress is a bar; elsewhere it is a plain line now and then.

use super::Context;
pub use crate::report::{bytes, count, duration, table};
use console::Term;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Prints a line to standard output on rank 0, unless `--quiet`.
pub fn line(context: &Context, text: impl std::fmt::Display) {
    if context.world.is_root() && !context.common.quiet {
        print(text);
    }
}

/// Prints a line to standard output. Whoever reads it may have seen enough (`| head`): a closed
/// pipe is no reason to stop a run. Nor is a full disk, but [`lost`] tells of it.
pub fn print(text: impl std::fmt::Display) {
    use std::io::{ErrorKind, Write};
    let mut out = std::io::stdout().lock();
    let printed = writeln!(out, "{text}").and_then(|()| out.flush());
    if let Err(e) = printed
        && e.kind() != ErrorKind::BrokenPipe
        && !LOST.swap(true, Ordering::Relaxed)
    {
        eprintln!("stratigraph: standard output cannot be written: {e}");
    }
    if let Ok(mut last) = LAST_PRINT.lock() {
        *last = Some(Instant::now());
    }
}

/// True if something that was to be printed is lost.
pub fn lost() -> bool {
    LOST.load(Ordering::Relaxed)
}

static LOST: AtomicBool = AtomicBool::new(false);

/// When standard output was last written to.
static LAST_PRINT: Mutex<Option<Instant>> = Mutex::new(None);

/// `mpirun` takes about so long to bring a line to the terminal.
const FORWARDING: Duration = Duration::from_millis(30);

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

    /// The time since the last mark went into `name`; returns it.
    pub fn mark(&mut self, name: &'static str) -> Duration {
        let now = Instant::now();
        let took = now - self.last;
        self.steps.push((name, took));
        self.last = now;
        took
    }

    /// The steps as a table, for a whole campaign.
    pub fn table(&self) -> impl std::fmt::Display {
        let whole = self.begun.elapsed();
        let mut shown = table(&["where the time went", "", "%"]);
        for (name, spent) in &self.steps {
            let percent = spent.as_secs_f64() / whole.as_secs_f64().max(1e-9) * 100.0;
            shown.add_row([(*name).to_owned(), duration(*spent), format!("{percent:.0}")]);
        }
        shown.add_row(["all".to_owned(), duration(whole), String::new()]);
        shown
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

/// Where bars are drawn: the terminal behind standard error, also if that is a pipe to `mpirun`.
fn terminal(context: &Context) -> Option<ProgressDrawTarget> {
    if std::io::stderr().is_terminal() {
        return Some(ProgressDrawTarget::stderr_with_hz(8));
    }
    let file = context.world.launcher_terminal()?;
    // The bar takes the short way to the terminal; lines that were printed before it come first.
    let last = LAST_PRINT.lock().ok().and_then(|last| *last);
    if let Some(wait) = last.and_then(|last| FORWARDING.checked_sub(last.elapsed())) {
        std::thread::sleep(wait);
    }
    let term = Term::read_write_pair(file.try_clone().ok()?, file);
    term.is_term().then(|| ProgressDrawTarget::term(term, 8))
}

const PLAIN_EVERY: Duration = Duration::from_secs(5);

impl Progress {
    /// Starts on rank 0; silent on the others and under `--quiet`. `unit` is `bytes` or a plural.
    pub fn begin(context: &Context, name: &'static str, total: u64, unit: &str) -> Self {
        let shown = context.world.is_root() && !context.common.quiet;
        let target = if shown { terminal(context) } else { None };
        let plain = shown && target.is_none();
        let bar = target.map(|target| {
            let amount = if unit == "bytes" { "{bytes}/{total_bytes}" } else { "{human_pos}/{human_len}" };
            let template = format!("{name:>10} [{{bar:30}}] {amount} {unit} {{eta}}");
            let style =
                ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar());
            let bar = ProgressBar::with_draw_target(Some(total), target);
            bar.set_style(style.progress_chars("=> "));
            bar
        });
        let now = Instant::now();
        let plain = plain.then(|| Mutex::new(now));
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
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
