//! `stratigraph run --plan`: what a campaign would need, told before anything of it runs.
//!
//! The import and the documents take seconds and say how large everything after them is, so they are
//! made, in memory; nothing is written. The stages that take long are calibrated for about a second
//! each: some merges of the training, some tiles of each comparison.

use super::{Run, files, record};
use crate::cli::{Code, cosine, embed, jaccard, limits, show};
use crate::corpus::{self, Corpus, PublishedTable, Table};
use crate::embed::train::Trainer;
use crate::embed::{Vocabulary, count_tokens, mean, plan};
use crate::pairs::cosine::rows::{Groups, Rows};
use crate::pairs::cosine::{self as measure, Cluster, Multiplicity, Prepared, Source};
use crate::pairs::{Error, jaccard as layers};
use crate::stats::Stats;
use crate::tokens::{Commands, Dockerfiles, Documents, Reading, Watch};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What a stage needs.
struct Need {
    stage: &'static str,
    work: String,
    tiles: Option<u32>,
    /// Of a rank, and of rank 0.
    memory: [u64; 2],
    disk: u64,
    time: Duration,
    /// What the stage compares with the memory that a rank may use, before it begins.
    checked: u64,
}

/// Of what the campaign is about.
enum Read {
    /// The corpus and its id.
    Corpus(Box<Corpus>, String),
    Table(Box<PublishedTable>),
    /// Dockerfiles, or nothing: the files of the import are not of this process.
    Other,
}

/// The plan so far.
struct Planner<'a, 'r> {
    run: &'r Run<'a>,
    cluster: Cluster,
    needs: Vec<Need>,
}

/// Prints what the campaign would need on so many ranks and threads. Writes nothing.
///
/// # Errors
/// [`Error::Refused`] on several ranks; else as the stages.
pub fn plan(run: &Run<'_>, cluster: Cluster) -> anyhow::Result<Code> {
    if run.context.world.size() > 1 {
        return Err(Error::Refused(
            "--plan is for one process: say with --plan-ranks and --plan-threads what it is to plan for"
                .into(),
        )
        .into());
    }
    let mut planner = Planner { run, cluster, needs: Vec::new() };
    let campaign = &run.campaign;
    let read = if campaign.is_of_dockerfiles() { Read::Other } else { planner.import()? };
    if campaign.stats.is_some() {
        let layers = |n: usize| format!("{} layers", show::count(n as u64));
        match &read {
            Read::Corpus(corpus, _) => {
                planner.serial("stats", layers(corpus.layers.digest.len()), || drop(Stats::of_corpus(corpus)))
            }
            Read::Table(table) => {
                planner.serial("stats", layers(table.table().digest.len()), || drop(Stats::of_table(table)));
            }
            Read::Other => (),
        }
    }
    let documents = match campaign.tokenize {
        Some(_) => planner.tokenize(&read)?,
        None => None,
    };
    if let (Some(given), Some(documents)) = (&campaign.embed, &documents) {
        let trained = planner.embed(given, documents)?;
        if let (Some(options), Some(trained)) = (&campaign.cosine, trained) {
            let args = options.arguments(&run.path(files::VECTORS), &run.out)?;
            planner.cosine(&args, documents, trained)?;
        }
    }
    if let Some(options) = &campaign.jaccard {
        let args = options.arguments(&run.corpus(), &run.out)?;
        match &read {
            Read::Corpus(corpus, _) => planner.jaccard(&args, &args.choice.of_corpus(corpus)?)?,
            Read::Table(table) => planner.jaccard(&args, &args.choice.of_table(table.table())?)?,
            Read::Other => (),
        }
    }
    planner.tell();
    Ok(Code::Done)
}

impl Planner<'_, '_> {
    /// The time that work with all threads of this process would take on those of the cluster.
    fn spread(&self, here: Duration) -> Duration {
        let cores = (self.cluster.ranks * self.cluster.threads) as f64;
        here.mul_f64(rayon::current_num_threads() as f64 / cores)
    }

    fn serial(&mut self, stage: &'static str, work: String, does: impl FnOnce()) {
        let begun = Instant::now();
        does();
        let held = limits::held().now;
        let (memory, time) = ([0, held], begun.elapsed());
        self.needs.push(Need { stage, work, tiles: None, memory, disk: 0, time, checked: 0 });
    }

    /// The corpus of the campaign's directory or source, or read now.
    fn import(&mut self) -> anyhow::Result<Read> {
        let (run, context) = (self.run, self.run.context);
        if corpus::is_published_table(&run.source) {
            return Ok(Read::Table(Box::new(PublishedTable::read(&run.source)?)));
        }
        let file = run.corpus();
        let is_made =
            !run.imports() || (record::is_of(&run.campaign, &run.source, &run.out)? && file.exists());
        if is_made {
            let corpus = Corpus::load(&file)?;
            let id = super::corpus_id(&file)?;
            return Ok(Read::Corpus(Box::new(corpus), id));
        }
        let mut parallel = Instant::now();
        let progress = show::Progress::begin(context, "import", 0, "bytes");
        let imported = corpus::import(&run.source, &context.world, &|done, total| {
            progress.set_total(total);
            progress.set(done);
        })?;
        drop(progress);
        let read = parallel.elapsed();
        parallel = Instant::now();
        let Some(corpus) = imported.map(corpus::Imported::into_corpus) else { return Ok(Read::Other) };
        let id = corpus.id();
        let bytes = corpus.bytes();
        let time = self.spread(read) + parallel.elapsed();
        let work = format!("{} of manifests and configs", show::bytes(corpus.provenance.bytes));
        let held = limits::held().peak;
        self.needs.push(Need {
            stage: "import",
            work,
            tiles: None,
            memory: [held / 2, held],
            disk: bytes,
            time,
            checked: 0,
        });
        Ok(Read::Corpus(Box::new(corpus), id))
    }

    fn tokenize(&mut self, read: &Read) -> anyhow::Result<Option<Documents>> {
        let (run, context) = (self.run, self.run.context);
        let Some(wanted) = run.campaign.tokenize else { return Ok(None) };
        let watch = Watch { stop: context.stop.flag(), progress: &|_, _| (), pause: Duration::ZERO };
        let begun = Instant::now();
        let (documents, parallel) = match read {
            Read::Corpus(corpus, id) => {
                let Some(commands) = Commands::of(corpus, &context.world, &watch)? else { return Ok(None) };
                let parallel = begun.elapsed();
                let documents = commands.documents(corpus, id, wanted.scheme);
                std::hint::black_box(commands.shares(corpus));
                (documents, parallel)
            }
            Read::Table(_) | Read::Other => {
                let Some(found) = Dockerfiles::read(&run.source, &context.world, &watch)? else {
                    return Ok(None);
                };
                (found.documents(), begun.elapsed())
            }
        };
        let time = self.spread(parallel) + (begun.elapsed() - parallel);
        let occurrences = documents.occurrences(Reading::Layers) + documents.occurrences(Reading::Images);
        let work = format!(
            "{} documents, {} distinct",
            show::count(occurrences),
            show::count(documents.len() as u64)
        );
        let held = limits::held().now;
        let (memory, disk) = ([held / 2, held], documents.bytes());
        self.needs.push(Need { stage: "tokenize", work, tiles: None, memory, disk, time, checked: 0 });
        Ok(Some(documents))
    }

    /// Trains for about a second; gives the document vectors that come of it, and their length. None if no
    /// word is frequent enough.
    fn embed(
        &mut self,
        given: &embed::Given,
        documents: &Documents,
    ) -> anyhow::Result<Option<(mean::Means, usize)>> {
        let world = &self.run.context.world;
        let options = given.options(self.cluster.ranks)?;
        let copies = plan::copies(documents, options.corpus);
        let counts = count_tokens(documents, &copies);
        let vocabulary = Vocabulary::new(documents.vocabulary(), &counts, &options);
        if vocabulary.is_empty() {
            let work = format!("no word occurs {} times or more: no vectors", options.min_count.max(1));
            self.needs.push(Need {
                stage: "embed",
                work,
                tiles: None,
                memory: [0; 2],
                disk: 0,
                time: Duration::ZERO,
                checked: 0,
            });
            return Ok(None);
        }
        let dealt = plan::Plan::new(documents, &vocabulary, &copies, &options);
        let trainer = Trainer::new(&options, documents, &vocabulary, &dealt, given.is_lock_free());
        let mut state = trainer.begin(world);
        let stop = AtomicBool::new(false);
        // The first round also pays for memory that is touched for the first time.
        let (mut first, mut last) = (None, (0u64, Instant::now()));
        trainer.train(world, &mut state, &stop, |state| {
            last = (state.round, Instant::now());
            let since = *first.get_or_insert(last);
            stop.store(
                state.round >= since.0 + 2 && since.1.elapsed().as_secs_f64() > 1.0,
                Ordering::Relaxed,
            );
            Ok(())
        })?;
        let first = first.unwrap_or(last);
        let rounds = last.0.saturating_sub(first.0).max(1) as f64;
        let shards = options.shards as usize;
        // Threads beyond the shards of a rank have nothing to do.
        let busy = |ranks: usize, threads: usize| (shards.div_ceil(ranks).min(threads) * ranks).min(shards);
        let here = busy(1, rayon::current_num_threads()) as f64;
        let there = busy(self.cluster.ranks, self.cluster.threads) as f64;
        let seconds = (last.1 - first.1).as_secs_f64() / rounds * trainer.rounds() as f64 * here / there;
        let (dims, words) = (options.dims as usize, vocabulary.len());
        let memory = embed::memory(&options, words, documents.len(), self.cluster.ranks);
        let disk = ((documents.len() + 3 * words) * dims * 4) as u64;
        let work = format!(
            "{} words x {} epochs, {} known, {} shards",
            show::count(dealt.words),
            options.epochs,
            show::count(words as u64),
            shards
        );
        let time = Duration::from_secs_f64(seconds);
        let (memory, checked) = ([memory; 2], memory);
        self.needs.push(Need { stage: "embed", work, tiles: None, memory, disk, time, checked });
        let mut raw = Vec::with_capacity(words * dims);
        (0..words).for_each(|row| raw.extend_from_slice(trainer.word(&state, row)));
        Ok(Some((mean::means(documents, &vocabulary.rows, &raw, dims), dims)))
    }

    /// Calibrates on the campaign's own vectors if they are there, else on those of the calibration.
    fn cosine(
        &mut self,
        args: &cosine::Args,
        documents: &Documents,
        (means, dims): (mean::Means, usize),
    ) -> anyhow::Result<()> {
        let run = self.run;
        let is_made =
            record::is_of(&run.campaign, &run.source, &run.out)? && run.path(files::VECTORS).exists();
        let source = if is_made { Some(Source::open(&args.vectors, false)?) } else { None };
        let multiplicity = source.as_ref().map_or_else(
            || Multiplicity {
                layers: Some(documents.multiplicities(Reading::Layers).to_vec()),
                images: Some(documents.multiplicities(Reading::Images).to_vec()),
            },
            |source| source.multiplicity.clone(),
        );
        let rows = source.as_ref().map_or_else(|| Rows::new(&means.vectors, dims), Source::rows);
        let begun = Instant::now();
        let groups = Groups::of(&rows);
        let prepared = Prepared::new(rows, &groups, &multiplicity, cosine::options(args, rows.len())?)?;
        let prepare = begun.elapsed();
        let needs = measure::Needs::of(&prepared, self.cluster.threads);
        let time = prepare + prepared.expected(&self.cluster);
        let work = format!("{} pairs of {} values", show::count(needs.pairs), prepared.rows.dims());
        let memory = [needs.memory + needs.vectors, needs.memory_of_root + needs.vectors];
        let tiles = Some(prepared.plan.tiles());
        // The vectors are a file that ranks share.
        let (disk, checked) = (needs.disk, needs.memory_of_root);
        self.needs.push(Need { stage: "cosine", work, tiles, memory, disk, time, checked });
        Ok(())
    }

    fn jaccard(&mut self, args: &jaccard::Args, table: &Table<'_>) -> anyhow::Result<()> {
        let begun = Instant::now();
        let (prepared, matrix) = jaccard::prepare(args, table)?;
        let prepare = begun.elapsed();
        let held = limits::held();
        let needs =
            layers::Needs::of(&prepared, matrix, self.cluster.threads, layers::Held { now: 0, ..held });
        let time = prepare + prepared.expected(self.cluster.ranks * self.cluster.threads);
        let images = prepared.images.len() as u64;
        let work = format!("{} pairs of sets", show::count(images * images.saturating_sub(1) / 2));
        let tiles = Some(prepared.plan.tiles());
        let (memory, disk, checked) = ([needs.memory; 2], needs.disk, needs.memory);
        self.needs.push(Need { stage: "jaccard", work, tiles, memory, disk, time, checked });
        Ok(())
    }

    fn tell(&self) {
        let context = self.run.context;
        let Cluster { ranks, threads } = self.cluster;
        let name = format!("plan for {ranks} rank(s) x {threads} thread(s)");
        let mut table =
            show::table(&[&name, "work", "tiles", "memory of a rank", "of rank 0", "disk", "expected"]);
        for need in &self.needs {
            table.add_row([
                need.stage.to_owned(),
                need.work.clone(),
                need.tiles.map_or(String::new(), show::count),
                show::bytes(need.memory[0]),
                show::bytes(need.memory[1]),
                show::bytes(need.disk),
                show::duration(need.time),
            ]);
        }
        let most = |k: usize| self.needs.iter().map(|need| need.memory[k]).max().unwrap_or(0);
        let disk: u64 = self.needs.iter().map(|need| need.disk).sum();
        let time: Duration = self.needs.iter().map(|need| need.time).sum();
        table.add_row([
            "all".to_owned(),
            String::new(),
            String::new(),
            show::bytes(most(0)),
            show::bytes(most(1)),
            show::bytes(disk),
            show::duration(time),
        ]);
        show::line(context, table);
        let place = self.run.out.ancestors().find(|p| p.exists()).unwrap_or_else(|| ".".as_ref());
        show::line(
            context,
            format!(
                "here: {} of memory free, {} of disk; cores are taken to be like this machine's, and nothing was written",
                show::bytes(limits::memory()),
                show::bytes(limits::disk(place)),
            ),
        );
        let may = limits::memory_of_rank(&context.world, self.run.args.memory);
        let memory = self.needs.iter().map(|need| (need.stage, need.checked, may, "memory of a rank"));
        let limits = memory.chain([("all of it", disk, limits::disk(place), "disk")]);
        for (stage, needed, free, what) in limits.filter(|(_, needed, free, _)| needed > free) {
            let [needed, free] = [needed, free].map(show::bytes);
            show::line(
                context,
                format!("does not fit here: {stage}: {needed} of {what} are needed, {free} may be used"),
            );
        }
    }
}
