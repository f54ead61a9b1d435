//! The words that get a vector, and what is drawn by their frequency.

use super::options::Options;
use super::random::Stream;
use crate::strings::{NONE, StringTable};
use crate::tokens::Documents;
use std::ops::Range;

/// Known words, most frequent first; equal counts by their bytes.
#[derive(Debug, Clone)]
pub struct Vocabulary {
    /// The words.
    pub names: StringTable,
    /// Occurrences of each in the documents that are trained on.
    pub counts: Vec<u64>,
    /// Row of each token of the documents, or [`NONE`].
    pub rows: Vec<u32>,
    /// A word is kept where 32 random bits are below this (sub-sampling).
    keep: Vec<u64>,
}

/// Occurrences of each token if document `i` occurs `copies[i]` times. Counted along the trie: what
/// a document appends occurs in all documents that go on from it.
pub fn count_tokens(documents: &Documents, copies: &[u64]) -> Vec<u64> {
    let mut weights = copies.to_vec();
    let mut counts = vec![0u64; documents.vocabulary().len()];
    for i in (0..documents.len()).rev() {
        if let Some(parent) = documents.parent(i) {
            weights[parent] += weights[i];
        }
        documents.own_tokens(i).iter().for_each(|token| counts[*token as usize] += weights[i]);
    }
    counts
}

impl Vocabulary {
    /// Takes the words that are frequent enough; `counts` belong to the tokens of the documents.
    pub fn new(tokens: &StringTable, token_counts: &[u64], options: &Options) -> Self {
        let mut known: Vec<u32> = (0u32..)
            .zip(token_counts)
            .filter(|(_, n)| **n >= options.min_count.max(1))
            .map(|(token, _)| token)
            .collect();
        known.sort_unstable_by(|a, b| {
            let count = |token: &u32| token_counts[*token as usize];
            count(b).cmp(&count(a)).then_with(|| tokens.get(*a).cmp(tokens.get(*b)))
        });
        if options.max_vocabulary > 0 {
            known.truncate(options.max_vocabulary as usize);
        }
        let mut rows = vec![NONE; tokens.len()];
        (0u32..).zip(&known).for_each(|(row, token)| rows[*token as usize] = row);
        let counts: Vec<_> = known.iter().map(|token| token_counts[*token as usize]).collect();
        let keep = keep(&counts, options.sample);
        Self { names: known.iter().map(|token| tokens.get(*token)).collect(), counts, rows, keep }
    }

    /// Number of words.
    pub fn len(&self) -> usize {
        self.counts.len()
    }

    /// True if no word is frequent enough.
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// Replaces the tokens of a document by the rows of those words that are known and kept. Returns
    /// which of these are among the known `words` (all of them counted, kept or not).
    #[inline]
    pub fn sub_sample(
        &self,
        tokens: &[u32],
        stream: &mut Stream,
        words: &Range<u32>,
        kept: &mut Vec<u32>,
    ) -> Range<usize> {
        kept.clear();
        let (mut known, mut range) = (0, 0..0);
        for token in tokens {
            let row = self.rows[*token as usize];
            if row == NONE {
                continue;
            }
            if known == words.start {
                range.start = kept.len();
            }
            // The last draw of a known word decides; frequent words are kept rarely.
            if (stream.bits() >> 32) < self.keep[row as usize] {
                kept.push(row);
            }
            known += 1;
            if known == words.end {
                range.end = kept.len();
            }
        }
        range
    }
}

/// The chance that a word of frequency f is kept, (sqrt(f / t) + 1) t / f, as in word2vec.
fn keep(counts: &[u64], sample: f64) -> Vec<u64> {
    let threshold = sample * counts.iter().sum::<u64>() as f64;
    let chance = |n: u64| match threshold > 0.0 {
        true => ((n as f64 / threshold).sqrt() + 1.0) * (threshold / n as f64),
        false => 1.0,
    };
    counts.iter().map(|n| (chance(*n).min(1.0) * f64::from(u32::MAX) + 1.0) as u64).collect()
}

/// Draws words by frequency to the power of 3/4 in constant time (Walker 1977, Vose 1991).
#[derive(Debug, Clone)]
pub struct Negatives {
    columns: Vec<(u32, u32)>,
}

impl Negatives {
    /// Of words with these counts.
    pub fn new(counts: &[u64]) -> Self {
        // By square roots, which are the same bits everywhere.
        let weights: Vec<f64> = counts.iter().map(|n| (*n as f64).sqrt()).map(|r| r * r.sqrt()).collect();
        let mean = weights.iter().sum::<f64>() / weights.len().max(1) as f64;
        let mut left: Vec<f64> = weights.iter().map(|w| w / mean).collect();
        let mut columns: Vec<(u32, u32)> = (0..counts.len() as u32).map(|i| (u32::MAX, i)).collect();
        let (mut small, mut large): (Vec<usize>, Vec<usize>) = (0..left.len()).partition(|i| left[*i] < 1.0);
        while let (Some(s), Some(&l)) = (small.pop(), large.last()) {
            columns[s] = ((left[s] * f64::from(u32::MAX)) as u32, l as u32);
            left[l] -= 1.0 - left[s];
            if left[l] < 1.0 {
                large.pop();
                small.push(l);
            }
        }
        Self { columns }
    }

    /// A word.
    #[inline(always)]
    pub fn draw(&self, stream: &mut Stream) -> u32 {
        let bits = stream.bits();
        let column = ((bits >> 32) * self.columns.len() as u64) >> 32;
        let (limit, other) = self.columns[column as usize];
        if (bits as u32) < limit { column as u32 } else { other }
    }
}

/// Huffman codes of words: which inner nodes lie on the way to each, and where it turns.
#[derive(Debug, Clone, Default)]
pub struct Huffman {
    offsets: Vec<u32>,
    nodes: Vec<u32>,
    labels: Vec<f32>,
}

impl Huffman {
    /// Of words with these counts, which fall. There is one inner node less than words.
    pub fn new(counts: &[u64]) -> Self {
        let n = counts.len();
        let mut codes = Self { offsets: vec![0], ..Self::default() };
        // Two queues: leaves from the rarest on, and inner nodes, which are made in rising order.
        let mut parents = vec![(0u32, false); (2 * n).saturating_sub(1)];
        let mut sums: Vec<u64> = Vec::with_capacity(n.saturating_sub(1));
        let (mut leaf, mut inner) = (n, 0);
        let mut next = |sums: &[u64]| match (leaf.checked_sub(1), sums.get(inner)) {
            (Some(rarest), sum) if sum.is_none_or(|sum| counts[rarest] <= *sum) => {
                leaf = rarest;
                (rarest, counts[rarest])
            }
            (_, sum) => {
                inner += 1;
                (n + inner - 1, sum.copied().unwrap_or(0))
            }
        };
        for node in 0..n.saturating_sub(1) {
            let ((a, few), (b, more)) = (next(&sums), next(&sums));
            parents[a] = (node as u32, false);
            parents[b] = (node as u32, true);
            sums.push(few.saturating_add(more));
        }
        let root = n.saturating_sub(2);
        for word in 0..n {
            let begin = codes.nodes.len();
            let mut at = word;
            while n > 1 && at != n + root {
                let (node, one) = parents[at];
                codes.nodes.push(node);
                codes.labels.push(if one { 0.0 } else { 1.0 });
                at = n + node as usize;
            }
            codes.nodes[begin..].reverse();
            codes.labels[begin..].reverse();
            codes.offsets.push(codes.nodes.len() as u32);
        }
        codes
    }

    /// Inner nodes from the root on, and what each should say.
    #[inline(always)]
    pub fn path(&self, word: u32) -> (&[u32], &[f32]) {
        let range = self.offsets[word as usize] as usize..self.offsets[word as usize + 1] as usize;
        (&self.nodes[range.clone()], &self.labels[range])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn frequent_words_come_first_and_rare_ones_not_at_all() {
        let tokens: StringTable = ["yum", "apt", "rare", "get", "common"].into_iter().collect();
        let options = Options { min_count: 3, max_vocabulary: 3, ..Options::tensorflow() };
        let vocabulary = Vocabulary::new(&tokens, &[5, 5, 2, 3, 900], &options);
        assert_eq!(vocabulary.names.iter().collect::<Vec<_>>(), ["common", "apt", "yum"]);
        assert_eq!(vocabulary.counts, [900, 5, 5]);
        assert_eq!(vocabulary.rows, [2, 1, NONE, NONE, 0]);
        assert!(Vocabulary::new(&tokens, &[0; 5], &Options { min_count: 0, ..options }).is_empty());
    }

    #[test]
    fn words_are_kept_as_often_as_they_should() {
        let keep = keep(&[1_000_000, 1_000, 1], 1e-3);
        let chance = |k: u64| k as f64 / f64::from(u32::MAX);
        assert!((chance(keep[0]) - (1001.001f64.sqrt() * 0.999e-3 + 1e-3)).abs() < 1e-3);
        assert!(keep[1] >= u64::from(u32::MAX) && keep[2] >= u64::from(u32::MAX));
        assert_eq!(super::keep(&[7], 0.0), [1 << 32]);
    }

    #[test]
    fn pieces_of_a_document_keep_the_same_words() {
        let tokens: StringTable = ["often", "rare", "unknown"].into_iter().collect();
        let options = Options { min_count: 5, sample: 1e-2, ..Options::tensorflow() };
        let vocabulary = Vocabulary::new(&tokens, &[1000, 20, 1], &options);
        let document: Vec<u32> =
            (0..300).map(|i| if i % 7 == 0 { 2 } else { u32::from(i % 5 == 0) }).collect();
        let length = document.iter().filter(|token| **token != 2).count() as u32;
        let sampled = |words: Range<u32>| {
            let mut kept = vec![9];
            let range = vocabulary.sub_sample(&document, &mut Stream::new([3; 4]), &words, &mut kept);
            (range, kept)
        };
        let (all, kept) = sampled(0..length);
        assert!(all == (0..kept.len()) && kept.len() > 20 && kept.len() < 200, "{all:?}");
        let mut next = 0;
        for (begin, end) in [(0, 1), (1, 100), (100, 101), (101, length)] {
            let (range, again) = sampled(begin..end);
            assert!(again == kept && range.start == next, "{range:?}");
            next = range.end;
        }
        assert_eq!(next, kept.len());
    }

    proptest! {
        #[test]
        fn negatives_have_their_frequencies(counts in prop::collection::vec(1u64..5000, 1..40)) {
            let negatives = Negatives::new(&counts);
            // Exactly, from the table: each column is drawn equally often.
            let mut shares = vec![0.0; counts.len()];
            for (i, (limit, other)) in negatives.columns.iter().enumerate() {
                let own = f64::from(*limit) / f64::from(u32::MAX);
                shares[i] += own;
                shares[*other as usize] += 1.0 - own;
            }
            let total: f64 = counts.iter().map(|n| (*n as f64).powf(0.75)).sum();
            for (n, share) in counts.iter().zip(&shares) {
                let expected = (*n as f64).powf(0.75) / total * counts.len() as f64;
                prop_assert!((share - expected).abs() < 1e-6, "{share} {expected}");
            }
        }

        #[test]
        fn codes_are_prefix_free_and_shortest(mut counts in prop::collection::vec(1u64..1000, 1..40)) {
            counts.sort_unstable_by(|a, b| b.cmp(a));
            let codes = Huffman::new(&counts);
            let mut cost = 0;
            let mut kraft = 0.0;
            let mut seen = std::collections::BTreeSet::new();
            for (word, n) in (0u32..).zip(&counts) {
                let (nodes, labels) = codes.path(word);
                cost += n * nodes.len() as u64;
                kraft += 0.5f64.powi(nodes.len() as i32);
                prop_assert!(nodes.iter().all(|node| (*node as usize) < counts.len() - 1));
                prop_assert!(seen.insert(labels.iter().map(|l| *l as u8).collect::<Vec<_>>()));
            }
            prop_assert!((kraft - 1.0).abs() < 1e-9);
            // The cost of a Huffman code is the sum of all merged weights.
            let mut heap: std::collections::BinaryHeap<_> =
                counts.iter().map(|n| std::cmp::Reverse(*n)).collect();
            let mut least = 0;
            while heap.len() > 1 {
                let sum = heap.pop().unwrap().0 + heap.pop().unwrap().0;
                least += sum;
                heap.push(std::cmp::Reverse(sum));
            }
            prop_assert_eq!(cost, least);
        }
    }
}
