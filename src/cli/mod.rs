//! The command line. One file per sub-command: its arguments, the call, the printed outcome.
//! Only here is text printed or argv read.

mod accuracy;
mod bases;
mod choice;
mod claim;
mod classify;
mod cosine;
mod embed;
mod exit;
mod export;
mod import;
mod inspect;
mod jaccard;
mod limits;
mod manual;
mod ranks;
mod reduce;
mod registries;
mod results;
mod rootfs;
mod run;
mod show;
mod similar;
mod stats;
mod stop;
mod synth;
mod tokenize;

pub use exit::Code;

use crate::pairs;
use crate::world::{self, World};
use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Analyses corpora of container images: sizes, layer sharing, exact all-pairs similarity
#[derive(Debug, Parser)]
#[command(name = "stratigraph", version, about, long_about = LONG_ABOUT, after_long_help = exit::MANUAL)]
#[command(propagate_version = true, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

const LONG_ABOUT: &str = "\
Analyses corpora of container images: what layers they are made of, which are shared, and how \
images resemble each other.

`mpirun -n N` or `srun --mpi=pmix -n N` before any command means N ranks; without it, the same \
command runs as one process with threads. Results are the same bits either way.";

/// Options of every command.
#[derive(Debug, Clone, clap::Args)]
pub struct Common {
    /// Threads per rank [default: the cores this rank may use]
    #[arg(long, global = true, value_name = "N", env = "STRATIGRAPH_THREADS")]
    pub threads: Option<std::num::NonZeroUsize>,

    /// Abort when a rank makes no progress for this long; 0 never does
    #[arg(
        long,
        global = true,
        value_name = "SECONDS",
        default_value_t = 600,
        env = "STRATIGRAPH_STALL_SECONDS"
    )]
    pub stall_seconds: u64,

    /// Print only errors and the final outcome
    #[arg(long, short, global = true)]
    pub quiet: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    Import(import::Args),
    Stats(stats::Args),
    Export(export::Args),
    Tokenize(tokenize::Args),
    Embed(embed::Args),
    Similar(similar::Args),
    Jaccard(jaccard::Args),
    Cosine(cosine::Args),
    Rootfs(rootfs::Args),
    Reduce(reduce::Args),
    Inspect(inspect::Args),
    Synth(synth::Args),
    Bases(bases::Args),
    Classify(classify::Args),
    Accuracy(accuracy::Args),
    Run(run::Args),
    Ranks(ranks::Args),
    Completions(manual::CompletionsArgs),
    Man(manual::ManArgs),
}

impl Command {
    /// True if SIGTERM and SIGUSR1 end the command cleanly; for all others they are the end.
    fn stops_cleanly(&self) -> bool {
        matches!(
            self,
            Self::Tokenize(_)
                | Self::Embed(_)
                | Self::Jaccard(_)
                | Self::Cosine(_)
                | Self::Rootfs(_)
                | Self::Run(_)
        )
    }

    /// True if rank 0 alone does the work.
    fn is_serial(&self) -> bool {
        !matches!(
            self,
            Self::Import(_)
                | Self::Tokenize(_)
                | Self::Embed(_)
                | Self::Jaccard(_)
                | Self::Cosine(_)
                | Self::Rootfs(_)
                | Self::Run(_)
                | Self::Ranks(_)
        )
    }
}

/// What a command needs to know besides its own arguments.
pub struct Context {
    /// The ranks.
    pub world: World,
    /// Options of every command.
    pub common: Common,
    /// Whether a signal asked to end.
    pub stop: stop::Stop,
}

impl Context {
    /// Rank 0 does something, and the others wait for it, asleep. `None` on all ranks if a signal stopped
    /// it; what came of it is on rank 0 only. Collective.
    ///
    /// # Errors
    /// Whatever `what` returns, on rank 0; the caller ends the job then.
    fn on_root<T>(&self, what: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<Option<Option<T>>> {
        let mut stopped = [0];
        let mut made = None;
        if self.world.is_root() {
            match what() {
                Err(e) if matches!(e.downcast_ref(), Some(pairs::Error::Stopped)) => stopped[0] = 1,
                done => made = Some(done?),
            }
        }
        self.world.barrier();
        self.world.max_u64(&mut stopped);
        Ok((stopped[0] == 0).then_some(made))
    }
}

/// Runs the program: reads argv, starts the ranks, runs one command, prints an error if there is
/// one, and says how it ended.
pub fn main() -> ExitCode {
    let Cli { common, command } = Cli::parse();
    start_log(&common);
    match command {
        Command::Completions(args) => return finish(None, Ok(manual::completions(&args))),
        Command::Man(args) => return finish(None, manual::man(&args)),
        _ => (),
    }
    // Before MPI starts, which takes a while: a signal may come at any moment.
    let stop = match command.stops_cleanly().then(stop::Stop::catch).transpose() {
        Ok(stop) => stop.unwrap_or_else(stop::Stop::ignored),
        Err(e) => return finish(None, Err(e.into())),
    };
    let stall = std::time::Duration::from_secs(common.stall_seconds);
    let world = match World::start(stall, command.is_serial()) {
        Ok(world) => world,
        // All ranks see it; one tells.
        Err(world::Error::SizeDisagrees { rank: 1.., .. }) => return Code::Launch.into(),
        Err(e) => return finish(None, Err(e.into())),
    };
    if let Err(e) = start_threads(&common, &world) {
        return finish(Some(&world), Err(e));
    }
    let context = Context { world, common, stop };
    let outcome = match &command {
        Command::Import(args) => import::run(args, &context),
        Command::Stats(args) => stats::run(args, &context),
        Command::Export(args) => export::run(args, &context),
        Command::Tokenize(args) => tokenize::run(args, &context),
        Command::Embed(args) => embed::run(args, &context),
        Command::Similar(args) => similar::run(args, &context),
        Command::Jaccard(args) => jaccard::run(args, &context),
        Command::Cosine(args) => cosine::run(args, &context),
        Command::Rootfs(args) => rootfs::run(args, &context),
        Command::Reduce(args) => reduce::run(args, &context),
        Command::Inspect(args) => inspect::run(args, &context),
        Command::Synth(args) => synth::run(args, &context),
        Command::Bases(args) => bases::run(args, &context),
        Command::Classify(args) => classify::run(args, &context),
        Command::Accuracy(args) => accuracy::run(args, &context),
        Command::Run(args) => run::run(args, &context),
        Command::Ranks(args) => ranks::run(args, &context),
        Command::Completions(_) | Command::Man(_) => unreachable!("handled above"),
    };
    finish(Some(&context.world), outcome)
}

/// The arguments of a command as they are with this command line and the environment.
///
/// # Errors
/// If a required argument is missing or a variable of the environment is no value of its option.
fn defaults<A: clap::Args>(line: [&std::ffi::OsStr; 3]) -> anyhow::Result<A> {
    let command = A::augment_args(clap::Command::new("stratigraph").no_binary_name(true));
    Ok(A::from_arg_matches(&command.try_get_matches_from(line)?)?)
}

/// A sum as it is written into files.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Prints an error and picks the exit code. One rank's error ends the whole job: the others may
/// be waiting for it.
fn finish(world: Option<&World>, outcome: anyhow::Result<Code>) -> ExitCode {
    let error = match outcome {
        Ok(Code::Done | Code::DoneWithLosses) if show::lost() => return Code::Write.into(),
        Ok(code) => return code.into(),
        Err(error) => error,
    };
    let code = exit::code_of(&error);
    match world.filter(|w| w.size() > 1) {
        Some(world) => {
            // An error that all ranks meet is best told once, by rank 0.
            if !world.is_root() {
                std::thread::sleep(std::time::Duration::from_millis(700));
            }
            world.abort(code as u8, &format!("{error:#}"))
        }
        None => eprintln!("stratigraph: {error:#}"),
    }
    code.into()
}

fn start_log(common: &Common) {
    let default = if common.quiet { "error" } else { "warn" };
    let filter = tracing_subscriber::EnvFilter::try_from_env("STRATIGRAPH_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(default));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
}

fn start_threads(common: &Common, world: &World) -> anyhow::Result<()> {
    let threads = common.threads.map_or_else(|| world.cores_per_rank(), usize::from);
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;
    Ok(())
}
