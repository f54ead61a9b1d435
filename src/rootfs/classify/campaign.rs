//! What a campaign found: the three answers of every image, and how they compare.

use super::joined::NOT_READ;
use super::{ByPaths, Classifier, Evidence, Likeness};
use crate::corpus::Corpus;
use crate::rootfs::bases::{
    ChainIndex, Record, family_and_version, manifests_of_configs, repository_and_tag,
};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The published score with names instead of indexes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PublishedAnswer {
    /// Name of the winning base.
    pub base: String,
    /// Its family.
    pub family: String,
    /// Its version.
    pub version: String,
    /// |S ∩ B| / |S|.
    pub score: f64,
    /// |S ∩ B|.
    pub shared: u32,
    /// |S|.
    pub paths: u32,
    /// Other bases with the same score.
    pub ties: Vec<String>,
}

/// The three answers for one image.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Answer {
    /// The image.
    pub image: String,
    /// As published; none without paths.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub published: Option<PublishedAnswer>,
    /// By evidence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Evidence>,
    /// By likeness; none where no paths were read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub likeness: Option<Likeness>,
    /// Why an answer is missing that could have been there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// Note of an image none of whose layers have content.
pub const NOTHING_INSIDE: &str = "no layer with content in its config";
/// Note of an image whose lowest layer is not that of a known base.
pub const UNKNOWN_ROOT: &str = "its lowest layer is not that of a known base";
/// Note of an image without any path that a base has.
pub const NO_PATHS: &str = "none of its paths is in any base: the published score divides by zero";

impl Answer {
    /// No answer yet for this image.
    pub fn of(image: String) -> Self {
        Self { image, published: None, evidence: None, likeness: None, notes: Vec::new() }
    }

    /// Puts names to the answers by paths.
    pub fn by_paths(image: String, classifier: &Classifier<'_>, found: ByPaths) -> Self {
        let base = |lane: usize| &classifier.bases.bases[classifier.model.base[lane]];
        let published = found.published.map(|p| PublishedAnswer {
            base: base(p.base).name.clone(),
            family: base(p.base).family.clone(),
            version: base(p.base).version.clone(),
            score: p.score,
            shared: p.shared,
            paths: p.paths,
            ties: p.ties.iter().filter(|t| **t != p.base).map(|t| base(*t).name.clone()).collect(),
        });
        let notes = if published.is_none() { vec![NO_PATHS.to_owned()] } else { Vec::new() };
        Self { image, published, evidence: None, likeness: Some(found.likeness), notes }
    }
}

/// The answers by evidence for every config of a corpus, in corpus order.
pub fn by_evidence(corpus: &Corpus, chains: &ChainIndex<'_>) -> Vec<Answer> {
    let manifests = manifests_of_configs(corpus);
    let answer = |config: usize| {
        let record = Record::of_corpus(corpus, config, manifests[config].map(|m| m as usize));
        let repository = corpus.repositories.get(corpus.configs.repository[config]);
        let image = format!("{repository}:{}", corpus.tags.get(corpus.configs.tag[config]));
        let evidence = chains.evidence(&record);
        let note = match &evidence {
            Some(_) => None,
            None if record.has_content() => Some(UNKNOWN_ROOT),
            None => Some(NOTHING_INSIDE),
        };
        let notes = note.map(str::to_owned).into_iter().collect();
        Answer { image, published: None, evidence, likeness: None, notes }
    };
    (0..corpus.config_count()).into_par_iter().map(answer).collect()
}

/// An entry of the study's `container-guts-image-bases.json`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct StudyEntry {
    /// `docker.io/library/debian:12`.
    pub base_image: String,
    /// |S ∩ B| / |S|.
    pub score: f64,
}

/// One image that the study classified and evidence decides.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// The image whose config was looked at: `latest`, else the first tag of the repository.
    pub image: String,
    /// What the study said.
    pub published: String,
    /// Its score.
    pub score: f64,
    /// What is proven.
    pub evidence: Evidence,
    /// True if the families agree.
    pub agrees: bool,
}

/// The study's families against evidence.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct StudyCheck {
    /// Repositories that the study classified.
    pub classified: usize,
    /// Of these, in this corpus.
    pub in_corpus: usize,
    /// Of these, decided by evidence.
    pub decided: usize,
    /// Of these, with a wrong published family.
    pub wrong: usize,
    /// Proven family, published family, images.
    pub confusion: Vec<(String, String, u64)>,
    /// Image by image.
    pub images: Vec<Comparison>,
}

impl StudyCheck {
    /// Compares the study's answers (repository to entry) with evidence from layers; annotations do
    /// not count. `answers` are those of [`by_evidence`].
    pub fn new(study: &BTreeMap<String, StudyEntry>, answers: &[Answer]) -> Self {
        let mut of_repository: BTreeMap<&str, &Answer> = BTreeMap::new();
        for answer in answers {
            let (repository, tag) = repository_and_tag(&answer.image);
            let known = of_repository.entry(repository).or_insert(answer);
            if tag == Some("latest") {
                *known = answer;
            }
        }
        let mut check = Self { classified: study.len(), ..Self::default() };
        let mut confusion: BTreeMap<(String, String), u64> = BTreeMap::new();
        for (repository, entry) in study {
            let Some(answer) = of_repository.get(repository.as_str()) else { continue };
            check.in_corpus += 1;
            let Some(evidence) = answer.evidence.as_ref().filter(|e| e.is_proof()) else { continue };
            let (family, _) = family_and_version(&entry.base_image);
            let agrees = family == evidence.family;
            check.decided += 1;
            check.wrong += usize::from(!agrees);
            *confusion.entry((evidence.family.clone(), family)).or_default() += 1;
            check.images.push(Comparison {
                image: answer.image.clone(),
                published: entry.base_image.clone(),
                score: entry.score,
                evidence: evidence.clone(),
                agrees,
            });
        }
        check.confusion = confusion.into_iter().map(|((a, b), n)| (a, b, n)).collect();
        check
    }
}

/// What the answers of a campaign amount to.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Summary {
    /// Images.
    pub images: u64,
    /// Images with an answer: as published, by evidence, by likeness.
    pub answered: [u64; 3],
    /// Images of each family and version, by the same three.
    pub bases: BTreeMap<String, BTreeMap<String, [u64; 3]>>,
    /// Published scores in tenths: 0 to below 0.1, ..., 0.9 to below 1, 1.
    pub published_scores: [u64; 11],
    /// Confidence in the family in tenths, likewise (1: above 0.9995).
    pub confidences: [u64; 11],
    /// Published scores with a tie.
    pub ties: u64,
    /// Families by evidence, as published, images.
    pub evidence_and_published: Vec<(String, String, u64)>,
    /// Families by evidence, by likeness, images.
    pub evidence_and_likeness: Vec<(String, String, u64)>,
    /// Families by likeness, as published, images.
    pub likeness_and_published: Vec<(String, String, u64)>,
    /// Images with all three answers: all agree on the family, only the published one differs, only
    /// evidence differs, only likeness differs, all differ.
    pub agreement: [u64; 5],
    /// By what evidence, and whether a whole chain was found: images.
    pub evidence: BTreeMap<String, u64>,
    /// Why images have no answer, or no whole one.
    pub unanswered: BTreeMap<String, u64>,
}

/// Stands for "no answer" in a confusion table.
pub const NO_ANSWER: &str = "(none)";
/// Stands for a version that is not answered.
pub const NO_VERSION: &str = "?";

impl Summary {
    /// Sums up the answers.
    pub fn new(answers: &[Answer]) -> Self {
        let mut summary = Self { images: answers.len() as u64, ..Self::default() };
        let mut pairs: [BTreeMap<(String, String), u64>; 3] = Default::default();
        for answer in answers {
            let published = answer.published.as_ref().map(|p| (&p.family, Some(&p.version)));
            let evidence = answer.evidence.as_ref().map(|e| (&e.family, e.version.as_ref()));
            let likeness = answer.likeness.as_ref();
            let by_likeness = likeness.and_then(|l| Some((l.family.as_ref()?, l.version.as_ref())));
            for (i, found) in [published, evidence, by_likeness].into_iter().enumerate() {
                let Some((family, version)) = found else { continue };
                summary.answered[i] += 1;
                let version = version.map_or(NO_VERSION, |v| v);
                let family = summary.bases.entry(family.clone()).or_default();
                family.entry(version.to_owned()).or_default()[i] += 1;
            }
            if let (Some((p, _)), Some((e, _)), Some((l, _))) = (published, evidence, by_likeness) {
                let how = match (e == l, p == l, p == e) {
                    (true, true, _) => 0,
                    (true, ..) => 1,
                    (_, true, _) => 2,
                    (.., true) => 3,
                    _ => 4,
                };
                summary.agreement[how] += 1;
            }
            let name = |found: Option<(&String, Option<&String>)>| {
                found.map_or(NO_ANSWER, |(family, _)| family).to_owned()
            };
            let mut pair = |i: usize, a, b| *pairs[i].entry((name(a), name(b))).or_default() += 1;
            if answer.likeness.is_some() {
                if answer.evidence.is_some() {
                    pair(0, evidence, published);
                    pair(1, evidence, by_likeness);
                }
                pair(2, by_likeness, published);
            }
            summary.note(answer);
        }
        let listed = pairs.map(|map| map.into_iter().map(|((a, b), n)| (a, b, n)).collect());
        [summary.evidence_and_published, summary.evidence_and_likeness, summary.likeness_and_published] =
            listed;
        summary
    }

    fn note(&mut self, answer: &Answer) {
        if let Some(published) = &answer.published {
            self.published_scores[(published.score * 10.0).floor().clamp(0.0, 10.0) as usize] += 1;
            self.ties += u64::from(!published.ties.is_empty());
        }
        if let Some(likeness) = &answer.likeness {
            let confidence = likeness.confidence;
            let tenth =
                if confidence > 0.9995 { 10 } else { (confidence * 10.0).floor().clamp(0.0, 9.0) as usize };
            self.confidences[tenth] += 1;
            if let Some(why) = likeness.abstained {
                let why = match why {
                    super::Abstention::NoPaths => "likeness: no path of any base",
                    super::Abstention::Unlike => "likeness: not enough like any base",
                    super::Abstention::Version => "likeness: family clear, version not",
                };
                *self.unanswered.entry(why.to_owned()).or_default() += 1;
            }
        }
        if let Some(evidence) = &answer.evidence {
            *self.evidence.entry(evidence.describe()).or_default() += 1;
        }
        for note in &answer.notes {
            // Reasons name layers and hosts; that there was one is what is counted.
            let kind = if note.starts_with(NOT_READ) { NOT_READ } else { note };
            *self.unanswered.entry(kind.to_owned()).or_default() += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rootfs::bases::ChainKind;

    fn evidence(family: &str, kind: ChainKind) -> Evidence {
        Evidence {
            kind,
            family: family.into(),
            version: Some("1".into()),
            whole: true,
            shared: 1,
            length: 1,
            names: vec![],
        }
    }

    fn answer(image: &str, evidence: Option<Evidence>) -> Answer {
        Answer { image: image.into(), published: None, evidence, likeness: None, notes: vec![] }
    }

    #[test]
    fn the_study_is_compared_by_latest_or_first_tag() {
        let answers = [
            answer("a:1", None),
            answer("a:latest", Some(evidence("ubuntu", ChainKind::DiffIds))),
            answer("a:3", None),
            answer("b:1", Some(evidence("alpine", ChainKind::LayerDigests))),
            answer("b:2", None),
            answer("c:1", Some(evidence("alpine", ChainKind::Annotation))),
            answer("d:1", None),
        ];
        let entry = |base: &str| StudyEntry { base_image: format!("docker.io/library/{base}"), score: 0.5 };
        let study = ["a", "b", "c", "d", "e"].map(|name| (name.to_owned(), entry("alpine:3.19")));
        let check = StudyCheck::new(&study.into_iter().collect(), &answers);
        assert_eq!((check.classified, check.in_corpus, check.decided, check.wrong), (5, 4, 2, 1));
        let pair = |a: &str, b: &str, n| (a.to_owned(), b.to_owned(), n);
        assert_eq!(check.confusion, [pair("alpine", "alpine", 1), pair("ubuntu", "alpine", 1)]);
        let summary = Summary::new(&answers);
        assert_eq!((summary.images, summary.answered), (7, [0, 3, 0]));
        assert_eq!(summary.bases["alpine"]["1"], [0, 2, 0]);
    }
}
