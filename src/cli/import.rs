//! `stratigraph import`.

use super::claim::keep_apart;
use super::show::{self, Progress, Steps};
use super::{Code, Context};
use crate::corpus::{self, Corpus, Oddities, Oddity};
use std::path::PathBuf;

/// Read a crawl (directory, .tar, .tar.gz, .tar.zst) into a corpus file
///
/// Reads all `manifests-config-layers.json` files of the source; their directories are the
/// repository names. What is odd in them is counted, never fatal: see --oddities.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Directory or tar archive; archives are not unpacked to disk
    #[arg(value_name = "SOURCE")]
    source: PathBuf,

    /// The corpus file to write
    #[arg(short, long, value_name = "FILE", default_value = "corpus.h5")]
    output: PathBuf,

    /// Print the first N places of each oddity: file, tag, field (at most 10 are kept)
    #[arg(long, value_name = "N", default_value_t = 0)]
    oddities: usize,
}

impl Args {
    /// As with the defaults of the command line.
    pub(super) fn new(source: PathBuf, output: PathBuf) -> Self {
        Self { source, output, oddities: 0 }
    }
}

/// Runs the command.
pub fn run(args: &Args, context: &Context) -> anyhow::Result<Code> {
    keep_apart(context, &args.source, [&args.output])?;
    let mut steps = Steps::begin();
    let progress = Progress::begin(context, "import", 0, "bytes");
    let imported = corpus::import(&args.source, &context.world, &|done, total| {
        progress.set_total(total);
        progress.set(done);
    })?;
    drop(progress);
    let mut code = Code::Done as u64;
    if let Some(imported) = imported {
        steps.mark("read");
        // The other ranks have nothing left to do and sleep in the barrier below.
        let threads = context.world.threads_of_node(rayon::current_num_threads());
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
        let corpus = pool.install(|| imported.into_corpus());
        steps.mark("join");
        pool.install(|| corpus.save(&args.output))?;
        steps.mark("write");
        summarise(&corpus, context);
        show::line(context, "");
        print_oddities(&corpus.oddities, args.oddities, context);
        show::line(context, format!("corpus: {}", args.output.display()));
        show::line(context, steps.summary());
        if corpus.oddities.any_loss() {
            code = Code::DoneWithLosses as u64;
        }
    }
    context.world.barrier();
    // All ranks end with the same code.
    let mut shared = [code];
    context.world.max_u64(&mut shared);
    Ok(if shared[0] == Code::Done as u64 { Code::Done } else { Code::DoneWithLosses })
}

/// Prints what a corpus holds.
pub(super) fn summarise(corpus: &Corpus, context: &Context) {
    let images = corpus.study_images();
    let rows: usize = images.iter().map(|m| corpus.layers_of(*m as usize).len()).sum();
    let from = &corpus.provenance;
    if let Some(seed) = from.synthetic_seed {
        show::line(context, format!("SYNTHETIC corpus (seed {seed}): generated, no real images"));
    }
    let mut table = show::table(&["corpus", ""]);
    let counts = [
        ("files", from.files),
        ("repositories", corpus.repositories.len() as u64),
        ("manifests", corpus.manifest_count() as u64),
        ("  images that the study keeps", images.len() as u64),
        ("  their layers (rows of the manifest table)", rows as u64),
        ("layers", corpus.layers.digest.len() as u64),
        ("distinct digests", corpus.digests.len() as u64),
        ("index entries", corpus.entries.digest.len() as u64),
        ("configs", corpus.config_count() as u64),
        ("history entries", corpus.history.created_by.len() as u64),
        ("distinct history commands", corpus.commands.len() as u64),
    ];
    for (name, n) in counts {
        table.add_row([name.to_owned(), show::count(n)]);
    }
    table.add_row(["bytes read".to_owned(), show::bytes(from.bytes)]);
    show::line(context, table);
}

/// Prints the counts of all kinds seen, and the first `examples` places of each. What was lost is
/// printed in any case.
pub(super) fn print_oddities(oddities: &Oddities, examples: usize, context: &Context) {
    let seen: Vec<_> = Oddity::ALL.into_iter().filter(|kind| oddities.count(*kind) > 0).collect();
    if !seen.is_empty() {
        let mut table = show::table(&["odd in the source", "count"]);
        for kind in &seen {
            table.add_row([kind.label().to_owned(), show::count(oddities.count(*kind))]);
        }
        show::line(context, table);
        show::line(context, "");
    }
    for kind in seen {
        let wanted = if kind.is_loss() { examples.max(3) } else { examples };
        let shown: Vec<_> = oddities.examples().iter().filter(|e| e.kind == kind).take(wanted).collect();
        if shown.is_empty() {
            continue;
        }
        let mark = if kind.is_loss() { "lost: " } else { "" };
        let mut lines = vec![format!("{mark}{}", kind.label())];
        for example in shown {
            let tag = if example.tag.is_empty() { String::new() } else { format!(" tag {:?}", example.tag) };
            lines.push(format!("  {}{tag}: {}", visible(&example.file), visible(&example.field)));
        }
        let text = lines.join("\n");
        // What was lost is told even under --quiet.
        if kind.is_loss() && context.common.quiet && context.world.is_root() {
            eprintln!("{text}");
        } else {
            show::line(context, text);
        }
    }
}

/// The text with control and invisible characters spelt out, as names from a crawl may hold any.
pub(super) fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '\'' | '"' | '\\') {
            shown.push(c);
        } else {
            shown.extend(c.escape_debug());
        }
    }
    shown
}
