//! How sure an answer is: from features to probabilities.

use super::features::Fit;
use super::logistic::Logistic;
use serde::{Deserialize, Serialize};

/// Two fitted models and the thresholds below which the classifier abstains.
///
/// [`Calibration::default`] was fitted by `stratigraph accuracy` on its tuning part; the weights belong
/// to features of fit (shares, margins), not to paths or bases, so that they hold for databases with
/// other bases, too.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Is the best base's family the image's?
    pub family: Logistic,
    /// Is the best base's version the image's, given that the family is?
    pub version: Logistic,
    /// No family is answered below this confidence.
    pub family_threshold: f64,
    /// No version is answered below this confidence.
    pub version_threshold: f64,
}

impl Calibration {
    /// Confidence in the family.
    pub fn family(&self, fit: &Fit) -> f64 {
        self.family.probability(&fit.family)
    }

    /// Confidence in family and version.
    pub fn version(&self, fit: &Fit) -> f64 {
        self.family(fit) * self.version.probability(&fit.version)
    }
}

impl Default for Calibration {
    fn default() -> Self {
        Self {
            family: Logistic { bias: -12.0, weights: vec![0.05, 0.5, 0.3, 0.6, 1.2, 0.5, 0.8, 2.0, 0.8] },
            version: Logistic { bias: -4.0, weights: vec![1.0, 0.3, 0.8, 0.1, 0.4, 0.4, 0.8, 0.1, 0.1] },
            family_threshold: 0.5,
            version_threshold: 0.5,
        }
    }
}
