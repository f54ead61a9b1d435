//! Which base an image is built on: three answers side by side.
//!
//! - **As published** ([`published`]): the study's score over path sets, to the last bit.
//! - **By evidence** ([`Evidence`]): the longest chain of layers shared with a known base; proof, from
//!   the config alone.
//! - **By likeness** ([`Likeness`]): a score over path sets that favours no base for its size
//!   ([`Model`]), with a calibrated confidence and the right to say "none of these".
//!
//! [`accuracy`] measures the answers from path sets on images whose base is known.

pub mod accuracy;
mod calibration;
mod campaign;
mod choice;
mod cluster;
mod features;
mod joined;
mod logistic;
mod model;
mod published;

pub use calibration::Calibration;
pub use campaign::{
    Answer, Comparison, NO_ANSWER, PublishedAnswer, StudyCheck, StudyEntry, Summary, by_evidence,
};
pub use choice::Choice;
pub use cluster::{Clusters, Kind};
pub use features::{Candidate, Fit, candidates, fit};
pub use joined::{OtherUniverse, by_results};
pub use logistic::Logistic;
pub use model::{Model, NAT, Tally};
pub use published::{Published, published};

pub use super::bases::Evidence;
use super::bases::{Bases, EXPORT_ARTEFACTS};
use roaring::RoaringBitmap;
use serde::Serialize;

/// Why the classifier by likeness gives no answer, or only half of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Abstention {
    /// The image has no path of any base.
    NoPaths,
    /// It is not enough like any base: built from scratch, on a distroless image, or on a family that
    /// the database does not know.
    Unlike,
    /// The family is clear, the version is not: another one fits as well, or it is not in the database.
    Version,
}

/// The answer by likeness.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Likeness {
    /// The family, unless the classifier abstains.
    pub family: Option<String>,
    /// The version, unless it abstains.
    pub version: Option<String>,
    /// Probability that the family is right.
    pub confidence: f64,
    /// Probability that family and version are right.
    pub version_confidence: f64,
    /// Name of the base that fits best, answered or not.
    pub nearest: Option<String>,
    /// Share of that base's core paths (no documentation, no caches) that the image has.
    pub coverage: f64,
    /// Name of the best base of another family.
    pub runner_up: Option<String>,
    /// How far behind its family is, in nats of log-odds.
    pub margin: f64,
    /// Name of the second-best base of the same family.
    pub version_runner_up: Option<String>,
    /// How far behind it is, in nats.
    pub version_margin: f64,
    /// Why there is no (whole) answer.
    pub abstained: Option<Abstention>,
    /// Paths of the image that the nearest base has and the runner-up has not, the most telling first.
    pub decided_by: Vec<String>,
    /// The same against the second-best version; with a leading `!`, a path that the latter has and
    /// the image has not.
    pub version_decided_by: Vec<String>,
}

/// Both answers that path sets give.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ByPaths {
    /// As published; `None` where the study divided by zero.
    pub published: Option<Published>,
    /// By likeness.
    pub likeness: Likeness,
}

/// A base database made ready to classify path sets.
pub struct Classifier<'a> {
    bases: &'a Bases,
    /// The bases, as scored.
    pub model: Model,
    /// From fit to confidence.
    pub calibration: Calibration,
    artefacts: RoaringBitmap,
}

/// How many deciding paths are kept.
const TOLD: usize = 5;

impl<'a> Classifier<'a> {
    /// Prepares all bases of a database.
    pub fn new(bases: &'a Bases, calibration: Calibration) -> Self {
        Self::with(bases, calibration, |_| true)
    }

    /// Prepares those bases for which `take` is true.
    pub fn with(bases: &'a Bases, calibration: Calibration, take: impl Fn(usize) -> bool) -> Self {
        let artefacts = bases.set_of(EXPORT_ARTEFACTS.iter().map(|path| path.as_bytes()));
        Self { bases, model: Model::new(bases, take), calibration, artefacts }
    }

    /// The same, for a world in which the distribution of `family` is not known at all: it is not in the
    /// list of those that sign.
    pub fn unaware(
        bases: &'a Bases,
        calibration: Calibration,
        family: &str,
        take: impl Fn(usize) -> bool,
    ) -> Self {
        let unknown = super::bases::signs::distribution_of(family);
        let model = Model::with_signs(bases, take, |sign| Some(sign) != unknown);
        let artefacts = bases.set_of(EXPORT_ARTEFACTS.iter().map(|path| path.as_bytes()));
        Self { bases, model, calibration, artefacts }
    }

    /// The set with what `docker export` would have added to it.
    pub fn with_export_artefacts(&self, set: &RoaringBitmap) -> RoaringBitmap {
        set | &self.artefacts
    }

    /// Name of the base in a lane.
    pub fn name(&self, lane: usize) -> &'a str {
        &self.bases.bases[self.model.base[lane]].name
    }

    /// Scores a set without explaining: the published answer and the likeness, deciding paths left
    /// out. The ids must be those of the database's universe.
    pub fn score(&self, set: &RoaringBitmap, tally: &mut Tally) -> ByPaths {
        self.model.score(set, tally);
        let published = published(tally.total, &tally.shared_with[..self.model.len()]);
        ByPaths { published, likeness: self.likeness(tally).0 }
    }

    /// Scores a set and tells by which paths it was decided.
    pub fn classify(&self, set: &RoaringBitmap, tally: &mut Tally) -> ByPaths {
        self.model.score(set, tally);
        let published = published(tally.total, &tally.shared_with[..self.model.len()]);
        let (mut likeness, fit) = self.likeness(tally);
        if let Some(fit) = fit.filter(|_| tally.total > 0) {
            let shown = |ids: Vec<u32>, mark: &str| -> Vec<String> {
                let path = |id| String::from_utf8_lossy(self.bases.universe.get(id)).into_owned();
                ids.into_iter().map(|id| format!("{mark}/{}", path(id))).collect()
            };
            if let Some(other) = fit.other {
                likeness.decided_by = shown(self.model.telling(set, fit.best, other, TOLD), "");
            }
            if let Some(sibling) = fit.sibling {
                let mut told = shown(self.model.telling(set, fit.best, sibling, TOLD), "");
                let theirs = &self.bases.bases[self.model.base[sibling]].paths;
                let lacking = self.model.telling(&(theirs - set), sibling, fit.best, TOLD - told.len());
                told.extend(shown(lacking, "!"));
                likeness.version_decided_by = told;
            }
        }
        ByPaths { published, likeness }
    }

    fn likeness(&self, tally: &Tally) -> (Likeness, Option<Fit>) {
        let fit = fit(&self.model, tally, &self.calibration.family);
        let own = tally.total - self.model.artefacts_in(tally);
        let mut answer = Likeness {
            family: None,
            version: None,
            confidence: 0.0,
            version_confidence: 0.0,
            nearest: None,
            coverage: 0.0,
            runner_up: None,
            margin: 0.0,
            version_runner_up: None,
            version_margin: 0.0,
            abstained: Some(Abstention::NoPaths),
            decided_by: Vec::new(),
            version_decided_by: Vec::new(),
        };
        let Some(fit) = fit.filter(|_| own > 0) else { return (answer, None) };
        let name = |lane: usize| self.name(lane).to_owned();
        answer.confidence = self.calibration.family(&fit);
        answer.version_confidence = self.calibration.version(&fit);
        answer.nearest = Some(name(fit.best));
        answer.coverage = fit.coverage;
        answer.runner_up = fit.other.map(name);
        answer.margin = fit.margin;
        answer.version_runner_up = fit.sibling.map(name);
        answer.version_margin = fit.version_margin;
        answer.abstained = Some(Abstention::Unlike);
        if answer.confidence >= self.calibration.family_threshold {
            let base = &self.bases.bases[self.model.base[fit.best]];
            answer.family = Some(base.family.clone());
            answer.abstained = Some(Abstention::Version);
            if answer.version_confidence >= self.calibration.version_threshold {
                answer.version = Some(base.version.clone());
                answer.abstained = None;
            }
        }
        (answer, Some(fit))
    }
}

#[cfg(test)]
mod tests;
