//! The engine against brute force: any sets, any tile size, any choice of common items.

use super::index::CommonRule;
use super::kernel::{Edge, Kernel, Neighbour, Want, score};
use super::results::{Counts, Results, as_published, pairs_of};
use super::{ImageSets, Options, Prepared, wire};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const ITEMS: u32 = 24;

/// Sets with a few very common items, many repeats and some empty sets.
fn any_sets() -> impl Strategy<Value = Vec<Vec<u32>>> {
    let item = prop_oneof![3 => 0u32..3, 2 => 3u32..8, 2 => 8u32..ITEMS];
    prop::collection::vec(prop::collection::vec(item, 0..7), 0..30)
}

fn image_sets(sets: &[Vec<u32>]) -> ImageSets {
    let bytes = (0..u64::from(ITEMS)).map(|i| if i % 5 == 4 { 0 } else { 1u64 << i }).collect();
    let empty = (0..ITEMS).map(|i| i == 0 || i == 2 || i == 9).collect();
    let mut images = ImageSets::new(bytes, empty);
    for set in sets {
        images.push(set.iter().copied());
    }
    images
}

fn run(prepared: &Prepared) -> Results {
    let kernel = Kernel::new(&prepared.index, prepared.want);
    let mut merge = prepared.begin_merge();
    for id in (0..prepared.plan.tiles()).rev() {
        let tile = prepared.plan.tile(id);
        let payload = wire::encode(&kernel.tile(&tile));
        merge.add(&tile, &wire::decode(&payload, prepared.index.largest.items as u32).unwrap()).unwrap();
    }
    merge.finish().unwrap()
}

type Cells = BTreeMap<(u32, u32), u64>;

fn overlap(a: &BTreeSet<u32>, b: &BTreeSet<u32>) -> (u32, u32) {
    let shared = a.intersection(b).count() as u32;
    (shared, (a.len() + b.len()) as u32 - shared)
}

fn brute_force(sets: &[BTreeSet<u32>]) -> Cells {
    let mut cells = Cells::new();
    for (i, a) in sets.iter().enumerate() {
        for b in &sets[i + 1..] {
            *cells.entry(overlap(a, b)).or_default() += 1;
        }
    }
    cells
}

fn cells_of(tally: &super::tally::PairTally, pick: fn(&super::tally::Count) -> u64) -> Cells {
    let cells = tally.cells();
    cells.iter().map(|c| ((c.shared, c.union), pick(&c.count))).filter(|(_, c)| *c > 0).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn equals_brute_force(
        sets in any_sets(),
        rows in 1u32..40,
        columns in 1u32..40,
        at_least in 2u64..30,
        top_k in 0usize..6,
        min in prop::option::of(prop::sample::select(vec![0.01, 0.2, 1.0 / 3.0, 0.5, 0.75, 1.0])),
    ) {
        let images = image_sets(&sets);
        let options = Options::new(top_k, min, Some(rows)).unwrap();
        let mut prepared = Prepared::with_rule(images.clone(), &options, CommonRule { at_least });
        prepared.plan = crate::pairs::Plan::new(
            prepared.collapsed.len() as u32, rows, columns, prepared.want.shape());
        let results = run(&prepared);

        let all: Vec<BTreeSet<u32>> = sets.iter().map(|s| s.iter().copied().collect()).collect();
        let full: Vec<BTreeSet<u32>> = all.iter()
            .map(|s| s.iter().copied().filter(|i| !images.item_empty[*i as usize]).collect()).collect();
        prop_assert_eq!(cells_of(&results.tally.all, |c| c.images), brute_force(&all));
        prop_assert_eq!(cells_of(&results.tally.full, |c| c.images), brute_force(&full));

        let distinct: Vec<BTreeSet<u32>> =
            prepared.collapsed.representative.iter().map(|i| all[*i as usize].clone()).collect();
        prop_assert_eq!(cells_of(&results.tally.all, |c| c.distinct), brute_force(&distinct));
        let distinct_full: Vec<BTreeSet<u32>> =
            prepared.collapsed.representative.iter().map(|i| full[*i as usize].clone()).collect();
        prop_assert_eq!(cells_of(&results.tally.full, |c| c.distinct), brute_force(&distinct_full));

        let mut bytes = 0u128;
        for (i, a) in full.iter().enumerate() {
            for b in &full[i + 1..] {
                bytes += a.intersection(b).map(|d| u128::from(images.item_bytes[*d as usize])).sum::<u128>();
            }
        }
        prop_assert_eq!(results.tally.bytes.image_bytes, bytes);

        let mut edges = Vec::new();
        for i in 0..distinct.len() {
            let mut best = Vec::new();
            for j in 0..distinct.len() {
                let (shared, union) = overlap(&distinct[i], &distinct[j]);
                if i < j && min.is_some_and(|min| score(shared, union) >= min) {
                    edges.push(Edge { first: i as u32, second: j as u32, shared });
                }
                if i != j && shared > 0 {
                    best.push(Neighbour { index: j as u32, shared, union });
                }
            }
            best.sort_by(Neighbour::rank);
            best.truncate(prepared.want.top_k);
            best.resize(prepared.want.top_k, Neighbour::NONE);
            let row = i * prepared.want.top_k..(i + 1) * prepared.want.top_k;
            prop_assert_eq!(&results.neighbours[row], &best);
        }
        prop_assert_eq!(&results.edges, &edges);
    }

    #[test]
    fn published_sums_equal_a_plain_loop(sets in any_sets()) {
        let prepared = Prepared::new(image_sets(&sets), &Options::new(0, None, None).unwrap());
        let all: Vec<BTreeSet<u32>> = sets.iter().map(|s| s.iter().copied().collect()).collect();
        let mut scores = Vec::new();
        for (i, a) in all.iter().enumerate() {
            for (j, b) in all.iter().enumerate() {
                let (shared, union) = overlap(a, b);
                scores.push(if i == j { 1.0 } else { score(shared, union) });
            }
        }
        let total = scores.len() as f64;
        let mean = scores.iter().fold(0.0, |sum, s| sum + s) / total;
        let variance = scores.iter().fold(0.0, |sum, s| sum + (s - mean) * (s - mean)) / total;
        let published = as_published(&prepared.index, &prepared.collapsed);
        if scores.is_empty() {
            prop_assert_eq!(published, None);
        } else {
            prop_assert_eq!(published, Some((mean, variance.sqrt())));
            let counts = Counts::of(&run(&prepared), &[0.0, 0.5, 1.0]).unwrap();
            prop_assert!((counts.images.mean_with_diagonal.unwrap() - mean).abs() < 1e-13);
            prop_assert_eq!(counts.images.histogram.total(), pairs_of(sets.len() as u64));
        }
    }

    #[test]
    fn a_damaged_payload_is_noticed_or_harmless(sets in any_sets(), cut in any::<prop::sample::Index>()) {
        let prepared = Prepared::new(image_sets(&sets), &Options::new(2, Some(0.5), None).unwrap());
        let kernel = Kernel::new(&prepared.index, prepared.want);
        for id in 0..prepared.plan.tiles() {
            let payload = wire::encode(&kernel.tile(&prepared.plan.tile(id)));
            let short = &payload[..cut.index(payload.len())];
            prop_assert!(wire::decode(short, prepared.index.largest.items as u32).is_none());
        }
    }
}

/// Sets and sizes too large for the narrow counters give the same as small ones would.
#[test]
fn large_sets_and_sizes_use_wide_counters() {
    let items = 6000u32;
    let mut images = ImageSets::new(vec![1 << 50; items as usize], vec![false; items as usize]);
    images.push(0..5000);
    images.push(2500..6000);
    images.push(5999..6000);
    let prepared = Prepared::new(images, &Options::new(1, Some(0.2), None).unwrap());
    let results = run(&prepared);
    let cells: Vec<_> =
        results.tally.all.cells().iter().map(|c| (c.shared, c.union, c.count.images)).collect();
    assert_eq!(cells, [(0, 5001, 1), (1, 3500, 1), (2500, 6000, 1)]);
    assert_eq!(results.tally.bytes.image_bytes, 2501 << 50);
    assert_eq!(results.edges, [Edge { first: 0, second: 1, shared: 2500 }]);
    assert_eq!(results.neighbours[2], Neighbour { index: 1, shared: 1, union: 3500 });
}

#[test]
fn a_threshold_outside_its_range_is_refused() {
    for min in [0.0, -0.5, 1.1, f64::NAN, f64::INFINITY] {
        assert!(Options::new(0, Some(min), None).is_err(), "{min}");
    }
    assert_eq!(Options::new(0, Some(1.0), None).unwrap().want, Want { top_k: 0, min: Some(1.0) });
}
