//! Families: rows taken together that lie close to each other.
//!
//! Documents of layers are prefixes of one another, and so their vectors come in dense swarms. A tree
//! of two-means splits ends in families whose distances from their centre are small in sum; a row far
//! from all others is a family by itself. Any division into families is correct for the filter that
//! uses them ([`super::filter::Grouped`]); this one only has to be the same on every rank. So all is
//! computed in plain f32 in a fixed order, with no fused operation: the same bits on any CPU and any
//! number of threads. About log2(n) passes over the rows.

use super::rows::Rows;

/// Up to so many rows every row is looked at to find a split; beyond, a sample.
const SAMPLE: usize = 512;
/// Larger nodes are never split very unevenly, which bounds the depth of the tree.
const SMALL: usize = 64;
/// Larger nodes are split whatever they look like.
const MOST: usize = 1024;

/// A division of rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Families {
    /// All rows, family by family.
    pub order: Vec<u32>,
    /// Where each family ends in `order`.
    pub ends: Vec<u32>,
}

impl Families {
    /// Divides the rows so that the distances from the centre of a family sum to about `spread`.
    pub fn of(rows: &Rows<'_>, spread: f32) -> Self {
        let mut order: Vec<u32> = (0..rows.len() as u32).collect();
        let lengths = if order.is_empty() { Vec::new() } else { divide(rows, &mut order, spread) };
        let ends = lengths.iter().scan(0, |end, length| {
            *end += length;
            Some(*end)
        });
        Self { ends: ends.collect(), order }
    }
}

/// Sorts `order` into families; gives their lengths.
fn divide(rows: &Rows<'_>, order: &mut [u32], spread: f32) -> Vec<u32> {
    let m = order.len();
    let whole = if m <= MOST { distances(rows, order) } else { f32::INFINITY };
    if m == 1 || whole <= spread {
        return vec![m as u32];
    }
    let cut = split(rows, order);
    if m <= SMALL && whole < 3.0 * spread {
        let (left, right) = order.split_at(cut);
        if whole - distances(rows, left) - distances(rows, right) < spread / 2.0 {
            return vec![m as u32];
        }
    }
    let (left, right) = order.split_at_mut(cut);
    let (mut lengths, more) = if m > MOST {
        rayon::join(|| divide(rows, left, spread), || divide(rows, right, spread))
    } else {
        (divide(rows, left, spread), divide(rows, right, spread))
    };
    lengths.extend(more);
    lengths
}

/// Moves the rows on one side of a plane to the front, in their order; gives their number, which is
/// neither 0 nor all.
fn split(rows: &Rows<'_>, order: &mut [u32]) -> usize {
    let m = order.len();
    let step = m.div_ceil(SAMPLE);
    let sample: Vec<&[f32]> = order.iter().step_by(step).map(|i| rows.row(*i as usize)).collect();
    let Some((normal, level)) = plane(&sample, m > SMALL) else { return m / 2 };
    let sides: Vec<f32> = order.iter().map(|i| dot(rows.row(*i as usize), &normal)).collect();
    let front = sides.iter().filter(|s| **s <= level).count();
    let least = if m > SMALL { m / 16 } else { 1 };
    if front >= least && m - front >= least {
        let (front, back): (Vec<_>, Vec<_>) = sides.iter().zip(&*order).partition(|(s, _)| **s <= level);
        let cut = front.len();
        let sorted: Vec<u32> = front.iter().chain(&back).map(|(_, i)| **i).collect();
        order.copy_from_slice(&sorted);
        return cut;
    }
    let mut sorted: Vec<(f32, u32)> = sides.into_iter().zip(order.iter().copied()).collect();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    order.iter_mut().zip(sorted).for_each(|(o, (_, i))| *o = i);
    m / 2
}

/// The plane between two means of these rows: its normal, and the level of `x . normal` on it. `None`
/// if there is no telling them apart.
fn plane(sample: &[&[f32]], large: bool) -> Option<(Vec<f32>, f32)> {
    let dims = sample[0].len();
    let centre = mean(sample.iter().copied(), dims);
    let away: Vec<Vec<f32>> =
        sample.iter().map(|x| x.iter().zip(&centre).map(|(x, c)| x - c).collect()).collect();
    let squares: Vec<f32> = away.iter().map(|z| dot(z, z)).collect();
    let farthest = (0..away.len()).reduce(|a, b| if squares[b] > squares[a] { b } else { a })?;
    let mut normal = away[farthest].clone();
    let mut level = 0.5 * squares[farthest];
    if large {
        // Towards the direction in which the rows differ most.
        for _ in 0..2 {
            let mut next = vec![0.0f32; dims];
            for z in &away {
                let along = dot(z, &normal);
                next.iter_mut().zip(z).for_each(|(n, z)| *n += along * z);
            }
            let length = dot(&next, &next).sqrt();
            if !(length > 0.0 && length.is_finite()) {
                return None;
            }
            normal = next.iter().map(|n| n / length).collect();
        }
        level = 0.0;
    }
    for _ in 0..4 {
        let sides: Vec<bool> = away.iter().map(|z| dot(z, &normal) <= level).collect();
        let side = |which: bool| away.iter().zip(&sides).filter(move |(_, s)| **s == which);
        if side(true).next().is_none() || side(false).next().is_none() {
            return None;
        }
        let means = [true, false].map(|which| mean(side(which).map(|(z, _)| z.as_slice()), dims));
        normal = means[1].iter().zip(&means[0]).map(|(b, a)| b - a).collect();
        level = 0.5
            * means[1]
                .iter()
                .zip(&means[0])
                .map(|(b, a)| b + a)
                .zip(&normal)
                .map(|(s, n)| s * n)
                .sum::<f32>();
    }
    // From distances to the centre back to the rows.
    level += dot(&centre, &normal);
    Some((normal, level))
}

/// Sum of the distances from the mean.
fn distances(rows: &Rows<'_>, these: &[u32]) -> f32 {
    let centre = mean(these.iter().map(|i| rows.row(*i as usize)), rows.dims());
    these.iter().map(|i| squared_distance(rows.row(*i as usize), &centre).sqrt()).sum()
}

/// The mean of some rows; zeros without any.
pub fn mean<'a>(rows: impl Iterator<Item = &'a [f32]>, dims: usize) -> Vec<f32> {
    let (mut sum, mut count) = (vec![0.0f32; dims], 0u32);
    for row in rows {
        sum.iter_mut().zip(row).for_each(|(s, v)| *s += v);
        count += 1;
    }
    let count = count.max(1) as f32;
    sum.iter_mut().for_each(|s| *s /= count);
    sum
}

const LANES: usize = 16;

fn lanes(x: &[f32], y: &[f32], term: impl Fn(f32, f32) -> f32) -> f32 {
    let mut sums = [0.0f32; LANES];
    let (xs, ys) = (x.chunks_exact(LANES), y.chunks_exact(LANES));
    let rest: f32 = xs.remainder().iter().zip(ys.remainder()).map(|(x, y)| term(*x, *y)).sum();
    for (x, y) in xs.zip(ys) {
        for l in 0..LANES {
            sums[l] += term(x[l], y[l]);
        }
    }
    sums.iter().sum::<f32>() + rest
}

fn dot(x: &[f32], y: &[f32]) -> f32 {
    lanes(x, y, |x, y| x * y)
}

fn squared_distance(x: &[f32], y: &[f32]) -> f32 {
    lanes(x, y, |x, y| (x - y) * (x - y))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_in_one_family_and_swarms_stay_together() {
        // Ten swarms of 40 rows around unit vectors, and rows alone between them.
        let dims = 12;
        let mut values = Vec::new();
        for i in 0..400usize {
            for k in 0..dims {
                let swarm = f32::from(u8::from(k == i % 10));
                values.push(swarm + ((i * 31 + k * 17) % 13) as f32 * 1e-4);
            }
        }
        for i in 0..30usize {
            values.extend((0..dims).map(|k| ((i * 7 + k * 5) % 11) as f32 - 5.0));
        }
        let rows = Rows::new(&values, dims);
        let families = Families::of(&rows, 0.5);
        let mut sorted = families.order.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..430).collect::<Vec<_>>());
        assert_eq!(families.ends.last(), Some(&430));
        assert!(families.ends.windows(2).all(|e| e[0] < e[1]));
        let mut start = 0;
        for end in &families.ends {
            let members = &families.order[start as usize..*end as usize];
            assert!(distances(&rows, members) < 1.5, "{members:?}");
            start = *end;
        }
        assert!((11..=60).contains(&families.ends.len()), "{}", families.ends.len());
    }

    #[test]
    fn equal_and_missing_rows() {
        assert!(Families::of(&Rows::new(&[], 3), 0.1).ends.is_empty());
        let same = [0.5f32; 3 * 3000];
        let families = Families::of(&Rows::new(&same, 3), 0.1);
        assert_eq!(families.order.len(), 3000);
        assert!(families.ends.len() <= 4);
    }
}
