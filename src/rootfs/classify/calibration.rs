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

/// The most confidence in an image that is contested ([`Fit::contested`]): two distributions sign it and
/// its base is not nearly whole; or the base of another family is there as wholly; or nothing but a keyring
/// signs it and its directories have holes. Of the first sort the tuning part has no image on a base of the
/// database, of the third none on a family outside it, so that no more can be supported; in the second
/// nothing tells which of the two bases was there first.
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
                bias: -6.431_199_130_390_495,
                weights: vec![
                    0.854_332_424_764_301_7,
                    0.684_324_333_314_416_9,
                    3.240_754_480_620_657,
                    1.666_943_823_541_344_5,
                    0.988_051_205_432_232,
                    1.041_631_775_889_299_7,
                    0.515_107_289_216_514_8,
                ],
            },
            version: Logistic {
                bias: -3.947_897_828_069_422,
                weights: vec![
                    1.924_178_814_812_462,
                    0.459_491_458_400_907,
                    1.557_921_778_370_703_6,
                    0.040_133_817_453_284_64,
                    1.421_610_191_580_129_8,
                    0.667_689_276_160_144_5,
                    2.516_522_720_423_938,
                    0.583_254_076_429_193_1,
                    0.0,
                ],
            },
            family_threshold: 0.5,
            version_threshold: 0.5,
        }
    }
}
