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
            family: Logistic {
                bias: -6.571_550_973_371_391,
                weights: vec![
                    0.0,
                    0.829_770_616_799_137_7,
                    0.0,
                    1.276_875_694_222_411_8,
                    0.509_524_635_224_977_2,
                    0.074_794_696_059_428_62,
                    1.406_062_155_791_091,
                    0.0,
                    4.832_486_540_828_801,
                    1.421_713_487_732_765,
                ],
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
