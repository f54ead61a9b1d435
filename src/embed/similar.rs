//! The nearest words or documents of a sum of words.

use super::vectors::{Vectors, normalise};
use rayon::prelude::*;

/// Terms that are not known, and what comes close to each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unknown {
    /// The term.
    pub term: String,
    /// Known words that begin alike, the most frequent first.
    pub like: Vec<String>,
}

/// A neighbour.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Neighbour {
    /// Row of the word or document.
    pub row: u32,
    /// Cosine, in float64 from the stored values.
    pub score: f64,
}

/// The direction of a query, float64: the sum of the positive words' unit vectors minus that of the
/// negative ones, of length 1 (as gensim's `most_similar`), and the rows of all these words.
///
/// # Errors
/// Names the terms that are no known words.
pub fn direction(
    vectors: &Vectors,
    positive: &[String],
    negative: &[String],
) -> Result<(Vec<f32>, Vec<u32>), Vec<Unknown>> {
    let mut sum = vec![0f64; vectors.dims];
    let (mut rows, mut unknown) = (Vec::new(), Vec::new());
    for (terms, sign) in [(positive, 1.0), (negative, -1.0)] {
        for term in terms {
            let term = term.to_lowercase();
            let Some(row) = vectors.find_word(&term) else {
                let like = vectors.words.names.iter().filter(|name| name.starts_with(prefix(&term)));
                unknown.push(Unknown { like: like.take(3).map(str::to_owned).collect(), term });
                continue;
            };
            rows.push(row as u32);
            sum.iter_mut().zip(vectors.word(row)).for_each(|(sum, x)| *sum += sign * f64::from(*x));
        }
    }
    if !unknown.is_empty() {
        return Err(unknown);
    }
    let mut unit = vec![0f32; vectors.dims];
    normalise(sum.into_iter(), &mut unit);
    Ok((unit, rows))
}

fn prefix(term: &str) -> &str {
    &term[..term.char_indices().nth(3).map_or(term.len(), |(i, _)| i)]
}

/// The `k` rows with the highest cosine with `query`, without those in `except`. Ties go to the
/// smaller row.
pub fn nearest(rows: &[f32], query: &[f32], k: usize, except: &[u32]) -> Vec<Neighbour> {
    let dot = |row: &[f32]| row.iter().zip(query).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
    let scores: Vec<f64> = rows.par_chunks(query.len().max(1)).map(dot).collect();
    let mut all: Vec<Neighbour> = (0u32..).zip(scores).map(|(row, score)| Neighbour { row, score }).collect();
    all.retain(|neighbour| !except.contains(&neighbour.row) && neighbour.score.is_finite());
    all.sort_unstable_by(|a, b| b.score.total_cmp(&a.score).then(a.row.cmp(&b.row)));
    all.truncate(k);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_come_first_and_ties_by_row() {
        let rows = [1.0, 0.0, 0.6, 0.8, 0.0, 1.0, 0.6, 0.8, -1.0, 0.0, f32::NAN, 0.0];
        let found: Vec<_> = nearest(&rows, &[1.0, 0.0], 3, &[0]).iter().map(|n| n.row).collect();
        assert_eq!(found, [1, 3, 2]);
        assert!(nearest(&rows, &[1.0, 0.0], 0, &[]).is_empty());
        assert!(nearest(&[], &[1.0, 0.0], 5, &[]).is_empty());
    }

    #[test]
    fn prefixes_are_whole_characters() {
        assert_eq!(["ap", "apt", "apté", "äöüß"].map(prefix), ["ap", "apt", "apt", "äöü"]);
    }
}
