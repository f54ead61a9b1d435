//! `stratigraph run`: the whole chain from one campaign file.

mod campaign;
mod plan;
mod record;
mod rootfs;

use super::claim::Claim;
use super::{Code, Context, cosine, embed, import, jaccard, reduce, show, stats, tokenize};
use crate::corpus;
use crate::h5::Reader;
use crate::pairs::Error;
use crate::pairs::cosine::Cluster;
use crate::tokens::{self, Scheme};
use campaign::Campaign;
pub use record::missing;
use std::path::{Path, PathBuf};

/// Run a campaign: import, statistics, documents, vectors, all pairs, summary
///
/// The campaign file says what to do (see configs/README.md). Stages whose results are there and
/// whose inputs did not change are not run again, so a campaign that was stopped goes on with the
/// same command. A results directory belongs to one campaign: another source or other options are
/// refused unless --overwrite is given.
///
/// The run can be killed at any moment: the same command goes on with the tile, or the epoch, that
/// was not finished. SIGTERM and SIGUSR1 end it cleanly (exit code 75).
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The campaign (TOML)
    #[arg(value_name = "CONFIG")]
    config: PathBuf,

    /// Take this source instead of the campaign's: a crawl, a corpus file (.h5), or Dockerfiles
    #[arg(long, value_name = "SOURCE")]
    source: Option<PathBuf>,

    /// Write here instead of the campaign's output directory
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,

    /// Memory each rank may use for vectors and all pairs [default: 80 % of what its node has free,
    /// shared by its ranks]; import and documents take what their source needs
    #[arg(long, value_name = "BYTES", value_parser = super::limits::parse_size)]
    memory: Option<u64>,

    /// Replace the results of another campaign in the output directory; of one that differs in some
    /// tables only, those that come of them
    #[arg(long)]
    overwrite: bool,

    /// Say what the campaign would need and how long it would take, and stop there: nothing is
    /// written. Reads the source, and calibrates each long stage for about a second
    #[arg(long)]
    plan: bool,

    /// With --plan: for so many ranks [default: 1]
    #[arg(long, value_name = "RANKS", requires = "plan")]
    plan_ranks: Option<std::num::NonZeroUsize>,

    /// With --plan: for so many threads in each rank [default: those of this command]
    #[arg(long, value_name = "THREADS", requires = "plan")]
    plan_threads: Option<std::num::NonZeroUsize>,
}

/// Names of the files in a campaign's directory, besides those of the comparisons of all pairs.
mod files {
    pub const CORPUS: &str = "corpus.h5";
    pub const STATS: &str = "stats.json";
    pub const DOCUMENTS: &str = "documents.h5";
    pub const TOKENS: &str = "tokens.json";
    pub const VECTORS: &str = "vectors.h5";
}

/// A campaign on its way.
struct Run<'a> {
    args: &'a Args,
    context: &'a Context,
    campaign: Campaign,
    source: PathBuf,
    out: PathBuf,
    /// Nothing of it has been done so far.
    fresh: bool,
    /// False if the documents have no word that is frequent enough.
    has_vectors: bool,
    steps: show::Steps,
    /// That of the import or the documents, now or in an earlier start, if a part of the source is lost.
    code: Code,
}

/// Whether the next stage may begin; the same on all ranks.
#[derive(PartialEq, Eq)]
enum Next {
    GoOn,
    Stopped,
}

/// Runs the command.
pub fn run(args: &Args, context: &Context) -> anyhow::Result<Code> {
    if let Some(campaign) = rootfs::Campaign::read(&args.config)? {
        return rootfs::run(&campaign, args, context);
    }
    let mut campaign = Campaign::read(&args.config)?;
    if let Some(source) = &args.source {
        campaign.source.clone_from(source);
    }
    campaign.check(&args.config)?;
    let source = campaign.source.clone();
    let out = args.out.clone().unwrap_or_else(|| campaign.output.clone());
    show::line(context, format!("campaign {}: {} -> {}", campaign.name, source.display(), out.display()));
    if context.world.is_root() {
        record::keep_outside(&source, &out)?;
    }
    let steps = show::Steps::begin();
    let mut run =
        Run { args, context, campaign, source, out, fresh: true, has_vectors: true, steps, code: Code::Done };
    if args.plan {
        let cluster = Cluster {
            ranks: args.plan_ranks.map_or(1, usize::from),
            threads: args.plan_threads.map_or_else(rayon::current_num_threads, usize::from),
        };
        return plan::plan(&run, cluster);
    }
    let _claim = Claim::take(context, &run.out)?;
    run.fresh = decide(context, || record::begin(&run.campaign, &run.source, &run.out, args.overwrite))?;
    for stage in run.stages() {
        if stage(&mut run)? == Next::Stopped || context.stop.anywhere(&context.world) {
            show::line(context, Error::Stopped);
            return Ok(Code::Requeue);
        }
    }
    heading(context, "summary");
    reduce::run(&reduce::Args { directory: run.out }, context)?;
    run.steps.mark("reduce");
    show::line(context, format!("\n{}", run.steps.table()));
    Ok(run.code)
}

type Stage<R> = fn(&mut R) -> anyhow::Result<Next>;

impl Run<'_> {
    /// What the campaign asks for, in order.
    fn stages(&self) -> Vec<Stage<Self>> {
        let Campaign { stats, tokenize, embed, cosine, jaccard, .. } = &self.campaign;
        let all: [(bool, Stage<Self>); 6] = [
            (self.imports(), Self::import),
            (stats.is_some(), Self::stats),
            (tokenize.is_some(), Self::tokenize),
            (embed.is_some(), Self::embed),
            (cosine.is_some(), Self::cosine),
            (jaccard.is_some(), Self::jaccard),
        ];
        all.into_iter().filter(|(wanted, _)| *wanted).map(|(_, stage)| stage).collect()
    }

    fn imports(&self) -> bool {
        !self.campaign.is_of_dockerfiles() && !campaign::is_corpus(&self.source)
    }

    /// The source itself if it is a corpus file or a published table.
    fn corpus(&self) -> PathBuf {
        if self.imports() { self.path(files::CORPUS) } else { self.source.clone() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.out.join(name)
    }

    /// Rank 0 looks whether a result is there and still right; if so it is said.
    fn is_up_to_date(
        &self,
        result: &Path,
        ask: impl FnOnce() -> anyhow::Result<bool>,
    ) -> anyhow::Result<bool> {
        let is = decide(self.context, ask)?;
        if is {
            show::line(self.context, format!("{}: up to date", result.display()));
        }
        Ok(is)
    }

    /// The start that read the source has listed what is lost; that a part is stays true.
    fn tell_losses(&mut self, ask: impl FnOnce() -> anyhow::Result<bool>) -> anyhow::Result<()> {
        if decide(self.context, ask)? {
            show::line(self.context, "a part of the source could not be read when it was");
            self.code = Code::DoneWithLosses;
        }
        Ok(())
    }

    fn import(&mut self) -> anyhow::Result<Next> {
        heading(self.context, "import");
        let corpus = self.corpus();
        if self.is_up_to_date(&corpus, || Ok(!self.fresh && corpus.exists()))? {
            self.tell_losses(|| Ok(!corpus::Provenance::load(&corpus)?.complete))?;
        } else {
            self.code = import::run(&import::Args::new(self.source.clone(), corpus), self.context)?;
        }
        self.steps.mark("import");
        Ok(Next::GoOn)
    }

    fn stats(&mut self) -> anyhow::Result<Next> {
        heading(self.context, "statistics");
        let (corpus, json) = (self.corpus(), self.path(files::STATS));
        if !self.is_up_to_date(&json, || stats_are_of(&json, &corpus))? {
            stats::count(&stats::Args { corpus, json: Some(json) }, self.context)?;
        }
        self.steps.mark("stats");
        Ok(Next::GoOn)
    }

    fn tokenize(&mut self) -> anyhow::Result<Next> {
        heading(self.context, "documents");
        let Some(wanted) = self.campaign.tokenize else { return Ok(Next::GoOn) };
        let (documents, json) = (self.path(files::DOCUMENTS), self.path(files::TOKENS));
        let scheme = wanted.scheme;
        let source = self.corpus();
        let known = || {
            // The record says whether Dockerfiles have changed.
            let id = if self.campaign.is_of_dockerfiles() { None } else { Some(corpus_id(&source)?) };
            Ok(!self.fresh && documents_are_of(&documents, &json, scheme, id.as_deref()))
        };
        if self.is_up_to_date(&documents, known)? {
            self.tell_losses(|| Ok(summary_of(&json).is_some_and(|found| found.practices.any_loss())))?;
        } else {
            let args = tokenize::Args::new(&source, &documents, scheme, json.clone())?;
            match tokenize::make(&args, self.context)? {
                tokenize::Ended::Stopped => return Ok(Next::Stopped),
                tokenize::Ended::Done { code, .. } if code != Code::Done => self.code = code,
                tokenize::Ended::Done { .. } => (),
            }
        }
        self.steps.mark("tokenize");
        Ok(Next::GoOn)
    }

    fn embed(&mut self) -> anyhow::Result<Next> {
        heading(self.context, "vectors");
        let Some(given) = self.campaign.embed.clone() else { return Ok(Next::GoOn) };
        let mut args = embed::Args::new(self.path(files::DOCUMENTS), self.path(files::VECTORS), given)?;
        args.overwrite = self.args.overwrite;
        args.memory = self.args.memory;
        let ended = match embed::run(&args, self.context) {
            // Small corpora and such without histories still have layers to compare. All ranks see it.
            Err(e) if matches!(e.downcast_ref(), Some(crate::embed::Error::NoWords { .. })) => {
                show::line(self.context, format!("no vectors, and no similarity of documents: {e}"));
                self.has_vectors = false;
                Code::Done
            }
            ended => ended?,
        };
        self.steps.mark("embed");
        Ok(if ended == Code::Requeue { Next::Stopped } else { Next::GoOn })
    }

    fn cosine(&mut self) -> anyhow::Result<Next> {
        let wanted = self.campaign.cosine.as_ref().filter(|_| self.has_vectors);
        let Some(options) = wanted else { return Ok(Next::GoOn) };
        heading(self.context, "similarity of all documents");
        let mut args = options.arguments(&self.path(files::VECTORS), &self.out)?;
        args.memory = self.args.memory;
        args.overwrite = self.args.overwrite;
        let ended = cosine::compare(&args, self.context)?;
        self.steps.mark("cosine");
        Ok(if let cosine::Ended::Stopped = ended { Next::Stopped } else { Next::GoOn })
    }

    fn jaccard(&mut self) -> anyhow::Result<Next> {
        heading(self.context, "similarity of all images");
        let Some(options) = &self.campaign.jaccard else { return Ok(Next::GoOn) };
        let mut args = options.arguments(&self.corpus(), &self.out)?;
        args.memory = self.args.memory;
        args.overwrite = self.args.overwrite;
        let ended = jaccard::compare(&args, self.context)?;
        self.steps.mark("jaccard");
        Ok(if let jaccard::Ended::Stopped = ended { Next::Stopped } else { Next::GoOn })
    }
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

fn is_same(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

/// The id of a corpus file or of a published table.
fn corpus_id(path: &Path) -> anyhow::Result<String> {
    Ok(if corpus::is_published_table(path) {
        corpus::PublishedTable::read(path)?.id
    } else {
        corpus::Corpus::load_images(path)?.1
    })
}

/// True if these statistics are of this very corpus, made by this version.
fn stats_are_of(json: &Path, corpus_file: &Path) -> anyhow::Result<bool> {
    let Ok(text) = std::fs::read(json) else { return Ok(false) };
    let Ok(stats) = serde_json::from_slice::<crate::stats::Stats>(&text) else { return Ok(false) };
    Ok(stats.program_version == env!("CARGO_PKG_VERSION") && stats.corpus_id == corpus_id(corpus_file)?)
}

/// True if both files are of these documents, made by this version; of this corpus, if it has an id.
fn documents_are_of(documents: &Path, json: &Path, scheme: Scheme, corpus_id: Option<&str>) -> bool {
    let Some(found) = summary_of(json) else { return false };
    let id = Reader::open_any(documents).and_then(|r| r.attribute("documents_id"));
    found.program_version == env!("CARGO_PKG_VERSION")
        && found.scheme == scheme
        && corpus_id.is_none_or(|id| id == found.source_id)
        && id.is_ok_and(|id| id == found.documents_id)
}

fn summary_of(json: &Path) -> Option<tokens::Summary> {
    serde_json::from_slice(&std::fs::read(json).ok()?).ok()
}
