//! The likeness of a path set to each base.
//!
//! # Method
//!
//! An image is its base, with paths added and paths removed. If these were independent, the evidence
//! of a path set for a base would be a sum over paths (naive Bayes). They are not: whole packages and
//! whole directories come and go. So the sum is over [clusters](super::cluster), and what one cluster
//! can say is bounded:
//!
//! - *Distance* of a cluster c to base B: `D = m * missing + a * extra`, where *missing* counts paths
//!   of B that the image has not, *extra* the reverse, and m and a are the costs of one (in nats, by
//!   the [kind](Kind) of the cluster: it is common to add programs and to remove documentation, rare
//!   to remove programs). A cluster of which nothing is left costs at most `gone`: it was removed as
//!   a whole.
//! - *Vote* of the cluster: `ln((1 - e) exp(-(D - min D)) + e)`, where the minimum is over all bases:
//!   with probability e the cluster comes from elsewhere, whatever the base. So a vote lies between 0
//!   and `ln e`, and eighteen hundred time zone files that `tzdata` adds weigh no more than one file of
//!   a cluster that nothing touches.
//!
//! The score of a base is the sum of the votes: a robust log-likelihood. Size of a base plays no
//! part: what a large base has and the image lacks counts against it.
//!
//! # Signs
//!
//! Close relatives (CentOS and Rocky Linux, Debian and Ubuntu) differ in little but the files by which
//! they sign ([`crate::rootfs::bases::signs`]). These are counted beside the score, also those that no base has: what
//! becomes of them is said in [`super::features`].
//!
//! # Arithmetic
//!
//! Costs are multiples of 1/20 nat and votes are rounded to 1/1024 nat, so that all sums are sums of
//! integers: the same for any order, vector width and machine. Paths that the same bases have in the
//! same cluster form a *block*; the kernel counts blocks (one increment for each path of the image),
//! adds the counts of a block to the row of its cluster (width = bases), and looks the votes up in a
//! table. Clusters of which an image has nothing are summed beforehand. For 46 bases that is about
//! 5,000 increments and 20,000 multiply-adds an image.

use super::cluster::{Clusters, Kind};
use crate::rootfs::bases::{Bases, EXPORT_ARTEFACTS, signs};
use roaring::RoaringBitmap;
use rustc_hash::FxHashMap;

/// Fixed-point units in one nat of a score.
pub const NAT: f64 = 1024.0;
/// Cost units in one nat.
const COST: f64 = 20.0;
/// Votes of distances beyond this many cost units are all the same, `ln e` to 1/1024.
const FARTHEST: usize = 320;
/// Bases in one row, padded to whole vectors.
const LANES: usize = 16;
const NOWHERE: u32 = u32::MAX;
/// [`Block::sign`] of paths that are no sign.
pub(super) const NO_SIGN: u16 = u16::MAX;

/// Costs for one kind of cluster.
struct Costs {
    missing: i32,
    extra: i32,
    gone: i32,
    elsewhere: f64,
}

/// By [`Kind`]: in 1/20 nat, and the probability that a cluster comes from elsewhere.
const COSTS: [Costs; 3] = [
    Costs { missing: 18, extra: 9, gone: 50, elsewhere: 0.04 },
    Costs { missing: 3, extra: 5, gone: 10, elsewhere: 0.35 },
    Costs { missing: 2, extra: 2, gone: 10, elsewhere: 0.35 },
];

/// Paths of one cluster that the same bases have.
#[derive(Debug, Clone)]
pub(super) struct Block {
    pub cluster: u32,
    pub size: u32,
    pub core: bool,
    /// Number of the distribution that signs here, or [`NO_SIGN`].
    pub sign: u16,
    /// The sign is of a keyring ([`signs::is_keyring`]).
    pub keyring: bool,
    /// Family whose name the paths carry, or `u16::MAX`; only where no base of another family has them.
    pub brand: u16,
}

/// What is known of all bases, in the form in which path sets are scored.
pub struct Model {
    /// Index in the database of each base that takes part.
    pub base: Vec<usize>,
    /// Family of each base, index into [`Model::families`].
    pub family: Vec<usize>,
    /// Names of the families.
    pub families: Vec<String>,
    block_of: Vec<u32>,
    pub(super) blocks: Vec<Block>,
    /// Blocks x words: which bases have the block.
    pub(super) masks: Vec<u64>,
    pub(super) words: usize,
    /// Row length.
    pub(super) width: usize,
    /// Blocks x width: 1 where a base has the block.
    rows: Vec<i32>,
    pub(super) kinds: Vec<Kind>,
    /// Clusters x width: paths of each base.
    pub(super) counts: Vec<i32>,
    /// Clusters x width: votes when the image has nothing of the cluster.
    absent: Vec<i32>,
    /// Sum of `absent` over the clusters.
    all_absent: Vec<i64>,
    votes: [Vec<i32>; 3],
    /// The cluster of what `docker export` adds: counted for the published score only.
    artefacts: u32,
    /// The cluster of signs that no base has: counted for no score.
    unlisted: u32,
    /// Distribution of each family, if it is a known one.
    pub(super) distribution: Vec<Option<u16>>,
    /// Blocks x family words: families of which some base has the block; of which every base has it.
    in_families: Vec<u64>,
    in_every: Vec<u64>,
    family_words: usize,
    pub(super) totals: Totals,
}

/// Numbers of paths that the features are shares of.
#[derive(Debug, Clone, Default)]
pub(super) struct Totals {
    /// Core paths of each base.
    pub core: Vec<u32>,
    /// Of these, those that no other base of its family has.
    pub only: Vec<u32>,
    /// Bases x bases: core paths that the first has and the second has not.
    pub apart: Vec<u32>,
    /// Signs of each base's own distribution that no other family has.
    pub signs: Vec<u32>,
    /// Core clusters of each base.
    pub clusters: Vec<u32>,
    /// Core paths that every base of a family has.
    pub every: Vec<u32>,
}

/// Counts of one path set, reused from set to set.
pub struct Tally {
    pub(super) block: Vec<u32>,
    pub(super) touched_blocks: Vec<u32>,
    /// Clusters x width: paths shared with each base.
    pub(super) shared: Vec<i32>,
    /// Paths of the set in each cluster.
    pub(super) paths: Vec<i32>,
    pub(super) touched: Vec<u32>,
    /// |S|: paths of the set that some base has, artefacts included.
    pub total: u32,
    /// |S ∩ B| of each base, padded.
    pub shared_with: Vec<i32>,
    /// Likeness of each base in 1/1024 nat, padded; 0 is a perfect fit, lower is worse.
    pub score: Vec<i64>,
}

impl Model {
    /// Prepares the bases for which `take` is true. Paths that only others have count for nothing.
    pub fn new(bases: &Bases, take: impl Fn(usize) -> bool) -> Self {
        Self::with_signs(bases, take, |_| true)
    }

    /// The same, for a world in which only those distributions sign for which `known` is true.
    pub fn with_signs(bases: &Bases, take: impl Fn(usize) -> bool, known: impl Fn(u16) -> bool) -> Self {
        let base: Vec<_> = (0..bases.bases.len()).filter(|b| take(*b)).collect();
        let mut families: Vec<_> = base.iter().map(|b| bases.bases[*b].family.clone()).collect();
        families.sort();
        families.dedup();
        let family = |b: &usize| families.partition_point(|f| *f < bases.bases[*b].family);
        let families_of: Vec<usize> = base.iter().map(family).collect();

        let (width, words) = (base.len().next_multiple_of(LANES), base.len().div_ceil(64));
        let mut path_masks = vec![0u64; bases.universe.len() * words];
        for (lane, b) in base.iter().enumerate() {
            for id in &bases.bases[*b].paths {
                path_masks[id as usize * words + lane / 64] |= 1 << (lane % 64);
            }
        }
        let Clusters { of, mut kinds } = Clusters::new(&bases.universe, &bases.listed());
        let (artefacts, unlisted) = (kinds.len() as u32, kinds.len() as u32 + 1);
        kinds.extend([Kind::State, Kind::State]);
        let mut signed = vec![NO_SIGN; bases.universe.len()];
        for (number, path) in signs::signs().filter(|(number, _)| known(*number)) {
            if let Some(id) = bases.universe.find(path.as_bytes()) {
                signed[id as usize] = number;
            }
        }
        let is_artefact = |path: &[u8]| EXPORT_ARTEFACTS.iter().any(|a| a.as_bytes() == path);
        let stems: Vec<_> = families.iter().map(|f| stem(f)).collect();
        let mut ids: FxHashMap<(u32, u16, u16, bool, &[u64]), u32> = FxHashMap::default();
        let mut blocks: Vec<Block> = Vec::new();
        let mut block_of = Vec::with_capacity(of.len());
        for (id, path) in bases.universe.iter().enumerate() {
            let mask = &path_masks[id * words..][..words];
            let sign = signed[id];
            let nobody = mask.iter().all(|word| *word == 0);
            if nobody && sign == NO_SIGN {
                block_of.push(NOWHERE);
                continue;
            }
            let cluster = match nobody {
                true => unlisted,
                false if is_artefact(path) => artefacts,
                false => of[id],
            };
            let core = kinds[cluster as usize] == Kind::Core;
            let has = |family: usize| {
                (0..base.len()).any(|b| families_of[b] == family && mask[b / 64] >> (b % 64) & 1 == 1)
            };
            let alone = |family: usize| has(family) && !(0..families.len()).any(|f| f != family && has(f));
            let brand = if core { brand(path, &stems).filter(|f| alone(*f)) } else { None };
            let brand = brand.map_or(u16::MAX, |family| family as u16);
            let keyring = sign != NO_SIGN && signs::is_keyring(path);
            let block = *ids.entry((cluster, brand, sign, keyring, mask)).or_insert_with(|| {
                blocks.push(Block { cluster, size: 0, core, brand, sign, keyring });
                blocks.len() as u32 - 1
            });
            blocks[block as usize].size += 1;
            block_of.push(block);
        }
        let mut masks = vec![0; blocks.len() * words];
        for ((.., mask), block) in ids {
            masks[block as usize * words..][..words].copy_from_slice(mask);
        }
        let mut model = Self {
            base,
            family: families_of,
            families,
            block_of,
            rows: Vec::new(),
            counts: vec![0; kinds.len() * width],
            absent: Vec::new(),
            all_absent: vec![0; width],
            votes: COSTS.map(|costs| votes(&costs)),
            blocks,
            masks,
            words,
            width,
            kinds,
            artefacts,
            unlisted,
            distribution: Vec::new(),
            in_families: Vec::new(),
            in_every: Vec::new(),
            family_words: 0,
            totals: Totals::default(),
        };
        model.prepare();
        model.add_up();
        model
    }

    fn prepare(&mut self) {
        let lanes = self.base.len();
        self.rows = vec![0; self.blocks.len() * self.width];
        for (i, block) in self.blocks.iter().enumerate() {
            for lane in 0..lanes {
                if self.masks[i * self.words + lane / 64] >> (lane % 64) & 1 == 0 {
                    continue;
                }
                self.rows[i * self.width + lane] = 1;
                self.counts[block.cluster as usize * self.width + lane] += block.size as i32;
            }
        }
        self.absent = vec![0; self.counts.len()];
        let nothing = vec![0; self.width];
        for cluster in 0..self.artefacts as usize {
            let at = cluster * self.width;
            let mut row = vec![0; self.width];
            self.vote(cluster, 0, &nothing, |lane, vote| row[lane] = vote);
            self.absent[at..at + self.width].copy_from_slice(&row);
            for (sum, vote) in self.all_absent.iter_mut().zip(row) {
                *sum += i64::from(vote);
            }
        }
    }

    /// Which families have which blocks, and how many paths of each sort there are.
    fn add_up(&mut self) {
        let (lanes, families) = (self.len(), self.families.len());
        self.distribution = self.families.iter().map(|family| signs::distribution_of(family)).collect();
        self.family_words = families.div_ceil(64);
        let words = self.blocks.len() * self.family_words;
        (self.in_families, self.in_every) = (vec![0; words], vec![0; words]);
        for block in 0..self.blocks.len() {
            for family in 0..families {
                let mut of = (0..lanes).filter(|lane| self.family[*lane] == family);
                let (at, bit) = (block * self.family_words + family / 64, 1 << (family % 64));
                self.in_families[at] |= if of.clone().any(|lane| self.has(block, lane)) { bit } else { 0 };
                self.in_every[at] |= if of.all(|lane| self.has(block, lane)) { bit } else { 0 };
            }
        }
        let core = |block: &usize| self.blocks[*block].core;
        let size = |block: usize| self.blocks[block].size;
        let all = || 0..self.blocks.len();
        let count = |of: &dyn Fn(usize) -> bool| all().filter(core).filter(|b| of(*b)).map(size).sum::<u32>();
        let totals = Totals {
            core: (0..lanes).map(|lane| count(&|b| self.has(b, lane))).collect(),
            only: (0..lanes)
                .map(|lane| count(&|b| self.has(b, lane) && !self.in_another_lane(b, lane)))
                .collect(),
            apart: (0..lanes * lanes)
                .map(|pair| count(&|b| self.has(b, pair / lanes) && !self.has(b, pair % lanes)))
                .collect(),
            signs: (0..lanes).map(|lane| all().filter(|b| self.signs(*b, lane)).map(size).sum()).collect(),
            clusters: (0..lanes)
                .map(|lane| {
                    let core = (0..self.kinds.len()).filter(|c| self.kinds[*c] == Kind::Core);
                    core.filter(|c| self.counts[c * self.width + lane] > 0).count() as u32
                })
                .collect(),
            every: (0..families).map(|family| count(&|b| self.in_every(b, family))).collect(),
        };
        self.totals = totals;
    }

    /// True if some base of the family has the paths of the block.
    pub(super) fn in_family(&self, block: usize, family: usize) -> bool {
        self.in_families[block * self.family_words + family / 64] >> (family % 64) & 1 == 1
    }

    /// True if every base of the family has them.
    pub(super) fn in_every(&self, block: usize, family: usize) -> bool {
        self.in_every[block * self.family_words + family / 64] >> (family % 64) & 1 == 1
    }

    /// True if some base of another family has them.
    pub(super) fn in_another_family(&self, block: usize, family: usize) -> bool {
        (0..self.families.len()).any(|other| other != family && self.in_family(block, other))
    }

    /// True if another base of the family of the one in this lane has them.
    pub(super) fn in_another_lane(&self, block: usize, lane: usize) -> bool {
        let same = |other: &usize| *other != lane && self.family[*other] == self.family[lane];
        (0..self.len()).filter(same).any(|other| self.has(block, other))
    }

    /// True if by the paths of the block the base in this lane is signed as what it is, and no base of
    /// another family.
    pub(super) fn signs(&self, block: usize, lane: usize) -> bool {
        let (sign, family) = (self.blocks[block].sign, self.family[lane]);
        sign != NO_SIGN
            && self.distribution[family] == Some(sign)
            && self.has(block, lane)
            && !self.in_another_family(block, family)
    }

    /// True if the base in this lane has the paths of the block.
    pub(super) fn has(&self, block: usize, lane: usize) -> bool {
        self.masks[block * self.words + lane / 64] >> (lane % 64) & 1 == 1
    }

    /// Number of bases that take part.
    pub fn len(&self) -> usize {
        self.base.len()
    }

    /// True if there is no base.
    pub fn is_empty(&self) -> bool {
        self.base.is_empty()
    }

    /// An empty tally for this model.
    pub fn tally(&self) -> Tally {
        Tally {
            block: vec![0; self.blocks.len()],
            touched_blocks: Vec::new(),
            shared: vec![0; self.counts.len()],
            paths: vec![0; self.kinds.len()],
            touched: Vec::new(),
            total: 0,
            shared_with: vec![0; self.width],
            score: vec![0; self.width],
        }
    }

    /// Calls `each` with the vote of a cluster for every base, given the number of paths of the image
    /// in the cluster and how many of them each base has.
    #[inline]
    fn vote(&self, cluster: usize, paths: i32, shared: &[i32], mut each: impl FnMut(usize, i32)) {
        let kind = self.kinds[cluster] as usize;
        let Costs { missing, extra, gone, .. } = COSTS[kind];
        let limit = if paths == 0 { gone } else { i32::MAX };
        let counts = &self.counts[cluster * self.width..][..self.width];
        let distance = |lane: usize| {
            ((counts[lane] - shared[lane]) * missing + (paths - shared[lane]) * extra).min(limit)
        };
        let nearest = (0..self.base.len()).map(distance).min().unwrap_or(0);
        let votes = &self.votes[kind];
        for lane in 0..self.base.len() {
            each(lane, votes[((distance(lane) - nearest) as usize).min(FARTHEST)]);
        }
    }

    /// Counts and scores a path set, given as ids in the universe without repetition. Ids beyond the
    /// universe are not allowed.
    pub fn score(&self, ids: impl IntoIterator<Item = u32>, tally: &mut Tally) {
        for block in tally.touched_blocks.drain(..) {
            tally.block[block as usize] = 0;
        }
        for cluster in tally.touched.drain(..) {
            tally.paths[cluster as usize] = 0;
            tally.shared[cluster as usize * self.width..][..self.width].fill(0);
        }
        for id in ids {
            let block = self.block_of[id as usize];
            if block != NOWHERE {
                let count = &mut tally.block[block as usize];
                if *count == 0 {
                    tally.touched_blocks.push(block);
                }
                *count += 1;
            }
        }
        tally.total = 0;
        tally.shared_with.fill(0);
        for &block in &tally.touched_blocks {
            let count = tally.block[block as usize] as i32;
            let cluster = self.blocks[block as usize].cluster;
            if cluster == self.unlisted {
                continue;
            }
            let paths = &mut tally.paths[cluster as usize];
            if *paths == 0 {
                tally.touched.push(cluster);
            }
            *paths += count;
            tally.total += count as u32;
            let row = &self.rows[block as usize * self.width..][..self.width];
            let shared = &mut tally.shared[cluster as usize * self.width..][..self.width];
            for (sum, has) in shared.iter_mut().zip(row) {
                *sum += has * count;
            }
        }
        tally.score.copy_from_slice(&self.all_absent);
        for &cluster in &tally.touched {
            let cluster = cluster as usize;
            let shared = &tally.shared[cluster * self.width..][..self.width];
            for (sum, n) in tally.shared_with.iter_mut().zip(shared) {
                *sum += n;
            }
            if cluster != self.artefacts as usize {
                let absent = &self.absent[cluster * self.width..][..self.width];
                let score = &mut tally.score;
                self.vote(cluster, tally.paths[cluster], shared, |lane, vote| {
                    score[lane] += i64::from(vote - absent[lane]);
                });
            }
        }
    }

    /// Number of paths in a tally that `docker export` adds.
    pub(super) fn artefacts_in(&self, tally: &Tally) -> u32 {
        tally.paths[self.artefacts as usize] as u32
    }

    /// Core paths of the set that the base in lane `ours` has and the one in `theirs` has not: those
    /// that carry the family's name first, then those that no other family has, then by id.
    pub(super) fn telling(&self, set: &RoaringBitmap, ours: usize, theirs: usize, most: usize) -> Vec<u32> {
        let family = self.family[ours];
        let common = |block: usize| (0..self.len()).any(|b| self.family[b] != family && self.has(block, b));
        let rank: Vec<Option<u8>> = (0..self.blocks.len())
            .map(|i| {
                let telling = self.blocks[i].core && self.has(i, ours) && !self.has(i, theirs);
                let own_name = usize::from(self.blocks[i].brand) == family;
                telling.then(|| if common(i) { 2 } else { u8::from(!own_name) })
            })
            .collect();
        let block = |id: u32| Some(self.block_of[id as usize]).filter(|block| *block != NOWHERE);
        let ranked = set.iter().filter_map(|id| rank[block(id)? as usize].map(|rank| (rank, id)));
        let mut ranked: Vec<_> = ranked.collect();
        ranked.sort_unstable();
        ranked.into_iter().take(most).map(|(_, id)| id).collect()
    }
}

/// Votes by distance from the nearest base.
fn votes(costs: &Costs) -> Vec<i32> {
    let e = costs.elsewhere;
    let vote = |d: usize| (1.0 - e) * (-(d as f64) / COST).exp() + e;
    (0..=FARTHEST).map(|d| (vote(d).ln() * NAT).round() as i32).collect()
}

/// What of a family's name its own files carry: `rocky` of `rockylinux`.
fn stem(family: &str) -> String {
    let last = family.rsplit('/').next().unwrap_or(family).to_lowercase();
    last.chars().take(5).collect()
}

/// The first family whose name is in the path, if one is.
fn brand(path: &[u8], stems: &[String]) -> Option<usize> {
    let path = path.to_ascii_lowercase();
    let named =
        |stem: &String| stem.len() > 3 && path.windows(stem.len()).any(|window| window == stem.as_bytes());
    stems.iter().position(named)
}
