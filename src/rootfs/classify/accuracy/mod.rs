//! How right the answers from path sets are, on images whose base is known.
//!
//! Images are made from the bases themselves ([`Kind`]), reproducibly by a seed. They are of two parts
//! that share neither a base nor a package: on the *tuning* part the confidence is fitted, on the
//! *report* part everything is measured. The classifier always knows all bases, but for the images of
//! an unknown family or version: there it is not told of these.
//!
//! The classifier knows the names of distributions from a list ([`crate::rootfs::bases::signs`]), also of
//! those that the database does not hold. A family that is in no list is the harder case. It is measured
//! beside the others, on the same images, with the name of the family struck from the list
//! ([`Accuracy::unlisted`]), and is part of the tuning.
//!
//! # What counts as right
//!
//! *Family*: the answer is the family of the base that the image was made from; for images without a
//! base or on an unknown family, that there is no answer. Abstaining where there is a base is not
//! right. An image mixed of two bases is on the lower one, of which all is there; of the other a part was
//! copied on it, and nothing that was copied makes it an image of that family. *Version*: the answer is the base's version, exactly, even where another has the same or
//! nearly the same paths; on an unknown version every answer is wrong and abstaining is right.

mod draw;
mod image;
mod packages;

pub use image::{Kind, Made, Workshop};
pub use packages::{Package, Packages};

use super::choice::{Choice, Sample as Chosen};
use super::features::{candidates, fit, version};
use super::{Calibration, Classifier, Logistic};
use crate::rootfs::bases::Bases;
use rayon::prelude::*;
use roaring::RoaringBitmap;
use serde::Serialize;

/// What to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Of all draws.
    pub seed: u64,
    /// Number of images in the report part, besides the pure bases.
    pub images: u64,
    /// Number of images in the tuning part.
    pub tuning: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { seed: 1, images: 12_000, tuning: 12_000 }
    }
}

/// Counts over the images of one kind, or of all.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Row {
    /// `all`, or the kind.
    pub kind: String,
    /// Number of images.
    pub images: u64,
    /// By likeness: family right.
    pub family_right: u64,
    /// A family was answered, and it is wrong.
    pub family_wrong: u64,
    /// No answer, though there is a base in the database.
    pub family_abstained: u64,
    /// Wrong families with a confidence above 0.95.
    pub confidently_wrong: u64,
    /// Images whose version is in the database.
    pub versions: u64,
    /// Of these, without an answer for the version.
    pub version_abstained: u64,
    /// Answers for the version, on all images.
    pub version_answered: u64,
    /// Of these, right.
    pub version_right: u64,
    /// As published: family right.
    pub published_family_right: u64,
    /// As published: version right, on images whose version is in the database.
    pub published_version_right: u64,
}

impl Row {
    fn add(&mut self, outcome: &Outcome) {
        let count = |n: &mut u64, yes: bool| *n += u64::from(yes);
        self.images += 1;
        let &Outcome { has_family, has_version, family, version, .. } = outcome;
        count(&mut self.family_right, family.map_or(!has_family, |right| right));
        count(&mut self.family_wrong, family == Some(false));
        count(&mut self.family_abstained, has_family && family.is_none());
        count(&mut self.confidently_wrong, family == Some(false) && outcome.confidence > 0.95);
        count(&mut self.versions, has_version);
        count(&mut self.version_abstained, has_version && version.is_none());
        count(&mut self.version_answered, version.is_some());
        count(&mut self.version_right, version == Some(true));
        count(&mut self.published_family_right, outcome.published_family);
        count(&mut self.published_version_right, outcome.published_version);
    }
}

/// Answers by confidence: how often are they right?
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Bin {
    /// Confidence at least.
    pub from: f64,
    /// Confidence below (at most 1).
    pub to: f64,
    /// Families with such a confidence.
    pub families: u64,
    /// Of these, right.
    pub families_right: u64,
    /// Versions with such a confidence.
    pub versions: u64,
    /// Of these, right.
    pub versions_right: u64,
}

/// A goal, and what was reached.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Goal {
    /// In words.
    pub goal: &'static str,
    /// What was measured.
    pub reached: f64,
    /// True if it is met.
    pub met: bool,
}

/// What was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Accuracy {
    /// `accuracy`.
    pub kind: &'static str,
    /// The seed.
    pub seed: u64,
    /// Where the added packages are from.
    pub packages: String,
    /// Images in the tuning part.
    pub tuning_images: u64,
    /// Bases in the tuning part; the others are in the report part.
    pub tuning_bases: Vec<String>,
    /// Fitted on the tuning part, used on the report part.
    pub calibration: Calibration,
    /// The report part: all images first, then by kind.
    pub rows: Vec<Row>,
    /// The images on an unknown family again, with its name unknown, too. Not part of all.
    pub unlisted: Row,
    /// The report part by confidence.
    pub confidence: Vec<Bin>,
    /// The goals.
    pub goals: Vec<Goal>,
    /// Wrong families, and images without an answer that have a base; the first thousand.
    pub failures: Vec<Failure>,
    /// The same for [`Accuracy::unlisted`].
    pub unlisted_failures: Vec<Failure>,
    /// Names of pairs of bases of which one has all paths of the other: not told apart if paths were
    /// added or removed.
    pub contained: Vec<(String, String)>,
}

/// An image of the report part whose family was not found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Failure {
    /// How it was made.
    pub kind: Kind,
    /// Its number: the same seed makes it again.
    pub number: u64,
    /// The base it was made from.
    pub base: String,
    /// The base that fits best.
    pub nearest: String,
    /// Confidence in its family.
    pub confidence: f64,
    /// The features, as given to the calibration.
    pub features: Vec<f64>,
}

#[derive(Clone)]
struct Outcome {
    failure: Option<(usize, Vec<f64>)>,
    has_family: bool,
    has_version: bool,
    family: Option<bool>,
    version: Option<bool>,
    confidence: f64,
    version_confidence: f64,
    published_family: bool,
    published_version: bool,
}

/// Makes images, fits the confidence on one part and measures on the other. `progress` is told how
/// many images are done.
pub fn measure(
    bases: &Bases,
    packages: &Packages,
    options: Options,
    progress: &(dyn Fn(u64) + Sync),
) -> Accuracy {
    let workshop = Workshop::new(bases, packages);
    let bench = Bench::new(bases);
    let done = std::sync::atomic::AtomicU64::new(0);
    let tick = || progress(done.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1);

    let tuning = plan(&workshop, 0, options.tuning);
    let samples: Vec<_> = tuning
        .par_iter()
        .map(|(kind, number)| {
            let made = workshop.make(*kind, 0, options.seed, *number);
            tick();
            bench.samples(&made)
        })
        .flatten_iter()
        .collect();
    let calibration = fit_calibration(&samples);

    let images = plan(&workshop, 1, options.images);
    let outcomes: Vec<_> = images
        .par_iter()
        .map(|(kind, number)| {
            let made = workshop.make(*kind, 1, options.seed, *number);
            tick();
            (*kind, *number, made.base, bench.outcome(&made, bench.classifier(&made), &calibration))
        })
        .collect();
    let mut unlisted = Row { kind: "unlisted-family".into(), ..Row::default() };
    let strangers: Vec<_> = images.iter().filter(|(kind, _)| *kind == Kind::UnknownFamily).collect();
    let again = strangers.par_iter().map(|(kind, number)| {
        let made = workshop.make(*kind, 1, options.seed, *number);
        (*kind, *number, made.base, bench.outcome(&made, &bench.unaware[made.base], &calibration))
    });
    let again: Vec<_> = again.collect();
    again.iter().for_each(|(.., outcome)| unlisted.add(outcome));
    let tuning_bases = (0..bases.bases.len()).filter(|b| workshop.side[*b] == 0);
    summarise(
        &outcomes,
        Accuracy {
            kind: "accuracy",
            seed: options.seed,
            packages: packages.source.clone(),
            tuning_images: tuning.len() as u64,
            tuning_bases: tuning_bases.map(|b| bases.bases[b].name.clone()).collect(),
            calibration,
            rows: Vec::new(),
            unlisted,
            confidence: Vec::new(),
            failures: failures(bases, &outcomes),
            unlisted_failures: failures(bases, &again),
            goals: Vec::new(),
            contained: contained(bases),
        },
    )
}

/// The path sets of the first `count` images of the report part, for measuring speed.
pub fn sets(bases: &Bases, packages: &Packages, seed: u64, count: u64) -> Vec<RoaringBitmap> {
    let workshop = Workshop::new(bases, packages);
    let plan = plan(&workshop, 1, count);
    plan.par_iter().map(|(kind, number)| workshop.make(*kind, 1, seed, *number).set).collect()
}

/// Scores `count` path sets, the given ones again and again, on all threads: as published and by
/// likeness with its confidence. Returns how many got a family.
pub fn score_many(classifier: &Classifier<'_>, sets: &[RoaringBitmap], count: u64) -> u64 {
    let score = |tally: &mut super::Tally, i: u64| {
        let answer = classifier.score(&sets[i as usize % sets.len()], tally);
        u64::from(answer.likeness.family.is_some() && answer.published.is_some())
    };
    (0..count).into_par_iter().map_init(|| classifier.model.tally(), score).sum()
}

/// Kind and number of each image of a part.
fn plan(workshop: &Workshop<'_>, side: usize, images: u64) -> Vec<(Kind, u64)> {
    let pure = workshop.side.iter().filter(|s| **s == side).count() as u64;
    let parts: u64 = Kind::SHARES.iter().map(|(_, share)| share).sum();
    let count = |kind: Kind, share: u64| if kind == Kind::Pure { pure } else { images * share / parts };
    // The two parts draw from different numbers.
    let first = (side as u64) << 32;
    let of = |&(kind, share): &(Kind, u64)| {
        let offset = if kind == Kind::Pure { 0 } else { first };
        (0..count(kind, share)).map(move |i| (kind, offset + i))
    };
    Kind::SHARES.iter().flat_map(of).collect()
}

/// Classifiers that know all bases, all but a family, all but a base; and all but a family whose name
/// they do not know, either.
struct Bench<'a> {
    bases: &'a Bases,
    all: Classifier<'a>,
    without_family: Vec<Classifier<'a>>,
    without_base: Vec<Classifier<'a>>,
    unaware: Vec<Classifier<'a>>,
}

struct Sample {
    family: Option<Chosen>,
    version: Option<(Vec<f64>, bool)>,
}

impl<'a> Bench<'a> {
    fn new(bases: &'a Bases) -> Self {
        let family = |b: usize| bases.bases[b].family.as_str();
        let without = |leave: &dyn Fn(usize) -> bool| {
            Classifier::with(bases, Calibration::default(), |other| !leave(other))
        };
        let unaware = |b: usize| {
            Classifier::unaware(bases, Calibration::default(), family(b), |other| family(other) != family(b))
        };
        let every = 0..bases.bases.len();
        Self {
            bases,
            all: Classifier::new(bases, Calibration::default()),
            without_family: every
                .clone()
                .into_par_iter()
                .map(|b| without(&|other| family(other) == family(b)))
                .collect(),
            without_base: every.clone().into_par_iter().map(|b| without(&|other| other == b)).collect(),
            unaware: every.into_par_iter().map(unaware).collect(),
        }
    }

    fn classifier(&self, made: &Made) -> &Classifier<'a> {
        match made.kind {
            Kind::UnknownFamily => &self.without_family[made.base],
            Kind::UnknownVersion => &self.without_base[made.base],
            _ => &self.all,
        }
    }

    /// Are family and version of this base those of the image?
    fn right(&self, made: &Made, base: usize) -> (bool, bool) {
        let has_family = !matches!(made.kind, Kind::None | Kind::UnknownFamily);
        let family = has_family && self.bases.bases[base].family == self.bases.bases[made.base].family;
        (family, family && base == made.base)
    }

    /// What an image teaches; one on an unknown family twice, with its name known and unknown.
    fn samples(&self, made: &Made) -> Vec<Sample> {
        let mut samples = vec![self.sample(made, self.classifier(made))];
        if made.kind == Kind::UnknownFamily {
            samples.push(self.sample(made, &self.unaware[made.base]));
        }
        samples
    }

    fn sample(&self, made: &Made, classifier: &Classifier<'a>) -> Sample {
        let model = &classifier.model;
        let mut tally = model.tally();
        model.score(&made.set, &mut tally);
        if tally.total == 0 {
            return Sample { family: None, version: None };
        }
        let candidates = candidates(model, &tally);
        let right = candidates.iter().position(|c| self.right(made, model.base[c.lane]).0);
        let version = right.map(|at| {
            let lane = candidates[at].lane;
            (version(model, &tally, lane).to_vec(), self.right(made, model.base[lane]).1)
        });
        let candidates = candidates.iter().map(|c| c.features.to_vec()).collect();
        Sample { family: Some(Chosen { candidates, right }), version }
    }

    fn outcome(&self, made: &Made, classifier: &Classifier<'a>, calibration: &Calibration) -> Outcome {
        let mut tally = classifier.model.tally();
        classifier.model.score(&made.set, &mut tally);
        let fit = fit(&classifier.model, &tally, &calibration.family).filter(|_| tally.total > 0);
        let shared = &tally.shared_with[..classifier.model.len()];
        let published =
            super::published(tally.total, shared).map(|p| self.right(made, classifier.model.base[p.base]));
        let has_family = !matches!(made.kind, Kind::None | Kind::UnknownFamily);
        let mut outcome = Outcome {
            failure: None,
            has_family,
            has_version: has_family && made.kind != Kind::UnknownVersion,
            family: None,
            version: None,
            confidence: 0.0,
            version_confidence: 0.0,
            // Saying nothing of an image without a base is right, however it came about.
            published_family: published.map_or(!has_family, |(family, _)| family),
            published_version: published.is_some_and(|(_, version)| version),
        };
        if let Some(fit) = fit {
            let (family, version) = self.right(made, classifier.model.base[fit.best]);
            outcome.confidence = calibration.family(&fit);
            outcome.version_confidence = calibration.version(&fit);
            if outcome.confidence >= calibration.family_threshold {
                outcome.family = Some(family);
                if outcome.version_confidence >= calibration.version_threshold {
                    outcome.version = Some(version);
                }
            }
            if outcome.family.map_or(has_family, |right| !right) {
                outcome.failure = Some((classifier.model.base[fit.best], fit.family.to_vec()));
            }
        }
        outcome
    }
}

fn fit_calibration(samples: &[Sample]) -> Calibration {
    let family: Vec<_> = samples.iter().filter_map(|s| s.family.clone()).collect();
    let version: Vec<_> = samples.iter().filter_map(|s| s.version.clone()).collect();
    Calibration { family: Choice::fit(&family), version: Logistic::fit(&version), ..Calibration::default() }
}

fn summarise(outcomes: &[(Kind, u64, usize, Outcome)], mut accuracy: Accuracy) -> Accuracy {
    let mut all = Row { kind: "all".into(), ..Row::default() };
    let name = |kind: Kind| serde_json::to_value(kind).ok().and_then(|v| v.as_str().map(str::to_owned));
    let mut rows: Vec<_> = Kind::SHARES
        .iter()
        .map(|(kind, _)| (*kind, Row { kind: name(*kind).unwrap_or_default(), ..Row::default() }))
        .collect();
    let edges = [0.5, 0.8, 0.95, 0.99, 0.999, 1.0];
    let mut bins: Vec<_> = edges.windows(2).map(|e| Bin { from: e[0], to: e[1], ..Bin::default() }).collect();
    let bin_of = |p: f64| edges[1..edges.len() - 1].partition_point(|edge| *edge <= p);
    for (kind, _, _, outcome) in outcomes {
        all.add(outcome);
        if let Some((_, row)) = rows.iter_mut().find(|(k, _)| k == kind) {
            row.add(outcome);
        }
        if let Some(right) = outcome.family {
            let bin = &mut bins[bin_of(outcome.confidence)];
            bin.families += 1;
            bin.families_right += u64::from(right);
        }
        if let Some(right) = outcome.version {
            let bin = &mut bins[bin_of(outcome.version_confidence)];
            bin.versions += 1;
            bin.versions_right += u64::from(right);
        }
    }
    let share = |part: u64, whole: u64| part as f64 / whole.max(1) as f64;
    let (family, version) =
        (share(all.family_right, all.images), share(all.version_right, all.version_answered));
    let abstained = share(all.version_abstained, all.versions);
    accuracy.goals = vec![
        Goal { goal: "family right: at least 99.5 %", reached: family, met: family >= 0.995 },
        Goal {
            goal: "version right: at least 95 % of those answered",
            reached: version,
            met: version >= 0.95,
        },
        Goal { goal: "version not answered: at most 10 %", reached: abstained, met: abstained <= 0.1 },
        Goal {
            goal: "wrong families above 0.95 confidence: none",
            reached: all.confidently_wrong as f64,
            met: all.confidently_wrong == 0,
        },
    ];
    accuracy.rows = std::iter::once(all).chain(rows.into_iter().map(|(_, row)| row)).collect();
    accuracy.confidence = bins;
    accuracy
}

fn failures(bases: &Bases, outcomes: &[(Kind, u64, usize, Outcome)]) -> Vec<Failure> {
    let name = |b: usize| bases.bases[b].name.clone();
    let failed = outcomes.iter().filter_map(|(kind, number, base, outcome)| {
        let (nearest, features) = outcome.failure.clone()?;
        let (base, nearest, confidence) = (name(*base), name(nearest), outcome.confidence);
        Some(Failure { kind: *kind, number: *number, base, nearest, confidence, features })
    });
    failed.take(1000).collect()
}

/// Pairs of bases of which the second has all paths of the first.
fn contained(bases: &Bases) -> Vec<(String, String)> {
    let all = &bases.bases;
    let pairs = all.iter().flat_map(|a| all.iter().map(move |b| (a, b)));
    pairs
        .filter(|(a, b)| a.name != b.name && a.paths.is_subset(&b.paths))
        .map(|(a, b)| (a.name.clone(), b.name.clone()))
        .collect()
}
