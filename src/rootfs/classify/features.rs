//! What the confidence of an answer is computed from.

use super::choice::Choice;
use super::cluster::Kind;
use super::model::{Model, NAT, NO_SIGN, Tally};
use crate::rootfs::bases::signs;

/// Number of family features.
pub const FAMILY: usize = 7;
/// Number of version features.
pub const VERSION: usize = 9;

/// Below this share of its nearest base's core paths an image that another distribution signs, too, is
/// contested; and below this share of those in the directories that are there, one that only a keyring signs.
const NEARLY_WHOLE: f64 = 0.975;

/// A family and how well it fits: its best base, and what speaks for it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// Index in [`Model::families`].
    pub family: usize,
    /// Lane (index in [`Model::base`]) of its most likely base; ties go to the lower lane.
    pub lane: usize,
    /// Share of that base's core paths that the image has.
    pub coverage: f64,
    /// Another distribution signs the image, too, and the base is not nearly whole; or the family's own
    /// signs it with no more than a keyring, and the directories that are there are not nearly whole.
    pub contested: bool,
    /// Each grows with the odds that the family is right:
    ///
    /// 0. log-odds of the share that is there of the core paths that all bases of the family have;
    /// 1. minus the logarithm of the places where another distribution signs (1 + the most of one);
    /// 2. the logarithm of the places where this distribution signs and no other known family is signed;
    /// 3. log-odds of their share in the base of which most are there;
    /// 4. how whole the directories are of which something is there (minus the logarithm of the rest);
    /// 5. how whole the base is, likewise;
    /// 6. minus the logarithm of 1 + core paths of other families for each one of this.
    pub features: [f64; FAMILY],
}

/// The best bases for a path set, and how well they fit.
#[derive(Debug, Clone, PartialEq)]
pub struct Fit {
    /// Lane of the best base.
    pub best: usize,
    /// Best base of another family.
    pub other: Option<usize>,
    /// Second-best base of the same family.
    pub sibling: Option<usize>,
    /// Log-odds, in nats, between the best base's family and that of `other`.
    pub margin: f64,
    /// Nats between the best base and `sibling`.
    pub version_margin: f64,
    /// Share of the best base's core paths that the image has.
    pub coverage: f64,
    /// Probability of the best base's family, before any cap.
    pub probability: f64,
    /// [`Candidate::contested`], or a base of another family is there as wholly: of what it has and the
    /// best base has not, at least as large a share as the other way round, or nearly all.
    pub contested: bool,
    /// Features of the best base's family.
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

/// Counts of a family.
#[derive(Default, Clone, Copy)]
struct Counts {
    every: u32,
    own: u32,
    strange: u32,
    covered: u32,
    signs: u32,
    keyrings: u32,
    patchy: Count,
}

/// Every family of the model with its most likely base, in the order of [`Model::families`].
pub fn candidates(model: &Model, tally: &Tally) -> Vec<Candidate> {
    let families = model.families.len();
    let mut lanes: Vec<Option<usize>> = vec![None; families];
    for (lane, family) in model.family.iter().enumerate() {
        let best = &mut lanes[*family];
        if best.is_none_or(|best| tally.score[lane] > tally.score[best]) {
            *best = Some(lane);
        }
    }
    let lanes: Vec<usize> = lanes.into_iter().flatten().collect();
    let mut counts = vec![Counts::default(); families];
    let mut foreign = vec![0u32; families * signs::COUNT];
    let mut signed = vec![0u32; model.len()];
    for &i in &tally.touched_blocks {
        let i = i as usize;
        let (block, present) = (&model.blocks[i], tally.block[i]);
        if block.sign != NO_SIGN {
            for (family, count) in counts.iter_mut().enumerate() {
                let own = model.distribution[family] == Some(block.sign);
                if own && !model.in_another_family(i, family) {
                    count.signs += present;
                    count.keyrings += if block.keyring { present } else { 0 };
                } else if !own && !model.in_family(i, family) {
                    foreign[family * signs::COUNT + usize::from(block.sign)] += present;
                }
            }
            for (lane, signed) in signed.iter_mut().enumerate() {
                *signed += if model.signs(i, lane) { present } else { 0 };
            }
        }
        if block.core {
            for (family, count) in counts.iter_mut().enumerate() {
                if !model.in_family(i, family) {
                    count.strange += present;
                    continue;
                }
                count.own += present;
                count.every += if model.in_every(i, family) { present } else { 0 };
                count.covered += if model.has(i, lanes[family]) { present } else { 0 };
            }
        }
    }
    for &cluster in tally.touched.iter().filter(|c| model.kinds[**c as usize] == Kind::Core) {
        let row = cluster as usize * model.width;
        for (count, lane) in counts.iter_mut().zip(&lanes) {
            let (of, shared) = (model.counts[row + lane], tally.shared[row + lane]);
            if shared > 0 {
                count.patchy.present += (of - shared) as u32;
                count.patchy.of += of as u32;
            }
        }
    }
    let weigh = |(family, count): (usize, &Counts)| {
        let lane = lanes[family];
        let theirs = foreign[family * signs::COUNT..][..signs::COUNT].iter().max().copied().unwrap_or(0);
        let coverage = ratio(count.covered, model.totals.core[lane]);
        let signed_share = (0..model.len())
            .filter(|lane| model.family[*lane] == family && model.totals.signs[*lane] > 0)
            .map(|lane| share(signed[lane], model.totals.signs[lane]))
            .reduce(f64::max);
        let holes = ratio(count.patchy.present, count.patchy.of);
        // A relative that is in no list has most of the paths, and can have the keyring installed.
        let nameless = model.distribution[family].is_some() && count.signs == count.keyrings;
        Candidate {
            family,
            lane,
            coverage,
            contested: theirs > 0 && coverage < NEARLY_WHOLE || nameless && 1.0 - holes < NEARLY_WHOLE,
            features: [
                odds(ratio(count.every, model.totals.every[family])),
                -f64::from(theirs).ln_1p(),
                f64::from(count.signs).ln_1p(),
                signed_share.map_or(0.0, odds),
                -(holes + 0.003).ln(),
                -(1.003 - coverage).ln(),
                -ratio(count.strange, count.own).ln_1p(),
            ],
        }
    };
    counts.iter().enumerate().map(weigh).collect()
}

/// Weighs a scored tally. `None` if the model has no base.
///
/// Ties go to the family, and the lane, that is first by name.
pub fn fit(model: &Model, tally: &Tally, choice: &Choice) -> Option<Fit> {
    let candidates = candidates(model, tally);
    let utility: Vec<f64> = candidates.iter().map(|c| choice.utility(&c.features)).collect();
    let first = |of: &mut dyn Iterator<Item = usize>| {
        of.reduce(|best, next| if utility[next] > utility[best] { next } else { best })
    };
    let at = first(&mut (0..candidates.len()))?;
    let best = candidates[at];
    let second = first(&mut (0..candidates.len()).filter(|c| *c != at));
    let sibling = sibling(model, tally, best.lane);
    let behind = sibling.map_or(50.0, |to| (tally.score[best.lane] - tally.score[to]) as f64 / NAT);
    Some(Fit {
        best: best.lane,
        other: second.map(|c| candidates[c].lane),
        sibling,
        margin: second.map_or(50.0, |c| utility[at] - utility[c]),
        version_margin: behind,
        coverage: best.coverage,
        probability: choice.probability(&utility, at),
        contested: best.contested || is_rivalled(model, tally, best.lane),
        family: best.features,
        version: version(model, tally, best.lane),
    })
}

/// True if a base of another family is there as wholly as this one, by the core paths that only one of
/// the two has.
fn is_rivalled(model: &Model, tally: &Tally, best: usize) -> bool {
    let core = || {
        let blocks = tally.touched_blocks.iter().map(|i| *i as usize);
        blocks.filter(|i| model.blocks[*i].core).map(|i| (i, tally.block[i]))
    };
    let others = || (0..model.len()).filter(|lane| model.family[*lane] != model.family[best]);
    let mut theirs = vec![0; model.len()];
    for (i, present) in core().filter(|(i, _)| !model.has(*i, best)) {
        others().filter(|lane| model.has(i, *lane)).for_each(|lane| theirs[lane] += present);
    }
    let apart = |a: usize, b: usize| model.totals.apart[a * model.len() + b];
    let there = |lane: usize| share(theirs[lane], apart(lane, best));
    let Some(rival) =
        others().filter(|lane| theirs[*lane] > 0).max_by(|a, b| there(*a).total_cmp(&there(*b)))
    else {
        return false;
    };
    let ours = core().filter(|(i, _)| model.has(*i, best) && !model.has(*i, rival)).map(|(_, n)| n).sum();
    there(rival) >= share(ours, apart(best, rival)).min(NEARLY_WHOLE)
}

/// The second-best base of a base's family.
fn sibling(model: &Model, tally: &Tally, best: usize) -> Option<usize> {
    let same = |lane: &usize| *lane != best && model.family[*lane] == model.family[best];
    (0..model.len()).filter(same).max_by_key(|lane| (tally.score[*lane], std::cmp::Reverse(*lane)))
}

/// The version features of a base.
pub fn version(model: &Model, tally: &Tally, best: usize) -> [f64; VERSION] {
    let sibling = sibling(model, tally, best);
    let family = model.family[best];
    let (mut only_this, mut not_sibling, mut sibling_only) = (0, 0, 0);
    let (mut siblings_present, mut covered) = (0, 0);
    for &i in &tally.touched_blocks {
        let i = i as usize;
        if !model.blocks[i].core || !model.in_family(i, family) {
            continue;
        }
        let present = tally.block[i];
        let in_sibling = sibling.is_some_and(|sibling| model.has(i, sibling));
        if model.has(i, best) {
            covered += present;
            only_this += if model.in_another_lane(i, best) { 0 } else { present };
            not_sibling += if sibling.is_some() && !in_sibling { present } else { 0 };
        } else {
            siblings_present += present;
            sibling_only += if in_sibling { present } else { 0 };
        }
    }
    let (mut agreement, mut patchy) = (0.0, Count::default());
    // In ascending order, so that the sum does not depend on the order of the set.
    let mut touched: Vec<_> = tally.touched.iter().map(|c| *c as usize).collect();
    touched.sort_unstable();
    for cluster in touched.into_iter().filter(|c| model.kinds[*c] == Kind::Core) {
        let count = model.counts[cluster * model.width + best];
        let shared = tally.shared[cluster * model.width + best];
        if shared > 0 {
            agreement += f64::from(shared) / f64::from(count);
            patchy.present += (count - shared) as u32;
            patchy.of += count as u32;
        }
    }
    let agreement = agreement / f64::from(model.totals.clusters[best].max(1));
    let hole = ratio(patchy.present, patchy.of);
    let behind = sibling.map_or(50.0, |to| (tally.score[best] - tally.score[to]) as f64 / NAT);
    let apart = |a: Option<usize>, b: Option<usize>| match (a, b) {
        (Some(a), Some(b)) => model.totals.apart[a * model.len() + b],
        _ => 0,
    };
    let coverage = ratio(covered, model.totals.core[best]);
    [
        behind.max(0.0).ln_1p(),
        -(hole + 0.0005).ln(),
        -f64::from(patchy.present).ln_1p(),
        odds(share(only_this, model.totals.only[best])),
        odds(share(not_sibling, apart(Some(best), sibling))),
        -odds(share(sibling_only, apart(sibling, Some(best)))),
        -f64::from(siblings_present).ln_1p(),
        odds(agreement),
        odds(coverage),
    ]
}
