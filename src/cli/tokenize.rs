//! `stratigraph tokenize`.

use super::claim::keep_apart;
use super::show::{self, Progress, Steps};
use super::{Code, Context, defaults, import};
use crate::corpus::Corpus;
use crate::report::{dockerfile_shares_text, history_shares_text, replace_file, write_json};
use crate::tokens::{
    Commands, Corpora, Dockerfiles, Documents, Error, Odd, Reading, Scheme, Summary, Told, Watch,
    load_histories,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Turn histories or Dockerfiles into documents: token sequences with their counts
///
/// From a corpus file: the history of each config, by the tokenizer of the study's later scripts.
/// A layer's document is everything the history says up to it (cumulative, as published) or what
/// made that layer alone (per-layer, corrected). Each distinct document is kept once.
///
/// From a directory or archive (.tar, .tar.gz, .tar.zst): each file whose name begins with
/// `Dockerfile` is a document.
///
/// SIGTERM and SIGUSR1 end it with nothing written (exit code 75); it takes seconds and starts anew.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// A corpus file (.h5, from `stratigraph import` or `synth`), or Dockerfiles
    #[arg(value_name = "SOURCE")]
    pub source: PathBuf,

    /// The documents file to write
    #[arg(short, long, value_name = "FILE", default_value = "documents.h5")]
    pub output: PathBuf,

    /// What the document of a layer is
    #[arg(long, value_enum, default_value = "cumulative")]
    pub scheme: HistoryScheme,

    /// Write the study's text corpora, too, one document a line (a crawl of 1,400 repositories
    /// gives 2.4 GB)
    #[arg(long, value_name = "DIR")]
    pub text: Option<PathBuf>,

    /// Write the counts and shares as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// With Dockerfiles: say how many projects of this list have one under `rseng/` (a line for each:
    /// HOST/OWNER/REPOSITORY, or a JSON object with such a `uid`)
    #[arg(long, value_name = "FILE")]
    pub coverage: Option<PathBuf>,

    /// Wait before each piece of work (for tests of signals)
    #[arg(long, hide = true, env = "STRATIGRAPH_PIECE_DELAY_MS", default_value_t = 0)]
    pub piece_delay_ms: u64,
}

/// What the document of a layer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HistoryScheme {
    /// The history up to the layer
    Cumulative,
    /// The layer's own command
    PerLayer,
}

impl From<HistoryScheme> for Scheme {
    fn from(scheme: HistoryScheme) -> Self {
        match scheme {
            HistoryScheme::Cumulative => Self::Cumulative,
            HistoryScheme::PerLayer => Self::PerLayer,
        }
    }
}

impl Args {
    /// As on the command line with these files and nothing else.
    pub(super) fn new(source: &Path, output: &Path, scheme: Scheme, json: PathBuf) -> anyhow::Result<Self> {
        let mut args: Self = defaults([source.as_os_str(), "-o".as_ref(), output.as_os_str()])?;
        args.scheme = match scheme {
            Scheme::PerLayer => HistoryScheme::PerLayer,
            Scheme::Cumulative | Scheme::Dockerfiles => HistoryScheme::Cumulative,
        };
        args.json = Some(json);
        Ok(args)
    }
}

/// How a run ended.
pub enum Ended {
    /// All is written; rank 0 knows what the documents tell.
    Done {
        /// [`Code::DoneWithLosses`] if a part of the source could not be read; the same on all ranks.
        code: Code,
        /// On rank 0.
        told: Option<Told>,
    },
    /// A signal came; nothing is written.
    Stopped,
}

/// Runs the command.
pub fn run(args: &Args, context: &Context) -> anyhow::Result<Code> {
    match make(args, context)? {
        Ended::Stopped => {
            show::line(context, Error::Stopped);
            Ok(Code::Requeue)
        }
        Ended::Done { code, told } => {
            match told {
                Some(Told::Histories(shares)) => show::line(context, history_shares_text(&shares)),
                Some(Told::Dockerfiles(shares)) => show::line(context, dockerfile_shares_text(&shares)),
                None => (),
            }
            Ok(code)
        }
    }
}

/// Makes the documents and writes them. Collective.
pub fn make(args: &Args, context: &Context) -> anyhow::Result<Ended> {
    keep_apart(context, &args.source, [&args.output].into_iter().chain(&args.json))?;
    let world = &context.world;
    let mut steps = Steps::begin();
    let made = {
        let progress = Progress::begin(context, "tokenize", 0, "bytes");
        let watch = Watch {
            stop: context.stop.flag(),
            progress: &|done, total| {
                progress.set_total(total);
                progress.set(done);
            },
            pause: std::time::Duration::from_millis(args.piece_delay_ms),
        };
        if args.source.extension().is_some_and(|e| e == "h5") {
            if args.coverage.is_some() {
                let reason = "--coverage is a question to Dockerfiles; give a directory or archive of them";
                return Err(Error::Source { path: args.source.clone(), reason: reason.into() }.into());
            }
            read_histories(args, context, &watch, &mut steps)
        } else {
            read_dockerfiles(args, context, &watch, &mut steps)
        }
    };
    let made = match made {
        Err(e) if matches!(e.downcast_ref(), Some(Error::Stopped)) => return Ok(Ended::Stopped),
        made => made?,
    };
    let mut code = Code::Done;
    let mut told = None;
    if let Some(source) = made {
        // The other ranks have nothing left to do and sleep in the barrier below.
        let threads = world.threads_of_node(rayon::current_num_threads());
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
        (code, told) = write(args, context, &pool, source, &mut steps)?;
        show::line(context, steps.summary());
    }
    world.barrier();
    // All ranks end with the same code.
    let mut shared = [code as u64];
    world.max_u64(&mut shared);
    let code = if shared[0] == Code::Done as u64 { Code::Done } else { Code::DoneWithLosses };
    Ok(Ended::Done { code, told })
}

/// What was read, on rank 0.
enum Source {
    Histories { corpus: Box<Corpus>, commands: Commands, documents: Box<Documents> },
    Dockerfiles(Box<Dockerfiles>),
}

fn read_histories(
    args: &Args,
    context: &Context,
    watch: &Watch<'_>,
    steps: &mut Steps,
) -> anyhow::Result<Option<Source>> {
    let (corpus, id) = load_histories(&args.source)?;
    steps.mark("read");
    let Some(commands) = Commands::of(&corpus, &context.world, watch)? else { return Ok(None) };
    let tokens = steps.mark("tokens");
    let documents = commands.documents(&corpus, &id, args.scheme.into());
    let work = tokens + steps.mark("documents");
    let milliseconds = work.as_secs_f64() * 1e3;
    show::line(context, format!("compute: {milliseconds:.1} ms (histories in memory to counted documents)"));
    Ok(Some(Source::Histories { corpus: Box::new(corpus), commands, documents: Box::new(documents) }))
}

fn read_dockerfiles(
    args: &Args,
    context: &Context,
    watch: &Watch<'_>,
    steps: &mut Steps,
) -> anyhow::Result<Option<Source>> {
    if let HistoryScheme::PerLayer = args.scheme {
        let reason = "Dockerfiles have no histories of layers, which --scheme is for; leave it out";
        return Err(Error::Source { path: args.source.clone(), reason: reason.into() }.into());
    }
    let files = Dockerfiles::read(&args.source, &context.world, watch)?;
    steps.mark("read");
    Ok(files.map(|files| Source::Dockerfiles(Box::new(files))))
}

fn write(
    args: &Args,
    context: &Context,
    pool: &rayon::ThreadPool,
    source: Source,
    steps: &mut Steps,
) -> anyhow::Result<(Code, Option<Told>)> {
    match source {
        Source::Histories { corpus, commands, documents } => {
            documents.save(&args.output)?;
            steps.mark("write");
            let told = Told::Histories(Box::new(pool.install(|| commands.shares(&corpus))));
            steps.mark("shares");
            if let Some(directory) = &args.text {
                pool.install(|| write_histories(&documents, &corpus, directory))?;
                steps.mark("text");
            }
            outcome(args, context, &documents, told.clone())?;
            Ok((Code::Done, Some(told)))
        }
        Source::Dockerfiles(files) => {
            let (documents, mut shares) = (files.documents(), files.shares());
            shares.coverage = args.coverage.as_deref().map(|list| files.coverage(list)).transpose()?;
            steps.mark("documents");
            documents.save(&args.output)?;
            steps.mark("write");
            if let Some(directory) = &args.text {
                pool.install(|| write_dockerfiles(&documents, &files, directory))?;
                steps.mark("text");
            }
            let code = tell_odd(args, context, &shares.odd);
            let told = Told::Dockerfiles(Box::new(shares));
            outcome(args, context, &documents, told.clone())?;
            Ok((code, Some(told)))
        }
    }
}

/// Prints what was odd in Dockerfiles.
fn tell_odd(args: &Args, context: &Context, odd: &Odd) -> Code {
    for (what, n, examples) in [
        ("files of another name", odd.other_files, &odd.other_examples),
        ("paths that occur again (the last counts)", odd.repeated_files, &odd.repeated_examples),
        ("files that are not UTF-8 (read with U+FFFD)", odd.not_utf8, &odd.not_utf8_examples),
        ("lost: files that cannot be read", odd.unreadable, &odd.unreadable_examples),
    ] {
        if n > 0 {
            let shown: Vec<_> = examples.iter().take(3).map(|e| import::visible(e)).collect();
            show::line(context, format!("{what}: {}, for example {}", show::count(n), shown.join(", ")));
        }
    }
    if let Some(place) = &odd.broken_archive {
        eprintln!("stratigraph: {}: the archive is broken {}", args.source.display(), import::visible(place));
    }
    if odd.any_loss() { Code::DoneWithLosses } else { Code::Done }
}

fn write_dockerfiles(documents: &Documents, files: &Dockerfiles, directory: &Path) -> anyhow::Result<()> {
    write_documents(documents, directory)?;
    write_json(&directory.join("dockerfile-counts.json"), &ordered(&files.from_counts()))?;
    write_text(&directory.join("scientific-dockerfile-image-index.txt"), |file| {
        let mut out = std::io::BufWriter::new(file);
        documents.sources().iter().try_for_each(|name| writeln!(out, "{name}"))?;
        out.flush()
    })
}

/// JSON objects that keep the order of the counts, as the study's file does.
fn ordered(counts: &BTreeMap<String, Vec<(String, u64)>>) -> serde_json::Map<String, serde_json::Value> {
    let object =
        |images: &Vec<(String, u64)>| images.iter().map(|(name, n)| (name.clone(), (*n).into())).collect();
    counts.iter().map(|(group, images)| (group.clone(), serde_json::Value::Object(object(images)))).collect()
}

/// Prints what the documents are and writes the JSON.
fn outcome(args: &Args, context: &Context, documents: &Documents, practices: Told) -> anyhow::Result<()> {
    let summary = Summary::of(documents, practices);
    if let Some(path) = &args.json {
        write_json(path, &summary)?;
    }
    if let Some(label) = &summary.synthetic {
        show::line(context, format!("SYNTHETIC corpus, {label}: no real images"));
    }
    summarise(documents, context);
    Ok(())
}

/// Prints what a documents file holds.
pub(super) fn summarise(documents: &Documents, context: &Context) {
    let mut table = show::table(&["documents and tokens", "distinct", "all"]);
    let (layers, images) = (("layers", Reading::Layers), ("images", Reading::Images));
    let readings: &[(&str, Reading)] = match documents.scheme() {
        Scheme::Cumulative => &[layers, images],
        Scheme::PerLayer => &[layers],
        Scheme::Dockerfiles => &[("Dockerfiles", Reading::Images)],
    };
    for (of, reading) in readings {
        let distinct = documents.of(*reading).count() as u64;
        let all = documents.occurrences(*reading);
        table.add_row([format!("documents of {of}"), show::count(distinct), show::count(all)]);
    }
    // A text that is a layer's document and an image's is in both.
    for (of, reading) in readings {
        let counts = documents.token_counts(*reading);
        let distinct = counts.iter().filter(|n| **n > 0).count() as u64;
        let all = counts.iter().sum::<u64>();
        table.add_row([format!("tokens of {of}"), show::count(distinct), show::count(all)]);
    }
    show::line(context, table);
    show::line(context, "");
}

/// Writes the text corpora of histories.
fn write_histories(documents: &Documents, corpus: &Corpus, directory: &Path) -> anyhow::Result<()> {
    write_documents(documents, directory)?;
    if documents.scheme() == Scheme::Cumulative {
        let texts = Commands::first_version(corpus);
        write_text(&directory.join("dockerfile-corpus.txt"), |file| texts.write_text(file))?;
    }
    Ok(())
}

fn write_documents(documents: &Documents, directory: &Path) -> anyhow::Result<()> {
    let made = std::fs::create_dir_all(directory);
    made.map_err(|error| Error::Write { path: directory.to_owned(), error })?;
    for (corpora, name) in Corpora::of(documents.scheme()) {
        write_text(&directory.join(name), |file| documents.write_text(*corpora, file))?;
    }
    Ok(())
}

/// The texts are not synced: they can be made again, and are gigabytes.
fn write_text(path: &Path, write: impl FnOnce(&std::fs::File) -> std::io::Result<()>) -> anyhow::Result<()> {
    replace_file(path, |temporary| Ok(write(&std::fs::File::create(temporary)?)?))
}
