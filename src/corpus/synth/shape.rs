//! How many of everything: the published marginals, met exactly.

use super::Recipe;
use super::draw::{Draw, bent, between, fit, stratum};

/// What the study published; the defaults of a [`Recipe`].
pub(super) const PUBLISHED: Recipe = Recipe {
    images: 256_970,
    repositories: 1_521,
    digests: 528_449,
    rows: 2_872_188,
    seed: 1,
    oddities: false,
    losses: false,
};

/// Most tags that the crawl kept of a repository.
pub(super) const TAGS_PER_REPOSITORY: u64 = 500;

/// Rows of the two known empty layers in the published corpus.
const EMPTY_ROWS: [u64; 2] = [67_897, 15_186];

/// Number of digests with at least so many rows. Published up to 101; the rest is scaled from the
/// part of the crawl where it can be counted.
const AT_LEAST: [(u64, u64); 8] = [
    (1, 528_449),
    (2, 216_354),
    (3, 136_054),
    (51, 9_255),
    (101, 3_333),
    (501, 128),
    (1_001, 32),
    (3_001, 8),
];

/// Most rows of a digest that is no empty layer.
const MOST_ROWS: u64 = 12_000;

/// Percentiles of the number of layers of an image, as published (the ends are assumed).
const LAYERS_PER_IMAGE: [(f64, f64); 18] = [
    (0.0, 1.0),
    (0.25, 6.0),
    (0.30, 6.0),
    (0.35, 7.0),
    (0.40, 7.0),
    (0.45, 8.0),
    (0.50, 9.0),
    (0.55, 10.0),
    (0.60, 11.0),
    (0.65, 12.0),
    (0.70, 12.0),
    (0.75, 14.0),
    (0.80, 15.0),
    (0.85, 17.0),
    (0.90, 21.6),
    (0.95, 30.8),
    (0.99, 70.0),
    (1.0, 163.0),
];

/// Percentiles of the compressed size of a layer, as published up to 0.95; the tail is bent so
/// that the mean and the few layers beyond 32 bits come out.
const LAYER_SIZE: [(f64, f64); 21] = [
    (0.0, 32.0),
    (0.05, 120.0),
    (0.25, 626.5),
    (0.30, 857.0),
    (0.35, 1_657.35),
    (0.40, 7_111.0),
    (0.45, 72_955.0),
    (0.50, 473_568.5),
    (0.55, 985_962.0),
    (0.60, 2_207_032.8),
    (0.65, 4_246_327.2),
    (0.70, 9_996_324.0),
    (0.75, 15_568_006.0),
    (0.80, 28_116_804.0),
    (0.85, 46_073_883.0),
    (0.90, 75_411_415.3),
    (0.95, 187_662_232.7),
    (0.99, 900e6),
    (0.999, 3.2e9),
    (0.9999, 4.2e9),
    (1.0, 9_067_270_962.0),
];

/// Share of the images created in each year from 2014 on, counted in the crawl; it ended in May
/// of the last.
const YEARS: [u64; 11] = [6, 23, 1_559, 2_881, 2_808, 4_131, 4_236, 5_401, 4_599, 6_806, 8_762];
/// The seconds at which these years begin, and the end of the crawl.
const YEAR_STARTS: [i64; 12] = [
    1_388_534_400,
    1_420_070_400,
    1_451_606_400,
    1_483_228_800,
    1_514_764_800,
    1_546_300_800,
    1_577_836_800,
    1_609_459_200,
    1_640_995_200,
    1_672_531_200,
    1_704_067_200,
    1_715_990_400,
];
/// Share of the images that are dated 1970-01-01 by reproducible builds.
pub(super) const DATED_1970: f64 = 0.038;

fn segment(table: &[(f64, f64)], u: f64) -> (f64, f64, f64) {
    let next = table.partition_point(|(p, _)| *p <= u).clamp(1, table.len() - 1);
    let ((p, low), (q, high)) = (table[next - 1], table[next]);
    (low, high, ((u - p) / (q - p)).clamp(0.0, 1.0))
}

/// The size of a layer at this quantile.
pub(super) fn layer_size(u: f64) -> u64 {
    let (low, high, t) = segment(&LAYER_SIZE, u);
    between(low, high, t) as u64
}

/// The time at this quantile of the images, in seconds since 1970.
pub(super) fn time_at(u: f64) -> i64 {
    let total: u64 = YEARS.iter().sum();
    let mut rest = u * total as f64;
    for (year, n) in YEARS.iter().enumerate() {
        if rest < *n as f64 || year + 1 == YEARS.len() {
            let length = (YEAR_STARTS[year + 1] - YEAR_STARTS[year]) as f64;
            return YEAR_STARTS[year] + (length * (rest / *n as f64).min(1.0)) as i64;
        }
        rest -= *n as f64;
    }
    YEAR_STARTS[0]
}

/// The number of tags of each repository, in random order.
pub(super) fn tags_per_repository(recipe: &Recipe, draw: &mut Draw) -> Vec<u64> {
    let n = recipe.repositories as usize;
    let bounds = vec![(1, TAGS_PER_REPOSITORY); n];
    let curve = |i, a| 1.0 + TAGS_PER_REPOSITORY as f64 * bent(stratum(i, n), a);
    let mut tags = fit(recipe.images, &bounds, curve, draw);
    draw.shuffle(&mut tags);
    tags
}

/// The number of layers of each image, ascending.
pub(super) fn layers_per_image(recipe: &Recipe, draw: &mut Draw) -> Vec<u64> {
    let n = recipe.images as usize;
    let quantile = |i| {
        let (low, high, t) = segment(&LAYERS_PER_IMAGE, stratum(i, n));
        low + (high - low) * t
    };
    let quantiles: Vec<f64> = (0..n).map(quantile).collect();
    let bounds = vec![(1, recipe.rows); n];
    let mut layers = fit(recipe.rows, &bounds, |i, a| quantiles[i] * a + 0.5, draw);
    layers.sort_unstable();
    layers
}

/// The rows of each digest: first those of the known empty layers (two or none), then the others,
/// descending.
pub(super) struct Repetition {
    pub rows: Vec<u64>,
    pub empty: usize,
}

/// A class of digests: `count` of them with `low..=high` rows.
#[derive(Debug, Clone, Copy)]
struct Class {
    low: u64,
    high: u64,
    count: u64,
}

/// How often each digest is repeated.
pub(super) fn repetition(recipe: &Recipe, draw: &mut Draw) -> Repetition {
    let scaled =
        |n: u64, of: u64, to: u64| (u128::from(n) * u128::from(to) * 2 / u128::from(of)).div_ceil(2) as u64;
    let mut rows: Vec<u64> = EMPTY_ROWS.iter().map(|n| scaled(*n, PUBLISHED.rows, recipe.rows)).collect();
    let others = |rows: &[u64]| recipe.digests.checked_sub(rows.len() as u64);
    let rest = recipe.rows.saturating_sub(rows.iter().sum());
    if rows.contains(&0) || recipe.digests < 8 || others(&rows).is_none_or(|n| n > rest) {
        rows.clear();
    }
    let empty = rows.len();
    let total = recipe.rows - rows.iter().sum::<u64>();

    let at_least: Vec<u64> =
        AT_LEAST.iter().map(|(_, n)| scaled(*n, PUBLISHED.digests, recipe.digests)).collect();
    let mut classes: Vec<Class> = (0..AT_LEAST.len())
        .map(|k| Class {
            low: AT_LEAST[k].0,
            high: AT_LEAST.get(k + 1).map_or(MOST_ROWS, |next| next.0 - 1),
            count: at_least[k] - at_least.get(k + 1).copied().unwrap_or(0),
        })
        .collect();
    for n in &rows {
        // The empty layers are counted in the published classes, too.
        let class = classes.iter().rposition(|c| c.low <= *n && c.count > 0);
        let class = class.or_else(|| classes.iter().position(|c| c.count > 0)).unwrap_or(0);
        classes[class].count -= 1;
    }
    // In a small corpus no layer is in most of the images either.
    limit(&mut classes, (recipe.images / 20).max(8).min(recipe.images));
    lower(&mut classes, total);
    raise(&mut classes, total, recipe.images);

    let mut bounds = Vec::with_capacity(recipe.digests as usize);
    let mut places = Vec::with_capacity(recipe.digests as usize);
    for class in &classes {
        for i in 0..class.count as usize {
            bounds.push((class.low, class.high));
            places.push(stratum(i, class.count as usize));
        }
    }
    let curve = |i: usize, a| {
        let (low, high) = bounds[i];
        low as f64 + (high - low + 1) as f64 * bent(places[i], a)
    };
    let mut fitted = fit(total, &bounds, curve, draw);
    fitted.sort_unstable_by(|a, b| b.cmp(a));
    rows.append(&mut fitted);
    assert_eq!(rows.len() as u64, recipe.digests);
    assert_eq!(rows.iter().sum::<u64>(), recipe.rows);
    Repetition { rows, empty }
}

/// Cuts the classes off at `most` rows; higher ones go into the highest that is left.
fn limit(classes: &mut Vec<Class>, most: u64) {
    while let [.., below, top] = classes.as_mut_slice() {
        if top.low <= most {
            break;
        }
        below.count += top.count;
        classes.pop();
    }
    if let Some(top) = classes.last_mut() {
        top.high = top.high.min(most).max(top.low);
    }
}

/// Moves digests to lower classes until the least sum of rows is no more than `total`.
fn lower(classes: &mut [Class], total: u64) {
    loop {
        let least: u64 = classes.iter().map(|c| c.low * c.count).sum();
        let Some(excess) = least.checked_sub(total).filter(|n| *n > 0) else { return };
        let top = classes.iter().rposition(|c| c.count > 0).filter(|k| *k > 0);
        let k = top.expect("a digest has one row at least");
        let moved = excess.div_ceil(classes[k].low - classes[k - 1].low).min(classes[k].count);
        classes[k].count -= moved;
        classes[k - 1].count += moved;
    }
}

/// Moves digests to higher classes, then lifts the limit, until the greatest sum reaches `total`.
fn raise(classes: &mut [Class], total: u64, images: u64) {
    loop {
        let most: u64 = classes.iter().map(|c| c.high * c.count).sum();
        let Some(lack) = total.checked_sub(most).filter(|n| *n > 0) else { return };
        let last = classes.len() - 1;
        match classes[..last].iter().rposition(|c| c.count > 0) {
            Some(k) => {
                let gain = (classes[k + 1].high - classes[k].high).max(1);
                let moved = lack.div_ceil(gain).min(classes[k].count);
                classes[k].count -= moved;
                classes[k + 1].count += moved;
            }
            // Beyond the number of images a digest has to stand in some of them repeatedly.
            None if classes[last].high >= images => classes[last].high = total,
            None => classes[last].high = images,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::draw::Stream;
    use super::*;

    #[test]
    fn sizes_follow_the_percentiles() {
        assert_eq!(layer_size(0.0), 32);
        assert_eq!(layer_size(0.5), 473_568);
        let n = 100_000;
        let sizes: Vec<u64> = (0..n).map(|i| layer_size(stratum(i, n))).collect();
        assert!(sizes.is_sorted());
        let mean = sizes.iter().sum::<u64>() / n as u64;
        assert!((45_000_000..55_000_000).contains(&mean), "{mean}");
        let large = sizes.iter().filter(|s| **s > u64::from(u32::MAX)).count();
        assert!((5..20).contains(&large), "{large}");
    }

    #[test]
    fn times_cover_the_years() {
        assert_eq!(time_at(0.0), YEAR_STARTS[0]);
        assert!(time_at(0.999_999) <= YEAR_STARTS[11]);
        assert!((0..1000).map(|i| time_at(stratum(i, 1000))).is_sorted());
    }

    #[test]
    fn the_published_repetition_is_exact() {
        let mut draw = Draw::new(1, Stream::Shape, 0);
        let found = repetition(&PUBLISHED, &mut draw);
        assert_eq!((found.empty, found.rows[0], found.rows[1]), (2, 67_897, 15_186));
        assert!(found.rows.is_sorted_by(|a, b| a >= b));
        for (least, wanted) in AT_LEAST {
            assert_eq!(found.rows.iter().filter(|n| **n >= least).count() as u64, wanted, "{least}");
        }
        assert_eq!(found.rows.iter().filter(|n| **n == 1).count(), 312_095);
    }
}
