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

/// A document, or a part of one, that a shard trains on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// The document.
    pub item: Item,
    /// How many documents come before it in this epoch, of the [`Turn::documents`].
    pub place: u32,
    /// Those of its known words that are predicted; the words around them may lie outside.
    pub words: Range<u32>,
}

/// What a shard does in one epoch.
pub struct Turn {
    /// Its documents in the order of this epoch.
    pub pieces: Vec<Piece>,
    /// Where each round begins in `pieces`, and the end.
    pub rounds: Vec<usize>,
    /// Documents in the order in which this shard counts them.
    pub documents: u32,
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

/// Where part `part` of `parts` equal ones begins.
fn share(words: u64, part: u64, parts: u64) -> u64 {
    (u128::from(words) * u128::from(part) / u128::from(parts)) as u64
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
        let mut bounds: Vec<usize> =
            (0..shards).map(|s| ends.partition_point(|end| *end <= share(words, s, shards))).collect();
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
    /// In random order that is its rows of [`Plan::dealt`] and their copies, cut into rounds of about
    /// equal work. In corpus order a round is the next words of the corpus, of which each shard has an
    /// equal part: neighbours, which are much alike, are mostly trained on one after the other. A part
    /// may begin and end within a document.
    pub fn turn(&self, shard: usize, epoch: u32, seed: u64) -> Turn {
        if self.sequence.is_empty() {
            let all: Vec<Item> = (self.rows(shard))
                .flat_map(|row| (0..self.copies[row]).map(move |copy| Item { row: row as u32, copy }))
                .collect();
            let order = Stream::new([seed, TURN, u64::from(epoch), shard as u64]).order(all.len());
            let items: Vec<Item> = order.into_iter().map(|i| all[i as usize]).collect();
            let starts = self.starts(&items);
            // A document belongs to the round in which its first word falls.
            let begin = |round: u32| {
                let at = share(starts[items.len()], round.into(), self.rounds.into());
                starts[..items.len()].partition_point(|start| *start < at)
            };
            let rounds = (0..self.rounds).map(begin).chain([items.len()]).collect();
            let whole = |(place, item): (u32, &Item)| self.piece(*item, place, 0..u64::MAX);
            let pieces = (0u32..).zip(&items).map(whole).collect();
            return Turn { pieces, rounds, documents: items.len() as u32 };
        }
        let starts = self.starts(&self.sequence);
        let (end, shards) = (starts[self.sequence.len()], self.shards() as u64);
        let mut pieces = Vec::new();
        let mut rounds = vec![0];
        for round in 0..u64::from(self.rounds) {
            let part = round * shards + shard as u64;
            let cut = |part| share(end, part, u64::from(self.rounds) * shards);
            let words = cut(part)..cut(part + 1);
            let first = starts.partition_point(|start| *start <= words.start) - 1;
            for (at, item) in self.sequence.iter().enumerate().skip(first) {
                if words.is_empty() || starts[at] >= words.end {
                    break;
                }
                let here = words.start.saturating_sub(starts[at])..words.end - starts[at];
                pieces.push(self.piece(*item, at as u32, here));
            }
            rounds.push(pieces.len());
        }
        Turn { pieces, rounds, documents: self.sequence.len() as u32 }
    }

    /// Known words before each item, and those of all.
    fn starts(&self, items: &[Item]) -> Vec<u64> {
        let mut words = 0;
        let lengths = items.iter().map(|item| self.lengths[item.row as usize]);
        let ends = lengths.map(|length| {
            words += length;
            words
        });
        std::iter::once(0).chain(ends).collect()
    }

    fn piece(&self, item: Item, place: u32, words: Range<u64>) -> Piece {
        let within = |at: u64| u32::try_from(at.min(self.lengths[item.row as usize])).unwrap_or(u32::MAX);
        Piece { item, place, words: within(words.start)..within(words.end) }
    }

    /// The shards of a rank: consecutive ones, so that rank order is shard order.
    pub fn shards_of(&self, rank: usize, ranks: usize) -> Range<usize> {
        rank * self.shards() / ranks..(rank + 1) * self.shards() / ranks
    }
}

impl Turn {
    /// The pieces of a round.
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
            // Each word of each document and copy is predicted exactly once.
            let mut parts: std::collections::BTreeMap<Item, Vec<(u32, u32)>> = Default::default();
            for shard in 0..plan.shards() {
                let turn = plan.turn(shard, epoch, 7);
                let mut next = 0;
                for round in 0..plan.rounds {
                    let range = turn.round(round);
                    prop_assert_eq!(range.start, next);
                    next = range.end;
                    let mut words = 0;
                    for piece in &turn.pieces[range] {
                        prop_assert!(piece.place < turn.documents && !piece.words.is_empty());
                        parts.entry(piece.item).or_default().push((piece.words.start, piece.words.end));
                        words += u64::from(piece.words.end - piece.words.start);
                    }
                    let fair = plan.words.div_ceil(u64::from(plan.rounds) * u64::from(shards));
                    prop_assert!(order == Order::Random || words.abs_diff(fair) <= 1, "{words} of {fair}");
                }
                prop_assert_eq!(next, turn.pieces.len());
            }
            let mut seen = vec![0u64; documents.len()];
            for (item, mut words) in parts {
                words.sort_unstable();
                let length = plan.lengths[item.row as usize] as u32;
                prop_assert!(words[0].0 == 0 && words[words.len() - 1].1 == length);
                prop_assert!(words.windows(2).all(|two| two[0].1 == two[1].0), "{words:?}");
                seen[plan.dealt[item.row as usize] as usize] += 1;
            }
            prop_assert_eq!(plan.words, plan.copies.iter().zip(&plan.lengths).map(|(n, l)| u64::from(*n) * l).sum::<u64>());
            // One after the other, the pieces of all rounds are the corpus.
            if order == Order::Corpus && corpus == Corpus::Images {
                let turns: Vec<Turn> = (0..plan.shards()).map(|shard| plan.turn(shard, epoch, 7)).collect();
                let read = (0..plan.rounds).flat_map(|round| {
                    turns.iter().flat_map(move |turn| &turn.pieces[turn.round(round)])
                });
                let mut read: Vec<(u32, Item)> = read.map(|piece| (piece.place, piece.item)).collect();
                read.dedup();
                prop_assert!(read.iter().map(|(place, _)| *place).eq(0..read.len() as u32));
                let read: Vec<usize> =
                    read.iter().map(|(_, item)| plan.dealt[item.row as usize] as usize).collect();
                let written = (0..documents.source_count()).filter_map(|i| documents.image_of(i));
                prop_assert_eq!(read, written.filter(|i| known[*i] > 0).collect::<Vec<_>>());
            }
            for i in 0..documents.len() {
                prop_assert_eq!(seen[i], if known[i] > 0 { wanted[i] } else { 0 });
            }
        }
    }
}
