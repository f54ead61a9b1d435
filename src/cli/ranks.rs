//! `stratigraph ranks`.

use super::{Code, Context, show};
use std::time::{Duration, Instant};

/// Check a launch line: do the ranks find each other, and how fast do they talk
///
/// Every rank takes part in each kind of operation that the other commands use and checks the
/// outcome; rank 0 prints who is there.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// This rank panics (for tests)
    #[arg(long, hide = true, value_name = "RANK")]
    panic: Option<usize>,
    /// This rank makes no progress (for tests)
    #[arg(long, hide = true, value_name = "RANK")]
    stall: Option<usize>,
    /// This rank works for some seconds while the others wait (for tests)
    #[arg(long, hide = true, value_name = "RANK")]
    work: Option<usize>,
}

const TAKES: u64 = 1000;

/// Runs the command.
pub fn run(args: &Args, context: &Context) -> anyhow::Result<Code> {
    let world = &context.world;
    let (rank, size) = (world.rank(), world.size());
    if args.panic == Some(rank) {
        panic!("asked to panic");
    }
    if args.stall == Some(rank) {
        std::thread::sleep(Duration::from_secs(3600));
    }
    if let Some(busy) = args.work {
        for _ in 0..if busy == rank { 50 } else { 0 } {
            std::thread::sleep(Duration::from_millis(100));
            world.progress();
        }
        world.barrier();
    }
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let line =
        format!("rank {rank} of {size} on {}, {} thread(s)", host.trim(), rayon::current_num_threads());
    if let Some(lines) = world.gather(line.as_bytes()) {
        lines.iter().for_each(|line| show::print(String::from_utf8_lossy(line)));
    }
    // Contributions of any length, among them none.
    if let Some(parts) = world.gather(&vec![rank as u8; rank]) {
        for (from, part) in parts.iter().enumerate() {
            anyhow::ensure!(*part == vec![from as u8; from], "the gather from rank {from} is wrong");
        }
    }
    let mut words = if rank == 0 { vec![7u8; 100_000] } else { vec![1; rank] };
    world.broadcast(&mut words);
    anyhow::ensure!(words == vec![7u8; 100_000], "the broadcast is wrong");
    let mut most = [rank as u64, 5];
    world.max_u64(&mut most);
    anyhow::ensure!(most == [size as u64 - 1, 5], "the maximum is wrong");
    let mut real = [0.1, rank as f64];
    world.sum_f64(&mut real);
    let expected = (0..size).fold(0.0, |sum, _| sum + 0.1);
    anyhow::ensure!(real[0] == expected, "the float sum is not in rank order");

    let counter = world.counter();
    let begun = Instant::now();
    let mut taken = [0u64; 2];
    loop {
        let next = counter.take();
        if next >= TAKES {
            break;
        }
        taken[0] += 1;
        taken[1] += next;
    }
    let takes = begun.elapsed();
    drop(counter);
    world.sum_u64(&mut taken);
    anyhow::ensure!(
        taken == [TAKES, TAKES * (TAKES - 1) / 2],
        "the counter gave a number twice or not at all"
    );
    let begun = Instant::now();
    for _ in 0..100 {
        world.sum_u64(&mut [1]);
    }
    let sums = begun.elapsed() / 100;
    if world.is_root() {
        show::print(format_args!(
            "counter: {:.1} us a take; sum over all ranks: {:.1} us",
            takes.as_secs_f64() * 1e6 / TAKES as f64,
            sums.as_secs_f64() * 1e6
        ));
        show::print(format_args!("ok: {size} rank(s) find each other"));
    }
    Ok(Code::Done)
}
