//! Against float64 brute force, with whatever is awkward.

use super::best::Neighbour;
use super::*;
use crate::pairs::cosine::exact::score;
use crate::pairs::cosine::results::Measures;
use proptest::prelude::*;

/// Unit rows with many duplicates, near-duplicates, opposites, zeros and denormals.
fn awkward(n: usize, dims: usize, seed: u64) -> Vec<f32> {
    use rand_chacha::rand_core::{Rng, SeedableRng};
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    let mut real = move || f64::from(random.next_u32()) / f64::from(u32::MAX);
    let mut values: Vec<f32> = Vec::new();
    for i in 0..n {
        let mut row: Vec<f64> = (0..dims).map(|_| real() - 0.5).collect();
        if i > 0 {
            let other: Vec<f64> = {
                let j = (real() * i as f64) as usize * dims;
                values[j..j + dims].iter().map(|v| f64::from(*v)).collect()
            };
            match (real() * 8.0) as u32 {
                0 => row = other,
                1 => row = other.iter().map(|v| -v).collect(),
                2 => row = other.iter().zip(&row).map(|(o, r)| o + r * 1e-4).collect(),
                3 => row = other.iter().zip(&row).map(|(o, r)| o + r * 3e-7).collect(),
                4 if real() < 0.1 => row.fill(0.0),
                5 => row.iter_mut().skip(1).for_each(|v| *v *= 1e-40),
                // Scores that lie on edges: a few coordinates of size 0.1 and the like.
                6 => {
                    row.fill(0.0);
                    row[0] = 0.6;
                    row[dims - 1] = if dims > 1 { 0.8 } else { 1.0 };
                }
                _ => (),
            }
        }
        rows::normalize(&row, &mut values).unwrap();
    }
    values
}

struct Expected {
    counts: Vec<Count>,
    extents: [(f64, f64); 4],
    neighbours: Vec<Vec<Neighbour>>,
    edges: Vec<(u32, u32, u32)>,
}

fn brute_force(prepared: &Prepared<'_>) -> Expected {
    let rows = &prepared.rows;
    let n = rows.len();
    let mut counts = vec![[0u64; 4]; prepared.bins.len()];
    let (mut extents, mut edges) = ([(f64::INFINITY, f64::NEG_INFINITY); 4], Vec::new());
    let mut neighbours = vec![Vec::new(); n];
    for i in 0..n {
        for j in i + 1..n {
            let s = score(rows.row(i), rows.row(j));
            for (w, count) in counts[prepared.bins.bin(s)].iter_mut().enumerate() {
                *count += prepared.weights[i][w] * prepared.weights[j][w];
            }
            for (way, (low, high)) in extents.iter_mut().enumerate() {
                if prepared.weights[i][way] * prepared.weights[j][way] > 0 {
                    (*low, *high) = (s.min(*low), s.max(*high));
                }
            }
            if prepared.options.min.is_some_and(|min| s >= min) {
                edges.push((i as u32, j as u32, (s as f32).to_bits()));
            }
            neighbours[i].push(Neighbour { index: j as u32, score: s });
            neighbours[j].push(Neighbour { index: i as u32, score: s });
        }
    }
    for list in &mut neighbours {
        list.sort_by(Neighbour::order);
        list.truncate(prepared.options.top_k);
    }
    if prepared.options.top_k == 0 {
        neighbours.clear();
    }
    Expected { counts, extents, neighbours, edges }
}

/// The ranks take the tiles in turns; the first merges them.
fn run(ranks: &[&Prepared<'_>]) -> Results {
    let prepared = ranks[0];
    let mut kernels: Vec<_> = ranks.iter().map(|rank| rank.kernel(&World::solo())).collect();
    let mut merge = Merge::begin(prepared);
    for id in 0..prepared.plan.tiles() {
        let kernel = &mut kernels[id as usize % ranks.len()];
        let payload = wire::encode(&kernel(&prepared.plan.tile(id)));
        merge.add(wire::decode(&payload, prepared.plan.items(), prepared.bins.len()).expect("a result"));
    }
    let (results, candidates) = merge.finish().expect("sums close");
    Results { neighbours: prepared.neighbours(&World::solo(), Some(candidates)), ..results }
}

fn check(values: &[f32], dims: usize, multiplicity: &Multiplicity, options: &Options) {
    let all = Rows::new(values, dims);
    rows::check_unit(&all, "test", "").unwrap();
    let groups = Groups::of(&all);
    let prepared = |cpu| {
        let options = Options { cpu, ..options.clone() };
        Prepared::new(all, &groups, multiplicity, options).unwrap()
    };
    let expected = brute_force(&prepared(Cpu::Portable));
    let check = |ranks: &[&Prepared<'_>], how: &str| {
        let found = run(ranks);
        assert_eq!(found.counts, expected.counts, "{how}");
        assert_eq!(found.extents.map(|e| (e.low, e.high)), expected.extents, "{how}");
        let neighbours = |i| found.neighbours.of_row(i).collect::<Vec<_>>();
        let rows = 0..expected.neighbours.len();
        assert_eq!(rows.map(neighbours).collect::<Vec<_>>(), expected.neighbours, "{how}");
        let edges: Vec<_> = found.edges.iter().map(|e| (e.first, e.second, e.score.to_bits())).collect();
        assert_eq!(edges, expected.edges, "{how}");
    };
    let all: Vec<_> = Cpu::all().into_iter().map(prepared).collect();
    for prepared in &all {
        check(&[prepared], prepared.options.cpu.name());
    }
    // A cluster of different CPUs, of which any may merge.
    let mut ranks: Vec<_> = all.iter().collect();
    for _ in 0..all.len() {
        ranks.rotate_left(1);
        check(&ranks, "each tile by another kernel");
    }
    #[cfg(target_arch = "x86_64")]
    for cpu in Cpu::all().into_iter().filter(|cpu| dims <= 300 && cpu.has_integers()) {
        let prepared = prepared(cpu);
        if let Some(filter) = Dense::along_axes(cpu, &prepared.rows, &prepared.bins, prepared.bound) {
            check(
                &[&Prepared { filter: Box::new(filter), ..prepared }],
                &format!("{} along axes", cpu.name()),
            );
        }
    }
}

fn edges() -> impl Strategy<Value = Vec<f64>> {
    prop_oneof![
        Just(Options::study_edges()),
        Just(Options::fine_edges()),
        Just(vec![-1.0, 0.0, 0.5, 0.9, 0.99, 0.999, 1.0]),
        Just((0..=2000).map(|i| f64::from(i) / 1000.0 - 1.0).collect()),
        Just(vec![0.25, 0.5]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn all_results_are_those_of_float64(
        n in 0usize..150,
        dims in prop_oneof![1usize..20, Just(63), Just(64), Just(300), Just(1024)],
        seed: u64,
        edges in edges(),
        second in edges(),
        published: bool,
        top_k in prop_oneof![Just(0usize), 1usize..4, Just(50), Just(1000)],
        min in prop::option::of(prop_oneof![Just(1.0), Just(0.9), Just(-0.2), Just(0.9999999)]),
        tile_edge in prop::option::of(1u32..200),
        different in prop_oneof![Just(0u64), Just(5), Just(1000)],
    ) {
        let values = awkward(n, dims, seed);
        // None, few different ones, or more than there are tables for.
        let some = |salt: u64| Some((0..n as u64).map(|i| (i * 7919 + salt) % different + i % 2 * 1000).collect());
        let multiplicity = match different {
            0 => Multiplicity::default(),
            _ => Multiplicity { layers: some(seed % 1000), images: some(3) },
        };
        let options = Options {
            as_published: published.then(|| edges.clone()),
            histograms: vec![edges, second],
            top_k,
            min,
            tile_edge,
            ..Options::default()
        };
        check(&values, dims, &multiplicity, &options);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    /// Wide ranges and enough coordinates: where the CPU has them, integers look first.
    #[test]
    fn a_first_look_in_integers_changes_nothing(
        n in 2usize..150,
        dims in prop_oneof![Just(32usize), Just(33), 60usize..100, Just(300)],
        seed: u64,
        top_k in prop_oneof![Just(0usize), 1usize..4, Just(50)],
        min in prop::option::of(prop_oneof![Just(1.0), Just(0.9), Just(-0.2)]),
        tile_edge in prop::option::of(20u32..200),
        different in prop_oneof![Just(0u64), Just(5), Just(1000)],
    ) {
        let values = awkward(n, dims, seed);
        let layers = (different > 0)
            .then(|| (0..n as u64).map(|i| (i * 7919 + seed % 1000) % different).collect());
        let multiplicity = Multiplicity { layers, images: None };
        let histograms = vec![Options::study_edges()];
        check(&values, dims, &multiplicity, &Options { histograms, top_k, min, tile_edge, ..Options::default() });
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    /// Enough rows for floors below which no neighbour is looked for.
    #[test]
    fn floors_leave_no_neighbour_out(
        n in 200usize..700,
        dims in prop_oneof![2usize..8, Just(40)],
        seed: u64,
        top_k in 1usize..5,
        tile_edge in prop::option::of(60u32..300),
        wide: bool,
    ) {
        let values = awkward(n, dims, seed);
        let all = Rows::new(&values, dims);
        let groups = Groups::of(&all);
        let histograms = vec![if wide { Options::study_edges() } else { Options::fine_edges() }];
        let options = Options { histograms, top_k, tile_edge, ..Options::default() };
        let prepared = Prepared::new(all, &groups, &Multiplicity::default(), options.clone()).unwrap();
        let near_error = prepared.filter.near_error();
        let floors = floors::floors(&World::solo(), &prepared.rows, top_k, &prepared.bound, near_error);
        prop_assert_eq!(floors.of_rows.is_empty(), prepared.rows.len() / floors::PIECES < 2 * top_k);
        check(&values, dims, &Multiplicity::default(), &options);
    }
}

#[test]
fn statistics_weigh_and_close() {
    // Rows: a, b, a, -a, zero, zero.
    let values = [1.0, 0.0, 0.6, 0.8, 1.0, 0.0, -1.0, 0.0, 0.0, 0.0, 0.0, 0.0f32];
    let all = Rows::new(&values, 2);
    let groups = Groups::of(&all);
    let layers = Multiplicity { layers: Some(vec![1, 2, 3, 4, 1, 0]), images: None };
    let edges = vec![-1.0, 0.0, 0.5, 1.0];
    let options =
        Options { histograms: vec![edges.clone()], as_published: Some(edges), ..Options::default() };
    let prepared = Prepared::new(all, &groups, &layers, options).unwrap();
    let sums = prepared.pair_sums(&World::solo(), &[0, 1, 2]);
    let measures = run(&[&prepared]).measures(&prepared, &[0, 1, 2], &sums).unwrap();
    let b = f64::from(0.6f32);
    let check = |m: &Measures, items, pairs, equal, counts: [u64; 3], mean: f64| {
        assert_eq!((m.items, m.pairs, m.equal), (items, pairs, equal));
        assert_eq!(m.histograms[0].counts, counts);
        assert_eq!(m.histograms[0].total(), pairs);
        assert!((m.mean.unwrap() - mean).abs() < 1e-15);
    };
    // a.b = 0.6, a.-a = -1, b.-a = -0.6, three with zero.
    check(&measures[0], 4, 6, 0, [2, 3, 1], -1.0 / 6.0);
    check(&measures[1], 6, 15, 2, [3, 9, 3], (2.0 * b - 2.0 - b + 1.0) / 15.0);
    // Weights: a 4, b 2, -a 4, zero 1.
    let sum = 8.0 * b - 16.0 - 8.0 * b + 6.0 + 1.0 + 6.0;
    check(&measures[2], 11, 55, 13, [24, 10, 21], sum / 55.0);
    assert_eq!((measures[1].min, measures[1].max), (Some(-1.0), Some(1.0)));
    // Ordered pairs and diagonal of the six rows, halved; the score 0 lies on an edge: twice.
    let published = measures[1].as_published.as_ref().unwrap();
    let own_b = if score(&values[2..4], &values[2..4]) > 1.0 { 0.0 } else { 1.0 };
    let zero = 2.0 * 8.0 + 4.0;
    assert_eq!(published.counts, [(6.0 + zero) / 2.0, zero / 2.0, (4.0 + 4.0 + 1.0 + own_b) / 2.0]);
    assert_eq!(published.half_square, 18.0);
}

#[test]
fn what_does_not_fit_is_refused() {
    let values = [1.0f32, 0.0];
    let all = Rows::new(&values, 2);
    let groups = Groups::of(&all);
    let refused = |m: Multiplicity, o: Options| Prepared::new(all, &groups, &m, o).err().unwrap().to_string();
    let wrong = Multiplicity { layers: Some(vec![1, 2]), images: None };
    assert!(refused(wrong, Options::default()).contains("2 multiplicities of layers for 1 vectors"));
    let many = Multiplicity { layers: None, images: Some(vec![1 << 32]) };
    assert!(refused(many, Options::default()).contains("2^32"));
    let edges = Options { histograms: vec![vec![0.5, 0.1]], ..Options::default() };
    assert!(refused(Multiplicity::default(), edges).contains("ascending"));
}
