//! What the confidence of an answer is computed from.

use super::cluster::Kind;
use super::model::{Model, NAT, Tally};

/// Number of family features.
pub const FAMILY: usize = 10;
/// Number of version features.
pub const VERSION: usize = 9;

/// Nats for each unit of log-odds of a base's brand, when families are chosen.
pub const BRAND: f64 = 6.0;

/// The best bases for a path set, and how well it fits.
#[derive(Debug, Clone, PartialEq)]
pub struct Fit {
    /// Lane (index in [`Model::base`]) of the best base.
    pub best: usize,
    /// Best base of another family.
    pub other: Option<usize>,
    /// Second-best base of the same family.
    pub sibling: Option<usize>,
    /// Nats between the best base and `other`.
    pub margin: f64,
    /// Nats between the best base and `sibling`.
    pub version_margin: f64,
    /// Share of the best base's core paths that the image has.
    pub coverage: f64,
    /// Each grows with the odds that the family is right.
    pub family: [f64; FAMILY],
    /// Each grows with the odds that the version is right, given that the family is.
    pub version: [f64; VERSION],
}

/// Log-odds of a share, softened so that 0 and 1 are finite.
fn odds(share: f64) -> f64 {
    ((share + 0.02) / (1.02 - share)).ln()
}

/// A share of few things, drawn towards a half.
fn share(part: u32, whole: u32) -> f64 {
    (f64::from(part) + 0.5) / (f64::from(whole) + 1.0)
}

fn ratio(part: u32, whole: u32) -> f64 {
    f64::from(part) / f64::from(whole.max(1))
}

/// A count of paths that a base could have, and how many of them the image has.
#[derive(Default, Clone, Copy)]
struct Count {
    present: u32,
    of: u32,
}

impl Count {
    fn add(&mut self, present: u32, of: u32) {
        self.present += present;
        self.of += of;
    }
}

/// For each base how much of its brand is there.
fn brands(model: &Model, tally: &Tally) -> Vec<Count> {
    let mut brands = vec![Count::default(); model.len()];
    for (i, block) in model.blocks.iter().enumerate().filter(|(_, block)| block.brand != u16::MAX) {
        for (lane, brand) in brands.iter_mut().enumerate() {
            if model.family[lane] == usize::from(block.brand) && model.has(i, lane) {
                brand.add(tally.block[i], block.size);
            }
        }
    }
    brands
}

/// Weighs a scored tally. `None` if the model has no base.
///
/// Ties go to the lower lane, that is the first by name.
pub fn fit(model: &Model, tally: &Tally) -> Option<Fit> {
    let brands = brands(model, tally);
    let bonus =
        |b: &Count| if b.of == 0 { 0 } else { (BRAND * NAT * odds(share(b.present, b.of))).round() as i64 };
    let named: Vec<i64> =
        brands.iter().zip(&tally.score).map(|(brand, score)| score + bonus(brand)).collect();
    let first = |score: &[i64], lanes: &mut dyn Iterator<Item = usize>| {
        lanes.max_by_key(|lane| (score[*lane], std::cmp::Reverse(*lane)))
    };
    let all = 0..model.len();
    let family = model.family[first(&named, &mut all.clone())?];
    let best = first(&tally.score, &mut all.clone().filter(|lane| model.family[*lane] == family))?;
    let other = first(&named, &mut all.clone().filter(|lane| model.family[*lane] != family));
    let sibling =
        first(&tally.score, &mut all.clone().filter(|lane| *lane != best && model.family[*lane] == family));
    let behind =
        |score: &[i64], to: Option<usize>| to.map_or(50.0, |to| (score[best] - score[to]) as f64 / NAT);
    let (margin, version_margin) = (behind(&named, other), behind(&tally.score, sibling));

    let mut others = vec![0u64; model.words];
    let mut siblings = vec![0u64; model.words];
    for lane in all {
        let to = match model.family[lane] == family {
            true if lane == best => continue,
            true => &mut siblings,
            false => &mut others,
        };
        to[lane / 64] |= 1 << (lane % 64);
    }
    let branded = brands[best];
    let [mut own, mut exclusive, mut only_this] = [Count::default(); 3];
    let [mut not_sibling, mut sibling_only] = [Count::default(); 2];
    let (mut siblings_present, mut family_present, mut strange) = (0, 0, 0);
    for (i, block) in model.blocks.iter().enumerate().filter(|(_, block)| block.core) {
        let (present, size) = (tally.block[i], block.size);
        let mask = &model.masks[i * model.words..][..model.words];
        let meets = |set: &[u64]| mask.iter().zip(set).any(|(a, b)| a & b != 0);
        let in_siblings = meets(&siblings);
        if model.has(i, best) {
            own.add(present, size);
            family_present += present;
            if !meets(&others) {
                exclusive.add(present, size);
            }
            if !in_siblings {
                only_this.add(present, size);
            }
            if sibling.is_some_and(|sibling| !model.has(i, sibling)) {
                not_sibling.add(present, size);
            }
        } else if in_siblings {
            family_present += present;
            siblings_present += present;
            if sibling.is_some_and(|sibling| model.has(i, sibling)) {
                sibling_only.add(present, size);
            }
        } else {
            strange += present;
        }
    }

    let (mut agreement, mut jaccard, mut clusters) = (0.0, 0.0, 0);
    let mut patchy = Count::default();
    for cluster in (0..model.kinds.len()).filter(|c| model.kinds[*c] == Kind::Core) {
        let count = model.counts[cluster * model.width + best];
        if count > 0 {
            let shared = tally.shared[cluster * model.width + best];
            clusters += 1;
            agreement += f64::from(shared) / f64::from(count);
            jaccard += f64::from(shared) / f64::from(count + tally.paths[cluster] - shared);
            if shared > 0 {
                patchy.add((count - shared) as u32, count as u32);
            }
        }
    }
    let clusters = f64::from(clusters.max(1));
    let (agreement, jaccard) = (agreement / clusters, jaccard / clusters);
    let coverage = ratio(own.present, own.of);
    let hole = ratio(patchy.present, patchy.of);
    let brand = odds(share(branded.present, branded.of));
    let signed = branded.of == 0 || share(branded.present, branded.of) > 0.25;
    Some(Fit {
        best,
        other,
        sibling,
        margin,
        version_margin,
        coverage,
        family: [
            margin.max(0.0).ln_1p(),
            odds(coverage),
            odds(ratio(exclusive.present, exclusive.of)),
            odds(agreement),
            odds(jaccard),
            if branded.of > 0 { brand } else { odds(agreement) },
            if branded.of > 0 { brand.min(odds(jaccard)) } else { odds(jaccard) },
            f64::from(u8::from(signed)),
            -ratio(strange, family_present).ln_1p(),
            -(hole + 0.003).ln(),
        ],
        version: [
            version_margin.max(0.0).ln_1p(),
            -(hole + 0.0005).ln(),
            -f64::from(patchy.present).ln_1p(),
            odds(share(only_this.present, only_this.of)),
            odds(share(not_sibling.present, not_sibling.of)),
            -odds(share(sibling_only.present, sibling_only.of)),
            -f64::from(siblings_present).ln_1p(),
            odds(agreement),
            odds(coverage),
        ],
    })
}
