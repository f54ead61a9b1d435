//! The histories of a corpus -> documents, and what they tell about good practice.
//!
//! Equal commands have equal tokens, so each distinct `created_by` is tokenised once, on whichever
//! rank and thread; rank 0 puts the documents together. The corpus numbers commands by first
//! occurrence, and so the tokens of the commands in that order are the vocabulary.

use super::facts::{Facts, Scanner};
use super::rules::Rules;
use super::shard::{Rows, RowsBuilder, join};
use super::shares::{Apt, HistoryShares, Spread, StudyApt};
use super::{Builder, Documents, Error, Origin, Scheme, Texts, Watch};
use crate::corpus::{Configs, Corpus};
use crate::strings::NONE;
use crate::world::World;
use rayon::prelude::*;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

/// The distinct commands of a corpus, tokenised: one row for each command.
#[derive(Debug)]
pub struct Commands {
    rows: Rows,
}

/// Commands of one piece of work.
const PIECE: usize = 1024;

impl Commands {
    /// Tokenises the commands of a corpus on all ranks; they come out on rank 0. Collective.
    ///
    /// # Errors
    /// [`Error::Stopped`], on all ranks, if a signal reached one of them.
    pub fn of(corpus: &Corpus, world: &World, watch: &Watch<'_>) -> Result<Option<Self>, Error> {
        let offsets = corpus.commands.offsets();
        let mine = share(offsets, world.rank(), world.size());
        let bytes = |commands: &Range<usize>| offsets[commands.end] - offsets[commands.start];
        let (all, done) = (bytes(&mine), AtomicU64::new(0));
        let heartbeat = world.heartbeat();
        let starts: Vec<usize> = mine.clone().step_by(PIECE).collect();
        let pieces: Option<Vec<Rows>> = starts
            .into_par_iter()
            .with_max_len(1)
            .map(|start| {
                watch.pause();
                if watch.is_stopped() {
                    return None;
                }
                let commands = start..mine.end.min(start + PIECE);
                let rows = tokens_of(corpus, commands.clone());
                heartbeat();
                let done = done.fetch_add(bytes(&commands), Ordering::Relaxed) + bytes(&commands);
                (watch.progress)(done, all);
                Some(rows)
            })
            .collect();
        watch.agree(world)?;
        let Some(pieces) = gather(pieces.ok_or(Error::Stopped)?, world) else { return Ok(None) };
        let lists: Vec<&Rows> = pieces.iter().collect();
        let order = lists.iter().enumerate().flat_map(|(l, rows)| (0..rows.len()).map(move |row| (l, row)));
        let rows = join(&lists, order);
        assert_eq!(rows.len(), corpus.commands.len(), "the ranks' shares are all commands");
        Ok(Some(Self { rows }))
    }

    /// The documents of the corpus in a scheme made of histories.
    pub fn documents(&self, corpus: &Corpus, corpus_id: &str, scheme: Scheme) -> Documents {
        let mut builder = Builder::new(scheme);
        for (config, name) in sources(corpus) {
            builder.begin(&name);
            for (entry, command) in entries(corpus, config) {
                builder.layer(entry, command, self.rows.get(command as usize));
            }
            builder.end();
        }
        let origin = Origin {
            source: corpus.provenance.source.clone(),
            source_id: corpus_id.to_owned(),
            synthetic: corpus.synthetic_label(),
        };
        builder.finish(self.rows.strings.clone(), origin)
    }

    /// What the histories tell about good practice.
    pub fn shares(&self, corpus: &Corpus) -> HistoryShares {
        let mut scanner = Scanner::default();
        scanner.learn_table(&self.rows.strings);
        let facts: Vec<(Facts, Facts)> = (0..self.rows.len())
            .into_par_iter()
            .map_init(String::new, |scratch, row| {
                let first_version = contained_by_first_version(corpus.commands.get(row as u32), scratch);
                (scanner.of_entry(self.rows.get(row)), first_version)
            })
            .collect();
        let mut shares = HistoryShares::default();
        let mut runs = Vec::new();
        for (config, _) in sources(corpus) {
            let mut image = Facts::default();
            let mut run_layers = 0;
            for (_, command) in entries(corpus, config) {
                let (facts, first_version) = facts[command as usize];
                image = image.and(facts);
                run_layers += u64::from(facts.has(Facts::RUN));
                shares.study.first_version.add(first_version);
                shares.study.cumulative.add(image);
                shares.study.per_layer.add(facts);
                shares.layers.add(facts);
                shares.layers_cumulative.add(image);
            }
            shares.images += 1;
            shares.images_without_user += u64::from(!image.has(Facts::USER));
            runs.push(run_layers);
        }
        shares.study.published = StudyApt::PUBLISHED;
        shares.run_layers_per_image = Spread::of(&mut runs);
        shares
    }

    /// The texts of all commands by the rules of the study's first version.
    pub fn first_version(corpus: &Corpus) -> Texts {
        let rules = Rules::first_version();
        let mut rows = RowsBuilder::default();
        let mut scratch = String::new();
        for command in corpus.commands.iter() {
            rules.each(command, &mut scratch, |t| rows.push(t));
            rows.end();
        }
        let rows = rows.finish();
        let lines = (0..corpus.config_count())
            .flat_map(|c| corpus.history_of(c))
            .map(|h| corpus.history.created_by[h])
            .filter(|command| *command != NONE)
            .collect();
        Texts { vocabulary: rows.strings, offsets: rows.offsets, tokens: rows.ids, lines }
    }
}

/// Configs with a history and their names, in corpus order.
fn sources(corpus: &Corpus) -> impl Iterator<Item = (usize, String)> + '_ {
    let configs = &corpus.configs;
    (0..corpus.config_count()).filter(|c| configs.flags[*c] & Configs::HAS_HISTORY != 0).map(|c| {
        let repository = corpus.repositories.get(configs.repository[c]);
        (c, format!("{repository}:{}", corpus.tags.get(configs.tag[c])))
    })
}

/// The history entries of a config that have a command: number of the entry, command.
fn entries(corpus: &Corpus, config: usize) -> impl Iterator<Item = (u32, u32)> + '_ {
    let history = corpus.history_of(config);
    let commands = corpus.history.created_by[history].iter().enumerate();
    commands.filter(|(_, command)| **command != NONE).map(|(entry, command)| (entry as u32, *command))
}

/// The range of texts of a rank: cut so that all have about the same number of bytes.
fn share(offsets: &[u64], rank: usize, ranks: usize) -> Range<usize> {
    let bytes = offsets[offsets.len() - 1];
    let cut = |k: usize| {
        let target = (u128::from(bytes) * k as u128 / ranks as u128) as u64;
        if k == ranks { offsets.len() - 1 } else { offsets.partition_point(|o| *o < target) }
    };
    cut(rank).min(offsets.len() - 1)..cut(rank + 1).min(offsets.len() - 1)
}

/// The tokens of a range of commands.
fn tokens_of(corpus: &Corpus, commands: Range<usize>) -> Rows {
    let rules = Rules::histories();
    let (mut rows, mut scratch) = (RowsBuilder::default(), String::new());
    for command in commands {
        rules.each(corpus.commands.get(command as u32), &mut scratch, |t| rows.push(t));
        rows.end();
    }
    rows.finish()
}

/// What tokens contain by the rules of the study's first version. Tokens end where separators
/// stand, and no word that is looked for has one in it: so the text is searched as a whole.
fn contained_by_first_version(text: &str, scratch: &mut String) -> Facts {
    let rules = Rules::first_version();
    if text.is_ascii() {
        rules.normalised(text, scratch);
        return Facts::contained(scratch);
    }
    let mut facts = Facts::default();
    rules.each(text, scratch, |token| facts = facts.and(Facts::contained(token)));
    facts
}

/// Brings the pieces of all ranks to rank 0, in the order of the commands.
fn gather(pieces: Vec<Rows>, world: &World) -> Option<Vec<Rows>> {
    if world.size() == 1 {
        return Some(pieces);
    }
    let mut packed = Vec::new();
    pieces.iter().for_each(|piece| piece.pack(&mut packed));
    let mut all = Vec::new();
    for bytes in world.gather(&packed)? {
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            all.push(Rows::unpack(&mut rest).expect("a piece arrives as it was packed"));
        }
    }
    Some(all)
}

/// Reads the histories of a corpus file and its id.
///
/// # Errors
/// [`Error::Corpus`].
pub fn load(path: &std::path::Path) -> Result<(Corpus, String), Error> {
    Ok(Corpus::load_histories(path)?)
}

impl Apt {
    fn add(&mut self, facts: Facts) {
        let count = |n: &mut u64, is: bool| *n += u64::from(is);
        count(&mut self.lines, true);
        count(&mut self.apt_get, facts.has(Facts::APT.and(Facts::GET)));
        count(&mut self.apt_get_with_install, facts.has(Facts::APT.and(Facts::GET).and(Facts::INSTALL)));
        let apt = facts.has(Facts::APT);
        let (cleaned, autoremove) = (facts.has(Facts::CLEANED), facts.has(Facts::AUTOREMOVE));
        count(&mut self.apt, apt);
        count(&mut self.apt_cleaned, apt && cleaned && !autoremove);
        count(&mut self.apt_autoremove, apt && autoremove && !cleaned);
        count(&mut self.apt_cleaned_and_autoremoved, apt && cleaned && autoremove);
    }
}
