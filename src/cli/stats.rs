//! `stratigraph stats`.

use super::claim::keep_apart;
use super::{Code, Context, show};
use crate::corpus::{Corpus, PublishedTable, is_published_table};
use crate::report;
use crate::stats::Stats;
use std::path::PathBuf;

/// Sizes, years, layer counts, repetition and sharing of layers
///
/// In two readings: as published (the definitions of the study that the crawl was made for, to the
/// last digit) and corrected (the same questions asked of images, tags and layers with content).
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The corpus (from `stratigraph import` or `synth`), or a published table of images and layers
    /// (.csv)
    #[arg(value_name = "CORPUS")]
    pub corpus: PathBuf,

    /// Write all of it as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: &Args, context: &Context) -> anyhow::Result<Code> {
    if let Some(stats) = count(args, context)? {
        show::line(context, report::stats_text(&stats));
    }
    Ok(Code::Done)
}

/// Counts and writes; rank 0 does the work and has the outcome.
pub fn count(args: &Args, context: &Context) -> anyhow::Result<Option<Stats>> {
    keep_apart(context, &args.corpus, &args.json)?;
    let mut counted = None;
    if context.world.is_root() {
        let mut steps = show::Steps::begin();
        let stats = if is_published_table(&args.corpus) {
            let table = PublishedTable::read(&args.corpus)?;
            steps.mark("read");
            Stats::of_table(&table)
        } else {
            let corpus = Corpus::load(&args.corpus)?;
            steps.mark("read");
            Stats::of_corpus(&corpus)
        };
        steps.mark("count");
        if let Some(path) = &args.json {
            report::write_json(path, &stats)?;
            steps.mark("write");
        }
        show::line(context, steps.summary());
        counted = Some(stats);
    }
    context.world.barrier();
    Ok(counted)
}
