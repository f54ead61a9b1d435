//! `stratigraph reduce`.

use super::{Code, Context, run, show};
use crate::report;
use std::path::PathBuf;

/// Sum up a run: check its results, print the tables, write summary.json and summary.txt
///
/// Reads what there is of stats.json, tokens.json, jaccard.json and cosine.json in the run's directory,
/// with jaccard.h5 and cosine.h5. Nothing is published if they are of different corpora or if counts
/// do not sum to all pairs. What the directory's campaign asks for and has not made yet is named.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The results directory of a run
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
}

/// Runs the command; rank 0 does the work.
pub fn run(args: &Args, context: &Context) -> anyhow::Result<Code> {
    if context.world.is_root() {
        let reduced = report::reduce(&args.directory)?;
        show::line(context, reduced.text);
        let missing = run::missing(&args.directory);
        if !missing.is_empty() {
            let names = missing.join(", ");
            show::line(context, format!("not in it: {names}, which the campaign of this directory asks for"));
        }
        show::line(context, format!("summary: {}", args.directory.join("summary.json").display()));
    }
    context.world.barrier();
    Ok(Code::Done)
}
