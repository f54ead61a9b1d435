//! How sure an answer is: from features to probabilities.

use super::choice::Choice;
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
    /// Which family is the image's, or none?
    pub family: Choice,
    /// Is the best base's version the image's, given that the family is?
    pub version: Logistic,
    /// No family is answered below this confidence.
    pub family_threshold: f64,
    /// No version is answered below this confidence.
    pub version_threshold: f64,
}

/// The most confidence in an image that two distributions sign, unless its base is nearly whole. The
/// tuning part has no such image on a base of the database, so that no more can be supported.
const CONTESTED: f64 = 0.9;

impl Calibration {
    /// Confidence in the family.
    pub fn family(&self, fit: &Fit) -> f64 {
        if fit.contested { fit.probability.min(CONTESTED) } else { fit.probability }
    }

    /// Confidence in family and version.
    pub fn version(&self, fit: &Fit) -> f64 {
        self.family(fit) * self.version.probability(&fit.version)
    }
}

impl Default for Calibration {
    fn default() -> Self {
        Self {
            family: Choice {
                bias: -6.304_397_758_903_906,
                weights: vec![0.84, 0.67, 3.09, 1.69, 0.98, 1.05, 0.58],
            },
            version: Logistic {
                bias: -3.774_020_044_936_518_7,
                weights: vec![
                    2.021_202_594_292_84,
                    0.439_439_104_777_658_65,
                    1.579_413_292_233_736_7,
                    0.024_710_349_964_111_093,
                    1.408_756_732_178_678,
                    0.608_653_267_404_346_4,
                    2.549_747_421_928_602_7,
                    0.563_135_553_806_936_7,
                    0.0,
                ],
            },
            family_threshold: 0.5,
            version_threshold: 0.5,
        }
    }
}
