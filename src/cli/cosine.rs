//! `stratigraph cosine`.

use super::claim::{Claim, keep_apart};
use super::results::{Identity, Results as Files, remove_directory};
use super::{Code, Context, hex, limits, show};
use crate::pairs::cosine::files::{Origin, write_results};
use crate::pairs::cosine::filter::Cpu;
use crate::pairs::cosine::matrix::{Cell, MASTER, SHARDS};
use crate::pairs::cosine::results::Results;
use crate::pairs::cosine::rows::Groups;
use crate::pairs::cosine::{Cluster, JOURNAL, Needs, Options, Prepared, Source, Summary, source};
use crate::pairs::{Error, Job, Outcome};
use crate::report;
use anyhow::Context as _;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Compare all pairs of vectors by their cosine (exact: counts of float64 scores)
///
/// Writes cosine.json (histograms, mean, deviation, extremes; over distinct vectors, and weighted by
/// the documents, layers and images behind them) and cosine.h5 (all bins, neighbours, pairs over a
/// threshold), in one pass over the pairs. The results are the same bits for any number of ranks and
/// threads and on any CPU.
///
/// The run can be killed at any moment: start the same command again, on any number of ranks, and
/// it computes only the tiles that are missing. SIGTERM and SIGUSR1 end it cleanly (exit code 75).
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Document vectors (from `stratigraph embed`); or a 2-D float array: FILE.npy, or
    /// FILE.h5:/DATASET
    #[arg(value_name = "VECTORS")]
    pub vectors: String,

    /// Directory for the results; made if it is missing
    #[arg(short, long, value_name = "DIR")]
    pub output: PathBuf,

    /// Neighbours kept for each distinct vector; 0 for none
    #[arg(long, value_name = "K", default_value_t = 0)]
    pub top_k: usize,

    /// List all pairs with at least this score
    #[arg(long, value_name = "SCORE", allow_negative_numbers = true)]
    pub min: Option<f64>,

    /// Edges of the histogram [default: two, -0.5, -0.4, ..., 1 as in the study and -1, -0.99, ..., 1]
    #[arg(long, value_name = "EDGE,EDGE,...", value_delimiter = ',', allow_hyphen_values = true)]
    pub edges: Vec<f64>,

    /// Also count as the study did: diagonal in, halved, scores on an edge twice, the rest lost
    #[arg(long)]
    pub as_published: bool,

    /// Scale all rows to length 1 first (rows of other lengths are refused without it)
    #[arg(long)]
    pub normalize: bool,

    /// Keep all scores as a matrix, cosine-matrix.h5, of such numbers; u8 is 128 + 127 x score. Equal
    /// vectors have one row and one column (vectors/group in cosine.h5 says which)
    #[arg(long, value_name = "f32|f16|u8", value_parser = matrix_cell)]
    pub matrix: Option<Cell>,

    /// With --matrix: only the rows of these vectors; a text file of numbers from 0, one a line
    #[arg(long, value_name = "FILE", requires = "matrix")]
    pub rows: Option<PathBuf>,

    /// Memory each rank may use [default: 80 % of what its node has free, shared by its ranks]
    #[arg(long, value_name = "BYTES", value_parser = limits::parse_size)]
    pub memory: Option<u64>,

    /// Rows per tile, each way; what a kill can cost, but no result, depends on it
    #[arg(long, value_name = "ROWS")]
    pub tile_rows: Option<std::num::NonZeroU32>,

    /// Replace results of another run in the output directory
    #[arg(long)]
    pub overwrite: bool,

    /// Say what the run would need and how long it would take, and stop there
    #[arg(long)]
    pub plan: bool,

    /// With --plan: for so many ranks [default: those of this command]
    #[arg(long, value_name = "RANKS", requires = "plan")]
    pub plan_ranks: Option<std::num::NonZeroUsize>,

    /// With --plan: for so many threads in each rank [default: those of this command]
    #[arg(long, value_name = "THREADS", requires = "plan")]
    pub plan_threads: Option<std::num::NonZeroUsize>,

    /// Wait after each tile (for tests of restarts)
    #[arg(long, hide = true, env = "STRATIGRAPH_TILE_DELAY_MS", default_value_t = 0)]
    pub tile_delay_ms: u64,
}

/// What a run leaves in its directory.
pub const FILES: Files = Files {
    summary: "cosine.json",
    others: &["cosine.h5", MASTER, SHARDS, "run-cosine.json"],
    journal: JOURNAL,
};

/// How a run ended.
pub enum Ended {
    /// All is written; rank 0 has the summary.
    Done(Option<Box<Summary>>),
    /// The results of this very run were there.
    WasDone,
    /// Only the plan was asked for.
    Planned,
    /// A signal came; the finished tiles are kept.
    Stopped,
}

/// Runs the command.
pub fn run(args: &Args, context: &Context) -> anyhow::Result<Code> {
    let _claim = (!args.plan).then(|| Claim::take(context, &args.output)).transpose()?;
    match compare(args, context)? {
        Ended::Stopped => {
            show::line(context, Error::Stopped);
            return Ok(Code::Requeue);
        }
        Ended::WasDone | Ended::Planned => (),
        Ended::Done(summary) => {
            if let Some(summary) = summary {
                show::line(context, report::cosine_text(&summary));
            }
            show::line(context, format!("results: {}", args.output.display()));
        }
    }
    Ok(Code::Done)
}

/// Compares all pairs and writes the results. Collective; how it ended is the same on all ranks.
pub fn compare(args: &Args, context: &Context) -> anyhow::Result<Ended> {
    let mut steps = show::Steps::begin();
    let outputs: Vec<_> = FILES.others.iter().chain([&FILES.summary]).map(|f| args.output.join(f)).collect();
    keep_apart(context, &source::split(&args.vectors).0, &outputs)?;
    let source = Source::open(&args.vectors, args.normalize)?;
    let mut id = Vec::new();
    if context.world.is_root() {
        id = source.id().into_bytes();
    }
    context.world.broadcast(&mut id);
    let id = String::from_utf8_lossy(&id).into_owned();
    steps.mark("read");
    let begun = Instant::now();
    let groups = Groups::of(&source.rows());
    let options = options(args, source.rows().len())?;
    let mut prepared = Prepared::new(source.rows(), &groups, &source.multiplicity, options)?;
    let settings = settings(&prepared);
    let identity = format!("vectors {id}\noptions {settings}");
    let fingerprint = prepared.fingerprint(&identity);
    let origin = Origin {
        vectors_id: id,
        documents_id: source.documents_id.clone(),
        fingerprint: hex(&Sha256::digest(&identity)),
        options: settings.to_string(),
        synthetic: source.synthetic.clone(),
    };
    steps.mark("prepare");

    tell_and_check_needs(args, context, &prepared, &source)?;
    if args.plan {
        return Ok(Ended::Planned);
    }
    // A single row has no tiles, and its matrix no shards.
    let shards = usize::from(prepared.rows.len() > 1);
    let wanted = if args.matrix.is_some() { 2 + shards } else { 1 };
    let run = Identity { results: &origin.fingerprint, journal: &fingerprint };
    if FILES.settle(context, &args.output, &FILES.others[..wanted], &run, args.overwrite)? {
        show::line(context, format!("{}: done before, nothing to do", args.output.display()));
        return Ok(Ended::WasDone);
    }
    let directory = args.output.join(FILES.journal);
    let tiles = u64::from(prepared.plan.tiles());
    let plan = prepared.plan.clone();
    let job = Job {
        plan: &plan,
        fingerprint: &fingerprint,
        directory: &directory,
        stop: context.stop.flag(),
        progress: &|_| (),
        pause: Duration::from_millis(args.tile_delay_ms),
    };
    let tiles_begun = Instant::now();
    let outcome = {
        let progress = show::Progress::begin(context, "cosine", tiles, "tiles");
        prepared.compute(
            &context.world,
            &Job { progress: &|done| progress.set(done), ..job },
            &args.output,
        )?
    };
    let tiles_seconds = tiles_begun.elapsed().as_secs_f64();
    steps.mark("tiles");
    show::line(
        context,
        format!(
            "tiles: {} in all, {} found in the journal, {} computed now",
            outcome.tiles, outcome.found, outcome.computed
        ),
    );
    if !outcome.is_complete() {
        return Ok(Ended::Stopped);
    }
    prepared.rest();
    let ways = ways(&source);
    let sums = prepared.pair_sums(&context.world, ways);
    steps.mark("mean");
    let merge = || {
        let progress = show::Progress::begin(context, "merge", tiles, "tiles");
        Ok(prepared.merge(&context.world, &Job { progress: &|done| progress.set(done), ..job })?)
    };
    let Some(merged) = context.on_root(merge)? else { return Ok(Ended::Stopped) };
    let (results, candidates) = merged.unzip();
    let neighbours = prepared.neighbours(&context.world, candidates);
    let results = results.map(|results| Results { neighbours, ..results });
    let conclude = || -> anyhow::Result<Box<Summary>> {
        let results = results.context("only rank 0 has results")?;
        steps.mark("merge");
        let summary = Summary::of(&prepared, &results, ways, &sums, source.zeros, settings.clone(), &origin)?;
        write_results(&args.output.join("cosine.h5"), &prepared, &results, &origin)?;
        if let Some(matrix) = &prepared.matrix {
            let (plan, places) = (&prepared.plan, &results.places);
            matrix.write_master(&args.output, plan, places, &prepared.rows, &origin)?;
        }
        // Last: a directory with this file is complete.
        report::write_json(&args.output.join("cosine.json"), &summary)?;
        steps.mark("write");
        remove_directory(&directory)?;
        let pairs = prepared.rows.len() as f64 * prepared.rows.len().saturating_sub(1) as f64 / 2.0;
        let record =
            Record { outcome, tiles_seconds, compute: begun.elapsed(), rechecked: results.rechecked };
        record.write(args, context)?;
        if outcome.found == 0 {
            let rate = pairs * 2.0 * prepared.rows.dims() as f64 / tiles_seconds / 1e9;
            show::line(
                context,
                format!(
                    "tiles: {tiles_seconds:.3} s, {rate:.1} useful GFLOP/s ({}); {} pairs scored in float64",
                    prepared.describe_kernel(),
                    show::count(results.rechecked)
                ),
            );
        }
        show::line(context, steps.summary());
        Ok(Box::new(summary))
    };
    Ok(context.on_root(conclude)?.map_or(Ended::Stopped, Ended::Done))
}

/// Which ways to count have anything to say: layers and images only where they are known.
fn ways(source: &Source) -> &'static [usize] {
    match (&source.multiplicity.layers, &source.multiplicity.images) {
        (Some(_), Some(_)) => &[0, 1, 2, 3],
        (Some(_), None) => &[0, 1, 2],
        (None, Some(_)) => &[0, 1, 3],
        (None, None) => &[0, 1],
    }
}

/// What a run with these arguments computes.
///
/// # Errors
/// If an edge or the threshold is no number, or the edges do not rise.
pub fn options(args: &Args, vectors: usize) -> anyhow::Result<Options> {
    let given = !args.edges.is_empty();
    let histograms =
        if given { vec![args.edges.clone()] } else { vec![Options::study_edges(), Options::fine_edges()] };
    crate::pairs::Histogram::new(histograms[0].clone()).context("--edges")?;
    if let Some(min) = args.min.filter(|min| !(-1.0..=1.0).contains(min)) {
        return Err(Error::Refused(format!("--min {min}: a threshold is a number from -1 to 1")).into());
    }
    let as_published = args.as_published.then(|| histograms[0].clone());
    Ok(Options {
        histograms,
        as_published,
        top_k: args.top_k,
        min: args.min,
        tile_edge: args.tile_rows.map(u32::from),
        matrix: args.matrix,
        matrix_rows: args.rows.as_deref().map(|rows| listed_rows(rows, vectors)).transpose()?,
        cpu: Cpu::best(),
    })
}

/// Options that change the results, as they are published.
fn settings(prepared: &Prepared<'_>) -> serde_json::Value {
    let Options { histograms, as_published, top_k, min, .. } = &prepared.options;
    let mut settings = serde_json::json!({
        "top_k": top_k,
        "min": min,
        "as_published": as_published.is_some(),
        "edges": histograms,
    });
    if let Some(matrix) = &prepared.matrix {
        let rows = Sha256::digest(bytemuck::cast_slice::<u32, u8>(&matrix.rows));
        settings["matrix"] = matrix.cell.name().into();
        settings["matrix_rows"] = matrix.rows.len().into();
        settings["matrix_rows_sha256"] = hex(&rows).into();
    }
    settings
}

fn matrix_cell(text: &str) -> Result<Cell, String> {
    let all = [Cell::F32, Cell::F16, Cell::U8];
    all.into_iter().find(|c| c.name() == text).ok_or_else(|| "is none of f32, f16 and u8".into())
}

/// Numbers of vectors, of which there are so many, one a line.
fn listed_rows(path: &Path, vectors: usize) -> anyhow::Result<Vec<u32>> {
    let name = path.display();
    let text = std::fs::read_to_string(path).map_err(|e| Error::Refused(format!("--rows {name}: {e}")))?;
    let lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
    let numbers = lines.map(|(at, line)| {
        let refuse = |reason: &str| Error::Refused(format!("--rows {name}: line {at}: {reason}"));
        let row = line.trim().parse::<u32>().map_err(|_| refuse("not the number of a vector"))?;
        let there = (row as usize) < vectors;
        there.then_some(row).ok_or_else(|| refuse(&format!("there are {vectors} vectors, numbered from 0")))
    });
    let numbers = numbers.collect::<Result<Vec<_>, _>>()?;
    if numbers.is_empty() {
        return Err(Error::Refused(format!("--rows {name}: lists no vector")).into());
    }
    Ok(numbers)
}

fn tell_and_check_needs(
    args: &Args,
    context: &Context,
    prepared: &Prepared<'_>,
    source: &Source,
) -> anyhow::Result<()> {
    if !context.world.is_root() {
        return Ok(());
    }
    let here = Cluster { ranks: context.world.size(), threads: rayon::current_num_threads() };
    let cluster = Cluster {
        ranks: args.plan_ranks.map_or(here.ranks, usize::from),
        threads: args.plan_threads.map_or(here.threads, usize::from),
    };
    let needs = Needs::of(prepared, cluster.threads);
    show::line(
        context,
        format!(
            "{} vectors of {} dimensions, {} distinct, {} pairs, {} tiles on {} rank(s) x {} thread(s)",
            show::count(prepared.groups.group.len() as u64),
            prepared.rows.dims(),
            show::count(prepared.rows.len() as u64),
            show::count(needs.pairs),
            prepared.plan.tiles(),
            cluster.ranks,
            cluster.threads,
        ),
    );
    let memory = limits::memory_of_rank(&context.world, args.memory);
    let disk = limits::disk(&args.output);
    let pairs = if prepared.options.min.is_some() {
        format!(", about {} pairs to list", show::count(needs.listed))
    } else {
        String::new()
    };
    let copies = if source.own_bytes() > 0 { "in each rank" } else { "once a node" };
    show::line(
        context,
        format!(
            "needs: vectors {} {copies}, {} of memory a rank, {} on rank 0 (may use {}), {} of disk ({} free){pairs}",
            show::bytes(needs.vectors),
            show::bytes(needs.memory),
            show::bytes(needs.memory_of_root),
            show::bytes(memory),
            show::bytes(needs.disk),
            show::bytes(disk),
        ),
    );
    if args.plan {
        let time = prepared.expected(&cluster);
        show::line(context, format!("expected: {} for the tiles", show::duration(time)));
    }
    Ok(needs.check(memory, disk)?)
}

/// What differs from run to run stays out of the results and goes here.
struct Record {
    outcome: Outcome,
    tiles_seconds: f64,
    compute: Duration,
    rechecked: u64,
}

impl Record {
    fn write(&self, args: &Args, context: &Context) -> anyhow::Result<()> {
        let record = serde_json::json!({
            "kind": "stratigraph run record",
            "ranks": context.world.size(),
            "threads_per_rank": rayon::current_num_threads(),
            "kernel": Cpu::best().name(),
            "tiles": self.outcome.tiles,
            "tiles_found": self.outcome.found,
            "tiles_computed": self.outcome.computed,
            "tiles_seconds": self.tiles_seconds,
            "pairs_scored_in_float64": self.rechecked,
            "compute_seconds": self.compute.as_secs_f64(),
        });
        report::write_json(&args.output.join("run-cosine.json"), &record)
    }
}
