//! Which of several candidates it is, or none: a conditional logit (McFadden 1974) with weights that
//! are not negative.
//!
//! Each candidate has a utility, `bias + weights . features`; "none of these" has utility 0. The
//! probability of a candidate is the exponential of its utility divided by the sum over all, none
//! included. One set of weights for all candidates: they speak of how a family fits, not of which it
//! is, and hold for families that were not there when they were fitted.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// A fitted model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Choice {
    /// Added to the weighted features.
    pub bias: f64,
    /// One for each feature, none negative.
    pub weights: Vec<f64>,
}

/// Candidates by their features, and which of them is right, if one is.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// One row for each candidate.
    pub candidates: Vec<Vec<f64>>,
    /// The right one.
    pub right: Option<usize>,
}

/// Weight of the penalty on squared standardised weights, per sample.
const RIDGE: f64 = 3e-4;
const STEPS: usize = 3000;
/// Samples whose gradients are added up one after the other: fixed, so that the sum has one order
/// however many threads there are.
const CHUNK: usize = 512;

impl Choice {
    /// How much speaks for a candidate.
    pub fn utility(&self, features: &[f64]) -> f64 {
        self.weights.iter().zip(features).fold(self.bias, |u, (w, x)| u + w * x)
    }

    /// The probability of candidate `at`, given the utilities of all.
    pub fn probability(&self, utilities: &[f64], at: usize) -> f64 {
        let most = utilities.iter().copied().fold(0.0, f64::max);
        let sum = utilities.iter().fold((-most).exp(), |sum, u| sum + (u - most).exp());
        (utilities[at] - most).exp() / sum
    }

    /// Fits by projected gradient descent with momentum on standardised features; the same bits on any
    /// number of threads. Without samples nothing is ever chosen.
    pub fn fit(samples: &[Sample]) -> Self {
        let rows = || samples.iter().flat_map(|s| &s.candidates);
        let Some(k) = rows().next().map(Vec::len) else { return Self { bias: -50.0, weights: Vec::new() } };
        let n = rows().count() as f64;
        let mean: Vec<f64> = (0..k).map(|j| rows().map(|x| x[j]).sum::<f64>() / n).collect();
        let deviation: Vec<f64> = (0..k)
            .map(|j| (rows().map(|x| (x[j] - mean[j]).powi(2)).sum::<f64>() / n).sqrt().max(1e-9))
            .collect();
        let standard = |x: &Vec<f64>| (0..k).map(|j| (x[j] - mean[j]) / deviation[j]).collect();
        let standard: Vec<Sample> = samples
            .iter()
            .map(|s| Sample { candidates: s.candidates.iter().map(standard).collect(), right: s.right })
            .collect();
        // The curvature of the loss is at most half the mean of the squared lengths of a sample's rows.
        let squares = standard.iter().flat_map(|s| &s.candidates);
        let squares = squares.map(|x| 1.0 + x.iter().map(|v| v * v).sum::<f64>()).sum::<f64>();
        let step = 2.0 * samples.len() as f64 / squares;
        let mut at = vec![0.0; k + 1];
        let mut before = at.clone();
        for i in 0..STEPS {
            let momentum = i as f64 / (i as f64 + 3.0);
            let look: Vec<f64> = at.iter().zip(&before).map(|(a, b)| a + momentum * (a - b)).collect();
            let parts: Vec<Vec<f64>> =
                standard.par_chunks(CHUNK).map(|samples| gradient(samples, &look)).collect();
            let sum = |j: usize| parts.iter().map(|part| part[j]).sum::<f64>() / samples.len() as f64;
            before = at;
            at = (0..=k)
                .map(|j| match j < k {
                    true => (look[j] - step * (sum(j) + RIDGE * look[j])).max(0.0),
                    false => look[j] - step * sum(j),
                })
                .collect();
        }
        let weights: Vec<_> = (0..k).map(|j| at[j] / deviation[j]).collect();
        let bias = at[k] - weights.iter().zip(&mean).map(|(w, m)| w * m).sum::<f64>();
        Self { bias, weights }
    }
}

/// Of the negative log-likelihood by weights and bias, summed over the samples.
fn gradient(samples: &[Sample], weights: &[f64]) -> Vec<f64> {
    let k = weights.len() - 1;
    let now = Choice { bias: weights[k], weights: weights[..k].to_vec() };
    let mut sum = vec![0.0; k + 1];
    for sample in samples {
        let utilities: Vec<f64> = sample.candidates.iter().map(|x| now.utility(x)).collect();
        for (c, x) in sample.candidates.iter().enumerate() {
            let error = now.probability(&utilities, c) - f64::from(u8::from(sample.right == Some(c)));
            for (sum, x) in sum.iter_mut().zip(x) {
                *sum += error * x;
            }
            sum[k] += error;
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng};

    #[test]
    fn finds_the_model_that_made_the_samples() {
        let truth = Choice { bias: -1.0, weights: vec![2.0, 0.0, 0.7] };
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
        let samples: Vec<_> = (0..20_000)
            .map(|_| {
                let row = |rng: &mut rand_chacha::ChaCha8Rng| -> Vec<f64> {
                    (0..3).map(|_| rng.random_range(-2.0..2.0)).collect()
                };
                let rows: Vec<Vec<f64>> = (0..4).map(|_| row(&mut rng)).collect();
                let utilities: Vec<f64> = rows.iter().map(|x| truth.utility(x)).collect();
                let mut left: f64 = rng.random_range(0.0..1.0);
                let right = (0..4).find(|c| {
                    left -= truth.probability(&utilities, *c);
                    left < 0.0
                });
                // The second feature speaks against; the fit may not use it.
                let candidates = rows.iter().map(|x| vec![x[0], -x[0] + 0.1 * x[1], x[2]]).collect();
                Sample { candidates, right }
            })
            .collect();
        let found = Choice::fit(&samples);
        assert!(found.weights.iter().all(|w| *w >= 0.0));
        for (wanted, got) in [(-1.0, found.bias), (2.0, found.weights[0]), (0.7, found.weights[2])] {
            assert!((wanted - got).abs() < 0.15, "{found:?}");
        }
        assert!(found.weights[1] < 0.1);
    }

    #[test]
    fn probabilities_and_none_sum_to_one() {
        let choice = Choice { bias: 0.0, weights: vec![] };
        let utilities = [700.0, 699.0, -900.0];
        let sum: f64 = (0..3).map(|c| choice.probability(&utilities, c)).sum();
        assert!((sum - 1.0).abs() < 1e-12);
        assert!((choice.probability(&[0.0, 0.0, 0.0], 1) - 0.25).abs() < 1e-12);
    }
}
