//! The three answers side by side: every image of a campaign with its path set, its layers and its
//! config at once.

use super::campaign::{NOTHING_INSIDE, UNKNOWN_ROOT};
use super::{Answer, ByPaths, Classifier};
use crate::rootfs::Universe;
use crate::rootfs::bases::{Bases, ChainIndex, Identities};
use crate::rootfs::results::Results;
use rayon::prelude::*;
use roaring::RoaringBitmap;

/// Note of an image without a path set, before the reason.
pub const NOT_READ: &str = "paths not read";
/// Note of an image of which a layer could not be read, so that its path set may lack some.
pub const LAYER_SKIPPED: &str = "a layer could not be read; its paths may lack some";
/// Note where the database has no chains.
pub const NO_CHAINS: &str = "the database has no layer chains: no answer by evidence";

/// A campaign that did not look for all paths of the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "{missing} of the {all} paths of the database were not looked for in this campaign; run `stratigraph \
     rootfs` again with --universe and this database (layers that were kept are not read again)"
)]
pub struct OtherUniverse {
    /// Paths of the database that are not in the campaign's universe.
    pub missing: usize,
    /// Paths of the database.
    pub all: usize,
}

/// From the ids of a campaign to those of a database.
struct Translation(Option<Vec<Option<u32>>>);

impl Translation {
    fn new(from: &Universe, to: &Universe) -> Result<Self, OtherUniverse> {
        if from == to {
            return Ok(Self(None));
        }
        let missing = to.iter().filter(|path| from.find(path).is_none()).count();
        if missing > 0 {
            return Err(OtherUniverse { missing, all: to.len() });
        }
        Ok(Self(Some(from.iter().map(|path| to.find(path)).collect())))
    }

    fn set(&self, set: &RoaringBitmap) -> RoaringBitmap {
        match &self.0 {
            None => set.clone(),
            Some(ids) => set.iter().filter_map(|id| ids[id as usize]).collect(),
        }
    }
}

/// The answers for all images of a campaign, in its order. Equal path sets are scored once.
///
/// # Errors
/// [`OtherUniverse`] if paths of the database were not looked for.
pub fn by_results(
    results: &Results,
    bases: &Bases,
    classifier: &Classifier<'_>,
    exported: bool,
) -> Result<Vec<Answer>, OtherUniverse> {
    let has_paths = !bases.bases.is_empty();
    let found: Vec<ByPaths> = if has_paths {
        let ids = Translation::new(&results.universe, &bases.universe)?;
        let classify = |tally: &mut super::Tally, set: &RoaringBitmap| {
            let mut set = ids.set(set);
            if exported {
                set = classifier.with_export_artefacts(&set);
            }
            classifier.classify(&set, tally)
        };
        results.sets.par_iter().map_init(|| classifier.model.tally(), classify).collect()
    } else {
        Vec::new()
    };
    let chains = ChainIndex::new(&bases.chains);
    let answer = |i: usize| {
        let image = &results.images[i];
        let mut answer = match &results.paths[i] {
            Ok(set) if has_paths => {
                Answer::by_paths(image.reference.clone(), classifier, found[*set as usize].clone())
            }
            Ok(_) => Answer::of(image.reference.clone()),
            Err(reason) => {
                Answer { notes: vec![format!("{NOT_READ}: {reason}")], ..Answer::of(image.reference.clone()) }
            }
        };
        if image.layers.iter().any(|layer| layer.unreadable.is_some()) {
            answer.notes.push(LAYER_SKIPPED.to_owned());
        }
        let identities = Identities::of(image);
        let record = identities.record();
        answer.evidence = chains.evidence(&record);
        let why = match &answer.evidence {
            Some(_) => None,
            // Of an image that was not read it is told already.
            None if !record.has_content() && results.paths[i].is_err() => None,
            None if !record.has_content() => Some(NOTHING_INSIDE),
            None if bases.chains.is_empty() => Some(NO_CHAINS),
            None => Some(UNKNOWN_ROOT),
        };
        answer.notes.extend(why.map(str::to_owned));
        answer
    };
    Ok((0..results.images.len()).into_par_iter().map(answer).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_a_larger_universe_are_translated_and_a_smaller_one_is_refused() {
        let universe =
            |paths: &[&str]| Universe::new(paths.iter().map(|path| path.as_bytes().to_vec()).collect());
        let (small, large) = (universe(&["b", "d"]), universe(&["a", "b", "c", "d"]));
        let ids = Translation::new(&large, &small).unwrap();
        assert_eq!(ids.set(&[0, 1, 3].into_iter().collect()), [0, 1].into_iter().collect());
        let refused = Translation::new(&small, &large).map(|_| ());
        assert_eq!(refused, Err(OtherUniverse { missing: 2, all: 4 }));
        let same = Translation::new(&small, &small).unwrap();
        assert_eq!(same.set(&[1].into_iter().collect()), [1].into_iter().collect());
    }
}
