//! `stratigraph embed`.

use super::claim::{Claim, keep_apart};
use super::results::remove_leftovers;
use super::{Code, Context, hex, limits, show};
use crate::embed::train::{Ended, State, Trainer};
use crate::embed::vectors::{self, DocumentRows, Origin, WordRows, normalise};
use crate::embed::{
    Corpus, DocumentVectors, Error, Method, Options, Order, Output, Vocabulary, checkpoint, count_tokens,
    mean, plan, train,
};
use crate::h5::Reader;
use crate::report::replace_file;
use crate::strings::StringTable;
use crate::tokens::{Documents, Reading};
use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::io::BufWriter;
use std::path::{Path, PathBuf};

/// Turn documents into vectors (word2vec or doc2vec)
///
/// Learns a vector for each word, and one for each distinct document: the mean of its words', or
/// with doc2vec one of its own. Writes vectors.h5: unit vectors with the lengths they had.
///
/// The result is the same bits for the same seed and options on any number of ranks and threads,
/// and after any restarts. What is trained side by side is decided by --shards, not by how many
/// processes there are: give at least as many shards as there are threads in all. With --lock-free
/// that promise is given up.
///
/// The run can be killed at any moment: the same command goes on after the last finished epoch.
/// SIGTERM and SIGUSR1 end it cleanly after the current merge (exit code 75) and lose nothing.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The documents (from `stratigraph tokenize`)
    #[arg(value_name = "DOCUMENTS")]
    documents: PathBuf,

    /// The vectors file to write; the checkpoint stands beside it until it is done
    #[arg(short, long, value_name = "FILE", default_value = "vectors.h5")]
    output: PathBuf,

    #[command(flatten)]
    given: Given,

    /// Memory that each rank may use, if a campaign says so.
    #[arg(skip)]
    pub(super) memory: Option<u64>,

    /// Replace the file, and the checkpoint, of another run
    #[arg(long)]
    pub(super) overwrite: bool,

    /// Write the words for the TensorFlow projector: DIR/vectors.tsv and DIR/metadata.tsv
    #[arg(long, value_name = "DIR")]
    projector: Option<PathBuf>,

    /// Write the words in word2vec's text format
    #[arg(long, value_name = "FILE")]
    word2vec_text: Option<PathBuf>,

    /// Write the words in word2vec's binary format
    #[arg(long, value_name = "FILE")]
    word2vec_binary: Option<PathBuf>,

    /// Wait after each epoch (for tests of restarts)
    #[arg(long, hide = true, env = "STRATIGRAPH_EPOCH_DELAY_MS", default_value_t = 0)]
    epoch_delay_ms: u64,
}

/// Options that change the vectors; a campaign file has them under `[embed]`.
#[derive(Debug, Clone, Default, PartialEq, clap::Args, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Given {
    /// Where the options below start from
    #[arg(long, value_enum, default_value = "word2vec")]
    preset: Preset,

    /// Length of a vector
    #[arg(long, value_name = "N")]
    dims: Option<u32>,

    /// Words on each side that predict the one in the middle, at most
    #[arg(long, value_name = "N")]
    window: Option<u32>,

    /// Negative examples for each word; 0 for Huffman codes instead (hierarchical softmax)
    #[arg(long, value_name = "N")]
    negatives: Option<u32>,

    /// Skip words that are more frequent than this share at random; 0 skips none
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true)]
    sample: Option<f64>,

    /// Leave out words that occur less often
    #[arg(long, value_name = "N")]
    min_count: Option<u64>,

    /// Keep at most so many words, the most frequent; 0 for all
    #[arg(long, value_name = "N")]
    max_vocabulary: Option<u32>,

    /// How often each document is trained on
    #[arg(long, value_name = "N")]
    epochs: Option<u32>,

    /// Learning rate at the beginning
    #[arg(long, value_name = "RATE", allow_negative_numbers = true)]
    alpha: Option<f32>,

    /// Learning rate at the end; it falls linearly
    #[arg(long, value_name = "RATE", allow_negative_numbers = true)]
    min_alpha: Option<f32>,

    /// Documents to train on, each once in an epoch
    #[arg(long, value_enum)]
    train: Option<Train>,

    /// In which order documents are trained on [default: random with top2vec, else corpus]
    #[arg(long, value_enum)]
    order: Option<Ordered>,

    /// Where document vectors come from [default: learned with doc2vec, else mean]
    #[arg(long, value_enum)]
    document_vectors: Option<Made>,

    /// Parts of the documents that are trained side by side; a part of the result
    #[arg(long, value_name = "N")]
    shards: Option<u32>,

    /// Words that each shard reads before all are merged; a part of the result
    #[arg(long, value_name = "N")]
    merge_words: Option<u64>,

    /// Names the random numbers
    #[arg(long, value_name = "N")]
    seed: Option<u64>,

    /// All threads of a rank change one model without locks: other bits each time
    #[arg(long, conflicts_with = "shards")]
    lock_free: bool,
}

/// Named sets of options.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Preset {
    /// Skip-gram: 300 dimensions, window 15, 5 negatives, words from 50 occurrences on, 10 epochs
    #[default]
    Word2vec,
    /// The study's TensorFlow script: 128 dimensions, window 2, 4 negatives, 4,096 words, 20 epochs
    Tensorflow,
    /// Top2Vec's `learn`: PV-DBOW with words, 300 dimensions, window 15, Huffman codes, words from
    /// 50 occurrences on, sample 1e-5, 40 epochs, every distinct document
    Top2vec,
}

/// Documents to train on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Train {
    /// Of every image (or Dockerfile), equal ones as often as they occur
    Images,
    /// Of images, each distinct one once
    DistinctImages,
    /// Of every layer, equal ones as often as they occur
    Layers,
    /// Of layers, each distinct one once
    DistinctLayers,
    /// Each distinct one once, of layers and images
    All,
}

/// Orders of documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Ordered {
    /// As they stand in the corpus, in every epoch (what gensim does with a file)
    Corpus,
    /// At random, differently in every epoch
    Random,
}

/// Where document vectors come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Made {
    /// The mean of the vectors of their words
    Mean,
    /// Learned (doc2vec); documents that are not trained on get none
    Learned,
}

impl Args {
    /// As on the command line with these options and nothing else.
    pub(super) fn new(documents: PathBuf, output: PathBuf, given: Given) -> anyhow::Result<Self> {
        let mut args: Self = super::defaults([documents.as_os_str(), "-o".as_ref(), output.as_os_str()])?;
        args.given = given;
        Ok(args)
    }
}

impl Given {
    /// True if threads change one model without locks.
    pub(super) fn is_lock_free(&self) -> bool {
        self.lock_free
    }

    /// The options of a run on so many ranks.
    ///
    /// # Errors
    /// [`Error::Option`].
    pub(super) fn options(&self, ranks: usize) -> Result<Options, Error> {
        let mut o = match self.preset {
            Preset::Word2vec => Options::word2vec(),
            Preset::Tensorflow => Options::tensorflow(),
            Preset::Top2vec => Options::top2vec(),
        };
        macro_rules! take {
            ($($name:ident),*) => {$(
                if let Some(value) = self.$name {
                    o.$name = value;
                }
            )*};
        }
        take!(dims, window, sample, min_count, max_vocabulary, epochs, alpha, min_alpha);
        take!(shards, merge_words, seed);
        if self.min_alpha.is_none() {
            o.min_alpha = o.min_alpha.min(o.alpha);
        }
        if self.lock_free {
            if self.shards.is_some() {
                let (name, value) = ("lock-free", "with shards".to_owned());
                return Err(Error::Option { name, value, allowed: "without: each rank is a shard".into() });
            }
            o.shards = ranks as u32;
        }
        match self.negatives {
            Some(0) => o.output = Output::Hierarchical,
            Some(n) => o.output = Output::Negatives(n),
            None => (),
        }
        match self.train {
            Some(Train::Images) => o.corpus = Corpus::Images,
            Some(Train::DistinctImages) => o.corpus = Corpus::DistinctImages,
            Some(Train::Layers) => o.corpus = Corpus::Layers,
            Some(Train::DistinctLayers) => o.corpus = Corpus::DistinctLayers,
            Some(Train::All) => o.corpus = Corpus::All,
            None => (),
        }
        match self.order {
            Some(Ordered::Corpus) => o.order = Order::Corpus,
            Some(Ordered::Random) => o.order = Order::Random,
            None => (),
        }
        match self.document_vectors {
            Some(Made::Mean) => o.documents = DocumentVectors::Mean,
            Some(Made::Learned) => o.documents = DocumentVectors::Learned,
            None => (),
        }
        o.check()?;
        Ok(o)
    }
}

/// Runs the command.
pub fn run(args: &Args, context: &Context) -> anyhow::Result<Code> {
    let world = &context.world;
    let mut steps = show::Steps::begin();
    let options = args.given.options(world.size())?;
    let tables = args.projector.iter().flat_map(projector_files).collect::<Vec<_>>();
    let exports = args.word2vec_text.iter().chain(&args.word2vec_binary).chain(&tables);
    keep_apart(context, &args.documents, [&args.output].into_iter().chain(exports))?;
    let documents = Documents::load(&args.documents)?;
    let documents_id = documents.id();
    steps.mark("read");
    let settings = serde_json::to_string(&options)?;
    let fingerprint = fingerprint(&documents_id, &options, args.given.lock_free)?;
    // Whose rounds a checkpoint counts: without locks those of as many ranks.
    let attempt = if args.given.lock_free {
        format!("{fingerprint} on {} rank(s)", world.size())
    } else {
        fingerprint.clone()
    };
    let _claim = Claim::take_file(context, &args.output)?;
    if is_done(args, context, &fingerprint, &attempt)? {
        show::line(context, format!("{}: done before, nothing to do", args.output.display()));
        export(args, context)?;
        return Ok(Code::Done);
    }
    let copies = plan::copies(&documents, options.corpus);
    let counts = count_tokens(&documents, &copies);
    let vocabulary = Vocabulary::new(documents.vocabulary(), &counts, &options);
    if vocabulary.is_empty() {
        let min_count = options.min_count.max(1);
        return Err(Error::NoWords { documents: args.documents.clone(), min_count }.into());
    }
    check_memory(context, args.memory, &options, &vocabulary, &documents)?;
    let plan = plan::Plan::new(&documents, &vocabulary, &copies, &options);
    let trainer = Trainer::new(&options, &documents, &vocabulary, &plan, args.given.lock_free);
    tell(context, &options, &trainer);
    let path = checkpoint_path(&args.output);
    let fresh = trainer.begin(world);
    let mut state = checkpoint::load(world, &path, &attempt, &trainer, fresh)?;
    let per_epoch = u64::from(plan.rounds);
    if state.round > 0 {
        let epochs = state.round as f64 / per_epoch as f64;
        show::line(context, format!("goes on after {epochs:.2} epochs"));
    }
    steps.mark("prepare");
    let found = state.round;
    let progress = show::Progress::begin(context, "embed", trainer.rounds(), "merges");
    let ended = trainer.train(world, &mut state, context.stop.flag(), |state| {
        progress.set(state.round);
        if state.round.is_multiple_of(per_epoch) && state.round < trainer.rounds() {
            checkpoint::save(world, &path, &attempt, state)?;
            std::thread::sleep(std::time::Duration::from_millis(args.epoch_delay_ms));
        }
        Ok(())
    })?;
    drop(progress);
    let trained = steps.mark("train");
    if ended == Ended::Stopped {
        checkpoint::save(world, &path, &attempt, &state)?;
        show::line(context, crate::pairs::Error::Stopped);
        return Ok(Code::Requeue);
    }
    let words = plan.words as f64 * (state.round - found) as f64 / per_epoch as f64;
    let rate = words / trained.as_secs_f64().max(1e-9);
    show::line(context, format!("trained: {} words a second", show::count(rate as u64)));
    let origin = Origin {
        documents_id,
        method: match options.method {
            Method::Word2vec => "word2vec".into(),
            Method::Doc2vec => "doc2vec".into(),
        },
        document_vectors: match options.documents {
            DocumentVectors::Mean => "mean".into(),
            DocumentVectors::Learned => "learned".into(),
        },
        settings,
        fingerprint,
        seed: options.seed,
        lock_free: args.given.lock_free,
        synthetic: documents.origin().synthetic.clone(),
    };
    write(args, context, &trainer, &state, &origin)?;
    steps.mark("write");
    export(args, context)?;
    show::line(context, format!("vectors: {}", args.output.display()));
    show::line(context, steps.summary());
    world.barrier();
    Ok(Code::Done)
}

fn fingerprint(documents_id: &str, options: &Options, lock_free: bool) -> anyhow::Result<String> {
    // Without locks the shards are the ranks, which are no part of what was asked for.
    let shards = if lock_free { 0 } else { options.shards };
    let settings = serde_json::to_string(&Options { shards, ..options.clone() })?;
    let text = format!(
        "stratigraph {} embed\ndocuments {documents_id}\n{settings}\nlock_free {lock_free}\n",
        env!("CARGO_PKG_VERSION")
    );
    Ok(hex(&Sha256::digest(text)))
}

fn checkpoint_path(output: &Path) -> PathBuf {
    let name = output.file_name().unwrap_or_default().to_string_lossy();
    output.with_file_name(format!("{name}.checkpoint"))
}

/// True if the output is that of this very run. Collective.
fn is_done(args: &Args, context: &Context, fingerprint: &str, attempt: &str) -> anyhow::Result<bool> {
    let mut done = [0];
    if context.world.is_root() {
        let path = &args.output;
        let checkpoint = checkpoint_path(path);
        let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let names = [path, &checkpoint].map(|p| p.file_name().unwrap_or_default().to_string_lossy());
        remove_leftovers(parent, &names.each_ref().map(AsRef::as_ref))?;
        if args.overwrite {
            let is_of = |path: &Path, kind, run| {
                Reader::open(path, kind, 1).and_then(|r| r.attribute("fingerprint")).ok().as_deref()
                    == Some(run)
            };
            if checkpoint.exists() && !is_of(&checkpoint, checkpoint::KIND, attempt) {
                std::fs::remove_file(&checkpoint).with_context(|| checkpoint.display().to_string())?;
            }
            done[0] = u64::from(is_of(path, vectors::KIND, fingerprint));
        } else if path.exists() {
            let r = Reader::open(path, vectors::KIND, vectors::FORMAT_VERSION)?;
            if r.attribute("fingerprint")? != fingerprint {
                return Err(Error::Refused(format!(
                    "{}: holds vectors of other documents or of other options; choose another -o, or give \
                     --overwrite",
                    path.display()
                ))
                .into());
            }
            done[0] = 1;
        }
    }
    context.world.max_u64(&mut done);
    Ok(done[0] > 0)
}

/// Bytes that one of so many ranks needs besides the documents: the model, its copies, what is sent,
/// and the rows of documents with their unit vectors.
pub(super) fn memory(options: &Options, words: usize, documents: usize, ranks: usize) -> u64 {
    let row = u64::from(options.dims).next_multiple_of(16) * 4;
    let shards = u64::from(options.shards).div_ceil(ranks as u64);
    let model = 2 * words as u64 * row;
    model * (3 + shards * 2) + 3 * documents as u64 * row
}

/// The files of `--projector`.
fn projector_files(directory: impl AsRef<Path>) -> [PathBuf; 2] {
    ["vectors.tsv", "metadata.tsv"].map(|name| directory.as_ref().join(name))
}

fn check_memory(
    context: &Context,
    allowed: Option<u64>,
    options: &Options,
    vocabulary: &Vocabulary,
    documents: &Documents,
) -> anyhow::Result<()> {
    let shards = u64::from(options.shards).div_ceil(context.world.size() as u64);
    let needed = memory(options, vocabulary.len(), documents.len(), context.world.size());
    let share = limits::memory_of_rank(&context.world, allowed);
    if needed > share {
        return Err(Error::DoesNotFit(format!(
            "{} words x {} dimensions x {shards} shards a rank need about {}, but this rank may use {}; give \
             fewer --dims, fewer --shards, a larger --min-count or more nodes",
            show::count(vocabulary.len() as u64),
            options.dims,
            show::bytes(needed),
            show::bytes(share),
        ))
        .into());
    }
    Ok(())
}

fn tell(context: &Context, options: &Options, trainer: &Trainer<'_>) {
    let plan = trainer.plan;
    let documents: u64 = plan.copies.iter().map(|n| u64::from(*n)).sum();
    show::line(
        context,
        format!(
            "{} documents ({} distinct), {} words of {} known, {} dimensions, {} epochs",
            show::count(documents),
            show::count(plan.dealt.len() as u64),
            show::count(plan.words),
            show::count(trainer.vocabulary.len() as u64),
            options.dims,
            options.epochs,
        ),
    );
    let workers = context.world.size() * rayon::current_num_threads();
    if trainer.lock_free {
        show::line(
            context,
            "lock-free: threads overwrite each other now and then; a second run gives other bits",
        );
    } else if workers > options.shards as usize {
        show::line(
            context,
            format!(
                "{} shards for {workers} threads: some have nothing to do; --shards {workers} would use all (and \
                 gives other vectors)",
                options.shards
            ),
        );
    }
}

/// Writes the vectors of words and documents and removes the checkpoint. Collective.
fn write(
    args: &Args,
    context: &Context,
    trainer: &Trainer<'_>,
    state: &State,
    origin: &Origin,
) -> anyhow::Result<()> {
    let learned = checkpoint::gather(&context.world, &state.documents);
    if !context.world.is_root() {
        return Ok(());
    }
    let (dims, documents) = (trainer.options.dims as usize, trainer.documents);
    let rows = trainer.vocabulary.len();
    let mut raw = Vec::with_capacity(rows * dims);
    (0..rows).for_each(|row| raw.extend_from_slice(trainer.word(state, row)));
    let mut words = vec![0f32; rows * dims];
    let norms: Vec<f64> = words
        .chunks_mut(dims)
        .zip(raw.chunks(dims))
        .map(|(unit, raw)| normalise(raw.iter().map(|x| f64::from(*x)), unit))
        .collect();
    let words = WordRows {
        vectors: &words,
        norms: &norms,
        counts: &trainer.vocabulary.counts,
        names: &trainer.vocabulary.names,
    };
    let (ids, made): (Vec<u32>, mean::Means) = match trainer.options.documents {
        DocumentVectors::Mean => (
            (0..documents.len() as u32).collect(),
            mean::means(documents, &trainer.vocabulary.rows, &raw, dims),
        ),
        DocumentVectors::Learned => train::learned(trainer, &learned),
    };
    let pick = |reading| -> Vec<u64> {
        let all = documents.multiplicities(reading);
        ids.iter().map(|i| all[*i as usize]).collect()
    };
    let rows = DocumentRows {
        vectors: &made.vectors,
        norms: &made.norms,
        layers: &pick(Reading::Layers),
        images: &pick(Reading::Images),
        document: &ids,
    };
    vectors::write(&args.output, dims, &rows, &words, origin)?;
    let checkpoint = checkpoint_path(&args.output);
    match std::fs::remove_file(&checkpoint) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(e).with_context(|| checkpoint.display().to_string())
        }
        _ => Ok(()),
    }
}

/// Writes the words for other programs, from the file.
fn export(args: &Args, context: &Context) -> anyhow::Result<()> {
    use crate::embed::export;
    if !context.world.is_root() {
        return Ok(());
    }
    let wanted = [&args.projector, &args.word2vec_text, &args.word2vec_binary];
    if wanted.iter().all(|path| path.is_none()) {
        return Ok(());
    }
    let vectors = vectors::Vectors::open(&args.output)?;
    if let Some(path) = &args.word2vec_text {
        replace(path, |out| export::word2vec_text(&vectors, out))?;
    }
    if let Some(path) = &args.word2vec_binary {
        replace(path, |out| export::word2vec_binary(&vectors, out))?;
    }
    if let Some(directory) = &args.projector {
        let names: &StringTable = &vectors.words.names;
        std::fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
        let [tsv, metadata] = projector_files(directory);
        replace(&tsv, |out| export::projector_vectors(&vectors, out))?;
        replace(&metadata, |out| export::projector_metadata(names, &vectors.words.counts, out))?;
    }
    Ok(())
}

fn replace(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<std::fs::File>) -> std::io::Result<()>,
) -> anyhow::Result<()> {
    replace_file(path, |temporary| {
        let mut out = BufWriter::new(std::fs::File::create(temporary)?);
        write(&mut out)?;
        Ok(out.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()?)
    })
}
