//! `stratigraph run`: the whole chain from one campaign file.

mod campaign;

use super::claim::Claim;
use super::jaccard::{self, Ended};
use super::{Code, Context, choice, import, reduce, show, stats};
use crate::pairs::Error;
use crate::{corpus, report};
use anyhow::Context as _;
use campaign::{Campaign, source_state};
use std::path::{Path, PathBuf};

/// Run a campaign: import, statistics, comparison of all pairs, summary
///
/// The campaign file says what to do (see configs/README.md). Stages whose results are there and
/// whose inputs did not change are not run again, so a campaign that was stopped goes on with the
/// same command. A results directory belongs to one campaign: another source or other options are
/// refused unless --overwrite is given.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The campaign (TOML)
    #[arg(value_name = "CONFIG")]
    config: PathBuf,

    /// Take this source instead of the campaign's: a crawl, or a corpus file (.h5)
    #[arg(long, value_name = "SOURCE")]
    source: Option<PathBuf>,

    /// Write here instead of the campaign's output directory
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,

    /// Memory each rank may use [default: 80 % of what its node has free, shared by its ranks]
    #[arg(long, value_name = "BYTES", value_parser = super::limits::parse_size)]
    memory: Option<u64>,

    /// Replace the results of another campaign in the output directory
    #[arg(long)]
    overwrite: bool,

    /// Wait after each tile (for tests of restarts)
    #[arg(long, hide = true, env = "STRATIGRAPH_TILE_DELAY_MS", default_value_t = 0)]
    tile_delay_ms: u64,
}

/// What identifies the campaign in its results directory.
const RECORD: &str = "run.json";

/// Runs the command.
pub fn run(args: &Args, context: &Context) -> anyhow::Result<Code> {
    let campaign = Campaign::read(&args.config)?;
    let source = args.source.clone().unwrap_or_else(|| campaign.source.clone());
    let out = args.out.clone().unwrap_or_else(|| campaign.output.clone());
    let mut steps = show::Steps::begin();
    show::line(context, format!("campaign {}: {} -> {}", campaign.name, source.display(), out.display()));

    let is_corpus = source.extension().is_some_and(|e| e == "h5") || corpus::is_published_table(&source);
    let corpus_file = if is_corpus { source.clone() } else { out.join("corpus.h5") };
    let _claim = Claim::take(context, &out)?;
    let fresh = begin(args, context, &campaign, &source, &out)?;
    let mut code = Code::Done;
    if !is_corpus {
        heading(context, "import");
        if decide(context, || Ok(!fresh && corpus_file.exists()))? {
            show::line(context, format!("{}: up to date", corpus_file.display()));
        } else {
            code = import::run(&import::Args::new(source, corpus_file.clone()), context)?;
        }
        steps.mark("import");
    }
    if context.stop.anywhere(&context.world) {
        return stopped(context);
    }
    if campaign.stats.is_some() {
        heading(context, "statistics");
        let json = out.join("stats.json");
        if decide(context, || stats_are_of(&json, &corpus_file))? {
            show::line(context, format!("{}: up to date", json.display()));
        } else {
            stats::count(&stats::Args { corpus: corpus_file.clone(), json: Some(json) }, context)?;
        }
        steps.mark("stats");
    }
    if context.stop.anywhere(&context.world) {
        return stopped(context);
    }
    if let Some(options) = &campaign.jaccard {
        heading(context, "similarity of all pairs");
        let arguments = jaccard::Args {
            corpus: corpus_file,
            output: out.clone(),
            choice: choice::Choice { subset: options.subset.clone(), kind: options.table },
            top_k: options.top_k,
            min: (options.min > 0.0).then_some(options.min),
            edges: options.edges.clone(),
            matrix: options.matrix,
            ignore_empty_layers: options.ignore_empty_layers,
            memory: args.memory,
            tile_rows: options.tile_rows,
            overwrite: false,
            plan: false,
            tile_delay_ms: args.tile_delay_ms,
        };
        if let Ended::Stopped = jaccard::compare(&arguments, context)? {
            return stopped(context);
        }
        steps.mark("jaccard");
    }
    heading(context, "summary");
    reduce::run(&reduce::Args { directory: out }, context)?;
    steps.mark("reduce");
    show::line(context, format!("\n{}", steps.table()));
    Ok(code)
}

fn stopped(context: &Context) -> anyhow::Result<Code> {
    show::line(context, Error::Stopped);
    Ok(Code::Requeue)
}

fn heading(context: &Context, name: &str) {
    show::line(context, format!("\n== {name}"));
}

/// Rank 0's answer, on all ranks.
fn decide(context: &Context, ask: impl FnOnce() -> anyhow::Result<bool>) -> anyhow::Result<bool> {
    let mut answer = [0];
    if context.world.is_root() {
        answer[0] = u64::from(ask()?);
    }
    context.world.max_u64(&mut answer);
    Ok(answer[0] == 1)
}

/// Checks that the directory is this campaign's and records that it is. True if the source has to
/// be read.
fn begin(
    args: &Args,
    context: &Context,
    campaign: &Campaign,
    source: &Path,
    out: &Path,
) -> anyhow::Result<bool> {
    decide(context, || {
        let record = serde_json::json!({
            "kind": "stratigraph campaign",
            "name": campaign.name,
            "program_version": env!("CARGO_PKG_VERSION"),
            "source": source,
            "source_state": source_state(source)?,
            "stats": campaign.stats.is_some(),
            "jaccard": campaign.jaccard,
        });
        std::fs::create_dir_all(out).with_context(|| out.display().to_string())?;
        let path = out.join(RECORD);
        let known = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice::<serde_json::Value>(&bytes).ok(),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                // Results of single commands are as good as a campaign's: not to be mixed.
                let foreign = ["corpus.h5", "stats.json", "jaccard.json", "journal"];
                let old = foreign.map(|name| out.join(name));
                let found = old.iter().any(|old| old.exists() && !is_same(old, source));
                found.then_some(serde_json::Value::Null)
            }
            Err(e) => return Err(e).with_context(|| path.display().to_string()),
        };
        match known {
            Some(known) if known == record => return Ok(false),
            Some(known) if !args.overwrite => {
                return Err(Error::Refused(format!(
                    "{}: holds other results ({}); choose another --out, or give --overwrite",
                    out.display(),
                    difference(&known, &record),
                ))
                .into());
            }
            _ => (),
        }
        // The record goes first and comes last: between, the directory is nobody's.
        let old =
            [RECORD, "summary.json", "summary.txt", "stats.json", "corpus.h5"].map(|name| out.join(name));
        for old in old.iter().filter(|old| !is_same(old, source)) {
            match std::fs::remove_file(old) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(e).with_context(|| old.display().to_string());
                }
                _ => (),
            }
        }
        jaccard::FILES.remove(out)?;
        report::write_json(&path, &record)?;
        Ok(true)
    })
}

fn is_same(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

/// What the user changed, in a word.
fn difference(known: &serde_json::Value, record: &serde_json::Value) -> &'static str {
    if known.is_null() {
        return "of single commands";
    }
    let names = [
        ("name", "its name differs"),
        ("program_version", "made by another version"),
        ("source", "its source differs"),
        ("source_state", "the source has changed since"),
        ("stats", "[stats] differs"),
        ("jaccard", "[jaccard] differs"),
    ];
    names.iter().find(|(n, _)| known.get(n) != record.get(n)).map_or("of another version", |n| n.1)
}

/// True if these statistics are of this very corpus, made by this version.
fn stats_are_of(json: &Path, corpus_file: &Path) -> anyhow::Result<bool> {
    let Ok(text) = std::fs::read(json) else { return Ok(false) };
    let Ok(stats) = serde_json::from_slice::<crate::stats::Stats>(&text) else { return Ok(false) };
    let id = if corpus::is_published_table(corpus_file) {
        corpus::PublishedTable::read(corpus_file)?.id
    } else {
        corpus::Corpus::load_images(corpus_file)?.1
    };
    Ok(stats.program_version == env!("CARGO_PKG_VERSION") && stats.corpus_id == id)
}
