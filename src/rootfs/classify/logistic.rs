//! Logistic regression with weights that are not negative.
//!
//! Features are made so that each can only speak *for* an answer. Forcing the weights to agree keeps
//! collinear features from cancelling each other, so that confidence grows with every one of them.

use serde::{Deserialize, Serialize};

/// A fitted model: `p = 1 / (1 + exp(-(bias + weights . features)))`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Logistic {
    /// Added to the weighted features.
    pub bias: f64,
    /// One for each feature, none negative.
    pub weights: Vec<f64>,
}

/// Weight of the penalty on squared standardised weights, per sample.
const RIDGE: f64 = 1e-4;
const STEPS: usize = 4000;

impl Logistic {
    /// The probability of "right".
    pub fn probability(&self, features: &[f64]) -> f64 {
        let z = self.weights.iter().zip(features).fold(self.bias, |z, (w, x)| z + w * x);
        1.0 / (1.0 + (-z).exp())
    }

    /// Fits by projected gradient descent with momentum on standardised features: sequential and in
    /// the order of the samples, so that it gives the same bits on any number of threads.
    ///
    /// Without samples of both outcomes every probability is the share of right ones.
    pub fn fit(samples: &[(Vec<f64>, bool)]) -> Self {
        let Some((first, _)) = samples.first() else { return Self { bias: 0.0, weights: Vec::new() } };
        let (n, k) = (samples.len() as f64, first.len());
        let mean: Vec<_> = (0..k).map(|j| samples.iter().map(|(x, _)| x[j]).sum::<f64>() / n).collect();
        let deviation: Vec<_> = (0..k)
            .map(|j| {
                let square = samples.iter().map(|(x, _)| (x[j] - mean[j]).powi(2)).sum::<f64>();
                (square / n).sqrt().max(1e-9)
            })
            .collect();
        let standard: Vec<Vec<f64>> =
            samples.iter().map(|(x, _)| (0..k).map(|j| (x[j] - mean[j]) / deviation[j]).collect()).collect();
        let right = samples.iter().filter(|(_, y)| *y).count() as f64;
        let base = ((right + 0.5) / (n - right + 0.5)).ln();
        let mut at = vec![0.0; k + 1];
        at[k] = base;
        let (mut before, mut gradient) = (at.clone(), vec![0.0; k + 1]);
        // The curvature of the logistic loss is at most a quarter of the features' second moment,
        // which for standardised features and a bias is at most k + 1.
        let step = 4.0 / (k as f64 + 1.0);
        for i in 0..STEPS {
            let momentum = i as f64 / (i as f64 + 3.0);
            let look: Vec<_> = at.iter().zip(&before).map(|(a, b)| a + momentum * (a - b)).collect();
            gradient.fill(0.0);
            for (x, (_, y)) in standard.iter().zip(samples) {
                let z = x.iter().zip(&look).fold(look[k], |z, (x, w)| z + w * x);
                let error = 1.0 / (1.0 + (-z).exp()) - f64::from(*y);
                for (g, x) in gradient.iter_mut().zip(x) {
                    *g += error * x;
                }
                gradient[k] += error;
            }
            before = at;
            at = (0..=k)
                .map(|j| {
                    let ridge = if j < k { RIDGE * look[j] } else { 0.0 };
                    let w = look[j] - step * (gradient[j] / n + ridge);
                    if j < k { w.max(0.0) } else { w }
                })
                .collect();
        }
        let weights: Vec<_> = (0..k).map(|j| at[j] / deviation[j]).collect();
        let bias = at[k] - weights.iter().zip(&mean).map(|(w, m)| w * m).sum::<f64>();
        Self { bias, weights }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng};

    #[test]
    fn finds_the_model_that_made_the_samples() {
        let truth = Logistic { bias: -1.0, weights: vec![2.0, 0.0, 0.5] };
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
        let samples: Vec<_> = (0..20_000)
            .map(|_| {
                let x: Vec<f64> = (0..3).map(|_| rng.random_range(-2.0..2.0)).collect();
                let p = truth.probability(&x);
                // The second feature speaks against; the fit may not use it.
                (vec![x[0], -x[0] + 0.1 * x[1], x[2]], rng.random_range(0.0..1.0) < p)
            })
            .collect();
        let found = Logistic::fit(&samples);
        assert!(found.weights.iter().all(|w| *w >= 0.0));
        for (wanted, got) in [(-1.0, found.bias), (2.0, found.weights[0]), (0.5, found.weights[2])] {
            assert!((wanted - got).abs() < 0.15, "{found:?}");
        }
        assert!(found.weights[1] < 0.1);
    }
}
