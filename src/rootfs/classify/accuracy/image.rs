//! Images whose base is known, made from the bases of a database.

use super::draw::Draw;
use super::packages::{Package, Packages, hash};
use crate::rootfs::bases::{Bases, EXPORT_ARTEFACTS};
use crate::rootfs::classify::cluster::Kind as PathKind;
use roaring::RoaringBitmap;
use serde::Serialize;
use std::ops::Range;

/// How an image was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A base as it is.
    Pure,
    /// With the files of 1 to 250 packages.
    Packages,
    /// Without documentation, translations, caches and some random directories.
    Slimmed,
    /// First the one, then the other.
    PackagesSlimmed,
    /// Packages, files deleted here and there, everything in one layer.
    Squashed,
    /// A few directories of another image copied in.
    MultiStage,
    /// A large part (10 to 60 %) of a base of another family copied in, at most four fifths of what the
    /// image's own base has.
    Mixed,
    /// No base: an application alone, a distroless selection, files of packages alone.
    None,
    /// On a family that the classifier was not told of.
    UnknownFamily,
    /// On a version that the classifier was not told of.
    UnknownVersion,
}

impl Kind {
    /// All kinds, with their share of a set (of 100; the pure ones are each base once).
    pub const SHARES: [(Self, u64); 10] = [
        (Self::Pure, 0),
        (Self::Packages, 20),
        (Self::Slimmed, 12),
        (Self::PackagesSlimmed, 14),
        (Self::Squashed, 10),
        (Self::MultiStage, 12),
        (Self::Mixed, 10),
        (Self::None, 8),
        (Self::UnknownFamily, 7),
        (Self::UnknownVersion, 7),
    ];
}

/// An image and what is true of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Made {
    /// How it was made.
    pub kind: Kind,
    /// Index of the base that it was made from; for [`Kind::None`] where its files are from.
    pub base: usize,
    /// Its paths.
    pub set: RoaringBitmap,
}

/// What images are made of.
pub struct Workshop<'a> {
    bases: &'a Bases,
    packages: &'a Packages,
    directories: Vec<(usize, Range<u32>)>,
    volatile: Vec<Range<u32>>,
    artefacts: RoaringBitmap,
    core: RoaringBitmap,
    merged: Vec<bool>,
    dpkg: Vec<bool>,
    /// Indexes of packages, by side and popularity.
    sides: [[Vec<usize>; 2]; 2],
    /// Which side of the split each base is on.
    pub side: Vec<usize>,
}

/// Directories that slimming removes whole.
const SLIMMED: [&str; 13] = [
    "usr/share/doc",
    "usr/share/man",
    "usr/share/info",
    "usr/share/locale",
    "usr/share/i18n",
    "usr/share/zoneinfo",
    "usr/share/licenses",
    "usr/share/lintian",
    "usr/lib/.build-id",
    "var/cache",
    "var/log",
    "var/lib/apt",
    "var/lib/yum",
];

/// What a distroless image keeps of a distribution.
const DISTROLESS: [&str; 12] = [
    "etc/passwd",
    "etc/group",
    "etc/os-release",
    "usr/lib/os-release",
    "etc/nsswitch.conf",
    "etc/debian_version",
    "etc/services",
    "etc/protocols",
    "etc/ssl",
    "usr/share/zoneinfo",
    "usr/share/doc/tzdata",
    "usr/share/doc/libc6",
];

/// Libraries that a distroless image may have.
const LIBRARIES: [&str; 9] =
    ["libc", "libm", "ld-", "libpthread", "libdl", "librt", "libssl", "libgcc_s", "libstdc++"];

impl<'a> Workshop<'a> {
    /// Prepares. The two sides of the split share no base and no package: inside a family versions
    /// alternate, packages go by a hash of their name.
    pub fn new(bases: &'a Bases, packages: &'a Packages) -> Self {
        let universe = &bases.universe;
        let mut names: Vec<&[u8]> = Vec::new();
        for path in bases.listed().iter().map(|id| universe.get(id)) {
            let slashes = path.iter().enumerate().filter(|(_, b)| **b == b'/');
            names.extend(slashes.map(|(end, _)| &path[..end]));
        }
        names.sort_unstable();
        names.dedup();
        let depth = |name: &[u8]| name.iter().filter(|b| **b == b'/').count() + 1;
        let directories = names.into_iter().map(|name| (depth(name), universe.below(name))).collect();
        let has = |path: &str| -> Vec<bool> {
            let id = universe.find(path.as_bytes());
            bases.bases.iter().map(|b| id.is_some_and(|id| b.paths.contains(id))).collect()
        };
        let core = universe.iter().enumerate().filter(|(_, path)| PathKind::of(path) == PathKind::Core);
        let mut sides: [[Vec<usize>; 2]; 2] = Default::default();
        for (i, package) in packages.list.iter().enumerate() {
            sides[(hash(&package.name) >> 8 & 1) as usize][usize::from(package.popular)].push(i);
        }
        Self {
            bases,
            packages,
            directories,
            volatile: SLIMMED.iter().map(|place| universe.below(place.as_bytes())).collect(),
            artefacts: bases.set_of(EXPORT_ARTEFACTS.iter().map(|p| p.as_bytes())),
            core: core.map(|(id, _)| id as u32).collect(),
            merged: has("bin/ls").into_iter().map(|split| !split).collect(),
            dpkg: has("var/lib/dpkg/status"),
            sides,
            side: sides_of(bases),
        }
    }

    /// Image number `number` of a kind, from the bases and packages of one side.
    pub fn make(&self, kind: Kind, side: usize, seed: u64, number: u64) -> Made {
        let mut draw = Draw::new(seed, number << 8 | kind as u64);
        let own: Vec<_> = (0..self.bases.bases.len()).filter(|b| self.side[*b] == side).collect();
        let base = match kind {
            Kind::Pure => own[number as usize % own.len()],
            _ => *draw.pick(&own),
        };
        // An image read from its layers has nothing of what `docker export` adds.
        let mut set = &self.bases.bases[base].paths - &self.artefacts;
        if kind != Kind::Pure && draw.chance(0.3) {
            // Upgrades and small clean-ups replace and remove a file here and there.
            let share = 10f64.powf(-4.0 + 2.0 * draw.unit());
            self.thin(&mut set, share, &mut draw);
        }
        match kind {
            Kind::Pure => (),
            Kind::Packages => self.install(&mut set, base, side, 250, &mut draw),
            Kind::Slimmed => self.slim(&mut set, base, &mut draw),
            Kind::PackagesSlimmed => {
                self.install(&mut set, base, side, 120, &mut draw);
                self.slim(&mut set, base, &mut draw);
            }
            Kind::Squashed => {
                self.install(&mut set, base, side, 60, &mut draw);
                self.thin(&mut set, 0.002, &mut draw);
            }
            Kind::MultiStage => {
                self.install(&mut set, base, side, 20, &mut draw);
                let other = self.other(&own, base, false, &mut draw);
                let share = 0.01 + 0.09 * draw.unit();
                self.copy(&mut set, other, share, &mut draw);
            }
            Kind::Mixed => {
                let other = self.other(&own, base, true, &mut draw);
                let share = 0.1 + 0.5 * draw.unit();
                self.copy(&mut set, other, share, &mut draw);
            }
            Kind::None => set = self.without_base(base, side, &mut draw),
            Kind::UnknownFamily | Kind::UnknownVersion => match draw.below(4) {
                0 => (),
                1 => self.install(&mut set, base, side, 60, &mut draw),
                2 => self.slim(&mut set, base, &mut draw),
                _ => {
                    self.install(&mut set, base, side, 60, &mut draw);
                    self.slim(&mut set, base, &mut draw);
                }
            },
        }
        Made { kind, base, set }
    }

    fn other(&self, own: &[usize], base: usize, other_family: bool, draw: &mut Draw) -> usize {
        let family = |b: usize| &self.bases.bases[b].family;
        let fits = |b: &usize| *b != base && !(other_family && family(*b) == family(base));
        let others: Vec<_> = own.iter().copied().filter(fits).collect();
        if others.is_empty() { base } else { *draw.pick(&others) }
    }

    fn thin(&self, set: &mut RoaringBitmap, share: f64, draw: &mut Draw) {
        let gone: RoaringBitmap = set.iter().filter(|_| draw.chance(share)).collect();
        *set -= gone;
    }

    fn package(&self, side: usize, draw: &mut Draw) -> Option<&'a Package> {
        let [other, popular] = &self.sides[side];
        let from = if draw.chance(0.5) && !popular.is_empty() { popular } else { other };
        if from.is_empty() { None } else { Some(&self.packages.list[*draw.pick(from)]) }
    }

    fn install(&self, set: &mut RoaringBitmap, base: usize, side: usize, most: usize, draw: &mut Draw) {
        for _ in 0..draw.count(most) {
            let Some(package) = self.package(side, draw) else { return };
            set.extend(if self.merged[base] { &package.merged } else { &package.split });
            if self.dpkg[base] {
                set.extend(&package.info);
            }
        }
    }

    /// Removes documentation and the like, and up to five directories; never so much that less than half
    /// of the base's core paths is left, for then there is no saying what the image is.
    fn slim(&self, set: &mut RoaringBitmap, base: usize, draw: &mut Draw) {
        for place in &self.volatile {
            if draw.chance(0.75) {
                set.remove_range(place.clone());
            }
        }
        let core = &self.bases.bases[base].paths & &self.core;
        for _ in 0..*draw.pick(&[0, 0, 1, 2, 3, 5]) {
            let there = |range: &Range<u32>| set.range_cardinality(range.clone()) > 0;
            let present: Vec<_> = self.directories.iter().filter(|(_, range)| there(range)).collect();
            if present.is_empty() {
                return;
            }
            let (depth, range) = *draw.pick(&present);
            if *depth >= 2 || draw.chance(0.15) {
                let mut left = set.clone();
                left.remove_range(range.clone());
                if left.intersection_len(&core) * 2 >= core.len() {
                    *set = left;
                }
            }
        }
    }

    /// Copies directories of another base until about `share` of it is there.
    fn copy(&self, set: &mut RoaringBitmap, other: usize, share: f64, draw: &mut Draw) {
        let theirs = &self.bases.bases[other].paths - &self.artefacts;
        let limit = (share * theirs.len() as f64).min(0.8 * set.len() as f64) as u64;
        let mut copied = RoaringBitmap::new();
        // Directories that are too large are skipped, so the number of tries is bounded, too.
        for _ in 0..2000 {
            if copied.len() >= limit {
                break;
            }
            let (_, range) = draw.pick(&self.directories);
            let mut part: RoaringBitmap = theirs.range(range.clone()).collect();
            if part.len() > limit {
                let keep = limit as f64 / part.len() as f64;
                part = part.iter().filter(|_| draw.chance(keep)).collect();
            }
            copied |= part;
        }
        *set |= copied;
    }

    fn without_base(&self, base: usize, side: usize, draw: &mut Draw) -> RoaringBitmap {
        let mut set = RoaringBitmap::new();
        match draw.below(10) {
            0 | 1 => (),
            2..=4 => {
                let libraries = draw.chance(0.5);
                for id in &self.bases.bases[base].paths {
                    let path = String::from_utf8_lossy(self.bases.universe.get(id));
                    let kept = DISTROLESS.iter().any(|place| path.starts_with(place));
                    let name = path.rsplit('/').next().unwrap_or(&path);
                    let library = libraries
                        && path.contains("lib")
                        && name.contains(".so")
                        && LIBRARIES.iter().any(|library| name.starts_with(library));
                    if kept || library {
                        set.insert(id);
                    }
                }
                set -= &self.artefacts;
            }
            _ => {
                for _ in 0..=draw.below(8) {
                    if let Some(package) = self.package(side, draw) {
                        set.extend(&package.merged);
                    }
                }
            }
        }
        set
    }
}

/// Inside each family versions alternate between the two sides, oldest first; families begin on
/// alternate sides.
fn sides_of(bases: &Bases) -> Vec<usize> {
    let key = |b: usize| {
        let base = &bases.bases[b];
        let numbers: Vec<u32> = base.version.split('.').map(|part| part.parse().unwrap_or(0)).collect();
        (base.family.clone(), numbers, b)
    };
    let mut order: Vec<_> = (0..bases.bases.len()).collect();
    order.sort_by_key(|b| key(*b));
    let mut side = vec![0; order.len()];
    let (mut families, mut place, mut last) = (0, 0, None);
    for b in order {
        let family = &bases.bases[b].family;
        if last != Some(family) {
            (families, place, last) = (families + 1, 0, Some(family));
        }
        side[b] = (families + place) % 2;
        place += 1;
    }
    side
}
