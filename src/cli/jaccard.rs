//! `stratigraph jaccard`.

use super::choice::Choice;
use super::claim::Claim;
use super::results::{Identity, Results, remove_directory};
use super::{Code, Context, hex, limits, show};
use crate::corpus::{Corpus, PublishedTable, Table, is_published_table};
use crate::pairs::jaccard::files::{Origin, write_matrix, write_results};
use crate::pairs::jaccard::results::{self, Counts, as_published};
use crate::pairs::jaccard::summary::{Published, Summary};
use crate::pairs::jaccard::{ImageSets, JOURNAL, Limits, Needs, Options, Prepared};
use crate::pairs::{Error, Job, Outcome};
use crate::report;
use crate::strings::StringTable;
use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Compare all pairs of images by the layers they share (exact Jaccard)
///
/// Writes jaccard.h5 (groups of equal sets, counts by shared layers and union, neighbours, pairs
/// over a threshold), jaccard.json (means, histograms, sharing) and with --matrix the dense
/// matrix.h5. The results are the same bits for any number of ranks and threads.
///
/// The run can be killed at any moment: start the same command again, on any number of ranks, and
/// it computes only the tiles that are missing. SIGTERM and SIGUSR1 end it cleanly (exit code 75).
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The corpus (from `stratigraph import` or `synth`), or a published table of one image per
    /// repository (full_uri_subset.csv)
    #[arg(value_name = "CORPUS")]
    pub corpus: PathBuf,

    /// Directory for the results; made if it is missing
    #[arg(short, long, value_name = "DIR")]
    pub output: PathBuf,

    #[command(flatten)]
    pub choice: Choice,

    /// Neighbours kept for each distinct set; 0 for none
    #[arg(long, value_name = "K", default_value_t = 10)]
    pub top_k: usize,

    /// List all pairs with at least this score, above 0 and at most 1
    #[arg(long, value_name = "SCORE", allow_negative_numbers = true)]
    pub min: Option<f64>,

    /// Edges of the histogram [default: 0, 0.1, ..., 1]
    #[arg(long, value_name = "EDGE,EDGE,...", value_delimiter = ',', allow_hyphen_values = true)]
    pub edges: Vec<f64>,

    /// Write the dense matrix of all images, too (8 bytes a pair, both triangles); `small`: of up
    /// to 4,096 images
    #[arg(
        long,
        value_enum,
        num_args = 0..=1,
        require_equals = true,
        default_value = "never",
        default_missing_value = "always"
    )]
    pub matrix: Matrix,

    /// Take layers without content out of the sets before anything else
    #[arg(long)]
    pub ignore_empty_layers: bool,

    /// Memory each rank may use [default: 80 % of what its node has free, shared by its ranks]
    #[arg(long, value_name = "BYTES", value_parser = limits::parse_size)]
    pub memory: Option<u64>,

    /// Rows per tile [default: about 128 tiles]; what a kill can cost, but no result, depends on it
    #[arg(long, value_name = "ROWS")]
    pub tile_rows: Option<std::num::NonZeroU32>,

    /// Replace results of another run in the output directory
    #[arg(long)]
    pub overwrite: bool,

    /// Say what the run would need and stop there
    #[arg(long)]
    pub plan: bool,

    /// Wait after each tile (for tests of restarts)
    #[arg(long, hide = true, env = "STRATIGRAPH_TILE_DELAY_MS", default_value_t = 0)]
    pub tile_delay_ms: u64,
}

/// What a run leaves in its directory.
pub const FILES: Results = Results {
    summary: "jaccard.json",
    others: &["jaccard.h5", "matrix.h5", "run-jaccard.json"],
    journal: JOURNAL,
};

/// Larger runs have no column "as published": it needs the dense square in memory.
const PUBLISHED_LIMIT: usize = 4096;

/// When the dense matrix is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Matrix {
    /// However large it gets.
    Always,
    /// Of a few thousand images.
    Small,
    /// Not at all.
    Never,
}

/// A small matrix has at most so many rows, and is then at most 128 MiB.
const SMALL_MATRIX: usize = 4096;

impl Matrix {
    fn is_wanted(self, images: usize) -> bool {
        match self {
            Self::Always => true,
            Self::Small => images <= SMALL_MATRIX,
            Self::Never => false,
        }
    }
}

/// The sets of a run, and where they are from.
struct Source {
    names: StringTable,
    sets: ImageSets,
    id: String,
    synthetic: Option<String>,
}

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
                show::line(context, report::jaccard_text(&summary));
            }
            show::line(context, format!("results: {}", args.output.display()));
        }
    }
    Ok(Code::Done)
}

/// Compares all pairs and writes the results. Collective; how it ended is the same on all ranks.
pub fn compare(args: &Args, context: &Context) -> anyhow::Result<Ended> {
    let mut steps = show::Steps::begin();
    let options = Options::new(args.top_k, args.min, args.tile_rows.map(u32::from))?;
    let edges = histogram_edges(args)?;
    let source = read_source(args)?;
    steps.mark("read");
    let begun = Instant::now();
    let prepared = Prepared::new(source.sets, &options);
    let settings = settings(args, &edges, &prepared);
    let identity = identity(&source.id, &source.names, &settings);
    let fingerprint = prepared.fingerprint(&identity);
    let origin = Origin {
        corpus_id: source.id,
        fingerprint: hex(&Sha256::digest(format!("{identity}\n{edges:?}"))),
        options: settings.to_string(),
        synthetic: source.synthetic,
    };
    steps.mark("index");

    tell_and_check_needs(args, context, &prepared)?;
    if args.plan {
        return Ok(Ended::Planned);
    }
    let run = Identity { results: &origin.fingerprint, journal: &fingerprint };
    let wanted = &FILES.others[..1 + usize::from(args.matrix.is_wanted(prepared.images.len()))];
    if FILES.settle(context, &args.output, wanted, &run, args.overwrite)? {
        show::line(context, format!("{}: done before, nothing to do", args.output.display()));
        return Ok(Ended::WasDone);
    }
    steps.mark("plan");
    let directory = args.output.join(FILES.journal);
    let tiles = u64::from(prepared.plan.tiles());
    let job = Job {
        plan: &prepared.plan,
        fingerprint: &fingerprint,
        directory: &directory,
        stop: context.stop.flag(),
        progress: &|_| (),
        pause: Duration::from_millis(args.tile_delay_ms),
    };
    let outcome = {
        let progress = show::Progress::begin(context, "jaccard", tiles, "tiles");
        prepared.compute(&context.world, &Job { progress: &|done| progress.set(done), ..job })?
    };
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
    let conclude = || -> anyhow::Result<Box<Summary>> {
        let progress = show::Progress::begin(context, "merge", tiles, "tiles");
        let results = prepared.merge(&context.world, &Job { progress: &|done| progress.set(done), ..job })?;
        let compute = begun.elapsed();
        let counts = Counts::of(&results, &edges)?;
        steps.mark("merge");
        let published = (prepared.images.len() <= PUBLISHED_LIMIT)
            .then(|| as_published(&prepared.index, &prepared.collapsed))
            .flatten()
            .map(|(mean, std)| Published { mean, std });
        let summary = Summary::of(&prepared, &results, counts, published, settings, &origin);
        publish(args, context, &prepared, &results, &summary, &origin, &source.names)?;
        steps.mark("write");
        remove_directory(&directory)?;
        write_run_record(args, context, &outcome, compute)?;
        show::line(
            context,
            format!("compute: {:.1} ms (sets indexed, compared, merged)", compute.as_secs_f64() * 1e3),
        );
        show::line(context, steps.summary());
        Ok(Box::new(summary))
    };
    Ok(context.on_root(conclude)?.map_or(Ended::Stopped, Ended::Done))
}

/// Refuses arguments that are wrong for any corpus.
///
/// # Errors
/// If the edges do not rise or the threshold is none.
pub fn check(args: &Args) -> anyhow::Result<()> {
    Options::new(args.top_k, args.min, args.tile_rows.map(u32::from))?;
    histogram_edges(args).map(drop)
}

fn histogram_edges(args: &Args) -> anyhow::Result<Vec<f64>> {
    let tenths = || (0..=10).map(|i| f64::from(i) / 10.0).collect();
    let edges = if args.edges.is_empty() { tenths() } else { args.edges.clone() };
    crate::pairs::Histogram::new(edges.clone()).context("--edges")?;
    Ok(edges)
}

fn read_source(args: &Args) -> anyhow::Result<Source> {
    if is_published_table(&args.corpus) {
        let read = PublishedTable::read(&args.corpus)?;
        let table = args.choice.of_table(read.table())?;
        return Ok(source_of(args, &table, read.id.clone(), None));
    }
    let (corpus, id) = Corpus::load_images(&args.corpus)?;
    Ok(source_of(args, &args.choice.of_corpus(&corpus)?, id, corpus.synthetic_label()))
}

fn source_of(args: &Args, table: &Table<'_>, id: String, synthetic: Option<String>) -> Source {
    let sets = ImageSets::of_table(table);
    let sets = if args.ignore_empty_layers { sets.without_empty() } else { sets };
    let names = (0..table.images.len()).map(|i| table.name(i)).collect();
    Source { names, sets, id, synthetic }
}

/// The chosen images in memory, ready to be compared; and whether the dense matrix is wanted.
///
/// # Errors
/// As [`compare`] for wrong options.
pub fn prepare(args: &Args, table: &Table<'_>) -> anyhow::Result<(Prepared, bool)> {
    let options = Options::new(args.top_k, args.min, args.tile_rows.map(u32::from))?;
    let source = source_of(args, table, String::new(), None);
    let prepared = Prepared::new(source.sets, &options);
    let matrix = args.matrix.is_wanted(prepared.images.len());
    Ok((prepared, matrix))
}

/// Options that change the results, as they are published.
fn settings(args: &Args, edges: &[f64], prepared: &Prepared) -> serde_json::Value {
    serde_json::json!({
        "subset": args.choice.subset,
        "table": args.choice.kind,
        "top_k": prepared.want.top_k,
        "min": prepared.want.min,
        "matrix": args.matrix.is_wanted(prepared.images.len()),
        "ignore_empty_layers": args.ignore_empty_layers,
        "edges": edges,
    })
}

fn identity(corpus_id: &str, names: &StringTable, settings: &serde_json::Value) -> String {
    let mut images = Sha256::new();
    for name in names.iter() {
        images.update(name.as_bytes());
        images.update(b"\n");
    }
    format!("corpus {corpus_id}\nimages {}\noptions {settings}", hex(&images.finalize()))
}

fn tell_and_check_needs(args: &Args, context: &Context, prepared: &Prepared) -> anyhow::Result<()> {
    if !context.world.is_root() {
        return Ok(());
    }
    let matrix = args.matrix.is_wanted(prepared.images.len());
    let needs = Needs::of(prepared, matrix, rayon::current_num_threads(), limits::held());
    let memory = limits::memory_of_rank(&context.world, args.memory);
    let limits = Limits { memory, disk: limits::disk(&args.output) };
    show::line(
        context,
        format!(
            "{} images, {} distinct sets, {} tiles on {} rank(s) x {} thread(s)",
            show::count(prepared.images.len() as u64),
            show::count(prepared.collapsed.len() as u64),
            prepared.plan.tiles(),
            context.world.size(),
            rayon::current_num_threads(),
        ),
    );
    let pairs = if prepared.want.min.is_some() {
        format!(", about {} pairs to list", show::count(needs.pairs))
    } else {
        String::new()
    };
    show::line(
        context,
        format!(
            "needs: {} of memory a rank (may use {}), {} of disk ({} free), {} steps{pairs}",
            show::bytes(needs.memory),
            show::bytes(limits.memory),
            show::bytes(needs.disk),
            show::bytes(limits.disk),
            show::count(needs.steps),
        ),
    );
    Ok(needs.check(limits)?)
}

fn publish(
    args: &Args,
    context: &Context,
    prepared: &Prepared,
    results: &results::Results,
    summary: &Summary,
    origin: &Origin,
    names: &StringTable,
) -> anyhow::Result<()> {
    let Prepared { collapsed, index, want, .. } = prepared;
    write_results(&args.output.join("jaccard.h5"), names, collapsed, index, results, want.top_k, origin)?;
    if args.matrix.is_wanted(prepared.images.len()) {
        let path = args.output.join("matrix.h5");
        let beat = || context.world.progress();
        write_matrix(&path, names, collapsed, index, origin, context.stop.flag(), &beat)?;
    }
    // Last: a directory with this file is complete.
    report::write_json(&args.output.join("jaccard.json"), summary)
}

/// What differs from run to run stays out of the results and goes here.
fn write_run_record(
    args: &Args,
    context: &Context,
    outcome: &Outcome,
    compute: Duration,
) -> anyhow::Result<()> {
    let record = serde_json::json!({
        "kind": "stratigraph run record",
        "ranks": context.world.size(),
        "threads_per_rank": rayon::current_num_threads(),
        "tiles": outcome.tiles,
        "tiles_found": outcome.found,
        "tiles_computed": outcome.computed,
        "compute_seconds": compute.as_secs_f64(),
    });
    report::write_json(&args.output.join("run-jaccard.json"), &record)
}
