//! Document vectors as the mean of their words' vectors, computed along the trie.

use super::vectors::normalise;
use crate::strings::NONE;
use crate::tokens::Documents;
use rayon::prelude::*;

/// Unit vectors of all documents, one after the other, and their lengths before.
#[derive(Debug, Clone, PartialEq)]
pub struct Means {
    /// Rows of length 1; zero for documents without known words.
    pub vectors: Vec<f32>,
    /// Length of each mean.
    pub norms: Vec<f64>,
}

/// The mean of the vectors of the known words of every document, repetitions counted. `rows` gives
/// each token's row in `words`, or [`NONE`].
///
/// Sums are float64 in the order of the tokens. A document begins with its parent's, so its sum goes
/// on from the parent's: the bits are those of adding up each document from its start, the cost that
/// of the tokens stored. Only the sums of the documents on the way down are kept.
pub fn means(documents: &Documents, rows: &[u32], words: &[f32], dims: usize) -> Means {
    let n = documents.len();
    let mut children: Vec<u32> = Vec::with_capacity(n);
    let mut begin = vec![0usize; n + 2];
    let mut roots = Vec::new();
    (0..n).filter_map(|i| documents.parent(i)).for_each(|parent| begin[parent + 2] += 1);
    for i in 2..begin.len() {
        begin[i] += begin[i - 1];
    }
    children.resize(begin[n + 1], 0);
    for i in 0..n {
        match documents.parent(i) {
            Some(parent) => {
                children[begin[parent + 1]] = i as u32;
                begin[parent + 1] += 1;
            }
            None => roots.push(i as u32),
        }
    }
    let walk = Walk { documents, rows, words, dims, children: &children, begin: &begin };
    // Neighbouring roots together: a piece of work is some thousand documents, not one.
    let found: Vec<Vec<Mean>> =
        roots.par_iter().fold(Vec::new, |found, root| walk.below(*root, found)).collect();
    let mut means = Means { vectors: vec![0.0; n * dims], norms: vec![0.0; n] };
    for (document, norm, unit) in found.into_iter().flatten() {
        let i = document as usize;
        means.norms[i] = norm;
        means.vectors[i * dims..][..dims].copy_from_slice(&unit);
    }
    means
}

/// A document, the length of its mean, and its unit vector.
type Mean = (u32, f64, Vec<f32>);

struct Walk<'a> {
    documents: &'a Documents,
    rows: &'a [u32],
    words: &'a [f32],
    dims: usize,
    /// Children of document i are `children[begin[i]..begin[i + 1]]`.
    children: &'a [u32],
    begin: &'a [usize],
}

impl Walk<'_> {
    /// Appends a document and all that go on from it.
    fn below(&self, root: u32, mut found: Vec<Mean>) -> Vec<Mean> {
        // Documents to visit, and how many of the sums belong to those before them. Trees can be
        // deeper than the call stack.
        let mut todo = vec![(root, 0usize)];
        let mut sums: Vec<(Vec<f64>, u64)> = Vec::new();
        while let Some((document, depth)) = todo.pop() {
            let i = document as usize;
            let before = depth.checked_sub(1).map(|d| &sums[d]);
            let (mut sum, mut count) = before.cloned().unwrap_or((vec![0.0; self.dims], 0));
            for token in self.documents.own_tokens(i) {
                let row = self.rows[*token as usize];
                if row != NONE {
                    let word = &self.words[row as usize * self.dims..][..self.dims];
                    sum.iter_mut().zip(word).for_each(|(sum, x)| *sum += f64::from(*x));
                    count += 1;
                }
            }
            let mut unit = vec![0.0; self.dims];
            let divisor = count.max(1) as f64;
            let norm = normalise(sum.iter().map(|x| x / divisor), &mut unit);
            found.push((document, norm, unit));
            sums.truncate(depth);
            let children = &self.children[self.begin[i]..self.begin[i + 1]];
            if !children.is_empty() {
                sums.push((sum, count));
                todo.extend(children.iter().map(|child| (*child, depth + 1)));
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokens::{Builder, Origin, Scheme};
    use proptest::prelude::*;

    proptest! {
        /// The same bits as adding up every document from its first token.
        #[test]
        fn means_are_those_of_whole_documents(
            texts in prop::collection::vec(prop::collection::vec(0u32..4, 0..12), 1..20),
            words in prop::collection::vec(-1f32..1.0, 9),
        ) {
            let (dims, rows) = (3, [1, NONE, 0, 2]);
            let mut builder = Builder::new(Scheme::Cumulative);
            let mut texts_seen: Vec<Vec<u32>> = Vec::new();
            for (i, text) in texts.iter().enumerate() {
                builder.begin(&i.to_string());
                for (entry, part) in (0u32..).zip(text.chunks(2)) {
                    let id = texts_seen.iter().position(|t| t == part).unwrap_or_else(|| {
                        texts_seen.push(part.to_vec());
                        texts_seen.len() - 1
                    });
                    builder.layer(entry, id as u32, part);
                }
                builder.end();
            }
            let names = ["a", "b", "c", "d"].into_iter().collect();
            let documents = builder.finish(names, Origin::default());
            let means = means(&documents, &rows, &words, dims);
            let mut tokens = Vec::new();
            for i in 0..documents.len() {
                documents.tokens_of(i, &mut tokens);
                let known: Vec<_> =
                    tokens.iter().map(|t| rows[*t as usize]).filter(|row| *row != NONE).collect();
                let mean = |d: usize| {
                    let sum = known.iter().fold(0f64, |s, row| s + f64::from(words[*row as usize * 3 + d]));
                    sum / known.len().max(1) as f64
                };
                let mut unit = [0.0; 3];
                let norm = normalise((0..3).map(mean), &mut unit);
                prop_assert_eq!(means.norms[i], norm);
                prop_assert_eq!(&means.vectors[i * 3..][..3], &unit);
                prop_assert!(!known.is_empty() || norm == 0.0);
            }
        }
    }
}
