//! Which documents are trained on, in which shard, in which order. All of it follows from the
//! documents and the options, so every rank makes the same plan.

use super::options::{Corpus, Options, Order};
use super::random::Stream;
use super::vocabulary::Vocabulary;
use crate::strings::NONE;
use crate::tokens::{Documents, Reading};
use std::ops::Range;

/// One document to be trained on: its row in [`Plan::dealt`], and which of its copies it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Item {
    /// Row in [`Plan::dealt`].
    pub row: u32,
    /// Equal documents are trained on one by one, with other random numbers.
    pub copy: u32,
}

/// The documents dealt out to shards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Distinct documents that are trained on, in random order; a shard has a range of them.
    pub dealt: Vec<u32>,
    /// How often each of these occurs.
    pub copies: Vec<u32>,
    /// Known words of each of these.
    pub lengths: Vec<u64>,
    /// Where each shard begins in `dealt`, and the end.
    pub bounds: Vec<usize>,
    /// Merges in an epoch.
    pub rounds: u32,
    /// Known words that an epoch reads.
    pub words: u64,
    /// All that an epoch trains on, in corpus order; empty if the order is random.
    pub sequence: Vec<Item>,
}

/// What a shard does in one epoch.
pub struct Turn {
    /// Its documents in the order of this epoch.
    pub items: Vec<Item>,
    /// Where each round begins in `items`, and the end.
    pub rounds: Vec<usize>,
}

/// How often each document is trained on in an epoch.
pub fn copies(documents: &Documents, corpus: Corpus) -> Vec<u64> {
    let images = documents.multiplicities(Reading::Images);
    let layers = documents.multiplicities(Reading::Layers);
    let distinct = |counts: &[u64]| counts.iter().map(|n| *n.min(&1)).collect();
    match corpus {
        Corpus::Images => images.to_vec(),
        Corpus::DistinctImages => distinct(images),
        Corpus::Layers => layers.to_vec(),
        Corpus::DistinctLayers => distinct(layers),
        Corpus::All => vec![1; documents.len()],
    }
}

/// Known words of every document.
pub fn lengths(documents: &Documents, vocabulary: &Vocabulary) -> Vec<u64> {
    let mut lengths: Vec<u64> = Vec::with_capacity(documents.len());
    for i in 0..documents.len() {
        let own = documents.own_tokens(i).iter().filter(|token| vocabulary.rows[**token as usize] != NONE);
        let before = documents.parent(i).map_or(0, |parent| lengths[parent]);
        lengths.push(before + own.count() as u64);
    }
    lengths
}

const DEAL: u64 = 1;
const TURN: u64 = 2;

impl Plan {
    /// Deals the documents that have known words out to shards of about equal work.
    pub fn new(documents: &Documents, vocabulary: &Vocabulary, copies: &[u64], options: &Options) -> Self {
        let all = lengths(documents, vocabulary);
        let trained: Vec<u32> =
            (0..documents.len() as u32).filter(|i| copies[*i as usize] > 0 && all[*i as usize] > 0).collect();
        let order = Stream::new([options.seed, DEAL, 0, 0]).order(trained.len());
        let dealt: Vec<u32> = order.into_iter().map(|i| trained[i as usize]).collect();
        let copies: Vec<u32> =
            dealt.iter().map(|i| u32::try_from(copies[*i as usize]).unwrap_or(u32::MAX)).collect();
        let lengths: Vec<u64> = dealt.iter().map(|i| all[*i as usize]).collect();
        let mut ends = Vec::with_capacity(dealt.len());
        let mut words = 0;
        for (n, length) in copies.iter().zip(&lengths) {
            words += u64::from(*n) * length;
            ends.push(words);
        }
        let shards = u64::from(options.shards);
        let part = |s: u64| (u128::from(words) * u128::from(s) / u128::from(shards)) as u64;
        let mut bounds: Vec<usize> =
            (0..shards).map(|s| ends.partition_point(|end| *end <= part(s))).collect();
        bounds.push(dealt.len());
        let rounds = (words / shards).div_ceil(options.merge_words).clamp(1, 1 << 20) as u32;
        let sequence = match options.order {
            Order::Random => Vec::new(),
            Order::Corpus => sequence(documents, options.corpus, &dealt),
        };
        Self { dealt, copies, lengths, bounds, rounds, words, sequence }
    }

    /// Number of shards.
    pub fn shards(&self) -> usize {
        self.bounds.len() - 1
    }

    /// Rows of a shard in [`Plan::dealt`].
    pub fn rows(&self, shard: usize) -> Range<usize> {
        self.bounds[shard]..self.bounds[shard + 1]
    }

    /// What a shard does in an epoch.
    ///
    /// In random order that is its rows of [`Plan::dealt`] and their copies, cut into rounds of equal
    /// work. In corpus order a round is the next part of the corpus, of which each shard has a
    /// piece: neighbours, which are much alike, are mostly trained on one after the other.
    pub fn turn(&self, shard: usize, epoch: u32, seed: u64) -> Turn {
        let cut = |items: &[Item], parts: u64| -> Vec<usize> {
            let mut starts = vec![0];
            let mut words = 0;
            for item in items {
                words += self.lengths[item.row as usize];
                starts.push(words);
            }
            // An item belongs to the part in which its first word falls.
            let begin = |part: u64| {
                let at = u128::from(words) * u128::from(part) / u128::from(parts);
                starts[..items.len()].partition_point(|start| u128::from(*start) < at)
            };
            (0..parts).map(begin).chain([items.len()]).collect()
        };
        if self.sequence.is_empty() {
            let all: Vec<Item> = (self.rows(shard))
                .flat_map(|row| (0..self.copies[row]).map(move |copy| Item { row: row as u32, copy }))
                .collect();
            let order = Stream::new([seed, TURN, u64::from(epoch), shard as u64]).order(all.len());
            let items: Vec<Item> = order.into_iter().map(|i| all[i as usize]).collect();
            let rounds = cut(&items, self.rounds.into());
            return Turn { items, rounds };
        }
        let shards = self.shards();
        let cuts = cut(&self.sequence, u64::from(self.rounds) * shards as u64);
        let mut items = Vec::new();
        let mut rounds = vec![0];
        for round in 0..self.rounds as usize {
            let piece = round * shards + shard;
            items.extend_from_slice(&self.sequence[cuts[piece]..cuts[piece + 1]]);
            rounds.push(items.len());
        }
        Turn { items, rounds }
    }

    /// The shards of a rank: consecutive ones, so that rank order is shard order.
    pub fn shards_of(&self, rank: usize, ranks: usize) -> Range<usize> {
        rank * self.shards() / ranks..(rank + 1) * self.shards() / ranks
    }
}

impl Turn {
    /// The items of a round.
    pub fn round(&self, round: u32) -> Range<usize> {
        self.rounds[round as usize]..self.rounds[round as usize + 1]
    }
}

/// The documents of a corpus as they stand in it, equal ones again where they occur again.
fn sequence(documents: &Documents, corpus: Corpus, dealt: &[u32]) -> Vec<Item> {
    let mut rows = vec![NONE; documents.len()];
    (0u32..).zip(dealt).for_each(|(row, document)| rows[*document as usize] = row);
    let mut seen = vec![0u32; dealt.len()];
    let mut items = Vec::new();
    let mut take = |document: usize, again: bool| {
        let row = rows[document];
        if row != NONE && (again || seen[row as usize] == 0) {
            items.push(Item { row, copy: seen[row as usize] });
            seen[row as usize] += 1;
        }
    };
    let sources = 0..documents.source_count();
    match corpus {
        Corpus::All => (0..documents.len()).for_each(|i| take(i, false)),
        Corpus::Images | Corpus::DistinctImages => sources
            .filter_map(|source| documents.image_of(source))
            .for_each(|i| take(i, corpus == Corpus::Images)),
        Corpus::Layers | Corpus::DistinctLayers => sources
            .flat_map(|source| documents.layers_of(source))
            .for_each(|i| take(*i as usize, corpus == Corpus::Layers)),
    }
    items
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embed::count_tokens;
    use crate::tokens::{Builder, Origin, Scheme};
    use proptest::prelude::*;

    proptest! {
        /// Whatever the shards and rounds are, every document is trained on as often as it should be.
        #[test]
        fn every_document_has_its_turn_once(
            texts in prop::collection::vec(prop::collection::vec(0u32..5, 0..9), 1..30),
            (shards, merge_words, epoch) in (1u32..9, 1u64..50, 0u32..3),
            corpus in prop::sample::select(vec![
                Corpus::Images, Corpus::DistinctImages, Corpus::Layers, Corpus::DistinctLayers, Corpus::All,
            ]),
            order in prop::sample::select(vec![Order::Corpus, Order::Random]),
        ) {
            let mut builder = Builder::new(Scheme::Cumulative);
            for (i, text) in texts.iter().enumerate() {
                builder.begin(&i.to_string());
                let cut = text.len() / 2;
                builder.layer(0, 2 * i as u32, &text[..cut]);
                builder.layer(1, 2 * i as u32 + 1, &text[cut..]);
                builder.end();
            }
            let names = ["a", "b", "c", "d", "e"].into_iter().collect();
            let documents = builder.finish(names, Origin::default());
            let options = Options { shards, merge_words, min_count: 2, corpus, order, ..Options::tensorflow() };
            let wanted = copies(&documents, corpus);
            let counts = count_tokens(&documents, &wanted);
            let vocabulary = Vocabulary::new(documents.vocabulary(), &counts, &options);
            // Counts and lengths by brute force.
            let mut brute = vec![0u64; 5];
            let mut known = vec![0u64; documents.len()];
            let mut tokens = Vec::new();
            for i in 0..documents.len() {
                documents.tokens_of(i, &mut tokens);
                for token in &tokens {
                    brute[*token as usize] += wanted[i];
                    known[i] += u64::from(vocabulary.rows[*token as usize] != NONE);
                }
            }
            prop_assert_eq!(&counts, &brute);
            let plan = Plan::new(&documents, &vocabulary, &wanted, &options);
            let mut seen = vec![0u64; documents.len()];
            let mut words = 0;
            let mut items = std::collections::BTreeSet::new();
            for shard in 0..plan.shards() {
                let turn = plan.turn(shard, epoch, 7);
                let mut next = 0;
                for round in 0..plan.rounds {
                    let range = turn.round(round);
                    prop_assert_eq!(range.start, next);
                    next = range.end;
                    for item in &turn.items[range] {
                        prop_assert!(items.insert(*item));
                        seen[plan.dealt[item.row as usize] as usize] += 1;
                        words += plan.lengths[item.row as usize];
                    }
                }
                prop_assert_eq!(next, turn.items.len());
            }
            prop_assert_eq!(words, plan.words);
            // One after the other, the pieces of all rounds are the corpus.
            if order == Order::Corpus && corpus == Corpus::Images {
                let turns: Vec<Turn> = (0..plan.shards()).map(|shard| plan.turn(shard, epoch, 7)).collect();
                let read = (0..plan.rounds).flat_map(|round| {
                    turns.iter().flat_map(move |turn| &turn.items[turn.round(round)])
                });
                let read: Vec<usize> = read.map(|item| plan.dealt[item.row as usize] as usize).collect();
                let written = (0..documents.source_count()).filter_map(|i| documents.image_of(i));
                prop_assert_eq!(read, written.filter(|i| known[*i] > 0).collect::<Vec<_>>());
            }
            for i in 0..documents.len() {
                prop_assert_eq!(seen[i], if known[i] > 0 { wanted[i] } else { 0 });
            }
        }
    }
}
